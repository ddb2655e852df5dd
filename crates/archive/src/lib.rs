//! The recording: append-only log, index, recovery, replay and downloads.
