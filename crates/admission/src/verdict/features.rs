//! Features: numbers out of a window of bins. Their formulas stand in the module's documentation.

use std::collections::VecDeque;

use serde::Serialize;

use super::mix::Mix;
use super::thresholds::{BASELINE_BINS, BASELINE_BINS_MIN, Needs, Rule};
use crate::ledger::{Bin, Counts, Kernel, Opening};

/// Highest value of a share.
const SHARE_MAX: u128 = 1_000_000;
/// Bins of a window.
pub(super) const WINDOW: usize = 3;
/// So many standard deviations a gauge may differ by chance from one bin to the next.
const CHANCE: u64 = 4;
/// Level of the ladder from which we are short of something.
const SHORT_LEVEL: u64 = 3;
/// Sessions for each place, 1/10,000, with which that is places.
const FULL: u64 = 8_000;
/// Around the announced start nobody's coming is sudden, milliseconds.
const ANNOUNCED_MS: u64 = 600_000;

/// What is looked at; units and formulas in the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is a row of the table in the module's documentation")]
pub enum Feature {
    UnansweredCookies,
    UnfinishedHandshakes,
    HalfOpen,
    RefusedDatagrams,
    UnusedTickets,
    LostSessions,
    BarePlaylists,
    ShutReaders,
    UnfinishedRequests,
    SlowRequests,
    ProtocolAbuse,
    ForgedTickets,
    BadRequests,
    IgnoredChallenges,
    LostCapacity,
    LostProcesses,
    SlowDisk,
    ServerErrors,
    BusyProcessor,
    LateLoop,
    ForeignFingerprints,
    ConcentratedPrefixes,
    UnfamiliarPrefixes,
    SuddenArrivals,
    UntakenTurns,
    Surge,
    FollowThrough,
    Acknowledged,
    Wary,
}

/// `share(part, whole)` in basis points.
pub(super) fn share(part: u64, whole: u64) -> u64 {
    share_wide(part.into(), whole.into())
}

pub(super) fn share_wide(part: u128, whole: u128) -> u64 {
    let share = match (part, whole) {
        (0, _) => 0,
        (_, 0) => SHARE_MAX,
        // Products of two 64-bit numbers times 10,000 may not fit; such shares are far beyond the cap or of no event.
        (part, whole) => part.saturating_mul(10_000) / whole,
    };
    u64::try_from(share.min(SHARE_MAX)).expect("the cap fits")
}

/// By how much a count may differ by chance.
fn by_chance(count: u64) -> u64 {
    count.isqrt().saturating_mul(CHANCE)
}

/// Calm bins, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline {
    bins: VecDeque<Bin>,
}

impl Baseline {
    pub(super) fn push(&mut self, bin: Bin) {
        if self.bins.len() == BASELINE_BINS {
            self.bins.pop_front();
        }
        self.bins.push_back(bin);
    }

    pub(super) fn is_there(&self) -> bool {
        self.bins.len() >= BASELINE_BINS_MIN
    }

    fn median(&self, of: impl Fn(&Bin) -> Option<u64>) -> Option<u64> {
        let mut values: Vec<u64> = self.bins.iter().filter_map(of).collect();
        values.sort_unstable();
        (values.len() >= BASELINE_BINS_MIN).then(|| values[(values.len() - 1) / 2])
    }

    fn usual(&self, of: impl Fn(&Counts) -> u64) -> Option<u64> {
        self.median(|bin| Some(of(bin.counts())))
    }
}

/// A value and the count behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measured {
    pub(super) value: u64,
    pub(super) count: u64,
}

/// What a judgement looks at.
pub(super) struct View<'a> {
    pub(super) opening: &'a Opening,
    /// `b0`, `b1`, `b2`, as far as they are there; `b0` always is.
    pub(super) window: &'a [&'a Bin],
    pub(super) baseline: &'a Baseline,
    /// Highest capacity of late.
    pub(super) peak: u64,
    /// How late the loop was at worst of late.
    pub(super) late_us: u64,
}

