//! The port in Rust and the C library, side by side (cargo feature `libopus`).

use bytes::Bytes;
use minassa_programme::codec::{MAX_PACKET_SAMPLES, OpusLibrary, OpusPacket, OpusSettings};

use crate::common::*;

const BOTH: [OpusLibrary; 2] = [OpusLibrary::Ropus, OpusLibrary::Libopus];

fn packets(library: OpusLibrary, settings: OpusSettings, samples: &[f32]) -> Vec<Bytes> {
    let mut encoder = library.encoder(settings).unwrap();
    assert_eq!(encoder.delay(), 312);
    samples.chunks_exact(FRAME).map(|frame| encoder.encode(frame.try_into().unwrap()).unwrap()).collect()
}

/// Decodes, taking every tenth packet for lost if `lossy`: rebuilt from the next one, or concealed.
fn sound(library: OpusLibrary, packets: &[Bytes], lossy: bool) -> Vec<f32> {
    let mut decoder = library.decoder().unwrap();
    let mut room = [0.0; MAX_PACKET_SAMPLES];
    let mut out = Vec::new();
    for (n, packet) in packets.iter().enumerate() {
        if lossy && n % 10 == 5 {
            let mut lost = [0.0; FRAME];
            match packets.get(n + 1) {
                Some(next) if OpusPacket::parse(next).unwrap().redundant => {
                    decoder.recover(next, &mut lost).unwrap();
                }
                _ => decoder.conceal(&mut lost).unwrap(),
            }
            out.extend_from_slice(&lost);
        } else {
            let samples = decoder.decode(packet, &mut room).unwrap();
            out.extend_from_slice(&room[..samples]);
        }
    }
    out
}

#[test]
fn both_libraries_read_each_other_and_sound_alike() {
    let mut voice = speech(20.0, 130.0, false, 50);
    scale_to(&mut voice, -20.0);
    let voice = &voice[..voice.len() / FRAME * FRAME];
    for (name, settings) in [
        ("opus-24", OpusSettings::OPUS_24),
        ("opus-48", OpusSettings::OPUS_48),
        ("return", OpusSettings::RETURN),
    ] {
        let encoded = BOTH.map(|library| packets(library, settings, voice));
        let bits = encoded.each_ref().map(|packets| packets.iter().map(|p| p.len() * 8).sum::<usize>() / 20);
        println!("{name}: {} and {} bit/s", bits[0], bits[1]);
        assert!((bits[0] as f64 / bits[1] as f64 - 1.0).abs() < 0.1, "{name}: {bits:?}");
        if settings.constant {
            assert!(encoded.iter().flatten().all(|packet| packet.len() == 120));
        }
        let mut decoded = Vec::new();
        for (encoder, packets) in BOTH.iter().zip(&encoded) {
            for decoder in BOTH {
                for lossy in [false, true] {
                    let sound = sound(decoder, packets, lossy);
                    assert_eq!(sound.len(), voice.len());
                    let level = loudness(&sound) - loudness(voice);
                    println!("  by {encoder:?}, read by {decoder:?}, lossy {lossy}: {level:+.2} LU");
                    // Concealment is cautious in both, the port a little more so.
                    let allowed = if lossy { 3.0 } else { 0.5 };
                    assert!(level.abs() < allowed, "{name}: {level} LU");
                    decoded.push((lossy, sound));
                }
            }
        }
        for lossy in [false, true] {
            let sounds: Vec<&[f32]> =
                decoded.iter().filter(|(l, _)| *l == lossy).map(|(_, s)| &s[48_000..]).collect();
            let allowed = if lossy { 0.85 } else { 0.97 };
            for other in &sounds[1..] {
                let (lag, correlation) = align(sounds[0], other, 24);
                println!("  lossy {lossy}: lag {lag}, correlation {correlation:.4}");
                assert_eq!(lag, 0, "{name}");
                assert!(correlation > allowed, "{name}: {correlation}");
            }
        }
    }
}

#[test]
fn a_programme_runs_on_the_c_library() {
    let mut config = minassa_programme::ProgrammeConfig::new(DOORS);
    config.opus = OpusLibrary::Libopus;
    let slate = minassa_programme::Slate::silence();
    let programme = minassa_programme::Programme::new(config, slate.clone(), slate, model::PartNumber::ZERO);
    let mut voice = speech(10.0, 130.0, false, 51);
    scale_to(&mut voice, -26.0);
    let sender = Sender::new(1, minassa_programme::SourceKind::Rtp, encode(&voice, BROWSER), 0.0);
    let mut night = Night::new(programme, vec![sender]);
    for _ in 0..50 * 20 {
        night.tick();
    }
    assert!(night.parts.iter().flat_map(|part| &part.opus48).all(|packet| packet.len() == 120));
    let heard = night.heard();
    assert!((loudness(&heard[48_000 * 5..]) + 16.0).abs() < 1.5, "{}", loudness(&heard[48_000 * 5..]));
}
