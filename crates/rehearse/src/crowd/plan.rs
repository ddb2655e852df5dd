//! Who comes when. All times are microseconds from the beginning of the run.

use super::config::CrowdConfig;

/// What a seat of the crowd does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Comes in the ramp and listens.
    Base,
    /// Comes in the ramp and reads one byte a second.
    Slow,
    /// Comes in the ramp and reads nothing.
    Never,
    /// Comes in the window, all at once, and listens.
    Storm,
}

/// One arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at_us: u64,
    pub(crate) role: Role,
    /// Which of the whole crowd it is.
    pub(crate) number: usize,
}

/// The course of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    listeners: usize,
    slow: usize,
    early: usize,
    per_second: f64,
    storm: (usize, f64),
    pub(crate) ramp_end_us: u64,
    pub(crate) window_us: u64,
    /// When the last join of the storm has been, if there is one; else the window's beginning.
    pub(crate) storm_end_us: u64,
    pub(crate) end_us: u64,
}

/// How long after the ramp an edge may still move slots, µs: what they are like from then on is each listener's rhythm.
const CALM_US: u64 = 1_000_000;

fn micros(seconds: f64) -> u64 {
    // Ranges are checked: a day of microseconds is exact.
    (seconds * 1e6) as u64
}

impl Plan {
    pub(crate) fn new(config: &CrowdConfig) -> Self {
        let early = config.listeners + config.slow + config.never;
        let ramp_end_us = micros(early as f64 / config.ramp);
        let window_us = ramp_end_us + micros(config.settle_s);
        Self {
            listeners: config.listeners,
            slow: config.slow,
            early,
            per_second: config.ramp,
            storm: config.storm.map_or((0, 0.0), |storm| (storm.joins, storm.over_s)),
            ramp_end_us,
            window_us,
            storm_end_us: window_us + micros(config.storm.map_or(0.0, |storm| storm.over_s)),
            end_us: window_us + micros(config.window_s),
        }
    }

    /// From when on a listener's rhythm counts: all have joined, and the window has not begun.
    pub(crate) fn calm_us(&self) -> u64 {
        self.window_us.min(self.ramp_end_us + CALM_US)
    }

    /// The arrivals of one share of `of`, in order of time. Every share has its part of every phase.
    pub(crate) fn arrivals(self, share: usize, of: usize) -> impl Iterator<Item = Arrival> {
        (share..self.early + self.storm.0).step_by(of.max(1)).map(move |number| self.arrival(number))
    }

    fn arrival(self, number: usize) -> Arrival {
        let Some(late) = number.checked_sub(self.early) else {
            let role = if number < self.listeners {
                Role::Base
            } else if number < self.listeners + self.slow {
                Role::Slow
            } else {
                Role::Never
            };
            return Arrival { at_us: micros(number as f64 / self.per_second), role, number };
        };
        let (joins, over_s) = self.storm;
        let at_us = self.window_us + micros(over_s * late as f64 / joins as f64);
        Arrival { at_us, role: Role::Storm, number }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::config::Storm;

    #[test]
    fn everyone_comes_once_in_order_and_in_time() {
        let config = CrowdConfig {
            listeners: 100,
            ramp: 50.0,
            slow: 3,
            never: 2,
            settle_s: 1.0,
            window_s: 4.0,
            storm: Some(Storm { joins: 40, over_s: 2.0 }),
            ..Default::default()
        };
        let plan = Plan::new(&config);
        assert_eq!((plan.ramp_end_us, plan.window_us, plan.end_us), (2_100_000, 3_100_000, 7_100_000));
        assert_eq!((plan.calm_us(), plan.storm_end_us), (3_100_000, 5_100_000));
        let patient = Plan::new(&CrowdConfig { settle_s: 4.0, storm: None, ..config.clone() });
        assert_eq!((patient.calm_us(), patient.storm_end_us), (3_100_000, patient.window_us));
        for shares in [1, 2, 3] {
            let mut all = Vec::new();
            for share in 0..shares {
                let of_share: Vec<_> = plan.arrivals(share, shares).collect();
                assert!(of_share.is_sorted_by_key(|arrival| arrival.at_us));
                all.extend(of_share);
            }
            all.sort_by_key(|arrival| arrival.number);
            assert_eq!(all.len(), 145);
            let count = |role| all.iter().filter(|arrival| arrival.role == role).count();
            assert_eq!(
                [count(Role::Base), count(Role::Slow), count(Role::Never), count(Role::Storm)],
                [100, 3, 2, 40]
            );
            assert_eq!((all[50].at_us, all[105].at_us, all[125].at_us), (1_000_000, 3_100_000, 4_100_000));
        }
    }
}
