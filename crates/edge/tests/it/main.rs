//! An edge with real processes' parts around it: a bus, recordings, clients of several makes.
//!
//! One program, because each would link the whole again. What changes its process (`open_files`, `tls_memory`) is a
//! program of its own.

// They wait on the real clock, always for a condition and with a deadline, and print figures of it.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

mod common;

mod delayed;
mod doorstep;
mod files;
mod limits;
mod listening;
mod low_latency;
mod openssl;
mod players;
mod push_limits;
mod tls_push;
