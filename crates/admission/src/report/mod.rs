//! The incident report: what a ledger says about an event, in the shape in which people ask.
//!
//! A [`Reader`] takes a ledger line by line, checks it, judges every bin and keeps what a [`Report`] needs, in bounded
//! memory however long the event. While the event runs the same report, made again every few seconds, is its public
//! status. Nothing in it comes from anywhere but the ledger, so whoever has that file and the key makes the same report
//! (`minassa report`).
//!
//! # The form
//!
//! As JSON, fields are named as here. Times are RFC 3339 in UTC with milliseconds; durations carry their unit; numbers
//! are integers without sign unless said otherwise. New fields may come; what is there keeps its meaning as long as
//! [`Report::version`] does.
//!
//! # What is counted
//!
//! * A **flow** (arrivals, admitted, refused, requests) is what happened within a time; flows of neighbours add up.
//! * A **gauge** (listening, waiting, level) is how it was at the end of ten seconds; of several the *highest* stands, so
//!   a coarser series hides no peak.
//! * **Listening** are people with audio delivered in the last 10 s; listening minutes are that number at the end of
//!   each ten seconds, times ten seconds.
//! * Lists are bounded; what did not fit is counted in `left_out`.
//!
//! # What is ours to blame
//!
//! [`Blame`] holds everything the ledger knows about faults of our own, whether or not a verdict names them: bins that
//! nobody counted, processes that did not report, slow disks, late loops, answers 5xx, connections lost at a full queue,
//! a late start, and the stretches for which the verdict says so. A stretch goes on over breaks shorter than a minute.
//! `under_attack` says that an attack was named at some time within it; what an attack does to us is still listed, since
//! withstanding it was our part.

mod build;
mod series;

#[cfg(test)]
mod tests;

use std::fmt;

use model::UnixTime;
use serde::{Serialize, Serializer};

pub use build::{Builder, Reader, read};
pub use series::{POINTS_MAX, Point, Series};

use crate::ledger::{Cause, Mark, Measure, Refused};
use crate::verdict::{Class, Feature, Sign};

/// Version of the form.
pub const VERSION: u32 = 1;
/// Most entries of a list.
pub const LIST_MAX: usize = 512;

/// A moment; in JSON RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// From milliseconds of UNIX time.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds of UNIX time.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Milliseconds since `earlier`; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UnixTime::from_millis(i64::try_from(self.0).unwrap_or(i64::MAX)).fmt(f)
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A list that holds at most [`LIST_MAX`] entries, the first ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct List<T> {
    /// The entries.
    pub items: Vec<T>,
    /// How many more there were.
    pub left_out: u64,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new(), left_out: 0 }
    }
}

impl<T> List<T> {
    fn push(&mut self, item: T) {
        if self.items.len() < LIST_MAX {
            self.items.push(item);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Version of this form: [`VERSION`].
    pub version: u32,
    /// The event, as a slug.
    pub event: String,
    /// Version of the thresholds that were in force when the ledger was opened.
    pub thresholds: u64,
    /// When the doors were to open.
    pub doors_at: Moment,
    /// The announced start.
    pub announced_at: Moment,
    /// When the show went live.
    pub live_at: Option<Moment>,
    /// Milliseconds from the announced start to that, negative if it was early; nothing if it did not, or if nobody
    /// counted at the announced time.
    pub late_ms: Option<i64>,
    /// When the show ended.
    pub ended_at: Option<Moment>,
    /// The time covered: the beginning of the first bin and the end of the last.
    pub covers: Option<Span>,
    /// Whether the ledger holds, and how that is known.
    pub integrity: Integrity,
    /// The last ten seconds.
    pub latest: Option<Latest>,
    /// Sums over all bins.
    pub totals: Totals,
    /// The highest values.
    pub peaks: Peaks,
    /// How it went.
    pub series: Series,
    /// The ladder's level over time.
    pub ladder: List<Step>,
    /// What was done, in the order of measures and causes.
    pub measures: Vec<Taken>,
    /// What happened to us, in order of time.
    pub marks: List<Happened>,
    /// What is ours to blame, in order of time.
    pub ours: List<Blame>,
    /// How long each class was named, in the order of [`Class`], all six.
    pub classes: Vec<ClassTime>,
    /// What the load was, over time.
    pub verdicts: List<Stretch>,
}

impl Report {
    /// As JSON, indented, with a line feed at its end.
    pub fn to_json(&self) -> String {
        let mut json =
            serde_json::to_string_pretty(self).expect("our types have names for keys and write to memory");
        json.push('\n');
        json
    }

    /// How long a class was named.
    pub fn time_of(&self, class: Class) -> ClassTime {
        let found = self.classes.iter().find(|time| time.class == class);
        found.copied().unwrap_or(ClassTime { class, seconds: 0, quotable_s: 0 })
    }
}

/// From one moment to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Its beginning.
    pub from: Moment,
    /// Its end.
    pub until: Moment,
}

/// Whether the ledger holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Integrity {
    /// Every line's form, hash, signature and place was checked, and held.
    pub holds: bool,
    /// Whose word for the key that is.
    pub key: KeyFrom,
    /// Lines that hold.
    pub lines: u64,
    /// SHA-256 of the last of them, in hexadecimal digits: what segments of audio witness.
    pub head: String,
    /// Whether it was closed. If not, lines may be missing at its end.
    pub closed: bool,
    /// Where it does not hold.
    pub fault: Option<Broken>,
    /// Bins that nobody counted.
    pub missing_bins: u64,
    /// Where they are.
    pub gaps: List<Span>,
}

