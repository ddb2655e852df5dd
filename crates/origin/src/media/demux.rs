//! Which session a datagram belongs to, at a cost that does not grow with the number of sessions or attackers.
//!
//! A STUN binding request names us first in its user name (RFC 8445 section 7.2.2): 95 bits that only the peer was
//! told, over the stage door. Where it came from is remembered once the session has found its signature good; DTLS
//! and RTP are then known by their source address, and everything else is nobody's.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use str0m::ice::StunMessage;

/// Addresses remembered for one session: a peer may try several before it settles.
const ADDRESSES_MAX: usize = 16;

/// Names a session within one incarnation of origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A binding request that names this session; its signature is unchecked.
    Stun(SessionId),
    /// From an address that proved to be this session's peer.
    Known(SessionId),
    /// STUN for nobody here.
    StrangeStun,
    /// Anything else for nobody here.
    Strange,
}

/// The two maps. Neither grows but by sessions that were let in at the stage door.
#[derive(Debug, Default)]
pub(crate) struct Demux {
    by_ufrag: BTreeMap<String, SessionId>,
    by_address: BTreeMap<SocketAddr, SessionId>,
    addresses: BTreeMap<SessionId, (String, VecDeque<SocketAddr>)>,
}

impl Demux {
    pub(crate) fn insert(&mut self, session: SessionId, ufrag: String) {
        self.by_ufrag.insert(ufrag.clone(), session);
        self.addresses.insert(session, (ufrag, VecDeque::new()));
    }

    pub(crate) fn remove(&mut self, session: SessionId) {
        let Some((ufrag, addresses)) = self.addresses.remove(&session) else { return };
        self.by_ufrag.remove(&ufrag);
        for address in addresses {
            self.forget(address, session);
        }
    }

    /// Where a datagram goes.
    pub(crate) fn route(&self, source: SocketAddr, datagram: &[u8]) -> Route {
        // RFC 7983: the first byte tells STUN (0 to 3) from DTLS (20 to 63) and RTP (128 to 191).
        if !matches!(datagram.first(), Some(0..=3)) {
            return self.by_address.get(&source).map_or(Route::Strange, |session| Route::Known(*session));
        }
        let Ok(message) = StunMessage::parse(datagram) else { return Route::StrangeStun };
        // We are ICE-lite: we ask nothing, so nothing but requests can be meant for us.
        if !message.is_binding_request() {
            return Route::StrangeStun;
        }
        let ours = message.split_username().and_then(|(ours, _)| self.by_ufrag.get(ours));
        ours.map_or(Route::StrangeStun, |session| Route::Stun(*session))
    }

    /// `address` is that of the session's peer: it signed a request. The latest claim wins.
    pub(crate) fn learn(&mut self, session: SessionId, address: SocketAddr) {
        if self.by_address.get(&address) == Some(&session) {
            return;
        }
        let Some((_, addresses)) = self.addresses.get_mut(&session) else { return };
        addresses.push_back(address);
        let oldest = if addresses.len() > ADDRESSES_MAX { addresses.pop_front() } else { None };
        self.by_address.insert(address, session);
        if let Some(oldest) = oldest {
            self.forget(oldest, session);
        }
    }

    fn forget(&mut self, address: SocketAddr, session: SessionId) {
        if self.by_address.get(&address) == Some(&session) {
            self.by_address.remove(&address);
        }
    }
}

/// Any bytes as a datagram: they are nobody's.
pub(super) fn fuzz(data: &[u8]) {
    let mut demux = Demux::default();
    demux.insert(SessionId(1), "0123456789abcdef".to_owned());
    let route = demux.route(SocketAddr::from(([127, 0, 0, 1], 9)), data);
    assert!(!matches!(route, Route::Known(_)), "no address is known");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// A binding request with a user name, a priority and room for a signature, which nobody checks here.
    pub(crate) fn request(username: &str) -> Vec<u8> {
        let mut attributes = Vec::new();
        let mut attribute = |kind: u16, value: &[u8]| {
            attributes.extend(kind.to_be_bytes());
            attributes.extend((value.len() as u16).to_be_bytes());
            attributes.extend(value);
            attributes.resize(attributes.len().next_multiple_of(4), 0);
        };
        attribute(0x0006, username.as_bytes());
        attribute(0x0024, &[0, 0, 0, 1]);
        attribute(0x0008, &[0; 20]);
        let mut message = vec![0, 1];
        message.extend((attributes.len() as u16).to_be_bytes());
        message.extend([0x21, 0x12, 0xA4, 0x42]);
        message.extend([7; 12]);
        message.extend(attributes);
        message
    }

    #[test]
    fn mutated_datagrams_are_nobodys() {
        use rand::{RngExt as _, SeedableRng as _};
        let seeds =
            [request("aaaa:peer"), request("0123456789abcdef:peer"), vec![22, 254, 253, 0], vec![0x80, 111]];
        let mut rng = rand::rngs::StdRng::seed_from_u64(5);
        for round in 0..20_000 {
            let mut data = seeds[round % seeds.len()].clone();
            for _ in 0..rng.random_range(0..6) {
                let at = rng.random_range(0..data.len());
                match rng.random_range(0..4) {
                    0 => data[at] = rng.random(),
                    1 => data[at] ^= 1 << rng.random_range(0..8),
                    2 => data.insert(at, rng.random()),
                    _ => data.truncate(at.max(1)),
                }
            }
            fuzz(&data);
        }
    }

    #[test]
    fn datagrams_find_their_session() {
        let mut demux = Demux::default();
        let (one, two) = (SessionId(1), SessionId(2));
        demux.insert(one, "aaaa".into());
        demux.insert(two, "bbbb".into());
        assert_eq!(demux.route(address(1), &request("aaaa:peer")), Route::Stun(one));
        assert_eq!(demux.route(address(1), &request("bbbb:peer")), Route::Stun(two));
        assert_eq!(demux.route(address(1), &request("cccc:peer")), Route::StrangeStun);
        assert_eq!(demux.route(address(1), &request("aaaa")), Route::StrangeStun);
        assert_eq!(demux.route(address(1), &[0x80, 111, 0, 0]), Route::Strange);
        assert_eq!(demux.route(address(1), &[]), Route::Strange);
        demux.learn(one, address(1));
        assert_eq!(demux.route(address(1), &[0x80, 111, 0, 0]), Route::Known(one));
        demux.learn(two, address(1));
        assert_eq!(demux.route(address(1), &[22, 254, 253]), Route::Known(two));
        demux.remove(one);
        assert_eq!(demux.route(address(1), &[22, 254, 253]), Route::Known(two));
        demux.remove(two);
        assert_eq!(demux.route(address(1), &[22, 254, 253]), Route::Strange);
        assert_eq!(demux.route(address(1), &request("aaaa:peer")), Route::StrangeStun);
    }

    #[test]
    fn a_peer_with_many_addresses_costs_no_more_than_a_few() {
        let mut demux = Demux::default();
        demux.insert(SessionId(1), "aaaa".into());
        for port in 1..=1_000 {
            demux.learn(SessionId(1), address(port));
            demux.learn(SessionId(1), address(port));
        }
        assert_eq!(demux.by_address.len(), ADDRESSES_MAX);
        assert_eq!(demux.route(address(1_000), &[128]), Route::Known(SessionId(1)));
        demux.remove(SessionId(1));
        assert!(demux.by_address.is_empty() && demux.by_ufrag.is_empty() && demux.addresses.is_empty());
    }
}
