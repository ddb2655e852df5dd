//! One connection of the crowd, plain or TLS, in an edge-triggered epoll set.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};

use super::config::Target;
use super::tls::{Clients, Sealed, Shaking, TlsError, server_name};
use crate::record::{RecordError, record_length};

/// Bytes read at once.
const READ: usize = 256 * 1024;
/// Receive buffer of whoever does not mean to read, bytes: the less it takes, the more its server has to keep.
const SMALL: usize = 4_096;
/// Source addresses that one process spreads its connections over when the target is loopback, so that ports do not
/// run out.
const SOURCES: u32 = 16;

/// Why a connection is no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("connect: {}", .0.kind())]
    Connect(io::Error),
    #[error("socket: {}", .0.kind())]
    Socket(io::Error),
    #[error("read: {}", .0.kind())]
    Read(io::Error),
    #[error("write: {}", .0.kind())]
    Write(io::Error),
    #[error("closed by the server")]
    Closed,
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl From<RecordError> for LinkError {
    fn from(error: RecordError) -> Self {
        Self::Tls(error.into())
    }
}

enum Stage {
    /// TCP, and what comes after it.
    Connecting(Option<Box<Shaking>>),
    Shaking(Box<Shaking>),
    Plain,
    Sealed(Box<Sealed>),
}

/// What came of looking at a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// TCP is established now.
    pub(crate) connected: bool,
    /// It can be spoken on now.
    pub(crate) open: bool,
    /// Bytes read from the socket.
    pub(crate) bytes: u64,
    /// The server has properly said that it will say no more.
    pub(crate) ended: bool,
}

/// Shared by all connections of a process.
pub(crate) struct Dialer {
    tls: Option<Clients>,
    share: u32,
    mss: u32,
    dialled: u32,
    buffer: Vec<u8>,
}

impl Dialer {
    pub(crate) fn new(tls: Option<Clients>, share: usize, mss: u32) -> Self {
        let share = u32::try_from(share).unwrap_or(0);
        Self { tls, share, mss, dialled: 0, buffer: vec![0; READ] }
    }

    /// Begins to connect. Whoever does not mean to read has a `small` room for what comes; who comes for the `first` time
    /// brings no ticket.
    pub(crate) fn dial(
        &mut self,
        target: &Target,
        small: bool,
        first: bool,
        registry: &Registry,
        token: Token,
    ) -> Result<Link, LinkError> {
        let shaking = match (&self.tls, target.tls) {
            (Some(clients), true) => {
                let config = if first { &clients.first } else { &clients.later };
                let name: ServerName<'static> = server_name(&target.host)?;
                Some(Box::new(Shaking::new(config, name)?))
            }
            _ => None,
        };
        let socket = self.socket(target.address).map_err(LinkError::Socket)?;
        if small {
            socket.set_recv_buffer_size(SMALL).map_err(LinkError::Socket)?;
        }
        match socket.connect(&target.address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(LinkError::Connect(error));
            }
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry
            .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
            .map_err(LinkError::Socket)?;
        Ok(Link { stream, stage: Stage::Connecting(shaking), out: Vec::new() })
    }

    fn socket(&mut self, address: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Leaving resets: tens of thousands of connections that wait out their time would hold the ports.
        socket.set_linger(Some(Duration::ZERO))?;
        if self.mss > 0 {
            socket.set_tcp_mss(self.mss)?;
        }
        if let IpAddr::V4(ip) = address.ip()
            && ip.is_loopback()
        {
            let source = Ipv4Addr::from(0x7f01_0001 + (self.share << 12) + self.dialled % SOURCES);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        self.dialled = self.dialled.wrapping_add(1);
        Ok(socket)
    }

    /// Looks at a connection after the system said that something happened; `sink` gets what the application is told.
    /// `closing`: the system said that the other side has ended, which is to be read behind the last bytes.
    pub(crate) fn look(
        &mut self,
        link: &mut Link,
        closing: bool,
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<Progress, LinkError> {
        let mut progress = Progress::default();
        if let Stage::Connecting(shaking) = &mut link.stage {
            if let Some(error) = link.stream.take_error().map_err(LinkError::Connect)? {
                return Err(LinkError::Connect(error));
            }
            match link.stream.peer_addr() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(progress),
                Err(error) => return Err(LinkError::Connect(error)),
            }
            progress.connected = true;
            link.stage = match shaking.take() {
                Some(mut shaking) => {
                    shaking.advance(&[], &mut link.out)?;
                    Stage::Shaking(shaking)
                }
                None => {
                    progress.open = true;
                    Stage::Plain
                }
            };
        }
        link.flush()?;
        loop {
            let carried = link.take_carry(&mut self.buffer);
            let read = match link.stream.read(&mut self.buffer[carried..]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.put_carry(&self.buffer[..carried]);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    link.put_carry(&self.buffer[..carried]);
                    continue;
                }
                Err(error) => return Err(LinkError::Read(error)),
            };
            progress.bytes += read as u64;
            let all = carried + read;
            link.take(&mut self.buffer[..all], sink, &mut progress)?;
            link.flush()?;
            // A shorter read emptied the socket: what comes after it wakes us again.
            if progress.ended || (all < self.buffer.len() && !closing) {
                break;
            }
        }
        Ok(progress)
    }
}

