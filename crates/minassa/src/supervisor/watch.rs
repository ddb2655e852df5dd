//! When a child is started, killed and started again: a state machine without processes or clocks.
//!
//! ```text
//!            start              first beat
//! Waiting ──────────► Starting ────────────► Running
//!    ▲                   │ 15 s without a beat   │ 5 s without a beat
//!    │                   ▼                       ▼
//!    │                 kill ◄────────────────────┘
//!    │  at once the first time, then after        │
//!    └─ 100 ms, 200 ms … 5 s ◄─── exited ◄────────┘
//! ```

use std::time::Duration;

/// A child that was never heard of is taken to hang after this long.
pub(super) const START_GRACE: Duration = Duration::from_secs(15);
/// A child that was heard of is taken to hang after this long without a beat.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);
/// After running this long a child's failures are forgotten. Short, for who waits for the restart are speakers and
/// listeners: a child that was killed comes back at once, however often; only one that dies as it starts is slowed.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(1);
/// The second restart in a row waits this long, each further one twice as long.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// No restart waits longer.
pub(super) const BACKOFF_MOST: Duration = Duration::from_secs(5);
/// A child that was told to stop is killed after this long. Longer than any role takes to let its callers finish.
pub(super) const STOP_MOST: Duration = Duration::from_secs(10);

// A role that drains its callers for five seconds must have time left to flush its disk.
const _: () = assert!(STOP_MOST.as_secs() > 5);
// Roles beat twice a second: a hang is at least eight beats missed, never a busy machine.
const _: () = assert!(SILENCE_MAX.as_millis() >= 8 * backend::child::BEAT.as_millis());

/// Time since the supervisor began. The shell counts it on a clock that does not step.
pub(super) type Moment = Duration;

/// What the shell is to do about one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Start it.
    Start,
    /// Kill it: it gives no sign of life.
    KillHanging,
    /// Ask it to stop.
    Stop,
    /// Kill it: it was asked to stop and has not.
    KillStopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { until: Moment },
    Starting { since: Moment },
    Running { since: Moment, beat: Moment },
    Killed { since: Moment },
    Stopping { since: Moment, killed: bool },
    Gone,
}

/// One child.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    state: State,
    /// Exits in a row, without a healthy time between them.
    failures: u32,
    restarts: u64,
    ever_ready: bool,
}

impl Watch {
    /// A child that is to be started at once.
    pub(super) fn new(now: Moment) -> Self {
        Self { state: State::Waiting { until: now }, failures: 0, restarts: 0, ever_ready: false }
    }

    /// What is to be done now, if anything. Ask again until there is nothing.
    pub(super) fn poll(&mut self, now: Moment) -> Option<Order> {
        match self.state {
            State::Waiting { until } if now >= until => {
                self.state = State::Starting { since: now };
                Some(Order::Start)
            }
            State::Starting { since } if now >= since + START_GRACE => {
                self.state = State::Killed { since: now };
                Some(Order::KillHanging)
            }
            State::Running { since, beat } if now >= beat + SILENCE_MAX => {
                self.state = State::Killed { since };
                Some(Order::KillHanging)
            }
            State::Stopping { since, killed: false } if now >= since + STOP_MOST => {
                self.state = State::Stopping { since, killed: true };
                Some(Order::KillStopping)
            }
            _ => None,
        }
    }

