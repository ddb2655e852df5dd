//! One connection at the push door: what it is doing, and how bytes come in and go out.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use admission::ticket::TicketId;
use backend::http::proxy::{self, HeaderProgress, Introduced};
use fanout::{Cursor, Output, Skips, Slot, Step, Window};
use formats::mp3::icy::{Interleaver, TitleBlock};
use http::request;
use mio::net::TcpStream;
use rustls::ServerConfig;

use super::hall::Asked;
use super::head::BodyWriter;
use super::measure::Counts;
use super::survey::Taken;
use crate::seal::{self, HEADER_BYTES, Handshake, Opened, Session, TlsError};

/// Bytes made for a listener at once. What a socket does not take of them is kept, so this bounds what a slow listener
/// costs beside the kernel's buffer. A flush of the slowest tier is one write: 8 parts of `opus-48` and a notice.
const FLUSH_BYTES: usize = 24 * 1024;
/// Bytes one listener gets in one turn before others have theirs.
const VISIT_BYTES: usize = 4 * FLUSH_BYTES;
/// Bytes read at once.
const READ_BYTES: usize = 4 * 1024;
/// Bytes a peer may send after its handshake, as they come over the wire: its request, and what nobody wants; a player
/// sends nothing more.
const RECEIVED_MAX: u32 = 64 * 1024;

/// A connection. Kept small: there are thousands, and most of them listen.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    /// Which of all connections that had this place.
    pub(crate) generation: u32,
    /// Second of the loop's clock at which its present state began, or, for who gets an answer, at which it last took
    /// something.
    pub(crate) since: u32,
    /// Whether it has a place among those who are to be served next.
    pub(crate) queued: bool,
    /// The lane in which it waits for that.
    pub(crate) lane: u8,
    /// Whether it comes from a proxy, and its request is still to say who is behind that.
    pub(crate) is_anonymous: bool,
    /// Bytes that came over the wire, without the handshake.
    received: u32,
    /// What the socket has not taken yet.
    unsent: Option<Box<Unsent>>,
    /// What makes records of bytes, after a handshake.
    tls: Option<Box<Tls>>,
    pub(crate) state: State,
}

/// What a connection is doing.
#[derive(Debug)]
pub(crate) enum State {
    /// It comes from a proxy, which says who is behind it.
    Introducing(Vec<u8>),
    /// It agrees on keys.
    Shaking(Box<Shaking>),
    /// Its request is coming in.
    Reading(Vec<u8>),
    /// Its request is here, and waits for what nobody knows yet.
    Waiting { head: Box<request::Parts>, for_what: Awaited },
    /// It listens.
    Listening(Listener),
    /// Its last bytes are going out.
    Leaving,
    /// Everything is out, and so is our end; the peer's is awaited, or the answer might be lost (RFC 9112 section 9.6).
    Parting,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// That something changes.
    News,
    /// Something has changed: it is to be decided again.
    Decision,
    /// An answer of the disk.
    Disk,
}

/// A handshake on its way.
pub(crate) struct Shaking {
    handshake: Handshake,
    /// What came in and was not taken yet.
    incoming: Vec<u8>,
}

impl std::fmt::Debug for Shaking {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shaking").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Tls {
    session: Session,
    /// A record that is not whole yet.
    incoming: Vec<u8>,
}

/// How far a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shaken {
    /// The peer has to say more.
    Waits,
    /// It has keys, and its request may be read. Whether it came back with a ticket.
    Established { resumed: bool },
    /// It failed; what there was to say has been said.
    Failed,
}

/// How far a proxy is with saying who is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// It has to say more.
    Waits,
    /// It has said this.
    As(Introduced),
    /// It does not say so, or is gone.
    Failed,
}

/// Room that connections share while something is done for them.
#[derive(Debug)]
pub(crate) struct Room {
    raw: Box<[u8]>,
    /// What came in.
    pub(crate) input: Vec<u8>,
    /// What is to go out, behind room for a record's header: sealing then needs no other copy of it.
    output: Vec<u8>,
    /// Records where there is more than one, or what the protocol itself has to say.
    sealed: Vec<u8>,
}

impl Room {
    pub(crate) fn new() -> Self {
        let output = || Vec::with_capacity(8 * FLUSH_BYTES);
        Self {
            raw: vec![0; READ_BYTES].into(),
            input: Vec::with_capacity(READ_BYTES),
            output: output(),
            sealed: output(),
        }
    }

    /// Where to put what is to go out next, behind what is there already.
    pub(crate) fn begin(&mut self) -> &mut Vec<u8> {
        self.output.clear();
        self.output.extend_from_slice(&[0; HEADER_BYTES]);
        &mut self.output
    }
}

