//! Mixes of fingerprints, and how far one is from another.

use std::collections::BTreeMap;

use super::features::share_wide;
use crate::ledger::{Fingerprints, Ja4};

/// Fewest arrivals that make a mix.
const MIX_MIN: u64 = 200;

/// Published fingerprints added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Mix {
    named: BTreeMap<Ja4, u64>,
    rest: u64,
}

impl Mix {
    fn add(&mut self, fingerprints: &Fingerprints) {
        for (ja4, arrivals) in fingerprints.mix() {
            let count = self.named.entry(*ja4).or_default();
            *count = count.saturating_add(*arrivals);
        }
        self.rest = self.rest.saturating_add(fingerprints.rest());
    }

    pub(super) fn of<'a>(parts: impl Iterator<Item = &'a Fingerprints>) -> Self {
        let mut mix = Self::default();
        parts.for_each(|part| mix.add(part));
        mix
    }

    fn total(&self) -> u64 {
        self.named.values().fold(self.rest, |sum, count| sum.saturating_add(*count))
    }

    /// The share of this mix that must be new against `then`; nothing if either is too small.
    pub(super) fn divergence(&self, then: &Self) -> Option<u64> {
        let (now_total, then_total) = (self.total(), then.total());
        if now_total < MIX_MIN || then_total < MIX_MIN {
            return None;
        }
        let (t, u) = (u128::from(now_total), u128::from(then_total));
        let excess = self.named.iter().fold(0_u128, |sum, (ja4, count)| {
            let before = then.named.get(ja4).copied().unwrap_or(0);
            sum.saturating_add((u128::from(*count) * u).saturating_sub(u128::from(before) * t))
        });
        let allowed = share_wide(u128::from(then.rest), u);
        Some(share_wide(excess, t * u).saturating_sub(allowed))
    }
}
