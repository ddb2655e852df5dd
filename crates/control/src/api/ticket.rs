//! Tickets: given to who comes in, a place in the waiting room to who has to wait.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use admission::challenge::SOLUTION_CHARS_MAX;
use admission::room::{ArriveError, Kind, MintCost, RoomState, Wait};
use admission::ticket::{Cell, Class, Ticket, TicketId, Tier};
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::clock;
use backend::http::{Client, Peer};
use backend::problem::Problem;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::{EventSlug, UnixTime};
use serde::Serialize;
use utoipa::ToSchema;

use super::challenge::{ChallengeView, challenged};
use super::types::{ProblemView, TicketView};
use super::{At, bases, runs_event, who};
use crate::challenges::{Gate, Newcomer};
use crate::doors::Door;
use crate::fields::{Fields, refused};
use crate::rooms::{Answer, Ask, DoorState, Place};
use crate::state::{Control, Counters};

/// Longest token or ticket that is looked at, characters: longer than any there is.
const TEXT_CHARS_MAX: usize = 512;
const TOKEN: &str = "the token of a place in the waiting room, as it was answered";
const TICKET: &str = "a ticket, as it was answered";
const SOLUTION: &str = "the base64 of a solution as ALTCHA's clients write it, at most 2048 characters";

/// What somebody who asks may show. The body may be missing.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TicketRequest)]
pub(crate) struct TicketRequestBody {
    /// The token of a place in the waiting room.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) token: Option<String>,
    /// A ticket that still opens doors, to be renewed: whoever listens is let in again whatever the ladder says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) ticket: Option<String>,
    /// What was found for the challenge that was answered, as ALTCHA's clients write it: base64 of JSON with `algorithm`,
    /// `salt`, `challenge`, `signature` and `number`; without `number` by who waited instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) solution: Option<String>,
}

/// A place in the waiting room.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WaitingPlace)]
pub(crate) struct WaitingView {
    /// To be kept and shown again: who leaves and returns with it has the place still.
    token: String,
    state: RoomStateName,
    /// People ahead; null until the draw is held.
    place: Option<u64>,
    /// The turn comes in so many seconds at the earliest; null where nothing can be said.
    low_s: Option<u64>,
    /// And at the latest.
    high_s: Option<u64>,
    /// When to ask again, seconds.
    retry_after: u64,
    /// Playlist of the delayed feed, to be heard meanwhile, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    delayed: Option<String>,
    /// Whether the place is decided by the draw at doors.
    early: bool,
    /// The token's identity, base64url, and the group of networks it came from: what a page needs to find its rank in the
    /// draw. Not repeated when a token is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tag: Option<u32>,
    /// Place in the whole line, counted from its beginning, of who came after doors: `queue.json` says how far the line
    /// has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    line: Option<u64>,
}

/// Where a room stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RoomState)]
pub(crate) enum RoomStateName {
    /// Not drawn yet: whoever comes takes part.
    Gathering,
    /// Nobody waits whose turn has not come.
    Clear,
    /// People wait, and their turns come.
    Moving,
    /// People wait and nobody's turn comes: nothing can be said about time.
    Still,
    /// The event is over; the recording is there.
    Ended,
}

impl From<RoomState> for RoomStateName {
    fn from(state: RoomState) -> Self {
        match state {
            RoomState::Gathering => Self::Gathering,
            RoomState::Clear => Self::Clear,
            RoomState::Moving => Self::Moving,
            RoomState::Still => Self::Still,
            RoomState::Ended => Self::Ended,
        }
    }
}

/// Asks for a way in.
#[utoipa::path(post, path = "/api/events/{event}/ticket", operation_id = "issue_ticket", tag = "listening", request_body = TicketRequestBody,
    params(("event" = String, Path)),
    responses(
        (status = 200, body = TicketView), (status = 202, body = WaitingView, headers(("Retry-After" = u64))),
        (status = 400, body = ProblemView), (status = 401, body = ChallengeView), (status = 403, body = ProblemView),
        (status = 404, body = ProblemView), (status = 422, body = ProblemView), (status = 429, body = ProblemView), (status = 503, body = ProblemView)),
    security((), ("operator" = []), ("invitation" = [])))]
