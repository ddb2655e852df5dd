use std::time::Duration;

use model::UnixTime;

use super::render::MULTIVARIANT_VERSION;
use super::{
    Bandwidth, HlsError, LowLatency, MAX_PLAYLIST, MediaPlaylist, MultivariantPlaylist, PartialSegment,
    PlaylistType, RenditionReport, Segment, StartOffset, Variant,
};

/// Lines after `#EXTM3U`, with their numbers counted from 1.
fn lines(text: &str) -> Result<impl Iterator<Item = (usize, &str)>, HlsError> {
    if text.len() > MAX_PLAYLIST {
        return Err(HlsError::TooLong);
    }
    let mut lines = (1..).zip(text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)));
    match lines.next() {
        Some((_, "#EXTM3U")) => Ok(lines),
        _ => Err(HlsError::NotAPlaylist),
    }
}

/// A line's tag and value, a URI, or nothing that matters.
enum Line<'a> {
    Tag(&'a str, Option<&'a str>),
    Uri(&'a str),
    Blank,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Self {
        match line.strip_prefix('#') {
            Some(tag) if tag.starts_with("EXT") => match tag.split_once(':') {
                Some((tag, value)) => Self::Tag(tag, Some(value)),
                None => Self::Tag(tag, None),
            },
            Some(_) => Self::Blank, // A comment.
            None if line.is_empty() => Self::Blank,
            None => Self::Uri(line),
        }
    }
}

/// Sets what may be given once.
fn once<T>(place: &mut Option<T>, value: Option<T>) -> Result<(), &'static str> {
    if place.is_some() {
        return Err("given twice");
    }
    *place = Some(value.ok_or("unreadable")?);
    Ok(())
}

#[derive(Default)]
struct Media {
    version: Option<u8>,
    target_duration: Option<u32>,
    media_sequence: Option<u64>,
    discontinuity_sequence: Option<u64>,
    kind: Option<PlaylistType>,
    independent: Option<()>,
    start: Option<StartOffset>,
    init_uri: Option<String>,
    ended: Option<()>,
    segments: Vec<Segment>,
    next: Pending,
    hold_back: Option<Duration>,
    part_target: Option<Duration>,
    parts: Vec<PartialSegment>,
    preload_hint: Option<String>,
    reports: Vec<RenditionReport>,
}

/// Tags before a segment's URI.
#[derive(Default)]
struct Pending {
    any: bool,
    duration: Option<Duration>,
    date: Option<UnixTime>,
    gap: Option<()>,
    discontinuity: Option<()>,
    byte_range: Option<(u64, u64)>,
    parts: bool,
}

impl Pending {
    /// Whether these are the date and parts of a segment that is not whole yet, or nothing.
    fn may_stay(&self) -> bool {
        let finishing = self.duration.is_some()
            || self.gap.is_some()
            || self.discontinuity.is_some()
            || self.byte_range.is_some();
        !self.any || (self.parts && !finishing)
    }
}

pub(super) fn media(text: &str) -> Result<MediaPlaylist, HlsError> {
    let mut media = Media::default();
    for (line, content) in lines(text)? {
        let result = match Line::of(content) {
            Line::Tag(tag, value) => media.tag(tag, value),
            Line::Uri(uri) => media.uri(uri),
            Line::Blank => Ok(()),
        };
        result.map_err(|what| HlsError::Line { line, what })?;
    }
    if !media.next.may_stay() {
        return Err(HlsError::Missing { tag: "segment after its tags" });
    }
    let low_latency = media.low_latency()?;
    let said = media.version.ok_or(HlsError::Missing { tag: "EXT-X-VERSION" })?;
    media.independent.ok_or(HlsError::Missing { tag: "EXT-X-INDEPENDENT-SEGMENTS" })?;
    let playlist = MediaPlaylist {
        init_uri: media.init_uri,
        kind: media.kind.unwrap_or_default(),
        target_duration: media.target_duration.ok_or(HlsError::Missing { tag: "EXT-X-TARGETDURATION" })?,
        media_sequence: media.media_sequence.ok_or(HlsError::Missing { tag: "EXT-X-MEDIA-SEQUENCE" })?,
        discontinuity_sequence: media.discontinuity_sequence.unwrap_or(0),
        start_offset: media.start,
        segments: media.segments,
        ended: media.ended.is_some(),
        low_latency,
    };
    let longest = |segment: &Segment| {
        let half = u64::from(segment.duration.subsec_millis() >= 500);
        segment.duration.as_secs().saturating_add(half)
    };
    let over = |segment: &Segment| longest(segment) > u64::from(playlist.target_duration);
    if let Some(index) = playlist.segments.iter().position(over) {
        return Err(HlsError::SegmentTooLong {
            number: playlist.media_sequence.saturating_add(index as u64),
        });
    }
    check_parts(&playlist)?;
    let needed = playlist.version();
    if said == needed { Ok(playlist) } else { Err(HlsError::Version { said, needed }) }
}

