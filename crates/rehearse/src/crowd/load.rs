//! One share of the crowd: one thread, one epoll set, thousands of connections.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::Duration;

use mio::{Events, Poll, Token};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::clock::{RunClock, thread_cpu_us};
use super::comeback::{begins_anew, patience_us};
use super::config::{CrowdConfig, Kind, Target};
use super::hls::Library;
use super::link::{Dialer, LinkError, Progress};
use super::listener::{Firsts, Measure, Reader};
use super::plan::{Arrival, Plan, Role};
use super::seat::{Ears, Seat};
use super::tally::{ShareReport, Standing, Tally, count_failure};
use super::tls::Clients;
use super::{CrowdError, raise_file_limit};

/// Events taken at once.
const EVENTS: usize = 2_048;
/// Joins begun in one turn, so that those who listen are looked at in between.
const JOINS_A_TURN: usize = 64;
/// Timers served in one turn.
const TIMERS_A_TURN: usize = 512;
/// Longest sleep without anything to do, µs.
const IDLE_US: u64 = 50_000;
/// Time between two words about how it stands, µs.
const TELL_US: u64 = 250_000;
/// Time between two sips of a slow reader, and between two looks at one that never reads, µs.
const SIP_US: u64 = 1_000_000;

/// Time between two looks at who has gone silent, as the page looks, µs.
const SILENCE_EVERY_US: u64 = 250_000;

/// How long the connections are kept after the window, µs: long enough to look at them.
pub(crate) const LINGER_US: u64 = 500_000;

/// A share of a crowd.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Share {
    /// What the whole crowd does.
    pub config: CrowdConfig,
    /// Which share, counted from 0.
    pub index: usize,
    /// Of how many.
    pub of: usize,
    /// When the run begins on the machine's monotonic clock, ns.
    pub start_ns: u64,
}

/// Listens with one share of the crowd until the window is over. `tell` hears how it stands, a few times a second.
///
/// # Errors
/// [`CrowdError`] if it cannot begin. What happens to single connections is in the report.
pub fn carry(share: &Share, tell: &mut dyn FnMut(Standing)) -> Result<ShareReport, CrowdError> {
    raise_file_limit(share.config.seats().div_ceil(share.of.max(1)))?;
    let mut load = Load::new(share)?;
    load.run(share, tell)?;
    Ok(load.report)
}

struct Load<'s> {
    config: &'s CrowdConfig,
    plan: Plan,
    clock: RunClock,
    targets: Vec<Target>,
    poll: Poll,
    dialer: Dialer,
    seats: Vec<Seat>,
    /// When which seat's connection of which generation wants to be looked at.
    timers: BinaryHeap<Reverse<(u64, usize, u32)>>,
    firsts: Firsts,
    library: Library,
    chance: StdRng,
    window_us: Option<u64>,
    stall_us: u64,
    /// Reads everything that seat 0 hears on its first connection.
    reader: Option<Reader>,
    report: ShareReport,
    /// Of those who are only in the way: nobody asks how they fare.
    unasked: Tally,
    standing: Standing,
}

impl<'s> Load<'s> {
    fn new(share: &'s Share) -> Result<Self, CrowdError> {
        let config = &share.config;
        let plan = Plan::new(config);
        let targets = config.targets()?;
        let tls = match targets.iter().any(|target| target.tls) {
            true => Some(Clients::new(&config.trust, config.resume)?),
            false => None,
        };
        let mut report = ShareReport::default();
        for arrival in plan.arrivals(share.index, share.of) {
            match arrival.role {
                Role::Base => report.base.counts.asked += 1,
                Role::Storm => report.storm.counts.asked += 1,
                Role::Slow | Role::Never => report.stuck.asked += 1,
            }
        }
        Ok(Self {
            config,
            plan,
            clock: RunClock::new(share.start_ns),
            targets,
            poll: Poll::new().map_err(CrowdError::Poll)?,
            dialer: Dialer::new(tls, share.index, config.mss),
            seats: Vec::with_capacity(config.seats().div_ceil(share.of.max(1))),
            timers: BinaryHeap::new(),
            firsts: Firsts::new(),
            library: Library::default(),
            chance: StdRng::seed_from_u64(config.seed.wrapping_add(share.index as u64)),
            window_us: None,
            stall_us: u64::try_from(config.stall().as_micros()).unwrap_or(u64::MAX),
            reader: (config.kind == Kind::Push).then(Reader::new),
            report,
            unasked: Tally::default(),
            standing: Standing::default(),
        })
    }

