//! What origin and the edges report, and what control tells the edges.

use model::{Anchor, BootId, BootTime, EventSlug, PartNumber, Rendition, UnixTime};
use serde::{Deserialize, Serialize};

use super::serial::{hex, maybe_nanos, maybe_part, nanos, text};
use super::{LoadRecord, MeasuresRecord, StateRecord};

/// State of every show at origin: topic `status`, once a second and at each change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginStatus {
    /// Origin's process.
    pub pid: u32,
    /// When it was said, by the wall clock.
    #[serde(with = "nanos")]
    pub at: UnixTime,
    /// Shows origin knows of: those to come, running ones and those that ended within the last day.
    pub events: Vec<EventStatus>,
}

/// State of one show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventStatus {
    /// Which.
    #[serde(with = "text")]
    pub event: EventSlug,
    /// Revision of the event that origin follows.
    pub revision: u64,
    /// Where it stands.
    pub state: StateRecord,
    /// Incarnation of origin that serves it, once there is a programme.
    pub epoch: Option<u32>,
    /// Where media time 0 lies, once doors are open.
    pub anchor: Option<AnchorRecord>,
    /// When it first went live, on the anchored timeline.
    #[serde(with = "maybe_nanos")]
    pub live_at: Option<UnixTime>,
    /// When it ended, on the anchored timeline.
    #[serde(with = "maybe_nanos")]
    pub ended_at: Option<UnixTime>,
    /// The newest part published.
    #[serde(with = "maybe_part")]
    pub newest_part: Option<PartNumber>,
    /// The newest part that is safe on the disk.
    #[serde(with = "maybe_part")]
    pub recorded_through: Option<PartNumber>,
    /// What is wrong at the moment.
    pub alarms: Vec<Alarm>,
    /// Whether the start has passed and nobody speaks yet.
    pub late: bool,
    /// Its seats, in the order of their numbers.
    pub seats: Vec<SeatStatus>,
}

/// Something an operator should know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alarm {
    /// Live, and nobody connected, or everyone muted or silent as a connection, for five seconds.
    DeadAir,
    /// The start has passed without a speaker.
    LateStart,
    /// The wall clock was stepped since doors.
    ClockStep,
    /// A disk fails, or the recorder lags.
    Recorder,
}

impl Alarm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::DeadAir, Self::LateStart, Self::ClockStep, Self::Recorder];

    /// Its name in the API: `dead_air`, `late_start`, `clock_step`, `recorder`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DeadAir => "dead_air",
            Self::LateStart => "late_start",
            Self::ClockStep => "clock_step",
            Self::Recorder => "recorder",
        }
    }
}

/// One seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatStatus {
    /// Which.
    pub seat: u16,
    /// Sources connected, 0 to 2.
    pub sources: u8,
    /// Whether one of them is alive.
    pub connected: bool,
    /// Whether it is on stage rather than in the green room.
    pub on_stage: bool,
    /// Whether it is muted.
    pub muted: bool,
}

/// Mirror of [`Anchor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorRecord {
    /// Doors, nanoseconds since 1970.
    #[serde(with = "nanos")]
    pub doors: UnixTime,
    /// Doors on the machine's clock, nanoseconds since its start.
    pub doors_boot_ns: u64,
    /// Which start of the machine.
    #[serde(with = "hex")]
    pub boot_id: [u8; 16],
}

impl From<Anchor> for AnchorRecord {
    fn from(anchor: Anchor) -> Self {
        Self { doors: anchor.doors, doors_boot_ns: anchor.doors_boot.as_nanos(), boot_id: anchor.boot_id.0 }
    }
}

impl From<AnchorRecord> for Anchor {
    fn from(record: AnchorRecord) -> Self {
        Self {
            doors: record.doors,
            doors_boot: BootTime::from_nanos(record.doors_boot_ns),
            boot_id: BootId(record.boot_id),
        }
    }
}

/// An edge's sign of life: topic `heartbeat`, once a second. Counters count from the start of its process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Which edge, counted from 0.
    pub index: u32,
    /// Its process.
    pub pid: u32,
    /// Ladder level in force at this edge, 0 to 6.
    pub level: u8,
    /// What is in force at this edge.
    pub measures: MeasuresRecord,
    /// What it uses of what it has.
    pub load: LoadRecord,
    /// Events with at least one listener, or a window.
    pub events: Vec<EdgeEvent>,
    /// Bytes sent to listeners.
    pub bytes: u64,
    /// Parts skipped because a listener lagged.
    pub skipped: u64,
    /// Listeners that came.
    pub joins: u64,
    /// Listeners refused.
    pub refused: u64,
    /// Memory in use, bytes.
    pub rss_bytes: u64,
    /// Open files and sockets.
    pub open_files: u64,
    /// Listeners allowed at once.
    pub listeners_max: u64,
    /// Memory that can still be used, of the machine or of its control group, bytes.
    pub memory_available: u64,
    /// Processor time of the push door's thread, µs.
    pub push_cpu_us: u64,
    /// Lateness of the writes of the last second from the listeners' slots: 99 of 100 were not later than this, ms. It is
    /// a bound of a histogram's bucket; [`u32::MAX`] beyond the last.
    pub lateness_p99_ms: u32,
    /// Bound of the longest turn of the push door's loop in the last second, ms, likewise.
    pub turn_max_ms: u32,
    /// TLS handshakes of the push door that succeeded.
    pub handshakes: u64,
}

/// One event at one edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeEvent {
    /// Which.
    #[serde(with = "text")]
    pub event: EventSlug,
    /// Newest part in the window.
    #[serde(with = "maybe_part")]
    pub newest_part: Option<PartNumber>,
    /// Listeners now, by what they take.
    pub listeners: Vec<ListenerCount>,
}

/// How a listener takes a rendition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The pushed stream of parts.
    Push,
    /// Endless Ogg.
    Ogg,
    /// Endless MP3.
    Mp3,
    /// Playlists and segments: sessions seen within the last few segments, an estimate.
    Hls,
}

impl Form {
    /// Its name in metrics: `push`, `ogg`, `mp3`, `hls`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Ogg => "ogg",
            Self::Mp3 => "mp3",
            Self::Hls => "hls",
        }
    }
}

/// Listeners who take the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerCount {
    /// What they hear.
    #[serde(with = "text")]
    pub rendition: Rendition,
    /// How it comes.
    pub form: Form,
    /// Parts a write: 1, 2, 4 or 8.
    pub tier: u8,
    /// How many.
    pub count: u32,
}

/// Totals over all edges: topic `audience`, once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audience {
    /// Ladder level of the installation, 0 to 6.
    pub level: u8,
    /// Whether an operator has pinned it: edges then decide nothing themselves.
    pub pinned: bool,
    /// What is in force.
    pub measures: MeasuresRecord,
    /// Events with listeners.
    pub totals: Vec<AudienceTotal>,
}

/// Listeners of one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudienceTotal {
    /// Which.
    #[serde(with = "text")]
    pub event: EventSlug,
    /// Listeners on all edges.
    pub listeners: u64,
}
