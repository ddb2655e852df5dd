//! The doorstep against a plain model of it, and crowds with machines among them, in virtual time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const KEY: [u8; 32] = [7; 32];

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn prefix(address: &str) -> Prefix {
    Prefix::of(address.parse().unwrap())
}

/// A site and a home in it, by number.
fn of(site: u32, home: u8) -> Prefix {
    let [_, a, b, c] = site.to_be_bytes();
    Prefix::of(IpAddr::V4(Ipv4Addr::new(a | 64, b, c, home)))
}

#[test]
fn prefixes_are_what_one_owner_has() {
    let same_site = |a: &str, b: &str| prefix(a).site() == prefix(b).site();
    assert!(same_site("192.0.2.1", "192.0.2.255") && !same_site("192.0.2.1", "192.0.3.1"));
    assert!(same_site("2001:db8:1:2::3", "2001:db8:1:ffff::") && !same_site("2001:db8:1::", "2001:db8:2::"));
    assert_eq!(prefix("192.0.2.1"), prefix("::ffff:192.0.2.1"));
    assert_ne!(prefix("192.0.2.1"), prefix("192.0.2.2"));
    assert_eq!(prefix("2001:db8:1:2::3"), prefix("2001:db8:1:ff:ffff::"));
    assert_ne!(prefix("2001:db8:1:2::3"), prefix("2001:db8:1:102::3"));
    // Whatever the address, its prefix is one of its site's.
    for address in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff::"] {
        assert!(prefix(address).site().homes().contains(&prefix(address)), "{address}");
    }
    assert_ne!(prefix("0.0.0.0").site(), prefix("::").site());
}

#[test]
fn who_is_heaviest_makes_room() {
    let mut door = Places::new(6, 0, SECOND);
    // Four of one site, three of them of one home; two of another.
    for (key, from) in
        [(0, of(1, 1)), (1, of(1, 2)), (2, of(1, 2)), (3, of(1, 2)), (4, of(2, 1)), (5, of(2, 1))]
    {
        assert_eq!(door.room(from, 1, ms(key.into())), Room::Free);
        door.enter(key, from, 1, ms(key.into()));
    }
    assert_eq!((door.taken(), door.resting(), door.of_site(of(1, 9).site())), (6, 6, 4));
    // The oldest of the heaviest home of the heaviest site, however young.
    assert_eq!(door.room(of(3, 1), 1, ms(10)), Room::Instead(1));
    // A site that would be as heavy gains nothing by coming, until somebody has rested for long.
    assert_eq!(door.room(of(1, 9), 1, ms(499)), Room::Soon);
    assert_eq!(door.room(of(1, 9), 1, ms(500)), Room::Refused);
    assert_eq!(door.room(of(1, 9), 1, ms(999)), Room::Refused);
    assert_eq!(door.room(of(1, 9), 1, ms(1_000)), Room::Instead(0));
    // Who works keeps its place, and weighs nothing.
    for key in 0..4 {
        door.work(key);
    }
    assert_eq!(door.room(of(3, 1), 1, ms(10)), Room::Instead(4));
    door.work(4);
    door.work(5);
    assert!(door.is_full());
    assert_eq!((door.room(of(3, 1), 1, ms(10)), door.room_for_any()), (Room::Full, Room::Full));
    door.rest(5, ms(10));
    assert_eq!(door.room_for_any(), Room::Instead(5));
    // It turns out to come from somewhere else.
    assert_eq!(door.prefix(5), Some(of(2, 1)));
    door.enter(5, of(7, 1), 1, ms(10));
    assert_eq!((door.prefix(5), door.taken(), door.of_site(of(2, 1).site())), (Some(of(7, 1)), 6, 1));
    door.leave(2);
    assert_eq!((door.prefix(2), door.room_for_any()), (None, Room::Free));
    assert_eq!(door.room(of(3, 1), 1, ms(10)), Room::Free);
}

#[test]
fn a_step_further_begins_anew() {
    let mut door = Places::new(2, 0, SECOND);
    door.enter(0, of(1, 1), 1, ms(0));
    door.enter(1, of(2, 1), 1, ms(1));
    door.rest(0, ms(500));
    assert_eq!(door.room(of(3, 1), 1, ms(1_000)), Room::Refused);
    assert_eq!(door.room(of(3, 1), 1, ms(1_001)), Room::Instead(1));
    // Nobody there is nobody there.
    door.rest(9, ms(0));
    door.work(9);
    door.leave(9);
    assert_eq!((door.taken(), door.resting()), (2, 2));
}

