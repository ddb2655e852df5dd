//! The command line.
//!
//! Results go to standard output, diagnostics to standard error. The exit status is 0 on success, 1 on failure and 2
//! on bad usage.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use model::UnixTime;
use toml::Value;

use crate::config::{Config, ConfigError, FlagValue, LogFormat, Place, SAMPLE};
use crate::supervisor::Role;
use crate::{client, crowds, demo, doctor, draw, ladder, report, roles, supervisor, verdict};

/// The environment's variable with the operator's token for client commands.
pub const TOKEN_VARIABLE: &str = "MINASSA_TOKEN";

/// Live talk for very large audiences: one binary for everything.
#[derive(Debug, Parser)]
#[command(name = "minassa", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: supervisor, origin, control and the edges.
    Serve(ServerFlags),
    /// Run origin alone: the stage door, media, programme, recorder.
    Origin(ServerFlags),
    /// Run one edge alone: the doors of listeners.
    Edge {
        #[command(flatten)]
        flags: ServerFlags,
        /// Which edge of the machine, counted from 0.
        #[arg(long, default_value_t = 0)]
        index: u16,
    },
    /// Run control alone: API, pages, store.
    Control(ServerFlags),
    /// Show a whole event on this machine: recorded speakers come in through real WebRTC.
    Demo(demo::DemoFlags),
    /// Create and direct events of a running server.
    Event {
        #[command(subcommand)]
        command: EventCommand,
    },
    /// Send a crowd to a running server.
    Rehearse {
        #[command(subcommand)]
        command: crowds::RehearseCommand,
    },
    /// Show what the ladder has in force, and pin a level or set a cap.
    Ladder(ladder::LadderFlags),
    /// Check what was published as evidence.
    Verdict {
        #[command(subcommand)]
        command: verdict::VerdictCommand,
    },
    /// Check the draw of a waiting room.
    Draw {
        #[command(subcommand)]
        command: draw::DrawCommand,
    },
    /// Make the report of an event from its ledger, as the server does. Exits with 1 if the ledger does not hold, and says
    /// where; the report then tells what stands before that.
    Report(report::ReportFlags),
    /// Say whether this machine is fit for a show, and what to change.
    Doctor {
        #[command(flatten)]
        flags: ServerFlags,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the effective configuration, or the annotated sample.
    Config {
        #[command(flatten)]
        flags: ServerFlags,
        /// Print the sample: every key, its default and a sentence.
        #[arg(long)]
        sample: bool,
        /// Print JSON.
        #[arg(long, conflicts_with = "sample")]
        json: bool,
    },
}

/// Flags of everything that reads the configuration. A flag overrides the environment (`MINASSA_SECTION_KEY`), which
/// overrides the file.
#[derive(Clone, Debug, Default, Args)]
pub struct ServerFlags {
    /// Configuration file [default: minassa.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Pages and API [default: 127.0.0.1:8080; port 0 picks a free one].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Live streams [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDR")]
    pub push_listen: Option<SocketAddr>,
    /// The stage door [default: 127.0.0.1:8082].
    #[arg(long, value_name = "ADDR")]
    pub stage_listen: Option<SocketAddr>,
    /// The stage's media, UDP [default: as --stage-listen].
    #[arg(long, value_name = "ADDR")]
    pub media_listen: Option<SocketAddr>,
    /// HLS and recordings [default: 127.0.0.1:8083].
    #[arg(long, value_name = "ADDR")]
    pub files_listen: Option<SocketAddr>,
    /// Directory of everything the server keeps [default: ./minassa-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Edge processes [default: one for each core].
    #[arg(long, value_name = "N")]
    pub edges: Option<u16>,
    /// What is logged: error, warn, info, debug, trace, or directives [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// How a line of the log looks [default: text].
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// A configuration that is complete: neither the environment nor another flag is read.
    #[arg(long, value_name = "FILE", hide = true)]
    pub effective: Option<PathBuf>,
}

impl ValueEnum for LogFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self {
            Self::Text => "text".into(),
            Self::Json => "json".into(),
        })
    }
}

