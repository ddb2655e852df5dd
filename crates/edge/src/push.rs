//! The push door: one long response a listener.

#![expect(clippy::result_large_err, reason = "a refusal is an answer like any other, made once a request")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use admission::ticket::Ticket;
use archive::ArchiveError;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::clock;
use backend::problem::Problem;
use bytes::Bytes;
use fanout::{Container, Cursor, Output, Skips, Start, Step, Tier};
use formats::mp3::icy::{Interleaver, METAINT, TitleBlock};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::Rendition;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::address::{self, PushAddress};
use crate::answer::{self, NEVER, cached};
use crate::channel::{Channel, Live, Phase};
use crate::recordings::ReadError;
use crate::shared::{Shared, count};

/// Longest wait for a window that is just being filled.
const SETTLE: Duration = Duration::from_secs(3);

/// Everything at the push door.
pub(crate) async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let mut response = match answer::other_method(&head.method) {
        Some(response) => response,
        None => listen(&shared, &head).await.unwrap_or_else(|refusal| refusal),
    };
    answer::shared_headers(&mut response);
    response
}

async fn listen(shared: &Arc<Shared>, head: &http::request::Parts) -> Result<Response, Response> {
    let uri = &head.uri;
    let asked = address::push(uri.path(), uri.query()).map_err(refuse)?;
    let ticket = check_ticket(shared, asked.ticket, &asked)?;
    shared.oriented().await;
    let Some(channel) = shared.channel(&asked.event) else {
        return Err(unknown(shared, &head.headers, &asked).await);
    };
    let live = running(shared, &channel, &head.headers, &asked).await?;
    let place = Place::take(shared, &live)?;
    wait_until_settled(&live).await;

    let tier = tier(&asked, ticket.as_ref());
    let start = asked.from.map_or(Start::Live, Start::From);
    let opened = Cursor::open(&live.window(), asked.rendition, asked.container, tier, start);
    let cursor = opened.map_err(|future| {
        let newest = format!("0 to {}; the newest part is {}", future.newest.next(), future.newest);
        refuse(Problem::new(StatusCode::BAD_REQUEST, "future-part", "This part does not exist yet").invalid(
            "from",
            &future.asked.to_string(),
            &newest,
        ))
    })?;
    let title = wants_metadata(&asked, &head.headers).then(|| channel.facts().title());
    let mut response = Response::new(Body::empty());
    describe(&mut response, &asked, title.as_deref());
    if head.method == Method::HEAD {
        return Ok(response);
    }
    count(&shared.counters.joins);
    let changed = live.changes();
    let listener = Listener {
        taken: Taken::new(place, asked.rendition, asked.container, tier),
        cursor,
        changed,
        metadata: title
            .map(|title| Metadata { interleaver: Interleaver::new(METAINT), title: TitleBlock::new(&title) }),
        pieces: Vec::new(),
        leave: None,
    };
    *response.body_mut() = Body::from_stream(stream::unfold(listener, Listener::next));
    Ok(response)
}

fn refuse(problem: impl Into<Problem>) -> Response {
    problem.into().into_response()
}

