//! Thousands of listeners at once, against any server, and what they got and cost.
//!
//! ```text
//!            ┌ share 0: one thread, epoll, ≤ 19,500 connections ┐
//! run ───────┤ share 1, in a process of its own                 ├── counts ──► report
//!   │        └ …                                                ┘
//!   └── samples of the server: processor, memory, sockets, at the edges of the window and once a second within
//! ```
//!
//! A listener here is made of the least that can tell whether it was served well: headers are read, audio is passed
//! over, TLS is opened with keys taken out of the handshake. One of them, the witness, reads everything. Nothing is
//! shared with an edge but the formats.
//!
//! What it measures is seen from outside. *Skew* is how long after the first listener of its process each got a part;
//! where a server spreads listeners over slots on purpose, that spread is in it. *Lateness* is against the listener's
//! own rhythm: how much later than at its best, seen from the part's place in media time.
//!
//! What it does not do: decode audio, keep what it received, or fire at addresses that its owner did not answer for;
//! whoever calls [`run`] asks for that first ([`Target::is_near`]).

mod clock;
mod comeback;
mod config;
mod fetch;
mod hls;
mod http;
mod link;
mod listener;
mod load;
mod machine;
mod pace;
mod plan;
mod report;
mod run;
mod seat;
mod sockets;
mod tally;
mod timeline;
mod tls;
mod walk;

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub use config::{CONNECTIONS_MAX, ConfigError, CrowdConfig, Kind, PROCESSES_MAX, Storm, Target, Trust};
pub use fetch::fetch;
pub use load::{Share, carry};
pub use machine::{Machine, Sample, Sampler};
pub use pace::StormPace;
pub use report::{Bytes, CrowdReport, Generator, Group, Server, StuckReport, Tcp};
pub use run::{Phase, Sight, run, serve_share};
pub use sockets::{End, Survey};
pub use tally::{Counts, Failures, ShareReport, Standing, Stuck, Summary, Tally, Times, Witness};
pub use timeline::Timeline;
pub use tls::TlsError;

/// Files beside connections.
const OTHER_FILES: u64 = 64;

/// Why a crowd cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum CrowdError {
    /// It is asked for what cannot be done.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificates to trust cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system allows fewer open files than there are listeners.
    #[error("{needed} open files are needed and {allowed} allowed; use more processes")]
    Files {
        /// How many are needed.
        needed: u64,
        /// How many are allowed.
        allowed: u64,
    },
    /// The system does not tell about events.
    #[error("cannot wait for events: {0}")]
    Poll(#[source] io::Error),
    /// A load process cannot be started or does not report.
    #[error("a load process: {0}")]
    Process(String),
}

/// The machine's monotonic clock, µs, on which [`CrowdReport::begun_us`] is: to tell when something was done to a server
/// while a crowd listened.
pub fn clock_us() -> u64 {
    clock::monotonic_ns() / 1_000
}

/// Raises the limit of open files as far as this process may.
fn raise_file_limit(connections: usize) -> Result<(), CrowdError> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If the system refuses, the limit is what it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = connections as u64 + OTHER_FILES;
    if needed <= allowed { Ok(()) } else { Err(CrowdError::Files { needed, allowed }) }
}
