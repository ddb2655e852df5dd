//! How many may come in now: seats that are free and not held for somebody whose turn it is.
//!
//! A turn lasts [`TURN_MS`]. Until then a seat is held for each who has not come yet; then it goes to the next. Who
//! comes later than that still comes in, out of half of the free seats (all of them once nobody else wants them).
//! Without this, an attacker could let turn after turn pass and then come with all of them at once.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::draw::Rank;
use super::estimate::Rate;
use crate::ticket::TicketId;

/// For how long a seat is held for somebody whose turn has come.
pub const TURN_MS: u64 = 15_000;
/// Most turns told apart; more are taken as one with the youngest.
pub const TURNS_MAX: usize = 32;
/// Most who came back after their turn that are remembered, so that a copy does not cost a second seat.
pub const RETURNED_MAX: usize = 16_384;
/// Time over which the rate is smoothed.
const SMOOTH_MS: u64 = 30_000;
/// The rate is unknown when nobody came in for so long.
const STILL_MS: u64 = 30_000;
/// For how long the last free seat is kept for those who come back, after one of them had to be sent away.
const SENT_AWAY_MS: u64 = 5_000;
/// More time than this between two calls is taken as this.
const STEP_MS_MAX: u64 = 10_000;
/// What is taken for the time between two calls when the clock went back.
const STEP_MS: u64 = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Turn {
    age_ms: u64,
    /// Ranks below this had their turn by then.
    through: Rank,
    /// Who has not come.
    left: u64,
}

/// The pace of the room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gate {
    last_ms: Option<i64>,
    step_ms: u64,
    /// Oldest first.
    turns: VecDeque<Turn>,
    /// Ranks below this have missed their turn, if they have not come.
    lapsed: Rank,
    /// How many of them there are, as well as that is known.
    absent: u64,
    /// How many of them may come before the next step.
    returns: u64,
    /// How many did since the last.
    returned: u64,
    /// Time since one was sent away; `None` if that is long ago.
    sent_away_ms: Option<u64>,
    /// Not frozen: after a restart a copy may cost another seat.
    #[serde(skip)]
    remembered: VecDeque<[u8; 8]>,
    #[serde(skip)]
    remembered_ids: BTreeSet<[u8; 8]>,
    /// People times 1,000, and microseconds, both fading with [`SMOOTH_MS`].
    moved_milli: u64,
    moving_us: u64,
    still_ms: u64,
}

impl Gate {
    /// Begins a step: how many more may have their turn, at most `batch`.
    pub(super) fn step(&mut self, now_ms: i64, free: u64, redeemed: u64, batch: u64) -> u64 {
        self.step_ms = match self.last_ms {
            Some(last) if now_ms >= last => now_ms.abs_diff(last).min(STEP_MS_MAX),
            _ => STEP_MS,
        };
        self.last_ms = Some(now_ms);
        let step_ms = self.step_ms;
        self.sent_away_ms = self.sent_away_ms.map(|age| age + step_ms).filter(|&age| age <= SENT_AWAY_MS);

        // Who came back has a seat held until they take it, as if their turn had come again.
        let returned = std::mem::take(&mut self.returned);
        self.turn(returned, self.lapsed);
        let mut came = redeemed;
        for turn in &mut self.turns {
            turn.age_ms += step_ms;
            let here = turn.left.min(came);
            turn.left -= here;
            came -= here;
        }
        while let Some(turn) = self.turns.pop_front_if(|turn| turn.age_ms >= TURN_MS) {
            if turn.left > 0 {
                self.lapsed = self.lapsed.max(turn.through);
                self.absent = self.absent.saturating_add(turn.left);
            }
        }

        let free = free.saturating_sub(self.held());
        let kept = if self.sent_away_ms.is_some() { free.div_ceil(2) } else { self.absent.min(free / 2) };
        let people = (free - kept).min(batch);
        self.returns = if self.lapsed > Rank::FIRST { (free - people).min(batch) } else { 0 };
        people
    }

    /// Begins the turn of so many people, all below `through`.
    pub(super) fn turn(&mut self, people: u64, through: Rank) {
        if people == 0 {
            return;
        }
        if self.turns.len() < TURNS_MAX {
            self.turns.push_back(Turn { age_ms: 0, through, left: people });
        } else if let Some(turn) = self.turns.back_mut() {
            turn.through = turn.through.max(through);
            turn.left = turn.left.saturating_add(people);
        }
    }

    /// Ends the step: so many had their turn, all below `through`. `waiting` says whether anybody had to wait for it.
    pub(super) fn moved(&mut self, people: u64, through: Rank, waiting: bool) {
        self.turn(people, through);
        self.still_ms = if people > 0 { 0 } else { self.still_ms.saturating_add(self.step_ms) };
        if self.still_ms >= STILL_MS {
            (self.moved_milli, self.moving_us) = (0, 0);
        } else if waiting || people > 0 {
            let fade = |sum: u64| sum.saturating_mul(SMOOTH_MS) / (SMOOTH_MS + self.step_ms);
            self.moved_milli = fade(self.moved_milli).saturating_add(people.saturating_mul(1_000));
            self.moving_us = fade(self.moving_us).saturating_add(1_000 * self.step_ms);
        }
    }