    fn run(&mut self, share: &Share, tell: &mut dyn FnMut(Standing)) -> Result<(), CrowdError> {
        let mut arrivals = self.plan.arrivals(share.index, share.of).peekable();
        let mut events = Events::with_capacity(EVENTS);
        // Each share has its part of the churn.
        let churn_every_us = (self.config.churn > 0.0)
            .then(|| 1e6 * share.of as f64 / self.config.churn)
            .map(|us| us as u64 + 1);
        let mut churn_us = self.plan.window_us;
        let (mut tell_us, mut cpu_us, mut silence_us) = (0, 0, 0);
        let (mut calm, mut storm_over) = (false, self.config.storm.is_none());
        loop {
            let turn_us = self.clock.now_us();
            if turn_us >= self.plan.end_us {
                break;
            }
            if !calm && turn_us >= self.plan.calm_us() {
                calm = true;
                self.seats.iter_mut().for_each(Seat::find_rhythm);
            }
            if self.window_us.is_none() && turn_us >= self.plan.window_us {
                self.window_us = Some(turn_us);
                cpu_us = thread_cpu_us();
                self.seats.iter_mut().for_each(Seat::enter_window);
            }
            if !storm_over && turn_us >= self.plan.storm_end_us {
                storm_over = true;
                self.report.storm_cpu_us = thread_cpu_us() - cpu_us;
            }
            for _ in 0..JOINS_A_TURN {
                let Some(arrival) = arrivals.next_if(|arrival| arrival.at_us <= turn_us) else { break };
                self.report.join_lag.record(turn_us - arrival.at_us);
                if arrival.role == Role::Storm {
                    self.report.storm_lag.record(turn_us - arrival.at_us);
                    self.report.storm_took_us = turn_us - self.plan.window_us;
                }
                self.join(&arrival);
            }
            if let (Some(every_us), Some(_)) = (churn_every_us, self.window_us) {
                while churn_us <= turn_us {
                    churn_us += every_us;
                    self.churn();
                }
            }
            self.serve_timers(turn_us);
            if self.config.rejoin_as_page && turn_us >= silence_us {
                silence_us = turn_us + SILENCE_EVERY_US;
                self.leave_silent();
            }
            if turn_us >= tell_us {
                tell_us = turn_us + TELL_US;
                tell(self.standing);
            }
            if self.window_us.is_some() {
                self.report.turn.record(self.clock.now_us() - turn_us);
            }
            let mut due_us = match self.window_us {
                None => self.plan.window_us,
                Some(_) => self.plan.end_us,
            };
            if let Some(arrival) = arrivals.peek() {
                due_us = due_us.min(arrival.at_us);
            }
            if let Some(Reverse((timer_us, ..))) = self.timers.peek() {
                due_us = due_us.min(*timer_us);
            }
            if churn_every_us.is_some() && self.window_us.is_some() {
                due_us = due_us.min(churn_us);
            }
            self.wait(&mut events, due_us)?;
            let began_us = self.clock.now_us();
            for event in &events {
                let Token(token) = event.token();
                let closing = event.is_read_closed() || event.is_error();
                self.look(token & 0xffff_ffff, (token >> 32) as u32, closing);
            }
            if self.window_us.is_some() {
                self.report.turn.record(self.clock.now_us() - began_us);
            }
        }
        self.report.cpu_us = thread_cpu_us() - cpu_us;
        if !storm_over {
            // It lasted as long as the window.
            self.report.storm_cpu_us = self.report.cpu_us;
        }
        self.conclude();
        tell(self.standing);
        let left_us = (self.plan.end_us + LINGER_US).saturating_sub(self.clock.now_us());
        std::thread::sleep(Duration::from_micros(left_us));
        Ok(())
    }

