//! The bus side of an edge: hears of events, fills windows, reports.
//!
//! ```text
//! control ── events, audience ──┐                    ┌── window/{event} ──► origin, for its refill
//! origin ─── status ────────────┼──► feed ──► channels
//! origin ─── parts/{event} ─────┘   one task a       └── heartbeat ───────► control
//!                                   running event
//! ```
//!
//! An event is heard of from whoever speaks first: control, origin, or the edge's own disk. Nothing here waits for
//! anybody; whoever is silent leaves what was known as it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use admission::ladder::{Level, Load, Measures};
use backend::bus::{Message, Subscription};
use backend::child::Pulse;
use backend::clock;
use backend::freeze::FrozenEvents;
use backend::machine::{self, Memory};
use backend::wire::{
    self, Audience, EdgeEvent, Events, Heartbeat, OriginStatus, SessionChanges, SessionLimits,
};
use fanout::Push;
use model::{Event, EventSlug, UnixTime};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::channel::{Channel, Live, Phase};
use crate::evidence::Counting;
use crate::ladder::{EdgeLadder, InForce, Meter};
use crate::push::Counts;
use crate::shared::{Shared, count};

/// How long before doors an edge begins to listen for parts: origin's word may be lost, its clock a little ahead.
const EARLY: Duration = Duration::from_secs(30);
/// Ticks without a part after which the disk is asked whether an event has ended, and ticks between such questions.
const ASK_DISK: u32 = 5;
/// The push door turns at least four times a second; without a turn for this long it hangs.
const HANGS: Duration = Duration::from_secs(2);
/// Ticks from the start for which origin's first word is waited for.
const ORIENTATION: u32 = 3;

/// Feeds the channels until the doors close.
pub(crate) struct Feed {
    shared: Arc<Shared>,
    frozen: FrozenEvents,
    /// What is to be frozen, and who does it at the moment.
    unfrozen: BTreeMap<EventSlug, Event>,
    freezing: Option<JoinHandle<()>>,
    pulse: Option<Pulse>,
    /// Tasks that take parts in, by event. Aborted when dropped.
    takers: BTreeMap<EventSlug, Taker>,
    sequence: u64,
    ticks: u32,
    /// As reported last.
    lateness: Counts,
    turns: Counts,
    ladder: EdgeLadder,
    meter: Meter,
    /// Of the last second.
    load: Load,
    counting: Counting,
    /// The longest that turns of the push door were late, since the last bin.
    late: Duration,
}

struct Taker(JoinHandle<()>);

impl Drop for Taker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Feed {
    /// Begins with the events frozen on the disk.
    pub(crate) fn new(shared: Arc<Shared>, frozen: FrozenEvents, pulse: Option<Pulse>) -> Self {
        match frozen.thaw_all() {
            Ok((events, damaged)) => {
                for error in damaged {
                    tracing::warn!(%error, "a frozen event cannot be read");
                }
                for event in events {
                    learn(&shared, event);
                }
            }
            Err(error) => tracing::warn!(%error, "frozen events cannot be read"),
        }
        Self {
            counting: Counting::new(&shared, clock::unix_now()),
            late: Duration::ZERO,
            shared,
            frozen,
            unfrozen: BTreeMap::new(),
            freezing: None,
            pulse,
            takers: BTreeMap::new(),
            sequence: 0,
            ticks: 0,
            lateness: Counts::default(),
            turns: Counts::default(),
            ladder: EdgeLadder::default(),
            meter: Meter::new(Instant::now()),
            load: Load::default(),
        }
    }

    /// Runs until the doors close.
    pub(crate) async fn run(mut self) {
        let bus = Arc::clone(&self.shared.bus);
        let mut events = bus.subscribe("control", "events", None);
        let mut audience = bus.subscribe("control", "audience", None);
        let mut status = bus.subscribe("origin", "status", None);
        let mut limits = bus.subscribe("control", "limits", None);
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let closing = self.shared.closing.clone();
        loop {
            tokio::select! {
                () = closing.cancelled() => break,
                _ = ticks.tick() => self.tick(),
                message = next(&mut events) => self.events(&message),
                message = next(&mut audience) => self.audience(&message),
                message = next(&mut status) => self.status(&message),
                message = next(&mut limits) => self.limits(&message),
            }
        }
        // Parts go on coming in while listeners are let go.
        std::future::pending::<()>().await;
    }

    fn events(&mut self, message: &Message) {
        let Some(Events { events }) = self.read(message) else { return };
        let mut changed = false;
        for record in events {
            match Event::try_from(record) {
                Ok(event) => {
                    if learn(&self.shared, event.clone()) {
                        self.unfrozen.insert(event.slug.clone(), event);
                        changed = true;
                    }
                }
                Err(_) => count(&self.shared.counters.messages_damaged),
            }
        }
        if changed {
            self.freeze();
            self.tend();
        }
    }

