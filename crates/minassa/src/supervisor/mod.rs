//! The supervisor: starts the roles, watches and waits, nothing else.
//!
//! It owns no socket that speaks, no task and no state worth keeping; it runs on one thread and one `poll`. Its
//! children die with it (`PR_SET_PDEATHSIG`), and the lock on the data directory is free only when all are gone, so
//! killing it leaves no second server behind and the next start resumes.
//!
//! ```text
//! serve ── lock ── ports ── run/config.toml ──┬─ control ─┐
//!                                             ├─ origin  ─┤ heartbeat pipes, SIGCHLD
//!                                             ├─ edge-0  ─┤
//!                                             └─ edge-1  ─┴─► Watch (one each) ─► start, kill, stop
//! ```

mod addresses;
mod lock;
mod ports;
mod process;
mod watch;

use std::ffi::OsString;
use std::fs::Permissions;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use backend::tls::Tls;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use crate::config::Config;
use process::Process;
use watch::{Moment, Order, Watch};

pub use addresses::{Addresses, Pids, Restarts, Scheme};
pub use lock::{LOCK_WAIT, Lock, LockError};
pub use ports::{PortError, Reserved, probe_udp, reserve};
pub use process::{SUPERVISOR_PID, bind_to_supervisor};

/// The addresses are announced when every role is ready, or after this long with those that are.
const ANNOUNCE_MOST: Moment = Moment::from_secs(10);
/// Who wakes up this much later than it wanted has not been running in between.
const STANDSTILL: Moment = Moment::from_secs(1);
/// A signal this long after the first one to stop is impatience.
const IMPATIENCE_AFTER: Moment = Moment::from_secs(1);
/// The file of addresses is written again after this time where the disk did not take it.
const REWRITE_AFTER: Moment = Moment::from_millis(500);
/// If no role has ever been ready after this many exits of one of them, the start has failed.
const START_ATTEMPTS: u32 = 3;

/// A role, as it is named in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Pages, API, store.
    Control,
    /// The stage.
    Origin,
    /// The listeners' doors, counted from 0.
    Edge(usize),
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Origin => f.write_str("origin"),
            Self::Edge(index) => write!(f, "edge-{index}"),
        }
    }
}

impl Role {
    const LAST_TURN: u8 = 2;

    /// Roles with a lower number stop first: nothing new is taken in (control), then the shows end and the recorder
    /// writes its last part (origin), and the edges hand that part to those who listen before they go.
    fn stop_turn(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Origin => 1,
            Self::Edge(_) => Self::LAST_TURN,
        }
    }
}

/// Runs a server until a signal ends it.
///
/// # Errors
/// If the directory or a port cannot be had, or no role comes up.
pub fn serve(config: Config) -> anyhow::Result<()> {
    // The demonstration starts a server of its own, which ends with it.
    if !bind_to_supervisor().context("cannot tie this process to its parent")? {
        return Ok(());
    }
    let data = prepare_directory(&config.server.data)?;
    crate::logs::begin(&config.server, "supervisor")?;
    let lock = Lock::take(&data, "lock", LOCK_WAIT)?;
    lock.share_with_children()?;
    // Nobody is there yet, whatever the bus's directory says: an edge of an earlier server would be missed for ever.
    backend::bus::forget_peers(&data.join("run/bus"));
    raise_file_limit();
    let (config, doors) = settle(config, &data)?;
    // What cannot be used is better said once, here; and one made here is made once, before the roles ask for it.
    Tls::open(&config.tls, &data).context("cannot speak TLS")?;
    crate::roles::ensure_operator_token(&data)?;

    let effective = data.join("run/config.toml");
    backend::freeze::write_bytes(&effective, config.to_toml().as_bytes(), true)
        .with_context(|| format!("cannot write {}", effective.display()))?;
    // Addresses of an earlier server must not mislead anybody while this one starts.
    std::fs::remove_file(data.join(addresses::FILE)).ok();

    let mut server = Server::new(&config, data, effective)?;
    let result = server.run();
    drop((doors, lock));
    result
}

