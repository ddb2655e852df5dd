//! Line 4: a storm of joins while others listen.

use anyhow::Result;
use rehearse::crowd::CrowdReport;

use super::cost::RAMP;
use super::lab::{Crowd, Lab};
use super::scenarios::{describe, harm, named, own_lateness, watched};
use super::servers::{EdgeSetup, Edges, Floor};
use super::sheet::{Sheet, Spread};

/// Listeners that are there when a storm comes, and its joins.
const STORM: (usize, usize) = (9_000, 8_000);
/// Most listeners of one edge in a storm ([`EdgeSetup::roomy`]): who joins is new, and newcomers may take nine of ten
/// places.
const EDGE_MAX: usize = 17_000;
/// Limits of a storm, ms.
const FIRST_AUDIO_MS: f64 = 500.0;
const LATENESS_MS: f64 = 150.0;
/// The least share of joins that were resumed, where they are said to be.
const RESUMED_MIN: f64 = 0.98;
/// The least that the edge bears of what the floor bears.
const RATE_OF_FLOOR: f64 = 0.7;
/// How often a storm is raised until it says something.
const ATTEMPTS: usize = 3;

/// What is asked in a storm.
#[derive(Clone, Copy, Debug)]
struct Tempest {
    tls: bool,
    resume: bool,
    joins: usize,
    over_s: f64,
}

#[derive(Clone, Copy, Debug)]
enum Who {
    Edge,
    Floor,
}

fn storm_once(lab: &Lab, who: &Who, tempest: Tempest) -> Result<(CrowdReport, Option<f64>)> {
    let crowd = |url: &str| {
        let mut crowd = Crowd::of(url, lab.scaled(STORM.0))
            .with("ramp", RAMP)
            .with("settle", 4)
            .with("window", tempest.over_s + 4.0);
        if tempest.joins > 0 {
            crowd = crowd.with("storm", tempest.joins).with("storm-over", tempest.over_s);
        }
        if tempest.resume {
            crowd = crowd.flag("resume");
        }
        crowd
    };
    match who {
        Who::Edge => {
            let edges = Edges::start(lab, &EdgeSetup::roomy(tempest.tls))?;
            watched(lab, &crowd(&edges.push("opus-48")), &edges, lab.scaled(STORM.0))
        }
        Who::Floor => {
            // In slices: at once it would hold its own door shut for a tenth of a second.
            let floor = Floor::start(lab, tempest.tls, 1, 240)?;
            Ok((lab.crowd(&crowd(&floor.url), &floor.running)?, None))
        }
    }
}

/// What can be said of a storm in which something held or did not: `None` if the generator did not begin it as asked, or
/// if what did not hold may be its own fault. What is borne is borne by a busy generator too.
fn judged(report: &CrowdReport, holds: bool) -> Option<bool> {
    let pace = report.generator.storm?;
    let blind = pace.is_void() || report.generator.void;
    (pace.is_true() && (holds || !blind)).then_some(holds)
}

/// Whether all who were asked to have joined, and nobody came to harm.
fn all_joined(report: &CrowdReport) -> bool {
    let storm = report.storm.as_ref();
    let joined = storm.is_none_or(|storm| storm.counts.joined == storm.counts.asked && harm(storm) == 0);
    joined && harm(&report.base) == 0
}

/// The share of a storm's joins that were resumed.
fn resumed(report: &CrowdReport) -> f64 {
    let counts = report.storm.as_ref().map(|storm| storm.counts).unwrap_or_default();
    counts.resumed as f64 / counts.joined.max(1) as f64
}

/// Whether the joins were of the kind they should be: nearly all resumed, or none.
fn of_its_kind(report: &CrowdReport, resume: bool) -> bool {
    if resume { resumed(report) >= RESUMED_MIN } else { resumed(report) == 0.0 }
}

/// Whether a storm was borne: `None` if it cannot be told.
fn borne(report: &CrowdReport, resume: bool) -> Option<bool> {
    let storm = report.storm.as_ref()?;
    let good = all_joined(report)
        && storm.first_audio_ms.p99 <= FIRST_AUDIO_MS
        && report.base.lateness_ms.p99 <= LATENESS_MS;
    judged(report, good).filter(|good| !good || of_its_kind(report, resume))
}

