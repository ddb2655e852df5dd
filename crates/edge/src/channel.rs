//! One event as an edge knows it: facts from origin and control, its window, its listeners.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use backend::wire::{EventStatus, Form, ListenerCount, StateRecord};
use bytes::Bytes;
use fanout::{Container, Push, Tier, Window};
use formats::mp4;
use model::{Event, EventSlug, Part, PartNumber, Rendition, UnixTime};
use tokio::sync::watch;

use crate::bell::Bell;
use crate::files::playlists::Playlists;
use crate::notice;

/// How long after its start an event is expected to run if origin does not say how it stands.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// Ticks of a second after the first part when a window counts as filled with what origin retains, and without a part
/// when that of an ended event counts as complete.
const QUIET_TICKS: u32 = 2;
/// Ticks over which reloads of playlists are counted, and reloads a player makes in them (one a target duration).
const HLS_TICKS: usize = 12;
const HLS_RELOADS: u32 = 3;

/// What is known of an event. Everything here came from other processes and is only as fresh as they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// From control, or from the disk.
    pub(crate) event: Option<Arc<Event>>,
    /// From origin.
    pub(crate) status: Option<Arc<EventStatus>>,
    /// The recording says that it is finished, and origin has said nothing since.
    pub(crate) finished: bool,
    /// Listeners on all edges, from control.
    pub(crate) audience: Option<u64>,
    /// Ladder level in force here.
    pub(crate) level: u8,
}

/// Where an event stands for those who want to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Doors are closed.
    Before {
        /// When they open, if that is known.
        doors: Option<UnixTime>,
    },
    /// The programme runs, or should.
    Running,
    /// There will be no more; the recording has it all.
    Over,
}

impl Facts {
    pub(crate) fn phase(&self, now: UnixTime) -> Phase {
        let doors = self.event.as_ref().map(|event| event.starts_at.minus(event.doors_before));
        match (self.status.as_ref().map(|status| &status.state), &self.event) {
            _ if self.finished => Phase::Over,
            (Some(StateRecord::Doors | StateRecord::Live | StateRecord::Hold { .. }), _) => Phase::Running,
            (Some(StateRecord::Ended), _) => Phase::Over,
            (Some(StateRecord::Scheduled), _) | (None, None) => Phase::Before { doors },
            (None, Some(_)) if doors.is_some_and(|doors| now < doors) => Phase::Before { doors },
            (None, Some(event)) if now.since(event.starts_at) > LONGEST => Phase::Over,
            (None, Some(_)) => Phase::Running,
        }
    }

    /// The anchored time of part 0.
    pub(crate) fn anchored_doors(&self) -> Option<UnixTime> {
        Some(self.status.as_ref()?.anchor?.doors)
    }

    fn newest_at_origin(&self) -> Option<PartNumber> {
        self.status.as_ref()?.newest_part
    }

    pub(crate) fn title(&self) -> String {
        let Some(event) = &self.event else { return String::new() };
        let title = &event.title;
        if title.en.is_empty() { title.ar.clone() } else { title.en.clone() }
    }
}

/// An event.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) slug: EventSlug,
    facts: RwLock<Facts>,
    live: RwLock<Option<Arc<Live>>>,
    reloads: Mutex<Reloads>,
}

impl Channel {
    pub(crate) fn new(slug: EventSlug) -> Self {
        Self { slug, facts: RwLock::default(), live: RwLock::default(), reloads: Mutex::default() }
    }

    pub(crate) fn facts(&self) -> Facts {
        read(&self.facts).clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut write(&self.facts));
    }

    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        read(&self.live).clone()
    }

    pub(crate) fn set_live(&self, live: Option<Arc<Live>>) {
        *write(&self.live) = live;
    }

    /// Counts a reload of a media playlist.
    pub(crate) fn count_reload(&self, rendition: Rendition) {
        lock(&self.reloads).now[rendition.index()] += 1;
    }

    /// Listeners of HLS, estimated: players of a live playlist reload it once a target duration.
    fn hls_listeners(&self) -> [u32; 3] {
        let reloads = lock(&self.reloads);
        [0, 1, 2].map(|i| reloads.past.iter().map(|second| second[i]).sum::<u32>().div_ceil(HLS_RELOADS))
    }

    /// Once a second: listeners by what they take.
    pub(crate) fn tick_listeners(&self) -> Vec<ListenerCount> {
        {
            let mut reloads = lock(&self.reloads);
            let now = std::mem::take(&mut reloads.now);
            reloads.past.rotate_right(1);
            reloads.past[0] = now;
        }
        self.listener_counts()
    }

    /// Listeners by what they take, those of HLS as of the last second.
    pub(crate) fn listener_counts(&self) -> Vec<ListenerCount> {
        let hls = self.hls_listeners();
        let mut counts = self.live().map(|live| live.listeners.counts()).unwrap_or_default();
        counts.extend(
            Rendition::ALL
                .into_iter()
                .zip(hls)
                .filter(|(_, count)| *count > 0)
                .map(|(rendition, count)| ListenerCount { rendition, form: Form::Hls, tier: 8, count }),
        );
        counts
    }
}

