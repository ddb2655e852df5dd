//! From the bins of processes to the bin of the event.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::anonymous::{Carried, Ja4, PrefixTag, Prefixes};
use super::bin::Cause;
use super::bin::{
    BIN_MS, Bin, BinStart, Counts, Kernel, MARKS_MAX, Mark, Marked, Measure, Mitigation, Processes,
};

/// Most prefixes, and most fingerprints, that one process counts in a bin; later ones are counted together.
pub const PREFIXES_MAX: usize = 16_384;
/// Most prefixes remembered as seen.
const FAMILIAR_MAX: usize = 262_144;
/// Bins after which a merger has seen enough to say who is new.
const FAMILIAR_AFTER: u32 = 6;

/// What one process counted in a bin. It travels between our processes only: its histograms are raw, and no ledger
/// takes it ([`super::anonymous`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessBin {
    start: BinStart,
    process: u32,
    machine: u32,
    /// The counters.
    pub counts: Counts,
    /// What the kernel of the machine counted; nothing where it cannot say.
    pub kernel: Option<Kernel>,
    prefixes: BTreeMap<PrefixTag, u64>,
    uncounted: u64,
    fingerprints: BTreeMap<Ja4, u64>,
    other_fingerprints: u64,
    mitigations: BTreeMap<(Measure, Cause), u64>,
    marks: Vec<Marked>,
}

impl ProcessBin {
    /// An empty one. `process` is the process's number within the event, and `machine` that of its machine, whose
    /// kernel counts once however many processes read it.
    pub fn new(start: BinStart, process: u32, machine: u32) -> Self {
        Self {
            start,
            process,
            machine,
            counts: Counts::default(),
            kernel: None,
            prefixes: BTreeMap::new(),
            uncounted: 0,
            fingerprints: BTreeMap::new(),
            other_fingerprints: 0,
            mitigations: BTreeMap::new(),
            marks: Vec::new(),
        }
    }

    /// When it begins.
    pub fn start(&self) -> BinStart {
        self.start
    }

    /// Counts arrivals from one prefix with one fingerprint, if they came over TLS.
    pub fn arrive(&mut self, prefix: PrefixTag, ja4: Option<Ja4>, arrivals: u64) {
        self.counts.admission.arrivals = self.counts.admission.arrivals.saturating_add(arrivals);
        self.count_prefix(prefix, arrivals);
        if let Some(ja4) = ja4 {
            self.count_fingerprint(ja4, arrivals);
        }
    }

    /// Counts arrivals whose prefixes were not told apart.
    pub fn arrive_elsewhere(&mut self, arrivals: u64) {
        self.counts.admission.arrivals = self.counts.admission.arrivals.saturating_add(arrivals);
        self.uncounted = self.uncounted.saturating_add(arrivals);
    }

    /// Counts a prefix alone; [`Self::arrive`] does it for arrivals.
    pub fn count_prefix(&mut self, prefix: PrefixTag, arrivals: u64) {
        if arrivals > 0 && !add_bounded(&mut self.prefixes, prefix, arrivals) {
            self.uncounted = self.uncounted.saturating_add(arrivals);
        }
    }

    /// Counts a fingerprint alone; [`Self::arrive`] does it for arrivals.
    pub fn count_fingerprint(&mut self, ja4: Ja4, arrivals: u64) {
        if arrivals > 0 && !add_bounded(&mut self.fingerprints, ja4, arrivals) {
            self.other_fingerprints = self.other_fingerprints.saturating_add(arrivals);
        }
    }

    /// Counts arrivals whose fingerprints were not told apart.
    pub fn count_other_fingerprints(&mut self, arrivals: u64) {
        self.other_fingerprints = self.other_fingerprints.saturating_add(arrivals);
    }

    /// Notes what was done about it, and how often.
    pub fn mitigate(&mut self, measure: Measure, cause: Cause, count: u64) {
        if count > 0 {
            let done = self.mitigations.entry((measure, cause)).or_default();
            *done = done.saturating_add(count);
        }
    }

