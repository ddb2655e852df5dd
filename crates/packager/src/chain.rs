//! The chain of hashes: canonical bytes of its records, signing and reading them.
//!
//! There is one chain a rendition. Its links are *records*; the *head* of a chain is the SHA-256 of its last record,
//! signature included, and each record names the head before it. Two records belong to all three chains at once:
//! an epoch record, with which an incarnation of origin begins, and the closing record, with which an event ends.
//!
//! ```text
//!             part 0 … part 7        8 … 15               16 … 18 ╳ origin dies    19 … 23        24 …
//! opus-24:  E₁ ───────────── S₀ ──────────── S₁ ────────────────── E₂ ───────────────────── S₂ ── … ── Sₙ ── C
//! opus-48:  E₁ ───────────── S₀ ──────────── S₁ ────────────────── E₂ ───────────────────── S₂ ── … ── Sₙ ── C
//! mp3-64:   E₁ ───────────── S₀ ──────────── S₁ ────────────────── E₂ ───────────────────── S₂ ── … ── Sₙ ── C
//! carried
//! by part   0               8               16                    19                       24              (end)
//! ```
//!
//! What a signature covers ("statement") is never parsed, only rebuilt and compared:
//!
//! ```text
//! ┌────────────────────────────┬───┬─────────┬──────────────────────┬───────────────────────────────────────────┐
//! │ domain string, NUL at end  │len│ slug    │ record without its   │ only in a segment's statement: SHA-256 of │
//! │ "minassa.chain.v1.<kind>\0"│ 1 │ of event│ signature            │ each part covered, in order, 32 bytes each│
//! └────────────────────────────┴───┴─────────┴──────────────────────┴───────────────────────────────────────────┘
//! ```
//!
//! The slug and the digests of parts are *not* carried in a segment's record: whoever verifies knows the event
//! (from the address, or from the key) and has the parts. So a record costs 156 bytes every 3.84 s, 180 in its box.
//! All numbers are big-endian. Times are nanoseconds since 1970-01-01T00:00:00Z.
//!
//! ```text
//! segment record, 156 bytes                      epoch record, 256 + 100·n bytes
//!   0  1  version = 1                              0  1  version = 1
//!   1  1  kind = 1                                 1  1  kind = 2
//!   2  1  rendition, 0..3                          2  1  n: parts of the tail, 0..=8
//!   3  1  index in the segment of the first part   3  1  zero
//!   4  1  count of parts, 1..=8                    4  4  epoch
//!   5  1  zero                                     8  8  first part this epoch made
//!   6  2  kinds: 2 bits a part, the first lowest  16  8  opened, UNIX time
//!   8  4  epoch that signs                        24  8  opened, time since boot in nanoseconds
//!  12  8  segment                                 32 16  boot id
//!  20 32  head of this chain before               48  8  doors (part 0 begins), UNIX time
//!  52 32  head of the ledger                      56 96  heads before, in the order of Rendition::ALL
//!  84  8  key id                                 152 32  head of the ledger
//!  92 64  Ed25519 signature                      184  8  key id
//!                                                192  …  tail: n × (epoch 4, digests 3 × 32)
//! closing record, 224 bytes                        …  64  Ed25519 signature
//!   0  1  version = 1
//!   1  1  kind = 3                               absent parts, 12 + 32·n bytes, not signed
//!   2  2  zero                                     0  1  version = 1
//!   4  4  epoch that signs                         1  1  kind = 4
//!   8  8  end: number after the last part          2  1  rendition, 0..3
//!  16  8  closed, UNIX time                        3  1  n: count of parts, 1..=8
//!  24 96  heads before, in order                   4  8  number of the first
//! 120 32  head of the ledger                      12  …  n × SHA-256
//! 152  8  key id
//! 160 64  Ed25519 signature
//! ```
//!
//! The **tail** of an epoch record lists what the incarnation found and takes over: the parts `first − n .. first`
//! that no segment record had covered yet, some of them perhaps refilled from an edge. The segment they belong to is
//! then signed as a whole by the new epoch.
//!
//! **Absent parts** are no link of the chain: they accompany a cut (a download from `live_at`), and give the digests
//! of the parts of a segment that were cut away, so that the segment's signature can be checked with the parts that
//! are there. Nobody signs them because a wrong digest makes the segment fail.
//!
//! Bits of `kinds`: 0 slate, 1 live, 2 hold, 3 gap. So marks of holds and gaps are signed in every rendition, also in
//! MP3 where the part itself has no place for one.

