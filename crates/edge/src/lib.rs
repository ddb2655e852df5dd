//! The role that listeners meet: the push door and the files door around the fan-out.
//!
//! An edge takes the parts of every running event from origin's bus into a window (`fanout`), and serves them through
//! two doors: *push*, one long response a listener, and *files*, everything that caches understand, from the same
//! window or from the recording on the disk. Several edges share both ports (`SO_REUSEPORT`); each has a bus socket
//! of its own, on which it reports, and gives origin back what origin lost.
//!
//! ```text
//!                 ┌─────────────── edge ────────────────┐
//!  origin ──bus──►│ feed ──► window ──► cursor ──► push │──► listener
//!  control ─bus──►│   │        └──────────────► files   │──► player, cache
//!                 │   ▼                           ▲     │
//!                 └ frozen events          recordings ──┘
//! ```
//!
//! It needs neither control nor origin to go on: it begins with the events frozen to its disk, keeps serving what it
//! has, and asks again. It decides nothing about a show, keeps no list of who listens, and writes nothing but those
//! frozen events.
//!
//! The push door is one thread with a loop of its own (`push`); everything else runs on the runtime beside it. What is
//! decided, is decided in `fanout` and in the plain functions of `address`, `ranges` and `channel`.

// A shell reads clocks: that is its work (see clippy.toml).
#![allow(clippy::disallowed_methods)]

mod address;
mod answer;
mod bell;
mod channel;
mod config;
mod feed;
mod files;
mod metrics;
mod notice;
mod push;
mod ranges;
mod recordings;
pub mod seal;
mod shared;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use backend::bus::{Bus, UnixBus};
use backend::child::Pulse;
use backend::freeze::FrozenEvents;
use backend::http::{Limits, TlsDoor, serve};
use backend::keys::Keys;
use backend::machine::Memory;
use backend::tls::{Door, Tls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

pub use config::{ConfigError, EdgeConfig};

use feed::Feed;
use push::Push;
use recordings::Recordings;
use shared::{Parts, Shared};

/// Connections of the push door beyond its listeners, so that there is someone to tell newcomers that it is full.
const DOORSTEP: usize = 128;
/// Longest time connections get to finish what is being written, beyond the time over which listeners are let go.
const DRAIN: Duration = Duration::from_millis(400);

/// How much less urgent the files door's threads are, as `nice` counts: when both want the processor they get a tenth of
/// it (sched(7)).
const FILES_NICENESS: i32 = 10;

/// Where an edge runs.
#[derive(Debug)]
pub struct Place {
    /// The data directory.
    pub data: PathBuf,
    /// Further data directories that recordings may lie in, as origin is configured.
    pub more_recordings: Vec<PathBuf>,
    /// Which edge of the machine, counted from 0; its name on the bus is `edge-{index}`.
    pub index: u32,
    /// The push door, bound (see [`bind`]).
    pub push: TcpListener,
    /// The files door, bound.
    pub files: TcpListener,
    /// The certificate of both doors; without it they speak plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Beaten once a second, if there is somebody to hear it.
    pub pulse: Option<Pulse>,
}

/// Binds a door so that other edges may share it. Port 0 picks a free one.
///
/// # Errors
/// Whatever the system says, such as `AddrInUse`.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    backend::http::bind(address, true)
}

/// Runs an edge until `shutdown`: joins the bus as `edge-{index}`, serves both doors. At shutdown it accepts nobody
/// any more, lets every listener go with a complete response within [`EdgeConfig::leave_ms`], and returns within
/// three seconds.
///
/// # Errors
/// If the configuration, the data directory, a key, the bus or a door cannot be used. Once it serves, nothing ends it
/// but `shutdown`.
pub async fn run(config: EdgeConfig, place: Place, shutdown: CancellationToken) -> anyhow::Result<()> {
    config.check()?;
    let budget = FileBudget::of(&config, raise_file_limit());
    if budget.listeners < config.listeners_max {
        tracing::warn!(
            allowed = budget.listeners,
            configured = config.listeners_max,
            "the limit of open files allows fewer listeners than configured"
        );
    }
    let keys = Keys::open(&place.data.join("keys"))?;
    let frozen =
        FrozenEvents::open(&place.data.join("edge/events")).context("cannot open the frozen events")?;
    let name = format!("edge-{}", place.index);
    let bus = UnixBus::bind(&place.data.join("run/bus"), &name).context("cannot join the bus")?;
    let push = place.push.local_addr().context("cannot use the push door")?;
    let files_address = place.files.local_addr().context("cannot use the files door")?;
    let scheme = if place.tls.is_some() { "https" } else { "http" };
    if let Some(tls) = &place.tls {
        tokio::spawn(tls.clone().keep_fresh(shutdown.clone()));
    }
    let directories = std::iter::once(place.data).chain(place.more_recordings).collect();
    let (poll, bell) = push::poll().context("cannot watch the push door")?;

    let shared = Arc::new(Shared::new(Parts {
        index: place.index,
        listeners_max: budget.listeners as u64,
        files_address,
        scheme,
        bus: Arc::new(bus) as Arc<dyn Bus>,
        bell: Arc::clone(&bell),
        recordings: Recordings::new(directories, config.disk_reads),
        closing: shutdown.clone(),
        keys,
        config,
    }));
    // Before anybody is let in; from then on once a second.
    shared.weigh_memory(Memory::now());
    let door = Push::new(push::Parts {
        poll,
        bell: Arc::clone(&bell),
        door: place.push,
        connections_max: budget.push_connections,
        shared: Arc::clone(&shared),
        runtime: tokio::runtime::Handle::current(),
        tls: place.tls.clone(),
    })
    .context("cannot use the push door")?;
    let (over, is_over) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("push".to_owned())
        .spawn(move || {
            door.run();
            // Whoever waits may have given up.
            let _ = over.send(());
        })
        .context("cannot start the push door's thread")?;
    tracing::info!(%push, files = %files_address, listeners_max = budget.listeners, "serving");
    let feed = tokio::spawn(Feed::new(Arc::clone(&shared), frozen, place.pulse).run());
    let closing = shutdown.clone();
    let pushing = async {
        let mut is_over = is_over;
        tokio::select! {
            // A door that nobody is at ends at once when it is to.
            biased;
            () = closing.cancelled() => {}
            // A panic, or an epoll that fails: the supervisor makes a new edge at once.
            _ = &mut is_over => anyhow::bail!("the push door has ended"),
        }
        bell.ring();
        let _ = tokio::time::timeout(Duration::from_secs(3), is_over).await;
        Ok(())
    };
    let threads =
        FilesThreads::start(shared.config.files_threads).context("cannot start the files door's threads")?;
    let filing = threads.spawn(serve_files(shared, place.files, place.tls, shutdown));
    let filing = async { filing.await.context("the files door has ended")? };
    let ended = tokio::try_join!(pushing, filing);
    feed.abort();
    ended.map(drop)
}

