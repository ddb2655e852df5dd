//! The rules of RFC 8216bis, held on the text of live playlists over random arrivals, losses and restarts: read as a
//! player reads them, without any of the crate's bookkeeping.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use formats::hls::MediaPlaylist;
use model::{PartNumber, Rendition, SegmentNumber, UnixTime};
use proptest::prelude::*;

use crate::tests::{part, window};
use crate::*;

const DOORS: UnixTime = UnixTime::from_millis(1_795_374_000_000);
const TARGET_MS: u64 = 4_000;
const PART_MS: u64 = 480;

/// A segment as its lines say. The last one may not be whole yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    date_ms: Option<i64>,
    parts: Vec<SeenPart>,
    gap: bool,
    duration_ms: Option<u64>,
    uri: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SeenPart {
    uri: String,
    duration_ms: u64,
    independent: bool,
    gap: bool,
}

/// A media playlist as its lines say.
#[derive(Clone, Debug, Default)]
struct Playlist {
    target_ms: u64,
    sequence: u64,
    part_target_ms: u64,
    hold_back_ms: u64,
    segments: Vec<Seen>,
    unfinished: Option<Seen>,
    hints: Vec<String>,
    reports: Vec<String>,
    ended: bool,
}

fn millis(seconds: &str) -> u64 {
    (seconds.parse::<f64>().unwrap() * 1_000.0).round() as u64
}

fn attribute<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    let from = list.find(&format!("{name}="))? + name.len() + 1;
    assert!(from == name.len() + 1 || list.as_bytes()[from - name.len() - 2] == b',', "{list}");
    match list[from..].strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => list[from..].split(',').next(),
    }
}

fn read(text: &str) -> Playlist {
    let mut playlist = Playlist::default();
    let mut next = Seen::default();
    for line in text.lines() {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        match tag {
            _ if !line.starts_with('#') => {
                next.uri = line.to_owned();
                playlist.segments.push(std::mem::take(&mut next));
            }
            "#EXT-X-TARGETDURATION" => playlist.target_ms = millis(value),
            "#EXT-X-MEDIA-SEQUENCE" => playlist.sequence = value.parse().unwrap(),
            "#EXT-X-SERVER-CONTROL" => {
                assert_eq!(attribute(value, "CAN-BLOCK-RELOAD"), Some("YES"));
                playlist.hold_back_ms = millis(attribute(value, "PART-HOLD-BACK").unwrap());
            }
            "#EXT-X-PART-INF" => playlist.part_target_ms = millis(attribute(value, "PART-TARGET").unwrap()),
            "#EXT-X-PROGRAM-DATE-TIME" => {
                assert!(next.parts.is_empty() && next.date_ms.is_none(), "the date comes before the parts");
                next.date_ms = Some(UnixTime::parse(value).unwrap().as_millis());
            }
            "#EXT-X-PART" => next.parts.push(SeenPart {
                uri: attribute(value, "URI").unwrap().to_owned(),
                duration_ms: millis(attribute(value, "DURATION").unwrap()),
                independent: attribute(value, "INDEPENDENT") == Some("YES"),
                gap: attribute(value, "GAP") == Some("YES"),
            }),
            "#EXT-X-GAP" => next.gap = true,
            "#EXTINF" => next.duration_ms = Some(millis(value.trim_end_matches(','))),
            "#EXT-X-PRELOAD-HINT" => {
                assert_eq!(attribute(value, "TYPE"), Some("PART"));
                playlist.hints.push(attribute(value, "URI").unwrap().to_owned());
            }
            "#EXT-X-RENDITION-REPORT" => playlist.reports.push(value.to_owned()),
            "#EXT-X-ENDLIST" => playlist.ended = true,
            "#EXTM3U" | "#EXT-X-VERSION" | "#EXT-X-INDEPENDENT-SEGMENTS" | "#EXT-X-MAP" => {}
            _ => panic!("{line}"),
        }
    }
    playlist.unfinished = (next != Seen::default()).then_some(next);
    playlist
}

