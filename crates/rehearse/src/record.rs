//! TLS 1.3 records (RFC 8446 section 5) under keys that were taken out of a finished handshake, so that a connection
//! costs a key and a counter instead of a whole TLS object.
//!
//! ```text
//! 17 03 03 │ length │ ciphertext of: content · its type · zeros │ tag, 16 bytes
//! └─────────────────┘ authenticated with it
//! ```
//!
//! It is made for load generators and floors. It does not track how much a key may protect (RFC 8446 section 5.5):
//! no measurement comes near 2^24 records of a connection.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

/// Bytes before the ciphertext.
pub const HEADER: usize = 5;
/// Most bytes of content in one record.
pub const CONTENT_MAX: usize = 16 * 1024;
/// Bytes by which a record is longer than its content.
pub const OVERHEAD: usize = HEADER + 1 + 16;
/// Most bytes of a record that is read (RFC 8446 section 5.2).
const RECORD_MAX: usize = HEADER + CONTENT_MAX + 256;

/// Outer type of every protected record, and inner type of what applications say.
pub const APPLICATION: u8 = 23;
/// Inner type of messages of the handshake protocol.
pub const HANDSHAKE: u8 = 22;
/// Inner type of alerts.
pub const ALERT: u8 = 21;

/// Why a record cannot be read, or a key not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its header is none, or it is too long.
    #[error("no TLS record")]
    NotARecord,
    /// It was not sealed with this key, or not at this place.
    #[error("a TLS record that does not open")]
    Sealed,
    /// A cipher that is not implemented here.
    #[error("a cipher that is not implemented")]
    Cipher,
}

/// Key, nonce and counter of one direction.
#[derive(Debug)]
struct Protection {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Protection {
    fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Cipher),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Cipher)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Cipher)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// RFC 8446 section 5.3. Each is used once: the counter goes on with every call.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Opens what the other side seals.
#[derive(Debug)]
pub struct Opener(Protection);

/// Seals what is sent.
#[derive(Debug)]
pub struct Sealer(Protection);

/// Length of the record that begins here, header included; `None` if its header is not there yet.
///
/// # Errors
/// [`RecordError::NotARecord`].
pub fn record_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let length = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    if header[1] != 3 || length > RECORD_MAX {
        return Err(RecordError::NotARecord);
    }
    Ok(Some(length))
}

impl Opener {
    /// From what a handshake yields.
    ///
    /// # Errors
    /// [`RecordError::Cipher`].
    pub fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        Protection::new(sequence, secrets).map(Self)
    }

    /// Opens one whole record in place; the type and content of what was in it.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open<'r>(&mut self, record: &'r mut [u8]) -> Result<(u8, &'r [u8]), RecordError> {
        let (header, sealed) = record.split_at_mut_checked(HEADER).ok_or(RecordError::NotARecord)?;
        if header[0] != APPLICATION {
            return Err(RecordError::NotARecord);
        }
        let nonce = self.0.next_nonce();
        let opened = self.0.key.open_in_place(nonce, Aad::from(&*header), sealed);
        let opened: &[u8] = opened.map_err(|_| RecordError::Sealed)?;
        let end = opened.iter().rposition(|byte| *byte != 0).ok_or(RecordError::Sealed)?;
        Ok((opened[end], &opened[..end]))
    }
}

impl Sealer {
    /// From what a handshake yields.
    ///
    /// # Errors
    /// [`RecordError::Cipher`].
    pub fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        Protection::new(sequence, secrets).map(Self)
    }

    /// Appends `content` to `out` as records of this inner type.
    ///
    /// # Panics
    /// Never: no record is too long to be sealed.
    pub fn seal(&mut self, kind: u8, content: &[u8], out: &mut Vec<u8>) {
        for content in content.chunks(CONTENT_MAX) {
            let start = out.len();
            let length = (content.len() + OVERHEAD - HEADER) as u16;
            out.reserve(content.len() + OVERHEAD);
            out.extend([APPLICATION, 3, 3]);
            out.extend(length.to_be_bytes());
            out.extend_from_slice(content);
            out.push(kind);
            let (header, sealed) = out[start..].split_at_mut(HEADER);
            let nonce = self.0.next_nonce();
            let tag = self.0.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), sealed);
            out.extend_from_slice(tag.expect("a record is far below the cipher's limit").as_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    fn secrets() -> [ConnectionTrafficSecrets; 2] {
        let key = || AeadKey::from([7; 32]);
        [
            ConnectionTrafficSecrets::Aes256Gcm { key: key(), iv: Iv::copy(&[1; 12]) },
            ConnectionTrafficSecrets::Chacha20Poly1305 { key: key(), iv: Iv::copy(&[2; 12]) },
        ]
    }

    #[test]
    fn what_is_sealed_opens_in_order_and_only_so() {
        for secrets in secrets() {
            let mut sealer = Sealer::new(3, &secrets).unwrap();
            let mut records = Vec::new();
            let long = vec![5; CONTENT_MAX + 10];
            sealer.seal(APPLICATION, &long, &mut records);
            sealer.seal(ALERT, &[1, 0], &mut records);
            let mut opener = Opener::new(3, &secrets).unwrap();
            let mut opened = Vec::new();
            let mut rest = &mut records.clone()[..];
            while let Some(length) = record_length(rest).unwrap() {
                let (record, after) = rest.split_at_mut(length);
                let (kind, content) = opener.open(record).unwrap();
                opened.push((kind, content.len()));
                rest = after;
            }
            assert_eq!(opened, [(APPLICATION, CONTENT_MAX), (APPLICATION, 10), (ALERT, 2)]);

            let length = record_length(&records).unwrap().unwrap();
            let mut second = records.split_off(length);
            let mut opener = Opener::new(3, &secrets).unwrap();
            let length = record_length(&second).unwrap().unwrap();
            assert_eq!(opener.open(&mut second[..length]), Err(RecordError::Sealed), "out of order");
        }
    }

    #[test]
    fn zeros_after_the_type_are_padding() {
        let secrets = &secrets()[0];
        let mut sealer = Sealer::new(0, secrets).unwrap();
        let mut record = Vec::new();
        // The content of the outer seal ends with an inner type and padding of its own, and the type given is 0.
        sealer.seal(0, &[9, 9, HANDSHAKE, 0, 0], &mut record);
        let mut opener = Opener::new(0, secrets).unwrap();
        assert_eq!(opener.open(&mut record), Ok((HANDSHAKE, &[9, 9][..])));
    }

    #[test]
    fn what_is_no_record_is_said_so() {
        assert_eq!(record_length(&[23, 3, 3, 0]), Ok(None));
        assert_eq!(record_length(&[23, 3, 3, 0, 40]), Ok(Some(45)));
        assert_eq!(record_length(b"HTTP/"), Err(RecordError::NotARecord));
        assert_eq!(record_length(&[23, 3, 3, 0xff, 0xff]), Err(RecordError::NotARecord));
    }
}
