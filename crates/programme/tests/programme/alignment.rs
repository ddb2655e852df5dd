//! All renditions decode to the same samples at the same places, and those are the programme's.

use crate::common::*;
use minassa_programme::{Programme, ProgrammeConfig, Slate};
use model::PartNumber;

/// A slate whose every stretch is unlike any other: speech-like, from a file.
fn slate() -> Slate {
    Slate::decode(&wav(&speech(20.0, 120.0, false, 3), 48_000, 1)).unwrap()
}

#[test]
fn renditions_align_with_the_programme_within_a_millisecond() {
    for first in [0, 1_000] {
        let slate = slate();
        let first = PartNumber::new(first);
        let mut programme =
            Programme::new(ProgrammeConfig::new(DOORS), slate.clone(), Slate::silence(), first);
        let mut parts = Vec::new();
        for _ in 0..24 * 20 {
            programme.tick();
            parts.extend(std::iter::from_fn(|| programme.poll_part()));
        }
        assert_eq!(parts[0].number, first);
        assert!(parts.len() >= 19, "{}", parts.len());
        for part in &parts {
            assert_eq!((part.opus24.len(), part.opus48.len(), part.mp3.len()), (24, 24, 20));
            assert!(part.opus48.iter().all(|packet| packet.len() == 120));
            assert!(part.mp3.iter().all(|frame| frame.len() == 192));
        }
        // From the second part on, so that every decoder has run in.
        let begin = first.next().start().samples();
        let truth: Vec<f32> = (begin..begin + 5 * 23_040)
            .map(|i| f32::from(slate.samples()[(i % slate.samples().len() as u64) as usize]) / 32_768.0)
            .collect();
        let opus24 = decode_opus(parts.iter().flat_map(|p| &p.opus24));
        let opus48 = decode_opus(parts.iter().flat_map(|p| &p.opus48));
        let mp3 = decode_mp3(parts.iter().flat_map(|p| &p.mp3));
        assert_eq!(opus48.len(), parts.len() * 23_040);
        assert_eq!(mp3.len(), parts.len() * 23_040);
        for (name, decoded) in [("opus-24", opus24), ("opus-48", opus48), ("mp3-64", mp3)] {
            let (lag, correlation) = align(&truth, &decoded[23_040..][..5 * 23_040], 1_500);
            println!("{name}: {lag} samples late, correlation {correlation:.3}");
            let level = loudness(&decoded[23_040..][..5 * 23_040]) - loudness(&truth);
            println!("  {level:+.2} LU");
            assert!(level.abs() < 0.7, "{name}: {level} LU");
            assert!(lag.abs() <= 48, "{name}: {lag} samples");
            assert!(correlation > 0.8, "{name}: {correlation}");
        }
    }
}

#[test]
fn a_part_of_mp3_decodes_by_itself() {
    let mut programme =
        Programme::new(ProgrammeConfig::new(DOORS), slate(), Slate::silence(), PartNumber::ZERO);
    let mut parts = Vec::new();
    for _ in 0..24 * 6 {
        programme.tick();
        parts.extend(std::iter::from_fn(|| programme.poll_part()));
    }
    let whole = decode_mp3(parts.iter().flat_map(|part| &part.mp3));
    for (n, part) in parts.iter().enumerate() {
        let alone = decode_mp3(&part.mp3);
        assert_eq!(alone.len(), 23_040);
        // The first frame lacks what the one before overlaps into it.
        let same = &whole[n * 23_040 + 1_152..(n + 1) * 23_040];
        assert!(alone[1_152..].iter().zip(same).all(|(a, b)| (a - b).abs() < 1e-4), "part {n}");
    }
}

#[test]
fn opus_24_keeps_to_its_rate() {
    let mut programme =
        Programme::new(ProgrammeConfig::new(DOORS), slate(), Slate::silence(), PartNumber::ZERO);
    let (mut bytes, mut parts) = (0, 0);
    for _ in 0..24 * 40 {
        programme.tick();
        while let Some(part) = programme.poll_part() {
            bytes += part.opus24.iter().map(|packet| packet.len()).sum::<usize>();
            parts += 1;
        }
    }
    let rate = bytes as f64 * 8.0 / (f64::from(parts) * 0.48);
    println!("opus-24: {rate:.0} bit/s");
    assert!((16_000.0..=25_000.0).contains(&rate), "{rate}");
}
