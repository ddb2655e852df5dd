//! Section `[tls]`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Section `[tls]`: one certificate for all doors. Without any of this they speak plain HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM file of the certificate and those that certify it, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Whether to use a certificate made here, in the data directory, which no browser trusts by itself.
    pub self_signed: bool,
    /// Names and addresses that the certificate made here is for, beside `localhost`, the loopback addresses and the
    /// machine's name; at most 32.
    pub names: Vec<String>,
    /// How long browsers are told to use nothing but HTTPS with the host, on every port of it (RFC 6797), seconds, 0 to
    /// 63072000 (two years). Default 0: they are told nothing.
    pub hsts_s: u64,
}

/// A value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tls.{key} is {value}; allowed is {allowed}")]
pub struct TlsConfigError {
    /// The key.
    pub key: &'static str,
    /// What it is set to.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}

/// Longest time that browsers are told, seconds: two years, as lists of such hosts ask for.
const HSTS_S_MAX: u64 = 63_072_000;
/// Most names beside the usual ones.
const NAMES_MAX: usize = 32;

impl TlsConfig {
    /// Whether doors speak TLS.
    pub fn is_on(&self) -> bool {
        self.self_signed || (self.certificate.is_some() && self.key.is_some())
    }

    /// `https` or `http`: what addresses of our doors begin with.
    pub fn scheme(&self) -> &'static str {
        if self.is_on() { "https" } else { "http" }
    }

    /// The PEM file that holds the certificate in use, with `data` the data directory; `None` if TLS is off.
    pub fn certificate_file(&self, data: &Path) -> Option<PathBuf> {
        match &self.certificate {
            Some(certificate) => Some(certificate.clone()),
            None => self.self_signed.then(|| data.join(super::own::FILE)),
        }
    }

    /// Checks that the values go together.
    ///
    /// # Errors
    /// The first [`TlsConfigError`] found.
    pub fn check(&self) -> Result<(), TlsConfigError> {
        let shown = |path: &Option<PathBuf>| format!("{:?}", path.as_deref().unwrap_or("".as_ref()));
        let refused = |key, value, allowed| Err(TlsConfigError { key, value, allowed });
        match (&self.certificate, &self.key) {
            (Some(_), None) => {
                return refused("key", "not set".to_owned(), "a file, if tls.certificate is set");
            }
            (None, Some(_)) => {
                return refused("certificate", "not set".to_owned(), "a file, if tls.key is set");
            }
            (Some(_), Some(_)) if self.self_signed => {
                return refused("self_signed", "true".to_owned(), "false, if tls.certificate is set");
            }
            _ => {}
        }
        for (key, path) in [("certificate", &self.certificate), ("key", &self.key)] {
            if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                return refused(key, shown(path), "the path of a PEM file");
            }
        }
        if self.hsts_s > HSTS_S_MAX {
            return refused("hsts_s", self.hsts_s.to_string(), "0 to 63072000");
        }
        if self.names.len() > NAMES_MAX {
            return refused("names", format!("{} names", self.names.len()), "at most 32 names");
        }
        if let Some(name) = self.names.iter().find(|name| !is_name(name)) {
            return refused("names", format!("{name:?}"), "names of hosts, and addresses");
        }
        Ok(())
    }
}

/// Whether `name` is an address or could be the name of a host.
fn is_name(name: &str) -> bool {
    rustls::pki_types::ServerName::try_from(name).is_ok()
        || name.strip_prefix("*.").is_some_and(|rest| rustls::pki_types::DnsName::try_from(rest).is_ok())
}
