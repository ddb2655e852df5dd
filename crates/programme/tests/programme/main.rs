//! The programme as a whole, in virtual time: seeded networks, synthetic voices, real codecs.
#![allow(clippy::print_stdout)] // Figures are shown with `--nocapture`.

mod alignment;
mod common;
#[cfg(feature = "libopus")]
mod library;
mod loudness;
mod network;
mod slates;
mod stage;