use bytes::{BufMut as _, Bytes, BytesMut};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use formats::mp4;
use model::{
    BootId, BootTime, ChainRecord, ClockReading, Digest, Epoch, EventSlug, KeyId, PARTS_PER_SEGMENT,
    PartKind, PartNumber, Rendition, SegmentNumber, UnixTime,
};

/// Version of the canonical bytes.
pub const VERSION: u8 = 1;
/// Bytes of a segment's record.
pub const SEGMENT_RECORD_LEN: usize = 156;
/// Bytes of a closing record.
pub const CLOSING_RECORD_LEN: usize = 224;
/// Bytes of an epoch's record without a tail.
pub const EPOCH_RECORD_LEN: usize = 256;
/// Most bytes any record has.
pub const RECORD_LEN_MAX: usize = EPOCH_RECORD_LEN + TAIL_PARTS_MAX * TAIL_PART_LEN;
/// Most parts that can wait for a segment's signature: one whole segment, signed when the next one begins.
pub const TAIL_PARTS_MAX: usize = PARTS_PER_SEGMENT as usize;

/// Highest number of a part that is read: a billion years of parts, and still countable from.
const PART_MAX: u64 = u64::MAX >> 8;
const TAIL_PART_LEN: usize = 4 + 3 * 32;
const SIGNATURE_LEN: usize = 64;
const KIND_SEGMENT: u8 = 1;
const KIND_EPOCH: u8 = 2;
const KIND_CLOSING: u8 = 3;
const KIND_ABSENT: u8 = 4;

/// Bytes that are no record of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter or longer than its kind allows.
    #[error("a chain record of {length} bytes, which its kind does not have")]
    Length {
        /// Bytes given.
        length: usize,
    },
    /// A version this code does not know.
    #[error("chain record of version {0}, only version 1 is known")]
    Version(u8),
    /// A kind this code does not know.
    #[error("chain record of unknown kind {0}")]
    Kind(u8),
    /// A field has a value outside its range.
    #[error("chain record with a value out of range in {0}")]
    Field(&'static str),
}

/// A signature that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The record names another key.
    #[error("signed with another key")]
    OtherKey,
    /// The signature does not fit the record, the event and the parts.
    #[error("the signature does not fit")]
    Mismatch,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The parts of a segment in one rendition.
    Segment(SegmentRecord),
    /// An incarnation of origin begins.
    Epoch(EpochRecord),
    /// The event is over.
    Closing(ClosingRecord),
    /// Digests of parts that were cut away; unsigned.
    Absent(AbsentParts),
}

/// Signs the parts of one segment in one rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRecord {
    /// Whose parts.
    pub rendition: Rendition,
    /// The first part covered: the segment's first, or later when the recording begins within a segment.
    pub first: PartNumber,
    /// What each covered part carries, 1 to 8; the parts are `first`, `first + 1`, …
    pub kinds: Vec<PartKind>,
    /// The incarnation that signs.
    pub epoch: Epoch,
    /// Head of this rendition's chain before.
    pub previous: Digest,
    /// Head of the ledger when it was signed; zero while there is none.
    pub ledger: Digest,
    /// Which key signs.
    pub key: KeyId,
    /// Ed25519 over the statement.
    pub signature: [u8; 64],
}

/// A part that an incarnation took over unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailDigests {
    /// The incarnation that made it.
    pub epoch: Epoch,
    /// Its digests in the order of [`Rendition::ALL`].
    pub digests: [Digest; 3],
}

