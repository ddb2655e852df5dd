//! Distributions that were held out once: no threshold was set with them. They showed what the judge did not see and what the
//! nights did not do as the programme does, and belong to the others since.

use minassa_admission::ledger::Mark;

use super::night::{Attack, Night, People, Trouble, Wave};
use super::rng::Rng;
use super::{Kind, Run};

/// The night of a seed.
pub(crate) fn run(kind: Kind, seed: u64) -> Run {
    let mut rng = Rng::new(seed ^ (0x05ee_d0ff << 20) ^ ((kind as u64) << 50));
    let (night, what) = match kind {
        Kind::Crowd => crowd(&mut rng),
        Kind::L7 => attacked(&mut rng, l7),
        Kind::L34 => attacked(&mut rng, l34),
        Kind::Mixed => mixed(&mut rng),
        Kind::Own => own(&mut rng),
        Kind::Mimics => mimics(&mut rng),
    };
    night.run(seed, format!("validation two {kind:?} {seed}: {what}"))
}

/// A habit on fibre, on mobile networks, and where the line is congested.
type Habit = [f64; 3];

/// An audience of two sorts of networks.
fn people(rng: &mut Rng) -> People {
    let (one, other, share) = (rng.below(3) as usize, rng.below(3) as usize, rng.unit());
    let mut habit = |of: Habit| (of[one] * share + of[other] * (1.0 - share)) * rng.between(0.9, 1.1);
    People {
        handshake_s: habit([0.1, 0.5, 1.9]),
        lost_handshakes: habit([0.01, 0.06, 0.22]),
        uses: habit([0.96, 0.88, 0.79]).min(0.99),
        use_s: habit([0.4, 1.2, 3.2]),
        follows: habit([0.93, 0.84, 0.68]).min(0.99),
        follow_s: habit([1.5, 2.4, 4.2]),
        acks: habit([0.99, 0.93, 0.78]).min(1.0),
        starved: habit([0.01, 0.08, 0.2]),
        shut: habit([0.005, 0.04, 0.03]),
        cookies: habit([0.05, 0.5, 1.3]),
        speculative: habit([0.3, 0.1, 0.05]),
        playlists: habit([1.1, 1.8, 2.8]),
        // A page or a radio: hardly ever half of each.
        hls: if rng.chance(0.5) { rng.between(0.01, 0.15) } else { rng.between(0.85, 1.0) },
        stay_s: 80.0 + rng.exponential(1_500.0),
        patience: rng.unit().sqrt(),
        passes: 1.0 - 0.4 * rng.unit() * rng.unit(),
        ignores: 0.2 * rng.unit() * rng.unit(),
        zipf: rng.between(0.4, 1.6),
        networks: rng.magnitude(80.0, 200_000.0) as u64,
    }
}

fn quiet(rng: &mut Rng) -> Night {
    let usual = rng.magnitude(0.5, 800.0);
    let people = people(rng);
    let audience = (usual * people.stay_s * rng.between(0.05, 1.2)) as u64;
    let begins = 90 + rng.below(150);
    Night {
        usual,
        surge: Box::new(|_| 0.0),
        audience,
        capacity: (audience as f64 * (1.4 + rng.exponential(5.0))) as u64 + (usual * 450.0) as u64 + 250,
        joins: usual * rng.magnitude(15.0, 300.0) + 120.0,
        announced: if rng.chance(0.4) { begins } else { 15_000 },
        tls: rng.chance(0.85),
        kernel: rng.chance(0.85),
        processes: 2 + rng.exponential(8.0) as u32,
        other_clients: 0.0,
        other_networks: 0.0,
        one_network: 0.0,
        waves: Vec::new(),
        bot_clients: 1 + rng.exponential(4.0) as u64,
        bot_networks: rng.magnitude(1.0, 300_000.0) as u64,
        bots_impersonate: rng.chance(0.6),
        troubles: Vec::new(),
        outage: None,
        reference: rng.chance(0.4),
        begins,
        people,
    }
}

/// Nothing before `at`, then `of` the seconds since.
fn from(at: f64, of: impl Fn(f64) -> f64 + 'static) -> Box<dyn Fn(f64) -> f64> {
    Box::new(move |t| if t < at { 0.0 } else { of(t - at) })
}