/// A connection.
pub(crate) struct Link {
    stream: TcpStream,
    stage: Stage,
    /// What could not be written yet.
    out: Vec<u8>,
}

impl Link {
    /// Says something, once it is open.
    pub(crate) fn say(&mut self, words: &[u8]) -> Result<(), LinkError> {
        match &mut self.stage {
            Stage::Sealed(sealed) => sealed.seal(words, &mut self.out),
            _ => self.out.extend_from_slice(words),
        }
        self.flush()
    }

    /// Whether all that was said is on its way.
    pub(crate) fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        matches!(&self.stage, Stage::Sealed(sealed) if sealed.resumed)
    }

    /// No longer told when something happens.
    pub(crate) fn ignore(&mut self, registry: &Registry) -> Result<(), LinkError> {
        registry.deregister(&mut self.stream).map_err(LinkError::Socket)
    }

    /// Reads one byte of what is there, whatever it is.
    pub(crate) fn sip(&mut self) -> Result<(), LinkError> {
        match self.stream.read(&mut [0]) {
            Ok(0) => Err(LinkError::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(LinkError::Read(error)),
        }
    }

    /// Finds out, without reading, whether the server has reset it. A proper end behind unread bytes cannot be seen.
    pub(crate) fn listen_for_reset(&mut self) -> Result<(), LinkError> {
        match self.stream.take_error().map_err(LinkError::Socket)? {
            Some(error) => Err(LinkError::Read(error)),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => _ = self.out.drain(..written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LinkError::Write(error)),
            }
        }
        // Thousands of small rooms add up, and little is ever said again.
        self.out = Vec::new();
        Ok(())
    }

    /// Puts what was left of the last read before the next one.
    fn take_carry(&mut self, buffer: &mut [u8]) -> usize {
        let Stage::Sealed(sealed) = &mut self.stage else { return 0 };
        let carry = std::mem::take(&mut sealed.carry);
        buffer[..carry.len()].copy_from_slice(&carry);
        carry.len()
    }

    fn put_carry(&mut self, rest: &[u8]) {
        if let Stage::Sealed(sealed) = &mut self.stage
            && !rest.is_empty()
        {
            sealed.carry = rest.to_vec();
        }
    }

    fn take(
        &mut self,
        bytes: &mut [u8],
        sink: &mut impl FnMut(&[u8]),
        progress: &mut Progress,
    ) -> Result<(), LinkError> {
        match &mut self.stage {
            Stage::Connecting(_) => {}
            Stage::Plain => sink(bytes),
            Stage::Shaking(shaking) => {
                if shaking.advance(bytes, &mut self.out)? {
                    let Stage::Shaking(shaking) = std::mem::replace(&mut self.stage, Stage::Plain) else {
                        unreachable!("it was shaking one line above");
                    };
                    let mut sealed = shaking.finish()?;
                    let mut rest = std::mem::take(&mut sealed.carry);
                    self.stage = Stage::Sealed(Box::new(sealed));
                    progress.open = true;
                    self.take(&mut rest, sink, progress)?;
                }
            }
            Stage::Sealed(sealed) => {
                let mut rest = bytes;
                while let Some(length) = record_length(rest)? {
                    if rest.len() < length {
                        break;
                    }
                    let (record, after) = rest.split_at_mut(length);
                    if !sealed.open(record, &mut self.out, sink)? {
                        progress.ended = true;
                        return Ok(());
                    }
                    rest = after;
                }
                if !rest.is_empty() {
                    sealed.carry = rest.to_vec();
                }
            }
        }
        Ok(())
    }
}
