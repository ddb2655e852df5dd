//! The recording: append-only log, index, recovery, replay and downloads.
//!
//! [`Recorder`] sits beside the packager, on a thread of its own at origin: a part comes in, is appended to one file a
//! rendition, to an index and to the log of chain records, and is on the disk when the call returns. [`Recording`]
//! reads the same files from any other process, also while they grow: it serves what edges no longer hold in memory,
//! replay, downloads and clips, without copying or encoding anything.
//!
//! ```text
//! {data directory}/recordings/{event}/
//!   opus-24.mp4  opus-48.mp4    init · free (16 KiB, room for a C2PA manifest) · parts; after the end the last records
//!   mp3-64.mp3                  bare frames, part after part
//!   opus-24.index …             one record of 80 bytes a part (see `index`)
//!   chain.log                   chain records, framed (see `log`)
//!   marks.json                  doors, live_at, ended_at
//!   lock                        held by the one recorder
//! ```
//!
//! INTERFACE.md names the file of every rendition `{rendition}.mp4`. MP3 does not live in MP4 here, because its parts
//! are bare frames everywhere else and a part has one form only; its file is `mp3-64.mp3`.
//!
//! A recording may be spread over several data directories (*volumes*): when writing fails in one, the recorder moves
//! to the next and writes the last minute there again from memory; readers join them.
//!
//! Nothing here reads a clock. What can fail is a disk; every path of failure is tested through [`Files`].

mod clip;
pub mod download;
mod error;
mod files;
mod index;
mod log;
mod marks;
pub mod playlist;
mod reader;
mod recorder;
mod volume;

pub use download::{Clip, Download, Span};
pub use error::ArchiveError;
pub use files::{DiskFiles, File, Files};
pub use index::IndexEntry;
pub use marks::{Marks, Moment};
pub use reader::{Location, Recording};
pub use recorder::{RING_PARTS, Recorder, RecorderConfig, Recovered, Statistics, Sync};
pub use volume::event_directory;
