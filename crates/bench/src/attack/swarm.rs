//! Many connections on one thread, each led by a script that knows nothing of sockets.
//!
//! ```text
//! Pace ── how many may begin ──► seat: Script ◄─ Happened ─ Link ◄──► TCP, or TLS over it
//!                                      └─ bytes, Next ──────►
//! ```
//!
//! Attackers and honest newcomers are led alike; what differs is the script. Everything is bounded: connections at once,
//! how many begin a second and in all, the time of the whole, and the bytes that wait for a socket.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// Most connections of one process, below the hard limit of 20,000 files.
pub(crate) const AT_ONCE_MAX: usize = 19_500;
/// Kinds of outcome told apart; more are counted together.
const KINDS_MAX: usize = 64;
/// Bytes that may wait for a socket before a script is asked for more.
const PENDING_MAX: usize = 256 * 1024;
/// Bytes read at a time.
const READ: usize = 64 * 1024;
/// What the kernel may keep for a script that hardly reads.
const SMALL: usize = 4 * 1024;
/// Most connections that begin in one turn of the loop.
const BEGIN_MAX: usize = 256;
/// Longest turn, ms.
const TURN_MS: u64 = 5;

/// What came of a swarm, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notes(pub(crate) BTreeMap<String, u64>);

impl Notes {
    /// Counts one of a kind.
    pub(crate) fn count(&mut self, kind: &str) {
        self.add(kind, 1);
    }

    /// Counts several of a kind.
    pub(crate) fn add(&mut self, kind: &str, times: u64) {
        let kind = if self.0.len() < KINDS_MAX || self.0.contains_key(kind) { kind } else { "other" };
        match self.0.get_mut(kind) {
            Some(count) => *count += times,
            None => _ = self.0.insert(kind.to_owned(), times),
        }
    }

    /// Keeps the greatest value of a kind.
    pub(crate) fn peak(&mut self, kind: &str, value: u64) {
        let before = self.of(kind);
        self.add(kind, value.saturating_sub(before));
    }

    /// How many there were of a kind.
    pub(crate) fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    /// Adds all of another's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (kind, times) in &other.0 {
            self.add(kind, *times);
        }
    }
}

impl std::fmt::Display for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<_> = self.0.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
        f.write_str(&all.join(", "))
    }
}

/// What a script is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happened<'b> {
    /// Its connection can be spoken on.
    Open,
    /// Bytes came.
    Received(&'b [u8]),
    /// The time it asked for has come.
    Due,
    /// Its connection could not be made.
    Refused,
    /// Its connection was ended by the other side.
    Closed,
}

/// What a script may do with.
pub(crate) struct Scene<'s> {
    /// Since the swarm began, ms.
    pub(crate) now_ms: u64,
    /// What is to be sent. What waits for the socket is still in it.
    pub(crate) out: &'s mut Vec<u8>,
    /// What came of it.
    pub(crate) notes: &'s mut Notes,
}

impl Scene<'_> {
    /// Whether the other side takes what it is sent: more may be said.
    pub(crate) fn is_taken(&self) -> bool {
        self.out.len() < PENDING_MAX
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Go on, and be told when it is `due_ms`, if that is asked for. Of what comes no more than `read` bytes are taken
    /// until then.
    Wait { due_ms: Option<u64>, read: usize },
    /// Leave this connection, and be told when it is `due_ms`.
    Rest { due_ms: u64 },
    /// Leave this connection if there is one, and open another to this door.
    Go { door: usize },
    /// The script is over.
    Done,
}

impl Next {
    /// Wait for what comes.
    pub(crate) const LISTEN: Self = Self::Wait { due_ms: None, read: usize::MAX };

    /// Wait for what comes, until then.
    pub(crate) const fn until(due_ms: u64) -> Self {
        Self::Wait { due_ms: Some(due_ms), read: usize::MAX }
    }

    /// Take nothing until then.
    pub(crate) const fn deaf_until(due_ms: u64) -> Self {
        Self::Wait { due_ms: Some(due_ms), read: 0 }
    }
}

