//! `doctor`: is this machine fit for a show, and what should be changed.
//!
//! Each check is a line: `ok`, `warn` (it will work, not at its best) or `fail` (a show will suffer). What cannot be
//! found out is said to be unknown, never guessed.

mod certificate;

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use backend::machine::Memory;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::config::Config;
use crate::supervisor::{probe_udp, reserve};

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Fit.
    Ok,
    /// It cannot be found out here.
    Unknown,
    /// It will work, not at its best.
    Warn,
    /// A show will suffer.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to change; empty if nothing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { name, verdict, found: found.into(), advice: String::new() }
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

/// Checks the machine and prints what was found. The exit status is 1 if anything failed.
///
/// # Errors
/// If standard output is gone.
pub fn run(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let checks = examine(config);
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &checks)?;
        writeln!(out)?;
    } else {
        print(&checks, &mut out)?;
    }
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(ExitCode::from(u8::from(failed)))
}

fn print(checks: &[Check], out: &mut impl Write) -> io::Result<()> {
    for check in checks {
        let word = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Unknown => "unknown",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        writeln!(out, "{word:<8} {:<20} {}", check.name, check.found)?;
        if !check.advice.is_empty() {
            writeln!(out, "{:29} {}", "", check.advice)?;
        }
    }
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    match (count(Verdict::Fail), count(Verdict::Warn)) {
        (0, 0) => writeln!(out, "This machine is fit."),
        (0, warnings) => writeln!(out, "This machine is fit; {warnings} could be better."),
        (failures, _) => writeln!(out, "This machine is not fit: {failures} must be changed."),
    }
}

fn examine(config: &Config) -> Vec<Check> {
    let mut checks = vec![processors(), memory(), open_files(config)];
    checks.extend(ports(config));
    checks.extend(certificate::check(config, SystemTime::now()));
    checks.push(clock());
    checks.extend(disk(&config.server.data));
    checks.extend(kernel());
    checks
}

fn processors() -> Check {
    match std::thread::available_parallelism().map(NonZeroUsize::get) {
        Ok(1) => Check::new("processors", Verdict::Warn, "1 core")
            .advise("with two or more, speakers and listeners do not compete for one"),
        Ok(cores) => Check::new("processors", Verdict::Ok, format!("{cores} cores")),
        Err(error) => Check::new("processors", Verdict::Unknown, error.to_string()),
    }
}

fn memory() -> Check {
    let available = Memory::now().available;
    if available == u64::MAX {
        return Check::new("memory", Verdict::Unknown, "/proc/meminfo does not say");
    }
    let found = format!("{} MiB available", available >> 20);
    match available >> 20 {
        0..512 => Check::new("memory", Verdict::Fail, found).advise("512 MiB are the least"),
        512..2_048 => {
            Check::new("memory", Verdict::Warn, found).advise("2 GiB carry about ten thousand listeners")
        }
        _ => Check::new("memory", Verdict::Ok, found),
    }
}

fn open_files(config: &Config) -> Check {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let asked = edge::open_files(&config.edge, 1 + config.origin.recording_fallbacks.len());
    let (least, wanted) = (*asked.start() as u64, *asked.end() as u64);
    let found = match limit.maximum {
        Some(hard) => format!("up to {hard} a process; an edge needs {least} and may use {wanted}"),
        None => "no limit".into(),
    };
    let advice =
        format!("raise it: LimitNOFILE={wanted} in the unit, or `ulimit -Hn {wanted}` before the start");
    match hard {
        hard if hard < least => Check::new("open files", Verdict::Fail, found).advise(advice),
        hard if hard < wanted => Check::new("open files", Verdict::Warn, found).advise(advice),
        _ => Check::new("open files", Verdict::Ok, found),
    }
}

fn ports(config: &Config) -> Vec<Check> {
    let mut config = config.clone();
    let mut checks: Vec<_> = crate::roles::doors(&mut config)
        .into_iter()
        .map(|(flag, address)| match reserve(*address, flag) {
            Ok(_) => Check::new("port", Verdict::Ok, format!("{address} is free ({flag})")),
            Err(error) => Check::new("port", Verdict::Warn, error.to_string())
                .advise("no matter if this is a Minassa that runs already"),
        })
        .collect();
    let (flag, address) = crate::roles::media_door(&mut config);
    checks.push(match probe_udp(*address, flag) {
        Ok(_) => Check::new("port", Verdict::Ok, format!("udp {address} is free ({flag})")),
        Err(error) => Check::new("port", Verdict::Warn, error.to_string())
            .advise("no matter if this is a Minassa that runs already"),
    });
    checks
}

