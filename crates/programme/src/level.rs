//! Levels: how loud something is (EBU R 128), whether it is a voice, and the gain that brings it to −16 LUFS.

use crate::Frame;

/// What every voice, slate and the programme as a whole are brought to.
pub(crate) const TARGET_LUFS: f32 = -16.0;
/// The lowest level told of.
pub(crate) const SILENCE_DB: f32 = -120.0;

/// Frames of a momentary loudness: 400 ms.
const MOMENT: usize = 20;

pub(crate) fn to_db(power: f32) -> f32 {
    if power > 1e-12 { 10.0 * power.log10() } else { SILENCE_DB }
}

pub(crate) fn gain_of(db: f32) -> f32 {
    10.0_f32.powf(db / 20.0)
}

/// Mean square of a frame.
pub(crate) fn power(frame: &[f32]) -> f32 {
    frame.iter().map(|sample| sample * sample).sum::<f32>() / frame.len().max(1) as f32
}

/// Loudness of a K-weighted mean square, LUFS.
pub(crate) fn lufs(weighted: f32) -> f32 {
    (to_db(weighted) - 0.691).max(SILENCE_DB)
}

/// The K weighting of ITU-R BS.1770 at 48 kHz: a shelf for the head, a high-pass for what the ear ignores.
#[derive(Clone, Default)]
pub(crate) struct KWeighting {
    shelf: [f64; 2],
    pass: [f64; 2],
}

impl KWeighting {
    /// Mean square of the weighted frame.
    pub(crate) fn run(&mut self, frame: &[f32]) -> f32 {
        let mut sum = 0.0;
        let ([s1, s2], [p1, p2]) = (&mut self.shelf, &mut self.pass);
        for &sample in frame {
            // Two transposed direct forms II, coefficients of BS.1770-4, tables 1 and 2.
            let x = f64::from(sample);
            let y = 1.535_124_859_586_97 * x + *s1;
            *s1 = -2.691_696_189_406_38 * x + 1.690_659_293_182_41 * y + *s2;
            *s2 = 1.198_392_810_852_85 * x - 0.732_480_774_215_85 * y;
            let z = y + *p1;
            *p1 = -2.0 * y + 1.990_047_454_833_98 * z + *p2;
            *p2 = y - 0.990_072_250_366_21 * z;
            sum += z * z;
        }
        // Denormals cost time and mean nothing.
        for state in self.shelf.iter_mut().chain(&mut self.pass) {
            if state.abs() < 1e-20 {
                *state = 0.0;
            }
        }
        (sum / frame.len().max(1) as f64) as f32
    }
}

/// Finds voices in what is not background: sound well above the quietest of the last seconds, where pauses show how
/// loud the background is. Speech always has pauses; a fan has none.
pub(crate) struct VoiceDetector {
    /// Quietest frame of the current and of the previous stretch, LUFS.
    current: f32,
    previous: f32,
    /// The background, following the quietest frames.
    floor: f32,
    left: u32,
    stretches: u32,
    active: u32,
    hold: u32,
}

impl VoiceDetector {
    /// Loudness of the background before anything is known, and its least and greatest value. Above the greatest a
    /// steady sound counts as wanted: a test tone, music.
    const FLOOR_AT_FIRST: f32 = -60.0;
    const FLOOR_MIN: f32 = -75.0;
    const FLOOR_MAX: f32 = -42.0;
    /// How fast the background may rise once it is known, dB a frame: 1.5 dB a second, so that a long breath of speech or
    /// a bar of music does not become background.
    const RISE_DB: f32 = 0.03;
    /// Louder than the background by so much is a voice after two frames; by `CLEAR_DB`, at once.
    const ABOVE_DB: f32 = 8.0;
    const CLEAR_DB: f32 = 18.0;
    /// A voice lasts for 400 ms after its last sound.
    const HOLD: u32 = 20;
    /// Stretches of 1.5 s; the first four are short, to know the background soon.
    const STRETCH: u32 = 75;
    const FIRST_STRETCH: u32 = 12;

    pub(crate) fn new() -> Self {
        let floor = Self::FLOOR_AT_FIRST;
        Self {
            current: f32::MAX,
            previous: floor,
            floor,
            left: Self::FIRST_STRETCH,
            stretches: 0,
            active: 0,
            hold: 0,
        }
    }

