//! What one run comes to, and how it compares with the same run without an attack. Pure.

use rehearse::crowd::CrowdReport;

use super::guests::GuestsReport;
use super::hall::{Kept, Seen};
use super::watch::Peaks;
use crate::attack::Deeds;

/// A part that is later than this is not on time, ms: one part.
const LATE_MS: f64 = 480.0;
/// Media time of a part, s.
const PART_S: f64 = 0.48;
/// A generator that was busier than this, or had to wait for a processor longer, says nothing.
const BUSY_MAX: f64 = 0.85;
const STARVED_MAX: f64 = 0.15;
/// Turns of the crowd's loop are shorter than this, in 99 of 100, ms.
const TURN_MAX_MS: f64 = 100.0;

/// What must hold in an attack.
pub(crate) const ON_TIME_MIN: f64 = 0.999;
pub(crate) const LET_IN_MIN: f64 = 0.95;
pub(crate) const FILES_MAX: f64 = 0.9;

/// One run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) name: String,
    pub(crate) crowd: CrowdReport,
    /// Listeners that were asked for.
    pub(crate) listeners: u64,
    pub(crate) guests: GuestsReport,
    pub(crate) deeds: Vec<Deeds>,
    pub(crate) kept: Kept,
    /// How often the speaker had connected before anything happened.
    pub(crate) connections: u32,
    pub(crate) peaks: Peaks,
    pub(crate) seen: Seen,
}

impl Figures {
    /// The share of parts that those who listen got, 0 to 1. Who is cut off and stays away misses all that follow: half
    /// of the window, on average, if nobody knows when.
    pub(crate) fn received(&self) -> f64 {
        let counts = &self.crowd.base.counts;
        let away = self.listeners.saturating_sub(counts.steady) as f64;
        let lost = counts.missed as f64 + away * self.crowd.window_s / PART_S;
        let due = counts.parts as f64 + lost;
        if due > 0.0 { counts.parts as f64 / due } else { 0.0 }
    }

    /// The share that is known to have come no more than one part late: quantiles are what a report has.
    pub(crate) fn punctual(&self) -> f64 {
        let lateness = &self.crowd.base.lateness_ms;
        if lateness.count == 0 {
            return 0.0;
        }
        let quantiles = [
            (lateness.max, 1.0),
            (lateness.p999, 0.999),
            (lateness.p99, 0.99),
            (lateness.p90, 0.9),
            (lateness.p50, 0.5),
        ];
        quantiles.into_iter().find(|(ms, _)| *ms <= LATE_MS).map_or(0.0, |(_, share)| share)
    }

    /// Received, and in time.
    pub(crate) fn on_time(&self) -> f64 {
        self.received().min(self.punctual())
    }

    /// Whether no part is missing, and the speaker was never cut off.
    pub(crate) fn stage_holds(&self) -> bool {
        self.kept.gaps == 0 && self.kept.connections == self.connections
    }

