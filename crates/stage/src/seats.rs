//! Seats and their sources.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Role, SeatId, SeatSource, UnixTime};

/// One connection of a seat, numbered by the show; never reused within one incarnation of origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u32);

/// How a source's packets arrive, and so how long a silence means that the connection is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// RTP: a packet every 20 to 120 ms. Dead after 500 ms without one.
    Rtp,
    /// An Ogg stream over TCP: pages of up to a second. Dead after 2.5 s without one; a closed connection is known
    /// at once.
    Stream,
}

impl SourceKind {
    /// The silence after which a source counts as dead.
    pub const fn dead_after(self) -> Duration {
        match self {
            Self::Rtp => Duration::from_millis(500),
            Self::Stream => Duration::from_millis(2_500),
        }
    }
}

/// Where a seat's holder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Place {
    /// In the green room, and goes on stage by the event's rule.
    #[default]
    Waiting,
    /// In the green room because a host put them there; only a host brings them back.
    KeptBack,
    /// On stage. Kept across dropped connections.
    OnStage,
}

/// What a source is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceUse {
    /// Whose it is.
    pub seat: SeatId,
    /// Whether it is the seat's active source; the other is its standby.
    pub active: bool,
    /// Whether it is in the stage's mix, which everyone on stage and in the green room hears, and listeners hear
    /// while the stage is on air.
    pub in_mix: bool,
}

/// Who asks for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The operator, who may direct everything and has no seat.
    Operator,
    /// The holder of a seat, with the rights of its role.
    Seat(SeatId),
}

/// A change asked for a seat. What is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeatChange {
    /// Mute or unmute.
    pub muted: Option<bool>,
    /// Bring on stage, or back to the green room.
    pub on_stage: Option<bool>,
}

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectError {
    /// The event has no such seat.
    #[error("this event has no such seat")]
    UnknownSeat,
    /// The one who asks may not do this.
    #[error("your role does not allow this")]
    Forbidden,
    /// The show is over.
    #[error("the show has ended")]
    Ended,
}

/// A source that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its number from now on.
    pub source: SourceId,
    /// Its slot at the seat.
    pub slot: SeatSource,
}

/// Why a source was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// The event has no such seat, or its invitation was withdrawn.
    #[error("this event has no such seat")]
    UnknownSeat,
    /// The seat has a source and a standby, both alive.
    #[error("this seat already has a source and a standby")]
    SeatFull,
    /// The show is over.
    #[error("the show has ended")]
    Ended,
}

/// Why a source was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// By its client.
    Gone,
    /// It never sent a packet.
    NeverConnected,
    /// It has been dead for too long.
    Dead,
    /// A new source took its slot.
    Replaced,
    /// The seat's invitation was withdrawn.
    Revoked,
    /// The show is over.
    Ended,
}

impl CloseReason {
    /// Its name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::NeverConnected => "never_connected",
            Self::Dead => "dead",
            Self::Replaced => "replaced",
            Self::Revoked => "revoked",
            Self::Ended => "ended",
        }
    }
}

/// A seat as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeatView {
    /// Which.
    pub id: SeatId,
    /// What its holder may do.
    pub role: Role,
    /// The name shown.
    pub name: String,
    /// Whether a source of it is alive.
    pub connected: bool,
    /// Sources it has, alive or not: 0 to 2.
    pub sources: usize,
    /// The source in use.
    pub active: Option<SourceId>,
    /// Where its holder is.
    pub place: Place,
    /// Whether it is muted.
    pub muted: bool,
}

/// What of a seat outlives connections and crashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) place: Place,
    pub(crate) muted: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) seat: SeatId,
    pub(crate) slot: SeatSource,
    pub(crate) kind: SourceKind,
    /// It gives way to a source of the same seat that did not call itself a standby.
    pub(crate) yields: bool,
    pub(crate) admitted: UnixTime,
    pub(crate) last_packet: Option<UnixTime>,
    /// Since when packets have been coming without a break.
    pub(crate) alive_since: Option<UnixTime>,
    /// What was last told to the shell.
    pub(crate) told: Option<SourceUse>,
}

impl Source {
    pub(crate) fn alive(&self) -> bool {
        self.alive_since.is_some()
    }

    /// When it counts as dead unless a packet comes.
    pub(crate) fn dies_at(&self) -> Option<UnixTime> {
        self.last_packet.map(|at| at.plus(self.kind.dead_after()))
    }
}

/// Every source of the event, and which one each seat uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    pub(crate) all: BTreeMap<SourceId, Source>,
    pub(crate) active: BTreeMap<SeatId, SourceId>,
    next: u32,
}

impl Sources {
    pub(crate) fn of(&self, seat: SeatId) -> impl Iterator<Item = (SourceId, &Source)> {
        self.all.iter().filter(move |(_, source)| source.seat == seat).map(|(id, source)| (*id, source))
    }

    pub(crate) fn connected(&self, seat: SeatId) -> bool {
        self.of(seat).any(|(_, source)| source.alive())
    }

    /// The seat's source in use, if it is alive.
    pub(crate) fn active_alive(&self, seat: SeatId) -> Option<SourceId> {
        let id = *self.active.get(&seat)?;
        self.all.get(&id).filter(|source| source.alive()).map(|_| id)
    }

    pub(crate) fn insert(&mut self, source: Source) -> SourceId {
        let id = SourceId(self.next);
        self.next = self.next.wrapping_add(1);
        self.all.insert(id, source);
        id
    }

    /// The source that a seat should use at `now`: the present one while it is alive, unless it yields to one that
    /// has been alive for `settled`; otherwise the one alive the longest; otherwise the present one.
    pub(crate) fn choose(&self, seat: SeatId, settled: Duration, now: UnixTime) -> Option<SourceId> {
        let present = self.active.get(&seat).copied().filter(|id| self.all.contains_key(id));
        let alive = || {
            self.of(seat)
                .filter_map(|(id, source)| source.alive_since.map(|since| (since, id, source.yields)))
        };
        match present.map(|id| (id, &self.all[&id])) {
            Some((id, source)) if source.alive() => {
                let better = alive()
                    .filter(|(since, _, yields)| source.yields && !yields && now.since(*since) >= settled)
                    .min();
                Some(better.map_or(id, |(_, id, _)| id))
            }
            _ => alive()
                .min_by_key(|(since, id, yields)| (*yields, *since, *id))
                .map(|(_, id, _)| id)
                .or(present),
        }
    }
}
