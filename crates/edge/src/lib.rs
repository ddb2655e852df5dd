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
mod evidence;
mod feed;
mod files;
mod ladder;
mod metrics;
mod notice;
mod push;
mod ranges;
mod recordings;
pub mod seal;
mod sessions;
mod shared;

use std::net::{SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use backend::bus::{Bus, UnixBus};
use backend::child::Pulse;
use backend::freeze::FrozenEvents;
use backend::http::proxy::Proxies;
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
/// The least connections of the files door, as configured or because files are short.
const FILES_CONNECTIONS_MIN: usize = 16;
/// Longest time connections get to finish what is being written, beyond the time over which listeners are let go.
const DRAIN: Duration = Duration::from_millis(400);

/// How much less urgent the files door's threads are, as `nice` counts: when both want the processor they get a tenth of
/// it (sched(7)).
const FILES_NICENESS: i32 = 15;

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
    let files_max = raise_file_limit();
    let budget = FileBudget::of(&config, 1 + place.more_recordings.len(), files_max)?;
    if budget.listeners < config.listeners_max || budget.files_connections < config.files_connections_max {
        tracing::warn!(
            listeners_max = budget.listeners,
            files_connections_max = budget.files_connections,
            recordings = budget.recordings,
            "the limit of open files allows fewer listeners and connections of the files door than configured"
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
    let send_buffer = config.send_buffer;
    let door = place.push.try_clone().context("cannot use the push door")?;

    let shared = Arc::new(Shared::new(Parts {
        index: place.index,
        listeners_max: budget.listeners as u64,
        files_max: files_max as u64,
        files_address,
        scheme,
        tls: place.tls.clone(),
        bus: Arc::new(bus) as Arc<dyn Bus>,
        bell: Arc::clone(&bell),
        recordings: Recordings::new(directories, config.disk_reads, budget.recordings),
        closing: shutdown.clone(),
        keys,
        config,
    }));
    // Before anybody is let in; from then on once a second.
    shared.weigh_memory(Memory::now());
    let pushed = Push::new(push::Parts {
        poll,
        bell: Arc::clone(&bell),
        door: place.push,
        connections_max: budget.push_connections,
        shared: Arc::clone(&shared),
        runtime: tokio::runtime::Handle::current(),
        tls: place.tls.clone(),
    })
    .context("cannot use the push door")?;
    warn_if_cut(door, send_buffer);
    let (over, is_over) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("push".to_owned())
        .spawn(move || {
            pushed.run();
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
    let filing =
        threads.spawn(serve_files(shared, place.files, budget.files_connections, place.tls, shutdown));
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
    connections_max: usize,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(door).context("cannot use the files door")?;
    let limits = Limits {
        connections_max,
        requests_max: files_requests(&shared.config, connections_max),
        body_bytes_max: 0,
        drain: Duration::from_millis(shared.config.leave_ms) + DRAIN,
        proxies: Proxies::new(&shared.config.proxies, shared.config.proxy_protocol),
        counts: shared.files_door.clone(),
        ..Limits::default()
    };
    let router = Router::new().fallback(files::handle).with_state(shared);
    let tls = tls.map(|tls| TlsDoor::new(&tls, Door::Http2));
    serve(listener, router, limits, tls, shutdown).await;
    Ok(())
}

/// Requests of the files door in progress at once: those that are held or download have limits of their own, the others
/// are answered at once. Twice that, so that all who come from one place together reach no more than those limits.
fn files_requests(config: &EdgeConfig, connections_max: usize) -> usize {
    2 * (config.held_max + config.downloads_max + connections_max)
}

/// Says so if the kernel gives connections of a door a smaller send buffer than they are to have.
fn warn_if_cut(door: TcpListener, configured: usize) {
    // A system that does not tell has nothing to warn of.
    if let Ok(told) = socket2::SockRef::from(&door).send_buffer_size()
        && let Some(given) = cut_to(told, configured)
    {
        tracing::warn!(
            configured,
            given,
            "edge.send_buffer is more than the kernel gives: raise net.core.wmem_max for it"
        );
    }
}

/// What is left of a send buffer as configured, if it was cut, by what the kernel tells of it: Linux tells twice what was
/// asked for, or twice net.core.wmem_max if that is less (socket(7)).
fn cut_to(told: usize, configured: usize) -> Option<usize> {
    (told / 2 < configured).then_some(told / 2)
}

/// Open files of an edge as configured, with recordings in so many directories: with fewer than the first it refuses to
/// start, with fewer than the last it cannot take as many listeners and connections as it may, or keeps fewer recordings
/// open.
pub fn open_files(config: &EdgeConfig, directories: usize) -> RangeInclusive<usize> {
    let each = recordings::FILES * directories;
    let others = DOORSTEP + config.files_reserve + config.disk_reads;
    let doors = config.listeners_max + config.files_connections_max;
    others + each + FILES_CONNECTIONS_MIN + 1..=others + recordings::OPEN_MAX * each + doors
}

/// How the open files are divided, so that none of the doors and no recording can run into the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileBudget {
    push_connections: usize,
    listeners: usize,
    files_connections: usize,
    /// Recordings open at once.
    recordings: usize,
}

/// The limit of open files is too low for an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, an edge as configured needs {least} at the very least: raise it (ulimit -Hn, \
     LimitNOFILE of the unit), or lower edge.files_reserve or edge.disk_reads"
)]
struct TooFewFiles {
    limit: usize,
    least: usize,
}

