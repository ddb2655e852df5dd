//! A programme that goes on for ever, without people: a recorded voice or silence, encoded once and packaged again and
//! again with new numbers.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use model::{
    ClockReading, Epoch, EventSlug, MP3_FRAME_SAMPLES, MP3_FRAMES_PER_PART, OPUS_FRAME_SAMPLES,
    OPUS_FRAMES_PER_PART, PART_SAMPLES, Part, PartKind, PartNumber,
};
use packager::{ClosingRecords, Opening, Packager, PartFrames, Resume, SilentFrames};
use programme::codec::{OpusLibrary, OpusSettings, mp3_encoder};
use programme::slate::Slate;
use rehearse::{Clip, Voice};

/// Parts of the voice that are encoded: half a minute.
const VOICE_PARTS: usize = 62;
/// A synthetic voice, part of the demonstration.
const VOICE: &[u8] = include_bytes!("../../minassa/assets/voice-en.opus");

/// Parts, one after the other.
pub struct Material {
    packager: Packager,
    round: Vec<PartFrames>,
    next: usize,
}

impl Material {
    /// Silence. In `opus-48`, whose bitrate is constant, it has the size of speech, and nothing has to be encoded.
    ///
    /// # Errors
    /// If the packager refuses to begin.
    pub fn silence(event: &EventSlug, doors: ClockReading) -> Result<Self> {
        let silence = SilentFrames::standard();
        Self::new(
            event,
            doors,
            vec![PartFrames {
                number: PartNumber::ZERO,
                kind: PartKind::Live,
                opus24: vec![silence.opus24; OPUS_FRAMES_PER_PART],
                opus48: vec![silence.opus48; OPUS_FRAMES_PER_PART],
                mp3: vec![silence.mp3; MP3_FRAMES_PER_PART],
            }],
        )
    }

    /// A voice, levelled and encoded as origin does it: `opus-24` has the sizes of speech.
    ///
    /// # Errors
    /// If the voice cannot be decoded or encoded.
    pub fn voice(event: &EventSlug, doors: ClockReading) -> Result<Self> {
        // A slate is brought to the programme's loudness, as the mix is.
        let levelled = Slate::decode(VOICE).context("the voice cannot be decoded")?;
        let samples = levelled.samples().iter().map(|sample| f32::from(*sample) / 32_768.0);
        let voice = Clip::new(samples.collect()).context("the voice cannot be used")?;
        let (opus24, opus48) = (opus(&voice, OpusSettings::OPUS_24)?, opus(&voice, OpusSettings::OPUS_48)?);
        let mp3 = mp3(&voice)?;
        let of = |frames: &[Bytes], part: usize, each: usize| frames[part * each..(part + 1) * each].to_vec();
        let round = (0..VOICE_PARTS).map(|part| PartFrames {
            number: PartNumber::ZERO,
            kind: PartKind::Live,
            opus24: of(&opus24, part, OPUS_FRAMES_PER_PART),
            opus48: of(&opus48, part, OPUS_FRAMES_PER_PART),
            mp3: of(&mp3, part, MP3_FRAMES_PER_PART),
        });
        Self::new(event, doors, round.collect())
    }

    fn new(event: &EventSlug, doors: ClockReading, round: Vec<PartFrames>) -> Result<Self> {
        let packager = Packager::open(Opening {
            event,
            // Nobody is to trust what is signed with it.
            key: &SigningKey::from_bytes(&[7; 32]),
            epoch: Epoch(1),
            doors: doors.unix,
            now: doors,
            resume: Resume::fresh(),
            silence: SilentFrames::standard(),
        })?;
        Ok(Self { packager, round, next: 0 })
    }

    /// The next part.
    ///
    /// # Errors
    /// If the packager refuses it.
    pub fn part(&mut self) -> Result<Part> {
        let mut frames = self.round[self.next].clone();
        self.next = (self.next + 1) % self.round.len();
        frames.number = self.packager.next();
        Ok(self.packager.push(frames)?)
    }

    /// Ends the programme.
    ///
    /// # Errors
    /// If the packager refuses.
    pub fn close(mut self, doors: ClockReading) -> Result<ClosingRecords> {
        Ok(self.packager.close(doors.unix)?)
    }
}

fn opus(voice: &Clip, settings: OpusSettings) -> Result<Vec<Bytes>> {
    let mut encoder = OpusLibrary::default().encoder(settings)?;
    let (mut voice, mut frame) = (voice.clone(), [0.0; OPUS_FRAME_SAMPLES]);
    (0..VOICE_PARTS * OPUS_FRAMES_PER_PART)
        .map(|index| {
            voice.frame(index as u64, &mut frame);
            Ok(encoder.encode(&frame)?)
        })
        .collect()
}

fn mp3(voice: &Clip) -> Result<Vec<Bytes>> {
    let mut encoder = mp3_encoder()?;
    let samples = voice.samples();
    let needed = VOICE_PARTS * PART_SAMPLES as usize;
    let all: Vec<f32> = samples.iter().copied().cycle().take(needed).collect();
    let (frames, _) = all.as_chunks::<MP3_FRAME_SAMPLES>();
    frames.iter().map(|frame| Ok(encoder.encode(frame)?)).collect()
}

/// The present, as doors of a programme that begins now.
pub(crate) fn now() -> ClockReading {
    backend::clock::read()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Rendition;

    #[test]
    fn silence_has_the_size_of_speech_in_opus_48() {
        let event: EventSlug = "talk".parse().unwrap();
        let mut silence = Material::silence(&event, now()).unwrap();
        let mut voice = Material::voice(&event, now()).unwrap();
        for number in 0..20 {
            let (silent, spoken) = (silence.part().unwrap(), voice.part().unwrap());
            assert_eq!((silent.number.get(), spoken.number.get()), (number, number));
            let length = |part: &Part, rendition| part.payload(rendition).bytes.len();
            assert_eq!(length(&silent, Rendition::Opus48), length(&spoken, Rendition::Opus48));
            assert!(length(&spoken, Rendition::Opus24) > 1_000, "speech is not silence");
        }
    }
}
