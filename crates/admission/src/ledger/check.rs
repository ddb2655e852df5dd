//! Checking a ledger: what holds, and where it does not.

use ed25519_dalek::VerifyingKey;
use model::Digest;

use super::bin::{Bin, BinStart};
use super::line::{self, Entry, Head, Opening};

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// There is no line at all.
    #[error("the ledger is empty")]
    Empty,
    /// The last line does not end: it was cut, or is being written.
    #[error("the line does not end")]
    Unfinished,
    /// Not of the form of a line: too long or short, no ASCII, another beginning or end.
    #[error("this is no line of a ledger")]
    Shape,
    /// Its content and its hash do not agree: one of them was changed.
    #[error("the content of the line does not fit its hash")]
    Hash,
    /// Its signature is not the event's key's, or was changed.
    #[error("the signature does not fit")]
    Signature,
    /// Signed, but says something no ledger says.
    #[error("the line says what no ledger says: {0}")]
    Content(String),
    /// Signed, but not in the one form a line has.
    #[error("the line is not in canonical form")]
    NotCanonical,
    /// Lines before it are missing.
    #[error("lines {expected} to {} are missing", .found - 1)]
    Missing {
        /// The number that should be here.
        expected: u64,
        /// The number that is.
        found: u64,
    },
    /// A line that was there already, or whose place is further up.
    #[error("line number {found} stands where {expected} belongs: repeated, or out of order")]
    Repeated {
        /// The number that should be here.
        expected: u64,
        /// The number that is.
        found: u64,
    },
    /// It follows another line than the one before it: one of two that were both signed.
    #[error("the line follows another line than the one before it")]
    Replaced,
    /// The first line must open the ledger, and no other may.
    #[error("a ledger begins with its opening, and has one")]
    Opening,
    /// The opening names another key than the one given.
    #[error("the ledger was opened for another key")]
    OtherKey,
    /// The bin is not later than the one before, or the bins missing between are not admitted.
    #[error("the bin's time does not follow the one before")]
    Time,
    /// A line after the closing.
    #[error("the ledger was closed before this line")]
    AfterClosing,
    /// A head that listeners witnessed is not in the ledger: lines were cut off its end, or it was written anew.
    #[error("witnesses saw a line with SHA-256 {0}, which is not here")]
    Witness(Digest),
}

/// Where a ledger is damaged, and how. What stands before it holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, at byte {offset}: {damage}")]
pub struct Fault {
    /// Which line of the file, from 1.
    pub line: usize,
    /// Where that line begins in the file, in bytes.
    pub offset: usize,
    /// What is wrong.
    pub damage: Damage,
}

/// Bins that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The bin after them.
    pub before: BinStart,
    /// How many.
    pub bins: u64,
}

/// What a ledger that holds says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Lines, opening and closing included.
    pub lines: u64,
    /// SHA-256 of the last line.
    pub head: Digest,
    /// Whether it was closed. If not, lines may be missing at its end that no witness given has seen.
    pub closed: bool,
    /// Where nobody counted.
    pub gaps: Vec<Gap>,
}

/// A ledger that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What it says about itself.
    pub summary: Summary,
    /// Its first line.
    pub opening: Opening,
    /// Its bins.
    pub bins: Vec<Bin>,
}

/// Checks one line after another.
#[derive(Debug, Clone)]
pub struct Checker {
    key: VerifyingKey,
    head: Head,
}

impl Checker {
    /// For a ledger signed with the secret half of `key`.
    pub fn new(key: VerifyingKey) -> Self {
        Self { key, head: Head::EMPTY }
    }

    /// Checks the next line, given without its line feed: what it holds, and how many bins are missing before it.
    ///
    /// # Errors
    /// [`Damage`] if it is not the next line of this ledger, whole. Lines after it can then not be checked.
    pub fn line(&mut self, line: &[u8]) -> Result<(Entry, u64), Damage> {
        let (entry, gap, head) = line::read(&self.head, line, &self.key)?;
        self.head = head;
        Ok((entry, gap))
    }

    /// Where the ledger ends so far.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

/// Checks a whole ledger: every line's form, hash, signature and place, and that all `witnesses`, heads found in the
/// signatures of segments, are lines of it.
///
/// # Errors
/// The first [`Fault`].
pub fn check(ledger: &[u8], key: &VerifyingKey, witnesses: &[Digest]) -> Result<Checked, Fault> {
    let mut checker = Checker::new(*key);
    let (mut opening, mut bins, mut gaps) = (None, Vec::new(), Vec::new());
    let mut missing: Vec<Digest> =
        witnesses.iter().copied().filter(|&digest| digest != Digest([0; 32])).collect();
    let (mut at, mut lines) = (0, 0);
    let fault = |line, offset, damage| Fault { line, offset, damage };
    while at < ledger.len() {
        lines += 1;
        let rest = &ledger[at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or_else(|| fault(lines, at, Damage::Unfinished))?;
        let (entry, gap) = checker.line(&rest[..length]).map_err(|damage| fault(lines, at, damage))?;
        match entry {
            Entry::Open(first) => opening = Some(*first),
            Entry::Bin(bin) => {
                if gap > 0 {
                    gaps.push(Gap { before: bin.start(), bins: gap });
                }
                bins.push(*bin);
            }
            Entry::Close(_) => {}
        }
        missing.retain(|&digest| digest != checker.head.digest());
        at += length + 1;
    }
    let opening = opening.ok_or_else(|| fault(1, 0, Damage::Empty))?;
    if let Some(&unseen) = missing.first() {
        return Err(fault(lines + 1, at, Damage::Witness(unseen)));
    }
    let head = checker.head;
    let summary = Summary { lines: head.lines(), head: head.digest(), closed: head.is_closed(), gaps };
    Ok(Checked { summary, opening, bins })
}

/// Finds where to go on after a crash: the head, and how many bytes of the file to keep. A last line without its line
/// feed was being written and is cut off; nobody can have witnessed it.
///
/// # Errors
/// The first [`Fault`] in the finished lines: this ledger is not to be written on.
pub fn resume(ledger: &[u8], key: &VerifyingKey) -> Result<(Head, usize), Fault> {
    let keep = ledger.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let mut checker = Checker::new(*key);
    let mut offset = 0;
    for (line, bytes) in ledger[..keep].split_inclusive(|&byte| byte == b'\n').enumerate() {
        let fault = |damage| Fault { line: line + 1, offset, damage };
        checker.line(&bytes[..bytes.len() - 1]).map_err(fault)?;
        offset += bytes.len();
    }
    Ok((checker.head, keep))
}
