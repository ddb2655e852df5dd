//! Servers of ours under test: edges with a synthetic origin, and floors.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rehearse::crowd::{Survey, Trust, fetch};

use super::control::Control;
use super::lab::{Lab, Running, first_line, free_port, free_ports, wait_for, wait_until};

/// How edges are set up.
#[derive(Clone, Debug)]
pub(crate) struct EdgeSetup {
    pub(crate) tls: bool,
    /// Edge processes that share one port, and one core; none if [`Edges::another_ready`] is to start them.
    pub(crate) edges: usize,
    /// Minutes of a recording beside the live event.
    pub(crate) past_minutes: u64,
    /// Directory of `certificate.pem` and `key.pem`; without it edges make their own.
    pub(crate) certificate: Option<PathBuf>,
    /// Most listeners, and most connections of the files door, of each edge: an edge of 20,000 files has room for both.
    pub(crate) listeners_max: usize,
    pub(crate) files_connections_max: usize,
    /// More keys of section `[edge]`.
    pub(crate) keys: String,
}

impl EdgeSetup {
    pub(crate) fn new(tls: bool) -> Self {
        let (listeners_max, files_connections_max) = (18_000, 1_200);
        let keys = String::new();
        Self { tls, edges: 1, past_minutes: 0, certificate: None, listeners_max, files_connections_max, keys }
    }

    /// As [`Self::new`], with as much room for listeners as 20,000 files allow: 17,010 places for newcomers, who may
    /// take nine of ten.
    pub(crate) fn roomy(tls: bool) -> Self {
        Self { listeners_max: 18_900, files_connections_max: 300, ..Self::new(tls) }
    }
}

/// Edges that serve.
pub(crate) struct Edges {
    pub(crate) running: Running,
    pub(crate) control: Control,
    data: PathBuf,
    scheme: &'static str,
    push: u16,
    /// Ports of the files doors: one of its own for each edge, so that each can be asked how it fares.
    files: Vec<u16>,
}

impl Edges {
    /// Starts an origin without a stage, and edges.
    pub(crate) fn start(lab: &Lab, setup: &EdgeSetup) -> Result<Self> {
        let data = lab.directory()?;
        let mut files = free_ports(setup.edges.max(1) + 1)?;
        let push = files.remove(0);
        let mut running = Running::default();
        let mut station = lab.beside(&std::env::current_exe()?);
        station.arg("station").arg("--data").arg(&data);
        station.args(["--past-minutes", &setup.past_minutes.to_string()]).stdout(Stdio::piped());
        first_line(running.add(&mut station)?).context("the synthetic origin does not begin")?;
        let control = Control::start(&data.join("run/bus"))?;
        let tls = match &setup.certificate {
            _ if !setup.tls => String::new(),
            Some(directory) => {
                let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| directory.join(name));
                format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n")
            }
            None => "[tls]\nself_signed = true\n".to_owned(),
        };
        let config = |files: u16| {
            format!(
                "[server]\ndata = {data:?}\nlog = \"warn\"\n{tls}[edge]\npush_listen = \"127.0.0.1:{push}\"\n\
                 files_listen = \"127.0.0.1:{files}\"\nlisteners_max = {}\nfiles_connections_max = {}\n{}\n",
                setup.listeners_max, setup.files_connections_max, setup.keys
            )
        };
        for (index, port) in files.iter().enumerate() {
            let path = config_path(&data, index);
            std::fs::write(&path, config(*port))?;
            if index < setup.edges {
                start_edge(lab, &mut running, &path, index)?;
            }
        }
        let scheme = if setup.tls { "https" } else { "http" };
        let mut edges = Self { running, control, data, scheme, push, files };
        if setup.edges == 0 {
            return Ok(edges);
        }
        for port in edges.files.clone() {
            wait_for(port, &mut edges.running)?;
        }
        wait_for(push, &mut edges.running)?;
        // An edge hears of the event at its next look at the bus, and others after it: nothing is lost by waiting.
        let url = edges.push("opus-48");
        let patience = Duration::from_millis(1_500);
        wait_until("the event", &mut edges.running, || {
            fetch(&url, &Trust::Anything, patience).is_ok_and(|(status, _)| status == 200)
        })?;
        std::thread::sleep(Duration::from_secs(2));
        edges.running.check()?;
        Ok(edges)
    }

    /// Starts one more edge at the push door and the first one's files door, and does not wait for it.
    pub(crate) fn another(&self, lab: &Lab, index: usize) -> Result<Running> {
        let mut running = Running::default();
        start_edge(lab, &mut running, &config_path(&self.data, 0), index)?;
        Ok(running)
    }

    /// As [`Self::another`]; waits until both doors are open, and until it must have heard of the event.
    pub(crate) fn another_ready(&self, lab: &Lab, index: usize) -> Result<Running> {
        let doors = || {
            let survey = Survey::take(&[self.push, self.files[0]]).unwrap_or_default();
            survey.server.states.get("listen").copied().unwrap_or(0)
        };
        let before = doors();
        let mut running = self.another(lab, index)?;
        wait_until("another edge", &mut running, || doors() >= before + 2)?;
        std::thread::sleep(Duration::from_secs(2));
        running.check()?;
        Ok(running)
    }

    /// All connections of the push door, as the kernel sees them.
    pub(crate) fn survey(&self) -> Survey {
        Survey::take(&[self.push]).unwrap_or_default()
    }

    /// Address of the push door.
    pub(crate) fn push_door(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.push)
    }

    /// Address of the pushed stream.
    pub(crate) fn push(&self, rendition: &str) -> String {
        format!("{}/live/talk/{rendition}.mp4", self.push_door())
    }

    /// Address of the first edge's files door.
    pub(crate) fn files(&self) -> String {
        self.files_at(self.files[0])
    }

    /// Addresses of all edges' files doors.
    pub(crate) fn all_files(&self) -> Vec<String> {
        self.files.iter().map(|port| self.files_at(*port)).collect()
    }

    fn files_at(&self, port: u16) -> String {
        format!("{}://127.0.0.1:{port}", self.scheme)
    }

    /// Address of the recording of what is past.
    pub(crate) fn recording(&self) -> String {
        format!("{}/e/past/recording.opus-48.mp4", self.files())
    }
}

