//! `rehearse`: crowds against a running server.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::{EventSlug, Rendition};
use rehearse::crowd::{self, CrowdConfig, CrowdError, CrowdReport, Kind, Phase, Sight, Storm, Target, Trust};

/// Hidden command of the load processes.
const SHARE: &str = "share";

/// Commands about crowds.
#[derive(Debug, Subcommand)]
pub enum RehearseCommand {
    /// Send thousands of listeners to a server, and say what they got and what they cost it.
    ///
    /// A run takes listeners/ramp + settle + window seconds. Tie the server to one core and this to another
    /// (taskset), or the figures mix; a run whose own core was over 85 % busy is said to be void.
    Listeners(Box<ListenersFlags>),
    /// One load process: reads its share on standard input.
    #[command(hide = true)]
    Share,
}

/// What each of the crowd is.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum ListenerKind {
    /// One endless response: the pushed stream, or Ogg.
    #[default]
    Push,
    /// A player of HLS with whole segments.
    Hls,
    /// A reader of a recording in ranges.
    Ranges,
}

/// Flags of `rehearse listeners`.
#[derive(Clone, Debug, Args)]
pub struct ListenersFlags {
    /// Address of the stream or playlist; may be given several times. With --event the door alone:
    /// http://127.0.0.1:8081.
    #[arg(long, required = true, value_name = "URL")]
    pub url: Vec<String>,
    /// Event to listen to.
    #[arg(long, value_name = "SLUG")]
    pub event: Option<EventSlug>,
    /// Rendition: opus-48, opus-24.
    #[arg(long, value_name = "NAME", default_value = "opus-48", requires = "event")]
    pub rendition: Rendition,
    /// Parts a flush: 1, 2, 4 or 8.
    #[arg(long, value_name = "PARTS", default_value_t = 1)]
    pub tier: u64,
    /// First part to ask for [default: the live edge].
    #[arg(long, value_name = "PART")]
    pub from: Option<u64>,
    /// What each of them is.
    #[arg(long, value_enum, default_value = "push")]
    pub kind: ListenerKind,
    /// How many come.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub listeners: usize,
    /// How many a second.
    #[arg(long, value_name = "R", default_value_t = 500.0)]
    pub ramp: f64,
    /// Seconds between the last one and the window.
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    pub settle: f64,
    /// Seconds that are measured.
    #[arg(long, value_name = "S", default_value_t = 20.0)]
    pub window: f64,
    /// Listeners on top that come all at once in the window.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub storm: usize,
    /// Seconds within which they come.
    #[arg(long, value_name = "S", default_value_t = 4.0)]
    pub storm_over: f64,
    /// Readers on top that take one byte a second.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub slow: usize,
    /// Readers on top that take nothing.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub never: usize,
    /// Listeners a second that leave in the window, and others come.
    #[arg(long, value_name = "R", default_value_t = 0.0)]
    pub churn: f64,
    /// Whoever is cut off comes back within so many seconds and goes on with the part after the last it has.
    #[arg(long, value_name = "S")]
    pub rejoin: Option<f64>,
    /// Whoever is cut off or not let in comes back as the page does: soon, then ever later, and when the server asks.
    #[arg(long, conflicts_with = "rejoin")]
    pub rejoin_as_page: bool,
    /// Bytes of audio that a part of a fuller rendition has at least, to see listeners being moved; 0: not looked at.
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    pub fuller_bytes: u64,
    /// A longer silence is a stall, seconds [default: 3 and one flush].
    #[arg(long, value_name = "S", default_value_t = 0.0, hide_default_value = true)]
    pub stall: f64,
    /// Take any certificate, and check no signature.
    #[arg(long)]
    pub any_certificate: bool,
    /// Certificates to trust, PEM [default: the system's].
    #[arg(long, value_name = "FILE", conflicts_with = "any_certificate")]
    pub ca: Option<PathBuf>,
    /// Resume TLS sessions.
    #[arg(long)]
    pub resume: bool,
    /// Look at the sockets this often only, so that the server does not pay for waking this process; 0: at once.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 1_000)]
    pub coalesce_us: u64,
    /// Maximum segment size, so that loopback cuts as a network does; 0: the device's.
    #[arg(long, value_name = "BYTES", default_value_t = 1_448)]
    pub mss: u32,
    /// With --kind ranges: bytes a range.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    pub range_bytes: u64,
    /// With --kind ranges: seconds from one to the next.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub range_every: f64,
    /// Load processes [default: one for each 19,500 listeners].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub processes: usize,
    /// Process of the server, to be sampled with everything below it; may be given several times.
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub server_pid: Vec<u32>,
    /// Core the server is tied to; may be given several times.
    #[arg(long, value_name = "CORE", value_delimiter = ',')]
    pub server_core: Vec<usize>,
    /// Where the draws begin.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Copied into the report.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub label: String,
    /// Write the report there too, as JSON.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Without it only this machine and private networks are targets.
    #[arg(long)]
    pub i_own_this_server: bool,
}

