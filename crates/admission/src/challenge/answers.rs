//! Who was challenged, did not answer, and asked again: counted by groups of addresses, for the ledger.

use std::net::IpAddr;

use model::UnixTime;

use super::puzzle::{ChallengeKey, Proof, seconds};

/// Groups that addresses fall into by a keyed hash; a group that two share is judged as one.
pub const ADDRESS_GROUPS: usize = 1 << 13;
/// Challenges of so many seconds are counted together.
pub const PERIOD_S: u64 = 10;
/// Challenges of one group and period that may be left unanswered, and as many more for each that was answered: people
/// reload, give up, and share addresses with others. Programs that do not answer leave all but these.
pub const EXCUSED: u64 = 3;
/// Periods that are kept: that being counted, and those whose challenges may yet be answered by who waits.
const PERIODS: usize = 4;
const _: () = assert!((PERIODS as u64 - 1) * PERIOD_S > super::PATIENCE_S);

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    given: u32,
    answered: u32,
}

/// What was given and answered in the last periods: 256 KiB, whoever comes.
#[derive(Debug)]
pub struct Answers {
    /// The period number `n` is at `n` modulo their number.
    periods: [Box<[Group]>; PERIODS],
    /// Number of the period that is counted now.
    current: u64,
    ignored: u64,
}

impl Answers {
    /// Nothing yet.
    pub fn new(now: UnixTime) -> Self {
        let period = || vec![Group::default(); ADDRESS_GROUPS].into();
        Self { periods: std::array::from_fn(|_| period()), current: seconds(now) / PERIOD_S, ignored: 0 }
    }

    /// A challenge was given.
    pub fn give(&mut self, key: &ChallengeKey, address: IpAddr, now: UnixTime) {
        self.turn(now);
        let group = &mut self.periods[place(self.current)][key.group(address, ADDRESS_GROUPS)];
        group.given = group.given.saturating_add(1);
    }

    /// One was answered, by work or by patience.
    pub fn answer(&mut self, key: &ChallengeKey, address: IpAddr, proof: &Proof, now: UnixTime) {
        self.turn(now);
        let period = proof.given_s / PERIOD_S;
        if period <= self.current && self.current - period < PERIODS as u64 {
            let group = &mut self.periods[place(period)][key.group(address, ADDRESS_GROUPS)];
            group.answered = group.answered.saturating_add(1);
        }
    }

    /// Those who did not answer and asked again, of periods that are over, since this was asked last.
    pub fn ignored(&mut self, now: UnixTime) -> u64 {
        self.turn(now);
        std::mem::take(&mut self.ignored)
    }

    fn turn(&mut self, now: UnixTime) {
        let current = seconds(now) / PERIOD_S;
        // A clock that is set back counts on where it was; one that leaps ahead passes every period once.
        let passed = current.saturating_sub(self.current).min(PERIODS as u64);
        self.current = self.current.max(current);
        for n in 0..passed {
            let oldest = &mut self.periods[place(self.current - n)];
            let unanswered = |group: &Group| {
                let excused = EXCUSED + (1 + EXCUSED) * u64::from(group.answered);
                u64::from(group.given).saturating_sub(excused)
            };
            self.ignored += oldest.iter().map(unanswered).sum::<u64>();
            oldest.fill(Group::default());
        }
    }
}

fn place(period: u64) -> usize {
    (period % PERIODS as u64) as usize
}
