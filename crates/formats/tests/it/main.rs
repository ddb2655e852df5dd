//! The formats, by what others make of them: Debian's ffmpeg decodes what is written, and everything written is read
//! back. Audio is encoded by the codecs that the programme uses.

mod audio;
mod ffmpeg;
mod hls;
mod mp3;
mod mp4;
mod ogg;
mod robustness;