/// What to say of an event this edge was never told of. It may still have been recorded.
async fn unknown(shared: &Shared, headers: &HeaderMap, asked: &PushAddress<'_>) -> Response {
    match shared.recordings.with(&asked.event, |recording| Ok(recording.is_finished())).await {
        Ok(true) => to_recording(shared, headers, asked),
        // It may go on as soon as origin does.
        Ok(false) => refuse(Problem::unavailable("nothing is heard of this event at the moment", 2)),
        Err(ReadError::Archive(ArchiveError::NotFound(_))) => {
            refuse(Problem::unknown_event(asked.event.as_str()))
        }
        Err(error) => refuse(error),
    }
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
async fn running(
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

async fn wait_until_settled(live: &Live) {
    let mut changed = live.changes();
    let settled = async {
        // A window without parts is not waited for: the response begins, and tells how it stands.
        while live.window().newest().is_some() && !live.window().is_settled() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = timeout(SETTLE, settled).await;
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

fn describe(response: &mut Response, asked: &PushAddress<'_>, title: Option<&str>) {
    let headers = response.headers_mut();
    let kind = match asked.container {
        Container::Mp4 => "audio/mp4",
        Container::Ogg => "audio/ogg; codecs=opus",
        Container::Mp3 => "audio/mpeg",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, NEVER);
    if title.is_some() {
        headers.insert("icy-metaint", HeaderValue::from(METAINT));
        headers.insert("icy-br", HeaderValue::from(asked.rendition.bits_per_second() / 1_000));
    }
}

/// A listener's place among those allowed.
struct Place {
    shared: Arc<Shared>,
    live: Arc<Live>,
}

impl Place {
    fn take(shared: &Arc<Shared>, live: &Arc<Live>) -> Result<Self, Response> {
        let taken = shared.counters.listeners.fetch_add(1, Ordering::Relaxed);
        // From here on dropping the place gives it back.
        let place = Self { shared: Arc::clone(shared), live: Arc::clone(live) };
        if taken < shared.listeners_max {
            return Ok(place);
        }
        count(&shared.counters.refused);
        let mut full = refuse(Problem::unavailable("the edge has as many listeners as it can carry", 5));
        full.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Err(full)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.counters.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place in use: counted by what is taken, until it is dropped.
struct Taken {
    place: Place,
    rendition: Rendition,
    container: Container,
    tier: Tier,
    complete: bool,
}

impl Taken {
    fn new(place: Place, rendition: Rendition, container: Container, tier: Tier) -> Self {
        place.live.listeners.add(rendition, container, tier);
        Self { place, rendition, container, tier, complete: false }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.place.live.listeners.remove(self.rendition, self.container, self.tier);
        if !self.complete {
            count(&self.place.shared.counters.left);
        }
    }
}

struct Metadata {
    interleaver: Interleaver,
    title: TitleBlock,
}

/// The body of one response: asks its cursor whenever the connection has room, and sleeps until the window changes.
struct Listener {
    taken: Taken,
    cursor: Cursor,
    changed: watch::Receiver<()>,
    metadata: Option<Metadata>,
    /// Pieces of one part around metadata, the next one last. Empty for everyone else.
    pieces: Vec<Bytes>,
    /// When to go, once the doors are closing.
    leave: Option<Instant>,
}

/// What a listener's response goes on with.
enum Next {
    /// These bytes.
    Bytes(Bytes),
    /// The pieces.
    Pieces,
    /// Nothing until the window changes.
    Wait,
    /// Nothing any more.
    End,
}

impl Listener {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let closing = self.taken.place.shared.closing.clone();
        loop {
            if let Some(piece) = self.pieces.pop() {
                return Some((Ok(piece), self));
            }
            if self.leave.is_none() && closing.is_cancelled() {
                let spread = self.taken.place.shared.config.leave_ms;
                self.leave = Some(Instant::now() + Duration::from_millis(rand::random_range(0..=spread)));
            }
            if self.leave.is_some_and(|leave| leave <= Instant::now()) {
                self.taken.complete = true;
                return None;
            }
            // Marked as seen before looking, so that no change in between is slept through.
            self.changed.mark_unchanged();
            match self.step() {
                Next::Bytes(bytes) => return Some((Ok(bytes), self)),
                Next::Pieces => {}
                Next::End => {
                    self.taken.complete = true;
                    return None;
                }
                Next::Wait => {
                    let leave = self.leave;
                    tokio::select! {
                        // The window outlives its listeners, so this cannot fail.
                        _ = self.changed.changed() => {}
                        () = closing.cancelled(), if leave.is_none() => {}
                        () = sleep_until(leave.unwrap_or_else(Instant::now)), if leave.is_some() => {}
                    }
                }
            }
        }
    }

    fn step(&mut self) -> Next {
        let before = self.cursor.skips();
        let live = Arc::clone(&self.taken.place.live);
        let window = live.window();
        let (bytes, is_part) = match self.cursor.poll(&window) {
            Step::Send(Output::Head(bytes) | Output::Tail(bytes)) => (bytes, false),
            Step::Send(Output::Notice(bytes)) => (bytes.clone(), false),
            Step::Send(Output::Part { bytes, .. }) => (bytes.clone(), true),
            Step::Wait => return Next::Wait,
            Step::End => return Next::End,
        };
        drop(window);
        let counters = &self.taken.place.shared.counters;
        counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if is_part {
            count(&counters.parts_sent);
            let Skips { behind, missing } = self.cursor.skips();
            counters.skipped_behind.fetch_add(behind - before.behind, Ordering::Relaxed);
            counters.skipped_missing.fetch_add(missing - before.missing, Ordering::Relaxed);
        }
        match &mut self.metadata {
            None => Next::Bytes(bytes),
            Some(metadata) => {
                metadata.interleaver.weave(&bytes, &metadata.title, &mut self.pieces);
                self.pieces.reverse();
                Next::Pieces
            }
        }
    }
}
