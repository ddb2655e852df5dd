//! Properties over random arrivals, starts, tiers, switches and skips, and single cases with exact outputs.

use bytes::Bytes;
use formats::mp4::{self, PartBoxes};
use formats::ogg;
use model::{
    Digest, Epoch, MediaTime, OPUS_FRAMES_PER_PART, Part, PartKind, PartNumber, Payload, Rendition,
    SegmentNumber, UnixTime,
};
use proptest::prelude::*;

use crate::window::OGG_SERIAL;
use crate::*;

fn number(n: u64) -> PartNumber {
    PartNumber::new(n)
}

/// Bytes that no two parts or renditions share. They are no MP4: pages cannot be made of them.
fn marked(n: u64, rendition: Rendition) -> Bytes {
    Bytes::from(format!("<{rendition} {n}>"))
}

fn unhashed(bytes: Bytes) -> Payload {
    Payload { bytes, digest: Digest::default() }
}

pub(crate) fn part(n: u64) -> Part {
    Part {
        number: number(n),
        epoch: Epoch(1),
        kind: PartKind::Live,
        payloads: Rendition::ALL.map(|rendition| unhashed(marked(n, rendition))),
        records: Vec::new(),
    }
}

/// A part of real boxes with packets that name it.
fn boxed_part(n: u64) -> Part {
    let packets: Vec<Bytes> =
        (0..OPUS_FRAMES_PER_PART).map(|i| Bytes::from(vec![0xf8, n as u8, i as u8])).collect();
    let boxes = mp4::write_part(&PartBoxes {
        sequence: n as u32 + 1,
        decode_time: number(n).start(),
        frames: &packets,
        lead: &[],
    });
    let mut part = part(n);
    part.payloads[0] = unhashed(boxes.clone());
    part.payloads[1] = unhashed(boxes);
    part
}

pub(crate) fn window(numbers: impl IntoIterator<Item = u64>) -> Window {
    let mut window = Window::new();
    for n in numbers {
        assert!(matches!(window.push(part(n)), Push::Accepted { .. }));
    }
    window.settle();
    window
}

/// A cadence whose last flush was due with the newest part, so that a flush is full when the next is due.
fn cadence(window: &Window, tier: Tier) -> Cadence {
    Cadence::new(tier, window.newest().map_or(0, |newest| newest.next().get()))
}

fn open(window: &Window, tier: Tier, start: Start) -> Cursor {
    Cursor::open(window, Rendition::Opus48, Container::Mp4, cadence(window, tier), start).unwrap()
}

/// Everything the cursor sends until it waits or ends, in words.
fn drain(cursor: &mut Cursor, window: &Window) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        said.push(match cursor.poll(window) {
            Step::Send(Output::Head(_)) => "head".to_owned(),
            Step::Send(Output::Notice(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Step::Send(Output::Part { number, .. }) => number.to_string(),
            Step::Send(Output::Tail(_)) => "tail".to_owned(),
            Step::Wait => return said,
            Step::End => "end".to_owned(),
        });
        if said.last().is_some_and(|word| word == "end") {
            return said;
        }
    }
}

fn check(cursor: &mut Cursor, window: &Window, expected: &[&str]) {
    assert_eq!(drain(cursor, window), expected);
}

#[test]
fn the_first_burst_is_a_flush_and_one_part_more() {
    let window = window(0..100);
    for (tier, first) in [(Tier::ONE, 98), (Tier::TWO, 97), (Tier::FOUR, 95), (Tier::EIGHT, 91)] {
        let mut cursor = open(&window, tier, Start::Live);
        let expected: Vec<String> =
            std::iter::once("head".to_owned()).chain((first..100).map(|n| n.to_string())).collect();
        assert_eq!(drain(&mut cursor, &window), expected);
    }
}

#[test]
fn an_endless_address_begins_with_more() {
    let window = window(0..100);
    let mut cursor =
        Cursor::open(&window, Rendition::Mp3_64, Container::Mp3, cadence(&window, Tier::ONE), Start::Live)
            .unwrap();
    assert_eq!(drain(&mut cursor, &window).len() as u64, ENDLESS_BURST);
}

#[test]
fn a_young_window_gives_what_it_has() {
    let window = window(0..1);
    check(&mut open(&window, Tier::EIGHT, Start::Live), &window, &["head", "0"]);
}

