//! Room tokens: a place in the waiting room, kept by who waits and by nobody else.
//!
//! ```text
//! 0        1       2      3       6         14       19    35          35+n         51+n
//! ┌────────┬───────┬──────┬───────┬─────────┬────────┬─────┬───────────┬────────────┐
//! │ format │ key   │ kind │ tag   │ arrival │ place  │ id  │ slug      │ HMAC       │   base64url
//! │ 1      │ u8    │ 0, 1 │ u24   │ u64 µs  │ u40    │ 16  │ n ≤ 64    │ 16         │   without padding
//! └────────┴───────┴──────┴───────┴─────────┴────────┴─────┴───────────┴────────────┘
//! ```
//!
//! Numbers are big-endian; `place` is 0 unless the kind is 1 (late). The HMAC is HMAC-SHA256 over a domain text and
//! everything before it, cut to 128 bits; the next 64 bits are the identity of the ticket that the token turns into.
//!
//! What an attacker can do: copy a token (all copies become one ticket, whose sessions are counted by its id), ask
//! for many (they are weighed by address prefix). What they cannot: change a bit of one, choose its number in the
//! draw or its arrival, or learn from an answer or its timing how close a forgery came: every text of the right shape
//! costs one HMAC, whatever key it names, and the comparison takes the same time wherever it differs.
//!
//! Tokens live as long as the event, tickets for minutes: the two have keys of their own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{EventSlug, UnixTime};
use subtle::ConstantTimeEq as _;

use super::hmac_sha256;
use super::prefix::PrefixTag;
use crate::ticket::TicketId;

const FORMAT: u8 = 1;
const DOMAIN: &[u8] = b"minassa room token 1\0";
const HEAD_BYTES: usize = 35;
const SLUG_BYTES_MAX: usize = 64;
const MAC_BYTES: usize = 16;
const TOKEN_BYTES_MAX: usize = HEAD_BYTES + SLUG_BYTES_MAX + MAC_BYTES;
/// Most characters of a room token.
pub const TOKEN_CHARS_MAX: usize = (TOKEN_BYTES_MAX * 4).div_ceil(3);
/// The greatest place a token carries; a later one is cut to it.
pub const PLACE_MAX: u64 = (1 << 40) - 1;

/// A token's random identity: 16 bytes nobody can foresee, drawn by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub [u8; 16]);

/// How a token's place is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Came before the draw and takes part in it.
    Early,
    /// Came after the draw: first come, first served, behind everyone who came before it.
    Late {
        /// People who were there before it, those of the draw included; at most [`PLACE_MAX`].
        place: u64,
    },
}

/// What a room token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The event whose room it waits in.
    pub event: EventSlug,
    /// Its identity.
    pub id: TokenId,
    /// When it came, microseconds since 1970. Of two late tokens of a room the one that came later has the greater place.
    pub arrival_us: u64,
    /// The group of address prefixes it came from.
    pub tag: PrefixTag,
    /// How its place is decided.
    pub kind: Kind,
}

/// Why a text is no place in this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not of the form of a room token.
    #[error("this is no token of a waiting room")]
    Malformed,
    /// Signed by nobody we know: forged, or older than two rotations.
    #[error("the token was not issued here, or long ago")]
    Forged,
    /// For another event.
    #[error("the token is for another event")]
    OtherEvent,
    /// Older than a token may be.
    #[error("the token has expired")]
    Expired,
}

/// One key and its number.
#[derive(Clone, PartialEq, Eq)]
pub struct RoomKey {
    /// Its number; the next one is one greater, wrapping.
    pub id: u8,
    /// The secret.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoomKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The key in use and the one before. A token is good for as long as its key is one of them: do not rotate twice
/// while people wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomKeys {
    /// Issues.
    pub current: RoomKey,
    /// Still checks.
    pub previous: Option<RoomKey>,
}

/// A token that is ours, and the ticket it turns into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it says.
    pub token: Token,
    /// The identity of the ticket that it is exchanged for: the same for every copy and at every exchange, so that
    /// all of them together have the sessions of one ticket.
    pub ticket: TicketId,
}

