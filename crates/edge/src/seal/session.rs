//! What stays of a connection after its handshake.

use std::fmt;

use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{AlertDescription, ContentType, ExtractedSecrets, SupportedCipherSuite};

use super::keys::{Expanded, Keys};
use super::{
    BODY_BYTES_MAX, EMPTY_RECORDS_MAX, FATAL, FRAGMENT_BYTES_MAX, HEADER_BYTES, KEY_UPDATES_MAX,
    RECORD_OVERHEAD, RECORDS_PER_KEY_UPDATE, TlsError,
};

/// An established connection: the keys of both directions and some counters. It owns no buffer.
///
/// Whatever its functions append, to whichever buffer, is to be sent in the order in which it was appended: records
/// are numbered.
pub struct Session {
    transmit: Keys,
    /// Records after which a new key is taken.
    key_records_max: u64,
    /// Key updates that the peer may still send; see [`KEY_UPDATES_MAX`].
    key_updates: u8,
    /// Records in a row that held nothing.
    empty_records: u8,
    state: State,
    /// Bytes that came of a `KeyUpdate` whose rest is awaited.
    message_len: u8,
    receive: Keys,
    /// Derives the keys that follow.
    kernel: KernelConnection<ServerConnectionData>,
}

/// How far a connection is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The peer says no more.
    PeerClosed,
    /// We say no more: `close_notify` or an alert was given out.
    Closed,
}

/// What [`Session::open`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The peer may say more.
    Open,
    /// The peer said that it is done (`close_notify`).
    Closed,
}

/// How a `KeyUpdate` begins: type and length. One byte follows, whether it asks for one in return (RFC 8446,
/// section 4.6.3).
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];
const UPDATE_NOT_REQUESTED: u8 = 0;
const UPDATE_REQUESTED: u8 = 1;
/// The level of an alert that ends nothing by itself.
const WARNING: u8 = 1;