/// Makes the data directory with what is in it, and finds out whether it can be written to.
fn prepare_directory(data: &Path) -> anyhow::Result<PathBuf> {
    let hint = "name another directory with --data";
    let make = |path: &Path| {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot make the directory {}; {hint}", path.display()))
    };
    make(data)?;
    let data = data.canonicalize().with_context(|| format!("cannot find {}", data.display()))?;
    for below in ["run", "run/bus"] {
        let path = data.join(below);
        make(&path)?;
        // Tokens and the bus are nobody else's. Where the owner cannot be changed, the files guard themselves.
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).ok();
    }
    let probe = data.join("run/.probe");
    std::fs::write(&probe, b"?")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("cannot write to the data directory {}; {hint}", data.display()))?;
    Ok(data)
}

/// As many open files as the system allows: each listener is one.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Fixes everything that is left open: the directory's absolute name, free ports, the number of edges.
fn settle(mut config: Config, data: &Path) -> anyhow::Result<(Config, Vec<Reserved>)> {
    config.server.data = data.to_owned();
    config.server.edges = u16::try_from(config.server.edge_count())?;
    let mut reserved = Vec::new();
    for (flag, address) in crate::roles::doors(&mut config) {
        let door = reserve(*address, flag)?;
        *address = door.address();
        reserved.push(door);
    }
    let (flag, media) = crate::roles::media_door(&mut config);
    *media = probe_udp(*media, flag)?;
    Ok((config, reserved))
}

struct Server {
    data: PathBuf,
    effective: PathBuf,
    addresses: Addresses,
    children: Vec<Child>,
    signals: Signals,
    began: Instant,
    announced: bool,
    /// Since when the addresses on the disk are not what they should be, the last attempt.
    unwritten: Option<Moment>,
    stopping: Option<Stopping>,
}

/// The server is on its way out.
#[derive(Clone, Copy, Debug)]
struct Stopping {
    /// Whose turn it is ([`Role::stop_turn`]).
    turn: u8,
    since: Moment,
}

struct Child {
    role: Role,
    watch: Watch,
    process: Option<Process>,
}

impl Server {
    fn new(config: &Config, data: PathBuf, effective: PathBuf) -> anyhow::Result<Self> {
        let edges = config.server.edge_count();
        let roles = [Role::Origin, Role::Control].into_iter().chain((0..edges).map(Role::Edge));
        Ok(Self {
            addresses: Addresses::of(config),
            data,
            effective,
            children: roles
                .map(|role| Child { role, watch: Watch::new(Moment::ZERO), process: None })
                .collect(),
            signals: Signals::catch().context("cannot catch signals")?,
            began: Instant::now(),
            announced: false,
            unwritten: None,
            stopping: None,
        })
    }

    fn now(&self) -> Moment {
        self.began.elapsed()
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut awake = self.now();
        loop {
            self.reap()?;
            let now = self.now();
            if now > awake + STANDSTILL {
                // Not only its children were silent: the machine, or this process, stood still.
                self.children.iter_mut().for_each(|child| child.watch.excuse(now));
            }
            let news = self.listen(now);
            // Before anything that a disk could hold up: who is gone is started again.
            self.obey(now);
            if news || self.unwritten.is_some_and(|since| now >= since + REWRITE_AFTER) {
                self.announce(now)?;
            }
            if !self.announced && self.stopping.is_none() && now >= ANNOUNCE_MOST {
                let missing: Vec<_> = self
                    .children
                    .iter()
                    .filter(|child| !child.watch.is_running())
                    .map(|child| child.role.to_string())
                    .collect();
                tracing::warn!(missing = missing.join(", "), "going on without roles that are not ready");
                self.write_addresses()?;
            }
            if self.stopping.is_some() && self.children.iter().all(|child| child.watch.is_gone()) {
                std::fs::remove_file(self.data.join(addresses::FILE)).ok();
                tracing::info!("stopped");
                return Ok(());
            }
            awake = self.wait()?;
        }
    }

