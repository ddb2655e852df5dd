//! What of a show is remembered across a crash.

use model::{SeatId, ShowState, UnixTime};

use crate::{Alarm, CloseReason, Place, SourceId};

/// One line of an event's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When it happened, in anchored civil time.
    pub at: UnixTime,
    /// What happened.
    pub item: LogItem,
}

/// What a line of the log says. `Doors`, `State` and `Seat` are what [`crate::Show::restore`] reads; the others are
/// for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogItem {
    /// The programme began; part 0 starts at this moment.
    Doors {
        /// Media time 0.
        doors: UnixTime,
    },
    /// The show moved.
    State(ShowState),
    /// A seat's place or mute changed.
    Seat {
        /// Whose.
        seat: SeatId,
        /// Where it is now.
        place: Place,
        /// Whether it is muted now.
        muted: bool,
    },
    /// A source of a seat sent its first packet, or again after a silence.
    SourceHeard {
        /// Whose.
        seat: SeatId,
        /// Which connection.
        source: SourceId,
    },
    /// A source fell silent as a connection.
    SourceLost {
        /// Whose.
        seat: SeatId,
        /// Which connection.
        source: SourceId,
    },
    /// Another source of the seat is used from now on.
    SourceActive {
        /// Whose.
        seat: SeatId,
        /// Which connection; none when the seat has none left.
        source: Option<SourceId>,
    },
    /// A source is gone.
    SourceClosed {
        /// Whose.
        seat: SeatId,
        /// Which connection.
        source: SourceId,
        /// Why.
        why: CloseReason,
    },
    /// An alarm rings, or stopped.
    Alarm {
        /// Which.
        alarm: Alarm,
        /// Whether it rings.
        raised: bool,
    },
    /// The event was changed by control.
    EventChanged {
        /// The revision now in force.
        revision: u64,
        /// The announced start now in force.
        starts_at: UnixTime,
    },
}
