//! The show on air, and the book of what was asked and answered.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use acceptance::server::{Links, Server};
use acceptance::signal::{RATE, tone_db};
use acceptance::{ffmpeg, wait_for};
use anyhow::{Context as _, Result, ensure};
use archive::Recording;
use model::{EventSlug, PartKind, PartNumber, Rendition, UnixTime};
use rehearse::{PushConfig, PushListener, Speaker, SpeakerConfig, Tone};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::exchange::{Answer, Request};

/// What the speaker on air says.
const HZ: u32 = 800;
pub(crate) const JSON: &str = "application/json";
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A show on air: a speaker who speaks and a listener who listens through everything that follows.
pub(crate) struct OnAir {
    pub(crate) speaker: Speaker,
    pub(crate) listener: PushListener,
    _runtime: Runtime,
    pub(crate) event: Links,
    /// What the data directory lies on, if that is its own; gone before the server's directory is removed.
    _disk: Option<Mounted>,
    pub(crate) server: Server,
    pids: Vec<u32>,
}

impl OnAir {
    pub(crate) fn start(server: Server) -> Result<Self> {
        let event = server.create_event(2.0, &[])?;
        let whip = format!("http://{}/whip/{}", server.door("stage")?, event.event);
        let tone = Tone { hz: HZ, peak: 0.25 };
        let mut config = SpeakerConfig::new(whip, &event.speaker_invites[0], tone);
        // A machine that stands still for a moment is not what these tests look for.
        config.silence_limit = Duration::from_secs(5);
        let speaker = Speaker::start(config)?;
        ensure!(speaker.wait_connected(LONG), "{:?}", speaker.state());
        server.wait_state(&event.event, "live", LONG)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let address = format!("http://{}/live/{}/opus-48.mp4", server.door("push")?, event.event);
        let listener = {
            let _inside = runtime.enter();
            PushListener::start(PushConfig::new(&address))
        };
        let mut show =
            Self { speaker, listener, _runtime: runtime, event, _disk: None, server, pids: Vec::new() };
        show.pids = show.pids_now()?;
        show.hear_more(3)?;
        Ok(show)
    }

    /// With the file system that its data directory lies on.
    pub(crate) fn on_disk(self, disk: Mounted) -> Self {
        Self { _disk: Some(disk), ..self }
    }

    pub(crate) fn pids_now(&self) -> Result<Vec<u32>> {
        ["supervisor", "origin", "control", "edge-0"].iter().map(|role| self.server.pid(role)).collect()
    }

    pub(crate) fn newest(&self) -> u64 {
        self.listener.look(|report| report.newest().map_or(0, PartNumber::get))
    }

    /// Waits until the listener has `parts` more.
    pub(crate) fn hear_more(&self, parts: u64) -> Result<()> {
        let before = self.newest();
        wait_for("more to be heard", LONG, || Ok((self.newest() >= before + parts).then_some(())))
    }

    pub(crate) fn slug(&self) -> Result<EventSlug> {
        Ok(self.event.event.parse()?)
    }

    pub(crate) fn alarms(&self) -> Result<Vec<String>> {
        let alarms = self.server.stage(&self.event.event)?["alarms"].take();
        Ok(serde_json::from_value(alarms)?)
    }

    /// Sources of a seat, as the stage shows them.
    pub(crate) fn sources(&self, seat: usize) -> Result<u64> {
        self.server.stage(&self.event.event)?["seats"][seat]["sources"].as_u64().context("sources of a seat")
    }

    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let text = Request::new("GET", "/metrics").send(&self.server.door("stage")?)?.text();
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().parse()?)
    }

    /// Ends the show and looks at what is left of it: nobody came back, nothing is missing, nothing has leaked.
    pub(crate) fn end(self, directories: &[PathBuf], secrets: &[String]) -> Result<()> {
        let event = self.event.event.clone();
        self.hear_more(2)?;
        assert_eq!(self.pids_now()?, self.pids, "no process died");
        let state = self.speaker.state();
        assert_eq!((state.connections, state.failures), (1, 0), "the speaker never came back: {state:?}");
        self.server.command(&["event", "end", &event])?;
        self.server.wait_state(&event, "ended", LONG)?;
        wait_for("the listener's end", LONG, || Ok(self.listener.look(|report| report.ended).then_some(())))?;
        let report = self.listener.report();
        assert_eq!(report.connections, 1, "the listener never came back: {:?}", report.errors);
        assert!(
            report.is_contiguous() && report.missed == 0,
            "the listener missed parts: {:?}",
            report.errors
        );

        let recording = wait_for("the recording to be finished", LONG, || {
            let recording = Recording::open(directories, &self.slug()?)?;
            Ok(recording.is_finished().then_some(recording))
        })?;
        let range = recording.parts();
        assert_eq!(range.start.get(), 0);
        for number in (range.start.get()..range.end.get()).map(PartNumber::new) {
            let entry =
                recording.entry(Rendition::Opus48, number).with_context(|| format!("part {number}"))?;
            assert_ne!(entry.kind, PartKind::Gap, "part {number} is a gap");
            if let Some(heard) = report.parts.iter().find(|part| part.number == number) {
                assert_eq!(heard.digest, entry.digest, "part {number} is recorded as it was heard");
            }
        }
        assert_eq!(report.newest().map(PartNumber::next), Some(range.end), "all that was made was heard");
        let address = format!("http://{}/e/{event}/recording.opus-48.mp4", self.server.door("files")?);
        let samples = ffmpeg::listen(&[], &address, 3_600.0)?.samples;
        let level = |second: &[f32]| tone_db(second, f64::from(HZ), RATE as f64);
        let levels: Vec<f64> = samples.chunks_exact(RATE).map(level).collect();
        let live = levels.iter().position(|level| *level > -40.0).context("the speaker is not recorded")?;
        let silent: Vec<usize> = (live + 1..levels.len() - 1).filter(|at| levels[*at] < -40.0).collect();
        assert!(silent.is_empty(), "the speaker is missing in seconds {silent:?}: {levels:.0?}");
        println!(
            "{event}: {} parts recorded, no gap; {} heard in one connection; the voice is in each of {} seconds",
            recording.count(),
            report.parts.len(),
            levels.len() - live
        );

        let log = std::fs::read_to_string(self.server.data().with_extension("log")).context("the log")?;
        assert!(!log.contains("panicked"), "a panic in the log");
        let token = self.server.token()?;
        for secret in
            self.event.speaker_invites.iter().chain([&self.event.host_invite, &token]).chain(secrets)
        {
            assert!(!log.contains(secret.as_str()), "a secret is in the log: {secret:.12}…");
        }
        Ok(())
    }
}