fn config_path(data: &Path, index: usize) -> PathBuf {
    data.join(format!("edge-{index}.toml"))
}

fn start_edge(lab: &Lab, running: &mut Running, config: &Path, index: usize) -> Result<()> {
    let mut edge = lab.server(&lab.minassa);
    edge.args(["edge", "--index", &index.to_string(), "--config"]).arg(config);
    running.measure(edge.stdout(Stdio::null()))?;
    Ok(())
}

/// A floor that serves.
pub(crate) struct Floor {
    pub(crate) running: Running,
    pub(crate) url: String,
}

impl Floor {
    /// Ours.
    pub(crate) fn start(lab: &Lab, tls: bool, tier: u64, spread: u64) -> Result<Self> {
        let mut command = lab.server(&std::env::current_exe()?);
        command.args(["floor", "--tier", &tier.to_string(), "--spread", &spread.to_string()]);
        if tls {
            command.arg("--tls");
        }
        let mut running = Running::default();
        let line = first_line(running.measure(command.stdout(Stdio::piped()))?)?;
        let said: serde_json::Value = serde_json::from_str(&line)?;
        let address = said["listening"].as_str().context("a floor that does not say where it is")?;
        let scheme = if tls { "https" } else { "http" };
        Ok(Self { running, url: format!("{scheme}://{address}/") })
    }

    /// The independent one.
    pub(crate) fn start_independent(lab: &Lab, tls: bool, tier: u64) -> Result<Option<Self>> {
        let Some(tools) = &lab.tools else { return Ok(None) };
        let port = free_port()?;
        let mut command = lab.server(&tools.floor);
        // As many bytes a flush as a part of opus-48 has with its boxes.
        command.args(["tcp", "--method", "send", "--kbps", "51", "--secs", "3600"]);
        command.args(["--port", &port.to_string(), "--interval-ms", &(480 * tier).to_string()]);
        command.args(["--tls", if tls { "raw" } else { "none" }]);
        let mut running = Running::default();
        running.measure(command.stdout(Stdio::null()))?;
        wait_for(port, &mut running)?;
        let scheme = if tls { "https" } else { "http" };
        Ok(Some(Self { running, url: format!("{scheme}://127.0.0.1:{port}/") }))
    }
}
