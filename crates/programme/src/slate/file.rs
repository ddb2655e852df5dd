//! Reading a slate from a file, sceptically.

use std::io::Cursor;
use std::panic::catch_unwind;
use std::time::Duration;

use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::MediaSourceStream;
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use super::{MAX_SLATE_BYTES, MAX_SLATE_DURATION, SlateError};
use crate::codec::{MAX_PACKET_SAMPLES, OpusDecoder, OpusLibrary, OpusPacket};
use crate::resample::ToProgrammeRate;

/// Sampling rates that are believed.
const RATES: std::ops::RangeInclusive<u32> = 4_000..=384_000;
/// A file that claims a length at which it would have fewer bytes a second than this does not know its length.
const PLAUSIBLE_BYTES_A_SECOND: u64 = 500;
/// Packets that may be broken before the file is.
const BROKEN_MAX: u32 = 100;

/// Decodes to mono at 48 kHz.
pub(super) fn decode(file: &[u8]) -> Result<Vec<f32>, SlateError> {
    if file.len() > MAX_SLATE_BYTES {
        return Err(SlateError::TooLarge { bytes: file.len(), allowed: MAX_SLATE_BYTES });
    }
    // Readers of a dozen formats meet whatever somebody uploads. A panic in one of them is that file's fault, not the
    // end of the process.
    catch_unwind(|| read_file(file))
        .unwrap_or_else(|_| Err(SlateError::NotAudio { reason: "the reader failed on it".to_owned() }))
}

fn read_file(file: &[u8]) -> Result<Vec<f32>, SlateError> {
    let stream = MediaSourceStream::new(Box::new(Cursor::new(file.to_vec())), Default::default());
    let mut reader = symphonia::default::get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(not_audio)?;
    let track = reader
        .default_track(TrackType::Audio)
        .ok_or_else(|| SlateError::NotAudio { reason: "there is no audio in it".to_owned() })?
        .clone();
    refuse_stated_length(&track, file.len())?;
    let parameters = track
        .codec_params
        .as_ref()
        .and_then(|parameters| parameters.audio())
        .ok_or_else(|| SlateError::NotAudio { reason: "its codec is unknown".to_owned() })?;
    let mut decoder = Decoder::new(parameters, track.delay.unwrap_or(0))?;
    read(&mut *reader, track.id, &mut decoder)?;
    decoder.finish()
}

fn read(reader: &mut dyn FormatReader, track: u32, decoder: &mut Decoder) -> Result<(), SlateError> {
    let mut broken = 0;
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            // The end, a torn end, or a second stream chained to the first: what was read is the slate.
            Ok(None) | Err(Error::IoError(_) | Error::ResetRequired) => return Ok(()),
            Err(error) => {
                broken += 1;
                if broken > BROKEN_MAX {
                    return Err(not_audio(error));
                }
                continue;
            }
        };
        if packet.track_id != track {
            continue;
        }
        match decoder.push(&packet) {
            Ok(()) => {}
            Err(Broken::Packet(reason)) => {
                broken += 1;
                if broken > BROKEN_MAX {
                    return Err(SlateError::NotAudio { reason });
                }
            }
            Err(Broken::File(error)) => return Err(error),
        }
    }
}

fn not_audio(error: Error) -> SlateError {
    SlateError::NotAudio { reason: error.to_string() }
}

fn refuse_stated_length(track: &Track, bytes: usize) -> Result<(), SlateError> {
    let stated = track.time_base.zip(track.duration).and_then(|(base, length)| base.calc_duration(length));
    let rate = track.codec_params.as_ref().and_then(|p| p.audio()).and_then(|a| a.sample_rate);
    let seconds = match (stated, track.num_frames.zip(rate)) {
        (Some(time), _) => time.as_secs_f64(),
        (None, Some((frames, rate))) if rate > 0 => frames as f64 / f64::from(rate),
        _ => return Ok(()),
    };
    if seconds <= MAX_SLATE_DURATION.as_secs_f64() || !seconds.is_finite() {
        return Ok(());
    }
    // A header written by a program that did not know the length yet states an absurd one. Then decoding decides, which
    // stops at the limit.
    if (bytes as u64) < (seconds as u64).saturating_mul(PLAUSIBLE_BYTES_A_SECOND) {
        return Ok(());
    }
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Err(SlateError::TooLong { duration, at_least: false, allowed: MAX_SLATE_DURATION })
}