    /// Notices children that are gone.
    fn reap(&mut self) -> anyhow::Result<()> {
        let now = self.now();
        let nobody_ready = !self.children.iter().any(|child| child.watch.ever_ready());
        for child in &mut self.children {
            let Some(process) = &mut child.process else { continue };
            let Some(status) = process.ended().context("cannot wait for a child")? else { continue };
            let pid = process.id();
            child.process = None;
            match child.watch.exited(now) {
                None => tracing::info!(role = %child.role, pid, %status, "stopped"),
                Some(wait) => {
                    tracing::warn!(
                        role = %child.role, pid, %status, restarts = child.watch.restarts(),
                        wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                        "a role is gone and is started again"
                    );
                    if nobody_ready && child.watch.failures() >= START_ATTEMPTS && self.stopping.is_none() {
                        anyhow::bail!("{} does not start ({status}): what it said is above", child.role);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the signs of life; whether a role became ready.
    fn listen(&mut self, now: Moment) -> bool {
        let mut ready = false;
        for child in &mut self.children {
            if let Some(process) = &mut child.process
                && process.take_beats()
                && child.watch.beat(now)
            {
                tracing::info!(role = %child.role, pid = process.id(), "ready");
                ready = true;
            }
        }
        ready
    }

    /// Does what the watches and signals say.
    fn obey(&mut self, now: Moment) {
        match (self.signals.take(), self.stopping) {
            (0, _) => {}
            (_, None) => {
                tracing::info!("stopping");
                self.stopping = Some(Stopping { turn: 0, since: now });
            }
            // Some send a signal to the process and then to its group: that is one wish, not two.
            (_, Some(stopping)) if now < stopping.since + IMPATIENCE_AFTER => {}
            (_, Some(_)) => {
                tracing::warn!("told to stop again: killing what is left");
                for child in &mut self.children {
                    child.watch.stop(now);
                    if let Some(process) = &child.process {
                        process.signal(Signal::KILL);
                    }
                }
            }
        }
        self.take_turns(now);
        for child in &mut self.children {
            while let Some(order) = child.watch.poll(now) {
                carry_out(order, child, now, &self.effective);
            }
        }
    }

    /// Asks the roles whose turn it is to stop; passes the turn on when they are gone.
    fn take_turns(&mut self, now: Moment) {
        let Some(stopping) = &mut self.stopping else { return };
        while stopping.turn <= Role::LAST_TURN {
            let mut all_gone = true;
            for child in self.children.iter_mut().filter(|child| child.role.stop_turn() == stopping.turn) {
                if let Some(order) = child.watch.stop(now) {
                    carry_out(order, child, now, &self.effective);
                }
                all_gone &= child.watch.is_gone();
            }
            if !all_gone {
                return;
            }
            stopping.turn += 1;
        }
    }

    /// Writes where everything is once all are ready, and again whenever a role is ready anew.
    fn announce(&mut self, now: Moment) -> anyhow::Result<()> {
        let all_ready = self.children.iter().all(|child| child.watch.is_running());
        if self.stopping.is_some() || !(self.announced || all_ready) {
            return Ok(());
        }
        if !self.announced {
            tracing::info!(after_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX), "everything is up");
        }
        self.write_addresses()
    }

    fn write_addresses(&mut self) -> anyhow::Result<()> {
        let pid_of = |child: &Child| child.process.as_ref().map(Process::id);
        let mut edges = Vec::new();
        self.addresses.restarts.edges.clear();
        for child in &self.children {
            let (pid, restarts) = (pid_of(child), child.watch.restarts());
            match child.role {
                Role::Control => {
                    (self.addresses.pids.control, self.addresses.restarts.control) = (pid, restarts)
                }
                Role::Origin => {
                    (self.addresses.pids.origin, self.addresses.restarts.origin) = (pid, restarts)
                }
                Role::Edge(_) => {
                    edges.push(pid);
                    self.addresses.restarts.edges.push(restarts);
                }
            }
        }
        self.addresses.pids.edges = edges;
        let path = self.data.join(addresses::FILE);
        match backend::freeze::write_json_unsynced(&path, &self.addresses) {
            Ok(()) => self.unwritten = None,
            // A full disk must not end a server whose roles know how to live with it.
            Err(error) if self.announced => {
                if self.unwritten.replace(self.now()).is_none() {
                    tracing::error!(%error, "cannot write {}; it is tried again", path.display());
                }
            }
            Err(error) => return Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
        if !self.announced {
            self.announced = true;
            // Nobody may be there to read it; the file says the same.
            self.addresses.print(&self.data, &mut io::stdout()).ok();
            io::stdout().flush().ok();
        }
        Ok(())
    }

    /// Sleeps until a child beats or dies, a signal comes, or a watch has something to say. Returns when it should have
    /// woken at the latest: much later than that nobody was running.
    fn wait(&self) -> anyhow::Result<Moment> {
        let now = self.now();
        let next = self
            .children
            .iter()
            .filter_map(|child| child.watch.next())
            .chain((!self.announced).then_some(ANNOUNCE_MOST))
            .chain(self.unwritten.map(|since| since + REWRITE_AFTER))
            .min()
            .map(|at| at.saturating_sub(now));
        let timeout = next
            .map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) });
        let mut fds: Vec<PollFd<'_>> = self
            .children
            .iter()
            .filter_map(|child| child.process.as_ref()?.beats_fd())
            .chain([self.signals.stop.as_fd(), self.signals.child.as_fd()])
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
        self.signals.drain_children();
        Ok(self.now().min(next.map_or(Moment::MAX, |wait| now + wait)))
    }
}

fn carry_out(order: Order, child: &mut Child, now: Moment, effective: &Path) {
    let role = child.role;
    match (order, &child.process) {
        (Order::Start, _) => match Process::start(&arguments(role, effective)) {
            Ok(process) => {
                tracing::info!(%role, pid = process.id(), "started");
                child.process = Some(process);
            }
            Err(error) => {
                tracing::error!(%role, %error, "cannot start a role");
                child.watch.exited(now);
            }
        },
        (Order::KillHanging, Some(process)) => {
            tracing::warn!(%role, pid = process.id(), "no sign of life: killing it");
            process.signal(Signal::KILL);
        }
        (Order::Stop, Some(process)) => {
            process.signal(Signal::TERM);
            // One that is stopped by SIGSTOP would never hear of it.
            process.signal(Signal::CONT);
        }
        (Order::KillStopping, Some(process)) => {
            tracing::warn!(%role, pid = process.id(), "does not stop: killing it");
            process.signal(Signal::KILL);
        }
        // Its end is noticed by the next turn of the loop.
        (Order::KillHanging | Order::Stop | Order::KillStopping, None) => {}
    }
}

fn arguments(role: Role, effective: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = match role {
        Role::Control => vec!["control".into()],
        Role::Origin => vec!["origin".into()],
        Role::Edge(index) => vec!["edge".into(), "--index".into(), index.to_string().into()],
    };
    arguments.extend(["--effective".into(), effective.into()]);
    arguments
}

/// Signals, turned into bytes of sockets that `poll` can wait for.
struct Signals {
    stop: UnixStream,
    child: UnixStream,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let pair = |signals: &[i32]| {
            let (read, write) = UnixStream::pair()?;
            read.set_nonblocking(true)?;
            for signal in signals {
                signal_hook::low_level::pipe::register(*signal, write.try_clone()?)?;
            }
            io::Result::Ok(read)
        };
        // Whoever starts us with `nohup` wants us to outlive the terminal.
        let stop: &[i32] = if ignores_hangup() { &[SIGTERM, SIGINT] } else { &[SIGTERM, SIGINT, SIGHUP] };
        Ok(Self { stop: pair(stop)?, child: pair(&[SIGCHLD])? })
    }

    /// How many times it was told to stop since the last call.
    fn take(&self) -> usize {
        let mut bytes = [0; 16];
        (&self.stop).read(&mut bytes).unwrap_or(0)
    }

    fn drain_children(&self) {
        let mut bytes = [0; 64];
        while (&self.child).read(&mut bytes).is_ok_and(|count| count > 0) {}
    }
}

/// Whether this process was started with SIGHUP ignored.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (SIGHUP - 1) & 1 == 1
}
