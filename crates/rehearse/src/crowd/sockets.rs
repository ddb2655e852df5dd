//! What the kernel knows of every TCP connection with a server, asked through `sock_diag` (`linux/inet_diag.h`): states,
//! segments, bytes, and the memory of their buffers. One question answers for all, and for both ends.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};
use serde::{Deserialize, Serialize};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `INET_DIAG_INFO`, an attribute that holds `struct tcp_info`.
const INFO: u16 = 2;
/// `INET_DIAG_SKMEMINFO`, an attribute that holds `SK_MEMINFO_VARS` counters.
const MEMORY: u16 = 7;
/// Bytes of `struct inet_diag_msg` before its attributes.
const MESSAGE: usize = 72;
/// Names of the states, from 1 on (`net/tcp_states.h`).
const STATES: [&str; 12] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_recv",
];

/// One end of all connections with a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Sockets by state.
    pub states: BTreeMap<String, u64>,
    /// Memory of their buffers, what is reserved ahead included, bytes.
    pub memory_bytes: u64,
    /// The most that one of them has.
    pub memory_bytes_max: u64,
    /// Bytes received from the other end.
    pub bytes_in: u64,
    /// Bytes sent that the other end has acknowledged.
    pub bytes_out: u64,
    /// Segments received.
    pub segments_in: u64,
    /// Segments sent.
    pub segments_out: u64,
    /// Segments sent again.
    pub retransmitted: u64,
}

/// All connections with a server, as the kernel sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// The server's sockets, if it is on this machine.
    pub server: End,
    /// Ours.
    pub ours: End,
}

impl Survey {
    /// Asks about all connections with these ports.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn take(ports: &[u16]) -> io::Result<Self> {
        let mut survey = Self::default();
        let netlink = socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::SOCK_DIAG))?;
        for port in ports {
            for family in [AddressFamily::INET, AddressFamily::INET6] {
                ask(&netlink, &mut survey.server, family, [*port, 0])?;
                ask(&netlink, &mut survey.ours, family, [0, *port])?;
            }
        }
        Ok(survey)
    }
}

fn ask(netlink: &OwnedFd, end: &mut End, family: AddressFamily, ports: [u16; 2]) -> io::Result<()> {
    send(netlink, &question(family, ports), SendFlags::empty())?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (read, _) = recv(netlink, &mut buffer, RecvFlags::empty())?;
        if !read_answer(&buffer[..read], end)? {
            return Ok(());
        }
    }
}

/// `nlmsghdr` and `inet_diag_req_v2`: all states, of one port of ours or of the other end's.
fn question(family: AddressFamily, [ours, theirs]: [u16; 2]) -> [u8; 72] {
    const IPPROTO_TCP: u8 = 6;
    let mut bytes = [0; 72];
    bytes[0..4].copy_from_slice(&72_u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    bytes[16] = family.as_raw() as u8;
    bytes[17] = IPPROTO_TCP;
    // The attributes wanted, as bits.
    bytes[18] = 1 << (INFO - 1) | 1 << (MEMORY - 1);
    bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes[24..26].copy_from_slice(&ours.to_be_bytes());
    bytes[26..28].copy_from_slice(&theirs.to_be_bytes());
    bytes
}

/// Reads the messages of one datagram; whether there are more to come.
fn read_answer(mut bytes: &[u8], end: &mut End) -> io::Result<bool> {
    while let Some(length) = u32_at(bytes, 0) {
        let length = (length as usize).max(16).min(bytes.len());
        let (message, rest) = bytes.split_at(length);
        match u16_at(message, 4) {
            Some(DONE) => return Ok(false),
            Some(ERROR) => {
                let code = u32_at(message, 16).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            Some(BY_FAMILY) => read_socket(message.get(16..).unwrap_or_default(), end),
            _ => {}
        }
        bytes = &rest[(length.next_multiple_of(4) - length).min(rest.len())..];
    }
    Ok(true)
}

fn read_socket(message: &[u8], end: &mut End) {
    let Some(state) = message.get(1) else { return };
    let name = STATES.get(usize::from(*state).wrapping_sub(1)).copied().unwrap_or("unknown");
    *end.states.entry(name.to_owned()).or_default() += 1;
    let mut attributes = message.get(MESSAGE..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let Some(value) = attributes.get(4..length) else { return };
        match kind {
            INFO => {
                let u32 = |at| u64::from(u32_at(value, at).unwrap_or(0));
                let u64 = |at| u32(at) | u32(at + 4) << 32;
                // Places in `struct tcp_info` (`linux/tcp.h`), which only grows at its end.
                end.retransmitted += u32(100);
                end.bytes_out += u64(120);
                end.bytes_in += u64(128);
                end.segments_out += u32(136);
                end.segments_in += u32(140);
            }
            MEMORY => {
                let counter = |index: usize| u64::from(u32_at(value, 4 * index).unwrap_or(0));
                // `SK_MEMINFO_RMEM_ALLOC`, `FWD_ALLOC`, `WMEM_QUEUED`, `OPTMEM`.
                let memory = counter(0) + counter(4) + counter(5) + counter(6);
                end.memory_bytes += memory;
                end.memory_bytes_max = end.memory_bytes_max.max(memory);
            }
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn both_ends_of_a_connection_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(&[7; 10_000]).unwrap();
        client.read_exact(&mut [0; 4_000]).unwrap();
        let survey = Survey::take(&[port]).unwrap();
        assert_eq!(survey.server.states["established"], 1);
        assert_eq!(survey.server.states["listen"], 1);
        assert_eq!(survey.ours.states["established"], 1);
        assert_eq!(survey.ours.bytes_in, 10_000);
        assert!(survey.ours.segments_in > 0 && survey.ours.memory_bytes >= 6_000, "{survey:?}");
        assert_eq!(survey.ours.memory_bytes, survey.ours.memory_bytes_max);
        drop((client, server));
    }

    #[test]
    fn answers_that_are_cut_are_no_trouble() {
        let mut end = End::default();
        for length in 0..200 {
            let mut bytes = vec![0xff; length];
            if length >= 4 {
                bytes[..4].copy_from_slice(&(length as u32 + 9).to_ne_bytes());
            }
            if length >= 6 {
                bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
            }
            read_answer(&bytes, &mut end).unwrap();
        }
    }
}
