//! Line 7: what must not trouble listeners: an edge that is restarted, a new certificate, another rendition for everyone.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rehearse::crowd::{CrowdReport, Group, Timeline, Trust, clock_us, fetch};
use rustix::process::Signal;

use super::control::{SMALL, WELL};
use super::cost::RAMP;
use super::lab::{Crowd, Lab, Running};
use super::metrics;
use super::scenarios::{self, describe, named};
use super::servers::{EdgeSetup, Edges};
use super::sheet::Sheet;

/// All who were cut off are back within this time, ms.
const BACK_MS: u64 = 5_000;
/// All hear the other rendition within this time, ms.
const MOVED_MS: u64 = 2_000;
/// What the supervisor waits before it starts again what has ended, the first time.
const RESTART_AFTER: Duration = Duration::from_millis(100);
/// Seconds between the last join and the window, and from the window's beginning until something happens.
const SETTLE_S: f64 = 5.0;
const CALM_S: f64 = 2.0;
/// Seconds for what happens to show all it does: more than is allowed.
const ROOM_S: f64 = 8.0;
/// A new certificate is looked for once a second by the edge, and this long by us.
const RELOADED_WITHIN: Duration = Duration::from_secs(8);
/// Bytes of audio that tell a part of `opus-48` (2880 bytes) from one of `opus-24` (1440 on average).
const FULLER_BYTES: u64 = 2_160;

/// A restarted edge, by force and asked to; a new certificate; another rendition for everyone, and back.
pub(crate) fn upheaval(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Upheavals");
    // A crash: others are there to go to. And an orderly restart of all there is.
    restart(lab, sheet, Signal::KILL, 2)?;
    restart(lab, sheet, Signal::TERM, 1)?;
    if lab.edge_tls {
        certificate(lab, sheet)?;
    } else {
        sheet.verdict("a new certificate", "this edge speaks no TLS", "nobody dropped", None);
    }
    moves(lab, sheet)
}

/// The crowd of all of these, and when after its start everyone has listened for a while in its window.
fn crowd(lab: &Lab, edges: &Edges, listeners: usize) -> (Crowd, f64) {
    let ramp = if lab.quick { 200.0 } else { f64::from(RAMP) };
    let crowd = Crowd::of(edges.push("opus-48"), listeners)
        .with("ramp", ramp)
        .with("settle", SETTLE_S)
        .with("window", CALM_S + ROOM_S)
        .flag("rejoin-as-page");
    (crowd, listeners as f64 / ramp + SETTLE_S + CALM_S)
}

/// What nobody may suffer when nothing ends: any harm, and parts twice.
fn harm(group: &Group) -> u64 {
    scenarios::harm(group) + group.counts.duplicates
}

/// A good run is good whatever the generator had to do; a bad one that was void says nothing.
fn judged(report: &CrowdReport, holds: bool) -> Option<bool> {
    (holds || !report.generator.void).then_some(holds)
}

/// How long after a moment (µs, of the machine's clock) something had happened to half, to 99 of 100 and to all of
/// `listeners`, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passage {
    /// `None` where it never had, or had before the moment.
    after_ms: [Option<u64>; 3],
    /// How many it happened to, and should have.
    count: u64,
    listeners: u64,
}

impl Passage {
    fn of(timeline: &Timeline, begun_us: u64, moment_us: u64, listeners: u64) -> Self {
        let after_ms = [listeners.div_ceil(2), (99 * listeners).div_ceil(100), listeners].map(|count| {
            let reached_us = begun_us + 1_000 * timeline.reached(count)?;
            // The timeline has whole milliseconds: what seems to be just before came with it.
            (reached_us + 1_000).checked_sub(moment_us).map(|us| us.div_ceil(1_000))
        });
        Self { after_ms, count: timeline.count(), listeners }
    }

    /// It happened once to each of them, in time.
    fn holds(&self, limit_ms: u64) -> bool {
        self.listeners > 0
            && self.count == self.listeners
            && self.after_ms[0].is_some()
            && self.after_ms[2].is_some_and(|ms| ms <= limit_ms)
    }
}

