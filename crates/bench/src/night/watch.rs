//! What processes take, while things happen: memory, files, processor, and the time they wait for one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(250);

/// What one process took at its most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Peak {
    /// Resident memory, KiB.
    pub(crate) rss_kib: u64,
    /// Open files.
    pub(crate) files: u64,
    /// The limit of open files.
    pub(crate) files_limit: u64,
    /// The share of the limit.
    pub(crate) files_share: f64,
}

impl Peak {
    fn add(&mut self, rss_kib: u64, files: u64, limit: u64) {
        self.rss_kib = self.rss_kib.max(rss_kib);
        if files >= self.files {
            (self.files, self.files_limit) = (files, limit);
        }
        self.files_share = self.files_share.max(files as f64 / limit.max(1) as f64);
    }

    /// MiB.
    pub(crate) fn rss_mib(&self) -> f64 {
        self.rss_kib as f64 / 1_024.0
    }
}

/// Peaks by role: `origin`, `control`, `edge-0`…
pub(crate) type Peaks = BTreeMap<String, Peak>;

/// Looks at processes now and then, until it is asked what it saw.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    peaks: Arc<Mutex<Peaks>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Whoever `roles` names; asked again at each look, for processes come and go.
    pub(crate) fn start(roles: impl Fn() -> Vec<(String, u32)> + Send + 'static) -> Self {
        let (stop, peaks) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Peaks::new())));
        let (ends, seen) = (Arc::clone(&stop), Arc::clone(&peaks));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                for (role, pid) in roles() {
                    let Some((rss, files, limit)) = look(pid) else { continue };
                    let mut peaks = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    peaks.entry(role).or_default().add(rss, files, limit);
                }
                std::thread::sleep(EVERY);
            }
        });
        Self { stop, peaks, thread: Some(thread) }
    }

    /// What it saw.
    pub(crate) fn end(mut self) -> Peaks {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        std::mem::take(&mut *self.peaks.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Resident KiB, open files and their limit.
fn look(pid: u32) -> Option<(u64, u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let path = format!("/proc/{pid}/fd");
    // Since Linux 6.2 the size of this directory is the number of its entries.
    let size =
        std::fs::metadata(&path).map_or(0, |directory| std::os::unix::fs::MetadataExt::size(&directory));
    let files = if size > 0 { size } else { std::fs::read_dir(&path).ok()?.count() as u64 };
    Some((resident_kib(&status)?, files, files_limit(&limits)?))
}

fn resident_kib(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_ascii_whitespace().next()?.parse().ok()
}

/// The soft limit.
fn files_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The first two numbers of a `schedstat`: time on a processor, and time waiting for one, ns.
pub(crate) fn schedstat(text: &str) -> [u64; 2] {
    let mut numbers = text.split_ascii_whitespace().map(|word| word.parse().unwrap_or(0));
    [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words_are_read() {
        assert_eq!(resident_kib("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t  7 kB\n"), Some(7));
        assert_eq!(
            files_limit("Max cpu time  1 2\nMax open files            1024   20000   files\n"),
            Some(1_024)
        );
        assert_eq!((schedstat("5 7 9\n"), schedstat("")), ([5, 7], [0, 0]));
    }

    #[test]
    fn peaks_are_the_most_of_each() {
        let mut peak = Peak::default();
        peak.add(2_048, 50, 100);
        peak.add(1_024, 20, 30);
        let expected = Peak { rss_kib: 2_048, files: 50, files_limit: 100, files_share: 20.0 / 30.0 };
        assert_eq!((peak, peak.rss_mib()), (expected, 2.0));
    }

    #[test]
    fn a_process_is_seen() {
        let (rss, files, limit) = look(std::process::id()).unwrap();
        assert!(rss > 0 && files > 2 && limit >= files);
        assert_eq!(look(u32::MAX), None);
    }
}
