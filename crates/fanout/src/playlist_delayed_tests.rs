//! The rules of RFC 8216 that players of the delayed feed rely on, held over random arrivals, losses and restarts, with
//! caches between that show what was true some seconds ago.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use formats::hls::{DELAY_LEAST, DELAY_MOST, MediaPlaylist, delayed_uri};
use model::{PART_DURATION, PartNumber, Rendition, UnixTime};
use proptest::prelude::*;

use crate::tests::{part, window};
use crate::*;

const DOORS: UnixTime = UnixTime::from_millis(1_795_374_000_000);
const TARGET_MS: u128 = 15_000;
/// Parts in a segment, and how many of them a playlist is long while the programme runs.
const PARTS: u64 = 32;
const LISTED: u64 = 3 * PARTS;

/// An edge, and what caches and players remember of it and of those before it.
struct Edge {
    window: Window,
    last: Option<MediaPlaylist>,
    /// Whether `last` is of this window.
    same: bool,
    /// Segments named at some time without a gap, and the newest part when they were last named.
    named: BTreeMap<u64, u64>,
    /// Segments that could be had, and what was in them: for ever the same.
    contents: BTreeMap<u64, Vec<PartNumber>>,
}

impl Edge {
    fn new() -> Self {
        let mut window = Window::new();
        window.settle();
        Self { window, last: None, same: true, named: BTreeMap::new(), contents: BTreeMap::new() }
    }

    fn look(&mut self, rendition: Rendition) {
        let Some(newest) = self.window.newest().map(PartNumber::get) else {
            assert_eq!(self.window.delayed_playlist(rendition, DOORS), None);
            return;
        };
        self.fetch(newest);
        let Some(playlist) = self.window.delayed_playlist(rendition, DOORS) else { return };
        assert_eq!(MediaPlaylist::parse(&playlist.render()), Ok(playlist.clone()));
        self.check(&playlist, newest, rendition);
        if let Some(before) = &self.last {
            check_after(&playlist, before, self.same);
        }
        for (segment, number) in playlist.segments.iter().zip(playlist.media_sequence..) {
            assert_eq!(
                self.window.delayed_segment(number).is_none(),
                segment.gap,
                "what is named can be had"
            );
            if !segment.gap {
                self.named.insert(number, newest);
            }
        }
        // What was named can be had for the time of the list and its own after it was last named (section 6.2.2).
        let window = &self.window;
        self.named.retain(|number, at| {
            let owed = newest <= *at + LISTED + PARTS;
            assert!(!owed || window.delayed_segment(*number).is_some(), "{number} of {at} at {newest}");
            owed
        });
        self.last = Some(playlist);
        self.same = true;
    }

    /// What must hold of every playlist by itself.
    fn check(&self, playlist: &MediaPlaylist, newest: u64, rendition: Rendition) {
        assert!(playlist.low_latency.is_none(), "a cache must not wait");
        assert_eq!(playlist.init_uri.is_some(), rendition.is_cmaf());
        assert_eq!(u128::from(playlist.target_duration) * 1_000, TARGET_MS);
        let mut end = None;
        for (segment, number) in playlist.segments.iter().zip(playlist.media_sequence..) {
            assert_eq!(segment.uri, delayed_uri(rendition, number));
            // It begins at its number's time, where the one before ended.
            let begin = DOORS.as_millis() + (number * 15_360) as i64;
            assert_eq!(segment.program_date_time.as_millis(), begin);
            assert!(end.is_none_or(|end| end == begin));
            end = Some(begin + segment.duration.as_millis() as i64);
            // Rounded, none is longer than the target; and all but the last are as long as all others.
            assert!((segment.duration.as_millis() + 500) / 1_000 * 1_000 <= TARGET_MS);
            let is_last = number + 1 == playlist.media_sequence + playlist.segments.len() as u64;
            assert!(segment.duration.as_millis() == 15_360 || (is_last && playlist.ended));
        }
        let after = (end.unwrap() - DOORS.as_millis()) as u128;
        let spoken = u128::from(newest + 1) * PART_DURATION.as_millis();
        if playlist.ended {
            assert_eq!(after, spoken, "nothing is cut off at the end");
        } else {
            assert!(playlist.segments.len() <= 3);
            // A player begins three segments from the end, or at the beginning.
            let behind = spoken - after + DELAY_LEAST.as_millis();
            assert!((DELAY_LEAST.as_millis()..DELAY_MOST.as_millis()).contains(&behind), "{behind} ms");
        }
    }

    /// Every segment that could ever have been named: nothing that could be had is ever something else.
    fn fetch(&mut self, newest: u64) {
        for number in (newest / PARTS).saturating_sub(9)..=newest / PARTS + 1 {
            let Some(parts) = self.window.delayed_segment(number) else { continue };
            let numbers: Vec<PartNumber> = parts.iter().map(|part| part.number).collect();
            let whole = numbers.len() as u64 == PARTS;
            assert!(whole || (self.window.has_ended() && number == newest / PARTS));
            assert!(numbers.iter().zip(number * PARTS..).all(|(part, n)| part.get() == n));
            assert_eq!(*self.contents.entry(number).or_insert_with(|| numbers.clone()), numbers);
        }
    }
}

