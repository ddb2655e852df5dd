//! Datagrams at the stage's port: STUN (RFC 8489), DTLS (RFC 6347) and RTP (RFC 3550) of nobody that was invited.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::requests::Draws;
use super::swarm::{Notes, Sources};

/// Sockets that a flood comes from.
const SOCKETS: u64 = 64;
/// Datagrams sent before the clock is looked at.
const BURST: u64 = 32;
/// Longest datagram, bytes.
const DATAGRAM_MAX: usize = 1_400;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datagram {
    /// Binding requests, with credentials that are guessed.
    Stun,
    /// ClientHellos.
    Dtls,
    /// RTP, and what looks like it.
    Rtp,
}

impl Datagram {
    /// The next of its kind. One of eight is spoilt: cut, or with a length that is a lie.
    pub(crate) fn make(self, draws: &mut Draws) -> Vec<u8> {
        let mut bytes = match self {
            Self::Stun => stun(draws),
            Self::Dtls => client_hello(draws),
            Self::Rtp => rtp(draws),
        };
        let draw = draws.draw();
        match draw % 16 {
            0 => bytes.truncate((draw >> 8) as usize % bytes.len()),
            1 => {
                let at = (draw >> 8) as usize % bytes.len();
                bytes[at] ^= 0xff;
            }
            _ => {}
        }
        bytes
    }
}

