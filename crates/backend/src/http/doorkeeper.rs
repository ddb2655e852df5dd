//! Who has a connection to a door, and who makes room (see [`admission::doorstep`]).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use admission::doorstep::{Meter, Places, Prefix, Room, Shares};
use admission::ledger::Ja4;
use slab::Slab;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::proxy::{self, HeaderProgress, Introduced, Introduction};
use super::turns::{Turn, Turns};

/// Time after which who asks for nothing makes room for anybody.
const SILENCE: Duration = Duration::from_secs(1);
/// Of all places so many are one that is kept for sites with few connections.
const PLACES_A_RESERVE: usize = 32;
/// Time after which what a site has cost begins to be forgotten.
const COST_WINDOW: Duration = Duration::from_secs(4);
/// Homes of a site that together cost as much as one alone.
const COST_HOMES: u32 = 4;
/// Time after which it begins to be forgotten that connections of a site asked for nothing.
const DEBT_WINDOW: Duration = Duration::from_secs(60);
/// Handshakes at once that are being calculated: a budget of their own, since the others of a door go on meanwhile.
const HANDSHAKES: usize = 1;

/// What happened at a door; these only grow, but for those that rest.
#[derive(Debug, Default)]
pub struct DoorCounts {
    sent: AtomicU64,
    resting: AtomicU64,
    accepted: AtomicU64,
    evicted: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    introductions: AtomicU64,
    forwarded: AtomicU64,
    floods: AtomicU64,
    stalled: AtomicU64,
    slow_bodies: AtomicU64,
    encoded: AtomicU64,
    handshakes: AtomicU64,
    requests: AtomicU64,
}

/// One more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

