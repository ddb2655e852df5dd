//! The push door: one thread, one loop, thousands of endless answers.
//!
//! ```text
//!            ┌───────────────── turn: two milliseconds at most ─────────────────┐
//!  parts ──► │ halls: whose turn is it? ──► visit ──► one write a listener      │
//!  bell  ──► │ callers: accept, read, decide ──► answer, or a place in a hall   │ ──► sleep until the next
//!            │ once a second: who is stuck, late with a head, gone              │     slot or event
//!            └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Those who listen come first: newcomers have what is left of a turn, and a minimum of it. A listener is a cursor into a
//! window that all share; nothing is allocated, locked, formatted or logged for a part of a listener. What has to wait
//! for somebody else (a disk, a window that is being filled) waits beside the loop.

mod conn;
mod crowd;
mod door;
mod hall;
mod head;
mod measure;

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::response::Response;
use backend::tls::{self, Tls};
use fanout::Cursor;
use formats::mp3::icy::{Interleaver, METAINT, TitleBlock};
use http::{HeaderValue, Method, header, request};
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};
use rand::seq::SliceRandom as _;
use slab::Slab;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::answer;
use crate::bell::{Bell, Caller};
use crate::shared::{Shared, count};

use conn::{Awaited, Conn, Incoming, Listener, Progress, Shaken, State, Tally};
use crowd::Crowd;
use door::{Admitted, Verdict};
use hall::Hall;
use head::Received;
pub(crate) use measure::{Counts, Histogram};

/// Longest time that goes to those who listen in one turn of the loop, while there are others.
const LISTENERS_TURN: Duration = Duration::from_micros(1_000);
/// Longest time that goes to newcomers in one turn.
const CALLERS_TURN: Duration = Duration::from_micros(700);
/// Work between two looks at the clock.
const LOOK_EVERY: u32 = 8;
/// Longest sleep: the loop shows that it lives.
const SLEEP: Duration = Duration::from_millis(250);
/// Time a head has to come in, and an answer to go out, seconds.
const CALL_S: u32 = 10;
/// Time a request may wait for a window that is being filled, seconds.
const PATIENCE_S: u32 = 3;
/// Time after which who has not asked yet makes room for others, if there is no other, seconds.
const SILENT_S: u32 = 1;
/// Questions to the disk at once.
const QUESTIONS_MAX: usize = 64;
/// Time the peer has to close its end after ours is, seconds.
const PARTING_S: u32 = 2;
/// Pause after the system has refused a connection for want of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Listeners moved to another rendition in one turn.
const MOVES: usize = 2_000;
/// Events taken from the system at once.
const EVENTS: usize = 1_024;

const DOOR: Token = Token(usize::MAX);
const BELL: Token = Token(usize::MAX - 1);

/// What the loop is made of.
pub(crate) struct Parts {
    pub(crate) poll: Poll,
    pub(crate) bell: Arc<Bell>,
    pub(crate) door: TcpListener,
    /// Connections at once, listeners and others.
    pub(crate) connections_max: usize,
    pub(crate) shared: Arc<Shared>,
    /// Where questions to the disk are asked.
    pub(crate) runtime: Handle,
    /// Without it the door speaks plain HTTP.
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Makes the poll and the bell that wakes it.
///
/// # Errors
/// Whatever the system says.
pub(crate) fn poll() -> io::Result<(Poll, Arc<Bell>)> {
    let poll = Poll::new()?;
    let bell = Bell::new(mio::Waker::new(poll.registry(), BELL)?);
    Ok((poll, Arc::new(bell)))
}

/// The push door.
pub(crate) struct Push {
    poll: Poll,
    bell: Arc<Bell>,
    /// `None` once nobody is let in any more.
    door: Option<mio::net::TcpListener>,
    connections_max: usize,
    shared: Arc<Shared>,
    runtime: Handle,
    tls: Option<Arc<Tls>>,
    /// What browsers are told of HTTPS, if they are to be told.
    hsts: Option<HeaderValue>,
    crowd: Crowd,
    halls: Slab<Hall>,
    generation: u32,
    /// Connections that have something to do, beside listening.
    callers: VecDeque<u32>,
    /// Those who were accepted of late, in this order.
    arrivals: VecDeque<Arrival>,
    /// Places for questions to the disk.
    questions: Arc<Semaphore>,
    /// Turns so far, round and round.
    turns: usize,
    /// Those whose request waits for what is not known yet.
    waiting: Vec<u32>,
    /// Whether there may be somebody at the door.
    knocking: bool,
    /// Nobody is accepted before this.
    pause: Option<Instant>,
    start: Instant,
    date: HeaderValue,
    /// The next of all connections to be looked at for a move to another rendition.
    moving: Option<usize>,
    farewell: Option<Farewell>,
}

/// Somebody who was accepted.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    key: u32,
    generation: u32,
    second: u32,
}