/// Number of a part from its address.
fn part_of(uri: &str, rendition: Rendition) -> u64 {
    let name = uri.strip_prefix(&format!("{rendition}/")).unwrap();
    let name = if rendition.is_cmaf() {
        name.strip_suffix(".m4s")
    } else {
        name.strip_prefix('p').and_then(|name| name.strip_suffix(".mp3"))
    };
    name.unwrap().parse().unwrap()
}

impl Playlist {
    /// All parts listed, oldest first, with their segments' numbers.
    fn parts(&self) -> Vec<(u64, &SeenPart)> {
        let segments = self.segments.iter().chain(&self.unfinished).zip(self.sequence..);
        segments.flat_map(|(segment, number)| segment.parts.iter().map(move |part| (number, part))).collect()
    }

    fn duration_ms(&self) -> u64 {
        self.segments.iter().map(|segment| segment.duration_ms.unwrap()).sum()
    }

    /// What must hold of every playlist by itself.
    fn check(&self, rendition: Rendition) {
        assert_eq!((self.target_ms, self.part_target_ms), (TARGET_MS, PART_MS));
        assert!(self.hold_back_ms >= 3 * self.part_target_ms);
        let mut date = None;
        for (segment, number) in self.segments.iter().zip(self.sequence..) {
            let duration = segment.duration_ms.expect("EXTINF");
            assert!((duration + 500) / 1_000 * 1_000 <= self.target_ms);
            // Dates agree with the numbers, and segments meet.
            assert_eq!(segment.date_ms, Some(DOORS.as_millis() + (number * 3_840) as i64));
            assert!(date.is_none_or(|end| segment.date_ms == Some(end)));
            date = segment.date_ms.map(|begin| begin + duration as i64);
            let extension = if rendition.is_cmaf() { "m4s" } else { "mp3" };
            assert_eq!(segment.uri, format!("{rendition}/s{number}.{extension}"));
            // Of a segment all parts or none, and together as long as it is.
            let listed: u64 = segment.parts.iter().map(|part| part.duration_ms).sum();
            assert!(segment.parts.is_empty() || listed == duration);
            assert!(segment.parts.iter().all(|part| !part.gap) || segment.gap, "a hole makes a hole");
        }
        if let Some(unfinished) = &self.unfinished {
            assert!(unfinished.date_ms == date && !unfinished.parts.is_empty() && !unfinished.gap);
            assert!(unfinished.parts.len() < 8 && unfinished.duration_ms.is_none());
        }
        let parts = self.parts();
        for (place, (segment, part)) in parts.iter().enumerate() {
            assert!(part.duration_ms <= self.part_target_ms);
            // 85 % at least, but for those that are independent or absent, and the last of a segment.
            assert!(part.duration_ms * 100 >= self.part_target_ms * 85);
            assert!(part.independent != part.gap);
            // Numbered through, so that players who count find the right one; none missing up to the end.
            let number = part_of(&part.uri, rendition);
            assert_eq!(number / 8, *segment);
            assert_eq!(number, part_of(&parts[0].1.uri, rendition) + place as u64);
        }
        let first = part_of(&parts[0].1.uri, rendition);
        assert_eq!(first % 8, 0);
        let end = part_of(&parts[parts.len() - 1].1.uri, rendition) + 1;
        // None is further from the end than three target durations; every segment that begins within them has its
        // parts listed.
        assert!((end - first) * PART_MS <= 3 * TARGET_MS);
        assert!(first / 8 == self.sequence || (end + 8 - first) * PART_MS > 3 * TARGET_MS);
        if self.ended {
            assert!(self.hints.is_empty() && self.reports.is_empty() && self.unfinished.is_none());
        } else {
            assert_eq!(self.hints.len(), 1);
            assert_eq!(part_of(&self.hints[0], rendition), end, "the hint is the part after the last");
            let (segment, place) = ((end - 1) / 8, (end - 1) % 8);
            let others: Vec<_> = Rendition::ALL
                .into_iter()
                .filter(|other| *other != rendition)
                .map(|other| format!("URI=\"{other}.m3u8\",LAST-MSN={segment},LAST-PART={place}"))
                .collect();
            assert_eq!(self.reports, others);
        }
    }