/// Signs the beginning of an incarnation of origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRecord {
    /// Which incarnation.
    pub epoch: Epoch,
    /// The first part it made.
    pub first: PartNumber,
    /// Both clocks when it opened.
    pub opened: ClockReading,
    /// When part 0 begins, from the event's anchor.
    pub doors: UnixTime,
    /// Heads of the chains before, in the order of [`Rendition::ALL`]; zero for the first epoch of an event.
    pub previous: [Digest; 3],
    /// Head of the ledger.
    pub ledger: Digest,
    /// Which key signs.
    pub key: KeyId,
    /// Parts before `first` that no segment record covers yet, at most 8, ending just before `first`.
    pub tail: Vec<TailDigests>,
    /// Ed25519 over the statement.
    pub signature: [u8; 64],
}

/// Signs the end of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosingRecord {
    /// The incarnation that signs.
    pub epoch: Epoch,
    /// The number after the last part.
    pub end: PartNumber,
    /// When it was signed.
    pub closed: UnixTime,
    /// Heads of the chains before, in the order of [`Rendition::ALL`].
    pub previous: [Digest; 3],
    /// Head of the ledger.
    pub ledger: Digest,
    /// Which key signs.
    pub key: KeyId,
    /// Ed25519 over the statement.
    pub signature: [u8; 64],
}

/// Digests of parts that are not there, for checking a segment that was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbsentParts {
    /// Whose parts.
    pub rendition: Rendition,
    /// The first of them.
    pub first: PartNumber,
    /// Their digests, 1 to 8.
    pub digests: Vec<Digest>,
}

/// The head of a chain whose last link is `record`.
pub fn head(record: &ChainRecord) -> Digest {
    Digest::of(&record.0)
}

/// The number that stands for a kind in records, in [`formats::mp4::UUID_PART_INFO`] boxes and in the index.
pub const fn kind_code(kind: PartKind) -> u8 {
    match kind {
        PartKind::Slate => 0,
        PartKind::Live => 1,
        PartKind::Hold => 2,
        PartKind::Gap => 3,
    }
}

/// The kind a number stands for.
pub const fn kind_of(code: u8) -> Option<PartKind> {
    match code {
        0 => Some(PartKind::Slate),
        1 => Some(PartKind::Live),
        2 => Some(PartKind::Hold),
        3 => Some(PartKind::Gap),
        _ => None,
    }
}

impl Record {
    /// Reads canonical bytes. Every record has exactly one form: what is read writes the same bytes again.
    ///
    /// # Errors
    /// [`RecordError`] if they are no record; signatures are not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut fields = Fields { bytes };
        match fields.u8()? {
            VERSION => {}
            other => return Err(RecordError::Version(other)),
        }
        let record = match fields.u8()? {
            KIND_SEGMENT => Self::Segment(SegmentRecord::read(&mut fields)?),
            KIND_EPOCH => Self::Epoch(EpochRecord::read(&mut fields)?),
            KIND_CLOSING => Self::Closing(ClosingRecord::read(&mut fields)?),
            KIND_ABSENT => Self::Absent(AbsentParts::read(&mut fields)?),
            other => return Err(RecordError::Kind(other)),
        };
        if fields.bytes.is_empty() { Ok(record) } else { Err(RecordError::Length { length: bytes.len() }) }
    }

    /// Its canonical bytes.
    pub fn to_chain_record(&self) -> ChainRecord {
        match self {
            Self::Segment(record) => record.to_chain_record(),
            Self::Epoch(record) => record.to_chain_record(),
            Self::Closing(record) => record.to_chain_record(),
            Self::Absent(record) => record.to_chain_record(),
        }
    }
}

impl SegmentRecord {
    /// Which segment.
    pub fn segment(&self) -> SegmentNumber {
        self.first.segment()
    }

    /// The number after the last part covered.
    pub fn end(&self) -> PartNumber {
        self.first.plus(self.kinds.len() as u64)
    }

