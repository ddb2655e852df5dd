//! Events: made, listed, shown, changed.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::clock;
use backend::problem::Problem;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::{Event, EventSlug, Role, Seat, SeatId, ShowState, UnixTime};

use super::input::{self, EventChangeBody, NewEvent, NewEventBody};
use super::invites::{fresh_id, stage_link, token};
use super::types::{CreatedView, EventList, EventView, InviteTokens, ProblemView};
use super::{At, bases, operator_only, who};
use crate::state::{Control, Known};
use crate::{calendar, slug};

/// Events in one answer.
const LIST_MAX: usize = 200;
/// Numbers tried behind a name that is taken.
const NUMBERS_MAX: u32 = 50;

/// Lists events, the latest start first, at most 200.
#[utoipa::path(get, path = "/api/events", operation_id = "list_events", tag = "events",
    responses((status = 200, body = EventList), (status = 401, body = ProblemView)),
    security((), ("operator" = [])))]
pub(super) async fn list(State(control): State<Arc<Control>>, request: Request) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let manage = who(&control, &head, None)?.runs_event();
    let (bases, now) = (bases(&control, &head), clock::unix_now());
    let views = control
        .events(LIST_MAX)
        .into_iter()
        .map(|known| EventView::new(&known, &control.standing(&known.event), &bases, manage, now));
    let events = EventList { events: views.collect() };
    Ok((freshness(manage), Json(events)).into_response())
}

/// Makes an event with a host's seat and one for each speaker, and answers with its links.
#[utoipa::path(post, path = "/api/events", operation_id = "create_event", tag = "events", request_body = NewEventBody,
    responses(
        (status = 201, body = CreatedView, headers(("Location" = String), ("ETag" = String))),
        (status = 400, body = ProblemView), (status = 401, body = ProblemView),
        (status = 409, description = "The slug is taken.", body = ProblemView),
        (status = 413, body = ProblemView), (status = 415, body = ProblemView),
        (status = 422, body = ProblemView), (status = 507, body = ProblemView)),
    security(("operator" = [])))]
pub(super) async fn create(
    State(control): State<Arc<Control>>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    operator_only(&control, &head)?;
    let now = clock::unix_now();
    let new = input::read_new(&head.headers, body, now).await?;
    let known = add(&control, new, now).await?;
    let event = &known.event;
    control.wait_taken_in(event).await;
    let (bases, standing) = (bases(&control, &head), control.standing(event));
    let seat_tokens: Vec<_> = event.seats.iter().map(|seat| token(&control, event, seat)).collect();
    let link = |token: &String| stage_link(&bases, &event.slug, token);
    let Some((host, speakers)) = seat_tokens.split_first() else {
        unreachable!("every event is made with a host's seat")
    };
    let created = CreatedView {
        event: event.slug.to_string(),
        listen: format!("{}/e/{}", bases.public, event.slug),
        host: link(host),
        speakers: speakers.iter().map(link).collect(),
        console: format!("{}/console", bases.public),
        invites: InviteTokens { host: host.clone(), speakers: speakers.to_vec() },
        starts_at: event.starts_at.to_string(),
        doors_at: standing.doors_at.to_string(),
        revision: event.revision,
    };
    let location = format!("/api/events/{}", event.slug);
    let headers = [
        (header::LOCATION, HeaderValue::try_from(location).expect("a slug is ASCII")),
        (header::ETAG, etag(event)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((StatusCode::CREATED, headers, Json(created)).into_response())
}

/// Shows an event; to the operator and the host also what they alone see.
#[utoipa::path(get, path = "/api/events/{event}", operation_id = "show_event", tag = "events", params(("event" = String, Path)),
    responses(
        (status = 200, body = EventView, headers(("ETag" = String))),
        (status = 401, body = ProblemView), (status = 403, body = ProblemView), (status = 404, body = ProblemView)),
    security((), ("operator" = []), ("invitation" = [])))]
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let manage = who(&control, &head, Some(&known.event))?.runs_event();
    Ok(view(&control, &known, &head, manage))
}

/// Changes an event.
#[utoipa::path(patch, path = "/api/events/{event}", operation_id = "change_event", tag = "events", request_body = EventChangeBody,
    params(("event" = String, Path), ("If-Match" = Option<String>, Header, description = "The `ETag` it must have.")),
    responses(
        (status = 200, body = EventView, headers(("ETag" = String))),
        (status = 400, body = ProblemView), (status = 401, body = ProblemView), (status = 404, body = ProblemView),
        (status = 409, description = "The show has begun or is over.", body = ProblemView),
        (status = 412, description = "It was changed in between.", body = ProblemView),
        (status = 413, body = ProblemView), (status = 415, body = ProblemView), (status = 422, body = ProblemView)),
    security(("operator" = [])))]
pub(super) async fn change(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    operator_only(&control, &head)?;
    let change = input::read_change(&head.headers, body, clock::unix_now()).await?;
    let standing = control.standing(&known.event);
    let moves = change.starts_at.is_some_and(|start| start != known.event.starts_at);
    if moves && !matches!(standing.state, ShowState::Scheduled | ShowState::Doors) {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "already-begun",
            "The start cannot be moved any more",
        )
        .detail(format!("the show is {}", standing.state.name())));
    }
    let changed = control.change(&known.event.slug, |event| {
        if_match(&head.headers, event)?;
        change.apply(event);
        Ok(())
    });
    let changed = changed.await?;
    Ok(view(&control, &changed, &head, true))
}