pub(super) async fn issue(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let slug = &known.event.slug;
    let shown = shown(&head.headers, body).await?;
    let now = clock::unix_now();
    let (id, class) = if let Some(text) = shown.ticket {
        renewed(&control, &text, slug, now)?
    } else if who(&control, &head, Some(&known.event)).is_ok_and(|caller| caller.runs_event()) {
        (TicketId(rand::random()), Class::Host)
    } else {
        let address = head.extensions.get::<Peer>().map(|peer| peer.0.ip());
        let address = address.unwrap_or(IpAddr::from(Ipv4Addr::LOCALHOST));
        let standing = control.standing(&known.event);
        let doors = DoorState::of(&standing, now);
        let placed = shown.token.is_some();
        let gate = if doors == DoorState::Over {
            Gate::Open
        } else {
            let newcomer = Newcomer { address, placed, solution: shown.solution.as_deref() };
            control.challenges.gate(slug, newcomer, standing.level, now)
        };
        // Who waits asks again and again, and is one; who comes with an answer was counted when they were challenged.
        if !placed && !matches!(gate, Gate::Paid(_)) {
            Counters::add(&control.counters.asked);
            control.arrivals.count(address, head.extensions.get().map(|Client(fingerprint)| *fingerprint));
        }
        let paid = match gate {
            Gate::Open => MintCost::default(),
            Gate::Paid(cost) => cost,
            Gate::Closed { maxnumber, refusal } => {
                let challenge = control.challenges.ask(slug, address, maxnumber, rand::random(), now);
                return Ok(challenged(challenge, refusal));
            }
        };
        let ask =
            Ask { token: shown.token.as_deref(), address, paid, id: rand::random(), jitter: rand::random() };
        let answer = control.rooms().ask(slug, ask, doors, now);
        match answer {
            Answer::Enter(id) => (id, Class::Holder),
            Answer::Wait(place) => return Ok(waiting(&control, slug, *place)),
            // The doors send them on to the recording.
            Answer::Ended | Answer::NoToken(ArriveError::Ended) => (TicketId(rand::random()), Class::Holder),
            Answer::Refused(error) => {
                Counters::add(&control.counters.tokens_refused);
                let problem = Problem::new(
                    StatusCode::FORBIDDEN,
                    "room-token",
                    "The token is no place in this waiting room",
                );
                return Err(problem.detail(error.to_string()));
            }
            Answer::HadShare => {
                Counters::add(&control.counters.had_share);
                let problem = Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "network-share",
                    "Many come from your network at the moment",
                );
                let seconds = HeaderValue::from(rand::random_range(3..=10_u32));
                return Err(problem.header(header::RETRY_AFTER, seconds).detail("ask again after a while"));
            }
            Answer::NoToken(_) | Answer::Full => {
                Counters::add(&control.counters.turned_away);
                return Err(Problem::unavailable(
                    "there is no place to wait for this event at the moment",
                    rand::random_range(10..=20),
                ));
            }
        }
    };
    let bases = bases(&control, &head);
    let (push, files) = (bases.door(Door::Push)?, bases.door(Door::Files)?);
    let (ticket, text) = issue_ticket(&control, slug, id, class, now);
    let view = TicketView {
        push: format!("{push}/t/{text}/live/{slug}/"),
        hls: format!("{files}/t/{text}/live/{slug}/index.m3u8"),
        tier: ticket.tier.parts(),
        expires: ticket.expires.to_string(),
        ticket: text,
    };
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(view)).into_response())
}

/// A ticket that is to open no door any more.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Revocation)]
pub(crate) struct RevocationBody {
    /// The ticket, as it was answered.
    pub(crate) ticket: String,
}

/// Revokes a ticket. Who listens on it is closed within five seconds, at every edge; its renewals have the same identity
/// and end with it.
#[utoipa::path(post, path = "/api/events/{event}/revocations", operation_id = "revoke_ticket", tag = "listening", request_body = RevocationBody,
    params(("event" = String, Path)),
    responses(
        (status = 204), (status = 400, body = ProblemView), (status = 401, body = ProblemView),
        (status = 403, body = ProblemView), (status = 404, body = ProblemView), (status = 422, body = ProblemView),
        (status = 507, body = ProblemView)),
    security(("operator" = []), ("invitation" = [])))]
