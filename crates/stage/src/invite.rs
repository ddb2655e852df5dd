//! Invitations: signed tokens that open one seat of one event.
//!
//! ```text
//! token = base64url( payload ‖ signature ), no padding, at most 200 characters
//!
//! payload   0        1      2       4             12                20
//!           ├ version ┼ role ┼ seat  ┼ invite id   ┼ expires         ┼ event slug ──┤
//!           │ 1       │ u8   │ u16be │ 8 bytes     │ u64be, unix ms  │ 1 to 64 bytes│
//! signature 64 bytes, Ed25519 over "minassa invite v1\0" ‖ payload
//! ```
//!
//! Control signs with the key in `keys/invite.ed25519`; origin verifies with the public key in the event frozen to
//! its disk, so checking an invitation needs neither control nor a database.
//!
//! **What an attacker can do.** Whoever holds a token *is* its seat: it is a bearer secret, so it travels in URL
//! fragments and `Authorization` headers only and is never logged. Whoever reads one may read the event's name, the
//! seat and the role in it. Tokens can be tried without limit; each costs one signature check whether good or bad.
//!
//! **What an attacker cannot do.** Make or alter a token (another seat, role, event or expiry) without the signing
//! key; use a token of one event at another; use it after it expired, or once the event lists its seat as revoked
//! or under another invitation; make the check panic or allocate beyond 200 characters. The signature is checked
//! before anything else is believed, and strictly (no small-order keys, no second encoding), so a token has one form.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use model::{Event, EventSlug, InviteId, Role, SeatId, UnixTime};

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"minassa invite v1\0";
const FIXED: usize = 20;
const SIGNATURE: usize = 64;
/// Most characters a token can have.
pub const TOKEN_MAX: usize = (FIXED + 64 + SIGNATURE) * 4 / 3 + 2;

/// What an invitation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// The event it is for.
    pub event: EventSlug,
    /// The seat it opens.
    pub seat: SeatId,
    /// What its holder may do there.
    pub role: Role,
    /// Its identity, named in the event's seat.
    pub id: InviteId,
    /// When it stops working, in whole milliseconds.
    pub expires: UnixTime,
}

/// Why an invitation opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Not a token of ours: malformed, altered, or signed with another key.
    #[error("this is not an invitation of this publisher")]
    Wrong,
    /// It was good once.
    #[error("this invitation has expired")]
    Expired,
    /// A good one, for another event.
    #[error("this invitation is for another event")]
    Foreign,
    /// Withdrawn, or replaced by a newer one for the same seat.
    #[error("this invitation was withdrawn")]
    Revoked,
    /// Signed by us for a seat that the event as known here does not have: so new that the event's change has not
    /// arrived yet.
    #[error("this invitation is not known here yet; try again in a moment")]
    Unlisted,
}

/// Makes the token of an invitation.
pub fn sign(invite: &Invite, key: &SigningKey) -> String {
    let mut bytes = payload(invite);
    let signature = key.sign(&[DOMAIN, &bytes].concat());
    bytes.extend_from_slice(&signature.to_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a token and checks its signature, nothing else.
///
/// # Errors
/// [`InviteError::Wrong`].
pub fn open(token: &str, public_key: &[u8; 32]) -> Result<Invite, InviteError> {
    if token.len() > TOKEN_MAX {
        return Err(InviteError::Wrong);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| InviteError::Wrong)?;
    if bytes.len() < FIXED + 1 + SIGNATURE {
        return Err(InviteError::Wrong);
    }
    let (payload, signature) = bytes.split_at(bytes.len() - SIGNATURE);
    let key = VerifyingKey::from_bytes(public_key).map_err(|_| InviteError::Wrong)?;
    let signature = Signature::from_slice(signature).map_err(|_| InviteError::Wrong)?;
    key.verify_strict(&[DOMAIN, payload].concat(), &signature).map_err(|_| InviteError::Wrong)?;
    parse(payload).ok_or(InviteError::Wrong)
}

/// Checks a token against the event it is shown to.
///
/// # Errors
/// [`InviteError`], in the order: wrong, foreign, expired, unlisted, revoked.
pub fn verify(token: &str, event: &Event, now: UnixTime) -> Result<Invite, InviteError> {
    let invite = open(token, &event.invite_key)?;
    if invite.event != event.slug {
        return Err(InviteError::Foreign);
    }
    if now >= invite.expires {
        return Err(InviteError::Expired);
    }
    let seat = event.seats.iter().find(|seat| seat.id == invite.seat).ok_or(InviteError::Unlisted)?;
    if seat.revoked || seat.invite != invite.id || seat.role != invite.role {
        return Err(InviteError::Revoked);
    }
    Ok(invite)
}

fn payload(invite: &Invite) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED + invite.event.as_str().len() + SIGNATURE);
    bytes.push(VERSION);
    bytes.push(match invite.role {
        Role::Host => 0,
        Role::CoHost => 1,
        Role::Speaker => 2,
    });
    bytes.extend_from_slice(&invite.seat.0.to_be_bytes());
    bytes.extend_from_slice(&invite.id.0);
    bytes.extend_from_slice(&u64::try_from(invite.expires.as_millis()).unwrap_or(0).to_be_bytes());
    bytes.extend_from_slice(invite.event.as_str().as_bytes());
    bytes
}