    /// Has what changed written to the disk, unless that is being done: nobody here waits for a disk.
    fn freeze(&mut self) {
        let is_busy = self.freezing.as_ref().is_some_and(|freezing| !freezing.is_finished());
        if is_busy || self.unfrozen.is_empty() {
            return;
        }
        let (events, frozen) = (std::mem::take(&mut self.unfrozen), self.frozen.clone());
        self.freezing = Some(tokio::task::spawn_blocking(move || {
            for event in events.into_values() {
                if let Err(error) = frozen.freeze(&event) {
                    tracing::warn!(event = %event.slug, %error, "an event cannot be frozen");
                }
            }
        }));
    }

    fn audience(&mut self, message: &Message) {
        let Some(Audience { level, pinned, measures, totals }) = self.read(message) else { return };
        match (Level::from_number(level), Measures::try_from(measures)) {
            (Some(level), Ok(measures)) => {
                self.ladder.hear(clock::boot_now(), InForce { level, measures }, pinned);
                self.decide();
            }
            _ => count(&self.shared.counters.messages_damaged),
        }
        let totals: BTreeMap<_, _> = totals.into_iter().map(|total| (total.event, total.listeners)).collect();
        for channel in self.shared.channels() {
            let listeners = totals.get(&channel.slug).copied().unwrap_or(0);
            channel.update(|facts| facts.audience = Some(listeners));
        }
    }

    /// Decides what is in force, by what is known of the last second.
    fn decide(&mut self) {
        self.shared.set_in_force(self.ladder.observe(clock::boot_now(), self.load));
    }

    fn limits(&mut self, message: &Message) {
        let Some(limits) = self.read::<SessionLimits>(message) else { return };
        if self.shared.sessions.hear(self.shared.index, &limits.into()) {
            self.shared.bell.ring();
        }
    }

    fn status(&mut self, message: &Message) {
        let Some(OriginStatus { events, .. }) = self.read(message) else { return };
        for status in events {
            let Some(channel) = self.shared.channel_or_new(&status.event) else { continue };
            channel.update(|facts| (facts.status, facts.finished) = (Some(Arc::new(status)), false));
            if let Some(live) = channel.live() {
                live.conclude(&channel.facts(), false);
            }
        }
        self.tend();
        self.shared.set_oriented();
    }

    fn tick(&mut self) {
        self.shared.reload_tickets();
        let memory = Memory::now();
        self.shared.weigh_memory(memory);
        self.load = self.meter.read(&self.shared, memory, Instant::now());
        self.decide();
        self.late = self.late.max(self.load.late);
        let late_us = u64::try_from(self.late.as_micros()).unwrap_or(u64::MAX);
        if let Some(bin) = self.counting.turn(&self.shared, clock::unix_now(), late_us) {
            self.late = Duration::ZERO;
            self.shared.bus.publish("bins", self.sequence, wire::encode(&bin));
        }
        self.freeze();
        self.tend();
        self.ticks = self.ticks.saturating_add(1);
        if self.ticks > ORIENTATION {
            self.shared.set_oriented();
        }
        let mut events = Vec::new();
        for channel in self.shared.channels() {
            let facts = channel.facts();
            let live = channel.live();
            if let Some(live) = &live {
                let pace = live.tick(&facts);
                if pace.ended.is_none() && pace.quiet >= ASK_DISK && pace.quiet % ASK_DISK == 0 {
                    tokio::spawn(ask_disk(Arc::clone(&self.shared), Arc::clone(&channel), Arc::clone(live)));
                }
                if pace.ended.is_some_and(|ticks| u64::from(ticks) > self.shared.config.linger_s) {
                    self.retire(&channel);
                }
            }
            let listeners = channel.tick_listeners();
            if live.is_some() || !listeners.is_empty() {
                let newest_part = live.and_then(|live| live.window().newest());
                events.push(EdgeEvent { event: channel.slug.clone(), newest_part, listeners });
            }
        }
        self.report(events);
        // Whoever does not turn does not live; the supervisor then ends both.
        if let Some(pulse) = &self.pulse
            && self.shared.bell.silence(Instant::now()) < HANGS
        {
            pulse.beat();
        }
    }

    /// Gives every event that runs, or is about to, a window and someone who fills it.
    fn tend(&mut self) {
        let now = clock::unix_now();
        for channel in self.shared.channels() {
            if channel.live().is_some() || !wants_window(&channel, now) {
                continue;
            }
            if self.takers.len() >= self.shared.config.windows_max {
                count(&self.shared.counters.events_refused);
                continue;
            }
            let live = Arc::new(Live::new(Arc::clone(&self.shared.bell)));
            channel.set_live(Some(Arc::clone(&live)));
            let taker = tokio::spawn(take_parts(Arc::clone(&self.shared), Arc::clone(&channel), live));
            self.takers.insert(channel.slug.clone(), Taker(taker));
        }
        self.shared.counters.windows.store(self.takers.len() as u64, Ordering::Relaxed);
    }

    /// Lets the window of an event that is over go; the recording has it all.
    fn retire(&mut self, channel: &Channel) {
        channel.set_live(None);
        self.takers.remove(&channel.slug);
        self.shared.bus.retire(&window_topic(&channel.slug));
    }