    /// The process that came nearest to its limit of files.
    pub(crate) fn files(&self) -> Option<(&str, f64)> {
        let shares = self.peaks.iter().map(|(role, peak)| (role.as_str(), peak.files_share));
        shares.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Why the run says nothing, if it says nothing.
    pub(crate) fn void(&self) -> Option<String> {
        let generator = &self.crowd.generator;
        let busy = generator.cpu / generator.shares.max(1) as f64;
        if busy > BUSY_MAX {
            return Some(format!("the crowd's processes were {:.0} % busy", 100.0 * busy));
        }
        if generator.turn_ms.p99 > TURN_MAX_MS {
            return Some(format!("turns of the crowd's loop took {} ms", generator.turn_ms.p99));
        }
        if self.guests.busy > BUSY_MAX {
            return Some(format!("the newcomers' process was {:.0} % busy", 100.0 * self.guests.busy));
        }
        if self.guests.starved > STARVED_MAX {
            let starved = 100.0 * self.guests.starved;
            return Some(format!("the newcomers' process waited for a processor {starved:.0} % of the time"));
        }
        None
    }

    /// A row of the table. Ratios are to `base`, where there is one.
    pub(crate) fn row(&self, base: Option<&Self>) -> Vec<String> {
        let of = |value: f64, other: Option<f64>| match other {
            Some(other) if other > 0.0 => format!(" ({:.2} ×)", value / other),
            _ => String::new(),
        };
        let percent = |mine: fn(&Self) -> f64| {
            let value = mine(self);
            format!("{:.2} %{}", 100.0 * value, of(value, base.map(mine)))
        };
        let ms = |mine: fn(&Self) -> f64| format!("{:.0} ms{}", mine(self), of(mine(self), base.map(mine)));
        let rss: Vec<String> = self
            .peaks
            .iter()
            .map(|(role, peak)| {
                let other = base.and_then(|base| base.peaks.get(role)).map(|peak| peak.rss_mib());
                format!("{role} {:.0}{}", peak.rss_mib(), of(peak.rss_mib(), other))
            })
            .collect();
        let files = self.files().map_or_else(
            || "–".to_owned(),
            |(role, share)| {
                let peak = self.peaks.get(role).copied().unwrap_or_default();
                format!("{:.0} % ({role}: {} of {})", 100.0 * share, peak.files, peak.files_limit)
            },
        );
        vec![
            self.name.clone(),
            percent(Self::received),
            ms(|run| run.crowd.base.lateness_ms.p999),
            percent(|run| run.guests.let_in()),
            ms(|run| run.guests.book.first_audio.summary().p99),
            self.kept.gaps.to_string(),
            if self.kept.complete { "complete" } else { "**not complete**" }.to_owned(),
            files,
            rss.join(", "),
            match self.seen.silent {
                0 => format!("L{}", self.seen.level),
                silent => format!("L{}, {silent} s silent", self.seen.level),
            },
            self.seen.verdicts.iter().cloned().collect::<Vec<_>>().join(", "),
            self.void().map_or_else(String::new, |_| "VOID".to_owned()),
        ]
    }
}

/// Heads of [`Figures::row`].
pub(crate) const HEAD: [&str; 12] = [
    "run",
    "parts received",
    "lateness p99.9",
    "newcomers let in",
    "first audio p99",
    "stage gap",
    "recording",
    "files of limit",
    "memory, MiB",
    "ladder",
    "verdicts",
    "",
];

/// A line of what must hold: what was found, what is allowed, and whether it holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) found: String,
    pub(crate) allowed: String,
    pub(crate) holds: Option<bool>,
}

/// What must hold in an attack, of one run. Nothing that the generator may be to blame for is held against the server.
pub(crate) fn judge(run: &Figures, budgets: &dyn Fn(&str) -> f64) -> Vec<Line> {
    let void = run.void().is_some();
    let judged = |holds: bool| (holds || !void).then_some(holds);
    let line = |what: &str, found: String, allowed: &str, holds: Option<bool>| Line {
        what: format!("{}: {what}", run.name),
        found,
        allowed: allowed.to_owned(),
        holds,
    };
    let on_time = run.on_time();
    let mut lines = vec![
        line(
            "parts on time for who listens",
            format!(
                "{:.3} % received, {:.1} % at least no more than a part late",
                100.0 * run.received(),
                100.0 * run.punctual()
            ),
            "at least 99.9 %",
            judged(on_time >= ON_TIME_MIN),
        ),
        line(
            "honest newcomers let in",
            format!("{:.2} % of {}", 100.0 * run.guests.let_in(), run.guests.begun),
            "at least 95 %",
            judged(run.guests.begun > 0 && run.guests.let_in() >= LET_IN_MIN),
        ),
        line(
            "stage gap",
            format!(
                "{} of {} parts, the speaker connected {} times again",
                run.kept.gaps,
                run.kept.parts,
                run.kept.connections.saturating_sub(run.connections)
            ),
            "0",
            // The speaker shares the generator's core.
            judged(run.stage_holds()),
        ),
        line(
            "recording",
            if run.kept.complete { "complete" } else { "not complete" }.to_owned(),
            "complete",
            Some(run.kept.complete),
        ),
    ];
    if let Some((role, share)) = run.files() {
        let found = format!("{:.1} % ({role})", 100.0 * share);
        lines.push(line("open files of the limit", found, "at most 90 %", Some(share <= FILES_MAX)));
    }
    let over: Vec<String> = run
        .peaks
        .iter()
        .filter(|(role, peak)| peak.rss_mib() > budgets(role))
        .map(|(role, peak)| format!("{role} {:.0} of {:.0} MiB", peak.rss_mib(), budgets(role)))
        .collect();
    let found = if over.is_empty() { "all within".to_owned() } else { over.join(", ") };
    lines.push(line(
        "memory of its budget",
        found,
        "all within",
        Some(over.is_empty() && !run.peaks.is_empty()),
    ));
    lines
}

