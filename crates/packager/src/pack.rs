//! The packager.

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use formats::mp4;
use model::{
    ChainRecord, ClockReading, Digest, Epoch, EventSlug, KeyId, MP3_FRAMES_PER_PART, OPUS_FRAMES_PER_PART,
    Part, PartKind, PartNumber, Payload, Rendition, UnixTime,
};

use crate::SilentFrames;
use crate::chain::{self, ClosingRecord, EpochRecord, Record, SegmentRecord, TailDigests};

/// Most bytes of one MPEG-1 Layer III frame (320 kbit/s at 32 kHz, padded).
const MP3_FRAME_LEN_MAX: usize = 1_441;

/// 480 ms of the programme, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFrames {
    /// Its number: one more than the part before.
    pub number: PartNumber,
    /// What it carries.
    pub kind: PartKind,
    /// 24 packets of 20 ms, `opus-24`.
    pub opus24: Vec<Bytes>,
    /// 24 packets of 20 ms, `opus-48`.
    pub opus48: Vec<Bytes>,
    /// 20 frames of 24 ms, `mp3-64`, none leaning on an earlier one.
    pub mp3: Vec<Bytes>,
}

/// A part that is published but not yet signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailPart {
    /// Its number.
    pub number: PartNumber,
    /// The incarnation that made it.
    pub epoch: Epoch,
    /// What it carries.
    pub kind: PartKind,
    /// Its digests in the order of [`Rendition::ALL`].
    pub digests: [Digest; 3],
}

impl TailPart {
    /// What the chain needs of a part.
    pub fn of(part: &Part) -> Self {
        Self {
            number: part.number,
            epoch: part.epoch,
            kind: part.kind,
            digests: [0, 1, 2].map(|index| part.payloads[index].digest),
        }
    }
}

/// Where the chain goes on. The recording knows (`archive`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The first number that is free.
    pub next: PartNumber,
    /// Heads of the chains, in the order of [`Rendition::ALL`]; zero at the beginning.
    pub heads: [Digest; 3],
    /// Parts of one segment that no record covers yet: at most 8, contiguous, ending just before `next`.
    pub tail: Vec<TailPart>,
}

impl Resume {
    /// A new event: nothing before.
    pub const fn fresh() -> Self {
        Self { next: PartNumber::ZERO, heads: [Digest([0; 32]); 3], tail: Vec::new() }
    }

    /// What a recording says: its chain records in order, and its last parts (8 are enough), ascending. Fresh if
    /// there are no parts. Bytes that are no record are passed over: `verify` finds them, resuming must not fail.
    pub fn from_recording<'a>(
        records: impl IntoIterator<Item = &'a ChainRecord>,
        parts: impl IntoIterator<Item = TailPart>,
    ) -> Self {
        let mut heads = [Digest::default(); 3];
        let mut signed_end = PartNumber::ZERO;
        for record in records {
            match chain::parse(record) {
                Ok(Record::Segment(segment)) => {
                    heads[segment.rendition.index()] = chain::head(record);
                    signed_end = segment.end();
                }
                Ok(Record::Epoch(_) | Record::Closing(_)) => heads = [chain::head(record); 3],
                Ok(Record::Absent(_)) | Err(_) => {}
            }
        }
        let mut tail: Vec<TailPart> = Vec::new();
        let mut next = PartNumber::ZERO;
        for part in parts {
            // Parts that the recorder lost leave a hole; what lies before it can no longer be signed.
            if part.number != next
                || tail.first().is_some_and(|first| first.number.segment() != part.number.segment())
            {
                tail.clear();
            }
            next = part.number.next();
            if part.number >= signed_end {
                tail.push(part);
            }
        }
        Self { next, heads, tail }
    }
}

/// What an incarnation begins with.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    /// The event's name, part of every signature.
    pub event: &'a EventSlug,
    /// The event's signing key.
    pub key: &'a SigningKey,
    /// This incarnation: greater than any before.
    pub epoch: Epoch,
    /// When part 0 begins, from the event's anchor.
    pub doors: UnixTime,
    /// Both clocks now.
    pub now: ClockReading,
    /// Where the chain goes on.
    pub resume: Resume,
    /// What gap parts are made of.
    pub silence: SilentFrames,
}