impl std::fmt::Display for Passage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, after_ms) in ["50", "99", "100"].into_iter().zip(self.after_ms) {
            match after_ms {
                Some(ms) => write!(f, "{name} % after {ms} ms, ")?,
                None => write!(f, "{name} % not at all, ")?,
            }
        }
        write!(f, "{} of {}", self.count, self.listeners)
    }
}

/// One of some edges ends while all listen, and is started again as the supervisor would.
fn restart(lab: &Lab, sheet: &mut Sheet, signal: Signal, of: usize) -> Result<()> {
    let tls = lab.tls_first();
    let edges = Edges::start(lab, &EdgeSetup { edges: of - 1, ..EdgeSetup::new(tls) })?;
    let mut ending = edges.another_ready(lab, of - 1)?;
    let listeners = of * lab.listeners;
    let (crowd, moment_s) = crowd(lab, &edges, listeners);
    // Browsers resume; and neither end may have 20,000 files open.
    let mut crowd = crowd.with("processes", of);
    if tls {
        crowd = crowd.flag("resume");
    }
    let upset = || -> Result<(u64, u64, Running)> {
        let moment_us = clock_us();
        ending.signal(signal)?;
        ending.wait()?;
        let ended_us = clock_us();
        thread::sleep(RESTART_AFTER);
        Ok((moment_us, ended_us, edges.another(lab, of - 1)?))
    };
    let (report, upset) = lab.crowd_meanwhile(&crowd, &edges.running, moment_s, upset)?;
    let (moment_us, ended_us, mut again) = upset.context("an edge could not be restarted")?;
    again.check().context("the restarted edge did not stay")?;
    let counts = report.base.counts;
    let how = if signal == Signal::KILL { "kill -9" } else { "SIGTERM" };
    let what = format!("{how} of an edge, of {of} in all with {listeners} listeners, {}", named(tls));
    let back = Passage::of(&report.base.back, report.begun_us, moment_us, counts.lost);
    sheet.verdict(
        &format!("{what}: the {} it had are back, by their first new part", counts.lost),
        &format!("{back}; {} hear at the end", counts.steady),
        "5 s, all",
        judged(&report, returned(&report, &back, listeners as u64)),
    );
    sheet.verdict(
        &format!("{what}: parts missed that windows held"),
        &format!("{} (and {} heard twice)", counts.missed, counts.duplicates),
        "0",
        // Who stays away misses everything, and cannot say so.
        judged(&report, counts.missed + counts.broken == 0 && back.count == counts.lost && counts.lost > 0),
    );
    let cut = Passage::of(&report.base.cut, report.begun_us, moment_us, counts.lost);
    sheet.say(&format!(
        "  cut off: {cut}; the process had ended after {} ms; {} attempts failed; {} TLS handshakes of the whole run resumed",
        (ended_us - moment_us) / 1_000,
        counts.failed,
        counts.resumed,
    ));
    describe(sheet, &report);
    Ok(())
}

/// Whether everyone of an edge that had about half of all is back in time, and everyone listens.
fn returned(report: &CrowdReport, back: &Passage, listeners: u64) -> bool {
    // An edge that had nobody shows nothing.
    let had_many = back.listeners >= listeners / 4;
    had_many && back.holds(BACK_MS) && report.base.counts.steady == listeners
}

