//! Events and states of shows.

use std::time::Duration;

use model::{
    Bilingual, Digest, Event, EventSlug, GreenRoom, InviteId, Role, Seat, SeatId, ShowState, UnixTime,
};
use serde::{Deserialize, Serialize};

use super::WireError;
use super::serial::{hex, maybe_hex, maybe_nanos, nanos, text};

/// Everything control knows of events: topic `events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Events, latest start first, the newest 4096 of them.
    pub events: Vec<EventRecord>,
}

/// Mirror of [`Bilingual`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BilingualRecord {
    /// Arabic, or empty.
    pub ar: String,
    /// English, or empty.
    pub en: String,
}

impl From<&Bilingual> for BilingualRecord {
    fn from(text: &Bilingual) -> Self {
        Self { ar: text.ar.clone(), en: text.en.clone() }
    }
}

impl From<BilingualRecord> for Bilingual {
    fn from(text: BilingualRecord) -> Self {
        Self { ar: text.ar, en: text.en }
    }
}

/// Mirror of [`Event`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its name.
    #[serde(with = "text")]
    pub slug: EventSlug,
    /// Grows with every change.
    pub revision: u64,
    /// Its title.
    pub title: BilingualRecord,
    /// The announced start, nanoseconds since 1970.
    #[serde(with = "nanos")]
    pub starts_at: UnixTime,
    /// The announced length, milliseconds.
    pub duration_ms: Option<u64>,
    /// Slate before the start, milliseconds.
    pub doors_before_ms: u64,
    /// Whether it goes live by itself.
    pub auto_live: bool,
    /// Whether those who join later wait for a host.
    pub attended: bool,
    /// Whether silence brings the hold slate.
    pub hold_on_silence: bool,
    /// Digest of the custom slate.
    #[serde(with = "maybe_hex")]
    pub slate: Option<[u8; 32]>,
    /// Public key of invitations.
    #[serde(with = "hex")]
    pub invite_key: [u8; 32],
    /// Public key of parts.
    #[serde(with = "hex")]
    pub signing_key: [u8; 32],
    /// Its seats.
    pub seats: Vec<SeatRecord>,
    /// When it was made, nanoseconds since 1970.
    #[serde(with = "nanos")]
    pub created_at: UnixTime,
}

/// Mirror of [`Seat`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatRecord {
    /// Which.
    pub id: u16,
    /// The role's name.
    pub role: String,
    /// Shown to the others.
    pub name: String,
    /// The invitation's identity.
    #[serde(with = "hex")]
    pub invite: [u8; 8],
    /// Whether it was withdrawn.
    pub revoked: bool,
}

impl From<&Event> for EventRecord {
    fn from(event: &Event) -> Self {
        Self {
            slug: event.slug.clone(),
            revision: event.revision,
            title: (&event.title).into(),
            starts_at: event.starts_at,
            duration_ms: event.duration.map(millis),
            doors_before_ms: millis(event.doors_before),
            auto_live: event.auto_live,
            attended: event.green_room == GreenRoom::Attended,
            hold_on_silence: event.hold_on_silence,
            slate: event.slate.map(|Digest(digest)| digest),
            invite_key: event.invite_key,
            signing_key: event.signing_key,
            seats: event.seats.iter().map(SeatRecord::from).collect(),
            created_at: event.created_at,
        }
    }
}

impl TryFrom<EventRecord> for Event {
    type Error = WireError;

    fn try_from(record: EventRecord) -> Result<Self, WireError> {
        Ok(Self {
            slug: record.slug,
            revision: record.revision,
            title: record.title.into(),
            starts_at: record.starts_at,
            duration: record.duration_ms.map(Duration::from_millis),
            doors_before: Duration::from_millis(record.doors_before_ms),
            auto_live: record.auto_live,
            green_room: if record.attended { GreenRoom::Attended } else { GreenRoom::Open },
            hold_on_silence: record.hold_on_silence,
            slate: record.slate.map(Digest),
            invite_key: record.invite_key,
            signing_key: record.signing_key,
            seats: record.seats.into_iter().map(Seat::try_from).collect::<Result<_, _>>()?,
            created_at: record.created_at,
        })
    }
}

impl From<&Seat> for SeatRecord {
    fn from(seat: &Seat) -> Self {
        Self {
            id: seat.id.0,
            role: seat.role.name().to_owned(),
            name: seat.name.clone(),
            invite: seat.invite.0,
            revoked: seat.revoked,
        }
    }
}

impl TryFrom<SeatRecord> for Seat {
    type Error = WireError;

    fn try_from(record: SeatRecord) -> Result<Self, WireError> {
        let role = Role::from_name(&record.role)
            .ok_or_else(|| WireError::Damaged(format!("{:?} is no role", record.role)))?;
        Ok(Self {
            id: SeatId(record.id),
            role,
            name: record.name,
            invite: InviteId(record.invite),
            revoked: record.revoked,
        })
    }
}

/// Mirror of [`ShowState`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateRecord {
    /// Before doors.
    Scheduled,
    /// Slate, green room open.
    Doors,
    /// On air.
    Live,
    /// Hold slate.
    Hold {
        /// When it is expected to go on, nanoseconds since 1970.
        #[serde(with = "maybe_nanos")]
        until: Option<UnixTime>,
        /// What listeners are told.
        message: BilingualRecord,
    },
    /// Over.
    Ended,
}

impl From<&ShowState> for StateRecord {
    fn from(state: &ShowState) -> Self {
        match state {
            ShowState::Scheduled => Self::Scheduled,
            ShowState::Doors => Self::Doors,
            ShowState::Live => Self::Live,
            ShowState::Hold { until, message } => Self::Hold { until: *until, message: message.into() },
            ShowState::Ended => Self::Ended,
        }
    }
}

impl From<StateRecord> for ShowState {
    fn from(record: StateRecord) -> Self {
        match record {
            StateRecord::Scheduled => Self::Scheduled,
            StateRecord::Doors => Self::Doors,
            StateRecord::Live => Self::Live,
            StateRecord::Hold { until, message } => Self::Hold { until, message: message.into() },
            StateRecord::Ended => Self::Ended,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