    /// Takes a frame's loudness.
    pub(crate) fn push(&mut self, loudness: f32) {
        self.current = self.current.min(loudness);
        let quietest = self.current.min(self.previous).clamp(Self::FLOOR_MIN, Self::FLOOR_MAX);
        let rise = if self.stretches < 4 { f32::MAX } else { Self::RISE_DB };
        self.floor = quietest.min(self.floor + rise);
        let floor = self.floor;
        self.active = if loudness > floor + Self::ABOVE_DB { self.active + 1 } else { 0 };
        if self.active >= 2 || loudness > floor + Self::CLEAR_DB {
            self.hold = Self::HOLD;
        } else {
            self.hold = self.hold.saturating_sub(1);
        }
        self.left -= 1;
        if self.left == 0 {
            self.stretches = self.stretches.saturating_add(1);
            self.left = if self.stretches < 4 { Self::FIRST_STRETCH } else { Self::STRETCH };
            self.previous = self.current;
            self.current = f32::MAX;
        }
    }

    /// Whether there is a voice, or was 400 ms ago.
    pub(crate) fn voice(&self) -> bool {
        self.hold > 0
    }

    /// Whether this very frame is one.
    pub(crate) fn active(&self) -> bool {
        self.active > 0
    }
}

/// Loudness of what is said: the mean of momentary loudnesses (400 ms, ten a second) over about the last ten seconds of
/// speech, gated like EBU R 128's integrated loudness, and by the voice.
pub(crate) struct SpeechLoudness {
    frames: [f32; MOMENT],
    voiced: [bool; MOMENT],
    at: usize,
    mean: f32,
    blocks: f32,
    /// Blocks in a row that were too quiet to count.
    quieter: u32,
}

impl SpeechLoudness {
    /// Three seconds of speech that does not count are too many.
    const QUIETER_MAX: u32 = 30;
    /// Blocks that the mean remembers, at most.
    const MEMORY: f32 = 100.0;
    /// Blocks quieter than the mean by this do not count (LU).
    const RELATIVE_GATE: f32 = -10.0;

    pub(crate) fn new() -> Self {
        Self { frames: [0.0; MOMENT], voiced: [false; MOMENT], at: 0, mean: 0.0, blocks: 0.0, quieter: 0 }
    }

    /// Takes a frame's K-weighted power and whether it is a voice's; returns whether the loudness changed.
    pub(crate) fn push(&mut self, weighted: f32, voiced: bool) -> bool {
        let slot = self.at % MOMENT;
        self.frames[slot] = weighted;
        self.voiced[slot] = voiced;
        self.at = (self.at + 1) % (MOMENT * 1_000);
        if !self.at.is_multiple_of(5) {
            return false;
        }
        let spoken = self.voiced.iter().filter(|voiced| **voiced).count();
        // The first words are judged by themselves; later, at least half of a block is speech.
        let block = if spoken * 2 >= MOMENT {
            self.frames.iter().sum::<f32>() / MOMENT as f32
        } else if spoken >= 5 && self.blocks < 10.0 {
            let sum: f32 = self.frames.iter().zip(&self.voiced).filter(|(_, v)| **v).map(|(f, _)| f).sum();
            sum / spoken as f32
        } else {
            return false;
        };
        if self.blocks > 0.0 && lufs(block) < lufs(self.mean) + Self::RELATIVE_GATE {
            // Much quieter than before: it does not count as speech of this speaker. Should it stay that way (the
            // microphone was moved), what was known is forgotten.
            self.quieter += 1;
            if self.quieter > Self::QUIETER_MAX {
                self.mean *= 0.97;
                self.blocks = (self.blocks * 0.97).max(1.0);
            }
            return true;
        }
        self.quieter = 0;
        self.blocks = (self.blocks + 1.0).min(Self::MEMORY);
        self.mean += (block - self.mean) / self.blocks;
        true
    }

    /// LUFS; `None` before anything was said.
    pub(crate) fn lufs(&self) -> Option<f32> {
        (self.blocks > 0.0).then(|| lufs(self.mean))
    }

