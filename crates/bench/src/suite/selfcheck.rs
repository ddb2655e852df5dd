//! Our generator against the independent one, on the same floor: both must say the same of it.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::cost::RAMP;
use super::lab::{Crowd, Lab};
use super::servers::Floor;
use super::sheet::{Sheet, Spread};

/// Seconds between the joins and the window, and of the window.
const SETTLE: f64 = 4.0;

/// One generator's figures.
#[derive(Default)]
struct Column {
    cpu: Vec<f64>,
    core: Vec<f64>,
    first_audio: Vec<f64>,
    silence: Vec<f64>,
    holes: u64,
    generator: Vec<f64>,
}

/// Runs both in turn.
pub(crate) fn check(lab: &Lab, sheet: &mut Sheet) -> Result<()> {
    sheet.heading("The generator against an independent one");
    let Some(tools) = &lab.tools else {
        sheet.say("There is none: name the directory of one with --tools.");
        return Ok(());
    };
    let mut rows = Vec::new();
    for tls in [false, true] {
        let (mut ours, mut theirs) = (Column::default(), Column::default());
        for _ in 0..lab.repeats {
            let floor = Floor::start(lab, tls, 1, 1)?;
            let crowd = Crowd::of(&floor.url, lab.listeners)
                .with("ramp", RAMP)
                .with("settle", SETTLE)
                .with("window", lab.window(1));
            let report = lab.crowd(&crowd, &floor.running)?;
            ours.cpu.push(report.server.cpu_us_per_listener_s);
            ours.core.push(report.server.core_us_per_listener_s);
            ours.first_audio.push(report.base.first_audio_ms.p99);
            ours.silence.push(report.base.silence_ms.p99);
            ours.generator.push(report.generator.cpu);
            ours.holes += report.base.counts.holes;
            drop(floor);

            let floor = Floor::start(lab, tls, 1, 1)?;
            let mut swarm = lab.beside(&tools.swarm);
            swarm.args(["stream", "--url", &floor.url, "--listeners", &lab.listeners.to_string()]);
            swarm.args(["--ramp", &RAMP.to_string(), "--settle", &SETTLE.to_string()]);
            swarm.args(["--window", &lab.window(1).to_string(), "--audio-kbps", "48"]);
            swarm.args(["--server-cpu", &lab.cores[0].to_string()]);
            for pid in &floor.running.pids {
                swarm.args(["--server-pid", &pid.to_string()]);
            }
            let output = swarm.output().context("the independent generator does not start")?;
            if !output.status.success() {
                bail!("the independent generator: {}", String::from_utf8_lossy(&output.stderr));
            }
            let report: Value = serde_json::from_slice(&output.stdout)?;
            let figure = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
            theirs.cpu.push(figure("/server/cpu_us_per_listener_s"));
            theirs.core.push(figure("/server/core_us_per_listener_s"));
            theirs.first_audio.push(figure("/latency/ttfa_ms/p99"));
            theirs.silence.push(figure("/latency/gap_ms/p99"));
            theirs.generator.push(figure("/generator/cores_used"));
            theirs.holes += figure("/totals/holes") as u64;
        }
        let name = if tls { "TLS" } else { "plain" };
        let ratio = |mine: &[f64], other: &[f64]| {
            let middle =
                |values: &[f64]| Spread::of(values.iter().copied()).map_or(f64::NAN, |all| all.median);
            middle(mine) / middle(other)
        };
        let core = ratio(&ours.core, &theirs.core);
        for (who, column) in [("ours", &ours), ("independent", &theirs)] {
            let text = |values: &[f64]| {
                Spread::of(values.iter().copied()).map_or_else(String::new, |s| s.to_string())
            };
            rows.push(vec![
                format!("{name}, {who}"),
                text(&column.cpu),
                text(&column.core),
                text(&column.first_audio),
                text(&column.silence),
                column.holes.to_string(),
                text(&column.generator.iter().map(|cpu| 100.0 * cpu).collect::<Vec<_>>()),
            ]);
        }
        sheet.verdict(
            &format!("{name}: CPU of the floor's core, ours by theirs"),
            &format!("{core:.2}"),
            "0.8 to 1.25 (the noise of repeats)",
            Some((0.8..=1.25).contains(&core)),
        );
    }
    sheet.say("");
    let head =
        ["generator", "proc µs", "core µs", "first audio p99 ms", "silence p99 ms", "holes", "own CPU %"];
    sheet.table(&head, &rows);
    Ok(())
}