#[derive(Debug, Default)]
struct Reloads {
    now: [u32; 3],
    past: [[u32; 3]; HLS_TICKS],
}

/// A running programme.
#[derive(Debug)]
pub(crate) struct Live {
    window: RwLock<Window>,
    /// Grows at every change, notices among them.
    revision: AtomicU64,
    bell: Arc<Bell>,
    /// Version of the window, for those who wait for a part and for nothing else.
    version: watch::Sender<u64>,
    pub(crate) playlists: Playlists,
    pub(crate) listeners: Listeners,
    quiet: Mutex<Quiet>,
}

/// Whole ticks since something happened.
#[derive(Debug, Default)]
struct Quiet {
    /// Since the last part, or since the window was made.
    part: u32,
    /// Since the first part.
    first: u32,
    /// Since the end.
    end: u32,
}

/// What a tick found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Ticks since the last part.
    pub(crate) quiet: u32,
    /// Ticks since the end, if it has come.
    pub(crate) ended: Option<u32>,
}

impl Live {
    /// An empty one; `bell` is rung at each change.
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self {
            window: RwLock::new(Window::new()),
            revision: AtomicU64::new(0),
            bell,
            version: watch::Sender::new(0),
            playlists: Playlists::default(),
            listeners: Listeners::default(),
            quiet: Mutex::default(),
        }
    }

    pub(crate) fn window(&self) -> RwLockReadGuard<'_, Window> {
        read(&self.window)
    }

    /// Grows whenever the window changes or says something new.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Wakes when there are new parts, or when it is known that there will be none.
    pub(crate) fn progress(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Wakes who waits for the window, and who waits for parts if there is something new for them.
    fn wake(&self) {
        let version = self.window().version();
        self.version.send_if_modified(|known| std::mem::replace(known, version) != version);
        self.revision.fetch_add(1, Ordering::Release);
        self.bell.ring();
    }

    /// Takes a part in.
    pub(crate) fn accept(&self, part: Part, facts: &Facts) -> Push {
        let number = part.number;
        let pushed = {
            let mut window = write(&self.window);
            let pushed = window.push(part);
            // Origin names no newest part before its first one, so only part 0 is known to be the present then, and only
            // once origin has spoken: after a restart what it retains comes in, and is old.
            let is_first = facts.status.is_some() && number == PartNumber::ZERO;
            if facts.newest_at_origin().map_or(is_first, |newest| newest <= number) {
                window.settle();
            }
            pushed
        };
        lock(&self.quiet).part = 0;
        self.conclude(facts, false);
        self.wake();
        pushed
    }

    /// Ends the window if the event is over and everything is here; `at_last` if nothing more can be waited for.
    pub(crate) fn conclude(&self, facts: &Facts, at_last: bool) {
        let over = facts.status.as_ref().is_some_and(|status| status.state == StateRecord::Ended);
        if !over && !at_last {
            return;
        }
        let mut window = write(&self.window);
        let complete = facts.newest_at_origin().is_none_or(|newest| window.newest() >= Some(newest));
        if !window.has_ended() && (at_last || complete) {
            let words = notice::last_words();
            let bytes = notice_box(&window, words.as_bytes());
            window.end(bytes);
            drop(window);
            self.wake();
        }
    }

    /// Whether the end has come and is no older than this, to the second: so recent that not all who play a playlist
    /// may have seen it.
    pub(crate) fn ended_within(&self, time: Duration) -> bool {
        // Neither lock is taken while the other is held.
        let ended = self.window().has_ended();
        ended && u64::from(lock(&self.quiet).end) <= time.as_secs()
    }

    /// Once a second.
    pub(crate) fn tick(&self, facts: &Facts) -> Pace {
        let (begun, ended) = {
            let window = self.window();
            (window.newest().is_some(), window.has_ended())
        };
        let (pace, filled) = {
            let mut quiet = lock(&self.quiet);
            quiet.part = quiet.part.saturating_add(1);
            quiet.first = quiet.first.saturating_add(u32::from(begun));
            quiet.end = quiet.end.saturating_add(u32::from(ended));
            let pace = Pace { quiet: quiet.part, ended: ended.then_some(quiet.end) };
            (pace, quiet.first >= QUIET_TICKS)
        };
        if pace.ended.is_some() {
            return pace;
        }
        let over = facts.status.as_ref().is_some_and(|status| status.state == StateRecord::Ended);
        self.conclude(facts, over && pace.quiet > QUIET_TICKS);
        {
            let mut window = write(&self.window);
            if filled {
                window.settle();
            }
            let words = notice::words(facts, window.newest(), self.listeners.total());
            let bytes = notice_box(&window, words.as_bytes());
            window.announce(bytes);
        }
        self.wake();
        pace
    }
}

