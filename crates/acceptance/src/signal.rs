//! Ears made of numbers: tones, clicks, spectra, correlation.

use std::f64::consts::TAU;
use std::path::Path;

use anyhow::{Context as _, Result};
use realfft::RealFftPlanner;

/// The rate everything is measured at.
pub const RATE: usize = 48_000;

/// A sine of `hz` with peak `amplitude`.
pub fn tone(hz: f64, amplitude: f64, seconds: f64) -> Vec<f32> {
    let count = (seconds * RATE as f64) as usize;
    (0..count).map(|i| (amplitude * (TAU * hz * i as f64 / RATE as f64).sin()) as f32).collect()
}

/// Silence with a click (a 5 ms burst of 2 kHz that starts at its peak) every `interval` seconds, the first after
/// one interval.
pub fn clicks(interval: f64, seconds: f64) -> Vec<f32> {
    let mut samples = vec![0.0; (seconds * RATE as f64) as usize];
    let step = (interval * RATE as f64) as usize;
    let burst = RATE / 200;
    let mut at = step;
    while at + burst < samples.len() {
        for i in 0..burst {
            samples[at + i] = (0.9 * (TAU * 2_000.0 * i as f64 / RATE as f64).cos()) as f32;
        }
        at += step;
    }
    samples
}

/// Writes 16-bit mono PCM at 48 kHz.
///
/// # Errors
/// If the file cannot be written.
pub fn write_wav(path: &Path, samples: &[f32]) -> Result<()> {
    let data = u32::try_from(samples.len() * 2).context("more than 4 GiB of samples")?;
    let rate = RATE as u32;
    let mut out = Vec::with_capacity(44 + samples.len() * 2);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&(36 + data).to_le_bytes());
    out.extend_from_slice(b"WAVEfmt ");
    out.extend_from_slice(&16_u32.to_le_bytes());
    out.extend_from_slice(&1_u16.to_le_bytes());
    out.extend_from_slice(&1_u16.to_le_bytes());
    out.extend_from_slice(&rate.to_le_bytes());
    out.extend_from_slice(&(rate * 2).to_le_bytes());
    out.extend_from_slice(&2_u16.to_le_bytes());
    out.extend_from_slice(&16_u16.to_le_bytes());
    out.extend_from_slice(b"data");
    out.extend_from_slice(&data.to_le_bytes());
    for sample in samples {
        out.extend_from_slice(&((sample.clamp(-1.0, 1.0) * 32_767.0) as i16).to_le_bytes());
    }
    std::fs::write(path, out).with_context(|| format!("writing {}", path.display()))
}

/// Root mean square in dBFS; −200 for silence.
pub fn rms_db(samples: &[f32]) -> f64 {
    let power = samples.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
    (10.0 * power.log10()).max(-200.0)
}

/// Level of the tone `hz` in `samples` in dB below full scale (a full-scale sine is 0): the mean power over windows of
/// 200 ms, each with a Hann window, so that what lies 20 Hz away does not leak in and a clock that is gently corrected
/// (a few hundred ppm) does not lead out.
pub fn tone_db(samples: &[f32], hz: f64, rate: f64) -> f64 {
    let length = ((rate / 5.0) as usize).min(samples.len()).max(2);
    let windows = samples.chunks_exact(length);
    let count = windows.len().max(1) as f64;
    let power: f64 = windows.map(|window| tone_power(window, hz, rate)).sum();
    (10.0 * (power / count).log10()).max(-200.0)
}

/// Squared amplitude of the tone `hz` in one window.
fn tone_power(samples: &[f32], hz: f64, rate: f64) -> f64 {
    let n = samples.len();
    let (mut re, mut im, mut sum) = (0.0, 0.0, 0.0);
    for (i, &s) in samples.iter().enumerate() {
        let window = 0.5 - 0.5 * (TAU * i as f64 / (n - 1) as f64).cos();
        let phase = TAU * hz * i as f64 / rate;
        re += window * f64::from(s) * phase.cos();
        im -= window * f64::from(s) * phase.sin();
        sum += window;
    }
    (2.0 * re.hypot(im) / sum).powi(2)
}

/// The strongest frequency in Hz, interpolated between bins of a Hann-windowed spectrum.
pub fn peak_hz(samples: &[f32], rate: f64) -> f64 {
    let n = samples.len() & !1;
    let mut input: Vec<f32> = samples[..n]
        .iter()
        .enumerate()
        .map(|(i, &s)| s * (0.5 - 0.5 * (TAU * i as f64 / (n - 1) as f64).cos()) as f32)
        .collect();
    let fft = RealFftPlanner::<f32>::new().plan_fft_forward(n);
    let mut spectrum = fft.make_output_vec();
    fft.process(&mut input, &mut spectrum).expect("buffers were made by the plan");
    let log = |i: usize| f64::from(spectrum[i].norm_sqr()).max(1e-30).ln();
    let best = (1..spectrum.len() - 1).max_by(|&a, &b| log(a).total_cmp(&log(b))).unwrap_or(1);
    let (a, b, c) = (log(best - 1), log(best), log(best + 1));
    let shift = 0.5 * (a - c) / (a - 2.0 * b + c);
    (best as f64 + shift) * rate / n as f64
}

/// Places, in samples, where the level first exceeds `threshold` after at least `quiet` samples below it.
pub fn onsets(samples: &[f32], threshold: f32, quiet: usize) -> Vec<usize> {
    let mut found = Vec::new();
    let mut below = quiet;
    for (i, s) in samples.iter().enumerate() {
        if s.abs() < threshold {
            below += 1;
        } else {
            if below >= quiet {
                found.push(i);
            }
            below = 0;
        }
    }
    found
}

