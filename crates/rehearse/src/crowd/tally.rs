//! What is counted, so that the counts of several processes add up.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::timeline::Timeline;

/// Largest time told apart: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;
/// Kinds of failure told apart; more are counted together.
const FAILURE_KINDS: usize = 48;

/// Times in microseconds, exact to three digits.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are sound"))
    }
}

impl Times {
    /// Adds one; beyond an hour it counts as an hour.
    pub fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time below which a fraction (`0.0..=1.0`) of all lie, µs; 0 if there are none.
    pub fn quantile(&self, fraction: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(fraction) }
    }

    /// For a report.
    pub fn summary(&self) -> Summary {
        let millis = |micros: u64| (micros as f64 / 10.0).round() / 100.0;
        if self.0.is_empty() {
            return Summary::default();
        }
        Summary {
            count: self.0.len(),
            mean: millis(self.0.mean() as u64),
            p50: millis(self.quantile(0.5)),
            p90: millis(self.quantile(0.9)),
            p99: millis(self.quantile(0.99)),
            p999: millis(self.quantile(0.999)),
            max: millis(self.0.max()),
        }
    }
}

/// Between processes: values and how often.
impl Serialize for Times {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()));
        serializer.collect_seq(values)
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut times = Self::default();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            times.0.saturating_record_n(value, count);
        }
        Ok(times)
    }
}

/// Times for people to read, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half are below.
    pub p50: f64,
    /// Nine of ten are below.
    pub p90: f64,
    /// 99 of 100 are below.
    pub p99: f64,
    /// 999 of 1000 are below.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

macro_rules! counts {
    ($(#[$of_all:meta])* $name:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$of_all])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name { $($(#[$doc])* pub $field: u64,)* }

        impl $name {
            /// Adds all of another's.
            pub fn merge(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counts! {
    /// What is counted of a group of listeners.
    Counts {
        /// Listeners of this group that were to come.
        asked,
        /// Listeners that got audio, those who came back not again.
        joined,
        /// Listeners that heard when the window began, or came within it, and did at its end. They may have been away in
        /// between, or have missed parts: losses and parts missed are counted beside them.
        steady,
        /// Connections lost after their first audio, within the window.
        lost,
        /// Connections lost after their first audio, before the window.
        lost_early,
        /// Connections that failed, or were answered otherwise than with 200, before any audio.
        failed,
        /// Listeners that came back after a loss.
        rejoined,
        /// Listeners that left within the window, as asked, to come back as new ones.
        churned,
        /// TLS sessions resumed.
        resumed,
        /// Parts, pages, segments or ranges of audio within the window.
        parts,
        /// Times a number was not the one after the last.
        holes,
        /// Numbers left out in these.
        missed,
        /// Parts whose number had come before.
        duplicates,
        /// Notices between parts within the window.
        notices,
        /// Bodies that could not be read on.
        broken,
        /// Silences that count as stalls.
        stalls,
        /// Listeners with at least one.
        stalled,
        /// Bytes read from sockets within the window: TLS, HTTP, MP4 and audio.
        wire_bytes,
        /// Bytes of bodies within the window.
        body_bytes,
        /// Bytes of encoded audio within the window.
        audio_bytes,
        /// Requests answered in full within the window, beyond the first of a push listener.
        requests,
    }
}

/// What is known of a group of listeners.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Counts.
    pub counts: Counts,
    /// From the connection's beginning until it is established.
    pub connect: Times,
    /// The TLS handshake.
    pub handshake: Times,
    /// From the connection's beginning to the first byte of the response.
    pub first_byte: Times,
    /// From the connection's beginning to the first audio that is all there.
    pub first_audio: Times,
    /// Each listener's longest silence within the window.
    pub silence: Times,
    /// How long after the first listener of its process each got a part.
    pub skew: Times,
    /// How much later than at its best against its own rhythm each listener got a part.
    pub lateness: Times,
    /// From a request of a segment or range to its end.
    pub fetch: Times,
    /// When connections were lost after their first audio, within the window.
    pub cut: Timeline,
    /// When those who came back got their first new part, within the window.
    pub back: Timeline,
    /// When listeners got their first part of a leaner rendition than before, within the window.
    pub leaner: Timeline,
    /// The same of a fuller one.
    pub fuller: Timeline,
}

impl Tally {
    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        for (mine, theirs) in [
            (&mut self.connect, &other.connect),
            (&mut self.handshake, &other.handshake),
            (&mut self.first_byte, &other.first_byte),
            (&mut self.first_audio, &other.first_audio),
            (&mut self.silence, &other.silence),
            (&mut self.skew, &other.skew),
            (&mut self.lateness, &other.lateness),
            (&mut self.fetch, &other.fetch),
        ] {
            mine.merge(theirs);
        }
        for (mine, theirs) in [
            (&mut self.cut, &other.cut),
            (&mut self.back, &other.back),
            (&mut self.leaner, &other.leaner),
            (&mut self.fuller, &other.fuller),
        ] {
            mine.merge(theirs);
        }
    }
}

/// What became of readers that hardly read or do not read at all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stuck {
    /// How many were to come.
    pub asked: u64,
    /// How many have asked for the stream.
    pub begun: u64,
    /// How many the server had closed by the end.
    pub gone: u64,
    /// How long after their request.
    pub gone_after: Times,
}

impl Stuck {
    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        self.asked += other.asked;
        self.begun += other.begun;
        self.gone += other.gone;
        self.gone_after.merge(&other.gone_after);
    }
}

/// The one listener that reads everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Parts read and found whole.
    pub parts: u64,
    /// Parts, or streams, that were not.
    pub broken: u64,
    /// Whether something was to read at all.
    pub heard: bool,
}

