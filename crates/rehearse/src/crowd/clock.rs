//! The clock that all processes of a run share, and what a thread has used of a processor.

use rustix::time::{ClockId, Timespec, clock_gettime};

fn nanos(time: Timespec) -> u64 {
    // Monotonic clocks begin near zero: neither part is negative.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The machine's monotonic clock, nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// Processor time of the calling thread, µs.
pub(crate) fn thread_cpu_us() -> u64 {
    nanos(clock_gettime(ClockId::ThreadCPUTime)) / 1_000
}

/// Time from the beginning of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunClock {
    start_ns: u64,
}

impl RunClock {
    pub(crate) fn new(start_ns: u64) -> Self {
        Self { start_ns }
    }

    /// Microseconds; 0 before it begins.
    pub(crate) fn now_us(self) -> u64 {
        monotonic_ns().saturating_sub(self.start_ns) / 1_000
    }
}
