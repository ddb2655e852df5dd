//! What Linux says of memory and files: of the machine as far as it is ours to use, and of this process.
//!
//! What cannot be read counts as plenty: nobody is refused for want of knowledge.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::param::page_size;

/// Memory that can still be used, as of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that programs can take without anything being swapped or killed: what the machine has available, or less
    /// if a control group of this process allows less.
    pub available: u64,
    /// Bytes that all TCP connections together may still take of the kernel's memory (`net.ipv4.tcp_mem`).
    pub tcp_available: u64,
    /// Bytes that all TCP connections together may take.
    pub tcp_limit: u64,
}

impl Memory {
    /// Asks the system.
    pub fn now() -> Self {
        let machine = kibibytes(&read("/proc/meminfo"), "MemAvailable").unwrap_or(u64::MAX);
        let group = group_of(&read("/proc/self/cgroup")).map_or(u64::MAX, |group| group_available(&group));
        let tcp_limit = tcp_limit(&read("/proc/sys/net/ipv4/tcp_mem")).unwrap_or(u64::MAX);
        let tcp_used = tcp_used(&read("/proc/net/sockstat")).unwrap_or(0);
        Self { available: machine.min(group), tcp_available: tcp_limit.saturating_sub(tcp_used), tcp_limit }
    }
}

/// Memory of this process that is in use, bytes; 0 if the system does not say.
pub fn rss_bytes() -> u64 {
    kibibytes(&read("/proc/self/status"), "VmRSS").unwrap_or(0)
}

/// Open files and sockets of this process; 0 if the system does not say.
pub fn open_files() -> u64 {
    // Since Linux 6.2 the size of this directory is the number of its entries; before, they have to be counted.
    match fs::metadata("/proc/self/fd").map(|directory| std::os::unix::fs::MetadataExt::size(&directory)) {
        Ok(size) if size > 0 => size,
        _ => fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A line such as `MemAvailable:   23908404 kB` of `/proc/meminfo` or `/proc/self/status`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The third number of `net.ipv4.tcp_mem`, in bytes.
fn tcp_limit(text: &str) -> Option<u64> {
    pages(text.split_ascii_whitespace().nth(2)?)
}

/// `TCP: inuse 5 orphan 0 tw 0 alloc 9 mem 3` of `/proc/net/sockstat`, in bytes.
fn tcp_used(sockstat: &str) -> Option<u64> {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    pages(line.split_ascii_whitespace().skip_while(|word| *word != "mem").nth(1)?)
}

fn pages(text: &str) -> Option<u64> {
    text.parse::<u64>().ok()?.checked_mul(page_size() as u64)
}

/// The control group of version 2 that a process is in: the line `0::/path` of `/proc/self/cgroup`.
fn group_of(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A group outside the process's own view of the tree begins so; nothing is known of it then.
    (!path.starts_with("..")).then(|| Path::new("/sys/fs/cgroup").join(path))
}

/// The least that a control group or one of those above it may still take, bytes.
fn group_available(group: &Path) -> u64 {
    group
        .ancestors()
        .take_while(|group| group.starts_with("/sys/fs/cgroup"))
        .filter_map(|group| {
            let limit: u64 = read(group.join("memory.max")).trim().parse().ok()?;
            let used: u64 = read(group.join("memory.current")).trim().parse().ok()?;
            Some(limit.saturating_sub(used.saturating_sub(inactive_file(&read(group.join("memory.stat"))))))
        })
        .min()
        .unwrap_or(u64::MAX)
}

/// Pages of files that nobody has used of late, which the kernel gives up first: the line `inactive_file 4096` of
/// `memory.stat`, bytes.
fn inactive_file(stat: &str) -> u64 {
    let bytes = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok());
    bytes.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words_are_read() {
        let text = "MemTotal:       24651232 kB\nMemAvailable:   23908404 kB\n";
        assert_eq!(kibibytes(text, "MemAvailable"), Some(23_908_404 * 1_024));
        assert_eq!(kibibytes(text, "MemFree"), None);
        let page = page_size() as u64;
        assert_eq!(tcp_limit("287052\t382738\t574104\n"), Some(574_104 * page));
        assert_eq!(tcp_limit(""), None);
        let sockstat = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 9 mem 31\nUDP: inuse 1 mem 7\n";
        assert_eq!(tcp_used(sockstat), Some(31 * page));
        assert_eq!(tcp_used("TCP: inuse 5"), None);
        assert_eq!(
            group_of("1:cpu:/x\n0::/system.slice/a.service\n"),
            Some("/sys/fs/cgroup/system.slice/a.service".into())
        );
        assert_eq!(group_of("0::/../b\n"), None);
        assert_eq!(group_of("1:cpu:/x\n"), None);
        assert_eq!(inactive_file("anon 1\ninactive_anon 2\ninactive_file 4096\n"), 4_096);
    }

    #[test]
    fn this_machine_has_some_memory_and_this_process_uses_some() {
        let memory = Memory::now();
        assert!(memory.available > 0 && memory.tcp_available <= memory.tcp_limit, "{memory:?}");
        assert!(rss_bytes() > 0 && rss_bytes() < memory.available);
        assert!(open_files() > 0);
    }
}
