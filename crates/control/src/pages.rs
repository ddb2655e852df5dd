//! Pages, the files they load, and what is published about keys and health.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use backend::problem::Problem;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use model::EventSlug;
use serde::Serialize;
use web::{Language, PAGE_HEADERS, Page, negotiate_language};

use crate::api::At;
use crate::plain;
use crate::publicity::PublishedKeys;
use crate::state::Control;

/// Events whose keys are published in one answer.
const KEYS_MAX: usize = 1_000;

/// `GET /`.
pub(crate) async fn index(request: Request) -> Response {
    page(Page::Index, &request.into_parts().0, StatusCode::OK)
}

/// `GET /e/{event}`. For people, an unknown event is a page too.
pub(crate) async fn listener(
    State(control): State<Arc<Control>>,
    event: Result<At, Problem>,
    request: Request,
) -> Response {
    let head = request.into_parts().0;
    match event {
        Ok(At(known)) if asks_plainly(&head) => plain::page(&control, &known, &head),
        Ok(_) => page(Page::Listener, &head, StatusCode::OK),
        Err(problem) => missing(&head, problem),
    }
}

/// Whether the page for browsers that run no code is asked for.
fn asks_plainly(head: &http::request::Parts) -> bool {
    head.uri.query().is_some_and(|query| query.split('&').any(|field| field == "plain" || field == "plain="))
}

/// Everything that is nowhere: a page for those who want one, a problem for the others.
pub(crate) async fn fallback(request: Request) -> Response {
    missing(&request.into_parts().0, Problem::not_found())
}

/// An address that is there, for other methods.
pub(crate) async fn wrong_method(request: Request) -> Response {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "This address does not answer to this method",
    );
    problem.invalid("method", request.method().as_str(), "see the Allow header").into_response()
}

pub(crate) fn missing(head: &http::request::Parts, problem: Problem) -> Response {
    let accept = head.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if matches!(head.method, Method::GET | Method::HEAD) && accept.contains("text/html") {
        page(Page::NotFound, head, StatusCode::NOT_FOUND)
    } else {
        problem.into_response()
    }
}

fn page(page: Page, head: &http::request::Parts, status: StatusCode) -> Response {
    let accept = head.headers.get(header::ACCEPT_LANGUAGE).and_then(|accept| accept.to_str().ok());
    let language = negotiate_language(head.uri.query(), accept);
    // Both pages in both languages are made once.
    let mut response = (status, web::page(page, language)).into_response();
    let headers = response.headers_mut();
    for (name, value) in PAGE_HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(Language::tag(language)));
    response
}

/// `GET /assets/{*path}`.
pub(crate) async fn asset(request: Request) -> Response {
    let head = request.into_parts().0;
    let found = head.uri.path().strip_prefix("/assets/").and_then(web::asset);
    let Some(asset) = found else { return missing(&head, Problem::not_found()) };
    let held =
        head.headers.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    let is_held =
        held.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == asset.etag);
    let mut response = if is_held {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        axum::body::Bytes::from_static(asset.bytes).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(asset.cache_control));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.extend(HeaderValue::try_from(asset.etag).ok().map(|tag| (header::ETAG, tag)));
    response
}

/// `GET /.well-known/minassa-keys.json[?event=]`.
pub(crate) async fn keys(State(control): State<Arc<Control>>, request: Request) -> Result<Response, Problem> {
    let query = request.uri().query().unwrap_or_default();
    let named = query.split('&').find_map(|pair| pair.strip_prefix("event="));
    let events = match named {
        None => control.events(KEYS_MAX),
        Some(name) => {
            let known = name.parse::<EventSlug>().ok().and_then(|slug| control.event(&slug));
            vec![known.ok_or_else(|| Problem::unknown_event(name))?]
        }
    };
    let keys = PublishedKeys::new(&control.publisher, events.iter().map(|known| &**known));
    let freshness = [(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"))];
    Ok((freshness, Json(keys)).into_response())
}

/// `GET /healthz`: this process turns.
pub(crate) async fn healthz() -> Response {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], "ok\n").into_response()
}

/// What control can do at the moment.
#[derive(Serialize)]
struct Readiness {
    /// The store answers. Without it events cannot be changed.
    store: bool,
    /// The other doors are known. Without them nobody can be sent there.
    doors: bool,
    /// Origin reports. For information: control serves without it.
    origin: bool,
    /// Edges that report. For information.
    edges: usize,
}

/// `GET /readyz`: whether it can do its work.
pub(crate) async fn readyz(State(control): State<Arc<Control>>) -> Response {
    let store = control.store.ping().await.is_ok();
    let doors = control.doors().is_some();
    let now = Instant::now();
    let observed = control.observed();
    let readiness =
        Readiness { store, doors, origin: observed.origin_is_alive(now), edges: observed.edges(now).count() };
    drop(observed);
    let status = if store && doors { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let freshness = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, freshness, Json(readiness)).into_response()
}
