//! Both ends of a connection in memory: the client is `rustls`, the server is ours. Also used by the tests beside the
//! crate and by its benchmark, hence the imports from `super`.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore, ServerConfig};

use super::{Handshake, Progress, Session, TlsError};

/// A certificate for `localhost` and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    pub fn make() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Self { certificate: made.cert.der().clone(), key }
    }

    /// As the push door has it, but for tickets.
    pub fn server(&self) -> ServerConfig {
        let groups = [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1];
        let provider = with_groups(default_provider(), &groups);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.enable_secret_extraction = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }

    pub fn client(&self) -> ClientConfig {
        self.client_with(default_provider())
    }

    pub fn client_with(&self, provider: CryptoProvider) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config
    }
}

/// Every suite of TLS 1.3, by its number among ours.
pub fn provider(suite: usize) -> CryptoProvider {
    let mut provider = default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    let suite = provider.cipher_suites[suite % provider.cipher_suites.len()];
    provider.cipher_suites = vec![suite];
    provider
}

pub fn with_groups(mut provider: CryptoProvider, groups: &[NamedGroup]) -> CryptoProvider {
    let all = rustls::crypto::aws_lc_rs::ALL_KX_GROUPS;
    let group = |name: &NamedGroup| *all.iter().find(|group| group.name() == *name).unwrap();
    provider.kx_groups = groups.iter().map(group).collect();
    provider
}

pub fn client(config: impl Into<Arc<ClientConfig>>) -> ClientConnection {
    ClientConnection::new(config.into(), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// Reads what the client has received.
pub fn read(client: &mut ClientConnection, bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut rest = bytes;
    let mut plain = Vec::new();
    while !rest.is_empty() {
        client.read_tls(&mut rest).unwrap();
        client.process_new_packets()?;
        // Fails when there is no more, and after the end.
        let _ = client.reader().read_to_end(&mut plain);
    }
    Ok(plain)
}

/// Takes what the client has to send.
pub fn written(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// An established connection.
pub struct Pair {
    pub client: ClientConnection,
    pub session: Session,
    /// What the server has received and not taken yet: what came with the end of the handshake.
    pub incoming: Vec<u8>,
}

impl Pair {
    pub fn new(server: &Arc<ServerConfig>, client: ClientConnection) -> Self {
        Self::shake(server, client, &[], |_| {}).unwrap()
    }

    /// With bytes arriving in `pieces`, one after the other and again from the first; `look` sees the handshake before
    /// its end.
    pub fn shake(
        server: &Arc<ServerConfig>,
        mut client: ClientConnection,
        pieces: &[usize],
        look: impl FnOnce(&Handshake),
    ) -> Result<Self, TlsError> {
        let mut handshake = Handshake::new(server.clone())?;
        let mut pieces = pieces.iter().copied().cycle();
        let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
        let mut wire = Vec::new();
        for _ in 0..100_000 {
            wire.extend(written(&mut client));
            let piece = pieces.next().unwrap_or(usize::MAX).clamp(1, wire.len().max(1));
            incoming.extend(wire.drain(..piece.min(wire.len())));
            let progress = handshake.advance(&mut incoming, &mut outgoing);
            let told = read(&mut client, &std::mem::take(&mut outgoing));
            let progress = progress?;
            told.unwrap();
            if progress == Progress::Established {
                look(&handshake);
                incoming.append(&mut wire);
                return Ok(Self { session: handshake.finish()?, client, incoming });
            }
        }
        panic!("a handshake without end");
    }

    /// The client says `plain` and whatever else it has to say.
    pub fn up(&mut self, plain: &[u8]) -> Vec<u8> {
        self.client.writer().write_all(plain).unwrap();
        written(&mut self.client)
    }
}
