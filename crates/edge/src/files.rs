//! The files door: playlists, segments and recordings, each a plain file to whoever asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use archive::{ArchiveError, Download, Recording, Span};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::clock;
use backend::problem::Problem;
use bytes::{Bytes, BytesMut};
use formats::hls::{MultivariantPlaylist, TARGET_DURATION_S, Variant};
use formats::{mp3, mp4};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::{EventSlug, PARTS_PER_SEGMENT, Part, PartNumber, Rendition, SegmentNumber};
use tokio::time::timeout;

use crate::address::{self, FilesAddress, LiveItem, RecordingItem};
use crate::answer::{self, A_SECOND, FOR_EVER, MINUTES, NEVER, SECONDS, cached};
use crate::channel::{Channel, Facts, Live, Phase};
use crate::metrics;
use crate::ranges::{self, Wanted};
use crate::recordings::ReadError;
use crate::shared::Shared;

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
/// Owner of the `PRIV` frame that carries a chain record in the ID3 tag of an MP3 segment.
pub(crate) const CHAIN_OWNER: &str = "urn:minassa:chain:1";
/// Bytes read from the disk at once for a download.
const PIECE: usize = 64 * 1024;
/// Longest time a request for a live playlist is held until there is a segment to name: in a running programme the
/// first is there after one target duration, and a second is for the way.
const HOLD: Duration = Duration::from_secs(TARGET_DURATION_S as u64 + 1);

/// Everything at the files door.
pub(crate) async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let mut response = match answer::other_method(&head.method) {
        Some(response) => response,
        None => serve(&shared, &head).await.unwrap_or_else(|refusal| refusal),
    };
    answer::shared_headers(&mut response);
    let class = usize::from(response.status().as_u16() / 100).clamp(1, 5);
    shared.counters.answers[class - 1].fetch_add(1, Ordering::Relaxed);
    response
}

