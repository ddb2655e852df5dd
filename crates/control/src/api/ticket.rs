//! Tickets.

use std::sync::Arc;
use std::time::Duration;

use admission::ticket::{Cell, Class, Ticket, TicketId, Tier};
use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::clock;
use backend::problem::Problem;
use http::{HeaderValue, header};
use model::UnixTime;

use super::types::{ProblemView, TicketView};
use super::{At, bases};
use crate::doors::Door;
use crate::state::{Control, Counters};

/// Asks for a way in. The body, if there is one, is not read.
#[utoipa::path(post, path = "/api/events/{event}/ticket", operation_id = "issue_ticket", tag = "listening", params(("event" = String, Path)),
    responses(
        (status = 200, body = TicketView), (status = 404, body = ProblemView), (status = 503, body = ProblemView)))]
pub(super) async fn issue(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let bases = bases(&control, &head);
    let (push, files) = (bases.door(Door::Push)?, bases.door(Door::Files)?);
    let slug = &known.event.slug;
    let now = clock::unix_now();
    // Tickets speak of whole seconds; the answer says the same moment.
    let expires = now.plus(Duration::from_secs(control.config.ticket_s)).as_millis() / 1_000;
    let ticket = Ticket {
        event: slug.clone(),
        cell: Cell(control.config.cell),
        tier: Tier::ONE,
        class: Class::Holder,
        expires: UnixTime::from_millis(expires * 1_000),
        id: TicketId(rand::random()),
    };
    let text = control.tickets().issue(&ticket);
    Counters::add(&control.counters.tickets);
    let view = TicketView {
        push: format!("{push}/t/{text}/live/{slug}/"),
        hls: format!("{files}/t/{text}/live/{slug}/index.m3u8"),
        tier: ticket.tier.parts(),
        expires: ticket.expires.to_string(),
        ticket: text,
    };
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(view)).into_response())
}
