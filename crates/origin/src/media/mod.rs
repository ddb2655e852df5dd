//! The media thread: one UDP socket, all sessions, all programmes.
//!
//! A turn does, in this order: frames that are due; orders from the stage door, at most 32; datagrams, at most 64;
//! time for the sessions; once a second alarms and the status. So a flood at the port costs datagrams, never a frame,
//! and every step is bounded.

mod demux;
mod offer;
mod running;
mod session;
mod status;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use backend::bus::Bus;
use backend::child::Pulses;
use backend::clock;
use model::{BootTime, ClockReading, Digest, Event, EventSlug, SeatId};
use programme::slate::Slate;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stage::{Actor, AdmitError, CommandError, DirectError, SeatChange, SourceKind};
use tokio::sync::{mpsc, oneshot};

use crate::counters;
use crate::directory::Directory;
use crate::recorder::RecorderQueue;

use demux::{Demux, Route};
use running::{Effects, Feed, Running};
use session::{Session, SessionOutput};

pub(crate) use demux::SessionId;
pub(crate) use offer::{Answered, OfferError, answer, ice_ufrag};
pub(crate) use running::{Registration, StreamPacket, open_packager};

pub(crate) fn fuzz_datagram(data: &[u8]) {
    demux::fuzz(data);
}

pub(crate) fn fuzz_offer(data: &[u8]) {
    offer::fuzz(data);
}

/// Datagrams taken in one turn.
const DATAGRAMS_PER_TURN: usize = 64;
/// Orders taken in one turn.
const ORDERS_PER_TURN: usize = 32;
/// Longest sleep: orders wait no longer than this.
const SLEEP_MAX: Duration = Duration::from_millis(10);
/// How often sessions are told the time.
const SESSION_TIME: Duration = Duration::from_millis(20);
/// Largest datagram read; longer ones are cut, and then fail their check.
const DATAGRAM_MAX: usize = 2_048;
/// Orders that wait.
pub(crate) const ORDERS_MAX: usize = 256;
/// At a shutdown: longest time for the part in progress to be completed.
const LAST_PART: Duration = Duration::from_millis(650);
/// How long an event that has ended is still shown.
const SHOWN_AFTER_END: Duration = Duration::from_secs(86_400);

/// An order to the media thread.
pub(crate) enum Order {
    /// Serve this event.
    Register(Box<Registration>),
    /// Control changed an event.
    Update(Box<Event>),
    /// The slate of an event is decoded.
    Slate {
        /// Which event.
        event: EventSlug,
        /// Its slate before the start.
        slate: Slate,
    },
    /// What the next signatures of an event's segments are to witness.
    LedgerHead {
        /// Which event.
        event: EventSlug,
        /// The head of its ledger.
        head: Digest,
    },
    /// Let a WebRTC source in.
    Join(Box<Join>),
    /// Let an Icecast source in.
    Stream {
        /// Which event.
        event: EventSlug,
        /// Which seat.
        seat: SeatId,
        /// Whether it means to be a standby.
        standby: bool,
        /// Its packets; it leaves when the other end is dropped.
        packets: mpsc::Receiver<StreamPacket>,
        /// Whether it was let in.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A WHIP client says goodbye.
    Leave(SessionId),
    /// Mute or move a seat.
    Direct {
        /// Which event.
        event: EventSlug,
        /// Who wants it.
        by: Actor,
        /// Which seat.
        seat: SeatId,
        /// What.
        change: SeatChange,
        /// What came of it.
        reply: oneshot::Sender<Result<(), DirectRefusal>>,
    },
    /// Go live, hold, end.
    Command {
        /// Which event.
        event: EventSlug,
        /// What.
        command: stage::Command,
        /// What came of it.
        reply: oneshot::Sender<Result<(), CommandRefusal>>,
    },
}

/// A WebRTC source that wants in.
pub(crate) struct Join {
    pub(crate) event: EventSlug,
    pub(crate) seat: SeatId,
    pub(crate) standby: bool,
    pub(crate) session: SessionId,
    pub(crate) answered: Answered,
    /// Dropped with the session, so that its address at the stage door ends with it.
    pub(crate) guard: Box<dyn Send>,
    pub(crate) reply: oneshot::Sender<Result<(), Refusal>>,
}

/// Why a source was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no such event")]
    UnknownEvent,
    #[error(transparent)]
    Stage(#[from] AdmitError),
    #[error("too many speakers are connected")]
    TooMany,
}

/// Why a seat was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DirectRefusal {
    #[error("there is no such event")]
    UnknownEvent,
    #[error(transparent)]
    Stage(#[from] DirectError),
}

/// Why the show did not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandRefusal {
    #[error("there is no such event")]
    UnknownEvent,
    #[error(transparent)]
    Stage(#[from] CommandError),
}

/// What the media thread needs.
pub(crate) struct MediaParts {
    pub(crate) socket: UdpSocket,
    /// Where peers reach the socket.
    pub(crate) candidates: Arc<[SocketAddr]>,
    pub(crate) sessions_max: usize,
    pub(crate) programmes_max: usize,
    /// The data directory, if mixes are to be kept in it.
    pub(crate) mixes: Option<PathBuf>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) recorder: RecorderQueue,
    pub(crate) pulses: Option<Pulses>,
}