/// Why a part was not made. Nothing changes when one of these is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Numbers ascend by one.
    #[error("part {given} cannot follow; part {expected} is next")]
    Number {
        /// The number that is next.
        expected: PartNumber,
        /// The number given.
        given: PartNumber,
    },
    /// Too few or too many frames.
    #[error("{given} frames of {rendition}, a part has {expected}")]
    FrameCount {
        /// Which rendition.
        rendition: Rendition,
        /// Frames a part has.
        expected: usize,
        /// Frames given.
        given: usize,
    },
    /// A frame that is empty or longer than its format allows.
    #[error("a frame of {length} bytes in {rendition}")]
    FrameLength {
        /// Which rendition.
        rendition: Rendition,
        /// Bytes given.
        length: usize,
    },
    /// A tail that cannot precede `next`: not contiguous, of two segments, or too long.
    #[error("the tail to resume from does not end before part {next}")]
    Resume {
        /// The number to go on with.
        next: PartNumber,
    },
    /// Parts are adopted before the incarnation makes its first.
    #[error("part {0} comes too late to be adopted: this epoch has made parts already")]
    AdoptedLate(PartNumber),
    /// The part's epoch is not an earlier one.
    #[error("part {number} claims epoch {claimed}, which is not before this one")]
    AdoptedEpoch {
        /// The part.
        number: PartNumber,
        /// Its epoch.
        claimed: u32,
    },
    /// Its digests or its records do not continue the chain that the recording ends with.
    #[error("part {number} does not continue the chain: {reason}")]
    AdoptedForeign {
        /// The part.
        number: PartNumber,
        /// What does not fit.
        reason: &'static str,
    },
    /// The event was closed.
    #[error("the event is closed")]
    Closed,
}

/// The last records of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosingRecords {
    /// The number after the last part.
    pub end: PartNumber,
    /// Records in the order of the chain: an epoch's (if this incarnation made no part), the last segment's in each
    /// rendition (if parts wait for one), and the closing record.
    pub records: Vec<ChainRecord>,
}

/// Makes parts of frames, and the chain of them.
#[derive(Debug)]
pub struct Packager {
    event: EventSlug,
    key: SigningKey,
    public: VerifyingKey,
    epoch: Epoch,
    doors: UnixTime,
    opened: ClockReading,
    silence: SilentFrames,
    next: PartNumber,
    heads: [Digest; 3],
    /// Parts that no segment record covers yet: one segment's, at most 8.
    unsigned: Vec<TailPart>,
    ledger: Digest,
    /// Whether this incarnation's epoch record is out, and with it the time for adopting over.
    announced: bool,
    closed: bool,
}

impl Packager {
    /// Begins an incarnation. Its epoch record goes out with the first part it makes.
    ///
    /// # Errors
    /// [`PackError::Resume`] if the tail does not fit `next`.
    pub fn open(opening: Opening<'_>) -> Result<Self, PackError> {
        let Resume { next, heads, tail } = opening.resume;
        let fits = match (tail.first(), tail.last()) {
            (Some(first), Some(last)) => {
                last.number.next() == next
                    && first.number.segment() == last.number.segment()
                    && tail.windows(2).all(|pair| pair[0].number.next() == pair[1].number)
            }
            _ => true,
        };
        if !fits {
            return Err(PackError::Resume { next });
        }
        Ok(Self {
            event: opening.event.clone(),
            key: opening.key.clone(),
            public: opening.key.verifying_key(),
            epoch: opening.epoch,
            doors: opening.doors,
            opened: opening.now,
            silence: opening.silence,
            next,
            heads,
            unsigned: tail,
            ledger: Digest::default(),
            announced: false,
            closed: false,
        })
    }

    /// The number of the next part.
    pub fn next(&self) -> PartNumber {
        self.next
    }

    /// This incarnation.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The key that parts are signed with.
    pub fn public_key(&self) -> &VerifyingKey {
        &self.public
    }

    /// The head of the ledger that the next signatures name.
    pub fn set_ledger_head(&mut self, head: Digest) {
        self.ledger = head;
    }

    /// Makes the next part.
    ///
    /// # Errors
    /// [`PackError`] if it is not the next, or its frames are not 24, 24 and 20 of proper lengths.
    pub fn push(&mut self, frames: PartFrames) -> Result<Part, PackError> {
        self.expect_next(frames.number)?;
        check_frames(Rendition::Opus24, &frames.opus24, OPUS_FRAMES_PER_PART, mp4::MAX_FRAME)?;
        check_frames(Rendition::Opus48, &frames.opus48, OPUS_FRAMES_PER_PART, mp4::MAX_FRAME)?;
        check_frames(Rendition::Mp3_64, &frames.mp3, MP3_FRAMES_PER_PART, MP3_FRAME_LEN_MAX)?;
        Ok(self.make(frames))
    }

