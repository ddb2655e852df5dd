//! Checking a recording, or any stretch of one, against the event's public key.
//!
//! Pure: parts by their digests, records as they were found, one rendition at a time. A segment *verifies* if its
//! record's signature fits the digests of exactly the parts it covers. The chain *holds* if every record names the
//! head before it. Together they say that no byte was changed and nothing was removed, put in or reordered between
//! two records; an epoch record with zero heads and the closing record say so about the beginning and the end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use formats::mp4::{self, Mp4Error};
use model::{
    ChainRecord, ClockReading, Digest, Epoch, EventSlug, PART_SAMPLES, PartKind, PartNumber, Rendition,
    UnixTime,
};

use crate::chain::{self, Record, RecordError, SegmentRecord, SignatureError};

/// A part as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundPart {
    /// The number it claims: from its `tfdt`, its place, or the index.
    pub number: PartNumber,
    /// SHA-256 of its bytes as found.
    pub digest: Digest,
    /// What it is said to carry, if anything says so outside the signature; compared with what was signed.
    pub kind: Option<PartKind>,
}

impl FoundPart {
    /// Hashes the bytes of a part.
    pub fn hash(number: PartNumber, bytes: &[u8]) -> Self {
        Self { number, digest: Digest::of(bytes), kind: None }
    }

    /// Reads a part of an Opus rendition: itself, and the records it carries. Its number is what its `tfdt` says.
    ///
    /// # Errors
    /// [`Mp4Error`] if it is no part of ours.
    pub fn read_cmaf(bytes: &[u8]) -> Result<(Self, Vec<ChainRecord>), Mp4Error> {
        let part = mp4::parse_part(bytes)?;
        let mut kind = None;
        let mut records = Vec::new();
        for (uuid, content) in part.uuids {
            match (uuid, content) {
                (mp4::UUID_CHAIN, record) => records.push(ChainRecord(Bytes::copy_from_slice(record))),
                (mp4::UUID_PART_INFO, [_, code, ..]) => kind = chain::kind_of(*code),
                _ => {}
            }
        }
        let number = PartNumber::new(part.decode_time.samples() / PART_SAMPLES);
        Ok((Self { number, digest: Digest::of(bytes), kind }, records))
    }
}

/// What was found out about one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Signed with another key.
    OtherKey,
    /// The signature does not fit the record and the parts found: a byte of either was changed.
    Signature,
    /// Some of the parts covered were not found.
    MissingParts(Vec<PartNumber>),
    /// It does not name the head before it: a record was changed, removed, put in or moved.
    ChainBroken,
    /// Parts were skipped, or covered twice, between the record before and this one.
    Coverage {
        /// The part that had to be covered next.
        expected: PartNumber,
        /// The first that is.
        found: PartNumber,
    },
    /// A part is said to be of another kind than was signed.
    Kind(PartNumber),
    /// An epoch took over another part than was found.
    Tail(PartNumber),
    /// A record after the closing one, an epoch that does not grow, or a record of another epoch than the one open.
    Order,
}

impl From<SignatureError> for Fault {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::OtherKey => Self::OtherKey,
            SignatureError::Mismatch => Self::Signature,
        }
    }
}

/// One segment's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentVerdict {
    /// Parts its record covers.
    pub parts: Range<PartNumber>,
    /// The incarnation that signed it.
    pub epoch: Epoch,
    /// What each part carries, as signed.
    pub kinds: Vec<PartKind>,
    /// The ledger's head it is a witness of.
    pub ledger: Digest,
    /// Nothing wrong, or what is.
    pub faults: Vec<Fault>,
}

impl SegmentVerdict {
    /// Whether its parts are as signed. A broken chain beside it is reported, and does not change that.
    pub fn verified(&self) -> bool {
        self.faults
            .iter()
            .all(|fault| matches!(fault, Fault::ChainBroken | Fault::Coverage { .. } | Fault::Order))
    }
}

/// An incarnation of origin that signed its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochVerdict {
    /// Which.
    pub epoch: Epoch,
    /// The first part it made.
    pub first: PartNumber,
    /// Both clocks when it opened.
    pub opened: ClockReading,
    /// When part 0 begins, as signed.
    pub doors: UnixTime,
    /// Nothing wrong, or what is.
    pub faults: Vec<Fault>,
}