    /// Waits until something happens or is due.
    fn wait(&mut self, events: &mut Events, due_us: u64) -> Result<(), CrowdError> {
        let room_us = due_us.saturating_sub(self.clock.now_us()).min(IDLE_US);
        let mut timeout = Duration::from_micros(room_us);
        let was_full = events.iter().count() == EVENTS;
        if self.config.coalesce_us > 0 {
            // Nobody sleeps in epoll_wait, so what a server sends wakes nobody. On loopback that wake-up, an
            // interrupt to another core, would be on the server's bill.
            if !was_full && room_us > 0 {
                std::thread::sleep(Duration::from_micros(room_us.min(self.config.coalesce_us)));
            }
            timeout = Duration::ZERO;
        }
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map_err(CrowdError::Poll),
        }
    }

    fn join(&mut self, arrival: &Arrival) {
        let index = self.seats.len();
        let target = arrival.number % self.targets.len();
        self.seats.push(Seat::new(arrival.role, target));
        self.dial(index, false);
    }

    /// Begins a connection of a seat: a new listener, or one who comes back.
    fn dial(&mut self, index: usize, again: bool) {
        let now_us = self.clock.now_us();
        let seat = &mut self.seats[index];
        seat.generation = seat.generation.wrapping_add(1);
        let token = Token(index | (seat.generation as usize) << 32);
        let target = &self.targets[seat.target];
        seat.begin(now_us, again, self.config.kind, &target.path);
        let small = matches!(seat.role, Role::Slow | Role::Never);
        // Those of the ramp bring no tickets; whoever comes after them, or again, does.
        let first = seat.generation == 1 && seat.role != Role::Storm;
        match self.dialer.dial(target, small, first, self.poll.registry(), token) {
            Ok(link) => {
                seat.link = Some(link);
                self.standing.begun += 1;
            }
            Err(error) => self.lose(index, &error),
        }
    }

    /// One of those who listen leaves, and somebody comes in its place.
    fn churn(&mut self) {
        if self.seats.is_empty() {
            return;
        }
        let index = self.chance.random_range(0..self.seats.len());
        let seat = &mut self.seats[index];
        if seat.role == Role::Base && seat.link.take().is_some() {
            self.report.base.counts.churned += 1;
            self.report.base.counts.asked += 1;
            self.dial(index, false);
        }
    }

    fn serve_timers(&mut self, now_us: u64) {
        for _ in 0..TIMERS_A_TURN {
            match self.timers.peek() {
                Some(Reverse((due_us, index, generation))) if *due_us <= now_us => {
                    let (index, generation) = (*index, *generation);
                    self.timers.pop();
                    self.wake(index, generation);
                }
                _ => return,
            }
        }
    }

    /// Listeners who have waited too long for a byte give their connections up.
    fn leave_silent(&mut self) {
        let (now_us, patience_us) = (self.clock.now_us(), patience_us(self.config.tier));
        for index in 0..self.seats.len() {
            let seat = &self.seats[index];
            let silent = now_us.saturating_sub(seat.last_byte_us) > patience_us;
            if silent && seat.link.is_some() && matches!(seat.ears, Ears::Push(_)) {
                self.lose(index, &"silence");
            }
        }
    }

    /// A seat's time has come.
    fn wake(&mut self, index: usize, generation: u32) {
        let now_us = self.clock.now_us();
        let seat = &mut self.seats[index];
        if seat.generation != generation {
            return;
        }
        let Some(link) = &mut seat.link else {
            // It was lost, and comes back.
            self.dial(index, true);
            return;
        };
        let outcome = match (&mut seat.ears, seat.role) {
            (Ears::Stuck, Role::Slow) => link.sip(),
            (Ears::Stuck, _) => link.listen_for_reset(),
            (Ears::Fetch(_), _) => {
                self.ask(index);
                return;
            }
            (Ears::Push(_), _) => return,
        };
        match outcome {
            Ok(()) => self.timers.push(Reverse((now_us + SIP_US, index, generation))),
            Err(error) => self.lose(index, &error),
        }
    }

    /// Something happened on a connection.
    fn look(&mut self, index: usize, generation: u32, closing: bool) {
        let now_us = self.clock.now_us();
        let Some(seat) = self.seats.get_mut(index) else { return };
        if seat.generation != generation || seat.ignored {
            return;
        }
        let Some(link) = &mut seat.link else { return };
        let tally = match seat.role {
            Role::Base => &mut self.report.base,
            Role::Storm => &mut self.report.storm,
            Role::Slow | Role::Never => &mut self.unasked,
        };
        let mut measure = Measure {
            now_us,
            window_us: self.window_us,
            tier: self.config.tier,
            stall_us: self.stall_us,
            fuller_bytes: self.config.fuller_bytes,
            firsts: &mut self.firsts,
            tally,
        };
        let witness = &mut self.report.witness;
        let mut reader = self.reader.as_mut().filter(|_| index == 0 && generation == 1);
        let (ears, begun_us) = (&mut seat.ears, seat.begun_us);
        let (mut broken, mut first_audio) = (None, false);
        let looked = self.dialer.look(link, closing, &mut |bytes| {
            if let Some(reader) = &mut reader {
                reader.read(bytes, witness);
            }
            let heard = match ears {
                Ears::Push(listener) => listener.hear(bytes, &mut measure),
                Ears::Fetch(fetcher) => fetcher.take(bytes, begun_us, &mut measure).map(|()| false),
                Ears::Stuck => Ok(false),
            };
            match heard {
                Ok(first) => first_audio |= first,
                Err(error) => broken = broken.or(Some(error)),
            }
        });
        if first_audio {
            self.standing.hearing += 1;
        }
        let progress = match (looked, broken) {
            // What it had said before says more than that it is gone.
            (Err(error), _) => {
                return self.lose(index, &end_of(&self.seats[index].ears).unwrap_or(error.to_string()));
            }
            (Ok(_), Some(error)) => return self.lose(index, &error),
            (Ok(progress), None) => progress,
        };
        self.advance(index, now_us, progress);
    }

    /// Goes on with a connection that made progress.
    fn advance(&mut self, index: usize, now_us: u64, progress: Progress) {
        let seat = &mut self.seats[index];
        let tally = match seat.role {
            Role::Base => &mut self.report.base,
            Role::Storm => &mut self.report.storm,
            Role::Slow | Role::Never => &mut self.unasked,
        };
        let Some(link) = &mut seat.link else { return };
        if self.window_us.is_some() {
            tally.counts.wire_bytes += progress.bytes;
        }
        if progress.bytes > 0 {
            seat.last_byte_us = now_us;
        }
        if progress.connected {
            seat.connected_us = now_us;
            tally.connect.record(now_us - seat.begun_us);
        }
        if progress.open {
            seat.open = true;
            if self.targets[seat.target].tls {
                tally.handshake.record(now_us - seat.connected_us);
                tally.counts.resumed += u64::from(link.is_resumed());
            }
            self.ask(index);
            // What came with the end of the handshake was the answer to nothing; all else comes later.
            return;
        }
        if progress.ended {
            let why = end_of(&seat.ears).unwrap_or_else(|| LinkError::Closed.to_string());
            return self.lose(index, &why);
        }
        if !seat.open {
            return;
        }
        match &mut seat.ears {
            Ears::Push(_) => {
                if let Some(why) = end_of(&seat.ears) {
                    self.lose(index, &why);
                }
            }
            Ears::Fetch(fetcher) => match fetcher.advance(now_us, &mut self.library, tally, self.window_us) {
                Ok(first) => {
                    self.standing.hearing += u64::from(first);
                    self.ask(index);
                }
                Err(why) => self.lose(index, &why),
            },
            Ears::Stuck => self.stop_reading(index, now_us),
        }
    }

    /// Asks for whatever is next, if it is time.
    fn ask(&mut self, index: usize) {
        let now_us = self.clock.now_us();
        let seat = &mut self.seats[index];
        let Some(link) = &mut seat.link else { return };
        let target = &self.targets[seat.target];
        let words = match &mut seat.ears {
            Ears::Push(listener) => {
                let from = listener.next_part().filter(|_| seat.again && !seat.anew);
                Some(request(target, &with_from(&target.path, from), ""))
            }
            Ears::Stuck => Some(request(target, &target.path, "")),
            Ears::Fetch(fetcher) => match fetcher.ask(now_us, self.config, &mut self.chance) {
                None => {
                    if let Some(due_us) = fetcher.due_us() {
                        self.timers.push(Reverse((due_us, index, seat.generation)));
                    }
                    None
                }
                Some((path, header)) => {
                    Some(request(target, path.as_deref().unwrap_or(&target.path), &header))
                }
            },
        };
        let Some(words) = words else { return };
        match link.say(words.as_bytes()) {
            Ok(()) => self.stop_reading(index, now_us),
            Err(error) => self.lose(index, &error),
        }
    }

    /// Whoever reads hardly or not at all stops as soon as it has asked.
    fn stop_reading(&mut self, index: usize, now_us: u64) {
        let seat = &mut self.seats[index];
        let Some(link) = &mut seat.link else { return };
        if !matches!(seat.ears, Ears::Stuck) || !link.is_flushed() {
            return;
        }
        seat.ignored = true;
        seat.asked_us = now_us;
        self.report.stuck.begun += 1;
        self.standing.hearing += 1;
        let generation = seat.generation;
        match link.ignore(self.poll.registry()) {
            // Not all at the same instant.
            Ok(()) => {
                self.timers.push(Reverse((now_us + SIP_US * (index as u64 % 97) / 97, index, generation)))
            }
            Err(error) => self.lose(index, &error),
        }
    }

    /// A connection is no more.
    fn lose(&mut self, index: usize, why: &dyn std::fmt::Display) {
        let now_us = self.clock.now_us();
        let seat = &mut self.seats[index];
        seat.link = None;
        if seat.ignored {
            self.report.stuck.gone += 1;
            self.report.stuck.gone_after.record(now_us - seat.asked_us);
            seat.ignored = false;
            return;
        }
        count_failure(&mut self.report.failures, &why.to_string(), 1);
        let tally = match seat.role {
            Role::Base => &mut self.report.base,
            Role::Storm => &mut self.report.storm,
            Role::Slow | Role::Never => &mut self.unasked,
        };
        match (seat.ears.hear(), self.window_us) {
            (true, Some(_)) => {
                tally.counts.lost += 1;
                tally.cut.record(now_us);
            }
            (true, None) => tally.counts.lost_early += 1,
            (false, _) => {
                tally.counts.failed += 1;
                self.standing.failed += 1;
            }
        }
        let Ears::Push(listener) = &seat.ears else { return };
        let wait_us = match self.config.rejoin_s {
            _ if self.config.rejoin_as_page => {
                let (status, lived_us) = (listener.status(), seat.last_byte_us - seat.begun_us);
                // As soon as it has audio again it knows where it is.
                seat.anew = begins_anew(status) || (seat.anew && !listener.hears());
                seat.comeback.wait_us(lived_us, status, listener.retry_after_s(), &mut self.chance)
            }
            Some(rejoin_s) => (1e6 * rejoin_s * self.chance.random::<f64>()) as u64,
            None => return,
        };
        tally.counts.rejoined += u64::from(listener.hears());
        self.timers.push(Reverse((now_us + wait_us, index, seat.generation)));
    }

    fn conclude(&mut self) {
        let now_us = self.clock.now_us();
        let Some(window_us) = self.window_us else { return };
        self.report.span_us = now_us - window_us;
        for seat in &mut self.seats {
            let storm = seat.role == Role::Storm;
            let tally = match seat.role {
                Role::Base => &mut self.report.base,
                Role::Storm => &mut self.report.storm,
                Role::Slow | Role::Never => continue,
            };
            let mut measure = Measure {
                now_us,
                window_us: self.window_us,
                tier: self.config.tier,
                stall_us: self.stall_us,
                fuller_bytes: self.config.fuller_bytes,
                firsts: &mut self.firsts,
                tally,
            };
            let connected = seat.link.is_some();
            match &mut seat.ears {
                Ears::Push(listener) => listener.conclude(connected, storm, &mut measure),
                Ears::Fetch(fetcher) => fetcher.conclude(connected, measure.now_us, measure.tally),
                Ears::Stuck => {}
            }
        }
    }
}

/// Why a listener's response is no use any more, if it says so itself.
fn end_of(ears: &Ears) -> Option<String> {
    let Ears::Push(listener) = ears else { return None };
    match listener.status() {
        0 | 200 if listener.is_over() => Some("the response ended".to_owned()),
        0 | 200 => None,
        status => Some(format!("status {status}")),
    }
}

fn request(target: &Target, path: &str, header: &str) -> String {
    let host = &target.authority;
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: minassa-rehearse\r\nAccept: */*\r\n{header}\r\n"
    )
}

/// The address of the stream from a part on.
fn with_from(path: &str, from: Option<u64>) -> String {
    match from {
        None => path.to_owned(),
        Some(from) if path.contains('?') => format!("{path}&from={from}"),
        Some(from) => format!("{path}?from={from}"),
    }
}
