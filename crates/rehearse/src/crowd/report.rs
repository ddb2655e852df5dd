//! What a run comes to, for programs (JSON) and for people.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use super::config::{CrowdConfig, Kind};
use super::machine::Sample;
use super::pace::StormPace;
use super::sockets::Survey;
use super::tally::{Counts, Failures, ShareReport, Stuck, Summary, Tally, Witness};
use super::timeline::Timeline;

/// Ethernet, IPv4 and TCP with timestamps, bytes a segment.
const HEADERS: f64 = 66.0;
/// A run whose generator's core was busier than this says nothing.
pub(crate) const BUSY_MAX: f64 = 0.85;

/// What a group of listeners got.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Counts.
    pub counts: Counts,
    /// TCP, ms.
    pub connect_ms: Summary,
    /// TLS, ms.
    pub handshake_ms: Summary,
    /// To the first byte, from the connection's beginning, ms.
    pub first_byte_ms: Summary,
    /// To the first whole audio, from the connection's beginning, ms.
    pub first_audio_ms: Summary,
    /// Longest silence of each, ms.
    pub silence_ms: Summary,
    /// After the first listener of its process, ms.
    pub skew_ms: Summary,
    /// Against each one's own rhythm, ms.
    pub lateness_ms: Summary,
    /// From a request of a segment or range to its end, ms.
    pub fetch_ms: Summary,
    /// When connections were lost after their first audio, within the window.
    #[serde(default, skip_serializing_if = "Timeline::is_empty")]
    pub cut: Timeline,
    /// When those who came back got their first new part, within the window.
    #[serde(default, skip_serializing_if = "Timeline::is_empty")]
    pub back: Timeline,
    /// When listeners got their first part of a leaner rendition, within the window.
    #[serde(default, skip_serializing_if = "Timeline::is_empty")]
    pub leaner: Timeline,
    /// When listeners got their first part of a fuller rendition, within the window.
    #[serde(default, skip_serializing_if = "Timeline::is_empty")]
    pub fuller: Timeline,
}

impl Group {
    fn of(tally: &Tally) -> Self {
        Self {
            counts: tally.counts,
            connect_ms: tally.connect.summary(),
            handshake_ms: tally.handshake.summary(),
            first_byte_ms: tally.first_byte.summary(),
            first_audio_ms: tally.first_audio.summary(),
            silence_ms: tally.silence.summary(),
            skew_ms: tally.skew.summary(),
            lateness_ms: tally.lateness.summary(),
            fetch_ms: tally.fetch.summary(),
            cut: tally.cut.clone(),
            back: tally.back.clone(),
            leaner: tally.leaner.clone(),
            fuller: tally.fuller.clone(),
        }
    }
}

/// What became of those who hardly read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StuckReport {
    /// How many were to come.
    pub asked: u64,
    /// How many asked for the stream.
    pub begun: u64,
    /// How many the server closed.
    pub gone: u64,
    /// How long after they had asked, ms.
    pub gone_after_ms: Summary,
}

impl StuckReport {
    fn of(stuck: &Stuck) -> Self {
        let Stuck { asked, begun, gone, gone_after } = stuck;
        Self { asked: *asked, begun: *begun, gone: *gone, gone_after_ms: gone_after.summary() }
    }
}

/// What the server used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Processes sampled.
    pub processes: u64,
    /// Time of one processor billed to them, µs a listener and second.
    pub cpu_us_per_listener_s: f64,
    /// Time that its cores were not idle, µs a listener and second: the safer figure.
    pub core_us_per_listener_s: f64,
    /// The same as a fraction of its cores.
    pub core_busy: f64,
    /// Time of its cores for one join in the ramp, what is sent meanwhile included, µs.
    pub join_core_us: f64,
    /// Growth of proportional memory since before the first listener, bytes a connection. This and what follows of memory
    /// is 0 if the look at it came too late, when connections had gone.
    pub pss_bytes_per_connection: f64,
    /// Growth of resident memory, bytes a connection.
    pub rss_bytes_per_connection: f64,
    /// Resident memory at the end, MiB.
    pub rss_mib: f64,
    /// Its growth over the window by the line of least squares, MiB a minute.
    pub rss_mib_per_minute: f64,
    /// Growth of the kernel's own memory, both ends of all connections and everything else, bytes a connection.
    pub slab_bytes_per_connection: f64,
    /// Growth of the memory of TCP buffers, both ends, bytes a connection.
    pub tcp_bytes_per_connection: f64,
    /// Open files at the end.
    pub files: u64,
}

