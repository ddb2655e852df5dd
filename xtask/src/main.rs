//! Checks that must not rot: `cargo xtask test` installs what the tests need and passes all of them.
//!
//! Every step is also a command of its own; `cargo xtask --help` lists them. A step is a few processes run one after
//! the other, in the open: what is run is printed before it is.

mod bench;
mod install;
mod run;
mod steps;
mod testssl;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};

use run::Timings;
use steps::{MORE, STEPS};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match perform(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &[String]) -> Result<()> {
    std::env::set_current_dir(run::root())?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["--help" | "-h" | "help"] => {
            std::io::stdout().write_all(help().as_bytes())?;
            Ok(())
        }
        ["test", rest @ ..] => {
            let skipped = skipped(rest)?;
            let mut timings = Timings::default();
            let result = STEPS
                .iter()
                .filter(|step| !skipped.contains(&step.name))
                .try_for_each(|step| timings.measure(step.name, step.about, step.run));
            timings.print();
            result
        }
        ["bench-edge", rest @ ..] => bench::edge(rest),
        ["profile-edge", rest @ ..] => bench::profile(rest),
        ["bench-night", rest @ ..] => bench::night(rest),
        [name] => match STEPS.iter().chain(MORE).find(|step| step.name == *name) {
            Some(step) => (step.run)(),
            None => bail!("there is no step {name}\n\n{}", help()),
        },
        _ => bail!("too many words\n\n{}", help()),
    }
}

/// Names after `--skip`.
fn skipped<'a>(words: &[&'a str]) -> Result<Vec<&'a str>> {
    let mut names = Vec::new();
    for pair in words.chunks(2) {
        match pair {
            ["--skip", name] if STEPS.iter().any(|step| step.name == *name) => names.push(*name),
            _ => bail!("{} is not understood; --skip STEP is", pair.join(" ")),
        }
    }
    Ok(names)
}

fn help() -> String {
    let mut text = String::from(
        "Usage: cargo xtask test [--skip STEP]...            all steps, in this order\n\
        \x20      cargo xtask STEP                             one of them\n\
        \x20      cargo xtask bench-edge [SCENARIO]... [--peers] [--quick] ...\n\
        \x20                                                   the edge against its floor and its peers\n\
        \x20      cargo xtask profile-edge ...                 where an edge's cycles go\n\
        \x20      cargo xtask bench-night [SCENARIO]... [--quick] ...\n\
        \x20                                                   a whole server, attacked\n\nSteps:\n",
    );
    for step in STEPS {
        text.push_str(&format!("  {:<12} {}\n", step.name, step.about));
    }
    text.push_str("\nNot part of the tests, because they take long:\n");
    for step in MORE {
        text.push_str(&format!("  {:<12} {}\n", step.name, step.about));
    }
    text
}
