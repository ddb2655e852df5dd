//! The rules of the ladder over random loads, and single cases with exact outputs.

use std::time::Duration;

use model::{BootTime, Rendition};
use proptest::prelude::*;

use super::*;
use crate::ticket::Tier;

fn at(ms: u64) -> BootTime {
    BootTime::from_uptime(Duration::from_millis(ms))
}

/// A load of these shares, in thousandths: processor, line, files, memory, listeners.
fn load(shares: [u64; 5]) -> Load {
    let used = |thousandths| Used::new(thousandths, 1_000);
    Load {
        processor: shares[0] as f64 / 1e3,
        line: Some(used(shares[1])),
        files: used(shares[2]),
        memory: used(shares[3]),
        listeners: used(shares[4]),
        ..Load::default()
    }
}

fn only(resource: Resource, thousandths: u64) -> Load {
    let mut shares = [0; 5];
    let index = match resource {
        Resource::Processor => 0,
        Resource::Line => 1,
        Resource::Files => 2,
        Resource::Memory => 3,
        Resource::Listeners => 4,
        Resource::Loop => unreachable!("lateness is no share"),
    };
    shares[index] = thousandths;
    load(shares)
}

fn late(by_ms: u64, for_ms: u64) -> Load {
    let [late, late_for] = [by_ms, for_ms].map(Duration::from_millis);
    Load { late, late_for, ..Load::default() }
}

fn fresh(load: Load) -> Report {
    Report { age: Duration::ZERO, load }
}

/// One ladder, looked at every second.
struct House {
    ladder: Ladder,
    orders: Orders,
    now_ms: u64,
}

impl House {
    fn new() -> Self {
        Self { ladder: Ladder::new(), orders: Orders::default(), now_ms: 0 }
    }

    fn second(&mut self, load: Load) -> Decision {
        self.reports(&[fresh(load)])
    }

    fn reports(&mut self, reports: &[Report]) -> Decision {
        let decision = self.ladder.observe(at(self.now_ms), reports, &self.orders);
        self.now_ms += 1_000;
        decision
    }

    /// What stands at the end of so many seconds.
    fn seconds(&mut self, seconds: u64, load: Load) -> Decision {
        let all = (0..seconds).map(|_| self.second(load));
        all.last().expect("at least one second")
    }
}

#[test]
fn levels_have_numbers() {
    for (number, level) in (0..).zip(Level::ALL) {
        assert_eq!((level.number(), Level::from_number(number)), (number, Some(level)));
    }
    assert_eq!(Level::from_number(7), None);
    for (number, class) in (0..).zip(Priority::ALL) {
        assert_eq!((class.number(), Priority::from_number(number)), (number, Some(class)));
    }
    assert_eq!(Priority::from_number(6), None);
}

#[test]
fn the_table_says_what_is_done() {
    let expected = "\
| Level | From | Of (any) | At once | Loop late | What changes |
| --- | --- | --- | --- | --- | --- |
| L1 | 70 % | processor, line, files, memory |  |  | extras go |
| L2 | 75 % | processor, line, files, memory |  | > 5 ms for 100 ms | slower tiers for the processor, opus-24 for newcomers for the line; newcomers go to a CDN |
| L3 | 85 % | processor, line, files, memory |  |  | line: everyone gets opus-24 |
| L4 | 90 % | processor, line, files, memory, listeners | files, memory | > 240 ms for 500 ms | newcomers wait |
| L5 | 95 % | processor, line, files, memory, listeners | files, memory |  | nobody new is let in |
| L6 | | | every edge silent | | stage and recording only |
";
    assert_eq!(table(), expected);
}

