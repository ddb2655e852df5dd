//! The client's side of TLS 1.3: handshakes by `rustls`, records by [`crate::record`].

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientConnectionData, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    UnbufferedClientConnection,
};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::kernel::KernelConnection;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, RootCertStore, SignatureScheme,
};

use super::config::Trust;
use crate::record::{ALERT, APPLICATION, HANDSHAKE, Opener, RecordError, Sealer};

/// Where Debian and many others keep the roots they trust.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Tickets kept for those who come later.
const TICKETS: usize = 65_536;
/// Most bytes of a handshake that wait for the rest of their message.
const HANDSHAKE_MAX: usize = 64 * 1024;

/// Why TLS does not work.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Certificates to trust cannot be read.
    #[error("{path}: {why}")]
    Roots {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The handshake fails.
    #[error("tls: {0}")]
    Protocol(#[from] rustls::Error),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The server does what it should not.
    #[error("tls: {0}")]
    Unexpected(&'static str),
}

/// The configurations of a crowd's connections.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    /// Of those who come for the first time in the ramp: they have no ticket, and get one.
    pub(crate) first: Arc<ClientConfig>,
    /// Of all who come later: if sessions are resumed at all, with the tickets of the others.
    pub(crate) later: Arc<ClientConfig>,
}

impl Clients {
    pub(crate) fn new(trust: &Trust, resume: bool) -> Result<Self, TlsError> {
        let plain = client_config(trust)?;
        if !resume {
            return Ok(Self { first: Arc::clone(&plain), later: plain });
        }
        let pool = Arc::default();
        let with = |takes| {
            // Verifiers stay the same ones: a ticket is for who trusts what its first owner trusted.
            let mut config = (*plain).clone();
            config.resumption = Resumption::store(Arc::new(Tickets { pool: Arc::clone(&pool), takes }));
            Arc::new(config)
        };
        Ok(Self { first: with(false), later: with(true) })
    }
}

/// The configuration of one connection, which resumes nothing.
pub(crate) fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    let mut provider = default_provider();
    // In the order in which a listener on a computer with AES asks.
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    // As Chrome and Firefox do: servers of rustls take the client's order.
    provider.kx_groups =
        vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = match trust {
        Trust::Anything => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anything)),
        Trust::System => builder.with_root_certificates(roots(Path::new(SYSTEM_ROOTS))?),
        Trust::File(path) => builder.with_root_certificates(roots(path)?),
    }
    .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.enable_secret_extraction = true;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let wrong = |why: String| TlsError::Roots { path: path.display().to_string(), why };
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates.flatten() {
        // One odd root among a hundred is no reason to trust none.
        let _ = store.add(certificate);
    }
    if store.is_empty() { Err(wrong("no certificate in it".to_owned())) } else { Ok(store) }
}

/// Tickets of all connections in one pool: a crowd shares one server, and each is used once. Those of the ramp only add
/// to it, so that it holds one for each of a storm that is no larger than the ramp.
#[derive(Debug)]
struct Tickets {
    pool: Arc<Mutex<VecDeque<Tls13ClientSessionValue>>>,
    takes: bool,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if tickets.len() == TICKETS {
            tickets.pop_front();
        }
        tickets.push_back(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.takes.then(|| self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop_back())?
    }
}

/// Takes any certificate and checks no signature: the load is what matters, and who asked for it said so.
#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme as S;
        vec![
            S::ECDSA_NISTP256_SHA256,
            S::ECDSA_NISTP384_SHA384,
            S::ED25519,
            S::RSA_PSS_SHA256,
            S::RSA_PSS_SHA384,
        ]
    }
}

/// The name a server is asked for. A bare address is asked for as `localhost`, which a self-made certificate carries.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, TlsError> {
    let host =
        if host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) { "localhost" } else { host };
    ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Unexpected("a host that is no name"))
}

/// A handshake that goes on.
pub(crate) struct Shaking {
    connection: UnbufferedClientConnection,
    incoming: Vec<u8>,
}

/// What a finished handshake leaves.
pub(crate) struct Sealed {
    pub(crate) resumed: bool,
    opener: Opener,
    sealer: Sealer,
    /// For tickets and new keys.
    kernel: KernelConnection<ClientConnectionData>,
    /// The beginning of a record whose rest has not come yet.
    pub(crate) carry: Vec<u8>,
}

