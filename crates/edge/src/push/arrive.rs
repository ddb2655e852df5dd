//! Who comes in at the push door, and who makes room (see [`admission::doorstep`]).

use std::io;
use std::time::{Duration, Instant};

use admission::doorstep::{Meter, Places, Prefix, Room};
use backend::http::proxy::{ForwardedError, Introduced, Introduction};
use backend::tls;
use http::request;
use mio::net::TcpStream;
use mio::{Interest, Token};

use super::conn::Conn;
use super::{ACCEPT_PAUSE, Push};
use crate::shared::count;

/// Time after which who has not asked yet, or has its answer, makes room for anybody.
const SILENCE: Duration = Duration::from_secs(1);
/// Time after which what a site has cost begins to be forgotten.
const COST_WINDOW: Duration = Duration::from_secs(4);
/// Homes of a site that together cost as much as one alone.
const COST_HOMES: u32 = 4;
/// Time after which it begins to be forgotten that connections of a site asked for nothing.
const DEBT_WINDOW: Duration = Duration::from_secs(60);

/// What is known of where connections come from.
#[derive(Debug)]
pub(super) struct Sites {
    /// Who has a connection, and who makes room when there are too many. Those who rest there have not asked yet, or have
    /// their answer.
    pub(super) places: Places,
    /// What connections have cost of late.
    meter: Meter,
    /// How many never asked and had to go.
    debts: Meter,
}

impl Sites {
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            places: Places::new(connections_max, 0, SILENCE),
            meter: Meter::new(&rand::random(), COST_WINDOW, COST_HOMES),
            debts: Meter::new(&rand::random(), DEBT_WINDOW, 1),
        }
    }

    /// What a connection from there weighs.
    fn weight(&mut self, prefix: Prefix, now: Duration) -> u32 {
        Meter::weight(self.debts.cost(prefix, now))
    }

    /// Counts a connection from there. Returns the lane in which it waits for its turns.
    fn lane(&mut self, prefix: Prefix, now: Duration) -> u8 {
        Meter::lane(self.meter.add(prefix, 1, now))
    }

    /// Somebody has to go; if it never asked for anything, that is remembered.
    fn had_to_go(&mut self, key: u32, now: Duration) {
        if let Some(prefix) = self.places.prefix(key)
            && !self.places.has_asked(key)
        {
            self.debts.add(prefix, 1, now);
        }
    }
}

/// Somebody who was accepted.
#[derive(Debug)]
pub(super) struct Newcomer {
    stream: TcpStream,
    prefix: Prefix,
    introduction: Introduction,
}

impl Push {
    pub(super) fn may_accept(&self, now: Instant) -> bool {
        let is_room = self.callers.len() < self.connections_max;
        self.door.is_some() && is_room && self.pause.is_none_or(|until| until <= now)
    }

