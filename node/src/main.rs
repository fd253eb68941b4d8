//! The program `annulus-node`: reads flags, decides, and hands over to [`annulus_node::run`].

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use annulus_node::config::{Cli, Command, Config, Machine, ServeFlags, resolve};
use annulus_node::heap;
use annulus_node::logging;
use annulus_node::run::{Ended, run};
use annulus_node::secret::Secret;
use clap::Parser;

/// What a shell expects of wrong usage.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let Command::Serve(flags) = Cli::parse().command;
    let config = match configure(&flags) {
        Ok(config) => config,
        Err(message) => return fail(USAGE, message),
    };
    heap::tune();
    match run(&config) {
        Ok(Ended::Cleanly) => ExitCode::SUCCESS,
        Ok(Ended::AtOnce) => ExitCode::FAILURE,
        Err(error) => fail(1, error),
    }
}

fn configure(flags: &ServeFlags) -> Result<Config, String> {
    let filter = logging::filter(&flags.log_level).map_err(|error| error.to_string())?;
    let password = match &flags.password_file {
        None => None,
        Some(path) => {
            let content = std::fs::read(path)
                .map_err(|error| format!("can't read --password-file {}: {error}", path.display()))?;
            let secret = Secret::from_file_content(&content);
            Some(secret.map_err(|error| format!("--password-file {} {error}", path.display()))?)
        }
    };
    let config = resolve(flags, &Machine::read(), password).map_err(|error| error.to_string())?;
    logging::install(flags.log_format, filter);
    Ok(config)
}

/// Says why on standard error, whether or not anybody listens there.
fn fail(code: u8, message: impl Display) -> ExitCode {
    writeln!(std::io::stderr(), "annulus-node: {message}").unwrap_or_default();
    ExitCode::from(code)
}
