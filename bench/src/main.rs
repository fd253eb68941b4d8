//! `compare`: Annulus beside its peers, the same load on each, in one run, one after the other within each round.
//! Every server is pinned to one core and the client to another. What a server costs is taken from the kernel's
//! accounting of its threads, which is steadier than operations a second on a machine that others use too.
//!
//! `soak`: one node under every kind of load at once for a long time, and its memory beside its limit.

#![expect(
    clippy::disallowed_methods,
    reason = "it measures time and waits for other programs"
)]

mod load;
mod plan;
mod protocol;
mod random;
mod report;
mod server;
mod soak;
mod svg;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Measures cache servers and writes tables and plots.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures cache servers side by side.
    Compare(Compare),
    /// Drives one node at full load and fails when its memory goes over the limit or anything else goes wrong.
    Soak(soak::Options),
}

#[derive(Debug, Args)]
struct Compare {
    /// Where tables and plots go.
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
    /// The cache node to measure.
    #[arg(long, default_value = "target/release/annulus-node")]
    node: PathBuf,
    /// Folders with unpacked packages of further servers, each with its own loader: name=folder.
    #[arg(long = "unpacked", value_name = "NAME=FOLDER")]
    unpacked: Vec<String>,
    /// Only these servers.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Keys that every server is filled with.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// How long each measurement takes, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    measure_ms: u64,
    /// How often each measurement is repeated; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The core for servers.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Fewer kinds of load, for a look in between.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Compare(options) => plan::run(&options),
        Command::Soak(options) => soak::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(std::io::stderr(), "annulus-bench: {error}").unwrap_or_default();
            ExitCode::FAILURE
        }
    }
}
