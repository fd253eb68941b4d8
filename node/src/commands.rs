//! What the commands of the table do, by purpose.
//!
//! A function here writes its whole reply or returns an error; it never does half of its work and then fails,
//! except that a reply which was begun is taken back when it does.

pub mod acl;
pub mod client;
pub mod cluster;
pub mod command_info;
pub mod config;
pub mod connection;
pub mod counters;
mod elements;
pub mod expiry;
pub mod hashes;
pub mod hot_keys;
pub mod info;
pub mod keys;
pub mod keyspace;
pub mod latency;
pub mod lists;
pub mod memory;
mod pattern;
pub mod pubsub;
pub mod scripts;
pub mod server;
pub mod set_algebra;
pub mod sets;
pub mod slow_log;
pub mod sorted_algebra;
pub mod sorted_ranges;
pub mod sorted_sets;
pub mod strings;
mod tenant_info;
pub mod tracking;
pub mod transactions;

use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::resp::{Args, Reply, number};

pub use pattern::matches_pattern;

/// An argument that must be an integer.
fn integer(arg: &[u8]) -> Result<i64, CommandError> {
    number::parse_i64(arg).ok_or(CommandError::NotAnInteger)
}

/// An argument that must be a number from 0 on.
fn positive(arg: &[u8]) -> Result<usize, CommandError> {
    number::parse_i64(arg)
        .and_then(|number| usize::try_from(number).ok())
        .ok_or(CommandError::Fixed("ERR value is out of range, must be positive"))
}

/// An argument that must be a number from `min` on, or this is said.
fn at_least(arg: &[u8], min: usize, refusal: &'static str) -> Result<usize, CommandError> {
    number::parse_i64(arg)
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| *number >= min)
        .ok_or(CommandError::Fixed(refusal))
}

/// Whether an argument is this word, in any case.
fn is_word(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

/// An argument for a message.
pub fn text(arg: &[u8]) -> String {
    String::from_utf8_lossy(arg).into_owned()
}

/// `… HELP` of every command that has subcommands: what the table knows of them.
pub fn help(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let entry = crate::command::table()
        .find(args.at(0))
        .ok_or(CommandError::Syntax)?;
    let name = entry.command.name.to_uppercase();
    reply.array(1 + 2 * entry.subcommands.len());
    reply.simple(&format!("{name} <subcommand> [<arg> ...]. Subcommands are:"));
    for subcommand in &entry.subcommands {
        reply.simple(&subcommand.command.name.to_uppercase());
        reply.simple(&format!("    {}", subcommand.command.summary));
    }
    Ok(())
}