/// Whose word it is that the key is the event's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyFrom {
    /// The publisher's: it was given by who checked.
    Publisher,
    /// The ledger's own: it is whole, but not known to be the publisher's.
    Ledger,
}

/// Where a ledger does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Which line, from 1.
    pub line: u64,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// What is wrong, in English.
    pub what: String,
}

/// The last ten seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latest {
    /// Their end.
    pub at: Moment,
    /// People who listened at it.
    pub listening: u64,
    /// Places in the waiting room whose turn had not come.
    pub waiting: u64,
    /// Arrivals in them.
    pub arrivals: u64,
    /// Tickets given in them.
    pub admitted: u64,
    /// Requests turned away in them.
    pub refused: u64,
    /// The ladder's highest level.
    pub level: u64,
    /// Listeners that the processes alive can carry.
    pub capacity: u64,
    /// Processes that should have counted.
    pub processes_expected: u64,
    /// Processes that did.
    pub processes_reported: u64,
    /// What the load was.
    pub class: Class,
    /// How well that is supported, a number from 0 to 1.
    #[serde(rename = "confidence", serialize_with = "as_share")]
    pub confidence_bp: u64,
    /// Whether that is enough to quote it without "perhaps".
    pub quotable: bool,
}

/// Sums over all bins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Bins of ten seconds.
    pub bins: u64,
    /// First requests for a ticket, and first requests of audio by players without one. People who come twice arrive
    /// twice.
    pub arrivals: u64,
    /// Tickets given, renewals not counted.
    pub admitted: u64,
    /// Requests turned away, all reasons together.
    pub refused: u64,
    /// The same by reason.
    pub refused_by: Refused,
    /// Places in the waiting room whose turn came.
    pub called: u64,
    /// Those that were taken up.
    pub taken: u64,
    /// Challenges given.
    pub challenged: u64,
    /// Challenges passed.
    pub passed: u64,
    /// Sessions of listening begun.
    pub sessions: u64,
    /// Those that got their third part.
    pub followed: u64,
    /// Bytes due to sessions at their media rate.
    pub bytes_due: u64,
    /// Bytes that listeners acknowledged.
    pub bytes_acked: u64,
    /// Minutes listened, by everybody together.
    pub listening_minutes: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Whole requests.
    pub requests: u64,
    /// Answers 4xx, challenges and 429 not counted.
    pub client_errors: u64,
    /// Answers 5xx, refusals with a place or a time to come back not counted.
    pub server_errors: u64,
    /// TLS handshakes that we gave up, for want of budget.
    pub handshakes_shed: u64,
    /// Connections closed because a request took too long.
    pub timed_out: u64,
    /// Connections closed for abuse of the protocol.
    pub abuse: u64,
    /// Datagrams refused at the stage's port.
    pub datagrams_refused: u64,
}