impl ListenersFlags {
    fn config(&self) -> CrowdConfig {
        let trust = match &self.ca {
            _ if self.any_certificate => Trust::Anything,
            Some(path) => Trust::File(path.clone()),
            None => Trust::System,
        };
        CrowdConfig {
            urls: self.url.iter().map(|url| self.address(url)).collect(),
            kind: match self.kind {
                ListenerKind::Push => Kind::Push,
                ListenerKind::Hls => Kind::Hls,
                ListenerKind::Ranges => Kind::Ranges,
            },
            listeners: self.listeners,
            ramp: self.ramp,
            settle_s: self.settle,
            window_s: self.window,
            storm: (self.storm > 0).then_some(Storm { joins: self.storm, over_s: self.storm_over }),
            slow: self.slow,
            never: self.never,
            churn: self.churn,
            rejoin_s: self.rejoin,
            rejoin_as_page: self.rejoin_as_page,
            fuller_bytes: self.fuller_bytes,
            tier: self.tier,
            stall_s: self.stall,
            trust,
            resume: self.resume,
            coalesce_us: self.coalesce_us,
            mss: self.mss,
            range_bytes: self.range_bytes,
            range_every_s: self.range_every,
            processes: self.processes,
            server_pids: self.server_pid.clone(),
            server_cores: self.server_core.clone(),
            seed: self.seed,
            label: self.label.clone(),
        }
    }

    /// The address of one of the crowd, with what the flags say of it.
    fn address(&self, url: &str) -> String {
        let mut address = match &self.event {
            Some(event) => format!("{}/live/{event}/{}.mp4", url.trim_end_matches('/'), self.rendition),
            None => url.to_owned(),
        };
        let tier = (self.tier != 1).then(|| format!("tier={}", self.tier));
        let from = self.from.map(|from| format!("from={from}"));
        for pair in [tier, from].into_iter().flatten() {
            address.push(if address.contains('?') { '&' } else { '?' });
            address.push_str(&pair);
        }
        address
    }
}

