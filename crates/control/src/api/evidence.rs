//! What can be said of an event's load, and what it is said from.

use std::sync::Arc;

use admission::verdict::{Direction, Reason, Verdict};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use backend::problem::Problem;
use http::{HeaderValue, StatusCode, header};
use model::UnixTime;
use serde::Serialize;
use serde_json::Value;
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;

use super::At;
use super::types::ProblemView;
use crate::state::Control;

/// A verdict about ten seconds.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Verdict)]
pub(crate) struct VerdictView {
    /// `CROWD`, `L7`, `L3/4`, `SELF-INFLICTED`, `MIXED` or `INSUFFICIENT`.
    class: String,
    /// How well that is supported, 0 to 1. Below 0.8 it is not to be relied on.
    confidence: f64,
    /// When the ten seconds began.
    at: String,
    /// When this class began.
    since: String,
    /// Why.
    reasons: Vec<ReasonView>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Reason)]
pub(crate) struct ReasonView {
    /// Its name; the documentation says how it is computed.
    feature: Value,
    /// What it speaks for.
    sign: Value,
    /// What it was.
    value: u64,
    /// What it is compared with.
    threshold: u64,
    /// Whether it is at or above that, rather than below.
    above: bool,
}

impl From<&Verdict> for VerdictView {
    fn from(verdict: &Verdict) -> Self {
        let time = |ms: u64| UnixTime::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)).to_string();
        let reason = |reason: &Reason| ReasonView {
            feature: serde_json::to_value(reason.feature).unwrap_or_default(),
            sign: serde_json::to_value(reason.sign).unwrap_or_default(),
            value: reason.value,
            threshold: reason.threshold,
            above: reason.direction == Direction::Above,
        };
        Self {
            class: verdict.class.to_string(),
            confidence: verdict.confidence_bp as f64 / 1e4,
            at: time(verdict.at_ms.as_millis()),
            since: time(verdict.since_ms.as_millis()),
            reasons: verdict.reasons.iter().map(reason).collect(),
        }
    }
}

/// The verdict about the last ten seconds that were written. May be kept for five seconds.
#[utoipa::path(get, path = "/api/events/{event}/verdict", operation_id = "show_verdict", tag = "evidence", params(("event" = String, Path)),
    responses((status = 200, body = VerdictView), (status = 404, body = ProblemView)))]
pub(super) async fn verdict(State(control): State<Arc<Control>>, At(known): At) -> Result<Response, Problem> {
    let view = control.verdicts().latest(&known.event.slug).map(VerdictView::from);
    let view = view.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "no-verdict", "Nothing was written about this event yet")
    })?;
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=5"))], Json(view)).into_response())
}

/// The ledger as far as it is written: a signed line every ten seconds (`minassa verdict check`).
#[utoipa::path(get, path = "/api/events/{event}/ledger.jsonl", operation_id = "show_ledger", tag = "evidence", params(("event" = String, Path)),
    responses((status = 200, content_type = "application/jsonl"), (status = 404, body = ProblemView)))]
pub(super) async fn ledger(State(control): State<Arc<Control>>, At(known): At) -> Result<Response, Problem> {
    let path = crate::verdicts::Verdicts::path(&control.ledgers, &known.event.slug);
    let file = match tokio::fs::File::open(&path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "no-ledger",
                "Nothing was written about this event yet",
            ));
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a ledger cannot be read");
            return Err(Problem::internal());
        }
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/jsonl")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=5")),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}

/// The report of the event: while it runs its public status, afterwards what happened. Made from the ledger alone, at most
/// every five seconds, so `minassa report` makes the same from the ledger. Fields: `title`, `phase` (`running`, `closing`
/// or `final`), `version`, `event`, `thresholds`, `doors_at`, `announced_at`, `live_at`, `late_ms`, `ended_at`, `covers`,
/// `integrity`, `latest`, `totals`, `peaks`, `series` (at most 720 points), `ladder`, `measures`, `marks`, `ours`,
/// `classes`, `verdicts`. Lists of any length are `{items, left_out}`. Times are RFC 3339 in UTC.
#[utoipa::path(get, path = "/api/events/{event}/report.json", operation_id = "show_report", tag = "evidence", params(("event" = String, Path)),
    responses((status = 200, body = Value), (status = 404, body = ProblemView), (status = 503, body = ProblemView)))]
pub(super) async fn report(State(control): State<Arc<Control>>, At(known): At) -> Result<Response, Problem> {
    control.incidents.ask(&control, &known).await?.json()
}
