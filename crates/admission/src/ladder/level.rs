//! The levels and the one table of their thresholds.

use std::fmt::Write as _;
use std::time::Duration;

use super::Resource::{self, Files, Line, Listeners, Loop, Memory, Processor};

/// How far the show has stepped down. Higher is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Everything runs.
    #[default]
    L0,
    /// Extras go.
    L1,
    /// Newcomers get it later, or smaller, or from a CDN; at last those who listen get it later too.
    L2,
    /// Everyone gets the small rendition, where the line is short.
    L3,
    /// Newcomers wait.
    L4,
    /// Nobody new is let in.
    L5,
    /// No edge is left: stage and recording only.
    L6,
}

impl Level {
    /// All, from the best to the worst.
    pub const ALL: [Self; 7] = [Self::L0, Self::L1, Self::L2, Self::L3, Self::L4, Self::L5, Self::L6];

    /// Its number, 0 to 6.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The level of a number, 0 to 6.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0..=6 => Some(Self::ALL[number as usize]),
            _ => None,
        }
    }

    /// The level a resource calls for that is used to this degree, 0 to 1.
    pub(super) fn called_by(resource: Resource, pressure: f64) -> Self {
        let reached =
            |mark: &&Mark| mark.resources.contains(&resource) && pressure >= share(mark.percent.into());
        MARKS.iter().rev().find(reached).map_or(Self::L0, |mark| mark.level)
    }

    /// Whether it is taken without waiting for the trigger to last.
    pub(super) fn at_once(self, resource: Resource) -> bool {
        MARKS.iter().any(|mark| mark.level == self && mark.at_once.contains(&resource))
    }
}

/// What calls for a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The level.
    pub level: Level,
    /// From this share of a resource on, per cent.
    pub percent: u8,
    /// The resources that call for it, any of them. Those missing would gain nothing by it.
    pub resources: &'static [Resource],
    /// Those that call for it at once; the others when they have done so for [`super::SUSTAINED`].
    pub at_once: &'static [Resource],
    /// What counts as `percent` of [`Resource::Loop`].
    pub late: Option<Late>,
    /// What changes, in a few words.
    pub what: &'static str,
}

/// Turns of an edge's loop that came too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// By more than this.
    pub by: Duration,
    /// All of them, for at least this long.
    pub lasting: Duration,
}

/// Late enough to be felt by those who join: what calls for L2.
pub(super) const LATE: Late = Late { by: Duration::from_millis(5), lasting: Duration::from_millis(100) };
/// Late by half a part: those who listen lose parts next. What calls for L4.
pub(super) const VERY_LATE: Late =
    Late { by: Duration::from_millis(240), lasting: Duration::from_millis(500) };

/// All thresholds, by level. L6 has none: it says that no edge is left.
pub const MARKS: [Mark; 5] = [
    Mark {
        level: Level::L1,
        percent: 70,
        resources: &[Processor, Line, Files, Memory],
        at_once: &[],
        late: None,
        what: "extras go",
    },
    Mark {
        level: Level::L2,
        percent: 75,
        resources: &[Processor, Loop, Line, Files, Memory],
        at_once: &[],
        late: Some(LATE),
        what: "slower tiers for the processor, opus-24 for newcomers for the line; newcomers go to a CDN",
    },
    Mark {
        level: Level::L3,
        percent: 85,
        resources: &[Processor, Line, Files, Memory],
        at_once: &[],
        late: None,
        what: "line: everyone gets opus-24",
    },
    Mark {
        level: Level::L4,
        percent: 90,
        resources: &[Processor, Loop, Line, Files, Memory, Listeners],
        at_once: &[Files, Memory],
        late: Some(VERY_LATE),
        what: "newcomers wait",
    },
    Mark {
        level: Level::L5,
        percent: 95,
        resources: &[Processor, Line, Files, Memory, Listeners],
        at_once: &[Files, Memory],
        late: None,
        what: "nobody new is let in",
    },
];

/// From here on newcomers wait: what they may fill.
pub(super) const NEWCOMERS_PERCENT: u64 = MARKS[3].percent as u64;
/// What holders of a ticket may fill.
pub(super) const HOLDERS_PERCENT: u64 = MARKS[4].percent as u64;
/// What extras may fill.
pub(super) const EXTRAS_PERCENT: u64 = MARKS[0].percent as u64;

/// Per cent as a share of 1.
pub(super) fn share(percent: u32) -> f64 {
    f64::from(percent) / 100.0
}

/// [`MARKS`] as a table in Markdown, for the documentation.
pub fn table() -> String {
    let names = |resources: &[Resource]| resources.iter().map(|r| r.name()).collect::<Vec<_>>().join(", ");
    let mut text = String::from("| Level | From | Of (any) | At once | Loop late | What changes |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for mark in &MARKS {
        let late = mark.late.map_or(String::new(), |late| {
            format!("> {} ms for {} ms", late.by.as_millis(), late.lasting.as_millis())
        });
        let shares: Vec<_> = mark.resources.iter().copied().filter(|resource| *resource != Loop).collect();
        let _ = writeln!(
            text,
            "| {:?} | {} % | {} | {} | {late} | {} |",
            mark.level,
            mark.percent,
            names(&shares),
            names(mark.at_once),
            mark.what,
        );
    }
    text.push_str("| L6 | | | every edge silent | | stage and recording only |\n");
    text
}
