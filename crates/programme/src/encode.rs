//! The renditions: three encoders fed from one programme, each early by its own delay, so that decoded sample `k` of
//! part `n` is programme sample `23,040·n + k` in all of them.
//!
//! ```text
//! programme   0 ────────────── 23,040 ─────────────── 46,080 ──►
//! opus input      312 ──────────── 23,352 ──►            frame j takes [960·j + 312, 960·(j+1) + 312)
//! mp3 input          1,057 ─────────── 24,097 ──►        frame j takes [1,152·j + 1,057, …)
//! decoded     0 ────────────── 23,040 ──►                all aligned
//! ```
//!
//! A part is complete when the slowest has it: 1,057 samples and the limiter's delay after the part's end, that is with
//! the second tick after it.

use std::collections::VecDeque;

use bytes::Bytes;
use model::{
    MP3_FRAME_SAMPLES, MP3_FRAMES_PER_PART, MediaTime, OPUS_FRAME_SAMPLES, OPUS_FRAMES_PER_PART, PartKind,
    PartNumber,
};

use crate::codec::{CodecError, Mp3Encoder, OpusEncoder, OpusLibrary, OpusSettings, mp3_encoder};
use crate::{Frame, PartFrames, SilentFrames};

/// Parts made and not taken, at most: a shell that takes none for a minute loses the oldest, which is its bug.
const PARTS_MAX: usize = 128;

/// One encoder and where it is.
struct Track<E: ?Sized> {
    encoder: Box<E>,
    /// First programme sample of the next input frame; negative while priming.
    next: i64,
    /// Frames to throw away until the first part begins.
    prime: u32,
    frames: VecDeque<Bytes>,
}

impl<E: ?Sized> Track<E> {
    fn new(encoder: Box<E>, first: i64, delay: usize, frame: usize, prime: u32) -> Self {
        let next = first + delay as i64 - i64::from(prime) * frame as i64;
        Self { encoder, next, prime, frames: VecDeque::new() }
    }

    fn keep(&mut self, frame: Bytes) {
        if self.prime > 0 {
            self.prime -= 1;
        } else {
            self.frames.push_back(frame);
        }
    }
}

pub(crate) struct Renditions {
    opus: [Track<dyn OpusEncoder>; 2],
    mp3: Track<dyn Mp3Encoder>,
    /// Programme samples that some encoder still needs, the first of them at `begins`.
    programme: Vec<f32>,
    begins: i64,
    next_part: PartNumber,
    kinds: VecDeque<PartKind>,
    parts: VecDeque<PartFrames>,
    silence: SilentFrames,
    /// Parts dropped because nobody took them.
    pub(crate) dropped: u64,
    /// Frames replaced by silence because an encoder refused.
    pub(crate) refused: u64,
}

impl Renditions {
    /// `lag`: samples by which [`Self::push`] is behind the programme; they are made up for here.
    pub(crate) fn new(first: PartNumber, lag: usize, library: OpusLibrary) -> Result<Self, CodecError> {
        let start = i64::try_from(first.start().samples()).unwrap_or(i64::MAX / 2);
        let opus = |settings| {
            let encoder = library.encoder(settings)?;
            let delay = encoder.delay();
            Ok(Track::new(encoder, start, delay, OPUS_FRAME_SAMPLES, 1))
        };
        let encoder = mp3_encoder()?;
        let delay = encoder.delay();
        let mp3 = Track::new(encoder, start, delay, MP3_FRAME_SAMPLES, 2);
        // What lies before the first sample is silence, for the encoders to begin with.
        let begins = start - 2 * MP3_FRAME_SAMPLES as i64;
        let programme = vec![0.0; (start - begins) as usize];
        Ok(Self {
            opus: [opus(OpusSettings::OPUS_24)?, opus(OpusSettings::OPUS_48)?],
            mp3,
            programme,
            begins,
            next_part: first,
            kinds: VecDeque::new(),
            parts: VecDeque::new(),
            silence: silence(library)?,
            dropped: 0,
            refused: 0,
        }
        .without(lag))
    }

