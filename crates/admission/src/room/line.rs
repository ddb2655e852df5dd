//! Everybody's order: those of the draw by their rank, behind them those who came after doors, as they came.

use serde::{Deserialize, Serialize};

use super::draw::{Draw, Rank};
use super::estimate::Queue;
use super::token::{Kind, PLACE_MAX, Token};

/// Everybody's order, and how far it has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    draw: Draw,
    /// How many came since doors, and how many of them in the last step and in this one.
    late: u64,
    late_before: u64,
    late_now: u64,
    /// The arrival of the last one.
    latest_us: u64,
    through: Rank,
    /// How many are before `through`.
    admitted: u64,
}

impl Line {
    pub(super) fn new(draw: Draw, opened_us: u64) -> Self {
        let through = draw.curve().through(0);
        Self { draw, late: 0, late_before: 0, late_now: 0, latest_us: opened_us, through, admitted: 0 }
    }

    /// The draw before the line.
    pub(super) fn draw(&self) -> &Draw {
        &self.draw
    }

    /// Ranks below this have had their turn.
    pub(super) fn through(&self) -> Rank {
        self.through
    }

    /// How many are before [`Self::through`].
    pub(super) fn admitted(&self) -> u64 {
        self.admitted
    }

    /// The place and the arrival of somebody who comes now.
    pub(super) fn arrive(&mut self, now_us: u64) -> (u64, u64) {
        let place = self.people().min(PLACE_MAX);
        self.late = self.late.saturating_add(1);
        self.late_now += 1;
        self.latest_us = self.latest_us.max(now_us);
        (place, self.latest_us)
    }

    /// Where a token stands: its rank and how many are before it.
    pub(super) fn stand(&self, token: &Token) -> (Rank, u64) {
        match token.kind {
            Kind::Early => {
                let rank = self.draw.rank(token.id, token.tag);
                (rank, self.draw.curve().place(rank))
            }
            Kind::Late { place } => (Rank::late(place), place),
        }
    }

    /// Somebody shows a place that was given: by a process before this one, if it is not known. Tokens are signed.
    pub(super) fn witness(&mut self, place: u64) {
        let late = place.saturating_add(1).saturating_sub(self.draw.curve().tokens());
        self.late = self.late.max(late);
    }

    /// Everybody: those of the draw, and those who came since.
    pub(super) fn people(&self) -> u64 {
        self.draw.curve().tokens().saturating_add(self.late)
    }

    /// Those whose turn has not come.
    pub(super) fn waiting(&self) -> u64 {
        self.people().saturating_sub(self.admitted)
    }

    /// Lets the next `people` have their turn. How many had it, as well as that is known.
    pub(super) fn take(&mut self, people: u64) -> u64 {
        let before = self.admitted;
        if people > 0 && self.through < Rank::LATE {
            self.pass(self.draw.curve().through(before + people));
        }
        if self.through >= Rank::LATE {
            let left = people.saturating_sub(self.admitted - before);
            self.pass(Rank::late((self.admitted + left).min(self.people())));
        }
        (self.late_before, self.late_now) = (self.late_now, 0);
        self.admitted - before
    }

    /// Goes on to `through`, if it is not there yet.
    fn pass(&mut self, through: Rank) {
        self.through = self.through.max(through);
        let early = self.draw.curve().place(self.through);
        self.admitted = self.admitted.max(early).max(self.through.late_place());
    }

    /// Goes on from what was published. How many had their turn meanwhile, as well as that is known.
    pub(super) fn resume(&mut self, published: &Queue) -> u64 {
        let before = self.admitted;
        let people = published.admitted.saturating_add(published.waiting);
        self.late = self.late.max(people.saturating_sub(self.draw.curve().tokens()));
        self.late = self.late.saturating_add(self.late_before.max(self.late_now));
        self.pass(published.admitted_through.min(Rank::late(self.people())));
        self.admitted - before
    }
}