impl Session {
    pub(super) fn new(
        secrets: ExtractedSecrets,
        kernel: KernelConnection<ServerConnectionData>,
    ) -> Result<Self, TlsError> {
        let limit = match kernel.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            SupportedCipherSuite::Tls12(_) => return Err(TlsError::Unfinished),
        };
        Ok(Self {
            transmit: Keys::new(secrets.tx)?,
            // Well before the limit, so that nothing hangs on the exact count.
            key_records_max: limit / 2,
            key_updates: KEY_UPDATES_MAX,
            empty_records: 0,
            state: State::Open,
            message_len: 0,
            receive: Keys::new(secrets.rx)?,
            kernel,
        })
    }

    /// Takes a new key to send with after `records` records instead of half the AEAD's limit; for tests.
    #[must_use]
    pub fn with_key_records_max(mut self, records: u64) -> Self {
        self.key_records_max = records.max(1);
        self
    }

    #[cfg(test)]
    pub(super) fn key_records_max(&self) -> u64 {
        self.key_records_max
    }

    /// Appends `plain` to `out` as records of application data, none if it is empty.
    ///
    /// # Errors
    /// [`TlsError::Closed`] after [`Session::close`] or an error; [`TlsError::Crypto`], which ends the connection.
    /// `out` then holds whole records or none.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        self.seal_gathered(&[plain], out)
    }

    /// Like [`Session::seal`], of pieces that follow each other.
    ///
    /// # Errors
    /// Those of [`Session::seal`].
    pub fn seal_gathered(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.state == State::Closed {
            return Err(TlsError::Closed);
        }
        let sealed = self.seal_records(pieces, out);
        if sealed.is_err() {
            self.state = State::Closed;
        }
        sealed
    }

    /// Makes records of `buffer`, which is [`HEADER_BYTES`] of anything and then what is to be said; the usual single
    /// record where it stands, without another copy of it. `spare` is where more than one record is made; both may be
    /// exchanged. Nothing comes of nothing.
    ///
    /// # Errors
    /// Those of [`Session::seal`]; `buffer` is then empty.
    pub fn seal_in_place(&mut self, buffer: &mut Vec<u8>, spare: &mut Vec<u8>) -> Result<(), TlsError> {
        let len = buffer.len().saturating_sub(HEADER_BYTES);
        let is_single = (1..=FRAGMENT_BYTES_MAX).contains(&len);
        let sealed = if is_single && self.state != State::Closed && !self.is_key_spent() {
            let sealed = self
                .transmit
                .expand()
                .and_then(|key| self.transmit.seal_in_place(&key, ContentType::ApplicationData, buffer, 0));
            self.count_record();
            if sealed.is_err() {
                self.state = State::Closed;
            }
            sealed
        } else {
            spare.clear();
            let sealed = self.seal(buffer.get(HEADER_BYTES..).unwrap_or_default(), spare);
            std::mem::swap(buffer, spare);
            sealed
        };
        if sealed.is_err() {
            buffer.clear();
        }
        sealed
    }

    /// Whether a new key has to be taken before the next record.
    fn is_key_spent(&self) -> bool {
        self.transmit.sequence() >= self.key_records_max
    }

    /// One more record of data is out: now and then the peer may send a key update more.
    fn count_record(&mut self) {
        if self.transmit.sequence().is_multiple_of(RECORDS_PER_KEY_UPDATE) {
            self.key_updates = (self.key_updates + 1).min(KEY_UPDATES_MAX);
        }
    }

    fn seal_records(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut left: usize = pieces.iter().map(|piece| piece.len()).sum();
        out.reserve(left + left.div_ceil(FRAGMENT_BYTES_MAX) * RECORD_OVERHEAD);
        let mut key = self.transmit.expand()?;
        let mut offset = 0;
        while left > 0 {
            if self.is_key_spent() {
                self.update_transmit(&mut key, out)?;
            }
            let len = left.min(FRAGMENT_BYTES_MAX);
            let content = slices(pieces, offset, len);
            self.transmit.seal(&key, ContentType::ApplicationData, content, out)?;
            self.count_record();
            offset += len;
            left -= len;
        }
        Ok(())
    }

    /// Takes what the peer sent from the front of `incoming`; data is appended to `plain` (never more than
    /// `incoming` had), answers of the protocol itself to `replies` (an alert or a key update, at most 64 bytes a
    /// call). `incoming` keeps a record that is not complete yet: give it back with more bytes behind. A whole record
    /// is never longer than 16,645 bytes.
    ///
    /// After the peer's `close_notify` whatever follows is thrown away; [`Session::seal`] still works.
    ///
    /// # Errors
    /// Any ends the connection: the alert for the peer, if there is one to send, is in `replies`, and `incoming` is
    /// empty.
    pub fn open(
        &mut self,
        incoming: &mut Vec<u8>,
        replies: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Opened, TlsError> {
        match self.state {
            State::Open => {}
            State::PeerClosed => {
                incoming.clear();
                return Ok(Opened::Closed);
            }
            State::Closed => {
                incoming.clear();
                return Err(TlsError::Closed);
            }
        }
        let mut taken = 0;
        let opened = self.open_records(incoming, &mut taken, replies, plain);
        match opened {
            Ok(Opened::Open) => {
                incoming.drain(..taken);
            }
            Ok(Opened::Closed) => {
                self.state = State::PeerClosed;
                incoming.clear();
            }
            Err(ref error) => {
                incoming.clear();
                if let TlsError::Refused(alert) = error {
                    // Should this fail the peer gets a bare end of the connection.
                    let _ = self.alert(FATAL, *alert, replies);
                }
                self.state = State::Closed;
            }
        }
        opened
    }

    /// Appends `close_notify`; nothing can be sealed after it. Again, it appends nothing.
    ///
    /// # Errors
    /// [`TlsError::Crypto`].
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.state == State::Closed {
            return Ok(());
        }
        self.state = State::Closed;
        self.alert(WARNING, AlertDescription::CloseNotify, out)
    }

    fn open_records(
        &mut self,
        incoming: &mut [u8],
        taken: &mut usize,
        replies: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Opened, TlsError> {
        let mut key = None;
        let mut update_requested = false;
        let opened = loop {
            let Some(record) = whole_record(&mut incoming[*taken..])? else { break Opened::Open };
            *taken += record.len();
            let current: &Expanded = match &key {
                Some(key) => key,
                None => key.insert(self.receive.expand()?),
            };
            let (kind, content) = self.receive.open(current, record).map_err(TlsError::Refused)?;
            if self.message_len > 0 && kind != ContentType::Handshake {
                // Pieces of a message may have nothing between them (RFC 8446, section 5.1).
                return Err(TlsError::Refused(AlertDescription::UnexpectedMessage));
            }
            match kind {
                ContentType::ApplicationData => {
                    self.count_empty(content.is_empty())?;
                    plain.extend_from_slice(content);
                }
                ContentType::Alert => match alert_of(content)? {
                    AlertDescription::CloseNotify => break Opened::Closed,
                    // Followed by `close_notify` (RFC 8446, section 6.1).
                    AlertDescription::UserCanceled => self.count_empty(true)?,
                    alert => return Err(TlsError::Alert(alert)),
                },
                ContentType::Handshake => {
                    if let Some(requested) = key_update(&mut self.message_len, content)? {
                        self.update_receive()?;
                        update_requested |= requested;
                        key = None;
                    }
                }
                _ => return Err(TlsError::Refused(AlertDescription::UnexpectedMessage)),
            }
        };
        if update_requested && opened == Opened::Open {
            // One answer serves for all that asked meanwhile.
            let mut key = self.transmit.expand()?;
            self.update_transmit(&mut key, replies)?;
        }
        Ok(opened)
    }

    /// Counts a record that held nothing.
    fn count_empty(&mut self, empty: bool) -> Result<(), TlsError> {
        self.empty_records = if empty { self.empty_records + 1 } else { 0 };
        if self.empty_records > EMPTY_RECORDS_MAX {
            return Err(TlsError::Refused(AlertDescription::UnexpectedMessage));
        }
        Ok(())
    }

    /// The peer's next key.
    fn update_receive(&mut self) -> Result<(), TlsError> {
        self.key_updates =
            self.key_updates.checked_sub(1).ok_or(TlsError::Refused(AlertDescription::UnexpectedMessage))?;
        self.receive = Keys::new(self.kernel.update_rx_secret().map_err(|_| TlsError::Crypto)?)?;
        Ok(())
    }

    /// Our next key, after telling so with the current one.
    fn update_transmit(&mut self, key: &mut Expanded, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let message = [&KEY_UPDATE[..], &[UPDATE_NOT_REQUESTED]];
        self.transmit.seal(key, ContentType::Handshake, message, out)?;
        self.transmit = Keys::new(self.kernel.update_tx_secret().map_err(|_| TlsError::Crypto)?)?;
        *key = self.transmit.expand()?;
        Ok(())
    }

    fn alert(&mut self, level: u8, alert: AlertDescription, out: &mut Vec<u8>) -> Result<(), TlsError> {
        let key = self.transmit.expand()?;
        self.transmit.seal(&key, ContentType::Alert, [&[level, u8::from(alert)][..]], out)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the keys.
        formatter.debug_struct("Session").field("state", &self.state).finish_non_exhaustive()
    }
}

