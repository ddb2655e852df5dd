//! The demonstration's server: `minassa serve` as a process, like anybody's.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rehearse::Trust;
use rustix::process::{Pid, Signal, kill_process};

use super::progress::Progress;
use crate::client::trust_in;
use crate::config::Config;
use crate::roles;
use crate::supervisor::{Addresses, SUPERVISOR_PID, probe_udp, reserve};

/// How long the server may take to be ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long it may take to stop. Its own deadlines come first.
const STOP_MAX: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(50);

/// The server; killed when dropped.
#[derive(Debug)]
pub(super) struct DemoServer {
    child: Mutex<Child>,
    data: PathBuf,
    addresses: Addresses,
    trust: Trust,
    log_reader: Option<JoinHandle<()>>,
}

impl DemoServer {
    /// Starts it and waits until every role is ready.
    pub(super) fn start(
        mut config: Config,
        data: &Path,
        progress: &Arc<Progress>,
        interrupted: &AtomicBool,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(data)?;
        choose_ports(&mut config, progress);
        let wanted = data.join("demo.toml");
        std::fs::write(&wanted, config.to_toml())
            .with_context(|| format!("cannot write {}", wanted.display()))?;
        let log = super::log_path(data);
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = Command::new("/proc/self/exe")
            .arg0("minassa")
            .args(["serve", "--effective"])
            .arg(&wanted)
            .env(SUPERVISOR_PID, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for the demonstration, which ends the show before it stops the server.
            .process_group(0)
            .spawn()
            .context("cannot start the server")?;
        let stderr = child.stderr.take().context("the server has no standard error")?;
        let for_log = progress.clone();
        let log_reader = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || keep_log(BufReader::new(stderr), file, &for_log))?;

        let began = Instant::now();
        let addresses = loop {
            if let Some(status) = child.try_wait()? {
                log_reader.join().ok();
                bail!("the server ended with {status}; what it said:\n{}", tail(&log));
            }
            if interrupted.load(Ordering::Relaxed) || began.elapsed() > READY_MAX {
                child.kill().ok();
                child.wait().ok();
                bail!("the server is not ready after {:?}; what it said:\n{}", began.elapsed(), tail(&log));
            }
            if let Ok(addresses) = Addresses::read(data) {
                break addresses;
            }
            std::thread::sleep(LOOK);
        };
        let mut server = Self {
            child: Mutex::new(child),
            data: data.to_owned(),
            addresses,
            trust: Trust::default(),
            log_reader: Some(log_reader),
        };
        server.trust = trust_in(&server.addresses, data)?;
        server.wait_ready(began)?;
        Ok(server)
    }

    /// Bound is not yet ready: control reads its store, origin its events.
    fn wait_ready(&self, began: Instant) -> anyhow::Result<()> {
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build();
        let agent = self.trust.agent(config);
        for door in [self.addresses.control, self.addresses.stage] {
            let url = self.addresses.url(door, "/readyz");
            while let Err(error) = agent.get(&url).call() {
                if self.is_gone() || began.elapsed() > READY_MAX {
                    bail!("{url} says {error}; the server's log ends with:\n{}", tail(&self.log()));
                }
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Whom to believe that it is this server.
    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    pub(super) fn log(&self) -> PathBuf {
        super::log_path(&self.data)
    }

    pub(super) fn whip_url(&self, event: &str) -> String {
        self.addresses.url(self.addresses.stage, &format!("/whip/{event}"))
    }

    pub(super) fn push_url(&self, event: &str) -> String {
        self.addresses.url(self.addresses.push, &format!("/live/{event}/opus-48.mp4"))
    }

    pub(super) fn hls_url(&self, event: &str) -> String {
        self.addresses.url(self.addresses.files, &format!("/live/{event}/index.m3u8"))
    }

    pub(super) fn recording_url(&self, event: &str) -> String {
        self.addresses.url(self.addresses.files, &format!("/e/{event}/recording.opus-48.mp4"))
    }

    pub(super) fn is_gone(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(child.try_wait(), Ok(None))
    }

    /// Stops it in order.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        {
            let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                kill_process(pid, Signal::TERM).ok();
            }
            let deadline = Instant::now() + STOP_MAX;
            while child.try_wait()?.is_none() {
                if Instant::now() > deadline {
                    child.kill().ok();
                    bail!("the server did not stop within {STOP_MAX:?}");
                }
                std::thread::sleep(LOOK);
            }
        }
        if let Some(reader) = self.log_reader.take() {
            reader.join().ok();
        }
        Ok(())
    }
}

impl Drop for DemoServer {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        child.kill().ok();
        child.wait().ok();
    }
}

/// Takes free ports where the configured ones are in use, and says so.
fn choose_ports(config: &mut Config, progress: &Progress) {
    let mut moved = Vec::new();
    let mut choose = |address: &mut SocketAddr, free: bool| {
        if !free {
            moved.push(address.to_string());
            address.set_port(0);
        }
    };
    for (flag, address) in roles::doors(config) {
        let free = reserve(*address, flag).is_ok();
        choose(address, free);
    }
    let (flag, address) = roles::media_door(config);
    let free = probe_udp(*address, flag).is_ok();
    choose(address, free);
    if !moved.is_empty() {
        progress
            .line(&format!("In use by another program: {}. Free ports are used instead.", moved.join(", ")));
    }
}

/// Keeps every line of the server's log in the file, and shows those that matter.
fn keep_log(lines: BufReader<std::process::ChildStderr>, mut file: File, progress: &Progress) {
    for line in lines.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        writeln!(file, "{line}").ok();
        // As either format of the log has it.
        if [" WARN ", " ERROR ", "\"level\":\"WARN\"", "\"level\":\"ERROR\""]
            .iter()
            .any(|level| line.contains(level))
        {
            progress.line(&line);
        }
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
