//! Entry points for fuzzing: each takes any bytes and must return.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use backend::tls::{Certificate, Door, OwnCertificate, Resolver, provider, server_config};
use rustls::pki_types::ServerName;
use rustls::server::ProducesTickets;
use rustls::{ClientConfig, ClientConnection, ContentType, RootCertStore, ServerConfig};

use super::keys::Keys;
use super::{FRAGMENT_BYTES_MAX, Handshake, Progress, Session};

/// Both ends' settings, made once.
fn configs() -> Option<&'static (Arc<ServerConfig>, Arc<ClientConfig>)> {
    static CONFIGS: OnceLock<Option<(Arc<ServerConfig>, Arc<ClientConfig>)>> = OnceLock::new();
    CONFIGS
        .get_or_init(|| {
            let made = OwnCertificate::make(&["localhost".to_owned()], SystemTime::now()).ok()?;
            let mut roots = RootCertStore::empty();
            roots.add(made.certificate.clone()).ok()?;
            let certificate = Certificate::new(vec![made.certificate], made.key).ok()?;
            let resolver = Arc::new(Resolver::new(certificate));
            let server = server_config(Door::Push, resolver, Arc::new(NoTickets));
            let mut client = ClientConfig::builder_with_provider(Arc::new(provider()))
                .with_safe_default_protocol_versions()
                .ok()?
                .with_root_certificates(roots)
                .with_no_client_auth();
            client.enable_secret_extraction = true;
            Some((Arc::new(server), Arc::new(client)))
        })
        .as_ref()
}

#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _ticket: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// Reads `data` as what a client begins with. Its first byte says where it is cut in two.
pub(crate) fn handshake(data: &[u8]) {
    let (Some((server, _)), Some((cut, bytes))) = (configs(), data.split_first()) else { return };
    let Ok(mut handshake) = Handshake::new(server.clone()) else { return };
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    for piece in [first, second] {
        incoming.extend_from_slice(piece);
        if handshake.advance(&mut incoming, &mut outgoing).is_err() {
            return;
        }
    }
}

/// Reads `data` as records of a client whose keys are right: of each its type, its length (`u16`, big-endian) and its
/// content, padding included.
pub(crate) fn session(data: &[u8]) {
    let Some((mut keys, mut session)) = established() else { return };
    let (mut incoming, mut replies, mut plain, mut rest) = (Vec::new(), Vec::new(), Vec::new(), data);
    while let [kind, high, low, after @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(after.len()).min(FRAGMENT_BYTES_MAX);
        let (content, after) = after.split_at(len);
        rest = after;
        let Ok(key) = keys.expand() else { return };
        if keys.seal(&key, ContentType::from(*kind), [content], &mut incoming).is_err() {
            return;
        }
        if session.open(&mut incoming, &mut replies, &mut plain).is_err() {
            break;
        }
        assert!(plain.len() <= data.len());
    }
    let _ = session.seal(data, &mut replies);
    let _ = session.close(&mut replies);
}

fn established() -> Option<(Keys, Session)> {
    let (server, client) = configs()?;
    let mut client = ClientConnection::new(client.clone(), ServerName::try_from("localhost").ok()?).ok()?;
    let mut handshake = Handshake::new(server.clone()).ok()?;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    loop {
        while client.wants_write() {
            client.write_tls(&mut up).ok()?;
        }
        let progress = handshake.advance(&mut up, &mut down).ok()?;
        let mut read = &down[..];
        while !read.is_empty() {
            client.read_tls(&mut read).ok()?;
            client.process_new_packets().ok()?;
        }
        down.clear();
        if progress == Progress::Established {
            let secrets = client.dangerous_extract_secrets().ok()?;
            return Some((Keys::new(secrets.tx).ok()?, handshake.finish().ok()?));
        }
    }
}
