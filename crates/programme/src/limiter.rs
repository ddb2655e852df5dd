//! The true-peak limiter at the end of the programme, and a cheaper one for what speakers hear.

use std::collections::VecDeque;

use crate::Frame;

/// True peak that the programme is held under before it is encoded, dBTP. Encoders add to peaks what they take from the
/// spectrum: with this ceiling the *decoded* programme stays under −1 dBTP in every rendition (`tests/programme/loudness.rs`).
pub(crate) const CEILING_DBTP: f32 = -3.0;

/// Samples that gain reduction has to arrive in: 2 ms.
const AHEAD: usize = 96;
/// Delay of the oversampling filter.
const FILTER_DELAY: usize = 6;

/// Taps of the interpolator of ITU-R BS.1770-4, annex 2: four phases of twelve.
const TAPS: usize = 12;
const PHASES: [[f32; TAPS]; 4] = [
    [
        0.001_708_984_4,
        0.010_986_328,
        -0.019_653_32,
        0.033_203_125,
        -0.059_448_242,
        0.137_329_1,
        0.972_167_97,
        -0.102_294_92,
        0.047_607_422,
        -0.026_611_328,
        0.014_892_578,
        -0.008_300_781,
    ],
    [
        -0.029_174_805,
        0.029_296_875,
        -0.051_757_813,
        0.089_111_33,
        -0.166_503_9,
        0.465_087_9,
        0.779_785_16,
        -0.200_317_38,
        0.101_562_5,
        -0.058_227_54,
        0.033_081_055,
        -0.018_920_898,
    ],
    [
        -0.018_920_898,
        0.033_081_055,
        -0.058_227_54,
        0.101_562_5,
        -0.200_317_38,
        0.779_785_16,
        0.465_087_9,
        -0.166_503_9,
        0.089_111_33,
        -0.051_757_813,
        0.029_296_875,
        -0.029_174_805,
    ],
    [
        -0.008_300_781,
        0.014_892_578,
        -0.026_611_328,
        0.047_607_422,
        -0.102_294_92,
        0.972_167_97,
        0.137_329_1,
        -0.059_448_242,
        0.033_203_125,
        -0.019_653_32,
        0.010_986_328,
        0.001_708_984_4,
    ],
];

/// Look-ahead limiter on true peaks (four times oversampled).
pub(crate) struct Limiter {
    ceiling: f32,
    /// The latest samples, newest last: look-ahead and filter history.
    delayed: VecDeque<f32>,
    /// Candidates for the least gain within the look-ahead: when, how much; ascending.
    least: VecDeque<(u64, f32)>,
    now: u64,
    /// Samples for which the filter still sees something that may reach the ceiling.
    loud: usize,
    held: f32,
    smooth: VecDeque<f32>,
    sum: f64,
    release: f32,
}

impl Limiter {
    /// Samples by which the output lies behind the input.
    pub(crate) const DELAY: usize = AHEAD + FILTER_DELAY;

    pub(crate) fn new(ceiling_dbtp: f32) -> Self {
        Self {
            ceiling: crate::level::gain_of(ceiling_dbtp),
            delayed: VecDeque::from(vec![0.0; Self::DELAY + 1]),
            least: VecDeque::with_capacity(AHEAD + 1),
            now: 0,
            loud: 0,
            held: 1.0,
            smooth: VecDeque::from(vec![1.0; AHEAD]),
            sum: AHEAD as f64,
            // 80 ms.
            release: 1.0 - (-1.0_f32 / 3_840.0).exp(),
        }
    }

