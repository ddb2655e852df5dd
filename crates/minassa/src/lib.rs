//! The one binary of Minassa: configuration, supervisor, assembly of the roles, command line.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`cli`] | the command line, and which command does what |
//! | [`config`] | one TOML file, the environment and flags, made into one configuration |
//! | [`supervisor`] | `serve`: starts the roles as processes, watches, waits |
//! | [`roles`] | origin, edge and control as processes |
//! | [`client`] | `event …`: commands that talk to a running server |
//! | [`doctor`] | is this machine fit for a show |
//! | [`demo`] | a whole event on this machine, with speakers of our own |
//! | [`crowds`] | `rehearse …`: crowds against a running server |
//! | [`draw`] | `draw check`: draws that somebody published |
//! | [`verdict`] | `verdict check`: ledgers that somebody published |
//! | [`ladder`] | `ladder`: what is in force, pins and caps |
//! | [`report`] | `report`: what a ledger says, for people |
//! | [`logs`] | the log on standard error |
//!
//! Nothing here decides about a show; it brings together those who do.

// A shell reads clocks: that is its work (see clippy.toml).
#![allow(clippy::disallowed_methods)]

pub mod cli;
pub mod client;
pub mod config;
pub mod crowds;
pub mod demo;
pub mod doctor;
pub mod draw;
pub mod ladder;
pub mod logs;
pub mod report;
pub mod roles;
pub mod supervisor;
pub mod verdict;