    fn report(&mut self, events: Vec<EdgeEvent>) {
        let counters = &self.shared.counters;
        let (lateness, turns) = (counters.lateness.snapshot(), counters.turns.snapshot());
        let in_force = self.shared.in_force();
        let heartbeat = Heartbeat {
            index: self.shared.index,
            pid: std::process::id(),
            level: in_force.level.number(),
            measures: in_force.measures.into(),
            load: self.load.into(),
            events,
            bytes: counters.bytes.load(Ordering::Relaxed),
            skipped: counters.skipped_behind.load(Ordering::Relaxed)
                + counters.skipped_missing.load(Ordering::Relaxed),
            joins: counters.joins.load(Ordering::Relaxed),
            refused: counters.refused_full.load(Ordering::Relaxed)
                + counters.refused_level.load(Ordering::Relaxed)
                + counters.refused_memory.load(Ordering::Relaxed)
                + counters.refused_share.load(Ordering::Relaxed),
            rss_bytes: machine::rss_bytes(),
            open_files: machine::open_files(),
            listeners_max: self.shared.listeners_max,
            memory_available: counters.memory_available.load(Ordering::Relaxed),
            push_cpu_us: counters.push_cpu_us.load(Ordering::Relaxed),
            lateness_p99_ms: lateness.quantile_ms(&self.lateness, 0.99),
            turn_max_ms: turns.quantile_ms(&self.turns, 1.0),
            handshakes: counters.handshakes_full.load(Ordering::Relaxed)
                + counters.handshakes_resumed.load(Ordering::Relaxed),
        };
        (self.lateness, self.turns) = (lateness, turns);
        self.sequence += 1;
        self.shared.bus.publish("heartbeat", self.sequence, wire::encode(&heartbeat));
        let sessions =
            SessionChanges::new(self.shared.index, std::process::id(), &self.shared.sessions.tell());
        self.shared.bus.publish("sessions", self.sequence, wire::encode(&sessions));
    }

    fn read<T: serde::de::DeserializeOwned>(&self, message: &Message) -> Option<T> {
        wire::decode(&message.payload)
            .inspect_err(|error| {
                tracing::debug!(%error, "a message cannot be read");
                count(&self.shared.counters.messages_damaged);
            })
            .ok()
    }
}

/// The next message; never, once the bus is shut down.
async fn next(subscription: &mut Subscription) -> Message {
    match subscription.next().await {
        Some(message) => message,
        None => std::future::pending().await,
    }
}

/// Takes a description of an event in, if it is newer than the one known. Says so.
fn learn(shared: &Shared, event: Event) -> bool {
    let Some(channel) = shared.channel_or_new(&event.slug) else { return false };
    let mut newer = false;
    channel.update(|facts| {
        newer = facts.event.as_ref().is_none_or(|known| known.revision < event.revision);
        if newer {
            facts.event = Some(Arc::new(event));
        }
    });
    newer
}

fn wants_window(channel: &Channel, now: UnixTime) -> bool {
    match channel.facts().phase(now) {
        Phase::Running => true,
        Phase::Before { doors: Some(doors) } => now >= doors.minus(EARLY),
        Phase::Before { doors: None } | Phase::Over => false,
    }
}

fn window_topic(event: &EventSlug) -> String {
    format!("window/{event}")
}

/// Takes an event's parts in, as long as the window is wanted. When origin dies the subscription waits for it; what
/// was missed comes from what origin retains.
async fn take_parts(shared: Arc<Shared>, channel: Arc<Channel>, live: Arc<Live>) {
    let mut parts = shared.bus.subscribe("origin", &format!("parts/{}", channel.slug), Some(0));
    let window = window_topic(&channel.slug);
    loop {
        let message = next(&mut parts).await;
        let part = match wire::decode_part(message.payload.clone()) {
            Ok(part) if part.number.get() == message.sequence => part,
            Ok(_) | Err(_) => {
                count(&shared.counters.messages_damaged);
                tracing::warn!(event = %channel.slug, sequence = message.sequence, "a part cannot be read");
                continue;
            }
        };
        count(&shared.counters.parts_received);
        match live.accept(part, &channel.facts()) {
            Push::Accepted { missing } => {
                if missing > 0 {
                    shared.counters.parts_missing.fetch_add(missing, Ordering::Relaxed);
                    tracing::warn!(event = %channel.slug, missing, before = message.sequence, "parts are missing");
                }
                shared.bus.publish(&window, message.sequence, message.payload);
            }
            Push::Stale => count(&shared.counters.parts_stale),
        }
    }
}

/// Ends a window whose event has ended while origin cannot say so: its recording does.
async fn ask_disk(shared: Arc<Shared>, channel: Arc<Channel>, live: Arc<Live>) {
    let finished = shared.recordings.with(&channel.slug, |recording| Ok(recording.is_finished())).await;
    if let Ok(true) = finished {
        tracing::info!(event = %channel.slug, "the recording says that the event has ended");
        channel.update(|facts| facts.finished = true);
        live.conclude(&channel.facts(), true);
    }
}
