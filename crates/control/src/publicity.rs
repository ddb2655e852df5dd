//! The public keys: the publisher's, and each event's with the publisher's signature on it.
//!
//! The signature (the *certificate*) is Ed25519 by the publisher's key over this statement:
//!
//! ```text
//! ┌──────────────────────────┬─────────┬───────────────┬──────────────────────────┐
//! │ "minassa event key v1\0" │ n: u8   │ slug, n bytes │ the event's key, 32 bytes│
//! └──────────────────────────┴─────────┴───────────────┴──────────────────────────┘
//! ```
//!
//! Whoever has pinned the publisher's key (in DNS, in print) needs nothing else to believe a recording's signatures.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use model::{EventSlug, KeyId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::Known;

const DOMAIN: &[u8] = b"minassa event key v1\0";

/// The statement that the publisher signs for an event's key.
pub(crate) fn statement(slug: &EventSlug, key: &[u8; 32]) -> Vec<u8> {
    let slug = slug.as_str().as_bytes();
    let length = u8::try_from(slug.len()).expect("a slug has at most 64 bytes");
    [DOMAIN, &[length], slug, key].concat()
}

/// The keys of this publisher.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublishedKeys {
    /// The key to pin.
    pub(crate) publisher: PublishedKey,
    /// Keys of events, latest start first, at most 1000; `?event=` names one.
    pub(crate) events: Vec<EventKey>,
}

/// A public key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PublishedKey {
    /// `Ed25519`.
    pub(crate) algorithm: &'static str,
    /// The first 8 bytes of the key's SHA-256, hexadecimal.
    pub(crate) key_id: String,
    /// The key, 32 bytes, base64url without padding.
    pub(crate) public_key: String,
}

/// An event's key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventKey {
    /// The event.
    pub(crate) event: String,
    /// The key.
    #[serde(flatten)]
    pub(crate) key: PublishedKey,
    /// The publisher's signature over `"minassa event key v1\0"`, the slug's length as one byte, the slug and the
    /// key; 64 bytes, base64url without padding.
    pub(crate) certificate: String,
}

impl PublishedKey {
    pub(crate) fn of(key: &[u8; 32]) -> Self {
        let KeyId(id) = KeyId::of(key);
        Self { algorithm: "Ed25519", key_id: hex(&id), public_key: URL_SAFE_NO_PAD.encode(key) }
    }
}

impl PublishedKeys {
    pub(crate) fn new<'a>(publisher: &SigningKey, events: impl Iterator<Item = &'a Known>) -> Self {
        let event = |known: &Known| EventKey {
            event: known.event.slug.to_string(),
            key: PublishedKey::of(&known.event.signing_key),
            certificate: URL_SAFE_NO_PAD.encode(known.certificate),
        };
        Self {
            publisher: PublishedKey::of(publisher.verifying_key().as_bytes()),
            events: events.map(event).collect(),
        }
    }
}

/// Bytes as lower-case hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
