//! Parts: what is packaged once and carried everywhere.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::{MediaTime, PART_SAMPLES, PARTS_PER_SEGMENT};

/// Number of a part: part `n` covers `[n·480 ms, (n+1)·480 ms)` from doors. Never names two different contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber(u64);

impl PartNumber {
    /// The part that begins at doors.
    pub const ZERO: Self = Self(0);

    /// From its number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The part after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The part `count` later.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// The part `count` earlier, part 0 at the least.
    #[must_use]
    pub const fn minus(self, count: u64) -> Self {
        Self(self.0.saturating_sub(count))
    }

    /// Its first sample.
    pub const fn start(self) -> MediaTime {
        MediaTime::from_samples(self.0.saturating_mul(PART_SAMPLES))
    }

    /// The segment it belongs to.
    pub const fn segment(self) -> SegmentNumber {
        SegmentNumber(self.0 / PARTS_PER_SEGMENT)
    }

    /// Its place in the segment, `0..8`.
    pub const fn index_in_segment(self) -> u64 {
        self.0 % PARTS_PER_SEGMENT
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a segment: eight parts, numbered from doors. It is the media sequence number of HLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(u64);

impl SegmentNumber {
    /// From its number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Its first part.
    pub const fn first_part(self) -> PartNumber {
        PartNumber(self.0.saturating_mul(PARTS_PER_SEGMENT))
    }

    /// The segment after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One incarnation of origin, counted from 1 for each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// One way the programme is encoded, named by codec and kbit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rendition {
    /// Opus, 24 kbit/s, constrained variable bitrate, in CMAF.
    Opus24,
    /// Opus, 48 kbit/s, constant bitrate, in CMAF.
    Opus48,
    /// MPEG-1 Layer III, 64 kbit/s, constant bitrate without a bit reservoir.
    Mp3_64,
}

/// A rendition's name that is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no rendition; there are opus-24, opus-48 and mp3-64")]
pub struct UnknownRendition {
    /// What was given, at most 64 characters of it.
    pub name: String,
}

impl Rendition {
    /// All, in the order of [`Part::payloads`].
    pub const ALL: [Self; 3] = [Self::Opus24, Self::Opus48, Self::Mp3_64];

    /// Its name in addresses and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opus24 => "opus-24",
            Self::Opus48 => "opus-48",
            Self::Mp3_64 => "mp3-64",
        }
    }

    /// Nominal bits a second of its audio.
    pub const fn bits_per_second(self) -> u32 {
        match self {
            Self::Opus24 => 24_000,
            Self::Opus48 => 48_000,
            Self::Mp3_64 => 64_000,
        }
    }

    /// Whether its parts are CMAF chunks (Opus in fragmented MP4). MP3 parts are bare frames.
    pub const fn is_cmaf(self) -> bool {
        !matches!(self, Self::Mp3_64)
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Rendition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rendition {
    type Err = UnknownRendition;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|rendition| rendition.name() == name)
            .ok_or_else(|| UnknownRendition { name: name.chars().take(64).collect() })
    }
}

/// What the programme carried when a part began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartKind {
    /// The slate before the start.
    Slate,
    /// The stage.
    Live,
    /// The hold slate during the event.
    Hold,
    /// Silence in place of a part that was never made (origin was away).
    Gap,
}

/// SHA-256.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The bytes of a part in one rendition: `moof` and `mdat` (boxes of ours before them included), or MP3 frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Exactly what is pushed, served, recorded and signed.
    pub bytes: Bytes,
    /// SHA-256 of `bytes`.
    pub digest: Digest,
}

impl Payload {
    /// Wraps bytes and hashes them.
    pub fn new(bytes: Bytes) -> Self {
        let digest = Digest::of(&bytes);
        Self { bytes, digest }
    }
}

/// A signed link of the chain of hashes, in the canonical bytes that `packager::chain` writes and reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainRecord(pub Bytes);

/// A part in every rendition, with the chain records that became known with it. Immutable; cloning shares bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number.
    pub number: PartNumber,
    /// The incarnation of origin that made it.
    pub epoch: Epoch,
    /// What it carries.
    pub kind: PartKind,
    /// Its bytes, in the order of [`Rendition::ALL`].
    pub payloads: [Payload; 3],
    /// Chain records to be kept beside the recording: the epoch's own with its first part, and the previous
    /// segment's, one a rendition, with the first part of each segment.
    pub records: Vec<ChainRecord>,
}

impl Part {
    /// Its bytes in one rendition.
    pub fn payload(&self, rendition: Rendition) -> &Payload {
        &self.payloads[rendition.index()]
    }
}