/// What was asked and what came of it; wrong answers are gathered, so that one run shows them all.
#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) right: usize,
    pub(crate) wrong: Vec<String>,
    pub(crate) secrets: Vec<String>,
}

impl Checks {
    pub(crate) fn judge(&mut self, what: &dyn Debug, verdict: Result<String>) {
        match verdict {
            Ok(said) => {
                self.right += 1;
                println!("  {what:?}: {said}");
            }
            Err(error) => {
                println!("  WRONG: {what:?}: {error:#}");
                self.wrong.push(format!("{what:?}: {error:#}"));
            }
        }
    }

    /// The answer is this problem (RFC 9457), and its text has each of `names`.
    pub(crate) fn refused(
        &mut self,
        what: impl Debug,
        answer: Result<Answer>,
        status: u16,
        kind: &str,
        names: &[&str],
    ) -> Option<Answer> {
        let judged = answer.and_then(|answer| {
            let text = answer.text();
            ensure!(answer.status == status, "{status} expected: {} {text}", answer.head);
            ensure!(answer.header("content-type") == Some("application/problem+json"), "{}", answer.head);
            let problem = answer.json()?;
            ensure!(problem["type"] == format!("urn:minassa:problem:{kind}"), "{kind} expected: {text}");
            ensure!(problem["status"] == status, "{text}");
            let lacks = names.iter().find(|name| !text.contains(**name));
            ensure!(lacks.is_none(), "{lacks:?} is not named: {text}");
            Ok(answer)
        });
        let (verdict, answer) = match judged {
            Ok(answer) => (Ok(format!("{status} {kind}")), Some(answer)),
            Err(error) => (Err(error), None),
        };
        self.judge(&what, verdict);
        answer
    }

    /// The answer has this status.
    pub(crate) fn status(&mut self, what: impl Debug, answer: Result<Answer>, status: u16) -> Option<Answer> {
        let (verdict, answer) = match answer {
            Ok(answer) if answer.status == status => (Ok(status.to_string()), Some(answer)),
            Ok(answer) => {
                (Err(anyhow::anyhow!("{status} expected: {} {}", answer.head, answer.text())), None)
            }
            Err(error) => (Err(error), None),
        };
        self.judge(&what, verdict);
        answer
    }

    pub(crate) fn holds(&mut self, what: impl Debug, holds: bool, but: impl Debug) {
        self.judge(&what, if holds { Ok("yes".into()) } else { Err(anyhow::anyhow!("{but:?}")) });
    }
}

pub(crate) fn in_an_hour() -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    Ok(UnixTime::from_millis(i64::try_from(now)? + 3_600_000).to_string())
}

pub(crate) fn post(path: &str, token: &str, body: &Value) -> Request {
    Request::new("POST", path).bearer(token).body(JSON, body.to_string())
}

/// A file system of its own on a directory, for as long as this lives; only root can make one.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// Nothing if this process may not, which is said.
    pub(crate) fn tmpfs(at: &Path, options: &str) -> Result<Option<Self>> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output()?;
        if mounted.status.success() {
            return Ok(Some(Self(at.to_owned())));
        }
        println!(
            "left out, it needs a file system of its own: {}",
            String::from_utf8_lossy(&mounted.stderr).trim()
        );
        Ok(None)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What still runs on it keeps it until it ends.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
