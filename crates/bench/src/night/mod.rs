//! A night in the lab: the real `minassa serve`, one speaker, thousands who listen, newcomers who mean it, and attackers.
//!
//! ```text
//! core of the server               the other core
//! ┌ minassa serve ───────────┐     speaker (this process)
//! │ origin  control  edge …  │ ◄── crowd: who listens (`minassa rehearse listeners`)
//! └──────────────────────────┘     newcomers (`minassa-bench guests`)
//!                                  attackers (`minassa-bench attacker`), nice 19, bounded in count and time
//! ```
//!
//! | Module | Holds |
//! | --- | --- |
//! | `hall` | the server, the event, the speaker, the recording |
//! | `guest`, `guests` | an honest newcomer, and a process of many |
//! | `watch` | memory and files of every role |
//! | `figures` | what a run comes to, and what must hold |
//! | `siege`, `rush`, `exit`, `kills`, `census`, `evenings` | the scenarios |
//!
//! Every figure stands beside the same run without the attack. A run in which a generator was short of processor says
//! nothing against the server: what did not hold in it is not judged.

mod census;
mod evenings;
mod exit;
mod figures;
pub(crate) mod guest;
pub(crate) mod guests;
mod hall;
mod kills;
mod rush;
mod siege;
pub(crate) mod watch;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rehearse::crowd::CrowdReport;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::attack::{Attack, syn};
use crate::suite::sheet::Sheet;
use figures::Line;
use guests::GuestsReport;
use hall::Hall;

pub use guests::{GuestsFlags, guests};

/// What a night can be. Every attack has its own run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Night {
    /// Ten times the capacity within ten seconds of the start (line 1).
    Crowd,
    /// Everybody leaves at once, and half come again (line 3).
    Exit,
    /// `kill -9` of control, of an edge, of everything but origin (line 6).
    Kills,
    /// How many listen, as it is told and as it is (line 7).
    Count,
    /// What ledgers say of evenings that hold a crowd, an attack or a fault (line 5).
    Verdicts,
    /// One attack while people listen and others come (line 4).
    Siege(Attack),
}

impl Night {
    fn all() -> Vec<Self> {
        let mut all = vec![Self::Crowd, Self::Exit, Self::Kills, Self::Count, Self::Verdicts];
        all.extend(Attack::value_variants().iter().copied().map(Self::Siege));
        all
    }

    /// By its name; `attacks` are all of them.
    fn named(name: &str) -> Result<Vec<Self>> {
        Ok(match name {
            "crowd" => vec![Self::Crowd],
            "exit" => vec![Self::Exit],
            "kills" => vec![Self::Kills],
            "count" => vec![Self::Count],
            "verdicts" => vec![Self::Verdicts],
            "attacks" => Self::all().into_iter().filter(|night| matches!(night, Self::Siege(_))).collect(),
            other => {
                let attack = Attack::from_str(other, false);
                vec![Self::Siege(attack.map_err(|_| anyhow::anyhow!("there is no scenario {other}"))?)]
            }
        })
    }
}

