//! `demo`: a whole event on this machine.
//!
//! A server of its own on a fresh directory, an event, and speakers who come in through real WebRTC with recorded
//! voices. Nothing in it is a short cut: the server is `minassa serve`, the event is made through the API, the
//! speakers hold invitations, and what is checked at the end was downloaded like anybody would.

mod progress;
mod recording;
mod server;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use model::{MediaTime, PartNumber, UnixTime};
use rehearse::{Clip, Phase, PushConfig, PushListener, Speaker, SpeakerConfig};
use serde_json::{Value, json};

use crate::cli::ServerFlags;
use crate::client::Client;
use progress::{Progress, Sight};
use recording::Recording;
use server::DemoServer;

/// The built-in voices, made for the project (`assets/make-voices.sh`). They take turns.
const VOICES: [(&str, &[u8]); 2] = [
    ("English voice", include_bytes!("../../assets/voice-en.opus")),
    ("صوت عربي", include_bytes!("../../assets/voice-ar.opus")),
];
/// How long after the announced start the show may go live at the latest.
const LATE_MAX: Duration = Duration::from_secs(15);
/// How long the recording may take to be complete after the end.
const RECORDING_MAX: Duration = Duration::from_secs(15);
/// How often the state is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Most speakers.
const SPEAKERS_MAX: usize = 13;

/// Flags of `demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoFlags {
    /// Audio file of a speaker, repeated for ever; may be given several times [default: two built-in voices].
    #[arg(long, value_name = "FILE")]
    speaker: Vec<PathBuf>,
    /// Minutes on air.
    #[arg(long, value_name = "M", default_value_t = 3.0)]
    minutes: f64,
    /// Seconds until the start.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    starts_in: f64,
    /// Directory to serve from; it is kept [default: a temporary one].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep the temporary directory.
    #[arg(long, conflicts_with = "data")]
    keep: bool,
    /// Edge processes [default: one for each core].
    #[arg(long, value_name = "N")]
    edges: Option<u16>,
}

/// Runs the demonstration.
///
/// # Errors
/// If the server does not come up, the show does not go on air, or the recording is not complete.
pub fn run(flags: DemoFlags) -> anyhow::Result<()> {
    let in_range = |name: &str, value: f64, range: std::ops::RangeInclusive<f64>| {
        if range.contains(&value) { Ok(()) } else { bail!("--{name} {value} is not allowed: {range:?}") }
    };
    in_range("minutes", flags.minutes, 0.05..=1_440.0)?;
    in_range("starts-in", flags.starts_in, 3.0..=86_400.0)?;
    if flags.speaker.len() > SPEAKERS_MAX {
        bail!("{} speakers are too many: at most {SPEAKERS_MAX}", flags.speaker.len());
    }
    let voices = read_voices(&flags.speaker)?;

    let (data, temporary) = match &flags.data {
        Some(data) => (data.clone(), None),
        None => {
            let directory = tempfile::Builder::new().prefix("minassa-demo-").tempdir()?;
            (directory.path().to_owned(), Some(directory))
        }
    };
    let interrupted = catch_interrupts()?;
    let progress = Arc::new(Progress::new());
    let config =
        ServerFlags { data: Some(data.clone()), edges: flags.edges, ..ServerFlags::default() }.load()?;
    let server = DemoServer::start(config, &data, &progress, &interrupted)?;
    let result = Show::new(&flags, &server, &progress, &interrupted).and_then(|mut show| show.run(voices));
    progress.finish();

    if result.is_ok() && io::stdout().is_terminal() && !interrupted.load(Ordering::Relaxed) {
        progress.line("The server goes on until Ctrl-C.");
        while !interrupted.load(Ordering::Relaxed) && !server.is_gone() {
            std::thread::sleep(LOOK);
        }
    }
    server.stop()?;
    match temporary {
        Some(directory) if flags.keep || result.is_err() => {
            let kept = directory.keep();
            progress.line(&format!("Everything is kept in {} (the log: demo.log).", kept.display()));
        }
        Some(directory) => directory.close().context("cannot remove the temporary directory")?,
        None => progress.line(&format!("Everything is in {}.", data.display())),
    }
    result
}

/// Names and voices of the speakers.
fn read_voices(files: &[PathBuf]) -> anyhow::Result<Vec<(String, Clip)>> {
    if files.is_empty() {
        let decode = |(name, bytes): &(&str, &[u8])| Ok(((*name).to_owned(), Clip::decode(bytes)?));
        return VOICES.iter().map(decode).collect();
    }
    let read = |path: &PathBuf| {
        let cannot = || format!("cannot use {} as a voice", path.display());
        let clip = Clip::decode(&std::fs::read(path).with_context(cannot)?).with_context(cannot)?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Ok((name, clip))
    };
    files.iter().map(read).collect()
}

/// Set by the first Ctrl-C or SIGTERM. The second one ends the process as usual.
fn catch_interrupts() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(interrupted)
}