    /// Notes what happened to us, `at_ms` after the bin's beginning. Those beyond the first 64 are dropped.
    pub fn mark(&mut self, mark: Mark, at_ms: u64) {
        if self.marks.len() < MARKS_MAX {
            self.marks.push(Marked { at_ms: at_ms.min(BIN_MS - 1), mark });
        }
    }
}

/// Adds to a map that holds at most [`PREFIXES_MAX`]; whether there was room.
fn add_bounded<T: Ord>(counts: &mut BTreeMap<T, u64>, key: T, arrivals: u64) -> bool {
    let room = counts.len() < PREFIXES_MAX || counts.contains_key(&key);
    if room {
        let count = counts.entry(key).or_default();
        *count = count.saturating_add(arrivals);
    }
    room
}

/// Merges processes' bins, one bin of the event after another. It remembers which prefixes were seen, and fingerprints
/// too rare to be published yet; both are lost with the process that holds it. For its first minute, whether of the event
/// or after a crash, it does not say who is familiar.
#[derive(Clone, Debug, Default)]
pub struct Merger {
    seen: BTreeSet<PrefixTag>,
    /// Bins merged.
    bins: u32,
    carried: Carried,
}

impl Merger {
    /// With no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bin of the event that begins at `start`. `expected` processes should have reported. Bins of other times, and
    /// second ones of a process, are left out; a process that is late is missing.
    pub fn merge(&mut self, start: BinStart, expected: u64, bins: &[ProcessBin]) -> Bin {
        let mut counts = Counts::default();
        let mut kernels: BTreeMap<u32, Kernel> = BTreeMap::new();
        let (mut machines, mut processes) = (BTreeSet::new(), BTreeSet::new());
        let mut prefixes: BTreeMap<PrefixTag, u64> = BTreeMap::new();
        let mut mitigations: BTreeMap<(Measure, Cause), u64> = BTreeMap::new();
        let (mut uncounted, mut marks) = (0_u64, Vec::new());
        for bin in bins.iter().filter(|bin| bin.start == start) {
            if !processes.insert(bin.process) {
                continue;
            }
            counts.absorb(&bin.counts);
            machines.insert(bin.machine);
            if let Some(kernel) = bin.kernel {
                kernels.entry(bin.machine).or_insert(kernel);
            }
            for (tag, arrivals) in &bin.prefixes {
                let count = prefixes.entry(*tag).or_default();
                *count = count.saturating_add(*arrivals);
            }
            uncounted = uncounted.saturating_add(bin.uncounted);
            bin.fingerprints.iter().for_each(|(ja4, arrivals)| self.carried.add(*ja4, *arrivals));
            self.carried.add_rest(bin.other_fingerprints);
            for (done, count) in &bin.mitigations {
                let sum = mitigations.entry(*done).or_default();
                *sum = sum.saturating_add(*count);
            }
            marks.extend_from_slice(&bin.marks);
        }
        let published =
            Prefixes::publish(&prefixes, uncounted, (self.bins >= FAMILIAR_AFTER).then_some(&self.seen));
        self.bins = self.bins.saturating_add(1);
        for tag in prefixes.into_keys() {
            if self.seen.len() < FAMILIAR_MAX {
                self.seen.insert(tag);
            }
        }
        marks.sort_unstable();
        marks.truncate(MARKS_MAX);
        let reported = processes.len() as u64;
        let every_machine = !machines.is_empty() && kernels.len() == machines.len();
        Bin {
            start_ms: start,
            processes: Processes { expected: expected.max(reported), reported },
            counts,
            kernel: every_machine.then(|| {
                kernels.values().fold(Kernel::default(), |mut sum, kernel| {
                    sum.absorb(kernel);
                    sum
                })
            }),
            prefixes: published,
            fingerprints: self.carried.publish(),
            mitigations: mitigations
                .into_iter()
                .map(|((measure, cause), count)| Mitigation { measure, cause, count })
                .collect(),
            marks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(bin: u64) -> BinStart {
        BinStart::try_from(bin * BIN_MS).unwrap()
    }

    #[test]
    fn processes_add_up_and_the_worst_stands() {
        let (mut a, mut b) = (ProcessBin::new(at(1), 1, 1), ProcessBin::new(at(1), 2, 1));
        (a.counts.door.connections, b.counts.door.connections) = (3, 4);
        (a.counts.own.cpu_bp, b.counts.own.cpu_bp) = (9_000, 100);
        (a.counts.own.capacity, b.counts.own.capacity) = (1_000, 500);
        (a.kernel, b.kernel) = (Some(Kernel { cookies_sent: 7, ..Kernel::default() }), a.kernel);
        for _ in 0..12 {
            a.arrive(PrefixTag(1), None, 1);
            b.arrive(PrefixTag(1), None, 1);
        }
        a.mitigate(Measure::SlowClosed, Cause::Limit, 2);
        b.mitigate(Measure::SlowClosed, Cause::Limit, 3);
        b.mark(Mark::Restart, 20_000);
        a.mark(Mark::Deploy, 100);
        let other_time = ProcessBin { start: at(2), process: 3, ..a.clone() };
        let bin = Merger::new().merge(at(1), 4, &[a.clone(), b, a.clone(), other_time]);
        assert_eq!(bin.processes(), Processes { expected: 4, reported: 2 });
        assert_eq!(bin.counts().door.connections, 7);
        assert_eq!((bin.counts().own.cpu_bp, bin.counts().own.capacity), (9_000, 1_500));
        assert_eq!(bin.kernel().unwrap().cookies_sent, 7, "one kernel");
        assert_eq!(bin.counts().admission.arrivals, 24);
        assert_eq!(bin.prefixes().unwrap().top(), [24], "twelve of each are not told apart");
        let done = [Mitigation { measure: Measure::SlowClosed, cause: Cause::Limit, count: 5 }];
        assert_eq!(bin.mitigations(), done);
        let marks = [Marked { at_ms: 100, mark: Mark::Deploy }, Marked { at_ms: 9_999, mark: Mark::Restart }];
        assert_eq!(bin.marks(), marks);
    }

    #[test]
    fn a_machine_whose_kernel_is_silent_makes_the_sum_unknown() {
        let (mut a, b) = (ProcessBin::new(at(1), 1, 1), ProcessBin::new(at(1), 2, 2));
        a.kernel = Some(Kernel::default());
        assert_eq!(Merger::new().merge(at(1), 2, &[a, b]).kernel(), None);
        assert_eq!(Merger::new().merge(at(1), 2, &[]).kernel(), None);
    }

    #[test]
    fn prefixes_are_familiar_once_there_is_a_memory() {
        let mut merger = Merger::new();
        let mut bin = |bin: u64, tags: &[u64]| {
            let mut counted = ProcessBin::new(at(bin), 1, 1);
            tags.iter().for_each(|&tag| counted.arrive(PrefixTag(tag), None, 50));
            merger.merge(at(bin), 1, &[counted]).prefixes().and_then(Prefixes::familiar)
        };
        assert_eq!(
            [bin(1, &[1]), bin(2, &[1]), bin(3, &[2]), bin(4, &[3]), bin(5, &[]), bin(6, &[])],
            [None; 6]
        );
        assert_eq!(bin(7, &[1, 4]), Some(50));
        assert_eq!(bin(8, &[1, 3, 4]), Some(150));
        assert_eq!(bin(9, &[5, 6]), Some(0));
    }

    #[test]
    fn counting_is_bounded() {
        let mut bin = ProcessBin::new(at(1), 1, 1);
        for tag in 0..PREFIXES_MAX as u64 + 100 {
            bin.arrive(PrefixTag(tag), None, 1);
        }
        bin.arrive(PrefixTag(0), None, 1);
        assert_eq!((bin.prefixes.len(), bin.uncounted), (PREFIXES_MAX, 100));
        (0..100).for_each(|_| bin.mark(Mark::Restart, 0));
        assert_eq!(bin.marks.len(), MARKS_MAX);
    }
}
