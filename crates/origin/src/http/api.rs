//! The stage API: snapshots of a show, and orders to it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use backend::problem::Problem;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, header};
use model::{Bilingual, SeatId, ShowState, UnixTime, clean_line};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stage::{Alarm, Command, Place, SeatChange};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::access::{Path, Who};
use super::{Door, access, problems};
use crate::directory::View;
use crate::media::Order;

/// Largest body of an order.
const ORDER_BYTES_MAX: usize = 16 * 1024;
/// Longest message of a hold, characters in each language.
const MESSAGE_MAX: usize = 200;
/// A snapshot is sent at least this often.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// Snapshots in which only levels moved are sent at most this often.
const LEVELS_EVERY: Duration = Duration::from_millis(200);

#[derive(Serialize)]
struct Snapshot<'a> {
    event: &'a str,
    title: Text<'a>,
    state: &'static str,
    starts_at: String,
    doors_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<Hold<'a>>,
    now: String,
    late: bool,
    alarms: Vec<&'static str>,
    newest_part: Option<u64>,
    recorded_through: Option<u64>,
    you: You<'a>,
    seats: Vec<Seat<'a>>,
}

#[derive(Serialize)]
struct Text<'a> {
    ar: &'a str,
    en: &'a str,
}

#[derive(Serialize)]
struct Hold<'a> {
    until: Option<String>,
    message: Text<'a>,
}

#[derive(Serialize)]
struct You<'a> {
    seat: Option<u16>,
    role: &'static str,
    name: &'a str,
}

#[derive(Serialize)]
struct Seat<'a> {
    seat: u16,
    role: &'static str,
    name: &'a str,
    connected: bool,
    sources: usize,
    on_stage: bool,
    muted: bool,
    level_dbfs: f32,
    speaking: bool,
}

fn text(text: &Bilingual) -> Text<'_> {
    Text { ar: &text.ar, en: &text.en }
}

fn snapshot_of<'a>(view: &'a View, who: &Who) -> Snapshot<'a> {
    let rfc3339 = |time: UnixTime| time.to_string();
    let hold = match &view.state {
        ShowState::Hold { until, message } => {
            Some(Hold { until: until.map(rfc3339), message: text(message) })
        }
        _ => None,
    };
    let seats = view.seats.iter().map(|row| Seat {
        seat: row.seat.id.0,
        role: row.seat.role.name(),
        name: &row.seat.name,
        connected: row.seat.connected,
        sources: row.seat.sources,
        on_stage: row.seat.place == Place::OnStage,
        muted: row.seat.muted,
        level_dbfs: (row.level_dbfs * 10.0).round() / 10.0,
        speaking: row.speaking,
    });
    let you = match who {
        Who::Operator => You { seat: None, role: "operator", name: "" },
        Who::Seat(invite) => You {
            seat: Some(invite.seat.0),
            role: invite.role.name(),
            name: view.event.seats.iter().find(|seat| seat.id == invite.seat).map_or("", |seat| &seat.name),
        },
    };
    Snapshot {
        event: view.event.slug.as_str(),
        title: text(&view.event.title),
        state: view.state.name(),
        starts_at: rfc3339(view.event.starts_at),
        doors_at: rfc3339(view.doors_at),
        live_at: view.live_at.map(rfc3339),
        ended_at: view.ended_at.map(rfc3339),
        hold,
        now: rfc3339(view.now()),
        late: view.late(),
        alarms: view.alarms.iter().copied().map(Alarm::name).collect(),
        newest_part: view.newest.map(|part| part.get()),
        recorded_through: view.recorded_through.map(|part| part.get()),
        you,
        seats: seats.collect(),
    }
}

fn json(view: &View, who: &Who) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, serde_json::to_vec(&snapshot_of(view, who)).unwrap_or_default()).into_response()
}

pub(super) async fn snapshot(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = door.event(&name)?;
    let who = access::identify(&headers, &view, &door.operator)?;
    Ok(json(&view, &who))
}

