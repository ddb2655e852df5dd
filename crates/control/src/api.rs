//! The API of events.

mod challenge;
mod events;
mod evidence;
mod input;
mod invites;
mod ladder;
mod openapi;
mod queue;
mod slate;
mod status;
mod ticket;
mod types;

pub(crate) use challenge::Challenged;
pub(crate) use ticket::issue_ticket;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::routing::{delete, get, post, put};
use backend::clock;
use backend::http::Peer;
use backend::problem::Problem;
use http::request;
use model::Event;

use crate::auth::{Caller, caller, forbidden, unauthorized};
use crate::doors::Bases;
use crate::state::{Control, Counters, Known};

pub(crate) use events::calendar;

/// The routes below `/api`.
pub(crate) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/api/openapi.json", get(openapi::serve))
        .route("/api/events", get(events::list).post(events::create))
        .route("/api/events/{event}", get(events::show).patch(events::change))
        .route("/api/events/{event}/slate", put(slate::upload).delete(slate::remove))
        .route("/api/events/{event}/invites", post(invites::create))
        .route("/api/events/{event}/invites/{invite}", delete(invites::revoke))
        .route("/api/events/{event}/ticket", post(ticket::issue))
        .route("/api/events/{event}/revocations", post(ticket::revoke))
        .route("/api/events/{event}/queue.json", get(queue::show))
        .route("/api/events/{event}/draw/commitment.json", get(queue::commitment))
        .route("/api/events/{event}/draw/{file}", get(queue::draw))
        .route("/api/events/{event}/status", get(status::show))
        .route("/api/events/{event}/verdict", get(evidence::verdict))
        .route("/api/events/{event}/ledger.jsonl", get(evidence::ledger))
        .route("/api/events/{event}/report.json", get(evidence::report))
        .route("/api/ladder", get(ladder::show).patch(ladder::change))
}

/// The event that the address names.
pub(crate) struct At(pub(crate) Arc<Known>);

impl FromRequestParts<Arc<Control>> for At {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut request::Parts, control: &Arc<Control>) -> Result<Self, Problem> {
        let name = named(parts, control, "event").await?;
        let known = name.parse().ok().and_then(|slug| control.event(&slug));
        known.map(Self).ok_or_else(|| Problem::unknown_event(&name))
    }
}

/// A part of the address.
async fn named(parts: &mut request::Parts, control: &Arc<Control>, name: &str) -> Result<String, Problem> {
    let all = axum::extract::RawPathParams::from_request_parts(parts, control).await;
    // What does not decode as UTF-8 names nothing of ours.
    let all = all.map_err(|_| Problem::not_found())?;
    let found = all.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(Problem::not_found)
}

/// Addresses as the caller of a request can use them.
pub(crate) fn bases(control: &Control, head: &request::Parts) -> Bases {
    Bases::of(&control.config, control.scheme, control.doors(), control.local, &head.headers, &head.uri)
}

/// Who sends this request. Failed attempts are counted against the sender's network.
pub(crate) fn who(
    control: &Control,
    head: &request::Parts,
    event: Option<&Event>,
) -> Result<Caller, Problem> {
    let peer = head.extensions.get::<Peer>().map_or(IpAddr::from(Ipv4Addr::LOCALHOST), |peer| peer.0.ip());
    if head.headers.contains_key(http::header::AUTHORIZATION) {
        control.attempts.check(peer, Instant::now())?;
    }
    caller(&head.headers, &control.operator, event, clock::unix_now()).inspect_err(|_| {
        control.attempts.failed(peer, Instant::now());
        Counters::add(&control.counters.failed_attempts);
    })
}

/// Lets only the operator pass.
pub(crate) fn operator_only(control: &Control, head: &request::Parts) -> Result<(), Problem> {
    match who(control, head, None)? {
        Caller::Operator => Ok(()),
        _ => Err(unauthorized("this is for the operator")),
    }
}

/// Lets the operator and the event's hosts pass.
pub(crate) fn runs_event(control: &Control, head: &request::Parts, event: &Event) -> Result<Caller, Problem> {
    match who(control, head, Some(event))? {
        Caller::Public => Err(unauthorized("this is for the operator and the host")),
        caller if caller.runs_event() => Ok(caller),
        _ => Err(forbidden("this is for the operator and the host")),
    }
}