#[test]
fn the_last_places_are_for_those_who_have_few() {
    let mut door = Places::new(100, 10, SECOND);
    let mut key = 0;
    let mut come = |door: &mut Places, site: u32| {
        let free = door.room(of(site, 1), 1, ms(0)) == Room::Free;
        if free {
            door.enter(key, of(site, 1), 1, ms(0));
            door.work(key);
            key += 1;
        }
        free
    };
    // One site takes all but the reserve, whether or not there are others.
    assert_eq!((0..1_000).filter(|_| come(&mut door, 1)).count(), 90);
    // The next one takes half of that, the next half of the rest, and there is always one for who has none.
    assert_eq!((0..1_000).filter(|_| come(&mut door, 2)).count(), 5);
    assert_eq!((0..1_000).filter(|_| come(&mut door, 3)).count(), 3);
    assert!(come(&mut door, 4));
    assert_eq!([1, 2, 3, 4].map(|site| door.room(of(site, 1), 1, ms(9_000))), [Room::Refused; 4]);
    assert!(come(&mut door, 5));
    assert!(door.is_full());
}

#[test]
fn whoever_is_behind_this_machine_is_no_one_site() {
    let (local, other) = ([prefix("127.0.0.1"), prefix("::1")], [prefix("127.0.1.1"), prefix("2001:db8::1")]);
    assert!(local.iter().all(|p| p.site().is_local()) && !other.iter().any(|p| p.site().is_local()));
    assert_eq!(works(&mut Places::new(10, 0, SECOND), &[(local[0], 20)]), [10]);
}

/// How many of each come in and may work, one after the other.
fn works(door: &mut Places, from: &[(Prefix, u32)]) -> Vec<usize> {
    let mut come = |prefix| {
        let key = door.taken() as u32;
        if door.room(prefix, 1, ms(0)) != Room::Free {
            return false;
        }
        door.enter(key, prefix, 1, ms(0));
        let may = door.may_work(key);
        if may {
            door.work(key);
            assert!(door.may_work(key), "it goes on");
        } else {
            door.leave(key);
        }
        may
    };
    from.iter().map(|&(prefix, count)| (0..count).filter(|_| come(prefix)).count()).collect()
}

#[test]
fn one_site_works_at_half_of_the_door_and_there_is_some_for_who_has_none() {
    let mut door = Places::new(16, 0, SECOND);
    let crowd: Vec<_> = (1..=6).map(|site| (of(site, 1), 20)).collect();
    assert_eq!(works(&mut door, &crowd), [8, 4, 2, 1, 1, 0]);
    // Who rests counts for nothing: all of a site may come in.
    let mut door = Places::new(16, 0, SECOND);
    for key in 0..16 {
        assert_eq!(door.room(of(1, 1), 1, ms(0)), Room::Free);
        door.enter(key, of(1, 1), 1, ms(0));
    }
    assert_eq!((0..16).filter(|&key| door.may_work(key)).count(), 16);
    (0..8).for_each(|key| door.work(key));
    assert!(!door.may_work(8) && !door.may_work(99));
    door.rest(0, ms(1));
    assert!(door.may_work(8));
}

#[test]
fn for_a_stranger_the_heaviest_makes_room_or_who_is_there_longest() {
    let mut door = Places::new(3, 0, SECOND);
    door.enter(0, of(1, 1), 1, ms(0));
    door.enter(1, of(9, 1), 1, ms(1));
    door.enter(2, of(2, 1), 1, ms(2));
    assert_eq!(door.room_for_any(), Room::Instead(0));
    assert!(door.is_silent(0, ms(1_000)) && !door.is_silent(1, ms(1_000)) && !door.is_silent(7, ms(9_000)));
    door.enter(0, of(9, 1), 1, ms(3));
    assert_eq!(door.room_for_any(), Room::Instead(1));
    door.work(1);
    assert!(!door.is_silent(1, ms(9_000)));
    assert_eq!(door.room_for_any(), Room::Instead(2));
}

