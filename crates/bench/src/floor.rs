//! The floor: the smallest program that does the one thing an edge cannot avoid, writing the same bytes at the same
//! cadence to as many sockets. Whatever an edge costs above it, it costs for what it does beside.
//!
//! The bytes are those of an edge: HTTP head, `init`, then flushes of whole parts, each with a notice. With TLS it
//! shakes hands by `rustls` and seals each record with the connection's key. It has no limits, no timeouts and no
//! manners: whoever does not take a flush at once is closed.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use formats::mp4;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use model::{MediaTime, PART_DURATION, Rendition};
use rehearse::record::{APPLICATION, Sealer};
use rustls::ServerConfig;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

use crate::material::{Material, now};
use crate::tls::{Shaking, is_request, server_config};

/// Token of the door.
const DOOR: Token = Token(usize::MAX);
/// Connections accepted in one turn.
const ACCEPTS: usize = 64;
/// Parts kept for those who come: as many as the slowest tier flushes.
const KEPT: usize = 16;
/// Most bytes of a request.
const REQUEST_MAX: usize = 16 * 1024;
/// A notice as an edge's.
const NOTICE: &[u8] = br#"{"s":"live","n":10000,"l":0,"t":1795374000480}"#;
/// The head of the response.
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mp4\r\nCache-Control: no-store\r\n\
    Access-Control-Allow-Origin: *\r\nConnection: close\r\n\r\n";

/// Flags of the floor.
#[derive(Clone, Debug, Args)]
pub struct FloorFlags {
    /// Where to listen; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Parts a flush: 1, 2, 4 or 8.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=8))]
    pub tier: u64,
    /// Slices of a flush interval over which listeners are spread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub spread: u64,
    /// Speak TLS, with a certificate that nobody is to trust.
    #[arg(long)]
    pub tls: bool,
    /// End after so many seconds [default: never].
    #[arg(long)]
    pub seconds: Option<u64>,
}

/// What a floor did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Flushes written.
    pub flushes: u64,
    /// Connections whose flush did not fit, and which were closed.
    pub short: u64,
    /// Connections that began to get the programme.
    pub joined: u64,
    /// Longest time a slice was late, µs.
    pub late_us_max: u64,
    /// Longest time a slice took, µs.
    pub slice_us_max: u64,
}

/// Serves until the time is over; prints its address, and what it did.
///
/// # Errors
/// If it cannot listen.
pub fn run(flags: &FloorFlags) -> Result<()> {
    let mut floor = Floor::bind(flags)?;
    let mut out = io::stdout();
    writeln!(out, "{}", serde_json::json!({ "listening": floor.address()? }))?;
    out.flush()?;
    let end = flags.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let done = floor.serve(|| end.is_some_and(|end| Instant::now() >= end))?;
    writeln!(out, "{}", serde_json::to_string(&done)?)?;
    Ok(())
}

enum Stage {
    Asking(Vec<u8>),
    Shaking(Box<Shaking>),
    Plain,
    Sealed(Box<Sealer>),
}

struct Listener {
    stream: TcpStream,
    stage: Stage,
}

/// A floor that listens.
pub struct Floor {
    poll: Poll,
    door: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    programme: Programme,
    /// By token; tokens are never given twice within one run.
    listeners: Vec<Option<Listener>>,
    /// Tokens of those who hear, by their slice.
    slices: Vec<Vec<usize>>,
    sealed: Vec<u8>,
    done: Done,
}

