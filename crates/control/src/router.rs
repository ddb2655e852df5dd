//! Every address of control's door.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use backend::problem::Problem;
use http::{Method, StatusCode, header};
use tokio::time::timeout;
use tower_http::cors::{Any, CorsLayer};

use crate::doors::{Door, of_live, redirect};
use crate::state::{Control, Counters};
use crate::{ahead, api, incidents, measure, pages};

/// Longest time for one request, beyond a small body, which is read before ([`ahead`]) and keeps the door's own time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The whole door.
pub(crate) fn router(control: Arc<Control>) -> Router {
    // Pages of other origins may read, and ask for tickets. What needs a token takes it from the Authorization
    // header, which they cannot send.
    let reading = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .allow_headers([header::CONTENT_TYPE])
        .expose_headers([header::ETAG, header::RETRY_AFTER])
        .max_age(Duration::from_secs(3_600));
    Router::new()
        .merge(api::routes())
        .route("/", get(pages::index))
        .route("/e/{event}", get(pages::listener))
        .route("/e/{event}/event.ics", get(api::calendar))
        .route("/e/{event}/report", get(incidents::page))
        .route("/assets/{*path}", get(pages::asset))
        .route("/.well-known/minassa-keys.json", get(pages::keys))
        .route("/metrics", get(measure::serve))
        .route("/readyz", get(pages::readyz))
        .layer(reading)
        .route("/live/{*path}", any(to_listening))
        .route("/t/{*path}", any(to_listening))
        .route("/whip/{*path}", any(to_stage))
        .route("/ingest/{*path}", any(to_stage))
        .route("/api/stage/{*path}", any(to_stage))
        .route("/e/{event}/stage", any(to_stage))
        .route("/e/{event}/{file}", get(to_files))
        .fallback(pages::fallback)
        .method_not_allowed_fallback(pages::wrong_method)
        // Each handler that reads a body bounds it itself.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(control.clone(), bounded))
        // Alive is alive, however many are at the door.
        .route("/healthz", get(pages::healthz))
        .with_state(control)
}

/// Bounds how many requests are in progress and how long each takes, and counts.
async fn bounded(State(control): State<Arc<Control>>, request: Request, next: Next) -> Response {
    let counters = &control.counters;
    Counters::add(&counters.requests);
    let request = ahead::begun(request).await;
    let Ok(_place) = control.places.try_acquire() else {
        Counters::add(&counters.shed);
        return Problem::unavailable("too many requests are in progress", rand::random_range(2..=6))
            .into_response();
    };
    let response = match timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Counters::add(&counters.timed_out);
            Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The request took too long").into_response()
        }
    };
    let status = response.status();
    // Who is challenged did nothing wrong.
    let is_challenge = response.extensions().get::<api::Challenged>().is_some();
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS && !is_challenge {
        Counters::add(&counters.client_errors);
    }
    // Who is told when to come back was not met by an error.
    if response.status().is_server_error() && !response.headers().contains_key(header::RETRY_AFTER) {
        counters.server_errors.fetch_add(1, Ordering::Relaxed);
    }
    response
}

/// `/live/{event}/…` and `/t/{ticket}/live/{event}/…`.
async fn to_listening(State(control): State<Arc<Control>>, request: Request) -> Result<Response, Problem> {
    let path = request.uri().path();
    let live = match path.strip_prefix("/t/") {
        Some(rest) => rest.split_once('/').map(|(_, rest)| rest),
        None => path.strip_prefix('/'),
    };
    let rest = live.and_then(|live| live.strip_prefix("live/")).and_then(|live| live.split_once('/'));
    let Some((_, rest)) = rest else { return Err(Problem::not_found()) };
    let door = of_live(rest);
    send(&control, door, request)
}

async fn to_stage(State(control): State<Arc<Control>>, request: Request) -> Result<Response, Problem> {
    send(&control, Door::Stage, request)
}

/// Recordings and clips of `/e/{event}/`.
async fn to_files(State(control): State<Arc<Control>>, request: Request) -> Result<Response, Problem> {
    let file = request.uri().path().rsplit('/').next().unwrap_or_default();
    if file == "clip" || file.starts_with("recording.") {
        send(&control, Door::Files, request)
    } else {
        Ok(pages::fallback(request).await)
    }
}

fn send(control: &Control, door: Door, request: Request) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let bases = api::bases(control, &head);
    redirect(bases.door(door)?, &head.uri)
}
