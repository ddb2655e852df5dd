//! The other lines of what must hold, as far as an edge alone can show them.

use std::time::Duration;

use anyhow::Result;
use rehearse::crowd::{CrowdReport, Group, Sampler};

use super::cost::{RAMP, ordinary};
use super::lab::{Crowd, Lab};
use super::metrics::{self, Histogram};
use super::servers::{EdgeSetup, Edges};
use super::sheet::Sheet;

/// Seconds after which a reader that takes nothing is closed, in the scenario of slow readers.
const STUCK_S: u64 = 10;
/// Looks, one a second, at what they cost.
const STUCK_LOOKS: u32 = 30;
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

/// Parts missed, losses, failures and stalls.
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
            &format!("{} ({} heard throughout)", harm(&report.base), report.base.counts.steady),
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
    let files = edges.files();
    let joined_s = listeners as f64 / f64::from(RAMP) + 3.0;
    let (report, before): (_, Histogram) =
        lab.crowd_meanwhile(crowd, &edges.running, joined_s, || metrics::lateness(&files))?;
    Ok((report, metrics::lateness(&files).quantile_since(&before, 0.99)))
}

/// What an edge says of itself, if it says something. It is asked at the files door, where any of several answers.
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
            Some(bytes <= limit && report.base.counts.steady as usize == lab.listeners),
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
    let ((without, (user_before, _)), (with, (user, kernel))) = (run(0)?, run(each)?);
    let judged = |holds: bool| (!with.generator.void && !without.generator.void).then_some(holds);
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
        Some(user + kernel <= 65_536.0),
    );
    let (a, b) = (without.base.lateness_ms.p99, with.base.lateness_ms.p99);
    sheet.verdict(
        "lateness of the others, p99, without and with them",
        &format!("{a} ms and {b} ms, harm {}", harm(&with.base)),
        "10 % more",
        judged(b <= 1.1 * a + GRAIN_MS && harm(&with.base) == 0),
    );
    let stuck = with.stuck.unwrap_or_default();
    let states = with.tcp.as_ref().map(|tcp| tcp.at_end.server.states.clone()).unwrap_or_default();
    // Neither a door nor a connection that only waits out its time holds anything.
    let held = states.iter().filter(|(name, _)| !matches!(name.as_str(), "listen" | "time_wait"));
    let left = held.map(|(_, count)| count).sum::<u64>().saturating_sub(with.base.counts.steady);
    sheet.verdict(
        &format!("those who take nothing for {STUCK_S} s"),
        &format!(
            "{} of {} seen closed, after {}; {left} sockets left at the server of {states:?}",
            stuck.gone, stuck.begun, stuck.gone_after_ms
        ),
        "all gone",
        Some(left == 0),
    );
    describe(sheet, &with);
    Ok(())
}

/// Line 9: readers of a recording beside listeners.
pub(crate) fn ranges(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("Readers of a recording beside listeners");
    let tls = lab.tls_first();
    let (listeners, readers) = (lab.scaled(9_000), lab.scaled(1_000));
    let minutes = if lab.quick { 10 } else { 120 };
    let window = if lab.quick { 5.0 } else { 20.0 };
    let run = |readers: usize| {
        let setup = EdgeSetup { past_minutes: minutes, ..EdgeSetup::new(tls) };
        let edges = Edges::start(lab, &setup)?;
        let mut aside = None;
        if readers > 0 {
            let over = 60.0 + window;
            let crowd = Crowd::of(edges.recording(), readers)
                .with("kind", "ranges")
                .with("ramp", 500)
                .with("settle", 1)
                .with("window", over)
                .with("out", lab.directory()?.join("ranges.json").display());
            aside = Some(lab.crowd_aside(&crowd, &edges.running)?);
        }
        let crowd = Crowd::of(edges.push("opus-48"), listeners)
            .with("ramp", RAMP)
            .with("settle", 5)
            .with("window", window);
        let report = lab.crowd(&crowd, &edges.running)?;
        if let Some(mut aside) = aside {
            aside.check()?;
        }
        anyhow::Ok(report)
    };
    let (without, with) = (run(0)?, run(readers)?);
    let (a, b) = (without.base.lateness_ms.p99, with.base.lateness_ms.p99);
    let judged = |holds: bool| (!with.generator.void && !without.generator.void).then_some(holds);
    sheet.verdict(
        &format!(
            "lateness of {listeners} listeners, {}, p99, without and with {readers} readers of {minutes} minutes",
            named(tls)
        ),
        &format!("{a} ms and {b} ms, harm {}", harm(&with.base)),
        "10 % more",
        judged(b <= 1.1 * a + GRAIN_MS && harm(&with.base) == 0),
    );
    describe(sheet, &with);
    Ok(())
}
