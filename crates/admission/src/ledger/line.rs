//! Lines: canonical bytes, hashes and signatures.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use model::{Digest, EventSlug};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::anonymous::Fingerprints;
use super::bin::{Bin, BinStart};
use super::check::Damage;
use crate::room::Commitment;

/// Longest line, in bytes without the line feed.
pub const LINE_MAX: usize = 32 * 1024;

const HASH_DOMAIN: &[u8] = b"minassa.ledger.v1.line\0";
const SIGN_DOMAIN: &[u8] = b"minassa.ledger.v1.sign\0";
const SEQ: &str = "{\"v\":1,\"seq\":";
const PREV: &str = ",\"prev\":\"";
const OPEN: &str = "\",\"open\":";
const GAP: &str = "\",\"gap\":";
const BIN: &str = ",\"bin\":";
const CLOSE: &str = "\",\"close\":";
const HASH: &str = ",\"hash\":\"";
const SIG: &str = "\",\"sig\":\"";
const END: &str = "\"}";
/// Bytes after the statement.
const TAIL_LEN: usize = HASH.len() + 64 + SIG.len() + 128 + END.len();

/// What the first line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The event, as a slug.
    event: String,
    /// The event's Ed25519 public key, in hexadecimal digits.
    key: String,
    /// When the doors open, milliseconds of UNIX time.
    pub doors_ms: u64,
    /// The announced start, milliseconds of UNIX time.
    pub announced_ms: u64,
    /// Version of the table of thresholds in force ([`crate::verdict::THRESHOLDS`]).
    pub thresholds: u64,
    /// What TLS fingerprints came to former events or to the rehearsal, to compare with.
    pub reference: Option<Fingerprints>,
    /// What was committed to for the draw of the waiting room: nobody can exchange the seed once this line is witnessed.
    pub draw: Option<Commitment>,
}

impl Opening {
    /// Of `event`, whose ledger `key` signs.
    pub fn new(
        event: &EventSlug,
        key: &VerifyingKey,
        doors_ms: u64,
        announced_ms: u64,
        reference: Option<Fingerprints>,
    ) -> Self {
        Self {
            event: event.as_str().to_owned(),
            key: hex(key.as_bytes()),
            doors_ms,
            announced_ms,
            thresholds: crate::verdict::VERSION,
            reference,
            draw: None,
        }
    }

    /// … whose draw is committed to.
    #[must_use]
    pub fn with_draw(self, commitment: Commitment) -> Self {
        Self { draw: Some(commitment), ..self }
    }

    /// The event's slug.
    pub fn event(&self) -> &str {
        &self.event
    }

    pub(super) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        self.key == hex(key.as_bytes())
    }
}

/// What the last line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closing {
    /// When the ledger was closed, milliseconds of UNIX time.
    pub closed_ms: u64,
}

/// What a line holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The ledger begins.
    Open(Box<Opening>),
    /// A bin.
    Bin(Box<Bin>),
    /// The ledger ends.
    Close(Closing),
}

/// Where a ledger ends so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of the next line.
    pub(super) next: u64,
    pub(super) digest: Digest,
    pub(super) last: Option<BinStart>,
    pub(super) closed: bool,
}

impl Head {
    /// Of a ledger without lines.
    pub const EMPTY: Self = Self { next: 0, digest: Digest([0; 32]), last: None, closed: false };

    /// SHA-256 of the last line; zero while there is none. This is what segments of audio witness.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// How many lines there are.
    pub fn lines(&self) -> u64 {
        self.next
    }

    /// When the last bin began.
    pub fn last_bin(&self) -> Option<BinStart> {
        self.last
    }

    /// Whether the closing line is written.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bins missing between the last and `start`; nothing if it is not later.
    fn gap(&self, start: BinStart) -> Option<u64> {
        match self.last {
            None => Some(0),
            Some(last) => start.bins_since(last)?.checked_sub(1),
        }
    }

    /// The head after `line`, in which `entry` stands.
    fn after(&self, line: &[u8], entry: &Entry) -> Self {
        Self {
            next: self.next.saturating_add(1),
            digest: Digest::of(line),
            last: if let Entry::Bin(bin) = entry { Some(bin.start()) } else { self.last },
            closed: matches!(entry, Entry::Close(_)),
        }
    }
}

/// Why an entry cannot be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A ledger opens once, first.
    #[error("a ledger begins with its opening, and has one")]
    Opening,
    /// The opening names another key.
    #[error("the opening names another key than the one that signs")]
    OtherKey,
    /// The bin is not later than the last.
    #[error("the bin is not later than the last one")]
    Time,
    /// The ledger is closed.
    #[error("the ledger is closed")]
    Closed,
    /// The line would be longer than [`LINE_MAX`].
    #[error("the line would be too long")]
    TooLong,
}

/// Appends to the ledger that ends at `head`: the line, without a line feed, and the new head.
///
/// # Errors
/// [`AppendError`] if the entry does not belong there.
pub fn append(head: &Head, entry: &Entry, key: &SigningKey) -> Result<(String, Head), AppendError> {
    if head.closed {
        return Err(AppendError::Closed);
    }
    if (head.next == 0) != matches!(entry, Entry::Open(_)) {
        return Err(AppendError::Opening);
    }
    let gap = match entry {
        Entry::Open(opening) if !opening.is_signed_by(&key.verifying_key()) => {
            return Err(AppendError::OtherKey);
        }
        Entry::Bin(bin) => head.gap(bin.start()).ok_or(AppendError::Time)?,
        Entry::Open(_) | Entry::Close(_) => 0,
    };
    let mut line = statement(head.next, &head.digest, gap, entry);
    let hash = hash(line.as_bytes());
    let signature = key.sign(&signed(&hash));
    line.push_str(HASH);
    line.push_str(&hex(&hash.0));
    line.push_str(SIG);
    line.push_str(&hex(&signature.to_bytes()));
    line.push_str(END);
    if line.len() > LINE_MAX {
        return Err(AppendError::TooLong);
    }
    let head = head.after(line.as_bytes(), entry);
    Ok((line, head))
}

