//! What is on air when the stage is not: the waiting slate, the hold slate, and files of the operator's own.

mod file;
mod synth;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::level::TARGET_LUFS;
use crate::limiter::Limiter;
use crate::{Frame, SILENT_FRAME};

/// Largest file taken as a slate: 64 MiB.
pub const MAX_SLATE_BYTES: usize = 64 << 20;
/// Longest slate: ten minutes after decoding.
pub const MAX_SLATE_DURATION: Duration = Duration::from_secs(600);

/// True peak that a slate is kept under, dBTP.
const CEILING_DBTP: f32 = -3.0;
/// What is quieter than this cannot be a slate, LUFS.
const SILENT_LUFS: f64 = -60.0;
/// Shorter than half a second cannot be one either.
const SHORTEST: usize = 24_000;
/// Fade at both ends of a file, so that its loop does not click: 5 ms.
const SEAM: usize = 240;

/// A loop of sound at 48 kHz mono, −16 LUFS. Cloning shares the samples.
#[derive(Clone)]
pub struct Slate {
    samples: Arc<[i16]>,
}

/// Why a file cannot be a slate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlateError {
    /// More bytes than [`MAX_SLATE_BYTES`].
    #[error("the file has {bytes} bytes, at most {allowed} are allowed")]
    TooLarge {
        /// Size of the file.
        bytes: usize,
        /// Largest size allowed.
        allowed: usize,
    },
    /// No audio that can be decoded.
    #[error("the file is no audio that can be read: {reason}")]
    NotAudio {
        /// What the reader said.
        reason: String,
    },
    /// Longer than [`MAX_SLATE_DURATION`].
    #[error(
        "the audio is {}{} s long, at most {} s are allowed",
        if *.at_least { "at least " } else { "" }, .duration.as_secs(), .allowed.as_secs()
    )]
    TooLong {
        /// Its length, as far as it was found out.
        duration: Duration,
        /// Whether decoding stopped there, so that it may be longer.
        at_least: bool,
        /// Longest length allowed.
        allowed: Duration,
    },
    /// Less than half a second, or nothing that can be heard.
    #[error("the audio is empty, shorter than half a second, or silent")]
    Silent,
}

impl Slate {
    /// The default slate before the start, made for the project: 48 s of calm music. Always the same; made once a
    /// process (about a quarter of a second), then shared.
    pub fn waiting() -> Self {
        static SLATE: OnceLock<Slate> = OnceLock::new();
        SLATE.get_or_init(|| Self::matched(synth::waiting()).expect("our own slate can be heard")).clone()
    }

    /// The default hold slate: slower, lower and sparer, not to be mistaken for [`Self::waiting`]. Always the same.
    pub fn holding() -> Self {
        static SLATE: OnceLock<Slate> = OnceLock::new();
        SLATE.get_or_init(|| Self::matched(synth::holding()).expect("our own slate can be heard")).clone()
    }

    /// Silence, for tests and for those who want none.
    pub fn silence() -> Self {
        Self { samples: Arc::from([0_i16; 960]) }
    }

    /// Reads an audio file (WAV, AIFF, CAF, FLAC, MP3, AAC, ALAC, Vorbis, Opus in Ogg, Matroska or MP4), mixes it down
    /// to mono at 48 kHz and matches its loudness to −16 LUFS. Blocking: ten minutes of sound take a second or two;
    /// call it off the media thread.
    ///
    /// # Errors
    /// [`SlateError`]; a file longer than allowed is refused without decoding all of it.
    pub fn decode(file: &[u8]) -> Result<Self, SlateError> {
        let mut samples = file::decode(file)?;
        let length = samples.len();
        let seam = SEAM.min(length / 2);
        for index in 0..seam {
            let gain = (index as f32 + 0.5) / seam as f32;
            samples[index] *= gain;
            samples[length - 1 - index] *= gain;
        }
        Self::matched(samples)
    }

    /// Brings a loop to −16 LUFS and under its ceiling.
    fn matched(mut samples: Vec<f32>) -> Result<Self, SlateError> {
        if samples.len() < SHORTEST {
            return Err(SlateError::Silent);
        }
        // Limiting costs loudness where there is much of it; a second round makes up for that.
        for _ in 0..2 {
            let loudness = integrated(&samples);
            if loudness < SILENT_LUFS || !loudness.is_finite() {
                return Err(SlateError::Silent);
            }
            let gain = crate::level::gain_of(TARGET_LUFS - loudness as f32);
            samples.iter_mut().for_each(|sample| *sample *= gain);
            if !limit(&mut samples) {
                break;
            }
        }
        Ok(Self::from_samples(&samples))
    }