/// What others may know of the media thread.
#[derive(Debug, Default)]
pub(crate) struct MediaHealth {
    /// Milliseconds of the machine's clock at the last turn.
    beat_ms: std::sync::atomic::AtomicU64,
    sessions: AtomicUsize,
    programmes: AtomicUsize,
}

impl MediaHealth {
    /// Whether it has turned within the last two seconds.
    pub(crate) fn is_alive(&self) -> bool {
        let now = clock::boot_now().as_nanos() / 1_000_000;
        now.saturating_sub(self.beat_ms.load(Ordering::Relaxed)) < 2_000
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(crate) fn programmes(&self) -> usize {
        self.programmes.load(Ordering::Relaxed)
    }
}

/// The running thread.
pub(crate) struct MediaThread {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) health: Arc<MediaHealth>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl MediaThread {
    pub(crate) fn start(parts: MediaParts) -> io::Result<Self> {
        parts.socket.set_nonblocking(true)?;
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let health = Arc::new(MediaHealth::default());
        let media = Media::new(parts, receiver, stop.clone(), health.clone());
        let thread = std::thread::Builder::new().name("media".into()).spawn(move || media.run())?;
        Ok(Self { orders, health, stop, thread })
    }

    /// Completes the part in progress, says goodbye to the speakers and ends, within a second. Blocks for that.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the media thread had panicked");
        }
    }

    /// Whether it is running.
    pub(crate) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }
}

struct Entry {
    session: Session,
    _guard: Box<dyn Send>,
}

struct Media {
    parts: MediaParts,
    orders: mpsc::Receiver<Order>,
    stop: Arc<AtomicBool>,
    health: Arc<MediaHealth>,
    events: BTreeMap<EventSlug, Running>,
    sessions: BTreeMap<SessionId, Entry>,
    demux: Demux,
    outputs: Vec<SessionOutput>,
    effects: Effects,
    status: status::Reporter,
    dual_stack: bool,
    sessions_told: BootTime,
    watched: BootTime,
}

impl Media {
    fn new(
        parts: MediaParts,
        orders: mpsc::Receiver<Order>,
        stop: Arc<AtomicBool>,
        health: Arc<MediaHealth>,
    ) -> Self {
        Self {
            status: status::Reporter::new(parts.bus.clone()),
            dual_stack: parts.socket.local_addr().is_ok_and(|own| own.is_ipv6()),
            parts,
            orders,
            stop,
            health,
            events: BTreeMap::new(),
            sessions: BTreeMap::new(),
            demux: Demux::default(),
            outputs: Vec::new(),
            effects: Effects::default(),
            sessions_told: BootTime::default(),
            watched: BootTime::default(),
        }
    }

