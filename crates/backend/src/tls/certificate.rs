//! A certificate with its key, as operators keep them: PEM files.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A warning is written this long before a certificate's end, and every day from then.
const SOON: Duration = Duration::from_secs(14 * 86_400);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read, or not be written where it is made here.
    #[error("cannot read or make {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate in it.
    #[error("{path} holds no certificate in PEM", path = path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// There is no private key in it.
    #[error("{path} holds no private key in PEM", path = path.display())]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// They do not belong together, or are of a kind that is not understood.
    #[error("the certificate {certificate} cannot be used with the key {key}: {source}",
            certificate = certificate.display(), key = key.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// None could be made here.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
}

/// A certificate that can be used.
#[derive(Debug)]
pub struct Certificate {
    /// With its key, as handshakes need it.
    pub key: Arc<CertifiedKey>,
    /// What it says, if that is understood.
    pub facts: Option<Facts>,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The names and addresses it is for, as text, in its order.
    pub names: Vec<String>,
    /// Good from then.
    pub not_before: SystemTime,
    /// Good until then.
    pub not_after: SystemTime,
    /// Whether its subject is its issuer: nobody else vouches for it.
    pub self_issued: bool,
}

impl Certificate {
    /// Reads both files. The key may be in the same file as the certificate.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let chain = Self::load_chain(certificate)?;
        let private = super::read_bounded(key)
            .map_err(|source| CertificateError::Io { path: key.to_owned(), source })?;
        let private = PrivateKeyDer::from_pem_slice(&private)
            .map_err(|_| CertificateError::NoKey { path: key.to_owned() })?;
        Self::new(chain, private).map_err(|source| CertificateError::Unusable {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })
    }

    /// Reads the certificates alone, at least one, in their order.
    ///
    /// # Errors
    /// [`CertificateError::Io`], [`CertificateError::NoCertificate`].
    pub fn load_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        let bytes = super::read_bounded(path)
            .map_err(|source| CertificateError::Io { path: path.to_owned(), source })?;
        match CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() {
            Ok(chain) if !chain.is_empty() => Ok(chain),
            _ => Err(CertificateError::NoCertificate { path: path.to_owned() }),
        }
    }

    /// From what is in such files.
    ///
    /// # Errors
    /// If the key is not the certificate's, or not of a kind that is understood.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, rustls::Error> {
        let facts = chain.first().and_then(|certificate| Facts::of(certificate));
        let key = CertifiedKey::from_der(chain, key, &super::provider())?;
        Ok(Self { key: Arc::new(key), facts })
    }

    /// Whether it is known to be for all of `names`.
    pub fn covers(&self, names: &[String]) -> bool {
        self.facts.as_ref().is_some_and(|facts| names.iter().all(|name| facts.covers(name)))
    }

    /// Whether it is known to end soon, or to have ended.
    pub(super) fn ends_soon(&self, now: SystemTime) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.not_after <= now + SOON)
    }

    /// Writes to the log what it is, and whether that is a reason to worry.
    pub(super) fn say(&self, now: SystemTime) {
        let Some(facts) = &self.facts else {
            tracing::warn!("a certificate is in use that cannot be read in full");
            return;
        };
        let names = facts.names.join(", ");
        match facts.not_after.duration_since(now) {
            Ok(left) if left > SOON => {
                tracing::info!(names, days_left = days(left), "a certificate is in use")
            }
            Ok(left) => tracing::warn!(names, days_left = days(left), "the certificate in use ends soon"),
            Err(_) => tracing::error!(names, "the certificate in use has expired"),
        }
    }
}

fn days(time: Duration) -> u64 {
    time.as_secs() / 86_400
}

impl Facts {
    /// Reads them; `None` if they are not understood, which does not mean that nobody understands them.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
        let content = certificate.tbs_certificate();
        let time = |time: x509_cert::time::Time| SystemTime::UNIX_EPOCH + time.to_unix_duration();
        let names = content.get_extension::<SubjectAltName>().ok().flatten();
        let names = names.map_or_else(Vec::new, |(_, names)| names.0.iter().filter_map(text_of).collect());
        Some(Self {
            names,
            not_before: time(content.validity().not_before),
            not_after: time(content.validity().not_after),
            self_issued: content.subject() == content.issuer(),
        })
    }

    /// Whether it is for `host`, a name or an address without a port. `*` stands for one label (RFC 6125,
    /// section 6.4.3).
    pub fn covers(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<IpAddr>().ok();
        let written = address.map(|address| address.to_string());
        let host = written.as_deref().unwrap_or(host);
        let wild = host.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.names.iter().any(|name| {
            name.eq_ignore_ascii_case(host)
                || wild.as_ref().is_some_and(|wild| name.eq_ignore_ascii_case(wild)) && address.is_none()
        })
    }
}

fn text_of(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}
