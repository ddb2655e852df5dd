//! The steps of `cargo xtask test`, in their order: what is quick to fail comes first.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run::{cargo, run};
use crate::{install, testssl};

/// One step.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn() -> Result<()>,
}

/// All of them.
pub(crate) const STEPS: &[Step] = &[
    Step { name: "fmt", about: "formatting is rustfmt's", run: fmt },
    Step { name: "packages", about: "programs the tests need", run: install::system_packages },
    Step { name: "python", about: "independent WebRTC clients, in target/venv", run: install::python },
    Step { name: "npm", about: "an independent HLS player, in target/npm", run: install::npm },
    Step { name: "deny", about: "licences, banned crates, sources", run: deny },
    Step { name: "clippy", about: "lints of everything, fuzz targets too; warnings are errors", run: clippy },
    Step { name: "doc", about: "documentation builds without a warning", run: doc },
    Step { name: "build", about: "everything the tests run", run: build },
    Step { name: "tests", about: "all tests but those of the whole", run: tests },
    Step { name: "acceptance", about: "the whole, as users meet it; prints its figures", run: acceptance },
    Step { name: "libopus", about: "the codec compared with the C library", run: libopus },
];

/// What is not part of `cargo xtask test`.
pub(crate) const MORE: &[Step] = &[
    Step {
        name: "trials",
        about: "acceptance tests with every trial twenty times, figures printed",
        run: trials,
    },
    Step { name: "bench", about: "benchmarks", run: bench },
    Step {
        name: "verdicts",
        about: "every night judged by the second implementation too, which takes minutes",
        run: verdicts,
    },
    Step {
        name: "testssl",
        about: "the TLS of every door, as testssl.sh grades it",
        run: testssl::all_doors,
    },
];

fn fmt() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn deny() -> Result<()> {
    let deny = install::cargo_deny()?;
    run(Command::new(deny).args(["--all-features", "--workspace", "check", "bans", "licenses", "sources"]))
}

fn clippy() -> Result<()> {
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn doc() -> Result<()> {
    run(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// The whole workspace but its fuzz targets, which `clippy` compiles and nobody runs here. Cargo chooses the features of
/// the dependencies by the packages it is asked for: steps that asked for others would build most of them again.
fn workspace_tests() -> Command {
    let mut cargo = cargo();
    cargo.args(["test", "--workspace", "--exclude", "minassa-fuzz"]);
    cargo
}

fn build() -> Result<()> {
    run(workspace_tests().arg("--no-run"))
}

fn tests() -> Result<()> {
    let mut command = workspace_tests();
    command.args(["--lib", "--bins"]);
    for name in test_programs()?.iter().filter(|name| *name != ACCEPTANCE) {
        command.args(["--test", name]);
    }
    run(&mut command)?;
    run(workspace_tests().arg("--doc"))
}

/// One at a time: each measures delays on a machine that it wants to itself.
fn acceptance() -> Result<()> {
    run(workspace_tests().args(["--test", ACCEPTANCE, "--", "--nocapture", "--test-threads", "1"]))
}

/// The tests of the whole, which are a program of this name.
const ACCEPTANCE: &str = "acceptance";

/// Names of all programs in the folders `tests` of the workspace.
fn test_programs() -> Result<BTreeSet<String>> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    Ok(packages
        .iter()
        .flat_map(|package| package["targets"].as_array())
        .flatten()
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect())
}

fn libopus() -> Result<()> {
    run(cargo().args(["test", "--package", "minassa-programme", "--features", "libopus"]))
}

fn trials() -> Result<()> {
    run(cargo()
        .args(["test", "--package", "minassa", "--release", "--", "--nocapture", "--test-threads", "1"])
        .env("MINASSA_REPEAT", "20"))
}

fn verdicts() -> Result<()> {
    run(cargo()
        .args(["test", "--package", "minassa-admission", "--test", "it", "--"])
        .args(["--ignored", "every_night"]))
}

fn bench() -> Result<()> {
    run(cargo().args(["bench", "--workspace"]))
}
