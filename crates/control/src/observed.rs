//! What origin and the edges last said, and what follows from it for one event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use admission::ladder::{Decision, Level, Measures, Report};
use backend::store::Progress;
use backend::wire::{EventStatus, Heartbeat, OriginStatus};
use model::{Anchor, Event, EventSlug, ShowState, UnixTime};

use crate::steering::AtEdge;

/// A report older than this is not counted any more; reports come every second.
const FRESH: Duration = Duration::from_secs(5);
/// An edge that was silent for longer is forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// Edges that are followed at once.
pub(crate) const EDGES_MAX: usize = 256;

/// Everything reported. Bounded by the number of events and of edges.
#[derive(Debug)]
pub(crate) struct Observed {
    /// Since when reports are heard.
    since: Instant,
    origin: Option<(OriginStatus, Instant)>,
    edges: BTreeMap<String, (Heartbeat, Instant)>,
    shows: BTreeMap<EventSlug, Show>,
}

#[derive(Debug, Default)]
struct Show {
    progress: Option<Progress>,
    status: Option<EventStatus>,
}

/// How an event stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) state: ShowState,
    pub(crate) doors_at: UnixTime,
    pub(crate) live_at: Option<UnixTime>,
    pub(crate) ended_at: Option<UnixTime>,
    pub(crate) late: bool,
    pub(crate) listeners: u64,
    pub(crate) level: Level,
    pub(crate) measures: Measures,
    /// What origin says in detail, as long as it knows the event.
    pub(crate) status: Option<EventStatus>,
}

impl Standing {
    /// Whether the show ended longer than `after` ago, or so long that nobody knows when.
    pub(crate) fn ended_before(&self, now: UnixTime, after: Duration) -> bool {
        self.state == ShowState::Ended && self.ended_at.is_none_or(|ended| now.since(ended) > after)
    }
}

impl Observed {
    /// With what was noted before this process began to hear reports, which is `now`.
    pub(crate) fn new(noted: impl IntoIterator<Item = (EventSlug, Progress)>, now: Instant) -> Self {
        let shows = noted
            .into_iter()
            .map(|(slug, progress)| (slug, Show { progress: Some(progress), status: None }))
            .collect();
        Self { since: now, origin: None, edges: BTreeMap::new(), shows }
    }

    /// Takes in origin's report about events for which `known`. Returns what is to be noted in the store.
    pub(crate) fn handle_status(
        &mut self,
        status: OriginStatus,
        known: impl Fn(&EventSlug) -> bool,
        now: Instant,
    ) -> Vec<(EventSlug, Progress)> {
        let mut news = Vec::new();
        let mut named = BTreeSet::new();
        for event in status.events.iter().filter(|event| known(&event.event)) {
            named.insert(event.event.clone());
            let show = self.shows.entry(event.event.clone()).or_default();
            let progress = progress_of(event);
            let is_news = match &show.progress {
                // What has ended stays ended, whatever an origin with an older disk believes.
                Some(before) => before.state != ShowState::Ended && *before != progress,
                None => progress.state != ShowState::Scheduled,
            };
            if is_news {
                news.push((event.event.clone(), progress.clone()));
                show.progress = Some(progress);
            }
            show.status = Some(event.clone());
        }
        for (slug, show) in &mut self.shows {
            if !named.contains(slug) {
                show.status = None;
            }
        }
        self.origin = Some((status, now));
        news
    }

    /// Takes in an edge's report.
    pub(crate) fn handle_heartbeat(&mut self, edge: &str, heartbeat: Heartbeat, now: Instant) {
        if self.edges.len() < EDGES_MAX || self.edges.contains_key(edge) {
            self.edges.insert(edge.to_owned(), (heartbeat, now));
        }
    }

    /// How `event` stands.
    pub(crate) fn standing(&self, event: &Event, decision: &Decision, now: Instant) -> Standing {
        let show = self.shows.get(&event.slug);
        let progress = show.and_then(|show| show.progress.as_ref());
        let status = show.and_then(|show| show.status.clone());
        let anchored =
            status.as_ref().and_then(|status| status.anchor).map(|anchor| Anchor::from(anchor).doors);
        let planned = || stage::doors_time(event.starts_at, event.doors_before, event.created_at);
        Standing {
            state: progress.map_or(ShowState::Scheduled, |progress| progress.state.clone()),
            doors_at: anchored
                .or_else(|| progress.and_then(|progress| progress.doors_at))
                .unwrap_or_else(planned),
            live_at: progress.and_then(|progress| progress.live_at),
            ended_at: progress.and_then(|progress| progress.ended_at),
            late: status.as_ref().is_some_and(|status| status.late),
            listeners: self.listeners(&event.slug, now),
            level: decision.level,
            measures: decision.measures,
            status,
        }
    }