    /// What must hold of a playlist and one that was given before it, perhaps by an edge that has died since.
    fn check_after(&self, before: &Self, rendition: Rendition, same_window: bool) {
        assert!(self.sequence >= before.sequence, "the first number never goes back");
        let shift = (self.sequence - before.sequence) as usize;
        if shift > 0 {
            assert!(self.duration_ms() >= 3 * TARGET_MS, "only what is long enough is cut");
        }
        // A number names one thing for ever, however often it is listed.
        for (old, new) in before.segments.iter().skip(shift).zip(&self.segments) {
            assert_eq!((&old.uri, old.date_ms), (&new.uri, new.date_ms));
            assert_eq!(old.duration_ms, new.duration_ms);
            assert!(old.gap == new.gap || !same_window);
        }
        assert!(self.sequence + self.segments.len() as u64 >= before.sequence + before.segments.len() as u64);
        let (old, new) = (before.parts(), self.parts());
        let number = |part: Option<&(u64, &SeenPart)>| part.map(|(_, part)| part_of(&part.uri, rendition));
        assert!(number(new.first()) >= number(old.first()), "parts go in the order in which they came");
        assert!(number(new.last()) >= number(old.last()), "the end never goes back");
        if same_window {
            let listed: BTreeMap<_, _> = new.iter().map(|(_, part)| (&part.uri, *part)).collect();
            for (_, part) in &old {
                assert!(listed.get(&part.uri).is_none_or(|again| again == part));
            }
        }
        if let Some(hint) = before.hints.first().map(|hint| part_of(hint, rendition)) {
            let end = number(new.last()).unwrap() + 1;
            let kept = self.ended || self.hints.iter().any(|again| part_of(again, rendition) == hint);
            assert!(kept || hint < end, "what was hinted at was listed, unless nothing comes any more");
        }
        assert!(!before.ended || self.ended);
    }
}

/// Origin as an edge sees it: parts that it made and retains, and those that no edge could read.
struct Origin {
    made: u64,
    unreadable: BTreeSet<u64>,
}

/// An edge, and what its players remember of it and of those before it.
struct Edge {
    window: Window,
    last: BTreeMap<Rendition, Playlist>,
    /// Whether `last` is of this window.
    same: bool,
    /// Parts listed at some time and the newest part then.
    listed: BTreeMap<u64, u64>,
}

impl Edge {
    fn take(&mut self, origin: &Origin, numbers: std::ops::Range<u64>) {
        for n in numbers.filter(|n| !origin.unreadable.contains(n)) {
            assert!(matches!(self.window.push(part(n)), Push::Accepted { .. }));
        }
    }

    /// Everything that a player can ask of it now.
    fn look(&mut self, rendition: Rendition, ask: (u64, Option<u64>)) {
        let reload = Reload::new(ask.0, ask.1);
        let readiness = self.window.playlist_readiness(Some(reload));
        let Some(playlist) = self.window.media_playlist(rendition, DOORS) else {
            // After the end the recording answers instead.
            let ended = self.window.has_ended();
            assert_eq!(self.window.playlist_readiness(None) == Readiness::Ready, ended);
            assert_eq!(readiness == Readiness::Ready, ended, "a reload is not answered with nothing");
            return;
        };
        assert_eq!(self.window.playlist_readiness(None), Readiness::Ready);
        let text = playlist.render();
        assert_eq!(MediaPlaylist::parse(&text), Ok(playlist));
        let seen = read(&text);
        seen.check(rendition);
        if let Some(before) = self.last.get(&rendition) {
            seen.check_after(before, rendition, self.same);
        }
        let newest = part_of(&seen.parts().last().unwrap().1.uri, rendition);
        self.check_reload(&seen, newest, ask, readiness);
        for (_, part) in seen.parts() {
            let number = part_of(&part.uri, rendition);
            let held = self.window.get(PartNumber::new(number));
            assert_eq!(held.is_some(), !part.gap, "what is listed can be had, and only that");
            if held.is_some() {
                self.listed.insert(number, newest);
            }
        }
        for (segment, number) in seen.segments.iter().zip(seen.sequence..) {
            let held = self.window.segment(SegmentNumber::new(number), rendition);
            assert_eq!(held.is_some(), !segment.gap);
        }
        // A part can be had for three target durations after it left the list.
        self.listed.retain(|number, at| {
            let owed = newest <= *at + 25;
            assert!(!owed || self.window.get(PartNumber::new(*number)).is_some(), "{number} at {newest}");
            owed
        });
        self.last.insert(rendition, seen);
        self.same = true;
    }

