//! Where measurements happen: servers tied to one core, crowds to another, everything else in a directory that goes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rehearse::crowd::CrowdReport;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::shield::Shield;

/// Longest time a server takes to listen.
const START: Duration = Duration::from_secs(30);
/// Longest time it takes to end when asked.
const END: Duration = Duration::from_secs(5);
/// Debian's user and group without rights.
const NOBODY: [u32; 2] = [65_534, 65_534];

/// The place.
#[derive(Debug)]
pub(crate) struct Lab {
    /// The binary under test.
    pub(crate) minassa: PathBuf,
    /// Core of servers, and core of crowds.
    pub(crate) cores: [usize; 2],
    /// Listeners of an ordinary run.
    pub(crate) listeners: usize,
    /// Runs of which the median counts.
    pub(crate) repeats: usize,
    /// Tiers whose cost is measured.
    pub(crate) tiers: Vec<u64>,
    /// Nobody is measured but the edge and its judge.
    pub(crate) judged: bool,
    /// Less of everything: to see whether it works, not what it costs.
    pub(crate) quick: bool,
    /// Whether this edge speaks TLS.
    pub(crate) edge_tls: bool,
    /// Independent tools, built.
    pub(crate) tools: Option<Tools>,
    /// Whether Icecast and nginx are there and wanted.
    pub(crate) peers: bool,
    /// Others, kept off the servers' core.
    pub(crate) shield: Option<Shield>,
    work: TempDir,
}

/// An independent load generator and floor.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) swarm: PathBuf,
    pub(crate) floor: PathBuf,
}

impl Lab {
    pub(crate) fn new(minassa: PathBuf, cores: [usize; 2]) -> Result<Self> {
        if !minassa.is_file() {
            bail!("there is no {}; build it first", minassa.display());
        }
        let work = tempfile::Builder::new().prefix("minassa-bench-").tempdir()?;
        let mut lab = Self {
            minassa,
            cores,
            listeners: 10_000,
            repeats: 5,
            tiers: vec![1, 2, 4, 8],
            judged: false,
            quick: false,
            edge_tls: false,
            tools: None,
            peers: false,
            shield: None,
            work,
        };
        lab.edge_tls = lab.knows_tls()?;
        Ok(lab)
    }

    /// A fresh directory.
    pub(crate) fn directory(&self) -> Result<PathBuf> {
        let directory = tempfile::Builder::new().tempdir_in(self.work.path())?;
        // It goes with all of them.
        Ok(directory.keep())
    }

    fn knows_tls(&self) -> Result<bool> {
        let path = self.directory()?.join("tls.toml");
        std::fs::write(&path, "[tls]\nself_signed = true\n")?;
        let mut command = Command::new(&self.minassa);
        command.arg("config").arg("--config").arg(path).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status().with_context(|| format!("cannot run {}", self.minassa.display()))?.success())
    }

    /// A program tied to a core, which ends when we do.
    fn tied(&self, core: usize, nobody: bool, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if nobody && let Some([user, group]) = peer_ids() {
            command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups");
        }
        command.args(["taskset", "--cpu-list", &core.to_string()]).arg(program);
        command
    }

    /// A server of ours.
    pub(crate) fn server(&self, program: &Path) -> Command {
        self.tied(self.cores[0], false, program)
    }

    /// A server of others', without rights.
    pub(crate) fn peer(&self, program: &str) -> Command {
        self.tied(self.cores[0], true, Path::new(program))
    }

    /// A program beside the crowd.
    pub(crate) fn beside(&self, program: &Path) -> Command {
        self.tied(self.cores[1], false, program)
    }

    /// Sends a crowd to a server, and waits for its report.
    pub(crate) fn crowd(&self, crowd: &Crowd, server: &Running) -> Result<CrowdReport> {
        let output = self.crowd_command(crowd, server).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("the crowd cannot listen: {}", output.status);
        }
        serde_json::from_slice(&output.stdout).context("the crowd's report cannot be read")
    }

    /// As [`Self::crowd`]; `look` is called once after `delay_s`, while the crowd listens.
    pub(crate) fn crowd_meanwhile<T>(
        &self,
        crowd: &Crowd,
        server: &Running,
        delay_s: f64,
        look: impl FnOnce() -> T,
    ) -> Result<(CrowdReport, T)> {
        thread::scope(|scope| {
            let listening = scope.spawn(|| self.crowd(crowd, server));
            thread::sleep(Duration::from_secs_f64(delay_s));
            let seen = look();
            let report = listening.join().map_err(|_| anyhow::anyhow!("the crowd's thread panicked"))??;
            Ok((report, seen))
        })
    }

    /// As [`Self::crowd`], beside another crowd `aside`, whose server is not measured: the reports of both, in this order.
    pub(crate) fn crowds(&self, crowd: &Crowd, aside: &Crowd, server: &Running) -> Result<[CrowdReport; 2]> {
        thread::scope(|scope| {
            let beside = scope.spawn(|| self.crowd(aside, &Running::default()));
            let report = self.crowd(crowd, server)?;
            let beside = beside.join().map_err(|_| anyhow::anyhow!("the crowd's thread panicked"))??;
            Ok([report, beside])
        })
    }

    fn crowd_command(&self, crowd: &Crowd, server: &Running) -> Command {
        let mut command = self.beside(&self.minassa);
        command.args(["rehearse", "listeners", "--json", "--any-certificate"]);
        command.args(&crowd.flags).arg("--server-core").arg(self.cores[0].to_string());
        for (flag, value) in &crowd.values {
            command.arg(flag).arg(value);
        }
        for pid in &server.pids {
            command.arg("--server-pid").arg(pid.to_string());
        }
        for url in &crowd.urls {
            command.arg("--url").arg(url);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Seconds that a window of whole flushes takes.
    pub(crate) fn window(&self, tier: u64) -> f64 {
        let flush = 0.48 * tier as f64;
        let wished: f64 = if self.quick { 4.0 } else { 8.0 };
        (wished / flush).ceil() * flush
    }
}

/// What a crowd is to do, as `rehearse listeners` is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd {
    urls: Vec<String>,
    values: BTreeMap<String, String>,
    flags: Vec<String>,
}

