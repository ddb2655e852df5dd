//! TLS of all doors: one certificate, reloaded when its files change, and tickets that every process of a deployment
//! understands.
//!
//! ```text
//! certificate, key ──► Resolver ─┐
//!                                ├──► ServerConfig of each kind of door
//! keys/tickets ─HKDF─► Tickets ──┘
//! ```
//!
//! The configurations of doors never change. What they refer to does, under [`Tls::reload_if_changed`]: new handshakes
//! use the new certificate and the new keys, connections that exist do not notice. A certificate that cannot be used
//! leaves the one in use where it is, and says so once; files that cannot be read are tried again every second.
//!
//! Only TLS 1.3 and, where old players must be served, 1.2 with ephemeral keys and AEAD; key exchange by
//! X25519MLKEM768, X25519 or P-256. The order of cipher suites is ours, that of groups the client's: of those it names,
//! the first that we have.

mod certificate;
mod config;
mod ja4;
mod own;
#[cfg(test)]
mod tests;
mod tickets;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderValue;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio_util::sync::CancellationToken;

pub use certificate::{Certificate, CertificateError, Facts};
pub use config::{TlsConfig, TlsConfigError};
pub(crate) use ja4::HELLO_BYTES_MAX;
pub use ja4::{fuzz, ja4};
pub use own::OwnCertificate;
pub use tickets::{TICKET_LIFETIME_S, Tickets};

use crate::keys::{FileStamp, KeyError, Keys};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is tried to make a new certificate for one that ends.
const RENEW_EVERY: Duration = Duration::from_secs(3_600);
/// How often it is said again that the certificate in use ends soon.
const REMIND_EVERY: Duration = Duration::from_secs(86_400);

/// A kind of door: what is spoken behind the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Pushed streams: TLS 1.3 only, HTTP/1.1, keys may be taken out after the handshake.
    Push,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 and 1.1.
    Http2,
}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate or its key.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The keys of tickets.
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// TLS of one process.
#[derive(Debug)]
pub struct Tls {
    source: Source,
    keys: Keys,
    resolver: Arc<Resolver>,
    push_tickets: Arc<Tickets>,
    http_tickets: Arc<Tickets>,
    push: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
    handshakes: Arc<Handshakes>,
    hsts: Option<HeaderValue>,
    watch: Mutex<Watch>,
}

/// Handshakes of a process, by how they went; they only grow.
#[derive(Debug, Default)]
pub struct Handshakes {
    full: AtomicU64,
    resumed: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    plain: AtomicU64,
}

/// What [`Handshakes`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeCounts {
    /// Made in full.
    pub full: u64,
    /// Made with a ticket.
    pub resumed: u64,
    /// Refused, or given up by the client.
    pub failed: u64,
    /// Not made in time.
    pub timed_out: u64,
    /// Not begun: the client spoke HTTP.
    pub plain: u64,
}

