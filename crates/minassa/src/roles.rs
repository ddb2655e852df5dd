//! The roles as processes: their doors, their threads, their end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use backend::child::Heartbeat;
use backend::tls::Tls;
use rand::RngExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::supervisor::{LOCK_WAIT, Lock, Role, bind_to_supervisor};

/// An edge whose feed is silent for this long hangs.
const EDGE_SILENCE: Duration = Duration::from_secs(5);

/// The TCP doors in the order control, push, stage, files, each with the flag that sets it.
pub fn doors(config: &mut Config) -> [(&'static str, &mut SocketAddr); 4] {
    [
        ("--listen", &mut config.control.listen),
        ("--push-listen", &mut config.edge.push_listen),
        ("--stage-listen", &mut config.origin.listen),
        ("--files-listen", &mut config.edge.files_listen),
    ]
}

/// The UDP door of the stage, with the flag that sets it.
pub fn media_door(config: &mut Config) -> (&'static str, &mut SocketAddr) {
    ("--media-listen", &mut config.origin.media_listen)
}

/// The operator's bearer token is in `run/operator-token`, readable by its owner alone; made if it is missing.
///
/// # Errors
/// If it cannot be written.
pub fn ensure_operator_token(data: &Path) -> anyhow::Result<()> {
    let path = data.join("run/operator-token");
    let mut token = String::from("op_");
    let secret: [u8; 32] = rand::rng().random();
    for byte in secret {
        token.push_str(&format!("{byte:02x}"));
    }
    token.push('\n');
    backend::freeze::write_new(&path, token.as_bytes(), true)
        .map(drop)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Runs one role until it is told to stop.
///
/// # Errors
/// If it cannot begin: a port, the data directory, the bus, another process of the same role.
pub fn run(role: Role, config: Config) -> anyhow::Result<()> {
    if !bind_to_supervisor().context("cannot tie this process to its supervisor")? {
        // It died while this process was starting. There is nobody to tell, and nothing was begun.
        return Ok(());
    }
    // Threads that come later inherit it. Without the right to be more urgent than others origin is as urgent as they,
    // and the roles below it are less.
    rustix::process::setpriority_process(None, niceness(role)).ok();
    crate::logs::begin(&config.server, &role.to_string())?;
    let data = &config.server.data;
    std::fs::create_dir_all(data.join("run/bus"))
        .with_context(|| format!("cannot make {}", data.join("run/bus").display()))?;
    ensure_operator_token(data)?;
    let _lock = Lock::take(data, &format!("{role}.lock"), LOCK_WAIT)?;
    // An edge is one of as many as there are cores; control and origin's HTTP have little to do.
    let workers = if matches!(role, Role::Edge(_)) { 1 } else { 2 };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name(role.to_string())
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let result = runtime.block_on(serve(role, config));
    // What still runs is nobody's any more: files are safe, and callers were given their time.
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

/// How urgent a role is where several want the processor, as `nice` counts: the stage and the recorder come first, then
/// those who listen, then those who come. A step is a factor of 1.25 (sched(7)); all children of a supervisor are in its
/// session, so that their niceness counts among them under autogrouping too.
const fn niceness(role: Role) -> i32 {
    match role {
        Role::Origin => -5,
        Role::Edge(_) => 5,
        Role::Control => 8,
    }
}

async fn serve(role: Role, config: Config) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown)?;
    let heartbeat = Heartbeat::from_env()?;
    let data = config.server.data.clone();
    let tls = Tls::open(&config.tls, &data).context("cannot speak TLS")?.map(Arc::new);
    let bind = |address: SocketAddr, shared: bool| {
        backend::http::bind(address, shared).with_context(|| format!("cannot listen on {address}"))
    };
    match role {
        Role::Control => {
            let listener = bind(config.control.listen, false)?;
            heartbeat.spawn(shutdown.clone());
            let doors = control::Doors {
                push: config.edge.push_listen,
                stage: config.origin.listen,
                files: config.edge.files_listen,
            };
            let known = [doors.push, doors.stage, doors.files].iter().all(|door| door.port() != 0);
            let place = control::Place { data, listener, doors: known.then_some(doors), tls };
            control::run(config.control, place, shutdown).await
        }
        Role::Origin => {
            let listener = bind(config.origin.listen, false)?;
            let media = config.origin.media_listen;
            let media = origin::bind_media(media).with_context(|| format!("cannot listen on udp {media}"))?;
            let place = origin::Place { data, listener, media, tls, pulses: Some(heartbeat.pulses()) };
            heartbeat.spawn(shutdown.clone());
            origin::run(config.origin, place, shutdown).await
        }
        Role::Edge(index) => {
            let push = bind(config.edge.push_listen, true)?;
            let files = bind(config.edge.files_listen, true)?;
            let pulse = heartbeat.pulse("feed", EDGE_SILENCE);
            heartbeat.spawn(shutdown.clone());
            let place = edge::Place {
                data,
                more_recordings: config.origin.recording_fallbacks,
                index: u32::try_from(index)?,
                push,
                files,
                tls,
                pulse: Some(pulse),
            };
            edge::run(config.edge, place, shutdown).await
        }
    }
}

/// A first signal lets a role finish; it is the supervisor, or whoever started it, that loses patience.
fn stop_on_signals(shutdown: &CancellationToken) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("cannot catch signals")?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                tracing::info!("told to stop");
                shutdown.cancel();
            }
        });
    }
    Ok(())
}
