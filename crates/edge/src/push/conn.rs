//! One connection at the push door: what it is doing, and how bytes come in and go out.

use std::io::{self, Read as _, Write as _};

use fanout::{Cursor, Output, Skips, Slot, Step, Window};
use formats::mp3::icy::{Interleaver, TitleBlock};
use http::request;
use mio::net::TcpStream;
use model::Rendition;

use super::head::BodyWriter;
use super::measure::Counts;

/// Bytes made for a listener at once. What a socket does not take of them is kept, so this bounds what a slow listener
/// costs beside the kernel's buffer.
const FLUSH_BYTES: usize = 16 * 1024;
/// Bytes one listener gets in one turn before others have theirs.
const VISIT_BYTES: usize = 4 * FLUSH_BYTES;
/// Bytes a listener may send after its request, which nobody wants; a player sends none.
const NOISE_BYTES: u32 = 64 * 1024;

/// A connection. Kept small: there are thousands, and most of them listen.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    /// Which of all connections that had this place.
    pub(crate) generation: u32,
    /// Second of the loop's clock at which its present state began, or at which it last took something.
    pub(crate) since: u32,
    /// What the socket has not taken yet.
    unsent: Option<Box<Unsent>>,
    pub(crate) state: State,
}

/// What a connection is doing.
#[derive(Debug)]
pub(crate) enum State {
    /// Its request is coming in.
    Reading(Vec<u8>),
    /// Its request is here, and waits for what nobody knows yet. `asked` once the disk is looked at.
    Waiting { head: Box<request::Parts>, asked: bool },
    /// It listens.
    Listening(Listener),
    /// Its last bytes are going out.
    Leaving,
    /// Everything is out, and so is our end; the peer's is awaited, or the answer might be lost (RFC 9112 section 9.6).
    Parting,
}

/// A listener.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) cursor: Cursor,
    pub(crate) slot: Slot,
    /// The hall it is in.
    pub(crate) hall: u16,
    /// What it asked for, whatever it has been moved to.
    pub(crate) wanted: Rendition,
    pub(crate) chunked: bool,
    /// Whether the last of its response has been made.
    pub(crate) is_complete: bool,
    noise: u32,
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
    pub(crate) fn new(stream: TcpStream, generation: u32, since: u32) -> Self {
        Self { stream, generation, since, unsent: None, state: State::Reading(Vec::new()) }
    }

    /// Whether its socket is full.
    pub(crate) fn is_blocked(&self) -> bool {
        self.unsent.is_some()
    }

    /// Reads what has come in, at most what fits the buffer's spare room.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> (Incoming, usize) {
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => (Incoming::End, 0),
                Ok(count) => (Incoming::Some, count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (Incoming::Nothing, 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => (Incoming::End, 0),
            };
        }
    }

    /// Throws away what a listener says; `false` if it is gone or says too much.
    pub(crate) fn ignore_incoming(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            let (incoming, count) = self.receive(buffer);
            match incoming {
                Incoming::Nothing => return true,
                Incoming::End => return false,
                Incoming::Some => {}
            }
            if let State::Listening(listener) = &mut self.state {
                listener.noise = listener.noise.saturating_add(count as u32);
                if listener.noise > NOISE_BYTES {
                    return false;
                }
            }
        }
    }

    /// Sends bytes; what the socket does not take is kept. Nothing may be waiting.
    pub(crate) fn send(&mut self, bytes: &[u8], now: u32) -> Progress {
        debug_assert!(self.unsent.is_none(), "bytes go out in their order");
        match write(&mut self.stream, bytes) {
            Ok(count) if count == bytes.len() => {
                self.since = now;
                Progress::Done
            }
            Ok(count) => {
                self.since = now;
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
                if count > 0 {
                    self.since = now;
                }
                unsent.at += count;
                if unsent.at < unsent.bytes.len() {
                    return Progress::Full;
                }
                self.unsent = None;
                Progress::Done
            }
            Err(_) => Progress::Gone,
        }
    }

    /// Gives a listener what is there for it. `prefix` goes before everything, once.
    pub(crate) fn visit(
        &mut self,
        window: &Window,
        scratch: &mut Vec<u8>,
        prefix: &[u8],
        now: u32,
        tally: &mut Tally,
    ) -> Progress {
        if self.unsent.is_some() {
            return Progress::Full;
        }
        let mut sent = 0;
        scratch.clear();
        scratch.extend_from_slice(prefix);
        loop {
            let State::Listening(listener) = &mut self.state else { return Progress::Done };
            if !listener.is_complete {
                listener.gather(window, scratch, tally);
            }
            let is_complete = listener.is_complete;
            let done = if is_complete { Progress::Ended } else { Progress::Done };
            if scratch.is_empty() {
                return done;
            }
            let length = scratch.len();
            sent += length;
            tally.bytes += length as u64;
            tally.writes += 1;
            match self.send(scratch, now) {
                Progress::Done if is_complete || length < FLUSH_BYTES => return done,
                Progress::Done if sent >= VISIT_BYTES => return Progress::More,
                Progress::Done => scratch.clear(),
                other => return other,
            }
        }
    }

    /// From now on only the peer's end is awaited.
    pub(crate) fn part(&mut self, now: u32) {
        self.shut_down();
        self.state = State::Parting;
        self.since = now;
    }

    /// Says that nothing more will come from us.
    pub(crate) fn shut_down(&self) {
        // Fails only if the peer is gone already.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}

impl Listener {
    pub(crate) fn new(
        cursor: Cursor,
        slot: Slot,
        hall: u16,
        wanted: Rendition,
        chunked: bool,
        metadata: Option<(Interleaver, TitleBlock)>,
    ) -> Self {
        let metadata = metadata.map(|(interleaver, title)| Box::new(Metadata { interleaver, title }));
        Self { cursor, slot, hall, wanted, chunked, is_complete: false, noise: 0, metadata }
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
                    let mut pieces = Vec::new();
                    metadata.interleaver.weave(bytes, &metadata.title, &mut pieces);
                    pieces.iter().for_each(|piece| body.push(piece));
                }
            }
        }
        body.finish(self.is_complete);
        let after = self.cursor.skips();
        tally.skips.behind += after.behind - before.behind;
        tally.skips.missing += after.missing - before.missing;
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
