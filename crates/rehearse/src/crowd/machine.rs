//! What the machine says about the server: processor time, memory, open files.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use serde::{Deserialize, Serialize};

/// One look at a server. Times and sizes only grow, or are as of now; differences of two looks are what counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When, on the machine's monotonic clock, µs.
    pub at_us: u64,
    /// Processes found.
    pub processes: u64,
    /// Processor time billed to them, user and system, µs, to 10 ms.
    pub cpu_us: u64,
    /// Idle time of the server's cores, µs. The kernel keeps idle time exactly and busy time by ticks, so busy is what
    /// is left of the clock.
    pub idle_us: u64,
    /// Idle time of the generator's own core, µs, if it is tied to one.
    pub own_idle_us: u64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Proportional share of it, bytes.
    pub pss_bytes: u64,
    /// Open files.
    pub files: u64,
    /// Kernel memory for its own objects, of the whole machine, bytes.
    pub slab_bytes: u64,
    /// Memory of all TCP buffers of the network namespace, bytes.
    pub tcp_bytes: u64,
}

/// Whose figures are asked for.
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    pids: Vec<u32>,
    cores: Vec<usize>,
    own_core: Option<usize>,
    /// The processes and all below them, as of the last full look.
    family: Vec<u32>,
}

impl Sampler {
    /// Of these processes with all below them, and of these cores.
    pub fn new(pids: &[u32], cores: &[usize]) -> Self {
        Self { pids: pids.to_vec(), cores: cores.to_vec(), own_core: own_core(), family: Vec::new() }
    }

    /// The core this process is tied to, if it is tied to one.
    pub fn own_core(&self) -> Option<usize> {
        self.own_core
    }

    /// A quick look: without the proportional memory, for which the kernel walks every page, and at the processes
    /// that the last full look found.
    pub fn glance(&self) -> Sample {
        self.sample(false)
    }

    /// When it is, and how idle the generator's own core was.
    pub(crate) fn brief(&self) -> (u64, u64) {
        let idle_us = self.own_core.map_or(0, |core| idle_ticks(&read("/proc/stat"), core)) * tick_us();
        (super::clock::monotonic_ns() / 1_000, idle_us)
    }

    /// A full look.
    pub fn look(&mut self) -> Sample {
        self.family = family(&self.pids);
        self.sample(true)
    }

    fn sample(&self, proportional: bool) -> Sample {
        let tick_us = tick_us();
        let mut sample = Sample { at_us: super::clock::monotonic_ns() / 1_000, ..Sample::default() };
        let stat = read("/proc/stat");
        sample.idle_us = self.cores.iter().map(|core| idle_ticks(&stat, *core)).sum::<u64>() * tick_us;
        sample.own_idle_us = self.own_core.map_or(0, |core| idle_ticks(&stat, core)) * tick_us;
        for &pid in &self.family {
            let Some(stat) = ProcessStat::parse(&read(&format!("/proc/{pid}/stat"))) else { continue };
            sample.processes += 1;
            sample.cpu_us += stat.ticks * tick_us;
            sample.rss_bytes += stat.rss_pages * page_size() as u64;
            sample.files += open_files(pid);
            if proportional {
                sample.pss_bytes += kibibytes(&read(&format!("/proc/{pid}/smaps_rollup")), "Pss:");
            }
        }
        sample.slab_bytes = kibibytes(&read("/proc/meminfo"), "Slab:");
        sample.tcp_bytes = tcp_pages(&read("/proc/net/sockstat")) * page_size() as u64;
        sample
    }
}

fn tick_us() -> u64 {
    1_000_000 / clock_ticks_per_second().max(1)
}

fn read(path: &str) -> String {
    // What is gone, or hidden, counts as nothing.
    fs::read_to_string(path).unwrap_or_default()
}

fn own_core() -> Option<usize> {
    let cores = rustix::thread::sched_getaffinity(None).ok()?;
    let mut set = (0..1_024).filter(|core| cores.is_set(*core));
    let first = set.next()?;
    set.next().is_none().then_some(first)
}

