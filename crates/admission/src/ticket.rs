//! Tickets: what a listener shows at an edge's door, checked without asking anyone.
//!
//! ```text
//! 0        1       2       4            5          9     17          17+n         33+n
//! ┌────────┬───────┬───────┬────────────┬──────────┬─────┬───────────┬────────────┐
//! │ format │ key   │ cell  │ tier·class │ expires  │ id  │ slug      │ HMAC       │   base64url
//! │ 1      │ u8    │ u16   │ 4 + 4 bits │ u32 s    │ 8   │ n ≤ 64    │ 16         │   without padding
//! └────────┴───────┴───────┴────────────┴──────────┴─────┴───────────┴────────────┘
//! ```
//!
//! Numbers are big-endian. The HMAC is HMAC-SHA256 over a domain text and everything before it, cut to 128 bits.
//!
//! What an attacker can do: share a ticket (its sessions are counted by its id), ask for many (control limits that),
//! replay one until it expires. What they cannot: change one bit of it, make one, or learn from an edge's answer or
//! its timing how close a forgery came: every text of the right shape costs one HMAC, whatever key it names, and the
//! comparison takes the same time wherever it differs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use model::{EventSlug, UnixTime};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

const FORMAT: u8 = 1;
const DOMAIN: &[u8] = b"minassa ticket 1\0";
const HEAD_BYTES: usize = 17;
const SLUG_BYTES_MAX: usize = 64;
const MAC_BYTES: usize = 16;
const TICKET_BYTES_MAX: usize = HEAD_BYTES + SLUG_BYTES_MAX + MAC_BYTES;
/// Most characters of a ticket.
pub const TICKET_CHARS_MAX: usize = (TICKET_BYTES_MAX * 4).div_ceil(3);

/// A ticket's random identity, for counting sessions and revoking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub [u8; 8]);

/// All edges behind one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell(pub u16);

/// How many parts a write carries: 1, 2, 4 or 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tier(u8);

impl Tier {
    /// A write a part.
    pub const ONE: Self = Self(1);

    /// From the number of parts: 1, 2, 4 or 8.
    pub const fn new(parts: u8) -> Option<Self> {
        match parts {
            1 | 2 | 4 | 8 => Some(Self(parts)),
            _ => None,
        }
    }

    /// Parts a write.
    pub const fn parts(self) -> u8 {
        self.0
    }
}

/// Who is served first when not everyone can be (DESIGN, "Classes"). Lower is served longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// P1: host, operator.
    Host,
    /// P3: someone who holds a ticket.
    Holder,
    /// P4: someone who came just now.
    Newcomer,
}

impl Class {
    const fn number(self) -> u8 {
        match self {
            Self::Host => 1,
            Self::Holder => 3,
            Self::Newcomer => 4,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Host),
            3 => Some(Self::Holder),
            4 => Some(Self::Newcomer),
            _ => None,
        }
    }
}

/// What a ticket says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The event it opens.
    pub event: EventSlug,
    /// The cell it is good at.
    pub cell: Cell,
    /// The fastest tier it may ask for.
    pub tier: Tier,
    /// The class it is served in.
    pub class: Class,
    /// The last moment it opens a door. Kept in whole seconds, rounded down, from 1970 to 2106.
    pub expires: UnixTime,
    /// Its identity.
    pub id: TicketId,
}

/// Why a text opens no door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Not of the form of a ticket.
    #[error("this is no ticket")]
    Malformed,
    /// Signed by nobody we know: forged, or older than two rotations.
    #[error("the ticket was not issued here, or long ago")]
    Forged,
    /// For another event.
    #[error("the ticket is for another event")]
    OtherEvent,
    /// For another cell.
    #[error("the ticket is for another cell")]
    OtherCell,
    /// Past its time.
    #[error("the ticket has expired")]
    Expired,
}

/// One key and its number.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey {
    /// Its number; the next one is one greater, wrapping.
    pub id: u8,
    /// The secret.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The key in use and the one before. A ticket is good for as long as its key is one of them, so keys rotate no
/// faster than tickets expire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TicketKeys {
    /// Issues.
    pub current: TicketKey,
    /// Still checks.
    pub previous: Option<TicketKey>,
}

