//! Invitations: made and withdrawn.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::problem::Problem;
use http::{HeaderValue, StatusCode, header};
use model::{Event, EventSlug, InviteId, Role, Seat, SeatId, UnixTime};
use stage::invite::{self, Invite};

use super::input::{self, NewInviteBody};
use super::types::{InviteView, ProblemView};
use super::{At, bases, named, runs_event};
use crate::auth::{Caller, forbidden};
use crate::doors::Bases;
use crate::fields::refused;
use crate::publicity::hex;
use crate::state::Control;

/// Seats of one event, withdrawn ones included.
const SEATS_MAX: usize = 256;

/// Makes an invitation: for a new seat, or anew for one there is.
#[utoipa::path(post, path = "/api/events/{event}/invites", operation_id = "create_invite", tag = "invitations", request_body = NewInviteBody,
    params(("event" = String, Path)),
    responses(
        (status = 201, body = InviteView, headers(("Location" = String))),
        (status = 400, body = ProblemView), (status = 401, body = ProblemView), (status = 403, body = ProblemView),
        (status = 404, body = ProblemView), (status = 409, body = ProblemView), (status = 422, body = ProblemView)),
    security(("operator" = []), ("invitation" = [])))]
pub(super) async fn create(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let caller = runs_event(&control, &head, &known.event)?;
    let new = input::read_invite(&head.headers, body).await?;
    let mut made = None;
    let changed = control.change(&known.event.slug, |event| {
        let seat = match new.seat {
            Some(id) => {
                let seat = event.seats.iter_mut().find(|seat| seat.id == id);
                let seat = seat.ok_or_else(|| {
                    refused().invalid("seat", &id.0.to_string(), "the number of a seat of this event")
                })?;
                let role = new.role.unwrap_or(seat.role);
                allow(&caller, seat.role)?;
                allow(&caller, role)?;
                let name = new.name.unwrap_or_else(|| std::mem::take(&mut seat.name));
                *seat = Seat { id, role, name, invite: fresh_id(), revoked: false };
                seat.clone()
            }
            None => {
                let role = new.role.unwrap_or(Role::Speaker);
                allow(&caller, role)?;
                let name = new.name.unwrap_or_default();
                let seat = Seat { id: next_seat(event)?, role, name, invite: fresh_id(), revoked: false };
                event.seats.push(seat.clone());
                seat
            }
        };
        made = Some(seat);
        Ok(())
    });
    let known = changed.await?;
    let (event, seat) = (&known.event, made.ok_or_else(Problem::internal)?);
    let token = token(&control, event, &seat);
    let view = InviteView {
        invite: hex(&seat.invite.0),
        seat: seat.id.0,
        role: seat.role.name(),
        link: stage_link(&bases(&control, &head), &event.slug, &token),
        expires: expiry(&control, event).to_string(),
        name: seat.name,
        token,
    };
    let location = format!("/api/events/{}/invites/{}", event.slug, view.invite);
    let headers = [
        (header::LOCATION, HeaderValue::try_from(location).expect("a slug and digits are ASCII")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((StatusCode::CREATED, headers, Json(view)).into_response())
}

/// Withdraws an invitation. Whoever came in with it is shown out.
#[utoipa::path(delete, path = "/api/events/{event}/invites/{invite}", operation_id = "revoke_invite", tag = "invitations",
    params(("event" = String, Path), ("invite" = String, Path, description = "Its identity, 16 hexadecimal digits.")),
    responses(
        (status = 204), (status = 401, body = ProblemView), (status = 403, body = ProblemView),
        (status = 404, body = ProblemView)),
    security(("operator" = []), ("invitation" = [])))]
pub(super) async fn revoke(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (mut head, _) = request.into_parts();
    let caller = runs_event(&control, &head, &known.event)?;
    let id = named(&mut head, &control, "invite").await?;
    let changed = control.change(&known.event.slug, |event| {
        let seat = event.seats.iter_mut().find(|seat| hex(&seat.invite.0) == id);
        let seat =
            seat.ok_or_else(|| {
                Problem::new(StatusCode::NOT_FOUND, "unknown-invite", "The event has no such invitation")
                    .invalid("invite", &id, "the identity of an invitation, 16 hexadecimal digits")
            })?;
        allow(&caller, seat.role)?;
        seat.revoked = true;
        Ok(())
    });
    changed.await.map(|_| StatusCode::NO_CONTENT)
}

/// Hosts are the operator's business; everyone else is the hosts' too.
fn allow(caller: &Caller, role: Role) -> Result<(), Problem> {
    if role == Role::Host && *caller != Caller::Operator {
        return Err(forbidden("the operator alone invites hosts and withdraws their invitations"));
    }
    Ok(())
}

fn next_seat(event: &Event) -> Result<SeatId, Problem> {
    let next = event.seats.iter().map(|seat| seat.id.0).max().map_or(0, |last| last.saturating_add(1));
    if event.seats.len() >= SEATS_MAX {
        let problem =
            Problem::new(StatusCode::CONFLICT, "too-many-seats", "The event has no room for more seats");
        return Err(problem.detail(format!("at most {SEATS_MAX}; name a seat to invite to it anew")));
    }
    Ok(SeatId(next))
}

/// An identity nobody can guess and nothing else has.
pub(super) fn fresh_id() -> InviteId {
    InviteId(rand::random())
}

/// The secret that opens a seat.
pub(super) fn token(control: &Control, event: &Event, seat: &Seat) -> String {
    let invite = Invite {
        event: event.slug.clone(),
        seat: seat.id,
        role: seat.role,
        id: seat.invite,
        expires: expiry(control, event),
    };
    invite::sign(&invite, &control.invite_key)
}

/// The stage's page at its own door, or at ours, which sends callers there, as long as its own is not known.
pub(super) fn stage_link(bases: &Bases, slug: &EventSlug, token: &str) -> String {
    let base = bases.stage.as_ref().unwrap_or(&bases.public);
    format!("{base}/e/{slug}/stage#{token}")
}

fn expiry(control: &Control, event: &Event) -> UnixTime {
    event.starts_at.plus(Duration::from_secs(control.config.invite_s))
}
