//! `/metrics`: Prometheus text, and what the process knows of itself.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use backend::machine::{open_files, rss_bytes};

use crate::shared::Shared;

/// Everything this edge counts. Series do not multiply with listeners or addresses, only with events that run.
pub(crate) fn render(shared: &Shared) -> String {
    let counters = &shared.counters;
    let mut text = String::with_capacity(4 * 1024);
    let mut family = |name: &str, kind: &str, help: &str, series: &[(String, u64)]| {
        let _ = writeln!(text, "# HELP minassa_edge_{name} {help}\n# TYPE minassa_edge_{name} {kind}");
        for (labels, value) in series {
            let _ = writeln!(text, "minassa_edge_{name}{labels} {value}");
        }
    };
    let one = |counter: &AtomicU64| vec![(String::new(), counter.load(Ordering::Relaxed))];
    family("joins_total", "counter", "Listeners that began at the push door.", &one(&counters.joins));
    family(
        "refused_total",
        "counter",
        "Listeners refused: there were as many of their class as there may be, the ladder lets none of it in, memory was short, or most who listen are of their network.",
        &[
            (r#"{why="full"}"#.to_owned(), counters.refused_full.load(Ordering::Relaxed)),
            (r#"{why="level"}"#.to_owned(), counters.refused_level.load(Ordering::Relaxed)),
            (r#"{why="memory"}"#.to_owned(), counters.refused_memory.load(Ordering::Relaxed)),
            (r#"{why="network"}"#.to_owned(), counters.refused_share.load(Ordering::Relaxed)),
        ],
    );
    family(
        "sent_to_delayed_total",
        "counter",
        "Players without a ticket that were sent to the delayed feed because newcomers had to wait.",
        &one(&counters.sent_to_delayed),
    );
    family(
        "tickets_refused_total",
        "counter",
        "Requests with a ticket that does not open the door.",
        &one(&counters.tickets_refused),
    );
    family(
        "tickets_expired_total",
        "counter",
        "Of those, requests with a ticket that was good once.",
        &one(&counters.tickets_expired),
    );
    family(
        "sessions_refused_total",
        "counter",
        "Requests with a ticket that is used by as many as it carries, or was revoked.",
        &one(&counters.sessions_refused),
    );
    family(
        "sessions_closed_total",
        "counter",
        "Listeners closed because their ticket is used by more than it carries, or was revoked.",
        &one(&counters.sessions_closed),
    );
    family(
        "sent_bytes_total",
        "counter",
        "Bytes handed to listeners of the push door.",
        &one(&counters.bytes),
    );
    family("sent_parts_total", "counter", "Parts handed to listeners.", &one(&counters.parts_sent));
    family(
        "skipped_parts_total",
        "counter",
        "Parts that listeners did not get, because they were too slow or because the edge never had them.",
        &[
            (r#"{why="behind"}"#.to_owned(), counters.skipped_behind.load(Ordering::Relaxed)),
            (r#"{why="missing"}"#.to_owned(), counters.skipped_missing.load(Ordering::Relaxed)),
        ],
    );
    family("writes_total", "counter", "Writes to listeners of the push door.", &one(&counters.writes));
    family(
        "moved_total",
        "counter",
        "Listeners moved to another rendition inside their response.",
        &one(&counters.moved),
    );
    family("left_total", "counter", "Listeners that left or were closed as stuck.", &one(&counters.left));
    family(
        "stuck_total",
        "counter",
        "Listeners closed because they took nothing for too long.",
        &one(&counters.stuck),
    );
    family(
        "handshakes_total",
        "counter",
        "TLS handshakes at the push door.",
        &[
            (r#"{kind="full"}"#.to_owned(), counters.handshakes_full.load(Ordering::Relaxed)),
            (r#"{kind="resumed"}"#.to_owned(), counters.handshakes_resumed.load(Ordering::Relaxed)),
            (r#"{kind="failed"}"#.to_owned(), counters.handshakes_failed.load(Ordering::Relaxed)),
        ],
    );
    let made = shared.tls.as_ref().map(|tls| tls.handshakes().counts()).unwrap_or_default();
    let kinds =
        [("full", made.full), ("resumed", made.resumed), ("failed", made.failed), ("late", made.timed_out)];
    family(
        "file_handshakes_total",
        "counter",
        "TLS handshakes at the files door.",
        &kinds.map(|(kind, count)| (format!(r#"{{kind="{kind}"}}"#), count)),
    );
    family(
        "late_heads_total",
        "counter",
        "Connections closed because no whole request came in time.",
        &one(&counters.heads_late),
    );
    family(
        "evicted_total",
        "counter",
        "Connections that asked for nothing and were closed to make room for others.",
        &one(&counters.evicted),
    );
    family(
        "refused_connections_total",
        "counter",
        "Connections closed unheard because the push door was full, most of it with others of their address prefix.",
        &one(&counters.refused_heavy),
    );
    family(
        "refused_introductions_total",
        "counter",
        "Connections and requests at the push door that did not say properly who is behind a proxy.",
        &one(&counters.introductions_refused),
    );
    family(
        "refused_questions_total",
        "counter",
        "Requests refused because too many asked the disk.",
        &one(&counters.questions_refused),
    );
    family(
        "cut_rounds_total",
        "counter",
        "Rounds of writes that newer ones overtook.",
        &one(&counters.rounds_cut),
    );
    family(
        "failed_accepts_total",
        "counter",
        "Connections that the system could not give.",
        &one(&counters.accepts_failed),
    );
    family("received_parts_total", "counter", "Parts received from origin.", &one(&counters.parts_received));
    family(
        "missing_parts_total",
        "counter",
        "Parts that never came from origin.",
        &one(&counters.parts_missing),
    );
    family("stale_parts_total", "counter", "Parts that came again or too late.", &one(&counters.parts_stale));
    family(
        "damaged_messages_total",
        "counter",
        "Messages of the bus that could not be read.",
        &one(&counters.messages_damaged),
    );
    family(
        "refused_events_total",
        "counter",
        "Times an event was not taken up because there were too many.",
        &one(&counters.events_refused),
    );
    let answers: Vec<_> = counters
        .answers
        .iter()
        .zip(1..)
        .map(|(count, class)| (format!(r#"{{status="{class}xx"}}"#), count.load(Ordering::Relaxed)))
        .collect();
    family("file_answers_total", "counter", "Answers of the files door.", &answers);
    let sent = shared.files_door.sent_bytes();
    family("file_sent_bytes_total", "counter", "Bytes written at the files door.", &[(String::new(), sent)]);
    family("listeners", "gauge", "Listeners at the push door.", &one(&counters.listeners));
    let channels = shared.channels();
    let listening: Vec<_> = channels
        .iter()
        .flat_map(|channel| {
            channel.listener_counts().into_iter().map(|count| {
                let (event, rendition, form) = (&channel.slug, count.rendition, count.form.name());
                let tier = count.tier;
                let labels =
                    format!(r#"{{event="{event}",rendition="{rendition}",form="{form}",tier="{tier}"}}"#);
                (labels, u64::from(count.count))
            })
        })
        .collect();
    family(
        "event_listeners",
        "gauge",
        "Listeners by what they take, and parts a write; those of HLS, at the files door, are estimated.",
        &listening,
    );
    let level = u64::from(shared.in_force().level.number());
    family("level", "gauge", "Ladder level in force, 0 to 6.", &[(String::new(), level)]);
    family("listeners_max", "gauge", "Listeners allowed.", &[(String::new(), shared.listeners_max)]);
    family(
        "held_requests",
        "gauge",
        "Requests that wait for a part or a playlist.",
        &[(String::new(), shared.holds.taken() as u64)],
    );
    family(
        "held_requests_refused_total",
        "counter",
        "Requests that could not wait because too many did.",
        &[(String::new(), shared.holds.refused())],
    );
    family(
        "rendered_playlists_total",
        "counter",
        "Live playlists rendered.",
        &one(&counters.playlists_rendered),
    );
    let downloads = shared.downloads.taken();
    family(
        "downloads",
        "gauge",
        "Downloads of recordings in progress.",
        &[(String::new(), downloads as u64)],
    );
    family(
        "downloads_refused_total",
        "counter",
        "Downloads refused because too many ran.",
        &one(&counters.downloads_refused),
    );
    let (reads, joined) = shared.recordings.counts();
    family(
        "disk_reads_total",
        "counter",
        "Times the disk was turned to for a recording.",
        &[(String::new(), reads)],
    );
    family(
        "shared_reads_total",
        "counter",
        "Times somebody was served by what was just being read for another.",
        &[(String::new(), joined)],
    );
    family("windows", "gauge", "Events with a window.", &one(&counters.windows));
    let newest: Vec<_> = channels
        .iter()
        .filter_map(|channel| {
            let newest = channel.live()?.window().newest()?;
            Some((format!(r#"{{event="{}"}}"#, channel.slug), newest.get()))
        })
        .collect();
    family("newest_part", "gauge", "Newest part in the window.", &newest);
    family("resident_bytes", "gauge", "Memory in use.", &[(String::new(), rss_bytes())]);
    family(
        "memory_available_bytes",
        "gauge",
        "Memory that can still be used, of the machine or of its control group.",
        &one(&counters.memory_available),
    );
    family(
        "push_cpu_microseconds_total",
        "counter",
        "Processor time of the push door's thread.",
        &one(&counters.push_cpu_us),
    );
    family("open_files", "gauge", "Open files and sockets.", &[(String::new(), open_files())]);
    if let Some(expires) = shared.tls.as_ref().and_then(|tls| tls.certificate_expires_s()) {
        family(
            "certificate_expires_timestamp_seconds",
            "gauge",
            "When the certificate in use ends.",
            &[(String::new(), expires)],
        );
    }
    shared.files_door.render(&mut text, "minassa_edge_files_door_total");
    counters.lateness.render(
        &mut text,
        "minassa_edge_lateness_seconds",
        "Time from each listener's turn to its write.",
    );
    counters.turns.render(
        &mut text,
        "minassa_edge_turn_seconds",
        "Length of the turns of the push door's loop.",
    );
    text
}
