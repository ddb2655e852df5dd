//! The gentle resampler that ties a sender's clock to the programme's.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Adjustable, Async, FixedAsync, Resampler, SincInterpolationParameters, SincInterpolationType,
    WindowFunction,
};

use crate::Frame;

/// Furthest that [`Gentle::set_speed`] goes from 1.
pub(crate) const MAX_SPEED_CHANGE: f64 = 0.01;

/// Resamples mono by a ratio close to one, 960 samples out at a time.
pub(crate) struct Gentle {
    inner: Async<f32>,
    speed: f64,
}

impl Gentle {
    pub(crate) fn new() -> Self {
        // 64 taps keep all of speech (flat to 18 kHz) for 0.7 ms of delay.
        let parameters = SincInterpolationParameters::new(64, WindowFunction::BlackmanHarris2)
            .oversampling_factor(256)
            .interpolation(SincInterpolationType::Linear);
        let inner = Async::new_sinc(
            1.0,
            1.0 + 2.0 * MAX_SPEED_CHANGE,
            &parameters,
            model::OPUS_FRAME_SAMPLES,
            1,
            FixedAsync::Output,
        )
        .expect("the parameters are constants in range");
        Self { inner, speed: 1.0 }
    }

    /// Input samples that the next call of [`Self::run`] takes.
    pub(crate) fn needed(&self) -> usize {
        self.inner.input_frames_next()
    }

    /// Samples by which the output lies behind the input.
    pub(crate) fn delay(&self) -> usize {
        self.inner.output_delay()
    }

    /// Input samples to take for each output sample, from now on.
    pub(crate) fn set_speed(&mut self, speed: f64) {
        let speed = speed.clamp(1.0 - MAX_SPEED_CHANGE, 1.0 + MAX_SPEED_CHANGE);
        if speed != self.speed {
            self.speed = speed;
            self.inner.set_resample_ratio(1.0 / speed, true).expect("the ratio is clamped to what was asked for");
        }
    }

    /// Takes exactly [`Self::needed`] samples.
    pub(crate) fn run(&mut self, input: &[f32], output: &mut Frame) {
        let frames = output.len();
        let input = InterleavedSlice::new(input, 1, input.len()).expect("mono: one sample a frame");
        let mut output = InterleavedSlice::new_mut(&mut output[..], 1, frames).expect("mono: one sample a frame");
        self.inner.process_into_buffer(&input, &mut output, None).expect("as many samples as it asked for");
    }
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

    #[test]
    fn pitch_follows_the_speed() {
        for (speed, expected) in [(1.0, 1_000.0), (1.000_2, 1_000.2), (0.999, 999.0)] {
            let mut gentle = Gentle::new();
            gentle.set_speed(speed);
            let mut position = 0_u64;
            let mut out = Vec::new();
            for _ in 0..200 {
                let input: Vec<f32> = (0..gentle.needed())
                    .map(|i| {
                        ((position + i as u64) as f64 * 1_000.0 / 48_000.0 * std::f64::consts::TAU).sin() as f32
                    })
                    .collect();
                position += input.len() as u64;
                let mut frame = [0.0; model::OPUS_FRAME_SAMPLES];
                gentle.run(&input, &mut frame);
                out.extend_from_slice(&frame);
            }
            let tail = &out[4_800..];
            let rises: Vec<f64> = tail
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
}