/// Whole seconds since a connection's state began, or it took something. The first second has begun before.
fn whole_seconds(conn: &Conn, second: u32) -> u32 {
    (second - conn.since).saturating_sub(1)
}

/// Letting everybody go.
struct Farewell {
    start: Instant,
    /// Over this long.
    length: Duration,
    /// Who is still here; the last goes first.
    order: Vec<u32>,
    total: usize,
}

impl Push {
    /// Takes the door.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub(crate) fn new(parts: Parts) -> io::Result<Self> {
        let socket = socket2::SockRef::from(&parts.door);
        // Who is accepted inherits both. Without a bound of ours the kernel would keep minutes of audio for who takes
        // none of it.
        socket.set_send_buffer_size(parts.shared.config.send_buffer)?;
        socket.set_tcp_nodelay(true)?;
        let mut door = mio::net::TcpListener::from_std(parts.door);
        parts.poll.registry().register(&mut door, DOOR, Interest::READABLE)?;
        Ok(Self {
            poll: parts.poll,
            bell: parts.bell,
            door: Some(door),
            connections_max: parts.connections_max,
            shared: parts.shared,
            runtime: parts.runtime,
            hsts: parts.tls.as_ref().and_then(|tls| tls.hsts().cloned()),
            tls: parts.tls,
            crowd: Crowd::new(),
            halls: Slab::new(),
            generation: 0,
            callers: VecDeque::new(),
            arrivals: VecDeque::new(),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            turns: 0,
            waiting: Vec::new(),
            knocking: true,
            pause: None,
            start: Instant::now(),
            date: HeaderValue::from_static(""),
            moving: None,
            farewell: None,
        })
    }

    /// Serves until the doors close and everybody is gone.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let sleep = self.sleep(Instant::now());
            if let Err(error) = self.poll.poll(&mut events, Some(sleep))
                && error.kind() != io::ErrorKind::Interrupted
            {
                // Nothing an open epoll can say; without it there is no door, and the supervisor makes a new one.
                tracing::error!(%error, "the push door cannot wait for events");
                return;
            }
            let now = Instant::now();
            events.iter().for_each(|event| self.sort(event));
            if self.turn(now) {
                return;
            }
        }
    }

    /// How long there is nothing to do unless something happens.
    fn sleep(&mut self, now: Instant) -> Duration {
        if self.farewell.is_some() {
            return Duration::from_millis(1);
        }
        let is_busy = !self.callers.is_empty() || !self.crowd.ready.is_empty() || self.moving.is_some();
        if is_busy || (self.knocking && self.may_accept(now)) {
            return Duration::ZERO;
        }
        let elapsed = now - self.start;
        let dues = self.halls.iter_mut().filter_map(|(_, hall)| hall.rota.next_due());
        dues.map(|due| due.saturating_sub(elapsed)).fold(SLEEP, Duration::min)
    }

    /// Puts an event where its work waits. Nothing is read here: what comes in has no turn of its own.
    fn sort(&mut self, event: &Event) {
        let key = match event.token() {
            BELL => return,
            DOOR => {
                self.knocking = true;
                return;
            }
            Token(key) => key,
        };
        let Some(conn) = self.crowd.conns.get(key) else { return };
        let is_listener = matches!(conn.state, State::Listening(_));
        if is_listener && event.is_writable() && conn.is_blocked() {
            self.crowd.ready.push_back(key as u32);
        }
        if event.is_readable() || (!is_listener && conn.is_blocked()) {
            self.queue(key as u32);
        }
    }

    /// Gives a connection a place among those who are to be served next, if it has none.
    fn queue(&mut self, key: u32) {
        if let Some(conn) = self.crowd.conns.get_mut(key as usize)
            && !std::mem::replace(&mut conn.queued, true)
        {
            self.callers.push_back(key);
        }
    }

    /// Something has changed, or time has passed: those who wait are decided again.
    fn wake_waiting(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            if let Some(Conn { state: State::Waiting { for_what, .. }, .. }) =
                self.crowd.conns.get_mut(key as usize)
                && *for_what == Awaited::News
            {
                *for_what = Awaited::Decision;
                self.queue(key);
            }
        }
    }

    /// Does what is due. Returns whether everything is over.
    fn turn(&mut self, now: Instant) -> bool {
        self.bell.turned(now);
        let second = u32::try_from((now - self.start).as_secs()).unwrap_or(u32::MAX - 1) + 1;
        let is_new_second = second != self.crowd.second;
        self.crowd.second = second;
        if is_new_second {
            self.every_second();
        }
        if let Some(answers) = self.bell.take() {
            for (caller, response) in answers {
                self.take_answer(caller, response);
            }
            for (_, hall) in &mut self.halls {
                if hall.look(now - self.start) {
                    self.moving = Some(0);
                }
            }
            self.wake_waiting();
        }
        let served = self.serve_listeners(now);
        self.move_listeners();
        self.serve_callers(served);
        self.clear_away();
        self.let_go(now);
        self.clear_away();
        self.report(now);
        self.farewell.as_ref().is_some_and(|farewell| farewell.order.is_empty())
    }

    fn every_second(&mut self) {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let cpu_us = cpu.tv_sec.unsigned_abs() * 1_000_000 + cpu.tv_nsec.unsigned_abs() / 1_000;
        self.shared.counters.push_cpu_us.store(cpu_us, Ordering::Relaxed);
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        self.date = HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static(""));
        for (_, hall) in &mut self.halls {
            let cut = hall.rota.cut();
            let new = cut - std::mem::replace(&mut hall.cut_told, cut);
            self.shared.counters.rounds_cut.fetch_add(new, Ordering::Relaxed);
        }
        // Patience ends by the clock.
        self.wake_waiting();
        let stuck_s = u32::try_from(self.shared.config.stuck_s).unwrap_or(u32::MAX);
        let second = self.crowd.second;
        let counters = &self.shared.counters;
        let mut unanswered = Vec::new();
        for (key, conn) in &self.crowd.conns {
            let (limit, counter) = match &conn.state {
                State::Listening(_) if conn.is_blocked() => (stuck_s, Some(&counters.stuck)),
                State::Shaking(_) | State::Reading(_) => (CALL_S, Some(&counters.heads_late)),
                State::Waiting { for_what: Awaited::Disk, .. } | State::Leaving => (CALL_S, None),
                State::Parting => (PARTING_S, None),
                State::Listening(_) | State::Waiting { .. } => continue,
            };
            if whole_seconds(conn, second) < limit {
                continue;
            }
            match &conn.state {
                State::Waiting { head, .. } => unanswered.push((key as u32, head.method.clone())),
                _ => self.crowd.gone.push(key as u32),
            }
            counter.into_iter().for_each(count);
        }
        for (key, method) in unanswered {
            self.answer(key, door::busy(), &method);
        }
        // Whoever came earlier than this has been dealt with.
        while self.arrivals.front().is_some_and(|arrival| arrival.second + CALL_S + 1 < second) {
            self.arrivals.pop_front();
        }
    }

    // ---- those who listen ------------------------------------------------------------------------------------------

    /// Visits those whose turn it is. Returns when that was done.
    fn serve_listeners(&mut self, now: Instant) -> Instant {
        let end = now + LISTENERS_TURN;
        let (mut at, mut visits) = (Instant::now(), 0);
        for _ in 0..self.crowd.ready.len() {
            if visits % LOOK_EVERY == 0 {
                at = Instant::now();
                if at >= end {
                    break;
                }
            }
            let Some(key) = self.crowd.ready.pop_front() else { break };
            let is_room = self.crowd.resume(key);
            if is_room && let Some(hall) = self.hall_of(key) {
                let live = Arc::clone(&self.halls[hall].live);
                self.crowd.visit(key, &live.window(), &[]);
            }
            visits += 1;
        }
        // Those whose socket was full are no reason to keep the others waiting for a whole turn.
        let end = end.max(at + LISTENERS_TURN / 2);
        // Another hall is the first each time, so that none is always the last.
        self.turns = self.turns.wrapping_add(1);
        let first = self.turns % self.halls.len().max(1);
        for (_, hall) in self.halls.iter_mut().skip(first) {
            visits += Self::serve_hall(&mut self.crowd, hall, self.start, end);
        }
        for (_, hall) in self.halls.iter_mut().take(first) {
            visits += Self::serve_hall(&mut self.crowd, hall, self.start, end);
        }
        if visits == 0 { at } else { Instant::now() }
    }

    /// Visits those of one hall whose turn it is, until `end`. Returns how many.
    fn serve_hall(crowd: &mut Crowd, hall: &mut Hall, start: Instant, end: Instant) -> u32 {
        let window = hall.live.window();
        let (mut at, mut visits) = (Instant::now(), 0);
        while at < end
            && let Some(turn) = hall.rota.next(at - start)
        {
            crowd.visit(turn.listener, &window, &[]);
            visits += 1;
            if visits % LOOK_EVERY == 0 {
                at = Instant::now();
            }
            crowd.tally.lateness.add((at - start).saturating_sub(turn.due));
        }
        visits
    }

    fn hall_of(&self, key: u32) -> Option<usize> {
        match &self.crowd.conns.get(key as usize)?.state {
            State::Listening(listener) => Some(usize::from(listener.hall)),
            _ => None,
        }
    }

    /// Moves some of those who are to have another rendition, if anybody is.
    fn move_listeners(&mut self) {
        let Some(from) = self.moving else { return };
        let to = (from + MOVES).min(self.crowd.conns.capacity());
        for key in from..to {
            let Some(Conn { state: State::Listening(listener), .. }) = self.crowd.conns.get_mut(key) else {
                continue;
            };
            let hall = &self.halls[usize::from(listener.hall)];
            let (old, new) = (listener.cursor.rendition(), hall.rendition_for(listener.wanted));
            if old != new && listener.cursor.switch(new).is_ok() {
                let (container, tier) = (listener.cursor.container(), listener.cursor.tier());
                hall.live.listeners.remove(old, container, tier);
                hall.live.listeners.add(new, container, tier);
                self.crowd.tally.moved += 1;
            }
        }
        self.moving = (to < self.crowd.conns.capacity()).then_some(to);
    }

    // ---- those who call --------------------------------------------------------------------------------------------

    fn may_accept(&self, now: Instant) -> bool {
        self.door.is_some() && !self.is_full() && self.pause.is_none_or(|until| until <= now)
    }

    /// Whether nobody more can be taken in, unless somebody leaves or has been silent for too long.
    fn is_full(&self) -> bool {
        let is_silent = |arrival: &Arrival| arrival.second + SILENT_S < self.crowd.second;
        self.crowd.conns.len() >= self.connections_max && !self.arrivals.front().is_some_and(is_silent)
    }

    /// Accepts, reads and answers, those who were here before first.
    fn serve_callers(&mut self, mut now: Instant) {
        let end = now + CALLERS_TURN;
        let mut work: u32 = 0;
        loop {
            if let Some(key) = self.callers.pop_front() {
                if let Some(conn) = self.crowd.conns.get_mut(key as usize) {
                    conn.queued = false;
                }
                work += self.serve_caller(key);
            } else if !(self.knocking && self.may_accept(now) && self.accept(now)) {
                return;
            }
            work += 1;
            if work >= LOOK_EVERY {
                work = 0;
                now = Instant::now();
                if now >= end {
                    return;
                }
            }
        }
    }

    /// Closes who came longest ago of those who have been silent for a while, so that others are not kept out by
    /// connections that ask for nothing. Returns whether there was one.
    fn evict(&mut self) -> bool {
        while let Some(arrival) = self.arrivals.front() {
            let Some(conn) = self.crowd.conns.get(arrival.key as usize) else {
                self.arrivals.pop_front();
                continue;
            };
            let is_caller = matches!(conn.state, State::Shaking(_) | State::Reading(_));
            if conn.generation != arrival.generation || !is_caller {
                self.arrivals.pop_front();
                continue;
            }
            if whole_seconds(conn, self.crowd.second) < SILENT_S {
                if conn.since == arrival.second {
                    return false;
                }
                // It has come further since: its time began anew.
                let later = Arrival { second: conn.since, ..*arrival };
                self.arrivals.pop_front();
                self.arrivals.push_back(later);
                continue;
            }
            self.crowd.gone.push(arrival.key);
            self.arrivals.pop_front();
            count(&self.shared.counters.evicted);
            self.clear_away();
            return true;
        }
        false
    }

    /// Accepts one connection. Returns whether there may be more.
    fn accept(&mut self, now: Instant) -> bool {
        if self.crowd.conns.len() >= self.connections_max && !self.evict() {
            return false;
        }
        let Some(door) = &self.door else { return false };
        match door.accept() {
            Ok((stream, _)) => {
                self.generation = self.generation.wrapping_add(1);
                let tls = self.tls.as_ref().map(|tls| tls.config(tls::Door::Push));
                let conn = match Conn::new(stream, self.generation, self.crowd.second, tls) {
                    Ok(conn) => conn,
                    Err(error) => {
                        tracing::warn!(%error, "a handshake cannot be begun");
                        count(&self.shared.counters.handshakes_failed);
                        return true;
                    }
                };
                let place = self.crowd.conns.vacant_entry();
                let token = Token(place.key());
                self.arrivals.push_back(Arrival {
                    key: token.0 as u32,
                    generation: self.generation,
                    second: self.crowd.second,
                });
                let conn = place.insert(conn);
                let interest = Interest::READABLE | Interest::WRITABLE;
                if let Err(error) = self.poll.registry().register(&mut conn.stream, token, interest) {
                    tracing::warn!(%error, "cannot watch a connection");
                    self.crowd.gone.push(token.0 as u32);
                }
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.knocking = false;
                false
            }
            Err(error) if backend::http::is_of_the_peer(&error) => true,
            Err(error) => {
                count(&self.shared.counters.accepts_failed);
                tracing::warn!(%error, "cannot accept a connection");
                self.pause = Some(now + ACCEPT_PAUSE);
                false
            }
        }
    }

    /// Goes on with one connection as far as it can. Returns how much more than a little that took.
    fn serve_caller(&mut self, key: u32) -> u32 {
        let Crowd { conns, room, second, .. } = &mut self.crowd;
        let Some(conn) = conns.get_mut(key as usize) else { return 0 };
        if matches!(conn.state, State::Shaking(_) | State::Reading(_) | State::Waiting { .. })
            && conn.resume(*second) == Progress::Gone
        {
            self.crowd.gone.push(key);
            return 0;
        }
        match &mut conn.state {
            State::Shaking(_) => {
                match conn.shake(room, *second) {
                    Shaken::Waits => {}
                    Shaken::Established { resumed } => {
                        let counters = &self.shared.counters;
                        count(if resumed { &counters.handshakes_resumed } else { &counters.handshakes_full });
                        self.read_head(key);
                    }
                    Shaken::Failed => {
                        count(&self.shared.counters.handshakes_failed);
                        self.crowd.gone.push(key);
                    }
                }
                return LOOK_EVERY;
            }
            State::Reading(_) => self.read_head(key),
            State::Waiting { for_what: Awaited::Decision, .. } => {
                if let State::Waiting { head, .. } = std::mem::replace(&mut conn.state, State::Leaving) {
                    let since = conn.since;
                    self.decide(key, head, Some(since));
                }
            }
            State::Listening(_) | State::Waiting { .. } => self.ignore(key),
            State::Leaving => _ = self.crowd.resume(key),
            State::Parting => {
                match conn.resume(*second) {
                    Progress::Gone => self.crowd.gone.push(key),
                    Progress::Done => conn.end_stream(),
                    _ => {}
                }
                self.ignore(key);
            }
        }
        0
    }

    /// Throws away some of what a peer says that nobody asked for; closes who is gone or says too much.
    fn ignore(&mut self, key: u32) {
        let Crowd { conns, room, second, .. } = &mut self.crowd;
        let Some(conn) = conns.get_mut(key as usize) else { return };
        match conn.receive(room, *second) {
            Incoming::Nothing => {}
            // The poll does not say again what it has said: the rest has another turn.
            Incoming::Some => self.queue(key),
            Incoming::End => self.crowd.gone.push(key),
        }
    }

    fn read_head(&mut self, key: u32) {
        loop {
            let Crowd { conns, room, second, .. } = &mut self.crowd;
            let conn = &mut conns[key as usize];
            let incoming = conn.receive(room, *second);
            let State::Reading(bytes) = &mut conn.state else { return };
            match incoming {
                Incoming::Nothing => return,
                Incoming::End => {
                    self.crowd.gone.push(key);
                    return;
                }
                Incoming::Some => bytes.extend_from_slice(&room.input),
            }
            match head::receive(bytes) {
                Received::Part => {}
                Received::Whole(head) => {
                    self.decide(key, head, None);
                    return;
                }
                Received::Refused(problem) => {
                    self.answer(key, head::problem(problem), &Method::GET);
                    return;
                }
            }
        }
    }

    /// Decides about a request that is whole, again if it has waited `since` a second.
    fn decide(&mut self, key: u32, head: Box<request::Parts>, since: Option<u32>) {
        let conn = &mut self.crowd.conns[key as usize];
        conn.since = since.unwrap_or(self.crowd.second);
        let patient = self.crowd.second - conn.since <= PATIENCE_S;
        match door::decide(&self.shared, &head, patient) {
            Verdict::Listen(admitted) => self.admit(key, *admitted),
            Verdict::Answer(mut response) => {
                answer::shared_headers(&mut response);
                self.answer(key, response, &head.method);
            }
            Verdict::Head { mut response, chunked } => {
                answer::shared_headers(&mut response);
                let bytes = head::endless(response, &self.date, chunked);
                self.crowd.answer(key, &bytes);
            }
            Verdict::Later => {
                conn.state = State::Waiting { head, for_what: Awaited::News };
                self.waiting.push(key);
            }
            Verdict::Disk => {
                let Ok(place) = Arc::clone(&self.questions).try_acquire_owned() else {
                    count(&self.shared.counters.questions_refused);
                    self.answer(key, door::busy(), &head.method);
                    return;
                };
                let caller = Caller { key, generation: conn.generation };
                let (shared, bell, question) =
                    (Arc::clone(&self.shared), Arc::clone(&self.bell), head.clone());
                conn.state = State::Waiting { head, for_what: Awaited::Disk };
                self.runtime.spawn(async move {
                    let mut response = door::ask_disk(&shared, &question).await;
                    answer::shared_headers(&mut response);
                    bell.answer(caller, response);
                    // It is a question until it is answered, whether or not who asked is still there.
                    drop(place);
                });
            }
        }
    }

    fn take_answer(&mut self, caller: Caller, response: Response) {
        let Some(conn) = self.crowd.conns.get_mut(caller.key as usize) else { return };
        if conn.generation == caller.generation
            && let State::Waiting { head, for_what: Awaited::Disk } = &conn.state
        {
            let method = head.method.clone();
            self.answer(caller.key, response, &method);
        }
    }

    fn answer(&mut self, key: u32, mut response: Response, method: &Method) {
        self.tell_of_https(&mut response);
        let bytes = head::whole(response, &self.date, method == Method::HEAD);
        self.crowd.answer(key, &bytes);
    }

    fn tell_of_https(&self, response: &mut Response) {
        if let Some(hsts) = &self.hsts {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    /// Gives somebody a place among those who listen, and the first burst.
    fn admit(&mut self, key: u32, admitted: Admitted) {
        let Admitted { channel, live, rendition, container, tier, start, title, chunked, response } =
            admitted;
        let now = self.start.elapsed();
        let found =
            self.halls.iter().find(|(_, hall)| Arc::ptr_eq(&hall.live, &live)).map(|(index, _)| index);
        let index = found.unwrap_or_else(|| self.halls.insert(Hall::new(channel, Arc::clone(&live), now)));
        let hall = &mut self.halls[index];
        let slot = hall.rota.add(tier, key);
        let window = live.window();
        let cursor = Cursor::open(&window, rendition, container, slot.cadence(), start);
        let (Ok(mut cursor), Ok(place)) = (cursor, u16::try_from(index)) else {
            // The start was checked a moment ago, and windows are fewer: cannot be, and costs one caller if it is.
            drop(window);
            self.free(slot, index);
            self.crowd.gone.push(key);
            return;
        };
        // A container that cannot carry it keeps what was asked for.
        let _ = cursor.switch(hall.rendition_for(rendition));
        live.listeners.add(cursor.rendition(), container, tier);
        count(&self.shared.counters.joins);
        count(&self.shared.counters.listeners);
        let metadata = title.map(|title| (Interleaver::new(METAINT), TitleBlock::new(&title)));
        let conn = &mut self.crowd.conns[key as usize];
        conn.since = self.crowd.second;
        conn.state = State::Listening(Listener::new(cursor, slot, place, rendition, chunked, metadata));
        let mut response = response;
        answer::shared_headers(&mut response);
        self.tell_of_https(&mut response);
        let prefix = head::endless(response, &self.date, chunked);
        self.crowd.visit(key, &window, &prefix);
    }

    // ---- those who leave -------------------------------------------------------------------------------------------

    /// Gives a place in a hall back.
    fn free(&mut self, slot: fanout::Slot, hall: usize) {
        let rota = &mut self.halls[hall].rota;
        if let Some(moved) = rota.remove(slot)
            && let Some(Conn { state: State::Listening(listener), .. }) =
                self.crowd.conns.get_mut(moved as usize)
        {
            listener.slot = slot;
        }
        if self.halls[hall].rota.is_empty() {
            self.halls.remove(hall);
        }
    }

    /// Takes a connection out of its hall, if it is in one.
    fn leave_hall(&mut self, key: u32) {
        let Some(conn) = self.crowd.conns.get_mut(key as usize) else { return };
        if !matches!(conn.state, State::Listening(_)) {
            return;
        }
        let State::Listening(listener) = std::mem::replace(&mut conn.state, State::Leaving) else { return };
        let (hall, cursor) = (usize::from(listener.hall), &listener.cursor);
        let listeners = &self.halls[hall].live.listeners;
        listeners.remove(cursor.rendition(), cursor.container(), cursor.tier());
        self.shared.counters.listeners.fetch_sub(1, Ordering::Relaxed);
        if !listener.is_complete {
            count(&self.shared.counters.left);
        }
        self.free(listener.slot, hall);
    }

    /// Closes what is of no use any more.
    fn clear_away(&mut self) {
        while let Some(key) = self.crowd.ended.pop() {
            self.leave_hall(key);
            if let Some(conn) = self.crowd.conns.get_mut(key as usize) {
                conn.part(&mut self.crowd.room, self.crowd.second);
            }
            // The peer may have closed its end already, and will not say so again.
            self.queue(key);
        }
        while let Some(key) = self.crowd.gone.pop() {
            self.leave_hall(key);
            // Dropping a connection closes it, and the poll forgets it.
            if let Some(conn) = self.crowd.conns.try_remove(key as usize)
                && conn.is_blocked()
            {
                conn.give_up();
            }
        }
    }

    /// Lets everybody go once the doors are closing, one after the other, so that they do not all come to another edge
    /// at once.
    fn let_go(&mut self, now: Instant) {
        if self.farewell.is_none() && self.shared.closing.is_cancelled() {
            self.door = None;
            let mut order: Vec<u32> = self.crowd.conns.iter().map(|(key, _)| key as u32).collect();
            order.shuffle(&mut rand::rng());
            let total = order.len();
            let length = Duration::from_millis(self.shared.config.leave_ms);
            self.farewell = Some(Farewell { start: now, length, order, total });
        }
        let Some(farewell) = &mut self.farewell else { return };
        let elapsed = now.saturating_duration_since(farewell.start);
        let left = 1.0 - elapsed.as_secs_f64() / farewell.length.as_secs_f64().max(f64::MIN_POSITIVE);
        let keep = (farewell.total as f64 * left.max(0.0)) as usize;
        while farewell.order.len() > keep
            && let Some(key) = farewell.order.pop()
        {
            self.crowd.dismiss(key);
        }
    }

    // ---- knowing itself --------------------------------------------------------------------------------------------

    /// Hands over what was counted.
    fn report(&mut self, began: Instant) {
        let Tally { bytes, writes, parts, skips, moved, lateness } = std::mem::take(&mut self.crowd.tally);
        let counters = &self.shared.counters;
        for (counter, count) in [
            (&counters.bytes, bytes),
            (&counters.writes, writes),
            (&counters.parts_sent, parts),
            (&counters.skipped_behind, skips.behind),
            (&counters.skipped_missing, skips.missing),
            (&counters.moved, moved),
        ] {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
        counters.lateness.take_in(&lateness);
        counters.turns.add(began.elapsed());
    }
}