/// The rules of parts (RFC 8216bis sections 4.4.3.8 and 4.4.4.9).
fn check_parts(playlist: &MediaPlaylist) -> Result<(), HlsError> {
    let Some(low) = &playlist.low_latency else { return Ok(()) };
    if low.part_hold_back < low.part_target.saturating_mul(2) {
        return Err(HlsError::HoldBack);
    }
    if let Some(part) = low.parts.iter().find(|part| part.duration > low.part_target) {
        return Err(HlsError::PartTooLong { number: part.segment });
    }
    for parts in low.parts.chunk_by(|a, b| a.segment == b.segment) {
        let number = parts[0].segment;
        let segment = usize::try_from(number - playlist.media_sequence);
        let segment = segment.ok().and_then(|index| playlist.segments.get(index));
        let time = parts.iter().try_fold(Duration::ZERO, |sum, part| sum.checked_add(part.duration));
        if segment.is_some_and(|segment| time != Some(segment.duration)) {
            return Err(HlsError::PartsDiffer { number });
        }
    }
    Ok(())
}

impl Media {
    /// What low latency HLS adds, once everything is read.
    fn low_latency(&mut self) -> Result<Option<LowLatency>, HlsError> {
        let any = !self.parts.is_empty() || self.preload_hint.is_some() || !self.reports.is_empty();
        let (part_hold_back, part_target) = match (self.hold_back, self.part_target) {
            (None, None) if !any => return Ok(None),
            (None, _) => return Err(HlsError::Missing { tag: "EXT-X-SERVER-CONTROL" }),
            (_, None) => return Err(HlsError::Missing { tag: "EXT-X-PART-INF" }),
            (Some(hold_back), Some(target)) => (hold_back, target),
        };
        Ok(Some(LowLatency {
            part_target,
            part_hold_back,
            parts: std::mem::take(&mut self.parts),
            next_date: self.next.date,
            preload_hint: self.preload_hint.take(),
            reports: std::mem::take(&mut self.reports),
        }))
    }