/// Leads one connection, or several one after the other.
pub(crate) trait Script {
    /// The door it begins at.
    fn first_door(&self) -> usize {
        0
    }

    /// Takes what happened, and says what comes next.
    fn act(&mut self, happened: Happened<'_>, scene: &mut Scene<'_>) -> Next;
}

/// How many come, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// Scripts that begin a second.
    pub(crate) per_second: f64,
    /// Scripts at once.
    pub(crate) at_once: usize,
    /// Scripts in all.
    pub(crate) in_all: u64,
    /// When no more begin, s.
    pub(crate) seconds: f64,
    /// When everything ends, s.
    pub(crate) end_s: f64,
}

impl Pace {
    /// How many may begin now, when so many have begun and so many are there.
    pub(crate) fn due(&self, now_ms: u64, begun: u64, there: usize) -> usize {
        let now_s = now_ms as f64 / 1e3;
        if now_s >= self.seconds {
            return 0;
        }
        let by_now = (self.per_second * now_s) as u64 + 1;
        let wanted = by_now.min(self.in_all).saturating_sub(begun);
        let room = self.at_once.min(AT_ONCE_MAX).saturating_sub(there);
        usize::try_from(wanted).unwrap_or(usize::MAX).min(room)
    }

    /// Whether nobody comes any more.
    fn is_over(&self, now_ms: u64, begun: u64) -> bool {
        begun >= self.in_all || now_ms as f64 / 1e3 >= self.seconds
    }
}

/// Where connections come from: addresses of 127.0.0.0/8, as from several networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// The second byte of the addresses.
    pub(crate) net: u8,
    /// Networks (/24) they are spread over, 1 to 250.
    pub(crate) networks: u32,
    /// Addresses of each, 1 to 250.
    pub(crate) hosts: u32,
}

impl Sources {
    /// The address of the `n`th connection.
    pub(crate) fn at(&self, n: u64) -> Ipv4Addr {
        let (networks, hosts) = (u64::from(self.networks.clamp(1, 250)), u64::from(self.hosts.clamp(1, 250)));
        let host = (n / networks) % hosts;
        Ipv4Addr::new(127, self.net, (n % networks) as u8, 1 + host as u8)
    }
}

/// What a swarm is.
pub(crate) struct Swarm {
    /// The doors that scripts may go to.
    pub(crate) doors: Vec<SocketAddr>,
    /// TLS, if it is spoken.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) pace: Pace,
    pub(crate) sources: Sources,
    /// Whether the kernel is to keep little for them.
    pub(crate) small: bool,
}

struct Link {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    open: bool,
    readable: bool,
}

struct Seat<'s> {
    script: Box<dyn Script + 's>,
    link: Option<Link>,
    out: Vec<u8>,
    due_ms: Option<u64>,
    read: usize,
    number: u64,
}

/// Leads them all, to the end of [`Pace`], and says what came of it.
///
/// # Errors
/// If the system does not tell about events.
pub(crate) fn run<'s>(swarm: &Swarm, make: impl FnMut(u64) -> Box<dyn Script + 's>) -> Result<Notes> {
    Loop::new(swarm)?.run(make)
}

struct Loop<'w, 's> {
    swarm: &'w Swarm,
    poll: Poll,
    begun: Instant,
    seats: Vec<Option<Seat<'s>>>,
    free: Vec<usize>,
    dues: BTreeSet<(u64, usize)>,
    notes: Notes,
    buffer: Vec<u8>,
}

