//! Bodies that keep time, and the account of a connection's requests.

use std::error::Error;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::Limits;

/// Requests of one connection: how many are in progress, and since when there are none.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_progress: u32,
    any: bool,
    idle_since: Instant,
}

/// One request in progress, from its head to the end of its answer.
#[derive(Debug)]
pub(super) struct InProgress {
    activity: Arc<Activity>,
}

impl Activity {
    pub(super) fn new(now: Instant) -> Self {
        Self { state: Mutex::new(State { in_progress: 0, any: false, idle_since: now }) }
    }

    pub(super) fn begin(self: &Arc<Self>) -> InProgress {
        let mut state = self.lock();
        state.in_progress += 1;
        state.any = true;
        drop(state);
        InProgress { activity: self.clone() }
    }

    /// When to look again; `None` if the connection has been idle for too long.
    pub(super) fn idle_deadline(&self, limits: &Limits, now: Instant) -> Option<Instant> {
        let state = self.lock();
        let limit = if state.any { limits.idle_timeout } else { limits.header_timeout };
        let deadline = if state.in_progress > 0 { now + limit } else { state.idle_since + limit };
        (deadline > now).then_some(deadline)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.in_progress -= 1;
        state.idle_since = Instant::now();
    }
}

/// An answer's body that keeps its request in progress until it is sent or dropped.
pub(super) struct Counted {
    body: Body,
    _request: InProgress,
}

impl Counted {
    pub(super) fn new(body: Body, request: InProgress) -> Self {
        Self { body, _request: request }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body that must not pause for too long.
pub(super) struct Paced {
    body: Incoming,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

/// The sender of a body paused for too long.
#[derive(Debug, thiserror::Error)]
#[error("the body paused for too long")]
struct Paused;

impl Paced {
    pub(super) fn new(body: Incoming, limit: Duration) -> Self {
        Self { body, limit, waiting: None }
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
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Some(Err(Paused.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