    /// Signs: sets `key` and `signature`. `digests` are those of the parts covered, in order.
    pub fn sign(&mut self, event: &EventSlug, digests: &[Digest], key: &SigningKey) {
        self.key = key_id(key);
        self.signature = key.sign(&self.statement(event, digests)).to_bytes();
    }

    /// Checks the signature against the parts' digests, in order.
    ///
    /// # Errors
    /// [`SignatureError`] if it is another's, or does not fit.
    pub fn verify(
        &self,
        event: &EventSlug,
        digests: &[Digest],
        key: &VerifyingKey,
    ) -> Result<(), SignatureError> {
        check(key, self.key, &self.statement(event, digests), &self.signature)
    }

    /// Its canonical bytes.
    pub fn to_chain_record(&self) -> ChainRecord {
        finish(self.unsigned(), &self.signature)
    }

    fn statement(&self, event: &EventSlug, digests: &[Digest]) -> Vec<u8> {
        let mut statement = statement(b"minassa.chain.v1.segment\0", event, &self.unsigned());
        digests.iter().for_each(|digest| statement.extend_from_slice(&digest.0));
        statement
    }

    fn unsigned(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(SEGMENT_RECORD_LEN);
        out.put_slice(&[VERSION, KIND_SEGMENT, self.rendition.index() as u8]);
        out.put_slice(&[self.first.index_in_segment() as u8, self.kinds.len() as u8, 0]);
        let kinds = self.kinds.iter().rev().fold(0u16, |bits, &kind| bits << 2 | u16::from(kind_code(kind)));
        out.put_u16(kinds);
        out.put_u32(self.epoch.0);
        out.put_u64(self.segment().get());
        out.put_slice(&self.previous.0);
        out.put_slice(&self.ledger.0);
        out.put_slice(&self.key.0);
        out
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        let rendition = fields.rendition()?;
        let index = fields.u8()?;
        let count = fields.u8()?;
        if count == 0 || u64::from(index) + u64::from(count) > PARTS_PER_SEGMENT {
            return Err(RecordError::Field("count"));
        }
        fields.zero(1)?;
        let bits = u16::from_be_bytes(fields.take()?);
        let kinds = (0..count)
            .map(|part| kind_of((bits >> (2 * part) & 3) as u8).ok_or(RecordError::Field("kinds")))
            .collect::<Result<Vec<_>, _>>()?;
        if count < 8 && bits >> (2 * count) != 0 {
            return Err(RecordError::Field("kinds"));
        }
        let epoch = fields.epoch()?;
        let segment = u64::from_be_bytes(fields.take()?);
        if segment > PART_MAX / PARTS_PER_SEGMENT {
            return Err(RecordError::Field("segment"));
        }
        Ok(Self {
            rendition,
            first: SegmentNumber::new(segment).first_part().plus(u64::from(index)),
            kinds,
            epoch,
            previous: fields.digest()?,
            ledger: fields.digest()?,
            key: KeyId(fields.take()?),
            signature: fields.take()?,
        })
    }
}

impl EpochRecord {
    /// Signs: sets `key` and `signature`.
    pub fn sign(&mut self, event: &EventSlug, key: &SigningKey) {
        self.key = key_id(key);
        self.signature = key.sign(&self.statement(event)).to_bytes();
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`SignatureError`] if it is another's, or does not fit.
    pub fn verify(&self, event: &EventSlug, key: &VerifyingKey) -> Result<(), SignatureError> {
        check(key, self.key, &self.statement(event), &self.signature)
    }

    /// Its canonical bytes.
    pub fn to_chain_record(&self) -> ChainRecord {
        finish(self.unsigned(), &self.signature)
    }

    fn statement(&self, event: &EventSlug) -> Vec<u8> {
        statement(b"minassa.chain.v1.epoch\0", event, &self.unsigned())
    }

