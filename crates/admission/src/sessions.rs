//! Sessions of tickets: how many people listen on one, over all edges, and which of them are too many.
//!
//! ```text
//! edge: joins, leaves ──► counts ──► Changes, once a second ──► control: sums ──► Limits, once a second ──► edge:
//!       6th at one edge: refused        changed ones and           who is over?      what to keep here    closes
//!                                       a sixteenth of all
//! ```
//!
//! A ticket carries [`SESSIONS_MAX`] sessions, and for as long as it takes to notice (about two seconds) as many more as
//! come in. Whoever takes nothing any more is closed first, then who came last: sharing a ticket wins nobody a seat
//! from the one who had it. From then on no door lets more in on it than leave, for [`WATCHED`]. Every edge says all it has once in [`SHARDS`] seconds, so that what was lost on the way, or
//! an edge that was started anew, is put right by itself.
//!
//! Revoked tickets are said every second, for as long as they would have opened doors.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::UnixTime;

use crate::ticket::TicketId;

/// Sessions that a ticket carries.
pub const SESSIONS_MAX: u32 = 2;
/// Sessions of one ticket at one edge, at which the door refuses more: nobody comes so often in two seconds.
pub const SESSIONS_AT_ONCE: u32 = 6;
/// In so many seconds an edge says everything once.
pub const SHARDS: u8 = 16;
/// A ticket that had too many sessions is watched for so long.
pub const WATCHED: Duration = Duration::from_secs(60);
/// Tickets above their sessions, or revoked, that are told at once. More are told as soon as these are done.
pub const TOLD_MAX: usize = 4_096;
/// Tickets that control follows at once. Beyond that new ones are not, which is counted.
pub const FOLLOWED_MAX: usize = 16_000_000;

/// Which sixteenth a ticket is in. Identities are random.
fn shard(id: TicketId) -> u8 {
    id.0[7] % SHARDS
}

/// What an edge says once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The part of the tickets that is listed in full.
    pub shard: u8,
    /// Tickets with as many sessions as they have now; 0 of who left.
    pub counts: Vec<(TicketId, u32)>,
}

/// What control says once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Edge, ticket, sessions to keep there.
    pub keep: Vec<(u32, TicketId, u32)>,
    /// Tickets that were shared and have all the sessions they may: no door lets more in.
    pub full: Vec<TicketId>,
    /// Tickets that open no door any more.
    pub revoked: Vec<TicketId>,
}

/// Sessions at one edge.
#[derive(Debug, Default)]
pub struct EdgeSessions {
    /// By shard: once a second one of them is told whole.
    counts: [BTreeMap<TicketId, u32>; SHARDS as usize],
    changed: BTreeSet<TicketId>,
    full: BTreeSet<TicketId>,
    revoked: BTreeSet<TicketId>,
    turn: u8,
}

/// Why a ticket lets nobody more in here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Control said so.
    #[error("the ticket was revoked")]
    Revoked,
    /// More than it carries.
    #[error("the ticket is in use by as many as it carries")]
    TooMany,
}

