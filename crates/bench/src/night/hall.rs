//! Where a night takes place: the real `minassa serve`, an event, and one speaker who comes in through WebRTC.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use acceptance::server::{Links, Server};
use acceptance::wait_for;
use anyhow::{Context as _, Result, bail, ensure};
use formats::mp4::{StreamItem, StreamSplitter};
use model::{MediaTime, PartKind, PartNumber, UnixTime};
use packager::verify::FoundPart;
use rehearse::{Speaker, SpeakerConfig, Tone, Trust};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use super::watch::Watch;

/// Longest time until the speaker is heard.
const CONNECT: Duration = Duration::from_secs(20);
/// Longest time from the end until the recording is whole.
const RECORDED: Duration = Duration::from_secs(30);
/// Longest download of it.
const DOWNLOAD: Duration = Duration::from_secs(60);
/// From one look at the ladder to the next.
const LOOK: Duration = Duration::from_secs(1);
/// What the door of the operator may take to answer.
const ASK: Duration = Duration::from_secs(3);

/// How the server is set up.
#[derive(Clone, Debug)]
pub(crate) struct HallSetup {
    pub(crate) tls: bool,
    pub(crate) edges: usize,
    /// Listeners of one edge.
    pub(crate) listeners_max: usize,
    /// Seconds until the announced start.
    pub(crate) starts_in_s: f64,
    /// Core of the server; `None`: all of them.
    pub(crate) core: Option<usize>,
}

impl HallSetup {
    /// The configuration, as an operator would write it.
    fn config(&self) -> String {
        let mut text = format!("[edge]\nlisteners_max = {}\n", self.listeners_max);
        if self.tls {
            let _ = writeln!(text, "[tls]\nself_signed = true");
        }
        text
    }
}

/// The doors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doors {
    pub(crate) control: SocketAddr,
    pub(crate) push: SocketAddr,
    pub(crate) files: SocketAddr,
    pub(crate) media: SocketAddr,
}

/// The place.
pub(crate) struct Hall {
    pub(crate) server: Server,
    pub(crate) event: Links,
    pub(crate) doors: Doors,
    pub(crate) tls: bool,
    /// The announced start.
    pub(crate) starts_at: UnixTime,
    speaker: Speaker,
    /// Files that go with it.
    _work: tempfile::TempDir,
}

impl Hall {
    /// Opens it: when it is there, the speaker is connected and the programme runs.
    pub(crate) fn open(minassa: &Path, setup: &HallSetup) -> Result<Self> {
        let work = tempfile::Builder::new().prefix("minassa-night-").tempdir()?;
        let config = work.path().join("night.toml");
        std::fs::write(&config, setup.config())?;
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
        let (binary, config) = (text(minassa)?, text(&config)?);
        let arguments = ["--config", &config, "--log", "warn"];
        let server = on_core(setup.core, || Server::start_with(&binary, setup.edges, &arguments, &[]))??;
        let event = server.create_event(setup.starts_in_s, &[])?;
        let doors = doors(&server)?;
        let mut config = SpeakerConfig::new(
            server.url("stage", &format!("/whip/{}", event.event))?,
            event.speaker_invites.first().context("an event without speakers")?,
            Tone { hz: 600, peak: 0.25 },
        );
        if setup.tls {
            let pem = std::fs::read(server.data().join("keys/tls.pem"))?;
            config.trust = Trust::only_in(&pem).context("the server has no certificate")?;
        }
        let speaker = Speaker::start(config)?;
        ensure!(speaker.wait_connected(CONNECT), "the speaker is not heard: {:?}", speaker.state());
        let stage = server.stage(&event.event)?;
        let starts_at = time(&stage, "starts_at").context("an event without a start")?;
        Ok(Self { server, event, doors, tls: setup.tls, starts_at, speaker, _work: work })
    }

    /// Waits until it is on air.
    pub(crate) fn wait_live(&self) -> Result<()> {
        self.server.wait_state(&self.event.event, "live", Duration::from_secs(60))
    }

