//! HLS playlists (draft-pantos-hls-rfc8216bis, "RFC 8216bis" below): pure functions of snapshots, and a strict parser
//! of what is rendered.
//!
//! Segments are eight parts, 3.84 s, numbered from doors: the segment's number is its media sequence number. A
//! replay says where to begin with [`StartOffset::FromStart`], so that the slate before the start stays there and is
//! skipped.

mod delayed;
mod parse;
mod render;

use std::time::Duration;

use model::{PARTS_PER_SEGMENT, Rendition, SEGMENT_DURATION, UnixTime};

pub use delayed::{
    DELAY_LEAST, DELAY_MOST, DELAYED_BEHIND, DELAYED_DURATION, DELAYED_JOIN, DELAYED_TARGET_DURATION_S,
    delayed_segments, delayed_uri,
};

/// Seconds of [`MediaPlaylist::target_duration`] for segments of 3.84 s.
pub const TARGET_DURATION_S: u32 = 4;

/// Longest playlist that is parsed, in bytes: 8 MiB, some 40,000 segments of ours.
pub const MAX_PLAYLIST: usize = 8 << 20;

/// One segment of a media playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its address, relative to the playlist: one line, not empty, not beginning with `#`.
    pub uri: String,
    /// Its duration.
    pub duration: Duration,
    /// When its first sample is due in civil time, in whole milliseconds: what is finer is cut off.
    pub program_date_time: UnixTime,
    /// Whether it is absent (`EXT-X-GAP`). Our gap parts are real silent audio, so usually not.
    pub gap: bool,
    /// Whether timestamps or format break before it (`EXT-X-DISCONTINUITY`). Ours never do: the timeline of an event
    /// is one, whatever origin went through.
    pub discontinuity: bool,
    /// Offset and length within the resource (`EXT-X-BYTERANGE`).
    pub byte_range: Option<(u64, u64)>,
}

/// Whether and how a media playlist may change (`EXT-X-PLAYLIST-TYPE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PlaylistType {
    /// Segments come at the end and go at the front.
    #[default]
    Sliding,
    /// Segments only come at the end.
    Event,
    /// Nothing changes.
    Vod,
}

/// Where players begin (`EXT-X-START`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOffset {
    /// This long after the beginning of the first segment.
    FromStart(Duration),
    /// This long before the end of the last segment.
    FromEnd(Duration),
}

/// What low latency HLS adds to a media playlist whose server holds a reload back until there is something new
/// (`CAN-BLOCK-RELOAD`). Players that do not know it pass over all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowLatency {
    /// No part is longer (`PART-TARGET`).
    pub part_target: Duration,
    /// How far from the end players should stay at least (`PART-HOLD-BACK`): two part targets or more, three by the
    /// draft's advice.
    pub part_hold_back: Duration,
    /// The parts that are listed, oldest first: those of the last segments, and of the one that is not whole yet. Of a
    /// segment all or none, since players count them.
    pub parts: Vec<PartialSegment>,
    /// When the first sample of the segment that is not whole yet is due, as [`Segment::program_date_time`]. Given if,
    /// and only if, some of its parts are listed.
    pub next_date: Option<UnixTime>,
    /// Address of the part that comes next, which may be asked for already (`EXT-X-PRELOAD-HINT`).
    pub preload_hint: Option<String>,
    /// How the other renditions stand at this moment (`EXT-X-RENDITION-REPORT`).
    pub reports: Vec<RenditionReport>,
}

/// One part in a media playlist (`EXT-X-PART`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialSegment {
    /// Number of its segment, which may not be whole yet.
    pub segment: u64,
    /// Its address, as [`Segment::uri`]; without quotes.
    pub uri: String,
    /// Its duration.
    pub duration: Duration,
    /// Whether it can be played without the parts before it.
    pub independent: bool,
    /// Whether it is absent.
    pub gap: bool,
}

/// The end of another rendition's media playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenditionReport {
    /// Its media playlist, relative to this one; without quotes.
    pub uri: String,
    /// Number of the segment that its last part belongs to.
    pub last_segment: u64,
    /// Place of that part in its segment, from 0.
    pub last_part: u64,
}

/// Snapshot of a media playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPlaylist {
    /// Address of the `init` (`EXT-X-MAP`); `None` for packed audio.
    pub init_uri: Option<String>,
    /// Whether the playlist slides, grows or stands.
    pub kind: PlaylistType,
    /// No segment is longer, rounded to seconds: [`TARGET_DURATION_S`].
    pub target_duration: u32,
    /// Number of the first segment.
    pub media_sequence: u64,
    /// Discontinuities before the first segment.
    pub discontinuity_sequence: u64,
    /// Where players begin, if not by their own rule.
    pub start_offset: Option<StartOffset>,
    /// Segments, oldest first.
    pub segments: Vec<Segment>,
    /// Whether nothing more comes (`EXT-X-ENDLIST`).
    pub ended: bool,
    /// Parts and blocking reload, if it has them.
    pub low_latency: Option<LowLatency>,
}

impl MediaPlaylist {
    /// `EXT-X-VERSION`: the lowest that knows every feature used (RFC 8216bis section 8). `EXT-X-GAP` is counted as of
    /// version 8, with which it appeared. Parts ask for none: who does not know them passes over them.
    pub fn version(&self) -> u8 {
        if self.segments.iter().any(|segment| segment.gap) {
            8
        } else if self.init_uri.is_some() {
            6
        } else if self.segments.iter().any(|segment| segment.byte_range.is_some()) {
            4
        } else {
            3 // Durations with fractions.
        }
    }

    /// The playlist's text. Nothing is checked here; [`Self::parse`] refuses what players would.
    pub fn render(&self) -> String {
        render::media(self)
    }

