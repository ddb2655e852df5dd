//! The default slates: calm music made from a few lines of score, computed, so that it belongs to nobody else.
//!
//! Pads of detuned wavetable voices, a bass, now and then a bell; all notes wrap around the end of the loop, and the
//! reverberation runs in from the loop's end, so that nothing tells where the loop begins.

use std::f32::consts::TAU;

const RATE: f32 = 48_000.0;
const TABLE: usize = 2_048;

/// One chord: semitones from A4, of which the first is the bass.
type Chord = [f32; 5];

struct Score {
    seconds: usize,
    chords: &'static [Chord],
    /// Strength of the harmonics of a pad's voice.
    harmonics: &'static [f32],
    /// Bells: seconds from the beginning, semitones from A4, strength.
    bells: &'static [(f32, f32, f32)],
    /// Swell and fall of a chord, seconds.
    swell: f32,
}

/// Before the start: D major, open and light; a bell melody over it.
const WAITING: Score = Score {
    seconds: 48,
    chords: &[
        [-31.0, -12.0, -7.0, -3.0, 4.0],
        [-34.0, -12.0, -10.0, -3.0, 2.0],
        [-38.0, -14.0, -10.0, -5.0, 2.0],
        [-36.0, -12.0, -8.0, -5.0, 2.0],
        [-31.0, -12.0, -7.0, -3.0, 4.0],
        [-29.0, -14.0, -10.0, -5.0, 2.0],
        [-38.0, -14.0, -10.0, -3.0, 2.0],
        [-36.0, -12.0, -10.0, -5.0, 4.0],
    ],
    harmonics: &[1.0, 0.42, 0.24, 0.1, 0.06, 0.03, 0.015],
    bells: &[
        (1.5, 9.0, 0.8),
        (3.0, 7.0, 0.6),
        (4.5, 4.0, 0.7),
        (7.5, 5.0, 0.8),
        (9.75, 2.0, 0.6),
        (13.5, 7.0, 0.7),
        (15.0, 5.0, 0.6),
        (16.5, 2.0, 0.7),
        (19.5, 4.0, 0.7),
        (21.75, -1.0, 0.6),
        (25.5, 9.0, 0.8),
        (26.25, 12.0, 0.5),
        (27.75, 7.0, 0.7),
        (31.5, 5.0, 0.7),
        (33.0, 7.0, 0.6),
        (34.5, 2.0, 0.7),
        (37.5, 5.0, 0.8),
        (39.0, 9.0, 0.6),
        (40.5, 7.0, 0.6),
        (43.5, 4.0, 0.7),
        (45.75, 2.0, 0.6),
    ],
    swell: 2.2,
};

/// During a hold: F major, low and slow; two notes every four seconds say that the line is alive.
const HOLDING: Score = Score {
    seconds: 32,
    chords: &[
        [-40.0, -16.0, -12.0, -9.0, -5.0],
        [-43.0, -16.0, -12.0, -7.0, -4.0],
        [-47.0, -16.0, -11.0, -7.0, -4.0],
        [-45.0, -14.0, -9.0, -5.0, -2.0],
    ],
    harmonics: &[1.0, 0.5, 0.14, 0.08, 0.02],
    bells: &[
        (2.0, 3.0, 0.7),
        (2.4, 8.0, 0.55),
        (6.0, 3.0, 0.5),
        (10.0, 3.0, 0.7),
        (10.4, 7.0, 0.55),
        (14.0, 3.0, 0.5),
        (18.0, 1.0, 0.7),
        (18.4, 8.0, 0.55),
        (22.0, 1.0, 0.5),
        (26.0, 3.0, 0.7),
        (26.4, 5.0, 0.55),
        (30.0, 3.0, 0.5),
    ],
    swell: 3.0,
};

pub(super) fn waiting() -> Vec<f32> {
    render(&WAITING)
}

pub(super) fn holding() -> Vec<f32> {
    render(&HOLDING)
}

fn hertz(semitones: f32) -> f32 {
    440.0 * (semitones / 12.0).exp2()
}

fn render(score: &Score) -> Vec<f32> {
    let length = score.seconds * RATE as usize;
    let mut dry = vec![0.0_f32; length];
    let table: Vec<f32> = (0..=TABLE)
        .map(|index| {
            let phase = index as f32 / TABLE as f32 * TAU;
            score.harmonics.iter().enumerate().map(|(n, level)| level * ((n + 1) as f32 * phase).sin()).sum()
        })
        .collect();

    let every = length / score.chords.len();
    let swell = (score.swell * RATE) as usize;
    for (number, chord) in score.chords.iter().enumerate() {
        for (voice, semitones) in chord.iter().enumerate() {
            let frequency = hertz(*semitones);
            // High voices are softer; the bass stands in the middle.
            let level = if voice == 0 { 0.5 } else { 0.3 * (200.0 / frequency.max(200.0)).sqrt() };
            for (detune, shift) in [(-0.0012, 0.11), (0.0015, 0.57)] {
                let phase = (number as f32 * 0.37 + voice as f32 * 0.21 + shift).fract();
                let step = frequency * (1.0 + detune) / RATE;
                pad(&mut dry, number * every, every, swell, &table, phase, step, level);
            }
        }
    }
    for (at, semitones, level) in score.bells {
        bell(&mut dry, (at * RATE) as usize, hertz(*semitones), *level);
    }
    reverberate(&dry)
}

