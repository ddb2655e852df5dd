//! Where an edge's cycles go, by `perf`: a flat table of functions and stacks folded for flame graphs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::cost::{RAMP, ordinary};
use super::lab::{Crowd, Lab, Running};
use super::servers::{EdgeSetup, Edges, Floor};
use super::sheet::Sheet;

/// Functions in the table.
const TOP: usize = 40;
/// Samples a second.
const RATE: u32 = 1_999;

/// Whose cycles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// An edge.
    Edge,
    /// The floor.
    Floor,
}

/// Profiles, and writes `profile-*.md` and `profile-*.folded` into `directory`.
pub(crate) fn profile(lab: &Lab, subject: Subject, tls: bool, tier: u64, directory: &Path) -> Result<()> {
    if let Some(why) = unfit() {
        bail!("perf does not work here: {why}");
    }
    std::fs::create_dir_all(directory)?;
    let kind = if tls { "tls" } else { "plain" };
    let who = match subject {
        Subject::Edge => "edge",
        Subject::Floor => "floor",
    };
    let name = format!("profile-{who}-{kind}-tier{tier}");
    let mut sheet = Sheet::new(&format!("Profile: {who}, {kind}, tier {tier}, {} listeners", lab.listeners));
    let data = lab.directory()?.join("perf.data");
    let crowd = |url: &str| {
        let window = lab.window(tier) + 2.0;
        ordinary(lab, url, tier).with("window", window)
    };
    let report = match subject {
        Subject::Edge => {
            let edges = Edges::start(lab, &EdgeSetup::new(tls))?;
            record(lab, &crowd(&edges.push("opus-48")), &edges.running, tier, &data)?
        }
        Subject::Floor => {
            let floor = Floor::start(lab, tls, tier, 240 * tier)?;
            record(lab, &crowd(&floor.url), &floor.running, tier, &data)?
        }
    };
    let folded = directory.join(format!("{name}.folded"));
    let stacks = fold(&script(&data)?);
    let text: String = stacks.iter().map(|(stack, count)| format!("{stack} {count}\n")).collect();
    std::fs::write(&folded, text).with_context(|| format!("cannot write {}", folded.display()))?;
    sheet.say(&format!(
        "{:.1} µs of the process, {:.1} µs of the core a listener and second while it was watched\n",
        report.server.cpu_us_per_listener_s, report.server.core_us_per_listener_s
    ));
    let (total, own, with_callees) = flat(&stacks);
    let rows = |counts: BTreeMap<String, u64>| {
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), name.clone()));
        let row = |(name, count): &(String, u64)| {
            vec![format!("{:.1} %", 100.0 * *count as f64 / total.max(1) as f64), format!("`{name}`")]
        };
        counts.iter().take(TOP).map(row).collect::<Vec<_>>()
    };
    sheet.say(&format!("{total} samples. Functions by themselves:\n"));
    sheet.table(&["of all", "function"], &rows(own));
    sheet.say("With all they call (as far as stacks could be unwound):\n");
    sheet.table(&["of all", "function"], &rows(with_callees));
    sheet.say(&format!("Stacks for a flame graph: {}", folded.display()));
    sheet.write(&directory.join(format!("{name}.md")))
}

/// Why perf cannot be used.
fn unfit() -> Option<String> {
    let mut perf = Command::new("perf");
    perf.args(["record", "-e", "cpu-clock", "-o", "/dev/null", "true"]).stdin(Stdio::null());
    match perf.output() {
        Err(error) => Some(format!("{error}; Debian has it in linux-perf")),
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Lets a crowd listen and watches the server within the window.
fn record(
    lab: &Lab,
    crowd: &Crowd,
    server: &Running,
    tier: u64,
    data: &Path,
) -> Result<rehearse::crowd::CrowdReport> {
    let ramp = lab.listeners as f64 / f64::from(RAMP);
    let delay_s = ramp + 4.0 + 2.0 * 0.48 * tier as f64;
    let pids: Vec<String> = server.pids.iter().map(u32::to_string).collect();
    let mut perf = lab.beside(&PathBuf::from("perf"));
    // No cycles can be counted in most virtual machines; the clock can.
    perf.args(["record", "-e", "cpu-clock", "-F", &RATE.to_string(), "-g", "-o"]).arg(data);
    perf.args(["-p", &pids.join(","), "-D", &format!("{:.0}", 1e3 * delay_s), "--"]);
    perf.args(["sleep", &format!("{}", delay_s + lab.window(tier))]);
    let mut watching = Running::default();
    watching.add(perf.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let report = lab.crowd(crowd, server)?;
    watching.wait()?;
    Ok(report)
}

fn script(data: &Path) -> Result<String> {
    let mut perf = Command::new("perf");
    perf.args(["script", "--fields", "comm,ip,sym", "-i"]).arg(data).stderr(Stdio::null());
    let output = perf.output().context("cannot run perf")?;
    if !output.status.success() {
        bail!("perf script: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Stacks as `outer;…;inner`, with their counts. In what perf prints a stack is a line with the thread's name, then a
/// line each function, the innermost first, then an empty line.
fn fold(script: &str) -> BTreeMap<String, u64> {
    let mut stacks = BTreeMap::new();
    for sample in script.split("\n\n") {
        let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
        let Some(thread) = lines.next() else { continue };
        let mut names: Vec<&str> = lines.map(function).collect();
        names.push(thread.trim());
        names.reverse();
        *stacks.entry(names.join(";")).or_default() += 1;
    }
    stacks
}

/// `ffffffff81 tcp_sendmsg_locked+0x12`, without address, offset and the compiler's hash.
fn function(line: &str) -> &str {
    let name = line.trim().split_once(' ').map_or("[unknown]", |(_, name)| name.trim());
    let name = name.rsplit_once("+0x").map_or(name, |(name, _)| name);
    match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => name,
    }
}

/// All samples; samples by their innermost function; samples by every function in them.
fn flat(stacks: &BTreeMap<String, u64>) -> (u64, BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let (mut total, mut own, mut with_callees) = (0, BTreeMap::new(), BTreeMap::new());
    for (stack, count) in stacks {
        total += count;
        // The thread's name is no function.
        let mut names: Vec<&str> = stack.split(';').skip(1).collect();
        if let Some(inner) = names.last() {
            *own.entry((*inner).to_owned()).or_default() += count;
        }
        names.sort_unstable();
        names.dedup();
        for name in names {
            *with_callees.entry(name.to_owned()).or_default() += count;
        }
    }
    (total, own, with_callees)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_are_folded_and_counted() {
        let sample = "edge-0 \n\tffffffff81 tcp_sendmsg+0x12\n\t    55d0 minassa_edge::push::h0123456789abcdef+0x1\n\n";
        let other = "edge-0 \n\tffffffff99 tcp_sendmsg+0x90\n\n";
        let stacks = fold(&format!("{sample}{sample}{other}"));
        assert_eq!(stacks["edge-0;minassa_edge::push;tcp_sendmsg"], 2);
        assert_eq!(stacks["edge-0;tcp_sendmsg"], 1);
        let (total, own, all) = flat(&stacks);
        assert_eq!((total, own["tcp_sendmsg"], all["minassa_edge::push"]), (3, 3, 2));
    }
}