    fn run(mut self) {
        let pulse = self.parts.pulses.as_ref().map(|pulses| pulses.pulse("media", Duration::from_secs(3)));
        let mut buffer = [0; DATAGRAM_MAX];
        while !self.stop.load(Ordering::Relaxed) {
            let busy = self.turn(&mut buffer);
            if let Some(pulse) = &pulse {
                pulse.beat();
            }
            if !busy {
                self.sleep();
            }
        }
        self.finish(&mut buffer);
        if let Some(pulse) = &pulse {
            pulse.retire();
        }
    }

    /// Returns whether more is to be done at once.
    fn turn(&mut self, buffer: &mut [u8]) -> bool {
        let reading = clock::read();
        self.health.beat_ms.store(reading.boot.as_nanos() / 1_000_000, Ordering::Relaxed);
        // Sound first: after a pause several frames are due, and what has come in meanwhile belongs in them.
        let datagrams = self.receive(buffer);
        let behind = self.advance(reading);
        let orders = self.take_orders();
        self.tell_sessions(reading);
        if reading.boot.since(self.watched) >= Duration::from_secs(1) {
            self.watched = reading.boot;
            self.watch(reading);
        }
        self.show(reading);
        behind || orders || datagrams
    }

    fn sleep(&self) {
        let now = clock::boot_now();
        let due = self.events.values().filter_map(Running::due).min();
        let wait = due.map_or(SLEEP_MAX, |due| due.since(now).min(SLEEP_MAX));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        // An interrupted sleep is a short one.
        let _ = poll(&mut [PollFd::new(&self.parts.socket, PollFlags::IN)], Some(&timeout));
    }

    fn advance(&mut self, reading: ClockReading) -> bool {
        let mut programmes = self.events.values().filter(|event| event.has_programme()).count();
        let mut behind = false;
        for event in self.events.values_mut() {
            let had = event.has_programme();
            behind |= event.advance(reading, programmes < self.parts.programmes_max, &mut self.effects);
            programmes += usize::from(event.has_programme() && !had);
        }
        self.health.programmes.store(programmes, Ordering::Relaxed);
        self.perform();
        behind
    }

    /// Does what events left to be done.
    fn perform(&mut self) {
        let now = Instant::now();
        for (id, at, packet) in std::mem::take(&mut self.effects.returns) {
            if let Some(entry) = self.sessions.get_mut(&id) {
                entry.session.send(at, &packet, now, &mut self.outputs);
                self.flush(id);
            }
        }
        for id in std::mem::take(&mut self.effects.closes) {
            self.close_session(id, now);
        }
    }

    fn close_session(&mut self, id: SessionId, now: Instant) {
        self.demux.remove(id);
        if let Some(mut entry) = self.sessions.remove(&id) {
            entry.session.close(now, &mut self.outputs);
            for output in std::mem::take(&mut self.outputs) {
                if let SessionOutput::Send(transmit) = output {
                    self.send(&transmit);
                }
            }
        }
        self.health.sessions.store(self.sessions.len(), Ordering::Relaxed);
    }

    /// Performs what a session gave rise to.
    fn flush(&mut self, id: SessionId) {
        for output in std::mem::take(&mut self.outputs) {
            let Some(entry) = self.sessions.get(&id) else { continue };
            match output {
                SessionOutput::Send(transmit) => self.send(&transmit),
                SessionOutput::Sound { sequence, timestamp, payload } => {
                    let source = entry.session.source;
                    if let Some(event) = self.events.get_mut(&entry.session.event) {
                        event.sound(source, sequence, timestamp, &payload, clock::read(), &mut self.effects);
                    }
                }
                SessionOutput::Connected => {
                    let after = entry.session.started().elapsed();
                    let (event, source) = (&entry.session.event, entry.session.source.0);
                    tracing::info!(%event, source, after_ms = after.as_millis() as u64, "a speaker is connected");
                }
                SessionOutput::Over(why) => {
                    let (slug, source) = (entry.session.event.clone(), entry.session.source);
                    tracing::info!(event = %slug, source = source.0, why, "a session is over");
                    if let Some(event) = self.events.get_mut(&slug) {
                        event.remove_source(source, clock::read(), &mut self.effects);
                    }
                }
            }
        }
    }

