//! Distributions that no threshold was set with. They were written when all thresholds stood.
//!
//! Nobody's networks, habits and rates are drawn evenly here: most are log-normal, as measured ones are, so that extremes
//! are rare and far out. Waves overlap, ramps take minutes, attacks grow, pause and come back, and faults begin before or
//! after whatever they come with.

use minassa_admission::ledger::Mark;

use super::night::{Attack, Night, People, Trouble, Wave};
use super::rng::Rng;
use super::{Kind, Run};

/// The night of a seed.
pub(crate) fn run(kind: Kind, seed: u64) -> Run {
    let mut rng = Rng::new(seed ^ (0x7a_11ed << 24) ^ ((kind as u64) << 54));
    let (night, what) = match kind {
        Kind::Crowd => crowd(&mut rng),
        Kind::L7 => attacked(&mut rng, l7),
        Kind::L34 => attacked(&mut rng, l34),
        Kind::Mixed => mixed(&mut rng),
        Kind::Own => own(&mut rng),
        Kind::Mimics => mimics(&mut rng),
    };
    night.run(seed, format!("held out {kind:?} {seed}: {what}"))
}

/// About normal: the sum of six draws, mean 0 and standard deviation 1, at most 4.2.
fn normal(rng: &mut Rng) -> f64 {
    ((0..6).map(|_| rng.unit()).sum::<f64>() - 3.0) * 2.0_f64.sqrt()
}

/// Log-normal by its median and by what one standard deviation multiplies, within bounds.
fn log_normal(rng: &mut Rng, median: f64, times: f64, low: f64, high: f64) -> f64 {
    (median * times.powf(normal(rng))).clamp(low, high)
}

/// A city on fibre, a country on telephones, or a mix of all the world. Each habit varies for itself.
fn people(rng: &mut Rng) -> People {
    let bad = match rng.below(4) {
        0 => rng.between(0.0, 0.15),
        1 => rng.between(0.5, 1.0),
        _ => rng.between(0.1, 0.6),
    };
    let mut habit = |good: f64, worst: f64| {
        let at = (bad + 0.12 * normal(rng)).clamp(0.0, 1.0);
        good + (worst - good) * at
    };
    let mut people = People {
        handshake_s: habit(0.06, 2.0),
        lost_handshakes: habit(0.0, 0.22),
        uses: habit(0.98, 0.76),
        use_s: habit(0.2, 3.0),
        follows: habit(0.97, 0.66),
        follow_s: habit(1.5, 4.0),
        acks: habit(1.0, 0.75),
        starved: habit(0.0, 0.2),
        shut: habit(0.0, 0.04),
        cookies: habit(0.0, 1.2),
        speculative: habit(0.35, 0.0),
        playlists: habit(1.0, 2.7),
        hls: 0.0,
        stay_s: 0.0,
        patience: 0.0,
        passes: 0.0,
        ignores: 0.0,
        zipf: 0.0,
        networks: 0,
    };
    people.hls = (0.3 + 0.25 * normal(rng)).clamp(0.0, 1.0);
    people.stay_s = log_normal(rng, 700.0, 2.2, 60.0, 9_000.0);
    people.patience = (0.6 + 0.2 * normal(rng)).clamp(0.12, 1.0);
    people.passes = (0.85 + 0.08 * normal(rng)).clamp(0.6, 1.0);
    people.ignores = (0.06 + 0.05 * normal(rng)).clamp(0.0, 0.25);
    people.zipf = (0.9 + 0.25 * normal(rng)).clamp(0.2, 1.7);
    people.networks = log_normal(rng, 3_000.0, 4.0, 90.0, 400_000.0) as u64;
    people
}

