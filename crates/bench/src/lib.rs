//! Programs that measure the edge, and a whole server under attack; nothing here is shipped.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`material`] | a programme that goes on for ever, without people |
//! | [`floor`] | the smallest program that writes it to as many sockets: the physical limit |
//! | [`station`] | an origin without a stage: publishes it on the bus of edges under test |
//! | [`suite`] | starts servers and crowds on cores of their own, compares, and writes tables |
//! | [`attack`] | attackers, which attack nothing but this machine |
//! | [`night`] | a whole server while people listen, others come, and attackers do what they can |
//!
//! The crowd itself is `minassa rehearse listeners` ([`rehearse::crowd`]).

// Everything here lives in real time.
#![allow(clippy::disallowed_methods)]

pub mod attack;
pub mod floor;
pub mod material;
pub mod night;
pub mod station;
pub mod suite;
mod tls;