/// The event as a calendar file.
pub(crate) async fn calendar(
    State(control): State<Arc<Control>>,
    At(known): At,
    request: Request,
) -> Result<Response, Problem> {
    let (head, _) = request.into_parts();
    let bases = bases(&control, &head);
    let event = &known.event;
    let accept = head.headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let title = match web::negotiate_language(head.uri.query(), accept) {
        web::Language::Ar if !event.title.ar.is_empty() => &event.title.ar,
        _ if !event.title.en.is_empty() => &event.title.en,
        _ => &event.title.ar,
    };
    let page = format!("{}/e/{}", bases.public, event.slug);
    let host = bases.public.split("://").nth(1).unwrap_or("minassa");
    let file = calendar::render(event, title, &page, host, clock::unix_now());
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/calendar; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60")),
        (header::VARY, HeaderValue::from_static("accept-language")),
    ];
    Ok((headers, file).into_response())
}

async fn add(control: &Control, new: NewEvent, now: UnixTime) -> Result<Arc<Known>, Problem> {
    if let Some(slug) = &new.slug {
        let event = build(control, slug.clone(), &new, now).await?;
        return control.create(event).await;
    }
    let title = if new.title.en.is_empty() { &new.title.ar } else { &new.title.en };
    let base = slug::suggested(title);
    let numbered = base.iter().flat_map(|base| (1..=NUMBERS_MAX).map(|number| slug::numbered(base, number)));
    // A title in a script we cannot spell, or one that everybody uses.
    let random = (0..NUMBERS_MAX).map(|_| random_slug());
    for slug in numbered.chain(random) {
        if control.event(&slug).is_none() {
            match control.create(build(control, slug, &new, now).await?).await {
                Err(problem) if problem.status() == StatusCode::CONFLICT => {}
                created => return created,
            }
        }
    }
    Err(Problem::new(StatusCode::CONFLICT, "slug-taken", "No free name could be made from the title")
        .invalid("slug", "", "a name that no event has"))
}

async fn build(control: &Control, slug: EventSlug, new: &NewEvent, now: UnixTime) -> Result<Event, Problem> {
    let (keys, named) = (control.keys.clone(), slug.clone());
    let made = tokio::task::spawn_blocking(move || keys.event(&named)).await;
    let key = made.map_err(|_| Problem::internal())?.map_err(|error| {
        tracing::error!(%error, "cannot make an event's key");
        Problem::unavailable("a key could not be written; nothing was changed", 5)
    })?;
    let host =
        Seat { id: SeatId(0), role: Role::Host, name: String::new(), invite: fresh_id(), revoked: false };
    let speakers = new.speakers.iter().zip(1..).map(|(name, id)| Seat {
        id: SeatId(id),
        role: Role::Speaker,
        name: name.clone(),
        invite: fresh_id(),
        revoked: false,
    });
    Ok(Event {
        slug,
        revision: 1,
        title: new.title.clone(),
        starts_at: new.starts_at,
        duration: new.duration,
        doors_before: new.doors_before,
        auto_live: new.auto_live,
        green_room: new.green_room,
        hold_on_silence: new.hold_on_silence,
        slate: None,
        invite_key: control.invite_key.verifying_key().to_bytes(),
        signing_key: key.verifying_key().to_bytes(),
        seats: std::iter::once(host).chain(speakers).collect(),
        created_at: now,
    })
}

fn random_slug() -> EventSlug {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let name = rand::random::<[u8; 8]>().map(|byte| LETTERS[usize::from(byte % 32)]);
    let name = String::from_utf8_lossy(&name);
    format!("talk-{name}").parse().expect("made of what a name may have")
}

fn view(control: &Control, known: &Known, head: &http::request::Parts, manage: bool) -> Response {
    let view = EventView::new(
        known,
        &control.standing(&known.event),
        &bases(control, head),
        manage,
        clock::unix_now(),
    );
    ([(header::ETAG, etag(&known.event))], freshness(manage), Json(view)).into_response()
}

/// How long an answer may be kept. What everyone sees may be a second old.
pub(super) fn freshness(private: bool) -> [(http::HeaderName, HeaderValue); 2] {
    let value = if private { "no-store" } else { "public, max-age=1" };
    [
        (header::CACHE_CONTROL, HeaderValue::from_static(value)),
        (header::VARY, HeaderValue::from_static("authorization, host")),
    ]
}

/// Names the revision. It changes with what can be changed here, not with what only passes (state, listeners): it is
/// for `If-Match`, and answers are not revalidated with it.
fn etag(event: &Event) -> HeaderValue {
    HeaderValue::try_from(format!("\"r{}\"", event.revision)).expect("digits are ASCII")
}

/// RFC 9110, 13.1.1.
pub(super) fn if_match(headers: &HeaderMap, event: &Event) -> Result<(), Problem> {
    let Some(condition) = headers.get(header::IF_MATCH) else { return Ok(()) };
    let ours = etag(event);
    let given = condition.to_str().unwrap_or_default();
    let matches = given.split(',').map(str::trim).any(|tag| tag == "*" || tag.as_bytes() == ours.as_bytes());
    if matches {
        return Ok(());
    }
    let problem =
        Problem::new(StatusCode::PRECONDITION_FAILED, "changed", "The event was changed in between");
    Err(problem.invalid("if-match", given, ours.to_str().unwrap_or_default()))
}
