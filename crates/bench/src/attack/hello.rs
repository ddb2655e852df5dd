//! Handshakes that are begun and abandoned. The ClientHello is a real one, made by `rustls`, so that the server does all
//! that a hello costs it: a key exchange and a signature.

use std::sync::Arc;

use anyhow::{Result, ensure};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use super::swarm::{Happened, Next, Scene, Script};

/// Hellos that are made beforehand, and used in turn: making one costs as much as answering it.
pub(crate) const HELLOS: usize = 32;

/// Takes any certificate and any signature: an attacker does not care, and what is attacked is on this machine.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client of TLS that believes anybody and speaks this.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn client(alpn: &[u8]) -> Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}

/// ClientHellos, in their records, ready to be sent.
///
/// # Errors
/// If none can be made.
pub(crate) fn hellos(count: usize) -> Result<Vec<Vec<u8>>> {
    let config = client(b"http/1.1")?;
    (0..count)
        .map(|_| {
            let mut connection =
                ClientConnection::new(Arc::clone(&config), ServerName::try_from("localhost")?)?;
            let mut hello = Vec::new();
            while connection.wants_write() {
                connection.write_tls(&mut hello)?;
            }
            ensure!(is_hello(&hello), "rustls made no hello");
            Ok(hello)
        })
        .collect()
}

/// Whether bytes begin with a record that holds a ClientHello (RFC 8446 sections 4.1.2 and 5.1).
pub(crate) fn is_hello(bytes: &[u8]) -> bool {
    matches!(bytes, [22, 3, _, _, _, 1, ..])
}

/// Sends a hello and leaves once it was answered: the server has had all its work by then.
pub(crate) struct Abandon {
    pub(crate) hello: Vec<u8>,
    pub(crate) door: usize,
    /// How long an answer is waited for, ms.
    pub(crate) patience_ms: u64,
}

impl Script for Abandon {
    fn first_door(&self) -> usize {
        self.door
    }

    fn act(&mut self, happened: Happened<'_>, scene: &mut Scene<'_>) -> Next {
        match happened {
            Happened::Open => {
                scene.notes.count("hellos");
                scene.out.extend_from_slice(&self.hello);
                Next::until(scene.now_ms + self.patience_ms)
            }
            // A handshake record, or an alert.
            Happened::Received([22, ..]) => {
                scene.notes.count("answered");
                Next::Done
            }
            Happened::Received(_) => {
                scene.notes.count("alerted");
                Next::Done
            }
            Happened::Due => {
                scene.notes.count("left waiting");
                Next::Done
            }
            Happened::Closed => {
                scene.notes.count("closed");
                Next::Done
            }
            Happened::Refused => Next::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn hellos_are_real_and_differ() {
        let hellos = hellos(2).unwrap();
        assert!(hellos.iter().all(|hello| is_hello(hello)));
        assert_ne!(hellos[0], hellos[1]);
        // A server takes them for what they are, and does its work.
        let server = crate::tls::server_config().unwrap();
        let mut connection = rustls::ServerConnection::new(server).unwrap();
        connection.read_tls(&mut hellos[0].as_slice()).unwrap();
        connection.process_new_packets().unwrap();
        let mut answer = Vec::new();
        connection.write_tls(&mut answer).unwrap();
        assert_eq!(answer[0], 22);
        assert!(connection.is_handshaking());
        assert!(connection.reader().read(&mut [0; 1]).is_err());
    }

    #[test]
    fn other_bytes_are_no_hello() {
        for other in [&b""[..], b"GET / HTTP/1.1", &[22, 3, 3, 0, 1, 2], &[22, 3, 3, 0]] {
            assert!(!is_hello(other));
        }
    }
}
