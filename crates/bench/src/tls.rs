//! The server's side of TLS for the floor: `rustls` shakes hands, and records are sealed with the keys it leaves.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rehearse::record::Sealer;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, cipher_suite, default_provider, kx_group};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};

/// Most bytes of a handshake and request that wait for their rest.
const INCOMING_MAX: usize = 32 * 1024;

/// With a certificate that nobody is to trust, TLS 1.3 and one ticket a connection.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn server_config() -> Result<Arc<ServerConfig>> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut provider = default_provider();
    provider.cipher_suites =
        vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    // Clients choose among them, and crowds choose the first.
    provider.kx_groups =
        vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.enable_secret_extraction = true;
    config.ticketer = Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// A handshake, and the request after it.
pub(crate) struct Shaking {
    connection: UnbufferedServerConnection,
    incoming: Vec<u8>,
    request: Vec<u8>,
}

impl Shaking {
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Result<Self> {
        let connection = UnbufferedServerConnection::new(Arc::clone(config))?;
        Ok(Self { connection, incoming: Vec::new(), request: Vec::new() })
    }

    /// Takes bytes and appends to `out` what is to be sent; whether a whole request is there.
    pub(crate) fn advance(&mut self, received: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        self.incoming.extend_from_slice(received);
        if self.incoming.len() + self.request.len() > INCOMING_MAX {
            bail!("a handshake that is too long");
        }
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                self.connection.process_tls_records(&mut self.incoming);
            let mut blocked = false;
            match state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    let start = out.len();
                    let mut room = 4_096;
                    loop {
                        out.resize(start + room, 0);
                        match data.encode(&mut out[start..]) {
                            Ok(written) => break out.truncate(start + written),
                            Err(EncodeError::InsufficientSize(error)) => room = error.required_size,
                            Err(error) => bail!("{error}"),
                        }
                    }
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        self.request.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => blocked = true,
                _ => bail!("it was closed"),
            }
            self.incoming.drain(..discard);
            if blocked {
                return Ok(!self.connection.is_handshaking() && is_request(&self.request));
            }
        }
    }

    /// After [`Self::advance`] said that a request is there.
    pub(crate) fn finish(self) -> Result<Sealer> {
        let (secrets, _) =
            self.connection.dangerous_into_kernel_connection().context("the handshake is not finished")?;
        Ok(Sealer::new(secrets.tx.0, &secrets.tx.1)?)
    }
}

/// Whether the head of a request is all there.
pub(crate) fn is_request(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|four| four == b"\r\n\r\n")
}
