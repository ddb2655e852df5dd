//! When each listener's turn comes: writes spread over the parts and over the time after each part.
//!
//! If everybody were written to as soon as a part is there, one core would be busy for 100 ms with 10,000 listeners and
//! nobody could join meanwhile; then it would idle. So each listener has a [`Slot`]: a phase among the parts of its
//! tier, and a step within the [`SPREAD`] that follows a part. Places are given out, to a few at a time, in the order of
//! the van der Corput sequence, which fills them evenly however many there are and whoever leaves again.
//!
//! ```text
//!   part 811      part 812      part 813      part 814
//!   │▒▒▒▒         │▒▒▒▒         │▒▒▒▒         │▒▒▒▒          tier 1: everybody, within 200 ms of each part
//!   │▓▓           │░░           │▓▓           │░░            tier 2: one half, then the other
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use model::PartNumber;

use crate::{Cadence, Tier};

/// Longest time after a part within which everybody's turn has come.
pub const SPREAD: Duration = Duration::from_millis(200);

/// Time given to each listener's write, as long as [`SPREAD`] has room: about four times what a write takes, sealing
/// included, so that three edges can share a core, each in its own rhythm, and there is time for those who join. A few
/// hundred listeners thus wait some milliseconds only.
pub const WRITE_TIME: Duration = Duration::from_micros(50);

/// Turns come in bunches this far apart. Waking this core for a few writes, and those who read them on theirs, costs as much as
/// the writes; with ten thousand listeners a bunch has some hundred, and takes one to four milliseconds.
const GRAIN: Duration = Duration::from_millis(8);
/// Steps in a spread.
const STEPS: usize = 100;
/// Listeners who came one after the other and have their turn together: what the kernel keeps of them lies side by side,
/// and a core fetches it in one go.
const BLOCK: u32 = 16;
/// Phases of all tiers: 1 + 2 + 4 + 8.
const GROUPS: usize = 15;
/// Rounds that may be in progress. There is about one; more come only when a core is overloaded for seconds, and then
/// the newest covers what the oldest left.
const ROUNDS_MAX: usize = 8;

/// A listener's place in a [`Rota`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// `group * STEPS + step`.
    bucket: u16,
    index: u32,
}

impl Slot {
    /// The parts after which its turn comes.
    pub fn cadence(self) -> Cadence {
        let (tier, phase) = group_of(usize::from(self.bucket) / STEPS);
        Cadence::new(tier, phase)
    }
}

/// Somebody's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Whose.
    pub listener: u32,
    /// When it came, on the clock of [`Rota::begin`].
    pub due: Duration,
}

/// Who is written to when. Listeners are numbers of the caller's choosing. Times are durations since a moment that the
/// caller chose once.
#[derive(Debug)]
pub struct Rota {
    buckets: Box<[Vec<u32>]>,
    /// Places given out so far, by tier.
    given: [u32; 4],
    /// Listeners, by group.
    counts: [u32; GROUPS],
    rounds: VecDeque<Round>,
    cut: u64,
}

/// A pass over those whose turn comes with a part, or over all.
#[derive(Debug)]
struct Round {
    start: Duration,
    width: Duration,
    /// The groups it covers; the first `lanes` of them count.
    groups: [u8; GROUPS],
    lanes: u8,
    step: u8,
    lane: u8,
    /// Listeners of the present bucket who are still to come, once it has been begun.
    left: Option<u32>,
}

impl Default for Rota {
    fn default() -> Self {
        Self::new()
    }
}

impl Rota {
    /// Nobody yet.
    pub fn new() -> Self {
        Self {
            buckets: std::iter::repeat_with(Vec::new).take(GROUPS * STEPS).collect(),
            given: [0; 4],
            counts: [0; GROUPS],
            rounds: VecDeque::with_capacity(ROUNDS_MAX),
            cut: 0,
        }
    }