impl RoomKeys {
    /// Writes and signs a token: a text of `[A-Za-z0-9_-]`, at most [`TOKEN_CHARS_MAX`] characters.
    pub fn issue(&self, token: &Token) -> String {
        let (kind, place) = match token.kind {
            Kind::Early => (0, 0),
            Kind::Late { place } => (1, place.min(PLACE_MAX)),
        };
        let mut bytes = Vec::with_capacity(TOKEN_BYTES_MAX);
        bytes.extend_from_slice(&[FORMAT, self.current.id, kind]);
        bytes.extend_from_slice(&token.tag.number().to_be_bytes()[1..]);
        bytes.extend_from_slice(&token.arrival_us.to_be_bytes());
        bytes.extend_from_slice(&place.to_be_bytes()[3..]);
        bytes.extend_from_slice(&token.id.0);
        bytes.extend_from_slice(token.event.as_str().as_bytes());
        let (mac, _) = sign(&self.current, &bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Checks a text as a token for `event` that is no older than `age_max_us` microseconds.
    ///
    /// # Errors
    /// [`TokenError`], the first that applies in the order of its variants.
    pub fn check(
        &self,
        text: &str,
        event: &EventSlug,
        now: UnixTime,
        age_max_us: u64,
    ) -> Result<Checked, TokenError> {
        if text.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::Malformed);
        }
        // The decoder wants room for whole groups of four characters.
        let mut buffer = [0; TOKEN_CHARS_MAX.div_ceil(4) * 3];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut buffer).map_err(|_| TokenError::Malformed)?;
        let (body, given) = buffer[..length].split_last_chunk::<MAC_BYTES>().ok_or(TokenError::Malformed)?;
        let (key_id, token) = parse(body).ok_or(TokenError::Malformed)?;
        let named =
            [Some(&self.current), self.previous.as_ref()].into_iter().flatten().find(|key| key.id == key_id);
        // A key that does not exist costs as much as one that does.
        let key = named.unwrap_or(&self.current);
        let (expected, ticket) = sign(key, body);
        let genuine = expected.ct_eq(given) & subtle::Choice::from(u8::from(named.is_some()));
        if !bool::from(genuine) {
            Err(TokenError::Forged)
        } else if token.event != *event {
            Err(TokenError::OtherEvent)
        } else if micros(now).saturating_sub(token.arrival_us) > age_max_us {
            Err(TokenError::Expired)
        } else {
            Ok(Checked { token, ticket: TicketId(ticket) })
        }
    }
}

/// A token's HMAC, and the identity of its ticket: the 64 bits of it that the token does not show.
fn sign(key: &RoomKey, body: &[u8]) -> ([u8; MAC_BYTES], [u8; 8]) {
    let hash = hmac_sha256(&key.secret, &[DOMAIN, body]);
    (std::array::from_fn(|n| hash[n]), std::array::from_fn(|n| hash[MAC_BYTES + n]))
}

/// Microseconds since 1970; 0 before it.
pub(super) fn micros(time: UnixTime) -> u64 {
    u64::try_from(time.as_nanos() / 1_000).unwrap_or(0)
}