/// What was carried, per byte of encoded audio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bytes {
    /// TLS, HTTP, boxes, signatures, notices and audio; TCP and IP not.
    pub wire_per_audio: f64,
    /// Without TLS and HTTP.
    pub body_per_audio: f64,
    /// Bytes of encoded audio a listener and second.
    pub audio_per_listener_s: f64,
}

/// What the kernel says about the connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tcp {
    /// Bytes towards listeners with Ethernet, IP and TCP headers, per byte of audio.
    pub down_per_audio: f64,
    /// The same from listeners.
    pub up_per_audio: f64,
    /// Segments sent again in the window.
    pub retransmitted: u64,
    /// Buffers of the server's end, bytes a connection.
    pub server_bytes_per_connection: f64,
    /// The most that one connection of the server's had.
    pub server_bytes_max: u64,
    /// The sockets at the end of the window.
    pub at_end: Survey,
}

/// How the generator itself fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Load processes.
    pub shares: usize,
    /// Processor time of its threads as a fraction of one core.
    pub cpu: f64,
    /// How busy its core was, with everything on it, if it is tied to one.
    pub core_busy: Option<f64>,
    /// Too busy: the figures are void.
    pub void: bool,
    /// How it fared in the seconds of a storm, if there was one.
    #[serde(default)]
    pub storm: Option<StormPace>,
    /// How late it was with joins, ms.
    pub join_lag_ms: Summary,
    /// How long a turn of its loop took, ms.
    pub turn_ms: Summary,
}

/// What a run comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CrowdReport {
    /// As given.
    pub label: String,
    /// As given.
    pub urls: Vec<String>,
    /// As given.
    pub kind: Kind,
    /// Parts a flush.
    pub tier: u64,
    /// Joins a second in the ramp.
    pub ramp: f64,
    /// When the run began, on the machine's monotonic clock, µs; timelines count from there.
    #[serde(default)]
    pub begun_us: u64,
    /// Seconds measured.
    pub window_s: f64,
    /// Those who came in the ramp.
    pub base: Group,
    /// Those who came within the window.
    pub storm: Option<Group>,
    /// Those who hardly read.
    pub stuck: Option<StuckReport>,
    /// What went wrong, by its kind.
    pub failures: Failures,
    /// The one who reads everything.
    pub witness: Witness,
    /// What the server used.
    pub server: Server,
    /// What was carried.
    pub bytes: Bytes,
    /// What the kernel says, if it says something.
    pub tcp: Option<Tcp>,
    /// How the generator fared.
    pub generator: Generator,
}

/// What the machine said in the course of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Course {
    /// When the run began, on the machine's monotonic clock, µs.
    pub(crate) begun_us: u64,
    pub(crate) before: Sample,
    pub(crate) ramp: Sample,
    pub(crate) ramped: Sample,
    pub(crate) window: Sample,
    pub(crate) end: Sample,
    pub(crate) after: Sample,
    /// Connections may have gone before [`Self::after`] was seen.
    pub(crate) late: bool,
    /// When the storm was over, and idle time of the generator's own core until then, µs.
    pub(crate) storm_end: Option<(u64, u64)>,
    /// Resident bytes at times within the window, µs.
    pub(crate) rss: Vec<(u64, u64)>,
    pub(crate) survey: Option<Survey>,
    pub(crate) survey_end: Option<Survey>,
    pub(crate) tied: bool,
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { (a / b * 1e4).round() / 1e4 } else { 0.0 }
}

/// Time that `cores` were not idle between two looks, µs.
fn busy_us(from: &Sample, to: &Sample, cores: usize) -> f64 {
    let clock = (to.at_us - from.at_us) as f64 * cores as f64;
    (clock - to.idle_us.saturating_sub(from.idle_us) as f64).max(0.0)
}