/// The lag in samples (positive: `b` is later) within `±max_lag` at which `b` fits `a` best, and the correlation
/// coefficient there.
pub fn best_lag(a: &[f32], b: &[f32], max_lag: usize) -> (i64, f64) {
    let n = (a.len().min(b.len()) + max_lag).next_power_of_two() * 2;
    let mut planner = RealFftPlanner::<f64>::new();
    let (forward, inverse) = (planner.plan_fft_forward(n), planner.plan_fft_inverse(n));
    let spectrum = |x: &[f32]| {
        let mut input = vec![0.0; n];
        for (slot, &s) in input.iter_mut().zip(x) {
            *slot = f64::from(s);
        }
        let mut out = forward.make_output_vec();
        forward.process(&mut input, &mut out).expect("buffers were made by the plan");
        out
    };
    let (fa, fb) = (spectrum(&a[..a.len().min(n / 2)]), spectrum(&b[..b.len().min(n / 2)]));
    let mut cross: Vec<_> = fa.iter().zip(&fb).map(|(x, y)| x.conj() * y).collect();
    // A real signal's first and last bins have no imaginary part; rounding may leave one.
    if let Some(first) = cross.first_mut() {
        first.im = 0.0;
    }
    if let Some(last) = cross.last_mut() {
        last.im = 0.0;
    }
    let mut correlation = vec![0.0; n];
    inverse.process(&mut cross, &mut correlation).expect("buffers were made by the plan");
    let at = |lag: i64| correlation[lag.rem_euclid(n as i64) as usize];
    let max_lag = max_lag as i64;
    let lag = (-max_lag..=max_lag).max_by(|&x, &y| at(x).total_cmp(&at(y))).unwrap_or(0);
    let (from_a, from_b) = if lag >= 0 { (0, lag as usize) } else { (lag.unsigned_abs() as usize, 0) };
    let count = a.len().saturating_sub(from_a).min(b.len().saturating_sub(from_b));
    (lag, coefficient(&a[from_a.min(a.len())..][..count], &b[from_b.min(b.len())..][..count]))
}

/// Pearson's correlation coefficient; 1 where both are silent.
pub fn coefficient(a: &[f32], b: &[f32]) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&x, &y) in a.iter().zip(b) {
        ab += f64::from(x) * f64::from(y);
        aa += f64::from(x) * f64::from(x);
        bb += f64::from(y) * f64::from(y);
    }
    if aa < 1e-9 && bb < 1e-9 { 1.0 } else { ab / (aa * bb).sqrt().max(1e-12) }
}

/// Energy in dB of `samples` in 10 ms frames, in bands from 200 Hz to 6.4 kHz an octave wide: what survives a codec
/// that does not keep the waveform.
pub fn band_envelope(samples: &[f32]) -> Vec<[f32; 5]> {
    const FRAME: usize = 480;
    const SIZE: usize = 960;
    let fft = RealFftPlanner::<f32>::new().plan_fft_forward(SIZE);
    let mut spectrum = fft.make_output_vec();
    let hz = RATE as f64 / SIZE as f64;
    samples
        .windows(SIZE)
        .step_by(FRAME)
        .map(|window| {
            let mut input: Vec<f32> = window
                .iter()
                .enumerate()
                .map(|(i, &s)| s * (0.5 - 0.5 * (TAU * i as f64 / SIZE as f64).cos()) as f32)
                .collect();
            fft.process(&mut input, &mut spectrum).expect("buffers were made by the plan");
            std::array::from_fn(|band| {
                let low = 200.0 * f64::from(1_u32 << band);
                let bins = (low / hz) as usize..(2.0 * low / hz) as usize;
                let energy: f32 = spectrum[bins].iter().map(|bin| bin.norm_sqr()).sum();
                10.0 * (energy + 1e-4).log10()
            })
        })
        .collect()
}

/// Mean absolute difference in dB of two band envelopes over their common length.
pub fn envelope_distance(a: &[[f32; 5]], b: &[[f32; 5]]) -> f64 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    let (sum, count) =
        pairs.fold((0.0, 0_usize), |(sum, count), (x, y)| (sum + f64::from((x - y).abs()), count + 1));
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tones_are_told_apart() {
        let mix: Vec<f32> =
            tone(600.0, 0.5, 1.0).iter().zip(tone(1_000.0, 0.05, 1.0)).map(|(a, b)| a + b).collect();
        assert!((tone_db(&mix, 600.0, 48_000.0) + 6.0).abs() < 0.1);
        assert!((tone_db(&mix, 1_000.0, 48_000.0) + 26.0).abs() < 0.1);
        assert!(tone_db(&mix, 1_500.0, 48_000.0) < -80.0);
        assert!((peak_hz(&mix, 48_000.0) - 600.0).abs() < 0.1);
    }

    #[test]
    fn a_lag_is_found() {
        let a: Vec<f32> = clicks(0.1, 1.0).iter().zip(tone(311.0, 0.2, 1.0)).map(|(c, t)| c + t).collect();
        let mut b = vec![0.0; 777];
        b.extend_from_slice(&a);
        let (lag, fit) = best_lag(&a, &b, 2_000);
        assert_eq!(lag, 777);
        assert!(fit > 0.999);
        assert_eq!(best_lag(&b, &a, 2_000).0, -777);
    }

    #[test]
    fn clicks_are_found_where_they_are() {
        assert_eq!(onsets(&clicks(0.25, 1.0), 0.3, 1_000), vec![12_000, 24_000, 36_000]);
    }
}
