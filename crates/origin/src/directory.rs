//! What the media thread shows of each event to the stage door: snapshots, replaced whole.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use model::{Anchor, BootTime, Epoch, Event, EventSlug, PartNumber, ShowState, UnixTime};
use programme::SourceStats;
use stage::{Alarm, SeatView};
use tokio::sync::watch;

/// One event at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) event: Arc<Event>,
    pub(crate) state: ShowState,
    pub(crate) doors_at: UnixTime,
    pub(crate) live_at: Option<UnixTime>,
    pub(crate) ended_at: Option<UnixTime>,
    pub(crate) anchor: Option<Anchor>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) newest: Option<PartNumber>,
    pub(crate) recorded_through: Option<PartNumber>,
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) seats: Vec<SeatRow>,
    /// Whether everything is published and signed: after the end, when the last part is out.
    pub(crate) closed: bool,
    /// Grows with every change but those of levels.
    pub(crate) change: u64,
}

/// One seat at one moment.
#[derive(Clone, Debug)]
pub(crate) struct SeatRow {
    pub(crate) seat: SeatView,
    /// Of its source in use, dBFS, −120 to 0.
    pub(crate) level_dbfs: f32,
    pub(crate) speaking: bool,
    /// How its source in use arrives.
    pub(crate) stats: Option<SourceStats>,
}

impl View {
    /// The event's time now: anchored once doors are open, the wall clock's before.
    pub(crate) fn now(&self) -> UnixTime {
        self.unix_at(backend::clock::boot_now(), backend::clock::unix_now)
    }

    fn unix_at(&self, boot: BootTime, wall: impl FnOnce() -> UnixTime) -> UnixTime {
        self.anchor.map_or_else(wall, |anchor| anchor.unix_at(boot))
    }

    pub(crate) fn late(&self) -> bool {
        self.alarms.contains(&Alarm::LateStart)
    }
}

/// All events the media thread has. Cheap to read; written when an event comes or goes.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    events: RwLock<BTreeMap<EventSlug, watch::Receiver<Arc<View>>>>,
}

impl Directory {
    pub(crate) fn insert(&self, slug: EventSlug, view: watch::Receiver<Arc<View>>) {
        self.events.write().unwrap_or_else(PoisonError::into_inner).insert(slug, view);
    }

    pub(crate) fn remove(&self, slug: &EventSlug) {
        self.events.write().unwrap_or_else(PoisonError::into_inner).remove(slug);
    }

    /// A way to follow an event.
    pub(crate) fn follow(&self, slug: &EventSlug) -> Option<watch::Receiver<Arc<View>>> {
        self.events.read().unwrap_or_else(PoisonError::into_inner).get(slug).cloned()
    }

    /// An event as it is now.
    pub(crate) fn view(&self, slug: &EventSlug) -> Option<Arc<View>> {
        self.events.read().unwrap_or_else(PoisonError::into_inner).get(slug).map(|view| view.borrow().clone())
    }

    /// All events as they are now, in order of their names.
    pub(crate) fn views(&self) -> Vec<Arc<View>> {
        let events = self.events.read().unwrap_or_else(PoisonError::into_inner);
        events.values().map(|view| view.borrow().clone()).collect()
    }
}