/// Ticks a core was idle, waiting for disks included.
fn idle_ticks(stat: &str, core: usize) -> u64 {
    let name = format!("cpu{core} ");
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix(&name)) else { return 0 };
    line.split_ascii_whitespace().skip(3).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProcessStat {
    parent: u32,
    ticks: u64,
    rss_pages: u64,
}

impl ProcessStat {
    /// `/proc/PID/stat`, whose second field may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            ticks: number(11)? + number(12)?,
            rss_pages: number(21)?,
        })
    }
}

/// These processes and everything below them, each once.
fn family(roots: &[u32]) -> Vec<u32> {
    let mut family = roots.to_vec();
    let Ok(entries) = fs::read_dir("/proc") else { return family };
    let all: Vec<(u32, u32)> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, ProcessStat::parse(&read(&format!("/proc/{pid}/stat")))?.parent)))
        .collect();
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        for (pid, of) in &all {
            if *of == parent && !family.contains(pid) {
                family.push(*pid);
            }
        }
    }
    family
}

fn open_files(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/fd");
    // Since Linux 6.2 the size of this directory is the number of its entries.
    match fs::metadata(&path).map(|directory| std::os::unix::fs::MetadataExt::size(&directory)) {
        Ok(size) if size > 0 => size,
        _ => fs::read_dir(&path).map_or(0, |entries| entries.count() as u64),
    }
}

fn kibibytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1_024
}

/// `TCP: inuse 5 orphan 0 tw 0 alloc 9 mem 3`.
fn tcp_pages(sockstat: &str) -> u64 {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"));
    let mut words = line.unwrap_or_default().split_ascii_whitespace();
    words.find(|word| *word == "mem").and_then(|_| words.next()?.parse().ok()).unwrap_or(0)
}

/// What the machine is, for a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors the system has.
    pub cores: usize,
    /// What they call themselves.
    pub model: String,
    /// The kernel's release.
    pub kernel: String,
    /// Memory, MiB.
    pub memory_mib: u64,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            cores: info.lines().filter(|line| line.starts_with("processor")).count(),
            model: model.map_or("unknown", |(_, model)| model).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: kibibytes(&read("/proc/meminfo"), "MemTotal:") / (1 << 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words_are_read() {
        let stat = "4 (a ) b) S 17 1 1 0 -1 4194560 1 2 3 4 250 130 0 0 20 0 9 0 5 6000 77 1844";
        assert_eq!(ProcessStat::parse(stat), Some(ProcessStat { parent: 17, ticks: 380, rss_pages: 77 }));
        assert_eq!(ProcessStat::parse(""), None);
        let cores = "cpu  9 9 9 9\ncpu0 1 2 3 400 50 6 7\ncpu1 1 2 3 40 5 6 7\ncpu10 0 0 0 7 0\n";
        assert_eq!((idle_ticks(cores, 0), idle_ticks(cores, 1), idle_ticks(cores, 10)), (450, 45, 7));
        assert_eq!(idle_ticks(cores, 3), 0);
        assert_eq!(kibibytes("Rss:  12 kB\nPss:      7 kB\n", "Pss:"), 7 * 1_024);
        assert_eq!(tcp_pages("sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 9 mem 31\n"), 31);
        assert_eq!(tcp_pages(""), 0);
    }

    #[test]
    fn this_process_is_found_in_its_family() {
        let me = std::process::id();
        let sample = Sampler::new(&[me], &[0]).look();
        assert!(sample.processes >= 1 && sample.rss_bytes > 0 && sample.files > 0, "{sample:?}");
        assert!(
            family(&[rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get() as u32)])
                .contains(&me)
        );
        let machine = Machine::this();
        assert!(machine.cores > 0 && machine.memory_mib > 0 && !machine.kernel.is_empty(), "{machine:?}");
    }
}
