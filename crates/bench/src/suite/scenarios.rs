//! The other lines of what must hold, as far as an edge alone can show them.

use std::time::Duration;

use anyhow::Result;
use rehearse::crowd::{CrowdReport, Group, Sampler, StuckReport};

use super::cost::{RAMP, ordinary};
use super::lab::{Crowd, Lab};
use super::metrics::{self, Histogram};
use super::servers::{EdgeSetup, Edges};
use super::sheet::{Sheet, Spread};

/// Seconds after which a reader that takes nothing is closed, in the scenario of slow readers.
const STUCK_S: u64 = 10;
/// Looks, one a second, at what they cost.
const STUCK_LOOKS: u32 = 30;
/// Seconds from one range of a reader to its next, and by how much of them the count of a window may differ.
const RANGE_EVERY_S: f64 = 2.0;
const RANGES_OFF: f64 = 0.1;
/// Joins a second of these readers.
const READERS_RAMP: u32 = 500;
/// What a measured time may differ by without meaning anything, ms: the generator looks at its sockets once a ms.
const GRAIN_MS: f64 = 1.0;

impl Lab {
    pub(crate) fn scaled(&self, listeners: usize) -> usize {
        if self.quick { listeners / 20 } else { listeners }
    }

    /// TLS where the edge speaks it.
    pub(crate) fn tls_first(&self) -> bool {
        self.edge_tls
    }
}

pub(crate) fn named(tls: bool) -> &'static str {
    if tls { "TLS" } else { "plain" }
}

/// Parts missed, losses, failures, streams that cannot be read, and stalls.
pub(crate) fn harm(group: &Group) -> u64 {
    let counts = &group.counts;
    counts.failed + counts.lost + counts.lost_early + counts.missed + counts.broken + counts.stalls
}

/// Line 2: many listeners for a long time.
pub(crate) fn hold(lab: &Lab, sheet: &mut Sheet, minutes: f64) -> Result<()> {
    sheet.heading("Holding");
    let tls = lab.tls_first();
    for (edges, listeners, tier) in [(1, 15_000, 1), (3, 45_000, 4)] {
        let listeners = lab.scaled(listeners);
        let setup = EdgeSetup { edges, ..EdgeSetup::new(tls) };
        let served = Edges::start(lab, &setup)?;
        let crowd = Crowd::of(served.push("opus-48"), listeners)
            .with("ramp", RAMP)
            .with("tier", tier)
            .with("settle", 3.0 + 0.96 * f64::from(tier))
            .with("window", minutes * 60.0)
            .with("processes", edges);
        let (report, own) = watched(lab, &crowd, &served, listeners)?;
        let what =
            format!("{listeners} listeners, {}, {edges} edges, tier {tier}, {minutes} minutes", named(tls));
        let judged = |holds: bool| (!report.generator.void).then_some(holds);
        let lateness = report.base.lateness_ms;
        let everyone = report.base.counts.steady as usize == listeners;
        sheet.verdict(
            &format!("{what}: harm"),
            &format!("{} ({} hear at the end)", harm(&report.base), report.base.counts.steady),
            "0",
            judged(harm(&report.base) == 0 && everyone),
        );
        sheet.verdict(
            &format!("{what}: lateness against each one's rhythm, p99"),
            &format!("{} ms", lateness.p99),
            "50 ms",
            judged(lateness.p99 <= 50.0),
        );
        own_lateness(sheet, &what, own, 50.0);
        let growth = report.server.rss_mib_per_minute;
        // A line through a few seconds is no slope.
        let long = minutes >= 1.0;
        sheet.verdict(
            &format!("{what}: growth of memory"),
            &format!("{growth} MiB a minute"),
            "1 MB a minute",
            if long { judged(growth * 1.048_576 < 1.0) } else { None },
        );
        describe(sheet, &report);
    }
    Ok(())
}

/// Sends a crowd, and asks the edge itself how late it was against its slots since all had joined: p99, ms.
pub(crate) fn watched(
    lab: &Lab,
    crowd: &Crowd,
    edges: &Edges,
    listeners: usize,
) -> Result<(CrowdReport, Option<f64>)> {
    let files = edges.all_files();
    let joined_s = listeners as f64 / f64::from(RAMP) + 3.0;
    let (report, before): (_, Histogram) =
        lab.crowd_meanwhile(crowd, &edges.running, joined_s, || metrics::lateness(&files))?;
    Ok((report, metrics::lateness(&files).quantile_since(&before, 0.99)))
}

