//! Other shapes, other habits, other tools than in `tuning`. They showed which thresholds were wrong, so thresholds were
//! set with them too.

use minassa_admission::ledger::Mark;

use super::night::{Attack, Night, People, Trouble, Wave};
use super::rng::Rng;
use super::{Kind, Run};

/// The night of a seed.
pub(crate) fn run(kind: Kind, seed: u64) -> Run {
    let mut rng = Rng::new(seed ^ 0xbeef ^ (kind as u64) << 44);
    let (night, what) = match kind {
        Kind::Crowd => crowd(&mut rng),
        Kind::L7 => l7(&mut rng),
        Kind::L34 => l34(&mut rng),
        Kind::Mixed => mixed(&mut rng),
        Kind::Own => own(&mut rng),
        Kind::Mimics => mimics(&mut rng),
    };
    night.run(seed, format!("validation {kind:?} {seed}: {what}"))
}

/// The sum of three draws is bell-shaped, where the tuning set draws evenly.
fn bell(rng: &mut Rng, low: f64, high: f64) -> f64 {
    (0..3).map(|_| rng.between(low, high)).sum::<f64>() / 3.0
}

/// Networks from good to bad by one hidden quality, so that everything is bad together.
fn people(rng: &mut Rng) -> People {
    let bad = rng.unit() * rng.unit();
    let from = |good: f64, worst: f64| good + (worst - good) * bad;
    People {
        handshake_s: from(0.08, 2.2),
        lost_handshakes: from(0.01, 0.25),
        uses: from(0.97, 0.75),
        use_s: from(0.3, 3.5),
        follows: from(0.95, 0.62),
        follow_s: from(1.5, 4.5),
        acks: from(1.0, 0.72),
        starved: from(0.0, 0.22),
        shut: from(0.0, 0.04),
        cookies: from(0.05, 1.2),
        speculative: bell(rng, 0.0, 0.5),
        hls: bell(rng, 0.0, 1.0),
        playlists: from(1.9, 3.2),
        stay_s: rng.magnitude(60.0, 6_000.0),
        patience: bell(rng, 0.15, 0.95),
        passes: bell(rng, 0.6, 0.98),
        ignores: bell(rng, 0.0, 0.2),
        zipf: bell(rng, 0.3, 1.3),
        networks: rng.magnitude(130.0, 60_000.0) as u64,
    }
}

fn quiet(rng: &mut Rng) -> Night {
    let usual = rng.magnitude(1.0, 400.0);
    let people = people(rng);
    let audience = (usual * people.stay_s * bell(rng, 0.1, 1.0)) as u64;
    Night {
        usual,
        surge: Box::new(|_| 0.0),
        audience,
        capacity: (audience as f64 * rng.magnitude(1.5, 20.0)) as u64 + (usual * 500.0) as u64 + 300,
        joins: usual * rng.magnitude(20.0, 200.0) + 150.0,
        announced: if rng.chance(0.3) { 200 } else { 20_000 },
        tls: rng.chance(0.8),
        kernel: rng.chance(0.8),
        processes: 2 + rng.below(14) as u32,
        other_clients: 0.0,
        other_networks: 0.0,
        one_network: 0.0,
        waves: Vec::new(),
        bot_clients: 1 + rng.below(10),
        bot_networks: rng.magnitude(1.0, 100_000.0) as u64,
        bots_impersonate: rng.chance(0.5),
        troubles: Vec::new(),
        outage: None,
        reference: rng.chance(0.3),
        begins: 100 + rng.below(130),
        people,
    }
}