#[test]
fn whose_site_has_a_debt_weighs_more() {
    let mut door = Places::new(3, 0, SECOND);
    door.enter(0, of(1, 1), 1, ms(0));
    door.enter(1, of(2, 1), 4, ms(1));
    door.enter(2, of(3, 1), 1, ms(2));
    assert_eq!(door.room(of(4, 1), 1, ms(3)), Room::Instead(1));
    // But not for one who weighs as much.
    assert_eq!(door.room(of(4, 1), 4, ms(3)), Room::Soon);
    assert_eq!([0, 1, 2].map(|key| door.has_asked(key)), [false; 3]);
    door.work(1);
    door.rest(1, ms(4));
    assert!(door.has_asked(1) && !door.has_asked(9));
    assert_eq!([0, 1, 2, 64, 128, u32::MAX].map(Meter::weight), [1, 1, 2, 64, 128, 128]);
}

/// The same, so simple that it is right to look at: prefix, weight, since when it rests.
#[derive(Default)]
struct Model(BTreeMap<u32, (Prefix, u32, Option<Duration>)>);

impl Model {
    fn weights(&self) -> BTreeMap<Site, u32> {
        let mut weights = BTreeMap::new();
        for (prefix, weight, _) in self.0.values().filter(|(.., rests)| rests.is_some()) {
            *weights.entry(prefix.site()).or_default() += weight;
        }
        weights
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever happens: places are never overrun, counts are right, and who has to go for somebody is of a heavier site,
    /// or has rested for long, and does not work.
    #[test]
    fn places_keep_their_promises(
        steps in prop::collection::vec((0..4u8, 0..12u32, 0..5u32, 0..3u8, 1..5u32, 0..400u64), 1..300),
        places in 1..8usize,
        reserve in 0..3usize,
    ) {
        let mut door = Places::new(places, reserve, SECOND);
        let mut model = Model::default();
        let mut now = Duration::ZERO;
        for (what, key, site, home, load, passed) in steps {
            now += ms(passed);
            match what {
                0 | 1 if !model.0.contains_key(&key) => {
                    let from = of(site, home);
                    let room = door.room(from, load, now);
                    let weights = model.weights();
                    let weight = |site| weights.get(&site).copied().unwrap_or(0);
                    match room {
                        Room::Free => prop_assert!(model.0.len() < places),
                        Room::Instead(other) => {
                            let (prefix, _, rests) = model.0[&other];
                            let is_silent = now - rests.unwrap() >= SECOND;
                            let is_heavier = weight(prefix.site()) > weight(from.site()) + load;
                            prop_assert!(is_silent || is_heavier);
                            prop_assert!(weights.values().all(|&any| any <= weight(prefix.site())) || is_silent);
                            door.leave(other);
                            model.0.remove(&other);
                        }
                        Room::Refused => {}
                        Room::Soon => {
                            let mut resting = model.0.values().filter_map(|(.., rests)| *rests);
                            prop_assert!(resting.all(|since| now - since < SECOND / 2));
                        }
                        Room::Full => prop_assert!(model.0.values().all(|(.., rests)| rests.is_none())),
                    }
                    if matches!(room, Room::Free | Room::Instead(_)) {
                        door.enter(key, from, load, now);
                        model.0.insert(key, (from, load, Some(now)));
                    } else {
                        prop_assert!(model.0.len() + reserve >= places);
                    }
                }
                1 => {
                    door.rest(key, now);
                    if let Some((.., rests)) = model.0.get_mut(&key) {
                        *rests = Some(now);
                    }
                }
                2 => {
                    door.work(key);
                    if let Some((.., rests)) = model.0.get_mut(&key) {
                        *rests = None;
                    }
                }
                _ => {
                    door.leave(key);
                    model.0.remove(&key);
                }
            }
            prop_assert_eq!(door.taken(), model.0.len());
            prop_assert_eq!(door.resting(), model.0.values().filter(|(.., rests)| rests.is_some()).count());
            for site in 0..5 {
                let site = of(site, 0).site();
                let all = model.0.values().filter(|(prefix, ..)| prefix.site() == site).count();
                prop_assert_eq!(door.of_site(site), all);
            }
            prop_assert!(door.taken() <= places);
        }
        for key in 0..12 {
            door.leave(key);
        }
        prop_assert!(door.remembers_nobody());
    }

    /// A meter never says less than what was counted within its window, and all are in it.
    #[test]
    fn a_meter_never_says_less(costs in prop::collection::vec((0..40u32, 0..4u8, 1..50u32, 0..200u64), 1..200)) {
        let mut meter = Meter::new(&KEY, SECOND, 4);
        let mut counted: Vec<(Prefix, u32, u64)> = Vec::new();
        let mut now = 0;
        for (site, home, cost, passed) in costs {
            now += passed;
            let from = of(site, home);
            counted.push((from, cost, now));
            let said = meter.add(from, cost, ms(now));
            let epoch = |at: u64| at / 1_000;
            let present = counted.iter().filter(|(other, _, at)| *other == from && epoch(*at) == epoch(now));
            let least: u32 = present.map(|(_, cost, _)| cost).sum();
            prop_assert!(said >= least, "{said} < {least}");
            prop_assert_eq!(meter.cost(from, ms(now)), said);
            let all: u64 =
                counted.iter().filter(|(_, _, at)| epoch(*at) == epoch(now)).map(|(_, cost, _)| u64::from(*cost)).sum();
            prop_assert!(meter.total(ms(now)) >= all);
        }
    }

    /// Nothing is lost or taken twice, one site alone gets half, and who has nothing gets what is left.
    #[test]
    fn shares_are_fair(steps in prop::collection::vec((0..3u8, 0..6u32), 0..300), places in 0..20usize) {
        let mut shares = Shares::new(places);
        let mut taken: BTreeMap<u32, usize> = BTreeMap::new();
        for (what, site) in steps {
            let own = taken.entry(site).or_default();
            if what < 2 {
                let all = shares.taken();
                let got = shares.take(of(site, what));
                *own += usize::from(got);
                prop_assert!(!got || all < places);
                prop_assert!(got || all >= places || *own > 0, "there is one for who has none");
                prop_assert!(got || all >= places / 2, "half is for anybody");
            } else if *own > 0 {
                *own -= 1;
                shares.give_back(of(site, 9));
            }
            prop_assert_eq!(shares.taken(), taken.values().sum::<usize>());
        }
        for (site, own) in taken {
            (0..=own).for_each(|_| shares.give_back(of(site, 0)));
        }
        prop_assert_eq!(shares.taken(), 0);
        let alone = (0..places).filter(|_| shares.take(of(1, 1))).count();
        prop_assert_eq!(alone, places.div_ceil(2));
    }

    /// Who waits gets a turn, once, and within a lane in order.
    #[test]
    fn lanes_lose_nobody(lanes in prop::collection::vec(0..10u8, 0..200)) {
        let mut waiting = Lanes::default();
        for (number, lane) in lanes.iter().enumerate() {
            waiting.push(*lane, (usize::from(*lane).min(LANES - 1), number));
        }
        prop_assert_eq!(waiting.len(), lanes.len());
        let mut last = [None; LANES];
        let mut served = 0;
        while let Some((lane, number)) = waiting.pop() {
            prop_assert!(last[lane].replace(number).is_none_or(|before| before < number));
            served += 1;
        }
        prop_assert_eq!(served, lanes.len());
        prop_assert!(waiting.is_empty());
    }
}

#[test]
fn cost_is_forgotten() {
    let mut meter = Meter::new(&KEY, SECOND, 4);
    assert_eq!(meter.add(of(1, 1), 100, ms(900)), 100);
    // As far as the window before reaches into the last second.
    assert_eq!(meter.cost(of(1, 1), ms(1_000)), 100);
    assert_eq!(meter.cost(of(1, 1), ms(1_250)), 75);
    assert_eq!(meter.add(of(1, 1), 10, ms(1_500)), 60);
    assert_eq!(meter.total(ms(1_500)), 60);
    assert_eq!(meter.cost(of(1, 1), ms(2_500)), 5);
    assert_eq!((meter.cost(of(1, 1), ms(3_000)), meter.total(ms(3_000))), (0, 0));
    // Time that goes back changes nothing.
    assert_eq!(meter.add(of(1, 1), 1, ms(2_000)), 1);
    assert_eq!(format!("{meter:?}"), "Meter { window: 1s, epoch: 3, .. }");
}

#[test]
fn neighbours_weigh_a_fourth() {
    let mut meter = Meter::new(&KEY, SECOND, 4);
    assert_eq!(meter.add(prefix("192.0.2.1"), 100, ms(0)), 100);
    assert_eq!(meter.cost(prefix("192.0.2.2"), ms(0)), 25);
    assert_eq!(meter.cost(prefix("192.0.3.1"), ms(0)), 0);
    // As an IPv6 site with a household that floods.
    assert_eq!(meter.add(prefix("2001:db8:1:100::1"), 100, ms(0)), 100);
    assert_eq!(meter.cost(prefix("2001:db8:1:1ff::9"), ms(0)), 100);
    assert_eq!(meter.cost(prefix("2001:db8:1:200::1"), ms(0)), 25);
    assert_eq!([0, 1, 2, 3, 4, 127, 128, u32::MAX].map(Meter::lane), [0, 0, 1, 1, 2, 6, 7, 7]);
}

#[test]
fn a_meter_full_of_strangers_still_tells_light_from_heavy() {
    let mut meter = Meter::new(&KEY, SECOND, 4);
    // A thousand sites that flood.
    for n in 0..100_000u32 {
        meter.add(of(n % 1_000, 1), 1, ms(0));
    }
    // Of ten thousand honest ones hardly any is taken for one of them.
    let wrong = (0..10_000u32).filter(|n| meter.add(of(0x10_0000 + n, 1), 1, ms(0)) >= 64).count();
    assert!(wrong <= 100, "{wrong}");
}

#[test]
fn a_flood_gets_no_more_than_a_quarter_of_the_turns() {
    let mut lanes = Lanes::default();
    let mut served = [0; 2];
    // Four turns a round; a hundred of the flood and four others come in each.
    for _ in 0..100 {
        (0..100).for_each(|_| lanes.push(7, 1));
        (0..4).for_each(|_| lanes.push(0, 0));
        for _ in 0..4 {
            served[lanes.pop().unwrap()] += 1;
        }
    }
    assert_eq!(served, [350, 50], "the rotation has turns for the best lane too");
}

// ---- crowds ------------------------------------------------------------------------------------------------------------

/// Somebody on the way in.
#[derive(Clone, Copy)]
struct Newcomer {
    from: Prefix,
    /// When it asks, if it ever does.
    asks: Option<Duration>,
}

/// What became of those who ask.
#[derive(Default, Debug)]
struct Outcome {
    came: u32,
    admitted: u32,
}

impl Outcome {
    fn share(&self) -> f64 {
        f64::from(self.admitted) / f64::from(self.came)
    }
}

/// A door with `places` on the doorstep, and `arrivals` by millisecond: who asks has left it, who never asks stays for ten
/// seconds if it may. Nobody tries again. Those of the first seconds, `learning`, are not looked at.
fn run(places: usize, learning: Duration, arrivals: &BTreeMap<u64, Vec<Newcomer>>) -> Outcome {
    let mut debts = Meter::new(&KEY, 60 * SECOND, 1);
    let mut door = Places::new(places, 0, SECOND);
    let mut inside: BTreeMap<u32, Newcomer> = BTreeMap::new();
    let mut due: BTreeMap<(Duration, u32), ()> = BTreeMap::new();
    let mut outcome = Outcome::default();
    let mut key = 0;
    for (&at, newcomers) in arrivals {
        let now = ms(at);
        while let Some((&(when, key), ())) = due.first_key_value()
            && when <= now
        {
            due.pop_first();
            if let Some(who) = inside.remove(&key) {
                door.leave(key);
                match who.asks {
                    Some(asks) => outcome.admitted += u32::from(when - asks >= learning),
                    None => _ = debts.add(who.from, 1, now),
                }
            }
        }
        for &who in newcomers {
            outcome.came += u32::from(who.asks.is_some() && now >= learning);
            let weight = Meter::weight(debts.cost(who.from, now));
            match door.room(who.from, weight, now) {
                Room::Free => {}
                Room::Instead(other) => {
                    door.leave(other);
                    if let Some(other) = inside.remove(&other) {
                        debts.add(other.from, 1, now);
                    }
                }
                // As if it could not wait.
                Room::Soon | Room::Refused | Room::Full => continue,
            }
            key += 1;
            door.enter(key, who.from, weight, now);
            inside.insert(key, who);
            due.insert((now + who.asks.unwrap_or(10 * SECOND), key), ());
        }
    }
    // Whoever is still there has all the time it needs. (All of these came at last.)
    outcome.admitted += inside.values().filter(|who| who.asks.is_some()).count() as u32;
    outcome
}

/// Somebody honest, `n`th: an address of its own, and 50 to 250 ms until it asks.
fn honest(n: u32) -> Newcomer {
    Newcomer {
        from: of(0x10_0000 + n % 5_000, (n / 5_000) as u8),
        asks: Some(ms(50 + u64::from(n * 7_919 % 200))),
    }
}

fn silent(from: Prefix) -> Newcomer {
    Newcomer { from, asks: None }
}

#[test]
fn honest_people_pass_a_crowd_of_silent_connections() {
    // 128 places; 200 honest a second, beside 5,000 a second that say nothing.
    for sites in [1, 5, 20] {
        let mut arrivals: BTreeMap<u64, Vec<Newcomer>> = BTreeMap::new();
        for n in 0..4_000u32 {
            arrivals.entry(u64::from(n) * 5).or_default().push(honest(n));
        }
        for n in 0..100_000u32 {
            arrivals.entry(u64::from(n) / 5).or_default().push(silent(of(n % sites, (n / sites) as u8)));
        }
        let outcome = run(128, Duration::ZERO, &arrivals);
        assert_eq!(outcome.came, 4_000);
        assert!(outcome.share() >= 0.95, "{sites} sites: {outcome:?}");
    }
}

#[test]
fn two_thousand_behind_one_address_get_in_beside_an_attack() {
    let shared = prefix("198.51.100.7");
    let mut arrivals: BTreeMap<u64, Vec<Newcomer>> = BTreeMap::new();
    // Within ten seconds.
    for n in 0..2_000u32 {
        let asks = Some(ms(50 + u64::from(n * 7_919 % 200)));
        arrivals.entry(u64::from(n) * 5).or_default().push(Newcomer { from: shared, asks });
    }
    // 5,000 a second from ten sites, before and meanwhile.
    for n in 0..60_000u32 {
        arrivals.entry(u64::from(n) / 5).or_default().push(silent(of(n % 10, (n / 10) as u8)));
    }
    let outcome = run(1_000, Duration::ZERO, &arrivals);
    assert_eq!(outcome.came, 2_000);
    assert!(outcome.share() >= 0.95, "{outcome:?}");
    // Alone and all at once they find the door open.
    let at_once = (0..2_000).map(|n| Newcomer { from: shared, asks: Some(ms(50 + n % 200)) });
    let at_once = BTreeMap::from([(0, at_once.collect())]);
    assert_eq!(run(2_000, Duration::ZERO, &at_once).admitted, 2_000);
}

#[test]
fn an_attack_by_address_version_6_has_the_weight_of_its_site() {
    let mut arrivals: BTreeMap<u64, Vec<Newcomer>> = BTreeMap::new();
    for n in 0..1_000u32 {
        arrivals.entry(u64::from(n) * 5).or_default().push(honest(n));
    }
    // Each from an address, and a /64, of its own, all of one /48.
    for n in 0..25_000u32 {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 1, n as u16, 0, 0, 0, 1);
        arrivals.entry(u64::from(n) / 5).or_default().push(silent(Prefix::of(address.into())));
    }
    let outcome = run(128, Duration::ZERO, &arrivals);
    assert!(outcome.share() >= 0.98, "{outcome:?}");
}

#[test]
fn a_flood_from_many_sites_is_known_after_a_while() {
    // 5,000 a second from a thousand sites, far more than there are places: none of them has more than its share.
    let mut arrivals: BTreeMap<u64, Vec<Newcomer>> = BTreeMap::new();
    for n in 0..12_000u32 {
        arrivals.entry(u64::from(n) * 5).or_default().push(honest(n));
    }
    for n in 0..300_000u32 {
        arrivals.entry(u64::from(n) / 5).or_default().push(silent(of(n % 1_000, (n / 1_000) as u8)));
    }
    let outcome = run(128, 30 * SECOND, &arrivals);
    assert_eq!(outcome.came, 6_000);
    assert!(outcome.share() >= 0.95, "{outcome:?}");
}
