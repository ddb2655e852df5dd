//! Seeded nights: what the processes would have counted, in virtual time.
//!
//! [`tuning`] holds the distributions that thresholds were set with, [`validation`] and [`validation_two`] those that
//! corrected them. [`held_out`] holds others, which were written when the thresholds stood: other shapes of arrivals, other networks,
//! other habits of attackers. Whoever changes a threshold because of them must move them to the others and write new ones.

pub(crate) mod held_out;
pub(crate) mod night;
pub(crate) mod rng;
pub(crate) mod tuning;
pub(crate) mod validation;
pub(crate) mod validation_two;

use minassa_admission::ledger::{Bin, Opening};

/// Nights by their seed.
pub(crate) type Nights = fn(Kind, u64) -> Run;

/// All distributions.
pub(crate) const SETS: [Nights; 4] = [tuning::run, validation::run, validation_two::run, held_out::run];

/// What a night is, for whoever must name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Crowd,
    L7,
    L34,
    Mixed,
    Own,
    Mimics,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Crowd, Self::L7, Self::L34, Self::Mixed, Self::Own, Self::Mimics];
}

/// One night.
pub(crate) struct Run {
    /// Its seed and what was drawn.
    pub(crate) name: String,
    pub(crate) opening: Opening,
    pub(crate) bins: Vec<Bin>,
    /// Of each bin: whether machines are a fifth, and at least 50, of those who arrived in it or listen at its end.
    pub(crate) by_machines: Vec<bool>,
    /// When what is to be named begins, milliseconds of UNIX time.
    pub(crate) begins_ms: u64,
}