/// What edges say of themselves, if all of them say something.
pub(crate) fn own_lateness(sheet: &mut Sheet, what: &str, own: Option<f64>, limit_ms: f64) {
    sheet.verdict(
        &format!("{what}: lateness from the slot by the edge's own count, p99"),
        &own.map_or_else(|| "it does not say".to_owned(), |ms| format!("at most {ms:.1} ms")),
        &format!("{limit_ms} ms"),
        own.map(|ms| ms <= limit_ms),
    );
}

/// What stands beside a verdict.
pub(crate) fn describe(sheet: &mut Sheet, report: &CrowdReport) {
    let server = &report.server;
    sheet.say(&format!(
        "  core {:.0} % busy, {:.1} µs a listener and second; generator {:.0} % busy{}",
        100.0 * server.core_busy,
        server.core_us_per_listener_s,
        100.0 * report.generator.core_busy.unwrap_or(report.generator.cpu),
        if report.generator.void { ", VOID" } else { "" },
    ));
    for (kind, times) in &report.failures {
        sheet.say(&format!("  failure: {kind}: {times}"));
    }
}

/// Line 3: memory of a listener.
pub(crate) fn memory(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Memory of a listener");
    for (tls, limit) in [(true, 1_536.0), (false, 256.0)] {
        if tls && !lab.edge_tls {
            sheet.verdict("TLS", "this edge speaks none", "1536 bytes", None);
            continue;
        }
        let edges = Edges::start(lab, &EdgeSetup::new(tls))?;
        let report = lab.crowd(&ordinary(lab, &edges.push("opus-48"), 1), &edges.running)?;
        let server = &report.server;
        let bytes = server.pss_bytes_per_connection;
        let buffers = report.tcp.as_ref().map_or(0.0, |tcp| tcp.server_bytes_per_connection);
        sheet.verdict(
            &format!("{}, {} listeners, in user space", named(tls), lab.listeners),
            &format!("{bytes:.0} bytes"),
            &format!("{limit:.0} bytes"),
            // Nothing: it was looked at too late.
            (bytes > 0.0).then_some(bytes <= limit && report.base.counts.steady as usize == lab.listeners),
        );
        sheet.say(&format!(
            "  kernel: {:.0} bytes of objects (both ends halved), {buffers:.0} bytes of buffers of the server's end",
            server.slab_bytes_per_connection / 2.0,
        ));
    }
    Ok(())
}

/// Line 5: bytes for a byte of Opus.
pub(crate) fn bytes(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Bytes for a byte of Opus");
    let tls = lab.tls_first();
    for (rendition, nominal, limit) in [("opus-48", 6_000.0, 1.08), ("opus-24", 3_000.0, 1.22)] {
        let edges = Edges::start(lab, &EdgeSetup::new(tls))?;
        let listeners = lab.listeners.min(500);
        // Whole segments: each has its signatures.
        let seconds = 3.84 * if lab.quick { 2.0 } else { 8.0 };
        let crowd = Crowd::of(edges.push(rendition), listeners)
            .with("tier", 2)
            .with("settle", 5)
            .with("window", seconds);
        let report = lab.crowd(&crowd, &edges.running)?;
        let ratio = report.bytes.wire_per_audio;
        let audio = report.bytes.audio_per_listener_s;
        // opus-24 is of variable bitrate, and all else costs the same whatever the voice needs.
        let at_nominal = 1.0 + (ratio - 1.0) * audio / nominal;
        sheet.verdict(
            &format!("{rendition}, {}, tier 2", named(tls)),
            &format!(
                "{ratio:.4} (without TLS and HTTP {:.4}) with Opus at {:.1} kbit/s; {at_nominal:.4} of its nominal rate",
                report.bytes.body_per_audio,
                audio / 125.0,
            ),
            &format!("{limit}"),
            Some(ratio > 0.0 && ratio <= limit).filter(|_| tls),
        );
    }
    Ok(())
}