#[test]
fn slower_tiers_wait_for_a_full_flush() {
    let mut window = window(0..10);
    let mut cursor = open(&window, Tier::FOUR, Start::Live);
    check(&mut cursor, &window, &["head", "5", "6", "7", "8", "9"]);
    for n in 10..13 {
        window.push(part(n));
        check(&mut cursor, &window, &[]);
    }
    window.push(part(13));
    check(&mut cursor, &window, &["10", "11", "12", "13"]);
    cursor.set_cadence(Cadence::new(Tier::ONE, 0));
    window.push(part(14));
    check(&mut cursor, &window, &["14"]);
}

#[test]
fn a_cadence_has_its_parts_whenever_the_listener_came() {
    for phase in 0..4 {
        let mut window = window(0..10);
        let cadence = Cadence::new(Tier::FOUR, phase);
        let mut cursor =
            Cursor::open(&window, Rendition::Opus48, Container::Mp4, cadence, Start::Live).unwrap();
        drain(&mut cursor, &window);
        let mut flushed = 10;
        for n in 10..40 {
            window.push(part(n));
            let sent = drain(&mut cursor, &window).len() as u64;
            assert_eq!(sent, if (n + 1) % 4 == phase { n + 1 - flushed } else { 0 });
            flushed += sent;
        }
        assert!(flushed > 36);
    }
}

#[test]
fn who_missed_the_moment_of_a_flush_gets_it_as_soon_as_there_is_room() {
    let mut window = window(0..10);
    let mut cursor =
        Cursor::open(&window, Rendition::Opus48, Container::Mp4, Cadence::new(Tier::FOUR, 2), Start::Live)
            .unwrap();
    drain(&mut cursor, &window);
    (10..15).for_each(|n| _ = window.push(part(n)));
    // The flush was due with part 13; now there is one more, and it goes along.
    check(&mut cursor, &window, &["10", "11", "12", "13", "14"]);
    (15..18).for_each(|n| _ = window.push(part(n)));
    check(&mut cursor, &window, &["15", "16", "17"]);
}

#[test]
fn a_start_in_the_window_is_exact() {
    let window = window(0..300);
    check(&mut open(&window, Tier::EIGHT, Start::From(number(297))), &window, &["head", "297", "298", "299"]);
}

#[test]
fn a_start_before_the_window_begins_with_the_oldest_and_is_counted() {
    let window = window(0..300);
    let mut cursor = open(&window, Tier::ONE, Start::From(number(4)));
    assert_eq!(drain(&mut cursor, &window)[1], "44");
    assert_eq!(cursor.skips(), Skips { behind: 40, missing: 0 });
}

#[test]
fn a_start_in_the_future_waits_if_it_is_near() {
    let mut window = window(0..10);
    for near in [10, 11, 10 + FUTURE_PARTS] {
        assert!(
            Cursor::open(
                &window,
                Rendition::Opus24,
                Container::Mp4,
                cadence(&window, Tier::ONE),
                Start::From(number(near))
            )
            .is_ok()
        );
    }
    for far in [11 + FUTURE_PARTS, 1_000_000, u64::MAX] {
        let refused = Cursor::open(
            &window,
            Rendition::Opus24,
            Container::Mp4,
            cadence(&window, Tier::ONE),
            Start::From(number(far)),
        );
        assert_eq!(refused.unwrap_err(), FutureStart { asked: number(far), newest: number(9) });
    }
    let mut cursor = open(&window, Tier::ONE, Start::From(number(12)));
    check(&mut cursor, &window, &["head"]);
    window.push(part(10));
    window.push(part(11));
    check(&mut cursor, &window, &[]);
    window.push(part(12));
    check(&mut cursor, &window, &["12"]);
    assert_eq!(cursor.skips(), Skips::default());
}

#[test]
fn before_anything_exists_a_listener_waits_and_is_told() {
    let mut window = Window::new();
    let mut cursor = open(&window, Tier::ONE, Start::From(number(70)));
    check(&mut cursor, &window, &["head"]);
    window.announce(Bytes::from_static(b"doors"));
    check(&mut cursor, &window, &["doors"]);
    // The first parts after a start of the edge are old ones: nobody is placed by them.
    for n in 0..80 {
        window.push(part(n));
        check(&mut cursor, &window, &[]);
    }
    window.settle();
    check(&mut cursor, &window, &["70", "71", "72", "73", "74", "75", "76", "77", "78", "79"]);
}