/// A stream of snapshots, a line each: at every change, and at least once a second. It ends with the invitation.
pub(super) async fn watch(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let view = door.event(&name)?;
    let who = access::identify(&headers, &view, &door.operator)?;
    let permit = door
        .watchers
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::unavailable("Too many pages watch this stage.", 5))?;
    let views = door.directory.follow(&view.event.slug).ok_or_else(|| Problem::unknown_event(&name))?;
    let watcher = Watcher { views, who, door, change: 0, sent_at: None, _permit: permit };
    let lines = stream::unfold(watcher, |mut watcher| async {
        let line = watcher.next().await?;
        Some((Ok::<_, Infallible>(line), watcher))
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

struct Watcher {
    views: watch::Receiver<Arc<View>>,
    who: Who,
    door: Arc<Door>,
    change: u64,
    sent_at: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let view = self.views.borrow_and_update().clone();
            let since = self.sent_at.map_or(LINE_EVERY, |at| at.elapsed());
            // Levels move all the time and are told now and then; the rest at once.
            if view.change != self.change
                || since >= LEVELS_EVERY && view.anchor.is_some()
                || since >= LINE_EVERY
            {
                if self.is_over(&view) {
                    return None;
                }
                self.change = view.change;
                self.sent_at = Some(Instant::now());
                let mut line = BytesMut::new().writer();
                serde_json::to_writer(&mut line, &snapshot_of(&view, &self.who)).ok()?;
                let mut line = line.into_inner();
                line.put_u8(b'\n');
                return Some(line.freeze());
            }
            let due = self.sent_at.map_or_else(Instant::now, |at| at + LINE_EVERY);
            tokio::select! {
                changed = self.views.changed() => changed.ok()?,
                () = sleep_until(due) => {}
                () = self.door.shutdown.cancelled() => return None,
            }
        }
    }

    /// Whether the invitation has been withdrawn meanwhile, or has expired.
    fn is_over(&self, view: &View) -> bool {
        let Who::Seat(invite) = &self.who else { return false };
        let open = view.event.seats.iter().any(|seat| {
            seat.id == invite.seat && seat.invite == invite.id && seat.role == invite.role && !seat.revoked
        });
        !open || view.now() >= invite.expires
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeatOrder {
    muted: Option<bool>,
    on_stage: Option<bool>,
}

pub(super) async fn seat(
    State(door): State<Arc<Door>>,
    Path((name, seat)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let view = door.event(&name)?;
    let who = access::identify(&headers, &view, &door.operator)?;
    let order: SeatOrder = read(body).await?;
    let seat: u16 = seat.parse().map_err(|_| {
        problems::direct(crate::media::DirectRefusal::Stage(stage::DirectError::UnknownSeat), &name)
    })?;
    let (reply, result) = oneshot::channel();
    let order = Order::Direct {
        event: view.event.slug.clone(),
        by: who.actor(),
        seat: SeatId(seat),
        change: SeatChange { muted: order.muted, on_stage: order.on_stage },
        reply,
    };
    door.ask(order, result).await?.map_err(|error| problems::direct(error, &name))?;
    Ok(json(&*door.event(&name)?, &who))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateOrder {
    state: String,
    until: Option<String>,
    message: Option<Message>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    #[serde(default)]
    ar: String,
    #[serde(default)]
    en: String,
}

pub(super) async fn state(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let view = door.event(&name)?;
    let who = access::identify(&headers, &view, &door.operator)?;
    if !who.directs() {
        return Err(problems::forbidden("Only hosts, co-hosts and the operator move the show."));
    }
    let order: StateOrder = read(body).await?;
    let command = match order.state.as_str() {
        "live" => Command::Live,
        "ended" => Command::End,
        "hold" => Command::Hold { until: until(order.until, view.now())?, message: message(order.message)? },
        other => return Err(problems::unprocessable("state", other, "live, hold or ended")),
    };
    let (reply, result) = oneshot::channel();
    let order = Order::Command { event: view.event.slug.clone(), command, reply };
    door.ask(order, result).await?.map_err(|error| problems::command(error, &name))?;
    tracing::info!(event = %view.event.slug, by = ?who.seat(), "the show was moved by order");
    Ok(json(&*door.event(&name)?, &who))
}

fn until(given: Option<String>, now: UnixTime) -> Result<Option<UnixTime>, Problem> {
    let Some(given) = given else { return Ok(None) };
    match UnixTime::parse(&given) {
        Ok(until) if until > now => Ok(Some(until)),
        Ok(_) => Err(problems::unprocessable("until", &given, "a time to come")),
        Err(error) => Err(problems::unprocessable("until", &given, &error.to_string())),
    }
}

fn message(given: Option<Message>) -> Result<Bilingual, Problem> {
    let Some(Message { ar, en }) = given else { return Ok(Bilingual::default()) };
    let clean = |key: &str, line: String| {
        if line.trim().is_empty() {
            return Ok(String::new());
        }
        clean_line(&line, MESSAGE_MAX)
            .map_err(|error| problems::unprocessable(key, &line, &error.to_string()))
    };
    Ok(Bilingual { ar: clean("message.ar", ar)?, en: clean("message.en", en)? })
}

/// A JSON body. Its type is not asked for: a wrong one shows.
async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let body = access::body(body, ORDER_BYTES_MAX).await?;
    serde_json::from_slice(&body).map_err(|error| problems::bad_request(error.to_string()))
}