/// A listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) cursor: Cursor,
    pub(crate) slot: Slot,
    /// The hall it is in.
    pub(crate) hall: u16,
    /// What it asked for, whatever it has been moved to.
    pub(crate) asked: Asked,
    /// The ticket it came in on.
    pub(crate) ticket: Option<TicketId>,
    pub(crate) taken: Taken,
    pub(crate) chunked: bool,
    /// Whether the last of its response has been made.
    pub(crate) is_complete: bool,
    metadata: Option<Box<Metadata>>,
}

/// What a player gets between the audio.
#[derive(Debug)]
struct Metadata {
    interleaver: Interleaver,
    title: TitleBlock,
}

#[derive(Debug)]
struct Unsent {
    bytes: Vec<u8>,
    at: usize,
}

/// How far a connection got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything there was is out.
    Done,
    /// The socket is full; it says when it is not.
    Full,
    /// There is more for it, and others have their turn first.
    More,
    /// The last byte is out.
    Ended,
    /// The connection is of no use any more.
    Gone,
}

/// What a visit came to, for the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) bytes: u64,
    pub(crate) writes: u64,
    pub(crate) parts: u64,
    pub(crate) skips: Skips,
    /// Listeners moved to another rendition.
    pub(crate) moved: u64,
    /// Time from each one's turn to its write.
    pub(crate) lateness: Counts,
}

/// What came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Nothing more for now.
    Nothing,
    /// Something was added to the buffer; there may be more.
    Some,
    /// The peer has no more to say, or is gone.
    End,
}

