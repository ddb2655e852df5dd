//! What lies outside a process: the bus, the store and the objects, each behind an interface, and the small things
//! every shell shares.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`bus`] | messages between processes: Unix sockets today |
//! | [`wire`] | what the messages say: serialisable mirrors of the model's types |
//! | [`store`] | events and their seats: SQLite today |
//! | [`objects`] | files named by their digest: a directory today |
//! | [`freeze`] | files written whole or not at all; events frozen to a node's disk |
//! | [`keys`] | private keys, made once, readable by their owner alone |
//! | [`clock`] | both clocks of the machine |
//! | [`evidence`] | what every process counts alike for the ledger |
//! | [`http`] | listening sockets and the accept loop with its limits |
//! | [`tls`] | the certificate of all doors, reloaded, and session tickets that all processes share |
//! | [`problem`] | errors as RFC 9457 has them |
//! | [`child`] | the sign of life a role gives its supervisor |
//! | [`machine`] | what the system says of memory and files |
//!
//! Nothing here decides anything about a show; roles bring the cores and this crate together.

// A shell reads clocks: that is its work (see clippy.toml).
#![allow(clippy::disallowed_methods)]

pub mod bus;
pub mod child;
pub mod clock;
pub mod evidence;
pub mod freeze;
pub mod http;
pub mod keys;
pub mod machine;
pub mod objects;
pub mod problem;
pub mod store;
pub mod tls;
pub mod wire;
