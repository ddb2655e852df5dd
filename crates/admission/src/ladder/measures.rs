//! What a level means: for extras, for newcomers, for those who listen.

use model::{BootTime, Rendition};

use super::classes::Priority;
use super::level::{Level, MARKS, share};
use super::stair::{Leave, MARGIN, Stair};
use crate::ticket::Tier;

/// Whether newcomers are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Admission {
    /// As they come, within the budget ([`super::Costs::newcomers`]).
    #[default]
    Open,
    /// Through the waiting room, within the budget.
    Waiting,
    /// Not at all. Those who come back are.
    Frozen,
}

/// What is in force. Nothing in here takes the programme from someone who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measures {
    /// Whether there are reactions, avatars and exact counts.
    pub extras: bool,
    /// The fastest tier for those who join.
    pub newcomers_tier: Tier,
    /// The fastest tier for everybody.
    pub everyones_tier: Tier,
    /// The largest Opus rendition for those who join, if it is not their choice.
    pub newcomers_cap: Option<Rendition>,
    /// The largest Opus rendition for everybody, switched inside the response.
    pub everyones_cap: Option<Rendition>,
    /// Whether those who join are sent to the CDN.
    pub newcomers_to_cdn: bool,
    /// Whether newcomers are let in.
    pub admission: Admission,
    /// Whether newcomers have to prove work.
    pub challenge: bool,
}

impl Default for Measures {
    /// None at all.
    fn default() -> Self {
        Self {
            extras: true,
            newcomers_tier: Tier::ONE,
            everyones_tier: Tier::ONE,
            newcomers_cap: None,
            everyones_cap: None,
            newcomers_to_cdn: false,
            admission: Admission::Open,
            challenge: false,
        }
    }
}

impl Measures {
    /// What holds where both are asked for, by control and by the edge itself: the stricter, point by point.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let smaller = |a: Option<Rendition>, b: Option<Rendition>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self {
            extras: self.extras && other.extras,
            newcomers_tier: self.newcomers_tier.max(other.newcomers_tier),
            everyones_tier: self.everyones_tier.max(other.everyones_tier),
            newcomers_cap: smaller(self.newcomers_cap, other.newcomers_cap),
            everyones_cap: smaller(self.everyones_cap, other.everyones_cap),
            newcomers_to_cdn: self.newcomers_to_cdn || other.newcomers_to_cdn,
            admission: self.admission.max(other.admission),
            challenge: self.challenge || other.challenge,
        }
    }

    /// Whether someone of this class has to prove work. Only newcomers ever have to.
    pub fn challenges(&self, class: Priority) -> bool {
        self.challenge && class == Priority::Newcomer
    }
}

/// Processor or loop short, per cent: newcomers are written to every 2, 4, 8 parts, then everybody is.
const SLOWER: [u8; 6] = [75, 78, 81, 85, 87, 89];
/// Line short, per cent: newcomers get the small rendition, then everybody does.
const SMALLER: [u8; 2] = [75, 85];
const _: () = assert!(SLOWER[0] == MARKS[1].percent && SLOWER[3] == MARKS[2].percent);
const _: () =
    assert!(SLOWER[5] < MARKS[3].percent, "what can be done for those who listen is done before others wait");
const _: () = assert!(SMALLER[0] == MARKS[1].percent && SMALLER[1] == MARKS[2].percent);
/// The first steps act on newcomers only.
const SLOWER_NEWCOMERS: usize = 3;
const SMALLER_NEWCOMERS: usize = 1;
/// A step for those who listen at most halves what it acts on (two parts a write instead of one; 24 kbit/s instead of
/// 48). It is left when twice the present pressure would not call for it again; else it would come back at once, and
/// go again, every minute.
const RELIEF: f64 = 2.0;

/// The steps between levels, each taken only for the resource that it saves.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    slower: Stair<6>,
    smaller: Stair<2>,
}

impl Steps {
    pub(super) const fn new() -> Self {
        Self { slower: Stair::new(), smaller: Stair::new() }
    }

    /// Takes in how short processor or loop, and the line, are.
    pub(super) fn observe(&mut self, now: BootTime, processor: f64, line: f64) {
        step(&mut self.slower, &SLOWER, SLOWER_NEWCOMERS, now, processor);
        step(&mut self.smaller, &SMALLER, SMALLER_NEWCOMERS, now, line);
    }

    /// Takes at least the steps that these measures stand for.
    pub(super) fn raise(&mut self, now: BootTime, measures: &Measures) {
        let step = |tier: Tier| tier.parts().ilog2() as usize;
        let slower = match step(measures.everyones_tier) {
            0 => step(measures.newcomers_tier),
            everyone => SLOWER_NEWCOMERS + everyone,
        };
        let smaller = match (measures.everyones_cap, measures.newcomers_cap) {
            (Some(_), _) => 2,
            (None, Some(_)) => 1,
            (None, None) => 0,
        };
        self.slower.raise(now, slower);
        self.smaller.raise(now, smaller);
    }

    /// The least level that is honest while these steps stand.
    pub(super) fn level(&self) -> Level {
        match (self.slower.at(), self.smaller.at()) {
            (_, 2..) => Level::L3,
            (0, 0) => Level::L0,
            _ => Level::L2,
        }
    }

    /// What follows. A pinned level takes what it is named for, even if nothing is scarce.
    pub(super) fn measures(&self, level: Level, pinned: bool, cdn: bool, evidence: bool) -> Measures {
        let least = |of: Level, step| if pinned && level == of { step } else { 0 };
        let (mut slower, mut smaller) = (0, 0);
        if level >= Level::L2 {
            slower = self.slower.at().max(least(Level::L2, 1));
            smaller = self.smaller.at().max(least(Level::L2, 1)).max(least(Level::L3, 2));
        }
        if level < Level::L3 {
            smaller = smaller.min(SMALLER_NEWCOMERS);
        }
        let small = |from| (smaller >= from).then_some(Rendition::Opus24);
        Measures {
            extras: level < Level::L1,
            newcomers_tier: tier(slower.min(SLOWER_NEWCOMERS)),
            everyones_tier: tier(slower.saturating_sub(SLOWER_NEWCOMERS)),
            newcomers_cap: small(1),
            everyones_cap: small(2),
            newcomers_to_cdn: cdn && level >= Level::L2,
            admission: match level {
                Level::L0 | Level::L1 | Level::L2 | Level::L3 => Admission::Open,
                Level::L4 => Admission::Waiting,
                Level::L5 | Level::L6 => Admission::Frozen,
            },
            challenge: evidence && level >= Level::L4,
        }
    }
}

fn step<const TOP: usize>(
    stair: &mut Stair<TOP>,
    marks: &[u8; TOP],
    newcomers: usize,
    now: BootTime,
    pressure: f64,
) {
    let reached = |pressure: f64| marks.iter().filter(|mark| pressure >= share(u32::from(**mark))).count();
    let relief = if stair.at() > newcomers { RELIEF } else { 1.0 };
    let leave = if reached(pressure * relief + MARGIN) < stair.at() { Leave::WhenCalm } else { Leave::Never };
    stair.observe(now, reached(pressure), 0, leave);
}

/// The tier of a step: 1, 2, 4, 8 parts a write.
fn tier(step: usize) -> Tier {
    Tier::new(1 << step).unwrap_or(Tier::ONE)
}
