//! What edges say of their load, and what is in force.

use std::time::Duration;

use admission::ladder::{Admission, Load, Measures, Used};
use admission::ticket::Tier;
use model::Rendition;
use serde::{Deserialize, Serialize};

use super::WireError;
use super::serial::maybe_text;

/// Mirror of [`Used`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedRecord {
    /// What is used.
    pub used: u64,
    /// What may be used; 0 if nobody measures it.
    pub limit: u64,
}

impl From<Used> for UsedRecord {
    fn from(Used { used, limit }: Used) -> Self {
        Self { used, limit }
    }
}

impl From<UsedRecord> for Used {
    fn from(UsedRecord { used, limit }: UsedRecord) -> Self {
        Self { used, limit }
    }
}

/// Mirror of [`Load`]: what an edge says of its last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// Processor time of the push door's thread, millionths of a core.
    pub processor_ppm: u32,
    /// Mean lateness of the loop's turns in the longest stretch in which all were late, µs.
    pub late_us: u32,
    /// Length of that stretch, µs.
    pub late_for_us: u32,
    /// Bytes a second on the line, if one is configured.
    pub line: Option<UsedRecord>,
    /// Open files and sockets.
    pub files: UsedRecord,
    /// Bytes of memory.
    pub memory: UsedRecord,
    /// Listeners.
    pub listeners: UsedRecord,
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

impl From<Load> for LoadRecord {
    fn from(load: Load) -> Self {
        Self {
            // Saturates, and makes 0 of what is no number.
            processor_ppm: (load.processor * 1e6) as u32,
            late_us: micros(load.late),
            late_for_us: micros(load.late_for),
            line: load.line.map(UsedRecord::from),
            files: load.files.into(),
            memory: load.memory.into(),
            listeners: load.listeners.into(),
        }
    }
}

impl From<LoadRecord> for Load {
    fn from(record: LoadRecord) -> Self {
        Self {
            processor: f64::from(record.processor_ppm) / 1e6,
            late: Duration::from_micros(record.late_us.into()),
            late_for: Duration::from_micros(record.late_for_us.into()),
            line: record.line.map(Used::from),
            files: record.files.into(),
            memory: record.memory.into(),
            listeners: record.listeners.into(),
        }
    }
}

/// Mirror of [`Measures`]: what is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuresRecord {
    /// Whether there are extras.
    pub extras: bool,
    /// Parts a write for those who join.
    pub newcomers_tier: u8,
    /// Parts a write for everybody.
    pub everyones_tier: u8,
    /// The largest Opus rendition for those who join.
    #[serde(with = "maybe_text")]
    pub newcomers_cap: Option<Rendition>,
    /// The largest Opus rendition for everybody.
    #[serde(with = "maybe_text")]
    pub everyones_cap: Option<Rendition>,
    /// Whether those who join are sent to the CDN.
    pub newcomers_to_cdn: bool,
    /// Whether newcomers are let in.
    pub admission: AdmissionRecord,
    /// Whether newcomers have to prove work.
    pub challenge: bool,
}

/// Mirror of [`Admission`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdmissionRecord {
    /// As they come.
    #[default]
    Open,
    /// Through the waiting room.
    Waiting,
    /// Not at all.
    Frozen,
}

impl Default for MeasuresRecord {
    fn default() -> Self {
        Measures::default().into()
    }
}

impl From<Measures> for MeasuresRecord {
    fn from(measures: Measures) -> Self {
        Self {
            extras: measures.extras,
            newcomers_tier: measures.newcomers_tier.parts(),
            everyones_tier: measures.everyones_tier.parts(),
            newcomers_cap: measures.newcomers_cap,
            everyones_cap: measures.everyones_cap,
            newcomers_to_cdn: measures.newcomers_to_cdn,
            admission: match measures.admission {
                Admission::Open => AdmissionRecord::Open,
                Admission::Waiting => AdmissionRecord::Waiting,
                Admission::Frozen => AdmissionRecord::Frozen,
            },
            challenge: measures.challenge,
        }
    }
}

impl TryFrom<MeasuresRecord> for Measures {
    type Error = WireError;

    fn try_from(record: MeasuresRecord) -> Result<Self, WireError> {
        let tier = |parts: u8| {
            Tier::new(parts).ok_or_else(|| WireError::Damaged(format!("{parts} parts a write are no tier")))
        };
        Ok(Self {
            extras: record.extras,
            newcomers_tier: tier(record.newcomers_tier)?,
            everyones_tier: tier(record.everyones_tier)?,
            newcomers_cap: record.newcomers_cap,
            everyones_cap: record.everyones_cap,
            newcomers_to_cdn: record.newcomers_to_cdn,
            admission: match record.admission {
                AdmissionRecord::Open => Admission::Open,
                AdmissionRecord::Waiting => Admission::Waiting,
                AdmissionRecord::Frozen => Admission::Frozen,
            },
            challenge: record.challenge,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_and_measures_come_back_as_they_were() {
        let load = Load {
            processor: 0.25,
            late: Duration::from_millis(7),
            late_for: Duration::from_millis(120),
            line: Some(Used::new(1, 2)),
            files: Used::new(3, 4),
            memory: Used::new(5, 6),
            listeners: Used::new(7, 8),
        };
        assert_eq!(Load::from(LoadRecord::from(load)), load);
        let long = Load { late: Duration::from_secs(1 << 40), processor: f64::NAN, ..load };
        let record = LoadRecord::from(long);
        assert_eq!((record.late_us, record.processor_ppm), (u32::MAX, 0));

        let measures = Measures {
            newcomers_tier: Tier::new(4).unwrap(),
            everyones_cap: Some(Rendition::Opus24),
            admission: Admission::Frozen,
            extras: false,
            ..Measures::default()
        };
        assert_eq!(Measures::try_from(MeasuresRecord::from(measures)), Ok(measures));
        let odd = MeasuresRecord { everyones_tier: 3, ..MeasuresRecord::default() };
        let error = Measures::try_from(odd).unwrap_err();
        assert_eq!(error, WireError::Damaged("3 parts a write are no tier".to_owned()));
    }
}