macro_rules! counted {
    ($($(#[$doc:meta])* $function:ident $field:ident;)*) => {
        $($(#[$doc])* pub(super) fn $function(&self) {
            count(&self.$field);
        })*
    };
}

impl DoorCounts {
    /// What each series of [`Self::series`] counts.
    pub const HELP: &'static str = "What happened at a door: connections accepted, evicted to make room, refused because \
                                    their address prefix had most of a full door, and what was closed or refused as \
                                    too much.";

    /// Bytes written to connections, before TLS.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Connections now that are asked for nothing, and make room for others.
    pub fn resting(&self) -> u64 {
        self.resting.load(Ordering::Relaxed)
    }

    /// So many bytes were written.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Connections accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections evicted to make room, or refused because their network had most of a full door.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed) + self.refused.load(Ordering::Relaxed)
    }

    /// Connections closed for what they did with HTTP/2: floods of frames, answers that were never taken.
    pub fn abuse(&self) -> u64 {
        self.floods.load(Ordering::Relaxed) + self.stalled.load(Ordering::Relaxed)
    }

    /// Bodies that came too slowly.
    pub fn slow_bodies(&self) -> u64 {
        self.slow_bodies.load(Ordering::Relaxed)
    }

    /// TLS handshakes given up because too many waited for their turn.
    pub fn handshakes_shed(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// Each kind of thing that happens, by its name in metrics, with how often it did.
    pub fn series(&self) -> [(&'static str, u64); 12] {
        [
            ("accepted", &self.accepted),
            ("evicted", &self.evicted),
            ("refused", &self.refused),
            ("failed_accept", &self.failed),
            ("bad_proxy_header", &self.introductions),
            ("bad_forwarded_for", &self.forwarded),
            ("http2_flood", &self.floods),
            ("http2_stalled", &self.stalled),
            ("slow_body", &self.slow_bodies),
            ("encoded_body", &self.encoded),
            ("crowded_handshake", &self.handshakes),
            ("crowded_request", &self.requests),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }

    /// All of them as a family of Prometheus' text format.
    pub fn render(&self, text: &mut String, name: &str) {
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} counter", Self::HELP);
        for (what, count) in self.series() {
            let _ = writeln!(text, "{name}{{what=\"{what}\"}} {count}");
        }
    }

    counted! {
        /// The system could not give a connection.
        failed_accept failed;
        /// A connection was closed unheard.
        refuse refused;
        /// A request did not say properly where it comes from.
        bad_forwarded forwarded;
        /// A connection was closed because of its frames.
        flood floods;
        /// A connection was closed because it took nothing of an answer.
        stall stalled;
        /// A body came too slowly.
        slow_body slow_bodies;
        /// A body was encoded.
        encode encoded;
    }
}

/// The places of a door.
#[derive(Debug)]
pub(super) struct Doorkeeper {
    start: Instant,
    state: Mutex<State>,
    /// Told when somebody goes, or may have to.
    changed: Notify,
    handshakes: Arc<Turns>,
    counts: Arc<DoorCounts>,
}

#[derive(Debug)]
struct State {
    places: Places,
    meter: Meter,
    /// How many never asked and had to go, by where they came from.
    debts: Meter,
    requests: Shares,
    /// What ends the connection at each place.
    guests: Slab<CancellationToken>,
}

impl State {
    /// Somebody has to go; if it never asked for anything, that is remembered.
    fn had_to_go(&mut self, key: u32, now: Duration) {
        if let Some(prefix) = self.places.prefix(key)
            && !self.places.has_asked(key)
        {
            self.debts.add(prefix, 1, now);
        }
    }

    /// Ends the connection at a place.
    fn make_room(&mut self, key: u32) {
        self.places.leave(key);
        if let Some(out) = self.guests.get(key as usize) {
            out.cancel();
        }
    }
}

/// One connection's place at a door; dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    keeper: Arc<Doorkeeper>,
    key: u32,
    peer: SocketAddr,
    lane: u8,
    introduction: Introduction,
    /// Of the client's TLS, once its hello is there.
    pub(super) fingerprint: Option<Ja4>,
    out: CancellationToken,
}

impl Doorkeeper {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let places = limits.connections_max;
        let state = State {
            places: Places::new(places, places / PLACES_A_RESERVE, SILENCE),
            meter: Meter::new(&rand::random(), COST_WINDOW, COST_HOMES),
            debts: Meter::new(&rand::random(), DEBT_WINDOW, 1),
            requests: Shares::new(limits.requests_max),
            guests: Slab::new(),
        };
        Arc::new(Self {
            start: Instant::now(),
            state: Mutex::new(state),
            changed: Notify::new(),
            handshakes: Turns::new(HANDSHAKES, places.saturating_mul(2)),
            counts: limits.counts.clone(),
        })
    }

    /// A place for a connection, if there is one or somebody makes room; otherwise how things stand.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr, limits: &Limits) -> Result<Place, Room> {
        let introduction = limits.proxies.introduction(peer.ip());
        let prefix = Prefix::of(peer.ip());
        let now = self.start.elapsed();
        let mut state = self.lock();
        let weight = Meter::weight(state.debts.cost(prefix, now));
        let room = match introduction {
            Introduction::None => state.places.room(prefix, weight, now),
            Introduction::Header | Introduction::Requests => state.places.room_for_any(),
        };
        match room {
            Room::Free => {}
            Room::Instead(other) => {
                // That somebody made room for a stranger says nothing of them, if they had just come.
                if introduction == Introduction::None || state.places.is_silent(other, now) {
                    state.had_to_go(other, now);
                }
                state.make_room(other);
                count(&self.counts.evicted);
            }
            Room::Soon | Room::Refused | Room::Full => return Err(room),
        }
        let out = CancellationToken::new();
        let key = state.guests.insert(out.clone()) as u32;
        state.places.enter(key, prefix, weight, now);
        self.tell(&state);
        let lane = if introduction == Introduction::None {
            Meter::lane(state.meter.add(prefix, 1, now))
        } else {
            // A proxy is not weighed: who is behind it is, once that is known.
            state.places.work(key);
            0
        };
        drop(state);
        count(&self.counts.accepted);
        Ok(Place { keeper: self.clone(), key, peer, lane, introduction, fingerprint: None, out })
    }

    /// Waits until there may be room again.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells how many rest.
    fn tell(&self, state: &State) {
        self.counts.resting.store(state.places.resting() as u64, Ordering::Relaxed);
    }
}

impl Place {
    /// Where the connection comes from, as far as that is known.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The fingerprint of the client's TLS; `None` without TLS, and where a proxy speaks it in the client's place.
    pub(super) fn fingerprint(&self) -> Option<Ja4> {
        self.fingerprint.filter(|_| self.introduction != Introduction::Requests)
    }

    /// How it says who is behind it.
    pub(super) fn introduction(&self) -> Introduction {
        self.introduction
    }

    /// From now on the connection is asked for something, and keeps its place.
    pub fn work(&self) {
        let mut state = self.keeper.lock();
        state.places.work(self.key);
        self.keeper.tell(&state);
    }