impl<'w, 's> Loop<'w, 's> {
    fn new(swarm: &'w Swarm) -> Result<Self> {
        Ok(Self {
            swarm,
            poll: Poll::new().context("cannot wait for events")?,
            begun: Instant::now(),
            seats: Vec::new(),
            free: Vec::new(),
            dues: BTreeSet::new(),
            notes: Notes::default(),
            buffer: vec![0; READ],
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn there(&self) -> usize {
        self.seats.len() - self.free.len()
    }

    fn run(mut self, mut make: impl FnMut(u64) -> Box<dyn Script + 's>) -> Result<Notes> {
        let mut events = Events::with_capacity(4_096);
        let mut begun = 0;
        loop {
            let now_ms = self.now_ms();
            let pace = &self.swarm.pace;
            if now_ms as f64 / 1e3 >= pace.end_s || (pace.is_over(now_ms, begun) && self.there() == 0) {
                break;
            }
            for _ in 0..pace.due(now_ms, begun, self.there()).min(BEGIN_MAX) {
                self.begin(begun, make(begun));
                begun += 1;
            }
            self.notes.peak("at once", self.there() as u64);
            let next = self.dues.first().map_or(TURN_MS, |(due, _)| due.saturating_sub(now_ms).min(TURN_MS));
            match self.poll.poll(&mut events, Some(Duration::from_millis(next))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(error).context("cannot wait for events");
                }
                _ => {}
            }
            for event in &events {
                let Some(Some(seat)) = self.seats.get_mut(event.token().0) else { continue };
                if let Some(link) = &mut seat.link {
                    link.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
                }
                self.drive(event.token().0);
            }
            let now_ms = self.now_ms();
            while let Some((due, index)) = self.dues.first().copied().filter(|(due, _)| *due <= now_ms) {
                self.dues.remove(&(due, index));
                if let Some(Some(seat)) = self.seats.get_mut(index) {
                    seat.due_ms = None;
                }
                self.tell(index, Happened::Due);
                self.drive(index);
            }
        }
        self.notes.add("begun", begun);
        Ok(self.notes)
    }

    fn begin(&mut self, number: u64, script: Box<dyn Script + 's>) {
        let door = script.first_door();
        let seat = Seat { script, link: None, out: Vec::new(), due_ms: None, read: usize::MAX, number };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.seats.push(None);
                self.seats.len() - 1
            }
        };
        self.seats[index] = Some(seat);
        self.go(index, door);
    }

    /// Opens a connection to a door.
    fn go(&mut self, index: usize, door: usize) {
        let Some(Some(seat)) = self.seats.get_mut(index) else { return };
        seat.out.clear();
        seat.link = None;
        // Whoever comes again comes from where it came.
        let source = self.swarm.sources.at(seat.number);
        let made = self
            .swarm
            .doors
            .get(door)
            .context("no such door")
            .and_then(|target| dial(*target, source, self.swarm, self.poll.registry(), Token(index)));
        match made {
            Ok(link) => seat.link = Some(link),
            Err(error) => {
                self.notes.count(&format!("cannot dial: {error:#}"));
                self.tell(index, Happened::Refused);
            }
        }
    }

    /// Tells a script what happened.
    fn tell(&mut self, index: usize, happened: Happened<'_>) {
        let now_ms = self.now_ms();
        let Some(Some(seat)) = self.seats.get_mut(index) else { return };
        let mut scene = Scene { now_ms, out: &mut seat.out, notes: &mut self.notes };
        let next = seat.script.act(happened, &mut scene);
        self.follow(index, next, now_ms);
    }

    /// Tells a script of so many bytes that were read.
    fn hand_over(&mut self, index: usize, count: usize) {
        let now_ms = self.now_ms();
        let Some(Some(seat)) = self.seats.get_mut(index) else { return };
        let mut scene = Scene { now_ms, out: &mut seat.out, notes: &mut self.notes };
        let next = seat.script.act(Happened::Received(&self.buffer[..count]), &mut scene);
        self.follow(index, next, now_ms);
    }

    /// Does what comes next.
    fn follow(&mut self, index: usize, next: Next, now_ms: u64) {
        let Some(Some(seat)) = self.seats.get_mut(index) else { return };
        if let Some(due) = seat.due_ms.take() {
            self.dues.remove(&(due, index));
        }
        match next {
            Next::Wait { due_ms, read } => {
                seat.read = read;
                seat.due_ms = due_ms.map(|due| due.max(now_ms + 1));
                if let Some(due) = seat.due_ms {
                    self.dues.insert((due, index));
                } else if seat.link.is_none() {
                    // Nothing will ever happen to it.
                    self.end(index);
                }
            }
            Next::Rest { due_ms } => {
                let due = due_ms.max(now_ms + 1);
                (seat.link, seat.due_ms) = (None, Some(due));
                seat.out.clear();
                self.dues.insert((due, index));
            }
            Next::Go { door } => self.go(index, door),
            Next::Done => self.end(index),
        }
    }