pub(super) async fn revoke(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (head, body) = request.into_parts();
    runs_event(&control, &head, &known.event)?;
    let mut fields = Fields::of(&head.headers, body).await?;
    let text = fields.take("ticket", TICKET, |value| value.as_str().map(str::to_owned));
    if text.is_none() {
        fields.miss("ticket", TICKET);
    }
    fields.finish()?;
    let now = clock::unix_now();
    let cell = Cell(control.config.cell);
    let checked = control.tickets().check(&text.unwrap_or_default(), &known.event.slug, cell, now);
    let ticket = checked.map_err(|error| refused().detail(format!("the ticket opens no door: {error}")))?;
    // It may have been renewed since.
    let expires = now.plus(Duration::from_secs(control.config.ticket_s)).max(ticket.expires);
    control.revoke(ticket.id, expires).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Writes a ticket.
pub(crate) fn issue_ticket(
    control: &Control,
    event: &EventSlug,
    id: TicketId,
    class: Class,
    now: UnixTime,
) -> (Ticket, String) {
    // Tickets speak of whole seconds; who tells when it expires says the same moment.
    let expires = now.plus(Duration::from_secs(control.config.ticket_s)).as_millis() / 1_000;
    let ticket = Ticket {
        event: event.clone(),
        cell: Cell(control.config.cell),
        tier: Tier::ONE,
        class,
        expires: UnixTime::from_millis(expires * 1_000),
        id,
    };
    let text = control.tickets().issue(&ticket);
    Counters::add(&control.counters.tickets);
    (ticket, text)
}

#[derive(Default)]
struct Shown {
    token: Option<String>,
    ticket: Option<String>,
    solution: Option<String>,
}

/// What is shown. A body that is not said to be JSON is not read, so that the plainest request has a way in.
async fn shown(headers: &HeaderMap, body: Body) -> Result<Shown, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Ok(Shown::default());
    }
    let mut fields = Fields::small(headers, body).await?;
    let mut text = |key, allowed, most| {
        fields.take(key, allowed, |value| value.as_str().filter(|text| text.len() <= most).map(str::to_owned))
    };
    let shown = Shown {
        token: text("token", TOKEN, TEXT_CHARS_MAX),
        ticket: text("ticket", TICKET, TEXT_CHARS_MAX),
        solution: text("solution", SOLUTION, SOLUTION_CHARS_MAX),
    };
    fields.finish()?;
    Ok(shown)
}

/// A ticket that still opens doors goes on under its identity and in its class.
fn renewed(
    control: &Control,
    text: &str,
    event: &EventSlug,
    now: UnixTime,
) -> Result<(TicketId, Class), Problem> {
    let checked = control.tickets().check(text, event, Cell(control.config.cell), now);
    let why = match checked {
        Ok(ticket) if control.sessions().revoked().contains_key(&ticket.id) => "it was revoked".to_owned(),
        Ok(ticket) => {
            Counters::add(&control.counters.renewed);
            return Ok((ticket.id, ticket.class));
        }
        Err(error) => error.to_string(),
    };
    Counters::add(&control.counters.tokens_refused);
    Err(Problem::new(StatusCode::FORBIDDEN, "ticket", "The ticket cannot be renewed").detail(why))
}

fn waiting(control: &Control, event: &EventSlug, place: Place) -> Response {
    Counters::add(&control.counters.waits);
    let Place { token, says, estimate, delay, queue } = place;
    let (low_s, high_s) = match estimate.wait {
        Wait::Unknown => (None, None),
        Wait::Between { low_s, high_s } => (Some(low_s), Some(high_s)),
    };
    let retry_after = delay.as_secs().max(1);
    let line = says.as_ref().and_then(|token| match token.kind {
        Kind::Late { place } => Some(place),
        Kind::Early => None,
    });
    let view = WaitingView {
        token,
        state: queue.state.into(),
        place: estimate.ahead,
        low_s,
        high_s,
        retry_after,
        // Before doors there is nothing to hear.
        delayed: (queue.state != RoomState::Gathering).then(|| control.config.delayed(event)).flatten(),
        early: says.as_ref().is_some_and(|token| token.kind == Kind::Early),
        id: says.as_ref().map(|token| URL_SAFE_NO_PAD.encode(token.id.0)),
        tag: says.as_ref().map(|token| token.tag.number()),
        line,
    };
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::RETRY_AFTER, HeaderValue::from(retry_after)),
    ];
    (StatusCode::ACCEPTED, headers, Json(view)).into_response()
}
