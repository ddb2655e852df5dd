//! The delayed feed: a media playlist of ours with several segments joined to one, for HTTP caches to carry. It has a
//! quarter of the addresses, each of which is a file that never changes, and its playlist changes a quarter as often.
//!
//! ```text
//!   ordinary   │ 108 │ 109 │ 110 │ 111 │ 112 │ 113 │ 114 │ 115 │ 116 │      3.84 s each
//!   delayed    │          27           │          28           │            15.36 s each
//! ```

use std::ops::Range;
use std::time::Duration;

use model::{Rendition, SEGMENT_DURATION, SegmentNumber};

use super::{MediaPlaylist, Segment, StartOffset};

/// Ordinary segments in one of the delayed feed.
pub const DELAYED_JOIN: usize = 4;

/// How long a segment of the delayed feed is: 15.36 s; the last of a programme may be shorter.
pub const DELAYED_DURATION: Duration = SEGMENT_DURATION.saturating_mul(DELAYED_JOIN as u32);

/// Seconds of [`MediaPlaylist::target_duration`] of the delayed feed: what its segments are, rounded (RFC 8216bis section
/// 4.4.3.1), so that three segments are three target durations, where players begin.
pub const DELAYED_TARGET_DURATION_S: u32 = ((DELAYED_DURATION.as_millis() + 500) / 1_000) as u32;

/// How many segments behind the end of the list players begin (RFC 8216bis section 6.3.3).
pub const DELAYED_BEHIND: u32 = 3;

/// How far behind what is spoken the delayed feed is at least: a player that comes when a segment has just become whole.
pub const DELAY_LEAST: Duration = DELAYED_DURATION.saturating_mul(DELAYED_BEHIND);

/// How far at most, with an edge that answers at once and no cache between: a player that comes just before the next
/// segment becomes whole.
pub const DELAY_MOST: Duration = DELAYED_DURATION.saturating_mul(DELAYED_BEHIND + 1);

const _: () = assert!(
    DELAY_LEAST.as_millis() >= DELAYED_BEHIND as u128 * DELAYED_TARGET_DURATION_S as u128 * 1_000,
    "a list of three segments is three target durations long, which is the least that a player may be given"
);

/// Address of a segment of the delayed feed, relative to `/live/{event}/delayed/{rendition}.m3u8`.
pub fn delayed_uri(rendition: Rendition, number: u64) -> String {
    let extension = if rendition.is_cmaf() { "m4s" } else { "mp3" };
    format!("{rendition}/{number}.{extension}")
}

/// The ordinary segments that a segment of the delayed feed is made of; none for a number so large that no time has it.
pub fn delayed_segments(number: u64) -> Range<SegmentNumber> {
    let join = DELAYED_JOIN as u64;
    let first = number.saturating_mul(join);
    SegmentNumber::new(first)..SegmentNumber::new(first.saturating_add(join))
}

