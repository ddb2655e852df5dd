//! Byte formats, pure: fragmented MP4, HLS playlists, Ogg, MP3, ID3 and ICY: write and parse.
//!
//! Everything here is a plain function of its arguments, or a small incremental parser fed by `push`. There is no
//! clock, no socket and no codec. Writers turn frames that the programme encoded into the bytes that are pushed,
//! served, recorded and signed; parsers read those bytes back, and what Icecast sources send. Parsers never panic,
//! whatever they are given, and hold no more memory than the constants beside them say.
//!
//! | Module | Writes | Reads |
//! | --- | --- | --- |
//! | [`mp4`] | `init`, parts, `emsg`, `uuid` | parts; a pushed stream cut into its items |
//! | [`hls`] | multivariant and media playlists | the same, strictly |
//! | [`ogg`] | endless Ogg/Opus from parts | Ogg/Opus from untrusted sources |
//! | [`opus`] | | tables of contents: how long a packet is |
//! | [`mp3`] | ID3 timestamps, ICY metadata, the table of a download | frames, ID3 of packed audio |

mod cursor;
pub mod hls;
pub mod mp3;
pub mod mp4;
pub mod ogg;
pub mod opus;

#[doc(hidden)]
pub mod fuzz;
