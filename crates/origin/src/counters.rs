//! What origin counts, as `GET /metrics` shows it (Prometheus text format 0.0.4).
//!
//! Counters are plain atomics: counting costs nothing that could make a tick late, and needs no set-up in tests.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug)]
pub(crate) struct Counter {
    name: &'static str,
    /// Labels in braces, or nothing.
    labels: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Counter {
    const fn new(name: &'static str, labels: &'static str, help: &'static str) -> Self {
        Self { name, labels, help, value: AtomicU64::new(0) }
    }

    pub(crate) fn increment(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.value.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($ident:ident = $name:literal $labels:literal $help:literal;)*) => {
        $(pub(crate) static $ident: Counter = Counter::new($name, $labels, $help);)*
        /// All of them; those of one name stand together.
        static ALL: &[&Counter] = &[$(&$ident),*];
    };
}

counters! {
    TICKS = "minassa_origin_ticks_total" "" "Frames of 20 ms made, over all programmes.";
    TICKS_LATE = "minassa_origin_ticks_late_total" "" "Frames made more than 20 ms after they were due.";
    PARTS = "minassa_origin_parts_total" "{kind=\"programme\"}" "Parts published.";
    GAPS = "minassa_origin_parts_total" "{kind=\"gap\"}" "Parts published.";
    ADOPTED = "minassa_origin_parts_total" "{kind=\"adopted\"}" "Parts published.";
    HELD_BACK = "minassa_origin_parts_held_back_total" "" "Parts published late because the anchor was not on the disk yet.";
    MIX_DROPPED = "minassa_origin_mix_dropped_total" "" "Frames missing in the kept mix.";
    PACK_ERRORS = "minassa_origin_pack_errors_total" "" "Parts that could not be made.";
    RECORDED_PARTS = "minassa_origin_recorder_parts_total" "" "Parts given to the recording.";
    RECORDER_ERRORS = "minassa_origin_recorder_errors_total" "" "Writes that failed.";
    RECORDER_DROPPED = "minassa_origin_recorder_dropped_total" "" "Tasks dropped because the recorder's queue was full.";
    RECORDER_LOST = "minassa_origin_recorder_lost_total" "" "Parts missing in a recording.";
    DATAGRAMS = "minassa_origin_datagrams_total" "{kind=\"taken\"}" "Datagrams at the media port.";
    DATAGRAMS_STUN = "minassa_origin_datagrams_total" "{kind=\"strange_stun\"}" "Datagrams at the media port.";
    DATAGRAMS_STRANGE = "minassa_origin_datagrams_total" "{kind=\"strange\"}" "Datagrams at the media port.";
    DATAGRAMS_REFUSED = "minassa_origin_datagrams_total" "{kind=\"refused\"}" "Datagrams at the media port.";
    DATAGRAMS_UNSENT = "minassa_origin_datagrams_unsent_total" "" "Datagrams the system did not take.";
    SESSIONS = "minassa_origin_sessions_total" "{kind=\"webrtc\"}" "Sources let in.";
    STREAMS = "minassa_origin_sessions_total" "{kind=\"icecast\"}" "Sources let in.";
    REFUSED = "minassa_origin_sessions_refused_total" "" "Sources not let in.";
    INGEST_BROKEN = "minassa_origin_ingest_broken_total" "" "Icecast sources dropped because their stream was broken.";
    INGEST_WRONG_CODEC = "minassa_origin_ingest_wrong_codec_total" "" "Icecast sources refused for what they carry.";
    INVITES_REFUSED = "minassa_origin_invites_refused_total" "" "Requests with a missing or unusable invitation.";
    COMMANDS_LOST = "minassa_origin_commands_lost_total" "" "Requests answered 503 because the media thread was busy.";
    ALARMS = "minassa_origin_alarms_total" "" "Alarms raised.";
    EVENTS_REFUSED = "minassa_origin_events_refused_total" "" "Events of the bus that could not be taken.";
    BUS_DAMAGED = "minassa_origin_bus_damaged_total" "" "Messages of the bus that could not be read.";
}

/// A number that goes up and down, for [`render`].
pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// Values by their labels in braces (or nothing).
    pub(crate) values: Vec<(String, f64)>,
}

/// All counters and the given gauges as text.
pub(crate) fn render(gauges: &[Gauge]) -> String {
    let mut text = String::new();
    let mut last = "";
    for counter in ALL {
        if counter.name != last {
            let _ = write!(text, "# HELP {0} {1}\n# TYPE {0} counter\n", counter.name, counter.help);
            last = counter.name;
        }
        let _ = writeln!(text, "{}{} {}", counter.name, counter.labels, counter.value());
    }
    for gauge in gauges {
        let _ = write!(text, "# HELP {0} {1}\n# TYPE {0} gauge\n", gauge.name, gauge.help);
        for (labels, value) in &gauge.values {
            let _ = writeln!(text, "{}{labels} {value}", gauge.name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_one_name_stand_together_under_one_head() {
        let text = render(&[Gauge { name: "g", help: "A gauge.", values: vec![("{a=\"b\"}".into(), 1.5)] }]);
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let unique: std::collections::BTreeSet<_> = heads.iter().collect();
        assert_eq!(heads.len(), unique.len(), "{text}");
        assert!(text.ends_with("# TYPE g gauge\ng{a=\"b\"} 1.5\n"), "{text}");
    }
}