/// Slope of the line of least squares through points of time (µs) and bytes, bytes a second.
fn slope(points: &[(u64, u64)]) -> f64 {
    let Some((first, _)) = points.first() else { return 0.0 };
    let count = points.len() as f64;
    let of = |point: &(u64, u64)| ((point.0 - first) as f64 / 1e6, point.1 as f64);
    let (sum_x, sum_y) = points.iter().map(of).fold((0.0, 0.0), |sum, (x, y)| (sum.0 + x, sum.1 + y));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (over, under) = points.iter().map(of).fold((0.0, 0.0), |sum, (x, y)| {
        (sum.0 + (x - mean_x) * (y - mean_y), sum.1 + (x - mean_x) * (x - mean_x))
    });
    if under > 0.0 { over / under } else { 0.0 }
}

impl CrowdReport {
    pub(crate) fn new(config: &CrowdConfig, shares: usize, all: &ShareReport, course: &Course) -> Self {
        let span_s = all.span_us as f64 / 1e6;
        let counts = all.base.counts;
        let mut carried = counts;
        carried.merge(&all.storm.counts);
        let listeners = counts.steady as f64;
        let seconds = (course.end.at_us - course.window.at_us) as f64 / 1e6;
        let cores = config.server_cores.len();
        let core_us = busy_us(&course.window, &course.end, cores);
        let cpu_us = course.end.cpu_us.saturating_sub(course.window.cpu_us) as f64;
        let early = (config.listeners + config.slow + config.never) as f64;
        let connections = listeners + all.storm.counts.steady as f64 + all.stuck.begun as f64;
        let grown = |figure: fn(&Sample) -> u64| {
            if course.late {
                return 0.0;
            }
            ratio(figure(&course.after) as f64 - figure(&course.before) as f64, connections)
        };
        let server = Server {
            processes: course.end.processes,
            cpu_us_per_listener_s: ratio(cpu_us, listeners * seconds),
            core_us_per_listener_s: ratio(core_us, listeners * seconds),
            core_busy: ratio(core_us, seconds * 1e6 * cores as f64),
            join_core_us: ratio(busy_us(&course.ramp, &course.ramped, cores), early),
            pss_bytes_per_connection: grown(|sample| sample.pss_bytes),
            rss_bytes_per_connection: grown(|sample| sample.rss_bytes),
            rss_mib: ratio(course.after.rss_bytes as f64, f64::from(1 << 20)),
            rss_mib_per_minute: ratio(slope(&course.rss) * 60.0, f64::from(1 << 20)),
            slab_bytes_per_connection: grown(|sample| sample.slab_bytes),
            tcp_bytes_per_connection: grown(|sample| sample.tcp_bytes),
            files: course.after.files,
        };
        let audio = carried.audio_bytes as f64;
        let bytes = Bytes {
            wire_per_audio: ratio(carried.wire_bytes as f64, audio),
            body_per_audio: ratio(carried.body_bytes as f64, audio),
            audio_per_listener_s: ratio(counts.audio_bytes as f64, listeners * span_s),
        };
        let tcp = course.survey.as_ref().zip(course.survey_end.as_ref());
        let tcp = tcp.map(|(begin, end)| Tcp::new(begin, end, bytes.wire_per_audio));
        let cpu = ratio(all.cpu_us as f64, all.span_us as f64);
        let own_idle = course.end.own_idle_us.saturating_sub(course.window.own_idle_us) as f64;
        let core_busy = course.tied.then(|| ratio(seconds * 1e6 - own_idle, seconds * 1e6).max(0.0));
        let storm = config.storm.zip(course.storm_end).map(|(storm, (at_us, own_idle_us))| {
            let clock_us = at_us.saturating_sub(course.window.at_us) as f64;
            let idle_us = own_idle_us.saturating_sub(course.window.own_idle_us) as f64;
            let busy = match course.tied {
                true => ratio(clock_us - idle_us, clock_us).max(0.0),
                false => ratio(all.storm_cpu_us as f64, clock_us) / shares.max(1) as f64,
            };
            StormPace::new(all, storm.over_s, busy)
        });
        let generator = Generator {
            shares,
            cpu,
            core_busy,
            void: core_busy.unwrap_or(cpu / shares.max(1) as f64) > BUSY_MAX,
            storm,
            join_lag_ms: all.join_lag.summary(),
            turn_ms: all.turn.summary(),
        };
        Self {
            label: config.label.clone(),
            urls: config.urls.clone(),
            kind: config.kind,
            tier: config.tier,
            ramp: config.ramp,
            begun_us: course.begun_us,
            window_s: (span_s * 1e3).round() / 1e3,
            base: Group::of(&all.base),
            storm: config.storm.map(|_| Group::of(&all.storm)),
            stuck: (all.stuck.asked > 0).then(|| StuckReport::of(&all.stuck)),
            failures: all.failures.clone(),
            witness: all.witness,
            server,
            bytes,
            tcp,
            generator,
        }
    }

