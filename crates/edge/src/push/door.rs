//! Who is let in at the push door: a request in, an answer or a listener out.

#![expect(clippy::result_large_err, reason = "a refusal is an answer like any other, made once a request")]

use std::sync::Arc;

use admission::ladder::Priority;
use admission::sessions::SessionError;
use admission::ticket::{Class, Ticket, TicketId};
use archive::ArchiveError;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use backend::clock;
use backend::problem::Problem;
use fanout::{Container, Start, Tier};
use formats::mp3::icy::METAINT;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header, request};

use crate::address::{self, PushAddress};
use crate::answer::{self, NEVER, cached};
use crate::channel::{Channel, Live, Phase};
use crate::recordings::ReadError;
use crate::shared::{Shared, count};

use super::hall::Asked;

/// What a request comes to.
pub(crate) enum Verdict {
    /// Listens from now on.
    Listen(Box<Admitted>),
    /// Is answered, and the connection closed.
    Answer(Response),
    /// Is told how an endless answer would begin.
    Head { response: Response, chunked: bool },
    /// Nobody knows yet: ask again when something has changed.
    Later,
    /// The disk knows: [`ask_disk`].
    Disk,
}

/// Somebody who was let in.
pub(crate) struct Admitted {
    pub(crate) live: Arc<Live>,
    pub(crate) asked: Asked,
    /// The ticket they came in on.
    pub(crate) ticket: Option<TicketId>,
    pub(crate) container: Container,
    pub(crate) start: Start,
    /// The title, for a player that wants it between the audio.
    pub(crate) title: Option<String>,
    /// Whether the body goes in chunks.
    pub(crate) chunked: bool,
    /// The head of the answer.
    pub(crate) response: Response,
}

/// How a request is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// Whether the caller may still wait for a window that is being filled.
    pub(crate) patient: bool,
    /// Whether nothing was decided about it yet.
    pub(crate) is_new: bool,
    /// Whether not most of this door's connections are of the caller's network already.
    pub(crate) has_share: bool,
}

/// Decides about a request.
pub(crate) fn decide(shared: &Shared, head: &request::Parts, asking: Asking) -> Verdict {
    if let Some(response) = answer::other_method(&head.method) {
        return Verdict::Answer(response);
    }
    listen(shared, head, asking).unwrap_or_else(Verdict::Answer)
}

fn listen(shared: &Shared, head: &request::Parts, asking: Asking) -> Result<Verdict, Response> {
    let asked = asked(head)?;
    let ticket = check_ticket(shared, asked.ticket, &asked)?;
    if ticket.is_none() && asking.is_new && head.method == Method::GET {
        count(&shared.counters.newcomers);
    }
    // Who comes back to a restarted edge must not be told that the event does not exist, or is over.
    if !shared.is_oriented() {
        return Ok(Verdict::Later);
    }
    let Some(channel) = shared.channel(&asked.event) else { return Ok(Verdict::Disk) };
    let live = running(shared, &channel, &head.headers, &asked)?;
    if let Some(ticket) = &ticket {
        shared.sessions.check(ticket.id).map_err(|error| {
            count(&shared.counters.sessions_refused);
            let (status, kind) = match error {
                SessionError::Revoked => (StatusCode::FORBIDDEN, "ticket"),
                SessionError::TooMany => (StatusCode::TOO_MANY_REQUESTS, "sessions"),
            };
            refuse(Problem::new(status, kind, "The ticket does not open this door").detail(error.to_string()))
        })?;
    }
    let priority = priority(ticket.as_ref(), asked.from.is_some());
    if let Some(why) = shared.refusal(priority).or_else(|| crowded_out(shared, priority, asking)) {
        // The page has a waiting room of its own.
        let is_plain = ticket.is_none() || asked.container != Container::Mp4;
        let delayed =
            is_plain.then(|| answer::to_delayed(shared, &asked.event, Some(asked.rendition))).flatten();
        return Err(delayed.unwrap_or_else(|| refuse(Problem::unavailable(why, answer::retry_after()))));
    }
    let start = asked.from.map_or(Start::Live, Start::From);
    {
        let window = live.window();
        // A window without parts is not waited for: the response begins, and tells how it stands.
        if asking.patient && window.newest().is_some() && !window.is_settled() {
            return Ok(Verdict::Later);
        }
        start.check(&window).map_err(|future| {
            let newest = format!("0 to {}; the newest part is {}", future.newest.next(), future.newest);
            refuse(
                Problem::new(StatusCode::BAD_REQUEST, "future-part", "This part does not exist yet").invalid(
                    "from",
                    &future.asked.to_string(),
                    &newest,
                ),
            )
        })?;
    }
    let title = wants_metadata(&asked, &head.headers).then(|| channel.facts().title());
    let mut response = Response::new(Body::empty());
    describe(&mut response, &asked, title.is_some());
    let chunked = head.version != Version::HTTP_10;
    if head.method == Method::HEAD {
        return Ok(Verdict::Head { response, chunked });
    }
    Ok(Verdict::Listen(Box::new(Admitted {
        asked: Asked {
            rendition: asked.rendition,
            tier: tier(&asked, ticket.as_ref()),
            newcomer: priority > Priority::Listening,
        },
        ticket: ticket.map(|ticket| ticket.id),
        container: asked.container,
        start,
        title,
        chunked,
        response,
        live,
    })))
}