    /// Limits in place; the output is [`Self::DELAY`] samples late.
    pub(crate) fn run(&mut self, frame: &mut Frame) {
        for sample in frame.iter_mut() {
            self.delayed.pop_front();
            self.delayed.push_back(*sample);
            // Interpolation adds at most 2 to a neighbourhood's greatest sample.
            if sample.abs() * 2.5 > self.ceiling {
                self.loud = TAPS;
            }
            let needed = if self.loud > 0 {
                self.loud -= 1;
                self.needed()
            } else {
                1.0
            };
            while self.least.back().is_some_and(|(_, gain)| *gain >= needed) {
                self.least.pop_back();
            }
            self.least.push_back((self.now, needed));
            while self.least.front().is_some_and(|(when, _)| when + (AHEAD + FILTER_DELAY) as u64 <= self.now)
            {
                self.least.pop_front();
            }
            let least = self.least.front().map_or(1.0, |(_, gain)| *gain);
            self.held =
                if least < self.held { least } else { self.held + (least - self.held) * self.release };
            // The mean of the last 2 ms of a gain that already is low enough is low enough when the peak comes.
            self.sum += f64::from(self.held) - f64::from(self.smooth.pop_front().unwrap_or(1.0));
            self.smooth.push_back(self.held);
            self.now += 1;
            *sample = self.delayed[0] * (self.sum / AHEAD as f64) as f32;
        }
        // The running sum gathers rounding; a fresh one does not.
        self.sum = self.smooth.iter().map(|gain| f64::from(*gain)).sum();
    }

    /// Gain that the newest true peak needs.
    fn needed(&self) -> f32 {
        let taps = self.delayed.len();
        let mut window = [0.0_f32; TAPS];
        for (to, from) in window.iter_mut().zip(self.delayed.range(taps - TAPS..)) {
            *to = *from;
        }
        let mut peak = window[5].abs().max(window[6].abs());
        for phase in &PHASES {
            let value: f32 = phase.iter().zip(&window).map(|(tap, sample)| tap * sample).sum();
            peak = peak.max(value.abs());
        }
        if peak > self.ceiling { self.ceiling / peak } else { 1.0 }
    }
}

/// Keeps a mix that nobody records from clipping: the frame's peak decides, reached within 2 ms.
pub(crate) struct Guard {
    gain: f32,
}

impl Guard {
    const CEILING: f32 = 0.8;
    const RAMP: usize = 96;

    pub(crate) fn new() -> Self {
        Self { gain: 1.0 }
    }

    pub(crate) fn run(&mut self, frame: &mut Frame) {
        let peak = frame.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
        let needed = if peak > Self::CEILING { Self::CEILING / peak } else { 1.0 };
        let to = if needed < self.gain { needed } else { (self.gain + 0.05).min(needed) };
        if to == 1.0 && self.gain == 1.0 {
            return;
        }
        let step = (to - self.gain) / Self::RAMP as f32;
        for (index, sample) in frame.iter_mut().enumerate() {
            let gain = if index < Self::RAMP { self.gain + step * (index + 1) as f32 } else { to };
            *sample = (*sample * gain).clamp(-1.0, 1.0);
        }
        self.gain = to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn true_peaks_stay_under_the_ceiling() {
        // A tone at a quarter of the sample rate, phase 45°: sample peaks lie 3 dB under the true one.
        for (frequency, phase) in [(12_000.0, std::f64::consts::FRAC_PI_4), (997.0, 0.0), (60.0, 0.0)] {
            let mut limiter = Limiter::new(CEILING_DBTP);
            let mut meter = ebur128::EbuR128::new(1, 48_000, ebur128::Mode::TRUE_PEAK).unwrap();
            for n in 0..100 {
                let level = if n % 20 < 10 { 0.05 } else { 3.0 };
                let mut frame = [0.0; 960];
                for (i, sample) in frame.iter_mut().enumerate() {
                    let t = (n * 960 + i) as f64;
                    *sample =
                        (level * (t * frequency / 48_000.0 * std::f64::consts::TAU + phase).sin()) as f32;
                }
                limiter.run(&mut frame);
                meter.add_frames_f32(&frame).unwrap();
            }
            let peak = 20.0 * meter.true_peak(0).unwrap().log10();
            assert!(peak < f64::from(CEILING_DBTP) + 0.3, "{peak} dBTP at {frequency} Hz");
        }
    }

    #[test]
    fn what_is_quiet_passes_unchanged_and_late_by_the_delay() {
        let mut limiter = Limiter::new(CEILING_DBTP);
        let mut frame = [0.0; 960];
        frame[100] = 0.25;
        limiter.run(&mut frame);
        assert!((frame[100 + Limiter::DELAY] - 0.25).abs() < 1e-6);
        assert_eq!(frame.iter().filter(|s| **s != 0.0).count(), 1);
    }
}
