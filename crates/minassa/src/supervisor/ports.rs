//! The doors' ports: found to be free, chosen, and kept.
//!
//! A port that was chosen stays reserved for the life of the server by a socket that is bound and does not listen:
//! while a child restarts, nobody else can take its door. (Linux lets a socket with `SO_REUSEADDR` bind beside it
//! as long as it does not listen, and edges share theirs with `SO_REUSEPORT`.)

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Why a door cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({flag}): {}", reason(.source))]
pub struct PortError {
    /// Where it was to be.
    pub address: SocketAddr,
    /// The flag, or key of the configuration, that sets it.
    pub flag: &'static str,
    /// What the system says.
    pub source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use by another program; stop it, or choose another port (0 picks a free one)"
                .into()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        io::ErrorKind::PermissionDenied => {
            "the system does not allow it; ports below 1024 need a privilege".into()
        }
        _ => error.to_string(),
    }
}

/// A TCP port that is kept.
#[derive(Debug)]
pub struct Reserved {
    address: SocketAddr,
    _placeholder: Socket,
}

impl Reserved {
    /// The address, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Finds out whether `address` is free, chooses a port if it names port 0, and keeps it.
///
/// # Errors
/// [`PortError`], which names the flag.
pub fn reserve(address: SocketAddr, flag: &'static str) -> Result<Reserved, PortError> {
    let failed = |source| PortError { address, flag, source };
    if address.port() != 0 {
        // With SO_REUSEADDR connections of a server that just went do not count as use, a listener does.
        let probe = bind(address, false).map_err(failed)?;
        probe.listen(1).map_err(failed)?;
    }
    let placeholder = bind(address, true).map_err(failed)?;
    let bound = placeholder
        .local_addr()
        .and_then(|bound| bound.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into()))
        .map_err(failed)?;
    Ok(Reserved { address: bound, _placeholder: placeholder })
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Finds out whether the UDP port is free, and chooses one if `address` names port 0. It is not kept: a datagram
/// socket beside another would take its packets.
///
/// # Errors
/// [`PortError`], which names the flag.
pub fn probe_udp(address: SocketAddr, flag: &'static str) -> Result<SocketAddr, PortError> {
    UdpSocket::bind(address).and_then(|socket| socket.local_addr()).map_err(|source| PortError {
        address,
        flag,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    /// Another test may be starting a program: until that is under way it holds a copy of every socket, those that
    /// were closed here included.
    fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
        acceptance::wait_for("a port", Duration::from_secs(30), || Ok(attempt())).unwrap()
    }

    #[test]
    fn a_port_in_use_is_named_with_its_flag() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let message = reserve(address, "--listen").unwrap_err().to_string();
        assert!(message.contains(&address.to_string()) && message.contains("--listen"), "{message}");
        assert!(message.contains("in use"), "{message}");
        drop(other);
        eventually(|| reserve(address, "--listen").ok());

        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(probe_udp(other.local_addr().unwrap(), "origin.media_listen").is_err());
    }

    #[test]
    fn a_reserved_port_is_kept_for_our_own() {
        let reserved = reserve("127.0.0.1:0".parse().unwrap(), "--listen").unwrap();
        let address = reserved.address();
        assert_ne!(address.port(), 0);
        for reuse_port in [false, true] {
            // A child may listen beside the placeholder, die, and listen again.
            for _ in 0..2 {
                let listener = eventually(|| backend::http::bind(address, reuse_port).ok());
                let client = std::net::TcpStream::connect(address).unwrap();
                listener.set_nonblocking(false).unwrap();
                listener.accept().unwrap();
                drop(client);
            }
        }
        // Two edges share it.
        let _one = eventually(|| backend::http::bind(address, true).ok());
        let _two = backend::http::bind(address, true).unwrap();
        // Somebody else who asks for it in the ordinary way is refused.
        assert_eq!(reserve(address, "--listen").unwrap_err().source.kind(), io::ErrorKind::AddrInUse);
    }
}
