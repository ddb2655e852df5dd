//! The challenge at control's door: who is asked, what is taken as paid, and what is counted of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use admission::challenge::{Answers, Challenge, ChallengeKey, Paid, Policy, Proof, Refusal, Spent, Traffic};
use admission::ladder::{Level, Priority};
use admission::room::MintCost;
use admission::verdict::Verdict;
use model::{EventSlug, UnixTime};

use crate::config::ChallengeMode;

/// Challenges of all events. The key is as old as this process: who is amid one when control begins anew is asked again.
#[derive(Debug)]
pub(crate) struct Challenges {
    mode: ChallengeMode,
    key: ChallengeKey,
    state: Mutex<State>,
    /// Challenges given.
    asked: AtomicU64,
    /// Taken as solved.
    solved: AtomicU64,
    /// Taken unsolved, after the wait.
    waited: AtomicU64,
    /// Not taken, by [`Refusal::index`].
    refused: [AtomicU64; Refusal::COUNT],
    /// Events for which it ended.
    ended: AtomicU64,
    ignored: AtomicU64,
}

/// Bounded: by the events whose ledgers are followed, and by what each part says of itself.
#[derive(Debug)]
struct State {
    events: BTreeMap<EventSlug, Watched>,
    spent: Spent,
    answers: Answers,
}

#[derive(Debug, Default)]
struct Watched {
    policy: Policy,
    /// Since the policy was told last.
    traffic: Traffic,
    was_on: bool,
}

/// What is counted, since this process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) asked: u64,
    pub(crate) solved: u64,
    pub(crate) waited: u64,
    pub(crate) refused: [u64; Refusal::COUNT],
    /// Events for which it ended.
    pub(crate) ended: u64,
    /// Requests by those who were challenged, did not answer, and asked again.
    pub(crate) ignored: u64,
}

/// A newcomer, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer<'a> {
    pub(crate) address: IpAddr,
    /// Whether they show a place in the room.
    pub(crate) placed: bool,
    /// What they hand in.
    pub(crate) solution: Option<&'a str>,
}

/// What becomes of a newcomer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Goes on to the room; nothing was asked.
    Open,
    /// Goes on, and has paid this.
    Paid(MintCost),
    /// Has to answer, with numbers up to this; why what was handed in is not enough.
    Closed { maxnumber: u32, refusal: Option<Refusal> },
}

