//! How an event stands, for everyone.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use backend::clock;

use super::At;
use super::events::freshness;
use super::types::{ProblemView, StatusView};
use crate::state::Control;

/// How an event stands. May be kept for a second.
#[utoipa::path(get, path = "/api/events/{event}/status", operation_id = "show_status", tag = "listening", params(("event" = String, Path)),
    responses((status = 200, body = StatusView), (status = 404, body = ProblemView)))]
pub(super) async fn show(State(control): State<Arc<Control>>, At(known): At) -> Response {
    let view = StatusView::new(&known.event, &control.standing(&known.event), clock::unix_now());
    (freshness(false), Json(view)).into_response()
}
