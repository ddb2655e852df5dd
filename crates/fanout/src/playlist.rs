//! Live playlists as functions of the window.

use std::time::Duration;

use formats::hls::{MediaPlaylist, PlaylistType, Segment, TARGET_DURATION_S};
use formats::mp4;
use model::{PART_DURATION, Rendition, SegmentNumber, UnixTime};

use crate::Window;

/// Most segments in a live playlist: 57.6 s, so that what was named stays in the window for as long again.
pub const LIVE_SEGMENTS: usize = 15;

impl Window {
    /// The live playlist of a rendition: the newest whole segments, with addresses relative to
    /// `/live/{event}/{rendition}.m3u8`. `doors` is the anchored time of part 0. `None` before there is a whole
    /// segment.
    ///
    /// A segment of which a part never arrived is named and marked `EXT-X-GAP`, for the numbers after it to stay
    /// right. Our own gap parts are silent audio like any other. There is no discontinuity in a programme: restarts
    /// of origin are filled, and all its epochs share one `init` and one timeline.
    pub fn media_playlist(&self, rendition: Rendition, doors: UnixTime) -> Option<MediaPlaylist> {
        let newest = self.newest()?;
        let whole_end = newest.next().segment();
        let end = if self.has_ended() && newest.next().index_in_segment() != 0 {
            whole_end.next().get()
        } else {
            whole_end.get()
        };
        let first_allowed = end.saturating_sub(LIVE_SEGMENTS as u64);
        let first = (self.oldest()?.segment().get().max(first_allowed)..end)
            .find(|number| self.segment_parts(SegmentNumber::new(*number)).is_some())?;
        let segments = (first..end)
            .map(SegmentNumber::new)
            .map(|number| {
                let parts = self.segment_parts(number);
                let due = newest.next().get().min(number.next().first_part().get());
                let length = due - number.first_part().get();
                Segment {
                    uri: segment_uri(rendition, number),
                    duration: parts_duration(length),
                    program_date_time: doors.plus(number.first_part().start().to_duration()),
                    gap: parts.is_none(),
                    discontinuity: false,
                    byte_range: None,
                }
            })
            .collect();
        Some(MediaPlaylist {
            init_uri: rendition.is_cmaf().then(|| init_uri(rendition)),
            kind: PlaylistType::Sliding,
            target_duration: TARGET_DURATION_S,
            media_sequence: first,
            discontinuity_sequence: 0,
            start_offset: None,
            segments,
            ended: self.has_ended(),
            low_latency: None,
        })
    }
}

fn segment_uri(rendition: Rendition, number: SegmentNumber) -> String {
    let extension = if rendition.is_cmaf() { "m4s" } else { "mp3" };
    format!("{rendition}/s{number}.{extension}")
}

fn init_uri(rendition: Rendition) -> String {
    format!("{rendition}/{}", mp4::init_name(&mp4::opus_init()))
}

fn parts_duration(count: u64) -> Duration {
    PART_DURATION.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
}