    /// Whether somebody of this rank, whose turn has come, may come in before the next step.
    pub(super) fn admits(&mut self, rank: Rank, TicketId(id): TicketId) -> bool {
        if rank >= self.lapsed || self.remembered_ids.contains(&id) {
            return true;
        }
        if self.returns == 0 {
            self.sent_away_ms = Some(0);
            return false;
        }
        self.returns -= 1;
        self.returned += 1;
        self.absent = self.absent.saturating_sub(1);
        if self.remembered.len() >= RETURNED_MAX
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.remembered_ids.remove(&oldest);
        }
        self.remembered.push_back(id);
        self.remembered_ids.insert(id);
        true
    }

    /// Seats held for those whose turn it is.
    pub(super) fn held(&self) -> u64 {
        self.turns.iter().fold(0, |held: u64, turn| held.saturating_add(turn.left))
    }

    /// Whether one who missed their turn was sent away a short while ago.
    pub(super) fn sent_away(&self) -> bool {
        self.sent_away_ms.is_some()
    }

    /// Those who missed their turn and have not come back.
    pub(super) fn absent(&self) -> u64 {
        self.absent
    }

    /// People a second who had their turn lately; 0 where that is unknown.
    pub(super) fn rate(&self) -> Rate {
        let milli = self.moved_milli.saturating_mul(1_000_000).checked_div(self.moving_us);
        Rate::from_milli(milli.unwrap_or(0))
    }

    /// Turns and returned ones held.
    pub(super) fn entries(&self) -> usize {
        self.turns.len() + self.remembered.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gate, its time, and how far it has gone: ranks are places here.
    #[derive(Default)]
    struct Run {
        gate: Gate,
        now_ms: i64,
        through: u64,
    }

    impl Run {
        fn second(&mut self, free: u64, redeemed: u64) -> u64 {
            self.now_ms += 1_000;
            let people = self.gate.step(self.now_ms, free, redeemed, 100);
            self.through += people;
            self.gate.moved(people, Rank(self.through), true);
            people
        }

        fn admits(&mut self, rank: u64) -> bool {
            self.gate.admits(Rank(rank), TicketId(rank.to_be_bytes()))
        }
    }

    #[test]
    fn a_seat_is_given_once() {
        let mut run = Run::default();
        assert_eq!([run.second(60, 0), run.second(60, 0), run.second(70, 0)], [60, 0, 10]);
        // Fifty came and took their seats.
        assert_eq!([run.second(20, 50), run.second(25, 0)], [0, 5]);
        assert_eq!(run.second(10_000, 0), 100, "never more than a batch");
        assert_eq!(run.second(0, 1_000_000), 0);
        assert_eq!(run.gate.held(), 0);
    }

    #[test]
    fn who_does_not_come_holds_a_seat_for_one_turn() {
        let mut run = Run::default();
        assert_eq!(run.second(40, 0), 40);
        for _ in 1..TURN_MS / 1_000 {
            assert_eq!(run.second(40, 0), 0);
        }
        // Half of the seats are kept for those who missed it.
        assert_eq!((run.second(40, 0), run.gate.absent()), (20, 40));
        let back = (0..40).filter(|&rank| run.admits(rank)).count();
        assert_eq!(back, 20);
        assert!(run.admits(3) && !run.admits(33), "a copy costs no other seat");
        assert!(run.admits(40) && run.admits(59), "whose turn it is comes in");
        // Twenty came back, five in turn; nobody is counted twice.
        assert_eq!((run.second(15, 25), run.gate.held()), (0, 15));
    }

    #[test]
    fn the_last_seat_is_for_whoever_comes() {
        let mut run = Run::default();
        assert_eq!(run.second(1, 0), 1);
        while run.gate.absent() == 0 {
            run.second(0, 0);
        }
        assert!(!run.admits(0));
        assert_eq!(run.second(1, 0), 0, "kept for the one who was sent away");
        assert!(run.admits(0));
        assert_eq!(run.second(0, 1), 0);
        for _ in 0..5 {
            run.second(0, 0);
        }
        assert_eq!(run.second(1, 0), 1, "nobody asked for it");
    }

    #[test]
    fn the_rate_follows_and_is_unknown_when_nothing_moves() {
        let mut run = Run::default();
        assert_eq!(run.gate.rate(), Rate::default());
        run.second(20, 0);
        assert_eq!(run.gate.rate().milli(), 20_000, "right from the first second");
        for _ in 0..200 {
            run.second(100, run.through);
        }
        let rate = run.gate.rate().milli();
        assert!((99_000..=100_000).contains(&rate), "{rate}");
        for _ in 0..29 {
            run.second(0, 0);
        }
        let rate = run.gate.rate().milli();
        assert!((20_000..50_000).contains(&rate), "{rate}");
        run.second(0, 0);
        assert_eq!(run.gate.rate().milli(), 0);
        for second in 0..120 {
            run.second(if second % 10 == 0 { 1 } else { 0 }, 1);
        }
        let rate = run.gate.rate().milli();
        assert!((70..=130).contains(&rate), "one in ten seconds: {rate}");
    }

    #[test]
    fn a_clock_that_jumps_ends_no_turn_and_makes_none_last() {
        let mut run = Run::default();
        run.second(10, 0);
        run.now_ms += 3_600_000;
        assert_eq!(run.second(10, 0), 0, "an hour is ten seconds at most");
        run.now_ms -= 86_400_000;
        for _ in 0..4 {
            assert_eq!(run.second(10, 0), 0);
        }
        assert_eq!(run.second(10, 0), 5);
    }

    #[test]
    fn what_it_holds_is_bounded() {
        let mut run = Run::default();
        for second in 0..5_000 {
            run.now_ms -= 900;
            run.second(u64::MAX, 0);
            for rank in 0..run.gate.lapsed.0.min(200) {
                run.admits(run.gate.lapsed.0 - 1 - rank);
            }
            assert!(run.gate.entries() <= TURNS_MAX + RETURNED_MAX, "{second}");
            assert_eq!(run.gate.remembered.len(), run.gate.remembered_ids.len());
        }
        assert_eq!(run.gate.remembered.len(), RETURNED_MAX);
    }
}