/// The level of a load that lasts, at the first look and at the third.
#[test]
fn each_resource_calls_for_its_levels() {
    use Level::{L0, L1, L2, L3, L4, L5};
    use Resource::{Files, Line, Listeners, Loop, Memory, Processor};
    let cases = [
        (Load::default(), None, L0, L0),
        (only(Processor, 699), None, L0, L0),
        (only(Processor, 700), Some(Processor), L0, L1),
        (only(Processor, 750), Some(Processor), L0, L2),
        (only(Line, 850), Some(Line), L0, L3),
        (only(Line, 900), Some(Line), L0, L4),
        (only(Processor, 950), Some(Processor), L0, L5),
        (only(Files, 899), Some(Files), L0, L3),
        (only(Files, 900), Some(Files), L4, L4),
        (only(Memory, 900), Some(Memory), L4, L4),
        (only(Memory, 5_000), Some(Memory), L5, L5),
        (only(Listeners, 899), None, L0, L0),
        (only(Listeners, 900), Some(Listeners), L0, L4),
        (only(Listeners, 950), Some(Listeners), L0, L5),
        (late(5, 1_000), None, L0, L0),
        (late(6, 99), None, L0, L0),
        (late(6, 100), Some(Loop), L0, L2),
        (late(241, 499), Some(Loop), L0, L2),
        (late(241, 500), Some(Loop), L0, L4),
        (late(u64::MAX, u64::MAX), Some(Loop), L0, L4),
        (load([760, 860, 0, 0, 0]), Some(Line), L0, L3),
        (load([710, 720, 0, 0, 0]), Some(Line), L0, L1),
    ];
    for (load, binding, first, third) in cases {
        let mut house = House::new();
        assert_eq!(house.second(load).level, first, "{load:?}");
        let decision = house.seconds(2, load);
        assert_eq!((decision.level, decision.binding), (third, binding), "{load:?}");
        assert_eq!(decision.worst, binding.map(|_| 0));
    }
}

/// What is taken is what helps; a level whose measure would not help is announced without it.
#[test]
fn what_is_done_acts_on_what_is_scarce() {
    let none = Measures::default();
    let fewer = Measures { extras: false, ..none };
    let tier = |parts| Tier::new(parts).unwrap();
    let small = Some(Rendition::Opus24);
    let waiting = Measures { admission: Admission::Waiting, ..fewer };
    let slowest = Measures { newcomers_tier: tier(8), everyones_tier: tier(8), ..fewer };
    let cases = [
        (only(Resource::Processor, 690), none),
        (only(Resource::Processor, 700), fewer),
        (only(Resource::Processor, 750), Measures { newcomers_tier: tier(2), ..fewer }),
        (only(Resource::Processor, 780), Measures { newcomers_tier: tier(4), ..fewer }),
        (only(Resource::Processor, 849), Measures { newcomers_tier: tier(8), ..fewer }),
        (
            only(Resource::Processor, 850),
            Measures { newcomers_tier: tier(8), everyones_tier: tier(2), ..fewer },
        ),
        (only(Resource::Processor, 899), slowest),
        (only(Resource::Processor, 900), Measures { admission: Admission::Waiting, ..slowest }),
        (late(6, 100), Measures { newcomers_tier: tier(2), ..fewer }),
        (late(300, 1_000), Measures { admission: Admission::Waiting, ..slowest }),
        (only(Resource::Line, 849), Measures { newcomers_cap: small, ..fewer }),
        (only(Resource::Line, 850), Measures { newcomers_cap: small, everyones_cap: small, ..fewer }),
        (
            only(Resource::Line, 960),
            Measures { newcomers_cap: small, everyones_cap: small, admission: Admission::Frozen, ..fewer },
        ),
        (only(Resource::Files, 890), fewer),
        (only(Resource::Files, 900), waiting),
        (only(Resource::Memory, 960), Measures { admission: Admission::Frozen, ..fewer }),
        (only(Resource::Listeners, 920), waiting),
    ];
    for (load, expected) in cases {
        assert_eq!(House::new().seconds(3, load).measures, expected, "{load:?}");
    }
    let mut house = House::new();
    house.orders = Orders { cdn: true, evidence: true, ..Orders::default() };
    let decision = house.seconds(3, only(Resource::Files, 750));
    assert!(decision.measures.newcomers_to_cdn && !decision.measures.challenge);
    let decision = house.second(only(Resource::Files, 900));
    let challenged = Priority::ALL.map(|class| decision.measures.challenges(class));
    assert_eq!(challenged, [false, false, false, false, true, false]);
}

#[test]
fn a_minute_a_level_down() {
    let mut house = House::new();
    assert_eq!(house.seconds(2, only(Resource::Files, 960)).level, Level::L5);
    // It has stood since the first look: 60 s later it is one less, and so on.
    let mut seen = vec![Level::L5];
    for _ in 2..300 {
        seen.push(house.second(Load::default()).level);
    }
    for (level, minute) in [Level::L5, Level::L4, Level::L3, Level::L2, Level::L1].into_iter().zip(0_usize..)
    {
        assert!(seen[(minute * 60).saturating_sub(1)..minute * 60 + 59].iter().all(|seen| *seen == level));
    }
    assert_eq!(house.seconds(2, Load::default()).level, Level::L0);
}

