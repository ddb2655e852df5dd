//! The distributions with which thresholds were set.

use minassa_admission::ledger::Mark;

use super::night::{Attack, Night, People, Trouble, Wave};
use super::rng::Rng;
use super::{Kind, Run};

/// The night of a seed.
pub(crate) fn run(kind: Kind, seed: u64) -> Run {
    let mut rng = Rng::new(seed ^ (kind as u64) << 40);
    let (night, what) = match kind {
        Kind::Crowd => crowd(&mut rng),
        Kind::L7 => attacked(&mut rng, l7),
        Kind::L34 => attacked(&mut rng, l34),
        Kind::Mixed => mixed(&mut rng),
        Kind::Own => own(&mut rng),
        Kind::Mimics => mimics(&mut rng),
    };
    night.run(seed, format!("tuning {kind:?} {seed}: {what}"))
}

/// People on usual networks.
fn people(rng: &mut Rng) -> People {
    People {
        handshake_s: rng.between(0.1, 0.5),
        lost_handshakes: rng.between(0.0, 0.05),
        uses: rng.between(0.85, 0.98),
        use_s: rng.between(0.2, 1.0),
        follows: rng.between(0.75, 0.97),
        follow_s: rng.between(1.5, 2.5),
        acks: rng.between(0.95, 1.0),
        starved: rng.between(0.0, 0.03),
        shut: rng.between(0.0, 0.02),
        cookies: rng.between(0.0, 0.3),
        speculative: rng.between(0.0, 0.3),
        hls: rng.between(0.05, 0.6),
        playlists: rng.between(1.0, 2.2),
        stay_s: rng.magnitude(200.0, 3_000.0),
        patience: rng.between(0.3, 0.9),
        passes: rng.between(0.7, 0.95),
        ignores: rng.between(0.0, 0.1),
        zipf: rng.between(0.5, 1.0),
        networks: rng.magnitude(300.0, 20_000.0) as u64,
    }
}

fn slow_networks(people: &mut People, rng: &mut Rng) {
    people.handshake_s = rng.between(0.8, 2.5);
    people.lost_handshakes = rng.between(0.05, 0.25);
    people.uses = rng.between(0.75, 0.92);
    people.use_s = rng.between(1.0, 4.0);
    people.follows = rng.between(0.6, 0.85);
    people.follow_s = rng.between(2.0, 5.0);
    people.acks = rng.between(0.7, 0.95);
    people.starved = rng.between(0.05, 0.25);
    people.cookies = rng.between(0.3, 1.5);
    people.playlists = rng.between(1.5, 3.0);
}

fn phones(people: &mut People, rng: &mut Rng) {
    people.shut = rng.between(0.02, 0.05);
    people.uses = rng.between(0.78, 0.92);
    people.stay_s = rng.magnitude(100.0, 800.0);
    people.hls = rng.between(0.4, 0.9);
}

/// An evening on which nothing happens yet.
fn quiet(rng: &mut Rng) -> Night {
    let usual = rng.magnitude(2.0, 200.0);
    let people = people(rng);
    let audience = (usual * people.stay_s * rng.between(0.3, 1.0)) as u64;
    Night {
        usual,
        surge: Box::new(|_| 0.0),
        audience,
        capacity: (audience as f64 * rng.between(2.0, 8.0)) as u64 + (usual * 600.0) as u64 + 500,
        joins: usual * 40.0 + 200.0,
        announced: 10_000,
        tls: rng.chance(0.9),
        kernel: rng.chance(0.9),
        processes: 3 + rng.below(6) as u32,
        other_clients: 0.0,
        other_networks: 0.0,
        one_network: 0.0,
        waves: Vec::new(),
        bot_clients: 1 + rng.below(4),
        bot_networks: rng.magnitude(3.0, 20_000.0) as u64,
        bots_impersonate: rng.chance(0.4),
        troubles: Vec::new(),
        outage: None,
        reference: rng.chance(0.5),
        begins: 120 + rng.below(100),
        people,
    }
}