/// The key's number and what the token says, signed or not.
fn parse(body: &[u8]) -> Option<(u8, Token)> {
    let (head, slug) = body.split_first_chunk::<HEAD_BYTES>()?;
    let (&[format, key, kind, t_0, t_1, t_2], rest) = head.split_first_chunk::<6>()?;
    let (arrival, rest) = rest.split_first_chunk::<8>()?;
    let (&[p_0, p_1, p_2, p_3, p_4], id) = rest.split_first_chunk::<5>()?;
    let place = u64::from_be_bytes([0, 0, 0, p_0, p_1, p_2, p_3, p_4]);
    let token = Token {
        event: std::str::from_utf8(slug).ok()?.parse().ok()?,
        id: TokenId(id.try_into().ok()?),
        arrival_us: u64::from_be_bytes(*arrival),
        tag: PrefixTag::new(u32::from_be_bytes([0, t_0, t_1, t_2]))?,
        kind: match (kind, place) {
            (0, 0) => Kind::Early,
            (1, place) => Kind::Late { place },
            _ => return None,
        },
    };
    (format == FORMAT).then_some((key, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_US: u64 = 86_400_000_000;

    fn key(id: u8) -> RoomKey {
        RoomKey { id, secret: [id ^ 0x5a; 32] }
    }

    fn keys(current: u8) -> RoomKeys {
        RoomKeys { current: key(current), previous: Some(key(current.wrapping_sub(1))) }
    }

    fn token() -> Token {
        Token {
            event: "a-talk".parse().unwrap(),
            id: TokenId(*b"sixteen bytes id"),
            arrival_us: 2_000_000_000_123_456,
            tag: PrefixTag::new(0x2_0304).unwrap(),
            kind: Kind::Late { place: 0x01_0203_0405 },
        }
    }

    fn now() -> UnixTime {
        UnixTime::from_millis(2_000_000_001_000)
    }

    fn check(keys: &RoomKeys, text: &str) -> Result<Token, TokenError> {
        keys.check(text, &token().event, now(), DAY_US).map(|checked| checked.token)
    }

    #[test]
    fn a_token_says_what_it_was_issued_for() {
        let text = keys(1).issue(&token());
        // Both computed by other means (Python's hmac).
        assert_eq!(text, "AQEBAgMEAAca_UmO4kABAgMEBXNpeHRlZW4gYnl0ZXMgaWRhLXRhbGugd4RMuj_9DasqcMmms-s4");
        let checked = keys(1).check(&text, &token().event, now(), DAY_US).unwrap();
        assert_eq!(
            checked,
            Checked { token: token(), ticket: TicketId(*b"\x28\x06\xc8\xa8\x27\x4d\xf2\xb0") }
        );

        let longest = Token { event: "x".repeat(64).parse().unwrap(), kind: Kind::Early, ..token() };
        let text = keys(1).issue(&longest);
        assert_eq!(text.len(), TOKEN_CHARS_MAX);
        assert_eq!(keys(1).check(&text, &longest.event, now(), DAY_US).unwrap().token, longest);
    }

    #[test]
    fn numbers_out_of_range_are_cut_to_it() {
        let far = Token { kind: Kind::Late { place: u64::MAX }, arrival_us: u64::MAX, ..token() };
        let read = check(&keys(1), &keys(1).issue(&far)).unwrap();
        assert_eq!(read, Token { kind: Kind::Late { place: PLACE_MAX }, ..far });
        assert_eq!(micros(UnixTime::from_millis(-1)), 0);
    }

    #[test]
    fn every_copy_is_the_same_ticket_and_every_token_another() {
        let keys = keys(1);
        let ticket = |token: &Token| {
            keys.check(&keys.issue(token), &token.event, now(), DAY_US).map(|checked| checked.ticket).unwrap()
        };
        assert_eq!(ticket(&token()), ticket(&token()));
        assert_ne!(ticket(&token()), ticket(&Token { id: TokenId([0; 16]), ..token() }));
        // After a rotation it is still the same.
        let text = keys.issue(&token());
        let after = RoomKeys { current: key(2), previous: Some(key(1)) };
        assert_eq!(after.check(&text, &token().event, now(), DAY_US).unwrap().ticket, ticket(&token()));
    }

    #[test]
    fn a_rotation_keeps_tokens_good_and_a_second_does_not() {
        let text = keys(255).issue(&token());
        assert!(check(&keys(255), &text).is_ok());
        assert!(check(&keys(0), &text).is_ok());
        assert_eq!(check(&keys(1), &text), Err(TokenError::Forged));
        let mut others = keys(255);
        others.current.secret = [0; 32];
        assert_eq!(check(&others, &text), Err(TokenError::Forged));
    }

    #[test]
    fn each_reason_has_its_error() {
        let (keys, text) = (keys(1), keys(1).issue(&token()));
        let other = "another".parse().unwrap();
        assert_eq!(keys.check(&text, &other, now(), DAY_US), Err(TokenError::OtherEvent));
        let age = micros(now()) - token().arrival_us;
        assert!(keys.check(&text, &token().event, now(), age).is_ok());
        assert_eq!(keys.check(&text, &token().event, now(), age - 1), Err(TokenError::Expired));
    }

    #[test]
    fn one_bit_is_enough_to_refuse() {
        for kind in [Kind::Early, token().kind] {
            let text = keys(1).issue(&Token { kind, ..token() });
            let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            for bit in 0..8 * bytes.len() {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let result = check(&keys(1), &URL_SAFE_NO_PAD.encode(changed));
                assert!(
                    matches!(result, Err(TokenError::Forged | TokenError::Malformed)),
                    "{bit}: {result:?}"
                );
            }
            for length in 0..bytes.len() {
                let result = check(&keys(1), &URL_SAFE_NO_PAD.encode(&bytes[..length]));
                assert!(matches!(result, Err(TokenError::Forged | TokenError::Malformed)), "{length}");
            }
        }
    }

    #[test]
    fn what_is_no_text_of_ours_is_malformed() {
        let text = keys(1).issue(&token());
        let padded = format!("{text}=");
        let (long, endless) = ("A".repeat(TOKEN_CHARS_MAX), "A".repeat(1_000_000));
        for bad in ["", "A", "????", "../../etc/passwd", "ت", &padded, &text[1..], &long, &endless] {
            assert_eq!(check(&keys(1), bad), Err(TokenError::Malformed), "{bad:.20}");
        }
    }

    #[test]
    fn a_ticket_of_an_edge_is_no_token() {
        let secret = [7; 32];
        let tickets =
            crate::ticket::TicketKeys { current: crate::ticket::TicketKey { id: 1, secret }, previous: None };
        let ticket = crate::ticket::Ticket {
            event: token().event,
            cell: crate::ticket::Cell(0),
            tier: crate::ticket::Tier::ONE,
            class: crate::ticket::Class::Holder,
            expires: now(),
            id: TicketId([0; 8]),
        };
        let keys = RoomKeys { current: RoomKey { id: 1, secret }, previous: None };
        assert!(check(&keys, &tickets.issue(&ticket)).is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", key(3)), "RoomKey { id: 3, .. }");
    }
}