/// A sustained voice: swells over `swell` samples before `every` is full, and fades over the next chord's beginning.
#[allow(clippy::too_many_arguments)]
fn pad(
    out: &mut [f32],
    at: usize,
    every: usize,
    swell: usize,
    table: &[f32],
    mut phase: f32,
    step: f32,
    level: f32,
) {
    let total = every + swell;
    let length = out.len();
    // The envelope changes slowly: once every 64 samples, linear in between.
    let envelope = |index: usize| {
        let rise = (index as f32 / swell as f32).min(1.0);
        let fall = ((total - index.min(total)) as f32 / swell as f32).min(1.0);
        let shape = |x: f32| 0.5 - 0.5 * (x * std::f32::consts::PI).cos();
        shape(rise) * shape(fall) * level
    };
    let mut position = at % length;
    let mut gain = envelope(0);
    for block in (0..total).step_by(64) {
        let end = (block + 64).min(total);
        let slope = (envelope(end) - gain) / (end - block) as f32;
        for _ in block..end {
            let place = phase * TABLE as f32;
            let index = place as usize;
            let (low, high) = (table[index], table[index + 1]);
            gain += slope;
            out[position] += (low + (high - low) * (place - index as f32)) * gain;
            phase += step;
            if phase >= 1.0 {
                phase -= 1.0;
            }
            position += 1;
            if position == length {
                position = 0;
            }
        }
    }
}

/// A struck note: three partials, the higher the shorter.
fn bell(out: &mut [f32], at: usize, frequency: f32, level: f32) {
    let length = out.len();
    for (ratio, strength, seconds) in [(1.0, 0.30, 1.1), (2.0, 0.10, 0.7), (3.01, 0.04, 0.35)] {
        // A decaying rotation: no trigonometry in the loop.
        let angle = f64::from(TAU * frequency * ratio / RATE);
        let decay = (-1.0 / (f64::from(seconds) * f64::from(RATE))).exp();
        let (sin, cos) = angle.sin_cos();
        let (mut x, mut y) = (f64::from(strength * level), 0.0);
        // Until it has fallen by 52 dB.
        let samples = (seconds * 6.0 * RATE) as usize;
        let mut position = at % length;
        for index in 0..samples {
            // 6 ms of attack.
            let attack = (index as f32 / 288.0).min(1.0);
            out[position] += y as f32 * attack;
            position += 1;
            if position == length {
                position = 0;
            }
            let turned = (x * cos - y * sin) * decay;
            y = (x * sin + y * cos) * decay;
            x = turned;
        }
    }
}

/// Four damped combs and two all-passes after Schroeder and Moorer, run in with the loop's end.
fn reverberate(dry: &[f32]) -> Vec<f32> {
    const COMBS: [usize; 4] = [1_687, 1_931, 2_143, 2_473];
    const PASSES: [usize; 2] = [605, 480];
    const FEEDBACK: f32 = 0.84;
    const DAMPING: f32 = 0.35;
    const WET: f32 = 0.16;
    let length = dry.len();
    let mut combs: Vec<(Vec<f32>, usize, f32)> = COMBS.iter().map(|n| (vec![0.0; *n], 0, 0.0)).collect();
    let mut passes: Vec<(Vec<f32>, usize)> = PASSES.iter().map(|n| (vec![0.0; *n], 0)).collect();
    let run_in = 4 * RATE as usize;
    let mut wet = Vec::with_capacity(length);
    let looped = dry[length - run_in..].iter().map(|sample| (*sample, false));
    for (input, kept) in looped.chain(dry.iter().map(|sample| (*sample, true))) {
        let mut sum = 0.0;
        for (line, at, low) in &mut combs {
            let output = line[*at];
            *low = output + (*low - output) * DAMPING;
            line[*at] = input + *low * FEEDBACK;
            *at += 1;
            if *at == line.len() {
                *at = 0;
            }
            sum += output;
        }
        for (line, at) in &mut passes {
            let delayed = line[*at];
            let output = delayed - 0.5 * sum;
            line[*at] = sum + 0.5 * output;
            *at += 1;
            if *at == line.len() {
                *at = 0;
            }
            sum = output;
        }
        if kept {
            wet.push(input + WET * sum);
        }
    }
    wet
}
