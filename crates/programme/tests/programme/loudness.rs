//! Item 10 of the issue: everybody is equally loud, and nothing clips, also after decoding.

use crate::common::*;
use minassa_programme::SourceKind;
use minassa_programme::codec::OpusSettings;

const CLEAR: OpusSettings =
    OpusSettings { bitrate: 64_000, complexity: 5, constant: false, fec_loss_percent: 0, conversation: true };

fn whisper(seconds: f64) -> Vec<f32> {
    let mut samples = speech(seconds, 120.0, true, 11);
    scale_to(&mut samples, -45.0);
    samples
}

/// At full scale, driven hard: what comes from a microphone turned up too far.
fn shout(seconds: f64) -> Vec<f32> {
    let mut samples = speech(seconds, 210.0, false, 12);
    samples.iter_mut().for_each(|s| *s = (*s * 4.0).tanh());
    samples
}

fn night(voices: Vec<Vec<f32>>, seconds: u32) -> Night {
    let senders = voices
        .into_iter()
        .enumerate()
        .map(|(n, samples)| Sender::new(n as u32, SourceKind::Rtp, encode(&samples, CLEAR), 0.0))
        .collect();
    let mut night = Night::new(programme(), senders);
    for _ in 0..50 * seconds {
        night.tick();
    }
    night
}

fn check(name: &str, voices: Vec<Vec<f32>>) {
    let night = night(voices, 60);
    println!("{name}: programme {:.2} LUFS", night.programme.loudness_lufs());
    let renditions = [
        ("opus-24", decode_opus(night.parts.iter().flat_map(|p| &p.opus24))),
        ("opus-48", decode_opus(night.parts.iter().flat_map(|p| &p.opus48))),
        ("mp3-64", decode_mp3(night.parts.iter().flat_map(|p| &p.mp3))),
    ];
    let mut figures = Vec::new();
    for (rendition, decoded) in renditions {
        let (whole, later) = (loudness(&decoded), loudness(&decoded[48_000 * 10..]));
        let peak = true_peak(&decoded);
        println!("{name}, {rendition}: {whole:.2} LUFS, after 10 s {later:.2} LUFS, {peak:.2} dBTP");
        figures.push((rendition, whole, later, peak));
    }
    for sender in &night.senders {
        let stats = night.programme.stats(sender.id).unwrap();
        println!("  {:?}: {:.1} LUFS, gain {:.1} dB", sender.id, stats.loudness_lufs, stats.gain_db);
    }
    for (rendition, whole, later, peak) in figures {
        assert!((whole + 16.0).abs() <= 1.0, "{name}, {rendition}: {whole} LUFS");
        assert!((later + 16.0).abs() <= 1.0, "{name}, {rendition}: {later} LUFS");
        assert!(peak <= -1.0, "{name}, {rendition}: {peak} dBTP");
    }
}

#[test]
fn a_whisper_and_a_shout_at_once() {
    check("whisper and shout", vec![whisper(40.0), shout(37.0)]);
}

#[test]
fn a_whisper_alone() {
    check("whisper", vec![whisper(40.0)]);
}

#[test]
fn a_shout_alone() {
    check("shout", vec![shout(40.0)]);
}

#[test]
fn five_at_once() {
    let voices =
        (0..5).map(|n| speech(30.0 + f64::from(n), 100.0 + 30.0 * f64::from(n), false, 20 + n as u64));
    check(
        "five",
        voices
            .map(|mut v| {
                scale_to(&mut v, -30.0);
                v
            })
            .collect(),
    );
}