    pub(crate) fn from_samples(samples: &[f32]) -> Self {
        // The cast saturates.
        Self { samples: samples.iter().map(|sample| (sample * 32_768.0).round() as i16).collect() }
    }

    /// Sample `index` of the endless loop, −1 to 1.
    pub(crate) fn sample(&self, index: u64) -> f32 {
        f32::from(self.samples[(index % self.samples.len() as u64) as usize]) / 32_768.0
    }

    /// Length of one round of the loop.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.samples.len() as f64 / f64::from(model::SAMPLE_RATE))
    }

    /// One round of the loop, 48 kHz, 16 bit.
    pub fn samples(&self) -> &[i16] {
        &self.samples
    }
}

impl fmt::Debug for Slate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slate").field("duration", &self.duration()).finish()
    }
}

/// Integrated loudness (EBU R 128), LUFS.
fn integrated(samples: &[f32]) -> f64 {
    let mut meter = ebur128::EbuR128::new(1, model::SAMPLE_RATE, ebur128::Mode::I | ebur128::Mode::HISTOGRAM)
        .expect("one channel at 48 kHz is measured");
    meter.add_frames_f32(samples).expect("whole frames of one channel");
    meter.loudness_global().expect("the meter was made for this")
}

/// Keeps true peaks under the ceiling; the loop's end runs in before its beginning, so that the seam stays seamless.
/// Returns whether there was anything to do.
fn limit(samples: &mut [f32]) -> bool {
    let ceiling = crate::level::gain_of(CEILING_DBTP);
    if samples.iter().all(|sample| sample.abs() < ceiling * 0.9) {
        return false;
    }
    let mut limiter = Limiter::new(CEILING_DBTP);
    let length = samples.len();
    let run_in = 48 * SILENT_FRAME.len();
    let mut output = Vec::with_capacity(length + SILENT_FRAME.len());
    // Input runs from `−run_in` to `length + delay`, all modulo the length of the loop.
    let mut position = 0;
    while output.len() < run_in + Limiter::DELAY + length {
        let mut frame: Frame = SILENT_FRAME;
        for sample in &mut frame {
            *sample = samples[(position + length - run_in % length) % length];
            position += 1;
        }
        limiter.run(&mut frame);
        output.extend_from_slice(&frame);
    }
    samples.copy_from_slice(&output[run_in + Limiter::DELAY..][..length]);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peak_dbtp(samples: &[f32]) -> f64 {
        let mut meter = ebur128::EbuR128::new(1, 48_000, ebur128::Mode::TRUE_PEAK).unwrap();
        meter.add_frames_f32(samples).unwrap();
        20.0 * meter.true_peak(0).unwrap().log10()
    }

    #[test]
    fn our_slates_are_fit_for_broadcast() {
        for (slate, seconds) in [(Slate::waiting(), 48), (Slate::holding(), 32)] {
            assert_eq!(slate.duration(), Duration::from_secs(seconds));
            let twice: Vec<f32> = (0..2 * slate.samples.len() as u64).map(|i| slate.sample(i)).collect();
            let loudness = integrated(&twice);
            assert!((loudness + 16.0).abs() < 0.3, "{loudness} LUFS");
            let peak = peak_dbtp(&twice);
            assert!(peak < -2.5, "{peak} dBTP");
            // No click: neighbouring samples of calm music never lie far apart, at the seam as elsewhere.
            let step = twice.windows(2).map(|w| (w[0] - w[1]).abs()).fold(0.0, f32::max);
            assert!(step < 0.2, "{step}");
            let seam = slate.samples.len();
            let at_seam = twice[seam - 8..seam + 8].windows(3).map(|w| (w[0] - 2.0 * w[1] + w[2]).abs());
            let bend = twice.windows(3).map(|w| (w[0] - 2.0 * w[1] + w[2]).abs()).fold(0.0, f32::max);
            assert!(at_seam.fold(0.0, f32::max) <= bend, "the seam bends no more than the rest");
            // Never silent for half a second.
            assert!(twice.chunks(24_000).all(|c| crate::level::to_db(crate::level::power(c)) > -35.0));
        }
    }
}
