//! What the API says, as JSON. Times are RFC 3339 in UTC.

use std::time::Duration;

use backend::wire::{Alarm, EventStatus};
use model::{Bilingual, Event, GreenRoom, PartNumber, Seat, ShowState, UnixTime};
use serde::Serialize;
use utoipa::ToSchema;

use crate::doors::Bases;
use crate::ladder;
use crate::observed::Standing;
use crate::publicity::hex;
use crate::state::Known;

/// A text in both languages; empty where one was not given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct BilingualView {
    /// Arabic.
    pub(crate) ar: String,
    /// English.
    pub(crate) en: String,
}

impl From<&Bilingual> for BilingualView {
    fn from(text: &Bilingual) -> Self {
        Self { ar: text.ar.clone(), en: text.en.clone() }
    }
}

/// Where a show stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StateName {
    /// Before doors: no programme yet.
    Scheduled,
    /// The slate plays, speakers gather.
    Doors,
    /// On air.
    Live,
    /// The hold slate plays.
    Hold,
    /// Over; the replay is there.
    Ended,
}

/// What a hold says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct HoldView {
    /// When it is expected to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) until: Option<String>,
    /// What listeners are told.
    pub(crate) message: BilingualView,
}

/// How an event stands, for everyone.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct StatusView {
    /// The event's slug.
    pub(crate) event: String,
    /// Where the show stands.
    pub(crate) state: StateName,
    /// The announced start.
    pub(crate) starts_at: String,
    /// When the programme begins, with its slate.
    pub(crate) doors_at: String,
    /// When it went live.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) live_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) ended_at: Option<String>,
    /// What a hold says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) hold: Option<HoldView>,
    /// Whether the start has passed and the show has not begun.
    pub(crate) late: bool,
    /// Connections that receive the programme at this moment on all edges: pushed and endless streams, and HLS
    /// sessions that asked for something within the last segments.
    pub(crate) listeners: u64,
    /// Ladder level, 0 (all is well) to 6.
    #[schema(maximum = 6)]
    pub(crate) level: u8,
    /// What that level means to a listener.
    pub(crate) sentence: BilingualView,
    /// When this was said.
    pub(crate) now: String,
}

impl StatusView {
    pub(crate) fn new(event: &Event, standing: &Standing, now: UnixTime) -> Self {
        let (state, hold) = match &standing.state {
            ShowState::Scheduled => (StateName::Scheduled, None),
            ShowState::Doors => (StateName::Doors, None),
            ShowState::Live => (StateName::Live, None),
            ShowState::Hold { until, message } => {
                let until = until.map(|until| until.to_string());
                (StateName::Hold, Some(HoldView { until, message: message.into() }))
            }
            ShowState::Ended => (StateName::Ended, None),
        };
        let [ar, en] = ladder::sentence(standing.level, &standing.measures);
        Self {
            event: event.slug.to_string(),
            state,
            starts_at: event.starts_at.to_string(),
            doors_at: standing.doors_at.to_string(),
            live_at: standing.live_at.map(|at| at.to_string()),
            ended_at: standing.ended_at.map(|at| at.to_string()),
            hold,
            late: standing.late || is_late(event, standing, now),
            listeners: standing.listeners,
            level: standing.level.number(),
            sentence: BilingualView { ar: ar.to_owned(), en: en.to_owned() },
            now: now.to_string(),
        }
    }
}

/// Without origin's word, by the clock: with time for its first report after a start that went well.
fn is_late(event: &Event, standing: &Standing, now: UnixTime) -> bool {
    let waits = matches!(standing.state, ShowState::Scheduled | ShowState::Doors);
    waits && now > event.starts_at.plus(Duration::from_secs(3))
}

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct EventView {
    #[serde(flatten)]
    pub(crate) status: StatusView,
    /// Its title.
    pub(crate) title: BilingualView,
    /// The announced length, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) duration_s: Option<u64>,
    /// Grows with every change; also the `ETag`, for `If-Match`.
    pub(crate) revision: u64,
    /// Address of the listener's page.
    pub(crate) listen: String,
    /// Address of the push door, ending in a slash, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) push: Option<String>,
    /// Address of the files door, ending in a slash, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) files: Option<String>,
    /// For the operator and the host alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) manage: Option<ManageView>,
}

/// What those see who run an event.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct ManageView {
    /// How long before the start the slate begins, seconds.
    pub(crate) doors_before_s: u64,
    /// Whether it goes live by itself at its start when a speaker is there.
    pub(crate) auto_live: bool,
    /// How those who come later get on stage.
    pub(crate) green_room: GreenRoomName,
    /// Whether the hold slate plays when nobody is heard for five seconds.
    pub(crate) hold_on_silence: bool,
    /// SHA-256 of the custom slate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) slate: Option<String>,
    /// When it was made.
    pub(crate) created_at: String,
    /// Its seats.
    pub(crate) seats: Vec<SeatView>,
    /// What is wrong: `dead_air`, `late_start`, `clock_step`, `recorder`.
    pub(crate) alarms: Vec<&'static str>,
    /// The newest part.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) newest_part: Option<u64>,
    /// The newest part that is safe on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) recorded_through: Option<u64>,
    /// Incarnation of origin that serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) epoch: Option<u32>,
    /// Whether origin reports on it.
    pub(crate) on_stage_door: bool,
}

/// How those who come later get on stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GreenRoomName {
    /// At once.
    Open,
    /// When a host lets them.
    Attended,
}