/// The end, as signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosingVerdict {
    /// The number after the last part.
    pub end: PartNumber,
    /// When it was closed.
    pub closed: UnixTime,
    /// Nothing wrong, or what is.
    pub faults: Vec<Fault>,
}

/// What is ours in one rendition, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which rendition.
    pub rendition: Rendition,
    /// Every segment record of this rendition, in the order given, but those of segments that end before the first
    /// part found: the first part of a stretch carries the record of what came before it.
    pub segments: Vec<SegmentVerdict>,
    /// Every epoch record.
    pub epochs: Vec<EpochVerdict>,
    /// The closing record.
    pub closing: Option<ClosingVerdict>,
    /// Whether the chain and the parts begin with the event's first epoch, so that nothing is missing before.
    pub from_beginning: bool,
    /// Parts found that no verified segment covers. Of a running event these are the newest ones.
    pub unsigned: Vec<PartNumber>,
    /// Numbers found twice with different bytes.
    pub contradictory: Vec<PartNumber>,
    /// Records that could not be read at all, by their place in the list given.
    pub malformed: Vec<(usize, RecordError)>,
}

impl Report {
    /// Whether nothing is wrong with any record: no byte of what they cover was changed, and nothing was removed, put
    /// in or moved between the first and the last of them. Parts that no record covers are in [`Self::unsigned`].
    pub fn intact(&self) -> bool {
        self.malformed.is_empty()
            && self.contradictory.is_empty()
            && self.segments.iter().all(|segment| segment.faults.is_empty())
            && self.epochs.iter().all(|epoch| epoch.faults.is_empty())
            && self.closing.iter().all(|closing| closing.faults.is_empty())
    }

    /// Whether it is the whole event: intact, from its first epoch to its closing record, and no part more.
    pub fn complete(&self) -> bool {
        self.intact() && self.from_beginning && self.closing.is_some() && self.unsigned.is_empty()
    }
}

/// Checks parts of one rendition against records, in the order of the chain. Records of other renditions are passed
/// over, and so is one that repeats the record before. Parts may come in any order; the order that counts is that of
/// their numbers.
pub fn verify(
    event: &EventSlug,
    rendition: Rendition,
    key: &VerifyingKey,
    parts: &[FoundPart],
    records: &[ChainRecord],
) -> Report {
    let mut walk = Walk {
        event,
        key,
        found: BTreeMap::new(),
        digests: BTreeMap::new(),
        head: None,
        next: None,
        epoch: None,
        covered: BTreeSet::new(),
        report: Report {
            rendition,
            segments: Vec::new(),
            epochs: Vec::new(),
            closing: None,
            from_beginning: false,
            unsigned: Vec::new(),
            contradictory: Vec::new(),
            malformed: Vec::new(),
        },
    };
    for part in parts {
        let before = walk.found.insert(part.number, *part);
        if before.is_some_and(|before| before.digest != part.digest) {
            walk.report.contradictory.push(part.number);
        }
        walk.digests.insert(part.number, part.digest);
    }
    let parsed: Vec<_> = records.iter().map(chain::parse).collect();
    for absent in parsed.iter().filter_map(|record| match record {
        Ok(Record::Absent(absent)) if absent.rendition == rendition => Some(absent),
        _ => None,
    }) {
        for (number, digest) in (absent.first.get()..).map(PartNumber::new).zip(&absent.digests) {
            walk.digests.entry(number).or_insert(*digest);
        }
    }
    for (index, (bytes, record)) in records.iter().zip(parsed).enumerate() {
        match record {
            Err(error) => walk.report.malformed.push((index, error)),
            Ok(record) => walk.record(chain::head(bytes), record),
        }
    }
    let Walk { mut report, found, covered, .. } = walk;
    report.unsigned = found.into_keys().filter(|number| !covered.contains(number)).collect();
    report
}

/// The walk along a chain.
struct Walk<'a> {
    event: &'a EventSlug,
    key: &'a VerifyingKey,
    found: BTreeMap<PartNumber, FoundPart>,
    /// Of the parts found, and of those known to be absent.
    digests: BTreeMap<PartNumber, Digest>,
    /// After the last record; `None` before the first.
    head: Option<Digest>,
    /// The part that the next record has to begin with; `None` before the first.
    next: Option<PartNumber>,
    epoch: Option<Epoch>,
    /// Parts of segments that verify.
    covered: BTreeSet<PartNumber>,
    report: Report,
}