impl EdgeSessions {
    /// Whether somebody may come in on a ticket.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn check(&self, id: TicketId) -> Result<(), SessionError> {
        if self.revoked.contains(&id) {
            Err(SessionError::Revoked)
        } else if self.full.contains(&id) || self.count(id) >= SESSIONS_AT_ONCE {
            Err(SessionError::TooMany)
        } else {
            Ok(())
        }
    }

    /// Somebody came in.
    pub fn join(&mut self, id: TicketId) {
        *self.shard_of(id).entry(id).or_default() += 1;
        self.changed.insert(id);
    }

    /// Somebody left.
    pub fn leave(&mut self, id: TicketId) {
        let shard = self.shard_of(id);
        if let Some(count) = shard.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&id);
            }
            self.changed.insert(id);
        }
    }

    /// What control is told, once a second.
    pub fn tell(&mut self) -> Changes {
        let shard_now = self.turn;
        self.turn = (self.turn + 1) % SHARDS;
        let mut told = self.counts[usize::from(shard_now)].clone();
        for id in std::mem::take(&mut self.changed) {
            told.insert(id, self.count(id));
        }
        Changes { shard: shard_now, counts: told.into_iter().collect() }
    }

    /// Takes in what control says to this edge. Returns the tickets that have too many sessions here, and how many are to
    /// be closed.
    pub fn hear(&mut self, edge: u32, limits: &Limits) -> Vec<(TicketId, u32)> {
        self.revoked = limits.revoked.iter().take(TOLD_MAX).copied().collect();
        self.full = limits.full.iter().take(TOLD_MAX).copied().collect();
        let mut keep: BTreeMap<TicketId, u32> =
            limits.keep.iter().filter(|(of, _, _)| *of == edge).map(|(_, id, keep)| (*id, *keep)).collect();
        keep.extend(self.revoked.iter().map(|id| (*id, 0)));
        let over = keep.into_iter().filter_map(|(id, keep)| {
            let excess = self.count(id).saturating_sub(keep);
            (excess > 0).then_some((id, excess))
        });
        over.collect()
    }

    /// Tickets in use.
    pub fn len(&self) -> usize {
        self.counts.iter().map(BTreeMap::len).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(BTreeMap::is_empty)
    }

    fn count(&self, id: TicketId) -> u32 {
        self.counts[usize::from(shard(id))].get(&id).copied().unwrap_or(0)
    }

    fn shard_of(&mut self, id: TicketId) -> &mut BTreeMap<TicketId, u32> {
        &mut self.counts[usize::from(shard(id))]
    }
}

/// Sessions of all edges, at control.
#[derive(Debug, Default)]
pub struct Sessions {
    edges: BTreeMap<u32, Edge>,
    /// Of all edges together.
    totals: BTreeMap<TicketId, u32>,
    /// Tickets above their sessions.
    over: BTreeSet<TicketId>,
    /// Tickets that were, and until when they are watched: at most [`TOLD_MAX`].
    watched: BTreeMap<TicketId, UnixTime>,
    /// Until when each would open doors.
    revoked: BTreeMap<TicketId, UnixTime>,
    ignored: u64,
}

/// What one edge said.
#[derive(Debug, Default)]
struct Edge {
    /// Another process begins with nobody.
    process: u32,
    shards: [BTreeMap<TicketId, u32>; SHARDS as usize],
}

impl Sessions {
    /// Takes in what an edge says; `process` tells one life of it from the next.
    pub fn hear(&mut self, edge: u32, process: u32, changes: &Changes) {
        if self.edges.get(&edge).is_some_and(|known| known.process != process) {
            self.forget(edge);
        }
        let known = self.edges.entry(edge).or_insert_with(|| Edge { process, ..Edge::default() });
        let told: BTreeMap<TicketId, u32> = changes.counts.iter().copied().collect();
        // What is listed in full and not named has left.
        let listed = known.shards.get(usize::from(changes.shard)).into_iter().flat_map(BTreeMap::keys);
        let gone: Vec<TicketId> = listed.filter(|id| !told.contains_key(*id)).copied().collect();
        for (id, count) in gone.into_iter().map(|id| (id, 0)).chain(told) {
            self.set(edge, id, count);
        }
    }

    /// Forgets the edges that are not among these.
    pub fn retain(&mut self, alive: &BTreeSet<u32>) {
        let gone: Vec<u32> = self.edges.keys().filter(|edge| !alive.contains(edge)).copied().collect();
        gone.into_iter().for_each(|edge| self.forget(edge));
    }

    /// An edge is gone, and with it who was there.
    pub fn forget(&mut self, edge: u32) {
        let Some(gone) = self.edges.remove(&edge) else { return };
        for (id, count) in gone.shards.into_iter().flatten() {
            self.add(id, -i64::from(count));
        }
    }