impl Conn {
    /// A new one; with `tls` its handshake comes first.
    ///
    /// # Errors
    /// If no handshake can be begun with this configuration.
    pub(crate) fn new(
        stream: TcpStream,
        generation: u32,
        since: u32,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self, TlsError> {
        let mut conn = Self::introducing(stream, generation, since);
        conn.begin(tls, since)?;
        Ok(conn)
    }

    /// A new one of a proxy, which first says who is behind it; then [`Self::begin`].
    pub(crate) fn introducing(stream: TcpStream, generation: u32, since: u32) -> Self {
        Self {
            stream,
            generation,
            since,
            queued: false,
            lane: 0,
            is_anonymous: false,
            received: 0,
            unsent: None,
            tls: None,
            state: State::Introducing(Vec::new()),
        }
    }

    /// From now on its handshake is made, with `tls`, or its request read.
    ///
    /// # Errors
    /// If no handshake can be begun with this configuration.
    pub(crate) fn begin(&mut self, tls: Option<Arc<ServerConfig>>, now: u32) -> Result<(), TlsError> {
        self.state = match tls {
            None => State::Reading(Vec::new()),
            Some(config) => {
                let handshake = Handshake::new(config)?;
                State::Shaking(Box::new(Shaking { handshake, incoming: Vec::new() }))
            }
        };
        self.since = now;
        Ok(())
    }

    /// Reads what a proxy says of who is behind it, as far as that is there, and nothing of what follows.
    pub(crate) fn introduce(&mut self, room: &mut Room) -> Named {
        loop {
            let State::Introducing(bytes) = &mut self.state else { return Named::Failed };
            let missing = match proxy::header(bytes) {
                Ok(HeaderProgress::Whole { introduced, .. }) => return Named::As(introduced),
                Ok(HeaderProgress::Needs(length)) => (length - bytes.len()).min(READ_BYTES),
                Err(_) => return Named::Failed,
            };
            let (incoming, count) = read(&mut self.stream, &mut room.raw[..missing]);
            bytes.extend_from_slice(&room.raw[..count]);
            match incoming {
                Incoming::Some => {}
                Incoming::Nothing => return Named::Waits,
                Incoming::End => return Named::Failed,
            }
        }
    }

    /// Whether its socket is full.
    pub(crate) fn is_blocked(&self) -> bool {
        self.unsent.is_some()
    }

    /// Goes on with the handshake as far as what came in allows.
    pub(crate) fn shake(&mut self, room: &mut Room, now: u32) -> Shaken {
        loop {
            let State::Shaking(shaking) = &mut self.state else { return Shaken::Waits };
            let (read, count) = read(&mut self.stream, &mut room.raw);
            if read == Incoming::End {
                return Shaken::Failed;
            }
            shaking.incoming.extend_from_slice(&room.raw[..count]);
            room.sealed.clear();
            let progress = shaking.handshake.advance(&mut shaking.incoming, &mut room.sealed);
            let is_sent = self.send_records(&room.sealed, now) != Progress::Gone;
            match progress {
                Ok(seal::Progress::Established) if is_sent => break,
                Ok(seal::Progress::NeedsMore) if is_sent && count < room.raw.len() => return Shaken::Waits,
                Ok(seal::Progress::NeedsMore) if is_sent => {}
                Ok(_) | Err(_) => return Shaken::Failed,
            }
        }
        let State::Shaking(shaking) = std::mem::replace(&mut self.state, State::Reading(Vec::new())) else {
            return Shaken::Failed;
        };
        let Shaking { handshake, incoming } = *shaking;
        let resumed = handshake.resumed().unwrap_or(false);
        match handshake.finish() {
            Ok(session) => {
                self.since = now;
                self.tls = Some(Box::new(Tls { session, incoming }));
                Shaken::Established { resumed }
            }
            Err(_) => Shaken::Failed,
        }
    }

    /// Reads what has come in into [`Room::input`], one read at most.
    pub(crate) fn receive(&mut self, room: &mut Room, now: u32) -> Incoming {
        room.input.clear();
        if self.received > RECEIVED_MAX {
            return Incoming::End;
        }
        let Some(tls) = &mut self.tls else {
            let (incoming, count) = read(&mut self.stream, &mut room.raw);
            self.received += count as u32;
            room.input.extend_from_slice(&room.raw[..count]);
            return incoming;
        };
        // A request often comes with the end of the handshake: first what is here already.
        let mut incoming = Incoming::Some;
        loop {
            room.sealed.clear();
            let opened = tls.session.open(&mut tls.incoming, &mut room.sealed, &mut room.input);
            if tls.incoming.is_empty() {
                tls.incoming = Vec::new();
            }
            if !room.sealed.is_empty() {
                break self.answer_protocol(room, opened.is_ok(), now);
            }
            match opened {
                Ok(Opened::Open) if !room.input.is_empty() => {}
                Ok(Opened::Open) => {
                    let (read, count) = read(&mut self.stream, &mut room.raw);
                    self.received += count as u32;
                    tls.incoming.extend_from_slice(&room.raw[..count]);
                    match read {
                        Incoming::Some if self.received <= RECEIVED_MAX => continue,
                        Incoming::Some => incoming = Incoming::End,
                        Incoming::Nothing => incoming = Incoming::Nothing,
                        Incoming::End => incoming = Incoming::End,
                    }
                }
                // It says no more, and may still listen to an answer (RFC 8446 section 6.1).
                Ok(Opened::Closed) if !room.input.is_empty() => {}
                Ok(Opened::Closed) | Err(_) => incoming = Incoming::End,
            }
            break incoming;
        }
    }

    fn answer_protocol(&mut self, room: &Room, is_open: bool, now: u32) -> Incoming {
        match self.send_records(&room.sealed, now) {
            Progress::Gone => Incoming::End,
            _ if is_open => Incoming::Some,
            _ => Incoming::End,
        }
    }

    /// Sends what was written since [`Room::begin`]; what the socket does not take is kept.
    pub(crate) fn send(&mut self, room: &mut Room, now: u32) -> Progress {
        let Some(tls) = &mut self.tls else { return self.send_records(&room.output[HEADER_BYTES..], now) };
        match tls.session.seal_in_place(&mut room.output, &mut room.sealed) {
            Ok(()) => self.send_records(&room.output, now),
            Err(_) => Progress::Gone,
        }
    }

    /// Sends bytes as they are, after those that wait.
    fn send_records(&mut self, bytes: &[u8], now: u32) -> Progress {
        if let Some(unsent) = &mut self.unsent {
            unsent.bytes.extend_from_slice(bytes);
            return Progress::Full;
        }
        if bytes.is_empty() {
            return Progress::Done;
        }
        match write(&mut self.stream, bytes) {
            Ok(count) => {
                self.took(count, now);
                if count == bytes.len() {
                    return Progress::Done;
                }
                self.unsent = Some(Box::new(Unsent { bytes: bytes[count..].to_vec(), at: 0 }));
                Progress::Full
            }
            Err(_) => Progress::Gone,
        }
    }

    /// Sends what was kept.
    pub(crate) fn resume(&mut self, now: u32) -> Progress {
        let Some(unsent) = &mut self.unsent else { return Progress::Done };
        match write(&mut self.stream, &unsent.bytes[unsent.at..]) {
            Ok(count) => {
                unsent.at += count;
                let is_done = unsent.at == unsent.bytes.len();
                if is_done {
                    self.unsent = None;
                }
                self.took(count, now);
                if is_done { Progress::Done } else { Progress::Full }
            }
            Err(_) => Progress::Gone,
        }
    }

    /// The socket took so many bytes. Whoever has still to ask has its time from the beginning, whatever it takes.
    fn took(&mut self, count: usize, now: u32) {
        if count > 0 && matches!(self.state, State::Listening(_) | State::Leaving) {
            self.since = now;
            if let State::Listening(listener) = &mut self.state {
                listener.taken.fresh = listener.taken.fresh.saturating_add(count as u32);
            }
        }
    }

    /// Gives a listener what is there for it. `prefix` goes before everything, once.
    pub(crate) fn visit(
        &mut self,
        window: &Window,
        room: &mut Room,
        prefix: &[u8],
        now: u32,
        tally: &mut Tally,
    ) -> Progress {
        if self.unsent.is_some() && prefix.is_empty() {
            return Progress::Full;
        }
        let mut sent = 0;
        room.begin().extend_from_slice(prefix);
        loop {
            let State::Listening(listener) = &mut self.state else { return Progress::Done };
            if !listener.is_complete {
                listener.gather(window, &mut room.output, tally);
            }
            let is_complete = listener.is_complete;
            let done = if is_complete { Progress::Ended } else { Progress::Done };
            let length = room.output.len() - HEADER_BYTES;
            if length == 0 {
                return done;
            }
            sent += length;
            tally.bytes += length as u64;
            tally.writes += 1;
            match self.send(room, now) {
                Progress::Done if is_complete || length < FLUSH_BYTES => return done,
                Progress::Done if sent >= VISIT_BYTES => return Progress::More,
                Progress::Done => {
                    room.begin();
                }
                other => return other,
            }
        }
    }

    /// Says that nothing more will come from us, if everything before is out.
    pub(crate) fn shut_down(&mut self, room: &mut Room, now: u32) {
        room.sealed.clear();
        if let Some(tls) = &mut self.tls
            && tls.session.close(&mut room.sealed).is_ok()
        {
            self.send_records(&room.sealed, now);
        }
        self.end_stream();
    }

    /// Closes our end, once everything is out.
    pub(crate) fn end_stream(&self) {
        if self.unsent.is_none() {
            // Fails only if the peer is gone already.
            let _ = self.stream.shutdown(std::net::Shutdown::Write);
        }
    }

    /// Closing it will throw away what it has not taken. Without this the kernel would keep that, and ask whether there is
    /// room now, for minutes after nobody here knows of it any more.
    pub(crate) fn give_up(&self) {
        // Fails only if the peer is gone already.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO));
    }

    /// From now on only the peer's end is awaited.
    pub(crate) fn part(&mut self, room: &mut Room, now: u32) {
        self.shut_down(room, now);
        // What comes in from now on is thrown away unread.
        self.tls = None;
        self.state = State::Parting;
        self.since = now;
    }
}

impl Listener {
    pub(crate) fn new(
        cursor: Cursor,
        slot: Slot,
        hall: u16,
        asked: Asked,
        ticket: Option<TicketId>,
        chunked: bool,
        metadata: Option<(Interleaver, TitleBlock)>,
    ) -> Self {
        let metadata = metadata.map(|(interleaver, title)| Box::new(Metadata { interleaver, title }));
        Self {
            cursor,
            slot,
            hall,
            asked,
            ticket,
            taken: Taken::default(),
            chunked,
            is_complete: false,
            metadata,
        }
    }