/// Everybody is small at L3, so the line seems to have room: as long as there would be none without, it stays.
#[test]
fn relief_is_not_mistaken_for_calm() {
    let mut house = House::new();
    let mut small = false;
    let mut changes = 0;
    let mut run = |house: &mut House, seconds, demand: u64| {
        for _ in 0..seconds {
            let decision = house.second(only(Resource::Line, if small { demand / 2 } else { demand }));
            changes += u32::from(small != decision.measures.everyones_cap.is_some());
            small = decision.measures.everyones_cap.is_some();
            assert!(!small || decision.level >= Level::L3, "what is done is announced");
        }
        (changes, small)
    };
    assert_eq!(run(&mut house, 7_200, 880), (1, true));
    assert_eq!(run(&mut house, 600, 600), (2, false));

    let mut house = House::new();
    let (mut parts, mut slowed) = (1, 0);
    for _ in 0..7_200 {
        // A fifth of the work does not depend on how often one writes.
        let decision = house.second(only(Resource::Processor, 180 + 720 / parts));
        let now = u64::from(decision.measures.everyones_tier.parts());
        slowed += u32::from(now != parts);
        parts = now;
        assert!(parts == 1 || decision.level >= Level::L2);
    }
    // At first as slow as can be; then faster by what there is room for, and no further.
    assert_eq!((parts, slowed), (2, 3));
}

#[test]
fn silent_edges_are_lost() {
    let mut house = House::new();
    let report = |age_s, files| Report {
        age: Duration::from_secs(age_s),
        load: Load { listeners: Used::new(10, 100), ..only(Resource::Files, files) },
    };
    // Never heard of is not lost.
    assert_eq!(house.reports(&[]).level, Level::L0);
    assert_eq!(house.reports(&[report(6, 0)]).level, Level::L0);
    // One of two: the other counts, and alone.
    let decision = house.reports(&[report(5, 800), report(6, 1_000)]);
    assert_eq!((decision.alive, decision.silent, decision.worst), (1, 1, Some(0)));
    assert_eq!((decision.pressures[Resource::Files], decision.listeners), (0.8, 20));
    // Both: at once.
    let decision = house.reports(&[report(6, 800), report(6, 1_000)]);
    assert_eq!((decision.level, decision.alive), (Level::L6, 0));
    assert_eq!(house.reports(&[]).level, Level::L6);
    assert_eq!(decision.measures.admission, Admission::Frozen);
    // One is back: it is no longer lost, and the way down is orderly.
    assert_eq!(house.reports(&[report(0, 0)]).level, Level::L5);
    let levels: Vec<_> = (0..120).map(|_| house.reports(&[report(0, 0)]).level).collect();
    assert_eq!(levels.iter().position(|level| *level == Level::L4), Some(59));
    assert_eq!(levels.iter().position(|level| *level == Level::L3), Some(119));
    // Lost and back again before a minute is over since the last step down: that minute is kept.
    assert_eq!(house.reports(&[]).level, Level::L6);
    assert_eq!(house.reports(&[report(0, 0)]).level, Level::L6);
}

#[test]
fn a_cell_is_judged_as_a_whole_and_an_edge_by_itself() {
    let edges = [only(Resource::Processor, 960), only(Resource::Processor, 100)];
    let mut cell = House::new();
    cell.reports(&edges.map(fresh));
    let decision = cell.reports(&edges.map(fresh));
    assert_eq!((decision.level, decision.worst), (Level::L0, Some(0)));
    let own = House::new().seconds(2, edges[0]);
    assert_eq!(own.level, Level::L5);
    let in_force = decision.measures.stricter(own.measures);
    assert_eq!(in_force, own.measures);
    assert_eq!(own.measures.stricter(Measures::default()), own.measures);
    // A small edge has a small say.
    let places = |load: Load, limit| Load { listeners: Used::new(0, limit), ..load };
    let pressures = Pressures::mean([places(edges[0], 100), places(edges[1], 900)]);
    assert!((pressures[Resource::Processor] - 0.186).abs() < 1e-9);
}