/// `len` bytes from `offset` of `pieces` that follow each other.
fn slices<'a>(pieces: &'a [&'a [u8]], offset: usize, len: usize) -> impl Iterator<Item = &'a [u8]> {
    let (mut skip, mut left) = (offset, len);
    pieces.iter().filter_map(move |piece| {
        let from = skip.min(piece.len());
        skip -= from;
        let to = piece.len().min(from + left);
        left -= to - from;
        (to > from).then(|| &piece[from..to])
    })
}

/// The record at the front of `bytes` if it is there whole.
fn whole_record(bytes: &mut [u8]) -> Result<Option<&mut [u8]>, TlsError> {
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    // After the handshake everything is protected (RFC 8446, section 5).
    if ContentType::from(kind) != ContentType::ApplicationData {
        return Err(TlsError::Refused(AlertDescription::UnexpectedMessage));
    }
    let body = usize::from(u16::from_be_bytes([high, low]));
    if body > BODY_BYTES_MAX {
        return Err(TlsError::Refused(AlertDescription::RecordOverflow));
    }
    Ok(bytes.get_mut(..HEADER_BYTES + body))
}

/// The description of an alert; in TLS 1.3 its level means nothing (RFC 8446, section 6).
fn alert_of(content: &[u8]) -> Result<AlertDescription, TlsError> {
    match content {
        &[_, description] => Ok(AlertDescription::from(description)),
        [] => Err(TlsError::Refused(AlertDescription::UnexpectedMessage)),
        _ => Err(TlsError::Refused(AlertDescription::DecodeError)),
    }
}

/// Takes `content` as what follows the first `seen` bytes of a `KeyUpdate`. Whether it asks for an update in return,
/// once it is whole; no other message may come from a client that was asked for nothing.
fn key_update(seen: &mut u8, content: &[u8]) -> Result<Option<bool>, TlsError> {
    let refused = |alert| Err(TlsError::Refused(alert));
    if content.is_empty() {
        return refused(AlertDescription::UnexpectedMessage);
    }
    let mut content = content.iter();
    for expected in &KEY_UPDATE[usize::from(*seen).min(KEY_UPDATE.len())..] {
        match content.next() {
            None => return Ok(None),
            Some(byte) if byte == expected => *seen += 1,
            Some(_) if *seen == 0 => return refused(AlertDescription::UnexpectedMessage),
            Some(_) => return refused(AlertDescription::DecodeError),
        }
    }
    let requested = match content.next() {
        None => return Ok(None),
        Some(&UPDATE_NOT_REQUESTED) => false,
        Some(&UPDATE_REQUESTED) => true,
        Some(_) => return refused(AlertDescription::IllegalParameter),
    };
    // Nothing may follow in a record that still has the old key (RFC 8446, section 5.1).
    if content.next().is_some() {
        return refused(AlertDescription::UnexpectedMessage);
    }
    *seen = 0;
    Ok(Some(requested))
}