    fn unsigned(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(EPOCH_RECORD_LEN + self.tail.len() * TAIL_PART_LEN);
        out.put_slice(&[VERSION, KIND_EPOCH, self.tail.len() as u8, 0]);
        out.put_u32(self.epoch.0);
        out.put_u64(self.first.get());
        out.put_i64(self.opened.unix.as_nanos());
        out.put_u64(self.opened.boot.as_nanos());
        out.put_slice(&self.opened.boot_id.0);
        out.put_i64(self.doors.as_nanos());
        self.previous.iter().for_each(|head| out.put_slice(&head.0));
        out.put_slice(&self.ledger.0);
        out.put_slice(&self.key.0);
        for part in &self.tail {
            out.put_u32(part.epoch.0);
            part.digests.iter().for_each(|digest| out.put_slice(&digest.0));
        }
        out
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        let tail = usize::from(fields.u8()?);
        if tail > TAIL_PARTS_MAX {
            return Err(RecordError::Field("tail"));
        }
        fields.zero(1)?;
        let epoch = fields.epoch()?;
        let first = fields.part()?;
        if first.get() < tail as u64 {
            return Err(RecordError::Field("tail"));
        }
        Ok(Self {
            epoch,
            first,
            opened: ClockReading {
                unix: fields.unix()?,
                boot: BootTime::from_nanos(u64::from_be_bytes(fields.take()?)),
                boot_id: BootId(fields.take()?),
            },
            doors: fields.unix()?,
            previous: fields.heads()?,
            ledger: fields.digest()?,
            key: KeyId(fields.take()?),
            tail: (0..tail)
                .map(|_| Ok(TailDigests { epoch: fields.epoch()?, digests: fields.heads()? }))
                .collect::<Result<Vec<_>, RecordError>>()?,
            signature: fields.take()?,
        })
    }
}

impl ClosingRecord {
    /// Signs: sets `key` and `signature`.
    pub fn sign(&mut self, event: &EventSlug, key: &SigningKey) {
        self.key = key_id(key);
        self.signature = key.sign(&self.statement(event)).to_bytes();
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`SignatureError`] if it is another's, or does not fit.
    pub fn verify(&self, event: &EventSlug, key: &VerifyingKey) -> Result<(), SignatureError> {
        check(key, self.key, &self.statement(event), &self.signature)
    }

    /// Its canonical bytes.
    pub fn to_chain_record(&self) -> ChainRecord {
        finish(self.unsigned(), &self.signature)
    }

    fn statement(&self, event: &EventSlug) -> Vec<u8> {
        statement(b"minassa.chain.v1.closing\0", event, &self.unsigned())
    }

    fn unsigned(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(CLOSING_RECORD_LEN);
        out.put_slice(&[VERSION, KIND_CLOSING, 0, 0]);
        out.put_u32(self.epoch.0);
        out.put_u64(self.end.get());
        out.put_i64(self.closed.as_nanos());
        self.previous.iter().for_each(|head| out.put_slice(&head.0));
        out.put_slice(&self.ledger.0);
        out.put_slice(&self.key.0);
        out
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        fields.zero(2)?;
        Ok(Self {
            epoch: fields.epoch()?,
            end: fields.part()?,
            closed: fields.unix()?,
            previous: fields.heads()?,
            ledger: fields.digest()?,
            key: KeyId(fields.take()?),
            signature: fields.take()?,
        })
    }
}

impl AbsentParts {
    /// Its canonical bytes.
    pub fn to_chain_record(&self) -> ChainRecord {
        let mut out = BytesMut::with_capacity(12 + 32 * self.digests.len());
        out.put_slice(&[VERSION, KIND_ABSENT, self.rendition.index() as u8, self.digests.len() as u8]);
        out.put_u64(self.first.get());
        self.digests.iter().for_each(|digest| out.put_slice(&digest.0));
        ChainRecord(out.freeze())
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, RecordError> {
        let rendition = fields.rendition()?;
        let count = fields.u8()?;
        if count == 0 || u64::from(count) > PARTS_PER_SEGMENT {
            return Err(RecordError::Field("count"));
        }
        let first = fields.part()?;
        let digests = (0..count).map(|_| fields.digest()).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { rendition, first, digests })
    }
}

