//! Steps that are taken quickly and left slowly.

use std::time::Duration;

use model::BootTime;

/// How long a trigger must last before its level is taken. With a look a second the second look takes it, so that a
/// level stands within 2 s of the first second that called for it.
pub const SUSTAINED: Duration = Duration::from_millis(900);
/// Time between two steps down, and between the last step up and the first down, at least.
pub const MINUTE: Duration = Duration::from_secs(60);
/// How long a step must not have been needed before it is left.
pub const CALM: Duration = Duration::from_secs(10);
/// A step is left only when pressure is this much below what called for it, of 1.
pub const MARGIN: f64 = 0.05;

/// Whether a step may be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// No.
    Never,
    /// When it has been calm for long enough.
    WhenCalm,
    /// As soon as the last step down is a minute ago: what it stood for is a fact that is over.
    Now,
}

/// Steps 0 to `TOP`.
#[derive(Clone, Debug)]
pub(super) struct Stair<const TOP: usize> {
    at: usize,
    /// Since when each step, from the first on, has been called for at every look.
    called: [Option<BootTime>; TOP],
    /// Since when the step could be left, at every look.
    calm: Option<BootTime>,
    rose: Option<BootTime>,
    fell: Option<BootTime>,
}

impl<const TOP: usize> Stair<TOP> {
    pub(super) const fn new() -> Self {
        Self { at: 0, called: [None; TOP], calm: None, rose: None, fell: None }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// Goes up to `to`, if that is up.
    pub(super) fn raise(&mut self, now: BootTime, to: usize) {
        if to > self.at {
            (self.at, self.rose, self.calm) = (to.min(TOP), Some(now), None);
        }
    }

    /// Takes in that `wanted` is called for, `at_once` without delay, and whether the present step may be left.
    pub(super) fn observe(&mut self, now: BootTime, wanted: usize, at_once: usize, leave: Leave) {
        let mut target = at_once.min(TOP);
        for (step, since) in (1..).zip(&mut self.called) {
            *since = if step <= wanted { Some(since.unwrap_or(now)) } else { None };
            if since.is_some_and(|since| now.since(since) >= SUSTAINED) {
                target = target.max(step);
            }
        }
        let past = |moment: Option<BootTime>, time| moment.is_none_or(|moment| now.since(moment) >= time);
        self.calm = if leave == Leave::Never { None } else { Some(self.calm.unwrap_or(now)) };
        let may_leave = match leave {
            Leave::Never => false,
            Leave::WhenCalm => past(self.calm, CALM) && past(self.rose, MINUTE),
            Leave::Now => true,
        };
        if target > self.at {
            self.raise(now, target);
        } else if may_leave && target < self.at && past(self.fell, MINUTE) {
            (self.at, self.fell) = (self.at - 1, Some(now));
        }
    }
}
