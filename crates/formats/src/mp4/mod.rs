//! Fragmented MP4 (ISO/IEC 14496-12; CMAF, ISO/IEC 23000-19) with Opus ("Encapsulation of Opus in ISO Base Media File
//! Format"): the one `init`, parts, and the boxes between them.
//!
//! ```text
//! pushed stream   init ─ part ─ part ─ emsg ─ part ─ …
//! recording       init ─ free ─ part ─ part ─ part ─ …
//!
//! init            ftyp · moov(mvhd trak mvex(trex: every sample lasts 960))
//! part            [uuid]* · moof(mfhd traf(tfhd tfdt trun)) · mdat     24 Opus packets of 20 ms
//! ```
//!
//! A part costs 100 bytes beside its frames when they are all of one size (`default_sample_size` in `tfhd`) and 192
//! when they are not (a table in `trun`). Both kinds play under the one `init`.
//!
//! Deliberate departures: no `styp` before a part (brands stand in `init`, which CMAF allows for chunks), and no `roll`
//! sample group (players take the 80 ms of pre-roll from the codec; a group would cost 28 bytes a part).

mod read;
mod split;
mod write;

pub use read::{ParsedPart, parse_part};
pub use split::{StreamItem, StreamSplitter};
pub use write::{
    IndexEntry, PartBoxes, init_name, opus_init, write_emsg, write_free, write_part, write_sidx, write_uuid,
};

/// Largest box, and largest part with the boxes before it, that is read: 1 MiB.
pub const MAX_BOX: usize = 1 << 20;

/// Largest Opus packet of 20 ms: one byte table of contents and 1275 bytes of frame (RFC 6716 section 3.2.1).
pub const MAX_FRAME: usize = 1_276;

/// `uuid` box that carries one signed chain record of the packager (UUID version 8, RFC 9562).
pub const UUID_CHAIN: [u8; 16] = *b"minass\x8aa\x80chain\x00\x01";

/// `uuid` box on gap and hold parts, with one byte version (1) and one byte kind (UUID version 8, RFC 9562).
pub const UUID_PART_INFO: [u8; 16] = *b"minass\x8aa\x80part\x00\x00\x01";

/// Seconds are cut into as many units everywhere: the sample rate.
pub const TIMESCALE: u32 = model::SAMPLE_RATE;

/// The only track.
const TRACK_ID: u32 = 1;

/// `tfhd`: data offsets count from the beginning of the `moof`.
const DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
/// `tfhd`: all samples have the size given there.
const DEFAULT_SAMPLE_SIZE: u32 = 0x00_0010;
/// `trun`: a data offset is given.
const DATA_OFFSET: u32 = 0x00_0001;
/// `trun`: each sample's size is given.
const SAMPLE_SIZES: u32 = 0x00_0200;

/// Bytes that are not the MP4 we read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mp4Error {
    /// The bytes end within a box, or before the boxes that must follow.
    #[error("cut short")]
    Truncated,
    /// A box says it is larger than [`MAX_BOX`], or a part with the boxes before it is.
    #[error("a box {} of {size} bytes; at most {MAX_BOX} are read", name(kind))]
    TooLarge {
        /// Its type.
        kind: [u8; 4],
        /// The size it or the part would have.
        size: u64,
    },
    /// A box says it is smaller than its own header, or open-ended.
    #[error("a box {} of impossible size {size}", name(kind))]
    BadSize {
        /// Its type.
        kind: [u8; 4],
        /// The size it gives.
        size: u64,
    },
    /// A box where it may not be.
    #[error("a box {} that is out of place", name(kind))]
    Misplaced {
        /// Its type.
        kind: [u8; 4],
    },
    /// A box whose content is not one that we write.
    #[error("a box {} with {what}", name(kind))]
    Unsupported {
        /// Its type.
        kind: [u8; 4],
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A box type for people to read: anything may stand in one.
fn name(kind: &[u8; 4]) -> String {
    kind.escape_ascii().to_string()
}
