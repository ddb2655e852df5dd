//! Whether the generator itself kept pace with a storm: what it measured of the server then is the server's.

use serde::{Deserialize, Serialize};

use super::report::BUSY_MAX;
use super::tally::{ShareReport, Summary};

/// Joins that came later than this, in one of a hundred, ms: another storm than the one that was asked for.
const LAG_MS_MAX: f64 = 20.0;

/// How the generator fared in a storm's own seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StormPace {
    /// Joins a second that it began.
    pub rate: f64,
    /// How late it was with them, ms.
    pub lag_ms: Summary,
    /// How busy its core was meanwhile; where it is tied to none, its threads.
    pub busy: f64,
}

impl StormPace {
    /// Of a storm over so many seconds, in which the generator was so busy.
    pub(crate) fn new(all: &ShareReport, over_s: f64, busy: f64) -> Self {
        let begun = all.storm_lag.count();
        // Each has its share of the time, the last one too.
        let share_s = over_s / all.storm.counts.asked.max(1) as f64;
        let took_s = all.storm_took_us as f64 / 1e6 + share_s;
        let rate = if took_s > 0.0 { (begun as f64 / took_s).round() } else { 0.0 };
        Self { rate, lag_ms: all.storm_lag.summary(), busy }
    }

    /// Whether the joins came when they were to come. If not, nothing is known of the storm that was asked for.
    pub fn is_true(&self) -> bool {
        self.lag_ms.p99 <= LAG_MS_MAX
    }

    /// Whether what went wrong may be the generator's own fault.
    pub fn is_void(&self) -> bool {
        !self.is_true() || self.busy > BUSY_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(joins: u64, took_us: u64, lag_us: u64) -> ShareReport {
        let mut share = ShareReport { storm_took_us: took_us, ..ShareReport::default() };
        share.storm.counts.asked = joins;
        (0..joins).for_each(|_| share.storm_lag.record(lag_us));
        share
    }

    #[test]
    fn a_storm_in_time_has_its_rate() {
        let pace = StormPace::new(&share(1_000, 999_000, 500), 1.0, 0.5);
        assert_eq!((pace.rate, pace.is_true(), pace.is_void()), (1_000.0, true, false));
        let mut two = share(500, 998_000, 500);
        two.merge(&share(500, 999_000, 900));
        assert_eq!(StormPace::new(&two, 1.0, 0.5).rate, 1_000.0);
    }

    #[test]
    fn a_busy_or_late_generator_is_seen() {
        let busy = StormPace::new(&share(1_000, 999_000, 500), 1.0, 0.86);
        assert_eq!((busy.is_true(), busy.is_void()), (true, true));
        let late = StormPace::new(&share(1_000, 1_999_000, 21_000), 1.0, 0.1);
        assert_eq!((late.rate, late.is_true(), late.is_void()), (500.0, false, true));
    }
}
