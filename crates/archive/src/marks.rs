//! Marks: where in the recording the show began and ended.

use std::ops::Range;

use model::{MediaTime, PART_SAMPLES, PartNumber, UnixTime};
use serde::{Deserialize, Serialize};

/// Name of the file.
pub(crate) const NAME: &str = "marks.json";
/// Most bytes of it that are read.
pub(crate) const LENGTH_MAX: u64 = 4_096;

/// A moment on both scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// In the anchored civil time of the event.
    pub unix: UnixTime,
    /// In the programme.
    pub media: MediaTime,
}

/// Where the show began and ended. Kept beside the recording in `marks.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// When part 0 begins.
    pub doors: UnixTime,
    /// When the stage went on air; `None` before.
    pub live_at: Option<Moment>,
    /// When the show ended; `None` before.
    pub ended_at: Option<Moment>,
}

impl Marks {
    /// The parts of the show, of those in `recorded`: from the one in which it went live to the one in which it
    /// ended. Empty before it is live.
    pub fn show(&self, recorded: &Range<PartNumber>) -> Range<PartNumber> {
        let Some(live) = self.live_at else { return recorded.end..recorded.end };
        let end = self
            .ended_at
            .map_or(recorded.end, |moment| PartNumber::new(moment.media.samples().div_ceil(PART_SAMPLES)))
            .min(recorded.end);
        live.media.part().clamp(recorded.start, end.max(recorded.start))..end.max(recorded.start)
    }

    /// Whether these say more than `other`.
    pub(crate) fn say_more_than(&self, other: &Self) -> bool {
        let said = |marks: &Self| (marks.ended_at.is_some(), marks.live_at.is_some());
        said(self) > said(other)
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let stored = Stored {
            version: 1,
            doors_ns: self.doors.as_nanos(),
            live_at: self.live_at.map(StoredMoment::from),
            ended_at: self.ended_at.map(StoredMoment::from),
        };
        let mut text = serde_json::to_vec_pretty(&stored).expect("numbers and names are JSON");
        text.push(b'\n');
        text
    }

    pub(crate) fn read(text: &[u8]) -> Result<Self, String> {
        let stored: Stored = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if stored.version != 1 {
            return Err(format!("version {}, only version 1 is known", stored.version));
        }
        Ok(Self {
            doors: UnixTime::from_nanos(stored.doors_ns),
            live_at: stored.live_at.map(Moment::from),
            ended_at: stored.ended_at.map(Moment::from),
        })
    }
}

/// `marks.json`: times in nanoseconds since 1970, media time in samples at 48 kHz since doors.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    doors_ns: i64,
    live_at: Option<StoredMoment>,
    ended_at: Option<StoredMoment>,
}

#[derive(Serialize, Deserialize)]
struct StoredMoment {
    unix_ns: i64,
    sample: u64,
}

impl From<Moment> for StoredMoment {
    fn from(moment: Moment) -> Self {
        Self { unix_ns: moment.unix.as_nanos(), sample: moment.media.samples() }
    }
}

impl From<StoredMoment> for Moment {
    fn from(stored: StoredMoment) -> Self {
        Self { unix: UnixTime::from_nanos(stored.unix_ns), media: MediaTime::from_samples(stored.sample) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(samples: u64) -> Moment {
        Moment { unix: UnixTime::from_millis(5), media: MediaTime::from_samples(samples) }
    }

    #[test]
    fn marks_are_read_as_written() {
        let doors = UnixTime::from_nanos(1_795_000_000_123_456_789);
        for marks in [
            Marks { doors, live_at: None, ended_at: None },
            Marks { doors, live_at: Some(moment(7)), ended_at: Some(moment(u64::MAX)) },
        ] {
            assert_eq!(Marks::read(&marks.write()), Ok(marks));
        }
        for bad in [&b""[..], b"{}", b"{\"version\":2,\"doors_ns\":1,\"live_at\":null,\"ended_at\":null}"] {
            assert!(Marks::read(bad).is_err());
        }
    }

    #[test]
    fn the_show_is_what_is_recorded_of_it() {
        let part = PartNumber::new;
        let recorded = part(0)..part(100);
        let marks = |live: Option<u64>, ended: Option<u64>| Marks {
            doors: UnixTime::from_millis(0),
            live_at: live.map(moment),
            ended_at: ended.map(moment),
        };
        assert!(marks(None, None).show(&recorded).is_empty());
        assert_eq!(marks(Some(10 * PART_SAMPLES + 1), None).show(&recorded), part(10)..part(100));
        assert_eq!(
            marks(Some(10 * PART_SAMPLES), Some(20 * PART_SAMPLES)).show(&recorded),
            part(10)..part(20)
        );
        assert_eq!(marks(Some(0), Some(20 * PART_SAMPLES + 1)).show(&recorded), part(0)..part(21));
        // The recording begins after the show did, or ends before it begins.
        assert_eq!(marks(Some(0), None).show(&(part(3)..part(5))), part(3)..part(5));
        assert!(marks(Some(200 * PART_SAMPLES), None).show(&recorded).is_empty());
    }
}