/// What decides whether a storm was borne.
fn seen(report: &CrowdReport) -> String {
    let Some(storm) = &report.storm else { return "nobody joined".to_owned() };
    format!(
        "{} of {} joined, harm {}, first audio {} ms, lateness {} ms",
        storm.counts.joined,
        storm.counts.asked,
        harm(storm) + harm(&report.base),
        storm.first_audio_ms.p99,
        report.base.lateness_ms.p99
    )
}

/// What stands beside a storm: how fast it was in truth, and how its generator fared in it.
fn pace(report: &CrowdReport) -> String {
    let Some(pace) = report.generator.storm else { return "no storm".to_owned() };
    let mut text = format!(
        "{:.0} joins a second begun, late by {} ms (p99), generator {:.0} % busy meanwhile",
        pace.rate,
        pace.lag_ms.p99,
        100.0 * pace.busy
    );
    if resumed(report) > 0.0 {
        text.push_str(&format!(", {:.1} % resumed", 100.0 * resumed(report)));
    }
    if pace.is_void() {
        text.push_str(", VOID");
    }
    text
}

/// Line 4: a storm of joins while others listen, and the fastest that is borne.
pub(crate) fn storm(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Join storm");
    let tls = lab.tls_first();
    let tempest = Tempest { tls, resume: false, joins: lab.scaled(STORM.1), over_s: 4.0 };
    let (report, own) = storm_once(lab, &Who::Edge, tempest)?;
    let storm = report.storm.clone().unwrap_or_default();
    let judged = |holds: bool| judged(&report, holds);
    let what = format!("{} joins in 4 s while {} listen, {}", tempest.joins, lab.scaled(STORM.0), named(tls));
    sheet.verdict(
        &format!("{what}: joined"),
        &format!(
            "{} of {}, harm {}",
            storm.counts.joined,
            storm.counts.asked,
            harm(&storm) + harm(&report.base)
        ),
        "all, 0",
        judged(all_joined(&report)),
    );
    sheet.verdict(
        &format!("{what}: first audio from the TCP connect, p99"),
        &format!(
            "{} ms (p50 {}, max {})",
            storm.first_audio_ms.p99, storm.first_audio_ms.p50, storm.first_audio_ms.max
        ),
        "500 ms",
        judged(storm.first_audio_ms.p99 <= FIRST_AUDIO_MS),
    );
    sheet.verdict(
        &format!("{what}: lateness of those who were there, p99"),
        &format!("{} ms", report.base.lateness_ms.p99),
        "150 ms",
        judged(report.base.lateness_ms.p99 <= LATENESS_MS),
    );
    own_lateness(sheet, &what, own, LATENESS_MS);
    describe(sheet, &report);
    sheet.say(&format!("  in the storm: {}", pace(&report)));
    sheet.say(
        "\nThe highest rate of joins a second at which all of this still holds. The floor writes in slices of 2 ms here: \
         at once it would hold its own door shut for a tenth of a second. TLS joins agree on their keys by \
         X25519MLKEM768, as current browsers do.\n",
    );
    let mut rows = Vec::new();
    for (tls, resume) in [(true, false), (true, true), (false, false)] {
        let edge = match tls && !lab.edge_tls {
            true => None,
            false => Some(highest_rate(lab, &Who::Edge, tls, resume)?),
        };
        let floor = highest_rate(lab, &Who::Floor, tls, resume)?;
        let ratio = edge.as_ref().filter(|_| floor.rate > 0.0).map(|edge| edge.rate / floor.rate);
        let name = kind(tls, resume);
        rows.push(vec![
            name.to_owned(),
            edge.as_ref().map_or_else(|| "–".to_owned(), Rate::to_string),
            floor.to_string(),
            ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
        ]);
        if tls {
            // Where the generator was the floor's limit nobody knows what it bears; where it was the edge's, the ratio is
            // the least that is sure.
            let says = |ratio: f64| match edge.as_ref()?.bounded {
                _ if floor.bounded => None,
                true => (ratio >= RATE_OF_FLOOR).then_some(true),
                false => Some(ratio >= RATE_OF_FLOOR),
            };
            sheet.verdict(
                &format!("rate of {name} joins against the floor's"),
                &ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
                &format!("at least {RATE_OF_FLOOR}"),
                ratio.and_then(says),
            );
        }
    }
    sheet.say("");
    sheet.table(&["joins", "edge", "floor", "ratio"], &rows);
    costs(lab, sheet)
}

