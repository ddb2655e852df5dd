//! The replay as HLS.

use std::time::Duration;

use formats::hls::{MediaPlaylist, PlaylistType, Segment, StartOffset, TARGET_DURATION_S};
use formats::mp4;
use model::{MediaTime, PART_DURATION, PARTS_PER_SEGMENT, Rendition, SegmentNumber};

use crate::{Recording, Span};

/// The media playlist of a recording: all segments of the span, `ENDLIST` once the event is over. `base` is put
/// before every address: empty for `/live/{event}/{rendition}.m3u8`, `/live/{event}/` elsewhere. `None` if there is
/// nothing yet, or the recorder was not told when doors are.
///
/// Segments are the whole ones that were served live, with the numbers they had then; where the show begins within
/// one, `EXT-X-START` says so. While the event goes on only segments that cannot grow are named. One of which a part was
/// lost is named and marked `EXT-X-GAP`, as it was live: downloads have the others of its parts.
pub fn replay(recording: &Recording, rendition: Rendition, span: &Span, base: &str) -> Option<MediaPlaylist> {
    let doors = recording.marks()?.doors;
    let parts = span.of(recording);
    let recorded = recording.parts().end;
    let ended = recording.is_finished();
    let first = parts.start.segment();
    // After the last segment: all that were begun, or all that are whole.
    let end = if ended {
        parts.end.plus(PARTS_PER_SEGMENT - 1).segment()
    } else {
        recorded.min(parts.end).segment()
    };
    if parts.is_empty() || first >= end {
        return None;
    }
    let extension = if rendition.is_cmaf() { "m4s" } else { "mp3" };
    let segment = |number: SegmentNumber| {
        let first = number.first_part();
        let end = number.next().first_part().min(recorded);
        let count = end.get() - first.get();
        Segment {
            uri: format!("{base}{rendition}/s{number}.{extension}"),
            duration: PART_DURATION.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)),
            program_date_time: doors.plus(first.start().to_duration()),
            gap: !recording.holds_all(&(first..end)),
            discontinuity: false,
            byte_range: None,
        }
    };
    Some(MediaPlaylist {
        init_uri: rendition
            .is_cmaf()
            .then(|| format!("{base}{rendition}/{}", mp4::init_name(&mp4::opus_init()))),
        kind: if ended { PlaylistType::Vod } else { PlaylistType::Event },
        target_duration: TARGET_DURATION_S,
        media_sequence: first.get(),
        discontinuity_sequence: 0,
        start_offset: start_offset(recording, span, first),
        segments: (first.get()..end.get()).map(SegmentNumber::new).map(segment).collect(),
        ended,
        low_latency: None,
    })
}

/// Where the show begins within the first segment; `None` if with it.
fn start_offset(recording: &Recording, span: &Span, first: SegmentNumber) -> Option<StartOffset> {
    let begin = first.first_part().start();
    let start = match span {
        Span::Show => recording.marks()?.live_at?.media,
        Span::Everything => recording.parts().start.start(),
        Span::Parts(parts) => parts.start.start(),
    };
    let offset = MediaTime::from_samples(start.since(begin)).to_duration();
    (offset > Duration::ZERO).then_some(StartOffset::FromStart(offset))
}