fn quiet(rng: &mut Rng) -> Night {
    let usual = log_normal(rng, 12.0, 4.5, 0.4, 1_500.0);
    let people = people(rng);
    let audience = (usual * people.stay_s * log_normal(rng, 0.5, 1.8, 0.03, 1.5)) as u64;
    let spare = log_normal(rng, 3.0, 2.0, 1.3, 60.0);
    let begins = 80 + rng.below(170);
    Night {
        usual,
        surge: Box::new(|_| 0.0),
        audience,
        capacity: (audience as f64 * spare) as u64 + (usual * 550.0) as u64 + 280,
        joins: usual * log_normal(rng, 60.0, 2.2, 15.0, 900.0) + 130.0,
        announced: if rng.chance(0.35) { begins.saturating_sub(30) + rng.below(60) } else { 30_000 },
        tls: rng.chance(0.85),
        kernel: rng.chance(0.85),
        processes: 2 + log_normal(rng, 4.0, 2.0, 0.0, 60.0) as u32,
        other_clients: 0.0,
        other_networks: 0.0,
        one_network: 0.0,
        waves: Vec::new(),
        bot_clients: log_normal(rng, 2.5, 2.0, 1.0, 40.0) as u64,
        bot_networks: log_normal(rng, 500.0, 12.0, 1.0, 500_000.0) as u64,
        bots_impersonate: rng.chance(0.5),
        troubles: Vec::new(),
        outage: None,
        reference: rng.chance(0.35),
        begins,
        people,
    }
}

/// One wave of people: arrivals a second `t` seconds after its beginning, log-normal in time.
fn log_normal_wave(t: f64, median_s: f64, sigma: f64) -> f64 {
    if t <= 0.0 {
        return 0.0;
    }
    // Its height is 1 at the mode.
    let mode = median_s * (-sigma * sigma).exp();
    let density = |t: f64| (-((t / median_s).ln().powi(2)) / (2.0 * sigma * sigma)).exp() / t;
    density(t) / density(mode)
}

fn crowd(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    let at = night.begins as f64;
    let peak = night.usual * log_normal(rng, 9.0, 2.5, 1.8, 200.0);
    let what = match rng.below(9) {
        0 => {
            let (median_s, sigma) = (rng.between(20.0, 140.0), rng.between(0.3, 1.0));
            night.surge = Box::new(move |t| peak * log_normal_wave(t - at, median_s, sigma));
            "one long wave"
        }
        1 => {
            let waves: Vec<(f64, f64, f64, f64)> = (0..3 + rng.below(3))
                .map(|n| {
                    let from = at + n as f64 * rng.between(15.0, 60.0);
                    (from, rng.between(0.2, 1.0), rng.between(10.0, 60.0), rng.between(0.3, 0.8))
                })
                .collect();
            night.surge = Box::new(move |t| {
                let one = |(from, height, median_s, sigma): &(f64, f64, f64, f64)| {
                    height * log_normal_wave(t - from, *median_s, *sigma)
                };
                peak * waves.iter().map(one).sum::<f64>()
            });
            night.other_networks = rng.unit();
            "wave after wave"
        }
        2 => {
            let minutes = rng.between(90.0, 300.0);
            night.surge = Box::new(move |t| peak * ((t - at) / minutes).clamp(0.0, 1.0).powi(2));
            night.other_clients = rng.between(0.0, 0.4);
            "minutes of ramp"
        }
        3 => {
            night.announced = night.begins;
            let (early, late) = (rng.between(10.0, 60.0), rng.between(60.0, 400.0));
            night.capacity = night.audience + (peak * rng.between(3.0, 30.0)) as u64 + 200;
            night.surge = Box::new(move |t| {
                peak * if t < at {
                    (-((t - at) / early).powi(2)).exp()
                } else {
                    (at - t).exp() * 0.3 + 0.7 * ((at - t) / late).exp()
                }
            });
            "more than places, announced"
        }
        4 => {
            night.joins = peak / log_normal(rng, 2.5, 1.6, 1.1, 9.0);
            let half_s = rng.between(20.0, 200.0);
            night.surge = Box::new(move |t| if t < at { 0.0 } else { peak * (-(t - at) / half_s).exp2() });
            "more than strength, unannounced"
        }
        5 => {
            night.outage = Some(night.begins);
            night.joins = night.joins.max(night.audience as f64 / 40.0);
            let back = night.usual * rng.between(1.0, 4.0);
            night.surge = Box::new(move |t| if t < at + 20.0 { 0.0 } else { back });
            "everybody leaves, some come back, and others too"
        }
        6 => {
            night.one_network = rng.between(0.1, 0.95);
            (night.other_networks, night.other_clients) = (rng.unit() * 0.5, rng.unit() * 0.7);
            let (on, off) = (rng.between(20.0, 90.0), rng.between(10.0, 60.0));
            night.surge = Box::new(move |t| if t >= at && (t - at) % (on + off) < on { peak } else { 0.0 });
            "campuses between lectures"
        }
        7 => {
            (night.usual, night.audience) = (rng.between(0.05, 1.5), rng.below(60));
            let few = rng.between(1.0, 12.0);
            night.surge = Box::new(move |t| few * log_normal_wave(t - at, 40.0, 0.7));
            "a reading for friends"
        }
        _ => {
            // A link in a television programme: up within seconds, half of them gone before they hear anything.
            night.people.follows = rng.between(0.62, 0.75);
            night.people.uses = rng.between(0.75, 0.85);
            night.people.stay_s = rng.between(30.0, 150.0);
            (night.other_networks, night.other_clients) = (rng.unit(), rng.unit() * 0.8);
            let rise = rng.between(2.0, 12.0);
            night.surge = Box::new(move |t| {
                if t < at { 0.0 } else { peak * ((t - at) / rise).min(1.0) * (-(t - at) / 70.0).exp() }
            });
            "a link on television"
        }
    };
    (night, what.to_owned())
}

