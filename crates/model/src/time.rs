//! Media time and the one clock of an event.
//!
//! ```text
//! doors_utc ── anchored once ── doors_boot
//!     │
//!     ├──── part 0 ────┼──── part 1 ────┼ … ┼──── part 7 ────┤ segment 0
//!     0              23,040           46,080               184,320   samples at 48 kHz
//! ```

use std::fmt;
use std::time::Duration;

use crate::PartNumber;

/// Samples a second of the programme and of every rendition.
pub const SAMPLE_RATE: u32 = 48_000;
/// Samples of one Opus frame: 20 ms.
pub const OPUS_FRAME_SAMPLES: usize = 960;
/// Samples of one MPEG-1 Layer III frame: 24 ms.
pub const MP3_FRAME_SAMPLES: usize = 1_152;
/// Opus frames in a part.
pub const OPUS_FRAMES_PER_PART: usize = 24;
/// MP3 frames in a part.
pub const MP3_FRAMES_PER_PART: usize = 20;
/// Samples of one part: 480 ms, the smallest multiple of 120 ms (where 20 ms and 24 ms frames meet) that is worth
/// a write of its own.
pub const PART_SAMPLES: u64 = 23_040;
/// Duration of one part.
pub const PART_DURATION: Duration = Duration::from_millis(480);
/// Parts in a segment.
pub const PARTS_PER_SEGMENT: u64 = 8;
/// Duration of one segment.
pub const SEGMENT_DURATION: Duration = Duration::from_millis(3_840);

const _: () = assert!(OPUS_FRAME_SAMPLES * OPUS_FRAMES_PER_PART == PART_SAMPLES as usize);
const _: () = assert!(MP3_FRAME_SAMPLES * MP3_FRAMES_PER_PART == PART_SAMPLES as usize);
const _: () = assert!(PART_SAMPLES * 1_000 == PART_DURATION.as_millis() as u64 * SAMPLE_RATE as u64);
const _: () = assert!(SEGMENT_DURATION.as_millis() == PART_DURATION.as_millis() * PARTS_PER_SEGMENT as u128);

/// A position in the programme: samples at 48 kHz since doors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(u64);

impl MediaTime {
    /// The opening of doors.
    pub const ZERO: Self = Self(0);

    /// From samples at 48 kHz since doors.
    pub const fn from_samples(samples: u64) -> Self {
        Self(samples)
    }

    /// Samples at 48 kHz since doors.
    pub const fn samples(self) -> u64 {
        self.0
    }

    /// From the time since doors, rounded down to a sample.
    pub const fn from_duration(since_doors: Duration) -> Self {
        Self((since_doors.as_nanos() * SAMPLE_RATE as u128 / 1_000_000_000) as u64)
    }

    /// The time since doors, rounded up to a nanosecond, so that [`Self::from_duration`] is its inverse.
    pub const fn to_duration(self) -> Duration {
        let nanos = (self.0 as u128 * 1_000_000_000).div_ceil(SAMPLE_RATE as u128);
        Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32)
    }

    /// The part that holds this sample.
    pub const fn part(self) -> PartNumber {
        PartNumber::new(self.0 / PART_SAMPLES)
    }

    /// Later by `samples`.
    #[must_use]
    pub const fn plus(self, samples: u64) -> Self {
        Self(self.0.saturating_add(samples))
    }

    /// Samples since `earlier`, 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A moment of civil time: nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

/// A text that is no RFC 3339 timestamp, or one outside the years 1970 to 2261.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is no RFC 3339 time such as 2026-11-22T20:00:00Z or 2026-11-22T20:00:00+03:00")]
pub struct InvalidTime {
    /// What was given.
    pub value: String,
}

impl UnixTime {
    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Milliseconds since the epoch, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Later by `by`, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Earlier by `by`, saturating.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Time since `earlier`; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(i128::from(self.0) - i128::from(earlier.0)).unwrap_or(0))
    }

    /// Reads an RFC 3339 timestamp; an offset is required.
    ///
    /// # Errors
    /// [`InvalidTime`] if it is none.
    pub fn parse(value: &str) -> Result<Self, InvalidTime> {
        let invalid = || InvalidTime { value: value.chars().take(64).collect() };
        let stamp: jiff::Timestamp = value.parse().map_err(|_| invalid())?;
        let nanos = i64::try_from(stamp.as_nanosecond()).map_err(|_| invalid())?;
        if nanos < 0 { Err(invalid()) } else { Ok(Self(nanos)) }
    }
}

impl fmt::Display for UnixTime {
    /// RFC 3339 in UTC with milliseconds, as `EXT-X-PROGRAM-DATE-TIME` wants it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp =
            jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write!(f, "{stamp:.3}")
    }
}

impl fmt::Debug for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Time since the machine started, suspend included (`CLOCK_BOOTTIME`). Never steps; says nothing across a restart
/// of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(u64);

impl BootTime {
    /// What the count is at the start of the machine: 73 years, so that doors which opened before the machine was
    /// started again have a time too.
    const AT_START: u64 = 1 << 61;

    /// From the time since the machine started.
    pub const fn from_uptime(uptime: Duration) -> Self {
        Self(Self::AT_START.saturating_add(uptime.as_nanos() as u64))
    }