#[test]
fn a_start_accepted_in_ignorance_that_proves_nonsense_is_the_present() {
    let mut window = Window::new();
    let mut cursor = open(&window, Tier::ONE, Start::From(number(u64::MAX)));
    (0..20).for_each(|n| _ = window.push(part(n)));
    window.settle();
    check(&mut cursor, &window, &["head", "18", "19"]);
}

#[test]
fn notices_ride_on_flushes_and_go_alone_only_when_nothing_else_does() {
    let mut window = window(0..10);
    window.announce(Bytes::from_static(b"a"));
    let mut cursor = open(&window, Tier::TWO, Start::Live);
    check(&mut cursor, &window, &["head", "a", "7", "8", "9"]);
    window.announce(Bytes::from_static(b"b"));
    check(&mut cursor, &window, &[]);
    window.push(part(10));
    check(&mut cursor, &window, &[]);
    window.push(part(11));
    check(&mut cursor, &window, &["b", "10", "11"]);
    for notice in ["c", "d"] {
        window.announce(Bytes::from(notice));
        check(&mut cursor, &window, &[]);
    }
    window.announce(Bytes::from_static(b"e"));
    check(&mut cursor, &window, &["e"]);
}

#[test]
fn endless_addresses_carry_no_notices() {
    let mut window = window(0..10);
    window.announce(Bytes::from_static(b"a"));
    let mut cursor = Cursor::open(
        &window,
        Rendition::Mp3_64,
        Container::Mp3,
        cadence(&window, Tier::ONE),
        Start::From(number(9)),
    )
    .unwrap();
    check(&mut cursor, &window, &["9"]);
    window.end(Bytes::from_static(b"bye"));
    check(&mut cursor, &window, &["end"]);
}

#[test]
fn the_end_flushes_and_has_the_last_word() {
    let mut window = window(0..10);
    let mut cursor = open(&window, Tier::EIGHT, Start::Live);
    drain(&mut cursor, &window);
    window.push(part(10));
    window.announce(Bytes::from_static(b"a"));
    window.end(Bytes::from_static(b"bye"));
    window.announce(Bytes::from_static(b"too late"));
    check(&mut cursor, &window, &["10", "bye", "end"]);
    check(&mut cursor, &window, &["end"]);
    // Who comes back after the end still gets what they missed.
    check(&mut open(&window, Tier::ONE, Start::From(number(9))), &window, &["head", "9", "10", "bye", "end"]);
    check(&mut open(&window, Tier::ONE, Start::From(number(11))), &window, &["head", "bye", "end"]);
}

#[test]
fn an_event_that_ends_before_it_began_ends_its_responses() {
    let mut window = Window::new();
    let mut cursor = open(&window, Tier::ONE, Start::Live);
    check(&mut cursor, &window, &["head"]);
    window.end(Bytes::from_static(b"bye"));
    check(&mut cursor, &window, &["bye", "end"]);
}

#[test]
fn a_slow_listener_skips_whole_parts_and_is_counted() {
    let mut window = window(0..10);
    let mut cursor = open(&window, Tier::ONE, Start::From(number(8)));
    assert_eq!(cursor.poll(&window), Step::Send(Output::Head(mp4::opus_init())));
    let bytes = marked(8, Rendition::Opus48);
    assert_eq!(cursor.poll(&window), Step::Send(Output::Part { number: number(8), bytes: &bytes }));
    (10..1000).for_each(|n| _ = window.push(part(n)));
    assert_eq!(drain(&mut cursor, &window)[0], "744");
    assert_eq!(cursor.skips(), Skips { behind: 744 - 9, missing: 0 });
}

#[test]
fn a_hole_is_skipped_and_counted() {
    let window = window((0..10).chain(14..20));
    let mut cursor = open(&window, Tier::ONE, Start::From(number(8)));
    check(&mut cursor, &window, &["head", "8", "9", "14", "15", "16", "17", "18", "19"]);
    assert_eq!(cursor.skips(), Skips { behind: 0, missing: 4 });
}

