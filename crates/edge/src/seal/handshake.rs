//! A handshake on its way.

use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{AlertDescription, ContentType, HandshakeKind, ProtocolVersion, ServerConfig};

use super::{BODY_BYTES_MAX, FATAL, HANDSHAKE_BYTES_MAX, HEADER_BYTES, Session, TlsError};

/// The server's side of a handshake. Some kilobytes on the heap; give it a deadline.
pub struct Handshake {
    connection: Box<UnbufferedServerConnection>,
    /// Bytes at the front of `incoming` that `rustls` has seen and still refers to: pieces of a message whose rest is
    /// awaited.
    seen: usize,
    /// Bytes of records taken so far.
    taken: usize,
}

/// How far a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The client has to say more.
    NeedsMore,
    /// [`Handshake::finish`] may be called.
    Established,
}

/// What `rustls` made of the records that it was shown.
enum Step {
    /// There may be more to do with them.
    Again,
    /// It has done all that can be done with them.
    Done,
}

impl Handshake {
    /// Begins one. `config` has to have secret extraction enabled and allow TLS 1.3 only.
    ///
    /// # Errors
    /// [`TlsError::Handshake`] if `config` cannot be used.
    pub fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(config).map_err(TlsError::Handshake)?;
        Ok(Self { connection: Box::new(connection), seen: 0, taken: 0 })
    }

    /// Takes what the client sent from the front of `incoming`, and appends to `outgoing` what is to be sent to it,
    /// tickets included. `incoming` keeps a record that is not complete yet, or pieces of a message: give it back
    /// with more bytes behind. It never asks for more than [`HANDSHAKE_BYTES_MAX`].
    ///
    /// Once established, the rest of `incoming` is for [`Session::open`]: a request usually comes with the end of
    /// the handshake.
    ///
    /// # Errors
    /// Any ends the connection; the alert for the client, if there is one, is in `outgoing`.
    pub fn advance(&mut self, incoming: &mut Vec<u8>, outgoing: &mut Vec<u8>) -> Result<Progress, TlsError> {
        while self.connection.is_handshaking() {
            // Whoever takes away what was to be kept has broken the connection.
            let first = first_record(incoming.get(self.seen..).ok_or(TlsError::Unfinished)?);
            let record = match first {
                Record::Missing(expected) if self.taken + expected <= HANDSHAKE_BYTES_MAX => {
                    return Ok(Progress::NeedsMore);
                }
                Record::Missing(expected) => expected,
                Record::Whole(len) => len,
                // `rustls` knows which alert a header is worth that cannot be one.
                Record::Impossible => HEADER_BYTES,
            };
            self.taken += record;
            if self.taken > HANDSHAKE_BYTES_MAX {
                outgoing.extend_from_slice(&plain_alert(AlertDescription::DecodeError));
                return Err(TlsError::TooLong);
            }
            let mut end = self.seen + record;
            while let Step::Again = self.step(incoming, &mut end, outgoing)? {}
            self.seen = end;
            if matches!(first, Record::Impossible) {
                outgoing.extend_from_slice(&plain_alert(AlertDescription::RecordOverflow));
                return Err(TlsError::Refused(AlertDescription::RecordOverflow));
            }
        }
        // What it still held on to was the handshake's; what follows is the session's.
        incoming.drain(..std::mem::take(&mut self.seen).min(incoming.len()));
        Ok(Progress::Established)
    }

    /// Shows the first `end` bytes of `incoming` to `rustls`, and takes away what it has no further use for.
    fn step(
        &mut self,
        incoming: &mut Vec<u8>,
        end: &mut usize,
        outgoing: &mut Vec<u8>,
    ) -> Result<Step, TlsError> {
        let UnbufferedStatus { discard, state, .. } =
            self.connection.process_tls_records(&mut incoming[..*end]);
        let step = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing).map(|()| Step::Again),
            Ok(ConnectionState::TransmitTlsData(data)) => {
                // As good as sent: it is in `outgoing`, in order.
                data.done();
                Ok(Step::Again)
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                Err(TlsError::Alert(AlertDescription::CloseNotify))
            }
            // Data before the end of the handshake is not accepted, data after it is not shown to `rustls`.
            Ok(_) => Err(TlsError::Crypto),
            Err(rustls::Error::AlertReceived(alert)) => Err(TlsError::Alert(alert)),
            Err(error) => Err(TlsError::Handshake(error)),
        };
        incoming.drain(..discard);
        *end -= discard;
        if step.is_err() {
            self.last_words(outgoing);
        }
        step
    }

    /// What a failed connection still has to send: its alert.
    fn last_words(&mut self, outgoing: &mut Vec<u8>) {
        // As long as it has something to send it looks at no bytes: after an error it must not see any again.
        while self.connection.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(data)) = self.connection.process_tls_records(&mut []).state
            else {
                return;
            };
            if encode(data, outgoing).is_err() {
                return;
            }
        }
    }

    /// Whether the client came back with a ticket; `None` before that is known.
    pub fn resumed(&self) -> Option<bool> {
        self.connection.handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    /// Takes the keys over. What [`Handshake::advance`] put into `outgoing` has to be sent before anything that the
    /// session seals; what it left in `incoming` is for [`Session::open`].
    ///
    /// # Errors
    /// [`TlsError::Unfinished`] before [`Progress::Established`], and if TLS 1.2 was spoken.
    pub fn finish(self) -> Result<Session, TlsError> {
        let done = !self.connection.is_handshaking()
            && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        if !done {
            return Err(TlsError::Unfinished);
        }
        let (secrets, kernel) =
            self.connection.dangerous_into_kernel_connection().map_err(TlsError::Handshake)?;
        Session::new(secrets, kernel)
    }
}

fn encode(
    mut data: EncodeTlsData<'_, rustls::server::ServerConnectionData>,
    outgoing: &mut Vec<u8>,
) -> Result<(), TlsError> {
    // It tells its size only when it does not fit.
    let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) else {
        return Err(TlsError::Crypto);
    };
    let begin = outgoing.len();
    outgoing.resize(begin + needed.required_size, 0);
    data.encode(&mut outgoing[begin..]).map_err(|_| TlsError::Crypto)?;
    Ok(())
}

/// What lies at the front of some bytes.
#[derive(Clone, Copy)]
enum Record {
    /// A record of this length.
    Whole(usize),
    /// Part of one; whole it is at least this long.
    Missing(usize),
    /// No record, or one too long to be let in.
    Impossible,
}

fn first_record(bytes: &[u8]) -> Record {
    let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Record::Missing(HEADER_BYTES);
    };
    let kind = ContentType::from(kind);
    let body = usize::from(u16::from_be_bytes([high, low]));
    let known = matches!(
        kind,
        ContentType::ChangeCipherSpec
            | ContentType::Alert
            | ContentType::Handshake
            | ContentType::ApplicationData
    );
    if !known || major != 3 || body > BODY_BYTES_MAX {
        return Record::Impossible;
    }
    let len = HEADER_BYTES + body;
    if bytes.len() < len { Record::Missing(len) } else { Record::Whole(len) }
}

/// An alert before there are keys.
fn plain_alert(alert: AlertDescription) -> [u8; HEADER_BYTES + 2] {
    [u8::from(ContentType::Alert), 3, 3, 0, 2, FATAL, u8::from(alert)]
}
