//! The command line: one module for each subcommand.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

mod local;
mod ring;
mod run;

pub use run::RunArgs;

/// Annulus: a distributed cache that Kubernetes runs for you.
#[derive(Debug, Parser)]
#[command(name = "annulus-operator", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What to log: a level (error, warn, info, debug, trace) or a filter such as `info,annulus_operator=debug`.
    #[arg(
        long,
        global = true,
        env = "ANNULUS_LOG_LEVEL",
        default_value = "info",
        value_name = "FILTER"
    )]
    log_level: String,

    /// How to write the log, which goes to standard error.
    #[arg(long, global = true, env = "ANNULUS_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for a person.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controllers against a Kubernetes cluster.
    Run(RunArgs),
    /// Draw a cluster's ring in the terminal.
    Ring(ring::RingArgs),
    /// Run a CacheCluster of a file as processes on loopback, without Kubernetes.
    Local(local::LocalArgs),
}

/// Runs the subcommand; the exit code is 0 when it did what was asked.
pub fn main(cli: Cli) -> ExitCode {
    if let Err(message) = start_log(&cli.log_level, cli.log_format) {
        return fail(&message);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the async runtime can't start: {error}")),
    };
    let result = match cli.command {
        Command::Run(args) => runtime.block_on(run::run(args)),
        Command::Ring(args) => runtime.block_on(ring::run(args)),
        Command::Local(args) => runtime.block_on(local::run(args)),
    };
    // Tasks that are still at work must not outlive the lease, nor hold up the exit.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn start_log(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| format!("--log-level {filter:?} is no filter ({error}), write for example info"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| format!("the log can't start: {error}"))
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of a command that failed is for the person who typed it"
)]
fn fail(message: &str) -> ExitCode {
    eprintln!("annulus-operator: {message}");
    ExitCode::FAILURE
}