#[test]
fn who_takes_over_goes_on() {
    let mut before = House::new();
    let decision = before.seconds(3, only(Resource::Line, 860));
    let mut ladder = Ladder::new();
    ladder.take_over(at(0), decision.level, &decision.measures);
    let mut house = House { ladder, ..House::new() };
    // The line has room only because everybody is small.
    for _ in 0..600 {
        let now = house.second(only(Resource::Line, 430));
        assert_eq!((now.level, now.measures), (decision.level, decision.measures));
    }
    // It takes over no level less than its own, and no loss that is not its own.
    house.ladder.take_over(at(house.now_ms), Level::L1, &Measures::default());
    assert_eq!(house.ladder.would(), Level::L3);
    house.ladder.take_over(at(house.now_ms), Level::L6, &Measures::default());
    assert_eq!(house.ladder.would(), Level::L5);
}

#[test]
fn a_pin_takes_what_its_level_is_named_for() {
    let small = Some(Rendition::Opus24);
    let pinned = |pin, load| {
        let mut house = House::new();
        house.orders.pin = Some(pin);
        let decision = house.seconds(3, load);
        assert_eq!(decision.level, pin);
        (decision.would, decision.measures)
    };
    let idle = Load::default();
    let fewer = Measures { extras: false, ..Measures::default() };
    assert_eq!(pinned(Level::L1, idle), (Level::L0, fewer));
    let two = Tier::new(2).unwrap();
    let second = Measures { newcomers_tier: two, newcomers_cap: small, ..fewer };
    assert_eq!(pinned(Level::L2, idle), (Level::L0, second));
    let third = Measures { newcomers_cap: small, everyones_cap: small, ..fewer };
    assert_eq!(pinned(Level::L3, idle), (Level::L0, third));
    assert_eq!(pinned(Level::L4, idle).1, Measures { admission: Admission::Waiting, ..fewer });
    // Pinned below what is called for: nothing above the pin is done, and it shows.
    assert_eq!(pinned(Level::L0, only(Resource::Line, 960)), (Level::L5, Measures::default()));
    let (would, measures) = pinned(Level::L2, only(Resource::Line, 960));
    assert_eq!((would, measures.newcomers_cap, measures.everyones_cap), (Level::L5, small, None));
}

#[test]
fn newcomers_a_second() {
    let costs = Costs::default();
    let open = Admission::Open;
    let budget = |load: Load, pending| costs.newcomers(&[fresh(load)], pending, None, open);
    let hall = |used| Load { listeners: Used::new(used, 15_000), ..Load::default() };
    // Half a core greets 2,000 a second, until places or the processor end.
    assert_eq!(budget(hall(0), 0), 2_000);
    assert_eq!(budget(hall(0), 13_000), 500);
    assert_eq!(budget(hall(13_000), 400), 100);
    assert_eq!(budget(hall(13_500), 0), 0);
    assert_eq!(budget(Load { processor: 0.8, ..hall(0) }, 0), 399, "0.1 of a core at 250 µs");
    assert_eq!(budget(Load { processor: 0.95, ..hall(0) }, 0), 0);
    assert_eq!(budget(Load { late: Duration::from_millis(300), late_for: MINUTE, ..hall(0) }, 0), 0);
    assert_eq!(budget(Load { files: Used::new(17_950, 20_000), ..hall(0) }, 0), 50);
    assert_eq!(budget(Load { memory: Used::of_memory(890 << 20, 366 << 20, 256 << 20), ..hall(0) }, 0), 640);
    assert_eq!(budget(Load { line: Some(Used::new(89_932_000, 100_000_000)), ..hall(0) }, 0), 10);
    assert_eq!(costs.newcomers(&[fresh(hall(0))], 0, None, Admission::Frozen), 0);
    assert_eq!(costs.newcomers(&[fresh(hall(0)); 2], 0, None, Admission::Waiting), 4_000);
    // A cap counts those of a silent edge; the edge takes nobody.
    let silent = Report { age: MINUTE, load: hall(100) };
    assert_eq!(costs.newcomers(&[fresh(hall(100)), silent], 50, Some(300), open), 50);
    assert_eq!(costs.newcomers(&[fresh(hall(100)), silent], 0, Some(150), open), 0);
    assert_eq!(costs.newcomers(&[silent], 0, None, open), 0);
    let free = Costs { join_us: 0, listener_us: 0, line_bytes_per_s: 0, memory_bytes: 0, joins_percent: 255 };
    assert_eq!(free.newcomers(&[fresh(hall(0))], 0, None, open), 13_500);
}