impl Handshakes {
    /// One was made.
    pub fn count_done(&self, resumed: bool) {
        let counter = if resumed { &self.resumed } else { &self.full };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// One was not.
    pub fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// One took too long.
    pub fn count_timed_out(&self) {
        self.timed_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody spoke HTTP instead.
    pub fn count_plain(&self) {
        self.plain.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them.
    pub fn counts(&self) -> HandshakeCounts {
        HandshakeCounts {
            full: self.full.load(Ordering::Relaxed),
            resumed: self.resumed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            timed_out: self.timed_out.load(Ordering::Relaxed),
            plain: self.plain.load(Ordering::Relaxed),
        }
    }
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    Own { file: PathBuf, names: Vec<String> },
}

/// What was seen when it was last looked.
#[derive(Debug)]
struct Watch {
    looked: Option<Instant>,
    /// When it was last tried to make a new certificate for one that ends.
    renewed: Option<Instant>,
    /// When it was last said which certificate is in use.
    said: Instant,
    certificate: Seen<Stamp>,
    tickets: Seen<Option<FileStamp>>,
}

impl Watch {
    /// Whether it is to be said now that `certificate` ends soon.
    fn reminds(&mut self, certificate: &Certificate, now: Instant, civil: SystemTime) -> bool {
        let due = now.saturating_duration_since(self.said) >= REMIND_EVERY && certificate.ends_soon(civil);
        if due {
            self.said = now;
        }
        due
    }
}

/// A state of files, as far as it was seen.
#[derive(Debug)]
struct Seen<S> {
    /// The state that nothing more is to be had from: it was taken over, or read and of no use.
    done: S,
    /// What was complained of since.
    complaint: Option<String>,
}

impl<S> Seen<S> {
    fn new(done: S) -> Self {
        Self { done, complaint: None }
    }

    fn taken(&mut self, state: S) {
        *self = Self::new(state);
    }

    /// Whether `error` is another than the last one.
    fn is_news(&mut self, error: String) -> bool {
        let news = self.complaint.as_ref() != Some(&error);
        self.complaint = Some(error);
        news
    }
}

/// What tells one state of the certificate's files from another.
type Stamp = [Option<FileStamp>; 2];

impl Tls {
    /// Reads or makes what `config` names, `None` if TLS is off. `data` is the data directory.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(config: &TlsConfig, data: &Path) -> Result<Option<Self>, TlsError> {
        let keys = Keys::open(&data.join("keys"))?;
        let source = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => {
                Source::Files { certificate: certificate.clone(), key: key.clone() }
            }
            _ if config.self_signed => {
                Source::Own { file: data.join(own::FILE), names: own::names(&config.names) }
            }
            _ => return Ok(None),
        };
        // Made if they are missing.
        keys.tickets()?;
        // Taken before the file is read: what changes meanwhile is read again.
        let tickets = Seen::new(keys.tickets_stamp());
        let ticket_keys = keys.tickets()?;
        let civil = SystemTime::now();
        let (certificate, stamp) = source.open(civil)?;
        certificate.say(civil);
        let watch = Watch {
            looked: None,
            renewed: None,
            said: Instant::now(),
            certificate: Seen::new(stamp),
            tickets,
        };
        let resolver = Arc::new(Resolver::new(certificate));
        let push_tickets = Arc::new(Tickets::new("push", &ticket_keys));
        let http_tickets = Arc::new(Tickets::new("http", &ticket_keys));
        let server =
            |door, tickets: &Arc<Tickets>| Arc::new(server_config(door, resolver.clone(), tickets.clone()));
        Ok(Some(Self {
            push: server(Door::Push, &push_tickets),
            http1: server(Door::Http1, &http_tickets),
            http2: server(Door::Http2, &http_tickets),
            source,
            keys,
            resolver,
            push_tickets,
            http_tickets,
            handshakes: Arc::default(),
            hsts: (config.hsts_s > 0)
                .then(|| format!("max-age={}", config.hsts_s))
                .and_then(|value| HeaderValue::try_from(value).ok()),
            watch: Mutex::new(watch),
        }))
    }

    /// What a door begins its handshakes with; the same as long as this lives.
    pub fn config(&self, door: Door) -> Arc<ServerConfig> {
        match door {
            Door::Push => &self.push,
            Door::Http1 => &self.http1,
            Door::Http2 => &self.http2,
        }
        .clone()
    }

    /// What answers carry as `Strict-Transport-Security` (RFC 6797), if browsers are to be told.
    pub fn hsts(&self) -> Option<&HeaderValue> {
        self.hsts.as_ref()
    }

    /// Counts the handshakes of this process's doors.
    pub fn handshakes(&self) -> Arc<Handshakes> {
        self.handshakes.clone()
    }

    /// The certificate in use.
    pub fn certificate(&self) -> Arc<Certificate> {
        self.resolver.certificate()
    }

    /// When the certificate in use ends, seconds since 1970; `None` if it does not say so in a way that is understood.
    pub fn certificate_expires_s(&self) -> Option<u64> {
        let ends = self.certificate().facts.as_ref()?.not_after;
        Some(ends.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// Looks once a second at the most whether the certificate or the keys of tickets were changed, and takes over
    /// what can be used; says what cannot, once, and once a day that the certificate in use ends soon. Whether
    /// anything was taken over. Touches the disk: not for a thread that serves listeners.
    pub fn reload_if_changed(&self, now: Instant) -> bool {
        self.reload_if_changed_at(now, SystemTime::now())
    }

    fn reload_if_changed_at(&self, now: Instant, civil: SystemTime) -> bool {
        let mut watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner);
        if watch.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_EVERY) {
            return false;
        }
        watch.looked = Some(now);
        let mut changed = false;

        let stamp = self.source.stamp();
        let outdated = matches!(self.source, Source::Own { .. })
            && own::is_outdated(&self.certificate(), civil)
            && watch.renewed.is_none_or(|renewed| now.saturating_duration_since(renewed) >= RENEW_EVERY);
        if outdated {
            watch.renewed = Some(now);
        }
        if outdated || stamp != watch.certificate.done {
            match self.source.reload(civil) {
                Ok((certificate, stamp)) => {
                    certificate.say(civil);
                    self.resolver.set(certificate);
                    watch.said = now;
                    watch.certificate.taken(stamp);
                    changed = true;
                }
                Err(error) => {
                    // What could not be read may be readable in a second, without a trace in the stamp.
                    if !matches!(error, CertificateError::Io { .. }) {
                        watch.certificate.done = stamp;
                    }
                    if watch.certificate.is_news(error.to_string()) {
                        tracing::error!(%error, "the changed certificate cannot be used; the one before stays in use");
                    }
                }
            }
        }
        let certificate = self.certificate();
        if watch.reminds(&certificate, now, civil) {
            certificate.say(civil);
        }

        let stamp = self.keys.tickets_stamp();
        if stamp != watch.tickets.done {
            match self.keys.tickets() {
                Ok(keys) => {
                    self.push_tickets.set(&keys);
                    self.http_tickets.set(&keys);
                    watch.tickets.taken(stamp);
                    changed = true;
                }
                Err(error) => {
                    if !matches!(error, KeyError::Io { .. }) {
                        watch.tickets.done = stamp;
                    }
                    if watch.tickets.is_news(error.to_string()) {
                        tracing::warn!(%error, "the keys of tickets cannot be read; those before stay in use");
                    }
                }
            }
        }
        changed
    }

    /// [`Tls::reload_if_changed`] every second until `shutdown`.
    pub async fn keep_fresh(self: Arc<Self>, shutdown: CancellationToken) {
        let mut seconds = tokio::time::interval(LOOK_EVERY);
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = seconds.tick() => {}
            }
            let tls = self.clone();
            // Ends only with the runtime.
            let _ = tokio::task::spawn_blocking(move || tls.reload_if_changed(Instant::now())).await;
        }
    }
}

