//! The programme as a whole, in virtual time: seeded networks, synthetic voices, real codecs.

mod alignment;
mod common;
mod loudness;
mod network;
mod slates;
mod stage;