async fn serve(shared: &Arc<Shared>, head: &http::request::Parts) -> Result<Response, Response> {
    let uri = &head.uri;
    match address::files(uri.path(), uri.query()).map_err(refuse)? {
        FilesAddress::Metrics => {
            Ok(file("text/plain; version=0.0.4; charset=utf-8", NEVER, metrics::render(shared)))
        }
        FilesAddress::Alive => Ok(file("text/plain; charset=utf-8", NEVER, "alive\n")),
        FilesAddress::Ready if shared.is_oriented() => {
            Ok(file("text/plain; charset=utf-8", NEVER, "ready\n"))
        }
        FilesAddress::Ready => Err(refuse(Problem::unavailable("origin has not been heard of yet", 1))),
        FilesAddress::Live { ticket, event, item } => {
            if let Some(ticket) = ticket {
                shared.check_ticket(ticket, &event).map_err(|error| {
                    refuse(
                        Problem::new(StatusCode::FORBIDDEN, "ticket", "The ticket does not open this door")
                            .detail(error.to_string()),
                    )
                })?;
            }
            shared.oriented().await;
            let channel = shared.channel(&event);
            if channel.is_none() {
                must_be_recorded(shared, &event).await?;
            }
            live(shared, &event, channel.as_deref(), item).await
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

fn refuse(problem: impl Into<Problem>) -> Response {
    problem.into().into_response()
}

/// A recording does not need anybody to know its event.
async fn must_be_recorded(shared: &Shared, event: &EventSlug) -> Result<(), Response> {
    match shared.recordings.with(event, |_| Ok(())).await {
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

// ---- live ----------------------------------------------------------------------------------------------------------

async fn live(
    shared: &Shared,
    event: &EventSlug,
    channel: Option<&Channel>,
    item: LiveItem<'_>,
) -> Result<Response, Response> {
    match item {
        LiveItem::Index => {
            let running = match channel {
                Some(channel) => match channel.live() {
                    Some(live) => !live.window().has_ended(),
                    None => channel.facts().phase(clock::unix_now()) != Phase::Over,
                },
                None => false,
            };
            let query = if running { "" } else { "?replay" };
            let of = |rendition: Rendition| Variant::of(rendition, format!("{rendition}.m3u8{query}"));
            Ok(file(PLAYLIST, SECONDS, index(of).render()))
        }
        LiveItem::Init { name } => {
            let init = mp4::opus_init();
            if mp4::init_name(&init) == name {
                Ok(file("audio/mp4", FOR_EVER, init))
            } else {
                Err(cached(Problem::not_found().detail("no event has this init"), MINUTES))
            }
        }
        LiveItem::Playlist { rendition, whole } => {
            live_playlist(shared, event, channel, rendition, whole).await
        }
        LiveItem::Part { rendition, number } => {
            let held = channel.and_then(Channel::live).and_then(|live| {
                let window = live.window();
                window.get(number).map(|part| part.payload(rendition).bytes.clone())
            });
            if let Some(bytes) = held {
                return Ok(file(media_type(rendition), FOR_EVER, bytes));
            }
            let read = move |recording: &Recording| recording.read_part(rendition, number);
            match shared.recordings.with(event, read).await {
                Ok(bytes) => Ok(file(media_type(rendition), FOR_EVER, bytes)),
                Err(error) => Err(absent(shared, event, channel, number, error).await),
            }
        }
        LiveItem::Segment { rendition, number } => {
            if let Some(bytes) = held_segment(channel, rendition, number) {
                return Ok(file(media_type(rendition), FOR_EVER, bytes));
            }
            let read = move |recording: &Recording| recorded_segment(recording, rendition, number);
            match shared.recordings.with(event, read).await {
                Ok(bytes) => Ok(file(media_type(rendition), FOR_EVER, bytes)),
                Err(error) => {
                    let last = number.first_part().plus(PARTS_PER_SEGMENT - 1);
                    Err(absent(shared, event, channel, last, error).await)
                }
            }
        }
    }
}

/// The better Opus first: players that do not measure take the first they can play.
fn index(of: impl Fn(Rendition) -> Variant) -> MultivariantPlaylist {
    MultivariantPlaylist {
        variants: [Rendition::Opus48, Rendition::Opus24, Rendition::Mp3_64].map(of).into(),
    }
}

const fn media_type(rendition: Rendition) -> &'static str {
    if rendition.is_cmaf() { "audio/mp4" } else { "audio/mpeg" }
}

/// While the programme runs, the newest segments; after the end the whole recording.
///
/// Before the first segment is whole the request is held for [`HOLD`]: players give up at a `503`, and those who come
/// in the first seconds are the most eager.
///
/// After the end, for a few seconds, the newest segments and the end: the number of a playlist's first segment must not
/// decrease (RFC 8216bis section 6.2.2), and who plays it has to see that it has ended before it may name everything.
/// Who comes after the end is sent to the whole (`?replay`) at once.
async fn live_playlist(
    shared: &Shared,
    event: &EventSlug,
    channel: Option<&Channel>,
    rendition: Rendition,
    whole: bool,
) -> Result<Response, Response> {
    let live = channel.and_then(Channel::live);
    if let (Some(channel), Some(live)) = (channel, &live)
        && (live.window().newest().is_some() || doors_are_open(&channel.facts()))
    {
        hold(shared, live, rendition).await;
    }
    let facts = channel.map(Channel::facts).unwrap_or_default();
    let mut held = None;
    if let Some(live) = &live
        && live.window().newest().is_some()
        && let Some(doors) = anchored_doors(shared, event, &facts).await
    {
        held = live.window().media_playlist(rendition, doors);
        let slides = !live.window().has_ended() || (live.ended_just_now() && !whole);
        if slides && let (Some(playlist), Some(channel)) = (&held, channel) {
            channel.count_reload(rendition);
            return Ok(file(PLAYLIST, A_SECOND, playlist.render()));
        }
    }
    let now = clock::unix_now();
    let phase = facts.phase(now);
    if live.as_ref().is_some_and(|live| !live.window().has_ended()) {
        return Err(refuse(answer::not_yet(phase, now)));
    }
    let replay = shared
        .recordings
        .with(event, move |recording| {
            let playlist = archive::playlist::replay(recording, rendition, &Span::Everything, "");
            Ok(playlist.map(|playlist| (playlist.render(), recording.is_finished())))
        })
        .await;
    match (replay, held) {
        (Ok(Some((text, true))), _) => Ok(file(PLAYLIST, MINUTES, text)),
        // Origin has not finished the recording: what the window says of the end comes first.
        (Ok(_) | Err(ReadError::Archive(ArchiveError::NotFound(_))), Some(held)) => {
            Ok(file(PLAYLIST, A_SECOND, held.render()))
        }
        (Ok(Some((text, false))), None) => Ok(file(PLAYLIST, A_SECOND, text)),
        (Ok(None) | Err(ReadError::Archive(ArchiveError::NotFound(_))), None) => Err(match phase {
            Phase::Over => refuse(ReadError::Archive(ArchiveError::NotFound(event.clone()))),
            Phase::Before { .. } | Phase::Running => refuse(answer::not_yet(phase, now)),
        }),
        (Err(error), _) => Err(refuse(error)),
    }
}

/// Whether the first part is about to be there: origin says so, or will at any moment.
fn doors_are_open(facts: &Facts) -> bool {
    let now = clock::unix_now();
    match facts.phase(now) {
        Phase::Running => true,
        Phase::Before { doors } => doors.is_some_and(|doors| doors <= now),
        Phase::Over => false,
    }
}

/// Waits until the window can be listed, has ended, the doors close, or [`HOLD`] is over; not at all if as many
/// requests wait already as may.
async fn hold(shared: &Shared, live: &Live, rendition: Rendition) {
    if live.is_listed(rendition) {
        return;
    }
    let Ok(_place) = shared.holds.try_acquire() else { return };
    tokio::select! {
        _ = timeout(HOLD, live.listed(rendition)) => {}
        () = shared.closing.cancelled() => {}
    }
}

/// When part 0 begins: from origin, or from the recording while origin is silent.
async fn anchored_doors(shared: &Shared, event: &EventSlug, facts: &Facts) -> Option<model::UnixTime> {
    if let Some(doors) = facts.anchored_doors() {
        return Some(doors);
    }
    shared.recordings.with(event, |recording| Ok(recording.marks().map(|marks| marks.doors))).await.ok()?
}

/// A segment from the window, in the bytes that every edge makes of it.
fn held_segment(channel: Option<&Channel>, rendition: Rendition, number: SegmentNumber) -> Option<Bytes> {
    let live = channel?.live()?;
    let window = live.window();
    let parts = window.segment(number, rendition)?;
    let first = window.get(number.first_part())?;
    Some(join(rendition, first, &parts))
}

/// The same from the recording. One that is not whole is none until the event is over.
fn recorded_segment(
    recording: &Recording,
    rendition: Rendition,
    number: SegmentNumber,
) -> Result<Bytes, ArchiveError> {
    let (first, range) = (number.first_part(), recording.parts());
    let end = if recording.is_finished() {
        number.next().first_part().min(range.end)
    } else {
        number.next().first_part()
    };
    if end <= first {
        return Err(ArchiveError::NoPart(first));
    }
    let whole = recording.read_whole_part(first)?;
    let parts = (first.get()..end.get())
        .map(|n| recording.read_part(rendition, PartNumber::new(n)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(join(rendition, &whole, &parts))
}

/// Parts in a row; before MP3 an ID3 tag with the time, and the record that signs the segment before (CMAF parts
/// carry theirs inside). The tag follows from the first part alone, so that all edges make the same at any time.
fn join(rendition: Rendition, first: &Part, parts: &[Bytes]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum::<usize>() + 512);
    if !rendition.is_cmaf() {
        let record = packager::segment_record_for(first, rendition);
        let private: Vec<(&str, &[u8])> = record.iter().map(|record| (CHAIN_OWNER, &record.0[..])).collect();
        bytes.extend_from_slice(&mp3::id3_timestamp(first.number.start(), &private));
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.freeze()
}

/// What to say of a part that is neither in the window nor recorded.
async fn absent(
    shared: &Shared,
    event: &EventSlug,
    channel: Option<&Channel>,
    number: PartNumber,
    error: ReadError,
) -> Response {
    if !matches!(error, ReadError::Archive(ArchiveError::NotFound(_) | ArchiveError::NoPart(_))) {
        return refuse(error);
    }
    let held = channel.and_then(Channel::live).and_then(|live| live.window().newest()).map(PartNumber::next);
    let recorded = shared.recordings.with(event, |recording| Ok(recording.parts().end)).await.ok();
    let end = held.max(recorded).unwrap_or(PartNumber::ZERO);
    if number >= end {
        let problem = Problem::new(StatusCode::NOT_FOUND, "future-part", "This part does not exist yet")
            .detail(format!("parts before {end} exist"));
        cached(problem, A_SECOND)
    } else {
        let problem = Problem::new(StatusCode::GONE, "part-gone", "This part is not kept here");
        cached(problem, A_SECOND)
    }
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
            shared.recordings.with(event, |_| Ok(())).await.map_err(refuse)?;
            let of = |rendition: Rendition| Variant::of(rendition, format!("recording.{rendition}.m3u8"));
            Ok(file(PLAYLIST, A_SECOND, index(of).render()))
        }
        RecordingItem::Playlist(rendition) => {
            let base = format!("/live/{event}/");
            let replay = shared.recordings.with(event, move |recording| {
                let playlist = archive::playlist::replay(recording, rendition, &Span::Show, &base);
                Ok(playlist.map(|playlist| (playlist.render(), recording.is_finished())))
            });
            match replay.await.map_err(refuse)? {
                Some((text, true)) => Ok(file(PLAYLIST, MINUTES, text)),
                Some((text, false)) => Ok(file(PLAYLIST, A_SECOND, text)),
                None => Err(refuse(ReadError::Archive(ArchiveError::NotFound(event.clone())))),
            }
        }
        RecordingItem::Mp4(_) | RecordingItem::Ogg | RecordingItem::Mp3 | RecordingItem::Clip { .. } => {
            let found = shared.recordings.download(event, item, title).await.map_err(refuse)?;
            Ok(download(shared, head, found.0, found.1, &name(event, item)))
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

fn download(
    shared: &Arc<Shared>,
    head: &http::request::Parts,
    file: Download,
    finished: bool,
    name: &str,
) -> Response {
    let length = file.length();
    let wanted = ranges::wanted(&head.headers, length, file.etag());
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // What is not finished is a different file in a second; its validator says so to who asks again.
    headers.insert(header::CACHE_CONTROL, if finished { MINUTES } else { NEVER });
    insert(headers, header::ETAG, file.etag());
    let range = match wanted {
        Wanted::Unchanged => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        Wanted::Nothing => {
            insert(headers, header::CONTENT_RANGE, &format!("bytes */{length}"));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return response;
        }
        Wanted::Whole => 0..length,
        Wanted::Bytes(range) => {
            insert(
                headers,
                header::CONTENT_RANGE,
                &format!("bytes {}-{}/{length}", range.start, range.end - 1),
            );
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            range
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.content_type()));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    insert(headers, header::CONTENT_DISPOSITION, &format!("inline; filename=\"{name}\""));
    if head.method == Method::HEAD {
        return response;
    }
    let shared = Arc::clone(shared);
    let pieces = stream::try_unfold(range, move |range| {
        let (shared, file) = (Arc::clone(&shared), file.clone());
        async move {
            if range.is_empty() {
                return Ok(None);
            }
            let limit = PIECE.min(usize::try_from(range.end - range.start).unwrap_or(PIECE));
            let piece = shared.recordings.read(file, range.start, limit).await?;
            if piece.is_empty() {
                // Shorter than its length: the connection breaks, which tells the caller.
                return Err(ReadError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let next = range.start + piece.len() as u64..range.end;
            Ok(Some((piece, next)))
        }
    });
    *response.body_mut() = Body::from_stream(pieces);
    response
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    let value = HeaderValue::from_str(value).expect("names of events, numbers and digests are plain text");
    headers.insert(name, value);
}