impl View<'_> {
    fn bin(&self, at: usize) -> Option<&Bin> {
        self.window.get(at).copied()
    }

    fn of(&self, at: usize, of: impl Fn(&Counts) -> u64) -> u64 {
        self.bin(at).map_or(0, |bin| of(bin.counts()))
    }

    pub(super) fn last(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.of(0, of)
    }

    pub(super) fn s2(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.of(0, &of).saturating_add(self.of(1, &of))
    }

    pub(super) fn s3(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.s2(&of).saturating_add(self.of(2, &of))
    }

    /// The two bins before the last.
    fn earlier(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.of(1, &of).saturating_add(self.of(2, &of))
    }

    /// What is usual of bins such as `b1` and `b2`, as far as they are there.
    fn earlier_usual(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        let bins = self.window.len().saturating_sub(1) as u64;
        self.baseline.usual(of).unwrap_or(0).saturating_mul(bins)
    }

    /// Of `b1` and `b2`, beyond what is usual.
    fn earlier_beyond(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.earlier(&of).saturating_sub(self.earlier_usual(of))
    }

    /// Of all bins, beyond what is usual of `b1` and `b2`: whoever came in those has all of `b0` to go on.
    fn s3_beyond(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.s3(&of).saturating_sub(self.earlier_usual(of))
    }

    fn greater(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.of(0, &of).max(self.of(1, &of))
    }

    /// Of the oldest bin in the window.
    pub(super) fn oldest(&self, of: impl Fn(&Counts) -> u64) -> u64 {
        self.of(self.window.len().saturating_sub(1), of)
    }

    /// Those who followed in the last `bins` beyond what is usual.
    pub(super) fn unusual_followers(&self, bins: usize) -> u64 {
        let followed = |c: &Counts| c.audio.followed;
        let bins = bins.min(self.window.len());
        let usual = self.baseline.usual(followed).unwrap_or(0).saturating_mul(bins as u64);
        (0..bins).fold(0_u64, |sum, at| sum.saturating_add(self.of(at, followed))).saturating_sub(usual)
    }

    /// The lesser value of `b0` and `b1`; nothing without `b1`.
    fn lesser(&self, of: impl Fn(&Bin) -> u64) -> Option<u64> {
        Some(of(self.bin(0)?).min(of(self.bin(1)?)))
    }

    /// How many of `b0`, `b1` there are.
    fn n(&self) -> u64 {
        self.window.len().min(2) as u64
    }

    fn kernel(&self, of: impl Fn(&Kernel) -> u64) -> Option<u64> {
        let mut sum = 0_u64;
        for bin in self.window.iter().take(2) {
            sum = sum.saturating_add(of(bin.kernel()?));
        }
        Some(sum)
    }

    fn has_risen(&self, tenths: u64, of: impl Fn(&Counts) -> u64) -> bool {
        let now = u128::from(self.s2(&of)) * 10;
        let usual = self.baseline.usual(&of);
        usual.is_none_or(|usual| now >= u128::from(tenths) * u128::from(self.n()) * u128::from(usual))
    }

    /// Whether more arrive than usual, and enough to be looked at.
    pub(super) fn arrivals_have_risen(&self) -> bool {
        self.has_risen(20, |c| c.admission.arrivals) && self.s2(|c| c.admission.arrivals) >= 200
    }

    /// Whether arrivals of the last bin alone exceed what is usual: where to look closer, not yet a rise.
    pub(super) fn arrivals_are_rising(&self) -> bool {
        let now = u128::from(self.last(|c| c.admission.arrivals));
        match self.baseline.usual(|c| c.admission.arrivals) {
            Some(usual) => 10 * now >= 12 * u128::from(usual) + 200,
            None => now >= 2 * u128::from(self.oldest(|c| c.admission.arrivals)) + 100,
        }
    }

    /// Whether half of what makes `rule` fire is there, what it needs aside.
    pub(super) fn half_fires(&self, rule: &Rule) -> bool {
        let half =
            |measured: Measured| measured.value >= rule.threshold / 2 && measured.count >= rule.floor / 2;
        self.measure(rule.feature).is_some_and(half)
    }

    pub(super) fn is_flat(&self) -> bool {
        let within = |twice: bool, times: u64, slack: u64, of: fn(&Counts) -> u64| {
            let now = u128::from(self.s2(of)) * if twice { 2 } else { 1 };
            let bound =
                |usual: u64| u128::from(times) * u128::from(self.n()) * u128::from(usual) + u128::from(slack);
            self.baseline.usual(of).is_some_and(|usual| now <= bound(usual))
        };
        within(true, 3, 200, |c| c.admission.arrivals)
            && within(false, 3, 200, |c| c.door.connections)
            && within(false, 4, 500, |c| c.door.requests)
    }

    /// Whether our own trouble may keep people from following through.
    pub(super) fn is_impaired(&self) -> bool {
        self.is_slow() || share(self.s2(|c| c.door.server_errors), self.s2(|c| c.door.requests)) >= 500
    }

    /// Whether whoever connects, asks or listens may have to wait for us.
    pub(super) fn is_slow(&self) -> bool {
        let connections = self.s2(|c| c.door.connections);
        let overflows = self.kernel(|kernel| kernel.listen_overflows).unwrap_or(0);
        self.late_us >= 100_000
            || share(overflows, connections) >= 500
            || share(self.s2(|c| c.door.handshakes_shed), self.s2(|c| c.door.handshakes_started)) >= 2_000
    }

    /// Whether we may be short of something that everybody needs to listen: the ladder is high, and not for want of
    /// places, which takes audio from nobody.
    fn is_short(&self) -> bool {
        self.greater(|c| c.own.level) >= SHORT_LEVEL
            && share(self.last(|c| c.audio.sessions), self.last(|c| c.own.capacity)) < FULL
    }

    /// Whether what a rule needs holds, corroboration aside.
    pub(super) fn holds(&self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing | Needs::OnTime => true,
            Needs::Flat => self.is_flat(),
            Needs::Requests => self.has_risen(30, |c| c.door.requests),
            Needs::Asked => self.has_risen(15, |c| c.tickets.asked),
            Needs::Came => self.has_risen(15, |c| c.admission.arrivals),
            Needs::Opened => self.has_risen(15, |c| c.audio.opened),
            Needs::Playlists => self.has_risen(30, |c| c.audio.playlists),
            Needs::Arrivals => self.arrivals_have_risen(),
        }
    }

    /// Value of a rule that fires, corroboration and other rules aside.
    pub(super) fn fires(&self, rule: &Rule) -> Option<u64> {
        let measured = self.measure(rule.feature)?;
        let fires =
            measured.value >= rule.threshold && measured.count >= rule.floor && self.holds(rule.needs);
        fires.then_some(measured.value)
    }

    /// A feature's value and count; nothing if it does not exist here.
    pub(super) fn measure(&self, feature: Feature) -> Option<Measured> {
        let measured = |value: u64, count: u64| Some(Measured { value, count });
        // A value that is its own count.
        let plain = |value: u64| Some(Measured { value, count: value });
        let of = |count: u64, whole: u64| Some(Measured { value: share(count, whole), count });
        let connections = |at: &Counts| at.door.connections;
        match feature {
            Feature::UnansweredCookies => {
                let returned = self.kernel(|kernel| kernel.cookies_returned)?;
                let unanswered = self.kernel(|kernel| kernel.cookies_sent)?.saturating_sub(returned);
                of(unanswered, self.s2(connections))
            }
            Feature::UnfinishedHandshakes => {
                let started = self.s2(|c| c.door.handshakes_started);
                let accounted =
                    self.s2(|c| c.door.handshakes_finished.saturating_add(c.door.handshakes_shed));
                of(started.saturating_sub(accounted), started)
            }
            Feature::HalfOpen => {
                let part = |bin: &Bin| share(bin.counts().door.half_open, bin.counts().door.connections);
                measured(self.lesser(part)?, self.last(|c| c.door.half_open))
            }
            Feature::RefusedDatagrams => {
                of(self.s2(|c| c.own.datagrams_refused), self.s2(|c| c.own.datagrams))
            }
            Feature::UnusedTickets => {
                self.bin(1)?;
                let given = self.earlier_beyond(|c| c.tickets.given);
                let chance = by_chance(self.earlier(|c| c.tickets.given));
                let unused = given.saturating_sub(self.s3_beyond(|c| c.tickets.used)).saturating_sub(chance);
                let errors = share(self.s3(|c| c.door.server_errors), self.s3(|c| c.door.requests));
                // One request leads from a ticket to its use, and may fail.
                measured(share(unused, given).saturating_sub(errors), unused)
            }
            Feature::LostSessions => {
                self.bin(1)?;
                let opened = self.earlier_beyond(|c| c.audio.opened);
                // Of who goes it is known sooner than of who stays: of those who began so many must be lost.
                let began = opened.max(self.earlier_beyond(|c| c.tickets.used));
                let chance = by_chance(self.earlier(|c| c.audio.opened));
                of(opened.saturating_sub(self.s3_beyond(|c| c.audio.followed)).saturating_sub(chance), began)
            }
            Feature::BarePlaylists => {
                let (playlists, files) = (self.s2(|c| c.audio.playlists), self.s2(|c| c.audio.files));
                let begun = self.s2(|c| c.audio.opened.saturating_add(c.door.server_errors));
                let whole = files.saturating_add(begun);
                measured(share(playlists, whole), playlists.saturating_sub(files))
            }
            Feature::ShutReaders => {
                self.bin(1)?;
                let oldest = self.window.len() - 1;
                // Where the platform does not say whether a window was shut, who starves.
                let unknown = [0, oldest].iter().any(|at| self.of(*at, |c| c.audio.shut_unknown) > 0);
                let held = |at: usize| self.of(at, |c| if unknown { c.audio.starved } else { c.audio.shut });
                let (now, before) = (held(0), held(oldest));
                let more = now.saturating_sub(before).saturating_sub(by_chance(now.saturating_add(before)));
                let used = self.earlier_beyond(|c| c.tickets.used);
                // Who comes without a ticket arrives and does not ask for one.
                let plain = self.earlier_beyond(|c| c.admission.arrivals);
                let plain = plain.saturating_sub(self.earlier_beyond(|c| c.tickets.asked));
                let came = if unknown { used } else { used.saturating_add(plain) };
                // If more stopped reading than came, those stopped who were there: that is us, or a carrier.
                if more > came.saturating_add(came / 4) || (unknown && self.is_short()) {
                    return None;
                }
                // A network that carries nothing starves who followed before. It shuts no window.
                let unheard = came.saturating_sub(self.unusual_followers(WINDOW));
                of(if unknown { more.min(unheard) } else { more }, came)
            }
            Feature::UnfinishedRequests => {
                let part = |bin: &Bin| share(bin.counts().door.pending, bin.counts().door.connections);
                measured(self.lesser(part)?, self.last(|c| c.door.pending))
            }
            Feature::SlowRequests => of(self.s2(|c| c.door.timed_out), self.s2(connections)),
            Feature::ProtocolAbuse => of(self.s2(|c| c.door.abuse), self.s2(connections)),
            Feature::ForgedTickets => of(self.s2(|c| c.refused.forged), self.s2(connections)),
            Feature::BadRequests => of(self.s2(|c| c.door.client_errors), self.s2(|c| c.door.requests)),
            Feature::IgnoredChallenges => {
                let ignored = self.s2(|c| c.admission.ignored);
                of(ignored, ignored.saturating_add(self.s2(|c| c.admission.passed)))
            }
            Feature::LostCapacity => plain(
                self.lesser(|bin| share(self.peak.saturating_sub(bin.counts().own.capacity), self.peak))?,
            ),
            Feature::LostProcesses => plain(self.lesser(|bin| {
                let processes = bin.processes();
                share(processes.expected.saturating_sub(processes.reported), processes.expected)
            })?),
            Feature::SlowDisk => plain(self.greater(|c| c.own.disk_write_us)),
            Feature::ServerErrors => of(self.s2(|c| c.door.server_errors), self.s2(|c| c.door.requests)),
            Feature::BusyProcessor => {
                let now = self.last(|c| c.own.cpu_bp);
                measured(now.saturating_sub(self.baseline.usual(|c| c.own.cpu_bp)?), now)
            }
            Feature::LateLoop => plain(self.greater(|c| c.own.loop_late_us)),
            Feature::ForeignFingerprints => {
                let now = Mix::of(self.window.iter().take(2).filter_map(|bin| bin.fingerprints()));
                let usual = Mix::of(self.baseline.bins.iter().filter_map(Bin::fingerprints));
                let reference = Mix::of(self.opening.reference.iter());
                let least = [reference, usual].iter().filter_map(|then| now.divergence(then)).min()?;
                measured(least, self.s2(|c| c.admission.arrivals))
            }
            Feature::ConcentratedPrefixes => {
                let prefixes = self.bin(0)?.prefixes()?;
                let ten = prefixes.top().iter().take(10).fold(0_u64, |sum, count| sum.saturating_add(*count));
                measured(share(ten, prefixes.total()), prefixes.total())
            }
            Feature::UnfamiliarPrefixes => {
                let familiar = |bin: &Bin| {
                    let prefixes = bin.prefixes()?;
                    Some(share(prefixes.familiar()?, prefixes.total()))
                };
                let usual = self.baseline.median(familiar)?;
                let last = self.bin(0)?;
                measured(usual.saturating_sub(familiar(last)?), last.prefixes()?.total())
            }
            Feature::SuddenArrivals => {
                let usual = self.baseline.usual(|c| c.admission.arrivals)?;
                let start = self.bin(0)?.start().as_millis();
                let step = |at: usize| {
                    let arrivals = |at: usize| self.bin(at).map(|bin| bin.counts().admission.arrivals);
                    let (Some(now), Some(before)) = (arrivals(at), arrivals(at + 1)) else { return false };
                    now >= before.saturating_mul(4).saturating_add(100)
                };
                if start.abs_diff(self.opening.announced_ms) <= ANNOUNCED_MS || !(step(0) || step(1)) {
                    return None;
                }
                let now = self.s2(|c| c.admission.arrivals);
                measured(share(now, self.n().saturating_mul(usual)), now)
            }
            Feature::UntakenTurns => {
                let called = self.s3(|c| c.admission.called);
                let taken = share(self.s3(|c| c.admission.taken), called);
                measured(10_000_u64.saturating_sub(taken), called)
            }
            Feature::Surge => {
                let now = self.s2(|c| c.audio.followed);
                let usual = self.baseline.usual(|c| c.audio.followed)?;
                measured(share(now, self.n().saturating_mul(usual)), now)
            }
            Feature::FollowThrough => {
                self.bin(1)?;
                let opened = self.earlier(|c| c.audio.opened);
                measured(share(self.s3(|c| c.audio.followed), opened).min(10_000), opened)
            }
            Feature::Acknowledged => {
                let acked = share(self.s2(|c| c.audio.bytes_acked), self.s2(|c| c.audio.bytes_due));
                measured(acked.min(10_000), self.last(|c| c.audio.listeners))
            }
            Feature::Wary => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_down_and_are_capped() {
        assert_eq!(share(1, 3), 3_333);
        assert_eq!(share(3, 1), 30_000);
        assert_eq!((share(0, 0), share(1, 0), share(u64::MAX, 1)), (0, 1_000_000, 1_000_000));
        assert_eq!(share(u64::MAX, u64::MAX), 10_000);
        assert_eq!(share_wide(u128::MAX, u128::MAX), 1, "too wide to be exact, and no panic");
    }
}