    /// Listeners in it.
    pub fn len(&self) -> usize {
        self.counts.iter().map(|count| *count as usize).sum()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// Rounds that were given up because newer ones overtook them; who was left out had their turn in those.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Gives a listener a place.
    ///
    /// # Panics
    /// If there are 2³² listeners.
    pub fn add(&mut self, tier: Tier, listener: u32) -> Slot {
        let given = &mut self.given[tier.parts().ilog2() as usize];
        let places = tier.parts() * STEPS as u64;
        let place = (u64::from((*given / BLOCK).reverse_bits()) * places) >> u32::BITS;
        *given = given.wrapping_add(1);
        let bucket = first_group(tier) * STEPS + place as usize;
        self.counts[bucket / STEPS] += 1;
        let members = &mut self.buckets[bucket];
        members.push(listener);
        let index = u32::try_from(members.len() - 1).expect("listeners are counted in 32 bits");
        Slot { bucket: bucket as u16, index }
    }

    /// Gives a place back. Whoever is returned sits at this place from now on.
    ///
    /// # Panics
    /// If the slot is nobody's.
    #[must_use = "the one who moved must be told"]
    pub fn remove(&mut self, slot: Slot) -> Option<u32> {
        let members = &mut self.buckets[usize::from(slot.bucket)];
        members.swap_remove(slot.index as usize);
        self.counts[usize::from(slot.bucket) / STEPS] -= 1;
        members.get(slot.index as usize).copied()
    }

    /// Begins a round for the part before `end`, which is here since `now`: those whose [`Cadence`] is due then.
    pub fn begin(&mut self, end: PartNumber, now: Duration) {
        let mut groups = [0; GROUPS];
        let tiers = [Tier::ONE, Tier::TWO, Tier::FOUR, Tier::EIGHT];
        for (group, tier) in groups.iter_mut().zip(tiers) {
            *group = (first_group(tier) as u64 + end.get() % tier.parts()) as u8;
        }
        self.start(groups, tiers.len(), now);
    }

    /// Begins a round for everybody.
    pub fn begin_all(&mut self, now: Duration) {
        self.start(std::array::from_fn(|group| group as u8), GROUPS, now);
    }

    fn start(&mut self, groups: [u8; GROUPS], lanes: usize, now: Duration) {
        let count: u32 = groups[..lanes].iter().map(|group| self.counts[usize::from(*group)]).sum();
        if count == 0 {
            return;
        }
        if self.rounds.len() == ROUNDS_MAX {
            self.rounds.pop_front();
            self.cut += 1;
        }
        let width = WRITE_TIME.saturating_mul(count).min(SPREAD);
        self.rounds.push_back(Round {
            start: now,
            width,
            groups,
            lanes: lanes as u8,
            step: 0,
            lane: 0,
            left: None,
        });
    }

    /// When the next turn comes.
    pub fn next_due(&mut self) -> Option<Duration> {
        self.skip_to_someone();
        self.rounds.iter().map(Round::due).min()
    }

    /// The next one whose turn has come by `now`.
    pub fn next(&mut self, now: Duration) -> Option<Turn> {
        self.skip_to_someone();
        let round = self.rounds.iter_mut().min_by_key(|round| round.due())?;
        let due = round.due();
        if due > now {
            return None;
        }
        // From the last to the first: who takes the place of one that leaves meanwhile had their turn already.
        let left = round.left? - 1;
        round.left = Some(left);
        let listener = self.buckets[round.bucket()][left as usize];
        Some(Turn { listener, due })
    }

    /// Moves every round on to somebody who is still to come; rounds without any are over.
    fn skip_to_someone(&mut self) {
        let buckets = &self.buckets;
        self.rounds.retain_mut(|round| {
            loop {
                let members = buckets[round.bucket()].len() as u32;
                let left = round.left.unwrap_or(members).min(members);
                round.left = Some(left);
                if left > 0 {
                    return true;
                }
                round.left = None;
                round.lane += 1;
                if round.lane == round.lanes {
                    round.lane = 0;
                    round.step += 1;
                    if usize::from(round.step) == STEPS {
                        return false;
                    }
                }
            }
        });
    }
}

impl Round {
    fn bucket(&self) -> usize {
        usize::from(self.groups[usize::from(self.lane)]) * STEPS + usize::from(self.step)
    }