    fn send(&self, transmit: &str0m::net::Transmit) {
        // A datagram that does not go out now is lost, as on any network.
        let destination = match transmit.destination {
            SocketAddr::V4(v4) if self.dual_stack => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            as_it_is => as_it_is,
        };
        if self.parts.socket.send_to(&transmit.contents, destination).is_err() {
            counters::DATAGRAMS_UNSENT.increment();
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> bool {
        for _ in 0..DATAGRAMS_PER_TURN {
            let (length, source) = match self.parts.socket.recv_from(buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // The answer to a datagram of ours to a port that is closed now.
                Err(_) => continue,
            };
            // A socket for both families names IPv4 peers in IPv6's way.
            let source = SocketAddr::new(source.ip().to_canonical(), source.port());
            self.datagram(source, &buffer[..length]);
        }
        true
    }

    fn datagram(&mut self, source: SocketAddr, datagram: &[u8]) {
        let (id, is_stun) = match self.demux.route(source, datagram) {
            Route::Stun(id) => (id, true),
            Route::Known(id) => (id, false),
            Route::StrangeStun => return counters::DATAGRAMS_STUN.increment(),
            Route::Strange => return counters::DATAGRAMS_STRANGE.increment(),
        };
        let Some(entry) = self.sessions.get_mut(&id) else { return };
        let taken = entry.session.receive(source, datagram, Instant::now(), &mut self.outputs);
        if taken && is_stun {
            self.demux.learn(id, source);
        }
        if taken {
            counters::DATAGRAMS.increment()
        } else {
            counters::DATAGRAMS_REFUSED.increment()
        }
        self.flush(id);
        self.perform();
    }

    fn tell_sessions(&mut self, reading: ClockReading) {
        if reading.boot.since(self.sessions_told) < SESSION_TIME {
            return;
        }
        self.sessions_told = reading.boot;
        let now = Instant::now();
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            if let Some(entry) = self.sessions.get_mut(&id) {
                entry.session.handle_timeout(now, &mut self.outputs);
                self.flush(id);
            }
        }
        self.perform();
    }

    fn watch(&mut self, reading: ClockReading) {
        for event in self.events.values_mut() {
            event.watch(reading, &mut self.effects);
        }
        let directory = &self.parts.directory;
        self.events.retain(|slug, event| {
            let old = event.is_closed()
                && event.is_handed_over()
                && event.ended_at().is_none_or(|ended| reading.unix.since(ended) > SHOWN_AFTER_END);
            if old {
                event.retire();
                directory.remove(slug);
            }
            !old
        });
        self.effects.changed = true;
    }

    fn show(&mut self, reading: ClockReading) {
        for event in self.events.values_mut() {
            event.show_view(reading.boot, &mut self.effects);
        }
        if std::mem::take(&mut self.effects.changed) {
            self.status.publish(&self.parts.directory, reading.unix);
        }
        self.perform();
    }

    fn take_orders(&mut self) -> bool {
        for _ in 0..ORDERS_PER_TURN {
            let Ok(order) = self.orders.try_recv() else { return false };
            self.order(order, clock::read());
            self.perform();
        }
        true
    }

    fn order(&mut self, order: Order, reading: ClockReading) {
        let effects = &mut self.effects;
        // Whoever asked may have gone away without waiting for the answer.
        match order {
            Order::Register(registration) => {
                let bus = self.parts.bus.clone();
                let mixes = self.parts.mixes.clone();
                let mut event = Running::new(*registration, bus, self.parts.recorder.clone(), mixes);
                event.show_view(reading.boot, effects);
                self.parts.directory.insert(event.slug().clone(), event.follow());
                self.events.insert(event.slug().clone(), event);
            }
            Order::Update(event) => {
                if let Some(running) = self.events.get_mut(&event.slug) {
                    running.update(*event, reading, effects);
                }
            }
            Order::Slate { event, slate } => {
                if let Some(running) = self.events.get_mut(&event) {
                    running.set_slate(slate);
                }
            }
            Order::LedgerHead { event, head } => {
                if let Some(running) = self.events.get_mut(&event) {
                    running.set_ledger_head(head);
                }
            }
            Order::Join(join) => self.join(*join, reading),
            Order::Stream { event, seat, standby, packets, reply } => {
                let result = match self.events.get_mut(&event) {
                    None => Err(Refusal::UnknownEvent),
                    Some(running) => running
                        .admit(seat, SourceKind::Stream, standby, Feed::Stream(packets), reading, effects)
                        .map(|_| counters::STREAMS.increment())
                        .map_err(Refusal::Stage),
                };
                let _ = reply.send(result);
            }
            Order::Leave(id) => {
                if let Some(entry) = self.sessions.get(&id) {
                    let (slug, source) = (entry.session.event.clone(), entry.session.source);
                    if let Some(event) = self.events.get_mut(&slug) {
                        event.remove_source(source, reading, effects);
                    }
                }
            }
            Order::Direct { event, by, seat, change, reply } => {
                let result = match self.events.get_mut(&event) {
                    None => Err(DirectRefusal::UnknownEvent),
                    Some(running) => {
                        running.direct(by, seat, change, reading, effects).map(|_| ()).map_err(Into::into)
                    }
                };
                let _ = reply.send(result);
            }
            Order::Command { event, command, reply } => {
                let result = match self.events.get_mut(&event) {
                    None => Err(CommandRefusal::UnknownEvent),
                    Some(running) => {
                        running.command(command, reading, effects).map(|_| ()).map_err(Into::into)
                    }
                };
                let _ = reply.send(result);
            }
        }
    }

    fn join(&mut self, join: Join, reading: ClockReading) {
        let Join { event, seat, standby, session: id, answered, guard, reply } = join;
        let result = match self.events.get_mut(&event) {
            None => Err(Refusal::UnknownEvent),
            Some(_) if self.sessions.len() >= self.parts.sessions_max => Err(Refusal::TooMany),
            Some(running) => running
                .admit(seat, SourceKind::Rtp, standby, Feed::Session(id), reading, &mut self.effects)
                .map_err(Refusal::Stage),
        };
        if let Ok(source) = result {
            counters::SESSIONS.increment();
            self.demux.insert(id, answered.ufrag.clone());
            let session =
                Session::new(event, source, answered, self.parts.candidates.clone(), Instant::now());
            self.sessions.insert(id, Entry { session, _guard: guard });
            self.health.sessions.store(self.sessions.len(), Ordering::Relaxed);
        }
        let _ = reply.send(result.map(|_| ()));
    }

    /// Completes the parts in progress, closes the sessions and hands everything to the recorder.
    fn finish(mut self, buffer: &mut [u8]) {
        // Who still asks is told by the closed channel.
        self.orders.close();
        let deadline = Instant::now() + LAST_PART;
        let ends: Vec<(EventSlug, Option<model::PartNumber>)> = self
            .events
            .values()
            .filter(|event| event.has_programme())
            .map(|event| (event.slug().clone(), event.part_in_progress()))
            .collect();
        let complete = |media: &Self| {
            ends.iter().all(|(slug, part)| {
                media.events.get(slug).is_none_or(|event| !event.has_programme() || event.newest() >= *part)
            })
        };
        while !complete(&self) && Instant::now() < deadline {
            if !self.turn(buffer) {
                self.sleep();
            }
        }
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.close_session(id, Instant::now());
        }
        let deadline = Instant::now() + Duration::from_millis(300);
        while self.events.values().any(|event| !event.is_handed_over()) && Instant::now() < deadline {
            self.events.values_mut().for_each(Running::hand_over);
            std::thread::sleep(Duration::from_millis(2));
        }
        self.status.publish(&self.parts.directory, clock::unix_now());
    }
}
