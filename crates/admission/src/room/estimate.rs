//! What everybody who waits is told: one small object a second for all, and what each makes of it.
//!
//! A page computes the same as [`Estimate::of`], in integers below 2^53:
//!
//! ```js
//! const ahead = Math.max(1, place - queue.admitted);
//! const rate = Math.round(queue.rate * 1000);            // people in 1,000 seconds; 0: nothing can be said about time
//! const low = Math.min(86400, Math.floor(2000 * ahead / (3 * rate)));
//! const high = 5 + Math.min(86400, Math.ceil(3000 * ahead / (2 * rate)));
//! ```

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::draw::Rank;

/// Longest time an estimate names, in seconds: a day.
pub const ESTIMATE_MAX_S: u64 = 86_400;
/// What an estimate leaves for asking and getting in, in seconds.
const MARGIN_S: u64 = 5;
/// Shortest and longest delay advised before asking again.
const DELAY_RANGE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// Delay advised where nothing is known.
const DELAY_UNKNOWN: Duration = Duration::from_secs(10);

/// People a second, in thousandths; written as a decimal number. At most a million people a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u32);

impl Rate {
    /// The greatest there is.
    pub const MAX: Self = Self(1_000_000_000);

    /// From thousandths of people a second, cut to [`Self::MAX`].
    pub fn from_milli(milli: u64) -> Self {
        Self(u32::try_from(milli).unwrap_or(u32::MAX)).min(Self::MAX)
    }

    /// Thousandths of people a second.
    pub const fn milli(self) -> u64 {
        self.0 as u64
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1_000.0)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rate = f64::deserialize(deserializer)?;
        // `as` cuts to the range of u64, and makes 0 of what is no number.
        Ok(Self::from_milli((rate * 1_000.0).round() as u64))
    }
}

/// Where the room stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoomState {
    /// Not drawn yet: whoever comes takes part.
    #[default]
    Gathering,
    /// Nobody waits whose turn has not come.
    Clear,
    /// People wait, and their turns come.
    Moving,
    /// People wait and nobody's turn has come for half a minute, or ever: nothing can be said about time.
    Still,
    /// The event is over; the recording is there.
    Ended,
}

/// What `queue.json` says; for all who wait the same, good for one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Whoever's rank is below this may come in.
    pub admitted_through: Rank,
    /// How many people are before it, whether they came in or not; places count from here.
    pub admitted: u64,
    /// How many wait behind it.
    pub waiting: u64,
    /// How fast it goes on; 0 where that is unknown.
    pub rate: Rate,
    /// The ladder's level, 0 to 6.
    pub level: u8,
    /// Where the room stands.
    pub state: RoomState,
}

/// When it will be somebody's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing moves, or the draw is still to come.
    Unknown,
    /// In so many seconds; at most [`ESTIMATE_MAX_S`] and the margin for getting in.
    Between {
        /// At the earliest, if it goes half as fast again.
        low_s: u64,
        /// At the latest, if it goes a third slower.
        high_s: u64,
    },
}

/// What somebody who waits is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// People before them whose turn has not come; `None` until the draw.
    pub ahead: Option<u64>,
    /// The time that takes.
    pub wait: Wait,
}

impl Estimate {
    /// Before the draw.
    pub const UNDRAWN: Self = Self { ahead: None, wait: Wait::Unknown };

    /// Of whoever has `place` people before them in the whole order, and whose turn has not come, given the queue. Places of
    /// a draw are estimates themselves: nobody who waits is told that nobody is before them.
    pub fn of(place: u64, queue: &Queue) -> Self {
        Self::at(place.max(queue.admitted.saturating_add(1)), queue.admitted, queue.rate)
    }

    pub(super) fn at(place: u64, admitted: u64, rate: Rate) -> Self {
        let ahead = place.saturating_sub(admitted);
        let wait = match (ahead, rate.milli()) {
            (0, _) => Wait::Between { low_s: 0, high_s: MARGIN_S },
            (_, 0) => Wait::Unknown,
            (_, rate) => Wait::Between {
                low_s: (ahead.saturating_mul(2_000) / (3 * rate)).min(ESTIMATE_MAX_S),
                high_s: ahead.saturating_mul(3_000).div_ceil(2 * rate).min(ESTIMATE_MAX_S) + MARGIN_S,
            },
        };
        Self { ahead: Some(ahead), wait }
    }

