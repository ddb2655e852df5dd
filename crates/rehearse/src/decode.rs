//! Files to 48 kHz mono: Ogg/Opus with our own reader and decoder, anything else with `symphonia`.

use std::f64::consts::PI;
use std::io::Cursor;

use formats::ogg::read_opus;
use programme::codec::{MAX_PACKET_SAMPLES, OpusLibrary};
use symphonia::core::codecs::audio::AudioDecoderOptions;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;

use crate::voice::{Clip, UnreadableClip};

const RATE: u32 = 48_000;

pub(crate) fn decode(file: &[u8]) -> Result<Vec<f32>, UnreadableClip> {
    // The identification header is the first packet of the first page (RFC 7845 section 3).
    let head = &file[..file.len().min(64)];
    if head.starts_with(b"OggS") && head.windows(8).any(|bytes| bytes == b"OpusHead") {
        decode_opus(file)
    } else {
        decode_other(file)
    }
}

fn decode_opus(file: &[u8]) -> Result<Vec<f32>, UnreadableClip> {
    let broken = |error: &dyn std::fmt::Display| UnreadableClip::BrokenOpus(error.to_string());
    let (head, packets) = read_opus(file).map_err(|error| broken(&error))?;
    let mut decoder = OpusLibrary::default().decoder().map_err(|error| broken(&error))?;
    let mut pcm = Box::new([0.0; MAX_PACKET_SAMPLES]);
    let mut samples = Vec::new();
    let mut skip = usize::from(head.pre_skip);
    for packet in &packets {
        let count = decoder.decode(&packet.data, &mut pcm).map_err(|error| broken(&error))?;
        let end = count.saturating_sub(packet.trim_end as usize);
        let begin = skip.min(end);
        skip -= skip.min(count);
        samples.extend_from_slice(&pcm[begin..end]);
        if samples.len() > Clip::LONGEST_S * RATE as usize {
            return Err(UnreadableClip::TooLong);
        }
    }
    Ok(samples)
}

fn decode_other(file: &[u8]) -> Result<Vec<f32>, UnreadableClip> {
    let no_audio = |reason: &dyn std::fmt::Display| UnreadableClip::NotAudio(reason.to_string());
    let stream = MediaSourceStream::new(Box::new(Cursor::new(file.to_vec())), Default::default());
    let mut format = symphonia::default::get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(|error| no_audio(&error))?;
    let track =
        format.default_track(TrackType::Audio).ok_or_else(|| no_audio(&"it has no track of sound"))?;
    let parameters = track
        .codec_params
        .as_ref()
        .and_then(|parameters| parameters.audio())
        .ok_or_else(|| no_audio(&"its codec is not known"))?;
    let mut decoder = symphonia::default::get_codecs()
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|error| no_audio(&error))?;
    let track_id = track.id;

    let mut rate = RATE;
    let mut mono = Vec::new();
    let mut interleaved = Vec::<f32>::new();
    loop {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            // A file that was cut off holds sound all the same.
            Ok(None) | Err(Error::IoError(_)) => break,
            Err(error) => return Err(no_audio(&error)),
        };
        if packet.track_id != track_id {
            continue;
        }
        let buffer = match decoder.decode(&packet) {
            Ok(buffer) => buffer,
            Err(Error::DecodeError(_)) => continue,
            Err(error) => return Err(no_audio(&error)),
        };
        rate = buffer.spec().rate();
        let channels = buffer.spec().channels().count().max(1);
        interleaved.resize(buffer.samples_interleaved(), 0.0);
        buffer.copy_to_slice_interleaved(&mut interleaved);
        mono.extend(
            interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32),
        );
        if mono.len() / rate.max(1) as usize > Clip::LONGEST_S {
            return Err(UnreadableClip::TooLong);
        }
    }
    Ok(resample(mono, rate))
}

/// To 48 kHz, with a Hann-windowed sinc of 32 taps. It is done once for a whole file, so it may take its time.
fn resample(samples: Vec<f32>, rate: u32) -> Vec<f32> {
    if rate == RATE || rate == 0 || samples.is_empty() {
        return samples;
    }
    let step = f64::from(rate) / f64::from(RATE);
    // When going down, everything above the new half rate has to go.
    let cutoff = (1.0 / step).min(1.0);
    let reach = (16.0 / cutoff).ceil();
    let length = (samples.len() as f64 / step) as usize;
    (0..length)
        .map(|index| {
            let centre = index as f64 * step;
            let first = (centre - reach).ceil().max(0.0) as usize;
            let last = ((centre + reach).floor() as usize).min(samples.len() - 1);
            (first..=last)
                .map(|at| {
                    let x = at as f64 - centre;
                    let sinc = if x.abs() < 1e-9 { 1.0 } else { (PI * x * cutoff).sin() / (PI * x * cutoff) };
                    let window = 0.5 * (1.0 + (PI * x / reach).cos());
                    f64::from(samples[at]) * sinc * window * cutoff
                })
                .sum::<f64>() as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mono WAV file of 16 bits.
    fn wav(rate: u32, samples: &[f32]) -> Vec<u8> {
        let bytes: Vec<u8> =
            samples.iter().flat_map(|sample| ((sample * 32_767.0) as i16).to_le_bytes()).collect();
        let length = bytes.len() as u32;
        let mut file = b"RIFF".to_vec();
        file.extend((36 + length).to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        file.extend(rate.to_le_bytes());
        file.extend((rate * 2).to_le_bytes());
        file.extend(b"\x02\0\x10\0data");
        file.extend(length.to_le_bytes());
        file.extend(bytes);
        file
    }

    #[test]
    fn other_rates_keep_pitch_and_level() {
        for rate in [16_000, 22_050, 44_100, 48_000, 96_000] {
            let tone: Vec<f32> = (0..rate)
                .map(|n| 0.5 * (std::f32::consts::TAU * 440.0 * n as f32 / rate as f32).sin())
                .collect();
            let samples = decode(&wav(rate, &tone)).unwrap();
            assert!(samples.len().abs_diff(48_000) <= 2, "{rate}: {}", samples.len());
            let middle = &samples[4_800..43_200];
            let crossings = middle.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
            assert!(crossings.abs_diff(352) <= 1, "{rate}: {crossings} periods in 0.8 s");
            let rms = (middle.iter().map(|s| s * s).sum::<f32>() / middle.len() as f32).sqrt();
            assert!((rms - 0.5 / 2_f32.sqrt()).abs() < 0.01, "{rate}: {rms}");
        }
    }

    #[test]
    fn what_is_no_audio_is_refused() {
        for file in [&b""[..], b"hello", &[0; 10_000], b"OggS\0\x02\0\0\0\0\0\0\0\0OpusHead"] {
            assert!(Clip::decode(file).is_err());
        }
    }
}