    /// Whether everyone who came heard everything: nobody failed, was lost, missed a part or stalled.
    pub fn is_flawless(&self) -> bool {
        let clean = |group: &Group| {
            let Counts { failed, lost, lost_early, missed, broken, stalls, .. } = group.counts;
            failed + lost + lost_early + missed + broken + stalls == 0
        };
        clean(&self.base) && self.storm.as_ref().is_none_or(clean) && self.witness.broken == 0
    }
}

impl Tcp {
    fn new(begin: &Survey, end: &Survey, wire_per_audio: f64) -> Self {
        let grown = |a: u64, b: u64| b.saturating_sub(a) as f64;
        let bytes_in = grown(begin.ours.bytes_in, end.ours.bytes_in);
        let headers_in = HEADERS * grown(begin.ours.segments_in, end.ours.segments_in);
        let out = grown(begin.ours.bytes_out, end.ours.bytes_out)
            + HEADERS * grown(begin.ours.segments_out, end.ours.segments_out);
        let connections: u64 = end.server.states.values().sum();
        let listening = end.server.states.get("listen").copied().unwrap_or(0);
        Self {
            down_per_audio: ratio((bytes_in + headers_in) * wire_per_audio, bytes_in),
            up_per_audio: ratio(out * wire_per_audio, bytes_in),
            retransmitted: end.server.retransmitted.saturating_sub(begin.server.retransmitted),
            server_bytes_per_connection: ratio(
                end.server.memory_bytes as f64,
                connections.saturating_sub(listening) as f64,
            ),
            server_bytes_max: end.server.memory_bytes_max,
            at_end: end.clone(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("–");
        }
        write!(f, "p50 {} · p99 {} · max {} ms", self.p50, self.p99, self.max)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "  {} of {} heard, {} from the beginning to the end",
            counts.joined, counts.asked, counts.steady
        )?;
        for (count, what) in [
            (counts.failed, "failed"),
            (counts.lost_early + counts.lost, "cut off"),
            (counts.rejoined, "came back"),
            (counts.resumed, "resumed TLS sessions"),
            (counts.missed, "parts missed"),
            (counts.duplicates, "parts twice"),
            (counts.broken, "streams broken"),
            (counts.stalls, "stalls"),
        ] {
            if count > 0 {
                writeln!(f, "  {count} {what}")?;
            }
        }
        for (name, summary) in [
            ("connect", &self.connect_ms),
            ("TLS", &self.handshake_ms),
            ("first byte", &self.first_byte_ms),
            ("first audio", &self.first_audio_ms),
            ("silence", &self.silence_ms),
            ("skew", &self.skew_ms),
            ("lateness", &self.lateness_ms),
            ("fetch", &self.fetch_ms),
        ] {
            if summary.count > 0 {
                writeln!(f, "  {name:<12}{summary}")?;
            }
        }
        Ok(())
    }
}

