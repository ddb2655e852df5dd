//! Metrics, as Prometheus reads them.
//!
//! Everything is derived from the state at the moment it is asked for, so a series of an event or an edge that is
//! gone goes with it, and nothing is counted twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use admission::challenge::Refusal;
use admission::ladder::Resource;
use admission::room::Queue;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use backend::clock;
use backend::wire::{Alarm, Heartbeat};
use http::{HeaderValue, header};
use metrics::{counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use model::{Event, PartNumber, UnixTime};

use crate::challenges::Challenges;
use crate::observed::Standing;
use crate::state::{Control, Counters};
use crate::steering::Steering;

/// Events with series of their own, the latest starts.
const EVENTS_MAX: usize = 1_000;

/// `GET /metrics`.
pub(crate) async fn serve(State(control): State<Arc<Control>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], render(&control)).into_response()
}

fn render(control: &Control) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    with_local_recorder(&recorder, || {
        own(&control.counters);
        challenges(&control.challenges, clock::unix_now());
        if let Some(expires) = control.tls.as_ref().and_then(|tls| tls.certificate_expires_s()) {
            gauge!("minassa_control_certificate_expires_timestamp_seconds").set(expires as f64);
        }
        let now = Instant::now();
        {
            let observed = control.observed();
            gauge!("minassa_origin_up").set(f64::from(u8::from(observed.origin_is_alive(now))));
            for (name, heartbeat) in observed.edges(now) {
                edge(name, heartbeat);
            }
        }
        ladder(&control.steering());
        {
            let sessions = control.sessions();
            gauge!("minassa_tickets_in_use").set(sessions.len() as f64);
            gauge!("minassa_tickets_revoked").set(sessions.revoked().len() as f64);
            counter!("minassa_tickets_not_followed_total").absolute(sessions.ignored());
        }
        for (slug, entrance) in control.rooms().entrances() {
            room(slug.as_str(), entrance.queue());
        }
        let events = control.events(usize::MAX);
        gauge!("minassa_events").set(events.len() as f64);
        for known in events.iter().take(EVENTS_MAX) {
            event(&known.event, &control.standing(&known.event));
        }
    });
    handle.render()
}

fn own(counters: &Counters) {
    let total = |value: &AtomicU64| value.load(Ordering::Relaxed);
    counter!("minassa_control_requests_total").absolute(total(&counters.requests));
    counter!("minassa_control_shed_total").absolute(total(&counters.shed));
    counter!("minassa_control_timed_out_total").absolute(total(&counters.timed_out));
    counter!("minassa_control_server_errors_total").absolute(total(&counters.server_errors));
    counter!("minassa_control_failed_attempts_total").absolute(total(&counters.failed_attempts));
    counter!("minassa_tickets_issued_total").absolute(total(&counters.tickets));
    counter!("minassa_waits_answered_total").absolute(total(&counters.waits));
    counter!("minassa_tokens_refused_total").absolute(total(&counters.tokens_refused));
    counter!("minassa_tickets_renewed_total").absolute(total(&counters.renewed));
    counter!("minassa_turned_away_total", "why" => "no_place").absolute(total(&counters.turned_away));
    counter!("minassa_turned_away_total", "why" => "network_share").absolute(total(&counters.had_share));
    for (what, count) in counters.door.series() {
        counter!("minassa_control_door_total", "what" => what).absolute(count);
    }
}

fn challenges(challenges: &Challenges, now: UnixTime) {
    let sums = challenges.sums(now);
    counter!("minassa_challenges_asked_total").absolute(sums.asked);
    counter!("minassa_challenges_passed_total", "by" => "work").absolute(sums.solved);
    counter!("minassa_challenges_passed_total", "by" => "patience").absolute(sums.waited);
    counter!("minassa_challenges_ignored_total").absolute(sums.ignored);
    for (reason, count) in Refusal::NAMES.into_iter().zip(sums.refused) {
        counter!("minassa_challenges_refused_total", "reason" => reason).absolute(count);
    }
    let (remembered, forgotten) = challenges.spent();
    gauge!("minassa_challenges_remembered").set(remembered as f64);
    counter!("minassa_challenges_forgotten_total").absolute(forgotten);
    gauge!("minassa_challenge_on").set(f64::from(u8::from(challenges.any(now))));
}

fn room(event: &str, queue: &Queue) {
    let event = || event.to_owned();
    gauge!("minassa_room_admitted", "event" => event()).set(queue.admitted as f64);
    gauge!("minassa_room_waiting", "event" => event()).set(queue.waiting as f64);
    gauge!("minassa_room_admitted_per_second", "event" => event()).set(queue.rate.milli() as f64 / 1e3);
}