/// Does what a command of `rehearse` says.
///
/// # Errors
/// If the crowd cannot be sent out, or its report cannot be written.
pub fn run(command: &RehearseCommand) -> anyhow::Result<ExitCode> {
    match command {
        RehearseCommand::Share => {
            crowd::serve_share(io::stdin().lock(), &mut io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        RehearseCommand::Listeners(flags) => listeners(flags),
    }
}

fn listeners(flags: &ListenersFlags) -> anyhow::Result<ExitCode> {
    let config = flags.config();
    let targets = config.check().and_then(|()| config.targets());
    let refusal = match &targets {
        Err(error) => Some(error.to_string()),
        Ok(targets) => refusal(targets, flags.i_own_this_server),
    };
    if let Some(refusal) = refusal {
        writeln!(io::stderr(), "minassa: {refusal}").ok();
        return Ok(ExitCode::from(2));
    }
    let progress = Progress::new();
    let start = || Ok(share_command(std::env::current_exe()?));
    let outcome = crowd::run(&config, &start, &mut |sight| progress.show(sight));
    progress.finish();
    let report = match outcome {
        Err(CrowdError::Config(error)) => {
            writeln!(io::stderr(), "minassa: {error}").ok();
            return Ok(ExitCode::from(2));
        }
        outcome => outcome?,
    };
    print(&report, flags)?;
    Ok(ExitCode::SUCCESS)
}

/// Why these targets are no targets.
fn refusal(targets: &[Target], owned: bool) -> Option<String> {
    let far = targets.iter().find(|target| !target.is_near())?;
    (!owned).then(|| {
        format!(
            "{} is neither on this machine nor in a private network; a crowd looks like an attack to whoever did not \
             ask for it. If the server is yours, say --i-own-this-server",
            far.address
        )
    })
}

fn share_command(executable: PathBuf) -> Command {
    let mut command = Command::new(executable);
    command.args(["rehearse", SHARE]);
    command
}

fn print(report: &CrowdReport, flags: &ListenersFlags) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report)? + "\n";
    if let Some(path) = &flags.out {
        std::fs::write(path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let text = if flags.json { json } else { report.to_string() };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// A bar on a terminal, nothing in a pipe.
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        let on_terminal = io::stderr().is_terminal();
        let target = if on_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        bar.set_style(
            ProgressStyle::with_template("{bar:12} {wide_msg}").expect("the template is well-formed"),
        );
        Self(bar)
    }

    fn show(&self, sight: &Sight) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.0.set_length(millis(sight.total));
        self.0.set_position(millis(sight.elapsed));
        self.0.set_message(describe(sight));
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn describe(sight: &Sight) -> String {
    let phase = match sight.phase {
        Phase::Ramp => "they come",
        Phase::Settle => "all are there",
        Phase::Window => "measuring",
    };
    let standing = &sight.standing;
    let failed = if standing.failed > 0 { format!(", {} failed", standing.failed) } else { String::new() };
    let memory = match sight.server.rss_bytes {
        0 => String::new(),
        bytes => format!(" · server {} MiB", bytes >> 20),
    };
    format!(
        "{phase} · {:.0} of {:.0} s · {} of {} hear{failed}{memory}",
        sight.elapsed.as_secs_f64(),
        sight.total.as_secs_f64(),
        standing.hearing,
        standing.begun,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: ListenersFlags,
    }

    fn config(words: &[&str]) -> CrowdConfig {
        Line::try_parse_from(std::iter::once("x").chain(words.iter().copied())).unwrap().flags.config()
    }

    #[test]
    fn addresses_are_put_together() {
        let door = "http://127.0.0.1:8081";
        let address = |words: &[&str]| config(words).urls.remove(0);
        assert_eq!(address(&["--url", "http://a/x?y", "--tier", "2"]), "http://a/x?y&tier=2");
        assert_eq!(address(&["--url", door, "--event", "talk"]), format!("{door}/live/talk/opus-48.mp4"));
        let words =
            ["--url", door, "--event", "talk", "--rendition", "opus-24", "--from", "7", "--tier", "4"];
        assert_eq!(address(&words), format!("{door}/live/talk/opus-24.mp4?tier=4&from=7"));
    }

    #[test]
    fn the_defaults_are_the_crowd_s() {
        let urls = vec!["http://127.0.0.1/".to_owned()];
        assert_eq!(config(&["--url", "http://127.0.0.1/"]), CrowdConfig { urls, ..Default::default() });
        let storm = config(&["--url", "http://127.0.0.1/", "--storm", "9", "--any-certificate"]);
        assert_eq!(storm.storm, Some(Storm { joins: 9, over_s: 4.0 }));
        assert_eq!(storm.trust, Trust::Anything);
    }

    #[test]
    fn nobody_else_s_server_is_a_target() {
        let far = [Target::resolve("http://198.51.100.7/").unwrap()];
        assert!(refusal(&far, false).unwrap().contains("--i-own-this-server"));
        assert_eq!(refusal(&far, true), None);
        assert_eq!(refusal(&[Target::resolve("http://127.0.0.1/").unwrap()], false), None);
    }
}
