//! Session tickets (RFC 8446, section 4.6.1; RFC 5077) that every process of a deployment makes and understands.
//!
//! ```text
//! 0          8         20                          len − 16
//! ├──────────┼──────────┼───────────────────────────┼──────────┤
//! │ key name │ nonce    │ session                   │ tag      │
//! └──────────┴──────────┴───────────────────────────┴──────────┘
//! └ authenticated ─────┘└ encrypted ────────────────┘
//! ```
//!
//! The keys are derived by HKDF from those that control rotates for tickets of listeners (`backend::keys`): the one in
//! use, and the one before, which is still understood. The AEAD is AES-256-GCM-SIV (RFC 8452): many processes draw
//! nonces at random for the same key, and it does not mind a repetition.
//!
//! What an attacker can do: send any number of tickets that are none. One of another key costs a comparison, one
//! that names a key of ours (they are no secret) one decryption of at most [`TICKET_BYTES_MAX`] bytes; a hello holds
//! a few hundred of them at the most, which is less work than the handshake it asks for.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use admission::ticket::{TicketKey, TicketKeys};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use rustls::server::ProducesTickets;

/// How long a client may think that a ticket is of use, seconds: less than a key is understood after its last
/// ticket, and less than a day.
pub const TICKET_LIFETIME_S: u32 = 12 * 3_600;

const NAME_BYTES: usize = 8;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = NAME_BYTES + NONCE_LEN;
/// Longest ticket that is looked into. Ours are about 200 bytes long.
const TICKET_BYTES_MAX: usize = 1_024;
/// What the derived keys are for. A change of the format changes it.
const DOMAIN: &[u8] = b"minassa tls session ticket 1";

/// Makes and understands tickets.
pub struct Tickets {
    door: &'static str,
    keys: RwLock<Arc<Derived>>,
}

/// The key in use and the one before.
struct Derived {
    current: SessionKey,
    previous: Option<SessionKey>,
}

struct SessionKey {
    name: [u8; NAME_BYTES],
    key: LessSafeKey,
}

impl Tickets {
    /// For doors of the kind `door`: those of another do not understand them.
    pub fn new(door: &'static str, keys: &TicketKeys) -> Self {
        Self { door, keys: RwLock::new(Arc::new(Derived::new(door, keys))) }
    }

    /// Takes over keys that were rotated.
    pub fn set(&self, keys: &TicketKeys) {
        let derived = Arc::new(Derived::new(self.door, keys));
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = derived;
    }

    fn keys(&self) -> Arc<Derived> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Derived {
    fn new(door: &str, keys: &TicketKeys) -> Self {
        Self {
            current: SessionKey::derive(door, &keys.current),
            previous: keys.previous.as_ref().map(|key| SessionKey::derive(door, key)),
        }
    }
}

impl SessionKey {
    fn derive(door: &str, key: &TicketKey) -> Self {
        struct Len(usize);
        impl KeyType for Len {
            fn len(&self) -> usize {
                self.0
            }
        }
        let mut bytes = [0; KEY_BYTES + NAME_BYTES];
        let secret = Salt::new(HKDF_SHA256, DOMAIN).extract(&key.secret);
        secret
            .expand(&[door.as_bytes(), &[0, key.id]], Len(bytes.len()))
            .and_then(|output| output.fill(&mut bytes))
            .expect("40 bytes are within what HKDF gives");
        let (secret, name) = bytes.split_at(KEY_BYTES);
        let secret = UnboundKey::new(&AES_256_GCM_SIV, secret).expect("32 bytes are a key");
        Self { name: name.try_into().expect("8 bytes are left"), key: LessSafeKey::new(secret) }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys();
        let SessionKey { name, key } = &keys.current;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(HEAD_BYTES + plain.len() + TAG_BYTES);
        ticket.extend_from_slice(name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(plain);
        let (head, session) = ticket.split_at_mut(HEAD_BYTES);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(head), session).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        // Nobody would look into a longer one.
        (ticket.len() <= TICKET_BYTES_MAX).then_some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if !(HEAD_BYTES + TAG_BYTES..=TICKET_BYTES_MAX).contains(&ticket.len()) {
            return None;
        }
        let (head, session) = ticket.split_at(HEAD_BYTES);
        let (name, nonce) = head.split_at(NAME_BYTES);
        let keys = self.keys();
        let of_ours = [Some(&keys.current), keys.previous.as_ref()];
        let key = &of_ours.into_iter().flatten().find(|key| key.name == name)?.key;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut session = session.to_vec();
        let len = key.open_in_place(nonce, Aad::from(head), &mut session).ok()?.len();
        session.truncate(len);
        Some(session)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the keys.
        formatter.debug_struct("Tickets").field("door", &self.door).finish_non_exhaustive()
    }
}