    /// Takes in who is held, and the next at the door. Returns whether there may be more.
    pub(super) fn accept(&mut self, now: Instant) -> bool {
        if let Some(newcomer) = self.held.take()
            && let Err((newcomer, room)) = self.take_in(newcomer)
        {
            self.held = Some(newcomer);
            // Where not everybody has to wait, who comes next may be from a site that finds room.
            if room != Room::Refused {
                self.blocked = true;
                return false;
            }
        }
        let Some(door) = &self.door else { return false };
        match door.accept() {
            Ok((stream, peer)) => {
                count(&self.shared.counters.accepted);
                let introduction = self.proxies.introduction(peer.ip());
                let newcomer = Newcomer { stream, prefix: Prefix::of(peer.ip()), introduction };
                if let Err((newcomer, _)) = self.take_in(newcomer) {
                    if self.held.is_none() {
                        self.held = Some(newcomer);
                    } else {
                        // The one before is still waiting. To let this one wait too would keep out all behind it.
                        count(&self.shared.counters.refused_heavy);
                    }
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

    /// Closes who rests, so that another may have the place.
    fn make_room(&mut self, key: u32) {
        count(&self.shared.counters.evicted);
        self.sites.places.leave(key);
        self.crowd.gone.push(key);
    }

    /// Closes who has been silent, or takes nothing, and remembers where those came from that never asked.
    pub(super) fn close_silent(&mut self, key: u32) {
        self.sites.had_to_go(key, self.clock);
        self.crowd.gone.push(key);
    }

    /// Gives a newcomer a place, if there is one, or somebody else makes room.
    fn take_in(&mut self, newcomer: Newcomer) -> Result<(), (Newcomer, Room)> {
        let weight = self.sites.weight(newcomer.prefix, self.clock);
        let room = match newcomer.introduction {
            Introduction::None => self.sites.places.room(newcomer.prefix, weight, self.clock),
            Introduction::Header | Introduction::Requests => self.sites.places.room_for_any(),
        };
        match room {
            Room::Free => {}
            Room::Instead(other) => {
                // That somebody made room for a stranger says nothing of them, if they had just come.
                if newcomer.introduction == Introduction::None
                    || self.sites.places.is_silent(other, self.clock)
                {
                    self.sites.had_to_go(other, self.clock);
                }
                self.make_room(other);
                self.clear_away();
            }
            room => return Err((newcomer, room)),
        }
        let Newcomer { stream, prefix, introduction } = newcomer;
        self.generation = self.generation.wrapping_add(1);
        let (generation, second) = (self.generation, self.crowd.second);
        let tls = self.tls.as_ref().map(|tls| tls.config(tls::Door::Push));
        let conn = match introduction {
            Introduction::Header => Ok(Conn::introducing(stream, generation, second)),
            Introduction::None | Introduction::Requests => Conn::new(stream, generation, second, tls),
        };
        let mut conn = match conn {
            Ok(conn) => conn,
            Err(error) => {
                tracing::warn!(%error, "a handshake cannot be begun");
                count(&self.shared.counters.handshakes_failed);
                return Ok(());
            }
        };
        let place = self.crowd.conns.vacant_entry();
        let token = Token(place.key());
        self.sites.places.enter(token.0 as u32, prefix, weight, self.clock);
        if introduction == Introduction::None {
            conn.lane = self.sites.lane(prefix, self.clock);
        } else {
            // A proxy is not weighed: who is behind it is, once that is known.
            conn.is_anonymous = introduction == Introduction::Requests;
            self.sites.places.work(token.0 as u32);
        }
        let conn = place.insert(conn);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut conn.stream, token, interest) {
            tracing::warn!(%error, "cannot watch a connection");
            self.crowd.gone.push(token.0 as u32);
        }
        Ok(())
    }

    /// A proxy has said who is behind it: the connection begins. Returns as [`Self::serve_caller`].
    pub(super) fn begin(&mut self, key: u32, introduced: Introduced) -> u32 {
        if let Introduced::Client(client) = introduced
            && !self.weigh(key, Prefix::of(client.ip()))
        {
            self.crowd.gone.push(key);
            return 0;
        }
        let tls = self.tls.as_ref().map(|tls| tls.config(tls::Door::Push));
        let conn = &mut self.crowd.conns[key as usize];
        if let Err(error) = conn.begin(tls, self.crowd.second) {
            tracing::warn!(%error, "a handshake cannot be begun");
            count(&self.shared.counters.handshakes_failed);
            self.crowd.gone.push(key);
            return 0;
        }
        // What follows may be here already, and the poll does not say again what it has said.
        self.serve_caller(key)
    }

    /// It is known now where a connection comes from. Whether there is room for it; otherwise it has to go.
    fn weigh(&mut self, key: u32, prefix: Prefix) -> bool {
        let weight = self.sites.weight(prefix, self.clock);
        // It has a place: who comes from there may have it, or not.
        self.sites.places.leave(key);
        let room = self.sites.places.room(prefix, weight, self.clock);
        if let Room::Instead(other) = room {
            self.sites.had_to_go(other, self.clock);
            self.make_room(other);
        }
        self.sites.places.enter(key, prefix, weight, self.clock);
        let conn = &mut self.crowd.conns[key as usize];
        conn.lane = self.sites.lane(prefix, self.clock);
        conn.is_anonymous = false;
        let may = matches!(room, Room::Free | Room::Instead(_));
        if !may {
            count(&self.shared.counters.refused_heavy);
        }
        may
    }

    /// Learns from a request of a proxy who is behind it. Whether there is room for them.
    pub(super) fn identify(&mut self, key: u32, head: &request::Parts) -> Result<bool, ForwardedError> {
        let is_anonymous = self.crowd.conns[key as usize].is_anonymous;
        let introduction = if is_anonymous { Introduction::Requests } else { Introduction::None };
        let client = self.proxies.client(&head.headers, introduction)?;
        Ok(client.is_none_or(|client| self.weigh(key, Prefix::of(client))))
    }
}