impl MediaPlaylist {
    /// The same programme with [`DELAYED_JOIN`] segments in one, under the addresses of the delayed feed. Where joints are
    /// follows from the segments' numbers alone, so that all edges make the same at any time. `None` if not even one
    /// is whole.
    ///
    /// A joined segment is absent if one that it is made of is, and there is none that begins in the middle of one; after
    /// the end the last may be shorter. Parts and blocking reload are left out: a cache must not be made to wait.
    #[must_use]
    pub fn delayed(&self, rendition: Rendition) -> Option<Self> {
        let join = DELAYED_JOIN as u64;
        let lead = (join - self.media_sequence % join) % join;
        let first = self.media_sequence.checked_add(lead)?;
        let lead = usize::try_from(lead).ok()?.min(self.segments.len());
        let (before, rest) = self.segments.split_at(lead);
        let listed = if self.ended { rest.len() } else { rest.len() / DELAYED_JOIN * DELAYED_JOIN };
        let (listed, after) = rest.split_at(listed);
        if listed.is_empty() {
            return None;
        }
        let cut = |segments: &[Segment]| segments.iter().map(|segment| segment.duration).sum::<Duration>();
        let start_offset = match self.start_offset {
            Some(StartOffset::FromStart(offset)) => {
                Some(StartOffset::FromStart(offset.saturating_sub(cut(before))))
            }
            Some(StartOffset::FromEnd(offset)) => {
                Some(StartOffset::FromEnd(offset.saturating_sub(cut(after))))
            }
            None => None,
        };
        let breaks = before.iter().filter(|segment| segment.discontinuity).count();
        Some(Self {
            init_uri: self.init_uri.clone(),
            kind: self.kind,
            target_duration: DELAYED_TARGET_DURATION_S,
            media_sequence: first / join,
            discontinuity_sequence: self.discontinuity_sequence.saturating_add(breaks as u64),
            start_offset: start_offset.filter(|offset| {
                let (StartOffset::FromStart(by) | StartOffset::FromEnd(by)) = offset;
                !by.is_zero()
            }),
            segments: listed
                .chunks(DELAYED_JOIN)
                .zip(first / join..)
                .map(|(segments, number)| joined(segments, delayed_uri(rendition, number)))
                .collect(),
            ended: self.ended,
            low_latency: None,
        })
    }
}

/// Segments, at least one, as one.
fn joined(segments: &[Segment], uri: String) -> Segment {
    // A timeline that breaks within a segment cannot be told to players. Ours never does.
    let broken = segments.iter().skip(1).any(|segment| segment.discontinuity);
    Segment {
        uri,
        duration: segments.iter().map(|segment| segment.duration).sum(),
        program_date_time: segments[0].program_date_time,
        gap: broken || segments.iter().any(|segment| segment.gap),
        discontinuity: segments.iter().any(|segment| segment.discontinuity),
        byte_range: None,
    }
}

#[cfg(test)]
mod tests {
    use model::UnixTime;
    use proptest::prelude::*;

    use super::*;
    use crate::hls::{PlaylistType, TARGET_DURATION_S};

    const DOORS: UnixTime = UnixTime::from_millis(1_795_374_000_000);