/// Whether somebody keeps the clock right. An event starts by the wall clock, once.
fn clock() -> Check {
    const NAME: &str = "clock";
    let advice = "let chrony or systemd-timesyncd keep it: a show starts by the wall clock";
    // systemd-timesyncd touches this file at each successful synchronisation.
    if let Ok(age) = fs::metadata("/run/systemd/timesync/synchronized")
        .and_then(|file| file.modified())
        .map(|at| at.elapsed().unwrap_or_default())
    {
        let found = format!("synchronised by systemd-timesyncd {} minutes ago", age.as_secs() / 60);
        return if age < Duration::from_secs(86_400) {
            Check::new(NAME, Verdict::Ok, found)
        } else {
            Check::new(NAME, Verdict::Warn, found).advise(advice)
        };
    }
    match command("chronyc", &["-c", "tracking"]).as_deref().and_then(chrony_offset) {
        Some(offset) if offset.abs() < 0.05 => {
            Check::new(NAME, Verdict::Ok, format!("synchronised by chrony, off by {:.1} ms", offset * 1e3))
        }
        Some(offset) => {
            Check::new(NAME, Verdict::Warn, format!("chrony says it is off by {offset:.3} s")).advise(advice)
        }
        None => match command("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).as_deref() {
            Some("yes") => Check::new(NAME, Verdict::Ok, "synchronised, says timedatectl"),
            Some("no") => {
                Check::new(NAME, Verdict::Warn, "not synchronised, says timedatectl").advise(advice)
            }
            _ => Check::new(
                NAME,
                Verdict::Unknown,
                "neither systemd-timesyncd, chrony nor timedatectl says anything",
            )
            .advise(advice),
        },
    }
}

/// Seconds the clock is off, from `chronyc -c tracking` (field 5); nothing if chrony has no source (stratum 0).
fn chrony_offset(line: &str) -> Option<f64> {
    let fields: Vec<_> = line.trim().split(',').collect();
    if fields.len() < 5 || fields[2] == "0" { None } else { fields[4].parse().ok() }
}

fn command(program: &str, arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Speed and room of the disk that the recorder writes to: a part of each rendition, every 480 ms, made safe at once.
fn disk(data: &Path) -> Vec<Check> {
    // The directory may not be there yet: then its nearest parent is on the same disk.
    let Some(place) = data.ancestors().map(nonempty).find(|path| path.is_dir()) else {
        return vec![Check::new("disk", Verdict::Fail, format!("{} cannot be reached", data.display()))];
    };
    let speed = match measure_fdatasync(place) {
        Ok(delays) => {
            let (median, worst) = (delays[delays.len() / 2], delays[delays.len() - 1]);
            let found = format!(
                "a part is safe in {:.1} ms (median), {:.1} ms at worst, in {}",
                median.as_secs_f64() * 1e3,
                worst.as_secs_f64() * 1e3,
                place.display()
            );
            let advice = "a part is due every 480 ms: use a local disk, not a network's";
            if worst > Duration::from_millis(400) {
                Check::new("disk speed", Verdict::Fail, found).advise(advice)
            } else if worst > Duration::from_millis(100) {
                Check::new("disk speed", Verdict::Warn, found).advise(advice)
            } else {
                Check::new("disk speed", Verdict::Ok, found)
            }
        }
        Err(error) => {
            Check::new("disk speed", Verdict::Fail, format!("cannot write to {}: {error}", place.display()))
                .advise("name another directory with --data")
        }
    };
    let room = match rustix::fs::statvfs(place) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            // Three renditions, their indexes and file system: about 18 kB a second, 65 MB an hour.
            let hours = free / (65 << 20);
            let found = format!("{} MiB free: about {hours} hours of recording", free >> 20);
            match hours {
                0..3 => Check::new("disk space", Verdict::Fail, found).advise("make room before the show"),
                3..24 => Check::new("disk space", Verdict::Warn, found).advise("make room before long shows"),
                _ => Check::new("disk space", Verdict::Ok, found),
            }
        }
        Err(error) => Check::new("disk space", Verdict::Unknown, error.to_string()),
    };
    vec![speed, room]
}

fn nonempty(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Times of writing and syncing a part, sorted.
fn measure_fdatasync(directory: &Path) -> io::Result<Vec<Duration>> {
    let mut file = tempfile::tempfile_in(directory)?;
    let part = [0x5a; 9_000];
    let mut delays = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        file.write_all(&part)?;
        file.sync_data()?;
        delays.push(began.elapsed());
    }
    delays.sort_unstable();
    Ok(delays)
}

/// One number of the kernel's and the least that is good.
struct Setting {
    name: &'static str,
    path: &'static str,
    good: u64,
    why: &'static str,
}

const SETTINGS: [Setting; 3] = [
    Setting {
        name: "accept queue",
        path: "net/core/somaxconn",
        good: 4_096,
        why: "a crowd arrives at once: connections beyond it are dropped and come back a second later",
    },
    Setting {
        name: "SYN queue",
        path: "net/ipv4/tcp_max_syn_backlog",
        good: 4_096,
        why: "handshakes under way when a crowd arrives",
    },
    Setting {
        name: "UDP buffer",
        path: "net/core/rmem_max",
        good: 1 << 20,
        why: "half a second of a full stage's packets, should a core be busy",
    },
];