    /// The first `lag` samples pushed lie before the first of the programme.
    fn without(mut self, lag: usize) -> Self {
        self.programme.truncate(self.programme.len() - lag);
        self
    }

    /// Notes what is on air at `at` if a part begins there.
    pub(crate) fn note(&mut self, at: MediaTime, kind: PartKind) {
        if at == at.part().start() {
            self.kinds.push_back(kind);
        }
    }

    /// Takes a frame of the programme.
    pub(crate) fn push(&mut self, frame: &Frame) {
        self.programme.extend_from_slice(frame);
        let silent = [&self.silence.opus24, &self.silence.opus48];
        for (track, silent) in self.opus.iter_mut().zip(silent) {
            while let Some(input) = window(&self.programme, self.begins, track.next) {
                // An encoder that refuses is a bug of ours or its own; the programme goes on all the same.
                let packet = track.encoder.encode(input).unwrap_or_else(|_| {
                    self.refused += 1;
                    silent.clone()
                });
                track.next += OPUS_FRAME_SAMPLES as i64;
                track.keep(packet);
            }
        }
        while let Some(input) = window(&self.programme, self.begins, self.mp3.next) {
            let packet = self.mp3.encoder.encode(input).unwrap_or_else(|_| {
                self.refused += 1;
                self.silence.mp3.clone()
            });
            self.mp3.next += MP3_FRAME_SAMPLES as i64;
            self.mp3.keep(packet);
        }
        let needed = self.opus.iter().map(|track| track.next).fold(self.mp3.next, i64::min);
        let done = (needed - self.begins).clamp(0, self.programme.len() as i64);
        self.programme.drain(..done as usize);
        self.begins += done;
        self.assemble();
    }

    fn assemble(&mut self) {
        let ready = self.opus.iter().all(|track| track.frames.len() >= OPUS_FRAMES_PER_PART)
            && self.mp3.frames.len() >= MP3_FRAMES_PER_PART;
        if !ready {
            return;
        }
        let [opus24, opus48] = &mut self.opus;
        let part = PartFrames {
            number: self.next_part,
            kind: self.kinds.pop_front().expect("a part's beginning is noted before its end"),
            opus24: opus24.frames.drain(..OPUS_FRAMES_PER_PART).collect(),
            opus48: opus48.frames.drain(..OPUS_FRAMES_PER_PART).collect(),
            mp3: self.mp3.frames.drain(..MP3_FRAMES_PER_PART).collect(),
        };
        self.next_part = self.next_part.next();
        if self.parts.len() == PARTS_MAX {
            self.parts.pop_front();
            self.dropped += 1;
        }
        self.parts.push_back(part);
    }

    pub(crate) fn poll(&mut self) -> Option<PartFrames> {
        self.parts.pop_front()
    }
}

/// `N` samples from `from` on, if they are all there.
fn window<const N: usize>(programme: &[f32], begins: i64, from: i64) -> Option<&[f32; N]> {
    let at = usize::try_from(from - begins).expect("samples are kept until every encoder has had them");
    programme.get(at..at + N).map(|samples| samples.try_into().expect("the slice has this length"))
}

/// Makes the silent frames: what steady encoders make of silence.
pub(crate) fn silence(library: OpusLibrary) -> Result<SilentFrames, CodecError> {
    let opus = |settings| {
        let mut encoder = library.encoder(settings)?;
        let mut packet = Bytes::new();
        for _ in 0..4 {
            packet = encoder.encode(&crate::SILENT_FRAME)?;
        }
        Ok(packet)
    };
    let mut encoder = mp3_encoder()?;
    let mut mp3 = Bytes::new();
    for _ in 0..4 {
        mp3 = encoder.encode(&[0.0; MP3_FRAME_SAMPLES])?;
    }
    Ok(SilentFrames { opus24: opus(OpusSettings::OPUS_24)?, opus48: opus(OpusSettings::OPUS_48)?, mp3 })
}
