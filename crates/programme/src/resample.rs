//! Resampling: gently, to tie a sender's clock to the programme's, and once, to bring a recording to its rate.
//!
//! The gentle kind is our own. A ratio within a percent of one lets neighbouring outputs share their filter, which makes
//! it six times cheaper than a general resampler, and it runs for every speaker all the time. Recordings are left to
//! `rubato`.

use std::sync::OnceLock;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, Resampler, SincInterpolationParameters, SincInterpolationType, WindowFunction,
};

use crate::Frame;

/// Furthest that [`Gentle::set_speed`] goes from 1.
pub(crate) const MAX_SPEED_CHANGE: f64 = 0.005;

/// Taps of the interpolating filter: flat to 19 kHz for half a millisecond of delay.
const TAPS: usize = 48;
/// Outputs computed with one filter and its slope.
const BLOCK: usize = 16;
/// Tabulated positions between two samples; and beyond them on both sides, as far as a block can drift.
const PHASES: usize = 128;
const BEYOND: usize = 16;
const _: () = assert!(BLOCK as f64 * MAX_SPEED_CHANGE * (PHASES as f64) < BEYOND as f64 - 1.0);
const _: () = assert!(model::OPUS_FRAME_SAMPLES.is_multiple_of(BLOCK));

type Filter = [f32; TAPS];

/// Resamples mono by a ratio close to one, 960 samples out at a time.
pub(crate) struct Gentle {
    /// The latest input, from the first sample that the next output needs.
    history: Vec<f32>,
    /// Place of the next output in the history, in samples.
    position: f64,
    speed: f64,
}

impl Gentle {
    pub(crate) fn new() -> Self {
        Self { history: vec![0.0; TAPS / 2 - 1], position: (TAPS / 2 - 1) as f64, speed: 1.0 }
    }

    /// Input samples that the next call of [`Self::run`] takes.
    pub(crate) fn needed(&self) -> usize {
        let last = self.position + (model::OPUS_FRAME_SAMPLES - BLOCK) as f64 * self.speed;
        // The last block's filters reach so far, whatever its fraction.
        (last as usize + BLOCK + TAPS / 2).saturating_sub(self.history.len())
    }

    /// Samples by which the output lies behind the input.
    pub(crate) fn delay(&self) -> usize {
        TAPS / 2
    }

    /// Input samples to take for each output sample, from now on.
    pub(crate) fn set_speed(&mut self, speed: f64) {
        self.speed = speed.clamp(1.0 - MAX_SPEED_CHANGE, 1.0 + MAX_SPEED_CHANGE);
    }

    /// Takes exactly [`Self::needed`] samples.
    pub(crate) fn run(&mut self, input: &[f32], output: &mut Frame) {
        self.history.extend_from_slice(input);
        for block in output.as_chunks_mut::<BLOCK>().0 {
            let whole = self.position as usize;
            let (first, last) = (
                self.position - whole as f64,
                self.position + BLOCK as f64 * self.speed - (whole + BLOCK) as f64,
            );
            let (begin, end) = (filter(first), filter(last));
            let samples: &[f32; BLOCK + TAPS - 1] = self.history[whole + 1 - TAPS / 2..][..BLOCK + TAPS - 1]
                .try_into()
                .expect("the slice has this length");
            let mut base = [0.0_f32; BLOCK];
            let mut slope = [0.0_f32; BLOCK];
            for tap in 0..TAPS {
                let (at, change) = (begin[tap], end[tap] - begin[tap]);
                for index in 0..BLOCK {
                    base[index] += samples[index + tap] * at;
                    slope[index] += samples[index + tap] * change;
                }
            }
            for (index, sample) in block.iter_mut().enumerate() {
                *sample = base[index] + slope[index] * (index as f32 / BLOCK as f32);
            }
            self.position += BLOCK as f64 * self.speed;
        }
        let done = self.position as usize + 1 - TAPS / 2;
        self.history.drain(..done);
        self.position -= done as f64;
    }
}

