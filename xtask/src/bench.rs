//! Measuring the edge: everything is built as it is shipped, what is compared with is installed if that is asked for,
//! and `minassa-bench` does the rest.

use anyhow::Result;

use crate::install;
use crate::run::{cargo, root, run};

/// `bench-edge`: with `--peers`, Icecast and nginx are installed first.
///
/// # Errors
/// If something cannot be installed, built or measured.
pub(crate) fn edge(arguments: &[&str]) -> Result<()> {
    if arguments.contains(&"--peers") {
        install::peers()?;
    }
    measure("edge", arguments)
}

/// `profile-edge`. Stacks go as far as they can be unwound; with `RUSTFLAGS=-Cforce-frame-pointers` they are whole.
///
/// # Errors
/// If something cannot be built, or perf does not work here.
pub(crate) fn profile(arguments: &[&str]) -> Result<()> {
    if let Err(error) = install::perf() {
        // Whether it works without is for the program to say.
        eprintln!("{error:#}");
    }
    measure("profile", arguments)
}

/// `bench-night`.
///
/// # Errors
/// If something cannot be built, started or measured.
pub(crate) fn night(arguments: &[&str]) -> Result<()> {
    if let Err(error) = install::hping() {
        // The attack that needs it is then left out, and said to be.
        eprintln!("{error:#}");
    }
    measure("night", arguments)
}

fn measure(what: &str, arguments: &[&str]) -> Result<()> {
    run(cargo().args(["build", "--release", "-p", "minassa", "-p", "minassa-bench"]))?;
    let program = root().join("target/release/minassa-bench");
    run(std::process::Command::new(program).arg(what).args(arguments))
}