    /// Listeners of one event on all edges that are alive.
    pub(crate) fn listeners(&self, slug: &EventSlug, now: Instant) -> u64 {
        let events = self.edges(now).flat_map(|(_, heartbeat)| &heartbeat.events);
        let counts = events.filter(|event| event.event == *slug).flat_map(|event| &event.listeners);
        counts.map(|count| u64::from(count.count)).sum()
    }

    /// Listeners of every event that has any.
    pub(crate) fn totals(&self, now: Instant) -> BTreeMap<EventSlug, u64> {
        let mut totals = BTreeMap::new();
        for event in self.edges(now).flat_map(|(_, heartbeat)| &heartbeat.events) {
            let count: u64 = event.listeners.iter().map(|count| u64::from(count.count)).sum();
            if count > 0 {
                *totals.entry(event.event.clone()).or_default() += count;
            }
        }
        totals
    }

    /// The ladders of all edges, those that fell silent a short while ago among them.
    pub(crate) fn at_edges(&self, now: Instant) -> BTreeMap<&str, AtEdge> {
        let at_edge = |heartbeat: &Heartbeat, at: Instant| AtEdge {
            report: Report { age: now.saturating_duration_since(at), load: heartbeat.load.into() },
            level: Level::from_number(heartbeat.level).unwrap_or_default(),
            // What does not read as measures is none: the edge's own business.
            measures: heartbeat.measures.try_into().unwrap_or_default(),
        };
        self.edges.iter().map(|(name, (heartbeat, at))| (name.as_str(), at_edge(heartbeat, *at))).collect()
    }

    /// Forgets edges that have been silent for long: they were taken away.
    pub(crate) fn forget_the_silent(&mut self, now: Instant) {
        self.edges.retain(|_, (_, at)| now.saturating_duration_since(*at) <= FORGET);
    }

    /// Edges that are alive, by name.
    pub(crate) fn edges(&self, now: Instant) -> impl Iterator<Item = (&str, &Heartbeat)> {
        let fresh = move |at: Instant| now.saturating_duration_since(at) <= FRESH;
        self.edges
            .iter()
            .filter(move |(_, (_, at))| fresh(*at))
            .map(|(name, (beat, _))| (name.as_str(), beat))
    }

    /// Whether origin was heard of lately.
    pub(crate) fn origin_is_alive(&self, now: Instant) -> bool {
        self.origin.as_ref().is_some_and(|(_, at)| now.saturating_duration_since(*at) <= FRESH)
    }

    /// Whether origin is known to be away: it said nothing for so long, also not since this process began. Before that
    /// it may merely not have been heard yet.
    pub(crate) fn origin_is_away(&self, now: Instant) -> bool {
        let heard = self.origin.as_ref().map_or(self.since, |(_, at)| *at);
        now.saturating_duration_since(heard) > FRESH
    }
}