type Draw = fn(&Night, f64, &mut Rng) -> (Attack, f64, &'static str);

/// `now` arrive when it begins. Somebody who attacks brings several times that; a few bring very much.
fn l7(night: &Night, now: f64, rng: &mut Rng) -> (Attack, f64, &'static str) {
    let rate = (now * log_normal(rng, 9.0, 1.9, 4.0, 200.0)).max(100.0);
    let requests = night.audience as f64 * night.people.hls * 4.0 + now * 5.0;
    let requests = requests * log_normal(rng, 10.0, 1.6, 6.0, 100.0) + 1_500.0;
    match rng.below(8) {
        0 => (Attack::Tickets { given: log_normal(rng, 0.6, 1.4, 0.25, 1.0) }, rate, "tickets"),
        1 => (Attack::Playlists { bad: log_normal(rng, 0.05, 3.0, 0.0, 0.5) }, requests, "playlists"),
        2 => (Attack::SlowReaders { follows: log_normal(rng, 0.05, 3.0, 0.0, 0.35) }, rate, "slow readers"),
        3 => (Attack::SlowHeaders, rate, "slow headers"),
        4 => (Attack::Abuse, rate, "abuse of HTTP/2"),
        5 => (Attack::Forgery, rate * 4.0, "forged tickets"),
        6 => (Attack::Junk, requests, "junk"),
        _ => (Attack::Churn, rate, "churn"),
    }
}

fn l34(_: &Night, now: f64, rng: &mut Rng) -> (Attack, f64, &'static str) {
    let rate = (now * log_normal(rng, 12.0, 2.0, 4.0, 400.0)).max(200.0);
    match rng.below(4) {
        0 => (Attack::Syn, rate * 9.0, "SYN flood"),
        1 => {
            let finished = log_normal(rng, 0.05, 2.5, 0.0, 0.25);
            (Attack::Handshakes { finished, held: rng.unit().sqrt() }, rate, "handshake flood")
        }
        2 => (Attack::HalfOpen, rate, "half-open"),
        _ => (Attack::Datagrams, log_normal(rng, 15_000.0, 4.0, 2_500.0, 1e6), "datagrams"),
    }
}

fn strike(night: &mut Night, now: f64, draw: Draw, rng: &mut Rng) -> String {
    let (attack, rate, what) = draw(night, now, rng);
    let from = night.begins;
    let wave = Wave { attack, from, until: 400, rate, pulse: 0, ramp: 0 };
    let (waves, how) = match rng.below(5) {
        0 => (vec![Wave { pulse: 8 + rng.below(25), ..wave }], "on and off"),
        1 => (vec![Wave { ramp: 2 + rng.below(10), until: from + 60 + rng.below(120), ..wave }], "rising"),
        2 => (vec![Wave { until: from + 25 + rng.below(20), ..wave }], "and away"),
        3 => {
            // A pause in which everybody thinks that it is over.
            let until = from + 35 + rng.below(40);
            let back = until + 30 + rng.below(60);
            let again = Wave { from: back, until: 400, rate: wave.rate * 1.5, ..wave.clone() };
            (vec![Wave { until, ..wave }, again], "and again")
        }
        _ => (vec![wave], "without end"),
    };
    night.waves.extend(waves);
    format!("{what} {how}")
}

fn attacked(rng: &mut Rng, draw: Draw) -> (Night, String) {
    let mut night = quiet(rng);
    // What cannot be seen without them is not asked for.
    (night.tls, night.kernel) = (true, true);
    let mut now = night.usual;
    // On some nights it strikes an evening that is filling up anyway.
    if rng.chance(0.25) {
        let (from, more) = (night.begins as f64 - 60.0, night.usual * 0.4);
        night.surge = Box::new(move |t| more * ((t - from) / 120.0).clamp(0.0, 1.0));
        now += more;
    }
    let what = strike(&mut night, now, draw, rng);
    (night, what)
}

fn mixed(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    (night.tls, night.kernel) = (true, true);
    let (at, mut now) = (night.begins as f64, night.usual);
    let (draw, other): (Draw, Draw) = if rng.chance(0.5) { (l7, l34) } else { (l34, l7) };
    let first = match rng.below(3) {
        0 => {
            let peak = night.usual * log_normal(rng, 6.0, 1.8, 2.5, 60.0);
            let (early, median_s) = (rng.between(25.0, 70.0), rng.between(60.0, 200.0));
            night.surge = Box::new(move |t| peak * log_normal_wave(t - at + early, median_s, 0.8));
            night.other_networks = rng.unit() * 0.5;
            now += peak;
            "a crowd".to_owned()
        }
        1 => strike(&mut night, now, other, rng),
        _ => {
            let (trouble, what) = trouble(rng);
            // Faults do not wait for attacks.
            let from = (night.begins + rng.below(20)).saturating_sub(10);
            night.troubles.push((trouble, from));
            what.to_owned()
        }
    };
    let second = strike(&mut night, now, draw, rng);
    (night, format!("{first} and {second}"))
}

fn trouble(rng: &mut Rng) -> (Trouble, &'static str) {
    match rng.below(5) {
        0 => {
            let marks = [None, Some(Mark::Deploy), Some(Mark::Restart), Some(Mark::Configuration)];
            let mark = marks[rng.below(4) as usize];
            (Trouble::Capacity { left: 1.0 - log_normal(rng, 0.45, 1.4, 0.23, 0.95), mark }, "capacity")
        }
        1 => (Trouble::DeadEdge, "dead edge"),
        2 => (Trouble::Disk { micros: log_normal(rng, 600_000.0, 2.0, 260_000.0, 2e7) as u64 }, "slow disk"),
        3 => (Trouble::Errors { share: log_normal(rng, 0.2, 2.0, 0.04, 1.0) }, "errors"),
        _ => {
            let late_us = log_normal(rng, 300_000.0, 2.0, 110_000.0, 8e6) as u64;
            (Trouble::Spin { cpu_bp: 8_800 + rng.below(1_200), late_us }, "busy loop")
        }
    }
}

fn own(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    let (first, mut what) = trouble(rng);
    night.troubles.push((first, night.begins));
    if rng.chance(0.3) {
        let (second, _) = trouble(rng);
        night.troubles.push((second, night.begins + 10 + rng.below(120)));
        what = "one fault after another";
    }
    (night, what.to_owned())
}

fn mimics(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    night.tls = true;
    night.announced = 30_000;
    let mut wave = Wave {
        attack: Attack::Mimics { follows: rng.between(0.75, 1.0) },
        from: night.begins,
        until: night.begins + 30 + rng.below(220),
        rate: (night.usual * log_normal(rng, 10.0, 1.8, 3.0, 80.0)).max(40.0),
        pulse: 0,
        ramp: rng.below(50),
    };
    night.bots_impersonate = true;
    let what = match rng.below(4) {
        0 => {
            (night.bots_impersonate, night.bot_clients) = (false, 1 + rng.below(25));
            "their own fingerprints"
        }
        1 => {
            night.bot_networks = 1 + rng.below(9);
            "few networks"
        }
        2 => {
            (wave.ramp, wave.rate) = (0, wave.rate.max(night.usual * 13.0));
            "all at once"
        }
        _ => {
            (night.bots_impersonate, night.bot_networks) = (false, 1 + rng.below(60));
            (wave.pulse, wave.ramp) = (15 + rng.below(40), 10 + rng.below(40));
            "in swelling pulses, with their own fingerprints"
        }
    };
    night.capacity += (wave.rate * 400.0) as u64;
    night.joins += wave.rate * 3.0;
    night.waves.push(wave);
    (night, what.to_owned())
}