    fn set(&mut self, edge: u32, id: TicketId, count: u32) {
        let Some(known) = self.edges.get_mut(&edge) else { return };
        let shard = &mut known.shards[usize::from(shard(id))];
        let before = shard.get(&id).copied().unwrap_or(0);
        if count == 0 {
            shard.remove(&id);
        } else if before > 0 || self.totals.contains_key(&id) || self.totals.len() < FOLLOWED_MAX {
            shard.insert(id, count);
        } else {
            self.ignored += 1;
            return;
        }
        self.add(id, i64::from(count) - i64::from(before));
    }

    fn add(&mut self, id: TicketId, more: i64) {
        let total = self.totals.entry(id).or_default();
        *total = u32::try_from(i64::from(*total) + more).unwrap_or(if more > 0 { u32::MAX } else { 0 });
        if *total > SESSIONS_MAX {
            self.over.insert(id);
        } else {
            self.over.remove(&id);
        }
        if *total == 0 {
            self.totals.remove(&id);
        }
    }

    /// A ticket is to open no door any more; it would have until `expires`.
    pub fn revoke(&mut self, id: TicketId, expires: UnixTime) -> bool {
        let room = self.revoked.len() < TOLD_MAX || self.revoked.contains_key(&id);
        if room {
            self.revoked.insert(id, expires);
        }
        room
    }

    /// Revoked tickets and until when each would have opened doors, to be kept.
    pub fn revoked(&self) -> &BTreeMap<TicketId, UnixTime> {
        &self.revoked
    }

    /// What the edges are told, once a second.
    pub fn limits(&mut self, now: UnixTime) -> Limits {
        self.revoked.retain(|_, expires| *expires >= now);
        self.watched.retain(|_, until| *until >= now);
        let mut keep = Vec::new();
        for id in self.over.iter().take(TOLD_MAX) {
            if self.watched.len() < TOLD_MAX || self.watched.contains_key(id) {
                self.watched.insert(*id, now.plus(WATCHED));
            }
            let mut left = SESSIONS_MAX;
            for (edge, known) in &self.edges {
                let count = known.shards[usize::from(shard(*id))].get(id).copied().unwrap_or(0);
                let here = count.min(left);
                left -= here;
                if here < count {
                    keep.push((*edge, *id, here));
                }
            }
        }
        let is_full = |id: &&TicketId| self.totals.get(*id).is_some_and(|total| *total >= SESSIONS_MAX);
        let full = self.watched.keys().filter(is_full).copied().collect();
        Limits { keep, full, revoked: self.revoked.keys().copied().collect() }
    }

    /// Tickets in use.
    pub fn len(&self) -> usize {
        self.totals.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.totals.is_empty()
    }