/// Failures by their kind.
pub type Failures = BTreeMap<String, u64>;

/// Counts a failure; once there are many kinds, without its name.
pub(crate) fn count_failure(failures: &mut Failures, kind: &str, times: u64) {
    let kind = if failures.len() < FAILURE_KINDS || failures.contains_key(kind) { kind } else { "others" };
    *failures.entry(kind.to_owned()).or_default() += times;
}

/// What one load process has to say.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShareReport {
    /// Those who came in the ramp.
    pub base: Tally,
    /// Those who came in the storm.
    pub storm: Tally,
    /// Those who hardly read.
    pub stuck: Stuck,
    /// What went wrong.
    pub failures: Failures,
    /// The one who reads everything.
    pub witness: Witness,
    /// How late the generator itself was with a join.
    pub join_lag: Times,
    /// The same of the joins of a storm alone.
    #[serde(default)]
    pub storm_lag: Times,
    /// When it began the last join of a storm, from the window's beginning, µs.
    #[serde(default)]
    pub storm_took_us: u64,
    /// Processor time of the load thread from the window's beginning to the storm's planned end, µs.
    #[serde(default)]
    pub storm_cpu_us: u64,
    /// How long a turn of its loop took, within the window.
    pub turn: Times,
    /// Processor time of the load thread within the window, µs.
    pub cpu_us: u64,
    /// Length of the window as it was, µs.
    pub span_us: u64,
}

impl ShareReport {
    /// Adds all of another's, which ran at the same time.
    pub fn merge(&mut self, other: &Self) {
        self.base.merge(&other.base);
        self.storm.merge(&other.storm);
        self.stuck.merge(&other.stuck);
        for (kind, times) in &other.failures {
            count_failure(&mut self.failures, kind, *times);
        }
        self.witness.parts += other.witness.parts;
        self.witness.broken += other.witness.broken;
        self.witness.heard |= other.witness.heard;
        self.join_lag.merge(&other.join_lag);
        self.storm_lag.merge(&other.storm_lag);
        self.storm_took_us = self.storm_took_us.max(other.storm_took_us);
        self.storm_cpu_us += other.storm_cpu_us;
        self.turn.merge(&other.turn);
        self.cpu_us += other.cpu_us;
        self.span_us = self.span_us.max(other.span_us);
    }
}

/// How a load process stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Connections begun.
    pub begun: u64,
    /// Listeners with audio.
    pub hearing: u64,
    /// Failures so far.
    pub failed: u64,
}

impl Standing {
    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        self.begun += other.begun;
        self.hearing += other.hearing;
        self.failed += other.failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_several_processes_add_up() {
        let (mut all, mut merged) = (Times::default(), Times::default());
        for share in 0..3_u64 {
            let mut times = Times::default();
            for n in 1..=1_000 {
                times.record(n * 100 + share);
                all.record(n * 100 + share);
            }
            let text = serde_json::to_string(&times).unwrap();
            merged.merge(&serde_json::from_str(&text).unwrap());
        }
        assert_eq!(merged.summary(), all.summary());
        assert_eq!(merged.count(), 3_000);
        let summary = merged.summary();
        assert!((summary.p50 - 50.0).abs() < 0.2 && (summary.p99 - 99.0).abs() < 0.2, "{summary:?}");
        assert_eq!(Times::default().summary(), Summary::default());
    }

    #[test]
    fn kinds_of_failure_have_a_limit() {
        let mut failures = Failures::new();
        for n in 0..1_000 {
            count_failure(&mut failures, &format!("{n}"), 2);
        }
        count_failure(&mut failures, "0", 1);
        assert_eq!((failures.len(), failures["0"]), (FAILURE_KINDS + 1, 3));
        assert_eq!(failures.values().sum::<u64>(), 2_001);
    }

    #[test]
    fn shares_merge() {
        let mut share = ShareReport::default();
        share.base.counts.joined = 5;
        share.storm.first_audio.record(7);
        share.stuck.gone = 1;
        share.failures.insert("refused".to_owned(), 2);
        let text = serde_json::to_string(&share).unwrap();
        let mut sum: ShareReport = serde_json::from_str(&text).unwrap();
        sum.merge(&share);
        assert_eq!((sum.base.counts.joined, sum.storm.first_audio.count()), (10, 2));
        assert_eq!((sum.stuck.gone, sum.failures["refused"]), (2, 4));
    }
}
