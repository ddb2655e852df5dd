//! What all who wait are told: small objects that any cache may keep.

use std::sync::Arc;

use admission::room::DrawRecord;
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::clock;
use backend::problem::Problem;
use http::{HeaderValue, StatusCode, header};
use model::ShowState;
use serde::Serialize;
use utoipa::ToSchema;

use super::ticket::RoomStateName;
use super::types::ProblemView;
use super::{At, named};
use crate::rooms::DoorState;
use crate::state::Control;

/// How far the line has come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Queue)]
pub(crate) struct QueueView {
    /// Whoever's rank is below this may come in.
    admitted_through: u64,
    /// How many people are before it.
    admitted: u64,
    /// How many wait behind it.
    waiting: u64,
    /// People a second; 0 where that is unknown.
    rate: f64,
    /// Ladder level, 0 to 6.
    #[schema(maximum = 6)]
    level: u8,
    state: RoomStateName,
}

/// How far the waiting room's line has come. May be kept for a second.
#[utoipa::path(get, path = "/api/events/{event}/queue.json", operation_id = "show_queue", tag = "listening", params(("event" = String, Path)),
    responses((status = 200, body = QueueView), (status = 404, body = ProblemView)))]
pub(super) async fn show(State(control): State<Arc<Control>>, At(known): At) -> Response {
    let standing = control.standing(&known.event);
    let level = standing.level.number();
    let queue = control.rooms().queue(&known.event.slug);
    let view = match queue {
        Some(queue) => QueueView {
            admitted_through: queue.admitted_through.0,
            admitted: queue.admitted,
            waiting: queue.waiting,
            rate: queue.rate.milli() as f64 / 1_000.0,
            level: queue.level,
            state: queue.state.into(),
        },
        None => QueueView {
            admitted_through: 0,
            admitted: 0,
            waiting: 0,
            rate: 0.0,
            level,
            state: match DoorState::of(&standing, clock::unix_now()) {
                DoorState::Closed => RoomStateName::Gathering,
                DoorState::Open => RoomStateName::Clear,
                DoorState::Over => RoomStateName::Ended,
            },
        },
    };
    // The same for everybody, whatever they send.
    ([(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=1"))], Json(view)).into_response()
}

/// What is published of a draw beforehand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DrawCommitment)]
pub(crate) struct CommitmentView {
    /// SHA-256 over a domain text, the event and the seed: base64url.
    commitment: String,
    /// Whether the draw was held.
    held: bool,
}

/// The commitment to the seed of the event's draw, from the event's making on.
#[utoipa::path(get, path = "/api/events/{event}/draw/commitment.json", operation_id = "show_draw_commitment", tag = "listening",
    params(("event" = String, Path)),
    responses((status = 200, body = CommitmentView), (status = 404, body = ProblemView)))]
pub(super) async fn commitment(State(control): State<Arc<Control>>, At(known): At) -> Response {
    let rooms = control.rooms();
    let slug = &known.event.slug;
    let held = rooms.room(slug).is_some_and(|room| room.draw().is_some());
    let commitment = rooms.room(slug).map_or_else(|| rooms.commitment(slug), |room| room.commitment());
    let view = CommitmentView { commitment: commitment.into(), held };
    ([(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=10"))], Json(view)).into_response()
}

/// What a page needs of the draw to find its own rank: `page.json`; the heavy groups of networks by shard:
/// `heavy-{n}.json`; and everything that makes the draw, to draw again: `record.json`.
#[utoipa::path(get, path = "/api/events/{event}/draw/{file}", operation_id = "show_draw", tag = "listening",
    params(("event" = String, Path), ("file" = String, Path)),
    responses((status = 200, content_type = "application/json"), (status = 404, body = ProblemView)))]
pub(super) async fn draw(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<Response, Problem> {
    let (mut head, _) = request.into_parts();
    let file = named(&mut head, &control, "file").await?;
    // It may have megabytes; others want to ask for tickets meanwhile.
    let draw = control.rooms().room(&known.event.slug).and_then(|room| room.draw()).cloned();
    let is_over = control.standing(&known.event).state == ShowState::Ended;
    let draw = if draw.is_none() && is_over { control.past_draw(&known.event.slug).await } else { draw };
    let Some(draw) = draw else {
        let problem = Problem::new(StatusCode::NOT_FOUND, "no-draw", "No draw was held for this event");
        // Doors may open any second.
        return Err(problem.header(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=1")));
    };
    let body = match file.as_str() {
        "page.json" => serde_json::to_vec(&draw.page()),
        "record.json" => serde_json::to_vec::<DrawRecord>(draw.record()),
        other => {
            let shard = other.strip_prefix("heavy-").and_then(|rest| rest.strip_suffix(".json"));
            let shard = shard.and_then(|shard| shard.parse::<u32>().ok());
            let table = &draw.record().table;
            match shard.filter(|shard| *shard < table.shards()) {
                Some(shard) => serde_json::to_vec(table.shard(shard)),
                None => return Err(Problem::not_found()),
            }
        }
    };
    let body = body.map_err(|_| Problem::internal())?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        // A draw is held once. Not for ever: an event may be made again under its name.
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")),
    ];
    Ok((headers, body).into_response())
}