    /// Makes the next part of silence, marked as a gap.
    ///
    /// # Errors
    /// [`PackError::Number`] if `number` is not the next, [`PackError::Closed`] after the end; as [`Self::push`] if
    /// the silence given at the opening is not proper frames.
    pub fn gap(&mut self, number: PartNumber) -> Result<Part, PackError> {
        self.push(PartFrames {
            number,
            kind: PartKind::Gap,
            opus24: self.silence.opus24_part(),
            opus48: self.silence.opus48_part(),
            mp3: self.silence.mp3_part(),
        })
    }

    /// Takes over a part that an earlier incarnation published and an edge still held, as it is.
    ///
    /// Only before the first part of this incarnation, in ascending order without a hole. Its bytes are hashed
    /// again; records that came with it are checked and become links of the chain.
    ///
    /// # Errors
    /// [`PackError`] if it does not continue the chain; then the number is to be filled with [`Self::gap`].
    pub fn adopt(&mut self, part: &Part) -> Result<(), PackError> {
        let number = part.number;
        self.expect_next(number)?;
        if self.announced {
            return Err(PackError::AdoptedLate(number));
        }
        if part.epoch >= self.epoch {
            return Err(PackError::AdoptedEpoch { number, claimed: part.epoch.0 });
        }
        let foreign = |reason| PackError::AdoptedForeign { number, reason };
        if part.payloads.iter().any(|payload| Digest::of(&payload.bytes) != payload.digest) {
            return Err(foreign("its bytes do not have the digests it names"));
        }
        let (heads, covered) = self.follow(part).map_err(foreign)?;
        let due = number.index_in_segment() == 0 && !self.unsigned.is_empty();
        if covered != [due; 3] {
            return Err(foreign("it does not carry the records that are due with it, and no others"));
        }
        if due {
            self.unsigned.clear();
        }
        self.heads = heads;
        self.unsigned.push(TailPart::of(part));
        self.next = number.next();
        Ok(())
    }

    /// Ends the event: signs the last segment, however short, and the closing record.
    ///
    /// # Errors
    /// [`PackError::Closed`] the second time.
    pub fn close(&mut self, now: UnixTime) -> Result<ClosingRecords, PackError> {
        if self.closed {
            return Err(PackError::Closed);
        }
        let mut records: Vec<_> = self.announce().into_iter().collect();
        records.extend(self.sign_segment().into_iter().flatten());
        let mut closing = ClosingRecord {
            epoch: self.epoch,
            end: self.next,
            closed: now,
            previous: self.heads,
            ledger: self.ledger,
            key: KeyId([0; 8]),
            signature: [0; 64],
        };
        closing.sign(&self.event, &self.key);
        let record = closing.to_chain_record();
        self.heads = [chain::head(&record); 3];
        self.closed = true;
        records.push(record);
        Ok(ClosingRecords { end: self.next, records })
    }

    fn expect_next(&self, given: PartNumber) -> Result<(), PackError> {
        if self.closed {
            Err(PackError::Closed)
        } else if given != self.next {
            Err(PackError::Number { expected: self.next, given })
        } else {
            Ok(())
        }
    }

    fn make(&mut self, frames: PartFrames) -> Part {
        let PartFrames { number, kind, opus24, opus48, mp3 } = frames;
        let epoch_record = self.announce();
        let segment_records = if number.index_in_segment() == 0 { self.sign_segment() } else { None };

        let info = matches!(kind, PartKind::Gap | PartKind::Hold)
            .then(|| mp4::write_uuid(mp4::UUID_PART_INFO, &[chain::VERSION, chain::kind_code(kind)]));
        let cmaf = |rendition: Rendition, frames: &[Bytes]| {
            let segment_record = segment_records.as_ref().map(|records| &records[rendition.index()]);
            let records = epoch_record.iter().chain(segment_record);
            let mut lead: Vec<_> =
                records.map(|record| mp4::write_uuid(mp4::UUID_CHAIN, &record.0)).collect();
            lead.extend(info.clone());
            Payload::new(mp4::write_part(&mp4::PartBoxes {
                sequence: number.get().wrapping_add(1) as u32,
                decode_time: number.start(),
                frames,
                lead: &lead,
            }))
        };
        let payloads = [
            cmaf(Rendition::Opus24, &opus24),
            cmaf(Rendition::Opus48, &opus48),
            Payload::new(Bytes::from(mp3.concat())),
        ];
        let records = epoch_record.into_iter().chain(segment_records.into_iter().flatten()).collect();
        let part = Part { number, epoch: self.epoch, kind, payloads, records };
        self.unsigned.push(TailPart::of(&part));
        self.next = number.next();
        part
    }

