//! Starts servers and crowds on cores of their own, compares, and writes tables.
//!
//! Servers run on one core, the crowd on another, one run at a time, each with a fresh server. Figures are medians, and
//! pairs take turns, so that what the machine does beside harms both alike. A run whose generator was over 85 % busy is
//! void. Nothing here fails when a limit is missed: it says so.

mod control;
mod cost;
mod lab;
mod metrics;
mod peers;
mod profile;
mod scenarios;
mod selfcheck;
mod servers;
pub(crate) mod sheet;
mod shield;
mod storm;
mod upheaval;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use rustix::thread::{CpuSet, sched_setaffinity};

use lab::{Lab, Tools};
pub use profile::Subject;
use sheet::Sheet;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Scenario {
    /// Processor time of a listener, against floors and peers (line 1).
    Cost,
    /// Many listeners for a long time (line 2).
    Hold,
    /// Memory of a listener (line 3).
    Memory,
    /// Joins all at once while others listen, and the fastest that is borne (line 4).
    Storm,
    /// Bytes for a byte of Opus (line 5).
    Bytes,
    /// Readers that hardly read (line 6).
    Slow,
    /// Readers of a recording beside listeners (line 9).
    Ranges,
    /// An edge that is restarted, a new certificate, another rendition for everyone (line 7).
    Upheaval,
    /// Our generator against an independent one.
    Selfcheck,
}

/// Where everything is.
#[derive(Clone, Debug, Args)]
pub struct LabFlags {
    /// The binary under test [default: beside this program].
    #[arg(long, value_name = "FILE")]
    pub minassa: Option<PathBuf>,
    /// Listeners of an ordinary run.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub listeners: usize,
    /// Core of servers.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub server_core: usize,
    /// Core of crowds.
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    pub load_core: usize,
    /// Moves whatever else runs on this machine, and may be moved, off the servers' core until the end.
    #[arg(long)]
    pub shield: bool,
    /// Less of everything: to see whether it works, not what it costs.
    #[arg(long)]
    pub quick: bool,
}

/// Flags of the comparison.
#[derive(Clone, Debug, Args)]
pub struct EdgeFlags {
    /// What to measure [default: everything].
    #[arg(value_enum)]
    pub scenarios: Vec<Scenario>,
    /// Where everything is.
    #[command(flatten)]
    pub lab: LabFlags,
    /// Runs of which the median counts [default: 5, quick: 1].
    #[arg(long, value_name = "N")]
    pub repeats: Option<usize>,
    /// Tiers whose cost is measured.
    #[arg(long, value_name = "PARTS", value_delimiter = ',', default_values_t = [1, 2, 4, 8])]
    pub tiers: Vec<u64>,
    /// How long many listeners are held.
    #[arg(long, value_name = "MINUTES", default_value_t = 10.0)]
    pub minutes: f64,
    /// Directory with an independent generator (`swarm`) and floor (`floor`), as cargo packages.
    #[arg(long, value_name = "DIR")]
    pub tools: Option<PathBuf>,
    /// Measure Icecast and nginx too. They must be installed; `cargo xtask bench-edge --peers` sees to it.
    #[arg(long)]
    pub peers: bool,
    /// Only the edge and the floor that judges it, to halve the time of `cost`.
    #[arg(long)]
    pub judged: bool,
    /// Where the page is written.
    #[arg(long, value_name = "FILE", default_value = "target/bench/edge.md")]
    pub out: PathBuf,
}

/// Flags of the profile.
#[derive(Clone, Debug, Args)]
pub struct ProfileFlags {
    /// Whose cycles.
    #[arg(value_enum, default_value = "edge")]
    pub subject: Subject,
    /// Where everything is.
    #[command(flatten)]
    pub lab: LabFlags,
    /// Parts a flush.
    #[arg(long, default_value_t = 1)]
    pub tier: u64,
    /// Without TLS.
    #[arg(long)]
    pub plain: bool,
    /// Where the pages are written.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub out: PathBuf,
}

fn open_lab(flags: &LabFlags) -> Result<Lab> {
    let minassa = match &flags.minassa {
        Some(path) => path.canonicalize().with_context(|| format!("there is no {}", path.display()))?,
        None => std::env::current_exe()?.with_file_name("minassa"),
    };
    if flags.server_core == flags.load_core {
        bail!("servers and crowds must have cores of their own");
    }
    let shield = flags.shield.then(|| shield::Shield::raise(flags.server_core)).transpose()?;
    tie(flags.load_core)?;
    let mut lab = Lab::new(minassa, [flags.server_core, flags.load_core])?;
    lab.shield = shield;
    lab.quick = flags.quick;
    lab.listeners = if flags.quick { flags.listeners.min(400) } else { flags.listeners };
    lab.repeats = if flags.quick { 1 } else { 5 };
    Ok(lab)
}

