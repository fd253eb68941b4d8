//! Conversations of several clients with a server, written down line by line:
//!
//! ```text
//! a SUBSCRIBE news => *3 $9 subscribe $4 news :1
//! b PUBLISH news hello => :1
//! a <- *3 $7 message $4 news $5 hello
//! ```
//!
//! A client is there from its first line on; one reply is skipped where none is written. What it gets is written with blanks for line ends; `{a}` stands for the
//! number of client a. At the end nobody may have got anything else.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Client;

/// Plays a conversation.
#[track_caller]
pub fn play(addr: SocketAddr, text: &str) {
    let mut clients: BTreeMap<String, (Client, String)> = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let name = line.split(' ').next().unwrap();
        clients.entry(name.to_owned()).or_insert_with(|| {
            let mut client = Client::connect(addr);
            let id = client.ask("CLIENT ID")[1..].trim_end().to_owned();
            (client, id)
        });
        let mut filled = line.to_owned();
        for (name, (_, id)) in &clients {
            filled = filled.replace(&format!("{{{name}}}"), id);
        }
        let (client, _) = clients.get_mut(name).unwrap();
        let line_parts = filled.split_once("=>").or_else(|| filled.split_once("<-"));
        let (said, expected) = line_parts.unwrap_or((&filled, ""));
        let command = said[name.len()..].trim();
        if !command.is_empty() {
            client.command(command);
        }
        if line_parts.is_some() {
            receive(client, expected.trim(), line);
        } else {
            client.reply();
        }
    }
    for (name, (mut client, _)) in clients {
        client.command("CLIENT REPLY ON");
        client.reply();
        client.command("RESET");
        receive(&mut client, "+RESET", &format!("what {name} has got beside"));
    }
}

#[track_caller]
fn receive(client: &mut Client, expected: &str, line: &str) {
    let mut found = String::new();
    while found.trim_end() != expected.trim_end() {
        assert!(
            expected.starts_with(&found),
            "{line}\n   found {found}\nexpected {expected}"
        );
        let reply = String::from_utf8(client.reply()).unwrap();
        found.push_str(&reply.replace("\r\n", " "));
    }
}