    fn end(&mut self, index: usize) {
        if let Some(seat) = self.seats.get_mut(index).and_then(Option::take) {
            if let Some(due) = seat.due_ms {
                self.dues.remove(&(due, index));
            }
            self.free.push(index);
        }
    }

    /// Takes a connection as far as it goes now.
    fn drive(&mut self, index: usize) {
        // A script may go from door to door, but not for ever in one turn.
        for _ in 0..16 {
            let Some(Some(seat)) = self.seats.get_mut(index) else { return };
            let Some(link) = &mut seat.link else { return };
            let was_open = link.open;
            match link.step(&mut seat.out, seat.read, &mut self.buffer) {
                Ok(Step::Idle) => return,
                Ok(Step::Opened) => self.tell(index, Happened::Open),
                Ok(Step::Received(count)) => self.hand_over(index, count),
                Err(error) => {
                    seat.link = None;
                    seat.out.clear();
                    if was_open {
                        self.tell(index, Happened::Closed);
                    } else {
                        self.notes.count(&format!("not opened: {}", error.kind()));
                        self.tell(index, Happened::Refused);
                    }
                }
            }
        }
        // The rest in the next turn: the system tells of it no more.
        if let Some(Some(seat)) = self.seats.get_mut(index)
            && seat.due_ms.is_none()
            && seat.link.is_some()
        {
            let due = self.begun.elapsed().as_millis() as u64 + 1;
            seat.due_ms = Some(due);
            self.dues.insert((due, index));
        }
    }
}

enum Step {
    Idle,
    Opened,
    Received(usize),
}

impl Link {
    fn step(&mut self, out: &mut Vec<u8>, read: usize, buffer: &mut [u8]) -> io::Result<Step> {
        if !self.open {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(Step::Idle),
                Err(error) => return Err(error),
            }
        }
        let Some(tls) = &mut self.tls else {
            if !self.open {
                self.open = true;
                return Ok(Step::Opened);
            }
            write_all(&mut self.stream, out)?;
            if !self.readable || read == 0 {
                return Ok(Step::Idle);
            }
            let room = read.min(buffer.len());
            return match self.stream.read(&mut buffer[..room]) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => Ok(Step::Received(count)),
                Err(error) => blocked(error, &mut self.readable),
            };
        };
        loop {
            // It keeps only so much: what is left over goes in once that is written.
            loop {
                if self.open {
                    let taken = tls.writer().write(out)?;
                    out.drain(..taken);
                }
                flush(tls, &mut self.stream)?;
                if out.is_empty() || !self.open || tls.wants_write() {
                    break;
                }
            }
            if !self.open && !tls.is_handshaking() {
                self.open = true;
                return Ok(Step::Opened);
            }
            if read == 0 {
                return Ok(Step::Idle);
            }
            let room = read.min(buffer.len());
            match tls.reader().read(&mut buffer[..room]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => return Ok(Step::Received(count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if !self.readable {
                return Ok(Step::Idle);
            }
            match tls.read_tls(&mut self.stream) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => _ = tls.process_new_packets().map_err(io::Error::other)?,
                Err(error) => {
                    blocked(error, &mut self.readable)?;
                }
            }
        }
    }
}

/// Writes what TLS has to say, as far as the socket takes it.
fn flush(tls: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn blocked(error: io::Error, readable: &mut bool) -> io::Result<Step> {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            *readable = false;
            Ok(Step::Idle)
        }
        io::ErrorKind::Interrupted => Ok(Step::Idle),
        _ => Err(error),
    }
}

