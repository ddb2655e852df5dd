//! Thirteen speakers on stage: decoders, jitter buffers, levelling, thirteen mix-minus encoders, three renditions.
//!
//! Prints the processor time of one second of audio (from the kernel's account of this thread, so that a busy machine
//! does not count), its share of one core and of a speaker; the bar is 35 % of one core. Then lets criterion time single
//! ticks.
#![allow(clippy::disallowed_methods, clippy::print_stdout)] // A benchmark measures time and prints it.

use std::hint::black_box;

use criterion::Criterion;
use minassa_programme::{Slate, SourceKind};

#[allow(dead_code)]
#[path = "../tests/programme/common.rs"]
mod common;

use common::{BROWSER, Night, Sender, encode, programme, scale_to, speech};

fn night(speakers: u32) -> Night {
    let senders = (0..speakers)
        .map(|n| {
            let mut voice = speech(10.0, 100.0 + 10.0 * f64::from(n), false, u64::from(n));
            scale_to(&mut voice, -20.0 - f64::from(n));
            let mut sender =
                Sender::new(n, SourceKind::Rtp, encode(&voice, BROWSER), f64::from(n) * 20.0 - 120.0);
            // A middling network: some loss, some jitter.
            sender.loss = 0.01;
            sender.jitter = 48.0 * 10.0;
            sender
        })
        .collect();
    let mut night = Night::new(programme(), senders);
    for _ in 0..50 * 5 {
        night.tick();
    }
    night.parts.clear();
    night
}

/// Nanoseconds this thread has run on a processor.
fn processor_time() -> u64 {
    let account =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts time of threads");
    account.split(' ').next().and_then(|ns| ns.parse().ok()).expect("its first figure is nanoseconds")
}

/// Milliseconds of processor time for a second of audio, and for the slowest tick.
fn measure(speakers: u32) -> (f64, f64) {
    const SECONDS: u32 = 30;
    let mut night = night(speakers);
    let begin = processor_time();
    let mut slowest = 0;
    for _ in 0..50 * SECONDS {
        let before = processor_time();
        black_box(night.tick());
        slowest = slowest.max(processor_time() - before);
        night.parts.clear();
    }
    ((processor_time() - begin) as f64 / 1e6 / f64::from(SECONDS), slowest as f64 / 1e6)
}

fn main() {
    for (name, make) in [("waiting", Slate::waiting as fn() -> Slate), ("holding", Slate::holding)] {
        let begin = processor_time();
        let slate = make();
        let took = (processor_time() - begin) as f64 / 1e6;
        println!("slate {name}: {} s of music made in {took:.0} ms", slate.duration().as_secs());
    }
    let (none, _) = measure(0);
    println!("programme without speakers: {none:.1} ms a second of audio, {:.1} % of one core", none / 10.0);
    let (all, slowest) = measure(13);
    println!(
        "13 speakers on stage: {all:.1} ms a second of audio, {:.1} % of one core (bar: 35 %), slowest tick {slowest:.1} ms",
        all / 10.0
    );
    println!(
        "per speaker: {:.2} ms a second of audio, {:.2} % of one core",
        (all - none) / 13.0,
        (all - none) / 130.0
    );

    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let mut stage = night(13);
    criterion.bench_function("tick_13_speakers", |b| {
        b.iter(|| {
            stage.parts.clear();
            black_box(stage.tick())
        });
    });
    criterion.final_summary();
}
