//! Origin as a process of its own, met through its doors and the bus.

// Tests live in real time and wait for what happens.
#![allow(clippy::disallowed_methods)]

mod door;
mod flood;
mod house;
mod ingest;
mod recovery;
mod show;
