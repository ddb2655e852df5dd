//! Running programs, saying so, and timing it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Whether a program is there.
pub(crate) fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// Runs a command, after printing it.
///
/// # Errors
/// If it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    eprintln!("$ {line}");
    let status = command.status().with_context(|| format!("cannot run {line}"))?;
    if status.success() { Ok(()) } else { bail!("{line}: {status}") }
}

/// Runs a command that says nothing; whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn describe(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?"));
    let mut line = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// How long each step took.
#[derive(Debug, Default)]
pub(crate) struct Timings {
    steps: Vec<(&'static str, Duration, bool)>,
}

impl Timings {
    /// Runs a step under its heading.
    ///
    /// # Errors
    /// The step's.
    pub(crate) fn measure(
        &mut self,
        name: &'static str,
        about: &str,
        step: fn() -> Result<()>,
    ) -> Result<()> {
        eprintln!("\n== {name}: {about}");
        #[allow(clippy::disallowed_methods, reason = "it is a stopwatch")]
        let began = Instant::now();
        let result = step().with_context(|| format!("{name} failed"));
        self.steps.push((name, began.elapsed(), result.is_ok()));
        result
    }

    /// Says it.
    pub(crate) fn print(&self) {
        eprintln!("\n== times");
        let total: Duration = self.steps.iter().map(|(_, time, _)| *time).sum();
        for (name, time, passed) in &self.steps {
            let verdict = if *passed { "passed" } else { "FAILED" };
            eprintln!("{name:<12} {verdict} {:>7.1} s", time.as_secs_f64());
        }
        eprintln!("{:<12}        {:>7.1} s", "all", total.as_secs_f64());
    }
}