fn crowd(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    let at = night.begins as f64;
    let peak = night.usual * rng.magnitude(2.0, 150.0);
    let what = match rng.below(8) {
        0 => {
            // Weibull, as page views after a broadcast.
            let (shape, scale) = (rng.between(1.1, 3.0), rng.between(20.0, 120.0));
            night.surge = Box::new(move |t| {
                let x = ((t - at) / scale).max(0.0);
                peak * x.powf(shape - 1.0) * (-x.powf(shape)).exp() * 1.5
            });
            "after a broadcast"
        }
        1 => {
            let second = rng.between(40.0, 120.0);
            night.surge = Box::new(move |t| {
                let wave = |from: f64| if t < from { 0.0 } else { (-(t - from) / 30.0).exp() };
                peak * (wave(at) + 0.8 * wave(at + second))
            });
            "two waves"
        }
        2 => {
            night.outage = Some(night.begins);
            "everybody leaves and half come back"
        }
        3 => {
            night.one_network = rng.between(0.3, 0.9);
            night.surge = Box::new(move |t| if (at..at + 90.0).contains(&t) { peak } else { 0.0 });
            "a stadium behind one address"
        }
        4 => {
            night.surge =
                Box::new(move |t| if t < at { 0.0 } else { peak * (0.5 + 0.5 * ((t - at) / 15.0).sin()) });
            "reconnecting in waves"
        }
        5 => {
            night.usual = rng.between(0.2, 2.0);
            night.audience = rng.below(100);
            night.surge = Box::new(move |t| if t < at { 0.0 } else { 5.0 });
            "a small evening"
        }
        6 => {
            night.announced = night.begins;
            night.joins = peak / rng.magnitude(1.1, 10.0);
            night.capacity = night.audience + (peak * rng.between(2.0, 40.0)) as u64 + 200;
            // Linear up to the start, then as one over time.
            night.surge = Box::new(move |t| {
                if t < at { peak * (1.0 - (at - t) / 100.0).max(0.0) } else { peak * 20.0 / (20.0 + t - at) }
            });
            "ten times what there is room and strength for"
        }
        _ => {
            night.announced = night.begins;
            night.surge = Box::new(move |t| if t < at { 0.0 } else { peak * (-(t - at) / 8.0).exp() });
            night.other_clients = rng.between(0.0, 1.0);
            "all on the second"
        }
    };
    (night, what.to_owned())
}

fn strike(night: &mut Night, rng: &mut Rng, attack: Attack, rate: f64) -> &'static str {
    let (pulse, ramp, what) = match rng.below(4) {
        0 => (12 + rng.below(10), 0, "pulsing"),
        1 => (0, 5 + rng.below(6), "ramping up"),
        2 => (0, 0, "short"),
        _ => (0, 0, "lasting"),
    };
    let until = if what == "short" { night.begins + 30 + rng.below(60) } else { 400 };
    night.waves.push(Wave { attack, from: night.begins, until, rate, pulse, ramp });
    what
}

fn draw_l7(night: &Night, now: f64, rng: &mut Rng) -> (Attack, f64, &'static str) {
    let rate = (now * (4.0 + 30.0 * rng.unit().powi(3))).max(100.0);
    let requests = night.audience as f64 * night.people.hls * 4.0 + now * 5.0;
    match rng.below(8) {
        0 => (Attack::Tickets { given: bell(rng, 0.1, 1.0) }, rate, "tickets"),
        1 => (Attack::Playlists { bad: bell(rng, 0.0, 0.5) }, requests * 6.0 + 1_500.0, "playlists"),
        2 => (Attack::SlowReaders { follows: bell(rng, 0.0, 0.35) }, rate, "slow readers"),
        3 => (Attack::SlowHeaders, rate, "slow headers"),
        4 => (Attack::Abuse, rate, "abuse of HTTP/2"),
        5 => (Attack::Forgery, rate * 6.0, "forged tickets"),
        6 => (Attack::Junk, requests * 7.0 + 1_500.0, "junk"),
        _ => (Attack::Churn, rate, "churn"),
    }
}

