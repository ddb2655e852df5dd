//! TLS 1.3 of the push door (RFC 8446), as pure state machines: bytes in, bytes out, no socket and no clock.
//!
//! ```text
//! accept ──► Handshake ── advance ──► Established ── finish ──► Session ── seal, open, close
//!              rustls, several KiB, short-lived                   keys and counters, under 1 KiB
//! ```
//!
//! [`Handshake`] is `rustls` without its buffers. It is fed record by record and never sees application data, so that
//! the moment it ends, nothing is left in it but secrets. [`Session`] takes those over and writes and reads records by
//! itself; `rustls` ([`rustls::kernel`]) still derives the keys that follow a key update. A listener's connection only
//! sends, a record a flush, for hours: what a full connection object holds beside the keys would be most of its
//! memory.
//!
//! What an attacker can do: end a connection of his own, and make us spend what [`HANDSHAKE_BYTES_MAX`] and
//! [`KEY_UPDATES_MAX`] allow. Every record is checked before a byte of it is believed, and the first one that does not
//! check ends the connection with an alert.

pub(crate) mod fuzz;
mod handshake;
mod keys;
mod session;
#[cfg(test)]
mod tests;

pub use handshake::{Handshake, Progress};
pub use session::{Opened, Session};

use rustls::AlertDescription;

/// Most bytes of records that a client may send for its handshake: twice the largest record, several times the
/// largest hello with a post-quantum key share and tickets.
pub const HANDSHAKE_BYTES_MAX: usize = 32 * 1024;
/// Most bytes of content in one record (RFC 8446, section 5.1).
pub const FRAGMENT_BYTES_MAX: usize = 16_384;
/// What a record adds to its content: header, type and tag.
pub const RECORD_OVERHEAD: usize = HEADER_BYTES + 1 + TAG_BYTES;
/// Key updates that a peer may send in a row. One more is allowed for each [`RECORDS_PER_KEY_UPDATE`] records that it is
/// sent, up to this number again.
pub const KEY_UPDATES_MAX: u8 = 32;
/// See [`KEY_UPDATES_MAX`].
pub const RECORDS_PER_KEY_UPDATE: u64 = 64;
/// Records in a row without content (no bytes of data, warnings) that a peer may send.
pub const EMPTY_RECORDS_MAX: u8 = 32;

/// Header of a record: type, version, length.
pub const HEADER_BYTES: usize = 5;
/// The tag of every AEAD of TLS 1.3.
const TAG_BYTES: usize = 16;
/// Longest body of a protected record: content, its type, padding and tag (RFC 8446, section 5.2).
const BODY_BYTES_MAX: usize = FRAGMENT_BYTES_MAX + 256;

/// Why a connection cannot go on. But for [`TlsError::Unfinished`] it is over: what waits to be sent (an alert, if
/// there is one to send) is to be sent, and then it is to be closed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The client's handshake is none that we agree to, or breaks the rules.
    #[error("handshake: {0}")]
    Handshake(#[source] rustls::Error),
    /// The client's handshake is longer than [`HANDSHAKE_BYTES_MAX`].
    #[error("the handshake is too long")]
    TooLong,
    /// [`Handshake::finish`] came before [`Progress::Established`].
    #[error("the handshake is not finished")]
    Unfinished,
    /// The peer broke the rules after its handshake; this alert says how.
    #[error("refused: {0:?}")]
    Refused(AlertDescription),
    /// The peer ended the connection with this alert.
    #[error("the peer's alert: {0:?}")]
    Alert(AlertDescription),
    /// The connection was closed before, or failed before.
    #[error("closed")]
    Closed,
    /// The cryptographic library failed.
    #[error("cryptography failed")]
    Crypto,
}

/// The level of an alert that ends a connection (RFC 8446, section 6).
const FATAL: u8 = 2;
