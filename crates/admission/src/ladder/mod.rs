//! The ladder: how far the show steps down, and what that means.
//!
//! ```text
//! loads of edges ──► pressures ──► level L0…L6 ──┬──► measures: tiers, renditions, CDN, admission, challenge
//!   once a second    of each        up in 2 s,   │
//!                    resource       down 1 a min └──► announced, beside what it would be without a pin
//! ```
//!
//! A level is called for by any resource that is short ([`MARKS`]); what it changes depends on which. Slower tiers save
//! processor and no bytes, lower bitrate saves bytes and no processor, neither saves files or memory, and so a level may
//! stand without some of its measures: who announces it in words must look at [`Measures`], not only at the number.
//!
//! Control runs a [`Ladder`] for a cell over the reports of its edges; each edge runs one over its own load. What is in
//! force at an edge is the higher level and the stricter measures of both ([`Measures::stricter`]), and its own alone
//! when control is silent.

mod budget;
mod classes;
mod level;
mod load;
mod measures;
mod stair;
#[cfg(test)]
mod tests;

use std::time::Duration;

use model::BootTime;

pub use budget::Costs;
pub use classes::{Occupancy, Priority, kept_for_hosts, may_admit, room};
pub use level::{Late, Level, MARKS, Mark, table};
pub use load::{Load, Pressures, Resource, Used};
pub use measures::{Admission, Measures};
pub use stair::{CALM, MARGIN, MINUTE, SUSTAINED};

use measures::Steps;
use stair::{Leave, Stair};

/// An edge whose report is older counts as lost.
pub const SILENT: Duration = Duration::from_secs(5);
/// Edges that are looked at; more are counted and not looked at.
pub const EDGES_MAX: usize = 256;

/// What an edge said last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// How long ago it said so.
    pub age: Duration,
    /// What it said.
    pub load: Load,
}

impl Report {
    /// Whether the edge counts as alive.
    pub fn is_alive(&self) -> bool {
        self.age <= SILENT
    }
}

/// What the operator wants, and what else is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// The level to stand at, whatever is measured.
    pub pin: Option<Level>,
    /// At most so many live listeners.
    pub cap: Option<u64>,
    /// Whether there is a CDN that newcomers can be sent to.
    pub cdn: bool,
    /// Whether evidence asks for newcomers to be challenged.
    pub evidence: bool,
}

/// What is decided for the next second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The level: what is announced.
    pub level: Level,
    /// The level without a pin.
    pub would: Level,
    /// What is in force. Admission may be [`Admission::Waiting`] below L4: the cap is reached.
    pub measures: Measures,
    /// The scarcest resource, if any calls for a level now.
    pub binding: Option<Resource>,
    /// How near each resource is to its end, over all edges that are alive.
    pub pressures: Pressures,
    /// Whose report, counted from 0, calls for the highest level by itself, if one does.
    pub worst: Option<usize>,
    /// Edges that are alive.
    pub alive: usize,
    /// Edges that are silent.
    pub silent: usize,
    /// Reports beyond [`EDGES_MAX`], not looked at.
    pub ignored: usize,
    /// Listeners of all edges, at last report.
    pub listeners: u64,
}

/// Decides the level. To be asked at least once a second, and best at every report.
#[derive(Clone, Debug)]
pub struct Ladder {
    level: Stair<6>,
    steps: Steps,
    /// Whether an edge was ever alive: one that was never heard of is not lost.
    heard: bool,
}

impl Default for Ladder {
    fn default() -> Self {
        Self::new()
    }
}

impl Ladder {
    /// At L0.
    pub const fn new() -> Self {
        Self { level: Stair::new(), steps: Steps::new(), heard: false }
    }

    /// The level without a pin.
    pub fn would(&self) -> Level {
        Level::ALL[self.level.at()]
    }

    /// Goes on from what others decided, if that is more. To be called once: at the start of control with what is in
    /// force at its edges, at an edge with what control said before it fell silent. From there on it goes down like
    /// any level: measures that hold the pressure down are not dropped because somebody was started again.
    pub fn take_over(&mut self, now: BootTime, level: Level, measures: &Measures) {
        self.level.raise(now, level.min(Level::L5).number().into());
        self.steps.raise(now, measures);
    }

    /// Takes in what the edges said last, and decides.
    pub fn observe(&mut self, now: BootTime, reports: &[Report], orders: &Orders) -> Decision {
        let looked_at = &reports[..reports.len().min(EDGES_MAX)];
        let alive = || looked_at.iter().filter(|report| report.is_alive());
        let pressures = Pressures::mean(alive().map(|report| report.load));
        let count = alive().count();
        if count > 0 {
            self.heard = true;
            self.climb(now, &pressures);
        } else if self.heard {
            self.level.observe(now, 0, Level::L6.number().into(), Leave::Never);
        }
        let (would, level) = (self.would(), orders.pin.unwrap_or(self.would()));
        let mut measures = self.steps.measures(level, orders.pin.is_some(), orders.cdn, orders.evidence);
        let listeners =
            reports.iter().fold(0_u64, |sum, report| sum.saturating_add(report.load.listeners.used));
        if orders.cap.is_some_and(|cap| listeners >= cap) {
            measures.admission = measures.admission.max(Admission::Waiting);
        }
        Decision {
            level,
            would,
            measures,
            binding: pressures.binding(),
            pressures,
            worst: worst(looked_at),
            alive: count,
            silent: looked_at.len() - count,
            ignored: reports.len() - looked_at.len(),
            listeners,
        }
    }

    fn climb(&mut self, now: BootTime, pressures: &Pressures) {
        let short_of_time = pressures[Resource::Processor].max(pressures[Resource::Loop]);
        self.steps.observe(now, short_of_time, pressures[Resource::Line]);
        let least = self.steps.level();
        let number = |level: Level| usize::from(level.max(least).number());
        let leave = if self.would() == Level::L6 {
            Leave::Now
        } else if number(pressures.plus(MARGIN).level()) < self.level.at() {
            Leave::WhenCalm
        } else {
            Leave::Never
        };
        self.level.observe(now, number(pressures.level()), number(pressures.level_at_once()), leave);
    }
}

fn worst(reports: &[Report]) -> Option<usize> {
    let levels =
        reports.iter().map(|report| (report.load.pressures().level(), report.is_alive())).enumerate();
    let calling = levels.filter(|(_, (level, alive))| *alive && *level > Level::L0);
    calling.max_by_key(|(_, (level, _))| *level).map(|(at, _)| at)
}