    /// A blocking reload against the text that would answer it (RFC 8216bis section 6.2.5.2).
    fn check_reload(&self, seen: &Playlist, newest: u64, ask: (u64, Option<u64>), readiness: Readiness) {
        if seen.ended {
            assert_eq!(readiness, Readiness::Ready, "after the end directives do not count");
            return;
        }
        let (segment, place) = match ask {
            (segment, None) => (segment, 7),
            (segment, Some(place)) if place < 8 => (segment, place),
            (segment, Some(_)) => (segment + 1, 0),
        };
        let last_whole = seen.sequence + seen.segments.len() as u64 - 1;
        let expected = if segment > last_whole + 2 {
            Readiness::TooFar
        } else if segment * 8 + place <= newest {
            Readiness::Ready
        } else {
            // It comes within three target durations.
            assert!((segment * 8 + place - newest) * PART_MS <= 3 * TARGET_MS);
            Readiness::Wait
        };
        assert_eq!(readiness, expected, "{ask:?} of {newest}");
        assert_eq!(self.window.reload_limit(), last_whole + 2);
        for (beyond, expected) in
            [(0, Readiness::Ready), (1, Readiness::Wait), (2, Readiness::Wait), (3, Readiness::TooFar)]
        {
            assert_eq!(self.window.part_readiness(PartNumber::new(newest + beyond)), expected);
        }
    }
}

