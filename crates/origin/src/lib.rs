//! The role that speakers meet: WebRTC and Icecast in, one programme out, recorded and published.
//!
//! ```text
//!  stage door (tokio)            media thread                         recorder thread
//!  page, WHIP, Icecast, API ──►  UDP socket, sessions                 anchor, log, parts: fdatasync
//!            ▲        orders     a show and a programme an event ──►  bounded queue
//!            └── views ────────  20 ms frames on the machine's clock
//!                                   │ parts, status
//!  events of control ──► keeper     ▼
//!  (frozen to the disk)  ▲         bus ──► edges, control
//!                        └ windows of the edges, at the start
//! ```
//!
//! Origin needs nobody: with control and every edge dead it goes on, and an event frozen to its disk begins, goes
//! live and ends by the stage door alone. It decides little itself: the show is `stage`, the sound `programme`, the
//! bytes `packager`, the files `archive`. It serves no listener.
//!
//! It keeps the ledgers (`evidence`): what every process counted, signed, its head in every segment's signature.
//!
//! Killed at any moment, it finds its way back from the disk and the edges' windows (`recovery`).

// A shell reads clocks: that is its work (see clippy.toml).
#![allow(clippy::disallowed_methods)]

mod config;
mod counters;
mod directory;
mod events;
mod evidence;
mod files;
mod http;
mod media;
mod mix;
mod recorder;
mod recovery;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use backend::bus::{Bus, UnixBus};
use backend::child::Pulses;
use backend::http::TlsDoor;
use backend::http::proxy::Proxies;
use backend::keys::Keys;
use backend::objects::DirectoryObjects;
use backend::tls::Tls;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;
use crate::events::Keeper;
use crate::evidence::Evidence;
use crate::files::EventFiles;
use crate::http::{Door, OperatorToken};
use crate::media::{MediaParts, MediaThread};
use crate::recorder::RecorderThread;
use crate::recovery::Recovery;

pub use config::{ConfigError, OriginConfig};

/// Entry points for fuzzing: each takes any bytes and must return.
#[doc(hidden)]
pub mod fuzz {
    /// Reads `data` as an Icecast source's request and its body.
    pub fn ingest(data: &[u8]) {
        crate::http::fuzz(data);
    }

    /// Reads `data` as a datagram at the media port.
    pub fn datagram(data: &[u8]) {
        crate::media::fuzz_datagram(data);
    }

    /// Reads `data` as an offer, and as a fragment of one that trickles in.
    pub fn offer(data: &[u8]) {
        crate::media::fuzz_offer(data);
    }
}

/// Room for datagrams that arrive while a turn is being done; the system may grant less.
const MEDIA_BUFFER: usize = 4 << 20;
/// At a shutdown: longest time for the recorder to write what it was told.
const RECORDER_PATIENCE: Duration = Duration::from_millis(1_200);

/// Where origin runs.
#[derive(Debug)]
pub struct Place {
    /// The data directory.
    pub data: PathBuf,
    /// The stage door, bound (see `backend::http::bind`).
    pub listener: TcpListener,
    /// The media port, bound (see [`bind_media`]).
    pub media: UdpSocket,
    /// The certificate of the stage door; without it it speaks plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Where its threads report that they live, if anybody watches.
    pub pulses: Option<Pulses>,
}