/// The threads of the files door: their own, so that nothing there keeps a part from the window, and less urgent than
/// the push door's.
struct FilesThreads(Option<tokio::runtime::Runtime>);

impl FilesThreads {
    fn start(threads: usize) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("files")
            .on_thread_start(|| {
                // On Linux of the calling thread alone; whoever may not be modest serves as before.
                let _ = rustix::process::setpriority_process(None, FILES_NICENESS);
            })
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.0.as_ref().expect("taken only when dropped").spawn(future)
    }
}

impl Drop for FilesThreads {
    fn drop(&mut self) {
        // What still runs was given its time; waiting for it here would hold up another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve_files(
    shared: Arc<Shared>,
    door: TcpListener,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(door).context("cannot use the files door")?;
    let limits = Limits {
        connections_max: shared.config.files_connections_max,
        body_bytes_max: 0,
        drain: Duration::from_millis(shared.config.leave_ms) + DRAIN,
        ..Limits::default()
    };
    let router = Router::new().fallback(files::handle).with_state(shared);
    let tls = tls.map(|tls| TlsDoor::new(&tls, Door::Http2));
    serve(listener, router, limits, tls, shutdown).await;
    Ok(())
}

/// How the open files are divided, so that none of the doors can run into the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileBudget {
    push_connections: usize,
    listeners: usize,
}

impl FileBudget {
    fn of(config: &EdgeConfig, files: usize) -> Self {
        let others = config.files_connections_max + config.files_reserve + config.disk_reads;
        let room = files.saturating_sub(others).max(DOORSTEP + 1);
        let listeners = config.listeners_max.min(room - DOORSTEP);
        Self { push_connections: listeners + DOORSTEP, listeners }
    }
}

/// Raises the limit of open files as far as this process may; returns it.
fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If the system refuses, the limit is what it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Entry points for fuzzing: each takes any bytes and must return.
#[doc(hidden)]
pub mod fuzz {
    use crate::{address, ranges, seal};

    /// Reads `data` as an address and its query, of both doors.
    pub fn address(data: &[u8]) {
        let text = String::from_utf8_lossy(data);
        let (path, query) = text.split_once('?').map_or((&*text, None), |(path, query)| (path, Some(query)));
        let _ = address::push(path, query);
        let _ = address::files(path, query);
    }

    /// Reads `data` as what a TLS client begins with.
    pub fn tls_handshake(data: &[u8]) {
        seal::fuzz::handshake(data);
    }

    /// Reads `data` as records of a TLS client after its handshake.
    pub fn tls_session(data: &[u8]) {
        seal::fuzz::session(data);
    }

    /// Reads `data` as the values of the headers that ask for ranges.
    pub fn ranges(data: &[u8]) {
        let mut headers = http::HeaderMap::new();
        let names = [http::header::RANGE, http::header::IF_RANGE, http::header::IF_NONE_MATCH];
        for (name, value) in names.into_iter().zip(data.split(|byte| *byte == b'\n')) {
            if let Ok(value) = http::HeaderValue::from_bytes(value) {
                headers.insert(name, value);
            }
        }
        let _ = ranges::wanted(&headers, 1_000, "\"abc\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_address_or_range_is_too_strange(text in "(/(t|live|e|[a-z0-9.?=&-]{0,9})){0,5}.{0,20}", bytes: Vec<u8>) {
            fuzz::address(text.as_bytes());
            fuzz::address(&bytes);
            fuzz::ranges(&bytes);
            fuzz::ranges(format!("bytes={text}").as_bytes());
        }
    }

    #[test]
    fn files_are_divided_before_they_run_out() {
        let config = EdgeConfig::default();
        let others = config.files_connections_max + config.files_reserve + config.disk_reads;
        for (files, listeners) in [
            (usize::MAX, 15_000),
            (others + DOORSTEP + 15_000, 15_000),
            (others + DOORSTEP + 14_999, 14_999),
            (others + DOORSTEP + 1, 1),
            (10, 1),
        ] {
            let budget = FileBudget::of(&config, files);
            assert_eq!(budget, FileBudget { push_connections: listeners + DOORSTEP, listeners });
        }
    }
}
