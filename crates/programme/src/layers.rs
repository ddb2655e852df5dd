//! What is on air: slate, stage or hold slate, switched at a sample and faded in 8 ms.

use model::{MediaTime, OPUS_FRAME_SAMPLES};

use crate::mix::Fader;
use crate::slate::Slate;
use crate::{Frame, Layer};

/// Length of a fade: 8 ms.
const FADE_SAMPLES: f32 = 384.0;

pub(crate) struct Layers {
    slate: Slate,
    /// The slate being replaced, while it fades.
    leaving: Option<(Slate, Fader, Fader)>,
    hold: Slate,
    /// Where the hold slate began.
    held_since: u64,
    on_air: Layer,
    planned: Option<(Layer, MediaTime)>,
    /// In the order of [`Layer`].
    faders: [Fader; 3],
}

impl Layers {
    pub(crate) fn new(slate: Slate, hold: Slate) -> Self {
        let fader = |open| Fader::lasting(FADE_SAMPLES, open);
        Self {
            slate,
            leaving: None,
            hold,
            held_since: 0,
            on_air: Layer::Slate,
            planned: None,
            faders: [fader(true), fader(false), fader(false)],
        }
    }

    pub(crate) fn on_air(&self) -> Layer {
        self.on_air
    }

    /// What is on air at `at`, the first sample of the next frame.
    pub(crate) fn on_air_at(&self, at: MediaTime) -> Layer {
        match self.planned {
            Some((layer, when)) if when <= at => layer,
            _ => self.on_air,
        }
    }

    /// Whether nothing but the stage is heard.
    pub(crate) fn only_stage(&self) -> bool {
        let [slate, stage, hold] = &self.faders;
        slate.is_closed() && hold.is_closed() && stage.is_open()
    }

    pub(crate) fn plan(&mut self, layer: Layer, at: MediaTime) {
        self.planned = Some((layer, at));
    }

    pub(crate) fn set_slate(&mut self, slate: Slate) {
        let old = std::mem::replace(&mut self.slate, slate);
        let (mut out, mut into) = (Fader::lasting(FADE_SAMPLES, true), Fader::lasting(FADE_SAMPLES, false));
        out.set(false);
        into.set(true);
        self.leaving = Some((old, out, into));
    }

    /// Turns the stage's frame, which begins at `at`, into the programme's.
    pub(crate) fn run(&mut self, at: MediaTime, frame: &mut Frame) {
        let mut from = 0;
        if let Some((layer, when)) = self.planned {
            let offset = when.since(at);
            if offset < OPUS_FRAME_SAMPLES as u64 {
                self.planned = None;
                from = offset as usize;
                self.fill(at, &mut frame[..from]);
                self.switch(layer, at.plus(offset));
            }
        }
        self.fill(at.plus(from as u64), &mut frame[from..]);
    }

    fn switch(&mut self, layer: Layer, at: MediaTime) {
        if layer == Layer::Hold && self.on_air != Layer::Hold {
            self.held_since = at.samples();
        }
        self.on_air = layer;
        for (index, fader) in self.faders.iter_mut().enumerate() {
            fader.set(index == layer as usize);
        }
    }

    fn fill(&mut self, at: MediaTime, samples: &mut [f32]) {
        if self.only_stage() {
            return;
        }
        let [slate, stage, hold] = &mut self.faders;
        for (index, sample) in samples.iter_mut().enumerate() {
            let now = at.samples() + index as u64;
            let mut sum = *sample * stage.next();
            let gain = slate.next();
            if gain > 0.0 {
                // Counted from doors: the slate goes on where it was after a restart of origin.
                let mut value = self.slate.sample(now);
                if let Some((old, out, into)) = &mut self.leaving {
                    value = value * into.next() + old.sample(now) * out.next();
                    if out.is_closed() {
                        self.leaving = None;
                    }
                }
                sum += gain * value;
            }
            let gain = hold.next();
            if gain > 0.0 {
                sum += gain * self.hold.sample(now.wrapping_sub(self.held_since));
            }
            *sample = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SILENT_FRAME;

    #[test]
    fn a_switch_falls_on_its_sample() {
        let loud = Slate::from_samples(&[0.5; 4_800]);
        let mut layers = Layers::new(loud, Slate::silence());
        layers.plan(Layer::Stage, MediaTime::from_samples(2_000));
        let mut programme = Vec::new();
        for n in 0..4 {
            let mut frame = SILENT_FRAME;
            layers.run(MediaTime::from_samples(n * 960), &mut frame);
            programme.extend_from_slice(&frame);
        }
        assert!(programme[..2_000].iter().all(|s| (*s - 0.5).abs() < 1e-3));
        assert!(programme[2_001] < 0.5);
        assert!(programme[2_384..].iter().all(|s| *s == 0.0));
        assert!(programme.windows(2).all(|w| (w[0] - w[1]).abs() < 0.01), "no click");
    }

    #[test]
    fn switching_back_within_a_fade_does_not_click() {
        let mut layers = Layers::new(Slate::from_samples(&[0.5; 4_800]), Slate::silence());
        let mut programme = Vec::new();
        for n in 0..6 {
            let at = MediaTime::from_samples(n * 960);
            match n {
                1 => layers.plan(Layer::Stage, at.plus(900)),
                2 => layers.plan(Layer::Slate, at.plus(40)),
                _ => {}
            }
            let mut frame = SILENT_FRAME;
            layers.run(at, &mut frame);
            programme.extend_from_slice(&frame);
        }
        assert!(programme.windows(2).all(|w| (w[0] - w[1]).abs() < 0.01));
        assert!((programme[5_000] - 0.5).abs() < 1e-3);
    }
}