    /// Loudness of the last 400 ms, LUFS.
    pub(crate) fn momentary(&self) -> f32 {
        lufs(self.frames.iter().sum::<f32>() / MOMENT as f32)
    }

    /// How well the loudness is known, 0 to 1.
    pub(crate) fn confidence(&self) -> f32 {
        (self.blocks / 30.0).min(1.0)
    }
}

/// Brings one speaker to [`TARGET_LUFS`], slowly enough not to be heard.
pub(crate) struct Leveller {
    weighting: KWeighting,
    detector: VoiceDetector,
    loudness: SpeechLoudness,
    gain_db: f32,
    /// Extra attenuation of pauses, so that the background of a quiet speaker is not raised with the voice.
    pause_db: f32,
    applied: f32,
    level: f32,
}

impl Leveller {
    const GAIN_MIN_DB: f32 = -30.0;
    const GAIN_MAX_DB: f32 = 34.0;
    /// dB a frame while the speaker is new, and later.
    const UP_NEW: f32 = 0.24;
    const UP: f32 = 0.05;
    const DOWN: f32 = 0.2;
    /// A sudden shout, louder than the target by this many LU over 400 ms, is turned down faster.
    const SHOUT_LU: f32 = 6.0;
    const DOWN_SHOUT: f32 = 0.6;
    /// Pauses are lowered by half of the gain, at most by this; dB a frame to get there.
    const PAUSE_MAX_DB: f32 = 10.0;
    const PAUSE_STEP: f32 = 0.4;

    pub(crate) fn new() -> Self {
        Self {
            weighting: KWeighting::default(),
            detector: VoiceDetector::new(),
            loudness: SpeechLoudness::new(),
            gain_db: 0.0,
            pause_db: 0.0,
            applied: 1.0,
            level: SILENCE_DB,
        }
    }

    /// Measures a frame and brings it to level in place.
    pub(crate) fn run(&mut self, frame: &mut Frame) {
        self.level = to_db(power(&frame[..])).clamp(SILENCE_DB, 0.0);
        let weighted = self.weighting.run(&frame[..]);
        self.detector.push(lufs(weighted));
        let voice = self.detector.voice();
        self.loudness.push(weighted, voice && self.detector.active());
        if voice {
            self.follow();
        }
        let pause = if voice { 0.0 } else { (self.gain_db * 0.5).clamp(0.0, Self::PAUSE_MAX_DB) };
        // Back at once: the first sound of a word matters.
        self.pause_db =
            if pause < self.pause_db { pause } else { (self.pause_db + Self::PAUSE_STEP).min(pause) };

        let gain = gain_of(self.gain_db - self.pause_db);
        let step = (gain - self.applied) / frame.len() as f32;
        if step == 0.0 {
            frame.iter_mut().for_each(|sample| *sample *= gain);
        } else {
            let mut now = self.applied;
            for sample in frame.iter_mut() {
                now += step;
                *sample *= now;
            }
        }
        self.applied = gain;
    }

    fn follow(&mut self) {
        let Some(loudness) = self.loudness.lufs() else { return };
        let wanted = (TARGET_LUFS - loudness).clamp(Self::GAIN_MIN_DB, Self::GAIN_MAX_DB);
        let momentary = self.loudness.momentary() + self.gain_db;
        if momentary > TARGET_LUFS + Self::SHOUT_LU {
            self.gain_db -= Self::DOWN_SHOUT;
        } else if wanted < self.gain_db {
            self.gain_db = (self.gain_db - Self::DOWN).max(wanted);
        } else {
            let up = Self::UP_NEW + (Self::UP - Self::UP_NEW) * self.loudness.confidence();
            self.gain_db = (self.gain_db + up).min(wanted);
        }
    }

    pub(crate) fn voice(&self) -> bool {
        self.detector.voice()
    }

    /// Whether the gain is about where it should be, rather than still on its way for a new speaker.
    pub(crate) fn settled(&self) -> bool {
        self.loudness.lufs().is_some_and(|loudness| (loudness + self.gain_db - TARGET_LUFS).abs() < 2.0)
    }