impl Floor {
    /// Listens.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub fn bind(flags: &FloorFlags) -> Result<Self> {
        // As many as the system lets it have; whether that is enough is the measurement's to see.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let most = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, most);
        let socket = Socket::new(Domain::for_address(flags.listen), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&flags.listen.into()).with_context(|| format!("cannot listen on {}", flags.listen))?;
        socket.listen(4_096)?;
        let mut door = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut door, DOOR, Interest::READABLE)?;
        Ok(Self {
            poll,
            door,
            tls: flags.tls.then(server_config).transpose()?,
            programme: Programme::new(flags.tier, flags.spread)?,
            listeners: Vec::new(),
            slices: (0..flags.spread).map(|_| Vec::new()).collect(),
            sealed: Vec::new(),
            done: Done::default(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.door.local_addr()
    }

    /// Serves until `is_over`.
    ///
    /// # Errors
    /// If the system does not tell about events.
    pub fn serve(&mut self, is_over: impl Fn() -> bool) -> Result<Done> {
        let mut events = Events::with_capacity(1_024);
        let mut buffer = vec![0; 16 * 1024];
        let mut more_at_the_door = false;
        let start = Instant::now();
        while !is_over() {
            let due = start + self.programme.due();
            let now = Instant::now();
            if now >= due {
                self.flush()?;
                let late = u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX);
                let took = u64::try_from(now.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.done.late_us_max = self.done.late_us_max.max(late);
                self.done.slice_us_max = self.done.slice_us_max.max(took);
            }
            let wait = if more_at_the_door { Duration::ZERO } else { due.saturating_duration_since(now) };
            match self.poll.poll(&mut events, Some(wait.min(Duration::from_millis(100)))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    DOOR => more_at_the_door = true,
                    Token(token) => self.look(token, &mut buffer),
                }
            }
            if more_at_the_door {
                more_at_the_door = self.accept()?;
            }
        }
        Ok(self.done)
    }

    /// Lets some in; whether there may be more.
    fn accept(&mut self) -> Result<bool> {
        for _ in 0..ACCEPTS {
            let mut stream = match self.door.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // Someone who left again, or no more files: the next one may do.
                Err(_) => continue,
            };
            stream.set_nodelay(true)?;
            let stage = match &self.tls {
                Some(config) => Stage::Shaking(Box::new(Shaking::new(config)?)),
                None => Stage::Asking(Vec::new()),
            };
            let token = self.listeners.len();
            self.poll.registry().register(&mut stream, Token(token), Interest::READABLE)?;
            self.listeners.push(Some(Listener { stream, stage }));
        }
        Ok(true)
    }

    fn look(&mut self, token: usize, buffer: &mut [u8]) {
        let Some(listener) = self.listeners.get_mut(token).and_then(Option::as_mut) else { return };
        loop {
            match listener.stream.read(buffer) {
                Ok(read) if read > 0 => match listener.hear(&buffer[..read]) {
                    Ok(false) => {}
                    Ok(true) => {
                        let slice = token % self.slices.len();
                        let first = self.programme.first(slice);
                        if listener.send(&first, &mut self.sealed) {
                            self.slices[slice].push(token);
                            self.done.joined += 1;
                            continue;
                        }
                        break;
                    }
                    Err(_) => break,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        self.listeners[token] = None;
    }

    /// Writes the next slice's flush to all of it.
    fn flush(&mut self) -> Result<()> {
        let slice = self.programme.advance()?;
        let flush = &self.programme.flush;
        let (listeners, sealed, done) = (&mut self.listeners, &mut self.sealed, &mut self.done);
        self.slices[slice].retain(|token| {
            let Some(listener) = &mut listeners[*token] else { return false };
            done.flushes += 1;
            if listener.send(flush, sealed) {
                return true;
            }
            done.short += 1;
            listeners[*token] = None;
            false
        });
        Ok(())
    }
}

impl Listener {
    /// Takes bytes; whether the request is there now.
    fn hear(&mut self, bytes: &[u8]) -> Result<bool> {
        match &mut self.stage {
            Stage::Asking(request) => {
                request.extend_from_slice(bytes);
                anyhow::ensure!(request.len() <= REQUEST_MAX, "a request that is too long");
                if !is_request(request) {
                    return Ok(false);
                }
                self.stage = Stage::Plain;
                Ok(true)
            }
            Stage::Shaking(shaking) => {
                let mut out = Vec::new();
                let asked = shaking.advance(bytes, &mut out)?;
                if !out.is_empty() {
                    anyhow::ensure!(self.stream.write(&out)? == out.len(), "a handshake that does not fit");
                }
                if asked {
                    let Stage::Shaking(shaking) = std::mem::replace(&mut self.stage, Stage::Plain) else {
                        unreachable!("it was shaking some lines above");
                    };
                    self.stage = Stage::Sealed(Box::new(shaking.finish()?));
                }
                Ok(asked)
            }
            // What listeners say later, as they update their keys, is nothing to a floor.
            Stage::Plain | Stage::Sealed(_) => Ok(false),
        }
    }

    /// Whether all of it was taken at once.
    fn send(&mut self, bytes: &[u8], sealed: &mut Vec<u8>) -> bool {
        let bytes = match &mut self.stage {
            Stage::Sealed(sealer) => {
                sealed.clear();
                sealer.seal(APPLICATION, bytes, sealed);
                sealed
            }
            _ => bytes,
        };
        self.stream.write(bytes).is_ok_and(|written| written == bytes.len())
    }
}

/// What is written when. Slice `s` of `n` flushes at `k·tier·480 ms + s·tier·480 ms / n`, all parts that were complete
/// by then: always as many as its tier.
struct Programme {
    material: Material,
    tier: u64,
    spread: u64,
    /// Flushes so far, of all slices.
    step: u64,
    /// The newest parts, the last of them number `next − 1`.
    parts: std::collections::VecDeque<bytes::Bytes>,
    next: u64,
    /// End of the last flush made, as a part's number.
    made: u64,
    flush: Vec<u8>,
}

impl Programme {
    fn new(tier: u64, spread: u64) -> Result<Self> {
        let event = "floor".parse().expect("it is a slug");
        let material = Material::silence(&event, now())?;
        let mut programme = Self {
            material,
            tier,
            spread,
            step: 0,
            parts: std::collections::VecDeque::new(),
            next: 0,
            made: 0,
            flush: Vec::new(),
        };
        programme.produce(KEPT as u64)?;
        Ok(programme)
    }

    fn produce(&mut self, until: u64) -> Result<()> {
        while self.next < until {
            self.parts.push_back(self.material.part()?.payload(Rendition::Opus48).bytes.clone());
            self.next += 1;
            if self.parts.len() > KEPT {
                self.parts.pop_front();
            }
        }
        Ok(())
    }

    /// When the next slice is due, from the beginning.
    fn due(&self) -> Duration {
        self.at(self.step)
    }

    fn at(&self, step: u64) -> Duration {
        let interval = PART_DURATION.as_nanos() as u64 * self.tier;
        Duration::from_nanos(step / self.spread * interval + step % self.spread * interval / self.spread)
    }

    /// End of what the flush of a step holds.
    fn end(&self, step: u64) -> u64 {
        KEPT as u64 + self.at(step).as_nanos() as u64 / PART_DURATION.as_nanos() as u64
    }

    /// Prepares the next flush; which slice it is for.
    fn advance(&mut self) -> Result<usize> {
        let end = self.end(self.step);
        self.produce(end)?;
        if self.made != end {
            self.made = end;
            self.flush = self.bytes(end - self.tier, end);
        }
        let slice = self.step % self.spread;
        self.step += 1;
        Ok(slice as usize)
    }

    /// What somebody gets first: a flush that ends where the slice's last one did.
    fn first(&self, slice: usize) -> Vec<u8> {
        let slice = slice as u64;
        // The last step of this slice; before its first, as if there had been one a whole interval earlier.
        let end = match (self.step + self.spread).checked_sub(slice + 1) {
            Some(behind) if behind / self.spread > 0 => {
                self.end((behind / self.spread - 1) * self.spread + slice)
            }
            _ => self.end(slice) - self.tier,
        };
        [HEAD, &mp4::opus_init(), &self.bytes(end - self.tier, end)].concat()
    }

    fn bytes(&self, from: u64, to: u64) -> Vec<u8> {
        let oldest = self.next - self.parts.len() as u64;
        let mut bytes =
            mp4::write_emsg("urn:minassa:status:1", "", to as u32, MediaTime::ZERO, NOTICE).to_vec();
        for number in from.max(oldest)..to.min(self.next) {
            bytes.extend_from_slice(&self.parts[(number - oldest) as usize]);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use formats::mp4::{StreamItem, StreamSplitter, parse_part};

    /// Numbers of the parts in these bytes.
    fn numbers(bytes: &[u8]) -> Vec<u64> {
        let mut splitter = StreamSplitter::new();
        splitter.push(bytes);
        let mut numbers = Vec::new();
        while let Some(item) = splitter.next().unwrap() {
            if let StreamItem::Part(part) = item {
                numbers.push(u64::from(parse_part(&part).unwrap().sequence) - 1);
            }
        }
        numbers
    }

    #[test]
    fn every_slice_gets_every_part_once_whenever_it_joins() {
        for (tier, spread) in [(1, 1), (1, 48), (2, 7), (4, 100), (8, 3), (8, 240)] {
            let mut programme = Programme::new(tier, spread).unwrap();
            // One listener a slice joins after each number of steps.
            let mut heard: Vec<(usize, Vec<u64>)> = Vec::new();
            for step in 0..3 * spread {
                for slice in [0, spread / 2, spread - 1] {
                    let first = programme.first(slice as usize);
                    heard.push((slice as usize, numbers(&first[HEAD.len()..])));
                }
                assert!(programme.at(step + 1) > programme.at(step));
                let slice = programme.advance().unwrap();
                let flush = numbers(&programme.flush);
                assert_eq!(flush.len() as u64, tier);
                for (of, numbers) in &mut heard {
                    if *of == slice {
                        numbers.extend(&flush);
                    }
                }
            }
            for (slice, numbers) in heard {
                let whole = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
                assert!(whole, "tier {tier}, slice {slice} of {spread}: {numbers:?}");
            }
        }
    }
}