/// A page for people.
impl fmt::Display for CrowdReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        writeln!(text, "listeners, {} s\n{}", self.window_s, self.base)?;
        if let Some(storm) = &self.storm {
            writeln!(text, "storm\n{storm}")?;
        }
        if let Some(stuck) = &self.stuck {
            let StuckReport { asked, begun, gone, gone_after_ms } = stuck;
            writeln!(text, "hardly reading: {begun} of {asked} came, {gone} closed after {gone_after_ms}\n")?;
        }
        let server = &self.server;
        if server.processes > 0 {
            writeln!(
                text,
                "server\n  {} µs of a processor, {} µs of its cores a listener and second; cores {:.0} % busy\n  \
                 {} bytes of memory a connection ({} resident), growing {} MiB a minute; {} open files",
                server.cpu_us_per_listener_s,
                server.core_us_per_listener_s,
                100.0 * server.core_busy,
                server.pss_bytes_per_connection,
                server.rss_bytes_per_connection,
                server.rss_mib_per_minute,
                server.files,
            )?;
        }
        if self.bytes.wire_per_audio > 0.0 {
            writeln!(text, "bytes a byte of audio: {} with TLS and HTTP", self.bytes.wire_per_audio)?;
        }
        if let Some(tcp) = &self.tcp {
            writeln!(
                text,
                "  {} down, {} up with TCP and IP; {} segments again; server's buffers {} bytes, at most {}",
                tcp.down_per_audio,
                tcp.up_per_audio,
                tcp.retransmitted,
                tcp.server_bytes_per_connection,
                tcp.server_bytes_max,
            )?;
        }
        for (kind, times) in &self.failures {
            writeln!(text, "failure: {kind}: {times}")?;
        }
        let busy = self.generator.core_busy.unwrap_or(self.generator.cpu);
        writeln!(text, "generator: {:.0} % busy, turns {}", 100.0 * busy, self.generator.turn_ms)?;
        if let Some(storm) = &self.generator.storm {
            let StormPace { rate, lag_ms, busy } = storm;
            writeln!(
                text,
                "  in the storm {:.0} % busy, {rate} joins a second, late by {lag_ms}",
                100.0 * busy
            )?;
        }
        if self.generator.void {
            writeln!(text, "VOID: the generator was too busy to judge by")?;
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crowd::config::Storm;

    #[test]
    fn figures_are_differences() {
        let config = CrowdConfig { server_cores: vec![0], listeners: 100, ..Default::default() };
        let mut share = ShareReport { span_us: 10_000_000, cpu_us: 9_000_000, ..Default::default() };
        share.base.counts = Counts {
            steady: 100,
            audio_bytes: 6_000_000,
            wire_bytes: 6_480_000,
            body_bytes: 6_300_000,
            ..Counts::default()
        };
        let at = |seconds: u64, idle_s: u64, cpu_ms: u64| Sample {
            at_us: seconds * 1_000_000,
            idle_us: idle_s * 1_000_000,
            own_idle_us: idle_s * 900_000,
            cpu_us: cpu_ms * 1_000,
            pss_bytes: 1_000_000 + seconds * 10_000,
            ..Sample::default()
        };
        let course = Course {
            before: at(0, 0, 0),
            ramp: at(0, 0, 0),
            ramped: at(1, 0, 500),
            window: at(10, 5, 1_000),
            end: at(20, 13, 2_500),
            after: at(20, 13, 2_500),
            rss: (0..10).map(|s| (s * 1_000_000, 5_000_000 + s * 1_048_576)).collect(),
            tied: true,
            ..Course::default()
        };
        let report = CrowdReport::new(&config, 1, &share, &course);
        assert_eq!(report.server.cpu_us_per_listener_s, 1_500.0);
        assert_eq!((report.server.core_us_per_listener_s, report.server.core_busy), (2_000.0, 0.2));
        assert_eq!((report.server.join_core_us, report.server.pss_bytes_per_connection), (10_000.0, 2_000.0));
        assert_eq!(report.server.rss_mib_per_minute, 60.0);
        assert_eq!((report.bytes.wire_per_audio, report.bytes.body_per_audio), (1.08, 1.05));
        assert_eq!(report.bytes.audio_per_listener_s, 6_000.0);
        assert_eq!((report.generator.core_busy, report.generator.void), (Some(0.28), false));
        assert!(report.is_flawless() && report.generator.storm.is_none());
        // The same, seen too late; and with a storm in the first two seconds, in which the generator had nothing to spare.
        let storm = CrowdConfig { storm: Some(Storm { joins: 8, over_s: 2.0 }), ..config };
        let storm_end = Some((12_000_000, course.window.own_idle_us));
        let course = Course { late: true, storm_end, ..course };
        let report = CrowdReport::new(&storm, 1, &share, &course);
        assert_eq!(report.server.pss_bytes_per_connection, 0.0);
        let pace = report.generator.storm.unwrap();
        assert_eq!((pace.busy, pace.is_void(), report.generator.void), (1.0, true, false));
        let again: CrowdReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(again, report);
        assert!(report.to_string().contains("28 % busy"), "{report}");
    }

    #[test]
    fn a_busy_generator_makes_a_run_void() {
        let config = CrowdConfig::default();
        let share = ShareReport { span_us: 1_000_000, cpu_us: 900_000, ..Default::default() };
        let course = Course { end: Sample { at_us: 1_000_000, ..Sample::default() }, ..Course::default() };
        assert!(CrowdReport::new(&config, 1, &share, &course).generator.void);
        assert!(!CrowdReport::new(&config, 2, &share, &course).generator.void);
    }
}
