//! A certificate made here, for trying things out.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::{Certificate, CertificateError};
use crate::freeze;
use crate::keys::FileStamp;

/// Key and certificate, in one file so that they never differ.
pub(super) const FILE: &str = "keys/tls.pem";

const DAY: Duration = Duration::from_secs(86_400);
/// How long it is good: what browsers take at the most.
const GOOD_FOR: Duration = Duration::from_secs(397 * 86_400);
/// It is made anew this long before its end.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// A certificate that certifies itself, and its key (ECDSA, P-256).
#[derive(Debug)]
pub struct OwnCertificate {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    pem: String,
}

impl OwnCertificate {
    /// Makes one for `names`, good from a day before `now` for some thirteen months.
    ///
    /// # Errors
    /// If a name is none.
    pub fn make(names: &[String], now: SystemTime) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.not_before = (now - DAY).into();
        params.not_after = (now - DAY + GOOD_FOR).into();
        params.distinguished_name.push(DnType::CommonName, "Minassa, made by this server itself");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let made = params.self_signed(&key)?;
        let pem = format!("{}{}", key.serialize_pem(), made.pem());
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|_| rcgen::Error::KeyGenerationUnavailable)?;
        Ok(Self { certificate: made.der().clone(), key, pem })
    }

    /// Key and certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

/// The names that it is for: the usual ones, and `more`.
pub(super) fn names(more: &[String]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for name in more.iter().cloned().chain([machine]) {
        let is_name = rustls::pki_types::ServerName::try_from(name.trim_start_matches("*.")).is_ok();
        // As it will be read back from the certificate, or it would be missed there at every start.
        let name = name.parse::<IpAddr>().map_or(name, |address| address.to_string());
        if is_name && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether a new one is due.
pub(super) fn is_outdated(certificate: &Certificate, now: SystemTime) -> bool {
    certificate.facts.as_ref().is_none_or(|facts| facts.not_after < now + RENEW_BEFORE)
}

/// The one in `file` if it is not outdated and `will_do`, otherwise a new one for `names`, which is then in `file`; and
/// the state of the file before it was read. A file that is there but cannot be read is left alone.
pub(super) fn load_or_make(
    file: &Path,
    names: &[String],
    now: SystemTime,
    will_do: impl Fn(&Certificate) -> bool,
) -> Result<(Certificate, Option<FileStamp>), CertificateError> {
    let load = || {
        let stamp = FileStamp::of(file);
        Certificate::load(file, file).map(|certificate| (certificate, stamp))
    };
    let find = || match load() {
        Ok(found) => Ok(Some(found).filter(|(found, _)| !is_outdated(found, now) && will_do(found))),
        Err(CertificateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error @ CertificateError::Io { .. }) => Err(error),
        Err(_) => Ok(None),
    };
    if let Some(found) = find()? {
        return Ok(found);
    }
    let made = OwnCertificate::make(names, now)?;
    let io = |source| CertificateError::Io { path: file.to_owned(), source };
    // Of several processes that begin at once one makes it; of several that replace it, the last.
    if !freeze::write_new(file, made.pem().as_bytes(), true).map_err(io)? {
        if let Some(found) = find()? {
            return Ok(found);
        }
        freeze::write_bytes(file, made.pem().as_bytes(), true).map_err(io)?;
    }
    load()
}