impl Shaking {
    pub(crate) fn new(config: &Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let connection = UnbufferedClientConnection::new(Arc::clone(config), name)?;
        Ok(Self { connection, incoming: Vec::new() })
    }

    /// Takes bytes from the server and appends to `out` what it is to be told; whether the handshake is finished.
    pub(crate) fn advance(&mut self, received: &[u8], out: &mut Vec<u8>) -> Result<bool, TlsError> {
        if self.incoming.len() + received.len() > HANDSHAKE_MAX {
            return Err(TlsError::Unexpected("a handshake that is too long"));
        }
        self.incoming.extend_from_slice(received);
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(&mut self.incoming);
            let mut blocked = None;
            match state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(out, |room| match data.encode(room) {
                        Ok(written) => Ok(written),
                        Err(EncodeError::InsufficientSize(error)) => Err(error.required_size),
                        Err(EncodeError::AlreadyEncoded) => Ok(0),
                    });
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake => blocked = Some(Ok(false)),
                ConnectionState::WriteTraffic(_) => blocked = Some(Ok(true)),
                _ => blocked = Some(Err(TlsError::Unexpected("data before it was asked for"))),
            }
            self.incoming.drain(..discard);
            if let Some(outcome) = blocked {
                return outcome;
            }
        }
    }

    /// After [`Self::advance`] said that it is finished.
    pub(crate) fn finish(self) -> Result<Sealed, TlsError> {
        let resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let (secrets, kernel) = self.connection.dangerous_into_kernel_connection()?;
        Ok(Sealed {
            resumed,
            opener: Opener::new(secrets.rx.0, &secrets.rx.1)?,
            sealer: Sealer::new(secrets.tx.0, &secrets.tx.1)?,
            kernel,
            carry: self.incoming,
        })
    }
}

impl Sealed {
    pub(crate) fn seal(&mut self, content: &[u8], out: &mut Vec<u8>) {
        self.sealer.seal(APPLICATION, content, out);
    }

    /// Opens a record; `sink` gets what is the application's. False once the server has said that it will say no more.
    pub(crate) fn open(
        &mut self,
        record: &mut [u8],
        out: &mut Vec<u8>,
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<bool, TlsError> {
        // Middlebox compatibility: a change of cipher may come in clear, and says nothing.
        if record.first() == Some(&20) {
            return Ok(true);
        }
        match self.opener.open(record)? {
            (APPLICATION, content) => sink(content),
            (ALERT, [_, 0]) => return Ok(false),
            (ALERT, _) => return Err(TlsError::Unexpected("an alert")),
            (HANDSHAKE, messages) => {
                let messages = messages.to_vec();
                self.handshake_messages(&messages, out)?;
            }
            _ => return Err(TlsError::Unexpected("a record of unknown type")),
        }
        Ok(true)
    }

    /// New session tickets and key updates (RFC 8446 sections 4.6.1, 4.6.3). Neither is split over records by any
    /// server known.
    fn handshake_messages(&mut self, mut messages: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        const TICKET: u8 = 4;
        const KEY_UPDATE: u8 = 24;
        while let [kind, a, b, c, rest @ ..] = messages {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((message, rest)) = rest.split_at_checked(length) else {
                return Err(TlsError::Unexpected("a handshake message in pieces"));
            };
            messages = rest;
            match (*kind, message) {
                (TICKET, ticket) => self.kernel.handle_new_session_ticket(ticket)?,
                (KEY_UPDATE, [asked @ (0 | 1)]) => {
                    let (sequence, secrets) = self.kernel.update_rx_secret()?;
                    self.opener = Opener::new(sequence, &secrets)?;
                    if *asked == 1 {
                        self.sealer.seal(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, 0], out);
                        let (sequence, secrets) = self.kernel.update_tx_secret()?;
                        self.sealer = Sealer::new(sequence, &secrets)?;
                    }
                }
                _ => return Err(TlsError::Unexpected("a handshake message after the handshake")),
            }
        }
        if messages.is_empty() { Ok(()) } else { Err(TlsError::Unexpected("a handshake message in pieces")) }
    }
}

