//! What was handed in, so that it is worth something once.

use std::collections::BTreeSet;

use model::UnixTime;

use super::puzzle::{Proof, ProofId, seconds};

/// Most that is remembered: 2,184 a second for the life of a challenge, about 6 MiB.
pub const SPENT_MAX: usize = 1 << 18;

/// Challenges that were handed in and have not expired.
///
/// When there is no room for another, the one that expires first is forgotten, and counted: it could be handed in once
/// more. To refuse newcomers instead would let whoever fills it (by solving more than we can answer) keep everybody else
/// out, and nobody is kept out by a challenge.
#[derive(Debug)]
pub struct Spent {
    by_expiry: BTreeSet<(u64, ProofId)>,
    most: usize,
    forgotten: u64,
}

impl Default for Spent {
    fn default() -> Self {
        Self::new(SPENT_MAX)
    }
}

impl Spent {
    /// Remembers at most so many, and at least one.
    pub fn new(most: usize) -> Self {
        Self { by_expiry: BTreeSet::new(), most: most.max(1), forgotten: 0 }
    }

    /// Takes a proof. `false` if it was taken before.
    pub fn take(&mut self, proof: &Proof, now: UnixTime) -> bool {
        let now_s = seconds(now);
        while self.by_expiry.first().is_some_and(|(expires_s, _)| *expires_s < now_s) {
            self.by_expiry.pop_first();
        }
        if !self.by_expiry.insert((proof.expires_s, proof.id)) {
            return false;
        }
        if self.by_expiry.len() > self.most {
            self.by_expiry.pop_first();
            self.forgotten = self.forgotten.saturating_add(1);
        }
        true
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_expiry.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_expiry.is_empty()
    }

    /// How many were forgotten before they expired.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}
