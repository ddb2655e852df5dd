//! Who listens on which ticket, for the push door that counts and the feed that tells.

use std::sync::{Mutex, MutexGuard, PoisonError};

use admission::sessions::{Changes, EdgeSessions, Limits, SessionError};
use admission::ticket::TicketId;

/// Sessions of tickets at this edge.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    counts: Mutex<EdgeSessions>,
    /// Tickets of which some are to be closed, and how many.
    over: Mutex<Vec<(TicketId, u32)>>,
}

impl Sessions {
    /// Whether somebody may come in on a ticket.
    pub(crate) fn check(&self, id: TicketId) -> Result<(), SessionError> {
        self.counts().check(id)
    }

    /// Whether a ticket was revoked.
    pub(crate) fn is_revoked(&self, id: TicketId) -> bool {
        matches!(self.check(id), Err(SessionError::Revoked))
    }

    pub(crate) fn join(&self, id: TicketId) {
        self.counts().join(id);
    }

    pub(crate) fn leave(&self, id: TicketId) {
        self.counts().leave(id);
    }

    /// What control is to be told.
    pub(crate) fn tell(&self) -> Changes {
        self.counts().tell()
    }

    /// Takes in what control says. Returns whether somebody is to be closed.
    pub(crate) fn hear(&self, edge: u32, limits: &Limits) -> bool {
        let over = self.counts().hear(edge, limits);
        let is_any = !over.is_empty();
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = over;
        is_any
    }

    /// Those of whom some are to be closed; once.
    pub(crate) fn take_over(&self) -> Vec<(TicketId, u32)> {
        std::mem::take(&mut *self.over.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn counts(&self) -> MutexGuard<'_, EdgeSessions> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
