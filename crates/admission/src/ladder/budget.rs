//! How many newcomers a second a cell can take.

use super::level::{NEWCOMERS_PERCENT, share};
use super::measures::Admission;
use super::{EDGES_MAX, Load, Report, Resource, Used};

/// What a listener costs an edge. The defaults lie on the safe side of what BASELINE.md measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// Processor time of a join with its TLS handshake, µs. Default 250.
    pub join_us: u32,
    /// Processor time of a listener, µs a second. Default 25.
    pub listener_us: u32,
    /// Bytes a second on the line of a listener, headers included. Default 6,800: `opus-48`.
    pub line_bytes_per_s: u32,
    /// Memory of a listener, bytes, the kernel's included. Default 16 KiB.
    pub memory_bytes: u32,
    /// Share of a core that joins may take, per cent. Default 50.
    pub joins_percent: u8,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            join_us: 250,
            listener_us: 25,
            line_bytes_per_s: 6_800,
            memory_bytes: 16 * 1024,
            joins_percent: 50,
        }
    }
}

impl Costs {
    /// How many newcomers may be let in this second: as many as find a place below the share at which newcomers wait
    /// ([`super::Level::L4`]), and no more than the processor can greet.
    ///
    /// `pending` have been let in and are in no report yet. With `cap` those who sit, those pending and those let in are
    /// together never more; listeners of silent edges sit, for all that is known.
    pub fn newcomers(&self, reports: &[Report], pending: u64, cap: Option<u64>, admission: Admission) -> u64 {
        if admission == Admission::Frozen {
            return 0;
        }
        let (mut places, mut joins, mut sitting) = (0_u64, 0_u64, 0_u64);
        for (at, report) in reports.iter().enumerate() {
            sitting = sitting.saturating_add(report.load.listeners.used);
            if at < EDGES_MAX && report.is_alive() {
                places = places.saturating_add(self.places(&report.load));
                joins = joins.saturating_add(self.joins(&report.load));
            }
        }
        let under_cap = cap.map_or(u64::MAX, |cap| cap.saturating_sub(sitting).saturating_sub(pending));
        places.saturating_sub(pending).min(joins).min(under_cap)
    }

    /// How many more listeners an edge can carry.
    fn places(&self, load: &Load) -> u64 {
        let free = |used: Used, each: u32| used.free_below(NEWCOMERS_PERCENT) / u64::from(each.max(1));
        let processor =
            spare(load.pressures()[Resource::Processor]) * 1e6 / f64::from(self.listener_us.max(1));
        [
            free(load.listeners, 1),
            free(load.files, 1),
            free(load.memory, self.memory_bytes),
            free(load.line.unwrap_or_default(), self.line_bytes_per_s),
            processor as u64,
        ]
        .into_iter()
        .fold(u64::MAX, u64::min)
    }

    /// How many an edge can greet a second.
    fn joins(&self, load: &Load) -> u64 {
        let pressures = load.pressures();
        let spare = spare(pressures[Resource::Processor].max(pressures[Resource::Loop]));
        let share = spare.min(share(self.joins_percent.min(100).into()));
        (share * 1e6 / f64::from(self.join_us.max(1))) as u64
    }
}

/// What is left of a core below the share at which newcomers wait.
fn spare(pressure: f64) -> f64 {
    (share(NEWCOMERS_PERCENT as u32) - pressure).max(0.0)
}
