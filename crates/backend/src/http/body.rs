//! Bodies that keep time, and the account of a connection's requests.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::doorkeeper::Share;
use super::{DoorCounts, Limits, Place};

/// Bytes a second that a body has to come at on the whole, beyond its first pause.
const BODY_RATE_MIN: u64 = 4 * 1024;
/// Most bytes of an HTTP/2 answer that are given away at once. h2 takes whatever it is given as soon as the peer's window
/// has room for one byte, and keeps the rest.
const PIECE: usize = 16 * 1024;
/// So many times [`Limits::write_timeout`] one answer of an HTTP/2 connection may go untaken.
const ANSWER_PATIENCE: u32 = 3;

/// Requests of one connection: how many are in progress, and since when there are none.
#[derive(Debug)]
pub(super) struct Activity {
    place: Arc<Place>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_progress: u32,
    any: bool,
    idle_since: Instant,
    /// Answers of HTTP/2 that the peer could take more of, since when, by the number of the request.
    untaken: BTreeMap<u64, Instant>,
    /// Requests so far.
    requests: u64,
}

/// One request in progress, from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct InProgress {
    activity: Arc<Activity>,
    number: u64,
}

/// What a connection is to be watched for next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is in order; look again then.
    At(Instant),
    /// It has had nothing to do for too long.
    Idle,
    /// It takes nothing of an answer.
    Stalled,
}

impl Activity {
    pub(super) fn new(now: Instant, place: Arc<Place>) -> Self {
        let untaken = BTreeMap::new();
        let state = State { in_progress: 0, any: false, idle_since: now, untaken, requests: 0 };
        Self { place, state: Mutex::new(state) }
    }

    pub(super) fn begin(self: &Arc<Self>) -> InProgress {
        let mut state = self.lock();
        state.in_progress += 1;
        state.any = true;
        state.requests += 1;
        let number = state.requests;
        if state.in_progress == 1 {
            self.place.work();
        }
        drop(state);
        InProgress { activity: self.clone(), number }
    }

    /// How the connection stands.
    pub(super) fn look(&self, limits: &Limits, now: Instant) -> Look {
        let state = self.lock();
        let limit = if state.any { limits.idle_timeout } else { limits.header_timeout };
        let mut deadline = if state.in_progress > 0 { now + limit } else { state.idle_since + limit };
        if deadline <= now {
            return Look::Idle;
        }
        if state.in_progress > 0 {
            let patience = limits.write_timeout * ANSWER_PATIENCE;
            let stalled = state.untaken.values().min().map_or(now, |since| *since) + patience;
            if stalled <= now {
                return Look::Stalled;
            }
            deadline = deadline.min(stalled);
        }
        Look::At(deadline)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.untaken.remove(&self.number);
        state.in_progress -= 1;
        state.idle_since = Instant::now();
        if state.in_progress == 0 {
            self.activity.place.rest();
        }
    }
}

impl InProgress {
    /// Whether it is the peer's turn to take something.
    fn untaken(&self, is: bool) {
        let mut state = self.activity.lock();
        if is {
            state.untaken.insert(self.number, Instant::now());
        } else {
            state.untaken.remove(&self.number);
        }
    }
}

/// An answer's body that keeps its request in progress until it is sent or dropped.
pub(super) struct Counted {
    body: Body,
    /// What is left of the body's frame that is given away in pieces.
    rest: Bytes,
    account: Arc<Account>,
    /// Whether its connection may carry others beside it. Then the connection may be busy while nothing of this one is
    /// taken; where it has a connection for itself, that is watched (see [`super::guard`]).
    streamed: bool,
}

/// What an answer takes until all of it was taken: shared by its body and the pieces of it that wait to be sent.
struct Account {
    request: InProgress,
    _share: Option<Share>,
    /// Pieces that wait.
    pieces: AtomicU32,
}

impl Account {
    /// The body has nothing to give at the moment, or for ever.
    fn dry(&self) {
        if self.pieces.load(Ordering::Relaxed) == 0 {
            self.request.untaken(false);
        }
    }
}

/// Some of an answer, until it was sent.
struct Piece {
    bytes: Bytes,
    account: Arc<Account>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // Where others wait it is a step, and time begins anew.
        let waiting = self.account.pieces.fetch_sub(1, Ordering::Relaxed) > 1;
        self.account.request.untaken(waiting);
    }
}

impl Counted {
    /// The answer of a `request`, which has a `share` unless it was refused; `streamed` beside others.
    pub(super) fn new(body: Body, request: InProgress, share: Option<Share>, streamed: bool) -> Self {
        if streamed {
            request.untaken(true);
        }
        let account = Arc::new(Account { request, _share: share, pieces: AtomicU32::new(0) });
        Self { body, rest: Bytes::new(), account, streamed }
    }

    /// The next of `rest`.
    fn piece(&mut self) -> Bytes {
        let bytes = self.rest.split_to(self.rest.len().min(PIECE));
        self.account.pieces.fetch_add(1, Ordering::Relaxed);
        self.account.request.untaken(true);
        Bytes::from_owner(Piece { bytes, account: self.account.clone() })
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.streamed && self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => self.rest = bytes,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                none => {
                    self.account.dry();
                    return none;
                }
            }
        }
        if self.streamed {
            return Poll::Ready(Some(Ok(Frame::data(self.piece()))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

/// A request's body that must not pause for too long, nor take for ever.
pub(super) struct Paced {
    body: Incoming,
    limit: Duration,
    counts: Arc<DoorCounts>,
    /// When it was first asked for.
    begun: Option<Instant>,
    bytes: u64,
    waiting: Option<Pin<Box<Sleep>>>,
    ended: bool,
    /// Set where it is dropped before its end.
    unread: Option<Arc<AtomicBool>>,
}

/// The sender of a body paused for too long, or was too slow on the whole.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly")]
struct TooSlow;

impl Paced {
    pub(super) fn new(
        body: Incoming,
        limit: Duration,
        counts: Arc<DoorCounts>,
        unread: Option<Arc<AtomicBool>>,
    ) -> Self {
        Self { body, limit, counts, begun: None, bytes: 0, waiting: None, ended: false, unread }
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        if let Some(unread) = &self.unread
            && !self.ended
            && !http_body::Body::is_end_stream(&self.body)
        {
            unread.store(true, Ordering::Relaxed);
        }
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.waiting = None;
            self.ended |= frame.is_none();
            if let Some(Ok(frame)) = &frame
                && let Some(bytes) = frame.data_ref()
            {
                self.bytes += bytes.len() as u64;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let (limit, bytes) = (self.limit, self.bytes);
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let waiting = self.waiting.get_or_insert_with(|| {
            let whole = begun + limit + Duration::from_millis(bytes * 1_000 / BODY_RATE_MIN);
            Box::pin(sleep_until(whole.min(Instant::now() + limit)))
        });
        ready!(waiting.as_mut().poll(context));
        self.counts.slow_body();
        Poll::Ready(Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
