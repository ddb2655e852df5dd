//! All connections of the door, and what visiting one of them leaves behind.

use std::collections::VecDeque;

use fanout::Window;
use slab::Slab;

use super::conn::{Conn, Progress, Room, State, Tally};
use super::head;

/// All connections.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) conns: Slab<Conn>,
    /// Listeners whose socket has room again, or for whom there was more than one turn's worth.
    pub(crate) ready: VecDeque<u32>,
    /// Connections that are to be closed, once nobody looks at them. One may be named twice.
    pub(crate) gone: Vec<u32>,
    /// Those whose answer is complete and out.
    pub(crate) ended: Vec<u32>,
    /// Whole seconds of the loop's clock.
    pub(crate) second: u32,
    pub(crate) tally: Tally,
    pub(crate) room: Room,
}

impl Crowd {
    pub(crate) fn new() -> Self {
        Self {
            conns: Slab::new(),
            ready: VecDeque::new(),
            gone: Vec::new(),
            ended: Vec::new(),
            second: 0,
            tally: Tally::default(),
            room: Room::new(),
        }
    }

    /// Gives a listener what there is for it, `prefix` first.
    pub(crate) fn visit(&mut self, key: u32, window: &Window, prefix: &[u8]) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        let progress = conn.visit(window, &mut self.room, prefix, self.second, &mut self.tally);
        self.went(key, progress);
    }

    /// Sends what a socket had no room for. Returns whether all of it is out and its owner is a listener.
    pub(crate) fn resume(&mut self, key: u32) -> bool {
        let Some(conn) = self.conns.get_mut(key as usize) else { return false };
        let progress = match (conn.resume(self.second), &conn.state) {
            (Progress::Done, State::Leaving) => Progress::Ended,
            (progress, _) => progress,
        };
        let is_listener = matches!(conn.state, State::Listening(_));
        self.went(key, progress);
        is_listener && progress == Progress::Done
    }

    /// Sends an answer, the last thing on its connection.
    pub(crate) fn answer(&mut self, key: u32, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        conn.state = State::Leaving;
        conn.since = self.second;
        self.room.begin().extend_from_slice(bytes);
        let progress = match conn.send(&mut self.room, self.second) {
            Progress::Done => Progress::Ended,
            other => other,
        };
        self.went(key, progress);
    }

    /// Lets a listener go with a complete answer, as far as its socket has room; anybody else at once.
    pub(crate) fn dismiss(&mut self, key: u32) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        let is_blocked = conn.is_blocked();
        if let State::Listening(listener) = &mut conn.state
            && !is_blocked
            && !listener.is_complete
        {
            head::BodyWriter::new(self.room.begin(), listener.chunked).finish(true);
            listener.is_complete = true;
            if conn.send(&mut self.room, self.second) == Progress::Done {
                conn.shut_down(&mut self.room, self.second);
            }
        }
        self.gone.push(key);
    }

    fn went(&mut self, key: u32, progress: Progress) {
        match progress {
            Progress::Done | Progress::Full => {}
            Progress::More => self.ready.push_back(key),
            Progress::Gone => self.gone.push(key),
            Progress::Ended => self.ended.push(key),
        }
    }
}