fn progress_of(status: &EventStatus) -> Progress {
    Progress {
        state: status.state.clone().into(),
        doors_at: status.anchor.map(|anchor| Anchor::from(anchor).doors),
        live_at: status.live_at,
        ended_at: status.ended_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::Steering;
    use crate::testing::event;
    use admission::ladder::Orders;
    use backend::wire::{AnchorRecord, EdgeEvent, Form, ListenerCount, StateRecord};
    use model::Rendition;

    fn status(slug: &str, state: StateRecord) -> OriginStatus {
        let doors = UnixTime::from_millis(5_000);
        let anchor = AnchorRecord { doors, doors_boot_ns: 0, boot_id: [0; 16] };
        let event = EventStatus {
            event: slug.parse().unwrap(),
            revision: 1,
            state,
            epoch: Some(1),
            anchor: Some(anchor),
            live_at: None,
            ended_at: None,
            newest_part: None,
            recorded_through: None,
            alarms: Vec::new(),
            late: true,
            seats: Vec::new(),
        };
        OriginStatus { pid: 1, at: doors, events: vec![event] }
    }

    fn heartbeat(slug: &str, counts: &[u32], level: u8) -> Heartbeat {
        let listeners = counts
            .iter()
            .map(|count| ListenerCount {
                rendition: Rendition::Opus48,
                form: Form::Push,
                tier: 1,
                count: *count,
            })
            .collect();
        let event = EdgeEvent { event: slug.parse().unwrap(), newest_part: None, listeners };
        Heartbeat { level, events: vec![event], ..Heartbeat::default() }
    }

    #[test]
    fn listeners_are_counted_on_edges_that_live() {
        let start = Instant::now();
        let mut observed = Observed::new([], start);
        observed.handle_heartbeat("edge-0", heartbeat("a", &[1, 2], 0), start);
        observed.handle_heartbeat("edge-1", heartbeat("a", &[10], 9), start + FRESH);
        observed.handle_heartbeat("edge-1", heartbeat("a", &[20], 3), start + FRESH);
        let standing = observed.standing(&event("a"), &decision(), start + FRESH);
        assert_eq!((standing.listeners, standing.level), (23, Level::L0));
        let levels: Vec<_> = observed.at_edges(start + FRESH).values().map(|edge| edge.level).collect();
        assert_eq!(levels, [Level::L0, Level::L3]);
        let later = start + FRESH + Duration::from_millis(1);
        assert_eq!(observed.standing(&event("a"), &decision(), later).listeners, 20);
        assert_eq!(observed.totals(later), [("a".parse().unwrap(), 20)].into());
        assert_eq!(observed.standing(&event("b"), &decision(), later).listeners, 0);
        let alive = |edge: &AtEdge| edge.report.is_alive();
        assert_eq!(observed.at_edges(later).values().map(alive).collect::<Vec<_>>(), [false, true]);
        observed.forget_the_silent(start + FORGET);
        assert_eq!(observed.at_edges(later).len(), 2);
        observed.forget_the_silent(start + FORGET + Duration::from_secs(1));
        assert_eq!(observed.at_edges(later).keys().collect::<Vec<_>>(), [&"edge-1"]);
    }

    fn decision() -> Decision {
        *Steering::new(Orders::default()).decision()
    }

    #[test]
    fn an_event_goes_through_its_states_and_stays_ended() {
        let now = Instant::now();
        let mut observed = Observed::new([], now);
        let a = event("a");
        assert_eq!(observed.standing(&a, &decision(), now).state, ShowState::Scheduled);
        assert!(!observed.origin_is_alive(now) && !observed.origin_is_away(now), "not heard of yet");
        let late = now + FRESH + Duration::from_millis(1);
        assert!(observed.origin_is_away(late));
        let planned = stage::doors_time(a.starts_at, a.doors_before, a.created_at);
        assert_eq!(observed.standing(&a, &decision(), now).doors_at, planned);

        assert_eq!(observed.handle_status(status("a", StateRecord::Live), |_| true, now).len(), 1);
        assert_eq!(observed.handle_status(status("a", StateRecord::Live), |_| true, now), []);
        let standing = observed.standing(&a, &decision(), now);
        assert_eq!((standing.state, standing.late), (ShowState::Live, true));
        assert_eq!(standing.doors_at, UnixTime::from_millis(5_000));

        let ended = observed.handle_status(status("a", StateRecord::Ended), |_| true, now);
        assert_eq!(ended[0].1.state, ShowState::Ended);
        assert_eq!(observed.handle_status(status("a", StateRecord::Live), |_| true, now), []);
        assert_eq!(observed.standing(&a, &decision(), now).state, ShowState::Ended);
        // After a restart of control, with an origin that has forgotten the event.
        let mut observed = Observed::new(ended, now);
        observed.handle_status(status("b", StateRecord::Doors), |slug| slug.as_str() != "b", now);
        assert_eq!(observed.standing(&a, &decision(), now).state, ShowState::Ended);
        assert_eq!(
            observed.standing(&event("b"), &decision(), now).state,
            ShowState::Scheduled,
            "not an event of ours"
        );
        assert!(observed.origin_is_alive(now) && !observed.origin_is_away(now));
        assert!(!observed.origin_is_alive(late) && observed.origin_is_away(late));
    }
}
