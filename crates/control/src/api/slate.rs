//! The custom slate.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::objects::ObjectKind;
use backend::problem::Problem;
use http::{StatusCode, header};
use programme::slate::{MAX_SLATE_BYTES, Slate, SlateError};

use super::events::if_match;
use super::types::{ProblemView, SlateView};
use super::{At, operator_only};
use crate::fields::read_body;
use crate::state::Control;

/// Sets the slate: audio in any common format, at most ten minutes and 64 MiB.
#[utoipa::path(put, path = "/api/events/{event}/slate", operation_id = "set_slate", tag = "events",
    request_body(content = Vec<u8>, content_type = "audio/*"), params(("event" = String, Path)),
    responses(
        (status = 200, body = SlateView), (status = 401, body = ProblemView), (status = 404, body = ProblemView),
        (status = 413, body = ProblemView),
        (status = 422, description = "No audio, too long, or silent.", body = ProblemView),
        (status = 503, description = "Another slate is being read.", body = ProblemView)),
    security(("operator" = [])))]
pub(super) async fn upload(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    operator_only(&control, &head)?;
    let announced =
        head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > MAX_SLATE_BYTES) {
        return Err(too_large());
    }
    let _place =
        control.slates.try_acquire().map_err(|_| Problem::unavailable("another slate is being read", 10))?;
    let file = read_body(body, MAX_SLATE_BYTES).await?;
    let copy = file.clone();
    let decoded =
        tokio::task::spawn_blocking(move || Slate::decode(&copy).map(|slate| slate.duration())).await;
    let duration = decoded.map_err(|_| Problem::internal())?.map_err(refused_slate)?;
    let key = control.objects.put(ObjectKind::Slate, file).await.map_err(|error| {
        tracing::error!(%error, "cannot keep a slate");
        Problem::unavailable("the slate could not be written; nothing was changed", 5)
    })?;
    let changed = control.change(&known.event.slug, |event| {
        if_match(&head.headers, event)?;
        event.slate = Some(key.digest);
        Ok(())
    });
    changed.await?;
    let view = SlateView { slate: key.digest.to_string(), duration_s: duration.as_secs_f64() };
    Ok(Json(view).into_response())
}

/// Goes back to the slate of the house.
#[utoipa::path(delete, path = "/api/events/{event}/slate", operation_id = "remove_slate", tag = "events", params(("event" = String, Path)),
    responses((status = 204), (status = 401, body = ProblemView), (status = 404, body = ProblemView)),
    security(("operator" = [])))]
pub(super) async fn remove(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (head, _) = request.into_parts();
    operator_only(&control, &head)?;
    let changed = control.change(&known.event.slug, |event| {
        if_match(&head.headers, event)?;
        event.slate = None;
        Ok(())
    });
    changed.await.map(|_| StatusCode::NO_CONTENT)
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The slate is too large")
        .detail(format!("at most {MAX_SLATE_BYTES} bytes are allowed"))
}

fn refused_slate(error: SlateError) -> Problem {
    match error {
        SlateError::TooLarge { .. } => too_large(),
        error => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-slate", "The slate cannot be used")
            .detail(error.to_string())
            .invalid("body", "", "audio that is not silent, at most ten minutes"),
    }
}