fn kernel() -> Vec<Check> {
    let mut checks: Vec<_> = SETTINGS
        .iter()
        .map(|setting| match read_sysctl(setting.path).and_then(|text| text.parse::<u64>().ok()) {
            None => Check::new(
                setting.name,
                Verdict::Unknown,
                format!("{} cannot be read", sysctl_name(setting.path)),
            ),
            Some(value) => {
                let found = format!("{} = {value}", sysctl_name(setting.path));
                if value >= setting.good {
                    Check::new(setting.name, Verdict::Ok, found)
                } else {
                    Check::new(setting.name, Verdict::Warn, found).advise(format!(
                        "sysctl -w {}={}: {}",
                        sysctl_name(setting.path),
                        setting.good,
                        setting.why
                    ))
                }
            }
        })
        .collect();
    checks.push(tcp_memory());
    checks.push(port_range());
    checks.push(congestion_control());
    checks.push(reuse_port());
    checks
}

fn read_sysctl(path: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok().map(|text| text.trim().to_owned())
}

fn sysctl_name(path: &str) -> String {
    path.replace('/', ".")
}

/// All TCP connections together may use this much of the kernel's memory.
fn tcp_memory() -> Check {
    let name = "TCP memory";
    let limit = Memory::now().tcp_limit;
    if limit == u64::MAX {
        return Check::new(name, Verdict::Unknown, "net.ipv4.tcp_mem cannot be read");
    }
    let found = format!("up to {} MiB for all connections", limit >> 20);
    if limit >= 256 << 20 {
        Check::new(name, Verdict::Ok, found)
    } else {
        Check::new(name, Verdict::Warn, found)
            .advise("raise the third number of net.ipv4.tcp_mem: about 8 KiB a listener are used")
    }
}

fn port_range() -> Check {
    let name = "local ports";
    let range: Option<Vec<u64>> = read_sysctl("net/ipv4/ip_local_port_range")
        .map(|text| text.split_whitespace().filter_map(|port| port.parse().ok()).collect());
    match range.as_deref() {
        Some([first, last]) => {
            let found = format!("{first} to {last}");
            if last.saturating_sub(*first) >= 20_000 {
                Check::new(name, Verdict::Ok, found)
            } else {
                Check::new(name, Verdict::Warn, found)
                    .advise("sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\": a proxy on this machine needs one a listener")
            }
        }
        _ => Check::new(name, Verdict::Unknown, "net.ipv4.ip_local_port_range cannot be read"),
    }
}

fn congestion_control() -> Check {
    let name = "congestion control";
    match read_sysctl("net/ipv4/tcp_congestion_control") {
        None => Check::new(name, Verdict::Unknown, "net.ipv4.tcp_congestion_control cannot be read"),
        Some(which) if which == "bbr" => {
            let queue = read_sysctl("net/core/default_qdisc").unwrap_or_else(|| "unknown".into());
            Check::new(name, Verdict::Ok, format!("bbr, pacing with {queue}"))
        }
        Some(which) => {
            let available = read_sysctl("net/ipv4/tcp_available_congestion_control").unwrap_or_default();
            let advice = if available.split_whitespace().any(|each| each == "bbr") {
                "sysctl -w net.ipv4.tcp_congestion_control=bbr: lossy mobile networks keep their rate"
            } else {
                "`modprobe tcp_bbr` and net.ipv4.tcp_congestion_control=bbr would help lossy mobile networks"
            };
            // Speech needs so little of a line that this is a wish, not a fault.
            Check::new(name, Verdict::Ok, which).advise(advice)
        }
    }
}

/// Whether several processes can share a port: edges do.
fn reuse_port() -> Check {
    let name = "shared ports";
    let both = backend::http::bind(([127, 0, 0, 1], 0).into(), true).and_then(|first| {
        let second = backend::http::bind(first.local_addr()?, true)?;
        Ok((first, second))
    });
    match both {
        Ok(_) => Check::new(name, Verdict::Ok, "SO_REUSEPORT works"),
        Err(error) => {
            Check::new(name, Verdict::Fail, format!("SO_REUSEPORT: {error}")).advise("run with --edges 1")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_system_are_read() {
        assert_eq!(chrony_offset("A1,host,2,1700000000.1,-0.000012,0,0,0\n"), Some(-0.000_012));
        assert_eq!(chrony_offset("00000000,,0,0.0,0.0,0,0\n"), None);
        assert_eq!(chrony_offset("506 Cannot talk to daemon"), None);
    }

    #[test]
    fn every_check_has_an_answer_here() {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.data = directory.path().join("not/there/yet");
        let checks = examine(&config);
        for name in [
            "processors",
            "open files",
            "port",
            "certificate",
            "clock",
            "disk speed",
            "disk space",
            "accept queue",
        ] {
            assert!(checks.iter().any(|check| check.name == name), "{name}");
        }
        let mut out = Vec::new();
        print(&checks, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().count() > checks.len());
    }
}