    /// RMS of the last frame as it came, dBFS.
    pub(crate) fn level_dbfs(&self) -> f32 {
        self.level
    }

    /// Loudness of what was said, before the gain, LUFS.
    pub(crate) fn loudness_lufs(&self) -> f32 {
        self.loudness.lufs().unwrap_or(SILENCE_DB)
    }

    pub(crate) fn gain_db(&self) -> f32 {
        self.gain_db - self.pause_db
    }
}

/// A slow trim of the whole stage, for what levelling each speaker cannot know: how loud several are at once, and what
/// limiting takes from a voice with high peaks.
pub(crate) struct Trim {
    weighting: KWeighting,
    loudness: SpeechLoudness,
    gain_db: f32,
    applied: f32,
}

impl Trim {
    const RANGE_DB: f32 = 6.0;
    const STEP_NEW: f32 = 0.06;
    const STEP: f32 = 0.015;

    pub(crate) fn new() -> Self {
        Self { weighting: KWeighting::default(), loudness: SpeechLoudness::new(), gain_db: 0.0, applied: 1.0 }
    }

    /// Applies the trim.
    pub(crate) fn apply(&mut self, frame: &mut Frame) {
        let gain = gain_of(self.gain_db);
        let step = (gain - self.applied) / frame.len() as f32;
        let mut now = self.applied;
        for sample in frame.iter_mut() {
            now += step;
            *sample *= now;
        }
        self.applied = gain;
    }

    /// Measures what went on air: the stage alone, after the limiter, which costs loudness. `voice` says whether somebody
    /// spoke, and nobody whose own level was still being found.
    pub(crate) fn measure(&mut self, frame: &Frame, voice: bool) {
        let weighted = self.weighting.run(&frame[..]);
        // What is remembered is the loudness without the gain.
        self.loudness.push(weighted / (self.applied * self.applied), voice);
        if !voice {
            return;
        }
        if let Some(loudness) = self.loudness.lufs() {
            let wanted = (TARGET_LUFS - loudness).clamp(-Self::RANGE_DB, Self::RANGE_DB);
            let step = Self::STEP_NEW + (Self::STEP - Self::STEP_NEW) * self.loudness.confidence();
            self.gain_db += (wanted - self.gain_db).clamp(-step, step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighting_agrees_with_the_standard() {
        // BS.1770: 997 Hz at 0 dBFS in one channel is −3.01 LUFS.
        let mut weighting = KWeighting::default();
        let mut last = 0.0;
        for n in 0..50 {
            let frame: Vec<f32> = (0..960)
                .map(|i| ((n * 960 + i) as f64 * 997.0 / 48_000.0 * std::f64::consts::TAU).sin() as f32)
                .collect();
            last = weighting.run(&frame);
        }
        assert!((lufs(last) + 3.01).abs() < 0.05, "{}", lufs(last));
    }

    fn noise(seed: &mut u32) -> f32 {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*seed >> 8) as f32 / 8_388_608.0 - 1.0
    }

    #[test]
    fn noise_is_not_pumped_up() {
        let mut leveller = Leveller::new();
        let mut seed = 1;
        let mut last = 0.0;
        for _ in 0..3_000 {
            let mut frame = [0.0; 960];
            frame.iter_mut().for_each(|s| *s = noise(&mut seed) * 0.004);
            leveller.run(&mut frame);
            last = to_db(power(&frame));
        }
        // −53 dBFS came in.
        assert!(last < -45.0, "{last}");
        assert!(!leveller.voice());
    }

    #[test]
    fn a_voice_is_found_within_sixty_milliseconds() {
        for background in [0.0, 0.002] {
            let mut leveller = Leveller::new();
            let mut seed = 1;
            for n in 0..500 {
                let mut frame = [0.0; 960];
                frame.iter_mut().for_each(|s| *s = noise(&mut seed) * background);
                if n >= 497 {
                    for (i, s) in frame.iter_mut().enumerate() {
                        *s += (i as f32 * 0.03).sin() * 0.05;
                    }
                }
                assert!(!(200..497).contains(&n) || !leveller.voice(), "frame {n}");
                leveller.run(&mut frame);
            }
            assert!(leveller.voice(), "background {background}");
        }
    }
}
