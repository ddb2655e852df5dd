//! How other threads reach the push loop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::response::Response;

/// A connection of the push loop: its place, and which of all that had this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

/// Wakes the loop, and hands it answers that were found elsewhere. May be rung from any thread, any number of times.
#[derive(Debug)]
pub(crate) struct Bell {
    waker: Option<mio::Waker>,
    rung: AtomicBool,
    /// At most one a connection, since a connection asks once.
    answers: Mutex<Vec<(Caller, Response)>>,
    start: Instant,
    /// Milliseconds from `start` to the last turn of the loop.
    turned: AtomicU64,
}

impl Bell {
    /// A bell that nobody hears, for a window without listeners.
    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self::with(None)
    }

    /// A bell for the loop that this waker wakes.
    pub(crate) fn new(waker: mio::Waker) -> Self {
        Self::with(Some(waker))
    }

    fn with(waker: Option<mio::Waker>) -> Self {
        Self {
            waker,
            rung: AtomicBool::new(false),
            answers: Mutex::default(),
            start: Instant::now(),
            turned: AtomicU64::new(0),
        }
    }

    /// Something has changed.
    pub(crate) fn ring(&self) {
        // One system call for all that happens until the loop looks.
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(waker) = &self.waker
            && let Err(error) = waker.wake()
        {
            // The loop turns four times a second whether it is woken or not.
            tracing::debug!(%error, "cannot wake the push door");
        }
    }

    /// Answers a caller, if it is still there.
    pub(crate) fn answer(&self, caller: Caller, response: Response) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push((caller, response));
        self.ring();
    }

    /// Whether it was rung since the last time, and what was found.
    pub(crate) fn take(&self) -> Option<Vec<(Caller, Response)>> {
        self.rung
            .swap(false, Ordering::AcqRel)
            .then(|| std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// The loop has turned.
    pub(crate) fn turned(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.start).as_millis();
        self.turned.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long the loop has not turned.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.turned.load(Ordering::Relaxed));
        now.saturating_duration_since(self.start).saturating_sub(last)
    }
}