fn surge(night: &mut Night, rng: &mut Rng) -> &'static str {
    let at = night.begins as f64;
    let peak = night.usual * rng.magnitude(3.0, 60.0);
    match rng.below(3) {
        0 => {
            night.announced = night.begins;
            let (early, late) = (rng.between(20.0, 90.0), rng.between(30.0, 300.0));
            night.surge = Box::new(move |t| {
                peak * if t < at { ((t - at) / early).exp() } else { ((at - t) / late).exp() }
            });
            "announced start"
        }
        1 => {
            let (doubling, top) = (rng.between(15.0, 60.0), rng.between(60.0, 200.0));
            night.surge =
                Box::new(
                    move |t| {
                        if t < at { 0.0 } else { (peak * ((t - at - top) / doubling).exp2()).min(peak) }
                    },
                );
            night.other_clients = rng.between(0.0, 0.3);
            night.other_networks = rng.between(0.0, 0.5);
            "shared link"
        }
        _ => {
            let (rise, half) = (rng.between(5.0, 30.0), rng.between(40.0, 300.0));
            night.surge = Box::new(move |t| {
                if t < at { 0.0 } else { peak * ((t - at) / rise).min(1.0) * (-(t - at) / half).exp2() }
            });
            night.other_clients = rng.between(0.0, 0.6);
            night.other_networks = rng.between(0.2, 0.9);
            "news push"
        }
    }
}

fn crowd(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    let shape = surge(&mut night, rng);
    let peak = (0..400).map(|t| (night.surge)(f64::from(t))).fold(0.0, f64::max);
    let habit = match rng.below(6) {
        0 => "plain",
        1 => {
            slow_networks(&mut night.people, rng);
            "slow networks"
        }
        2 => {
            phones(&mut night.people, rng);
            "phones"
        }
        3 => {
            phones(&mut night.people, rng);
            night.people.networks = 62 + rng.below(200);
            night.people.zipf = rng.between(1.0, 1.8);
            "carriers' NAT"
        }
        4 => {
            night.joins = peak / rng.between(1.2, 6.0);
            "slow server"
        }
        _ => {
            night.capacity = night.audience + (peak * rng.between(5.0, 60.0)) as u64 + 200;
            "waiting room"
        }
    };
    (night, format!("{shape}, {habit}"))
}

fn wave(attack: Attack, night: &Night, rate: f64) -> Wave {
    Wave { attack, from: night.begins, until: 400, rate, pulse: 0, ramp: 0 }
}

fn l7(night: &Night, now: f64, rng: &mut Rng) -> (Wave, &'static str) {
    let times = |rng: &mut Rng| (now * rng.magnitude(3.0, 50.0)).max(80.0);
    let (attack, rate, what) = match rng.below(9) {
        0 => (Attack::Tickets { given: rng.between(0.2, 1.0) }, times(rng), "tickets"),
        1 => {
            let listening = night.audience as f64 * night.people.hls * night.people.playlists;
            let rate = (listening * rng.magnitude(8.0, 40.0)).max(1_000.0);
            (Attack::Playlists { bad: rng.between(0.0, 0.3) }, rate, "playlists")
        }
        2 => (Attack::SlowReaders { follows: rng.between(0.0, 0.3) }, times(rng), "slow readers"),
        3 => (Attack::SlowHeaders, times(rng), "slow headers"),
        4 => (Attack::Abuse, times(rng), "abuse of HTTP/2"),
        5 => (Attack::Forgery, (now * rng.magnitude(10.0, 100.0)).max(400.0), "forged tickets"),
        6 => {
            let requests = night.audience as f64 * night.people.hls * 4.0 + now * 4.0;
            (Attack::Junk, (requests * rng.magnitude(5.0, 40.0)).max(1_000.0), "junk")
        }
        _ => (Attack::Churn, times(rng), "churn"),
    };
    (wave(attack, night, rate), what)
}

fn l34(night: &Night, now: f64, rng: &mut Rng) -> (Wave, &'static str) {
    let times = |rng: &mut Rng| (now * rng.magnitude(4.0, 60.0)).max(150.0);
    let (attack, rate, what) = match rng.below(4) {
        0 => (Attack::Syn, (now * 12.0).max(1_000.0) * rng.magnitude(1.0, 100.0), "SYN flood"),
        1 => {
            let (finished, held) = (rng.between(0.0, 0.15), rng.unit());
            (Attack::Handshakes { finished, held }, times(rng), "handshake flood")
        }
        2 => (Attack::HalfOpen, times(rng), "half-open"),
        _ => (Attack::Datagrams, rng.magnitude(3_000.0, 500_000.0), "datagrams"),
    };
    (wave(attack, night, rate), what)
}

