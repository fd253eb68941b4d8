//! `annulus-operator`: one binary for the controller and for the tools beside it.

use std::process::ExitCode;

use annulus_operator::cli;
use clap::Parser;

fn main() -> ExitCode {
    cli::main(cli::Cli::parse())
}
