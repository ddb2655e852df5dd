//! One request and its answer, blocking: for looking at a server beside a crowd.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};

use super::config::{Target, Trust};
use super::http::Response;
use super::tls::{client_config, server_name};

/// Longest body that is kept.
const BODY_MAX: usize = 4 << 20;

/// Asks for an address; the status and the body, up to 4 MiB of it. Of a body that goes on for ever, what came within
/// `patience`.
///
/// # Errors
/// If there is no connection, no TLS or no answer within `patience`.
pub fn fetch(url: &str, trust: &Trust, patience: Duration) -> io::Result<(u16, Vec<u8>)> {
    let target = Target::resolve(url).map_err(io::Error::other)?;
    let end = Instant::now() + patience;
    let stream = TcpStream::connect_timeout(&target.address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    if !target.tls {
        return ask(stream, &target, end);
    }
    let config = client_config(trust).map_err(io::Error::other)?;
    let name = server_name(&target.host).map_err(io::Error::other)?;
    let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    ask(StreamOwned::new(connection, stream), &target, end)
}

fn ask(mut stream: impl Read + Write, target: &Target, end: Instant) -> io::Result<(u16, Vec<u8>)> {
    let Target { path, authority, .. } = target;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: minassa-rehearse\r\n\r\n")?;
    stream.flush()?;
    let (mut response, mut body, mut buffer) = (Response::new(), Vec::new(), vec![0; 16 * 1024]);
    while !response.is_done() && body.len() < BODY_MAX && Instant::now() < end {
        let read = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            // What has come counts, however it ended.
            Err(_) if response.status() != 0 => break,
            Err(error) => return Err(error),
        };
        response
            .feed(&buffer[..read], &mut |bytes| body.extend_from_slice(bytes))
            .map_err(io::Error::other)?;
        if response.status() != 0 && response.status() != 200 {
            break;
        }
    }
    match response.status() {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        status => Ok((status, body)),
    }
}
