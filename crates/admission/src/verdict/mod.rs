//! The verdict: crowd, attack or our own fault, from published bins alone.
//!
//! Every ten seconds a [`Judge`] takes the bin that just ended and says what the load is, with the reasons. Whoever has
//! the ledger gets the same verdicts from it, in this implementation or in `check/verdict_check.py`, which was written
//! from this page. Nobody is admitted, refused or dropped because of a verdict: it is for those who ask afterwards what
//! happened, and for an operator who wonders now.
//!
//! All numbers are integers without sign. Shares are basis points (1/10,000): `share(a, b) = min(⌊10,000·a ÷ b⌋,
//! 1,000,000)`, and for `b = 0` it is 0 if `a = 0`, otherwise 1,000,000. `a ∸ b` is `a − b`, but not below 0.
//!
//! # The window
//!
//! `b0` is the bin judged, `b1` and `b2` the two before it. After bins that are missing (a gap) the window begins anew
//! with `b0`; what is not in it counts 0. `S2(x)` is `x` of `b0` and `b1` added, `S3(x)` of all three, `n` is how many
//! of `b0`, `b1` there are. A feature that **needs** `b1` does not exist without it.
//!
//! # What is usual
//!
//! Verdicts that are [`Class::Crowd`] or [`Class::Insufficient`] are *calm* while the judge is not wary (below), and
//! while there is no baseline and arrivals are not rising: what is doubtful from the first minute is usual. When a
//! verdict and the two before it in the same window are calm, its `b2` joins the **baseline**, which holds the last
//! [`BASELINE_BINS`] that joined. So the beginning of something does not make itself usual. With fewer than
//! [`BASELINE_BINS_MIN`] bins there is no baseline. `base(x)` is the lower median of `x` over it: the element number
//! `⌊(count − 1) ÷ 2⌋` of the values in order, counted from 0.
//!
//! * `x` **has risen** `f`-fold (`f` in tenths): `10·S2(x) ≥ f·n·base(x)`; without a baseline it always has.
//! * Arrivals **are rising**: `10·(arrivals of b0) ≥ 12·base(arrivals) + 200`; without a baseline,
//!   `arrivals of b0 ≥ 2·(arrivals of the oldest bin in the window) + 100`. That is where one looks closer, before
//!   anything can be said to have risen.
//! * Of `b1` and `b2`, as far as they are there, `m` being how many of them are: `E(x)` is `x` of both added, `E⁺(x) =
//!   E(x) ∸ m·base(x)` what is beyond usual. `S3⁺(x) = S3(x) ∸ m·base(x)` gives them all of `b0` to go on, and `F⁺(k) =
//!   (followed of the last k bins added) ∸ k·base(followed)`, of as many as there are. Without a baseline `base` is 0 here.
//! * `chance(c) = 4·⌊√c⌋`: four standard deviations of a count.
//! * The load is **flat**: there is a baseline, and `2·S2(arrivals) ≤ 3·n·base(arrivals) + 200`,
//!   `S2(connections) ≤ 3·n·base(connections) + 200` and `S2(requests) ≤ 4·n·base(requests) + 500`.
//! * We are **slow**: `loop_late_us` of one of the last [`SLOW_BINS`] bins (gaps not counted) ≥ 100,000, or
//!   `share(S2(listen_overflows), S2(connections)) ≥ 500` (where all kernels in the window speak; otherwise 0), or
//!   `share(S2(handshakes_shed), S2(handshakes_started)) ≥ 2,000`. We are **impaired** if we are slow or
//!   `share(S2(server_errors), S2(requests)) ≥ 500`. Capacity that is lost does not count: those who come are sent where
//!   there is some.
//! * We may be **short** of what everybody needs to listen: `level` of `b0` or `b1` ≥ 3, unless `share(sessions of b0,
//!   capacity of b0) ≥ 8,000`: the ladder is also that high when all places are taken.
//!
//! # Features
//!
//! A feature has a value and a count behind it. Its rule in [`THRESHOLDS`] fires when the value is at or above the
//! threshold, the count is at or above the floor, and what the rule needs holds. Some rules must, while we are slow,
//! be **corroborated**: `half_open`, `unused_tickets`, `lost_sessions`, `bare_playlists`, `shut_readers` and
//! `unfinished_requests`. When we are slow, everybody's handshakes and requests hang; when audio does not come, people
//! leave as well. What corroborates is that three doubts fire, or one of `ignored_challenges`, `forged_tickets` and
//! `protocol_abuse`. Errors excuse less: they hold no handshake, and end no session that was opened. Where they can be
//! the reason they are in the formula.
//!
//! What edges know of a session comes late. One that follows, or takes nothing, is counted as `opened` when that is known,
//! up to 21 s after its beginning; one that goes before is counted when it goes. A ticket is `used` at the beginning.
//! Handshakes are counted as started when they have ended, one way or the other.
//!
//! | Feature | Value | Count |
//! | --- | --- | --- |
//! | *L3/4* | | |
//! | `unanswered_cookies` | `share(count, S2(connections))`, where `b0` and, if it is there, `b1` have kernel counters | `S2(cookies_sent) ∸ S2(cookies_returned)` |
//! | `unfinished_handshakes` | `share(count, S2(handshakes_started))` | `S2(handshakes_started) ∸ S2(handshakes_finished) ∸ S2(handshakes_shed)` |
//! | `half_open` | the lesser of `share(half_open, connections)` of `b0` and of `b1`; needs `b1` | `half_open` of `b0` |
//! | `refused_datagrams` | `share(count, S2(datagrams))` | `S2(datagrams_refused)` |
//! | *L7* | | |
//! | `unused_tickets` | `share(count, E⁺(given)) ∸ share(S3(server_errors), S3(requests))`; needs `b1` | `E⁺(given) ∸ S3⁺(used) ∸ chance(E(given))` |
//! | `lost_sessions` | `share(count, max(E⁺(opened), E⁺(used)))`; needs `b1` | `E⁺(opened) ∸ S3⁺(followed) ∸ chance(E(opened))` |
//! | `bare_playlists` | `share(S2(playlists), S2(files) + S2(opened) + S2(server_errors))` | `S2(playlists) ∸ S2(files)` |
//! | `shut_readers` | `share(count, came)`; needs `b1`; not if `d > came + ⌊came ÷ 4⌋`: then those stopped reading who were there. It is *unknown* who reads if `shut_unknown` of `b0` or of the oldest bin of the window is not 0; then not while we may be short either | `d = x of b0 ∸ x of the oldest bin of the window ∸ chance(both added)`, where `x` is `shut` and `came = E⁺(used) + (E⁺(arrivals) ∸ E⁺(asked))`. Where unknown `x` is `starved`, `came = E⁺(used)`, and the count the lesser of `d` and `came ∸ F⁺(3)` |
//! | `unfinished_requests` | the lesser of `share(pending, connections)` of `b0` and of `b1`; needs `b1` | `pending` of `b0` |
//! | `slow_requests` | `share(count, S2(connections))` | `S2(timed_out)` |
//! | `protocol_abuse` | `share(count, S2(connections))` | `S2(abuse)` |
//! | `forged_tickets` | `share(count, S2(connections))` | `S2(forged)` |
//! | `bad_requests` | `share(count, S2(requests))` | `S2(client_errors)` |
//! | `ignored_challenges` | `share(count, S2(ignored) + S2(passed))` | `S2(ignored)` |
//! | *our own* | | |
//! | `lost_capacity` | the lesser of `share(P ∸ capacity, P)` of `b0` and of `b1`, where `P` is the highest `capacity` of the last [`PEAK_BINS`] bins (gaps not counted), `b0` included; needs `b1` | the value |
//! | `lost_processes` | the lesser of `share(expected ∸ reported, expected)` of `b0` and of `b1`; needs `b1` | the value |
//! | `slow_disk` | the greater `disk_write_us` of `b0` and `b1`, µs | the value |
//! | `server_errors` | `share(count, S2(requests))` | `S2(server_errors)` |
//! | `busy_processor` | `cpu_bp of b0 ∸ base(cpu_bp)`; needs a baseline | `cpu_bp` of `b0` |
//! | `late_loop` | the greater `loop_late_us` of `b0` and `b1`, µs | the value |
//! | *doubts* | | |
//! | `foreign_fingerprints` | the least [divergence](#fingerprints) from the mixes there are to compare with | `S2(arrivals)` |
//! | `concentrated_prefixes` | `share(first 10 of top added, all)` of the prefixes of `b0` | all arrivals in the prefixes of `b0` |
//! | `unfamiliar_prefixes` | `base(f) ∸ f`, where `f = share(familiar, all)` of the prefixes of a bin, and `base(f)` is over the bins of the baseline that have it, at least [`BASELINE_BINS_MIN`]; `f` is of `b0` | all arrivals in the prefixes of `b0` |
//! | `sudden_arrivals` | `share(S2(arrivals), n·base(arrivals))`, if `b0` begins more than 600,000 ms from the announced start, and arrivals of `b0` ≥ 4 times those of `b1` + 100, or of `b1` ≥ 4 times those of `b2` + 100 (only of bins that are there); needs a baseline | `S2(arrivals)` |
//! | `untaken_turns` | `10,000 ∸ share(S3(taken), S3(called))` | `S3(called)` |
//! | *people* | | |
//! | `follow_through` | `min(share(S3(followed), opened of b1 + opened of b2), 10,000)`; needs `b1` | `opened of b1 + opened of b2` |
//! | `acknowledged` | `min(share(S2(bytes_acked), S2(bytes_due)), 10,000)` | `listeners` of `b0` |
//! | `surge` | `share(S2(followed), n·base(followed))`; needs a baseline, and that `shut_readers` does not fire | `S2(followed)` |
//!
//! ## Fingerprints
//!
//! The mix now is that of `b0` and `b1` added. There are up to two to compare with: the reference in the ledger's opening,
//! and that of the bins of the baseline added. All totals include the rest and must be at least 200, otherwise there is
//! nothing to compare. With totals `T` now and `U` then, `t(x)` and `u(x)` the arrivals with fingerprint `x`, and `r` the
//! rest then: divergence `= share(Σₓ (t(x)·U ∸ u(x)·T), T·U) ∸ share(r, U)`, over all `x` that have a name now. It is the
//! share that must be new, even if the rest then was all of it.
//!
//! # The class
//!
//! 1. A **sign** is there if a rule of it fires: L3/4, L7. *Our own* is there if `lost_capacity`, `lost_processes` or
//!    `slow_disk` fires, or, while neither of the two is, if `server_errors`, `busy_processor` or `late_loop` does.
//!    Doubts are counted, and looked at only while `arrivals` have risen 20 tenths and `S2(arrivals) ≥ 200`.
//! 2. Two signs, or one and a `surge` that fires: [`Class::Mixed`]. One sign: its class.
//! 3. Without a sign: fewer than 20 `listeners` in `b0` and fewer than 50 `S2(arrivals)`, or two doubts or more:
//!    [`Class::Insufficient`]. Of `follow_through` and `acknowledged` those count whose count is at least 20. If none does,
//!    or if one is below 5,000 and we are not impaired, or are and have a doubt: [`Class::Insufficient`]. Otherwise
//!    [`Class::Crowd`].
//!
//! # Wary
//!
//! A bin is **unsettled** if a doubt fires, or if arrivals are rising and we cannot say that all is well: there is no
//! baseline, there is no `foreign_fingerprints` to be had, or a doubt has half of what it takes to fire (value at or above
//! `⌊threshold ÷ 2⌋`, count at or above `⌊floor ÷ 2⌋`, whatever else it needs); while the judge is wary, also if arrivals
//! are rising at all. Whoever came in it is still there when nobody comes any more. With the first such bin the judge
//! becomes **wary** and notes `listeners` of the oldest bin in its window as `l`.
//!
//! Beside that it keeps how many listeners are **unproven**, 0 in the beginning and never forgotten: the first such bin
//! adds `F⁺(3)`, each one after it, and the two bins after an unsettled one while it is still wary, add `F⁺(1)`; after each
//! bin it is at most `listeners` of that bin. The judge is wary no more after a bin that is not unsettled, with `listeners`
//! of at most `l + ⌊l ÷ 8⌋ + 50`, and with at most `⌊listeners ÷ 8⌋ + 50` unproven.
//!
//! # Confidence
//!
//! In basis points, a degree and not a probability; [`CONFIDENT`] is where it may be quoted.
//!
//! * L7, L3/4: 7,000, 1,000 more for each rule of the sign that fires after the first, 500 for each doubt; at most 9,500.
//! * Our own: 7,000, 1,000 more for each rule after the first that counts, 500 if `b0` or `b1` has a mark `deploy`,
//!   `restart`, `configuration`, `disk_slow`, `disk_switched` or `edge_lost`; at most 9,500.
//! * Mixed: the least of its signs' (7,000 for a surge). Insufficient: 0.
//! * Crowd: 9,500, less 2,000 while wary; 2,000 without a baseline; 1,000 while impaired; 2,000 if `waiting` of `b0`
//!   exceeds `listeners` of `b0` and `S3(opened)` is below 20: nobody proves anything by waiting.
//!
//! # Reasons
//!
//! In the order of [`THRESHOLDS`]: with a sign, the rules that fire, of the signs and doubts and `surge`, each named if its
//! sign counts (`surge` only with a sign); without one, the doubts that fire, and `follow_through` and `acknowledged` where
//! they count (direction `above` if at or above 5,000, otherwise `below`). Last `wary`, if so: `listeners` of `b0`, and the
//! bound above.
//!
//! # Since
//!
//! The beginning of the first of the verdicts in unbroken line that had this class (a gap breaks no line).
//!
//! # What this cannot do
//!
//! A machine that asks for a ticket, listens at the rate of speech, comes with everybody's fingerprints, from everybody's
//! networks and when everybody comes, *is* a listener to us, and costs its owner as much. With any one of these missing
//! there is half a doubt at least, and the word crowd is not said with confidence. The price is paid by crowds: many an
//! honest one is called a crowd without confidence, because it comes from new networks, at once, or where there are no
//! fingerprints. Machines that are there from the first minute, without a reference to compare them with, are what is
//! usual. An attack that is small beside the honest arrivals is not named, and one that comes while we are slow from a
//! fault of our own may be named late, or as our fault alone. Beside an attack a busy processor, late turns and errors
//! are taken for its effects, so that such a fault is not named. Of readers that hold
//! us with the lowest rendition edges know only after 21 s, so that most of these attacks are named after half a minute.