/// What a join takes of the core, which says the same where a generator is too slow to find the limit.
fn costs(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    sheet.say(
        "\nTime of the core that a join takes, at a rate that both bear; its inverse is the rate that one core could bear \
         with nothing else to do.\n",
    );
    for (tls, resume) in [(true, false), (true, true), (false, false)] {
        if tls && !lab.edge_tls {
            continue;
        }
        let mut taken = [Vec::new(), Vec::new()];
        for _ in 0..lab.repeats {
            for (who, taken) in [Who::Edge, Who::Floor].iter().zip(&mut taken) {
                taken.extend(cost_of_join(lab, who, tls, resume)?);
            }
        }
        let what = format!("{}: edge and floor", kind(tls, resume));
        let [Some(edge), Some(floor)] = taken.map(Spread::of) else {
            sheet.verdict(&what, "void", "–", None);
            continue;
        };
        let ratio = floor.median / edge.median;
        sheet.verdict(
            &what,
            &format!("{edge} and {floor} µs a join, so the edge bears {ratio:.2} of the floor's rate"),
            &if tls { format!("at least {RATE_OF_FLOOR}") } else { "–".to_owned() },
            tls.then_some(edge.median > 0.0 && ratio >= RATE_OF_FLOOR),
        );
    }
    Ok(())
}

/// Core time of a join, µs, from two runs that differ by nothing else. `None` if one of them was void, or did not do all
/// of its work.
fn cost_of_join(lab: &Lab, who: &Who, tls: bool, resume: bool) -> Result<Option<f64>> {
    let calm = Tempest { tls, resume, joins: 0, over_s: 4.0 };
    let joins = lab.scaled(STORM.1);
    let (calm, _) = storm_once(lab, who, calm)?;
    let (wild, _) = storm_once(lab, who, Tempest { tls, resume, joins, over_s: 4.0 })?;
    let good = |report: &CrowdReport| !report.generator.void && all_joined(report);
    if !good(&calm) || !good(&wild) || !of_its_kind(&wild, resume) {
        let joined = wild.storm.as_ref().map_or(0, |storm| storm.counts.joined);
        say(&format!("{}: not counted: {joined} of {joins} joined, {}", kind(tls, resume), pace(&wild)));
        return Ok(None);
    }
    let core_us = |report: &CrowdReport| report.server.core_busy * report.window_s * 1e6;
    // Those who have joined listen from then on: half of the storm, and all that follows it.
    let listener_us = core_us(&calm) / (calm.window_s * lab.scaled(STORM.0) as f64);
    let listened_s = wild.window_s - 4.0 / 2.0;
    Ok(Some((core_us(&wild) - core_us(&calm)) / joins as f64 - listener_us * listened_s))
}

/// Progress, which is not for the sheet.
fn say(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "  {text}").ok();
}

fn kind(tls: bool, resume: bool) -> &'static str {
    match (tls, resume) {
        (false, _) => "plain",
        (true, false) => "TLS, full",
        (true, true) => "TLS, resumed",
    }
}

/// A rate that was borne, a second.
#[derive(Clone, Copy, Debug)]
struct Rate {
    rate: f64,
    /// The generator could do no more.
    bounded: bool,
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.bounded { "≥ " } else { "" };
        write!(f, "{more}{:.0}", self.rate)
    }
}

/// Whether a storm is borne; one that says nothing is tried again, as often as may be.
fn looked_at(lab: &Lab, who: &Who, tempest: Tempest) -> Result<Option<bool>> {
    let rate = tempest.joins as f64 / tempest.over_s;
    for _ in 0..ATTEMPTS {
        let (report, _) = storm_once(lab, who, tempest)?;
        let verdict = borne(&report, tempest.resume);
        let kind = kind(tempest.tls, tempest.resume);
        say(&format!(
            "{who:?}, {kind}, {rate:.0} a second: borne {verdict:?}; {}; {}",
            seen(&report),
            pace(&report)
        ));
        if verdict.is_some() {
            return Ok(verdict);
        }
    }
    Ok(None)
}

