//! The ledger: what every process counted, in bins of ten seconds that others can check.
//!
//! A process counts into a [`ProcessBin`]; control merges those of one bin ([`Merger`]) into a [`Bin`], appends it to
//! the chain ([`append`]) and writes the line to `ledger/{event}.jsonl`. Anyone who has the file and the event's public
//! key checks it ([`check()`]) and recomputes the verdict ([`crate::verdict`]).
//!
//! # Who counts what
//!
//! Everything is counted by exactly one process. Counters count what happened within the bin; gauges are what is at its
//! end. A process sends its bin when it ends, by the event's clock; control waits two seconds for all of them.
//!
//! | Who | What |
//! | --- | --- |
//! | edges | [`Door`], [`Refused`], [`Audio`], `used` of [`Tickets`]; arrivals with their prefix and fingerprint |
//! | who issues tickets | `asked` and `given` of [`Tickets`], [`Admission`] |
//! | who writes the recording or the ledger | `disk_write_us` of [`Own`] |
//! | origin | `datagrams` and `datagrams_refused` of [`Own`] |
//! | edges | `capacity` and `level` of [`Own`] |
//! | every process | `cpu_bp` and `loop_late_us` of [`Own`] |
//! | one process a machine, at least | [`Kernel`] |
//! | who does it, or notices it | [`Mitigation`], [`Mark`] |
//!
//! # The file
//!
//! Lines end with one line feed, the last one too. Each is canonical JSON: no spaces, ASCII only, fields in the order
//! below, numbers as integers without sign, hexadecimal digits in lower case. A line has exactly one form, and whoever
//! reads it refuses every other.
//!
//! ```text
//! {"v":1,"seq":0,"prev":"000…000","open":{…},"hash":"64 digits","sig":"128 digits"}
//! {"v":1,"seq":1,"prev":"64 digits","gap":0,"bin":{…},"hash":"64 digits","sig":"128 digits"}
//! {"v":1,"seq":2,"prev":"64 digits","gap":3,"bin":{…},"hash":"64 digits","sig":"128 digits"}
//! {"v":1,"seq":3,"prev":"64 digits","close":{…},"hash":"64 digits","sig":"128 digits"}
//! └──────────────── statement ─────────────────┘
//! ```
//!
//! * `seq` counts lines from 0.
//! * `prev` is the SHA-256 of the whole line before, without its line feed; zeros in the first. The SHA-256 of the last
//!   line is the **head** of the ledger, which goes into the signature of each segment of audio: who listens, witnesses.
//! * `hash` is the SHA-256 of `"minassa.ledger.v1.line\0"` and the statement: all bytes from the line's first to the one
//!   before `,"hash"`.
//! * `sig` is the Ed25519 signature (RFC 8032) by the event's key over `"minassa.ledger.v1.sign\0"` and the 32 bytes of
//!   `hash`.
//! * `gap` counts the bins that are missing between this and the one before: control was dead or could not write.
//! * The first line is the [`Opening`], the last, once the event is over, the [`Closing`]. Without it lines may be
//!   missing at the end; [`Summary::closed`] says so, and a witness finds out ([`Damage::Witness`]).
//!
//! What the signature proves is that nobody without the key changed anything afterwards, and, through the witnesses,
//! that those with the key did not either. It does not prove that the counters told the truth; evidence of others
//! (an upstream's flow records, a CDN's logs) is laid beside it for that.
//!
//! # What is kept about people
//!
//! Nothing about one of them; see [`anonymous`].

pub mod anonymous;
mod bin;
mod check;
mod line;
mod merge;

pub use anonymous::{Fingerprints, Ja4, K, PrefixKey, PrefixTag, Prefixes};
pub use bin::{
    Admission, Audio, BIN_MS, Bin, BinStart, Cause, Counts, Door, Kernel, Mark, Marked, Measure, Mitigation,
    NotAligned, Own, Processes, Refused, Tickets,
};
pub use check::{Checked, Checker, Damage, Fault, Gap, Summary, check, resume};
pub use line::{AppendError, Closing, Entry, Head, LINE_MAX, Opening, append};
pub use merge::{Merger, PREFIXES_MAX, ProcessBin};

pub(crate) use line::fuzz_statement;