mod features;
mod judge;
mod mix;
mod thresholds;

pub use features::Feature;
pub use judge::{Judge, judge};
pub use thresholds::{
    BASELINE_BINS, BASELINE_BINS_MIN, CONFIDENT, Needs, PEAK_BINS, Rule, SLOW_BINS, THRESHOLDS, VERSION,
};

use serde::Serialize;

use crate::ledger::BinStart;

/// What the load is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Class {
    /// People who listen.
    #[serde(rename = "CROWD")]
    Crowd,
    /// An attack with requests.
    #[serde(rename = "L7")]
    L7,
    /// An attack with packets, connections or handshakes.
    #[serde(rename = "L3/4")]
    L34,
    /// Our own fault.
    #[serde(rename = "SELF-INFLICTED")]
    SelfInflicted,
    /// More than one of these at once.
    #[serde(rename = "MIXED")]
    Mixed,
    /// The evidence does not say.
    #[serde(rename = "INSUFFICIENT")]
    Insufficient,
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Crowd => "CROWD",
            Self::L7 => "L7",
            Self::L34 => "L3/4",
            Self::SelfInflicted => "SELF-INFLICTED",
            Self::Mixed => "MIXED",
            Self::Insufficient => "INSUFFICIENT",
        })
    }
}

/// What a feature speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sign {
    /// An attack with packets, connections or handshakes.
    L34,
    /// An attack with requests.
    L7,
    /// Our own fault.
    Own,
    /// Against calling it a crowd.
    Doubt,
    /// People.
    People,
}

/// On which side of its threshold a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// At or above.
    Above,
    /// Below.
    Below,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What was looked at.
    pub feature: Feature,
    /// What it speaks for.
    pub sign: Sign,
    /// What it was, in the feature's unit.
    pub value: u64,
    /// What it is compared with.
    pub threshold: u64,
    /// On which side it lies.
    pub direction: Direction,
}

/// What is said about a bin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The bin judged.
    pub at_ms: BinStart,
    /// What the load is.
    pub class: Class,
    /// How well that is supported, 1/10,000.
    pub confidence_bp: u64,
    /// The bin in which this class began.
    pub since_ms: BinStart,
    /// Why.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// As one line of JSON: fields in the order of their definition, no spaces.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("our types have names for keys and write to memory")
    }

    /// Whether an attack is named: L7 or L3/4, or one of them among what is mixed.
    pub fn names_attack(&self) -> bool {
        self.has(&[Sign::L7, Sign::L34])
    }

    /// Whether a fault of our own is named, alone or among what is mixed.
    pub fn names_own_fault(&self) -> bool {
        self.has(&[Sign::Own])
    }

    fn has(&self, signs: &[Sign]) -> bool {
        self.reasons.iter().any(|reason| signs.contains(&reason.sign))
    }
}
