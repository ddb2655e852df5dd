//! A server as a user starts it: the binary, a fresh data directory, free ports.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use model::UnixTime;
use rehearse::Trust;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::wait_for;

/// A running `minassa serve`. Killed, with its children, when dropped.
#[derive(Debug)]
pub struct Server {
    binary: PathBuf,
    data: PathBuf,
    _owned: Option<tempfile::TempDir>,
    child: Child,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// `run/addresses.json` as last read.
    addresses: Value,
}

/// The links of a created event, as `event create --json` prints them.
#[derive(Debug, Clone)]
pub struct Links {
    /// The event's slug.
    pub event: String,
    /// The listener's page.
    pub listen: String,
    /// The host's page.
    pub host: String,
    /// The speakers' pages.
    pub speakers: Vec<String>,
    /// The host's invitation.
    pub host_invite: String,
    /// The speakers' invitations.
    pub speaker_invites: Vec<String>,
}

impl Server {
    /// Starts `binary serve` on free ports with `edges` edges and waits until it says where it listens.
    ///
    /// # Errors
    /// If it does not come up within half a minute.
    pub fn start(binary: &str, edges: usize) -> Result<Self> {
        Self::start_with(binary, edges, &[], &[])
    }

    /// As [`Self::start`], with more arguments and environment.
    ///
    /// # Errors
    /// If it does not come up within half a minute.
    pub fn start_with(
        binary: &str,
        edges: usize,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let owned = tempfile::Builder::new().prefix("minassa-").tempdir()?;
        let data = owned.path().join("data");
        let mut all: Vec<String> = ["--listen", "--push-listen", "--stage-listen", "--files-listen"]
            .iter()
            .flat_map(|flag| [(*flag).to_owned(), "127.0.0.1:0".to_owned()])
            .collect();
        all.extend(["--edges".to_owned(), edges.to_string()]);
        all.extend(arguments.iter().map(|a| (*a).to_owned()));
        let environment: Vec<_> =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        // The long trials may be held on another build than the tests': the optimised one, or a packaged one.
        let binary = std::env::var_os("MINASSA_BINARY").map_or_else(|| PathBuf::from(binary), PathBuf::from);
        let child = spawn(&binary, &data, &all, &environment)?;
        let mut server = Self {
            binary,
            data,
            _owned: Some(owned),
            child,
            arguments: all,
            environment,
            addresses: Value::Null,
        };
        server.wait_ready(None)?;
        Ok(server)
    }

    /// Starts it again on the same directory after its death.
    ///
    /// # Errors
    /// If it does not come up within half a minute.
    pub fn restart(&mut self) -> Result<()> {
        let before = self.pid("supervisor").ok();
        self.child.wait()?;
        // A server that is started again is given the doors it had, as an operator's configuration would.
        let mut arguments = self.arguments.clone();
        for (flag, door) in [
            ("--listen", "control"),
            ("--push-listen", "push"),
            ("--stage-listen", "stage"),
            ("--files-listen", "files"),
        ] {
            let at = arguments.iter().position(|a| a == flag).context("a flag given at the start")?;
            arguments[at + 1] = self.door(door)?;
        }
        self.child = spawn(&self.binary, &self.data, &arguments, &self.environment)?;
        self.wait_ready(before)
    }