impl TicketKeys {
    /// Writes and signs a ticket: a text of `[A-Za-z0-9_-]`, at most [`TICKET_CHARS_MAX`] characters.
    pub fn issue(&self, ticket: &Ticket) -> String {
        let mut bytes = Vec::with_capacity(TICKET_BYTES_MAX);
        let seconds = ticket.expires.as_nanos().div_euclid(1_000_000_000);
        let seconds = u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&[FORMAT, self.current.id]);
        bytes.extend_from_slice(&ticket.cell.0.to_be_bytes());
        bytes.push(ticket.tier.parts() << 4 | ticket.class.number());
        bytes.extend_from_slice(&seconds.to_be_bytes());
        bytes.extend_from_slice(&ticket.id.0);
        bytes.extend_from_slice(ticket.event.as_str().as_bytes());
        let mac = mac(&self.current, &bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Checks a text as a ticket for `event` at `cell`.
    ///
    /// # Errors
    /// [`TicketError`], the first that applies in the order of its variants.
    pub fn check(
        &self,
        text: &str,
        event: &EventSlug,
        cell: Cell,
        now: UnixTime,
    ) -> Result<Ticket, TicketError> {
        if text.len() > TICKET_CHARS_MAX {
            return Err(TicketError::Malformed);
        }
        // The decoder wants room for whole groups of four characters.
        let mut buffer = [0; TICKET_CHARS_MAX.div_ceil(4) * 3];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut buffer).map_err(|_| TicketError::Malformed)?;
        let (body, given) = buffer[..length].split_last_chunk::<MAC_BYTES>().ok_or(TicketError::Malformed)?;
        let (key_id, ticket) = parse(body).ok_or(TicketError::Malformed)?;
        let named =
            [Some(&self.current), self.previous.as_ref()].into_iter().flatten().find(|key| key.id == key_id);
        // A key that does not exist costs as much as one that does.
        let expected = mac(named.unwrap_or(&self.current), body);
        let genuine = expected[..].ct_eq(&given[..]) & subtle::Choice::from(u8::from(named.is_some()));
        if !bool::from(genuine) {
            Err(TicketError::Forged)
        } else if ticket.event != *event {
            Err(TicketError::OtherEvent)
        } else if ticket.cell != cell {
            Err(TicketError::OtherCell)
        } else if ticket.expires < now {
            Err(TicketError::Expired)
        } else {
            Ok(ticket)
        }
    }
}

fn mac(key: &TicketKey, body: &[u8]) -> [u8; MAC_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.secret).expect("an HMAC takes keys of any length");
    mac.update(DOMAIN);
    mac.update(body);
    *mac.finalize().into_bytes().first_chunk().expect("SHA-256 has 32 bytes")
}