type Draw = fn(&Night, f64, &mut Rng) -> (Wave, &'static str);

fn attacked(rng: &mut Rng, draw: Draw) -> (Night, String) {
    let mut night = quiet(rng);
    // What cannot be seen without them is not asked for.
    (night.tls, night.kernel) = (true, true);
    let (wave, what) = draw(&night, night.usual, rng);
    night.waves.push(wave);
    if rng.chance(0.2) {
        slow_networks(&mut night.people, rng);
    }
    (night, what.to_owned())
}

/// A crowd with an attack at its height, two attacks, or an attack and a fault.
fn mixed(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    (night.tls, night.kernel) = (true, true);
    let draw: Draw = if rng.chance(0.5) { l7 } else { l34 };
    let what = match rng.below(3) {
        0 => {
            let shape = surge(&mut night, rng);
            // The attack strikes when the crowd is there.
            night.begins += 20 + rng.below(40);
            let peak = (0..400).map(|t| (night.surge)(f64::from(t))).fold(night.usual, f64::max);
            let (wave, what) = draw(&night, peak, rng);
            night.waves.push(wave);
            format!("{shape} and {what}")
        }
        1 => {
            let (one, a) = l7(&night, night.usual, rng);
            let (two, b) = l34(&night, night.usual, rng);
            night.waves.extend([one, two]);
            format!("{a} and {b}")
        }
        _ => {
            let (wave, a) = draw(&night, night.usual, rng);
            night.waves.push(wave);
            let (trouble, b) = trouble(rng);
            night.troubles.push((trouble, night.begins));
            format!("{a} and {b}")
        }
    };
    (night, what)
}

fn trouble(rng: &mut Rng) -> (Trouble, &'static str) {
    match rng.below(5) {
        0 => {
            let mark = if rng.chance(0.7) { Some(Mark::Deploy) } else { None };
            (Trouble::Capacity { left: rng.between(0.4, 0.6), mark }, "deploy")
        }
        1 => (Trouble::DeadEdge, "dead edge"),
        2 => (Trouble::Disk { micros: rng.magnitude(300_000.0, 5e6) as u64 }, "slow disk"),
        3 => (Trouble::Errors { share: rng.between(0.05, 0.8) }, "errors"),
        _ => {
            let (cpu_bp, late_us) = (rng.between(9_000.0, 10_000.0), rng.magnitude(150_000.0, 2e6));
            (Trouble::Spin { cpu_bp: cpu_bp as u64, late_us: late_us as u64 }, "busy loop")
        }
    }
}

fn own(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    let (trouble, what) = trouble(rng);
    // Deploys hurt where there is somebody; half of capacity is less than who is there.
    if matches!(trouble, Trouble::Capacity { .. }) && rng.chance(0.5) {
        night.capacity = night.audience * 3 / 2 + 200;
    }
    night.troubles.push((trouble, night.begins));
    (night, what.to_owned())
}

fn mimics(rng: &mut Rng) -> (Night, String) {
    let mut night = quiet(rng);
    night.tls = true;
    let rate = (night.usual * rng.magnitude(3.0, 40.0)).max(30.0);
    let ramp = rng.below(30);
    let follows = rng.between(0.9, 1.0);
    night.waves.push(Wave { ramp, ..wave(Attack::Mimics { follows }, &night, rate) });
    night.capacity += (rate * 300.0) as u64;
    night.joins += rate * 2.0;
    night.waves[0].until = night.begins + 30 + rng.below(200);
    // Something they did not get right: who comes without being told to, or whose program it is, or where from.
    let what = match rng.below(3) {
        0 => {
            night.bots_impersonate = false;
            "their own fingerprints"
        }
        1 => {
            night.bots_impersonate = true;
            night.bot_clients = 1;
            night.bot_networks = 3 + rng.below(7);
            "few networks"
        }
        _ => {
            night.bots_impersonate = true;
            night.waves[0].ramp = 0;
            night.waves[0].rate = rate.max(night.usual * 10.0).max(60.0);
            "all at once"
        }
    };
    (night, what.to_owned())
}
