//! Lua scripts: those that users have, what is refused, and those that mean harm.

#[path = "../support/mod.rs"]
mod support;

mod limits;
mod refusals;
mod users;

use support::{Client, encode};

/// Sends a script with its keys and arguments and gives the reply.
fn eval(client: &mut Client, script: &str, keys: &[&str], args: &[&str]) -> String {
    let count = keys.len().to_string();
    let words = ["EVAL", script, &count];
    let words = words.iter().chain(keys).chain(args).map(|word| word.as_bytes());
    client.send(encode(&words.collect::<Vec<_>>()));
    String::from_utf8_lossy(&client.reply()).into_owned()
}

/// The reply to a script without its line ends and without the place of an error.
fn short(reply: &str) -> String {
    let reply = reply.trim_end().replace("\r\n", " ");
    match reply.split_once(" script: ") {
        Some((text, _)) => text.to_owned(),
        None => reply,
    }
}

/// Runs a script without keys and compares its reply.
#[track_caller]
fn check(client: &mut Client, script: &str, expected: &str) {
    let found = eval(client, script, &[], &[]);
    assert_eq!(short(&found), expected, "{script}");
}