#[test]
fn the_rendition_changes_at_a_part() {
    let mut window = window(0..4);
    let mut cursor = open(&window, Tier::ONE, Start::Live);
    drain(&mut cursor, &window);
    cursor.switch(Rendition::Opus24).unwrap();
    window.push(part(4));
    let bytes = marked(4, Rendition::Opus24);
    assert_eq!(cursor.poll(&window), Step::Send(Output::Part { number: number(4), bytes: &bytes }));
    assert_eq!(
        cursor.switch(Rendition::Mp3_64),
        Err(SwitchError { from: Rendition::Opus24, to: Rendition::Mp3_64 })
    );
}

#[test]
fn old_parts_and_repeated_ones_are_dropped() {
    let mut window = window([5, 7]);
    for stale in [0, 5, 6, 7] {
        assert_eq!(window.push(part(stale)), Push::Stale);
    }
    assert_eq!(window.push(part(10)), Push::Accepted { missing: 2 });
    assert_eq!(window.parts().map(|part| part.number.get()).collect::<Vec<_>>(), [5, 7, 10]);
}

#[test]
fn a_jump_lets_everything_go_that_it_leaves_behind() {
    let mut window = window(0..300);
    window.push(part(500));
    assert_eq!((window.oldest(), window.newest()), (Some(number(245)), Some(number(500))));
    assert!(window.parts().all(|part| part.number >= number(245)));
    window.push(part(u64::MAX));
    assert_eq!(window.parts().count(), 1);
    assert_eq!(window.oldest(), Some(number(u64::MAX)));
}

#[test]
fn endless_ogg_is_one_stream_of_whole_pages() {
    let mut window = Window::new();
    (0..30).for_each(|n| _ = window.push(boxed_part(n)));
    window.settle();
    let mut cursor = Cursor::open(
        &window,
        Rendition::Opus24,
        Container::Ogg,
        cadence(&window, Tier::ONE),
        Start::From(number(20)),
    )
    .unwrap();
    window.end(Bytes::new());
    let mut stream = Vec::new();
    while let Step::Send(output) = cursor.poll(&window) {
        match output {
            Output::Head(bytes) | Output::Tail(bytes) => stream.extend_from_slice(&bytes),
            Output::Part { number: n, bytes } => {
                let parsed =
                    mp4::parse_part(&window.get(n).unwrap().payload(Rendition::Opus24).bytes).unwrap();
                let end = MediaTime::from_samples((n.get() + 1) * model::PART_SAMPLES).samples();
                let page = ogg::page_for_part(OGG_SERIAL, n.get() as u32 + 2, end, &parsed.frames, false);
                assert_eq!(*bytes, page);
                stream.extend_from_slice(bytes);
            }
            Output::Notice(_) => panic!("no notices in Ogg"),
        }
    }
    let (_, packets) = ogg::read_opus(&stream).unwrap();
    assert_eq!(packets.len(), 10 * OPUS_FRAMES_PER_PART);
    assert_eq!(packets[0].position, number(20).start().samples());
    assert_eq!(packets.last().unwrap().data[..], [0xf8, 29, 23]);
}

#[test]
fn the_live_playlist_names_whole_segments() {
    let doors = UnixTime::parse("2026-11-22T20:00:00Z").unwrap();
    assert_eq!(window(0..7).media_playlist(Rendition::Opus48, doors), None);
    // It began within segment 0, which is therefore left out.
    let young = window(3..27).media_playlist(Rendition::Opus48, doors).unwrap();
    assert_eq!((young.media_sequence, young.segments.len(), young.ended), (1, 2, false));
    assert_eq!(young.segments[0].uri, "opus-48/s1.m4s");
    assert_eq!(young.segments[0].program_date_time.to_string(), "2026-11-22T20:00:03.840Z");
    assert_eq!(young.init_uri, Some(format!("opus-48/{}", mp4::init_name(&mp4::opus_init()))));
    let old = window(0..1000).media_playlist(Rendition::Mp3_64, doors).unwrap();
    assert_eq!((old.media_sequence, old.segments.len()), (125 - LIVE_SEGMENTS as u64, LIVE_SEGMENTS));
    assert_eq!((old.segments[0].uri.as_str(), &old.init_uri), ("mp3-64/s110.mp3", &None));
}

