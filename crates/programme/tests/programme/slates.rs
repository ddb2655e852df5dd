//! Slates from files, good and bad.

use std::time::Duration;

use crate::common::*;
use minassa_programme::slate::{MAX_SLATE_BYTES, MAX_SLATE_DURATION};
use minassa_programme::{Slate, SlateError};

fn as_float(slate: &Slate) -> Vec<f32> {
    slate.samples().iter().map(|s| f32::from(*s) / 32_768.0).collect()
}

#[test]
fn a_file_is_resampled_mixed_down_and_matched() {
    for (rate, channels) in [(48_000, 1), (44_100, 2), (8_000, 1), (96_000, 2)] {
        let mut samples = Vec::new();
        for i in 0..rate * 5 {
            let value = (f64::from(i) * 440.0 / f64::from(rate) * std::f64::consts::TAU).sin() as f32 * 0.02;
            samples.extend(std::iter::repeat_n(value, channels as usize));
        }
        let slate = Slate::decode(&wav(&samples, rate, channels)).unwrap();
        let decoded = as_float(&slate);
        assert_eq!(decoded.len(), 240_000, "{rate} Hz");
        assert!((loudness(&decoded) + 16.0).abs() < 0.2, "{}", loudness(&decoded));
        let (on, off) = (tone_db(&decoded[48_000..96_000], 440.0), tone_db(&decoded[48_000..96_000], 900.0));
        assert!(on - off > 50.0, "{rate} Hz: {on} and {off}");
        assert!(true_peak(&decoded) < -2.5);
    }
}

#[test]
fn bad_files_are_refused_with_the_reason() {
    let noise: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bad in [&b""[..], b"RIFF", b"<html>not audio</html>", &noise] {
        assert!(matches!(Slate::decode(bad), Err(SlateError::NotAudio { .. })), "{:?}", Slate::decode(bad));
    }
    let large = vec![0; MAX_SLATE_BYTES + 1];
    assert!(matches!(Slate::decode(&large), Err(SlateError::TooLarge { .. })));
    assert_eq!(Slate::decode(&wav(&[0.0; 96_000], 48_000, 1)).unwrap_err(), SlateError::Silent);
    assert_eq!(Slate::decode(&wav(&[0.5; 100], 48_000, 1)).unwrap_err(), SlateError::Silent);
    assert_eq!(Slate::decode(&wav(&[], 48_000, 1)).unwrap_err(), SlateError::Silent);
}

#[test]
fn ten_hours_are_refused_without_decoding_them() {
    // A header that states the length is believed if the file is large enough for it.
    let hours = 10 * 3_600_u32;
    let mut file = wav(&[], 4_000, 1);
    let bytes = hours * 4_000 * 2;
    file[4..8].copy_from_slice(&(bytes + 36).to_le_bytes());
    file[40..44].copy_from_slice(&bytes.to_le_bytes());
    file.resize(40 << 20, 0);
    match Slate::decode(&file) {
        Err(SlateError::TooLong { duration, allowed, at_least: false }) => {
            assert_eq!(duration, Duration::from_secs(hours.into()));
            assert_eq!(allowed, MAX_SLATE_DURATION);
        }
        other => panic!("{other:?}"),
    }
    // One that states nothing is decoded up to the limit.
    let silent = wav(&vec![0.25; 8_000 * 700], 8_000, 1);
    assert!(matches!(Slate::decode(&silent), Err(SlateError::TooLong { .. })));
    let text = Slate::decode(&silent).unwrap_err().to_string();
    assert!(text.contains("700 s") && text.contains("600 s"), "{text}");
}

#[test]
fn mp3_is_read_and_its_length_found_out() {
    let mut encoder = minassa_programme::codec::mp3_encoder().unwrap();
    let voice = speech(10.0, 120.0, false, 1);
    let mut frames: Vec<u8> = Vec::new();
    for frame in voice.chunks_exact(1_152) {
        frames.extend_from_slice(&encoder.encode(frame.try_into().unwrap()).unwrap());
    }
    let slate = Slate::decode(&frames).unwrap();
    assert!((slate.duration().as_secs_f64() - 10.0).abs() < 0.1);
    // Twelve minutes of it.
    let long = frames.repeat(72);
    assert!(matches!(Slate::decode(&long), Err(SlateError::TooLong { .. })));
    // Torn at an odd place and with garbage in the middle: what can be read is the slate.
    let mut torn = frames[..frames.len() - 77].to_vec();
    torn[40_000..40_100].fill(0x55);
    assert!(Slate::decode(&torn).is_ok());
}

#[test]
fn every_mutilated_file_is_survived() {
    let mut random = Random(5);
    let good = wav(&tone(300.0, 0.3, 30_000), 48_000, 1);
    for _ in 0..300 {
        let mut bad = good.clone();
        for _ in 0..1 + random.next() % 6 {
            let at = random.next() as usize % 64;
            bad[at] = random.next() as u8;
        }
        bad.truncate(1 + random.next() as usize % bad.len());
        let _ = Slate::decode(&bad);
    }
}

#[test]
fn opus_in_ogg_is_read() {
    use formats::ogg::{HEADER_PAGES, opus_headers, page_for_part};
    let voice = speech(24.0 * 0.48, 120.0, false, 2);
    let packets = encode(&voice, minassa_programme::codec::OpusSettings::OPUS_48);
    let mut file = opus_headers(7, "test", &[]).to_vec();
    for (n, part) in packets.chunks_exact(24).enumerate() {
        let sequence = HEADER_PAGES + n as u32;
        file.extend_from_slice(&page_for_part(7, sequence, (n as u64 + 1) * 23_040, part, n == 23));
    }
    let slate = Slate::decode(&file).unwrap();
    assert_eq!(slate.samples().len(), 24 * 23_040);
    let decoded = as_float(&slate);
    let (lag, correlation) = align(&voice[..48_000 * 5], &decoded[..48_000 * 5], 400);
    println!("lag {lag}, correlation {correlation:.3}");
    assert!(correlation > 0.9);
}
