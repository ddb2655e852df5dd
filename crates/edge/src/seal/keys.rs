//! One direction's keys: sealing and opening single records (RFC 8446, section 5.2).
//!
//! ```text
//!  0      1      3      5                             len − 16
//!  ├──────┼──────┼──────┼──────────────┬──────┬─────────┼──────────┤
//!  │ 0x17 │ 0303 │ len  │ content      │ type │ padding │ tag      │
//!  └──────┴──────┴──────┴──────────────┴──────┴─────────┴──────────┘
//!  └─ authenticated ───┘└─ encrypted ──────────────────┘
//! ```

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ContentType};

use super::{FRAGMENT_BYTES_MAX, HEADER_BYTES, RECORD_OVERHEAD, TAG_BYTES, TlsError};

/// Secrets of one direction and the number of its next record.
///
/// Only the key's bytes are kept, and expanded anew for each record: expanded it is 600 bytes, which a listener who is
/// sent one record a flush does not earn (`benches/seal.rs` has both).
pub(super) struct Keys {
    /// `rustls` wipes the key when it is dropped; the IV, of no use without it, stays.
    secrets: ConnectionTrafficSecrets,
    sequence: u64,
}

/// A key ready for use.
pub(super) struct Expanded {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
}

impl Keys {
    pub(super) fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, TlsError> {
        let keys = Self { secrets, sequence };
        // Fails here rather than in the middle of a stream, if ever `rustls` brings an AEAD unknown to us.
        keys.expand()?;
        Ok(keys)
    }

    /// Records sealed or opened with this key so far.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn expand(&self) -> Result<Expanded, TlsError> {
        use ConnectionTrafficSecrets as Secrets;
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match &self.secrets {
            Secrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            Secrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            Secrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(TlsError::Crypto),
        };
        // `rustls` keeps room for the longest key; the bytes beyond a shorter one are not part of it.
        let key = key.as_ref().get(..algorithm.key_len()).ok_or(TlsError::Crypto)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| TlsError::Crypto)?;
        let iv = iv.as_ref().try_into().map_err(|_| TlsError::Crypto)?;
        Ok(Expanded { key: LessSafeKey::new(key), iv })
    }

    /// Appends one record to `out`: `content`, at most [`FRAGMENT_BYTES_MAX`] bytes in all.
    pub(super) fn seal<'a>(
        &mut self,
        key: &Expanded,
        kind: ContentType,
        content: impl IntoIterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let begin = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        for piece in content {
            out.extend_from_slice(piece);
        }
        self.seal_in_place(key, kind, out, begin)
    }

    /// Makes a record of what stands in `out` behind `begin`: [`HEADER_BYTES`] of anything, then the content.
    pub(super) fn seal_in_place(
        &mut self,
        key: &Expanded,
        kind: ContentType,
        out: &mut Vec<u8>,
        begin: usize,
    ) -> Result<(), TlsError> {
        out.push(u8::from(kind));
        let body = begin + HEADER_BYTES;
        debug_assert!(out.len() - body <= FRAGMENT_BYTES_MAX + 1);
        let len = u16::try_from(out.len() - body + TAG_BYTES).map_err(|_| TlsError::Crypto)?.to_be_bytes();
        let header = [u8::from(ContentType::ApplicationData), 3, 3, len[0], len[1]];
        out[begin..body].copy_from_slice(&header);
        let nonce = key.nonce(self.sequence);
        let tag = key.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut out[body..]);
        // Where sealing fails nothing may stay behind, least of all the plain bytes.
        let Ok(tag) = tag else {
            out.truncate(begin);
            return Err(TlsError::Crypto);
        };
        out.extend_from_slice(tag.as_ref());
        debug_assert_eq!(out.len() - begin, usize::from(u16::from_be_bytes(len)) + HEADER_BYTES);
        const { assert!(RECORD_OVERHEAD == HEADER_BYTES + 1 + TAG_BYTES) };
        self.sequence = self.sequence.checked_add(1).ok_or(TlsError::Crypto)?;
        Ok(())
    }

    /// Opens one whole record in its place: what it is and what it holds.
    pub(super) fn open<'a>(
        &mut self,
        key: &Expanded,
        record: &'a mut [u8],
    ) -> Result<(ContentType, &'a [u8]), AlertDescription> {
        let (header, body) =
            record.split_first_chunk_mut::<HEADER_BYTES>().ok_or(AlertDescription::DecodeError)?;
        let nonce = key.nonce(self.sequence);
        let opened = key.key.open_in_place(nonce, Aad::from(*header), body);
        let inner = &*opened.map_err(|_| AlertDescription::BadRecordMac)?;
        self.sequence = self.sequence.checked_add(1).ok_or(AlertDescription::InternalError)?;
        // The type is the last byte that is not padding (RFC 8446, section 5.4).
        if inner.len() > FRAGMENT_BYTES_MAX + 1 {
            return Err(AlertDescription::RecordOverflow);
        }
        let end = inner.iter().rposition(|byte| *byte != 0).ok_or(AlertDescription::UnexpectedMessage)?;
        Ok((ContentType::from(inner[end]), &inner[..end]))
    }
}

impl Expanded {
    /// RFC 8446, section 5.3.
    fn nonce(&self, sequence: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce[NONCE_LEN - 8..].iter_mut().zip(sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}