#[cfg(test)]
mod tests {
    use super::super::watch::Peak;
    use super::*;

    /// 100 people listened for 4.8 s, and 200 came.
    fn good() -> Figures {
        let mut run =
            Figures { name: "held".to_owned(), listeners: 100, connections: 1, ..Figures::default() };
        run.crowd.window_s = 4.8;
        run.crowd.base.counts.steady = 100;
        run.crowd.base.counts.parts = 1_000;
        let lateness = &mut run.crowd.base.lateness_ms;
        (lateness.count, lateness.p50, lateness.p999, lateness.max) = (1_000, 5.0, 90.0, 300.0);
        run.guests.begun = 200;
        run.guests.book.notes.add("let in", 199);
        run.kept = Kept { parts: 30, complete: true, connections: 1, ..Kept::default() };
        let peak = Peak { rss_kib: 102_400, files: 50, files_limit: 100, files_share: 0.5 };
        run.peaks.insert("edge-0".to_owned(), peak);
        run
    }

    fn judged(run: &Figures) -> Vec<Option<bool>> {
        judge(run, &|_| 200.0).into_iter().map(|line| line.holds).collect()
    }

    #[test]
    fn a_good_run_holds() {
        let run = good();
        assert_eq!((run.received(), run.punctual(), run.void()), (1.0, 1.0, None));
        assert_eq!(judged(&run), [Some(true); 6]);
    }

    #[test]
    fn whatever_is_spoilt_is_seen() {
        type Spoil = fn(&mut Figures);
        let cases: [(usize, Spoil); 10] = [
            (0, |run| run.crowd.base.counts.missed = 2),
            (0, |run| run.crowd.base.counts.steady = 99),
            (0, |run| (run.crowd.base.lateness_ms.max, run.crowd.base.lateness_ms.p999) = (900.0, 481.0)),
            (0, |run| run.crowd.base.lateness_ms.count = 0),
            (1, |run| run.guests.begun = 300),
            (1, |run| run.guests.begun = 0),
            (2, |run| run.kept.gaps = 1),
            (2, |run| run.kept.connections = 2),
            (3, |run| run.kept.complete = false),
            (4, |run| run.peaks.get_mut("edge-0").unwrap().files_share = 0.91),
        ];
        for (index, spoil) in cases {
            let mut run = good();
            spoil(&mut run);
            let mut expected = [Some(true); 6];
            expected[index] = Some(false);
            assert_eq!(judged(&run), expected);
        }
        assert_eq!(judge(&good(), &|_| 99.0)[5].holds, Some(false));
    }

    #[test]
    fn a_void_run_blames_nobody_for_what_the_generator_sees() {
        let mut run = good();
        run.guests.starved = 0.5;
        run.guests.begun = 900;
        run.kept.complete = false;
        assert!(run.void().is_some());
        assert_eq!(judged(&run), [Some(true), None, Some(true), Some(false), Some(true), Some(true)]);
        for spoil in [
            |run: &mut Figures| run.crowd.generator.cpu = 0.9,
            |run: &mut Figures| run.crowd.generator.turn_ms.p99 = 101.0,
            |run: &mut Figures| run.guests.busy = 0.9,
        ] {
            let mut run = good();
            spoil(&mut run);
            assert!(run.void().is_some());
        }
    }

    #[test]
    fn rows_have_ratios_to_the_run_without() {
        let (base, mut run) = (good(), good());
        run.peaks.get_mut("edge-0").unwrap().rss_kib *= 2;
        let row = run.row(Some(&base));
        assert_eq!(row.len(), HEAD.len());
        assert!(row[8].contains("edge-0 200 (2.00 ×)"), "{row:?}");
        assert!(!base.row(None).concat().contains('×'));
    }
}