impl Challenges {
    /// `secret` is random, and lives as long as this process.
    pub(crate) fn new(mode: ChallengeMode, secret: [u8; 32], now: UnixTime) -> Self {
        let state = State { events: BTreeMap::new(), spent: Spent::default(), answers: Answers::new(now) };
        Self {
            mode,
            key: ChallengeKey(secret),
            state: Mutex::new(state),
            asked: AtomicU64::default(),
            solved: AtomicU64::default(),
            waited: AtomicU64::default(),
            refused: <_>::default(),
            ended: AtomicU64::default(),
            ignored: AtomicU64::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the ledger of an event says now; events that are not followed any more are forgotten with
    /// [`Self::retain`].
    pub(crate) fn observe(&self, event: &EventSlug, verdict: Option<&Verdict>, now: UnixTime) {
        if self.mode == ChallengeMode::Off {
            return;
        }
        let mut state = self.state();
        if verdict.is_none() && !state.events.contains_key(event) {
            return;
        }
        let watched = state.events.entry(event.clone()).or_default();
        let traffic = std::mem::take(&mut watched.traffic);
        watched.policy.observe(verdict, traffic, now);
        let is_on = watched.policy.is_on(now);
        if is_on != watched.was_on {
            tracing::info!(%event, is_on, "whether newcomers are challenged has changed");
            if !is_on {
                self.ended.fetch_add(1, Ordering::Relaxed);
            }
        }
        watched.was_on = is_on;
    }

    /// Forgets events.
    pub(crate) fn retain(&self, keep: impl Fn(&EventSlug) -> bool) {
        self.state().events.retain(|event, _| keep(event));
    }

    /// Whether the evidence of any event asks for it.
    pub(crate) fn any(&self, now: UnixTime) -> bool {
        self.state().events.values().any(|watched| watched.policy.is_on(now))
    }

    /// Whether a newcomer may go on to the room.
    pub(crate) fn gate(&self, event: &EventSlug, who: Newcomer<'_>, level: Level, now: UnixTime) -> Gate {
        let asks = {
            let state = self.state();
            let policy = state.events.get(event).map(|watched| &watched.policy);
            policy.and_then(|policy| policy.asks(Priority::Newcomer, who.placed, level, now))
        };
        let Some(maxnumber) = asks else { return Gate::Open };
        let Some(solution) = who.solution else { return Gate::Closed { maxnumber, refusal: None } };
        // Nobody else waits while it is checked.
        let checked = self.key.check(solution, event, who.address, now);
        let taken = checked.and_then(|proof| self.take(event, who.address, proof, now));
        match taken {
            Ok(Paid::Work(cost)) => {
                self.solved.fetch_add(1, Ordering::Relaxed);
                Gate::Paid(cost)
            }
            Ok(Paid::Patience) => {
                self.waited.fetch_add(1, Ordering::Relaxed);
                Gate::Paid(MintCost::default())
            }
            Err(refusal) => {
                self.refused[refusal.index()].fetch_add(1, Ordering::Relaxed);
                Gate::Closed { maxnumber, refusal: Some(refusal) }
            }
        }
    }

    fn take(&self, event: &EventSlug, address: IpAddr, proof: Proof, now: UnixTime) -> Result<Paid, Refusal> {
        let mut state = self.state();
        if !state.spent.take(&proof, now) {
            return Err(Refusal::Replayed);
        }
        state.answers.answer(&self.key, address, &proof, now);
        if let Paid::Work(_) = proof.paid
            && let Some(watched) = state.events.get_mut(event)
        {
            watched.traffic.solved += 1;
        }
        Ok(proof.paid)
    }

    /// A challenge for who is to answer one. `nonce` is 16 random bytes.
    pub(crate) fn ask(
        &self,
        event: &EventSlug,
        address: IpAddr,
        maxnumber: u32,
        nonce: [u8; 16],
        now: UnixTime,
    ) -> Challenge {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        state.answers.give(&self.key, address, now);
        if let Some(watched) = state.events.get_mut(event) {
            watched.traffic.asked += 1;
        }
        drop(state);
        self.key.challenge(event, address, maxnumber, nonce, now)
    }

    /// What was counted.
    pub(crate) fn sums(&self, now: UnixTime) -> Sums {
        let ignored = self.state().answers.ignored(now);
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Sums {
            asked: total(&self.asked),
            solved: total(&self.solved),
            waited: total(&self.waited),
            refused: self.refused.each_ref().map(total),
            ended: total(&self.ended),
            ignored: self.ignored.fetch_add(ignored, Ordering::Relaxed) + ignored,
        }
    }

    /// How many are remembered as handed in, and how many were forgotten too early.
    pub(crate) fn spent(&self) -> (usize, u64) {
        let state = self.state();
        (state.spent.len(), state.spent.forgotten())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use admission::challenge::{PATIENCE_S, solve};
    use admission::ledger::BinStart;
    use admission::verdict::Class;
    use std::time::Duration;

    /// What a ledger says while programs ask for tickets.
    pub(crate) fn attack(now: UnixTime) -> Verdict {
        let at_ms = BinStart::containing(now);
        Verdict { at_ms, class: Class::L7, confidence_bp: 9_000, since_ms: at_ms, reasons: Vec::new() }
    }

    fn at(second: i64) -> UnixTime {
        UnixTime::from_millis((2_000_000_000 + second) * 1_000)
    }

    fn who(solution: Option<&str>) -> Newcomer<'_> {
        Newcomer { address: IpAddr::from([192, 0, 2, 1]), placed: false, solution }
    }

    #[test]
    fn what_is_asked_given_and_refused_is_counted() {
        let talk: EventSlug = "talk".parse().unwrap();
        let challenges = Challenges::new(ChallengeMode::Auto, [3; 32], at(0));
        challenges.observe(&talk, None, at(0));
        assert_eq!(challenges.gate(&talk, who(Some("x")), Level::L6, at(0)), Gate::Open);
        assert!(!challenges.any(at(0)));
        challenges.observe(&talk, Some(&attack(at(0))), at(10));
        assert!(challenges.any(at(10)));
        let gate =
            |solution: Option<&str>, second| challenges.gate(&talk, who(solution), Level::L4, at(second));
        let Gate::Closed { maxnumber, refusal: None } = gate(None, 10) else { panic!("asked") };
        let ask = |n: u8, second| challenges.ask(&talk, who(None).address, maxnumber, [n; 16], at(second));
        let first = ask(1, 10);
        let solution = first.answer(solve(&first.salt, &first.challenge, first.maxnumber)).encode();
        assert!(matches!(gate(Some(&solution), 11), Gate::Paid(MintCost(10..))));
        let refusal = Some(Refusal::Replayed);
        assert_eq!(gate(Some(&solution), 12), Gate::Closed { maxnumber, refusal });
        let refusal = Some(Refusal::Malformed);
        assert_eq!(gate(Some("x"), 12), Gate::Closed { maxnumber, refusal });
        // Patience is as good, once it was had.
        let waits = ask(2, 12).answer(None).encode();
        let refusal = Some(Refusal::Early { seconds: PATIENCE_S - 1 });
        assert_eq!(gate(Some(&waits), 13), Gate::Closed { maxnumber, refusal });
        assert_eq!(gate(Some(&waits), 12 + PATIENCE_S as i64), Gate::Paid(MintCost(0)));
        // Who has a place, and who comes while the ladder stands lower.
        let placed = Newcomer { placed: true, ..who(None) };
        assert_eq!(challenges.gate(&talk, placed, Level::L4, at(13)), Gate::Open);
        assert_eq!(challenges.gate(&talk, who(None), Level::L3, at(13)), Gate::Open);
        let other = "other".parse().unwrap();
        assert_eq!(challenges.gate(&other, who(None), Level::L4, at(13)), Gate::Open);

        (3..13).for_each(|n| drop(ask(n, 14)));
        challenges.observe(&talk, None, at(10).plus(Duration::from_secs(60)));
        let sums = challenges.sums(at(80));
        assert_eq!((sums.asked, sums.solved, sums.waited, sums.ended), (12, 1, 1, 1));
        assert_eq!(sums.refused, [1, 0, 0, 0, 1, 1]);
        assert_eq!(sums.ignored, 10 - 3, "of the period in which nobody answered");
        assert_eq!(challenges.sums(at(90)).ignored, 7, "it goes up only");
        assert_eq!(challenges.spent(), (2, 0));
        challenges.retain(|_| false);
        assert!(!challenges.any(at(10)));
    }

    #[test]
    fn it_can_be_switched_off() {
        let talk: EventSlug = "talk".parse().unwrap();
        let challenges = Challenges::new(ChallengeMode::Off, [3; 32], at(0));
        challenges.observe(&talk, Some(&attack(at(0))), at(10));
        assert_eq!(challenges.gate(&talk, who(None), Level::L6, at(10)), Gate::Open);
    }
}