/// The certificate's files are replaced while all listen and some join.
fn certificate(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    let directory = lab.directory()?;
    let (old, new) = (Pair::make(&directory, "old")?, Pair::make(&directory, "new")?);
    old.install(&directory)?;
    let setup = EdgeSetup { certificate: Some(directory.clone()), ..EdgeSetup::new(true) };
    let edges = Edges::start(lab, &setup)?;
    let (crowd, moment_s) = crowd(lab, &edges, lab.listeners);
    let joins = lab.scaled(1_000);
    let crowd = crowd.with("storm", joins).with("storm-over", CALM_S + ROOM_S - 1.0);
    let doors = [edges.push_door(), edges.files()];
    let replace = || -> Result<Option<Duration>> {
        if !doors.iter().all(|door| old.is_shown(door) && !new.is_shown(door)) {
            bail!("the first certificate is not in use");
        }
        let begun = Instant::now();
        new.install(&directory)?;
        while begun.elapsed() < RELOADED_WITHIN {
            if doors.iter().all(|door| new.is_shown(door) && !old.is_shown(door)) {
                return Ok(Some(begun.elapsed()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(None)
    };
    let (report, reloaded) = lab.crowd_meanwhile(&crowd, &edges.running, moment_s, replace)?;
    let reloaded = reloaded?;
    let what = format!("a new certificate while {} listen", lab.listeners);
    sheet.verdict(
        &format!("{what}: shown to newcomers at both doors, and the old one no more"),
        &reloaded.map_or_else(|| "never".to_owned(), |time| format!("after {} ms", time.as_millis())),
        &format!("{} s", RELOADED_WITHIN.as_secs()),
        Some(reloaded.is_some()),
    );
    let (base, storm) = (&report.base, report.storm.clone().unwrap_or_default());
    sheet.verdict(
        &format!("{what}: dropped, failed, missed, of those there and of {joins} who join meanwhile"),
        &format!(
            "{} lost, {} failed, {} missed; {} of {} hear at the end, {} of {} joined",
            base.counts.lost + storm.counts.lost,
            base.counts.failed + storm.counts.failed,
            base.counts.missed + storm.counts.missed,
            base.counts.steady,
            lab.listeners,
            storm.counts.joined,
            storm.counts.asked,
        ),
        "0",
        judged(&report, undisturbed(&report, lab.listeners as u64)),
    );
    describe(sheet, &report);
    Ok(())
}

/// Whether nobody noticed anything.
fn undisturbed(report: &CrowdReport, listeners: u64) -> bool {
    let newcomers = report
        .storm
        .as_ref()
        .is_none_or(|storm| harm(storm) == 0 && storm.counts.joined == storm.counts.asked);
    harm(&report.base) == 0
        && report.base.counts.steady == listeners
        && newcomers
        && report.witness.broken == 0
}

/// A certificate that nobody but its owner trusts, and its key.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn make(directory: &Path, name: &str) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        let pair = Self {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}-key.pem")),
        };
        fs::write(&pair.certificate, made.cert.pem())?;
        fs::write(&pair.key, made.signing_key.serialize_pem())?;
        Ok(pair)
    }

    /// Puts copies where the server looks for them, each at once, as tools that renew certificates do.
    fn install(&self, directory: &Path) -> Result<()> {
        for (file, name) in [(&self.key, "key.pem"), (&self.certificate, "certificate.pem")] {
            let beside = directory.join("beside");
            fs::copy(file, &beside)?;
            fs::rename(&beside, directory.join(name))?;
        }
        Ok(())
    }

    /// Whether who trusts this certificate only can talk with a door. Any answer will do.
    fn is_shown(&self, door: &str) -> bool {
        let trust = Trust::File(self.certificate.clone());
        fetch(&format!("{door}/metrics"), &trust, Duration::from_secs(2)).is_ok()
    }
}

/// Everyone is moved to `opus-24`, and back.
fn moves(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    let tls = lab.tls_first();
    let edges = Edges::start(lab, &EdgeSetup::new(tls))?;
    let (crowd, moment_s) = crowd(lab, &edges, lab.listeners);
    let crowd = crowd.with("fuller-bytes", FULLER_BYTES).with("window", CALM_S + 2.0 * ROOM_S);
    let files = edges.files();
    let moved = || metrics::total(&files, "minassa_edge_moved_total");
    let announce = || {
        let before = moved();
        let down_us = edges.control.announce(SMALL);
        thread::sleep(Duration::from_secs_f64(ROOM_S));
        (before, down_us, edges.control.announce(WELL))
    };
    let (report, (before, down_us, up_us)) =
        lab.crowd_meanwhile(&crowd, &edges.running, moment_s, announce)?;
    let own = before.zip(moved()).map_or("nothing".to_owned(), |(from, to)| (to - from).to_string());
    let (base, all) = (&report.base, lab.listeners as u64);
    for (from, to, timeline, moment_us) in
        [("opus-48", "opus-24", &base.leaner, down_us), ("opus-24", "opus-48", &base.fuller, up_us)]
    {
        let passage = Passage::of(timeline, report.begun_us, moment_us, all);
        sheet.verdict(
            &format!(
                "{all} listeners, {}, moved from {from} to {to}, by their first part of it after the announcement",
                named(tls)
            ),
            &passage.to_string(),
            "2 s, all",
            judged(&report, passage.holds(MOVED_MS)),
        );
    }
    sheet.verdict(
        &format!("{all} listeners moved twice: reconnections and gaps"),
        &format!(
            "{} lost, {} missed, {} twice, {} broken; {} hear at the end",
            base.counts.lost,
            base.counts.missed,
            base.counts.duplicates,
            base.counts.broken,
            base.counts.steady
        ),
        "0",
        judged(&report, undisturbed(&report, all)),
    );
    sheet.say(&format!("  moves by the edge's own count: {own}"));
    describe(sheet, &report);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that began at second 50, in which 1,000 of 2,000 were cut off and came back from second 60.1 on, one a ms.
    fn good() -> (CrowdReport, u64) {
        let mut report = CrowdReport { begun_us: 50_000_000, ..CrowdReport::default() };
        report.base.counts.lost = 1_000;
        report.base.counts.steady = 2_000;
        report.base.back = (0..1_000).map(|n| (10_100 + n, 1)).collect();
        (report, 60_000_000)
    }

    fn back(report: &CrowdReport, moment_us: u64) -> Passage {
        Passage::of(&report.base.back, report.begun_us, moment_us, report.base.counts.lost)
    }

    #[test]
    fn those_who_are_back_in_time_hold() {
        let (report, moment_us) = good();
        let passage = back(&report, moment_us);
        assert_eq!(passage.after_ms, [Some(600), Some(1_090), Some(1_100)]);
        assert_eq!(
            passage.to_string(),
            "50 % after 600 ms, 99 % after 1090 ms, 100 % after 1100 ms, 1000 of 1000"
        );
        assert!(returned(&report, &passage, 2_000));
    }

    #[test]
    fn one_who_is_late_or_away_does_not_hold() {
        type Spoil = fn(&mut CrowdReport);
        let cases: [(&str, Spoil); 6] = [
            ("one is not back", |r| r.base.back = (0..999).map(|n| (10_100 + n, 1)).collect()),
            ("one is late", |r| r.base.back = (0..1_000).map(|n| (10_100 + 5 * n, 1)).collect()),
            ("one is back twice", |r| r.base.back.merge(&Timeline::from_iter([(10_500, 1)]))),
            ("they were back before", |r| r.base.back = Timeline::from_iter([(9_000, 1_000)])),
            ("one is not there at the end", |r| r.base.counts.steady -= 1),
            ("it had nobody", |r| (r.base.counts.lost, r.base.back) = (0, Timeline::default())),
        ];
        for (what, spoil) in cases {
            let (mut report, moment_us) = good();
            spoil(&mut report);
            assert!(!returned(&report, &back(&report, moment_us), 2_000), "{what}");
        }
    }

    #[test]
    fn nobody_is_disturbed_or_somebody_is() {
        type Spoil = fn(&mut CrowdReport);
        let cases: [Spoil; 8] = [
            |r| r.base.counts.lost = 1,
            |r| r.base.counts.missed = 1,
            |r| r.base.counts.duplicates = 1,
            |r| r.base.counts.failed = 1,
            |r| r.base.counts.steady = 9,
            |r| r.storm.as_mut().unwrap().counts.joined = 4,
            |r| r.storm.as_mut().unwrap().counts.lost = 1,
            |r| r.witness.broken = 1,
        ];
        let mut calm = CrowdReport { storm: Some(Group::default()), ..CrowdReport::default() };
        calm.base.counts.steady = 10;
        let storm = &mut calm.storm.as_mut().unwrap().counts;
        (storm.asked, storm.joined) = (5, 5);
        assert!(undisturbed(&calm, 10));
        for (index, spoil) in cases.into_iter().enumerate() {
            let mut report = calm.clone();
            spoil(&mut report);
            assert!(!undisturbed(&report, 10), "{index}");
        }
    }

    #[test]
    fn a_void_run_cannot_fail() {
        let mut report = CrowdReport::default();
        assert_eq!([judged(&report, true), judged(&report, false)], [Some(true), Some(false)]);
        report.generator.void = true;
        assert_eq!([judged(&report, true), judged(&report, false)], [Some(true), None]);
    }
}