    /// Times that a ticket was not followed because too many were.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u8) -> TicketId {
        TicketId([n; 8])
    }

    fn at(second: i64) -> UnixTime {
        UnixTime::from_millis(second * 1_000)
    }

    #[test]
    fn a_ticket_shared_over_edges_keeps_two_sessions() {
        let (mut a, mut b, mut control) =
            (EdgeSessions::default(), EdgeSessions::default(), Sessions::default());
        for _ in 0..2 {
            a.join(id(1));
            b.join(id(1));
        }
        b.join(id(2));
        control.hear(0, 10, &a.tell());
        control.hear(1, 11, &b.tell());
        let limits = control.limits(at(0));
        assert_eq!((&limits.keep[..], &limits.full[..]), (&[(1, id(1), 0)][..], &[id(1)][..]));
        assert_eq!((a.hear(0, &limits), b.hear(1, &limits)), (vec![], vec![(id(1), 2)]));
        b.leave(id(1));
        b.leave(id(1));
        control.hear(1, 11, &b.tell());
        // For a while nobody more comes in on it, at no edge, unless somebody leaves.
        let limits = control.limits(at(1));
        assert_eq!((&limits.keep[..], &limits.full[..], control.len()), (&[][..], &[id(1)][..], 2));
        assert_eq!(b.hear(1, &limits), []);
        assert_eq!(b.check(id(1)), Err(SessionError::TooMany));
        a.leave(id(1));
        control.hear(0, 10, &a.tell());
        assert_eq!(control.limits(at(2)), Limits::default());
        a.join(id(1));
        control.hear(0, 10, &a.tell());
        assert_eq!(control.limits(at(60)).full, [id(1)]);
        assert_eq!(control.limits(at(61)).full, []);
    }

    #[test]
    fn the_door_refuses_what_is_more_than_an_accident() {
        let mut edge = EdgeSessions::default();
        for _ in 0..SESSIONS_AT_ONCE {
            assert_eq!(edge.check(id(1)), Ok(()));
            edge.join(id(1));
        }
        assert_eq!(edge.check(id(1)), Err(SessionError::TooMany));
        edge.leave(id(1));
        assert_eq!((edge.check(id(1)), edge.check(id(2))), (Ok(()), Ok(())));
    }

    #[test]
    fn a_revoked_ticket_is_closed_everywhere_until_it_would_have_ended() {
        let (mut edge, mut control) = (EdgeSessions::default(), Sessions::default());
        edge.join(id(1));
        assert!(control.revoke(id(1), at(100)));
        assert_eq!(edge.hear(0, &control.limits(at(100))), [(id(1), 1)]);
        assert_eq!(edge.check(id(1)), Err(SessionError::Revoked));
        assert_eq!(edge.hear(0, &control.limits(at(101))), []);
        assert_eq!(edge.check(id(1)), Ok(()));
        for n in 0..TOLD_MAX as u64 {
            assert!(control.revoke(TicketId(n.to_be_bytes()), at(200)));
        }
        assert!(!control.revoke(TicketId([255; 8]), at(200)), "bounded");
    }

    #[test]
    fn an_edge_that_begins_anew_begins_with_nobody() {
        let (mut edge, mut control) = (EdgeSessions::default(), Sessions::default());
        for n in 0..100 {
            edge.join(id(n));
        }
        control.hear(0, 1, &edge.tell());
        assert_eq!(control.len(), 100);
        control.hear(0, 2, &Changes::default());
        assert!(control.is_empty());
        control.hear(0, 2, &edge.tell());
        control.forget(0);
        assert!(control.is_empty());
    }

    proptest! {
        /// Whatever is lost on the way: after all shards were said once, control knows what is.
        #[test]
        fn what_was_lost_is_put_right(
            steps in proptest::collection::vec((0_u32..3, 0_u8..40, proptest::bool::ANY, proptest::bool::ANY), 1..300)
        ) {
            let mut edges: [EdgeSessions; 3] = Default::default();
            let mut control = Sessions::default();
            for (edge, ticket, joins, arrives) in steps {
                let sessions = &mut edges[edge as usize];
                if joins { sessions.join(id(ticket)) } else { sessions.leave(id(ticket)) }
                let changes = sessions.tell();
                if arrives {
                    control.hear(edge, 1, &changes);
                }
            }
            for _ in 0..SHARDS {
                for (edge, sessions) in (0..).zip(&mut edges) {
                    control.hear(edge, 1, &sessions.tell());
                }
            }
            let mut all: BTreeMap<TicketId, u64> = BTreeMap::new();
            for (id, count) in edges.iter().flat_map(|edge| edge.counts.iter().flatten()) {
                *all.entry(*id).or_default() += u64::from(*count);
            }
            let known: BTreeMap<TicketId, u64> =
                control.totals.iter().map(|(id, total)| (*id, u64::from(*total))).collect();
            prop_assert_eq!(&known, &all);
            // And what it says leaves two of each.
            let limits = control.limits(at(0));
            let mut closed: BTreeMap<TicketId, u64> = BTreeMap::new();
            for (edge, sessions) in (0..).zip(&mut edges) {
                for (id, excess) in sessions.hear(edge, &limits) {
                    *closed.entry(id).or_default() += u64::from(excess);
                }
            }
            for (id, total) in all {
                let left = total - closed.get(&id).copied().unwrap_or(0);
                prop_assert_eq!(left, total.min(u64::from(SESSIONS_MAX)));
            }
        }
    }
}