#[test]
fn a_full_cap_makes_newcomers_wait_and_changes_nothing_else() {
    let mut house = House::new();
    house.orders.cap = Some(500);
    assert_eq!(house.second(only(Resource::Listeners, 499)).measures, Measures::default());
    let decision = house.second(only(Resource::Listeners, 500));
    assert_eq!(decision.level, Level::L0);
    assert_eq!(decision.measures, Measures { admission: Admission::Waiting, ..Measures::default() });
}

#[test]
fn places_are_kept_for_the_classes_above() {
    use Priority::{Extra, Holder, Host, Listening, Newcomer, Stage};
    let sits = |all, hosts| Occupancy { all, hosts };
    let rooms = |all, hosts, level| {
        [Host, Listening, Holder, Newcomer, Extra].map(|class| room(class, sits(all, hosts), 1_000, level))
    };
    assert_eq!(rooms(0, 0, Level::L0), [1_000, 984, 950, 900, 700]);
    assert_eq!(rooms(900, 0, Level::L0), [100, 84, 50, 0, 0]);
    assert_eq!(rooms(984, 0, Level::L0), [16, 0, 0, 0, 0]);
    assert_eq!(rooms(984, 10, Level::L0), [16, 10, 0, 0, 0]);
    assert_eq!(rooms(100, 0, Level::L1), [900, 884, 850, 800, 0]);
    assert_eq!(rooms(100, 0, Level::L4), [900, 884, 850, 0, 0]);
    assert_eq!(rooms(100, 0, Level::L5), [900, 884, 0, 0, 0]);
    assert_eq!(rooms(2_000, 0, Level::L0), [0; 5]);
    assert!(may_admit(Stage, sits(1_000, 0), 1_000, Level::L6), "the stage needs no place");
    // The smallest hall lets somebody in.
    assert!(may_admit(Newcomer, sits(0, 0), 1, Level::L0));
    assert!(!may_admit(Host, sits(0, 0), 0, Level::L0));
    assert!(may_admit(Newcomer, sits(0, u64::MAX), u64::MAX, Level::L0));
}

fn any_load() -> impl Strategy<Value = Load> {
    let used = || (any::<u64>(), any::<u64>()).prop_map(|(used, limit)| Used::new(used, limit));
    (any::<f64>(), any::<u64>(), any::<u64>(), prop::option::of(used()), used(), used(), used()).prop_map(
        |(processor, late, lasting, line, files, memory, listeners)| Load {
            processor,
            late: Duration::from_millis(late),
            late_for: Duration::from_millis(lasting),
            line,
            files,
            memory,
            listeners,
        },
    )
}

fn sane_load() -> impl Strategy<Value = Load> {
    (prop::array::uniform5(0..1_001_u64), 0..400_u64, 0..1_000_u64).prop_map(|(shares, by, lasting)| Load {
        late: Duration::from_millis(by),
        late_for: Duration::from_millis(lasting),
        ..load(shares)
    })
}

