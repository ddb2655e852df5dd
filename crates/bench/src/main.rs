//! `cargo run --release -p minassa-bench -- edge|profile|night|floor|station`; `cargo xtask bench-edge`, `profile-edge`
//! and `bench-night` are the first three.

use clap::{Parser, Subcommand};
use minassa_bench::{attack, floor, night, station, suite};

#[derive(Debug, Parser)]
#[command(about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare the edge with the floor and with its peers, and write target/bench/edge.md.
    Edge(suite::EdgeFlags),
    /// Profile an edge with many listeners, and write target/bench/profile.md.
    Profile(suite::ProfileFlags),
    /// Attack a whole server while people listen and others come, and write target/bench/night.md.
    Night(night::NightFlags),
    /// One attacker of a night. It attacks nothing but this machine.
    Attacker(attack::AttackerFlags),
    /// The honest newcomers of a night.
    Guests(night::GuestsFlags),
    /// The floor: write a programme to whoever connects.
    Floor(floor::FloorFlags),
    /// A synthetic origin: publish a programme on the bus of a data directory.
    Station(station::StationFlags),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Edge(flags) => suite::edge(&flags),
        Command::Profile(flags) => suite::profile(&flags),
        Command::Night(flags) => night::night(&flags),
        Command::Attacker(flags) => attack::attacker(&flags),
        Command::Guests(flags) => night::guests(&flags),
        Command::Floor(flags) => floor::run(&flags),
        Command::Station(flags) => station::run(&flags),
    }
}