/// What must hold of a playlist and one that was given before it, perhaps by an edge that has died since.
fn check_after(playlist: &MediaPlaylist, before: &MediaPlaylist, same_window: bool) {
    assert!(playlist.media_sequence >= before.media_sequence, "the first number never goes back");
    let shift = (playlist.media_sequence - before.media_sequence) as usize;
    if shift > 0 {
        let length: u128 = playlist.segments.iter().map(|segment| segment.duration.as_millis()).sum();
        assert!(length >= 3 * TARGET_MS, "only what is long enough is cut");
    }
    for (old, new) in before.segments.iter().skip(shift).zip(&playlist.segments) {
        assert_eq!((&old.uri, old.duration), (&new.uri, new.duration), "a number names one thing for ever");
        assert_eq!(old.program_date_time, new.program_date_time);
        assert!(old.gap == new.gap || !same_window);
    }
    let end = |playlist: &MediaPlaylist| playlist.media_sequence + playlist.segments.len() as u64;
    assert!(end(playlist) >= end(before), "the end never goes back");
    assert!(!before.ended || playlist == before, "after the end nothing changes");
}

#[derive(Clone, Debug)]
enum Action {
    Arrive {
        count: u64,
    },
    /// Parts that nobody can read.
    Spoil {
        count: u64,
    },
    /// The edge is behind for so long that origin no longer has what it misses.
    Overrun {
        count: u64,
    },
    /// The edge dies, and another takes its place.
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (1u64..48).prop_map(|count| Action::Arrive { count }),
        2 => (1u64..4).prop_map(|count| Action::Spoil { count }),
        1 => (257u64..600).prop_map(|count| Action::Overrun { count }),
        2 => Just(Action::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn delayed_playlists_hold_the_rules(
        actions in prop::collection::vec(action(), 1..30),
        first in prop_oneof![Just(0u64), 0u64..2_000],
        rendition in prop::sample::select(Rendition::ALL.to_vec()),
        ends in any::<bool>(),
    ) {
        let (mut made, mut unreadable) = (first, BTreeSet::new());
        let mut edge = Edge::new();
        let take = |edge: &mut Edge, unreadable: &BTreeSet<u64>, n: u64| {
            if !unreadable.contains(&n) {
                assert!(matches!(edge.window.push(part(n)), Push::Accepted { .. }));
            }
        };
        for action in actions {
            match action {
                Action::Arrive { count } => for _ in 0..count {
                    take(&mut edge, &unreadable, made);
                    made += 1;
                    edge.look(rendition);
                },
                Action::Spoil { count } => {
                    unreadable.extend(made..made + count);
                    made += count;
                    edge.look(rendition);
                }
                Action::Overrun { count } => {
                    made += count;
                    for n in made - 256..made {
                        take(&mut edge, &unreadable, n);
                        edge.look(rendition);
                    }
                }
                Action::Restart => {
                    edge.window = Window::new();
                    edge.same = false;
                    edge.named.clear();
                    for n in made.saturating_sub(256).max(first)..made {
                        take(&mut edge, &unreadable, n);
                        prop_assert_eq!(edge.window.delayed_playlist(rendition, DOORS), None);
                    }
                    edge.window.settle();
                    edge.look(rendition);
                }
            }
        }
        if ends {
            edge.window.end(Bytes::new());
            (0..2).for_each(|_| edge.look(rendition));
        }
    }
}

#[test]
fn there_is_nothing_before_a_segment_is_whole_and_a_short_one_only_after_the_end() {
    let opus = Rendition::Opus48;
    let mut young = window(0..31);
    assert_eq!(young.delayed_playlist(opus, DOORS), None);
    assert!(young.delayed_segment(0).is_none());
    young.push(part(31));
    assert_eq!(young.delayed_playlist(opus, DOORS).unwrap().segments.len(), 1);
    assert_eq!(young.delayed_segment(0).unwrap().len(), 32);
    young.push(part(32));
    assert!(young.delayed_segment(1).is_none(), "it is not whole");
    young.end(Bytes::new());
    assert_eq!(young.delayed_segment(1).unwrap().len(), 1);
    assert!(young.delayed_segment(2).is_none());
    let ended = young.delayed_playlist(opus, DOORS).unwrap();
    assert!(ended.ended && ended.segments.len() == 2);
    assert_eq!(ended.segments[1].duration, PART_DURATION);
    assert!(young.delayed_segment(u64::MAX).is_none() && young.delayed_segment(u64::MAX / 32).is_none());
    assert!(Window::new().delayed_segment(0).is_none());
}

#[test]
fn a_part_that_is_missing_leaves_a_hole_as_long_as_its_segment() {
    let mut window = Window::new();
    window.settle();
    (0..128).filter(|n| *n != 40).for_each(|n| _ = window.push(part(n)));
    let playlist = window.delayed_playlist(Rendition::Mp3_64, DOORS).unwrap();
    let gaps: Vec<(u64, bool)> =
        playlist.segments.iter().zip(playlist.media_sequence..).map(|(s, n)| (n, s.gap)).collect();
    assert_eq!(gaps, [(1, true), (2, false), (3, false)]);
    assert!(window.delayed_segment(1).is_none() && window.delayed_segment(0).is_some());
    let text = playlist.render();
    assert!(text.contains("#EXT-X-GAP\n#EXTINF:15.360,\nmp3-64/1.mp3\n"), "{text}");
    assert_eq!(playlist.version(), 8);
}