/// An `emsg` at the end of the newest part.
fn notice_box(window: &Window, message: &[u8]) -> Bytes {
    let id = window.notice().map_or(0, |notice| notice.sequence) as u32;
    let at = window.newest().map_or(PartNumber::ZERO, PartNumber::next).start();
    mp4::write_emsg(notice::SCHEME, "", id, at, message)
}

const FORMS: [Form; 3] = [Form::Push, Form::Ogg, Form::Mp3];
const TIERS: [Tier; 4] = [Tier::ONE, Tier::TWO, Tier::FOUR, Tier::EIGHT];

/// Listeners by what they take.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    counts: [[[AtomicU32; 4]; 3]; 3],
    /// Of those, sessions that took nothing in the last ten seconds: nobody listens there.
    deaf: [[[AtomicU32; 4]; 3]; 3],
}

/// A rendition at a tier, as a session has it.
pub(crate) type Terms = (Rendition, Tier);

impl Listeners {
    fn slot(
        of: &[[[AtomicU32; 4]; 3]; 3],
        rendition: Rendition,
        container: Container,
        tier: Tier,
    ) -> &AtomicU32 {
        let form = match container {
            Container::Mp4 => 0,
            Container::Ogg => 1,
            Container::Mp3 => 2,
        };
        &of[form][rendition.index()][tier.parts().ilog2() as usize]
    }

    pub(crate) fn add(&self, rendition: Rendition, container: Container, tier: Tier) {
        Self::slot(&self.counts, rendition, container, tier).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, rendition: Rendition, container: Container, tier: Tier) {
        Self::slot(&self.counts, rendition, container, tier).fetch_sub(1, Ordering::Relaxed);
    }

