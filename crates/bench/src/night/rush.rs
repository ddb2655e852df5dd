//! Line 1: ten times the configured capacity within ten seconds of the announced start.

use std::time::Duration;

use anyhow::{Context as _, Result};
use model::{MediaTime, UnixTime};
use rehearse::{PushConfig, PushListener, PushReport};

use super::figures::{Figures, HEAD, Line, ON_TIME_MIN};
use super::hall::{Hall, HallSetup, time};
use super::{Listening, Place, describe, say};
use crate::suite::sheet::Sheet;

/// Seconds from the making of the event to its start: those who came early sit by then.
const STARTS_IN_S: f64 = 15.0;
/// How long they come, s.
const OVER_S: f64 = 10.0;
/// How long each waits before it gives up, s.
const PATIENCE_S: f64 = 20.0;
/// How long those listen on the whole who were let in, s: some leave, and others have their seats.
const LISTEN_S: f64 = 30.0;
/// How many times the capacity.
const TIMES: usize = 10;
/// The share of the capacity that sits there before the start.
const EARLY: usize = 4;
const LATE_MAX_MS: i64 = 100;
const FIRST_MAX_MS: i64 = 2_000;
const MEMORY_MAX: f64 = 1.1;

/// A run: who came, and when the first live part was with one who listened.
struct Run {
    figures: Figures,
    /// From the announced start, ms.
    first_ms: Option<i64>,
}

/// First as many as there is room for, then ten times as many.
pub(crate) fn rush(place: &Place, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("A crowd at the start");
    let capacity = place.flags.capacity;
    let calm = once(place, capacity, "as many as there is room for")?;
    let wild = once(place, TIMES * capacity, "ten times as many")?;
    say(sheet, &judge(&wild, &calm.figures));
    describe(sheet, Some(&wild.figures.crowd), &wild.figures.guests);
    if let Some(why) = wild.figures.void() {
        sheet.say(&format!("  VOID: {why}"));
    }
    sheet.say("");
    sheet.table(&HEAD, &[calm.figures.row(None), wild.figures.row(Some(&calm.figures))]);
    Ok(())
}

fn judge(run: &Run, calm: &Figures) -> Vec<Line> {
    let figures = &run.figures;
    let void = figures.void().is_some();
    let judged = |holds: bool| (holds || !void).then_some(holds);
    let line = |what: &str, found: String, allowed: &str, holds: Option<bool>| Line {
        what: format!("{}: {what}", figures.name),
        found,
        allowed: allowed.to_owned(),
        holds,
    };
    let notes = &figures.guests.book.notes;
    let late_ms = figures.kept.live_late_ms;
    let first = run.first_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms"));
    let placeless = notes.of("gave up without a place");
    let mut lines = vec![
        line(
            "on air after the announced time",
            format!("{late_ms} ms"),
            "±100 ms",
            Some(late_ms.abs() <= LATE_MAX_MS),
        ),
        line(
            "first live part with one who listens, after the announced time",
            first,
            "2 s",
            judged(run.first_ms.is_some_and(|ms| ms <= FIRST_MAX_MS)),
        ),
        line(
            "parts on time for who listens",
            format!(
                "{:.3} % received, {:.1} % at least no more than a part late",
                100.0 * figures.received(),
                100.0 * figures.punctual()
            ),
            "at least 99.9 %",
            judged(figures.on_time() >= ON_TIME_MIN),
        ),
        line(
            "who was not let in has a place",
            format!(
                "{} let in, {} with a place, {placeless} without; {} answers without a range of time",
                notes.of("let in"),
                notes.of("gave up with a place"),
                notes.of("places without a range of time"),
            ),
            "0 without",
            judged(placeless == 0),
        ),
        line("bare 5xx", notes.of("bare 5xx").to_string(), "0", Some(notes.of("bare 5xx") == 0)),
        line(
            "recording, and stage gap",
            format!(
                "{}, {} parts",
                if figures.kept.complete { "complete" } else { "not complete" },
                figures.kept.gaps
            ),
            "complete, 0",
            Some(figures.kept.complete && figures.stage_holds()),
        ),
    ];
    for (role, peak) in &figures.peaks {
        let plan = calm.peaks.get(role).map_or(0.0, |peak| peak.rss_mib());
        let found = format!("{:.0} MiB of {plan:.0}", peak.rss_mib());
        let holds = (plan > 0.0).then_some(peak.rss_mib() <= MEMORY_MAX * plan);
        lines.push(line(
            &format!("memory of {role}, of what as many as there is room for take"),
            found,
            "1.1 ×",
            holds,
        ));
    }
    lines
}

