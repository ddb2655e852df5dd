//! Events, and who may do what in them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{Digest, UnixTime};

/// Name of an event in addresses and paths: `[a-z0-9-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventSlug(String);

/// A text that cannot name an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} cannot name an event: 1 to 64 of a-z, 0-9 and -")]
pub struct InvalidSlug {
    /// What was given, at most 80 characters of it.
    pub value: String,
}

impl EventSlug {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EventSlug {
    type Err = InvalidSlug;

    fn from_str(value: &str) -> Result<Self, InvalidSlug> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=64).contains(&value.len()) && value.bytes().all(allowed) {
            Ok(Self(value.to_owned()))
        } else {
            Err(InvalidSlug { value: value.chars().take(80).collect() })
        }
    }
}

impl fmt::Display for EventSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One text in both languages of the house.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bilingual {
    /// Arabic; empty if it was not given.
    pub ar: String,
    /// English; empty if it was not given.
    pub en: String,
}

/// What an invitation allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Speaks; starts, holds and ends the show; moderates everyone; makes invitations.
    Host,
    /// Speaks; moderates speakers; may start, hold and end.
    CoHost,
    /// Speaks.
    Speaker,
}

impl Role {
    /// Its name in the API: `host`, `co-host`, `speaker`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::CoHost => "co-host",
            Self::Speaker => "speaker",
        }
    }

    /// Whether it may start, hold and end the show, and mute and move others.
    pub const fn directs(self) -> bool {
        matches!(self, Self::Host | Self::CoHost)
    }

    /// The role of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Host, Self::CoHost, Self::Speaker].into_iter().find(|role| role.name() == name)
    }
}

/// A place on the stage; one invitation names one seat. Unique within the event, counted from 0 (the host).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeatId(pub u16);

/// Which of a seat's two sources: a standby takes over when the first falls silent as a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeatSource {
    /// The first.
    A,
    /// The second.
    B,
}

/// Identity of one invitation, random, named in the event's list of revocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteId(pub [u8; 8]);

/// A person's place in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Which.
    pub id: SeatId,
    /// What its holder may do.
    pub role: Role,
    /// Shown to the others; empty if not given.
    pub name: String,
    /// The invitation that opens it.
    pub invite: InviteId,
    /// Whether the invitation was withdrawn.
    pub revoked: bool,
}

/// How speakers come from the green room to the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum GreenRoom {
    /// Everyone in the green room goes on stage when the show goes live; who joins later goes on stage at once.
    #[default]
    Open,
    /// As `Open` at the start, but who joins later waits in the green room for a host.
    Attended,
}

/// Identity of a signing key: the first 8 bytes of the SHA-256 of its public part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

impl KeyId {
    /// The identity of an Ed25519 public key.
    pub fn of(public_key: &[u8; 32]) -> Self {
        let Digest(digest) = Digest::of(public_key);
        Self(digest[..8].try_into().expect("a digest has 32 bytes"))
    }
}

/// An event as control keeps it and as origin and edges freeze it to their disks before doors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name in addresses.
    pub slug: EventSlug,
    /// Grows with every change; the highest wins.
    pub revision: u64,
    /// Shown to listeners; one language at least is given.
    pub title: Bilingual,
    /// The announced start.
    pub starts_at: UnixTime,
    /// The announced length, if any. Nothing ends by itself.
    pub duration: Option<Duration>,
    /// How long before the start the programme begins with its slate.
    pub doors_before: Duration,
    /// Whether the event goes live by itself at its start when a speaker is there.
    pub auto_live: bool,
    /// How speakers come on stage.
    pub green_room: GreenRoom,
    /// Whether the hold slate plays when nobody has been heard or connected for five seconds.
    pub hold_on_silence: bool,
    /// Digest of the custom slate in the objects (`slates/{digest}`), if there is one.
    pub slate: Option<Digest>,
    /// Public key that invitations are checked with (Ed25519).
    pub invite_key: [u8; 32],
    /// Public key that parts are signed with (Ed25519).
    pub signing_key: [u8; 32],
    /// Seats, in the order of their ids.
    pub seats: Vec<Seat>,
    /// When it was made.
    pub created_at: UnixTime,
}

/// Where a show stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShowState {
    /// Before doors: no programme yet.
    Scheduled,
    /// The programme runs with its slate; speakers gather in the green room.
    Doors,
    /// The stage is on air.
    Live,
    /// The hold slate is on air.
    Hold {
        /// When it is expected to go on, if that is known.
        until: Option<UnixTime>,
        /// What listeners are told; may be empty.
        message: Bilingual,
    },
    /// Over; the replay is there. Final.
    Ended,
}

impl ShowState {
    /// Its name in the API: `scheduled`, `doors`, `live`, `hold`, `ended`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Doors => "doors",
            Self::Live => "live",
            Self::Hold { .. } => "hold",
            Self::Ended => "ended",
        }
    }
}
