//! Answers that both doors share: problems, cross-origin reading, methods, redirects.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use backend::problem::Problem;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use model::{EventSlug, UnixTime};

use crate::address::AddressError;
use crate::channel::Phase;
use crate::recordings::ReadError;
use crate::shared::Shared;

/// Kept by caches for ever: the address names one content.
pub(crate) const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// A second: live playlists, and what does not exist yet.
pub(crate) const A_SECOND: HeaderValue = HeaderValue::from_static("public, max-age=1");
/// Six target durations, as Apple advises: a live playlist with what was waited for. Its address names what is in it, so
/// that a newer one has another.
pub(crate) const AWAITED: HeaderValue = HeaderValue::from_static("public, max-age=24");
/// Some seconds: what changes once, at the end.
pub(crate) const SECONDS: HeaderValue = HeaderValue::from_static("public, max-age=5");
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
            let seconds = doors.since(now).as_secs().clamp(1, RETRY_MAX_S);
            Problem::unavailable(format!("doors open at {doors}"), seconds as u32)
        }
        Phase::Before { .. } | Phase::Running | Phase::Over => {
            Problem::unavailable("the programme has not begun", 2)
        }
    }
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