/// Flags of the night.
#[derive(Clone, Debug, Args)]
pub struct NightFlags {
    /// crowd, exit, kills, count, verdicts, attacks, or an attack by its name [default: everything].
    pub scenarios: Vec<String>,
    /// The binary under test [default: beside this program].
    #[arg(long, value_name = "FILE")]
    pub minassa: Option<PathBuf>,
    /// People who listen while an attack goes on.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub listeners: usize,
    /// Newcomers a second meanwhile.
    #[arg(long, value_name = "N", default_value_t = 200.0)]
    pub newcomers: f64,
    /// How long an attack lasts, s.
    #[arg(long, value_name = "S", default_value_t = 15.0)]
    pub seconds: f64,
    /// Listeners that the edge has room for in the scenario of a crowd; ten times as many come.
    #[arg(long, value_name = "N", default_value_t = 600)]
    pub capacity: usize,
    /// Listeners that leave at once.
    #[arg(long, value_name = "N", default_value_t = 3_000)]
    pub leaving: usize,
    /// Networks (/24) that attackers come from.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub networks: u32,
    /// Core of the server.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub server_core: usize,
    /// Core of everything else.
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    pub load_core: usize,
    /// Everything on all cores: as one small machine has it.
    #[arg(long)]
    pub shared: bool,
    /// Memory that origin, control and an edge may take, MiB.
    #[arg(long, value_name = "MIB", value_delimiter = ',', default_values_t = [384.0, 256.0, 512.0])]
    pub budget: Vec<f64>,
    /// Of the evenings of `verdicts` only these, by their names.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub evenings: Vec<String>,
    /// Less of everything: to see whether it works.
    #[arg(long)]
    pub quick: bool,
    /// Where the page is written.
    #[arg(long, value_name = "FILE", default_value = "target/bench/night.md")]
    pub out: PathBuf,
}

/// The lab, as flags have it.
pub(crate) struct Place {
    pub(crate) minassa: PathBuf,
    pub(crate) flags: NightFlags,
}

impl Place {
    fn new(flags: &NightFlags) -> Result<Self> {
        let minassa = match &flags.minassa {
            Some(path) => path.canonicalize().with_context(|| format!("there is no {}", path.display()))?,
            None => std::env::current_exe()?.with_file_name("minassa"),
        };
        ensure!(minassa.is_file(), "there is no {}; build it first", minassa.display());
        ensure!(flags.budget.len() == 3, "--budget wants three numbers");
        let mut flags = flags.clone();
        if flags.quick {
            flags.listeners = flags.listeners.min(200);
            flags.newcomers = flags.newcomers.min(20.0);
            flags.seconds = flags.seconds.min(6.0);
            flags.capacity = flags.capacity.min(60);
            flags.leaving = flags.leaving.min(200);
        }
        if !flags.shared {
            ensure!(
                flags.server_core != flags.load_core,
                "the server must have a core of its own, or use --shared"
            );
            ensure!(flags.load_core < CpuSet::MAX_CPU, "there is no core {}", flags.load_core);
            let mut cores = CpuSet::new();
            cores.set(flags.load_core);
            sched_setaffinity(None, &cores)
                .with_context(|| format!("cannot keep to core {}", flags.load_core))?;
        }
        Ok(Self { minassa, flags })
    }

    /// The server's core.
    pub(crate) fn core(&self) -> Option<usize> {
        (!self.flags.shared).then_some(self.flags.server_core)
    }

    /// Memory that a role may take, MiB.
    pub(crate) fn budget(&self, role: &str) -> f64 {
        match role {
            "origin" => self.flags.budget[0],
            "control" => self.flags.budget[1],
            _ => self.flags.budget[2],
        }
    }

