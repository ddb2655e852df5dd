//! When a listener that was cut off, or not let in, tries again: as the page decides it (`web/static/stream.js` and
//! `backoff.js`).

use rand::RngExt as _;
use rand::rngs::StdRng;

/// A connection that lived this long was a good one: the next attempt is soon.
const HEALTHY_US: u64 = 2_000_000;
/// The ceiling of waits that nobody asked for.
const WAIT_MS_MAX: f64 = 2_000.0;
/// Longest wait that a server may ask for, s.
const ASKED_S_MAX: u64 = 60;
/// The wait after an answer that there is no such event, unless it says something else, s.
const NOT_FOUND_S: u64 = 2;
/// Silence after which a connection of tier 1 counts as dead.
const SILENCE_US: u64 = 3_000_000;

/// How long a connection may be silent, µs, with so many parts a flush.
pub(crate) fn patience_us(tier: u64) -> u64 {
    SILENCE_US + if tier > 1 { tier * 1_000_000 } else { 0 }
}

/// Whether whoever gets this status forgets the parts it has, and begins anew at the present.
pub(crate) fn begins_anew(status: u16) -> bool {
    (400..500).contains(&status) && status != 429
}

/// Attempts since a good connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comeback {
    attempts: u32,
}

impl Comeback {
    /// The wait before the next attempt, µs, after a connection whose last byte came `lived_us` after its beginning, and
    /// which was answered with this status (0: not at all) and this `Retry-After`.
    pub(crate) fn wait_us(
        &mut self,
        lived_us: u64,
        status: u16,
        retry_after_s: Option<u64>,
        chance: &mut StdRng,
    ) -> u64 {
        if lived_us >= HEALTHY_US {
            self.attempts = 0;
        }
        let asked_s = match (retry_after_s, status) {
            (Some(seconds), _) => seconds.min(ASKED_S_MAX),
            (None, 404) => NOT_FOUND_S,
            (None, _) => 0,
        };
        let least_ms = 1e3 * asked_s as f64 * (0.75 + 0.5 * chance.random::<f64>());
        let own_ms = match self.attempts {
            0 => 50.0 + 200.0 * chance.random::<f64>(),
            attempt => {
                let ceiling = (100.0 * f64::from(attempt.min(30)).exp2()).min(WAIT_MS_MAX);
                ceiling * (0.5 + 0.5 * chance.random::<f64>())
            }
        };
        self.attempts = self.attempts.saturating_add(1);
        (1e3 * own_ms.max(least_ms)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn waits_are_those_of_the_page() {
        let mut chance = StdRng::seed_from_u64(1);
        for _ in 0..100 {
            let mut comeback = Comeback::default();
            for (least, most) in [(50, 250), (100, 200), (200, 400), (400, 800), (800, 1_600), (1_000, 2_000)]
            {
                let wait_ms = comeback.wait_us(0, 0, None, &mut chance) / 1_000;
                assert!((least..=most).contains(&wait_ms), "{wait_ms}");
            }
            // A long life, and it is a first attempt again.
            let wait_ms = comeback.wait_us(2_000_000, 200, None, &mut chance) / 1_000;
            assert!((50..=250).contains(&wait_ms), "{wait_ms}");
            // What a server asks for is the least.
            let wait_ms = comeback.wait_us(0, 503, Some(4), &mut chance) / 1_000;
            assert!((3_000..=5_000).contains(&wait_ms), "{wait_ms}");
            let wait_ms = Comeback::default().wait_us(0, 503, Some(1 << 60), &mut chance) / 1_000;
            assert!((45_000..=75_000).contains(&wait_ms), "{wait_ms}");
            let wait_ms = Comeback::default().wait_us(0, 404, None, &mut chance) / 1_000;
            assert!((1_500..=2_500).contains(&wait_ms), "{wait_ms}");
        }
    }

    #[test]
    fn who_is_not_known_begins_anew() {
        assert_eq!([0, 200, 404, 410, 429, 503].map(begins_anew), [false, false, true, true, false, false]);
        assert_eq!([1, 2, 8].map(patience_us), [3_000_000, 5_000_000, 11_000_000]);
    }
}