impl Source {
    fn stamp(&self) -> Stamp {
        match self {
            Self::Files { certificate, key } => [FileStamp::of(certificate), FileStamp::of(key)],
            Self::Own { file, .. } => [FileStamp::of(file), None],
        }
    }

    /// The certificate and the state of the files before they were read: if they change meanwhile, it is no more theirs
    /// when it is next looked.
    fn open(&self, now: SystemTime) -> Result<(Certificate, Stamp), CertificateError> {
        match self {
            Self::Files { certificate, key } => {
                let stamp = self.stamp();
                Ok((Certificate::load(certificate, key)?, stamp))
            }
            Self::Own { file, names } => own::load_or_make(file, names, now, |found| found.covers(names))
                .map(|(certificate, stamp)| (certificate, [stamp, None])),
        }
    }

    fn reload(&self, now: SystemTime) -> Result<(Certificate, Stamp), CertificateError> {
        match self {
            Self::Files { .. } => self.open(now),
            // Whoever replaced it may have had other names in mind: there is no use in quarrelling.
            Self::Own { file, names } => own::load_or_make(file, names, now, |_| true)
                .map(|(certificate, stamp)| (certificate, [stamp, None])),
        }
    }
}

/// Our choice of what `aws-lc-rs` can do.
pub fn provider() -> CryptoProvider {
    use aws_lc_rs::cipher_suite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    };
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

/// What a door of this kind begins its handshakes with.
///
/// # Panics
/// Never: the protocol versions are those of [`provider`].
pub fn server_config(
    door: Door,
    certificate: Arc<dyn ResolvesServerCert>,
    tickets: Arc<dyn ProducesTickets>,
) -> ServerConfig {
    let (versions, protocols): (&[&SupportedProtocolVersion], &[&[u8]]) = match door {
        Door::Push => (&[&TLS13], &[b"http/1.1"]),
        Door::Http1 => (&[&TLS13, &TLS12], &[b"http/1.1"]),
        Door::Http2 => (&[&TLS13, &TLS12], &[b"h2", b"http/1.1"]),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)
        .expect("our provider has suites and groups for both versions")
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.ignore_client_order = true;
    // Tickets are all that is kept of a session, and clients keep them.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    // A player opens one connection here and one more after a break; a browser opens some at once elsewhere.
    config.send_tls13_tickets = if door == Door::Push { 1 } else { 2 };
    config.enable_secret_extraction = door == Door::Push;
    config
}

/// Answers every handshake with the certificate in use.
#[derive(Debug)]
pub struct Resolver {
    certificate: RwLock<Arc<Certificate>>,
}

impl Resolver {
    /// Begins with `certificate`.
    pub fn new(certificate: Certificate) -> Self {
        Self { certificate: RwLock::new(Arc::new(certificate)) }
    }

    /// The one in use.
    pub fn certificate(&self) -> Arc<Certificate> {
        self.certificate.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, certificate: Certificate) {
        *self.certificate.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certificate);
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // Whatever name is asked for: a client that is not content with ours says so better than an alert could.
        Some(self.certificate().key.clone())
    }
}

/// Reads a file that an operator named, but not without end.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    const BYTES_MAX: u64 = 1 << 20;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
