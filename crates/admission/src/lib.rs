//! Who may listen, as plain functions: tickets today, the ladder and the waiting room later.
//!
//! Control issues, edges check; neither asks anyone. This crate reads no clock, holds no socket and draws no random
//! numbers: time, keys and identities come from the caller.

pub mod ticket;

/// Entry points for fuzzing: each takes any bytes and must return.
#[doc(hidden)]
pub mod fuzz {
    use crate::ticket::{Cell, TicketKey, TicketKeys};
    use model::UnixTime;

    /// Checks `data` as a ticket.
    pub fn ticket(data: &[u8]) {
        let keys = TicketKeys { current: TicketKey { id: 1, secret: [1; 32] }, previous: None };
        let (Ok(text), Ok(event)) = (std::str::from_utf8(data), "a".parse()) else { return };
        let _ = keys.check(text, &event, Cell(0), UnixTime::from_millis(0));
    }
}
