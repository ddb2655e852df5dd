//! From the lines of a ledger to a report, in bounded memory.

use std::collections::BTreeMap;

use ed25519_dalek::VerifyingKey;

use super::series::refused;
use super::{
    Blame, Broken, ClassTime, Happened, Integrity, KeyFrom, Latest, List, Moment, OwnFault, Peaks, Report,
    Series, Span, Step, Stretch, Taken, Totals, VERSION, Why,
};
use crate::ledger::{
    BIN_MS, Bin, Cause, Checker, Damage, Entry, Fault, LINE_MAX, Mark, Measure, Opening, Refused,
};
use crate::verdict::{CONFIDENT, Class, Direction, Feature, Judge, THRESHOLDS, Verdict};

/// A stretch of faults goes on over breaks shorter than this, milliseconds.
const JOIN_MS: u64 = 60_000;
/// From how many milliseconds on a start is late: what a listener would call so. Below it is the ledger's own grain.
const LATE_MS: i64 = 1_000;

const CLASSES: [Class; 6] =
    [Class::Crowd, Class::L7, Class::L34, Class::SelfInflicted, Class::Mixed, Class::Insufficient];

/// The report of a whole ledger.
///
/// # Errors
/// [`Fault`] if not even its first line holds. Of any other fault the report itself speaks, and of what stands before.
pub fn read(ledger: &[u8], key: VerifyingKey, from: KeyFrom) -> Result<Report, Fault> {
    let mut reader = Reader::new(key, from);
    for line in ledger.split_inclusive(|byte| *byte == b'\n') {
        let taken = match line.split_last() {
            Some((b'\n', whole)) => reader.line(whole),
            _ => reader.unfinished(),
        };
        if taken.is_err() {
            break;
        }
    }
    let empty = || Fault { line: 1, offset: 0, damage: Damage::Empty };
    reader.report().ok_or_else(|| reader.fault.clone().unwrap_or_else(empty))
}

/// Reads a ledger line by line: checks, judges, and keeps what a report needs.
#[derive(Debug)]
pub struct Reader {
    from: KeyFrom,
    checker: Checker,
    judged: Option<(Judge, Builder)>,
    offset: u64,
    fault: Option<Fault>,
}

impl Reader {
    /// For a ledger that is signed with the secret half of `key`.
    pub fn new(key: VerifyingKey, from: KeyFrom) -> Self {
        Self { from, checker: Checker::new(key), judged: None, offset: 0, fault: None }
    }

    /// Takes the next line, given without its line feed.
    ///
    /// # Errors
    /// The first [`Fault`]; after it nothing more is taken.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let (entry, missing) = self.checker.line(line).map_err(|damage| self.broken(damage))?;
        self.offset = self.offset.saturating_add(line.len() as u64 + 1);
        match entry {
            Entry::Open(opening) => {
                let builder = Builder::new(&opening);
                self.judged = Some((Judge::new(*opening), builder));
            }
            Entry::Bin(bin) => {
                // A ledger begins with its opening: the checker has seen to that.
                if let Some((judge, builder)) = &mut self.judged {
                    let verdict = judge.step(&bin);
                    builder.bin(&bin, missing, &verdict);
                }
            }
            Entry::Close(_) => {}
        }
        Ok(())
    }

    /// The file ends within a line.
    ///
    /// # Errors
    /// Always: the [`Fault`] that this is, or the first there was.
    pub fn unfinished(&mut self) -> Result<(), Fault> {
        Err(self.fault.clone().unwrap_or_else(|| self.broken(Damage::Unfinished)))
    }

    /// The next line is longer than [`LINE_MAX`].
    ///
    /// # Errors
    /// Always, likewise.
    pub fn too_long(&mut self) -> Result<(), Fault> {
        Err(self.fault.clone().unwrap_or_else(|| self.broken(Damage::Shape)))
    }

    /// Longest line that is one, in bytes without its line feed.
    pub const LINE_MAX: usize = LINE_MAX;

    /// Bytes taken so far: where the next line begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The first fault, if there is one.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Whether the closing line was read.
    pub fn is_closed(&self) -> bool {
        self.checker.head().is_closed()
    }

    /// The report as far as it was read; nothing before the first line.
    pub fn report(&self) -> Option<Report> {
        let (_, builder) = self.judged.as_ref()?;
        let head = self.checker.head();
        Some(builder.report(Integrity {
            holds: self.fault.is_none(),
            key: self.from,
            lines: head.lines(),
            head: head.digest().to_string(),
            closed: head.is_closed(),
            fault: self.fault.as_ref().map(|fault| Broken {
                line: fault.line as u64,
                offset: fault.offset as u64,
                what: fault.damage.to_string(),
            }),
            missing_bins: builder.missing,
            gaps: builder.gaps.clone(),
        }))
    }

    fn broken(&mut self, damage: Damage) -> Fault {
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let line = number(self.checker.head().lines()).saturating_add(1);
        let fault = Fault { line, offset: number(self.offset), damage };
        self.fault = Some(fault.clone());
        fault
    }
}