#[test]
fn a_segment_with_a_hole_is_a_gap_and_the_last_may_be_short() {
    let doors = UnixTime::from_millis(0);
    let mut window = window((0..10).chain(11..27));
    let gaps: Vec<bool> = window
        .media_playlist(Rendition::Opus24, doors)
        .unwrap()
        .segments
        .iter()
        .map(|segment| segment.gap)
        .collect();
    assert_eq!(gaps, [false, true, false]);
    assert_eq!(window.segment(SegmentNumber::new(1), Rendition::Opus24), None);
    assert_eq!(window.segment(SegmentNumber::new(3), Rendition::Opus24), None);
    window.end(Bytes::new());
    let ended = window.media_playlist(Rendition::Opus24, doors).unwrap();
    assert!(ended.ended);
    assert_eq!(ended.segments.len(), 4);
    assert_eq!(ended.segments[3].duration, 3 * model::PART_DURATION);
    let last = window.segment(SegmentNumber::new(3), Rendition::Opus24).unwrap();
    assert_eq!(last, [24, 25, 26].map(|n| marked(n, Rendition::Opus24)));
    // Both were given away for good: what comes now changes neither.
    assert_eq!(window.push(part(27)), Push::Stale);
    assert_eq!(window.media_playlist(Rendition::Opus24, doors).unwrap(), ended);
    assert_eq!(window.segment(SegmentNumber::new(3), Rendition::Opus24).unwrap(), last);
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Action {
    /// A part arrives, `jump` numbers later than it should.
    Arrive { jump: u64 },
    /// The shell says something.
    Announce,
    /// A listener comes; `back` counts from the newest part, negative for the future.
    Join { mp3: bool, tier: u8, phase: u64, back: Option<i64> },
    /// A listener has room for some writes.
    Poll { who: usize, writes: usize },
    /// A listener is moved to the other Opus rendition.
    Switch { who: usize },
    /// A listener is moved to another tier.
    Tier { who: usize, tier: u8, phase: u64 },
}

fn action() -> impl Strategy<Value = Action> {
    let tier = || prop::sample::select(vec![1u8, 2, 4, 8]);
    prop_oneof![
        12 => Just(Action::Arrive { jump: 0 }),
        1 => (1u64..300).prop_map(|jump| Action::Arrive { jump }),
        2 => Just(Action::Announce),
        2 => (any::<bool>(), tier(), 0u64..8, prop::option::of(-12i64..400))
            .prop_map(|(mp3, tier, phase, back)| Action::Join { mp3, tier, phase, back }),
        12 => (any::<usize>(), 0usize..12).prop_map(|(who, writes)| Action::Poll { who, writes }),
        1 => any::<usize>().prop_map(|who| Action::Switch { who }),
        1 => (any::<usize>(), tier(), 0u64..8).prop_map(|(who, tier, phase)| Action::Tier { who, tier, phase }),
    ]
}

/// What a listener must have seen, kept without any of the crate's bookkeeping.
struct Listener {
    cursor: Cursor,
    asked: Option<u64>,
    got: Vec<u64>,
    received: Vec<u8>,
    owed: Vec<u8>,
    notices: Vec<Bytes>,
    done: bool,
}

impl Listener {
    fn poll(&mut self, window: &Window) -> bool {
        let before = self.cursor.skips();
        let rendition = self.cursor.rendition();
        match self.cursor.poll(window) {
            Step::Wait => false,
            Step::End => {
                assert!(window.has_ended());
                self.done = true;
                false
            }
            Step::Send(Output::Head(head)) => {
                assert!(self.got.is_empty() && self.notices.is_empty());
                assert_eq!(head, mp4::opus_init());
                true
            }
            Step::Send(Output::Tail(_)) => panic!("only Ogg has a tail"),
            Step::Send(Output::Notice(bytes)) => {
                assert_ne!(self.notices.last(), Some(bytes), "never twice the same");
                assert_eq!(Some(bytes), window.notice().map(|notice| &notice.bytes), "always the newest");
                self.notices.push(bytes.clone());
                true
            }
            Step::Send(Output::Part { number, bytes }) => {
                let n = number.get();
                let skipped = {
                    let now = self.cursor.skips();
                    (now.behind + now.missing) - (before.behind + before.missing)
                };
                // In order, once, and every hole is counted as long as it is wide.
                let expected = self.got.last().map(|last| last + 1).or(self.asked);
                if let Some(expected) = expected {
                    assert_eq!(n, expected + u64::from(skipped));
                }
                assert_eq!(bytes, &marked(n, rendition), "whole, and of the rendition of the moment");
                self.received.extend_from_slice(bytes);
                self.owed.extend_from_slice(&marked(n, rendition));
                self.got.push(n);
                true
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_listener_gets_each_part_once_in_order_or_a_counted_skip(
        actions in prop::collection::vec(action(), 1..600),
        first in 0u64..1000,
    ) {
        let mut window = Window::new();
        let mut arrived: Vec<u64> = Vec::new();
        let mut listeners: Vec<Listener> = Vec::new();
        let (mut next, mut announced) = (first, 0u32);
        for action in actions {
            match action {
                Action::Arrive { jump } => {
                    next += jump;
                    let pushed = window.push(part(next));
                    prop_assert!(pushed != Push::Stale);
                    window.settle();
                    arrived.push(next);
                    next += 1;
                    let oldest = window.oldest().unwrap().get();
                    prop_assert!(oldest + WINDOW_PARTS as u64 >= next);
                    let expected: Vec<u64> =
                        arrived.iter().copied().filter(|n| n + WINDOW_PARTS as u64 >= next).collect();
                    prop_assert_eq!(window.parts().map(|p| p.number.get()).collect::<Vec<_>>(), expected);
                }
                Action::Announce => {
                    announced += 1;
                    window.announce(Bytes::from(format!("notice {announced}")));
                }
                Action::Join { mp3, tier, phase, back } => {
                    let (rendition, container) = if mp3 {
                        (Rendition::Mp3_64, Container::Mp3)
                    } else {
                        (Rendition::Opus48, Container::Mp4)
                    };
                    let asked = back.and_then(|back| (next as i64).checked_sub(back)).and_then(|n| u64::try_from(n).ok());
                    let start = asked.map_or(Start::Live, |asked| Start::From(number(asked)));
                    match Cursor::open(&window, rendition, container, Cadence::new(Tier::new(tier).unwrap(), phase), start) {
                        Ok(cursor) => {
                            // What was accepted before anything existed may turn out to be nonsense.
                            let asked = asked.filter(|_| window.newest().is_some());
                            listeners.push(Listener {
                                cursor, asked, got: Vec::new(), received: Vec::new(),
                                owed: Vec::new(), notices: Vec::new(), done: false,
                            });
                        }
                        Err(refused) => {
                            prop_assert!(refused.asked > refused.newest.next().plus(FUTURE_PARTS));
                        }
                    }
                }
                Action::Poll { who, writes } if !listeners.is_empty() => {
                    let who = who % listeners.len();
                    (0..writes).all(|_| listeners[who].poll(&window));
                }
                Action::Switch { who } if !listeners.is_empty() => {
                    let who = who % listeners.len();
                    let cursor = &mut listeners[who].cursor;
                    let to = if cursor.rendition() == Rendition::Opus48 { Rendition::Opus24 } else { Rendition::Opus48 };
                    prop_assert_eq!(cursor.switch(to).is_ok(), cursor.rendition().is_cmaf());
                }
                Action::Tier { who, tier, phase } if !listeners.is_empty() => {
                    let who = who % listeners.len();
                    listeners[who].cursor.set_cadence(Cadence::new(Tier::new(tier).unwrap(), phase));
                }
                Action::Poll { .. } | Action::Switch { .. } | Action::Tier { .. } => {}
            }
        }
        window.end(Bytes::from_static(b"the end"));
        for mut listener in listeners {
            while listener.poll(&window) {}
            prop_assert!(listener.done);
            prop_assert_eq!(&listener.received, &listener.owed);
            // Nothing that is still there was left out.
            if let (Some(last), Some(newest)) = (listener.got.last(), window.newest()) {
                prop_assert_eq!(*last, newest.get());
            }
            if listener.cursor.rendition().is_cmaf() {
                prop_assert_eq!(listener.notices.last().map(|b| &b[..]), Some(&b"the end"[..]));
            } else {
                prop_assert!(listener.notices.is_empty());
            }
        }
    }
}
