//! `cargo run --release -p minassa-bench -- edge|profile|floor|station`; `cargo xtask bench-edge` and `profile-edge`
//! are the first two.

use clap::{Parser, Subcommand};
use minassa_bench::{floor, station, suite};

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
    /// The floor: write a programme to whoever connects.
    Floor(floor::FloorFlags),
    /// A synthetic origin: publish a programme on the bus of a data directory.
    Station(station::StationFlags),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Edge(flags) => suite::edge(&flags),
        Command::Profile(flags) => suite::profile(&flags),
        Command::Floor(flags) => floor::run(&flags),
        Command::Station(flags) => station::run(&flags),
    }
}
