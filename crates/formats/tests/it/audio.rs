//! Audio to package, deterministic.

use std::f32::consts::TAU;

use bytes::Bytes;
use model::{MP3_FRAME_SAMPLES, OPUS_FRAME_SAMPLES, PART_SAMPLES, Rendition, SAMPLE_RATE};
use ropus::{Application, Bitrate, Channels, DecodeMode, Decoder, Encoder, Signal};
use shine_rs::{Mp3Encoder, Mp3EncoderConfig, StereoMode};

/// Samples of `parts` parts.
pub(crate) fn samples(parts: u64) -> usize {
    (parts * PART_SAMPLES) as usize
}

/// Something like a voice: harmonics of a gliding pitch, in syllables of changing strength with pauses between, and
/// the hiss of consonants.
pub(crate) fn voice(samples: usize) -> Vec<f32> {
    let mut noise = 0x9e37_79b9u32;
    let mut phase = 0.0f32;
    (0..samples)
        .map(|n| {
            let time = n as f32 / SAMPLE_RATE as f32;
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let hiss = (noise >> 16) as f32 / 32_768.0 - 1.0;
            let pitch = 140.0 + 40.0 * (TAU * 0.7 * time).sin();
            phase = (phase + pitch / SAMPLE_RATE as f32).fract();
            let voiced: f32 = (1..20).map(|k| (TAU * phase * k as f32).sin() / k as f32).sum();
            let syllable = (TAU * 2.1 * time).sin().max(0.0);
            let consonant = (TAU * 3.3 * time + 1.0).sin().max(0.0).powi(8);
            0.2 * syllable * voiced + 0.1 * consonant * hiss
        })
        .collect()
}

/// Opus frames as the programme makes them.
pub(crate) fn opus(rendition: Rendition, pcm: &[f32]) -> Vec<Bytes> {
    let constant = match rendition {
        Rendition::Opus24 => false,
        Rendition::Opus48 => true,
        Rendition::Mp3_64 => panic!("no Opus in mp3-64"),
    };
    let mut encoder = Encoder::builder(SAMPLE_RATE, Channels::Mono, Application::Audio)
        .bitrate(Bitrate::Bits(rendition.bits_per_second()))
        .complexity(10)
        .signal(Signal::Voice)
        .vbr(!constant)
        .vbr_constraint(!constant)
        .build()
        .unwrap();
    let mut out = vec![0; 1_500];
    let frames = pcm.chunks_exact(OPUS_FRAME_SAMPLES);
    frames
        .map(|frame| {
            let length = encoder.encode_float(frame, &mut out).unwrap();
            Bytes::copy_from_slice(&out[..length])
        })
        .collect()
}

/// What a decoder makes of Opus packets.
pub(crate) fn decode_opus<P: AsRef<[u8]>>(packets: &[P]) -> Vec<f32> {
    let mut decoder = Decoder::new(SAMPLE_RATE, Channels::Mono).unwrap();
    let mut out = vec![0.0; 5_760];
    let mut pcm = Vec::new();
    for packet in packets {
        let length = decoder.decode_float(packet.as_ref(), &mut out, DecodeMode::Normal).unwrap();
        pcm.extend_from_slice(&out[..length]);
    }
    pcm
}

/// MP3 frames as the programme makes them.
pub(crate) fn mp3(pcm: &[f32]) -> Vec<Vec<u8>> {
    let config = Mp3EncoderConfig::new()
        .sample_rate(SAMPLE_RATE)
        .bitrate(64)
        .channels(1)
        .stereo_mode(StereoMode::Mono);
    let mut encoder = Mp3Encoder::new(config).unwrap();
    let pcm: Vec<i16> = pcm.iter().map(|sample| (sample * 32_767.0) as i16).collect();
    let frames: Vec<_> = pcm
        .chunks_exact(MP3_FRAME_SAMPLES)
        .flat_map(|frame| encoder.encode_interleaved(frame).unwrap())
        .collect();
    assert_eq!(frames.len(), pcm.len() / MP3_FRAME_SAMPLES, "one frame a call");
    frames
}

/// Correlation of two signals of equal length: 1 if they are the same but for loudness.
pub(crate) fn correlation(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let product =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    product(a, b) / (product(a, a) * product(b, b)).sqrt().max(f64::MIN_POSITIVE)
}
