//! Two hours with senders whose clocks are 200 ppm off, in virtual time.
#![allow(clippy::print_stdout)] // Figures are shown with `--nocapture`.

use super::Source;
use crate::codec::{OpusLibrary, OpusSettings};
use crate::{SILENT_FRAME, SourceKind};

const FRAME: f64 = 960.0;
const TONE_HZ: f64 = 500.0;

/// One second of a steady tone as a sender encodes it, to be repeated: 500 whole periods.
fn packets() -> Vec<bytes::Bytes> {
    let settings = OpusSettings {
        bitrate: 16_000,
        complexity: 2,
        constant: false,
        fec_loss_percent: 0,
        conversation: true,
    };
    let mut encoder = OpusLibrary::default().encoder(settings).unwrap();
    let mut packets = Vec::new();
    for n in 0..150_u32 {
        let mut frame = SILENT_FRAME;
        for (i, sample) in frame.iter_mut().enumerate() {
            let phase = (f64::from(n) * FRAME + i as f64) * TONE_HZ / 48_000.0;
            *sample = (phase * std::f64::consts::TAU).sin() as f32 * 0.2;
        }
        packets.push(encoder.encode(&frame).unwrap());
    }
    packets.split_off(100)
}

/// Figures of one run.
struct Run {
    /// Greatest distance of the delay from its target once settled, ms.
    off_target_ms: f32,
    /// Greatest distance from one rising zero crossing to the next, beyond a period: what a hole or a repetition makes.
    irregular_ms: f64,
    irregular: u32,
    /// Greatest error of the pitch over 10 s, percent.
    pitch_percent: f64,
    target_ms: f32,
    drift_ppm: f32,
    concealed_ms: u64,
}

/// `page`: packets that arrive together; 1 for RTP.
fn run(kind: SourceKind, ppm: f64, hours: f64, page: u64) -> Run {
    let packets = packets();
    let mut source = Source::new(kind, OpusLibrary::default().decoder().unwrap());
    let step = FRAME / (1.0 + ppm * 1e-6);
    let mut seed = 0x1234_5678_9ABC_DEF0_u64;
    let (mut sent, mut jitter) = (0_u64, 0.0);
    let mut flying = std::collections::BTreeMap::new();
    let ticks = (hours * 3_600.0 * 50.0) as u64;
    let settle = 60 * 50;
    let mut figures = Run {
        off_target_ms: 0.0,
        irregular_ms: 0.0,
        irregular: 0,
        pitch_percent: 0.0,
        target_ms: 0.0,
        drift_ppm: 0.0,
        concealed_ms: 0,
    };
    let (mut last, mut before, mut window) = (0.0_f32, None::<f64>, None::<(f64, u64)>);
    for tick in 0..ticks {
        let due = (tick + 1) as f64 * FRAME;
        loop {
            // A page leaves when its last packet is complete.
            let complete = ((sent / page + 1) * page) as f64 * step;
            if complete > due {
                break;
            }
            if sent.is_multiple_of(page) {
                // Up to 3 ms of jitter: a good network.
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                jitter = (seed >> 40) as f64 / 16_777_216.0 * 144.0;
            }
            let arrival = complete + 480.0 + jitter;
            flying.insert(((arrival * 1e3) as u64, sent), sent);
            sent += 1;
        }
        while let Some(entry) = flying.first_entry().filter(|entry| entry.key().0 as f64 <= due * 1e3) {
            let arrival = (entry.key().0 as f64 / 1e3) as i64;
            let number = entry.remove();
            let payload = &packets[(number % packets.len() as u64) as usize];
            match kind {
                SourceKind::Rtp => {
                    source.push_rtp(number as u16, (number * 960) as u32, payload, arrival);
                }
                SourceKind::Ogg => source.push_ogg(number * 960, payload, arrival),
            }
        }
        source.pull(due as i64);
        if tick < settle {
            // Listened to, not yet judged.
            last = 0.0;
            continue;
        }
        let stats = source.stats();
        figures.off_target_ms = figures.off_target_ms.max((stats.delay_ms - stats.target_ms).abs());
        for (index, sample) in source.last_frame().iter().enumerate() {
            if last < 0.0 && *sample >= 0.0 {
                let crossing = tick as f64 * FRAME + index as f64 - f64::from(*sample / (*sample - last));
                if let Some(before) = before {
                    let beyond = ((crossing - before) - 48_000.0 / TONE_HZ).abs();
                    if beyond > 4.0 {
                        figures.irregular += 1;
                        figures.irregular_ms = figures.irregular_ms.max(beyond / 48.0);
                    }
                }
                before = Some(crossing);
                match &mut window {
                    Some((begin, periods)) => {
                        *periods += 1;
                        if *periods == 5_000 {
                            let pitch = 48_000.0 * 5_000.0 / (crossing - *begin);
                            let error = (pitch / TONE_HZ - 1.0).abs() * 100.0;
                            figures.pitch_percent = figures.pitch_percent.max(error);
                            window = Some((crossing, 0));
                        }
                    }
                    None => window = Some((crossing, 0)),
                }
            }
            last = *sample;
        }
    }
    let stats = source.stats();
    figures.target_ms = stats.target_ms;
    figures.drift_ppm = stats.drift_ppm;
    figures.concealed_ms = stats.concealed_ms;
    figures
}

fn check(kind: SourceKind, ppm: f64, hours: f64, page: u64) {
    let run = run(kind, ppm, hours, page);
    println!(
        "{kind:?} {ppm:+} ppm, {hours} h: off target {:.2} ms (target {:.0}), pitch {:.4} %, {} irregular periods \
         (worst {:.2} ms), drift found {:.1} ppm, concealed {} ms",
        run.off_target_ms,
        run.target_ms,
        run.pitch_percent,
        run.irregular,
        run.irregular_ms,
        run.drift_ppm,
        run.concealed_ms,
    );
    assert!(run.off_target_ms < 20.0);
    assert!(run.pitch_percent < 0.1);
    assert!(run.irregular_ms < 10.0);
    assert!((f64::from(run.drift_ppm) - ppm).abs() < 20.0);
}

#[test]
fn two_hours_of_rtp_with_a_fast_clock() {
    check(SourceKind::Rtp, 200.0, 2.0, 1);
}

#[test]
fn two_hours_of_rtp_with_a_slow_clock() {
    check(SourceKind::Rtp, -200.0, 2.0, 1);
}

#[test]
fn two_hours_of_ogg_with_a_fast_clock() {
    check(SourceKind::Ogg, 200.0, 2.0, 50);
}

#[test]
fn two_hours_of_ogg_with_a_slow_clock() {
    check(SourceKind::Ogg, -200.0, 2.0, 50);
}
