//! WHIP (RFC 9725): an offer comes in, an answer goes out, and the session has an address.
//!
//! Departures from the letter: candidates that trickle in are accepted and not needed (we are ICE-lite and learn the
//! peer's address from its checks); ICE restarts are refused with 422, as section 4.3 allows, because a new offer
//! for the same seat is as quick.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use backend::problem::Problem;
use http::{HeaderMap, StatusCode, header};
use model::{EventSlug, SeatId};
use tokio::sync::oneshot;

use super::access::Path;
use super::{Door, access, problems};
use crate::counters;
use crate::media::{self, Join, Order, SessionId};

/// Largest offer.
pub(super) const OFFER_BYTES_MAX: usize = 64 * 1024;
/// Largest fragment that trickles in.
const FRAGMENT_BYTES_MAX: usize = 16 * 1024;
const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// The addresses of running sessions. They end with their sessions.
#[derive(Debug, Default)]
pub(crate) struct WhipSessions {
    sessions: Mutex<BTreeMap<String, WhipSession>>,
}

#[derive(Clone, Debug)]
struct WhipSession {
    event: EventSlug,
    seat: SeatId,
    session: SessionId,
    /// The peer's ICE user name: another one in a fragment asks for a restart.
    peer_ufrag: Option<String>,
}

impl WhipSessions {
    fn insert(self: &Arc<Self>, name: String, session: WhipSession) -> Guard {
        self.lock().insert(name.clone(), session);
        Guard { sessions: self.clone(), name }
    }

    fn find(&self, name: &str) -> Option<WhipSession> {
        self.lock().get(name).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, WhipSession>> {
        // Nothing that can panic happens under the lock.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a session's address when the session is dropped.
struct Guard {
    sessions: Arc<WhipSessions>,
    name: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.name);
    }
}

pub(super) async fn offer(
    State(door): State<Arc<Door>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let view = door.event(&name)?;
    let invite = access::identify_seat(&headers, &view, &door.operator)?;
    if !access::is_type(&headers, SDP) {
        return Err(problems::unsupported_type(SDP));
    }
    let body = access::body(body, OFFER_BYTES_MAX).await?;
    let offer = std::str::from_utf8(&body).map_err(|_| problems::bad_request("The offer is not UTF-8."))?;
    let answered = media::answer(offer, &door.candidates, Instant::now()).map_err(|error| {
        counters::REFUSED.increment();
        tracing::info!(event = %view.event.slug, seat = invite.seat.0, %error, "an offer was refused");
        problems::offer(&error)
    })?;
    let session = door.next_session();
    let address = format!("{:032x}", rand::random::<u128>());
    let entry = WhipSession {
        event: view.event.slug.clone(),
        seat: invite.seat,
        session,
        peer_ufrag: media::ice_ufrag(offer).map(str::to_owned),
    };
    let sdp = answered.sdp.clone();
    let guard = door.whip.insert(address.clone(), entry);
    let (reply, result) = oneshot::channel();
    let join = Join {
        event: view.event.slug.clone(),
        seat: invite.seat,
        // This source means to be the seat's standby.
        standby: query.is_some_and(|query| query.split('&').any(|pair| pair == "standby=1")),
        session,
        answered,
        guard: Box::new(guard),
        reply,
    };
    if let Err(error) = door.ask(Order::Join(Box::new(join)), result).await? {
        counters::REFUSED.increment();
        return Err(problems::refusal(error, &name));
    }
    let location = format!("/whip/{name}/{address}");
    let headers = [
        (header::CONTENT_TYPE, SDP),
        (header::LOCATION, &location),
        (header::CACHE_CONTROL, "no-store"),
        (http::HeaderName::from_static("accept-patch"), FRAGMENT),
    ];
    Ok((StatusCode::CREATED, headers, sdp).into_response())
}

/// RFC 9725 section 4.2: reading an endpoint has no meaning.
pub(super) async fn no_get() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "An offer is to be posted here")
        .header(header::ALLOW, http::HeaderValue::from_static("POST, OPTIONS"))
}

/// The session of an address, if the one who asks may have it.
fn find(door: &Door, name: &str, session: &str, headers: &HeaderMap) -> Result<WhipSession, Problem> {
    let view = door.event(name)?;
    let who = access::identify(headers, &view, &door.operator)?;
    let found = door.whip.find(session).filter(|found| found.event == view.event.slug);
    let found = found.ok_or_else(Problem::not_found)?;
    match who.seat() {
        Some(seat) if seat != found.seat => Err(problems::forbidden("This session is of another seat.")),
        _ => Ok(found),
    }
}

pub(super) async fn end(
    State(door): State<Arc<Door>>,
    Path((name, session)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let found = find(&door, &name, &session, &headers)?;
    door.orders
        .send(Order::Leave(found.session))
        .await
        .map_err(|_| Problem::unavailable("The stage is being shut down.", 1))?;
    Ok(StatusCode::OK)
}

pub(super) async fn trickle(
    State(door): State<Arc<Door>>,
    Path((name, session)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let found = find(&door, &name, &session, &headers)?;
    if !access::is_type(&headers, FRAGMENT) {
        return Err(problems::unsupported_type(FRAGMENT));
    }
    let body = access::body(body, FRAGMENT_BYTES_MAX).await?;
    let fragment =
        std::str::from_utf8(&body).map_err(|_| problems::bad_request("The fragment is not UTF-8."))?;
    match media::ice_ufrag(fragment) {
        Some(ufrag) if found.peer_ufrag.as_deref() != Some(ufrag) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no-ice-restart",
            "ICE restarts are not supported; post a new offer",
        )),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}