    /// A program that ends when we do.
    fn command(program: &std::path::Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// A process of this program's.
    pub(crate) fn ours(&self) -> Result<Command> {
        Ok(Self::command(&std::env::current_exe()?))
    }

    /// Sends people who listen. They come back as the page does.
    pub(crate) fn crowd(&self, hall: &Hall, crowd: &Listening) -> Result<Reporter> {
        let mut command = Self::command(&self.minassa);
        command.args(["rehearse", "listeners", "--json", "--any-certificate", "--rejoin-as-page"]);
        for (flag, value) in [
            ("--listeners", crowd.listeners as f64),
            ("--ramp", crowd.ramp),
            ("--settle", crowd.settle_s),
            ("--window", crowd.window_s),
        ] {
            command.args([flag, &value.to_string()]);
        }
        Reporter::start(command.arg("--url").arg(hall.stream()), "the crowd")
    }

    /// Sends newcomers.
    pub(crate) fn newcomers(&self, hall: &Hall, flags: &[(&str, f64)]) -> Result<Reporter> {
        let mut command = self.ours()?;
        command.arg("guests").args(["--control", &hall.doors.control.to_string()]);
        command.args(["--push", &hall.doors.push.to_string(), "--event", &hall.event.event]);
        if hall.tls {
            command.arg("--tls");
        }
        for (flag, value) in flags {
            command.args([*flag, &value.to_string()]);
        }
        Reporter::start(&mut command, "newcomers")
    }

    /// Sends an attacker, and others of its kind from other networks.
    pub(crate) fn attackers(
        &self,
        hall: &Hall,
        attack: Attack,
        count: u8,
        seconds: f64,
    ) -> Result<Vec<Reporter>> {
        let ticket = hall.ticket().unwrap_or_default();
        (0..count)
            .map(|seed| {
                let mut command = self.ours()?;
                command.arg("attacker").arg(attack.name());
                for (flag, door) in [
                    ("--control", hall.doors.control),
                    ("--push", hall.doors.push),
                    ("--files", hall.doors.files),
                    ("--media", hall.doors.media),
                ] {
                    command.args([flag, &door.to_string()]);
                }
                command.args(["--event", &hall.event.event, "--seed", &seed.to_string()]);
                command.args([
                    "--seconds",
                    &seconds.to_string(),
                    "--networks",
                    &self.flags.networks.to_string(),
                ]);
                if hall.tls {
                    command.arg("--tls");
                }
                if !ticket.is_empty() {
                    command.args(["--ticket", &ticket]);
                }
                if self.flags.quick && !matches!(attack, Attack::Stun | Attack::Dtls | Attack::Rtp) {
                    command.args(["--at-once", "50"]);
                }
                Reporter::start(&mut command, "an attacker")
            })
            .collect()
    }
}

/// People who listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listening {
    pub(crate) listeners: usize,
    pub(crate) ramp: f64,
    pub(crate) settle_s: f64,
    pub(crate) window_s: f64,
}

impl Listening {
    /// Seconds from the start until they are measured.
    pub(crate) fn until_window_s(&self) -> f64 {
        self.listeners as f64 / self.ramp + self.settle_s
    }
}

/// A process that prints one report at its end. Killed when it goes before.
pub(crate) struct Reporter {
    child: Option<Child>,
    name: &'static str,
}

impl Reporter {
    fn start(command: &mut Command, name: &'static str) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child: Some(child), name })
    }