/// Binds the media port.
///
/// # Errors
/// Whatever the system says, such as `AddrInUse`.
pub fn bind_media(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Whatever the system grants is right.
    let _ = socket.set_recv_buffer_size(MEDIA_BUFFER);
    let _ = socket.set_send_buffer_size(MEDIA_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Runs origin until `shutdown`: recovers what was running, joins the bus as `origin`, serves the stage door. After
/// the shutdown it completes the part in progress, closes the sessions and flushes the recording, within 3 s.
///
/// # Errors
/// If the configuration is out of range, or the data directory, the bus or a thread cannot be had, or the media
/// thread ends by itself, which is a bug. A full or read-only disk is no error: the show goes on, with an alarm.
pub async fn run(config: OriginConfig, place: Place, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.check()?;
    let slates = recovery::warm_up();
    let Place { data, listener, media: socket, tls, pulses } = place;
    let candidates =
        candidates(&socket, &config).context("the media port has no address to name to speakers")?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let bus = UnixBus::bind(&data.join("run/bus"), "origin").context("cannot join the bus")?;
    let files = EventFiles::open(&data).context("cannot open the directory of events")?;
    let directories: Vec<PathBuf> =
        std::iter::once(data.clone()).chain(config.recording_fallbacks.iter().cloned()).collect();
    let recorder = RecorderThread::start(directories.clone(), files.clone(), config.recorder_queue)
        .context("cannot start the recorder")?;
    let directory = Arc::new(Directory::default());
    let media = MediaThread::start(MediaParts {
        socket,
        candidates: candidates.clone().into(),
        sessions_max: config.sessions_max,
        programmes_max: config.programmes_max,
        mixes: config.keep_mix.then(|| data.clone()),
        bus: Arc::new(bus.clone()) as Arc<dyn Bus>,
        directory: directory.clone(),
        recorder: recorder.queue(),
        pulses,
    })
    .context("cannot start the media thread")?;
    let keys = Keys::open(&data.join("keys"))?;
    let evidence = {
        let (bus, directory, orders, data) =
            (bus.clone(), directory.clone(), media.orders.clone(), data.clone());
        move || Evidence::new(Arc::new(bus.clone()), directory.clone(), orders.clone(), keys.clone(), &data)
    };
    let mut door = Door::new(
        directory,
        media.orders.clone(),
        media.health.clone(),
        candidates,
        OperatorToken::new(data.join("run/operator-token")),
        config.sessions_max,
        shutdown.clone(),
    );
    door.tls = tls.clone();
    door.proxies = Proxies::new(&config.proxies, config.proxy_protocol);
    let door = Arc::new(door);
    if let Some(tls) = &tls {
        tokio::spawn(tls.clone().keep_fresh(shutdown.clone()));
    }
    let tls = tls.map(|tls| TlsDoor::new(&tls, backend::tls::Door::Http1));
    let serving = tokio::spawn(http::serve(listener, door.clone(), config.connections_max, tls));

    let recovery = Arc::new(Recovery { files, keys: Keys::open(&data.join("keys"))?, directories });
    let objects = DirectoryObjects::new(&data.join("objects"));
    let mut keeper = Keeper::new(recovery, bus.clone(), objects, media.orders.clone());
    keeper.recover(config.refill()).await?;
    // The first event would wait for them, and with it whoever has its links.
    slates.await;
    door.ready.store(true, Ordering::Relaxed);
    tracing::info!("origin is ready");
    let following = tokio::spawn(keeper.follow());
    let witnessing = tokio::spawn(witness(evidence));

    let watch = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = watch(&media) => Err(anyhow::anyhow!("the media thread has ended")),
    };
    door.ready.store(false, Ordering::Relaxed);
    following.abort();
    witnessing.abort();
    shutdown.cancel();
    let stopped = spawn_blocking(move || {
        media.stop();
        recorder.stop(RECORDER_PATIENCE)
    });
    let (flushed, served) = tokio::join!(stopped, serving);
    if !flushed? {
        tracing::error!("the disk did not take everything in time; the next start makes up for it");
    }
    served?;
    tracing::info!("origin has stopped");
    watch
}

/// Ends when the media thread does.
async fn watch(media: &MediaThread) {
    let mut look = tokio::time::interval(Duration::from_millis(250));
    while media.is_running() {
        look.tick().await;
    }
}

/// The addresses that speakers are told: those configured, or else the socket's own, or else this machine's.
fn candidates(socket: &UdpSocket, config: &OriginConfig) -> std::io::Result<Vec<SocketAddr>> {
    if !config.media_public.is_empty() {
        return Ok(config.media_public.clone());
    }
    let bound = socket.local_addr()?;
    if !bound.ip().is_unspecified() {
        return Ok(vec![bound]);
    }
    // Connecting a datagram socket sends nothing; it only finds which of our addresses the way out leaves from.
    // The far ends are of the ranges for documentation (RFC 5737, RFC 3849).
    let toward = |own: SocketAddr, far: SocketAddr| {
        let probe = UdpSocket::bind(own).ok()?;
        probe.connect(far).ok()?;
        Some(probe.local_addr().ok()?.ip())
    };
    let v4 = toward((Ipv4Addr::UNSPECIFIED, 0).into(), ([192, 0, 2, 1], 9).into());
    let v6 = if bound.is_ipv6() {
        toward((Ipv6Addr::UNSPECIFIED, 0).into(), "[2001:db8::1]:9".parse().expect("it is an address"))
    } else {
        None
    };
    let loopback = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut found: Vec<SocketAddr> = Vec::new();
    for ip in [v4, v6, loopback].into_iter().flatten() {
        let address = SocketAddr::new(ip, bound.port());
        if !ip.is_unspecified() && !found.contains(&address) {
            found.push(address);
        }
    }
    Ok(found)
}
/// Keeps ledgers, and begins anew should that ever fail: it costs lines, not the night.
async fn witness(begin: impl Fn() -> Evidence) {
    loop {
        let mut kept = JoinSet::new();
        kept.spawn(begin().run());
        if let Some(Err(error)) = kept.join_next().await {
            tracing::error!(%error, "the keeper of ledgers failed, and begins anew");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
