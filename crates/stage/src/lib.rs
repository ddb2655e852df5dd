//! The show as a state machine, and the invitations that let people into it.
//!
//! [`Show`] decides where an event stands (scheduled → doors → live ⇄ hold → ended), who is on stage, which of a
//! seat's sources is on air, and which alarms ring. It is told facts with the time they happened at, and answers with
//! [`Output`]s that a shell performs. It owns no clock, socket or file; time is the event's anchored civil time
//! ([`model::Anchor::unix_at`], the wall clock before doors), which never steps once doors are open.
//!
//! It does not mix, encode or carry audio (`programme`), and it does not know connections, only that a source sent a
//! packet. What must survive a crash leaves it as [`LogEntry`]s, from which [`Show::restore`] builds the same show.
//!
//! [`invite`] signs and checks the tokens that open a seat.

pub mod invite;
mod log;
mod seats;
mod show;

/// Entry points for fuzzing: each takes any bytes and must return.
#[doc(hidden)]
pub mod fuzz {
    /// Checks `data` as an invitation, and as what a signed one says.
    pub fn invite(data: &[u8]) {
        crate::invite::fuzz(data);
    }
}

pub use log::{LogEntry, LogItem};
pub use seats::{
    Actor, AdmitError, Admitted, CloseReason, DirectError, Place, SeatChange, SeatView, SourceId, SourceKind,
    SourceUse,
};
pub use show::{
    Alarm, Command, CommandError, DEAD_AIR_AFTER, Layer, Output, SOURCE_CONNECT_WITHIN, SOURCE_REMOVED_AFTER,
    Show, doors_time,
};