/// A binding request as ICE sends it (RFC 8489 section 5, RFC 8445 section 7.1), with an integrity that is none.
///
/// ```text
/// 0x0001 │ length │ 0x2112A442 │ transaction (12) │ USERNAME │ PRIORITY │ ICE-CONTROLLING │ USE-CANDIDATE │
/// MESSAGE-INTEGRITY (20) │ FINGERPRINT (CRC-32 xor 0x5354554e)
/// ```
pub(crate) fn stun(draws: &mut Draws) -> Vec<u8> {
    let mut bytes = vec![0x00, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    bytes.extend_from_slice(&draws.bytes(12));
    let name = format!("{:016x}:{:08x}", draws.draw(), draws.draw() as u32);
    attribute(&mut bytes, 0x0006, name.as_bytes());
    attribute(&mut bytes, 0x0024, &0x6e00_1eff_u32.to_be_bytes());
    let tie = draws.bytes(8);
    attribute(&mut bytes, 0x802a, &tie);
    attribute(&mut bytes, 0x0025, &[]);
    let integrity = draws.bytes(20);
    attribute(&mut bytes, 0x0008, &integrity);
    // The fingerprint is over a header that counts it.
    let length = (bytes.len() - 20 + 8) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let fingerprint = crc32(&bytes) ^ 0x5354_554e;
    attribute(&mut bytes, 0x8028, &fingerprint.to_be_bytes());
    bytes
}

fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(value);
    // To whole words (RFC 8489 section 14).
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// CRC-32 as STUN and Ethernet have it (ITU-T V.42).
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A ClientHello of DTLS 1.2 in one record (RFC 6347 sections 4.1 and 4.2.2), with what browsers offer for SRTP
/// (RFC 5764).
pub(crate) fn client_hello(draws: &mut Draws) -> Vec<u8> {
    let mut body = vec![0xfe, 0xfd];
    body.extend_from_slice(&draws.bytes(32));
    // Neither a session nor a cookie.
    body.extend_from_slice(&[0, 0]);
    let suites: [u16; 4] = [0xc02b, 0xc02f, 0xcca9, 0xc00a];
    body.extend_from_slice(&(2 * suites.len() as u16).to_be_bytes());
    suites.iter().for_each(|suite| body.extend_from_slice(&suite.to_be_bytes()));
    body.extend_from_slice(&[1, 0]);
    let mut extensions = Vec::new();
    for (kind, value) in [
        (10_u16, &[0, 4, 0, 29, 0, 23][..]), // supported_groups: x25519, secp256r1
        (11, &[1, 0][..]),                   // ec_point_formats
        (13, &[0, 4, 4, 3, 8, 4][..]),       // signature_algorithms
        (14, &[0, 4, 0, 7, 0, 1, 0][..]),    // use_srtp: AEAD_AES_128_GCM, AES128_CM_SHA1_80
        (23, &[][..]),                       // extended_master_secret
    ] {
        extensions.extend_from_slice(&kind.to_be_bytes());
        extensions.extend_from_slice(&(value.len() as u16).to_be_bytes());
        extensions.extend_from_slice(value);
    }
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    let [_, a, b, c] = (body.len() as u32).to_be_bytes();
    // Type, length, message 0, fragment from 0 of the same length.
    let mut message = vec![1, a, b, c, 0, 0, 0, 0, 0, a, b, c];
    message.extend_from_slice(&body);
    // Handshake, DTLS 1.0 as first records say, epoch 0, a sequence number.
    let mut record = vec![22, 0xfe, 0xff, 0, 0];
    record.extend_from_slice(&(draws.draw() % 1_000).to_be_bytes()[2..]);
    record.extend_from_slice(&(message.len() as u16).to_be_bytes());
    record.extend_from_slice(&message);
    record
}

/// A packet of RTP as a browser's Opus has it, of a source nobody knows.
pub(crate) fn rtp(draws: &mut Draws) -> Vec<u8> {
    let draw = draws.draw();
    let mut bytes = vec![0x80, 111];
    bytes.extend_from_slice(&(draw as u16).to_be_bytes());
    bytes.extend_from_slice(&((draw >> 16) as u32).to_be_bytes());
    bytes.extend_from_slice(&(draws.draw() as u32).to_be_bytes());
    let length = 40 + (draw >> 48) as usize % 120;
    bytes.extend_from_slice(&draws.bytes(length));
    bytes
}

/// Sends so many datagrams a second, for so long.
///
/// # Errors
/// If no socket can be had.
pub(crate) fn flood(
    kind: Datagram,
    target: SocketAddr,
    sources: Sources,
    per_second: f64,
    seconds: f64,
) -> Result<Notes> {
    ensure!(target.ip().is_loopback(), "{target} is not this machine");
    let sockets: Vec<UdpSocket> = (0..SOCKETS)
        .map(|n| {
            let socket = UdpSocket::bind((sources.at(n), 0))?;
            socket.set_nonblocking(true)?;
            socket.connect(target)?;
            Ok(socket)
        })
        .collect::<Result<_>>()?;
    let mut draws = Draws(0x5eed);
    let mut notes = Notes::default();
    let mut answer = [0; DATAGRAM_MAX];
    let (begun, mut sent) = (Instant::now(), 0_u64);
    loop {
        let elapsed_s = begun.elapsed().as_secs_f64();
        if elapsed_s >= seconds {
            break;
        }
        if sent as f64 >= per_second * elapsed_s {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        for _ in 0..BURST {
            let socket = &sockets[(sent % SOCKETS) as usize];
            let bytes = kind.make(&mut draws);
            sent += 1;
            match socket.send(&bytes) {
                Ok(_) => notes.add("bytes", bytes.len() as u64),
                Err(_) => notes.count("not sent"),
            }
            // A door that answers more than it is asked makes a small flood big.
            while let Ok(count) = socket.recv(&mut answer) {
                notes.count("answered");
                notes.add("bytes back", count as u64);
            }
        }
    }
    notes.add("datagrams", sent);
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_binding_request_is_one() {
        let bytes = stun(&mut Draws(1));
        let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        assert_eq!((length + 20, bytes.len() % 4), (bytes.len(), 0));
        // Attributes follow each other to the end, and the last is the fingerprint of what is before it.
        let (mut at, mut last) = (20, 0);
        while at < bytes.len() {
            last = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            at += 4 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]])).next_multiple_of(4);
        }
        assert_eq!((at, last), (bytes.len(), 0x8028));
        let said = u32::from_be_bytes(*bytes.last_chunk().unwrap());
        assert_eq!(said, crc32(&bytes[..bytes.len() - 8]) ^ 0x5354_554e);
    }

    #[test]
    fn lengths_of_a_hello_are_true() {
        let bytes = client_hello(&mut Draws(2));
        assert_eq!(bytes[0], 22);
        assert_eq!(usize::from(u16::from_be_bytes([bytes[11], bytes[12]])) + 13, bytes.len());
        assert_eq!(bytes[13], 1);
        let length = u32::from_be_bytes([0, bytes[14], bytes[15], bytes[16]]) as usize;
        let fragment = u32::from_be_bytes([0, bytes[22], bytes[23], bytes[24]]) as usize;
        assert_eq!((length, fragment), (bytes.len() - 25, bytes.len() - 25));
        // Version, random, session, cookie, suites, compression, extensions.
        let extensions = 25 + 2 + 32 + 1 + 1 + 2 + 8 + 2;
        let said = usize::from(u16::from_be_bytes([bytes[extensions], bytes[extensions + 1]]));
        assert_eq!(extensions + 2 + said, bytes.len());
    }

    #[test]
    fn kinds_are_told_apart_by_their_first_byte() {
        // RFC 7983: 0 to 3 STUN, 20 to 63 DTLS, 128 to 191 RTP.
        let mut draws = Draws(3);
        assert_eq!(stun(&mut draws)[0], 0);
        assert_eq!(client_hello(&mut draws)[0], 22);
        assert_eq!(rtp(&mut draws)[0], 128);
        for kind in [Datagram::Stun, Datagram::Dtls, Datagram::Rtp] {
            assert!((0..2_000).all(|_| kind.make(&mut draws).len() <= DATAGRAM_MAX));
        }
    }

    #[test]
    fn nobody_else_is_flooded() {
        let sources = Sources { net: 66, networks: 1, hosts: 1 };
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 9));
        assert!(flood(Datagram::Rtp, elsewhere, sources, 1.0, 1.0).is_err());
    }
}