/// Collects bins and their verdicts.
#[derive(Clone, Debug)]
pub struct Builder {
    opening: Opening,
    covers: Option<Span>,
    live_at: Option<Moment>,
    ended_at: Option<Moment>,
    /// Whether somebody counted at the announced start, or the show was live before it.
    start_seen: bool,
    latest: Option<Latest>,
    totals: Totals,
    /// Listeners at the ends of bins, added up.
    listener_bins: u64,
    peaks: Peaks,
    series: Series,
    ladder: List<Step>,
    measures: BTreeMap<(Measure, Cause), Taken>,
    marks: List<Happened>,
    /// Stretches that may still go on, one a fault.
    blamed: BTreeMap<OwnFault, Blame>,
    ours: List<Blame>,
    classes: [ClassTime; 6],
    verdicts: List<Stretch>,
    missing: u64,
    gaps: List<Span>,
}

impl Builder {
    /// For the ledger that `opening` opens.
    pub fn new(opening: &Opening) -> Self {
        Self {
            opening: opening.clone(),
            covers: None,
            live_at: None,
            ended_at: None,
            start_seen: false,
            latest: None,
            totals: Totals::default(),
            listener_bins: 0,
            peaks: Peaks::default(),
            series: Series::default(),
            ladder: List::default(),
            measures: BTreeMap::new(),
            marks: List::default(),
            blamed: BTreeMap::new(),
            ours: List::default(),
            classes: CLASSES.map(|class| ClassTime { class, seconds: 0, quotable_s: 0 }),
            verdicts: List::default(),
            missing: 0,
            gaps: List::default(),
        }
    }

    /// Takes the next bin, which must be later than those before, before which `missing` bins are, and its verdict.
    pub fn bin(&mut self, bin: &Bin, missing: u64, verdict: &Verdict) {
        let from = Moment::from_millis(bin.start().as_millis());
        let until = Moment::from_millis(bin.start().next().as_millis());
        let time = Span { from, until };
        let attacked = verdict.names_attack();
        if let Some(covered) = self.covers
            && missing > 0
        {
            let gap = Span { from: covered.until, until: from };
            self.missing = self.missing.saturating_add(missing);
            self.gaps.push(gap);
            self.blame(OwnFault::NotCounted, gap, missing, missing, false);
        }
        let follows = missing == 0;
        self.covers = Some(Span { from: self.covers.map_or(from, |covered| covered.from), until });
        self.start_seen |= (from.as_millis()..until.as_millis()).contains(&self.opening.announced_ms);
        self.count(bin);
        self.step(time, bin.counts().own.level, follows);
        self.note(time, bin);
        self.look_at_ourselves(time, bin, verdict, attacked);
        self.class(time, verdict, follows);
        let (counts, processes) = (bin.counts(), bin.processes());
        self.latest = Some(Latest {
            at: until,
            listening: counts.audio.listeners,
            waiting: counts.admission.waiting,
            arrivals: counts.admission.arrivals,
            admitted: counts.tickets.given,
            refused: refused(bin),
            level: counts.own.level,
            capacity: counts.own.capacity,
            processes_expected: processes.expected,
            processes_reported: processes.reported,
            class: verdict.class,
            confidence_bp: verdict.confidence_bp,
            quotable: verdict.confidence_bp >= CONFIDENT,
        });
    }