fn write_all(stream: &mut TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    let mut sent = 0;
    let result = loop {
        if sent == out.len() {
            break Ok(());
        }
        match stream.write(&out[sent..]) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    out.drain(..sent);
    result
}

fn dial(
    target: SocketAddr,
    source: Ipv4Addr,
    swarm: &Swarm,
    registry: &Registry,
    token: Token,
) -> Result<Link> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    // Leaving resets: tens of thousands of connections that wait out their time would hold the ports.
    socket.set_linger(Some(Duration::ZERO))?;
    if swarm.small {
        socket.set_recv_buffer_size(SMALL)?;
    }
    if target.ip().is_ipv4() {
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            return Err(error.into());
        }
        _ => {}
    }
    let mut stream = TcpStream::from_std(socket.into());
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    let tls = match &swarm.tls {
        Some(config) => {
            let name = ServerName::try_from("localhost")?;
            Some(Box::new(ClientConnection::new(Arc::clone(config), name)?))
        }
        None => None,
    };
    Ok(Link { stream, tls, open: false, readable: false })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn nobody_comes_before_their_time_or_beyond_their_number() {
        let pace = Pace { per_second: 100.0, at_once: 30, in_all: 150, seconds: 4.0, end_s: 5.0 };
        assert_eq!(pace.due(0, 0, 0), 1);
        assert_eq!(pace.due(100, 1, 1), 10);
        // No more than may be there at once.
        assert_eq!(pace.due(1_000, 1, 25), 5);
        // No more than in all, and not after its time.
        assert_eq!(pace.due(3_000, 148, 0), 2);
        assert_eq!(pace.due(4_000, 20, 0), 0);
        assert!(pace.is_over(0, 150) && pace.is_over(4_000, 0) && !pace.is_over(3_999, 149));
    }

    #[test]
    fn sources_are_spread_over_networks_first() {
        let sources = Sources { net: 66, networks: 3, hosts: 2 };
        let all: Vec<_> = (0..7).map(|n| sources.at(n).octets()[2..].to_vec()).collect();
        assert_eq!(all, [[0, 1], [1, 1], [2, 1], [0, 2], [1, 2], [2, 2], [0, 1]]);
        assert!((0..7).all(|n| sources.at(n).is_loopback()));
        assert!(Sources { net: 1, networks: 0, hosts: 0 }.at(9).is_loopback());
    }

    #[test]
    fn kinds_are_bounded() {
        let mut notes = Notes::default();
        for n in 0..200 {
            notes.count(&n.to_string());
        }
        assert_eq!((notes.0.len(), notes.of("7"), notes.of("other")), (KINDS_MAX + 1, 1, 136));
        notes.peak("7", 9);
        notes.peak("7", 4);
        assert_eq!(notes.of("7"), 9);
        let mut both = notes.clone();
        both.merge(&notes);
        assert_eq!(both.of("other"), 272);
    }

    /// Says `hello`, waits for its echo at the second door, and is done.
    struct Echo {
        at: usize,
    }

    impl Script for Echo {
        fn act(&mut self, happened: Happened<'_>, scene: &mut Scene<'_>) -> Next {
            match happened {
                Happened::Open => {
                    scene.out.extend_from_slice(b"hello");
                    Next::LISTEN
                }
                Happened::Received(b"hello") if self.at == 0 => {
                    self.at = 1;
                    Next::Go { door: 1 }
                }
                Happened::Received(b"hello") => {
                    scene.notes.count("heard");
                    Next::Done
                }
                _ => {
                    scene.notes.count("trouble");
                    Next::Done
                }
            }
        }
    }

    #[test]
    fn a_script_goes_from_door_to_door() {
        let doors: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let swarm = Swarm {
            doors: doors.iter().map(|door| door.local_addr().unwrap()).collect(),
            tls: None,
            pace: Pace { per_second: 1e6, at_once: 3, in_all: 5, seconds: 20.0, end_s: 20.0 },
            sources: Sources { net: 66, networks: 2, hosts: 2 },
            small: false,
        };
        for door in doors {
            thread::spawn(move || {
                for stream in door.incoming().take(5).flatten() {
                    thread::spawn(move || io::copy(&mut &stream, &mut &stream));
                }
            });
        }
        let notes = run(&swarm, |_| Box::new(Echo { at: 0 })).unwrap();
        assert_eq!((notes.of("heard"), notes.of("begun"), notes.of("trouble")), (5, 5, 0), "{notes}");
        assert!(notes.of("at once") <= 3);
    }
}