/// When the first part that is all live was there, from the announced start, ms.
fn first_live_ms(report: &PushReport, doors: UnixTime, live: UnixTime, starts: UnixTime) -> Option<i64> {
    let first = MediaTime::from_duration(live.since(doors)).part();
    let part = report.parts.iter().find(|part| part.number >= first)?;
    Some(part.at.as_millis() - starts.as_millis())
}

fn once(place: &Place, guests: usize, name: &str) -> Result<Run> {
    let capacity = place.flags.capacity;
    let setup = HallSetup {
        tls: false,
        edges: 1,
        listeners_max: capacity,
        starts_in_s: STARTS_IN_S,
        core: place.core(),
    };
    let hall = Hall::open(&place.minassa, &setup)?;
    let early = (capacity / EARLY).max(1);
    let connections = hall.connections();
    let (watch, lookout) = (hall.watch(), hall.look()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let witness = {
        let _inside = runtime.enter();
        PushListener::start(PushConfig::new(hall.stream()))
    };
    let until_start = |hall: &Hall| hall.starts_at.since(backend::clock::unix_now()).as_secs_f64();
    let ramp = early as f64 / 3.0;
    // Measured from a little before the start until all have given up.
    let settle_s = (until_start(&hall) - 3.0 - 2.0).max(0.5);
    let crowd = Listening { listeners: early, ramp, settle_s, window_s: 2.0 + OVER_S + PATIENCE_S };
    let listening = place.crowd(&hall, &crowd)?;
    std::thread::sleep(Duration::from_secs_f64(until_start(&hall).max(0.0)));
    let coming = place.newcomers(
        &hall,
        &[
            ("--per-second", guests as f64 / OVER_S),
            ("--guests", guests as f64),
            ("--seconds", OVER_S),
            ("--listen", LISTEN_S),
            ("--turnover", 1.0),
            ("--patience", PATIENCE_S),
            ("--end", OVER_S + PATIENCE_S + 1.0),
        ],
    )?;
    hall.wait_live()?;
    let stage = hall.server.stage(&hall.event.event)?;
    let (doors, live) = (time(&stage, "doors_at"), time(&stage, "live_at"));
    let guests_report = coming.report()?;
    let crowd = listening.report().context("of those who listen")?;
    let starts = hall.starts_at;
    let first_ms = doors
        .zip(live)
        .and_then(|(doors, live)| witness.look(|report| first_live_ms(report, doors, live, starts)));
    runtime.block_on(witness.stop());
    let (peaks, seen) = (watch.end(), lookout.end());
    let kept = hall.close()?;
    let figures = Figures {
        name: name.to_owned(),
        crowd,
        listeners: early as u64,
        guests: guests_report,
        deeds: Vec::new(),
        kept,
        connections,
        peaks,
        seen,
    };
    Ok(Run { figures, first_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_judged_by_all_that_must_hold() {
        let good = || {
            let mut figures = Figures { listeners: 10, connections: 1, ..Figures::default() };
            figures.crowd.base.counts.steady = 10;
            figures.crowd.base.counts.parts = 100;
            figures.crowd.base.lateness_ms.count = 100;
            figures.kept.complete = true;
            figures.kept.connections = 1;
            figures
                .peaks
                .insert("origin".to_owned(), super::super::watch::Peak { rss_kib: 2_048, ..<_>::default() });
            Run { figures, first_ms: Some(700) }
        };
        let calm = good().figures;
        let judged = |run: &Run| judge(run, &calm).into_iter().map(|line| line.holds).collect::<Vec<_>>();
        assert_eq!(judged(&good()), [Some(true); 7]);
        type Spoil = fn(&mut Run);
        let cases: [Spoil; 7] = [
            |run| run.figures.kept.live_late_ms = -101,
            |run| run.first_ms = Some(2_001),
            |run| run.figures.crowd.base.counts.missed = 1,
            |run| run.figures.guests.book.notes.count("gave up without a place"),
            |run| run.figures.guests.book.notes.count("bare 5xx"),
            |run| run.figures.kept.gaps = 1,
            |run| run.figures.peaks.get_mut("origin").unwrap().rss_kib = 2_300,
        ];
        for (index, spoil) in cases.into_iter().enumerate() {
            let mut run = good();
            spoil(&mut run);
            let mut expected = [Some(true); 7];
            expected[index] = Some(false);
            assert_eq!(judged(&run), expected);
        }
    }
}