    /// An ordinary playlist whose segments are absent where `gaps` says; the last has so many parts.
    fn ordinary(first: u64, gaps: &[bool], ended: bool, last_parts: u32) -> MediaPlaylist {
        let segment = |(gap, number): (&bool, u64)| {
            let is_last = number == first + gaps.len() as u64 - 1;
            let parts = if ended && is_last { last_parts } else { 8 };
            Segment {
                uri: format!("opus-48/s{number}.m4s"),
                duration: Duration::from_millis(480) * parts,
                program_date_time: DOORS.plus(SEGMENT_DURATION * u32::try_from(number).unwrap()),
                gap: *gap,
                discontinuity: false,
                byte_range: None,
            }
        };
        MediaPlaylist {
            init_uri: Some("opus-48/init-0.mp4".to_owned()),
            kind: PlaylistType::Sliding,
            target_duration: TARGET_DURATION_S,
            media_sequence: first,
            discontinuity_sequence: 0,
            start_offset: None,
            segments: gaps.iter().zip(first..).map(segment).collect(),
            ended,
            low_latency: None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_joined_is_the_same_programme(
            first in 0u64..10_000,
            gaps in prop::collection::vec(prop::bool::weighted(0.1), 0..40),
            ended: bool,
            last_parts in 1u32..=8,
        ) {
            let ordinary = ordinary(first, &gaps, ended, last_parts);
            let end = first + gaps.len() as u64;
            // Every fourth number begins one, and it is there if all that it is made of is, or nothing more comes.
            let numbers: Vec<u64> = (0..end)
                .filter(|number| number * 4 >= first && number * 4 < end && (ended || number * 4 + 4 <= end))
                .collect();
            let Some(delayed) = ordinary.delayed(Rendition::Opus48) else {
                prop_assert!(numbers.is_empty());
                return Ok(());
            };
            prop_assert_eq!(delayed.media_sequence, numbers[0]);
            prop_assert_eq!(delayed.segments.len(), numbers.len());
            for (segment, number) in delayed.segments.iter().zip(numbers) {
                let made_of = delayed_segments(number);
                let of: Vec<&Segment> = (made_of.start.get()..made_of.end.get().min(end))
                    .map(|n| &ordinary.segments[(n - first) as usize])
                    .collect();
                prop_assert_eq!(&segment.uri, &format!("opus-48/{number}.m4s"));
                prop_assert_eq!(segment.duration, of.iter().map(|s| s.duration).sum::<Duration>());
                prop_assert_eq!(segment.program_date_time, of[0].program_date_time);
                prop_assert_eq!(segment.gap, of.iter().any(|s| s.gap));
                // RFC 8216bis section 4.4.3.1.
                let rounded = (segment.duration.as_millis() + 500) / 1_000;
                prop_assert!(rounded <= u128::from(delayed.target_duration));
            }
            // The strict parser takes it for what it is.
            let text = delayed.render();
            prop_assert_eq!(MediaPlaylist::parse(&text), Ok(delayed));
        }

        #[test]
        fn no_playlist_is_too_strange_to_be_joined(
            first: u64,
            count in 0usize..20,
            breaks in prop::collection::vec(any::<bool>(), 20),
            offset in prop::option::of(0u64..100),
            from_end: bool,
            ended: bool,
        ) {
            let mut playlist = ordinary(0, &vec![false; count], ended, 8);
            playlist.media_sequence = first;
            playlist.segments.iter_mut().zip(&breaks).for_each(|(segment, there)| segment.discontinuity = *there);
            playlist.start_offset = offset.map(Duration::from_secs).map(|offset| match from_end {
                true => StartOffset::FromEnd(offset),
                false => StartOffset::FromStart(offset),
            });
            if let Some(delayed) = playlist.delayed(Rendition::Mp3_64) {
                prop_assert!(delayed.segments.len() <= count.div_ceil(4));
                prop_assert!(delayed.media_sequence >= first / 4);
            }
        }
    }

    #[test]
    fn the_figures_are_those_of_the_docs() {
        assert_eq!(DELAYED_DURATION, Duration::from_millis(15_360));
        assert_eq!(DELAYED_TARGET_DURATION_S, 15);
        assert_eq!((DELAY_LEAST, DELAY_MOST), (Duration::from_millis(46_080), Duration::from_millis(61_440)));
        assert_eq!(delayed_uri(Rendition::Mp3_64, 7), "mp3-64/7.mp3");
        assert_eq!(delayed_segments(7), SegmentNumber::new(28)..SegmentNumber::new(32));
        assert!(delayed_segments(u64::MAX).is_empty());
    }

    #[test]
    fn where_players_begin_moves_with_what_is_cut_off() {
        let mut playlist = ordinary(6, &[false; 8], false, 8);
        playlist.start_offset = Some(StartOffset::FromStart(Duration::from_millis(10_000)));
        let delayed = playlist.delayed(Rendition::Opus24).unwrap();
        // 6 and 7 are cut off in front, 12 and 13 behind.
        assert_eq!((delayed.media_sequence, delayed.segments.len()), (2, 1));
        assert_eq!(delayed.start_offset, Some(StartOffset::FromStart(Duration::from_millis(2_320))));
        playlist.start_offset = Some(StartOffset::FromStart(Duration::from_millis(7_680)));
        assert_eq!(playlist.delayed(Rendition::Opus24).unwrap().start_offset, None);
        playlist.start_offset = Some(StartOffset::FromEnd(Duration::from_millis(10_000)));
        let delayed = playlist.delayed(Rendition::Opus24).unwrap();
        assert_eq!(delayed.start_offset, Some(StartOffset::FromEnd(Duration::from_millis(2_320))));
    }
}
