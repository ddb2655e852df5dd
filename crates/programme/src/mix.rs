//! Rooms: who is mixed into what, and how several open microphones share the programme.

use model::OPUS_FRAME_SAMPLES;

use crate::{Frame, SILENT_FRAME};

/// Fade of a microphone that opens or closes: 5 ms.
const FADE_SAMPLES: f32 = 240.0;

/// A switch that moves between 0 and 1 without a click.
#[derive(Clone, Copy)]
pub(crate) struct Fader {
    position: f32,
    to: f32,
    step: f32,
}

impl Fader {
    pub(crate) fn closed() -> Self {
        Self { position: 0.0, to: 0.0, step: 1.0 / FADE_SAMPLES }
    }

    /// A fader that takes `samples` from end to end.
    pub(crate) fn lasting(samples: f32, open: bool) -> Self {
        let position = if open { 1.0 } else { 0.0 };
        Self { position, to: position, step: 1.0 / samples }
    }

    pub(crate) fn set(&mut self, open: bool) {
        self.to = if open { 1.0 } else { 0.0 };
    }

    /// Whether it is closed and stays so.
    pub(crate) fn is_closed(&self) -> bool {
        self.position == 0.0 && self.to == 0.0
    }

    /// Whether it is open and stays so.
    pub(crate) fn is_open(&self) -> bool {
        self.position == 1.0 && self.to == 1.0
    }

    /// The gain of the next sample: a raised cosine between 0 and 1.
    pub(crate) fn next(&mut self) -> f32 {
        if self.position < self.to {
            self.position = (self.position + self.step).min(self.to);
        } else if self.position > self.to {
            self.position = (self.position - self.step).max(self.to);
        }
        if self.position == 0.0 || self.position == 1.0 {
            self.position
        } else {
            0.5 - 0.5 * (self.position * std::f32::consts::PI).cos()
        }
    }

    /// Applies it to a frame.
    pub(crate) fn run(&mut self, frame: &[f32], output: &mut Frame) {
        if self.is_closed() {
            *output = SILENT_FRAME;
        } else if self.is_open() {
            output.copy_from_slice(frame);
        } else {
            for (to, from) in output.iter_mut().zip(frame) {
                *to = from * self.next();
            }
        }
    }
}

/// One source's part in the programme when several microphones are open. As in an automatic mixer, each is weighted by
/// its share of the power of all: one who speaks alone has all of it, two at once have half the power each, and the
/// backgrounds of those who listen are lowered instead of added up. The sum is as loud as one speaker.
#[derive(Clone, Copy)]
pub(crate) struct Share {
    power: f32,
    applied: f32,
}

impl Share {
    /// No open microphone is lowered by more than this (amplitude): 15 dB, so that an interjection is not lost.
    const LEAST: f32 = 0.18;
    /// What every open microphone counts as having at least: −55 LUFS.
    const FLOOR: f32 = 3e-6;
    /// How fast power falls once a voice is silent: 150 ms.
    const FALL: f32 = 0.88;

    pub(crate) fn new() -> Self {
        Self { power: Self::FLOOR, applied: 1.0 }
    }

    /// Takes the power of this frame after levelling, rising at once and falling slowly.
    pub(crate) fn push(&mut self, power: f32) -> f32 {
        self.power = power.max(self.power * Self::FALL).max(Self::FLOOR);
        self.power
    }

    /// Adds the weighted frame to the mix; `total` is the power of all open microphones.
    pub(crate) fn add(&mut self, frame: &Frame, total: f32, mix: &mut Frame) {
        let weight = (self.power / total.max(self.power)).sqrt().max(Self::LEAST);
        let step = (weight - self.applied) / OPUS_FRAME_SAMPLES as f32;
        let mut now = self.applied;
        for (to, from) in mix.iter_mut().zip(frame) {
            now += step;
            *to += from * now;
        }
        self.applied = weight;
    }
}

/// Adds one frame to another.
pub(crate) fn add(frame: &Frame, mix: &mut Frame) {
    for (to, from) in mix.iter_mut().zip(frame) {
        *to += from;
    }
}

/// `all` without `own`.
pub(crate) fn minus(all: &Frame, own: &Frame) -> Frame {
    let mut rest = *all;
    for (to, from) in rest.iter_mut().zip(own) {
        *to -= from;
    }
    rest
}