    fn tag(&mut self, tag: &str, value: Option<&str>) -> Result<(), &'static str> {
        if self.ended.is_some() {
            return Err("a tag after the end");
        }
        let next = &mut self.next;
        // What stands at the end.
        match (tag, value) {
            ("EXT-X-PRELOAD-HINT" | "EXT-X-RENDITION-REPORT", _) if !next.may_stay() => {
                return Err("a segment described by half");
            }
            ("EXT-X-PRELOAD-HINT", Some(value)) if self.reports.is_empty() => {
                let uri = value.strip_prefix("TYPE=PART,URI=").and_then(quoted);
                return once(&mut self.preload_hint, uri.map(str::to_owned));
            }
            ("EXT-X-RENDITION-REPORT", Some(value)) => {
                self.reports.push(report(value).ok_or("unreadable")?);
                return Ok(());
            }
            _ if self.preload_hint.is_some() || !self.reports.is_empty() => {
                return Err("a tag after what stands at the end");
            }
            _ => (),
        }
        // What describes the next segment.
        match (tag, value) {
            ("EXT-X-PART", Some(value)) if next.duration.is_none() => {
                next.date.ok_or("a part without EXT-X-PROGRAM-DATE-TIME")?;
                next.parts = true;
                let first = self.media_sequence.ok_or("a part without EXT-X-MEDIA-SEQUENCE")?;
                let segment = first.checked_add(self.segments.len() as u64);
                self.parts.push(segment.and_then(|segment| part(value, segment)).ok_or("unreadable")?);
                return Ok(());
            }
            ("EXTINF", Some(value)) => {
                next.any = true;
                // The title after the comma is never given.
                return once(&mut next.duration, value.strip_suffix(',').and_then(seconds));
            }
            ("EXT-X-PROGRAM-DATE-TIME", Some(value)) => {
                next.any = true;
                // In UTC with milliseconds, no other spelling of the same time.
                let date = UnixTime::parse(value).ok().filter(|date| date.to_string() == value);
                return once(&mut next.date, date);
            }
            ("EXT-X-BYTERANGE", Some(value)) => {
                next.any = true;
                let range = || {
                    let (length, offset) = value.split_once('@')?;
                    Some((integer(offset)?, integer(length)?))
                };
                return once(&mut next.byte_range, range());
            }
            ("EXT-X-GAP", None) => {
                next.any = true;
                return once(&mut next.gap, Some(()));
            }
            ("EXT-X-DISCONTINUITY", None) => {
                next.any = true;
                return once(&mut next.discontinuity, Some(()));
            }
            ("EXT-X-ENDLIST", None) if !next.any => return once(&mut self.ended, Some(())),
            _ => (),
        }
        if next.any || !self.segments.is_empty() {
            return Err("a tag of the playlist among its segments");
        }
        let value = value.unwrap_or("");
        match tag {
            "EXT-X-VERSION" => once(&mut self.version, integer(value).and_then(|v| u8::try_from(v).ok())),
            "EXT-X-TARGETDURATION" => {
                once(&mut self.target_duration, integer(value).and_then(|v| u32::try_from(v).ok()))
            }
            "EXT-X-MEDIA-SEQUENCE" => once(&mut self.media_sequence, integer(value)),
            "EXT-X-DISCONTINUITY-SEQUENCE" => {
                once(&mut self.discontinuity_sequence, integer(value).filter(|&v| v > 0))
            }
            "EXT-X-PLAYLIST-TYPE" => {
                let kind = match value {
                    "EVENT" => Some(PlaylistType::Event),
                    "VOD" => Some(PlaylistType::Vod),
                    _ => None,
                };
                once(&mut self.kind, kind)
            }
            "EXT-X-INDEPENDENT-SEGMENTS" if value.is_empty() => once(&mut self.independent, Some(())),
            "EXT-X-START" => {
                let offset = value.strip_prefix("TIME-OFFSET=").ok_or("unreadable")?;
                let offset = match offset.strip_prefix('-') {
                    Some(offset) => seconds(offset).map(StartOffset::FromEnd),
                    None => offset.strip_suffix(",PRECISE=YES").and_then(seconds).map(StartOffset::FromStart),
                };
                once(&mut self.start, offset)
            }
            "EXT-X-SERVER-CONTROL" => {
                let hold_back = value.strip_prefix("CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=");
                once(&mut self.hold_back, hold_back.and_then(seconds))
            }
            "EXT-X-PART-INF" => {
                once(&mut self.part_target, value.strip_prefix("PART-TARGET=").and_then(seconds))
            }
            "EXT-X-MAP" => {
                let uri = value.strip_prefix("URI=").and_then(quoted);
                once(&mut self.init_uri, uri.map(str::to_owned))
            }
            _ => Err("an unknown tag"),
        }
    }

    fn uri(&mut self, uri: &str) -> Result<(), &'static str> {
        let next = std::mem::take(&mut self.next);
        if !plain(uri) {
            return Err("an address with control characters");
        }
        if self.preload_hint.is_some() || !self.reports.is_empty() {
            return Err("a segment after what stands at the end");
        }
        self.segments.push(Segment {
            uri: uri.to_owned(),
            duration: next.duration.ok_or("a segment without EXTINF")?,
            program_date_time: next.date.ok_or("a segment without EXT-X-PROGRAM-DATE-TIME")?,
            gap: next.gap.is_some(),
            discontinuity: next.discontinuity.is_some(),
            byte_range: next.byte_range,
        });
        Ok(())
    }
}

