//! What a microphone hears.

use std::f32::consts::TAU;
use std::sync::Arc;

/// Samples of one frame: 20 ms at 48 kHz.
pub const FRAME_SAMPLES: usize = 960;

/// A sound at 48 kHz mono as a function of the frame's index, so that time lost on the network is lost speech and
/// shifts nothing.
pub trait Voice: Send {
    /// Fills frame `index` (samples `index * 960 ..`), full scale is ±1.0.
    fn frame(&mut self, index: u64, samples: &mut [f32; FRAME_SAMPLES]);
}

impl<F: FnMut(u64, &mut [f32; FRAME_SAMPLES]) + Send> Voice for F {
    fn frame(&mut self, index: u64, samples: &mut [f32; FRAME_SAMPLES]) {
        self(index, samples);
    }
}

/// Nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence;

impl Voice for Silence {
    fn frame(&mut self, _index: u64, samples: &mut [f32; FRAME_SAMPLES]) {
        samples.fill(0.0);
    }
}

/// A sine.
#[derive(Clone, Copy, Debug)]
pub struct Tone {
    /// Its frequency in Hz; whole numbers loop without a step.
    pub hz: u32,
    /// Its peak, `0.0..=1.0`.
    pub peak: f32,
}

impl Voice for Tone {
    fn frame(&mut self, index: u64, samples: &mut [f32; FRAME_SAMPLES]) {
        // Within one second all products are exact, and a whole number of periods fits it.
        let first = (index * FRAME_SAMPLES as u64) % 48_000;
        for (offset, sample) in samples.iter_mut().enumerate() {
            let at = (first + offset as u64) % 48_000;
            let phase = (at * u64::from(self.hz) % 48_000) as f32 / 48_000.0;
            *sample = self.peak * (phase * TAU).sin();
        }
    }
}

/// A short burst at the beginning of every `every` frames, silence between: for measuring delays.
#[derive(Clone, Copy, Debug)]
pub struct Click {
    /// Frames from one burst to the next.
    pub every: u64,
    /// Frequency of the burst in Hz.
    pub hz: u32,
    /// Its peak, `0.0..=1.0`.
    pub peak: f32,
}

impl Voice for Click {
    fn frame(&mut self, index: u64, samples: &mut [f32; FRAME_SAMPLES]) {
        if index.is_multiple_of(self.every.max(1)) {
            Tone { hz: self.hz, peak: self.peak }.frame(index, samples);
        } else {
            samples.fill(0.0);
        }
    }
}

/// Recorded sound, repeated for ever. Cloning shares the samples.
#[derive(Clone)]
pub struct Clip {
    samples: Arc<[f32]>,
}

impl std::fmt::Debug for Clip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clip").field("samples", &self.samples.len()).finish()
    }
}

/// Why a file cannot be a voice.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableClip {
    /// It begins like Ogg/Opus and is broken, or its packets do not decode.
    #[error("broken Ogg/Opus: {0}")]
    BrokenOpus(String),
    /// No audio that can be read.
    #[error("no audio that can be read: {0}")]
    NotAudio(String),
    /// Longer than [`Clip::LONGEST_S`] seconds.
    #[error("longer than {} minutes", Clip::LONGEST_S / 60)]
    TooLong,
    /// No sample in it.
    #[error("it holds no sound")]
    Empty,
}

impl Clip {
    /// Longest clip that is decoded: four hours, in seconds.
    pub const LONGEST_S: usize = 4 * 3_600;

    /// From samples at 48 kHz mono.
    ///
    /// # Errors
    /// [`UnreadableClip::Empty`] and [`UnreadableClip::TooLong`].
    pub fn new(samples: Vec<f32>) -> Result<Self, UnreadableClip> {
        match samples.len() {
            0 => Err(UnreadableClip::Empty),
            more if more > Self::LONGEST_S * 48_000 => Err(UnreadableClip::TooLong),
            _ => Ok(Self { samples: samples.into() }),
        }
    }

    /// Decodes a file: Ogg/Opus, or whatever `symphonia` reads.
    ///
    /// # Errors
    /// [`UnreadableClip`].
    pub fn decode(file: &[u8]) -> Result<Self, UnreadableClip> {
        Self::new(crate::decode::decode(file)?)
    }

    /// Seconds of one round.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / 48_000.0
    }

    /// The samples of one round.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }
}

impl Voice for Clip {
    fn frame(&mut self, index: u64, samples: &mut [f32; FRAME_SAMPLES]) {
        let length = self.samples.len() as u64;
        let first = (index % length) * FRAME_SAMPLES as u64 % length;
        for (offset, sample) in samples.iter_mut().enumerate() {
            *sample = self.samples[((first + offset as u64) % length) as usize];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_join_without_a_step() {
        let mut tone = Tone { hz: 441, peak: 0.5 };
        let (mut first, mut second) = ([0.0; FRAME_SAMPLES], [0.0; FRAME_SAMPLES]);
        for index in [0, 49, 50, 12_345] {
            tone.frame(index, &mut first);
            tone.frame(index + 1, &mut second);
            // The steepest step of a 441 Hz sine of peak 0.5 is 0.5·2π·441/48000 = 0.0289.
            assert!((second[0] - first[FRAME_SAMPLES - 1]).abs() < 0.03, "frame {index}");
        }
    }

    #[test]
    fn a_clip_repeats_where_it_ends() {
        let mut clip = Clip::new((0..1_000).map(|n| n as f32).collect()).unwrap();
        let mut frame = [0.0; FRAME_SAMPLES];
        for index in [0_u64, 1, 7, 1_000_003] {
            clip.frame(index, &mut frame);
            for (offset, sample) in frame.iter().enumerate() {
                let at = (u128::from(index) * 960 + offset as u128) % 1_000;
                assert_eq!(*sample, at as f32, "frame {index} sample {offset}");
            }
        }
        assert!(Clip::new(Vec::new()).is_err());
    }
}