    /// After how long to ask again, before [`jittered`]: a quarter of the least there is to wait, from 2 s to 60 s.
    /// Even where the room begins to go four times as fast nobody misses their turn by it.
    pub fn delay(&self) -> Duration {
        match self.wait {
            Wait::Unknown => DELAY_UNKNOWN,
            Wait::Between { low_s, .. } => Duration::from_secs(low_s / 4).clamp(DELAY_RANGE.0, DELAY_RANGE.1),
        }
    }
}

/// A delay between half of and one and a half times the given one. `random` is uniform over its range and drawn by the
/// caller, anew for every answer: who were sent away together do not come back together.
pub fn jittered(delay: Duration, random: u32) -> Duration {
    let factor = (1u128 << 31) + u128::from(random);
    Duration::from_nanos(u64::try_from((delay.as_nanos() * factor) >> 32).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(rate: u64) -> Queue {
        Queue {
            admitted_through: Rank(12_345),
            admitted: 1_000,
            waiting: 5_000,
            rate: Rate::from_milli(rate),
            level: 4,
            state: RoomState::Moving,
        }
    }

    #[test]
    fn the_object_is_small_and_plain() {
        let json = serde_json::to_string(&queue(12_345)).unwrap();
        assert_eq!(
            json,
            r#"{"admitted_through":12345,"admitted":1000,"waiting":5000,"rate":12.345,"level":4,"state":"moving"}"#
        );
        for rate in [0, 1, 999, 1_000, 123_456_789, u64::MAX] {
            let queue = queue(rate);
            let read: Queue = serde_json::from_str(&serde_json::to_string(&queue).unwrap()).unwrap();
            assert_eq!(read, queue);
        }
        for (text, rate) in [("-1.5", 0), ("1e300", 1_000_000_000), ("0.0004", 0), ("7", 7_000)] {
            assert_eq!(serde_json::from_str::<Rate>(text).unwrap().milli(), rate);
        }
    }

    #[test]
    fn an_estimate_is_people_ahead_and_a_range_of_time() {
        // 600 ahead at 10 a second: a minute, said as 40 s to 90 s and the margin.
        let estimate = Estimate::of(1_600, &queue(10_000));
        let wait = Wait::Between { low_s: 40, high_s: 95 };
        assert_eq!(estimate, Estimate { ahead: Some(600), wait });
        assert_eq!(Estimate::of(1_600, &queue(0)), Estimate { ahead: Some(600), wait: Wait::Unknown });
        // Nobody who waits is told that nobody is before them.
        let next = Estimate { ahead: Some(1), wait: Wait::Between { low_s: 0, high_s: 6 } };
        assert_eq!([1_000, 1_001, 0].map(|place| Estimate::of(place, &queue(10_000))), [next; 3]);
        let never = Wait::Between { low_s: ESTIMATE_MAX_S, high_s: ESTIMATE_MAX_S + 5 };
        assert_eq!(Estimate::of(u64::MAX, &queue(1)).wait, never);
    }

    #[test]
    fn who_is_far_away_asks_seldom() {
        let delay = |place, rate| Estimate::of(place, &queue(rate)).delay().as_secs();
        assert_eq!([delay(1_000, 10_000), delay(1_600, 10_000), delay(9_000_000, 10_000)], [2, 10, 60]);
        assert_eq!((delay(2_000, 0), Estimate::UNDRAWN.delay().as_secs()), (10, 10));
    }

    #[test]
    fn delays_are_spread_by_half() {
        let delay = Duration::from_secs(10);
        assert_eq!(jittered(delay, 0), Duration::from_secs(5));
        assert_eq!(jittered(delay, 1 << 31), delay);
        let longest = jittered(delay, u32::MAX);
        assert!(longest < Duration::from_secs(15) && longest > Duration::from_millis(14_999));
        assert!(jittered(Duration::MAX, u32::MAX) > Duration::from_secs(1 << 33));
    }
}