/// Reads the line after `head`: what it holds, the bins missing before it, and the new head.
pub(super) fn read(head: &Head, line: &[u8], key: &VerifyingKey) -> Result<(Entry, u64, Head), Damage> {
    let (statement, given_hash, signature) = take_apart(line).ok_or(Damage::Shape)?;
    let hash = hash(statement.as_bytes());
    if hash != given_hash {
        return Err(Damage::Hash);
    }
    key.verify_strict(&signed(&hash), &signature).map_err(|_| Damage::Signature)?;
    // From here on it is what a holder of the key wrote, whole.
    let (seq, prev, gap, entry) = parse(statement)?;
    if seq != head.next {
        let (expected, found) = (head.next, seq);
        return Err(if seq > expected {
            Damage::Missing { expected, found }
        } else {
            Damage::Repeated { expected, found }
        });
    }
    if prev != head.digest {
        return Err(Damage::Replaced);
    }
    if head.closed {
        return Err(Damage::AfterClosing);
    }
    match &entry {
        Entry::Open(opening) if head.next == 0 && !opening.is_signed_by(key) => return Err(Damage::OtherKey),
        Entry::Open(_) if head.next == 0 => {}
        Entry::Bin(bin) if head.next > 0 => {
            if head.gap(bin.start()) != Some(gap) {
                return Err(Damage::Time);
            }
        }
        Entry::Close(_) if head.next > 0 => {}
        Entry::Open(_) | Entry::Bin(_) | Entry::Close(_) => return Err(Damage::Opening),
    }
    if self::statement(seq, &prev, gap, &entry) != statement {
        return Err(Damage::NotCanonical);
    }
    let head = head.after(line, &entry);
    Ok((entry, gap, head))
}

fn statement(seq: u64, prev: &Digest, gap: u64, entry: &Entry) -> String {
    let start = format!("{SEQ}{seq}{PREV}{prev}");
    match entry {
        Entry::Open(opening) => start + OPEN + &json(opening),
        Entry::Bin(bin) => format!("{start}{GAP}{gap}{BIN}{}", json(bin)),
        Entry::Close(closing) => start + CLOSE + &json(closing),
    }
}

/// Fields in the order of their definition, no spaces: what serde_json writes.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our types have names for keys and write to memory")
}

fn hash(statement: &[u8]) -> Digest {
    Digest::of(&[HASH_DOMAIN, statement].concat())
}

fn signed(hash: &Digest) -> Vec<u8> {
    [SIGN_DOMAIN, &hash.0].concat()
}

/// Statement, hash and signature of a line of the right shape.
fn take_apart(line: &[u8]) -> Option<(&str, Digest, Signature)> {
    let line = std::str::from_utf8(line).ok().filter(|line| line.is_ascii() && line.len() <= LINE_MAX)?;
    let (statement, tail) = line.split_at_checked(line.len().checked_sub(TAIL_LEN)?)?;
    let (hash, rest) = tail.strip_prefix(HASH)?.split_at_checked(64)?;
    let (signature, end) = rest.strip_prefix(SIG)?.split_at_checked(128)?;
    let shaped = statement.starts_with(SEQ) && end == END;
    let hash = Digest(unhex(hash)?);
    let signature = Signature::from_bytes(&unhex(signature)?);
    shaped.then_some((statement, hash, signature))
}

fn parse(statement: &str) -> Result<(u64, Digest, u64, Entry), Damage> {
    let head = statement.strip_prefix(SEQ).and_then(|rest| rest.split_once(PREV)).ok_or(Damage::Shape)?;
    let seq = head.0.parse().map_err(|_| Damage::Shape)?;
    let (prev, body) = head.1.split_at_checked(64).ok_or(Damage::Shape)?;
    let prev = Digest(unhex(prev).ok_or(Damage::Shape)?);
    if let Some(opening) = body.strip_prefix(OPEN) {
        let opening: Opening = content(opening)?;
        // It ends up in reports and file names.
        opening.event.parse::<EventSlug>().map_err(|error| Damage::Content(error.to_string()))?;
        Ok((seq, prev, 0, Entry::Open(Box::new(opening))))
    } else if let Some(closing) = body.strip_prefix(CLOSE) {
        Ok((seq, prev, 0, Entry::Close(content(closing)?)))
    } else {
        let (gap, bin) = body.strip_prefix(GAP).and_then(|rest| rest.split_once(BIN)).ok_or(Damage::Shape)?;
        let gap = gap.parse().map_err(|_| Damage::Shape)?;
        Ok((seq, prev, gap, Entry::Bin(Box::new(content(bin)?))))
    }
}

/// Reads `data` as a statement whose signature was good already, for fuzzing what lies behind signatures.
pub(crate) fn fuzz_statement(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok((seq, prev, gap, entry)) = parse(text) {
        let once = statement(seq, &prev, gap, &entry);
        let (seq, prev, gap, again) = parse(&once).expect("what we write we read");
        assert_eq!(statement(seq, &prev, gap, &again), once, "one form only");
    }
}

fn content<T: DeserializeOwned>(text: &str) -> Result<T, Damage> {
    serde_json::from_str(text).map_err(|error| Damage::Content(error.to_string()))
}

/// Hexadecimal digits in lower case.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// Reads exactly `N` bytes in lower case digits.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; N];
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}
