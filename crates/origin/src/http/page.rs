//! The stage page, its assets, and what operators' tools read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use backend::problem::Problem;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use model::ShowState;
use programme::SourceStats;
use stage::Alarm;
use web::{Page, negotiate_language};

use super::Door;
use super::access::Path;
use crate::counters::{self, Gauge};
use crate::directory::View;

/// The stage page. It holds no secret: the invitation is in the address's fragment, which browsers do not send.
pub(super) async fn stage(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let accept = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let language = negotiate_language(query.as_deref(), accept);
    let (status, page) = match door.event(&name) {
        Ok(_) => (StatusCode::OK, Page::Stage),
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => (StatusCode::NOT_FOUND, Page::NotFound),
        Err(problem) => return problem.into_response(),
    };
    let mut response = (status, web::page(page, language)).into_response();
    let set = response.headers_mut();
    for (name, value) in web::PAGE_HEADERS {
        set.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    set.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
    response
}

pub(super) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = web::asset(&path) else { return Problem::not_found().into_response() };
    let same = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim().trim_start_matches("W/") == asset.etag || tag.trim() == "*");
    let headers = [
        (header::ETAG, asset.etag.as_str()),
        (header::CACHE_CONTROL, asset.cache_control),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if same {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        ([(header::CONTENT_TYPE, asset.content_type)], headers, asset.bytes).into_response()
    }
}

pub(super) async fn metrics(State(door): State<Arc<Door>>) -> Response {
    let mut text = counters::render(&gauges(&door));
    door.counts.render(&mut text, "minassa_origin_door_total");
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn gauges(door: &Door) -> Vec<Gauge> {
    let views = door.directory.views();
    let plain = |name, help, value: f64| Gauge { name, help, values: vec![(String::new(), value)] };
    let mut gauges = vec![
        plain("minassa_origin_sessions", "WebRTC sessions.", door.health.sessions() as f64),
        plain("minassa_origin_programmes", "Programmes running.", door.health.programmes() as f64),
        plain("minassa_origin_events", "Events known.", views.len() as f64),
    ];
    if let Some(expires) = door.tls.as_ref().and_then(|tls| tls.certificate_expires_s()) {
        let name = "minassa_origin_certificate_expires_timestamp_seconds";
        gauges.push(plain(name, "When the certificate in use ends.", expires as f64));
    }
    let mut alarms = Gauge { name: "minassa_origin_alarm", help: "1 while it rings.", values: Vec::new() };
    let mut parts =
        Gauge { name: "minassa_origin_newest_part", help: "Newest part published.", values: Vec::new() };
    let mut recorded = Gauge {
        name: "minassa_origin_recorded_through",
        help: "Newest part on the disk.",
        values: Vec::new(),
    };
    let mut connected = Gauge {
        name: "minassa_origin_seats_connected",
        help: "Seats with a living source.",
        values: Vec::new(),
    };
    let mut live =
        Gauge { name: "minassa_origin_live", help: "1 while the stage is on air.", values: Vec::new() };
    // Events with a programme; those to come and those past say nothing here.
    for view in views.iter().filter(|view| view.anchor.is_some() && view.ended_at.is_none()) {
        let event = &view.event.slug;
        let labels = format!("{{event=\"{event}\"}}");
        for alarm in Alarm::ALL {
            let rings = f64::from(u8::from(view.alarms.contains(&alarm)));
            alarms.values.push((format!("{{event=\"{event}\",alarm=\"{}\"}}", alarm.name()), rings));
        }
        parts.values.extend(view.newest.map(|part| (labels.clone(), part.get() as f64)));
        recorded.values.extend(view.recorded_through.map(|part| (labels.clone(), part.get() as f64)));
        let count = view.seats.iter().filter(|row| row.seat.connected).count();
        connected.values.push((labels.clone(), count as f64));
        live.values.push((labels, f64::from(u8::from(view.state == ShowState::Live))));
    }
    gauges.extend([alarms, parts, recorded, connected, live]);
    gauges.extend(source_gauges(&views));
    gauges
}

/// How each seat's source in use arrives.
fn source_gauges(views: &[Arc<View>]) -> impl Iterator<Item = Gauge> {
    type Read = fn(&SourceStats) -> f64;
    let kinds: [(&str, &str, Read); 6] = [
        ("minassa_origin_source_packets", "Packets with sound.", |stats| stats.packets as f64),
        ("minassa_origin_source_lost", "Packets that never came in time.", |stats| stats.lost as f64),
        ("minassa_origin_source_concealed_ms", "Sound made up for losses.", |stats| {
            stats.concealed_ms as f64
        }),
        ("minassa_origin_source_delay_ms", "From arrival to the mix.", |stats| stats.delay_ms.into()),
        ("minassa_origin_source_drift_ppm", "How fast its clock runs.", |stats| stats.drift_ppm.into()),
        ("minassa_origin_source_gain_db", "Gain of the levelling.", |stats| stats.gain_db.into()),
    ];
    kinds.into_iter().map(|(name, help, read)| {
        let values = views.iter().flat_map(|view| {
            view.seats.iter().filter_map(move |row| {
                let labels = format!("{{event=\"{}\",seat=\"{}\"}}", view.event.slug, row.seat.id.0);
                Some((labels, read(row.stats.as_ref()?)))
            })
        });
        Gauge { name, help, values: values.collect() }
    })
}

pub(super) async fn healthz(State(door): State<Arc<Door>>) -> Response {
    if door.health.is_alive() {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        Problem::unavailable("The media thread does not turn.", 1).into_response()
    }
}

pub(super) async fn readyz(State(door): State<Arc<Door>>) -> Response {
    if door.ready.load(Ordering::Relaxed) && door.health.is_alive() && !door.shutdown.is_cancelled() {
        (StatusCode::OK, "ready\n").into_response()
    } else {
        Problem::unavailable("The stage is being set up, or shut down.", 1).into_response()
    }
}