    /// When [`Self::poll`] has something to say next, if nothing happens before.
    pub(super) fn next(&self) -> Option<Moment> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Starting { since } => Some(since + START_GRACE),
            State::Running { beat, .. } => Some(beat + SILENCE_MAX),
            State::Stopping { since, killed: false } => Some(since + STOP_MOST),
            State::Stopping { killed: true, .. } | State::Killed { .. } | State::Gone => None,
        }
    }

    /// It gave a sign of life. Says whether it was the first of this process.
    pub(super) fn beat(&mut self, now: Moment) -> bool {
        match self.state {
            State::Starting { .. } => {
                self.state = State::Running { since: now, beat: now };
                self.ever_ready = true;
                true
            }
            State::Running { since, .. } => {
                self.state = State::Running { since, beat: now };
                false
            }
            _ => false,
        }
    }

    /// Nobody could have heard it: its time begins anew.
    pub(super) fn excuse(&mut self, now: Moment) {
        match &mut self.state {
            State::Starting { since } => *since = now,
            State::Running { beat, .. } => *beat = now,
            State::Waiting { .. } | State::Stopping { .. } | State::Killed { .. } | State::Gone => {}
        }
    }

    /// Its process is gone, or could not be started. Returns how long it waits for the next, `None` if there is to
    /// be none.
    pub(super) fn exited(&mut self, now: Moment) -> Option<Duration> {
        let healthy_since = match self.state {
            State::Stopping { .. } | State::Gone => {
                self.state = State::Gone;
                return None;
            }
            State::Running { since, .. } | State::Killed { since } => Some(since),
            State::Waiting { .. } | State::Starting { .. } => None,
        };
        if healthy_since.is_some_and(|since| now >= since + HEALTHY_AFTER) {
            self.failures = 0;
        }
        let wait = match self.failures {
            0 => Duration::ZERO,
            more => BACKOFF_FIRST.saturating_mul(1 << (more - 1).min(16)).min(BACKOFF_MOST),
        };
        self.failures = self.failures.saturating_add(1);
        self.restarts += 1;
        self.state = State::Waiting { until: now + wait };
        Some(wait)
    }

    /// The server is to stop. Returns what is to be done now, if anything.
    pub(super) fn stop(&mut self, now: Moment) -> Option<Order> {
        match self.state {
            State::Waiting { .. } => {
                self.state = State::Gone;
                None
            }
            State::Starting { .. } | State::Running { .. } => {
                self.state = State::Stopping { since: now, killed: false };
                Some(Order::Stop)
            }
            State::Killed { .. } => {
                self.state = State::Stopping { since: now, killed: true };
                None
            }
            State::Stopping { .. } | State::Gone => None,
        }
    }

    /// Whether it is over.
    pub(super) fn is_gone(&self) -> bool {
        self.state == State::Gone
    }

    /// Whether its process gives signs of life.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Whether any of its processes ever gave one.
    pub(super) fn ever_ready(&self) -> bool {
        self.ever_ready
    }

    /// Exits in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// How often it was started again.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Moment {
        Moment::from_secs(seconds)
    }

    const fn ms(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn running(now: Moment) -> Watch {
        let mut watch = Watch::new(now);
        assert_eq!(watch.poll(now), Some(Order::Start));
        assert!(watch.beat(now));
        watch
    }

    #[test]
    fn restarts_wait_longer_each_time_and_health_is_forgiven() {
        let mut watch = running(s(0));
        let mut now = s(1);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let wait = watch.exited(now).unwrap();
            waits.push(wait.as_millis());
            assert_eq!(watch.next(), Some(now + wait));
            if !wait.is_zero() {
                assert_eq!(watch.poll(now + wait - ms(1)), None, "not before its time");
            }
            now += wait;
            assert_eq!(watch.poll(now), Some(Order::Start));
            watch.beat(now);
        }
        assert_eq!(waits, [0, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        // A healthy second later a crash is the first one again.
        assert!(!watch.beat(now + ms(500)));
        assert_eq!(watch.exited(now + s(1)), Some(Duration::ZERO));
        assert_eq!(watch.restarts(), 10);
    }

    #[test]
    fn whom_nobody_could_have_heard_has_its_time_again() {
        let mut watch = running(s(10));
        watch.excuse(s(60));
        assert_eq!(watch.poll(ms(64_999)), None);
        assert_eq!(watch.poll(s(65)), Some(Order::KillHanging));
        watch.excuse(s(70));
        assert_eq!(watch.next(), None, "a killed one stays so");
        let mut starting = Watch::new(s(0));
        starting.poll(s(0));
        starting.excuse(s(60));
        assert_eq!(starting.next(), Some(s(75)));
    }

    #[test]
    fn silence_kills_and_the_exit_starts_anew() {
        let mut watch = running(s(10));
        watch.beat(s(11));
        assert_eq!(watch.next(), Some(s(16)));
        assert_eq!(watch.poll(ms(15_999)), None);
        assert_eq!(watch.poll(s(16)), Some(Order::KillHanging));
        assert_eq!(watch.poll(s(16)), None, "once");
        assert!(!watch.beat(s(16)), "a late beat of a killed child counts nothing");
        assert_eq!(watch.exited(s(16)), Some(Duration::ZERO));
        assert_eq!(watch.poll(s(16)), Some(Order::Start));
        // One that never gives a sign gets longer.
        assert_eq!(watch.poll(s(30)), None);
        assert_eq!(watch.poll(s(31)), Some(Order::KillHanging));
        assert!(!watch.is_running());
    }

    #[test]
    fn stopping_asks_first_and_kills_late() {
        let mut watch = running(s(0));
        assert_eq!(watch.stop(s(1)), Some(Order::Stop));
        assert_eq!(watch.stop(s(2)), None);
        assert_eq!(watch.poll(s(10)), None);
        assert_eq!(watch.poll(s(11)), Some(Order::KillStopping));
        assert_eq!(watch.poll(s(30)), None);
        assert_eq!(watch.exited(s(30)), None);
        assert!(watch.is_gone());

        let mut waiting = running(s(0));
        waiting.exited(s(1));
        waiting.poll(s(1));
        waiting.exited(s(1));
        assert_eq!(waiting.stop(s(1)), None, "nothing runs");
        assert!(waiting.is_gone());
        assert_eq!(waiting.poll(s(60)), None, "and nothing is started any more");
    }
}
