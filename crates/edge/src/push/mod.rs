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

mod arrive;
mod conn;
mod crowd;
mod door;
mod hall;
mod head;
mod measure;
mod survey;
mod window;

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use admission::doorstep::Lanes;
use admission::ticket::TicketId;
use axum::response::Response;
use backend::http::proxy::Proxies;
use backend::problem::Problem;
use backend::tls::Tls;
use fanout::{Cursor, Start};
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

use arrive::{Newcomer, Sites};
use conn::{Awaited, Conn, Incoming, Listener, Named, Progress, Shaken, State, Tally};
use crowd::Crowd;
use door::{Admitted, Asking, Verdict};
use hall::Hall;
use head::Received;
use measure::Stretches;
pub(crate) use measure::{Counts, Histogram, Told};
use survey::Surveyor;
pub(crate) use survey::{Survey, Surveyed};

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
/// Connections accepted between two that are served: whose turn it is can only be told of those who are here.
const ACCEPTS: u32 = 2;
/// Longest sleep while somebody waits in front of the door.
const HELD_SLEEP: Duration = Duration::from_millis(20);
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
    /// Where connections come from, and what is known of that.
    sites: Sites,
    /// The proxies of the door, if it has any.
    proxies: Proxies,
    /// Connections that have something to do, beside listening, those of cheap sites first.
    callers: Lanes<u32>,
    /// Somebody who was accepted and for whom there is no room yet.
    held: Option<Newcomer>,
    /// Whether there is no room for anybody as things stand.
    blocked: bool,
    /// The time since the start, as of the last look at the clock.
    clock: Duration,
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
    stretches: Stretches,
    surveyor: Surveyor,
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
        let config = &parts.shared.config;
        let proxies = Proxies::new(&config.proxies, config.proxy_protocol);
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
            proxies,
            sites: Sites::new(parts.connections_max),
            callers: Lanes::default(),
            held: None,
            blocked: false,
            clock: Duration::ZERO,
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            turns: 0,
            waiting: Vec::new(),
            knocking: true,
            pause: None,
            start: Instant::now(),
            date: HeaderValue::from_static(""),
            moving: None,
            farewell: None,
            stretches: Stretches::default(),
            surveyor: Surveyor::default(),
        })
    }

    /// Serves until the doors close and everybody is gone.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let asleep = Instant::now();
            let due = self.next_work(asleep);
            let sleep = due.saturating_duration_since(asleep);
            if let Err(error) = self.poll.poll(&mut events, Some(sleep))
                && error.kind() != io::ErrorKind::Interrupted
            {
                // Nothing an open epoll can say; without it there is no door, and the supervisor makes a new one.
                tracing::error!(%error, "the push door cannot wait for events");
                return;
            }
            let now = Instant::now();
            self.stretches.add(due, now);
            events.iter().for_each(|event| self.sort(event));
            if self.turn(now) {
                return;
            }
        }
    }

    /// Until when there is nothing to do unless something happens; in the past if something should have been done.
    fn next_work(&mut self, now: Instant) -> Instant {
        if self.farewell.is_some() {
            return now + Duration::from_millis(1);
        }
        let is_busy = !self.callers.is_empty()
            || !self.crowd.ready.is_empty()
            || self.moving.is_some()
            || self.surveyor.is_busy();
        let is_busy = is_busy || (self.knocking && !self.blocked && self.may_accept(now));
        let longest = if self.held.is_some() { HELD_SLEEP } else { SLEEP };
        let latest = if is_busy { now } else { now + longest };
        let dues = self.halls.iter_mut().filter_map(|(_, hall)| hall.rota.next_due());
        dues.map(|due| self.start + due).fold(latest, Instant::min)
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
            self.callers.push(conn.lane, key);
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
        self.clock = now - self.start;
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
            let measures = self.shared.in_force().measures;
            for (_, hall) in &mut self.halls {
                if hall.look(measures, now - self.start) {
                    self.moving = Some(0);
                }
            }
            self.wake_waiting();
            self.close_excess();
        }
        let served = self.serve_listeners(now);
        self.move_listeners();
        self.survey();
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
        let resting = self.sites.places.resting() as u64;
        self.shared.counters.resting.store(resting, Ordering::Relaxed);
        self.stretches.tell(&self.shared.counters.stretch);
        if self.crowd.second.is_multiple_of(survey::EVERY_S) {
            self.surveyor.begin();
        }
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
        let (mut unanswered, mut late) = (Vec::new(), Vec::new());
        for (key, conn) in &self.crowd.conns {
            let (limit, counter) = match &conn.state {
                State::Listening(_) if conn.is_blocked() => (stuck_s, Some(&counters.stuck)),
                State::Introducing(_) | State::Shaking(_) | State::Reading(_) => {
                    (CALL_S, Some(&counters.heads_late))
                }
                State::Waiting { for_what: Awaited::Disk, .. } | State::Leaving => (CALL_S, None),
                State::Parting => (PARTING_S, None),
                State::Listening(_) | State::Waiting { .. } => continue,
            };
            if whole_seconds(conn, second) < limit {
                continue;
            }
            match &conn.state {
                State::Waiting { head, .. } => unanswered.push((key as u32, head.method.clone())),
                State::Shaking(_) => {
                    count(&self.shared.counters.handshakes_late);
                    late.push(key as u32);
                }
                _ => late.push(key as u32),
            }
            counter.into_iter().for_each(count);
        }
        for key in late {
            self.close_silent(key);
        }
        for (key, method) in unanswered {
            self.answer(key, door::busy(), &method);
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

    /// Moves some of those who are to have another rendition or tier, if anybody is.
    fn move_listeners(&mut self) {
        let Some(from) = self.moving else { return };
        let to = (from + MOVES).min(self.crowd.conns.capacity());
        for key in from..to {
            let Some(Conn { state: State::Listening(listener), .. }) = self.crowd.conns.get_mut(key) else {
                continue;
            };
            let hall = &mut self.halls[usize::from(listener.hall)];
            let cursor = &mut listener.cursor;
            let (old, old_tier) = (cursor.rendition(), cursor.tier());
            let (new, new_tier) = hall.terms(listener.asked);
            let is_other = old != new && cursor.switch(new).is_ok();
            if !is_other && old_tier == new_tier {
                continue;
            }
            let mut displaced = None;
            if old_tier != new_tier {
                let slot = listener.slot;
                displaced = hall.rota.remove(slot).map(|moved| (moved, slot));
                listener.slot = hall.rota.add(new_tier, key as u32);
                cursor.set_cadence(listener.slot.cadence());
            }
            hall.live.listeners.remove(old, cursor.container(), old_tier);
            hall.live.listeners.add(cursor.rendition(), cursor.container(), new_tier);
            self.crowd.tally.moved += 1;
            if let Some((moved, slot)) = displaced
                && let Some(Conn { state: State::Listening(listener), .. }) =
                    self.crowd.conns.get_mut(moved as usize)
            {
                listener.slot = slot;
            }
        }
        self.moving = (to < self.crowd.conns.capacity()).then_some(to);
    }

    /// Looks at some of all connections, if it is time.
    fn survey(&mut self) {
        if self.surveyor.is_busy() {
            let held_max = 2 * self.shared.config.send_buffer as u64;
            let Crowd { conns, second, .. } = &mut self.crowd;
            let halls = &self.halls;
            let mark = |hall: u16, container, [was, is]: [_; 2]| {
                halls[usize::from(hall)].live.listeners.deafen(container, was, is);
            };
            self.surveyor.go_on(conns, *second, held_max, &self.shared.survey, mark);
        }
    }

    // ---- those who call --------------------------------------------------------------------------------------------

    /// Accepts, reads and answers, those of cheap sites first.
    fn serve_callers(&mut self, mut now: Instant) {
        let end = now + CALLERS_TURN;
        let mut work: u32 = 0;
        self.blocked = false;
        loop {
            let mut accepted = 0;
            while accepted < ACCEPTS
                && (self.knocking || self.held.is_some())
                && !self.blocked
                && self.may_accept(now)
                && self.accept(now)
            {
                accepted += 1;
            }
            work += accepted;
            if let Some(key) = self.callers.pop() {
                if let Some(conn) = self.crowd.conns.get_mut(key as usize) {
                    conn.queued = false;
                }
                work += 1 + self.serve_caller(key);
            } else if accepted == 0 {
                return;
            }
            if work >= LOOK_EVERY {
                work = 0;
                now = Instant::now();
                self.clock = now - self.start;
                if now >= end {
                    return;
                }
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
            State::Introducing(_) => match conn.introduce(room) {
                Named::Waits => {}
                Named::As(introduced) => return self.begin(key, introduced),
                Named::Failed => {
                    count(&self.shared.counters.introductions_refused);
                    self.crowd.gone.push(key);
                }
            },
            State::Shaking(_) => {
                match conn.shake(room, *second) {
                    Shaken::Waits => {}
                    Shaken::Established { resumed } => {
                        let counters = &self.shared.counters;
                        count(if resumed { &counters.handshakes_resumed } else { &counters.handshakes_full });
                        if !conn.is_anonymous {
                            self.sites.places.rest(key, self.clock);
                        }
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
                    match self.identify(key, &head) {
                        Ok(true) => self.decide(key, head, None),
                        Ok(false) => {
                            let why = "most connections of this door are of the same network";
                            self.answer(
                                key,
                                head::problem(Problem::unavailable(why, answer::retry_after())),
                                &head.method,
                            );
                        }
                        Err(error) => {
                            count(&self.shared.counters.introductions_refused);
                            self.answer(key, head::problem(error.into()), &head.method);
                        }
                    }
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
        self.sites.places.work(key);
        let patient = self.crowd.second - conn.since <= PATIENCE_S;
        let asking = Asking { patient, is_new: since.is_none(), has_share: self.sites.places.may_work(key) };
        match door::decide(&self.shared, &head, asking) {
            Verdict::Listen(admitted) => self.admit(key, *admitted),
            Verdict::Answer(mut response) => {
                answer::shared_headers(&mut response);
                self.answer(key, response, &head.method);
            }
            Verdict::Head { mut response, chunked } => {
                answer::shared_headers(&mut response);
                let bytes = head::endless(response, &self.date, chunked);
                self.sites.places.rest(key, self.clock);
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
        self.shared.counters.tell(&self.shared.counters.push_answers, &response);
        self.tell_of_https(&mut response);
        let bytes = head::whole(response, &self.date, method == Method::HEAD);
        self.sites.places.rest(key, self.clock);
        self.crowd.answer(key, &bytes);
    }

    fn tell_of_https(&self, response: &mut Response) {
        if let Some(hsts) = &self.hsts {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    /// Gives somebody a place among those who listen, and the first burst.
    fn admit(&mut self, key: u32, admitted: Admitted) {
        let Admitted { live, asked, ticket, container, start, title, chunked, response } = admitted;
        let now = self.start.elapsed();
        let found =
            self.halls.iter().find(|(_, hall)| Arc::ptr_eq(&hall.live, &live)).map(|(index, _)| index);
        let index = found.unwrap_or_else(|| {
            let measures = self.shared.in_force().measures;
            self.halls.insert(Hall::new(Arc::clone(&live), measures, now))
        });
        let hall = &mut self.halls[index];
        // Who came while nothing was short is nobody new when it is.
        let asked = hall::Asked { newcomer: asked.newcomer && hall.is_hard_on_newcomers(), ..asked };
        let (rendition, tier) = hall.terms(asked);
        let slot = hall.rota.add(tier, key);
        let window = live.window();
        let cursor = Cursor::open(&window, asked.rendition, container, slot.cadence(), start);
        let (Ok(mut cursor), Ok(place)) = (cursor, u16::try_from(index)) else {
            // The start was checked a moment ago, and windows are fewer: cannot be, and costs one caller if it is.
            drop(window);
            self.free(slot, index);
            self.crowd.gone.push(key);
            return;
        };
        // A container that cannot carry it keeps what was asked for.
        let _ = cursor.switch(rendition);
        live.listeners.add(cursor.rendition(), container, tier);
        count(&self.shared.counters.joins);
        count(&self.shared.counters.listeners);
        if let Some(ticket) = ticket {
            self.shared.sessions.join(ticket);
            if start == Start::Live {
                count(&self.shared.counters.tickets_used);
            }
        }
        let metadata = title.map(|title| (Interleaver::new(METAINT), TitleBlock::new(&title)));
        let conn = &mut self.crowd.conns[key as usize];
        conn.since = self.crowd.second;
        conn.state = State::Listening(Listener::new(cursor, slot, place, asked, ticket, chunked, metadata));
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
        listeners.deafen(cursor.container(), listener.taken.deaf(), None);
        self.shared.counters.listeners.fetch_sub(1, Ordering::Relaxed);
        listener.ticket.into_iter().for_each(|ticket| self.shared.sessions.leave(ticket));
        self.surveyor.leave(&listener.taken);
        if !listener.is_complete {
            count(&self.shared.counters.left);
        }
        self.free(listener.slot, hall);
    }

    /// Closes some of those who listen on tickets that carry fewer: who takes nothing first, then who came last.
    fn close_excess(&mut self) {
        let over: HashMap<TicketId, u32> = self.shared.sessions.take_over().into_iter().collect();
        if over.is_empty() {
            return;
        }
        let mut sharing: HashMap<TicketId, Vec<(bool, u32, u32)>> = HashMap::new();
        for (key, conn) in &self.crowd.conns {
            if let State::Listening(Listener { ticket: Some(ticket), .. }) = &conn.state
                && over.contains_key(ticket)
            {
                let session = (conn.is_blocked(), conn.generation, key as u32);
                sharing.entry(*ticket).or_default().push(session);
            }
        }
        for (ticket, mut sessions) in sharing {
            sessions.sort_unstable();
            for (_, _, key) in sessions.into_iter().rev().take(over[&ticket] as usize) {
                count(&self.shared.counters.sessions_closed);
                self.crowd.dismiss(key);
            }
        }
    }

    /// Closes what is of no use any more.
    fn clear_away(&mut self) {
        while let Some(key) = self.crowd.ended.pop() {
            self.leave_hall(key);
            if let Some(conn) = self.crowd.conns.get_mut(key as usize) {
                conn.part(&mut self.crowd.room, self.crowd.second);
            }
            self.sites.places.rest(key, self.clock);
            // The peer may have closed its end already, and will not say so again.
            self.queue(key);
        }
        while let Some(key) = self.crowd.gone.pop() {
            self.leave_hall(key);
            self.sites.places.leave(key);
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
            self.held = None;
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
            (&counters.skipped_behind, skips.behind.into()),
            (&counters.skipped_missing, skips.missing.into()),
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
