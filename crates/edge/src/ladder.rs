//! What is in force at this edge: the stricter of what control says for all and what the edge finds it lacks itself.
//!
//! While control is heard the two are joined; once it is silent the edge goes on alone, from where control left it.
//! What an operator has pinned stands as it is, for as long as control says so: the hard limits of the door hold
//! whatever the ladder says.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use admission::ladder::{Ladder, Level, Load, Measures, Orders, Report, SILENT, Used};
use backend::machine::{self, Memory};
use model::BootTime;

use crate::shared::Shared;

/// Turns of the push door's loop come at least every 250 ms; without one for this long they count as late.
const STANDS: Duration = Duration::from_millis(500);

/// What everything at this edge goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) level: Level,
    pub(crate) measures: Measures,
}

/// What control said last.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: BootTime,
    pinned: bool,
    what: InForce,
}

/// Decides what is in force. It reads no clock.
#[derive(Debug, Default)]
pub(crate) struct EdgeLadder {
    own: Ladder,
    told: Option<Told>,
}

impl EdgeLadder {
    /// Control has spoken.
    pub(crate) fn hear(&mut self, now: BootTime, what: InForce, pinned: bool) {
        self.told = Some(Told { at: now, pinned, what });
    }

    /// Takes in what the last second was like, once a second, and decides for the next.
    pub(crate) fn observe(&mut self, now: BootTime, load: Load) -> InForce {
        if let Some(told) = self.told
            && now.since(told.at) > SILENT
        {
            // An order that nobody repeats is none; what was decided for want of something is gone on from.
            if !told.pinned {
                self.own.take_over(now, told.what.level, &told.what.measures);
            }
            self.told = None;
        }
        // Places are counted at the door itself, class by class, at every request.
        let load = Load { listeners: Used::default(), ..load };
        let own = self.own.observe(now, &[Report { age: Duration::ZERO, load }], &Orders::default());
        let own = InForce { level: own.level, measures: own.measures };
        match self.told {
            None => own,
            Some(Told { pinned: true, what, .. }) => what,
            Some(Told { what, .. }) => {
                InForce { level: what.level.max(own.level), measures: what.measures.stricter(own.measures) }
            }
        }
    }
}

/// Measures what the edge uses, from one second to the next.
#[derive(Debug)]
pub(crate) struct Meter {
    at: Instant,
    cpu_us: u64,
    bytes: u64,
}

impl Meter {
    pub(crate) fn new(now: Instant) -> Self {
        Self { at: now, cpu_us: 0, bytes: 0 }
    }

    /// What was used since it was asked last.
    pub(crate) fn read(&mut self, shared: &Shared, memory: Memory, now: Instant) -> Load {
        let counters = &shared.counters;
        let cpu_us = counters.push_cpu_us.load(Ordering::Relaxed);
        let bytes = counters.bytes.load(Ordering::Relaxed) + shared.files_door.sent_bytes();
        let elapsed = now.saturating_duration_since(self.at).max(Duration::from_millis(1)).as_secs_f64();
        let cpu_s = cpu_us.saturating_sub(self.cpu_us) as f64 / 1e6;
        let rate = bytes.saturating_sub(self.bytes) as f64 / elapsed;
        (self.at, self.cpu_us, self.bytes) = (now, cpu_us, bytes);
        let stretch = counters.stretch.take();
        let stands = shared.bell.silence(now);
        let (late, late_for) = if stands > STANDS { (stands, stands) } else { (stretch.by, stretch.lasting) };
        // Who is asked for nothing makes room for whoever comes: that file is as good as free.
        let resting = counters.resting.load(Ordering::Relaxed) + shared.files_door.resting();
        let line = shared.config.line_mbit.map(|mbit| Used::new(rate as u64, mbit * (1_000_000 / 8)));
        Load {
            processor: cpu_s / elapsed,
            late,
            late_for,
            line,
            files: Used::new(machine::open_files().saturating_sub(resting), shared.files_max),
            memory: memory_used(memory, machine::rss_bytes(), shared.config.memory_reserve_mib << 20),
            listeners: Used::new(counters.listeners.load(Ordering::Relaxed), shared.listeners_max),
        }
    }
}

/// What is used of the memory that this process can have, or of what TCP can have, whichever is scarcer.
fn memory_used(memory: Memory, rss: u64, reserve: u64) -> Used {
    let own = Used::of_memory(rss, memory.available, reserve);
    let tcp = Used::new(memory.tcp_limit.saturating_sub(memory.tcp_available), memory.tcp_limit);
    if tcp.share() > own.share() { tcp } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission::ladder::{Admission, MINUTE};

    fn at(second: u64) -> BootTime {
        BootTime::from_uptime(Duration::from_secs(1_000 + second))
    }

    fn busy(processor: f64) -> Load {
        Load { processor, ..Load::default() }
    }

    fn told(level: Level, admission: Admission) -> InForce {
        InForce { level, measures: Measures { admission, ..Measures::default() } }
    }

    #[test]
    fn the_stricter_of_control_and_edge_is_in_force() {
        let mut ladder = EdgeLadder::default();
        ladder.hear(at(0), told(Level::L4, Admission::Waiting), false);
        let found = ladder.observe(at(0), busy(0.1));
        assert_eq!((found.level, found.measures.admission), (Level::L4, Admission::Waiting));
        // What the edge lacks itself counts beside it.
        for second in 1..5 {
            ladder.hear(at(second), told(Level::L1, Admission::Open), false);
            ladder.observe(at(second), busy(0.8));
        }
        let found = ladder.observe(at(5), busy(0.8));
        assert_eq!((found.level, found.measures.admission), (Level::L2, Admission::Open));
        assert!(found.measures.newcomers_tier.parts() > 1, "slower, by its own finding");
    }

    #[test]
    fn without_control_the_edge_goes_on_from_where_it_was_left() {
        let mut ladder = EdgeLadder::default();
        ladder.hear(at(0), told(Level::L4, Admission::Waiting), false);
        assert_eq!(ladder.observe(at(5), busy(0.0)).level, Level::L4, "still fresh");
        assert_eq!(ladder.observe(at(6), busy(0.0)).level, Level::L4, "taken over");
        let minute = MINUTE.as_secs();
        let levels: Vec<_> =
            (7..6 * minute).map(|second| ladder.observe(at(second), busy(0.0)).level).collect();
        assert!(levels.is_sorted_by(|a, b| a >= b), "down only");
        assert_eq!(levels.last(), Some(&Level::L0));
        let steps = levels.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(steps, 4, "one level a minute");
    }

    #[test]
    fn a_pinned_level_stands_until_control_is_silent() {
        let mut ladder = EdgeLadder::default();
        let pinned = told(Level::L0, Admission::Open);
        for second in 0..5 {
            ladder.hear(at(second), pinned, true);
            assert_eq!(ladder.observe(at(second), busy(1.0)), pinned);
        }
        let found = ladder.observe(at(10), busy(1.0));
        assert_eq!(found.level, Level::L5, "what it found all along");
    }

    #[test]
    fn the_scarcer_memory_counts() {
        let memory = Memory { available: 900, tcp_available: 900, tcp_limit: 1_000 };
        assert_eq!(memory_used(memory, 100, 0), Used::new(100, 1_000));
        let memory = Memory { tcp_available: 100, ..memory };
        assert_eq!(memory_used(memory, 100, 0), Used::new(900, 1_000));
        assert_eq!(memory_used(Memory { available: 50, ..memory }, 950, 100), Used::new(950, 950));
    }
}