    /// What there is so far.
    pub fn report(&self, integrity: Integrity) -> Report {
        let announced_at = Moment::from_millis(self.opening.announced_ms);
        let late_ms = self.late_ms();
        let mut ours = self.ours.clone();
        self.blamed.values().for_each(|blame| ours.push(*blame));
        if let (Some(late_ms), Some(live_at)) = (late_ms.filter(|late| *late >= LATE_MS), self.live_at) {
            ours.push(Blame {
                fault: OwnFault::LateStart,
                from: announced_at,
                until: live_at,
                worst: late_ms.unsigned_abs(),
                total: late_ms.unsigned_abs().div_ceil(BIN_MS),
                under_attack: self.attacked_between(announced_at, live_at),
            });
        }
        ours.items.sort_by_key(|blame| (blame.from, blame.fault));
        Report {
            version: VERSION,
            event: self.opening.event().to_owned(),
            thresholds: self.opening.thresholds,
            doors_at: Moment::from_millis(self.opening.doors_ms),
            announced_at,
            live_at: self.live_at,
            late_ms,
            ended_at: self.ended_at,
            covers: self.covers,
            integrity,
            latest: self.latest.clone(),
            totals: Totals { listening_minutes: self.listener_bins / (60_000 / BIN_MS), ..self.totals },
            peaks: self.peaks,
            series: self.series.clone(),
            ladder: self.ladder.clone(),
            measures: self.measures.values().copied().collect(),
            marks: self.marks.clone(),
            ours,
            classes: self.classes.to_vec(),
            verdicts: self.verdicts.clone(),
        }
    }

    fn late_ms(&self) -> Option<i64> {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let live = self.live_at.filter(|_| self.start_seen)?;
        Some(signed(live.as_millis()).saturating_sub(signed(self.opening.announced_ms)))
    }

    fn attacked_between(&self, from: Moment, until: Moment) -> bool {
        // Of what is mixed, a part may be an attack: better said once too often.
        let attack = |class| matches!(class, Class::L7 | Class::L34 | Class::Mixed);
        let within = |stretch: &&Stretch| stretch.from < until && stretch.until > from;
        self.verdicts.items.iter().filter(within).any(|stretch| attack(stretch.class))
    }