fn crowd(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    let at = night.begins as f64;
    let peak = night.usual * (2.0 + rng.exponential(25.0));
    let what = match rng.below(10) {
        0 => {
            let width = rng.between(8.0, 40.0);
            night.surge = Box::new(move |t| peak / (1.0 + (-(t - at - 60.0) / width).exp()));
            "an evening filling up"
        }
        1 => {
            let (on, every) = (rng.between(15.0, 50.0), rng.between(60.0, 120.0));
            night.surge = from(at, move |t| if t % every < on { peak } else { 0.0 });
            "the breaks of a match"
        }
        2 => {
            let power = rng.between(0.6, 1.6);
            night.surge = from(at, move |t| peak * (t / 30.0 + 1.0).powf(-power));
            (night.other_clients, night.other_networks) = (rng.between(0.2, 0.9), rng.between(0.3, 1.0));
            "a shared post"
        }
        3 => {
            let later = rng.between(20.0, 80.0);
            let ramp = move |t: f64| (t / 40.0).clamp(0.0, 1.0);
            night.surge = from(at, move |t| peak * (ramp(t) + ramp(t - later)));
            (night.other_clients, night.other_networks) = (0.5, 1.0);
            "two other countries"
        }
        4 => {
            night.outage = Some(night.begins);
            "everybody leaves and half come back"
        }
        5 => {
            night.one_network = rng.between(0.2, 0.7);
            (night.people.networks, night.people.zipf) = (20 + rng.below(40), 1.8);
            let minutes = rng.between(60.0, 200.0);
            night.surge = from(at, move |t| if t < minutes { peak } else { 0.0 });
            "offices behind a few addresses"
        }
        6 => {
            (night.usual, night.audience) = (rng.between(0.1, 0.8), rng.below(40));
            night.surge = from(at, |_| 3.0);
            "a small talk"
        }
        7 => {
            night.announced = night.begins;
            night.joins = peak / rng.magnitude(2.0, 12.0);
            night.capacity = night.audience + (peak * rng.between(1.0, 10.0)) as u64 + 150;
            let early = rng.between(15.0, 60.0);
            night.surge = Box::new(move |t| peak * ((t - at) / early).min(0.0).exp());
            "neither room nor strength"
        }
        8 => {
            night.announced = night.begins;
            (night.people.handshake_s, night.people.lost_handshakes) = (2.2, 0.25);
            (night.people.use_s, night.people.follow_s) = (3.5, 4.5);
            (night.people.uses, night.people.follows, night.people.acks) = (0.77, 0.66, 0.75);
            night.surge = from(at, move |t| peak * (-t / 20.0).exp());
            "on the second, on congested lines"
        }
        _ => {
            let step = rng.between(20.0, 50.0);
            night.surge = from(at, move |t| peak / 16.0 * (t / step).floor().min(4.0).exp2());
            "doubling step by step"
        }
    };
    (night, what.to_owned())
}

