//! The whole, as its users meet it: the one binary with real browsers, players and sources, its figures printed.
//!
//! One program, because each would link the whole server again; one test at a time (`cargo xtask acceptance`), because
//! most measure delays on a machine that they want to themselves. `cargo test -p minassa --test acceptance kills::`
//! runs the ones of a module.

// These tests wait on the real clock, always for a condition and with a deadline, and print their figures.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

mod browsers;
mod clients;
mod commands;
mod delayed;
mod hls;
mod kills;
mod lossy;
mod pages;
mod players;
mod refusals;
mod report;
mod stage_delay;
mod start;
mod supervisor;
mod tls;