impl Crowd {
    pub(crate) fn of(url: impl Into<String>, listeners: usize) -> Self {
        Self { urls: vec![url.into()], ..Self::default() }.with("listeners", listeners)
    }

    /// With this value, whatever it was before.
    pub(crate) fn with(mut self, flag: &str, value: impl ToString) -> Self {
        self.values.insert(format!("--{flag}"), value.to_string());
        self
    }

    pub(crate) fn flag(mut self, flag: &str) -> Self {
        self.flags.push(format!("--{flag}"));
        self
    }
}

/// Processes that are killed when this goes.
#[derive(Debug, Default)]
pub(crate) struct Running {
    children: Vec<Child>,
    /// Those who are measured.
    pub(crate) pids: Vec<u32>,
}

impl Running {
    /// Starts a process.
    pub(crate) fn add(&mut self, command: &mut Command) -> Result<&mut Child> {
        let child =
            command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot run {command:?}"))?;
        self.children.push(child);
        Ok(self.children.last_mut().expect("it was just added"))
    }

    /// Starts a process that is measured.
    pub(crate) fn measure(&mut self, command: &mut Command) -> Result<&mut Child> {
        let pid = self.add(command)?.id();
        self.pids.push(pid);
        Ok(self.children.last_mut().expect("it was just added"))
    }

    /// Sends all of them a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        for child in &self.children {
            // Nobody else waits for it: until we have, its number is its own.
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process")?;
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Waits until all have ended by themselves.
    pub(crate) fn wait(&mut self) -> Result<()> {
        for child in &mut self.children {
            child.wait()?;
        }
        self.children.clear();
        Ok(())
    }

    /// Fails if one of them has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        for child in &mut self.children {
            if let Some(status) = child.try_wait()? {
                bail!("a server ended early: {status}");
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Asked first: some have children of their own, which only they know to end.
        for child in &self.children {
            if let Ok(pid) = i32::try_from(child.id())
                && let Some(pid) = Pid::from_raw(pid)
            {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let end = Instant::now() + END;
        for child in &mut self.children {
            while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whom peers run as, if not as we do.
pub(crate) fn peer_ids() -> Option<[u32; 2]> {
    rustix::process::geteuid().is_root().then_some(NOBODY)
}

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// As many different ports that are free now.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    // All at once, or one could come twice.
    let doors: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    doors.iter().map(|door| Ok(door.local_addr()?.port())).collect()
}

/// Waits until something listens there.
pub(crate) fn wait_for(port: u16, server: &mut Running) -> Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_until(&format!("port {port}"), server, || TcpStream::connect(address).is_ok())
}

/// Waits until something is so.
pub(crate) fn wait_until(what: &str, server: &mut Running, is_so: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + START;
    while !is_so() {
        server.check()?;
        if Instant::now() >= end {
            bail!("{what} does not come");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The first line a process says.
pub(crate) fn first_line(child: &mut Child) -> Result<String> {
    let output = child.stdout.take().context("its output is not ours")?;
    let mut lines = BufReader::new(output).lines();
    let line = lines.next().context("it ended without a word")??;
    // What it says later is nobody's, but the pipe must not fill.
    thread::spawn(move || lines.for_each(drop));
    Ok(line)
}
