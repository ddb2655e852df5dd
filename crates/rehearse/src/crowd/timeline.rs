//! When something happened to how many, to the millisecond.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Milliseconds told apart; what comes once there are as many counts with the last of them.
const MOMENTS_MAX: usize = 65_536;

/// How many it happened to in each millisecond since the run's beginning. Those of several processes of a run add up:
/// they share its clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(BTreeMap<u64, u64>);

impl Timeline {
    /// It happened to one, so many microseconds after the beginning.
    pub(crate) fn record(&mut self, micros: u64) {
        self.add(micros / 1_000, 1);
    }

    fn add(&mut self, ms: u64, times: u64) {
        let ms = match self.0.last_key_value() {
            Some((last, _)) if self.0.len() >= MOMENTS_MAX && !self.0.contains_key(&ms) => *last,
            _ => ms,
        };
        *self.0.entry(ms).or_default() += times;
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(ms, times)| self.add(*ms, *times));
    }

    /// How many it happened to.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Whether it never happened.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When it had happened to so many, ms after the beginning. `None`: it never had, or none were asked for.
    pub fn reached(&self, count: u64) -> Option<u64> {
        let mut so_far = 0;
        let moment = self.0.iter().find(|(_, times)| {
            so_far += **times;
            count > 0 && so_far >= count
        });
        moment.map(|(ms, _)| *ms)
    }
}

impl FromIterator<(u64, u64)> for Timeline {
    /// Of milliseconds, and how many it happened to in each.
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(moments: I) -> Self {
        let mut timeline = Self::default();
        moments.into_iter().for_each(|(ms, times)| timeline.add(ms, times));
        timeline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_when_how_many_had_it() {
        let mut timeline = Timeline::default();
        assert_eq!((timeline.reached(1), timeline.is_empty()), (None, true));
        [7_999, 7_000, 3_500, 9_000].into_iter().for_each(|micros| timeline.record(micros));
        let mut both: Timeline = serde_json::from_str(&serde_json::to_string(&timeline).unwrap()).unwrap();
        both.merge(&Timeline::from_iter([(3, 2), (20, 1)]));
        assert_eq!(
            [1, 3, 4, 5, 6, 7].map(|count| both.reached(count)),
            [Some(3), Some(3), Some(7), Some(7), Some(9), Some(20)]
        );
        assert_eq!((both.reached(8), both.reached(0), both.count()), (None, None, 7));
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let moments = MOMENTS_MAX as u64 + 500;
        let timeline: Timeline = (0..moments).map(|ms| (ms, 1)).collect();
        assert_eq!((timeline.0.len(), timeline.count()), (MOMENTS_MAX, moments));
    }
}