    /// Address of the pushed stream, for who has no ticket.
    pub(crate) fn stream(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}/live/{}/opus-48.mp4", self.doors.push, self.event.event)
    }

    /// A client that gives up in time.
    pub(crate) fn agent(&self, within: Duration) -> Result<ureq::Agent> {
        let trust = match self.tls {
            true => {
                Trust::only_in(&std::fs::read(self.server.data().join("keys/tls.pem"))?).unwrap_or_default()
            }
            false => Trust::default(),
        };
        Ok(trust.agent(ureq::Agent::config_builder().timeout_global(Some(within)).build()))
    }

    /// A good ticket; nothing if newcomers have to wait.
    pub(crate) fn ticket(&self) -> Option<String> {
        let url = self.server.url("control", &format!("/api/events/{}/ticket", self.event.event)).ok()?;
        let answer = self.agent(ASK).ok()?.post(&url).send_empty().ok()?;
        let view: Value = serde_json::from_reader(answer.into_body().into_reader()).ok()?;
        view["ticket"].as_str().map(str::to_owned)
    }

    /// How often the speaker has had to connect.
    pub(crate) fn connections(&self) -> u32 {
        self.speaker.state().connections
    }

    /// Looks at the memory and files of all roles from now on.
    pub(crate) fn watch(&self) -> Watch {
        let path = self.server.data().join("run/addresses.json");
        Watch::start(move || roles(&path))
    }

    /// Looks at ladder and verdict from now on.
    pub(crate) fn look(&self) -> Result<Lookout> {
        let agent = self.agent(ASK)?;
        let authorization = format!("Bearer {}", self.server.token()?);
        let ladder = self.server.url("control", "/api/ladder")?;
        let verdict = self.server.url("control", &format!("/api/events/{}/verdict", self.event.event))?;
        Ok(Lookout::start(move |seen| {
            let ask = |url: &str| -> Option<Value> {
                let answer = agent.get(url).header("authorization", &authorization).call().ok()?;
                serde_json::from_reader(answer.into_body().into_reader()).ok()
            };
            match ask(&ladder).and_then(|view| view["level"].as_u64()) {
                Some(level) => seen.level = seen.level.max(level),
                None => seen.silent += 1,
            }
            if let Some(class) = ask(&verdict).and_then(|view| view["class"].as_str().map(str::to_owned)) {
                seen.verdicts.insert(class);
            }
        }))
    }

    /// How many listen, as everybody is told.
    pub(crate) fn listeners(&self) -> Result<u64> {
        let url = self.server.url("control", &format!("/api/events/{}/status", self.event.event))?;
        let answer = self.agent(ASK)?.get(&url).call()?;
        let status: Value = serde_json::from_reader(answer.into_body().into_reader())?;
        status["listeners"].as_u64().with_context(|| format!("listeners were expected in {status}"))
    }

    /// Ends the event, and looks at its recording.
    pub(crate) fn close(self) -> Result<Kept> {
        let event = &self.event.event;
        wait_for("the event's end", RECORDED, || {
            // A stage that was killed this very moment is back soon.
            let ended = self.server.command(&["event", "end", event]);
            let stage = self.server.stage(event)?;
            if stage["state"] == "ended" { Ok(Some(())) } else { ended.map(|_| None) }
        })?;
        let stage = self.server.stage(event)?;
        let due = due(&stage)?;
        let url = self.server.url("files", &format!("/e/{event}/recording.opus-48.mp4"))?;
        let agent = self.agent(DOWNLOAD)?;
        let mut kept = Kept::default();
        let whole = wait_for("the whole recording", RECORDED, || {
            kept = download(&agent, &url)?;
            ensure!(kept.last >= Some(due.1), "it ends with part {:?}, not {}", kept.last, due.1);
            Ok(Some(()))
        });
        kept.complete = whole.is_ok() && kept.first.is_some_and(|first| first <= due.0);
        kept.connections = self.connections();
        kept.live_late_ms = time(&stage, "live_at")
            .map(|live| live.as_millis() - self.starts_at.as_millis())
            .unwrap_or(i64::MAX);
        Ok(kept)
    }
}

/// What was kept of an event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) first: Option<PartNumber>,
    pub(crate) last: Option<PartNumber>,
    pub(crate) parts: u64,
    /// Parts that were never made, or are not there.
    pub(crate) gaps: u64,
    /// It holds everything from on air to the end.
    pub(crate) complete: bool,
    /// How often the speaker had to connect.
    pub(crate) connections: u32,
    /// How late it was on air, ms.
    pub(crate) live_late_ms: i64,
}

impl Kept {
    fn add(&mut self, number: PartNumber, kind: Option<PartKind>) {
        if let Some(last) = self.last {
            self.gaps += number.get().saturating_sub(last.get() + 1);
        }
        self.first.get_or_insert(number);
        self.last = Some(number);
        self.parts += 1;
        self.gaps += u64::from(kind == Some(PartKind::Gap));
    }
}

fn download(agent: &ureq::Agent, url: &str) -> Result<Kept> {
    let answer = agent.get(url).call().with_context(|| format!("cannot download {url}"))?;
    let mut body = answer.into_body().into_reader();
    let mut splitter = StreamSplitter::new();
    let (mut kept, mut buffer) = (Kept::default(), vec![0; 64 * 1024]);
    loop {
        let count = std::io::Read::read(&mut body, &mut buffer).context("the download broke off")?;
        if count == 0 {
            return Ok(kept);
        }
        splitter.push(&buffer[..count]);
        while let Some(item) = splitter.next().context("the recording cannot be read")? {
            let StreamItem::Part(part) = item else { continue };
            let (found, _) = FoundPart::read_cmaf(&part).context("a part cannot be read")?;
            kept.add(found.number, found.kind);
        }
    }
}