fn asked(head: &request::Parts) -> Result<PushAddress<'_>, Response> {
    address::push(head.uri.path(), head.uri.query()).map_err(refuse)
}

fn refuse(problem: impl Into<Problem>) -> Response {
    problem.into().into_response()
}

/// What to say of an event this edge was never told of. It may still have been recorded.
pub(crate) async fn ask_disk(shared: &Shared, head: &request::Parts) -> Response {
    let asked = match asked(head) {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    match shared.recordings.with(&asked.event, |recording| Ok(recording.is_finished())).await {
        Ok(true) => to_recording(shared, &head.headers, &asked),
        // It may go on as soon as origin does.
        Ok(false) => refuse(Problem::unavailable("nothing is heard of this event at the moment", 2)),
        Err(ReadError::Archive(ArchiveError::NotFound(_))) => {
            refuse(Problem::unknown_event(asked.event.as_str()))
        }
        Err(error) => refuse(error),
    }
}

/// Too many ask the disk, or it does not answer.
pub(crate) fn busy() -> Response {
    refuse(Problem::unavailable("the disk does not answer at the moment", 2))
}

fn check_ticket(
    shared: &Shared,
    text: Option<&str>,
    asked: &PushAddress<'_>,
) -> Result<Option<Ticket>, Response> {
    text.map(|text| shared.check_ticket(text, &asked.event)).transpose().map_err(|error| {
        refuse(
            Problem::new(StatusCode::FORBIDDEN, "ticket", "The ticket does not open this door")
                .detail(error.to_string()),
        )
    })
}

/// The window to listen to; otherwise where to go instead, or when to come back.
fn running(
    shared: &Shared,
    channel: &Channel,
    headers: &HeaderMap,
    asked: &PushAddress<'_>,
) -> Result<Arc<Live>, Response> {
    let now = clock::unix_now();
    let phase = channel.facts().phase(now);
    if let Some(live) = channel.live() {
        let (ended, empty, holds) = {
            let window = live.window();
            let ends = window.newest().map_or(0, |newest| newest.next().get());
            let holds = asked.from.is_some_and(|from| {
                window.oldest().is_some_and(|oldest| from >= oldest) && from.get() <= ends
            });
            (window.has_ended(), window.newest().is_none(), holds)
        };
        return match phase {
            // Who was cut off just before the end still gets the last words; everyone else gets the recording.
            _ if ended && !holds => Err(to_recording(shared, headers, asked)),
            Phase::Before { .. } if empty => Err(refuse(answer::not_yet(phase, now))),
            _ => Ok(live),
        };
    }
    match phase {
        Phase::Over => Err(to_recording(shared, headers, asked)),
        Phase::Before { .. } => Err(cached(answer::not_yet(phase, now), NEVER)),
        Phase::Running => {
            // Either its window is about to be made, or there are too many.
            Err(refuse(Problem::unavailable("the edge does not carry this event at the moment", 2)))
        }
    }
}

fn to_recording(shared: &Shared, headers: &HeaderMap, asked: &PushAddress<'_>) -> Response {
    let file = match asked.container {
        Container::Mp4 => format!("recording.{}.mp4", asked.rendition),
        Container::Ogg => "recording.ogg".to_owned(),
        Container::Mp3 => "recording.mp3".to_owned(),
    };
    answer::to_files(shared, headers, &asked.event, &file)
}

/// Whether those who are here of the caller's network are so many that what is left is for others. Who listened before is
/// not asked.
fn crowded_out(shared: &Shared, priority: Priority, asking: Asking) -> Option<&'static str> {
    if asking.has_share || priority < Priority::Holder {
        return None;
    }
    count(&shared.counters.refused_share);
    Some("most who listen here are of your network, and the places that are left are for others")
}

/// In which class somebody is served. Who shows a ticket and names a part has been listening; without a ticket everybody
/// is new.
fn priority(ticket: Option<&Ticket>, comes_back: bool) -> Priority {
    match ticket.map(|ticket| ticket.class) {
        Some(Class::Host) => Priority::Host,
        Some(Class::Holder) if comes_back => Priority::Listening,
        Some(Class::Holder) => Priority::Holder,
        Some(Class::Newcomer) | None => Priority::Newcomer,
    }
}

/// What was asked for, but no faster than the ticket allows.
fn tier(asked: &PushAddress<'_>, ticket: Option<&Ticket>) -> Tier {
    let allowed = ticket.and_then(|ticket| Tier::new(ticket.tier.parts())).unwrap_or(Tier::ONE);
    asked.tier.map_or(allowed, |tier| tier.max(allowed))
}

fn wants_metadata(asked: &PushAddress<'_>, headers: &HeaderMap) -> bool {
    asked.container == Container::Mp3
        && headers.get("icy-metadata").is_some_and(|value| value.as_bytes().trim_ascii() == b"1")
}

fn describe(response: &mut Response, asked: &PushAddress<'_>, titled: bool) {
    let headers = response.headers_mut();
    let kind = match asked.container {
        Container::Mp4 => "audio/mp4",
        Container::Ogg => "audio/ogg; codecs=opus",
        Container::Mp3 => "audio/mpeg",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, NEVER);
    if titled {
        headers.insert("icy-metaint", HeaderValue::from(METAINT));
        headers.insert("icy-br", HeaderValue::from(asked.rendition.bits_per_second() / 1_000));
    }
}