impl ServerFlags {
    /// The configuration with everything that overrides it.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        match &self.effective {
            Some(path) => Config::load_effective(path),
            None => Config::load(self.config.as_deref(), environment(), &self.values()),
        }
    }

    fn values(&self) -> Vec<FlagValue> {
        let mut values = Vec::new();
        let mut set = |flag, key, value: Option<Value>| {
            values.extend(value.map(|value| FlagValue { flag, key, value }));
        };
        let text = |value: &dyn ToString| Value::String(value.to_string());
        let address = |address: &Option<SocketAddr>| address.as_ref().map(|address| text(address));
        set("--listen", ("control", "listen"), address(&self.listen));
        set("--push-listen", ("edge", "push_listen"), address(&self.push_listen));
        set("--stage-listen", ("origin", "listen"), address(&self.stage_listen));
        // Whoever moves the stage door moves its media with it: same address, same number, another protocol.
        set("--stage-listen", ("origin", "media_listen"), address(&self.stage_listen));
        set("--media-listen", ("origin", "media_listen"), address(&self.media_listen));
        set("--files-listen", ("edge", "files_listen"), address(&self.files_listen));
        set("--data", ("server", "data"), self.data.as_ref().map(|data| text(&data.display())));
        set("--edges", ("server", "edges"), self.edges.map(|edges| Value::Integer(edges.into())));
        set("--log", ("server", "log"), self.log.as_ref().map(|log| text(log)));
        let format = self.log_format.and_then(|format| format.to_possible_value());
        set("--log-format", ("server", "log_format"), format.map(|format| text(&format.get_name())));
        values
    }
}

/// Variables that can be read; what is no text cannot be meant for us.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    })
}

