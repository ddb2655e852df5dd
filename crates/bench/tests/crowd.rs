//! A crowd and the floor, both real, in one process.

// They live in real time.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use minassa_bench::floor::{Floor, FloorFlags};
use rehearse::crowd::{self, CrowdConfig, CrowdReport, Share, Storm, Trust};

/// A floor in a thread, until it is dropped.
struct Served {
    address: String,
    over: Arc<AtomicBool>,
    serving: Option<thread::JoinHandle<()>>,
}

impl Served {
    fn new(tls: bool, tier: u64, spread: u64) -> Self {
        let listen = "127.0.0.1:0".parse().unwrap();
        let mut floor = Floor::bind(&FloorFlags { listen, tier, spread, tls, seconds: None }).unwrap();
        let address = floor.address().unwrap().to_string();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let serving = thread::spawn(move || {
            let done = floor.serve(|| is_over.load(Ordering::Relaxed)).unwrap();
            assert_eq!(done.short, 0);
        });
        Self { address, over, serving: Some(serving) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.serving.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

fn listen(served: &Served, tls: bool, change: impl FnOnce(&mut CrowdConfig)) -> CrowdReport {
    let scheme = if tls { "https" } else { "http" };
    let mut config = CrowdConfig {
        urls: vec![format!("{scheme}://{}/", served.address)],
        listeners: 20,
        ramp: 200.0,
        settle_s: 1.0,
        window_s: 2.0,
        trust: Trust::Anything,
        server_pids: vec![std::process::id()],
        ..CrowdConfig::default()
    };
    change(&mut config);
    let never = || panic!("one share needs no process");
    crowd::run(&config, &never, &mut |_| ()).unwrap()
}

#[test]
fn everyone_hears_everything_plain() {
    let served = Served::new(false, 1, 48);
    let report = listen(&served, false, |config| {
        config.storm = Some(Storm { joins: 10, over_s: 0.5 });
        config.slow = 2;
        config.never = 2;
    });
    assert!(report.is_flawless(), "{report}");
    assert_eq!((report.base.counts.joined, report.base.counts.steady), (20, 20));
    let storm = report.storm.unwrap().counts;
    assert_eq!((storm.joined, storm.steady), (10, 10));
    assert_eq!(report.stuck.unwrap().begun, 4);
    assert!(report.witness.parts > 2 && report.base.counts.notices > 0);
    // 100 bytes of boxes a part of 2,880, a notice of about as many, and signatures with every eighth.
    assert!((1.05..1.12).contains(&report.bytes.wire_per_audio), "{}", report.bytes.wire_per_audio);
    let tcp = report.tcp.unwrap();
    assert_eq!(tcp.at_end.server.states["established"], 34);
    assert!(report.server.processes == 1 && report.server.files > 34);
}

#[test]
fn everyone_hears_everything_sealed_and_in_flushes() {
    let served = Served::new(true, 2, 10);
    let report = listen(&served, true, |config| {
        config.tier = 2;
        config.resume = true;
        config.churn = 10.0;
        config.slow = 3;
        config.never = 3;
    });
    assert_eq!(report.stuck.unwrap().begun, 6);
    assert_eq!(report.failures.len(), 0, "{report}");
    // Twenty, those who came in somebody's place, and six who hardly read: all of them asked, sealed.
    assert!(report.base.counts.churned > 0 && report.base.counts.resumed > 0, "{report}");
    assert_eq!((report.base.counts.missed, report.base.counts.duplicates), (0, 0));
    assert!(report.bytes.wire_per_audio > report.bytes.body_per_audio);
}

#[test]
fn one_request_has_its_answer() {
    for tls in [false, true] {
        let served = Served::new(tls, 1, 1);
        let scheme = if tls { "https" } else { "http" };
        let url = format!("{scheme}://{}/", served.address);
        let (status, body) = crowd::fetch(&url, &Trust::Anything, std::time::Duration::from_secs(1)).unwrap();
        assert_eq!((status, body.get(4..8)), (200, Some(&b"ftyp"[..])));
    }
}

#[test]
fn a_share_is_told_and_tells_in_lines() {
    let served = Served::new(false, 1, 1);
    let config = CrowdConfig {
        urls: vec![format!("http://{}/", served.address)],
        listeners: 3,
        settle_s: 0.0,
        window_s: 0.6,
        ..CrowdConfig::default()
    };
    let share = Share { config, index: 0, of: 1, start_ns: 0 };
    // It began with the machine, and so is over: everything is told all the same.
    let mut told = Vec::new();
    crowd::serve_share(serde_json::to_vec(&share).unwrap().as_slice(), &mut told).unwrap();
    let last: serde_json::Value =
        serde_json::from_slice(told.split(|byte| *byte == b'\n').rev().nth(1).unwrap()).unwrap();
    assert_eq!(last["report"]["base"]["counts"]["asked"], 3);
}