type Draw = fn(&Night, f64, &mut Rng) -> (Attack, f64, &'static str);

/// `now` arrive when it begins. Most attacks are a few times that, some many times.
fn l7(night: &Night, now: f64, rng: &mut Rng) -> (Attack, f64, &'static str) {
    let rate = (now * (4.0 + rng.exponential(8.0))).max(100.0);
    let requests = night.audience as f64 * night.people.hls * 4.0 + now * 5.0;
    let requests = requests * (6.0 + rng.exponential(6.0)) + 1_500.0;
    match rng.below(8) {
        0 => (Attack::Tickets { given: rng.between(0.3, 1.0) }, rate, "tickets"),
        1 => (Attack::Playlists { bad: rng.unit() * rng.unit() * 0.5 }, requests, "playlists"),
        2 => (Attack::SlowReaders { follows: 0.4 * rng.unit() * rng.unit() }, rate, "slow readers"),
        3 => (Attack::SlowHeaders, rate, "slow headers"),
        4 => (Attack::Abuse, rate, "abuse of HTTP/2"),
        5 => (Attack::Forgery, rate * 4.0, "forged tickets"),
        6 => (Attack::Junk, requests, "junk"),
        _ => (Attack::Churn, rate, "churn"),
    }
}

fn l34(_: &Night, now: f64, rng: &mut Rng) -> (Attack, f64, &'static str) {
    let rate = (now * (4.0 + rng.exponential(12.0))).max(200.0);
    match rng.below(4) {
        0 => (Attack::Syn, rate * 8.0, "SYN flood"),
        1 => {
            let attack = Attack::Handshakes { finished: 0.25 * rng.unit() * rng.unit(), held: rng.unit() };
            (attack, rate, "handshake flood")
        }
        2 => (Attack::HalfOpen, rate, "half-open"),
        _ => (Attack::Datagrams, 2_500.0 + rng.exponential(60_000.0), "datagrams"),
    }
}

fn strike(night: &mut Night, now: f64, draw: Draw, rng: &mut Rng) -> String {
    let (attack, rate, what) = draw(night, now, rng);
    let (pulse, ramp, until, how) = match rng.below(5) {
        0 => (10 + rng.below(20), 0, 400, "in pulses"),
        1 => (0, 3 + rng.below(9), 400, "growing"),
        2 => (0, 0, night.begins + 30 + rng.below(30), "for half a minute"),
        3 => (0, 0, night.begins + 60 + rng.below(90), "for minutes"),
        _ => (0, 0, 400, "to the end"),
    };
    night.waves.push(Wave { attack, from: night.begins, until, rate, pulse, ramp });
    format!("{what} {how}")
}

fn attacked(rng: &mut Rng, draw: Draw) -> (Night, String) {
    let mut night = quiet(rng);
    (night.tls, night.kernel) = (true, true);
    let usual = night.usual;
    let what = strike(&mut night, usual, draw, rng);
    (night, what)
}

fn mixed(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    (night.tls, night.kernel) = (true, true);
    let (at, mut now) = (night.begins as f64, night.usual);
    let (draw, other): (Draw, Draw) = if rng.chance(0.5) { (l7, l34) } else { (l34, l7) };
    let first = match rng.below(3) {
        0 => {
            // The attack strikes a crowd that is there already.
            let (peak, early) = (night.usual * (3.0 + rng.exponential(12.0)), rng.between(20.0, 60.0));
            night.surge = from(at - early, move |t| peak * (t / 15.0).min(1.0));
            now += peak;
            "a crowd".to_owned()
        }
        1 => strike(&mut night, now, other, rng),
        _ => {
            let (trouble, what) = trouble(rng);
            night.troubles.push((trouble, night.begins));
            what.to_owned()
        }
    };
    let second = strike(&mut night, now, draw, rng);
    (night, format!("{first} and {second}"))
}

fn trouble(rng: &mut Rng) -> (Trouble, &'static str) {
    match rng.below(5) {
        0 => {
            let mark = [None, Some(Mark::Deploy), Some(Mark::Configuration)][rng.below(3) as usize];
            (Trouble::Capacity { left: rng.between(0.15, 0.75), mark }, "capacity")
        }
        1 => (Trouble::DeadEdge, "dead edge"),
        2 => (Trouble::Disk { micros: 260_000 + rng.exponential(900_000.0) as u64 }, "slow disk"),
        3 => (Trouble::Errors { share: 0.04 + 0.9 * rng.unit() * rng.unit() }, "errors"),
        _ => {
            let late_us = 110_000 + rng.exponential(400_000.0) as u64;
            (Trouble::Spin { cpu_bp: 8_700 + rng.below(1_300), late_us }, "busy loop")
        }
    }
}

fn own(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    let (first, mut what) = trouble(rng);
    night.troubles.push((first, night.begins));
    if rng.chance(0.2) {
        let (second, _) = trouble(rng);
        night.troubles.push((second, night.begins + rng.below(60)));
        what = "two faults";
    }
    (night, what.to_owned())
}

fn mimics(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    night.tls = true;
    night.announced = 15_000;
    let mut wave = Wave {
        attack: Attack::Mimics { follows: rng.between(0.8, 1.0) },
        from: night.begins,
        until: night.begins + 40 + rng.below(180),
        rate: (night.usual * (3.0 + rng.exponential(12.0))).max(40.0),
        pulse: 0,
        ramp: rng.below(45),
    };
    night.bots_impersonate = true;
    let what = match rng.below(4) {
        0 => {
            (night.bots_impersonate, night.bot_clients) = (false, 1 + rng.below(20));
            "their own fingerprints"
        }
        1 => {
            night.bot_networks = 1 + rng.below(8);
            "few networks"
        }
        2 => {
            (wave.ramp, wave.rate) = (0, wave.rate.max(night.usual * 14.0));
            "all at once"
        }
        _ => {
            (night.bots_impersonate, night.bot_networks) = (false, 2 + rng.below(30));
            wave.pulse = 10 + rng.below(30);
            "in pulses, with their own fingerprints"
        }
    };
    night.capacity += (wave.rate * 400.0) as u64;
    night.joins += wave.rate * 3.0;
    night.waves.push(wave);
    (night, what.to_owned())
}