fn highest_rate(lab: &Lab, who: &Who, tls: bool, resume: bool) -> Result<Rate> {
    let room = if lab.quick { 500 } else { EDGE_MAX - STORM.0 };
    let (mut low, mut high) = (0.0, if tls { 8_000.0 } else { 16_000.0 });
    // What is above `high` is unknown, until a rate is seen not to be borne.
    let mut bounded = true;
    for _ in 0..if lab.quick { 2 } else { 5 } {
        let rate = f64::midpoint(low, high);
        let over_s = (room as f64 / rate).min(4.0);
        let tempest = Tempest { tls, resume, joins: (rate * over_s) as usize, over_s };
        match looked_at(lab, who, tempest)? {
            Some(true) => low = rate,
            verdict => {
                high = rate;
                bounded = verdict.is_none();
            }
        }
    }
    Ok(Rate { rate: low, bounded })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rehearse::crowd::{Group, StormPace};

    fn good() -> CrowdReport {
        let mut storm = Group::default();
        (storm.counts.asked, storm.counts.joined, storm.counts.resumed) = (1_000, 1_000, 990);
        let mut report = CrowdReport { storm: Some(storm), ..CrowdReport::default() };
        report.generator.storm = Some(StormPace { rate: 2_000.0, busy: 0.5, ..StormPace::default() });
        report
    }

    fn spoilt(spoil: impl FnOnce(&mut CrowdReport)) -> CrowdReport {
        let mut report = good();
        spoil(&mut report);
        report
    }

    #[test]
    fn a_storm_is_borne_or_not() {
        assert_eq!(borne(&good(), true), Some(true));
        type Spoil = fn(&mut CrowdReport);
        let cases: [Spoil; 5] = [
            |r| r.storm.as_mut().unwrap().counts.joined = 999,
            |r| r.storm.as_mut().unwrap().counts.broken = 1,
            |r| r.storm.as_mut().unwrap().first_audio_ms.p99 = 501.0,
            |r| r.base.counts.missed = 1,
            |r| r.base.lateness_ms.p99 = 151.0,
        ];
        for (index, spoil) in cases.into_iter().enumerate() {
            assert_eq!(borne(&spoilt(spoil), true), Some(false), "{index}");
            // Not if the generator was busy in the storm's own seconds, or over the whole window.
            let busy = |report: &mut CrowdReport| report.generator.storm.as_mut().unwrap().busy = 0.9;
            let void = |report: &mut CrowdReport| report.generator.void = true;
            for blind in [&busy as &dyn Fn(&mut CrowdReport), &void] {
                let report = spoilt(|report| {
                    spoil(report);
                    blind(report);
                });
                assert_eq!(borne(&report, true), None, "{index}");
            }
        }
    }

    #[test]
    fn a_storm_that_did_not_come_as_asked_says_nothing() {
        let late = spoilt(|r| r.generator.storm.as_mut().unwrap().lag_ms.p99 = 20.1);
        assert_eq!((borne(&late, true), borne(&spoilt(|r| r.generator.storm = None), true)), (None, None));
        assert!(pace(&late).ends_with("99.0 % resumed, VOID"), "{}", pace(&late));
        // Nor does one of joins of another kind.
        let full = spoilt(|r| r.storm.as_mut().unwrap().counts.resumed = 979);
        assert_eq!((borne(&full, true), borne(&good(), false)), (None, None));
        let busy = spoilt(|r| r.generator.storm.as_mut().unwrap().busy = 0.9);
        assert_eq!(borne(&busy, true), Some(true));
    }

    #[test]
    fn a_cost_is_of_work_that_was_done() {
        assert!(all_joined(&good()) && all_joined(&CrowdReport::default()));
        assert!(!all_joined(&spoilt(|r| r.storm.as_mut().unwrap().counts.joined = 999)));
        assert!(!all_joined(&spoilt(|r| r.storm.as_mut().unwrap().counts.lost = 1)));
        assert!(!all_joined(&spoilt(|r| r.base.counts.stalls = 1)));
    }
}
