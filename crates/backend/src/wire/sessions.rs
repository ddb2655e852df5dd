//! Sessions of tickets, between edges and control.

use admission::sessions::{Changes, Limits};
use admission::ticket::TicketId;
use serde::{Deserialize, Serialize};

/// Mirror of [`Changes`]: topic `sessions` of an edge, once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionChanges {
    /// Which edge, counted from 0.
    pub index: u32,
    /// Its process.
    pub pid: u32,
    /// The part of the tickets that is listed in full.
    pub shard: u8,
    /// Tickets with as many sessions as they have now.
    pub counts: Vec<([u8; 8], u32)>,
}

impl SessionChanges {
    /// What the edge `index`, as process `pid`, says.
    pub fn new(index: u32, pid: u32, changes: &Changes) -> Self {
        let counts = changes.counts.iter().map(|(TicketId(id), count)| (*id, *count)).collect();
        Self { index, pid, shard: changes.shard, counts }
    }

    /// What it says.
    pub fn changes(&self) -> Changes {
        let counts = self.counts.iter().map(|(id, count)| (TicketId(*id), *count)).collect();
        Changes { shard: self.shard, counts }
    }
}

/// Mirror of [`Limits`]: topic `limits` of control, once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionLimits {
    /// Edge, ticket, sessions to keep there.
    pub keep: Vec<(u32, [u8; 8], u32)>,
    /// Tickets that let nobody more in.
    pub full: Vec<[u8; 8]>,
    /// Tickets that open no door any more.
    pub revoked: Vec<[u8; 8]>,
}

impl From<Limits> for SessionLimits {
    fn from(limits: Limits) -> Self {
        let bare = |ids: Vec<TicketId>| ids.into_iter().map(|TicketId(id)| id).collect();
        Self {
            keep: limits.keep.into_iter().map(|(edge, TicketId(id), keep)| (edge, id, keep)).collect(),
            full: bare(limits.full),
            revoked: bare(limits.revoked),
        }
    }
}

impl From<SessionLimits> for Limits {
    fn from(record: SessionLimits) -> Self {
        let ids = |bare: Vec<[u8; 8]>| bare.into_iter().map(TicketId).collect();
        Self {
            keep: record.keep.into_iter().map(|(edge, id, keep)| (edge, TicketId(id), keep)).collect(),
            full: ids(record.full),
            revoked: ids(record.revoked),
        }
    }
}