/// Line 6: readers that hardly read.
pub(crate) fn slow(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Readers that hardly read");
    let tls = lab.tls_first();
    let (listeners, each) = (lab.scaled(8_000), lab.scaled(1_000));
    // At 6 KB a second it takes a while until there is no more room for what they do not take.
    let window = if lab.quick { 45.0 } else { 60.0 };
    let run = |stuck: usize| {
        let setup = EdgeSetup { keys: format!("stuck_s = {STUCK_S}"), ..EdgeSetup::new(tls) };
        let edges = Edges::start(lab, &setup)?;
        let crowd = Crowd::of(edges.push("opus-48"), listeners)
            .with("ramp", RAMP)
            .with("settle", 4)
            .with("window", window)
            .with("slow", stuck)
            .with("never", stuck);
        // They are closed within the window: what they cost is seen before.
        let most = || {
            let mut sampler = Sampler::new(&edges.running.pids, &[]);
            let (mut user, mut kernel) = (0, 0);
            for _ in 0..STUCK_LOOKS {
                user = user.max(sampler.look().pss_bytes);
                kernel = kernel.max(edges.survey().server.memory_bytes_max);
                std::thread::sleep(Duration::from_secs(1));
            }
            (user, kernel)
        };
        lab.crowd_meanwhile(&crowd, &edges.running, 2.0, most)
    };
    let mut pairs = Pairs::default();
    for _ in 1..lab.repeats {
        let ((without, _), (with, _)) = (run(0)?, run(each)?);
        let came = all_came(&with.stuck.unwrap_or_default(), each);
        pairs.add(&without, &with, came);
    }
    let ((without, (user_before, _)), (with, (user, kernel))) = (run(0)?, run(each)?);
    let stuck = with.stuck.unwrap_or_default();
    pairs.add(&without, &with, all_came(&stuck, each));
    let came = all_came(&stuck, each);
    let user = user.saturating_sub(user_before) as f64 / (2 * each).max(1) as f64;
    let kernel = kernel as f64;
    sheet.verdict(
        &format!("{each} at a byte a second and {each} that never read, {}: memory of each", named(tls)),
        &format!(
            "{:.1} KiB in user space and at most {:.1} KiB in the kernel",
            user / 1024.0,
            kernel / 1024.0
        ),
        "64 KiB",
        came.then_some(user + kernel <= 65_536.0),
    );
    pairs.judge(sheet, "lateness of the others, p99, without and with them");
    let states = with.tcp.as_ref().map(|tcp| tcp.at_end.server.states.clone()).unwrap_or_default();
    // Neither a door nor a connection that only waits out its time holds anything.
    let held = states.iter().filter(|(name, _)| !matches!(name.as_str(), "listen" | "time_wait"));
    let left = held.map(|(_, count)| count).sum::<u64>().saturating_sub(with.base.counts.steady);
    sheet.verdict(
        &format!("those who take nothing for {STUCK_S} s"),
        &format!(
            "{} of {} that came seen closed, after {}; {left} sockets left at the server of {states:?}",
            stuck.gone, stuck.begun, stuck.gone_after_ms
        ),
        &format!("all {} came, all gone", 2 * each),
        Some(came && left == 0),
    );
    describe(sheet, &with);
    Ok(())
}

/// Lateness of those who listen, p99 in milliseconds, without and with others beside them, run by run in turns.
#[derive(Default)]
struct Pairs {
    without: Vec<f64>,
    with: Vec<f64>,
    harm: u64,
}

impl Pairs {
    /// Adds a pair, unless the generator was too busy to be believed or the others were not there.
    fn add(&mut self, without: &CrowdReport, with: &CrowdReport, others_were_there: bool) {
        self.harm += harm(&with.base);
        if others_were_there && !with.generator.void && !without.generator.void {
            self.without.push(without.base.lateness_ms.p99);
            self.with.push(with.base.lateness_ms.p99);
        }
    }

    /// Judges the medians: the others may cost 10 %.
    fn judge(&self, sheet: &mut Sheet, what: &str) {
        let spreads = Spread::of(self.without.iter().copied()).zip(Spread::of(self.with.iter().copied()));
        sheet.verdict(
            what,
            &spreads.map_or_else(
                || "no pair that counts".to_owned(),
                |(a, b)| format!("{a} ms and {b} ms, {} pairs, harm {}", self.with.len(), self.harm),
            ),
            "10 % and 1 ms more",
            spreads.map(|(a, b)| b.median <= 1.1 * a.median + GRAIN_MS && self.harm == 0),
        );
    }
}

/// Whether all came who were to hardly read, and there were any: whoever did not come cost nothing.
fn all_came(stuck: &StuckReport, each: usize) -> bool {
    each > 0 && stuck.begun == 2 * each as u64
}