    /// From now on nothing is asked for, or it has come a step further without asking: it may have to make room.
    pub fn rest(&self) {
        if self.introduction != Introduction::None {
            // Whose connection a proxy keeps in store nobody can say.
            return;
        }
        let mut state = self.keeper.lock();
        state.places.rest(self.key, self.keeper.start.elapsed());
        self.keeper.tell(&state);
        drop(state);
        self.keeper.changed.notify_one();
    }

    /// The connection is closed because it does not keep time, or says what cannot be understood.
    pub(super) fn had_to_go(&self) {
        if self.introduction == Introduction::None {
            self.keeper.lock().had_to_go(self.key, self.keeper.start.elapsed());
        }
    }

    /// What ends the connection when it has to make room.
    pub(super) fn out(&self) -> CancellationToken {
        self.out.clone()
    }

    /// Waits for the turn to calculate a handshake. `None` if too many wait.
    pub(super) async fn handshake(&self) -> Option<Turn> {
        let turn = self.keeper.handshakes.turn(self.lane).await;
        if turn.is_none() {
            count(&self.keeper.counts.handshakes);
        }
        turn
    }

    /// A share of the requests in progress for somebody from there, if there is one, and if not most connections that
    /// have some are of that site already.
    pub(super) fn share(&self, peer: SocketAddr) -> Option<Share> {
        let prefix = Prefix::of(peer.ip());
        let mut state = self.keeper.lock();
        // A proxy's connections are many people's.
        let may_work = self.introduction != Introduction::None || state.places.may_work(self.key);
        let has_share = may_work && state.requests.take(prefix);
        drop(state);
        if !has_share {
            count(&self.keeper.counts.requests);
            return None;
        }
        Some(Share { keeper: self.keeper.clone(), prefix })
    }

    /// Reads who is behind a proxy, if the connection says so at its begin. `None` if it does not, and should, or if there
    /// is no room for them.
    pub(super) async fn introduce(&mut self, stream: &mut TcpStream) -> Option<()> {
        if self.introduction != Introduction::Header {
            return Some(());
        }
        let Some(introduced) = read_header(stream).await else {
            count(&self.keeper.counts.introductions);
            return None;
        };
        if let Introduced::Client(client) = introduced {
            let prefix = Prefix::of(client.ip());
            let now = self.keeper.start.elapsed();
            let mut state = self.keeper.lock();
            let weight = Meter::weight(state.debts.cost(prefix, now));
            state.places.leave(self.key);
            match state.places.room(prefix, weight, now) {
                Room::Free => {}
                Room::Instead(other) => {
                    state.had_to_go(other, now);
                    state.make_room(other);
                    count(&self.keeper.counts.evicted);
                }
                Room::Soon | Room::Refused | Room::Full => {
                    count(&self.keeper.counts.refused);
                    return None;
                }
            }
            state.places.enter(self.key, prefix, weight, now);
            self.lane = Meter::lane(state.meter.add(prefix, 1, now));
            self.introduction = Introduction::None;
            self.peer = client;
            drop(state);
            self.keeper.changed.notify_one();
        }
        Some(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.keeper.lock();
        state.places.leave(self.key);
        self.keeper.tell(&state);
        state.guests.try_remove(self.key as usize);
        drop(state);
        self.keeper.changed.notify_one();
    }
}

/// A share of the requests in progress at a door; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Share {
    keeper: Arc<Doorkeeper>,
    prefix: Prefix,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.keeper.lock().requests.give_back(self.prefix);
    }
}

/// Reads a header of the PROXY protocol, and nothing behind it.
async fn read_header(stream: &mut TcpStream) -> Option<Introduced> {
    let mut bytes = Vec::new();
    loop {
        match proxy::header(&bytes) {
            Ok(HeaderProgress::Whole { introduced, .. }) => return Some(introduced),
            Ok(HeaderProgress::Needs(length)) => {
                let there = bytes.len();
                bytes.resize(length, 0);
                // What is no header is refused as soon as that is clear, not once as much has come.
                let count = stream.read(&mut bytes[there..]).await.ok().filter(|count| *count > 0)?;
                bytes.truncate(there + count);
            }
            Err(error) => {
                tracing::debug!(%error, "a proxy");
                return None;
            }
        }
    }
}
