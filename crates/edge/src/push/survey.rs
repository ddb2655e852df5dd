//! A look at everybody every two seconds: who follows, who starves, what was acknowledged.

use std::sync::{Mutex, PoisonError};

use fanout::Container;

use super::conn::{Conn, State};
use super::window;
use crate::channel::Terms;

/// Seconds between two looks.
pub(crate) const EVERY_S: u32 = 2;
/// What may be looked at in one turn: a connection is one, and asking the kernel about it this many more.
pub(crate) const LOOKS: usize = 2_000;
const ASKING: usize = 3;
/// Parts after which somebody is known to listen.
const FOLLOWS_AFTER: u32 = 3;
/// Seconds after which somebody who has not taken so much, beyond what the kernel may hold, is known not to; so many more
/// than they would take at the media rate.
const PATIENCE_S: u32 = 5;
/// Seconds over which it is judged what somebody takes.
const SPAN_S: u8 = 10;
/// Seconds from the first look in which the kernel is asked whether somebody's window is open; later only of those who
/// starve, so that a listener costs nothing.
const YOUNG_S: u16 = 60;
/// A window smaller than this is shut, bytes: receivers announce none before a segment fits (RFC 9293 section 3.8.6.2.2),
/// and the smallest that all must take is so large.
const SHUT_BELOW: u32 = 536;

/// What was found: sums since the start, but for those that say how it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Now: connections whose handshake is not finished.
    pub(crate) shaking: u64,
    /// Now: connections whose request is not whole.
    pub(crate) reading: u64,
    /// Now: sessions open.
    pub(crate) sessions: u64,
    /// Now: of those, the ones that took less than a quarter of what was due to them in ten seconds.
    pub(crate) starved: u64,
    /// Now: those whose receiver's window was shut at the last two looks: what they are sent, nobody reads.
    pub(crate) shut: u64,
    /// Now: of those that starve, the ones of which the kernel does not say that.
    pub(crate) shut_unknown: u64,
    /// Now: those that took something in the last ten seconds.
    pub(crate) listeners: u64,
    /// Sessions of which it is known whether they follow. Each is counted once it is known, so that those who came at once
    /// and those of them who follow are counted at once too.
    pub(crate) opened: u64,
    /// Of those, the ones that took three parts.
    pub(crate) followed: u64,
    /// Bytes due to sessions at their media rate, but for those that fill what the kernel may hold.
    pub(crate) bytes_due: u64,
    /// Bytes acknowledged, as far as that is certain.
    pub(crate) bytes_acked: u64,
}

/// A receiver's window, as of the last looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gate {
    #[default]
    Open,
    /// It was shut at the last look.
    Shutting,
    /// And at the one before.
    Shut,
    /// The kernel does not say.
    Unknown,
}

impl Gate {
    fn after(self, window: Option<u32>) -> Self {
        match (window, self) {
            (None, _) => Self::Unknown,
            (Some(SHUT_BELOW..), _) => Self::Open,
            (Some(_), Self::Shutting | Self::Shut) => Self::Shut,
            (Some(_), Self::Open | Self::Unknown) => Self::Shutting,
        }
    }
}

/// Whether it is known that somebody follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    /// Nobody has looked yet.
    #[default]
    Nothing,
    /// Not yet.
    Seen,
    /// It was counted, one way or the other.
    Judged,
}

/// What is known of one listener from one look to the next. There are as many as listeners, so it is kept small.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    /// Bytes that the kernel took since the last look.
    pub(crate) fresh: u32,
    /// All that it took before, but not more than it takes to know.
    whole: u32,
    /// Bytes that are not due yet: at first what is taken fills what the kernel may hold.
    credit: u32,
    /// Bytes due and acknowledged since it is being judged whether it starves.
    span_due: u32,
    span_acked: u32,
    /// Second of the last look, of which only the end is kept.
    looked: u16,
    /// Seconds since the first look, as far as they can be counted here; since when it is being judged whether it
    /// starves; and since something was taken.
    age_s: u16,
    span_s: u8,
    silent_s: u8,
    known: Known,
    starves: bool,
    gate: Gate,
    /// On what terms it is counted as one to whom nothing is delivered.
    deaf: Option<Terms>,
}