    /// Reads what [`Self::render`] writes, strictly.
    ///
    /// # Errors
    /// [`HlsError`] for any other text, and for playlists that break a rule of RFC 8216bis.
    pub fn parse(text: &str) -> Result<Self, HlsError> {
        parse::media(text)
    }
}

/// Bits a second of a rendition on the wire: boxes, tags and records included, HTTP excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// Of the largest segment (`BANDWIDTH`).
    pub peak: u32,
    /// Of all segments (`AVERAGE-BANDWIDTH`).
    pub average: u32,
}

/// Bytes of one signed chain record, with the box or ID3 frame around it.
const RECORD: u64 = 256;

impl Bandwidth {
    /// What a rendition takes in our packaging: frames, boxes around them and a chain record a segment; at its peak
    /// two records, a mark on every part, and what constrained variable bitrate may exceed its mean by.
    pub const fn of(rendition: Rendition) -> Self {
        /// Header of a part with frames of one size, and with a table of sizes.
        const EQUAL: u64 = 100;
        const TABLE: u64 = 192;
        /// `UUID_PART_INFO` with its content.
        const MARK: u64 = 26;
        let frames = rendition.bits_per_second() as u64 * 480 / 8_000;
        let (part, part_peak, segment) = match rendition {
            Rendition::Opus24 => (frames + TABLE, frames * 23 / 20 + TABLE + MARK, 0),
            Rendition::Opus48 => (frames + EQUAL, frames + EQUAL + MARK, 0),
            Rendition::Mp3_64 => (frames, frames, 73),
        };
        Self {
            peak: per_second(part_peak * PARTS_PER_SEGMENT + segment + 2 * RECORD),
            average: per_second(part * PARTS_PER_SEGMENT + segment + RECORD),
        }
    }

    /// What segments of these sizes and durations take; `None` if they last no time.
    pub fn measured(segments: impl IntoIterator<Item = (u64, Duration)>) -> Option<Self> {
        let mut bits = 0u128;
        let mut time = Duration::ZERO;
        let mut peak = 0;
        let rate = |bits: u128, time: Duration| {
            let rate = (bits * 1_000_000_000).checked_div(time.as_nanos())?;
            Some(u32::try_from(rate).unwrap_or(u32::MAX))
        };
        for (bytes, duration) in segments {
            bits += u128::from(bytes) * 8;
            time = time.saturating_add(duration);
            peak = peak.max(rate(u128::from(bytes) * 8, duration).unwrap_or(0));
        }
        Some(Self { peak, average: rate(bits, time)? })
    }
}

/// Bits a second of a segment of so many bytes, rounded up.
const fn per_second(bytes: u64) -> u32 {
    (bytes * 8_000).div_ceil(SEGMENT_DURATION.as_millis() as u64) as u32
}

/// One variant of a multivariant playlist (`EXT-X-STREAM-INF`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its media playlist, relative to the multivariant one.
    pub uri: String,
    /// What it takes.
    pub bandwidth: Bandwidth,
    /// `CODECS`: see [`codecs`]. Without quotes.
    pub codecs: String,
}

impl Variant {
    /// A rendition of ours with its own bandwidth and codecs.
    pub fn of(rendition: Rendition, uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), bandwidth: Bandwidth::of(rendition), codecs: codecs(rendition).to_owned() }
    }
}

/// `CODECS` of a rendition: `Opus`, since Safari refuses `opus`, or `mp4a.40.34`.
pub const fn codecs(rendition: Rendition) -> &'static str {
    match rendition {
        Rendition::Opus24 | Rendition::Opus48 => "Opus",
        Rendition::Mp3_64 => "mp4a.40.34",
    }
}

/// Snapshot of a multivariant playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultivariantPlaylist {
    /// Variants; players that do not measure begin with the first.
    pub variants: Vec<Variant>,
}

impl MultivariantPlaylist {
    /// The playlist's text.
    pub fn render(&self) -> String {
        render::multivariant(self)
    }

    /// Reads what [`Self::render`] writes, strictly.
    ///
    /// # Errors
    /// [`HlsError`] for any other text.
    pub fn parse(text: &str) -> Result<Self, HlsError> {
        parse::multivariant(text)
    }
}

/// A text that is not a playlist as we render them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HlsError {
    /// The first line is not `#EXTM3U`.
    #[error("no #EXTM3U at the beginning")]
    NotAPlaylist,
    /// Longer than [`MAX_PLAYLIST`].
    #[error("over {MAX_PLAYLIST} bytes")]
    TooLong,
    /// A line that does not belong there, or cannot be read.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A tag that must be there is not.
    #[error("no {tag}")]
    Missing {
        /// The tag.
        tag: &'static str,
    },
    /// A segment longer than the target duration, when rounded.
    #[error("segment {number} is longer than the target duration")]
    SegmentTooLong {
        /// Its media sequence number.
        number: u64,
    },
    /// A part longer than the part target.
    #[error("a part of segment {number} is longer than the part target")]
    PartTooLong {
        /// The segment's media sequence number.
        number: u64,
    },
    /// Parts that last longer or shorter than their segment.
    #[error("the parts of segment {number} do not make it up")]
    PartsDiffer {
        /// Its media sequence number.
        number: u64,
    },
    /// `PART-HOLD-BACK` is less than twice the part target.
    #[error("the hold back is less than two part targets")]
    HoldBack,
    /// `EXT-X-VERSION` is not the one that the features used ask for.
    #[error("version {said}, where the features used ask for {needed}")]
    Version {
        /// The one given.
        said: u8,
        /// The one needed.
        needed: u8,
    },
}