/// Where a client command finds its server.
#[derive(Clone, Debug, Args)]
pub struct ServerChoice {
    /// Data directory of a server on this machine [default: as the configuration says, ./minassa-data].
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    pub data: Option<PathBuf>,
    /// Address of control elsewhere: http://host:8080.
    #[arg(long, value_name = "URL", requires = "token")]
    pub server: Option<String>,
    /// Address of the stage door elsewhere [default: where control points to].
    #[arg(long, value_name = "URL", requires = "server")]
    pub stage: Option<String>,
    /// The operator's token.
    #[arg(long, value_name = "TOKEN", env = TOKEN_VARIABLE, hide_env_values = true)]
    pub token: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Commands about events.
#[derive(Debug, Subcommand)]
pub enum EventCommand {
    /// Create an event and print its links. A link to the stage is a secret for one person.
    Create(CreateFlags),
    /// Go live now.
    Start {
        /// The event's slug.
        event: String,
        /// The server.
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Play the hold slate.
    Hold {
        /// The event's slug.
        event: String,
        /// When it is expected to go on, RFC 3339.
        #[arg(long, value_name = "RFC3339", value_parser = parse_time)]
        until: Option<UnixTime>,
        /// What listeners are told, in English.
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
        /// What listeners are told, in Arabic.
        #[arg(long, value_name = "TEXT")]
        message_ar: Option<String>,
        /// The server.
        #[command(flatten)]
        server: ServerChoice,
    },
    /// End the event. This is final; the replay is there at once.
    End {
        /// The event's slug.
        event: String,
        /// The server.
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Show one event.
    Show {
        /// The event's slug.
        event: String,
        /// The server.
        #[command(flatten)]
        server: ServerChoice,
    },
    /// List all events.
    List {
        /// The server.
        #[command(flatten)]
        server: ServerChoice,
    },
    /// Invite one more person, or withdraw an invitation.
    Invite {
        /// The event's slug.
        event: String,
        /// What the person may do.
        #[arg(long, value_enum, default_value = "speaker")]
        role: InviteRole,
        /// Shown to the others.
        #[arg(long, default_value = "")]
        name: String,
        /// Withdraw this invitation (its id is in `event show`) instead of making one.
        #[arg(long, value_name = "ID", conflicts_with_all = ["role", "name"])]
        revoke: Option<String>,
        /// The server.
        #[command(flatten)]
        server: ServerChoice,
    },
}

/// Roles to invite for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum InviteRole {
    /// Starts, holds, ends; moderates; invites.
    Host,
    /// Starts, holds, ends; moderates.
    CoHost,
    /// Speaks.
    Speaker,
}

/// Flags of `event create`.
#[derive(Clone, Debug, Args)]
pub struct CreateFlags {
    /// Title, in English or whatever it is in.
    #[arg(long)]
    pub title: String,
    /// Title in Arabic.
    #[arg(long, value_name = "TITLE")]
    pub title_ar: Option<String>,
    /// The announced start, RFC 3339 with its offset: 2026-11-22T20:00:00+03:00.
    #[arg(long, value_name = "RFC3339", value_parser = parse_time)]
    pub starts: UnixTime,
    /// Name in addresses, a-z, 0-9 and - [default: made from the title].
    #[arg(long)]
    pub slug: Option<String>,
    /// Audio played until the start, up to ten minutes, repeated [default: the built-in slate].
    #[arg(long, value_name = "FILE")]
    pub slate: Option<PathBuf>,
    /// Announced length: 90m, 1h30m, 3600s. Nothing ends by itself.
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// How long before the start the programme begins with its slate [default: 15m].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub doors_before: Option<Duration>,
    /// Do not go live by itself at the start; wait for the host.
    #[arg(long)]
    pub wait_for_host: bool,
    /// Whether people who join during the show wait for a host.
    #[arg(long, value_name = "MODE", value_parser = ["open", "attended"])]
    pub green_room: Option<String>,
    /// Play the hold slate when nobody is connected or everyone is muted for five seconds.
    #[arg(long)]
    pub hold_on_silence: bool,
    /// Name of a speaker; may be given several times [default: two unnamed seats].
    #[arg(long, value_name = "NAME")]
    pub speaker: Vec<String>,
    /// The server.
    #[command(flatten)]
    pub server: ServerChoice,
}

fn parse_time(text: &str) -> Result<UnixTime, String> {
    UnixTime::parse(text).map_err(|error| error.to_string())
}

/// `1h30m`, `90m`, `45s`, `500ms` and sums of these.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 1h30m, 90m or 45s");
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let millis: u64 = match &rest[..unit_end] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        rest = &rest[unit_end..];
        let part = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    if text.trim().is_empty() { Err(wrong()) } else { Ok(total) }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            // Standard error may be gone; then there is nobody to tell.
            writeln!(io::stderr(), "minassa: {error:#}").ok();
            let bad_usage = error.downcast_ref::<ConfigError>().is_some_and(|error| {
                matches!(
                    error,
                    ConfigError::Invalid { place: Place::Flag(_), .. }
                        | ConfigError::UnknownKey { place: Place::Flag(_), .. }
                )
            });
            ExitCode::from(if bad_usage { 2 } else { 1 })
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(flags) => supervisor::serve(flags.load()?)?,
        Command::Origin(flags) => roles::run(Role::Origin, flags.load()?)?,
        Command::Edge { flags, index } => roles::run(Role::Edge(index.into()), flags.load()?)?,
        Command::Control(flags) => roles::run(Role::Control, flags.load()?)?,
        Command::Demo(flags) => demo::run(flags)?,
        Command::Event { command } => client::run(command)?,
        Command::Ladder(flags) => ladder::run(&flags)?,
        Command::Rehearse { command } => return crowds::run(&command),
        Command::Verdict { command } => {
            return Ok(if verdict::run(&command)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Draw { command } => {
            return Ok(if draw::run(&command)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Report(flags) => {
            return Ok(if report::run(&flags)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Doctor { flags, json } => return doctor::run(&flags.load()?, json),
        Command::Config { sample: true, .. } => io::stdout().write_all(SAMPLE.as_bytes())?,
        Command::Config { flags, json, .. } => {
            let config = flags.load()?;
            let text = if json { serde_json::to_string_pretty(&config)? + "\n" } else { config.to_toml() };
            io::stdout().write_all(text.as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_sums() {
        for (text, millis) in [
            ("90m", 5_400_000),
            ("1h30m", 5_400_000),
            ("45s", 45_000),
            ("2d", 172_800_000),
            ("1s500ms", 1_500),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "90", "m", "1x", "-1s", "99999999999999999999s", "1 h", "999999999999999999h"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_stage_moves_with_its_media_unless_told_otherwise() {
        let load = |arguments: &[&str]| {
            let all = ["minassa", "config", "--config", "/dev/null"].iter().chain(arguments);
            let Command::Config { flags, .. } = Cli::try_parse_from(all).unwrap().command else { panic!() };
            Config::load(flags.config.as_deref(), [], &flags.values()).unwrap().origin
        };
        assert_eq!(load(&["--stage-listen", "127.0.0.1:0"]).media_listen.to_string(), "127.0.0.1:0");
        let both = load(&["--stage-listen", "127.0.0.1:5", "--media-listen", "127.0.0.1:6"]);
        assert_eq!((both.listen.port(), both.media_listen.port()), (5, 6));
    }
}