/// What the edges do for a while: nothing, or a load; milliseconds between looks; looks.
fn phase() -> impl Strategy<Value = (Option<Load>, u64, usize)> {
    let load =
        prop_oneof![4 => sane_load().prop_map(Some), 2 => Just(Some(Load::default())), 1 => Just(None)];
    (load, prop_oneof![Just(1_000), 50..3_000_u64, 1..100_000_u64], 1..40_usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_more_than_a_level_a_minute_down(phases in prop::collection::vec(phase(), 1..40)) {
        let (mut ladder, mut now, mut level) = (Ladder::new(), 0, Level::L0);
        let mut fell = None;
        for (load, every, looks) in phases {
            for _ in 0..looks {
                now += every;
                let reports: Vec<_> = load.map(fresh).into_iter().collect();
                let decision = ladder.observe(at(now), &reports, &Orders::default());
                if decision.level < level {
                    prop_assert_eq!(level.number() - decision.level.number(), 1);
                    prop_assert!(fell.is_none_or(|fell| now - fell >= 60_000), "{:?} at {} ms", fell, now);
                    fell = Some(now);
                }
                level = decision.level;
                prop_assert!(load.is_none_or(|load| level >= load.pressures().level_at_once()));
                let measures = decision.measures;
                prop_assert!(measures.everyones_cap.is_none() || level >= Level::L3);
                prop_assert!(measures.newcomers_cap.is_none() || level >= Level::L2);
                prop_assert!(measures.newcomers_tier == Tier::ONE || level >= Level::L2);
                prop_assert!(measures.everyones_tier <= measures.newcomers_tier);
            }
        }
    }

    #[test]
    fn two_seconds_up(
        before in prop::collection::vec(sane_load(), 0..100),
        load in sane_load(),
        jitter in prop::collection::vec(900..1_000_u64, 3),
    ) {
        let mut house = House::new();
        for load in before {
            house.second(load);
        }
        // The trigger begins just after a look; looks come every second, a little early.
        let begins = house.now_ms - 1_000 * u64::from(house.now_ms > 0);
        let (mut now, mut level) = (begins, house.ladder.would());
        for gap in jitter {
            now += gap;
            if now - begins <= 2_000 {
                level = house.ladder.observe(at(now), &[fresh(load)], &house.orders).level;
            }
        }
        prop_assert!(level >= load.pressures().level());
    }

    #[test]
    fn levels_grow_with_load(load in sane_load(), more in sane_load(), seconds in 1..10_u64) {
        let more_used = |a: Used, b: Used| Used::new(a.used.max(b.used), a.limit);
        let more = Load {
            processor: load.processor.max(more.processor),
            late: load.late.max(more.late),
            late_for: load.late_for.max(more.late_for),
            line: load.line.zip(more.line).map(|(a, b)| more_used(a, b)),
            files: more_used(load.files, more.files),
            memory: more_used(load.memory, more.memory),
            listeners: more_used(load.listeners, more.listeners),
        };
        prop_assert!(load.pressures().level() <= more.pressures().level());
        let admitted = |load| Costs::default().newcomers(&[fresh(load)], 0, None, Admission::Open);
        prop_assert!(admitted(load) >= admitted(more));
        let (less, more) = (House::new().seconds(seconds, load), House::new().seconds(seconds, more));
        prop_assert!(less.level <= more.level);
        prop_assert_eq!(less.measures.stricter(more.measures), more.measures);
    }

    /// Noise of ±2 points around each mark, for an hour: what goes up stays.
    #[test]
    fn noise_does_not_make_it_flap(
        mark in prop::sample::select(vec![700_u64, 750, 780, 810, 850, 870, 890, 900, 950]),
        resource in prop::sample::select(vec![
            Resource::Processor, Resource::Line, Resource::Files, Resource::Memory, Resource::Listeners,
        ]),
        noise in prop::collection::vec(0..40_u64, 3_600),
    ) {
        let mut house = House::new();
        let (mut level, mut measures) = (Level::L0, Measures::default());
        for noise in noise {
            let decision = house.second(only(resource, mark - 20 + noise));
            prop_assert!(decision.level >= level);
            prop_assert_eq!(decision.measures.stricter(measures), decision.measures);
            (level, measures) = (decision.level, decision.measures);
        }
    }

    #[test]
    fn pins_hold(
        phases in prop::collection::vec(phase(), 1..20),
        pin in prop::sample::select(Level::ALL.to_vec()),
    ) {
        let (mut pinned, mut free, mut now) = (Ladder::new(), Ladder::new(), 0);
        let orders = Orders { pin: Some(pin), ..Orders::default() };
        for (load, every, looks) in phases {
            for _ in 0..looks {
                now += every;
                let reports: Vec<_> = load.map(fresh).into_iter().collect();
                let decision = pinned.observe(at(now), &reports, &orders);
                prop_assert_eq!(decision.level, pin);
                prop_assert_eq!(decision.would, free.observe(at(now), &reports, &Orders::default()).level);
            }
        }
    }

    /// Listeners are let in by the budget, join up to 3 s later, leave when they like; reports are a second old.
    #[test]
    fn a_cap_is_never_exceeded(
        cap in 0..5_000_u64,
        seconds in prop::collection::vec((0..4_usize, 0..100_u64), 1..120),
    ) {
        let (mut sitting, mut reported) = (0_u64, 0_u64);
        let mut joining = [0_u64; 4];
        for (delay, leaving) in seconds {
            // What is in no report: those who are to join, and those who joined since.
            let pending = joining.iter().sum::<u64>() + sitting.saturating_sub(reported);
            let load = Load { listeners: Used::new(reported, 15_000), ..Load::default() };
            let admitted = Costs::default().newcomers(&[fresh(load)], pending, Some(cap), Admission::Open);
            joining[delay] += admitted;
            prop_assert!(sitting + joining.iter().sum::<u64>() <= cap);
            reported = sitting;
            sitting += joining[0];
            joining.rotate_left(1);
            joining[3] = 0;
            sitting -= sitting * leaving / 300;
        }
    }

    #[test]
    fn what_is_kept_above_cannot_be_taken_from_below(
        capacity in 0..2_000_u64,
        events in prop::collection::vec((1..6_u8, any::<bool>(), 1..200_u64, 0..7_u8), 1..300),
    ) {
        let mut sits = [0_u64; 6];
        for (number, comes, many, level) in events {
            let class = Priority::from_number(number).unwrap();
            let level = Level::from_number(level).unwrap();
            let seats = &mut sits[usize::from(number)];
            if !comes {
                *seats -= many.min(*seats);
                continue;
            }
            for _ in 0..many {
                let occupancy = Occupancy { all: sits.iter().sum(), hosts: sits[1] };
                let seats_for = |class| room(class, occupancy, capacity, Level::L0);
                prop_assert!(occupancy.all <= capacity);
                // Each class has at least the room of those below it.
                prop_assert!(Priority::ALL.windows(2).all(|two| seats_for(two[0]) >= seats_for(two[1])));
                // Hosts find what is kept for them, whoever else came.
                prop_assert!(capacity - occupancy.all >= kept_for_hosts(capacity).saturating_sub(sits[1]));
                if !may_admit(class, occupancy, capacity, level) {
                    break;
                }
                prop_assert!(class.shed_at().is_none_or(|shed| level < shed));
                sits[usize::from(number)] += 1;
            }
        }
    }

    #[test]
    fn any_report_is_taken(
        loads in prop::collection::vec((any_load(), any::<u64>()), 0..400),
        cap in prop::option::of(any::<u64>()),
        pending in any::<u64>(),
        look in any::<u64>(),
    ) {
        let report = |(load, age)| Report { age: Duration::from_millis(age), load };
        let reports: Vec<_> = loads.into_iter().map(report).collect();
        for report in &reports {
            let pressures = report.load.pressures();
            prop_assert!(Resource::ALL.into_iter().all(|resource| (0.0..=1.0).contains(&pressures[resource])));
        }
        let orders = Orders { cap, ..Orders::default() };
        let decision = Ladder::new().observe(at(look), &reports, &orders);
        let pressures = decision.pressures;
        prop_assert!(Resource::ALL.into_iter().all(|resource| (0.0..=1.0 + 1e-9).contains(&pressures[resource])));
        prop_assert_eq!(decision.alive + decision.silent + decision.ignored, reports.len());
        prop_assert_eq!(decision.ignored, reports.len().saturating_sub(EDGES_MAX));
        let admitted = Costs::default().newcomers(&reports, pending, cap, decision.measures.admission);
        prop_assert!(cap.is_none_or(|cap| admitted <= cap));
    }
}

#[test]
fn what_is_no_number_says_nothing() {
    let of = |processor| Load { processor, ..Load::default() }.pressures()[Resource::Processor];
    let values = [f64::NAN, -1.0, f64::NEG_INFINITY, f64::INFINITY, 2.0, 0.5].map(of);
    assert_eq!(values, [0.0, 0.0, 0.0, 1.0, 1.0, 0.5]);
    assert_eq!(Used::new(5, 0).share(), 0.0);
    assert_eq!(Used::new(u64::MAX, 1).share(), 1.0);
    assert_eq!(Used::of_memory(u64::MAX, u64::MAX, 0).share(), 1.0);
    assert_eq!(Used::of_memory(300, 100, 200).share(), 1.0, "the reserve is touched");
    assert_eq!(Used::of_memory(300, 500, 200).share(), 0.5);
}

#[test]
fn the_documentation_has_this_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/admission.md");
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page.contains(&table()), "docs/admission.md should hold:\n{}", table());
}
