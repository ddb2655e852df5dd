//! What the push loop knows of itself: counted where it happens, in numbers that no thread shares, and handed over once
//! a turn.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of the histograms' buckets, milliseconds.
const BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000];
const BUCKETS: usize = BOUNDS_MS.len() + 1;

/// Durations, counted by one thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// By bucket; the last has no bound.
    buckets: [u64; BUCKETS],
    sum_us: u64,
}

impl Counts {
    /// Counts one.
    pub(crate) fn add(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Bound of the bucket that holds the quantile `q`, 0 to 1, of what was counted since `earlier`, milliseconds;
    /// `u32::MAX` beyond the last bound, 0 if there was nothing.
    pub(crate) fn quantile_ms(&self, earlier: &Self, q: f64) -> u32 {
        let new = |bucket: usize| self.buckets[bucket] - earlier.buckets[bucket];
        let total: u64 = (0..BUCKETS).map(new).sum();
        if total == 0 {
            return 0;
        }
        let rank = ((total as f64 * q).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = (0..BUCKETS).find(|bucket| {
            below += new(*bucket);
            below >= rank
        });
        bucket.and_then(|bucket| BOUNDS_MS.get(bucket)).map_or(u32::MAX, |bound| *bound as u32)
    }
}

/// Durations, counted for all to read.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

fn bucket_of(us: u64) -> usize {
    BOUNDS_MS.iter().position(|bound| us <= bound * 1_000).unwrap_or(BOUNDS_MS.len())
}

impl Histogram {
    /// Counts one.
    pub(crate) fn add(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Adds what somebody has counted.
    pub(crate) fn take_in(&self, counts: &Counts) {
        for (bucket, count) in self.buckets.iter().zip(counts.buckets) {
            if count > 0 {
                bucket.fetch_add(count, Ordering::Relaxed);
            }
        }
        if counts.sum_us > 0 {
            self.sum_us.fetch_add(counts.sum_us, Ordering::Relaxed);
        }
    }

    /// What was counted so far. Buckets are read one after the other, and each only grows.
    pub(crate) fn snapshot(&self) -> Counts {
        let mut counts = Counts { sum_us: self.sum_us.load(Ordering::Relaxed), ..Counts::default() };
        for (bucket, count) in counts.buckets.iter_mut().zip(&self.buckets) {
            *bucket = count.load(Ordering::Relaxed);
        }
        counts
    }

    /// As Prometheus text, in seconds.
    pub(crate) fn render(&self, text: &mut String, name: &str, help: &str) {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut total = 0;
        for (bound, count) in BOUNDS_MS.iter().zip(&self.buckets) {
            total += count.load(Ordering::Relaxed);
            let bound = *bound as f64 / 1_000.0;
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        total += self.buckets[BOUNDS_MS.len()].load(Ordering::Relaxed);
        let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        let _ =
            writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {total}\n{name}_sum {sum}\n{name}_count {total}");
    }
}

/// A turn later than this is late (what the ladder calls late begins here).
const LATE: Duration = Duration::from_millis(5);

/// Turns that were late, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// By how much, on average.
    pub(crate) by: Duration,
    /// From when the first of them should have come until the last came.
    pub(crate) lasting: Duration,
}

/// Follows stretches of late turns, by one thread.
#[derive(Debug, Default)]
pub(crate) struct Stretches {
    /// When the first turn of the present stretch should have come.
    begun: Option<Instant>,
    sum: Duration,
    turns: u32,
    longest: Stretch,
}

impl Stretches {
    /// A turn came at `now` that should have come at `due`.
    pub(crate) fn add(&mut self, due: Instant, now: Instant) {
        let late = now.saturating_duration_since(due);
        if late < LATE {
            self.begun = None;
            return;
        }
        let begun = *self.begun.get_or_insert_with(|| {
            (self.sum, self.turns) = (Duration::ZERO, 0);
            due
        });
        self.sum += late;
        self.turns += 1;
        let lasting = now.saturating_duration_since(begun);
        if lasting >= self.longest.lasting {
            self.longest = Stretch { by: self.sum / self.turns, lasting };
        }
    }

    /// The longest since this was asked last, for `told`.
    pub(crate) fn tell(&mut self, told: &Told) {
        told.put(std::mem::take(&mut self.longest));
    }
}

/// The longest stretch of late turns, from the thread that follows them to the one that reports.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<Stretch>);

impl Told {
    fn put(&self, stretch: Stretch) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stretch.lasting > known.lasting {
            *known = stretch;
        }
    }

    /// The longest since this was asked last.
    pub(crate) fn take(&self) -> Stretch {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stretch_of_late_turns_is_told_once() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let (mut stretches, told) = (Stretches::default(), Told::default());
        // Two late turns of 6 and 10 ms, one on time, one late again.
        for (due, now) in [(0, 6), (10, 20), (30, 30), (40, 47)] {
            stretches.add(at(due), at(now));
        }
        stretches.tell(&told);
        let found = Stretch { by: Duration::from_millis(8), lasting: Duration::from_millis(20) };
        assert_eq!((told.take(), told.take()), (found, Stretch::default()));
        // The last stretch goes on.
        stretches.add(at(50), at(59));
        stretches.tell(&told);
        let found = Stretch { by: Duration::from_millis(8), lasting: Duration::from_millis(19) };
        assert_eq!(told.take(), found);
    }

    #[test]
    fn durations_are_counted_in_their_buckets() {
        let histogram = Histogram::default();
        let mut counts = Counts::default();
        for us in [900, 900, 900, 5_000, 7_000_000] {
            counts.add(Duration::from_micros(us));
        }
        histogram.take_in(&counts);
        histogram.add(Duration::from_secs(7));
        let none = Counts::default();
        let all = histogram.snapshot();
        let quantiles = [0.0, 0.5, 0.6, 0.67, 1.0].map(|q| all.quantile_ms(&none, q));
        assert_eq!(quantiles, [1, 1, 5, u32::MAX, u32::MAX]);
        assert_eq!(all.quantile_ms(&counts, 0.5), u32::MAX, "only the last was new");
        assert_eq!(all.quantile_ms(&all, 0.5), 0);
        let mut text = String::new();
        histogram.render(&mut text, "late_seconds", "How late.");
        for line in [
            "late_seconds_bucket{le=\"0.001\"} 3",
            "late_seconds_bucket{le=\"0.002\"} 3",
            "late_seconds_bucket{le=\"0.005\"} 4",
            "late_seconds_bucket{le=\"1\"} 4",
            "late_seconds_bucket{le=\"+Inf\"} 6",
            "late_seconds_sum 14.0077",
            "late_seconds_count 6",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
    }
}