    fn due(&self) -> Duration {
        let offset = self.width * u32::from(self.step) / STEPS as u32;
        self.start + GRAIN * (offset.as_micros() / GRAIN.as_micros()) as u32
    }
}

/// Groups are numbered tier by tier, and within a tier by phase.
const fn first_group(tier: Tier) -> usize {
    tier.parts() as usize - 1
}

fn group_of(group: usize) -> (Tier, u64) {
    let tier = [Tier::EIGHT, Tier::FOUR, Tier::TWO, Tier::ONE]
        .into_iter()
        .find(|tier| first_group(*tier) <= group)
        .unwrap_or(Tier::ONE);
    (tier, (group - first_group(tier)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIERS: [Tier; 4] = [Tier::ONE, Tier::TWO, Tier::FOUR, Tier::EIGHT];

    fn turns(rota: &mut Rota, now: Duration) -> Vec<Turn> {
        std::iter::from_fn(|| rota.next(now)).collect()
    }

    #[test]
    fn a_tier_is_spread_over_its_parts_and_each_part_over_time() {
        let mut rota = Rota::new();
        for listener in 0..20_000 {
            let slot = rota.add(Tier::FOUR, listener);
            assert_eq!(slot.cadence().tier(), Tier::FOUR);
        }
        let mut seen = vec![0; 20_000];
        for end in 100..104 {
            let now = Duration::from_secs(end);
            rota.begin(PartNumber::new(end), now);
            assert_eq!(rota.next_due(), Some(now));
            let half = now + SPREAD / 2 - Duration::from_micros(1);
            let first = turns(&mut rota, half);
            // A bunch of 200 more or less.
            assert!((2_300..=2_700).contains(&first.len()), "{}", first.len());
            let rest = turns(&mut rota, now + SPREAD);
            // A block more or less for each of a few places.
            assert!((4_900..=5_100).contains(&(first.len() + rest.len())), "{}", first.len() + rest.len());
            for pair in first.iter().chain(&rest).collect::<Vec<_>>().windows(2) {
                assert!(pair[0].due <= pair[1].due);
            }
            first.iter().chain(&rest).for_each(|turn| seen[turn.listener as usize] += 1);
            assert_eq!(rota.next_due(), None);
        }
        assert!(seen.iter().all(|count| *count == 1));
    }

    #[test]
    fn a_few_do_not_wait() {
        let mut rota = Rota::new();
        for listener in 0..10 {
            let _ = rota.add(Tier::ONE, listener);
        }
        rota.begin(PartNumber::new(1), Duration::ZERO);
        let last = turns(&mut rota, Duration::from_secs(1)).last().copied();
        assert!(last.is_some_and(|turn| turn.due < 10 * WRITE_TIME));
    }

    #[test]
    fn nobody_causes_no_round() {
        let mut rota = Rota::new();
        rota.begin_all(Duration::ZERO);
        assert_eq!((rota.next_due(), rota.next(SPREAD)), (None, None));
        let slot = rota.add(Tier::TWO, 7);
        let other = if slot.cadence() == Cadence::new(Tier::TWO, 0) { 1 } else { 0 };
        rota.begin(PartNumber::new(other), Duration::ZERO);
        assert_eq!(rota.next_due(), None, "the other half's part");
    }

    #[test]
    fn rounds_in_progress_are_bounded() {
        let mut rota = Rota::new();
        let _ = rota.add(Tier::ONE, 3);
        for end in 0..20 {
            rota.begin(PartNumber::new(end), Duration::from_millis(end));
        }
        assert_eq!(rota.cut(), 12);
        assert_eq!(turns(&mut rota, SPREAD).len(), ROUNDS_MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn who_stays_through_a_round_has_one_turn_whoever_comes_and_goes(
            actions in prop::collection::vec((0u8..4, any::<prop::sample::Index>(), 0u64..30), 1..300),
        ) {
            let mut rota = Rota::new();
            let mut slots: std::collections::BTreeMap<u32, Slot> = std::collections::BTreeMap::new();
            for listener in 0..100 {
                slots.insert(listener, rota.add(TIERS[listener as usize % 4], listener));
            }
            let stayed: std::collections::BTreeSet<u32> = slots.keys().copied().collect();
            let (mut now, mut next) = (Duration::ZERO, 100);
            rota.begin_all(now);
            let mut left = std::collections::BTreeSet::new();
            let mut had = std::collections::BTreeMap::new();
            for (action, which, pause) in actions {
                match action {
                    0 => {
                        slots.insert(next, rota.add(TIERS[which.index(4)], next));
                        next += 1;
                    }
                    1 if !slots.is_empty() => {
                        let listener = *slots.keys().nth(which.index(slots.len())).unwrap();
                        let slot = slots.remove(&listener).unwrap();
                        if let Some(moved) = rota.remove(slot) {
                            slots.insert(moved, slot);
                        }
                        left.insert(listener);
                    }
                    _ => {
                        now += Duration::from_micros(pause * 30);
                        if let Some(turn) = rota.next(now) {
                            prop_assert!(slots.contains_key(&turn.listener) && turn.due <= now);
                            *had.entry(turn.listener).or_insert(0) += 1;
                        }
                    }
                }
                prop_assert_eq!(rota.len(), slots.len());
            }
            while let Some(turn) = rota.next(now + SPREAD) {
                *had.entry(turn.listener).or_insert(0) += 1;
            }
            for listener in stayed.difference(&left) {
                // Who takes the place of one that left may be passed again, and then has nothing to get; nobody is left out.
                prop_assert!(had.contains_key(listener), "{listener} had no turn");
            }
        }
    }
}
