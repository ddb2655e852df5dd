//! The files door: playlists, parts, segments and recordings, each a plain file to whoever asks. What belongs to the
//! running programme is in [`live`], what is recorded is here.

pub(crate) mod delayed;
pub(crate) mod downloads;
pub(crate) mod hold;
mod live;
pub(crate) mod playlists;
pub(crate) mod wrapped;

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;

use admission::doorstep::Prefix;
use admission::ladder::Priority;
use admission::sessions::SessionError;
use archive::ArchiveError;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::clock;
use backend::http::Peer;
use backend::problem::Problem;
use bytes::Bytes;
use formats::hls::{MultivariantPlaylist, Variant};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::{EventSlug, Rendition};

use crate::address::{self, FilesAddress, LiveItem, RecordingItem};
use crate::answer::{self, A_SECOND, MINUTES, NEVER, cached};
use crate::channel::{Channel, Phase};
use crate::metrics;
use crate::ranges::{self, Wanted};
use crate::recordings::{PIECE, ReadError, Replay, Taken};
use crate::shared::{Shared, count};
use playlists::Coding;

const PLAYLIST: &str = "application/vnd.apple.mpegurl";

/// Everything at the files door.
pub(crate) async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let mut response = match answer::other_method(&head.method) {
        Some(response) => response,
        None => serve(&shared, &head).await.unwrap_or_else(|refusal| refusal),
    };
    answer::shared_headers(&mut response);
    shared.counters.tell(&shared.counters.answers, &response);
    if head.method == Method::GET && response.status().is_success() {
        let path = head.uri.path();
        if path.ends_with(".m3u8") {
            count(&shared.counters.playlists_asked);
        } else if path.contains("/live/") {
            count(&shared.counters.files_served);
        }
    }
    response
}

async fn serve(shared: &Arc<Shared>, head: &http::request::Parts) -> Result<Response, Response> {
    let uri = &head.uri;
    match address::files(uri.path(), uri.query()).map_err(refuse)? {
        FilesAddress::Metrics if !may_measure(&shared.config.metrics_from, head.extensions.get()) => {
            let title = "Measurements are not for everybody";
            let problem = Problem::new(StatusCode::FORBIDDEN, "metrics", title);
            Err(refuse(problem.detail("this address is not in edge.metrics_from")))
        }
        FilesAddress::Metrics => {
            Ok(file("text/plain; version=0.0.4; charset=utf-8", NEVER, metrics::render(shared)))
        }
        FilesAddress::Alive => Ok(file("text/plain; charset=utf-8", NEVER, "alive\n")),
        FilesAddress::Ready if shared.is_oriented() => {
            Ok(file("text/plain; charset=utf-8", NEVER, "ready\n"))
        }
        FilesAddress::Ready => Err(refuse(Problem::unavailable("origin has not been heard of yet", 1))),
        FilesAddress::Live { ticket, event, item } => {
            let none = |why: String| {
                let title = "The ticket does not open this door";
                refuse(Problem::new(StatusCode::FORBIDDEN, "ticket", title).detail(why))
            };
            // Where playing begins. Behind a cache no ticket is seen at all: admission is at the page then.
            let begins = matches!(item, LiveItem::Index);
            if let Some(ticket) = ticket {
                let ticket = shared.check_ticket(ticket, &event).map_err(|error| none(error.to_string()))?;
                if shared.sessions.is_revoked(ticket.id) {
                    count(&shared.counters.sessions_refused);
                    return Err(none(SessionError::Revoked.to_string()));
                }
                if begins && head.method == Method::GET {
                    count(&shared.counters.tickets_used);
                }
            }
            shared.oriented().await;
            let channel = shared.channel(&event);
            if channel.is_none() {
                must_be_recorded(shared, &event).await?;
            }
            // What comes through a proxy may be a cache's, and one answer for thousands.
            let may_be_put_off = begins && ticket.is_none() && shared.config.proxies.is_empty();
            if may_be_put_off
                && is_on(channel.as_deref())
                && let Some(why) = shared.refusal(Priority::Newcomer)
            {
                return Err(put_off(shared, &event, why));
            }
            let coding = Coding::of(&head.headers);
            live::answer(shared, &event, channel.as_deref(), item, coding, origin_of(head)).await
        }
        FilesAddress::Delayed { event, item } => {
            shared.oriented().await;
            let channel = shared.channel(&event);
            if channel.is_none() {
                must_be_recorded(shared, &event).await.map_err(delayed::for_a_moment)?;
            }
            Ok(delayed::answer(shared, head, &event, channel.as_deref(), item).await)
        }
        FilesAddress::Recording { event, item } => {
            let channel = shared.channel(&event);
            if channel.is_none() {
                must_be_recorded(shared, &event).await?;
            }
            let title = channel.map(|channel| channel.facts().title()).unwrap_or_default();
            recording(shared, head, &event, item, title).await
        }
    }
}