    fn wait_ready(&mut self, not: Option<u32>) -> Result<()> {
        let path = self.data.join("run/addresses.json");
        let child = &mut self.child;
        self.addresses = wait_for("the server's addresses", Duration::from_secs(30), || {
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status}");
            }
            let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
            let value: Value = serde_json::from_str(&text)?;
            let supervisor = value["pids"]["supervisor"].as_u64();
            Ok((supervisor.is_some() && supervisor != not.map(u64::from)).then_some(value))
        })?;
        let agent = self.agent()?;
        let ready = self.url("control", "/readyz")?;
        wait_for("control to be ready", Duration::from_secs(30), || {
            Ok(agent.get(&ready).call().ok().map(drop))
        })?;
        let stage = self.url("stage", "/readyz")?;
        wait_for("origin to be ready", Duration::from_secs(30), || {
            Ok(agent.get(&stage).call().ok().map(drop))
        })
    }

    /// The address of `path`, which begins with a slash, at a door.
    ///
    /// # Errors
    /// If the server did not write the door's address.
    pub fn url(&self, door: &str, path: &str) -> Result<String> {
        let scheme = self.addresses["scheme"].as_str().unwrap_or("http");
        Ok(format!("{scheme}://{}{path}", self.door(door)?))
    }

    /// A client that believes the certificate which the server was told to use.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn agent(&self) -> Result<ureq::Agent> {
        let trust = if self.addresses["scheme"] == "https" {
            let named = self.environment.iter().find(|(name, _)| name == "MINASSA_TLS_CERTIFICATE");
            let path = named.map_or_else(|| self.data.join("keys/tls.pem"), |(_, path)| PathBuf::from(path));
            Trust::only_in(&std::fs::read(&path)?).with_context(|| format!("no certificate in {path:?}"))?
        } else {
            Trust::default()
        };
        Ok(trust.agent(ureq::config::Config::default()))
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// `host:port` of a door: `control`, `push`, `stage`, `files`.
    ///
    /// # Errors
    /// If the server did not write it.
    pub fn door(&self, name: &str) -> Result<String> {
        let text = self.addresses[name].as_str().with_context(|| format!("no {name} in addresses.json"))?;
        Ok(text.trim_start_matches("http://").to_owned())
    }

    /// Process id of `supervisor`, `origin`, `control` or `edge-N`, read afresh.
    ///
    /// # Errors
    /// If the server did not write it.
    pub fn pid(&self, role: &str) -> Result<u32> {
        let text = std::fs::read_to_string(self.data.join("run/addresses.json"))?;
        let pids = &serde_json::from_str::<Value>(&text)?["pids"];
        let pid = match role.strip_prefix("edge-") {
            Some(index) => &pids["edges"][index.parse::<usize>()?],
            None => &pids[role],
        };
        Ok(u32::try_from(pid.as_u64().with_context(|| format!("no pid of {role}"))?)?)
    }

    /// Sends a signal to a role.
    ///
    /// # Errors
    /// If it has no process.
    pub fn signal(&self, role: &str, signal: Signal) -> Result<u32> {
        let pid = self.pid(role)?;
        let raw = Pid::from_raw(i32::try_from(pid)?).context("pid 0")?;
        rustix::process::kill_process(raw, signal)?;
        Ok(pid)
    }

    /// Kills a role with SIGKILL and returns the id it had.
    ///
    /// # Errors
    /// If it has no process.
    pub fn kill(&self, role: &str) -> Result<u32> {
        self.signal(role, Signal::KILL)
    }

    /// Waits until a role runs as another process than `before`.
    ///
    /// # Errors
    /// If it does not within `within`.
    pub fn wait_replaced(&self, role: &str, before: u32, within: Duration) -> Result<u32> {
        wait_for(&format!("another {role}"), within, || {
            let pid = self.pid(role)?;
            Ok((pid != before && alive(pid)).then_some(pid))
        })
    }

    /// Runs a client command of the binary on this server and returns its standard output.
    ///
    /// # Errors
    /// If the command fails; with its standard error.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.binary).args(arguments).arg("--data").arg(&self.data).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "minassa {}: {}: {stderr}", arguments.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Creates an event that starts `in_seconds` from now; `extra` are more flags.
    ///
    /// # Errors
    /// If the command fails or prints something else than INTERFACE.md says.
    pub fn create_event(&self, in_seconds: f64, extra: &[&str]) -> Result<Links> {
        let millis = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
        let starts =
            UnixTime::from_millis(i64::try_from(millis)? + (in_seconds * 1_000.0) as i64).to_string();
        let mut arguments = vec!["event", "create", "--json", "--title", "A test", "--starts", &starts];
        arguments.extend_from_slice(extra);
        let value: Value = serde_json::from_str(&self.command(&arguments)?)?;
        let text = |v: &Value| v.as_str().map(str::to_owned).context("a text was expected");
        let texts =
            |v: &Value| v.as_array().context("a list was expected")?.iter().map(text).collect::<Result<_>>();
        let event = text(&value["event"])?;
        // Control answers when origin has taken it in, but does not wait for ever.
        wait_for("origin to take the event in", Duration::from_secs(30), || self.stage(&event).map(Some))?;
        Ok(Links {
            event,
            listen: text(&value["listen"])?,
            host: text(&value["host"])?,
            speakers: texts(&value["speakers"])?,
            host_invite: text(&value["invites"]["host"])?,
            speaker_invites: texts(&value["invites"]["speakers"])?,
        })
    }

    /// The operator's bearer token.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn token(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.data.join("run/operator-token"))?.trim().to_owned())
    }

    /// What the stage door says of the event, asked with the operator's token.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn stage(&self, event: &str) -> Result<Value> {
        let address = self.url("stage", &format!("/api/stage/{event}"))?;
        let authorization = format!("Bearer {}", self.token()?);
        let answer = self.agent()?.get(&address).header("authorization", authorization).call()?;
        Ok(serde_json::from_reader(answer.into_body().into_reader())?)
    }

    /// Waits until the event is in `state`.
    ///
    /// # Errors
    /// If it is not within `within`.
    pub fn wait_state(&self, event: &str, state: &str, within: Duration) -> Result<()> {
        wait_for(&format!("{event} to be {state}"), within, || {
            let now = self.stage(event)?;
            if now["state"] == state { Ok(Some(())) } else { bail!("it is {}", now["state"]) }
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The children go with the supervisor; that is tested on its own.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server's log:");
            if let Ok(log) = std::fs::read_to_string(self.data.with_extension("log")) {
                let lines: Vec<_> = log.lines().collect();
                for line in &lines[lines.len().saturating_sub(60)..] {
                    eprintln!("  {line}");
                }
            }
        }
    }
}

fn spawn(
    binary: &Path,
    data: &Path,
    arguments: &[String],
    environment: &[(String, String)],
) -> Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(data.with_extension("log"))?;
    Command::new(binary)
        .arg("serve")
        .args(arguments)
        .arg("--data")
        .arg(data)
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", binary.display()))
}

/// Whether a process runs (a zombie does not).
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}
