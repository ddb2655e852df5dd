//! Answers that both doors share: problems, cross-origin reading, methods, redirects.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use backend::problem::Problem;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::{EventSlug, Rendition, UnixTime};

use crate::address::AddressError;
use crate::channel::Phase;
use crate::recordings::ReadError;
use crate::shared::{Shared, count};

/// Kept by caches for ever: the address names one content.
pub(crate) const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// A second: live playlists, and what does not exist yet.
pub(crate) const A_SECOND: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// Six target durations, as Apple advises: a live playlist with what was waited for. Its address names what is in it, so
/// that a newer one has another.
pub(crate) const AWAITED: HeaderValue = HeaderValue::from_static("public, max-age=24");
/// Some seconds: what changes once, at the end.
pub(crate) const SECONDS: HeaderValue = HeaderValue::from_static("public, max-age=5");
/// A moment: refusals of the delayed feed, so that a crowd that comes back meets the cache. Two seconds in all; in the
/// second one a cache asks again, once for all.
pub(crate) const SOON: HeaderValue = HeaderValue::from_static("public, max-age=1, stale-while-revalidate=1");
/// The playlist of a delayed feed, which changes every 15 s and whose players have three times as much in hand. Caches
/// may show it a little longer while they ask for it, and for some minutes if nobody answers.
pub(crate) const DELAYED: HeaderValue =
    HeaderValue::from_static("public, max-age=4, stale-while-revalidate=8, stale-if-error=300");
/// Some minutes: what will hardly change.
pub(crate) const MINUTES: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// Not at all.
pub(crate) const NEVER: HeaderValue = HeaderValue::from_static("no-store");

/// Longest time a caller is told to wait before asking again.
const RETRY_MAX_S: u64 = 60;

impl From<AddressError> for Problem {
    fn from(error: AddressError) -> Self {
        match error {
            AddressError::Nothing => Problem::not_found(),
            AddressError::Event(given) => Problem::unknown_event(&given),
            AddressError::Rendition(given) => {
                Problem::new(StatusCode::NOT_FOUND, "unknown-rendition", "There is no such rendition")
                    .invalid(
                        "rendition",
                        &given,
                        "opus-24.mp4, opus-48.mp4, opus-24.ogg, opus-48.ogg and mp3-64.mp3",
                    )
            }
            AddressError::Value { key, given, allowed } => Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid-value",
                "A value in the address cannot be used",
            )
            .invalid(key, &given, allowed),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        use archive::ArchiveError::{NoPart, NotFound};
        match error {
            ReadError::Archive(NotFound(_) | NoPart(_)) => {
                Problem::new(StatusCode::NOT_FOUND, "no-recording", "There is no recording of this (yet)")
            }
            ReadError::Busy => Problem::unavailable("too many recordings are being read", 5),
            error @ (ReadError::Archive(_)
            | ReadError::Io(_)
            | ReadError::Panicked
            | ReadError::Shared(_)) => {
                tracing::error!(%error, "a recording cannot be read");
                Problem::internal()
            }
        }
    }
}

/// The event exists and cannot be heard yet.
pub(crate) fn not_yet(phase: Phase, now: UnixTime) -> Problem {
    match phase {
        Phase::Before { doors: Some(doors) } if doors > now => {
            let seconds = doors.since(now).as_secs().clamp(1, RETRY_MAX_S) as u32;
            // Not all in the same second.
            Problem::unavailable(format!("doors open at {doors}"), seconds + rand::random_range(0..=4))
        }
        Phase::Before { .. } | Phase::Running | Phase::Over => {
            Problem::unavailable("the programme has not begun", rand::random_range(2..=5))
        }
    }
}

/// Seconds after which who was refused may try again: spread, so that they do not all come at once.
pub(crate) fn retry_after() -> u32 {
    rand::random_range(4..=8)
}

/// With another `Cache-Control` than a problem has by itself.
pub(crate) fn cached(problem: Problem, control: HeaderValue) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, control);
    response
}

/// What an answer to a method that is none of `GET` and `HEAD` is.
pub(crate) fn other_method(method: &Method) -> Option<Response> {
    const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
    match *method {
        Method::GET | Method::HEAD => None,
        Method::OPTIONS => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            let headers = response.headers_mut();
            headers.insert(header::ALLOW, ALLOW);
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOW);
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                HeaderValue::from_static(
                    "Range, If-Range, If-None-Match, Icy-MetaData, Cache-Control, Pragma",
                ),
            );
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
            Some(response)
        }
        _ => Some(
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", "This address is only read")
                .header(header::ALLOW, ALLOW)
                .into_response(),
        ),
    }
}

/// What every answer of an edge carries: anybody's page may read it.
pub(crate) fn shared_headers(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "Content-Length, Content-Range, Accept-Ranges, ETag, Retry-After, Date, icy-metaint",
        ),
    );
    headers.insert(
        http::HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("cross-origin"),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// `302` to the delayed feed for a player that knows nothing of waiting rooms, if there is a cache in front of it. The
/// rendition is the one that was asked for; without one, all of them.
pub(crate) fn to_delayed(
    shared: &Shared,
    event: &EventSlug,
    rendition: Option<Rendition>,
) -> Option<Response> {
    let base = shared.config.delayed_url.as_ref()?.trim_end_matches('/');
    let file = rendition.map_or_else(String::new, |rendition| format!("/{rendition}"));
    let location = HeaderValue::try_from(format!("{base}/live/{event}/delayed{file}.m3u8")).ok()?;
    count(&shared.counters.sent_to_delayed);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CACHE_CONTROL, NEVER);
    Some(response)
}

/// `307` to a place below `/e/{event}/` at the files door: as configured, or on the host that the caller used.
pub(crate) fn to_files(shared: &Shared, headers: &HeaderMap, event: &EventSlug, file: &str) -> Response {
    let base = match &shared.config.files_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => {
            let (scheme, port) = (shared.scheme, shared.files_address.port());
            let authority = headers
                .get(header::HOST)
                .and_then(|host| host.to_str().ok())
                .and_then(|host| host.parse::<Authority>().ok());
            match authority {
                Some(authority) => format!("{scheme}://{}:{port}", authority.host()),
                None => format!("{scheme}://{}", shared.files_address),
            }
        }
    };
    let location = HeaderValue::try_from(format!("{base}/e/{event}/{file}"));
    let Ok(location) = location else { return Problem::internal().into_response() };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CACHE_CONTROL, NEVER);
    response
}