/// The key's number and what the ticket says, signed or not.
fn parse(body: &[u8]) -> Option<(u8, Ticket)> {
    let (head, slug) = body.split_first_chunk::<HEAD_BYTES>()?;
    let [format, key, cell_0, cell_1, kind, e_0, e_1, e_2, e_3, id @ ..] = *head;
    let seconds = u32::from_be_bytes([e_0, e_1, e_2, e_3]);
    let ticket = Ticket {
        event: std::str::from_utf8(slug).ok()?.parse().ok()?,
        cell: Cell(u16::from_be_bytes([cell_0, cell_1])),
        tier: Tier::new(kind >> 4)?,
        class: Class::from_number(kind & 0x0f)?,
        expires: UnixTime::from_millis(i64::from(seconds) * 1_000),
        id: TicketId(id),
    };
    (format == FORMAT).then_some((key, ticket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u8) -> TicketKey {
        TicketKey { id, secret: [id ^ 0x5a; 32] }
    }

    fn keys(current: u8) -> TicketKeys {
        TicketKeys { current: key(current), previous: Some(key(current.wrapping_sub(1))) }
    }

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_millis(seconds * 1_000)
    }

    fn ticket() -> Ticket {
        Ticket {
            event: "a-talk".parse().unwrap(),
            cell: Cell(0x0102),
            tier: Tier::new(4).unwrap(),
            class: Class::Holder,
            expires: at(2_000_000_000),
            id: TicketId(*b"identity"),
        }
    }

    fn check(keys: &TicketKeys, text: &str) -> Result<Ticket, TicketError> {
        keys.check(text, &ticket().event, ticket().cell, at(1_999_999_999))
    }

    #[test]
    fn a_ticket_says_what_it_was_issued_for() {
        let text = keys(1).issue(&ticket());
        // Computed by other means (Python's hmac).
        assert_eq!(text, "AQEBAkN3NZQAaWRlbnRpdHlhLXRhbGtFXXu6ZWFaRzZLaRhSV4qk");
        assert_eq!(check(&keys(1), &text), Ok(ticket()));
        let mut longest = ticket();
        longest.event = "x".repeat(64).parse().unwrap();
        let text = keys(1).issue(&longest);
        assert_eq!(text.len(), TICKET_CHARS_MAX);
        assert_eq!(keys(1).check(&text, &longest.event, longest.cell, at(0)), Ok(longest));
    }

    #[test]
    fn every_tier_and_class_is_carried() {
        for tier in [1, 2, 4, 8] {
            for class in [Class::Host, Class::Holder, Class::Newcomer] {
                let ticket = Ticket { tier: Tier::new(tier).unwrap(), class, ..ticket() };
                assert_eq!(check(&keys(9), &keys(9).issue(&ticket)), Ok(ticket));
            }
        }
        assert_eq!(Tier::new(3), None);
    }

    #[test]
    fn a_rotation_keeps_tickets_good_and_a_second_does_not() {
        let text = keys(255).issue(&ticket());
        assert!(check(&keys(255), &text).is_ok());
        assert!(check(&keys(0), &text).is_ok());
        assert_eq!(check(&keys(1), &text), Err(TicketError::Forged));
        // The right number with another secret.
        let mut others = keys(255);
        others.current.secret = [0; 32];
        assert_eq!(check(&others, &text), Err(TicketError::Forged));
    }

    #[test]
    fn each_reason_has_its_error() {
        let (keys, text) = (keys(1), keys(1).issue(&ticket()));
        let Ticket { event, cell, expires, .. } = ticket();
        let other = "another".parse().unwrap();
        assert_eq!(keys.check(&text, &other, cell, expires), Err(TicketError::OtherEvent));
        assert_eq!(keys.check(&text, &event, Cell(1), expires), Err(TicketError::OtherCell));
        assert!(keys.check(&text, &event, cell, expires).is_ok(), "good through its last second");
        assert_eq!(keys.check(&text, &event, cell, at(2_000_000_001)), Err(TicketError::Expired));
    }

    #[test]
    fn one_bit_is_enough_to_refuse() {
        let text = keys(1).issue(&ticket());
        let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let result = check(&keys(1), &URL_SAFE_NO_PAD.encode(changed));
            assert!(matches!(result, Err(TicketError::Forged | TicketError::Malformed)), "{bit}: {result:?}");
        }
        for length in 0..bytes.len() {
            let result = check(&keys(1), &URL_SAFE_NO_PAD.encode(&bytes[..length]));
            assert!(matches!(result, Err(TicketError::Forged | TicketError::Malformed)), "{length}");
        }
    }

    #[test]
    fn what_is_no_text_of_ours_is_malformed() {
        let text = keys(1).issue(&ticket());
        let padded = format!("{text}=");
        let (long, endless) = ("A".repeat(TICKET_CHARS_MAX), "A".repeat(1_000_000));
        for bad in ["", "A", "????", "../../etc/passwd", "ت", &padded, &text[1..], &long, &endless] {
            assert_eq!(check(&keys(1), bad), Err(TicketError::Malformed), "{bad:.20}");
        }
    }

    #[test]
    fn moments_out_of_range_are_cut_to_it() {
        for (expires, kept) in [(at(-5), at(0)), (at(1 << 40), at(u32::MAX.into()))] {
            let ticket = Ticket { expires, ..ticket() };
            let text = keys(1).issue(&ticket);
            assert_eq!(keys(1).check(&text, &ticket.event, ticket.cell, at(0)).unwrap().expires, kept);
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        assert_eq!(format!("{:?}", key(3)), "TicketKey { id: 3, .. }");
    }
}
