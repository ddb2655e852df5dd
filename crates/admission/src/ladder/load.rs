//! What an edge measures, and how near it is to the end of each resource.

use std::ops::Index;
use std::time::Duration;

use super::Level;
use super::level::{LATE, Late, MARKS, VERY_LATE, share};

/// Something an edge can run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Time of the core that the push door has.
    Processor,
    /// Turns of the push door's loop on time.
    Loop,
    /// Bytes a second of the line.
    Line,
    /// Open files.
    Files,
    /// Memory.
    Memory,
    /// Places for listeners.
    Listeners,
}

impl Resource {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Processor, Self::Loop, Self::Line, Self::Files, Self::Memory, Self::Listeners];

    /// Its name in metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Loop => "loop",
            Self::Line => "line",
            Self::Files => "files",
            Self::Memory => "memory",
            Self::Listeners => "listeners",
        }
    }
}

/// So much of so much, in whatever unit both are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// What is used.
    pub used: u64,
    /// What may be used; 0 if nobody measures it.
    pub limit: u64,
}

impl Used {
    /// `used` of `limit`.
    pub const fn new(used: u64, limit: u64) -> Self {
        Self { used, limit }
    }

    /// Memory of a process that uses `used` bytes where `available` more can be had, of which `reserve` are to stay
    /// free for others. With a budget of the process's own, `available` is at most what is left of that.
    pub const fn of_memory(used: u64, available: u64, reserve: u64) -> Self {
        Self { used, limit: used.saturating_add(available.saturating_sub(reserve)) }
    }

    /// The share in use, 0 to 1.
    pub fn share(self) -> f64 {
        if self.limit == 0 { 0.0 } else { (self.used as f64 / self.limit as f64).min(1.0) }
    }

    /// What can still be used below `percent` of the limit; without a limit, anything.
    pub(super) fn free_below(self, percent: u64) -> u64 {
        if self.limit == 0 { u64::MAX } else { part_of(self.limit, percent).saturating_sub(self.used) }
    }
}

/// `percent` of `whole`, rounded up: so that the smallest hall has a place for everybody's class.
pub(super) fn part_of(whole: u64, percent: u64) -> u64 {
    let part = (u128::from(whole) * u128::from(percent)).div_ceil(100);
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// What one edge says of its last second.
///
/// It comes from the network, so any value is taken: a share that is no number says nothing and counts as 0, one
/// outside 0 to 1 counts as the nearer end; more than all of a limit counts as all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Share of its core that the push door's thread used, 0 to 1.
    pub processor: f64,
    /// By how much turns of the push door's loop were late, on average, during `late_for`.
    pub late: Duration,
    /// The longest stretch in which no turn was late by less than 5 ms.
    pub late_for: Duration,
    /// Bytes a second sent, of those that the line is configured to carry, if it is.
    pub line: Option<Used>,
    /// Open files and sockets.
    pub files: Used,
    /// Bytes of memory ([`Used::of_memory`]).
    pub memory: Used,
    /// Listeners.
    pub listeners: Used,
}

impl Load {
    /// How near the edge is to the end of each resource.
    pub fn pressures(&self) -> Pressures {
        Pressures([
            if self.processor.is_nan() { 0.0 } else { self.processor.clamp(0.0, 1.0) },
            lateness(self.late, self.late_for),
            self.line.unwrap_or_default().share(),
            self.files.share(),
            self.memory.share(),
            self.listeners.share(),
        ])
    }
}

/// Lateness on the scale of the other resources: [`LATE`] is the share of L2, [`VERY_LATE`] that of L4 and the most;
/// linear between. What did not last as long as a level asks for stays a point below it.
fn lateness(late: Duration, lasting: Duration) -> f64 {
    let percent = |late: Late| {
        let mark = MARKS.iter().find(|mark| mark.late == Some(late));
        mark.map_or(100, |mark| u32::from(mark.percent))
    };
    let (some, most) = (percent(LATE), percent(VERY_LATE));
    let between = |from: Duration, to: Duration| {
        (late.saturating_sub(from).as_secs_f64() / (to.saturating_sub(from)).as_secs_f64()).min(1.0)
    };
    if late <= LATE.by || lasting < LATE.lasting {
        return share(some - 1) * between(Duration::ZERO, LATE.by);
    }
    let pressure = share(some) + (share(most) - share(some)) * between(LATE.by, VERY_LATE.by);
    if late > VERY_LATE.by && lasting >= VERY_LATE.lasting {
        share(most)
    } else {
        pressure.min(share(most - 1))
    }
}

/// How near the end of each resource is: 0 is untouched, 1 is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressures([f64; 6]);

impl Index<Resource> for Pressures {
    type Output = f64;

    fn index(&self, resource: Resource) -> &f64 {
        &self.0[resource as usize]
    }
}

impl Pressures {
    /// The mean of a cell's edges, each counted by its places. Listeners spread over a cell and try again elsewhere, so
    /// what counts is the whole; what one edge alone lacks, it sees to itself.
    pub fn mean(loads: impl IntoIterator<Item = Load>) -> Self {
        let (mut means, mut places) = ([0.0; 6], 0.0);
        for load in loads {
            let weight = load.listeners.limit.clamp(1, PLACES_MAX) as f64;
            places += weight;
            // The running mean leaves equal values exactly as they are, and so on their side of a mark.
            for (mean, pressure) in means.iter_mut().zip(load.pressures().0) {
                *mean += (pressure - *mean) * (weight / places);
            }
        }
        Self(means)
    }

    /// The level that is called for now.
    pub fn level(&self) -> Level {
        self.levels().map(|(_, level)| level).max().unwrap_or_default()
    }

    /// The level to be taken without waiting for the call to last.
    pub(super) fn level_at_once(&self) -> Level {
        let levels = self.levels().filter(|(resource, level)| level.at_once(*resource));
        levels.map(|(_, level)| level).max().unwrap_or_default()
    }

    /// The resource that is scarcest: the one that calls for the highest level, then the one nearest to its end.
    pub fn binding(&self) -> Option<Resource> {
        let calling = self.levels().filter(|(_, level)| *level > Level::L0);
        let order = |a: &(Resource, Level), b: &(Resource, Level)| {
            a.1.cmp(&b.1).then(self[a.0].total_cmp(&self[b.0])).then(b.0.cmp(&a.0))
        };
        calling.max_by(order).map(|(resource, _)| resource)
    }

    /// All of them greater by `by`.
    pub(super) fn plus(self, by: f64) -> Self {
        Self(self.0.map(|pressure| pressure + by))
    }

    fn levels(&self) -> impl Iterator<Item = (Resource, Level)> {
        Resource::ALL.into_iter().map(|resource| (resource, Level::called_by(resource, self[resource])))
    }
}

/// Most places of an edge that count: the most an edge can be configured to have.
const PLACES_MAX: u64 = 1_000_000;