    fn count(&mut self, bin: &Bin) {
        let counts = bin.counts();
        let totals = &mut self.totals;
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut totals.bins, 1);
        add(&mut totals.arrivals, counts.admission.arrivals);
        add(&mut totals.admitted, counts.tickets.given);
        add(&mut totals.refused, refused(bin));
        let (sum, more): (&mut Refused, &Refused) = (&mut totals.refused_by, &counts.refused);
        add(&mut sum.full, more.full);
        add(&mut sum.prefix, more.prefix);
        add(&mut sum.forged, more.forged);
        add(&mut sum.expired, more.expired);
        add(&mut sum.excess, more.excess);
        add(&mut totals.called, counts.admission.called);
        add(&mut totals.taken, counts.admission.taken);
        add(&mut totals.challenged, counts.admission.challenged);
        add(&mut totals.passed, counts.admission.passed);
        add(&mut totals.sessions, counts.audio.opened);
        add(&mut totals.followed, counts.audio.followed);
        add(&mut totals.bytes_due, counts.audio.bytes_due);
        add(&mut totals.bytes_acked, counts.audio.bytes_acked);
        add(&mut totals.connections, counts.door.connections);
        add(&mut totals.requests, counts.door.requests);
        add(&mut totals.client_errors, counts.door.client_errors);
        add(&mut totals.server_errors, counts.door.server_errors);
        add(&mut totals.handshakes_shed, counts.door.handshakes_shed);
        add(&mut totals.timed_out, counts.door.timed_out);
        add(&mut totals.abuse, counts.door.abuse);
        add(&mut totals.datagrams_refused, counts.own.datagrams_refused);
        add(&mut self.listener_bins, counts.audio.listeners);
        let at = Moment::from_millis(bin.start().next().as_millis());
        self.peaks.listening.see(counts.audio.listeners, at);
        self.peaks.waiting.see(counts.admission.waiting, at);
        self.peaks.arrivals.see(counts.admission.arrivals, at);
        self.peaks.requests.see(counts.door.requests, at);
        self.peaks.level.see(counts.own.level, at);
        self.series.push(bin);
    }

    fn step(&mut self, time: Span, level: u64, follows: bool) {
        match self.ladder.items.last_mut() {
            Some(last) if follows && last.level == level && self.ladder.left_out == 0 => {
                last.until = time.until;
            }
            _ => self.ladder.push(Step { from: time.from, until: time.until, level }),
        }
    }

    fn note(&mut self, time: Span, bin: &Bin) {
        for done in bin.mitigations() {
            let (measure, cause) = (done.measure, done.cause);
            let new = Taken { measure, cause, count: 0, first: time.from, last: time.until };
            let taken = self.measures.entry((measure, cause)).or_insert(new);
            taken.count = taken.count.saturating_add(done.count);
            taken.last = time.until;
        }
        for marked in bin.marks() {
            let at = Moment::from_millis(time.from.as_millis().saturating_add(marked.at_ms));
            match marked.mark {
                Mark::Live if self.live_at.is_none() => {
                    self.live_at = Some(at);
                    self.start_seen |= at.as_millis() <= self.opening.announced_ms;
                }
                Mark::Ended => self.ended_at = Some(at),
                _ => {}
            }
            self.marks.push(Happened { at, mark: marked.mark });
        }
    }

    fn look_at_ourselves(&mut self, time: Span, bin: &Bin, verdict: &Verdict, attacked: bool) {
        let (counts, processes) = (bin.counts(), bin.processes());
        let lost = processes.expected.saturating_sub(processes.reported);
        let overflows = bin.kernel().map_or(0, |kernel| kernel.listen_overflows);
        let beyond = |feature: Feature, value: u64| if value >= threshold(feature) { value } else { 0 };
        let named = if verdict.names_own_fault() { verdict.confidence_bp.max(1) } else { 0 };
        let errors = counts.door.server_errors;
        let seen = [
            (OwnFault::Named, named, 1),
            (OwnFault::LostProcesses, lost, 1),
            (OwnFault::SlowDisk, beyond(Feature::SlowDisk, counts.own.disk_write_us), 1),
            (OwnFault::LateLoop, beyond(Feature::LateLoop, counts.own.loop_late_us), 1),
            (OwnFault::ServerErrors, errors, errors),
            (OwnFault::QueueOverflow, overflows, overflows),
        ];
        for (fault, worst, total) in seen {
            if worst > 0 {
                self.blame(fault, time, worst, total, attacked);
            }
        }
    }

    fn blame(&mut self, fault: OwnFault, time: Span, worst: u64, total: u64, under_attack: bool) {
        let Span { from, until } = time;
        let new = Blame { fault, from, until, worst, total, under_attack };
        match self.blamed.get_mut(&fault) {
            Some(before) if from.since(before.until) < JOIN_MS => {
                before.until = until;
                before.worst = before.worst.max(worst);
                before.total = before.total.saturating_add(total);
                before.under_attack |= under_attack;
            }
            _ => {
                if let Some(over) = self.blamed.insert(fault, new) {
                    self.ours.push(over);
                }
            }
        }
    }

    fn class(&mut self, time: Span, verdict: &Verdict, follows: bool) {
        let Verdict { class, confidence_bp, .. } = *verdict;
        let quotable = confidence_bp >= CONFIDENT;
        if let Some(sum) = self.classes.iter_mut().find(|sum| sum.class == class) {
            let seconds = BIN_MS / 1_000;
            sum.seconds = sum.seconds.saturating_add(seconds);
            sum.quotable_s = sum.quotable_s.saturating_add(if quotable { seconds } else { 0 });
        }
        let new = || Stretch {
            from: time.from,
            until: time.until,
            class,
            confidence_bp,
            quotable,
            reasons: reasons(verdict),
        };
        match self.verdicts.items.last_mut() {
            Some(last) if follows && last.class == class && self.verdicts.left_out == 0 => {
                last.until = time.until;
                if confidence_bp > last.confidence_bp {
                    *last = Stretch { from: last.from, ..new() };
                }
            }
            _ => self.verdicts.push(new()),
        }
    }
}

fn reasons(verdict: &Verdict) -> Vec<Why> {
    let why = |reason: &crate::verdict::Reason| Why {
        feature: reason.feature,
        sign: reason.sign,
        value: reason.value,
        threshold: reason.threshold,
        above: reason.direction == Direction::Above,
    };
    verdict.reasons.iter().map(why).collect()
}

fn threshold(feature: Feature) -> u64 {
    THRESHOLDS.iter().find(|rule| rule.feature == feature).map_or(u64::MAX, |rule| rule.threshold)
}