/// A highest value, and the end of the ten seconds in which it was first reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// The value.
    pub value: u64,
    /// When; nothing while it is 0.
    pub at: Option<Moment>,
}

impl Peak {
    fn see(&mut self, value: u64, at: Moment) {
        if value > self.value {
            *self = Self { value, at: Some(at) };
        }
    }
}

/// The highest values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peaks {
    /// People who listened at once.
    pub listening: Peak,
    /// People who waited at once.
    pub waiting: Peak,
    /// Arrivals within ten seconds.
    pub arrivals: Peak,
    /// Requests within ten seconds.
    pub requests: Peak,
    /// The ladder's level.
    pub level: Peak,
}

/// A time at one level of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its beginning.
    pub from: Moment,
    /// Its end.
    pub until: Moment,
    /// The highest level in each of its ten seconds, 0 to 6.
    pub level: u64,
}

/// Something that was done, for one cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// What was done.
    pub measure: Measure,
    /// Why.
    pub cause: Cause,
    /// How many times, or to how many.
    pub count: u64,
    /// The beginning of the ten seconds in which it was done first.
    pub first: Moment,
    /// The end of those in which it was done last.
    pub last: Moment,
}

/// Something that happened to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Happened {
    /// When.
    pub at: Moment,
    /// What.
    pub mark: Mark,
}

/// A fault of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnFault {
    /// The show went live later than announced. `worst` is by how much, ms.
    LateStart,
    /// The verdict names a fault of our own. `worst` is its highest confidence, 1/10,000.
    Named,
    /// Nobody counted. `worst` and `total` are bins.
    NotCounted,
    /// Processes did not report: dead, started anew or stuck. `worst` is how many at once.
    LostProcesses,
    /// Writing to disk took 250 ms or longer. `worst` is the slowest write, µs.
    SlowDisk,
    /// Turns of an event loop were 100 ms late or later. `worst` is the latest, µs.
    LateLoop,
    /// Answers 5xx. `worst` is the most in ten seconds, `total` all of them.
    ServerErrors,
    /// Connections lost at a full queue of ours. `worst` is the most in ten seconds, `total` all of them.
    QueueOverflow,
}

impl OwnFault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::LateStart,
        Self::Named,
        Self::NotCounted,
        Self::LostProcesses,
        Self::SlowDisk,
        Self::LateLoop,
        Self::ServerErrors,
        Self::QueueOverflow,
    ];
}

/// A time in which something of ours was at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Blame {
    /// What.
    pub fault: OwnFault,
    /// Since when.
    pub from: Moment,
    /// Until when.
    pub until: Moment,
    /// The worst of it, in the fault's unit.
    pub worst: u64,
    /// How much of it; bins, where the fault does not say otherwise.
    pub total: u64,
    /// Whether an attack was named at some time within it.
    pub under_attack: bool,
}

/// How long a class was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClassTime {
    /// The class.
    pub class: Class,
    /// Seconds.
    pub seconds: u64,
    /// Those with confidence enough to quote it.
    pub quotable_s: u64,
}

/// Verdicts of one class without a break.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stretch {
    /// The beginning of the first bin.
    pub from: Moment,
    /// The end of the last.
    pub until: Moment,
    /// What the load was.
    pub class: Class,
    /// The highest confidence in it, a number from 0 to 1.
    #[serde(rename = "confidence", serialize_with = "as_share")]
    pub confidence_bp: u64,
    /// Whether that is enough to quote it without "perhaps".
    pub quotable: bool,
    /// The reasons given with that confidence.
    pub reasons: Vec<Why>,
}

/// One thing that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// What; [`crate::verdict`] says how it is computed.
    pub feature: Feature,
    /// What it speaks for.
    pub sign: Sign,
    /// What it was, in the feature's unit.
    pub value: u64,
    /// What it is compared with.
    pub threshold: u64,
    /// Whether it is at or above that, rather than below.
    pub above: bool,
}

/// Basis points as a number from 0 to 1.
fn as_share<S: Serializer>(basis_points: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(*basis_points as f64 / 1e4)
}