    /// A session that was counted as deaf on the terms `was` is so on the terms `is` now; `None`: it is not.
    pub(crate) fn deafen(&self, container: Container, was: Option<Terms>, is: Option<Terms>) {
        if let Some((rendition, tier)) = was {
            Self::slot(&self.deaf, rendition, container, tier).fetch_sub(1, Ordering::Relaxed);
        }
        if let Some((rendition, tier)) = is {
            Self::slot(&self.deaf, rendition, container, tier).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Those to whom audio was delivered in the last ten seconds.
    pub(crate) fn total(&self) -> u64 {
        self.counts().iter().map(|count| u64::from(count.count)).sum()
    }

    fn counts(&self) -> Vec<ListenerCount> {
        let mut counts = Vec::new();
        for ((form, renditions), deaf) in FORMS.into_iter().zip(&self.counts).zip(&self.deaf) {
            for ((rendition, tiers), deaf) in Rendition::ALL.into_iter().zip(renditions).zip(deaf) {
                for ((tier, count), deaf) in TIERS.into_iter().zip(tiers).zip(deaf) {
                    // Who was moved a moment ago may be deaf on other terms.
                    let count = count.load(Ordering::Relaxed).saturating_sub(deaf.load(Ordering::Relaxed));
                    if count > 0 {
                        counts.push(ListenerCount { rendition, form, tier: tier.parts() as u8, count });
                    }
                }
            }
        }
        counts
    }
}

// A panic under one of these locks is our bug in one request; the others go on with what is there.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Bilingual, Epoch, GreenRoom, PartKind, Payload};

    fn at(seconds: i64) -> UnixTime {
        UnixTime::from_millis(seconds * 1_000)
    }

    fn event() -> Arc<Event> {
        Arc::new(Event {
            slug: "talk".parse().unwrap(),
            revision: 1,
            title: Bilingual { ar: "حديث".to_owned(), en: String::new() },
            starts_at: at(10_000),
            duration: None,
            doors_before: Duration::from_secs(900),
            auto_live: true,
            green_room: GreenRoom::Open,
            hold_on_silence: false,
            slate: None,
            invite_key: [0; 32],
            signing_key: [0; 32],
            seats: Vec::new(),
            created_at: at(0),
        })
    }

    fn status(state: StateRecord, newest: Option<u64>) -> Arc<EventStatus> {
        Arc::new(EventStatus {
            event: "talk".parse().unwrap(),
            revision: 1,
            state,
            epoch: None,
            anchor: None,
            live_at: None,
            ended_at: None,
            newest_part: newest.map(PartNumber::new),
            recorded_through: None,
            alarms: Vec::new(),
            late: false,
            seats: Vec::new(),
        })
    }

    fn part(number: u64) -> Part {
        let payload = Payload::new(Bytes::from_static(b"part"));
        Part {
            number: PartNumber::new(number),
            epoch: Epoch(1),
            kind: PartKind::Live,
            payloads: [payload.clone(), payload.clone(), payload],
            records: Vec::new(),
        }
    }

    #[test]
    fn origin_says_where_an_event_stands_and_the_clock_only_if_it_does_not() {
        let known = Facts { event: Some(event()), ..Facts::default() };
        let doors = Some(at(9_100));
        for (now, expected) in [
            (at(9_099), Phase::Before { doors }),
            (at(9_100), Phase::Running),
            (at(10_000 + 86_400), Phase::Running),
            (at(10_001 + 86_400), Phase::Over),
        ] {
            assert_eq!(known.phase(now), expected);
        }
        for (state, expected) in [
            (StateRecord::Scheduled, Phase::Before { doors }),
            (StateRecord::Doors, Phase::Running),
            (StateRecord::Live, Phase::Running),
            (StateRecord::Ended, Phase::Over),
        ] {
            let facts = Facts { status: Some(status(state, None)), ..known.clone() };
            assert_eq!(facts.phase(at(50_000)), expected);
        }
        // Its recording knows better than what origin said before it went silent.
        let whole = Facts { status: Some(status(StateRecord::Live, None)), finished: true, ..known.clone() };
        assert_eq!(whole.phase(at(50_000)), Phase::Over);
        assert_eq!(Facts::default().phase(at(0)), Phase::Before { doors: None });
        assert_eq!(known.title(), "حديث");
    }

    #[test]
    fn a_window_settles_when_it_has_what_origin_has() {
        let live = Live::new(Arc::new(Bell::silent()));
        let facts = Facts { status: Some(status(StateRecord::Live, Some(9))), ..Facts::default() };
        for (number, settled) in [(7, false), (8, false), (9, true)] {
            live.accept(part(number), &facts);
            assert_eq!(live.window().is_settled(), settled);
        }
    }

    #[test]
    fn a_window_settles_after_a_while_if_origin_says_nothing() {
        let (live, facts) = (Live::new(Arc::new(Bell::silent())), Facts::default());
        for (number, settled) in [(7, false), (8, true), (9, true)] {
            live.accept(part(number), &facts);
            assert!(settled || !live.window().is_settled());
            live.tick(&facts);
            assert_eq!(live.window().is_settled(), settled);
        }
    }

    #[test]
    fn the_window_ends_with_the_last_part() {
        let live = Live::new(Arc::new(Bell::silent()));
        let facts = Facts { status: Some(status(StateRecord::Live, Some(8))), ..Facts::default() };
        live.accept(part(8), &facts);
        let facts = Facts { status: Some(status(StateRecord::Ended, Some(9))), ..Facts::default() };
        live.conclude(&facts, false);
        assert!(!live.window().has_ended());
        live.accept(part(9), &facts);
        assert!(live.window().has_ended());
        assert_eq!(live.tick(&facts), Pace { quiet: 1, ended: Some(1) });
    }

    #[test]
    fn the_window_ends_without_the_last_part_if_it_does_not_come() {
        let live = Live::new(Arc::new(Bell::silent()));
        let facts = Facts { status: Some(status(StateRecord::Ended, Some(9))), ..Facts::default() };
        live.accept(part(8), &facts);
        (0..QUIET_TICKS).for_each(|_| _ = live.tick(&facts));
        assert!(!live.window().has_ended());
        live.tick(&facts);
        assert!(live.window().has_ended());
    }

    #[test]
    fn playlist_reloads_are_listeners() {
        let channel = Channel::new("talk".parse().unwrap());
        // Five players, each once in four seconds.
        for second in 0..25 {
            if second % 4 == 0 {
                (0..5).for_each(|_| channel.count_reload(Rendition::Mp3_64));
            }
            channel.tick_listeners();
        }
        let hls =
            |count| vec![ListenerCount { rendition: Rendition::Mp3_64, form: Form::Hls, tier: 8, count }];
        assert_eq!(channel.tick_listeners(), hls(5));
        (0..HLS_TICKS).for_each(|_| _ = channel.tick_listeners());
        assert_eq!(channel.tick_listeners(), []);
    }
}
