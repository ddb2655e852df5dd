//! Who may listen, and what can be said afterwards: the doorstep, tickets and their sessions, the ladder, the waiting
//! room, the challenge, the ledger, the verdict and the report.
//!
//! Control issues, edges check; neither asks anyone. This crate reads no clock, holds no socket and draws no random
//! numbers: time, keys and identities come from the caller.

pub mod challenge;
pub mod doorstep;
pub mod ladder;
pub mod ledger;
pub mod report;
pub mod room;
pub mod sessions;
pub mod ticket;
pub mod verdict;

/// Entry points for fuzzing: each takes any bytes and must return.
#[doc(hidden)]
pub mod fuzz {
    use crate::room::{RoomKey, RoomKeys};
    use crate::ticket::{Cell, TicketKey, TicketKeys};
    use model::UnixTime;

    /// Checks `data` as lines of a ledger, and their first as one that anyone could have signed.
    pub fn ledger(data: &[u8]) {
        use crate::ledger::{check, resume};
        use ed25519_dalek::SigningKey;
        let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
        assert!(check(data, &key, &[]).is_err(), "nobody signed this");
        let _ = resume(data, &key);
        crate::ledger::fuzz_statement(data);
    }

    /// Checks `data` as a ticket.
    pub fn ticket(data: &[u8]) {
        let keys = TicketKeys { current: TicketKey { id: 1, secret: [1; 32] }, previous: None };
        let (Ok(text), Ok(event)) = (std::str::from_utf8(data), "a".parse()) else { return };
        let _ = keys.check(text, &event, Cell(0), UnixTime::from_millis(0));
    }

    /// Checks `data` as the solution of a challenge, as a text and as what is inside of one.
    pub fn challenge(data: &[u8]) {
        use crate::challenge::{ChallengeKey, Refusal, Solution};
        use base64::Engine as _;
        let Ok(event) = "a".parse() else { return };
        let (key, address) = (ChallengeKey([1; 32]), std::net::IpAddr::from([192, 0, 2, 1]));
        let inside = base64::engine::general_purpose::STANDARD.encode(data);
        for text in [std::str::from_utf8(data).unwrap_or_default(), inside.as_str()] {
            let checked = key.check(text, &event, address, UnixTime::from_millis(0));
            assert!(matches!(checked, Err(Refusal::Malformed | Refusal::Forged)), "nobody signed this");
            if let Some(solution) = Solution::parse(text) {
                assert_eq!(Solution::parse(&solution.encode()), Some(solution));
            }
        }
    }

    /// Checks `data` as a token of a waiting room.
    pub fn room_token(data: &[u8]) {
        let keys = RoomKeys { current: RoomKey { id: 1, secret: [1; 32] }, previous: None };
        let (Ok(text), Ok(event)) = (std::str::from_utf8(data), "a".parse()) else { return };
        let _ = keys.check(text, &event, UnixTime::from_millis(0), 0);
    }
}