    /// The epoch record, the first time; it becomes the head of all chains.
    fn announce(&mut self) -> Option<ChainRecord> {
        if self.announced {
            return None;
        }
        self.announced = true;
        let mut record = EpochRecord {
            epoch: self.epoch,
            first: self.next,
            opened: self.opened,
            doors: self.doors,
            previous: self.heads,
            ledger: self.ledger,
            key: KeyId([0; 8]),
            tail: self
                .unsigned
                .iter()
                .map(|part| TailDigests { epoch: part.epoch, digests: part.digests })
                .collect(),
            signature: [0; 64],
        };
        record.sign(&self.event, &self.key);
        let record = record.to_chain_record();
        self.heads = [chain::head(&record); 3];
        Some(record)
    }

    /// Signs the parts that wait for it, in every rendition.
    fn sign_segment(&mut self) -> Option<[ChainRecord; 3]> {
        let first = self.unsigned.first()?.number;
        let parts = std::mem::take(&mut self.unsigned);
        Some(Rendition::ALL.map(|rendition| {
            let digests: Vec<_> = parts.iter().map(|part| part.digests[rendition.index()]).collect();
            let mut record = SegmentRecord {
                rendition,
                first,
                kinds: parts.iter().map(|part| part.kind).collect(),
                epoch: self.epoch,
                previous: self.heads[rendition.index()],
                ledger: self.ledger,
                key: KeyId([0; 8]),
                signature: [0; 64],
            };
            record.sign(&self.event, &digests, &self.key);
            let record = record.to_chain_record();
            self.heads[rendition.index()] = chain::head(&record);
            record
        }))
    }

    /// Follows the chain through the records of an adopted part: the heads after them, and which renditions' parts
    /// they cover.
    fn follow(&self, part: &Part) -> Result<([Digest; 3], [bool; 3]), &'static str> {
        let mut heads = self.heads;
        let mut covered = [false; 3];
        for record in &part.records {
            match chain::parse(record) {
                Ok(Record::Epoch(epoch)) => {
                    epoch
                        .verify(&self.event, &self.public)
                        .map_err(|_| "its epoch record is not signed by us")?;
                    if epoch.previous != heads || epoch.first != part.number || epoch.epoch != part.epoch {
                        return Err("its epoch record does not follow");
                    }
                    heads = [chain::head(record); 3];
                }
                Ok(Record::Segment(segment)) => {
                    let index = segment.rendition.index();
                    let digests: Vec<_> = self.unsigned.iter().map(|part| part.digests[index]).collect();
                    let kinds = self.unsigned.iter().map(|part| part.kind);
                    if segment.previous != heads[index]
                        || Some(segment.first) != self.unsigned.first().map(|part| part.number)
                        || !kinds.eq(segment.kinds.iter().copied())
                    {
                        return Err("its segment record does not follow");
                    }
                    segment
                        .verify(&self.event, &digests, &self.public)
                        .map_err(|_| "its segment record is not signed by us, or of other parts")?;
                    heads[index] = chain::head(record);
                    covered[index] = true;
                }
                Ok(Record::Closing(_) | Record::Absent(_)) | Err(_) => {
                    return Err("it carries a record no part has");
                }
            }
        }
        Ok((heads, covered))
    }
}

fn check_frames(
    rendition: Rendition,
    frames: &[Bytes],
    expected: usize,
    longest: usize,
) -> Result<(), PackError> {
    if frames.len() != expected {
        return Err(PackError::FrameCount { rendition, expected, given: frames.len() });
    }
    match frames.iter().map(Bytes::len).find(|length| !(1..=longest).contains(length)) {
        Some(length) => Err(PackError::FrameLength { rendition, length }),
        None => Ok(()),
    }
}
