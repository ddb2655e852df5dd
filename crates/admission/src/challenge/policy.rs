//! When newcomers are challenged, and how hard it is.

use std::time::Duration;

use model::UnixTime;

use crate::ladder::{Level, Priority};
use crate::ledger::BinStart;
use crate::verdict::{Class, Sign, Verdict};

/// Confidence from which a verdict begins it, 1/10,000: a rule for requests fires, and a second one or a doubt with it.
pub const ON_BP: u64 = 7_500;
/// Confidence down to which verdicts keep it up: that of one rule alone.
pub const STAY_BP: u64 = 7_000;
const _: () = assert!(STAY_BP < ON_BP, "what begins it keeps it up");
/// How long it goes on after the last bin that asked for it: verdicts come every ten seconds, and an attack breathes.
pub const HOLD: Duration = Duration::from_secs(60);
/// A verdict about a bin that began longer ago says nothing about now.
pub const STALE: Duration = Duration::from_secs(60);
/// The greatest number of a challenge, at each step. What a search takes, and where that is from, is in
/// `docs/challenge.md`: the last keeps within 200 ms on a desk and 1.5 s on an old phone, even where all are tried.
pub const NUMBERS_MAX: [u32; 3] = [50_000, 100_000, 200_000];
/// Bins that ask for it between two looks at the difficulty.
const STEP_BINS: u32 = 3;
/// Share of those challenged who solve it, per cent, from which it becomes harder: the attack pays, so let it pay more.
pub const HARDER_FROM: u64 = 50;
/// Share below which it becomes easier: programs that do not answer do not mind, and people would.
pub const EASIER_BELOW: u64 = 10;
/// Fewest challenges that a share is made of.
const TRAFFIC_MIN: u64 = 20;

/// What became of the challenges of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many were given.
    pub asked: u64,
    /// How many were solved.
    pub solved: u64,
}

impl Traffic {
    /// Solved ones of a hundred; nothing can be said of a few.
    fn share(self) -> Option<u64> {
        (self.asked >= TRAFFIC_MIN).then(|| self.solved.saturating_mul(100) / self.asked)
    }
}

/// The state of one event. It begins with nobody challenged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// When a verdict asked for it last.
    asked_for: Option<UnixTime>,
    /// The bin that was looked at last.
    bin: Option<BinStart>,
    /// Bins that asked for it, since it began or since the last look at the difficulty.
    bins: u32,
    step: usize,
    /// Since the last look at the difficulty.
    traffic: Traffic,
}

impl Policy {
    /// Takes in the latest verdict, and what became of challenges since it was asked last. To be called every few seconds;
    /// a verdict that was taken in before changes nothing.
    pub fn observe(&mut self, verdict: Option<&Verdict>, traffic: Traffic, now: UnixTime) {
        self.traffic.asked = self.traffic.asked.saturating_add(traffic.asked);
        self.traffic.solved = self.traffic.solved.saturating_add(traffic.solved);
        let was_on = self.is_on(now);
        if !was_on {
            (self.bins, self.step, self.traffic) = (0, 0, Traffic::default());
        }
        let Some(verdict) = verdict.filter(|verdict| self.bin != Some(verdict.at_ms)) else { return };
        self.bin = Some(verdict.at_ms);
        let enough = if was_on { STAY_BP } else { ON_BP };
        if !names_requests(verdict) || verdict.confidence_bp < enough || !is_fresh(verdict, now) {
            self.step = self.step.saturating_sub(1);
            return;
        }
        self.asked_for = Some(now);
        self.bins += 1;
        if self.bins < STEP_BINS {
            return;
        }
        let traffic = std::mem::take(&mut self.traffic);
        self.bins = 0;
        match traffic.share() {
            Some(share) if share >= HARDER_FROM => self.step = (self.step + 1).min(NUMBERS_MAX.len() - 1),
            Some(share) if share < EASIER_BELOW => self.step = self.step.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether evidence asks for it now, whatever the ladder says.
    pub fn is_on(&self, now: UnixTime) -> bool {
        // A clock that is set back does not prolong it.
        let apart = |at: UnixTime| now.since(at).max(at.since(now));
        self.asked_for.is_some_and(|at| apart(at) < HOLD)
    }

    /// What is asked of somebody: the greatest number of their challenge, if they are challenged at all. `placed` is
    /// whether they have a place in the waiting room already.
    pub fn asks(&self, who: Priority, placed: bool, level: Level, now: UnixTime) -> Option<u32> {
        let asks = who == Priority::Newcomer && !placed && level >= Level::L4 && self.is_on(now);
        asks.then(|| NUMBERS_MAX[self.step])
    }
}

/// An attack with requests, alone or among what is mixed. Against packets and handshakes arithmetic is no help.
fn names_requests(verdict: &Verdict) -> bool {
    match verdict.class {
        Class::L7 => true,
        Class::Mixed => verdict.reasons.iter().any(|reason| reason.sign == Sign::L7),
        Class::Crowd | Class::L34 | Class::SelfInflicted | Class::Insufficient => false,
    }
}

fn is_fresh(verdict: &Verdict, now: UnixTime) -> bool {
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(0);
    let age_ms = now_ms.abs_diff(verdict.at_ms.as_millis());
    u128::from(age_ms) <= STALE.as_millis()
}