enum Broken {
    Packet(String),
    File(SlateError),
}

enum Inner {
    Symphonia(Box<dyn AudioDecoder>),
    /// Symphonia reads the containers, but has no decoder for it.
    Opus(Box<dyn OpusDecoder>, Box<[f32; MAX_PACKET_SAMPLES]>),
}

/// Decodes packets and gathers mono at 48 kHz.
struct Decoder {
    inner: Inner,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
    resampler: Option<(u32, ToProgrammeRate)>,
    /// Samples at the file's rate still to be left out: the encoder's delay.
    skip: usize,
}

impl Decoder {
    fn new(parameters: &AudioCodecParameters, delay: u32) -> Result<Self, SlateError> {
        let (inner, skip) = if parameters.codec == CODEC_ID_OPUS {
            let decoder = OpusLibrary::default()
                .decoder()
                .map_err(|error| SlateError::NotAudio { reason: error.to_string() })?;
            (Inner::Opus(decoder, Box::new([0.0; MAX_PACKET_SAMPLES])), delay as usize)
        } else {
            let decoder = symphonia::default::get_codecs()
                .make_audio_decoder(parameters, &AudioDecoderOptions::default())
                .map_err(not_audio)?;
            (Inner::Symphonia(decoder), 0)
        };
        Ok(Self { inner, interleaved: Vec::new(), mono: Vec::new(), resampler: None, skip })
    }

    fn push(&mut self, packet: &Packet) -> Result<(), Broken> {
        self.mono.clear();
        let rate = match &mut self.inner {
            Inner::Opus(decoder, room) => {
                if OpusPacket::parse(&packet.data).is_none() {
                    return Err(Broken::Packet("a broken Opus packet".to_owned()));
                }
                let samples =
                    decoder.decode(&packet.data, room).map_err(|error| Broken::Packet(error.to_string()))?;
                // Containers tell how much of the last packet is padding; the time base of Opus is its rate.
                let padding = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                self.mono.extend_from_slice(&room[..samples.saturating_sub(padding)]);
                model::SAMPLE_RATE
            }
            Inner::Symphonia(decoder) => {
                let buffer = decoder.decode(packet).map_err(|error| match error {
                    Error::DecodeError(reason) => Broken::Packet(reason.to_owned()),
                    error => Broken::Packet(error.to_string()),
                })?;
                let channels = buffer.num_planes();
                let rate = buffer.spec().rate();
                if channels == 0 || buffer.is_empty() {
                    return Ok(());
                }
                buffer.copy_to_vec_interleaved(&mut self.interleaved);
                let share = 1.0 / channels as f32;
                let mix =
                    self.interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * share);
                self.mono
                    .extend(mix.map(|sample| if sample.is_finite() { sample.clamp(-8.0, 8.0) } else { 0.0 }));
                rate
            }
        };
        let skipped = self.skip.min(self.mono.len());
        self.skip -= skipped;
        if !RATES.contains(&rate) {
            let reason = format!("a sampling rate of {rate} Hz");
            return Err(Broken::File(SlateError::NotAudio { reason }));
        }
        let (known, resampler) = self.resampler.get_or_insert_with(|| (rate, ToProgrammeRate::new(rate)));
        if *known != rate {
            return Err(Broken::Packet("the sampling rate changes".to_owned()));
        }
        resampler.push(&self.mono[skipped..]);
        let made = Duration::from_secs(resampler.len() as u64 / u64::from(model::SAMPLE_RATE));
        if made >= MAX_SLATE_DURATION + Duration::from_secs(1) {
            let allowed = MAX_SLATE_DURATION;
            return Err(Broken::File(SlateError::TooLong { duration: made, at_least: true, allowed }));
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<f32>, SlateError> {
        self.resampler.map(|(_, resampler)| resampler.finish()).ok_or(SlateError::Silent)
    }
}