/// Ties this process to the core of crowds: what it does beside is not to be on the servers' core. Whatever it starts is tied
/// anew.
fn tie(core: usize) -> Result<()> {
    anyhow::ensure!(core < CpuSet::MAX_CPU, "there is no core {core}");
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot keep to core {core}"))
}

/// Compares the edge with floors and peers.
///
/// # Errors
/// If something cannot be started or measured. A limit that is missed is no error.
pub fn edge(flags: &EdgeFlags) -> Result<()> {
    let mut lab = open_lab(&flags.lab)?;
    if let Some(repeats) = flags.repeats {
        lab.repeats = repeats.max(1);
    }
    if flags.peers {
        let missing = peers::missing();
        if !missing.is_empty() {
            bail!("not installed: {}", missing.join(", "));
        }
        lab.peers = true;
    }
    if let Some(tier) = flags.tiers.iter().find(|tier| !matches!(tier, 1 | 2 | 4 | 8)) {
        bail!("there is no tier {tier}; there are 1, 2, 4 and 8");
    }
    lab.tiers.clone_from(&flags.tiers);
    lab.judged = flags.judged;
    lab.tools = flags.tools.as_deref().map(build_tools).transpose()?;
    let mut sheet = Sheet::new("The edge, measured");
    if let Some(shield) = &lab.shield {
        sheet.say(&format!("{} tasks of others were moved off the servers' core.\n", shield.moved()));
    }
    if lab.quick {
        sheet.say("A quick run: it shows that everything works, and nothing else.\n");
    }
    if !lab.edge_tls {
        sheet.say(
            "This edge speaks no TLS: what should be TLS is plain, and not judged where that matters.\n",
        );
    }
    let all = Scenario::value_variants();
    let chosen = if flags.scenarios.is_empty() { all } else { &flags.scenarios };
    for scenario in chosen {
        let outcome = match scenario {
            Scenario::Cost => cost::measure(&lab, &mut sheet),
            Scenario::Hold => {
                let minutes = if lab.quick { flags.minutes.min(0.1) } else { flags.minutes };
                scenarios::hold(&lab, &mut sheet, minutes)
            }
            Scenario::Memory => scenarios::memory(&lab, &mut sheet),
            Scenario::Storm => storm::storm(&lab, &mut sheet),
            Scenario::Bytes => scenarios::bytes(&lab, &mut sheet),
            Scenario::Slow => scenarios::slow(&lab, &mut sheet),
            Scenario::Ranges => scenarios::ranges(&lab, &mut sheet),
            Scenario::Upheaval => upheaval::upheaval(&lab, &mut sheet),
            Scenario::Selfcheck => selfcheck::check(&lab, &mut sheet),
        };
        if let Err(error) = outcome {
            // The others are worth having all the same.
            sheet.say(&format!("\n{scenario:?} could not be measured: {error:#}"));
        }
        sheet.write(&flags.out)?;
    }
    Ok(())
}

/// Shows where an edge's cycles go.
///
/// # Errors
/// If perf does not work here, or something cannot be started.
pub fn profile(flags: &ProfileFlags) -> Result<()> {
    let lab = open_lab(&flags.lab)?;
    let tls = !flags.plain && (lab.edge_tls || flags.subject == Subject::Floor);
    profile::profile(&lab, flags.subject, tls, flags.tier, &flags.out)
}

/// Builds the independent tools beside our own build: their directory may be read-only.
fn build_tools(directory: &Path) -> Result<Tools> {
    let target = std::env::current_dir()?.join("target/tools");
    let build = |name: &str| {
        let manifest = directory.join(name).join("Cargo.toml");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--release", "--locked", "--manifest-path"]).arg(&manifest);
        let status = cargo.arg("--target-dir").arg(&target).status().context("cannot run cargo")?;
        if !status.success() {
            bail!("{} cannot be built", manifest.display());
        }
        Ok(target.join("release").join(name))
    };
    Ok(Tools { swarm: build("swarm")?, floor: build("floor")? })
}
