//! The archive with real files: what is recorded, repaired, and given back.

mod support;

mod downloads;
mod faults;
mod recovery;
mod two_hours;