impl Taken {
    /// On what terms it is counted as one to whom nothing is delivered.
    pub(crate) fn deaf(&self) -> Option<Terms> {
        self.deaf
    }

    /// Counts it, or does no more; what it was and what it is, if that changed.
    fn listens_on(&mut self, terms: Terms) -> Option<[Option<Terms>; 2]> {
        let is = (self.silent_s >= SPAN_S).then_some(terms);
        let was = std::mem::replace(&mut self.deaf, is);
        (was != is).then_some([was, is])
    }
}

/// The survey that is being made, and the last one.
#[derive(Debug, Default)]
pub(crate) struct Surveyor {
    now: Survey,
    at: Option<usize>,
}

/// The last survey, for other threads.
#[derive(Debug, Default)]
pub(crate) struct Surveyed(Mutex<Survey>);

impl Surveyed {
    pub(crate) fn get(&self) -> Survey {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Surveyor {
    /// Begins to look at everybody, if nobody is being looked at.
    pub(crate) fn begin(&mut self) {
        if self.at.is_none() {
            self.at = Some(0);
            let Survey { opened, followed, bytes_due, bytes_acked, .. } = self.now;
            self.now = Survey { opened, followed, bytes_due, bytes_acked, ..Survey::default() };
        }
    }

    /// Somebody goes. Who was not judged yet did not follow.
    pub(crate) fn leave(&mut self, taken: &Taken) {
        self.now.opened += u64::from(taken.known != Known::Judged);
    }

    /// Whether there is somebody to be looked at.
    pub(crate) fn is_busy(&self) -> bool {
        self.at.is_some()
    }

    /// Looks at some more. `held_max` bytes may be in the kernel without having been acknowledged. `mark` is told of those in
    /// a hall who begin or cease to be ones to whom nothing is delivered.
    pub(crate) fn go_on(
        &mut self,
        conns: &mut slab::Slab<Conn>,
        second: u32,
        held_max: u64,
        told: &Surveyed,
        mut mark: impl FnMut(u16, Container, [Option<Terms>; 2]),
    ) {
        let Some(mut key) = self.at else { return };
        let (mut looks, end) = (LOOKS, conns.capacity());
        while looks > 0 && key < end {
            looks -= 1;
            key += 1;
            let Some(Conn { stream, state, .. }) = conns.get_mut(key - 1) else { continue };
            match state {
                State::Shaking(_) => self.now.shaking += 1,
                State::Reading(_) => self.now.reading += 1,
                State::Listening(listener) => {
                    let rate = u64::from(listener.cursor.rendition().bits_per_second()) / 8;
                    self.now.look(&mut listener.taken, rate, second, held_max, || {
                        looks = looks.saturating_sub(ASKING);
                        window::announced(stream)
                    });
                    let terms = (listener.cursor.rendition(), listener.cursor.tier());
                    if let Some(change) = listener.taken.listens_on(terms) {
                        mark(listener.hall, listener.cursor.container(), change);
                    }
                }
                _ => {}
            }
        }
        self.at = (key < end).then_some(key);
        if self.at.is_none() {
            *told.0.lock().unwrap_or_else(PoisonError::into_inner) = self.now;
        }
    }
}

impl Survey {
    /// `rate` in bytes a second; `window` asks the kernel for the one that the receiver announced, in bytes.
    fn look(
        &mut self,
        taken: &mut Taken,
        rate: u64,
        second: u32,
        held_max: u64,
        window: impl FnOnce() -> Option<u32>,
    ) {
        let held_max = u32::try_from(held_max).unwrap_or(u32::MAX);
        let rate = u32::try_from(rate).unwrap_or(u32::MAX);
        if taken.known == Known::Nothing {
            *taken = Taken { known: Known::Seen, credit: held_max, looked: second as u16, ..*taken };
        }
        let elapsed = (second as u16).wrapping_sub(taken.looked);
        let fresh = std::mem::take(&mut taken.fresh);
        let wanted = FOLLOWS_AFTER * rate / 25 * 12;
        // Nobody knows of what the kernel may hold whether it was acknowledged.
        let more = match taken.whole.checked_sub(held_max) {
            Some(_) => fresh,
            None => (taken.whole.saturating_add(fresh)).saturating_sub(held_max),
        };
        taken.whole = taken.whole.saturating_add(fresh).min(held_max.saturating_add(wanted));
        let mut due = rate.saturating_mul(elapsed.into());
        let lent = due.min(taken.credit);
        due -= lent;
        taken.credit -= lent;
        taken.looked = second as u16;
        taken.age_s = taken.age_s.saturating_add(elapsed);
        let elapsed = u8::try_from(elapsed).unwrap_or(u8::MAX);
        // For as long as that is being filled, it was.
        let hears = more > 0 || (lent > 0 && fresh > 0);
        taken.silent_s = if hears { 0 } else { taken.silent_s.saturating_add(elapsed) };
        taken.span_due = taken.span_due.saturating_add(due);
        taken.span_acked = taken.span_acked.saturating_add(more);
        taken.span_s = taken.span_s.saturating_add(elapsed);
        if taken.span_s >= SPAN_S {
            taken.starves = u64::from(taken.span_acked) * 4 < taken.span_due.into();
            (taken.span_s, taken.span_due, taken.span_acked) = (0, 0, 0);
        }
        let is_asked = taken.age_s < YOUNG_S || taken.starves;
        taken.gate = if is_asked { taken.gate.after(window()) } else { Gate::default() };
        self.shut += u64::from(taken.gate == Gate::Shut);
        self.shut_unknown += u64::from(taken.starves && taken.gate == Gate::Unknown);
        self.sessions += 1;
        self.bytes_due += u64::from(due);
        self.bytes_acked += u64::from(more);
        self.listeners += u64::from(taken.silent_s < SPAN_S);
        self.starved += u64::from(taken.starves);
        if taken.known != Known::Judged {
            let patience_s = held_max.saturating_add(wanted).div_ceil(rate.max(1)).saturating_add(PATIENCE_S);
            let follows = taken.whole >= held_max.saturating_add(wanted);
            // A kernel that may hold more than can be waited for is waited for as long as can be counted.
            if follows || u32::from(taken.age_s) >= patience_s.min(u16::MAX.into()) {
                taken.known = Known::Judged;
                self.opened += 1;
                self.followed += u64::from(follows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanout::Tier;
    use model::Rendition;

    const RATE: u64 = 6_000;
    const HELD: u64 = 40_960;

    /// Looks for `seconds` at somebody to whom the kernel takes what `bytes` says of each second.
    fn survey(seconds: u32, bytes: impl Fn(u64) -> u64) -> (Survey, Taken) {
        survey_of(seconds, bytes, |_| Some(64 * 1_024))
    }

    /// And whose receiver announces such a `window`.
    fn survey_of(
        seconds: u32,
        bytes: impl Fn(u64) -> u64,
        window: impl Fn(u64) -> Option<u32>,
    ) -> (Survey, Taken) {
        let (mut survey, mut taken) = (Survey::default(), Taken::default());
        let mut before = 0;
        for second in (0..=seconds).step_by(EVERY_S as usize) {
            let Survey { opened, followed, bytes_due, bytes_acked, .. } = survey;
            survey = Survey { opened, followed, bytes_due, bytes_acked, ..Survey::default() };
            let all = bytes(u64::from(second));
            taken.fresh += u32::try_from(all - std::mem::replace(&mut before, all)).unwrap();
            survey.look(&mut taken, RATE, 100 + second, HELD, || window(second.into()));
        }
        (survey, taken)
    }

    #[test]
    fn who_listens_is_known_to_follow_and_counts_from_the_beginning() {
        let listens = |second| 8_000 + RATE * second;
        for seconds in [0, 2, 4, 6] {
            let (survey, _) = survey(seconds, listens);
            assert_eq!((survey.opened, survey.listeners, survey.starved), (0, 1, 0), "{seconds}");
        }
        let (survey, _) = survey(60, listens);
        assert_eq!((survey.opened, survey.followed, survey.listeners, survey.starved), (1, 1, 1, 0));
        // All that is due is acknowledged.
        assert!(survey.bytes_acked >= survey.bytes_due && survey.bytes_due > 50 * RATE, "{survey:?}");
    }

    #[test]
    fn who_takes_nothing_is_known_not_to_follow() {
        let (early, _) = survey(8, |_| HELD);
        assert_eq!((early.opened, early.bytes_due), (0, 8 * RATE - HELD));
        let (late, _) = survey(40, |_| HELD);
        assert_eq!((late.opened, late.followed, late.listeners, late.starved), (1, 0, 0, 1));
        assert_eq!(late.bytes_acked, 0);
    }

    #[test]
    fn a_window_that_is_shut_at_two_looks_is_shut_and_who_listens_is_not_asked_for_ever() {
        let shut = |seconds, window: fn(u64) -> Option<u32>| {
            let (survey, _) = survey_of(seconds, |second| RATE * second.min(10), window);
            (survey.shut, survey.shut_unknown)
        };
        assert_eq!(shut(10, |_| Some(0)), (1, 0));
        assert_eq!(shut(10, |_| Some(SHUT_BELOW)), (0, 0));
        assert_eq!(shut(10, |second| Some(if second == 8 { 9_000 } else { 0 })), (0, 0), "shut anew");
        // A network that carries nothing leaves the window as it was; a kernel that says nothing leaves it unknown.
        assert_eq!(shut(40, |_| Some(9_000)), (0, 0));
        assert_eq!((shut(10, |_| None), shut(40, |_| None)), ((0, 0), (0, 1)));
        // Later only who starves is asked.
        assert_eq!(shut(80, |_| Some(0)), (1, 0));
        let listens = |second| RATE * second;
        assert_eq!(survey_of(80, listens, |_| Some(0)).0.shut, 0);
    }

    #[test]
    fn who_stops_is_no_listener_after_ten_seconds() {
        let stops = |second: u64| RATE * second.min(30);
        assert_eq!(survey(38, stops).0.listeners, 1);
        assert_eq!(survey(42, stops).0.listeners, 0);
        assert_eq!(survey(60, stops).0.starved, 1);
    }

    #[test]
    fn who_takes_nothing_is_counted_as_nobody_until_something_is_taken() {
        let terms = (Rendition::Opus48, Tier::new(1).unwrap());
        let slow = (Rendition::Opus48, Tier::new(2).unwrap());
        let stops = |second: u64| RATE * second.min(15);
        assert_eq!(survey(24, stops).1.listens_on(terms), None);
        let (_, mut taken) = survey(26, stops);
        assert_eq!(taken.listens_on(terms), Some([None, Some(terms)]));
        assert_eq!((taken.listens_on(terms), taken.deaf()), (None, Some(terms)));
        assert_eq!(taken.listens_on(slow), Some([Some(terms), Some(slow)]));
        taken.fresh = 1;
        Survey::default().look(&mut taken, RATE, 128, HELD, || None);
        assert_eq!((taken.listens_on(slow), taken.deaf()), (Some([Some(slow), None]), None));
    }

    #[test]
    fn who_leaves_before_it_is_known_did_not_follow() {
        let (now, taken) = survey(2, |second| RATE * second);
        let mut surveyor = Surveyor { now, at: None };
        surveyor.leave(&taken);
        assert_eq!((surveyor.now.opened, surveyor.now.followed), (1, 0));
        let (now, taken) = survey(30, |second| RATE * second);
        let mut surveyor = Surveyor { now, at: None };
        surveyor.leave(&taken);
        assert_eq!((surveyor.now.opened, surveyor.now.followed), (1, 1));
    }
}
