//! The role that keeps events: the API, the store, the pages for listeners, tickets, status and metrics.
//!
//! Control is the only writer of the store. It tells origin and the edges what there is (topic `events`, in full,
//! every second), hears from them how it goes (`status`, `heartbeat`), and sends callers to the right door. It never
//! proxies audio, and a running show needs nothing from it: origin and the edges have frozen what they need.

// A shell reads clocks: that is its work (see clippy.toml).
#![allow(clippy::disallowed_methods)]

mod ahead;
mod api;
mod auth;
mod calendar;
mod challenges;
mod config;
mod doors;
mod evidence;
mod fields;
mod incidents;
mod ladder;
mod measure;
mod observed;
mod pages;
mod plain;
mod publicity;
mod reports;
mod rooms;
mod router;
#[cfg(test)]
mod router_tests;
mod slug;
mod state;
mod steering;
#[cfg(test)]
mod testing;
mod verdicts;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use backend::bus::UnixBus;
use backend::http::proxy::Proxies;
use backend::http::{Limits, TlsDoor};
use backend::keys::Keys;
use backend::objects::DirectoryObjects;
use backend::store::SqliteStore;
use backend::tls::Tls;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use auth::OperatorToken;
use state::{Control, Parts};

pub use config::{ChallengeMode, ControlConfig, InvalidValue};

/// Where control runs.
#[derive(Debug)]
pub struct Place {
    /// The data directory.
    pub data: PathBuf,
    /// Its door, bound (see `backend::http::bind`).
    pub listener: TcpListener,
    /// The other doors, if they are known beforehand; otherwise they are read from `run/addresses.json` of the data
    /// directory, as soon as it is there and whenever it changes.
    pub doors: Option<Doors>,
    /// The certificate of all doors; without it they speak plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

/// Where the doors that control sends callers to are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    /// The pushed streams.
    pub push: SocketAddr,
    /// The stage, at origin.
    pub stage: SocketAddr,
    /// Playlists, parts and recordings.
    pub files: SocketAddr,
}

/// Runs control until `shutdown`: opens the store, joins the bus as `control`, serves its door.
///
/// # Errors
/// If the data directory, the store, a key or the bus cannot be had. Once it serves, nothing ends it but `shutdown`.
pub async fn run(config: ControlConfig, place: Place, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.check()?;
    let Place { data, listener, doors, tls } = place;
    let mut limits = Limits {
        connections_max: config.connections_max,
        body_bytes_max: programme::slate::MAX_SLATE_BYTES + 1,
        proxies: Proxies::new(&config.proxies, config.proxy_protocol),
        ..Limits::default()
    };
    let local = listener.local_addr().context("the listening socket has no address")?;
    listener.set_nonblocking(true).context("the listening socket cannot be used")?;
    let listener =
        tokio::net::TcpListener::from_std(listener).context("the listening socket cannot be used")?;

    let run = data.join("run");
    std::fs::create_dir_all(&run).with_context(|| format!("cannot make {}", run.display()))?;
    let database = data.join("minassa.db");
    let store =
        SqliteStore::open(&database).await.with_context(|| format!("cannot open {}", database.display()))?;
    let token = run.join("operator-token");
    let operator = OperatorToken::load_or_make(&token)
        .with_context(|| format!("cannot read or make {}", token.display()))?;
    let control = Control::begin(Parts {
        config,
        local,
        scheme: if tls.is_some() { "https" } else { "http" },
        tls: tls.clone(),
        doors,
        addresses: run.join("addresses.json"),
        store: Arc::new(store),
        objects: Arc::new(DirectoryObjects::new(&data.join("objects"))),
        rooms: data.join("control/rooms"),
        ledgers: data.join("ledger"),
        keys: Keys::open(&data.join("keys"))?,
        operator,
        hears_since: std::time::Instant::now(),
    })
    .await?;
    limits.counts = control.counters.door.clone();
    let bus_directory = run.join("bus");
    let bus = UnixBus::bind(&bus_directory, "control")
        .with_context(|| format!("cannot join the bus in {}", bus_directory.display()))?;

    // Dropped at the end, and with it what it runs.
    let mut reporting = JoinSet::new();
    reporting.spawn(reports::run(control.clone(), Arc::new(bus)));
    if let Some(tls) = &tls {
        tokio::spawn(tls.clone().keep_fresh(shutdown.clone()));
    }
    let tls = tls.map(|tls| TlsDoor::new(&tls, backend::tls::Door::Http2));
    let serving = backend::http::serve(listener, router::router(control), limits, tls, shutdown.clone());
    tracing::info!(%local, "control serves");
    tokio::select! {
        () = serving => Ok(()),
        ended = reporting.join_next() => Err(match ended {
            Some(Err(error)) => anyhow::Error::new(error).context("control's work on the bus failed"),
            _ => anyhow::anyhow!("control's work on the bus ended"),
        }),
    }
}