/// The parts that hold the moments of going on air and of the end. Times of the snapshot are rounded to a millisecond.
fn due(stage: &Value) -> Result<(PartNumber, PartNumber)> {
    let doors = time(stage, "doors_at").context("an event without doors")?;
    let at = |name: &str, by: Duration| -> Result<PartNumber> {
        let moment = time(stage, name).with_context(|| format!("an event without {name}"))?;
        Ok(MediaTime::from_duration(moment.since(doors).saturating_sub(by)).part())
    };
    // The first may begin a part later, at the next one's beginning.
    Ok((at("live_at", Duration::ZERO)?.next(), at("ended_at", Duration::from_millis(2))?))
}

/// A time of the stage's snapshot.
pub(crate) fn time(stage: &Value, name: &str) -> Option<UnixTime> {
    UnixTime::parse(stage[name].as_str()?).ok()
}

fn doors(server: &Server) -> Result<Doors> {
    let at = |name: &str| -> Result<SocketAddr> {
        let door = server.door(name)?;
        door.parse().with_context(|| format!("{door} is no address"))
    };
    Ok(Doors { control: at("control")?, push: at("push")?, files: at("files")?, media: at("stage_udp")? })
}

/// Roles and their processes, as the supervisor has them now.
fn roles(addresses: &Path) -> Vec<(String, u32)> {
    let text = std::fs::read_to_string(addresses).unwrap_or_default();
    let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let pid = |value: &Value| value.as_u64().and_then(|pid| u32::try_from(pid).ok());
    let mut roles = Vec::new();
    for role in ["origin", "control"] {
        roles.extend(pid(&value["pids"][role]).map(|pid| (role.to_owned(), pid)));
    }
    for (index, edge) in value["pids"]["edges"].as_array().into_iter().flatten().enumerate() {
        roles.extend(pid(edge).map(|pid| (format!("edge-{index}"), pid)));
    }
    roles
}

/// Does something, and whatever it starts is tied to this core.
fn on_core<T>(core: Option<usize>, what: impl FnOnce() -> T) -> Result<T> {
    let Some(core) = core else { return Ok(what()) };
    if core >= CpuSet::MAX_CPU {
        bail!("there is no core {core}");
    }
    let before = sched_getaffinity(None)?;
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot keep to core {core}"))?;
    let done = what();
    sched_setaffinity(None, &before)?;
    Ok(done)
}

/// What ladder and verdict said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// The highest level.
    pub(crate) level: u64,
    /// Looks that control did not answer.
    pub(crate) silent: u64,
    /// All verdicts there were.
    pub(crate) verdicts: BTreeSet<String>,
}

/// Looks once a second.
pub(crate) struct Lookout {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Lookout {
    fn start(look: impl Fn(&mut Seen) + Send + 'static) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let (ends, kept) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let mut now = Seen::default();
            while !ends.load(Ordering::Relaxed) {
                let begun = Instant::now();
                look(&mut now);
                now.clone_into(&mut kept.lock().unwrap_or_else(PoisonError::into_inner));
                std::thread::sleep(LOOK.saturating_sub(begun.elapsed()));
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    /// What it saw.
    pub(crate) fn end(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_or_was_never_made_is_a_gap() {
        let mut kept = Kept::default();
        let number = PartNumber::new;
        kept.add(number(10), Some(PartKind::Live));
        kept.add(number(11), Some(PartKind::Gap));
        kept.add(number(15), Some(PartKind::Hold));
        assert_eq!((kept.parts, kept.gaps), (3, 4));
        assert_eq!((kept.first, kept.last), (Some(number(10)), Some(number(15))));
    }

    #[test]
    fn roles_are_as_the_supervisor_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("addresses.json");
        assert!(roles(&path).is_empty());
        let pids = json!({"pids": {"supervisor": 1, "origin": 2, "control": null, "edges": [4, null, 6]}});
        std::fs::write(&path, pids.to_string()).unwrap();
        let expected =
            [("origin", 2), ("edge-0", 4), ("edge-2", 6)].map(|(role, pid)| (role.to_owned(), pid));
        assert_eq!(roles(&path), expected);
    }

    #[test]
    fn the_recording_is_due_from_on_air_to_the_end() {
        let stage = json!({
            "doors_at": "2026-11-23T07:00:00Z", "live_at": "2026-11-23T07:00:04.8Z", "ended_at": "2026-11-23T07:00:09.6Z",
        });
        let (first, last) = due(&stage).unwrap();
        assert_eq!((first.get(), last.get()), (11, 19));
        assert!(due(&json!({})).is_err());
    }

    #[test]
    fn the_configuration_is_what_was_asked() {
        let setup = HallSetup { tls: true, edges: 2, listeners_max: 700, starts_in_s: 3.0, core: None };
        let text = setup.config();
        assert!(text.contains("listeners_max = 700") && text.contains("self_signed = true"));
    }
}
