//! Whose turn it is.

use std::collections::VecDeque;

/// How many lanes there are; the first is the best.
pub const LANES: usize = 8;
/// Every so many turns the lanes are served in rotation.
const ROTATION: u32 = 4;

/// Those who wait for a turn, in lanes. Three of four turns are for the best lane in which somebody waits, each fourth is
/// for the lanes in rotation: so whoever floods gets no more than a quarter of all turns while others wait, and
/// everybody gets a turn at last. Within a lane who came first is first. It holds what is put in: to bound it is the caller's business.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: [VecDeque<T>; LANES],
    len: usize,
    turns: u32,
    /// The lane in which the rotation looks next.
    next: usize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { lanes: Default::default(), len: 0, turns: 0, next: 0 }
    }
}

impl<T> Lanes<T> {
    /// Puts one at the end of a lane, which is the last if there is no such lane.
    pub fn push(&mut self, lane: u8, item: T) {
        self.lanes[usize::from(lane).min(LANES - 1)].push_back(item);
        self.len += 1;
    }

    /// Takes the one whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        self.turns = self.turns.wrapping_add(1);
        let first = if self.turns.is_multiple_of(ROTATION) { self.next } else { 0 };
        let mut lanes = (first..LANES).chain(0..first);
        let lane = lanes.find(|&lane| !self.lanes[lane].is_empty())?;
        if self.turns.is_multiple_of(ROTATION) {
            self.next = (lane + 1) % LANES;
        }
        self.len -= 1;
        self.lanes[lane].pop_front()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