/// Appends to `out` what `write` puts into the room it is given; it answers the room it needs if that is too little.
fn encode(out: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>) {
    let start = out.len();
    let mut room = 1_024;
    // Once told what is needed, it fits.
    for _ in 0..2 {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return;
            }
            Err(needed) => room = needed,
        }
    }
    out.truncate(start);
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use rustls::crypto::aws_lc_rs::Ticketer;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;
    use crate::record::record_length;

    fn server() -> (Arc<ServerConfig>, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.ticketer = Ticketer::new().unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        (Arc::new(config), made.cert.pem())
    }

    /// What the server has to say now, as bytes of the connection.
    fn said(server: &mut ServerConnection) -> Vec<u8> {
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    fn told(server: &mut ServerConnection, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets().unwrap();
        }
    }

    fn shake(config: &Arc<ClientConfig>, server: &mut ServerConnection) -> Result<Sealed, TlsError> {
        let mut shaking = Shaking::new(config, server_name("127.0.0.1").unwrap())?;
        let mut out = Vec::new();
        let mut finished = shaking.advance(&[], &mut out)?;
        while !finished {
            told(server, &out);
            out.clear();
            // In small pieces, as a network may bring them.
            for piece in said(server).chunks(700) {
                finished = shaking.advance(piece, &mut out)?;
            }
        }
        told(server, &out);
        shaking.finish()
    }

    fn hear(sealed: &mut Sealed, mut bytes: Vec<u8>, out: &mut Vec<u8>) -> (Vec<u8>, bool) {
        let (mut heard, mut open) = (Vec::new(), true);
        let mut rest = &mut bytes[..];
        while let Some(length) = record_length(rest).unwrap() {
            let (record, after) = rest.split_at_mut(length);
            open &= sealed.open(record, out, &mut |bytes| heard.extend_from_slice(bytes)).unwrap();
            rest = after;
        }
        (heard, open)
    }

    #[test]
    fn both_sides_understand_each_other_over_tickets_and_new_keys() {
        let (config, _) = server();
        let mut server = ServerConnection::new(config).unwrap();
        let client = Clients::new(&Trust::Anything, true).unwrap().later;
        let mut sealed = shake(&client, &mut server).unwrap();
        assert!(!sealed.resumed);
        // As browsers do, where the server knows how.
        let group = server.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, NamedGroup::X25519MLKEM768);
        let mut out = Vec::new();
        sealed.seal(b"GET / HTTP/1.1\r\n\r\n", &mut out);
        told(&mut server, &out);
        let mut request = [0; 64];
        assert_eq!(server.reader().read(&mut request).unwrap(), 18);
        // Tickets come with the first answer.
        server.writer().write_all(b"one").unwrap();
        assert_eq!(hear(&mut sealed, said(&mut server), &mut out).0, b"one");
        server.refresh_traffic_keys().unwrap();
        server.writer().write_all(b"two").unwrap();
        out.clear();
        assert_eq!(hear(&mut sealed, said(&mut server), &mut out).0, b"two");
        // A server asks for new keys of ours too, and hears what follows under them.
        sealed.seal(b"more", &mut out);
        told(&mut server, &out);
        assert_eq!(server.reader().read(&mut request).unwrap(), 4);
        server.send_close_notify();
        let (heard, open) = hear(&mut sealed, said(&mut server), &mut out);
        assert!(heard.is_empty() && !open);
    }

    #[test]
    fn tickets_are_for_everyone_of_the_crowd() {
        let (config, _) = server();
        let Clients { first, later } = Clients::new(&Trust::Anything, true).unwrap();
        let forgetting = Clients::new(&Trust::Anything, false).unwrap().later;
        let resumed = |client: &Arc<ClientConfig>| {
            let mut server = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut sealed = shake(client, &mut server).unwrap();
            hear(&mut sealed, said(&mut server), &mut Vec::new());
            sealed.resumed
        };
        // A whole ramp, and then a storm of as many: each of these has a ticket.
        assert!((0..40).all(|_| !resumed(&first)));
        assert!((0..40).all(|_| resumed(&later)));
        assert!(!resumed(&forgetting));
    }

    #[test]
    fn certificates_are_checked_unless_told_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roots.pem");
        let (config, pem) = server();
        std::fs::write(&path, pem).unwrap();
        let known = client_config(&Trust::File(path.clone())).unwrap();
        shake(&known, &mut ServerConnection::new(config).unwrap()).unwrap();
        let (other, _) = server();
        let refused = shake(&known, &mut ServerConnection::new(other).unwrap());
        assert!(matches!(refused, Err(TlsError::Protocol(_))));
        std::fs::write(&path, "nothing").unwrap();
        assert!(matches!(client_config(&Trust::File(path)), Err(TlsError::Roots { .. })));
    }
}