    /// Appends what comes next, about [`FLUSH_BYTES`] at most.
    fn gather(&mut self, window: &Window, out: &mut Vec<u8>, tally: &mut Tally) {
        let before = self.cursor.skips();
        let mut body = BodyWriter::new(out, self.chunked);
        while body.len() < FLUSH_BYTES {
            let bytes = match self.cursor.poll(window) {
                Step::Send(Output::Head(bytes) | Output::Tail(bytes)) => {
                    body.push(&bytes);
                    continue;
                }
                Step::Send(Output::Notice(bytes)) => bytes,
                Step::Send(Output::Part { bytes, .. }) => {
                    tally.parts += 1;
                    bytes
                }
                Step::Wait => break,
                Step::End => {
                    self.is_complete = true;
                    break;
                }
            };
            match &mut self.metadata {
                None => body.push(bytes),
                Some(metadata) => {
                    metadata.interleaver.weave(bytes, &metadata.title, |piece| body.push(piece));
                }
            }
        }
        body.finish(self.is_complete);
        let after = self.cursor.skips();
        tally.skips.behind += after.behind - before.behind;
        tally.skips.missing += after.missing - before.missing;
    }
}

/// Reads once.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> (Incoming, usize) {
    loop {
        return match stream.read(buffer) {
            Ok(0) => (Incoming::End, 0),
            Ok(count) => (Incoming::Some, count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (Incoming::Nothing, 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => (Incoming::End, 0),
        };
    }
}

/// Writes as much as the socket takes.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Thousands of them.
const _: () = assert!(size_of::<Conn>() <= 160);