pub(super) fn multivariant(text: &str) -> Result<MultivariantPlaylist, HlsError> {
    let mut version = None;
    let mut independent = None;
    let mut variants = Vec::new();
    let mut next: Option<(Bandwidth, String)> = None;
    for (line, content) in lines(text)? {
        let result = match Line::of(content) {
            Line::Tag("EXT-X-VERSION", Some(value)) => {
                once(&mut version, integer(value).and_then(|v| u8::try_from(v).ok()))
            }
            Line::Tag("EXT-X-INDEPENDENT-SEGMENTS", None) => once(&mut independent, Some(())),
            Line::Tag("EXT-X-STREAM-INF", Some(value)) => once(&mut next, stream_inf(value)),
            Line::Tag(..) => Err("an unknown tag"),
            Line::Uri(uri) if !plain(uri) => Err("an address with control characters"),
            Line::Uri(uri) => match next.take() {
                Some((bandwidth, codecs)) => {
                    variants.push(Variant { uri: uri.to_owned(), bandwidth, codecs });
                    Ok(())
                }
                None => Err("an address without EXT-X-STREAM-INF"),
            },
            Line::Blank => Ok(()),
        };
        result.map_err(|what| HlsError::Line { line, what })?;
    }
    if next.is_some() {
        return Err(HlsError::Missing { tag: "address after EXT-X-STREAM-INF" });
    }
    independent.ok_or(HlsError::Missing { tag: "EXT-X-INDEPENDENT-SEGMENTS" })?;
    match version.ok_or(HlsError::Missing { tag: "EXT-X-VERSION" })? {
        MULTIVARIANT_VERSION => Ok(MultivariantPlaylist { variants }),
        said => Err(HlsError::Version { said, needed: MULTIVARIANT_VERSION }),
    }
}

fn stream_inf(value: &str) -> Option<(Bandwidth, String)> {
    let (peak, rest) = value.strip_prefix("BANDWIDTH=")?.split_once(',')?;
    let (average, rest) = rest.strip_prefix("AVERAGE-BANDWIDTH=")?.split_once(',')?;
    let codecs = rest.strip_prefix("CODECS=\"")?.strip_suffix('"')?;
    let bandwidth =
        Bandwidth { peak: integer(peak)?.try_into().ok()?, average: integer(average)?.try_into().ok()? };
    (!codecs.contains('"') && plain(codecs)).then(|| (bandwidth, codecs.to_owned()))
}

/// A part of a segment.
fn part(value: &str, segment: u64) -> Option<PartialSegment> {
    let (duration, rest) = value.strip_prefix("DURATION=")?.split_once(",URI=\"")?;
    let (uri, flags) = rest.split_once('"')?;
    let flag = |flags, name| match str::strip_prefix(flags, name) {
        Some(rest) => (true, rest),
        None => (false, flags),
    };
    let (independent, flags) = flag(flags, ",INDEPENDENT=YES");
    let (gap, flags) = flag(flags, ",GAP=YES");
    let uri = Some(uri).filter(|uri| flags.is_empty() && !uri.is_empty() && plain(uri))?;
    Some(PartialSegment { segment, uri: uri.to_owned(), duration: seconds(duration)?, independent, gap })
}

fn report(value: &str) -> Option<RenditionReport> {
    let (uri, rest) = value.split_once(",LAST-MSN=")?;
    let (last_segment, last_part) = rest.split_once(",LAST-PART=")?;
    Some(RenditionReport {
        uri: uri.strip_prefix("URI=").and_then(quoted)?.to_owned(),
        last_segment: integer(last_segment)?,
        last_part: integer(last_part)?,
    })
}

/// An address in quotes.
fn quoted(text: &str) -> Option<&str> {
    let uri = text.strip_prefix('"')?.strip_suffix('"')?;
    (!uri.is_empty() && !uri.contains('"') && plain(uri)).then_some(uri)
}

/// A decimal integer, digits only, without needless zeros.
fn integer(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok())?
}

/// A duration with a point and 3, 6 or 9 digits after it.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let scale = match fraction.len() {
        3 => 1_000_000,
        6 => 1_000,
        9 => 1,
        _ => return None,
    };
    let fraction: u32 = digits.then(|| fraction.parse().ok())??;
    Some(Duration::new(integer(whole)?, fraction * scale))
}

/// Whether a text holds no control characters: playlists must not (RFC 8216bis section 4).
fn plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