fn key_id(key: &SigningKey) -> KeyId {
    KeyId::of(key.verifying_key().as_bytes())
}

fn statement(domain: &[u8], event: &EventSlug, record: &[u8]) -> Vec<u8> {
    let slug = event.as_str().as_bytes();
    let mut statement = Vec::with_capacity(domain.len() + 1 + slug.len() + record.len() + 8 * 32);
    statement.extend_from_slice(domain);
    statement.push(slug.len() as u8);
    statement.extend_from_slice(slug);
    statement.extend_from_slice(record);
    statement
}

fn finish(mut unsigned: BytesMut, signature: &[u8; 64]) -> ChainRecord {
    unsigned.put_slice(signature);
    ChainRecord(unsigned.freeze())
}

fn check(
    key: &VerifyingKey,
    named: KeyId,
    statement: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<(), SignatureError> {
    if named != KeyId::of(key.as_bytes()) {
        return Err(SignatureError::OtherKey);
    }
    // Strict: small-order keys and the torsion that makes one signature fit two messages are refused.
    key.verify_strict(statement, &Signature::from_bytes(signature)).map_err(|_| SignatureError::Mismatch)
}

/// Reads fields from the front of a record.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (field, rest) =
            self.bytes.split_first_chunk::<N>().ok_or(RecordError::Length { length: self.bytes.len() })?;
        self.bytes = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn zero(&mut self, count: usize) -> Result<(), RecordError> {
        for _ in 0..count {
            if self.u8()? != 0 {
                return Err(RecordError::Field("zero"));
            }
        }
        Ok(())
    }

    fn rendition(&mut self) -> Result<Rendition, RecordError> {
        let index = usize::from(self.u8()?);
        Rendition::ALL.get(index).copied().ok_or(RecordError::Field("rendition"))
    }

    fn part(&mut self) -> Result<PartNumber, RecordError> {
        let number = u64::from_be_bytes(self.take()?);
        if number > PART_MAX { Err(RecordError::Field("part")) } else { Ok(PartNumber::new(number)) }
    }

    fn epoch(&mut self) -> Result<Epoch, RecordError> {
        Ok(Epoch(u32::from_be_bytes(self.take()?)))
    }

    fn unix(&mut self) -> Result<UnixTime, RecordError> {
        Ok(UnixTime::from_nanos(i64::from_be_bytes(self.take()?)))
    }

    fn digest(&mut self) -> Result<Digest, RecordError> {
        self.take().map(Digest)
    }

    fn heads(&mut self) -> Result<[Digest; 3], RecordError> {
        Ok([self.digest()?, self.digest()?, self.digest()?])
    }
}

/// Reads a record as it is carried by a part.
///
/// # Errors
/// [`RecordError`] if it is none.
pub fn parse(record: &ChainRecord) -> Result<Record, RecordError> {
    Record::parse(&record.0)
}

/// A record in a box of its own, for the places where it does not belong to the part that follows: after the last
/// part, and before the first of a cut. It is a `skip` box whose content begins with [`formats::mp4::UUID_CHAIN`]: a
/// `uuid` box there would be taken for one of the next part's.
pub fn detached_box(record: &ChainRecord) -> Bytes {
    let length = 8 + mp4::UUID_CHAIN.len() + record.0.len();
    let mut out = BytesMut::with_capacity(length);
    out.put_u32(length as u32);
    out.put_slice(b"skip");
    out.put_slice(&mp4::UUID_CHAIN);
    out.put_slice(&record.0);
    out.freeze()
}

/// The record in a whole `skip` box, if it is one of [`detached_box`].
pub fn from_detached_box(bytes: &[u8]) -> Option<ChainRecord> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let record = rest.strip_prefix(b"skip")?.strip_prefix(&mp4::UUID_CHAIN)?;
    let whole = u32::from_be_bytes(*size) as usize == bytes.len() && record.len() <= RECORD_LEN_MAX;
    whole.then(|| ChainRecord(Bytes::copy_from_slice(record)))
}