/// Line 9: readers of a recording beside listeners.
pub(crate) fn ranges(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Readers of a recording beside listeners");
    let tls = lab.tls_first();
    let (listeners, readers) = (lab.scaled(9_000), lab.scaled(1_000));
    let minutes = if lab.quick { 10 } else { 120 };
    // Whole rounds of the readers.
    let window = if lab.quick { 3.0 } else { 10.0 } * RANGE_EVERY_S;
    let settle = 5.0;
    let run = |readers: usize| {
        let setup = EdgeSetup { past_minutes: minutes, ..EdgeSetup::new(tls) };
        let edges = Edges::start(lab, &setup)?;
        let crowd = Crowd::of(edges.push("opus-48"), listeners)
            .with("ramp", RAMP)
            .with("settle", settle)
            .with("window", window);
        if readers == 0 {
            return anyhow::Ok((lab.crowd(&crowd, &edges.running)?, None));
        }
        // Their window begins with the listeners' and ends a round later, whichever process was quicker to start.
        let settled_s = listeners as f64 / f64::from(RAMP) + settle;
        let aside = Crowd::of(edges.recording(), readers)
            .with("kind", "ranges")
            .with("range-every", RANGE_EVERY_S)
            .with("ramp", READERS_RAMP)
            .with("settle", settled_s - readers as f64 / f64::from(READERS_RAMP))
            .with("window", window + RANGE_EVERY_S);
        let [report, read] = lab.crowds(&crowd, &aside, &edges.running)?;
        Ok((report, Some(read)))
    };
    let mut pairs = Pairs::default();
    // Readers who did not read were in nobody's way.
    for _ in 1..lab.repeats {
        let ((without, _), (with, read)) = (run(0)?, run(readers)?);
        pairs.add(&without, &with, have_read(&read.unwrap_or_default(), readers));
    }
    let ((without, _), (with, read)) = (run(0)?, run(readers)?);
    let read = read.unwrap_or_default();
    pairs.add(&without, &with, have_read(&read, readers));
    let wanted = readers as f64 * read.window_s / RANGE_EVERY_S;
    let counts = read.base.counts;
    sheet.verdict(
        &format!("{readers} readers of {minutes} minutes, {}", named(tls)),
        &format!(
            "{} read to the end, harm {}, {} ranges of {wanted:.0}, each within {} ms (p99)",
            counts.steady,
            harm(&read.base),
            counts.requests,
            read.base.fetch_ms.p99
        ),
        &format!("all, 0, {:.0} % off", 100.0 * RANGES_OFF),
        Some(have_read(&read, readers)).filter(|holds| *holds || !read.generator.void),
    );
    let what = format!(
        "lateness of {listeners} listeners, {}, p99, without and with {readers} readers of {minutes} minutes",
        named(tls)
    );
    pairs.judge(sheet, &what);
    describe(sheet, &with);
    for (kind, times) in &read.failures {
        sheet.say(&format!("  failure of readers: {kind}: {times}"));
    }
    Ok(())
}

/// Whether all readers read from the beginning to the end, without harm and as often as they should.
fn have_read(read: &CrowdReport, readers: usize) -> bool {
    let counts = &read.base.counts;
    let wanted = readers as f64 * read.window_s / RANGE_EVERY_S;
    let off = (counts.requests as f64 - wanted).abs();
    readers > 0 && counts.steady == readers as u64 && harm(&read.base) == 0 && off <= RANGES_OFF * wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_have_read_or_not() {
        let mut good = CrowdReport { window_s: 10.0, ..CrowdReport::default() };
        (good.base.counts.steady, good.base.counts.requests) = (100, 480);
        assert!(have_read(&good, 100));
        type Spoil = fn(&mut CrowdReport);
        let cases: [Spoil; 6] = [
            |r| *r = CrowdReport::default(),
            |r| r.base.counts.steady = 99,
            |r| r.base.counts.failed = 1,
            |r| r.base.counts.lost = 1,
            |r| r.base.counts.requests = 449,
            |r| r.base.counts.requests = 551,
        ];
        for (index, spoil) in cases.into_iter().enumerate() {
            let mut report = good.clone();
            spoil(&mut report);
            assert!(!have_read(&report, 100), "{index}");
        }
        assert!(!have_read(&CrowdReport::default(), 0));
    }

    #[test]
    fn who_did_not_come_is_not_gone() {
        let stuck = |begun| StuckReport { asked: 200, begun, gone: begun, ..StuckReport::default() };
        assert!(all_came(&stuck(200), 100));
        assert!(!all_came(&stuck(199), 100) && !all_came(&StuckReport::default(), 100));
        assert!(!all_came(&StuckReport::default(), 0));
    }
}