    /// From its count of nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Its count of nanoseconds, for keeping it. Differences mean something, the count itself does not.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Later by `by`, saturating.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Earlier by `by`, saturating.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time since `earlier`; zero if it is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// One start of the machine: `/proc/sys/kernel/random/boot_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 16]);

/// Both clocks, read together by a shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The wall clock, which may step.
    pub unix: UnixTime,
    /// The clock that never steps.
    pub boot: BootTime,
    /// Which start of the machine `boot` counts from.
    pub boot_id: BootId,
}

/// Where media time 0 lies on both clocks. Written once, at doors; no later step of the wall clock moves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// Doors in civil time: the origin of every `EXT-X-PROGRAM-DATE-TIME`.
    pub doors: UnixTime,
    /// The same moment on the machine's clock.
    pub doors_boot: BootTime,
    /// The start of the machine that `doors_boot` belongs to.
    pub boot_id: BootId,
}

impl Anchor {
    /// Ties `doors`, which may lie some time before or after `now`, to the machine's clock.
    pub fn new(doors: UnixTime, now: ClockReading) -> Self {
        let doors_boot = if doors >= now.unix {
            now.boot.plus(doors.since(now.unix))
        } else {
            now.boot.minus(now.unix.since(doors))
        };
        Self { doors, doors_boot, boot_id: now.boot_id }
    }

    /// The same timeline after a restart of the machine, where only the wall clock can say how long it was away.
    /// Returns `self` unchanged while the machine is the one it was anchored on.
    #[must_use]
    pub fn carried_over(self, now: ClockReading) -> Self {
        if self.boot_id == now.boot_id { self } else { Self::new(self.doors, now) }
    }

    /// Time since doors at `now`; zero before.
    pub fn elapsed(&self, now: BootTime) -> Duration {
        now.since(self.doors_boot)
    }

    /// The sample that is due at `now`.
    pub fn media_at(&self, now: BootTime) -> MediaTime {
        MediaTime::from_duration(self.elapsed(now))
    }

    /// The anchored civil time at `now`: what the wall clock would show had it never been stepped.
    pub fn unix_at(&self, now: BootTime) -> UnixTime {
        if now >= self.doors_boot {
            self.doors.plus(now.since(self.doors_boot))
        } else {
            self.doors.minus(self.doors_boot.since(now))
        }
    }

    /// When `media` is due on the machine's clock.
    pub fn boot_of(&self, media: MediaTime) -> BootTime {
        self.doors_boot.plus(media.to_duration())
    }

    /// When `media` is due in civil time.
    pub fn unix_of(&self, media: MediaTime) -> UnixTime {
        self.doors.plus(media.to_duration())
    }

    /// The sample due at the civil time `unix`; zero before doors.
    pub fn media_of(&self, unix: UnixTime) -> MediaTime {
        MediaTime::from_duration(unix.since(self.doors))
    }

    /// How far the wall clock has been moved since doors: positive when it is ahead, in milliseconds.
    pub fn wall_offset_ms(&self, now: ClockReading) -> i64 {
        (now.unix.as_nanos().saturating_sub(self.unix_at(now.boot).as_nanos())) / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId([7; 16]);

    fn reading(unix_s: i64, boot_s: u64) -> ClockReading {
        ClockReading {
            unix: UnixTime::from_millis(unix_s * 1_000),
            boot: BootTime::from_uptime(Duration::from_secs(boot_s)),
            boot_id: BOOT,
        }
    }

    #[test]
    fn a_step_of_the_wall_clock_moves_nothing() {
        let anchor = Anchor::new(UnixTime::from_millis(1_000_000), reading(1_000, 50));
        let stepped = reading(1_000 + 3_600 + 10, 60);
        assert_eq!(anchor.carried_over(stepped), anchor);
        assert_eq!(anchor.media_at(stepped.boot), MediaTime::from_samples(480_000));
        assert_eq!(anchor.wall_offset_ms(stepped), 3_600_000);
    }

    #[test]
    fn doors_may_lie_before_the_reading() {
        let anchor = Anchor::new(UnixTime::from_millis(990_000), reading(1_000, 50));
        let uptime = |seconds| BootTime::from_uptime(Duration::from_secs(seconds));
        assert_eq!(anchor.doors_boot, uptime(40));
        assert_eq!(anchor.unix_at(uptime(50)), UnixTime::from_millis(1_000_000));
    }

    #[test]
    fn another_start_of_the_machine_is_anchored_by_the_wall_clock() {
        let anchor = Anchor::new(UnixTime::from_millis(1_000_000), reading(1_000, 50));
        let mut now = reading(1_100, 5);
        now.boot_id = BootId([8; 16]);
        let carried = anchor.carried_over(now);
        assert_eq!(carried.doors, anchor.doors);
        assert_eq!(carried.unix_at(now.boot), now.unix);
    }

    #[test]
    fn media_time_and_durations_are_inverse() {
        for samples in [0, 1, 7, 959, 960, 23_040, 48_000, 1_000_000_007, u64::from(u32::MAX) * 960] {
            let media = MediaTime::from_samples(samples);
            assert_eq!(MediaTime::from_duration(media.to_duration()), media);
        }
    }

    #[test]
    fn civil_time_is_read_and_written() {
        let time = UnixTime::parse("2026-11-22T20:00:00+03:00").unwrap();
        assert_eq!(time.to_string(), "2026-11-22T17:00:00.000Z");
        for bad in ["", "2026-11-22", "2026-11-22T20:00:00", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z"] {
            assert!(UnixTime::parse(bad).is_err(), "{bad}");
        }
    }
}