impl FileBudget {
    /// Divides `files` open files. Recordings, in so many directories, get what is left over, but at least enough for
    /// those that are kept open, or an eighth if that is less; if the rest does not do for both doors, each has its part
    /// of it in proportion to what it is to have.
    fn of(config: &EdgeConfig, directories: usize, files: usize) -> Result<Self, TooFewFiles> {
        let each = recordings::FILES * directories;
        let others = DOORSTEP + config.files_reserve + config.disk_reads;
        let least = *open_files(config, directories).start();
        if files < least {
            return Err(TooFewFiles { limit: files, least });
        }
        let room = files - others;
        let wanted = config.listeners_max + config.files_connections_max;
        let kept = (recordings::KEPT * each).min(room / 8).max(each);
        let recordings = room.saturating_sub(wanted).clamp(kept, recordings::OPEN_MAX * each) / each;
        let left = room - recordings * each;
        let (listeners, files_connections) = if left >= wanted {
            (config.listeners_max, config.files_connections_max)
        } else {
            // `left` is less than `wanted`, and that at most two millions.
            let share = left as u64 * config.files_connections_max as u64 / wanted as u64;
            let files_connections = (share as usize).max(FILES_CONNECTIONS_MIN);
            ((left - files_connections).min(config.listeners_max), files_connections)
        };
        Ok(Self { push_connections: listeners + DOORSTEP, listeners, files_connections, recordings })
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
        let _ = ranges::wanted(&http::Method::GET, &headers, 1_000, "\"abc\"");
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
        let usual = EdgeConfig::default();
        // As `cargo xtask` measures it.
        let bench = EdgeConfig { listeners_max: 18_000, files_connections_max: 1_200, ..usual.clone() };
        let one = EdgeConfig { listeners_max: 1, ..usual.clone() };
        for (config, directories, files, expected) in [
            (&usual, 1, usize::MAX, (15_000, 2_048, 64)),
            (&usual, 1, 20_000, (15_000, 2_048, 64)),
            (&usual, 3, 20_000, (15_000, 2_048, 64)),
            (&bench, 1, 20_000, (18_000, 1_200, 57)),
            (&usual, 1, 17_672, (15_000, 2_048, 32)),
            (&usual, 1, 1_024, (482, 65, 11)),
            (&usual, 1, 424, (1, 16, 1)),
            (&one, 1, 1_024, (1, 546, 11)),
        ] {
            let budget = FileBudget::of(config, directories, files).unwrap();
            let (listeners, files_connections, recordings) = expected;
            let push_connections = listeners + DOORSTEP;
            assert_eq!(budget, FileBudget { push_connections, listeners, files_connections, recordings });
        }
        assert_eq!(FileBudget::of(&usual, 1, 423), Err(TooFewFiles { limit: 423, least: 424 }));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_divided_files_are_never_more_than_there_are(
            listeners_max in 1..1_000_000_usize,
            files_connections_max in 16..1_000_000_usize,
            files_reserve in 64..1_000_usize,
            disk_reads in 1..=512_usize,
            directories in 1..8_usize,
            files in 0..40_000_usize,
        ) {
            let config = EdgeConfig {
                listeners_max, files_connections_max, files_reserve, disk_reads, ..EdgeConfig::default()
            };
            let asked = open_files(&config, directories);
            let divided = FileBudget::of(&config, directories, files);
            proptest::prop_assert_eq!(divided.is_ok(), files >= *asked.start());
            if let Ok(budget) = divided {
                let whole = budget.listeners == listeners_max
                    && budget.files_connections == files_connections_max
                    && budget.recordings == recordings::OPEN_MAX;
                proptest::prop_assert_eq!(whole, files >= *asked.end(), "{:?}", budget);
                let recordings = budget.recordings * recordings::FILES * directories;
                let all = budget.push_connections + budget.files_connections + recordings + files_reserve + disk_reads;
                proptest::prop_assert!(all <= files, "{budget:?}");
                proptest::prop_assert!((1..=listeners_max).contains(&budget.listeners));
                proptest::prop_assert!((16..=files_connections_max).contains(&budget.files_connections));
                proptest::prop_assert!(budget.recordings >= 1);
            }
        }
    }

    #[test]
    fn a_send_buffer_that_was_cut_is_noticed() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let socket = socket2::SockRef::from(&listener);
        let configured = EdgeConfig::default().send_buffer;
        socket.set_send_buffer_size(configured).unwrap();
        assert_eq!(cut_to(socket.send_buffer_size().unwrap(), configured), None);
        assert_eq!(cut_to(2 * 212_992, 1 << 20), Some(212_992));
    }
}
