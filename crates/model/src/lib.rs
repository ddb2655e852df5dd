//! Ids, units, media time, and the event, part and role types that every room shares.
//!
//! This crate decides nothing and reads no clock. It derives no serialisation: shells convert at the border
//! (`backend::wire` for the bus and the disk, `control` for the API).

mod event;
mod part;
mod text;
mod time;

pub use event::{
    Bilingual, Event, EventSlug, GreenRoom, InvalidSlug, InviteId, KeyId, Role, Seat, SeatId, SeatSource,
    ShowState,
};
pub use part::{
    ChainRecord, Digest, Epoch, Part, PartKind, PartNumber, Payload, Rendition, SegmentNumber,
    UnknownRendition,
};
pub use text::{InvalidTitle, clean_line};
pub use time::{
    Anchor, BootId, BootTime, ClockReading, InvalidTime, MP3_FRAME_SAMPLES, MP3_FRAMES_PER_PART, MediaTime,
    OPUS_FRAME_SAMPLES, OPUS_FRAMES_PER_PART, PART_DURATION, PART_SAMPLES, PARTS_PER_SEGMENT, SAMPLE_RATE,
    SEGMENT_DURATION, UnixTime,
};