impl Walk<'_> {
    fn record(&mut self, head: Digest, record: Record) {
        if self.head == Some(head) {
            return;
        }
        let index = self.report.rendition.index();
        match record {
            Record::Absent(_) => return,
            Record::Segment(segment) if segment.rendition != self.report.rendition => return,
            Record::Segment(segment) => {
                let mut faults = self.link(segment.previous, segment.first, segment.end());
                if self.epoch.is_some_and(|epoch| segment.epoch != epoch) {
                    faults.push(Fault::Order);
                }
                self.epoch = Some(segment.epoch);
                if self.digests.first_key_value().is_none_or(|(first, _)| segment.end() <= *first) {
                    self.report.from_beginning = false;
                    self.head = Some(head);
                    return;
                }
                self.check_segment(&segment, &mut faults);
                let verdict = SegmentVerdict {
                    parts: segment.first..segment.end(),
                    epoch: segment.epoch,
                    kinds: segment.kinds,
                    ledger: segment.ledger,
                    faults,
                };
                if verdict.verified() {
                    self.covered.extend(numbers(&verdict.parts));
                }
                self.report.segments.push(verdict);
            }
            Record::Epoch(epoch) => {
                self.report.from_beginning |= self.head.is_none() && epoch.previous == [Digest::default(); 3];
                let tail = epoch.first.minus(epoch.tail.len() as u64);
                let mut faults = self.link(epoch.previous[index], tail, tail);
                if self.epoch.is_some_and(|before| epoch.epoch <= before) {
                    faults.push(Fault::Order);
                }
                self.epoch = Some(epoch.epoch);
                faults.extend(epoch.verify(self.event, self.key).err().map(Fault::from));
                for (number, signed) in (tail.get()..).map(PartNumber::new).zip(&epoch.tail) {
                    if self.digests.get(&number).is_some_and(|digest| *digest != signed.digests[index]) {
                        faults.push(Fault::Tail(number));
                    }
                }
                self.report.epochs.push(EpochVerdict {
                    epoch: epoch.epoch,
                    first: epoch.first,
                    opened: epoch.opened,
                    doors: epoch.doors,
                    faults,
                });
            }
            Record::Closing(closing) => {
                let mut faults = self.link(closing.previous[index], closing.end, closing.end);
                if self.epoch.is_some_and(|epoch| closing.epoch != epoch) {
                    faults.push(Fault::Order);
                }
                faults.extend(closing.verify(self.event, self.key).err().map(Fault::from));
                self.report.closing =
                    Some(ClosingVerdict { end: closing.end, closed: closing.closed, faults });
            }
        }
        self.head = Some(head);
    }

    /// Checks that a record which covers `first..end` comes after the one before.
    fn link(&mut self, previous: Digest, first: PartNumber, end: PartNumber) -> Vec<Fault> {
        let mut faults = Vec::new();
        if self.report.closing.is_some() {
            faults.push(Fault::Order);
        }
        if self.head.is_some_and(|head| head != previous) {
            faults.push(Fault::ChainBroken);
        }
        if let Some(expected) = self.next.filter(|next| *next != first) {
            faults.push(Fault::Coverage { expected, found: first });
        }
        self.next = Some(end);
        faults
    }

    fn check_segment(&self, segment: &SegmentRecord, faults: &mut Vec<Fault>) {
        let covers = segment.first..segment.end();
        let missing: Vec<_> = numbers(&covers).filter(|number| !self.digests.contains_key(number)).collect();
        if !missing.is_empty() {
            faults.push(Fault::MissingParts(missing));
            return;
        }
        let digests: Vec<_> = numbers(&covers).map(|number| self.digests[&number]).collect();
        faults.extend(segment.verify(self.event, &digests, self.key).err().map(Fault::from));
        for (number, signed) in numbers(&covers).zip(&segment.kinds) {
            let said = self.found.get(&number).and_then(|part| part.kind);
            if said.is_some_and(|said| said != *signed) {
                faults.push(Fault::Kind(number));
            }
        }
    }
}

fn numbers(range: &Range<PartNumber>) -> impl Iterator<Item = PartNumber> + use<> {
    (range.start.get()..range.end.get()).map(PartNumber::new)
}