#[derive(Clone, Debug)]
enum Action {
    /// Parts come one by one; players look after each.
    Arrive { count: u64 },
    /// A part that nobody can read.
    Spoil { count: u64 },
    /// The edge is behind for so long that origin no longer has what it misses.
    Overrun { count: u64 },
    /// The edge dies, and another takes its place.
    Restart,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (1u64..12).prop_map(|count| Action::Arrive { count }),
        2 => (1u64..4).prop_map(|count| Action::Spoil { count }),
        1 => (257u64..600).prop_map(|count| Action::Overrun { count }),
        2 => Just(Action::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn live_playlists_hold_the_rules(
        actions in prop::collection::vec(action(), 1..40),
        first in prop_oneof![Just(0u64), 0u64..2_000],
        asks in prop::collection::vec((-3i64..5, prop::option::of(0u64..16)), 16),
        renditions in prop::collection::vec(prop::sample::select(Rendition::ALL.to_vec()), 7),
        ends in any::<bool>(),
    ) {
        let mut origin = Origin { made: first, unreadable: BTreeSet::new() };
        let mut edge = Edge {
            window: Window::new(),
            last: BTreeMap::new(),
            same: true,
            listed: BTreeMap::new(),
        };
        edge.window.settle();
        let mut looks = 0usize;
        let mut look = |edge: &mut Edge, made: u64| {
            looks += 1;
            let (back, part) = asks[looks % asks.len()];
            let segment = (made / 8).saturating_add_signed(back);
            edge.look(renditions[looks % renditions.len()], (segment, part));
        };
        for action in actions {
            match action {
                Action::Arrive { count } => for _ in 0..count {
                    edge.take(&origin, origin.made..origin.made + 1);
                    origin.made += 1;
                    look(&mut edge, origin.made);
                },
                Action::Spoil { count } => {
                    origin.unreadable.extend(origin.made..origin.made + count);
                    origin.made += count;
                    look(&mut edge, origin.made);
                }
                Action::Overrun { count } => {
                    origin.made += count;
                    // It gets what origin retains, with players looking on.
                    for n in origin.made - 256..origin.made {
                        edge.take(&origin, n..n + 1);
                        look(&mut edge, n + 1);
                    }
                }
                Action::Restart => {
                    edge.window = Window::new();
                    edge.same = false;
                    edge.listed.clear();
                    // While it is being filled it gives nothing away.
                    for n in origin.made.saturating_sub(256).max(first)..origin.made {
                        edge.take(&origin, n..n + 1);
                        prop_assert_eq!(edge.window.media_playlist(Rendition::Opus24, DOORS), None);
                        prop_assert_eq!(edge.window.playlist_readiness(None), Readiness::Wait);
                        let part = PartNumber::new(n + 100);
                        let far = edge.window.part_readiness(part);
                        prop_assert!(edge.window.newest().is_none() || far == Readiness::Wait);
                    }
                    edge.window.settle();
                    look(&mut edge, origin.made);
                }
            }
        }
        if ends {
            edge.window.end(Bytes::new());
            (0..4).for_each(|_| look(&mut edge, origin.made));
        }
    }
}

#[test]
fn what_is_asked_for_before_anything_exists_is_waited_for_or_refused() {
    let mut empty = Window::new();
    assert_eq!(empty.playlist_readiness(None), Readiness::Wait);
    assert_eq!(empty.playlist_readiness(Some(Reload::new(u64::MAX, Some(7)))), Readiness::Wait);
    assert_eq!(empty.part_readiness(PartNumber::ZERO), Readiness::TooFar, "nothing hints at it");
    empty.end(Bytes::new());
    assert_eq!(empty.playlist_readiness(None), Readiness::Ready);
    assert_eq!(empty.part_readiness(PartNumber::ZERO), Readiness::Ready);
    assert_eq!(empty.media_playlist(Rendition::Opus24, DOORS), None);
    // In the first segment.
    let young = window(0..3);
    assert_eq!(young.playlist_readiness(None), Readiness::Wait);
    assert_eq!(
        young.playlist_readiness(Some(Reload::new(0, Some(1)))),
        Readiness::Wait,
        "no segment is whole"
    );
    assert_eq!(young.playlist_readiness(Some(Reload::new(2, None))), Readiness::TooFar);
}

#[test]
fn directives_at_the_end_of_all_numbers_are_too_far() {
    let window = window(0..20);
    for segment in [u64::MAX, u64::MAX - 1, u64::MAX / 8, 4] {
        for part in [None, Some(0), Some(7), Some(8), Some(u64::MAX)] {
            assert_eq!(window.playlist_readiness(Some(Reload::new(segment, part))), Readiness::TooFar);
        }
    }
    assert_eq!(window.part_readiness(PartNumber::new(u64::MAX)), Readiness::TooFar);
    assert!(Reload::new(3, None).ends_segment() && Reload::new(3, Some(7)).ends_segment());
    assert!(!Reload::new(3, Some(0)).ends_segment() && !Reload::new(3, Some(8)).ends_segment());
}

#[test]
fn the_version_changes_with_what_playlists_are_made_of() {
    let mut window = Window::new();
    let mut last = window.version();
    let mut changed = |window: &Window| std::mem::replace(&mut last, window.version()) != window.version();
    window.push(part(0));
    assert!(changed(&window));
    window.settle();
    assert!(changed(&window));
    window.settle();
    window.push(part(0));
    window.announce(Bytes::from_static(b"words"));
    assert!(!changed(&window), "nothing new");
    window.end(Bytes::new());
    assert!(changed(&window));
}
