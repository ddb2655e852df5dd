//! Both clocks of the machine.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use model::{BootId, BootTime, ClockReading, UnixTime};
use rustix::time::{ClockId, clock_gettime};

/// Reads the wall clock and the machine's clock together, and names the start of the machine.
///
/// The identity comes from `/proc/sys/kernel/random/boot_id`, read once; where that is missing it is all zero, and
/// an anchor then survives a restart of the machine only by chance.
pub fn read() -> ClockReading {
    // The wall clock through the C library, which a test may stand in for to step it (libfaketime); the machine's
    // clock by the system call itself, which it may not.
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let boot = boot_now();
    let unix = UnixTime::from_nanos(i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX));
    ClockReading { unix, boot, boot_id: boot_id() }
}

/// The machine's clock alone (`CLOCK_BOOTTIME`).
pub fn boot_now() -> BootTime {
    let now = clock_gettime(ClockId::Boottime);
    let uptime = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    BootTime::from_uptime(Duration::from_nanos(u64::try_from(uptime).unwrap_or(0)))
}

/// The wall clock alone.
pub fn unix_now() -> UnixTime {
    read().unix
}

fn boot_id() -> BootId {
    static ID: OnceLock<BootId> = OnceLock::new();
    *ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        parse_boot_id(&text).unwrap_or(BootId([0; 16]))
    })
}

fn parse_boot_id(text: &str) -> Option<BootId> {
    let digits: Vec<u8> = text
        .trim()
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let mut id = [0; 16];
    if digits.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(BootId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_a_uuid() {
        let id = parse_boot_id("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\n").unwrap();
        assert_eq!(id.0[..4], [0x0f, 0x1e, 0x2d, 0x3c]);
        assert_eq!(parse_boot_id("0f1e"), None);
        assert_eq!(parse_boot_id(""), None);
    }

    #[test]
    fn the_clocks_go_forward() {
        let (first, second) = (read(), read());
        assert!(second.boot >= first.boot);
        assert_eq!(first.boot_id, second.boot_id);
        assert!(first.unix > UnixTime::parse("2024-01-01T00:00:00Z").unwrap());
    }
}