/// The filter for an output that lies `fraction` of a sample after the one in the filter's middle; a little less than 0
/// or more than 1 will do.
fn filter(fraction: f64) -> Filter {
    static TABLE: OnceLock<Vec<Filter>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        (0..=PHASES + 2 * BEYOND).map(|n| windowed_sinc((n as f64 - BEYOND as f64) / PHASES as f64)).collect()
    });
    let place = fraction * PHASES as f64 + BEYOND as f64;
    let index = (place as usize).min(table.len() - 2);
    let weight = (place - index as f64) as f32;
    let (low, high) = (&table[index], &table[index + 1]);
    std::array::from_fn(|tap| low[tap] + (high[tap] - low[tap]) * weight)
}

fn windowed_sinc(fraction: f64) -> Filter {
    // A little under Nyquist, so that the transition ends there.
    const CUTOFF: f64 = 0.94;
    let mut filter: [f64; TAPS] = std::array::from_fn(|tap| {
        let x = tap as f64 - (TAPS / 2 - 1) as f64 - fraction;
        let phase = std::f64::consts::PI * x * CUTOFF;
        let sinc = if x.abs() < 1e-9 { 1.0 } else { phase.sin() / phase };
        // Blackman-Harris, centred on the output.
        let place = ((x + TAPS as f64 / 2.0) / TAPS as f64).clamp(0.0, 1.0) * std::f64::consts::TAU;
        let window = 0.358_75 - 0.488_29 * place.cos() + 0.141_28 * (2.0 * place).cos()
            - 0.011_68 * (3.0 * place).cos();
        sinc * window
    });
    let sum: f64 = filter.iter().sum();
    filter.iter_mut().for_each(|tap| *tap /= sum);
    filter.map(|tap| tap as f32)
}

/// Resamples a recording from any rate to the programme's, piece by piece.
pub(crate) struct ToProgrammeRate {
    /// None: the rates are the same.
    inner: Option<Async<f32>>,
    waiting: Vec<f32>,
    output: Vec<f32>,
    /// Samples put in, and their rate.
    taken: u64,
    rate: u32,
}

impl ToProgrammeRate {
    const CHUNK: usize = 4_096;

    /// `rate` in Hz, not 0.
    pub(crate) fn new(rate: u32) -> Self {
        let inner = (rate != model::SAMPLE_RATE).then(|| {
            let parameters = SincInterpolationParameters::new(128, WindowFunction::BlackmanHarris2)
                .oversampling_factor(256)
                .interpolation(SincInterpolationType::Linear);
            let ratio = f64::from(model::SAMPLE_RATE) / f64::from(rate);
            Async::new_sinc(ratio, 1.0, &parameters, Self::CHUNK, 1, FixedAsync::Input)
                .expect("the parameters are constants, the ratio is finite and positive")
        });
        Self { inner, waiting: Vec::new(), output: Vec::new(), taken: 0, rate }
    }

    pub(crate) fn push(&mut self, samples: &[f32]) {
        self.taken += samples.len() as u64;
        if self.inner.is_none() {
            self.output.extend_from_slice(samples);
            return;
        }
        self.waiting.extend_from_slice(samples);
        let whole = self.waiting.len() / Self::CHUNK * Self::CHUNK;
        let waiting = std::mem::take(&mut self.waiting);
        waiting[..whole].chunks_exact(Self::CHUNK).for_each(|chunk| self.run(chunk));
        self.waiting = waiting[whole..].to_vec();
    }

    /// Samples made so far.
    pub(crate) fn len(&self) -> usize {
        self.output.len()
    }