fn ladder(steering: &Steering) {
    let decision = steering.decision();
    gauge!("minassa_ladder_level").set(f64::from(decision.level.number()));
    gauge!("minassa_ladder_level_unpinned").set(f64::from(decision.would.number()));
    gauge!("minassa_ladder_pinned").set(f64::from(u8::from(steering.orders().pin.is_some())));
    gauge!("minassa_ladder_cap").set(steering.orders().cap.map_or(f64::INFINITY, |cap| cap as f64));
    for resource in Resource::ALL {
        gauge!("minassa_ladder_pressure", "resource" => resource.name()).set(decision.pressures[resource]);
    }
    gauge!("minassa_edges", "state" => "alive").set(decision.alive as f64);
    gauge!("minassa_edges", "state" => "silent").set(decision.silent as f64);
}

fn edge(name: &str, heartbeat: &Heartbeat) {
    let edge = || name.to_owned();
    gauge!("minassa_edge_up", "edge" => edge()).set(1.0);
    gauge!("minassa_edge_level", "edge" => edge()).set(f64::from(heartbeat.level));
    counter!("minassa_edge_sent_bytes_total", "edge" => edge()).absolute(heartbeat.bytes);
    counter!("minassa_edge_skipped_parts_total", "edge" => edge()).absolute(heartbeat.skipped);
    counter!("minassa_edge_joins_total", "edge" => edge()).absolute(heartbeat.joins);
    counter!("minassa_edge_refused_total", "edge" => edge()).absolute(heartbeat.refused);
    gauge!("minassa_edge_memory_bytes", "edge" => edge()).set(heartbeat.rss_bytes as f64);
    gauge!("minassa_edge_open_files", "edge" => edge()).set(heartbeat.open_files as f64);
    gauge!("minassa_edge_listeners_max", "edge" => edge()).set(heartbeat.listeners_max as f64);
    gauge!("minassa_edge_memory_available_bytes", "edge" => edge()).set(heartbeat.memory_available as f64);
    counter!("minassa_edge_handshakes_total", "edge" => edge()).absolute(heartbeat.handshakes);
    counter!("minassa_edge_push_cpu_microseconds_total", "edge" => edge()).absolute(heartbeat.push_cpu_us);
    // Bounds of buckets; beyond the last one there is none.
    let bound = |ms: u32| if ms == u32::MAX { f64::INFINITY } else { f64::from(ms) / 1_000.0 };
    gauge!("minassa_edge_lateness_p99_seconds", "edge" => edge()).set(bound(heartbeat.lateness_p99_ms));
    gauge!("minassa_edge_turn_max_seconds", "edge" => edge()).set(bound(heartbeat.turn_max_ms));
    for event in &heartbeat.events {
        for count in &event.listeners {
            gauge!(
                "minassa_listeners",
                "edge" => edge(),
                "event" => event.event.to_string(),
                "rendition" => count.rendition.name(),
                "form" => count.form.name(),
                "tier" => count.tier.to_string(),
            )
            .set(f64::from(count.count));
        }
    }
}

fn event(event: &Event, standing: &Standing) {
    let slug = || event.slug.to_string();
    gauge!("minassa_event_state", "event" => slug(), "state" => standing.state.name()).set(1.0);
    gauge!("minassa_event_start_timestamp_seconds", "event" => slug())
        .set(event.starts_at.as_millis() as f64 / 1e3);
    let Some(status) = &standing.status else { return };
    for alarm in Alarm::ALL {
        let raised = f64::from(u8::from(status.alarms.contains(&alarm)));
        gauge!("minassa_event_alarm", "event" => slug(), "alarm" => alarm.name()).set(raised);
    }
    let part = |name: &'static str, part: Option<PartNumber>| {
        if let Some(part) = part {
            gauge!(name, "event" => slug()).set(part.get() as f64);
        }
    };
    part("minassa_event_newest_part", status.newest_part);
    part("minassa_event_recorded_through_part", status.recorded_through);
    let seats = |which: fn(&backend::wire::SeatStatus) -> bool| {
        status.seats.iter().filter(|seat| which(seat)).count() as f64
    };
    gauge!("minassa_event_seats", "event" => slug(), "in" => "connected").set(seats(|seat| seat.connected));
    gauge!("minassa_event_seats", "event" => slug(), "in" => "on_stage").set(seats(|seat| seat.on_stage));
    gauge!("minassa_event_seats", "event" => slug(), "in" => "muted").set(seats(|seat| seat.muted));
    if let Some(epoch) = status.epoch {
        gauge!("minassa_event_epoch", "event" => slug()).set(f64::from(epoch));
    }
}
