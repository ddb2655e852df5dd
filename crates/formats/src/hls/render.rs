use std::fmt::Write;
use std::time::Duration;

use super::{MediaPlaylist, MultivariantPlaylist, PartialSegment, PlaylistType, StartOffset};

/// Version of multivariant playlists: they use nothing newer than what media playlists with `EXT-X-MAP` do.
pub(super) const MULTIVARIANT_VERSION: u8 = 6;

/// Bytes of the lines of one segment, or of one part, roughly.
const SEGMENT_LINES: usize = 128;

/// Writing to a `String` cannot fail.
macro_rules! line {
    ($out:expr, $($argument:tt)*) => { writeln!($out, $($argument)*).expect("a String takes everything") };
}

pub(super) fn media(playlist: &MediaPlaylist) -> String {
    let parts = playlist.low_latency.as_ref().map_or(0, |low| low.parts.len());
    let mut out = String::with_capacity(512 + SEGMENT_LINES * (playlist.segments.len() + parts));
    line!(out, "#EXTM3U");
    line!(out, "#EXT-X-VERSION:{}", playlist.version());
    line!(out, "#EXT-X-TARGETDURATION:{}", playlist.target_duration);
    line!(out, "#EXT-X-MEDIA-SEQUENCE:{}", playlist.media_sequence);
    if playlist.discontinuity_sequence > 0 {
        line!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", playlist.discontinuity_sequence);
    }
    match playlist.kind {
        PlaylistType::Sliding => (),
        PlaylistType::Event => line!(out, "#EXT-X-PLAYLIST-TYPE:EVENT"),
        PlaylistType::Vod => line!(out, "#EXT-X-PLAYLIST-TYPE:VOD"),
    }
    // Every frame of ours decodes without another.
    line!(out, "#EXT-X-INDEPENDENT-SEGMENTS");
    match playlist.start_offset {
        None => (),
        Some(StartOffset::FromStart(offset)) => {
            line!(out, "#EXT-X-START:TIME-OFFSET={},PRECISE=YES", Seconds(offset));
        }
        Some(StartOffset::FromEnd(offset)) => line!(out, "#EXT-X-START:TIME-OFFSET=-{}", Seconds(offset)),
    }
    if let Some(low) = &playlist.low_latency {
        let hold_back = Seconds(low.part_hold_back);
        line!(out, "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={hold_back}");
        line!(out, "#EXT-X-PART-INF:PART-TARGET={}", Seconds(low.part_target));
    }
    if let Some(uri) = &playlist.init_uri {
        line!(out, "#EXT-X-MAP:URI=\"{uri}\"");
    }
    let mut parts = playlist.low_latency.as_ref().map_or(&[][..], |low| &low.parts).iter().peekable();
    for (index, segment) in (0u64..).zip(&playlist.segments) {
        if segment.discontinuity {
            line!(out, "#EXT-X-DISCONTINUITY");
        }
        line!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", segment.program_date_time);
        // After the date: what holds for the segment holds for its first part (RFC 8216bis section 4.4.4.9).
        let first = playlist.media_sequence;
        while let Some(part) = parts.next_if(|part| part.segment.saturating_sub(first) <= index) {
            media_part(&mut out, part);
        }
        if segment.gap {
            line!(out, "#EXT-X-GAP");
        }
        line!(out, "#EXTINF:{},", Seconds(segment.duration));
        if let Some((offset, length)) = segment.byte_range {
            line!(out, "#EXT-X-BYTERANGE:{length}@{offset}");
        }
        line!(out, "{}", segment.uri);
    }
    if let Some(low) = &playlist.low_latency {
        if let Some(date) = low.next_date {
            line!(out, "#EXT-X-PROGRAM-DATE-TIME:{date}");
        }
        parts.for_each(|part| media_part(&mut out, part));
        if let Some(uri) = &low.preload_hint {
            line!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{uri}\"");
        }
        for report in &low.reports {
            let (uri, segment, part) = (&report.uri, report.last_segment, report.last_part);
            line!(out, "#EXT-X-RENDITION-REPORT:URI=\"{uri}\",LAST-MSN={segment},LAST-PART={part}");
        }
    }
    if playlist.ended {
        line!(out, "#EXT-X-ENDLIST");
    }
    out
}

fn media_part(out: &mut String, part: &PartialSegment) {
    let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
    let gap = if part.gap { ",GAP=YES" } else { "" };
    line!(out, "#EXT-X-PART:DURATION={},URI=\"{}\"{independent}{gap}", Seconds(part.duration), part.uri);
}

pub(super) fn multivariant(playlist: &MultivariantPlaylist) -> String {
    let mut out = String::with_capacity(64 + SEGMENT_LINES * playlist.variants.len());
    line!(out, "#EXTM3U");
    line!(out, "#EXT-X-VERSION:{MULTIVARIANT_VERSION}");
    line!(out, "#EXT-X-INDEPENDENT-SEGMENTS");
    for variant in &playlist.variants {
        let (peak, average) = (variant.bandwidth.peak, variant.bandwidth.average);
        let codecs = &variant.codecs;
        line!(out, "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS=\"{codecs}\"");
        line!(out, "{}", variant.uri);
    }
    out
}

/// Seconds with three digits after the point, or as many more groups of three as it takes to be exact.
pub(super) struct Seconds(pub(super) Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (seconds, nanos) = (self.0.as_secs(), self.0.subsec_nanos());
        if nanos % 1_000_000 == 0 {
            write!(f, "{seconds}.{:03}", nanos / 1_000_000)
        } else if nanos % 1_000 == 0 {
            write!(f, "{seconds}.{:06}", nanos / 1_000)
        } else {
            write!(f, "{seconds}.{nanos:09}")
        }
    }
}
