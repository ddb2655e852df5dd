//! The role that speakers meet: WebRTC, WHIP and Icecast ingest around the stage, programme, packager and recorder.
