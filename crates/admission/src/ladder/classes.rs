//! Who is let in to the places of an edge, and what is kept for whom.
//!
//! ```text
//! 0                              70 %         90 %   95 %      100 %
//! ├─ P5 extras ──────────────────┤            │      │       ┊  │
//! ├─ P4 newcomers ────────────────────────────┤      │       ┊  │
//! ├─ P3 holders ─────────────────────────────────────┤       ┊  │
//! ├─ P2 who comes back ──────────────────────────────────────┤  │
//! └─ P1 host, operator ─────────────────────────────────────────┘
//! ```
//!
//! A class fills the hall up to the share at which the ladder sheds it, whoever sits there. What lies above is kept for
//! the classes above, so no number of those below can take it.

use super::level::{EXTRAS_PERCENT, HOLDERS_PERCENT, Level, NEWCOMERS_PERCENT};
use super::load::part_of;

/// Who is served first when not everyone can be (DESIGN, "Classes"). Lower is served longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// P0: stage, recorder, ledger. They need no place among listeners.
    Stage,
    /// P1: host, operator.
    Host,
    /// P2: who listens, and comes back.
    Listening,
    /// P3: someone who holds a ticket, drawn from the waiting room for example.
    Holder,
    /// P4: someone who came just now.
    Newcomer,
    /// P5: reactions, avatars, exact counts.
    Extra,
}

impl Priority {
    /// All, from the highest.
    pub const ALL: [Self; 6] =
        [Self::Stage, Self::Host, Self::Listening, Self::Holder, Self::Newcomer, Self::Extra];

    /// Its number: 0 of P0.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The class of a number, 0 to 5.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0..=5 => Some(Self::ALL[number as usize]),
            _ => None,
        }
    }

    /// The level from which on it is not let in, if there is one.
    pub const fn shed_at(self) -> Option<Level> {
        match self {
            Self::Stage | Self::Host | Self::Listening => None,
            Self::Holder => Some(Level::L5),
            Self::Newcomer => Some(Level::L4),
            Self::Extra => Some(Level::L1),
        }
    }
}

/// Who sits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Everybody, hosts included.
    pub all: u64,
    /// Hosts and operators.
    pub hosts: u64,
}

/// Most places kept for hosts and operators; in a small hall one in fifty.
const HOSTS_MAX: u64 = 16;
const HOSTS_ONE_IN: u64 = 50;

/// Places of `capacity` kept for hosts and operators.
pub fn kept_for_hosts(capacity: u64) -> u64 {
    (capacity / HOSTS_ONE_IN).min(HOSTS_MAX)
}

/// How many of a class may be let in.
pub fn room(class: Priority, occupancy: Occupancy, capacity: u64, level: Level) -> u64 {
    if class.shed_at().is_some_and(|shed| level >= shed) {
        return 0;
    }
    // Who is not a host may not fill what hosts have left of their own.
    let for_others = capacity - kept_for_hosts(capacity).saturating_sub(occupancy.hosts);
    let up_to = match class {
        Priority::Stage => return u64::MAX,
        Priority::Host => capacity,
        Priority::Listening => for_others,
        Priority::Holder => part_of(capacity, HOLDERS_PERCENT).min(for_others),
        Priority::Newcomer => part_of(capacity, NEWCOMERS_PERCENT).min(for_others),
        Priority::Extra => part_of(capacity, EXTRAS_PERCENT).min(for_others),
    };
    up_to.saturating_sub(occupancy.all)
}

/// Whether one more of a class may be let in.
pub fn may_admit(class: Priority, occupancy: Occupancy, capacity: u64, level: Level) -> bool {
    room(class, occupancy, capacity, level) > 0
}