/// Where a request comes from.
fn origin_of(head: &http::request::Parts) -> Prefix {
    // The door names the peer of every request.
    let peer = head.extensions.get::<Peer>().map_or(IpAddr::from(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    Prefix::of(peer)
}

/// Whether the caller is on this machine, or one of those who measure. What is measured names events and says how much the
/// machine can carry.
fn may_measure(others: &[IpAddr], peer: Option<&Peer>) -> bool {
    peer.is_some_and(|Peer(peer)| {
        // An IPv6 socket names IPv4 peers in its own way.
        let peer = peer.ip().to_canonical();
        peer.is_loopback() || others.contains(&peer)
    })
}

/// Whether an event's programme runs.
fn is_on(channel: Option<&Channel>) -> bool {
    channel.is_some_and(|channel| matches!(channel.facts().phase(clock::unix_now()), Phase::Running))
}

/// Newcomers have to wait.
fn put_off(shared: &Shared, event: &EventSlug, why: &str) -> Response {
    answer::to_delayed(shared, event, None)
        .unwrap_or_else(|| refuse(Problem::unavailable(why, answer::retry_after())))
}

fn refuse(problem: impl Into<Problem>) -> Response {
    problem.into().into_response()
}

/// A recording does not need anybody to know its event.
async fn must_be_recorded(shared: &Shared, event: &EventSlug) -> Result<(), Response> {
    match shared.recordings.exists(event).await {
        Ok(()) => Ok(()),
        Err(ReadError::Archive(ArchiveError::NotFound(_))) => {
            Err(cached(Problem::unknown_event(event.as_str()), A_SECOND))
        }
        Err(error) => Err(refuse(error)),
    }
}

fn file(kind: &'static str, control: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, control);
    response
}

/// A media playlist, written as its reader takes it.
fn playlist(control: HeaderValue, bytes: Bytes, coding: Coding) -> Response {
    let mut response = file(PLAYLIST, control, bytes);
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if coding == Coding::Gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The better Opus first: players that do not measure take the first they can play. Those that do measure take what
/// needs most of what they have, so it is said to need a little more than MP3. Chromium's own player would otherwise
/// change from Opus to packed MP3, which it cannot play, and stand still.
fn index(of: impl Fn(Rendition) -> Variant) -> MultivariantPlaylist {
    let mut variants = [Rendition::Opus48, Rendition::Opus24, Rendition::Mp3_64].map(of);
    variants[0].bandwidth.peak = variants[0].bandwidth.peak.max(variants[2].bandwidth.peak + 1);
    MultivariantPlaylist { variants: variants.into() }
}

// ---- recording -----------------------------------------------------------------------------------------------------

async fn recording(
    shared: &Arc<Shared>,
    head: &http::request::Parts,
    event: &EventSlug,
    item: RecordingItem,
    title: String,
) -> Result<Response, Response> {
    match item {
        RecordingItem::Index => {
            shared.recordings.exists(event).await.map_err(refuse)?;
            let of = |rendition: Rendition| Variant::of(rendition, format!("recording.{rendition}.m3u8"));
            Ok(file(PLAYLIST, A_SECOND, index(of).render()))
        }
        RecordingItem::Playlist(rendition) => {
            let coding = Coding::of(&head.headers);
            let replay = shared.recordings.replay(event, rendition, Replay::Show, coding).await;
            let (bytes, finished) = replay.map_err(refuse)?;
            Ok(playlist(if finished { MINUTES } else { A_SECOND }, bytes, coding))
        }
        RecordingItem::Mp4(_) | RecordingItem::Ogg | RecordingItem::Mp3 | RecordingItem::Clip { .. } => {
            let found = shared.recordings.download(event, item, title).await.map_err(refuse)?;
            download(shared, head, found, &name(event, item))
        }
    }
}

/// The name a download is saved under.
fn name(event: &EventSlug, item: RecordingItem) -> String {
    match item {
        RecordingItem::Mp4(rendition) => format!("{event}.{rendition}.mp4"),
        RecordingItem::Ogg => format!("{event}.ogg"),
        RecordingItem::Mp3 => format!("{event}.mp3"),
        RecordingItem::Clip { from, to, .. } => {
            format!("{event}.{}-{}.mp4", from.as_secs(), to.as_secs())
        }
        RecordingItem::Index | RecordingItem::Playlist(_) => format!("{event}.m3u8"),
    }
}

#[expect(clippy::result_large_err, reason = "a refusal is an answer like any other, made once a request")]
fn download(
    shared: &Arc<Shared>,
    head: &http::request::Parts,
    taken: Taken,
    name: &str,
) -> Result<Response, Response> {
    let (file, finished) = (&taken.download, taken.finished);
    // What is not finished is a different file in a second; its validator says so to who asks again.
    let control = if finished { MINUTES } else { NEVER };
    let (mut response, range) = ranged(head, file.length(), file.etag(), control);
    let Some(range) = range else { return Ok(response) };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type()));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    insert(headers, header::CONTENT_DISPOSITION, &format!("inline; filename=\"{name}\""));
    if head.method == Method::HEAD {
        return Ok(response);
    }
    let Some(place) = shared.downloads.take(origin_of(head)) else {
        count(&shared.counters.downloads_refused);
        return Err(refuse(Problem::unavailable(
            "as many downloads run as may, most of them from the same network",
            5,
        )));
    };
    let shared = Arc::clone(shared);
    let pieces = stream::try_unfold((range, place), move |(range, place)| {
        let (shared, taken) = (Arc::clone(&shared), taken.clone());
        async move {
            if range.is_empty() {
                return Ok(None);
            }
            // Pieces begin at multiples of their length, so that readers who are at the same place share them.
            let index = range.start / PIECE;
            let piece = shared.recordings.piece(&taken, index).await?;
            let from = usize::try_from(range.start - index * PIECE).unwrap_or(usize::MAX);
            let left = usize::try_from(range.end - index * PIECE).unwrap_or(usize::MAX);
            if from >= piece.len() {
                // Shorter than its length: the connection breaks, which tells the caller.
                return Err(ReadError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let piece = piece.slice(from..left.min(piece.len()));
            let next = range.start + piece.len() as u64..range.end;
            Ok(Some((piece, (next, place))))
        }
    });
    *response.body_mut() = Body::from_stream(pieces);
    Ok(response)
}

/// The head of an answer with a file of `length` bytes, and which of them are to be in it; none if it is one without.
fn ranged(
    request: &http::request::Parts,
    length: u64,
    etag: &str,
    control: HeaderValue,
) -> (Response, Option<Range<u64>>) {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, control);
    insert(headers, header::ETAG, etag);
    let (status, range) = match ranges::wanted(&request.method, &request.headers, length, etag) {
        Wanted::Unchanged => (StatusCode::NOT_MODIFIED, None),
        Wanted::Nothing => {
            insert(headers, header::CONTENT_RANGE, &format!("bytes */{length}"));
            (StatusCode::RANGE_NOT_SATISFIABLE, None)
        }
        Wanted::Whole => (StatusCode::OK, Some(0..length)),
        Wanted::Bytes(range) => {
            let given = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            insert(headers, header::CONTENT_RANGE, &given);
            (StatusCode::PARTIAL_CONTENT, Some(range))
        }
    };
    *response.status_mut() = status;
    (response, range)
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("names of events, numbers and digests are plain text");
    headers.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_measures_is_on_this_machine_or_named() {
        let others = ["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        for (peer, may) in [
            ("127.0.0.1:5", true),
            ("127.8.8.8:5", true),
            ("[::1]:5", true),
            ("[::ffff:127.0.0.1]:5", true),
            ("192.0.2.7:5", true),
            ("[::ffff:192.0.2.7]:5", true),
            ("[2001:db8::7]:5", true),
            ("192.0.2.8:5", false),
            ("[2001:db8::8]:5", false),
        ] {
            assert_eq!(may_measure(&others, Some(&Peer(peer.parse().unwrap()))), may, "{peer}");
        }
        assert!(!may_measure(&others, None));
    }
}
