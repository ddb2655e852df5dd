//! What every process does alike to count for the ledger: when a bin ends, what the kernel counted in it, and how busy
//! this process was.

use std::time::Duration;

use admission::ledger::{BinStart, Kernel, ProcessBin};
use model::UnixTime;

/// An event's ledger is begun so long before doors: whoever gathers is counted, and the draw at doors has a head to mix in
/// that nobody knew when they chose the seed.
const LEAD: Duration = Duration::from_secs(600);
/// A ledger waits so long for doors that do not open.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Whether the ledger of an event is kept whose doors, planned for `doors_at`, have not opened yet.
pub fn ledger_is_open(doors_at: UnixTime, now: UnixTime) -> bool {
    now.plus(LEAD) >= doors_at && now <= doors_at.plus(PATIENCE)
}

/// Where a process is among all that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// Origin, which also reads the kernel's counters of its machine.
    Origin,
    /// Control.
    Control,
    /// An edge, counted from 0.
    Edge(u32),
}

impl Counts {
    fn number(self) -> u32 {
        match self {
            Self::Origin => 0,
            Self::Control => 1,
            Self::Edge(index) => index.saturating_add(2),
        }
    }
}

/// Notices when a bin ends.
#[derive(Debug)]
pub struct Tally {
    who: Counts,
    start: BinStart,
    cpu: Duration,
    kernel: Option<Kernel>,
}

impl Tally {
    /// Counting begins at `now`; the bin that it falls into is not whole, and is left out.
    pub fn new(who: Counts, now: UnixTime) -> Self {
        let kernel = (who == Counts::Origin).then(kernel_counts).flatten();
        Self { who, start: BinStart::containing(now), cpu: cpu_time(), kernel }
    }

    /// To be asked about once a second: the bin that has ended since it was asked last, if one has, with what is
    /// counted everywhere. If several have, it is the one that ended first; what was counted is in it.
    pub fn turn(&mut self, now: UnixTime) -> Option<ProcessBin> {
        let start = BinStart::containing(now);
        // A clock that went back counts on into the bin that was begun.
        start.bins_since(self.start).filter(|bins| *bins > 0)?;
        let mut bin = ProcessBin::new(self.start, self.who.number(), 0);
        let cpu = cpu_time();
        let elapsed_ms = start.as_millis() - self.start.as_millis();
        let share = cpu.saturating_sub(self.cpu).as_millis() * 10_000 / u128::from(elapsed_ms.max(1));
        bin.counts.own.cpu_bp = u64::try_from(share).unwrap_or(u64::MAX);
        if self.who == Counts::Origin {
            let kernel = kernel_counts();
            bin.kernel = self.kernel.zip(kernel).map(|(before, now)| since(&before, &now));
            self.kernel = kernel;
        }
        (self.start, self.cpu) = (start, cpu);
        Some(bin)
    }
}

/// Processor time of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What the kernel has counted since the machine was started; nothing where it does not say.
fn kernel_counts() -> Option<Kernel> {
    read_kernel(&std::fs::read_to_string("/proc/net/netstat").ok()?)
}

/// `TcpExt:` names, then `TcpExt:` values (`proc(5)`).
fn read_kernel(text: &str) -> Option<Kernel> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let of = |name: &str| {
        let mut pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
        pairs.find(|(known, _)| *known == name)?.1.parse::<u64>().ok()
    };
    Some(Kernel {
        cookies_sent: of("SyncookiesSent")?,
        cookies_returned: of("SyncookiesRecv")?,
        listen_overflows: of("ListenOverflows")?,
        listen_drops: of("ListenDrops")?,
    })
}

fn since(before: &Kernel, now: &Kernel) -> Kernel {
    Kernel {
        cookies_sent: now.cookies_sent.saturating_sub(before.cookies_sent),
        cookies_returned: now.cookies_returned.saturating_sub(before.cookies_returned),
        listen_overflows: now.listen_overflows.saturating_sub(before.listen_overflows),
        listen_drops: now.listen_drops.saturating_sub(before.listen_drops),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> UnixTime {
        UnixTime::from_millis(2_000_000_000_000 + ms)
    }

    #[test]
    fn a_bin_is_told_once_when_it_has_ended() {
        let mut tally = Tally::new(Counts::Edge(3), at(4_000));
        assert_eq!(tally.turn(at(9_999)), None);
        let bin = tally.turn(at(10_200)).unwrap();
        assert_eq!((bin.start(), bin.kernel), (BinStart::containing(at(0)), None));
        assert_eq!(tally.turn(at(11_000)), None);
        assert_eq!(tally.turn(at(3_000)), None, "the clock went back");
        assert_eq!(tally.turn(at(55_000)).unwrap().start(), BinStart::containing(at(10_000)));
    }

    #[test]
    fn the_kernels_counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed ListenOverflows ListenDrops\n\
                    TcpExt: 7 3 9 2 5\nIpExt: InNoRoutes\nIpExt: 1\n";
        let kernel = Kernel { cookies_sent: 7, cookies_returned: 3, listen_overflows: 2, listen_drops: 5 };
        assert_eq!(read_kernel(text), Some(kernel));
        assert_eq!(read_kernel("TcpExt: SyncookiesSent\nTcpExt: 1\n"), None);
        assert_eq!(read_kernel(""), None);
        let later = Kernel { cookies_sent: 10, ..kernel };
        assert_eq!(since(&kernel, &later), Kernel { cookies_sent: 3, ..Kernel::default() });
        if cfg!(target_os = "linux") && std::path::Path::new("/proc/net/netstat").exists() {
            assert!(kernel_counts().is_some(), "this kernel says");
        }
    }
}
