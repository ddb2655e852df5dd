//! What control counts for the ledger.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use admission::ledger::{Cause, Ja4, Measure, PREFIXES_MAX, PrefixKey, PrefixTag, ProcessBin};
use backend::evidence::{Counts, Tally};
use model::UnixTime;

use crate::challenges;
use crate::state::Control;

/// Who arrived, by where from and by the fingerprint of their TLS; addresses are not kept. Each bounded by [`PREFIXES_MAX`].
#[derive(Debug)]
pub(crate) struct Arrivals {
    key: PrefixKey,
    counts: Mutex<Arrived>,
}

#[derive(Debug, Default)]
struct Arrived {
    prefixes: BTreeMap<PrefixTag, u64>,
    uncounted: u64,
    fingerprints: BTreeMap<Ja4, u64>,
    other_fingerprints: u64,
}

impl Arrivals {
    /// `secret` is random, and lives as long as this process.
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self { key: PrefixKey::new(secret), counts: Mutex::default() }
    }

    /// Somebody asks for the first time.
    pub(crate) fn count(&self, address: IpAddr, fingerprint: Option<Ja4>) {
        let tag = self.key.tag(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Arrived { prefixes, uncounted, fingerprints, other_fingerprints } = &mut *counts;
        count_bounded(prefixes, uncounted, tag);
        if let Some(fingerprint) = fingerprint {
            count_bounded(fingerprints, other_fingerprints, fingerprint);
        }
    }

    /// Those since this was asked last, into a bin.
    fn tell(&self, bin: &mut ProcessBin) {
        let arrived = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        for (tag, count) in arrived.prefixes {
            bin.arrive(tag, None, count);
        }
        bin.arrive_elsewhere(arrived.uncounted);
        for (fingerprint, count) in arrived.fingerprints {
            bin.count_fingerprint(fingerprint, count);
        }
        bin.count_other_fingerprints(arrived.other_fingerprints);
    }
}

fn count_bounded<T: Ord>(counts: &mut BTreeMap<T, u64>, others: &mut u64, key: T) {
    if counts.len() < PREFIXES_MAX || counts.contains_key(&key) {
        *counts.entry(key).or_default() += 1;
    } else {
        *others += 1;
    }
}

/// Counts from one bin to the next.
#[derive(Debug)]
pub(crate) struct Counting {
    tally: Tally,
    before: Sums,
}

/// Counters, as far as they go into the ledger.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    requests: u64,
    client_errors: u64,
    server_errors: u64,
    timed_out: u64,
    evicted: u64,
    abuse: u64,
    handshakes_shed: u64,
    asked: u64,
    given: u64,
    turned_away: u64,
    had_share: u64,
    tokens_refused: u64,
    called: u64,
    taken: u64,
    challenges: challenges::Sums,
}

impl Counting {
    pub(crate) fn new(control: &Control, now: UnixTime) -> Self {
        Self { tally: Tally::new(Counts::Control, now), before: Sums::now(control, now) }
    }

    /// The bin that has ended, if one has; to be asked once a second.
    pub(crate) fn turn(&mut self, control: &Control, now: UnixTime) -> Option<ProcessBin> {
        let mut bin = self.tally.turn(now)?;
        let sums = Sums::now(control, now);
        let before = std::mem::replace(&mut self.before, sums);
        let counts = &mut bin.counts;
        // Of rooms that were forgotten meanwhile some go down.
        let since = |of: fn(&Sums) -> u64| of(&sums).saturating_sub(of(&before));
        counts.door.requests = since(|sums| sums.requests);
        counts.door.client_errors = since(|sums| sums.client_errors);
        counts.door.server_errors = since(|sums| sums.server_errors);
        counts.door.timed_out = since(|sums| sums.timed_out);
        counts.door.silent = since(|sums| sums.evicted);
        counts.door.abuse = since(|sums| sums.abuse);
        counts.door.handshakes_shed = since(|sums| sums.handshakes_shed);
        counts.tickets.asked = since(|sums| sums.asked);
        counts.tickets.given = since(|sums| sums.given);
        counts.refused.full = since(|sums| sums.turned_away);
        counts.refused.prefix = since(|sums| sums.had_share);
        counts.refused.forged = since(|sums| sums.tokens_refused);
        counts.admission.called = since(|sums| sums.called);
        counts.admission.taken = since(|sums| sums.taken);
        counts.admission.challenged = since(|sums| sums.challenges.asked);
        counts.admission.passed = since(|sums| sums.challenges.solved + sums.challenges.waited);
        counts.admission.ignored = since(|sums| sums.challenges.ignored);
        let (asked, ended) = (since(|sums| sums.challenges.asked), since(|sums| sums.challenges.ended));
        let rooms = control.rooms();
        counts.admission.waiting = rooms.entrances().values().map(|entrance| entrance.queue().waiting).sum();
        drop(rooms);
        let (evicted, abuse) = (bin.counts.door.silent, bin.counts.door.abuse);
        bin.mitigate(Measure::ConnectionsCapped, Cause::Limit, evicted);
        bin.mitigate(Measure::AbuseClosed, Cause::Limit, abuse);
        let had_share = bin.counts.refused.prefix;
        bin.mitigate(Measure::PrefixWeighed, Cause::Limit, had_share);
        bin.mitigate(Measure::ChallengeOn, Cause::Evidence, asked);
        bin.mitigate(Measure::ChallengeOff, Cause::Relief, ended);
        control.arrivals.tell(&mut bin);
        Some(bin)
    }
}

impl Sums {
    fn now(control: &Control, now: UnixTime) -> Self {
        let counters = &control.counters;
        let total = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let rooms = control.rooms();
        Self {
            requests: total(&counters.requests),
            client_errors: total(&counters.client_errors),
            server_errors: total(&counters.server_errors),
            timed_out: total(&counters.timed_out) + control.counters.door.slow_bodies(),
            evicted: control.counters.door.evicted(),
            abuse: control.counters.door.abuse(),
            handshakes_shed: control.counters.door.handshakes_shed(),
            asked: total(&counters.asked),
            given: total(&counters.tickets).saturating_sub(total(&counters.renewed)),
            turned_away: total(&counters.turned_away),
            had_share: total(&counters.had_share),
            tokens_refused: total(&counters.tokens_refused),
            called: rooms.entrances().values().map(|entrance| entrance.queue().admitted).sum(),
            taken: rooms.entrances().values().map(crate::rooms::Entrance::taken).sum(),
            challenges: control.challenges.sums(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use admission::ledger::BinStart;

    #[test]
    fn arrivals_are_counted_by_network_and_told_once() {
        let arrivals = Arrivals::new([3; 32]);
        let browser: Ja4 = "t13d1516h2_8daaf6152771_d8a2da3f94cd".parse().unwrap();
        for n in 0..30 {
            arrivals.count(IpAddr::from([192, 0, 2, n]), Some(browser));
        }
        arrivals.count(IpAddr::from([192, 0, 3, 1]), None);
        let start = BinStart::try_from(0).unwrap();
        let mut bin = ProcessBin::new(start, 1, 0);
        arrivals.tell(&mut bin);
        assert_eq!(bin.counts.admission.arrivals, 31);
        let published = admission::ledger::Merger::new().merge(start, 1, &[bin]);
        assert_eq!(published.prefixes().map(|prefixes| prefixes.total()), Some(31));
        assert_eq!(published.fingerprints().map(|found| found.mix()), Some(&[(browser, 30)][..]));
        let mut next = ProcessBin::new(start, 1, 0);
        arrivals.tell(&mut next);
        assert_eq!(next.counts.admission.arrivals, 0);
    }
}