    /// Waits for the report.
    pub(crate) fn report<T: serde::de::DeserializeOwned>(mut self) -> Result<T> {
        let child = self.child.take().context("it was waited for")?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("{} failed: {}", self.name, output.status);
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the report of {} cannot be read", self.name))
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Says lines of what must hold.
pub(crate) fn say(sheet: &mut Sheet, lines: &[Line]) {
    for line in lines {
        sheet.verdict(&line.what, &line.found, &line.allowed, line.holds);
    }
}

/// What stands beside verdicts about newcomers and the crowd.
pub(crate) fn describe(sheet: &mut Sheet, crowd: Option<&CrowdReport>, guests: &GuestsReport) {
    if let Some(crowd) = crowd {
        let counts = &crowd.base.counts;
        sheet.say(&format!(
            "  crowd: {} of {} to the end, {} cut off, {} back, {} parts missed, {} stalls, {} failed; generator {:.0} % busy",
            counts.steady,
            counts.asked,
            counts.lost,
            counts.rejoined,
            counts.missed,
            counts.stalls,
            counts.failed,
            100.0 * crowd.generator.cpu,
        ));
        for (kind, times) in &crowd.failures {
            sheet.say(&format!("    {kind}: {times}"));
        }
    }
    sheet.say(&format!(
        "  newcomers: {}; answers {}; first audio {}; {:.0} % busy, {:.0} % waiting for a processor",
        guests.book.notes,
        guests.book.answers.summary(),
        guests.book.first_audio.summary(),
        100.0 * guests.busy,
        100.0 * guests.starved,
    ));
}

/// Holds a night.
///
/// # Errors
/// If something cannot be started or measured. A limit that is missed is no error: the sheet says so.
pub fn night(flags: &NightFlags) -> Result<()> {
    let place = Place::new(flags)?;
    let chosen = if flags.scenarios.is_empty() {
        Night::all()
    } else {
        let named: Vec<Vec<Night>> =
            flags.scenarios.iter().map(|name| Night::named(name)).collect::<Result<_>>()?;
        named.concat()
    };
    let mut sheet = Sheet::new("A night, attacked");
    if flags.quick {
        sheet.say("A quick run: it shows that everything works, and nothing else.\n");
    }
    sheet.say(&format!(
        "{} listen, {} a second come. {}\n",
        place.flags.listeners,
        place.flags.newcomers,
        match place.core() {
            Some(core) => format!(
                "The server has core {core}; speaker, listeners, newcomers and attackers (nice 19) the other."
            ),
            None => "Everything shares all cores; attackers are nice 19.".to_owned(),
        }
    ));
    let mut attacks = Vec::new();
    for night in chosen {
        let outcome = match night {
            Night::Crowd => rush::rush(&place, &mut sheet),
            Night::Exit => exit::exit(&place, &mut sheet),
            Night::Kills => kills::kills(&place, &mut sheet),
            Night::Count => census::census(&place, &mut sheet),
            Night::Verdicts => evenings::evenings(&place, &mut sheet),
            Night::Siege(attack) => {
                attacks.push(attack);
                Ok(())
            }
        };
        if let Err(error) = outcome {
            // The others are worth having all the same.
            sheet.say(&format!("\n{night:?} could not be measured: {error:#}"));
        }
        sheet.write(&flags.out)?;
    }
    if !attacks.is_empty() {
        siege::siege(&place, &mut sheet, &attacks)?;
        sheet.write(&flags.out)?;
    }
    Ok(())
}

/// The arguments that make this night again with one scenario alone, in a namespace of its own.
pub(crate) fn inside(place: &Place, attack: Attack, out: &std::path::Path) -> Vec<String> {
    let flags = &place.flags;
    let mut arguments = vec!["night".to_owned(), attack.name()];
    for (flag, value) in [
        ("--minassa", place.minassa.display().to_string()),
        ("--listeners", flags.listeners.to_string()),
        ("--newcomers", flags.newcomers.to_string()),
        ("--seconds", flags.seconds.to_string()),
        ("--server-core", flags.server_core.to_string()),
        ("--load-core", flags.load_core.to_string()),
        ("--out", out.display().to_string()),
    ] {
        arguments.extend([flag.to_owned(), value]);
    }
    for (flag, is_set) in [("--shared", flags.shared), ("--quick", flags.quick)] {
        arguments.extend(is_set.then(|| flag.to_owned()));
    }
    arguments
}

/// Whether this attack can be had here, and if not why.
pub(crate) fn why_not(attack: Attack) -> Option<String> {
    if attack == Attack::Syn && !syn::is_inside() { syn::why_not() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_have_names() {
        assert_eq!(Night::named("crowd").unwrap(), [Night::Crowd]);
        assert_eq!(Night::named("rapid-reset").unwrap(), [Night::Siege(Attack::RapidReset)]);
        assert_eq!(Night::named("attacks").unwrap().len(), Attack::value_variants().len());
        assert_eq!(Night::named("count").unwrap(), [Night::Count]);
        assert_eq!(Night::named("verdicts").unwrap(), [Night::Verdicts]);
        assert_eq!(Night::all().len(), 5 + Attack::value_variants().len());
        assert!(Night::named("everything").is_err());
    }

    #[test]
    fn the_window_comes_after_ramp_and_settling() {
        let crowd = Listening { listeners: 5_000, ramp: 1_000.0, settle_s: 3.0, window_s: 15.0 };
        assert_eq!(crowd.until_window_s(), 8.0);
    }
}