fn draw_l34(now: f64, rng: &mut Rng) -> (Attack, f64, &'static str) {
    let rate = (now * (4.0 + 40.0 * rng.unit().powi(2))).max(200.0);
    match rng.below(4) {
        0 => (Attack::Syn, rate * 10.0, "SYN flood"),
        1 => {
            let attack = Attack::Handshakes { finished: bell(rng, 0.0, 0.2), held: bell(rng, 0.0, 1.0) };
            (attack, rate, "handshake flood")
        }
        2 => (Attack::HalfOpen, rate, "half-open"),
        _ => (Attack::Datagrams, rate * 30.0, "datagrams"),
    }
}

fn l7(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    (night.tls, night.kernel) = (true, true);
    let (attack, rate, what) = draw_l7(&night, night.usual, rng);
    let how = strike(&mut night, rng, attack, rate);
    (night, format!("{what}, {how}"))
}

fn l34(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    (night.tls, night.kernel) = (true, true);
    let (attack, rate, what) = draw_l34(night.usual, rng);
    let how = strike(&mut night, rng, attack, rate);
    (night, format!("{what}, {how}"))
}

fn mixed(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    (night.tls, night.kernel) = (true, true);
    let at = night.begins as f64;
    let mut now = night.usual;
    let with = match rng.below(3) {
        0 => {
            let peak = night.usual * rng.magnitude(3.0, 30.0);
            now += peak;
            night.surge = Box::new(move |t| if t < at - 30.0 { 0.0 } else { peak });
            "a crowd"
        }
        1 => {
            let (attack, rate, what) = draw_l7(&night, now, rng);
            strike(&mut night, rng, attack, rate);
            what
        }
        _ => {
            let (trouble, what) = trouble(rng);
            night.troubles.push((trouble, night.begins));
            what
        }
    };
    let (attack, rate, what) =
        if with != "a crowd" && rng.chance(0.5) { draw_l34(now, rng) } else { draw_l7(&night, now, rng) };
    let how = strike(&mut night, rng, attack, rate);
    (night, format!("{with} and {what}, {how}"))
}

fn trouble(rng: &mut Rng) -> (Trouble, &'static str) {
    match rng.below(5) {
        0 => {
            let mark = [None, Some(Mark::Restart), Some(Mark::Configuration)][rng.below(3) as usize];
            (Trouble::Capacity { left: bell(rng, 0.1, 0.7), mark }, "capacity")
        }
        1 => (Trouble::DeadEdge, "dead edge"),
        2 => (Trouble::Disk { micros: 280_000 + rng.below(900_000) }, "slow disk"),
        3 => (Trouble::Errors { share: bell(rng, 0.04, 1.0) }, "errors"),
        _ => {
            let late_us = 120_000 + rng.below(700_000);
            (Trouble::Spin { cpu_bp: 8_800 + rng.below(1_200), late_us }, "busy loop")
        }
    }
}

fn own(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    let (trouble, what) = trouble(rng);
    night.troubles.push((trouble, night.begins));
    (night, what.to_owned())
}

fn mimics(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    night.tls = true;
    let rate = (night.usual * (3.0 + 50.0 * rng.unit().powi(2))).max(40.0);
    night.capacity += (rate * 400.0) as u64;
    night.joins += rate * 3.0;
    let mut wave = Wave {
        attack: Attack::Mimics { follows: bell(rng, 0.85, 1.0) },
        from: night.begins,
        until: night.begins + 40 + rng.below(150),
        rate,
        pulse: 0,
        ramp: rng.below(60),
    };
    let what = match rng.below(3) {
        0 => {
            night.bots_impersonate = false;
            night.bot_clients = 1 + rng.below(8);
            "their own fingerprints"
        }
        1 => {
            night.bots_impersonate = true;
            night.bot_networks = 1 + rng.below(9);
            "few networks"
        }
        _ => {
            night.bots_impersonate = true;
            night.announced = 20_000;
            wave.ramp = 0;
            wave.rate = wave.rate.max(night.usual * 12.0);
            "all at once"
        }
    };
    night.waves.push(wave);
    (night, what.to_owned())
}
