//! Who stands at a door, and who has to make room when it is full.
//!
//! A door sees of a stranger nothing but an address, and an address is no person: two thousand may share one behind
//! carrier-grade address translation (RFC 6888), and one attacker may own a whole /32 of IPv6. So prefixes are *weighed*
//! against each other, and only where something is short; none is ever shut out.
//!
//! ```text
//! accept ──► Places: is there room? who makes room?  ──► enter | one of the heaviest site goes | refused
//!        ──► Meter:  what has this site cost of late? ──► lane ──► Lanes: whose handshake, whose request is next?
//! ```
//!
//! - [`Places`] holds who is connected, exactly: one small entry a connection, and connections are bounded. When all
//!   places are taken, whoever asks for nothing has to go, of the site where those weigh most (as in longest-queue-drop);
//!   the last places are kept for sites that have few, and one site alone may work at half of them ([`Places::may_work`]).
//! - [`Meter`] knows roughly what each site has cost of late: a sketch of constant size. A door has two: what came from a
//!   site within seconds decides whose turn it is; how many had to go that never asked for anything, within a minute or
//!   two, what others of that site weigh ([`Meter::weight`]). So a flood from many sites, each with few connections, is
//!   known after a while, and those of whom nothing is known have their places first.
//! - [`Shares`] divides what nobody can be asked to give back, such as requests in progress.
//! - [`Lanes`] gives those of cheap sites their turn first, and the others never less than a quarter of all turns.
//!
//! A *site* is what one owner usually has: an IPv4 /24 or an IPv6 /48 (RFC 6177 section 2). Within it, a *home* is an
//! IPv4 address or an IPv6 /56, and of a site's homes the heaviest makes room first. What attackers can do is to come
//! from many sites, and from others every time: a thousand new sites have the weight of a thousand.

mod lanes;
mod meter;
mod places;
mod shares;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use lanes::{LANES, Lanes};
pub use meter::Meter;
pub use places::{Places, Room};
pub use shares::Shares;

/// Where a connection comes from: an IPv4 address, or an IPv6 /56.
///
/// ```text
/// IPv4  0001 0000…0 aaaaaaaa bbbbbbbb cccccccc dddddddd   the site is all but the last eight bits: /24
/// IPv6  0000 0000 the first 56 bits                       likewise: /48
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(u64);

/// What marks an IPv4 address: no 56 bits reach it.
const IPV4: u64 = 1 << 60;

impl Prefix {
    /// Of an address; an IPv4 address that is written as an IPv6 one is an IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IPV4 | u64::from(u32::from(address))),
            IpAddr::V6(address) => Self((u128::from(address) >> 72) as u64),
        }
    }

    /// The /24 or /48 around it.
    pub fn site(self) -> Site {
        Site(self.0 >> 8)
    }
}

/// An IPv4 /24 or an IPv6 /48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(u64);

impl Site {
    /// Whether it is this machine itself, as 127.0.0.1 or ::1: a program beside us, or a proxy that we were not told of. Who
    /// is behind that cannot be told apart, so it is no site like others.
    pub fn is_local(self) -> bool {
        let local = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        local.into_iter().any(|address| Prefix::of(address).site() == self)
    }

    /// The first and the last prefix in it.
    fn homes(self) -> std::ops::RangeInclusive<Prefix> {
        Prefix(self.0 << 8)..=Prefix(self.0 << 8 | 0xff)
    }
}