fn parse(payload: &[u8]) -> Option<Invite> {
    let (fixed, slug) = payload.split_first_chunk::<FIXED>()?;
    if fixed[0] != VERSION {
        return None;
    }
    let role = match fixed[1] {
        0 => Role::Host,
        1 => Role::CoHost,
        2 => Role::Speaker,
        _ => return None,
    };
    let expires_ms = u64::from_be_bytes(fixed[12..20].try_into().ok()?);
    Some(Invite {
        event: std::str::from_utf8(slug).ok()?.parse().ok()?,
        seat: SeatId(u16::from_be_bytes([fixed[2], fixed[3]])),
        role,
        id: InviteId(fixed[4..12].try_into().ok()?),
        expires: UnixTime::from_millis(i64::try_from(expires_ms).ok()?),
    })
}

/// Any bytes as a token, which nobody signed, and as what a token of ours says: signed, it is read as that.
pub(crate) fn fuzz(data: &[u8]) {
    let key = SigningKey::from_bytes(&[1; 32]);
    let public = key.verifying_key().to_bytes();
    if let Ok(text) = std::str::from_utf8(data) {
        assert_eq!(open(text, &public), Err(InviteError::Wrong), "nobody signed this");
    }
    if let Some(invite) = parse(data) {
        let read = open(&sign(&invite, &key), &public).map(|read| payload(&read));
        assert_eq!(read, Ok(payload(&invite)), "what was signed is read");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::show::tests::event;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[9; 32])
    }

    fn invite() -> Invite {
        Invite {
            event: "majlis".parse().unwrap(),
            seat: SeatId(1),
            role: Role::Speaker,
            id: InviteId([1; 8]),
            expires: UnixTime::from_millis(2_000_000_000_000),
        }
    }

    fn shown_to() -> Event {
        Event { invite_key: key().verifying_key().to_bytes(), ..event() }
    }

    const NOW: UnixTime = UnixTime::from_millis(1_900_000_000_000);

    #[track_caller]
    fn check(token: &str, event: &Event, now: UnixTime, expected: Result<Invite, InviteError>) {
        assert_eq!(verify(token, event, now), expected);
    }

    #[test]
    fn a_token_opens_its_seat_and_nothing_else() {
        let token = sign(&invite(), &key());
        assert!(token.len() <= TOKEN_MAX);
        check(&token, &shown_to(), NOW, Ok(invite()));
        check(&token, &shown_to(), invite().expires, Err(InviteError::Expired));

        let mut other = shown_to();
        other.slug = "elsewhere".parse().unwrap();
        check(&token, &other, NOW, Err(InviteError::Foreign));

        let mut revoked = shown_to();
        revoked.seats[1].revoked = true;
        check(&token, &revoked, NOW, Err(InviteError::Revoked));

        let mut replaced = shown_to();
        replaced.seats[1].invite = InviteId([77; 8]);
        check(&token, &replaced, NOW, Err(InviteError::Revoked));

        let mut early = shown_to();
        early.seats.truncate(1);
        check(&token, &early, NOW, Err(InviteError::Unlisted));

        let stranger = sign(&invite(), &SigningKey::from_bytes(&[8; 32]));
        check(&stranger, &shown_to(), NOW, Err(InviteError::Wrong));
    }

    #[test]
    fn the_longest_name_fits() {
        let longest = Invite { event: "x".repeat(64).parse().unwrap(), ..invite() };
        let token = sign(&longest, &key());
        assert!(token.len() <= TOKEN_MAX, "{}", token.len());
        assert_eq!(open(&token, &key().verifying_key().to_bytes()), Ok(longest));
    }

    #[test]
    fn mutated_invitations_never_panic() {
        // SplitMix64: a generator that is its own description.
        let mut state = 3_u64;
        let mut below = |end: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ z >> 31) % end as u64) as usize
        };
        let seeds = [payload(&invite()), sign(&invite(), &key()).into_bytes()];
        for round in 0..4_000 {
            let mut data = seeds[round % 2].clone();
            for _ in 0..=below(3) {
                let at = below(data.len());
                match below(4) {
                    0 => data[at] = below(256) as u8,
                    1 => data[at] ^= 1 << below(8),
                    2 => data.insert(at, b"0-_=Az\xff\0"[below(8)]),
                    _ => data.truncate(at.max(1)),
                }
            }
            fuzz(&data);
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let token = sign(&invite(), &key());
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            check(&URL_SAFE_NO_PAD.encode(altered), &shown_to(), NOW, Err(InviteError::Wrong));
        }
        for length in 0..token.len() {
            check(&token[..length], &shown_to(), NOW, Err(InviteError::Wrong));
        }
        for garbage in ["", "!", "é", " ", &"A".repeat(TOKEN_MAX), &"A".repeat(1 << 20), &format!("{token}=")]
        {
            check(garbage, &shown_to(), NOW, Err(InviteError::Wrong));
        }
    }
}