/// The event and those who take part.
struct Show<'a> {
    flags: &'a DemoFlags,
    server: &'a DemoServer,
    client: Client,
    progress: &'a Progress,
    interrupted: &'a AtomicBool,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Show<'a> {
    fn new(
        flags: &'a DemoFlags,
        server: &'a DemoServer,
        progress: &'a Progress,
        interrupted: &'a AtomicBool,
    ) -> anyhow::Result<Self> {
        let client = Client::of(server.data(), None)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { flags, server, client, progress, interrupted, runtime })
    }

    fn run(&mut self, voices: Vec<(String, Clip)>) -> anyhow::Result<()> {
        let names: Vec<_> = voices.iter().map(|(name, _)| name.clone()).collect();
        let starts_at = backend::clock::unix_now().plus(Duration::from_secs_f64(self.flags.starts_in));
        let links = self.create(&names, starts_at)?;
        let event = text(&links["event"])?.to_owned();
        self.print_links(&links, starts_at)?;

        let speakers = self.bring_in(voices, &event, &links)?;
        let listener = self.listen(&event);
        let (live_at, _) = self.wait_live(&event, starts_at, &speakers)?;
        let length = Duration::from_secs_f64(self.flags.minutes * 60.0);
        self.stay_live(&event, live_at, length, &speakers, &listener)?;

        self.end(&event)?;
        for speaker in speakers {
            speaker.leave();
        }
        let report = self.runtime.block_on(async {
            listener.wait(Duration::from_secs(10), |report| report.ended.then_some(())).await;
            listener.stop().await
        });
        let recording = self.check_recording(&event)?;
        self.progress.finish();
        self.progress.line(&format!(
            "The event has ended. The replay is at the same link: {}",
            text(&links["listen"])?
        ));
        self.progress.line(&recording.describe());
        // Who came before doors was asked to come again.
        let streams = report.connections - report.refused;
        self.progress.line(&format!(
            "Our own listener received parts {} to {} over {} connection{} and missed {}.",
            report.parts.first().map(|part| part.number).unwrap_or_default(),
            report.newest().unwrap_or_default(),
            streams,
            if streams == 1 { "" } else { "s" },
            report.missed
        ));
        self.progress.line(&format!("Download: {}", self.server.recording_url(&event)));
        Ok(())
    }

    fn create(&self, names: &[String], starts_at: UnixTime) -> anyhow::Result<Value> {
        let body = json!({
            "title": "A demonstration of Minassa",
            "title_ar": "عرض منصّة",
            "starts_at": starts_at.to_string(),
            "duration_s": (self.flags.minutes * 60.0).ceil() as u64,
            "speakers": names,
        });
        self.client.control("POST", "/api/events", Some(&body)).context("cannot create the event")
    }

    fn print_links(&self, links: &Value, starts_at: UnixTime) -> anyhow::Result<()> {
        let line = |text: &str| self.progress.line(text);
        let minutes = self.flags.minutes;
        let unit = if minutes == 1.0 { "minute" } else { "minutes" };
        line(&format!("An event starts at {starts_at} and is on air for {minutes} {unit}."));
        line(&format!("  listen     {}", text(&links["listen"])?));
        // These links are invitations; they open nothing but this event on this machine.
        line(&format!("  on stage   {}   (as the host: speak, hold, end)", text(&links["host"])?));
        line(&format!("  HLS        {}", self.server.hls_url(text(&links["event"])?)));
        line(&format!("  kept in    {}", self.server.data().display()));
        Ok(())
    }

    fn bring_in(
        &self,
        voices: Vec<(String, Clip)>,
        event: &str,
        links: &Value,
    ) -> anyhow::Result<Vec<Speaker>> {
        let invites = links["invites"]["speakers"].as_array().context("the answer has no invitations")?;
        let whip = self.server.whip_url(event);
        voices
            .into_iter()
            .zip(invites)
            .enumerate()
            .map(|(index, ((_, clip), invite))| {
                let mut config = SpeakerConfig::new(&whip, text(invite)?, clip);
                config.seed = index as u64;
                config.trust = self.server.trust().clone();
                Speaker::start(config).context("cannot start a speaker")
            })
            .collect()
    }

    fn listen(&self, event: &str) -> PushListener {
        let _inside = self.runtime.enter();
        let config = PushConfig::new(self.server.push_url(event));
        PushListener::start(PushConfig { trust: self.server.trust().clone(), ..config })
    }

    /// Waits until the show is live; when that was by our clock, and what the stage says.
    fn wait_live(
        &self,
        event: &str,
        starts_at: UnixTime,
        speakers: &[Speaker],
    ) -> anyhow::Result<(Instant, Value)> {
        loop {
            self.check_on()?;
            let now = backend::clock::unix_now();
            let stage = self.client.stage("GET", event, "", None).ok();
            let state = stage.as_ref().and_then(|stage| stage["state"].as_str()).unwrap_or("scheduled");
            if state == "live"
                && let Some(stage) = stage
            {
                let live_at = stage["live_at"].as_str().and_then(|time| UnixTime::parse(time).ok());
                let late = live_at.map(|at| at.since(starts_at)).unwrap_or_default();
                self.progress.state(&format!("On air, {} ms after the announced time.", late.as_millis()));
                let since = live_at.map(|at| now.since(at)).unwrap_or_default();
                return Ok((Instant::now() - since, stage));
            }
            let connected = connected(speakers);
            if now.since(starts_at) > LATE_MAX {
                let states: Vec<_> = speakers.iter().map(Speaker::state).collect();
                bail!("the show is not live {LATE_MAX:?} after its start; the speakers: {states:?}");
            }
            let until = starts_at.since(now);
            self.progress.show(&Sight::Waiting { state, until, connected, speakers: speakers.len() });
            std::thread::sleep(LOOK);
        }
    }

    fn stay_live(
        &self,
        event: &str,
        live_at: Instant,
        length: Duration,
        speakers: &[Speaker],
        listener: &PushListener,
    ) -> anyhow::Result<()> {
        while live_at.elapsed() < length && !self.interrupted.load(Ordering::Relaxed) {
            if self.server.is_gone() {
                bail!("the server is gone; see {}", self.server.log().display());
            }
            // A process that was killed on purpose is back within seconds: what cannot be asked now is asked later.
            let stage = self.client.stage("GET", event, "", None).unwrap_or(Value::Null);
            if stage["state"] == "ended" {
                self.progress.state("The host has ended the event.");
                return Ok(());
            }
            let status = self
                .client
                .control("GET", &format!("/api/events/{event}/status"), None)
                .unwrap_or(Value::Null);
            let (newest, missed) = listener.look(|report| (report.newest(), report.missed));
            self.progress.show(&Sight::OnAir {
                state: stage["state"].as_str().unwrap_or("…"),
                elapsed: live_at.elapsed(),
                length,
                listeners: status["listeners"].as_u64(),
                part: newest.map(PartNumber::get),
                missed,
                recorded: stage["recorded_through"].as_u64(),
                connected: connected(speakers),
                speakers: speakers.len(),
            });
            std::thread::sleep(LOOK.min(length.saturating_sub(live_at.elapsed())));
        }
        Ok(())
    }

    /// Ends the event, unless the host has. A stage that was killed this very moment is back soon.
    fn end(&self, event: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + RECORDING_MAX;
        loop {
            let ended = self.client.stage("POST", event, "/state", Some(&json!({"state": "ended"})));
            let state = self.client.stage("GET", event, "", None);
            if state.is_ok_and(|stage| stage["state"] == "ended") {
                return Ok(());
            }
            if let Err(error) = ended
                && Instant::now() >= deadline
            {
                return Err(error.context("cannot end the event"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Downloads the recording until it holds the moment of the end.
    fn check_recording(&self, event: &str) -> anyhow::Result<Recording> {
        let deadline = Instant::now() + RECORDING_MAX;
        let url = self.server.recording_url(event);
        loop {
            let last = self.client.stage("GET", event, "", None).and_then(|stage| last_part(&stage));
            match (recording::download(&url, self.server.trust()), last) {
                (Ok(recording), Ok(last)) if recording.last >= last => {
                    recording.check()?;
                    return Ok(recording);
                }
                (found, last) if Instant::now() >= deadline => {
                    let found = found.map(|recording| recording.describe());
                    bail!("the recording is not complete: found {found:?}, wanted up to {last:?}");
                }
                _ => std::thread::sleep(LOOK),
            }
        }
    }

    fn check_on(&self) -> anyhow::Result<()> {
        if self.interrupted.load(Ordering::Relaxed) {
            bail!("interrupted before the show");
        }
        if self.server.is_gone() {
            bail!("the server is gone; see {}", self.server.log().display());
        }
        Ok(())
    }
}

/// The part that holds the moment of the end. Times of the snapshot are rounded to a millisecond.
fn last_part(stage: &Value) -> anyhow::Result<PartNumber> {
    let doors = UnixTime::parse(text(&stage["doors_at"])?)?;
    let ended = UnixTime::parse(text(&stage["ended_at"])?)?;
    let rounding = Duration::from_millis(2);
    Ok(MediaTime::from_duration(ended.since(doors).saturating_sub(rounding)).part())
}

fn connected(speakers: &[Speaker]) -> usize {
    speakers.iter().filter(|speaker| speaker.state().phase == Phase::Connected).count()
}

fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().context("the server's answer lacks a text")
}

/// Says where the demonstration's log is.
fn log_path(data: &Path) -> PathBuf {
    data.join("demo.log")
}

/// Writes a line to standard output; if that is gone nobody reads it.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}