    /// Everything, without the filter's delay.
    pub(crate) fn finish(mut self) -> Vec<f32> {
        let Some(delay) = self.inner.as_ref().map(Resampler::output_delay) else { return self.output };
        let length = (self.taken * u64::from(model::SAMPLE_RATE) / u64::from(self.rate)) as usize;
        while self.output.len() < delay + length {
            let mut rest = std::mem::take(&mut self.waiting);
            rest.resize(Self::CHUNK, 0.0);
            self.run(&rest);
        }
        self.output.drain(..delay);
        self.output.truncate(length);
        self.output
    }

    fn run(&mut self, chunk: &[f32]) {
        let Some(inner) = &mut self.inner else { return };
        let from = self.output.len();
        let frames = inner.output_frames_next();
        self.output.resize(from + frames, 0.0);
        let input = InterleavedSlice::new(chunk, 1, chunk.len()).expect("mono: one sample a frame");
        let mut output =
            InterleavedSlice::new_mut(&mut self.output[from..], 1, frames).expect("mono: one sample a frame");
        let (_, made) =
            inner.process_into_buffer(&input, &mut output, None).expect("as many samples as it asked for");
        self.output.truncate(from + made);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resampled(speed: f64, frequency: f64) -> Vec<f32> {
        let mut gentle = Gentle::new();
        gentle.set_speed(speed);
        let mut position = 0_u64;
        let mut out = Vec::new();
        for _ in 0..200 {
            let input: Vec<f32> = (0..gentle.needed())
                .map(|i| {
                    let phase = (position + i as u64) as f64 * frequency / 48_000.0;
                    (phase * std::f64::consts::TAU).sin() as f32
                })
                .collect();
            position += input.len() as u64;
            let mut frame = [0.0; model::OPUS_FRAME_SAMPLES];
            gentle.run(&input, &mut frame);
            out.extend_from_slice(&frame);
        }
        out.split_off(4_800)
    }

    #[test]
    fn pitch_follows_the_speed() {
        for (speed, expected) in [(1.0, 1_000.0), (1.000_2, 1_000.2), (0.997, 997.0)] {
            let out = resampled(speed, 1_000.0);
            let rises: Vec<f64> = out
                .windows(2)
                .enumerate()
                .filter(|(_, w)| w[0] < 0.0 && w[1] >= 0.0)
                .map(|(i, w)| i as f64 + f64::from(w[0] / (w[0] - w[1])))
                .collect();
            let period = (rises[rises.len() - 1] - rises[0]) / (rises.len() - 1) as f64;
            let pitch = 48_000.0 / period;
            assert!((pitch - expected).abs() < 0.01, "{pitch} for {expected}");
        }
    }

    #[test]
    fn nothing_but_the_tone_comes_out() {
        // What a tone of the expected frequency, fitted in amplitude and phase, leaves over.
        for (speed, frequency, allowed_db) in [
            (1.000_3, 1_000.0, -80.0),
            (1.000_3, 8_000.0, -75.0),
            (0.997, 4_000.0, -60.0),
            (1.0, 18_000.0, -75.0),
        ] {
            let out = resampled(speed, frequency);
            let step = frequency * speed / 48_000.0 * std::f64::consts::TAU;
            let (mut a, mut b) = (0.0, 0.0);
            for (i, s) in out.iter().enumerate() {
                a += f64::from(*s) * (i as f64 * step).sin();
                b += f64::from(*s) * (i as f64 * step).cos();
            }
            let n = out.len() as f64;
            let (a, b) = (2.0 * a / n, 2.0 * b / n);
            let rest: f64 = out
                .iter()
                .enumerate()
                .map(|(i, s)| {
                    (f64::from(*s) - a * (i as f64 * step).sin() - b * (i as f64 * step).cos()).powi(2)
                })
                .sum();
            let rest_db = 10.0 * (rest / n / (0.5 * (a * a + b * b))).log10();
            let level_db = 10.0 * (a * a + b * b).log10();
            assert!(rest_db < allowed_db, "{speed} {frequency}: {rest_db} dB");
            assert!(level_db.abs() < 0.1, "{speed} {frequency}: {level_db} dB");
        }
    }
}