/// A seat.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct SeatView {
    /// Its number.
    pub(crate) seat: u16,
    /// `host`, `co-host` or `speaker`.
    pub(crate) role: &'static str,
    /// Shown to the others; empty if not given.
    pub(crate) name: String,
    /// Identity of the invitation that opens it: for `DELETE …/invites/{invite}`.
    pub(crate) invite: String,
    /// Whether the invitation was withdrawn.
    pub(crate) revoked: bool,
    /// Whether a source of it is alive.
    pub(crate) connected: bool,
    /// Whether it is on stage rather than in the green room.
    pub(crate) on_stage: bool,
    /// Whether it is muted.
    pub(crate) muted: bool,
}

impl SeatView {
    fn new(seat: &Seat, status: Option<&EventStatus>) -> Self {
        let now = status.and_then(|status| status.seats.iter().find(|now| now.seat == seat.id.0));
        Self {
            seat: seat.id.0,
            role: seat.role.name(),
            name: seat.name.clone(),
            invite: hex(&seat.invite.0),
            revoked: seat.revoked,
            connected: now.is_some_and(|now| now.connected),
            on_stage: now.is_some_and(|now| now.on_stage),
            muted: now.is_some_and(|now| now.muted),
        }
    }
}

impl EventView {
    pub(crate) fn new(
        known: &Known,
        standing: &Standing,
        bases: &Bases,
        manage: bool,
        now: UnixTime,
    ) -> Self {
        let event = &known.event;
        let door = |base: &Option<String>| base.as_ref().map(|base| format!("{base}/"));
        Self {
            status: StatusView::new(event, standing, now),
            title: (&event.title).into(),
            duration_s: event.duration.map(|duration| duration.as_secs()),
            revision: event.revision,
            listen: format!("{}/e/{}", bases.public, event.slug),
            push: door(&bases.push),
            files: door(&bases.files),
            manage: manage.then(|| ManageView::new(event, standing.status.as_ref())),
        }
    }
}

impl ManageView {
    fn new(event: &Event, status: Option<&EventStatus>) -> Self {
        Self {
            doors_before_s: event.doors_before.as_secs(),
            auto_live: event.auto_live,
            green_room: match event.green_room {
                GreenRoom::Open => GreenRoomName::Open,
                GreenRoom::Attended => GreenRoomName::Attended,
            },
            hold_on_silence: event.hold_on_silence,
            slate: event.slate.map(|digest| digest.to_string()),
            created_at: event.created_at.to_string(),
            seats: event.seats.iter().map(|seat| SeatView::new(seat, status)).collect(),
            alarms: status.iter().flat_map(|status| &status.alarms).copied().map(Alarm::name).collect(),
            newest_part: status.and_then(|status| status.newest_part).map(PartNumber::get),
            recorded_through: status.and_then(|status| status.recorded_through).map(PartNumber::get),
            epoch: status.and_then(|status| status.epoch),
            on_stage_door: status.is_some(),
        }
    }
}

/// Events.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct EventList {
    /// The latest start first.
    pub(crate) events: Vec<EventView>,
}

/// A new event and its links. The links in `host` and `speakers` are secrets: whoever has one is that speaker.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct CreatedView {
    /// Its slug.
    pub(crate) event: String,
    /// The listener's page.
    pub(crate) listen: String,
    /// The stage for the host, the invitation in its fragment.
    pub(crate) host: String,
    /// The stage for each speaker.
    pub(crate) speakers: Vec<String>,
    /// The operator's console.
    pub(crate) console: String,
    /// The invitations by themselves, for encoders and scripts.
    pub(crate) invites: InviteTokens,
    /// The announced start.
    pub(crate) starts_at: String,
    /// When the programme begins, with its slate.
    pub(crate) doors_at: String,
    /// The event's revision.
    pub(crate) revision: u64,
}

/// Invitations of a new event.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct InviteTokens {
    /// The host's.
    pub(crate) host: String,
    /// The speakers'.
    pub(crate) speakers: Vec<String>,
}

/// A new invitation.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct InviteView {
    /// Its identity, for revoking it.
    pub(crate) invite: String,
    /// The seat it opens.
    pub(crate) seat: u16,
    /// `host`, `co-host` or `speaker`.
    pub(crate) role: &'static str,
    /// Shown to the others; empty if not given.
    pub(crate) name: String,
    /// The secret itself: the bearer token.
    pub(crate) token: String,
    /// The stage with the invitation in its fragment.
    pub(crate) link: String,
    /// When it stops working.
    pub(crate) expires: String,
}

/// A ticket. The addresses hold it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct TicketView {
    /// The ticket by itself.
    pub(crate) ticket: String,
    /// What stands in front of `opus-48.mp4`.
    pub(crate) push: String,
    /// The multivariant playlist.
    pub(crate) hls: String,
    /// The fastest tier it allows: parts a write.
    pub(crate) tier: u8,
    /// When it opens no door any more.
    pub(crate) expires: String,
}

/// A slate that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct SlateView {
    /// SHA-256 of the file.
    pub(crate) slate: String,
    /// Its length after decoding, seconds.
    pub(crate) duration_s: f64,
}

/// What went wrong (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemView {
    /// Stable: `urn:minassa:problem:…`.
    pub(crate) r#type: String,
    /// In a few words.
    pub(crate) title: String,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What is wrong in this case.
    pub(crate) detail: Option<String>,
    /// Values that were refused.
    pub(crate) invalid: Option<Vec<InvalidView>>,
}

/// A value that was refused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InvalidField)]
pub(crate) struct InvalidView {
    /// Its key.
    pub(crate) key: String,
    /// What was given.
    pub(crate) value: String,
    /// What is allowed.
    pub(crate) allowed: String,
}
