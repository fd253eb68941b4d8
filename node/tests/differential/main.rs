//! The same random commands to this node and to a Redis server: the replies must be the same.
//!
//! Few keys, few members and values at the limits, so that commands meet. Replies whose order is not defined are
//! sorted; random picks are compared by their shape, and then both sides go on from the same state.
//! `ANNULUS_SEEDS` says how many seeds to try; without it there is one, always the same.
#![expect(clippy::unwrap_used, reason = "tests fail where they stand")]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod reference;
mod scripts;

use commands::{Compare, Kind, Random};
use reference::Reference;
use support::{Client, Options, TestServer, encode};

/// Commands of a type by seed and protocol.
const COMMANDS: usize = 6000;

struct Sides {
    node: Client,
    redis: Client,
}

impl Sides {
    fn ask(&mut self, command: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
        let bytes = encode(&command.iter().map(Vec::as_slice).collect::<Vec<_>>());
        self.node.send(&bytes);
        self.redis.send(&bytes);
        (self.node.reply(), self.redis.reply())
    }

    fn both(&mut self, words: &str) {
        let words: Vec<_> = words.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        self.ask(&words);
    }
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The lines of a reply, sorted: equal for two replies with the same elements in any order.
fn sorted(reply: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<_> = reply.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.sort();
    lines
}

/// The kinds and numbers of a reply's lines without the bulk strings in it.
fn shape(reply: &[u8]) -> Vec<Vec<u8>> {
    let mut shape = Vec::new();
    let mut lines = reply.split(|&byte| byte == b'\n');
    while let Some(line) = lines.next() {
        match line.first() {
            Some(b'$') if !line.starts_with(b"$-1") => {
                lines.next();
                shape.push(b"$".to_vec());
            }
            Some(b',') => shape.push(b",".to_vec()),
            _ => shape.push(line.to_vec()),
        }
    }
    shape
}

fn run(kind: Kind, seed: u64, resp3: bool) {
    let Some(redis) = Reference::start() else { return };
    let server = TestServer::start(&Options::default());
    let mut sides = Sides {
        node: server.connect(),
        redis: Client::connect(redis.addr()),
    };
    if resp3 {
        sides.both("HELLO 3");
    }
    let mut random = Random::new(seed);
    let mut history = Vec::new();
    for number in 0..COMMANDS {
        // Now and then from nothing, so that small forms are met again.
        if random.below(400) == 0 {
            sides.both("FLUSHALL");
            history.push("FLUSHALL".to_owned());
        }
        let (command, compare) = commands::any(kind, &mut random);
        history.push(
            command
                .iter()
                .map(|word| show(word))
                .collect::<Vec<_>>()
                .join(" "),
        );
        let (found, expected) = sides.ask(&command);
        let is_same = match compare {
            Compare::Exact => found == expected,
            Compare::AnyOrder => sorted(&found) == sorted(&expected),
            Compare::Shape => shape(&found) == shape(&expected),
            Compare::Form => {
                found == expected
                    || ["int", "embstr", "raw"]
                        .iter()
                        .any(|form| show(&expected).contains(form))
            }
        };
        let recent = &history[history.len().saturating_sub(25)..];
        assert!(
            is_same,
            "seed {seed}, command {number}: {}\n   node {}\n  redis {}\nafter\n{}",
            history[history.len() - 1],
            show(&found),
            show(&expected),
            recent.join("\n")
        );
        if compare == Compare::Shape {
            // What a random pick took away differs.
            let key = show(&command[1]);
            sides.both(&format!("DEL {key}"));
            history.push(format!("DEL {key}"));
        }
    }
}

fn run_seeds(kind: Kind) {
    let seeds = std::env::var("ANNULUS_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    for seed in 0..seeds.unwrap_or(1) {
        for resp3 in [false, true] {
            run(kind, 2 * seed + u64::from(resp3), resp3);
        }
    }
}

#[test]
fn hashes_answer_as_in_redis() {
    run_seeds(Kind::Hash);
}

#[test]
fn sets_answer_as_in_redis() {
    run_seeds(Kind::Set);
}

#[test]
fn lists_answer_as_in_redis() {
    run_seeds(Kind::List);
}

#[test]
fn sorted_sets_answer_as_in_redis() {
    run_seeds(Kind::SortedSet);
}

#[test]
fn mixed_types_answer_as_in_redis() {
    run_seeds(Kind::Mixed);
}

const LOOKING_AFTER: &[&str] = &[
    "CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 3",
    "SLOWLOG RESET",
    "SLOWLOG LEN",
    "SET {t}k v",
    "SADD {t}s 1 2 3",
    "SLOWLOG LEN",
    "SLOWLOG GET 0",
    "SLOWLOG GET -2",
    "SLOWLOG GET x",
    "SLOWLOG GET 1 2",
    "SLOWLOG NONSENSE",
    "SLOWLOG LEN 1",
    "CONFIG SET slowlog-max-len 0",
    "PING",
    "SLOWLOG LEN",
    "CONFIG GET slowlog-*",
    "CONFIG SET slowlog-log-slower-than -2",
    "CONFIG SET slowlog-log-slower-than 10000 slowlog-max-len 128",
    "LATENCY LATEST",
    "LATENCY HISTORY command",
    "LATENCY HISTORY nonsense",
    "LATENCY HISTORY",
    "LATENCY RESET",
    "LATENCY RESET nonsense command",
    "LATENCY HISTOGRAM nonsense",
    "LATENCY NONSENSE",
    "CONFIG SET latency-monitor-threshold 100",
    "CONFIG GET latency-monitor-threshold",
    "CONFIG SET latency-monitor-threshold -1",
    "CONFIG SET latency-tracking maybe",
    "CONFIG SET latency-tracking yes",
    "CONFIG GET latency-tracking",
    "CONFIG SET proto-max-bulk-len 2mb",
    "CONFIG GET proto-max-bulk-len",
    "CONFIG SET proto-max-bulk-len 3m",
    "CONFIG GET proto-max-bulk-len",
    "CONFIG SET proto-max-bulk-len 3zb",
    "CONFIG SET timeout x",
    "CONFIG SET timeout 0 timeout 1",
    "CONFIG SET port",
    "COMMAND GETKEYSANDFLAGS SET k v",
    "COMMAND GETKEYSANDFLAGS SET k v EX 10 NX",
    "COMMAND GETKEYSANDFLAGS SET k v GET",
    "COMMAND GETKEYSANDFLAGS LMOVE a b LEFT RIGHT",
    "COMMAND LIST FILTERBY PATTERN slowlog*",
    "COMMAND LIST FILTERBY PATTERN get",
    "COMMAND LIST FILTERBY ACLCAT transaction",
    "MEMORY PURGE",
    "MEMORY USAGE {t}none",
    "CLIENT KILL ID x",
    "CLIENT KILL ID 10 nonsense",
    "CLIENT KILL TYPE nonsense",
    "CLIENT KILL SKIPME maybe",
    "CLIENT KILL USER nobody",
    "MULTI",
    "SET {t}k 1",
    "CONFIG SET timeout 0",
    "CLIENT GETNAME",
    "SLOWLOG LEN",
    "EXEC",
    "SMOVE {t}s {t}d 1",
    "SMOVE {t}s {t}d 1",
    "SADD {t}s 1",
    "SMOVE {t}s {t}d 1",
    "SCARD {t}s",
    "SCARD {t}d",
];

/// What looks after a server: what it remembers of commands, what it was told, who is connected.
#[test]
fn looking_after_a_server_answers_as_in_redis() {
    let Some(redis) = Reference::start() else { return };
    let server = TestServer::start(&Options::default());
    let mut sides = Sides {
        node: server.connect(),
        redis: Client::connect(redis.addr()),
    };
    let mut differences = Vec::new();
    for command in LOOKING_AFTER {
        let words: Vec<_> = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let (found, expected) = sides.ask(&words);
        // Redis gives names in the order of a hash table.
        let is_unordered = ["COMMAND LIST", "CONFIG GET"]
            .iter()
            .any(|name| command.starts_with(name));
        let is_same = found == expected || is_unordered && sorted(&found) == sorted(&expected);
        if !is_same {
            let (found, expected) = (show(&found), show(&expected));
            differences.push(format!("{command}\n   node {found}\n  redis {expected}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // No reply to the second of each, and then one.
    for commands in [
        ["CLIENT REPLY SKIP", "CLIENT REPLY ON", ""],
        ["CLIENT REPLY SKIP", "PING one", "PING two"],
        ["CLIENT REPLY OFF", "PING", "CLIENT REPLY ON"],
        ["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING"],
    ] {
        for side in [&mut sides.node, &mut sides.redis] {
            for command in commands.iter().filter(|command| !command.is_empty()) {
                side.command(command);
            }
            side.command("PING last");
        }
        let until_last = |side: &mut Client| {
            let mut replies = Vec::new();
            while replies.last().is_none_or(|reply| reply != "$4\\r\\nlast\\r\\n") {
                replies.push(show(&side.reply()));
            }
            replies
        };
        let (found, expected) = (until_last(&mut sides.node), until_last(&mut sides.redis));
        assert_eq!(found, expected, "{commands:?}");
    }
}

/// The rows of the commands on keys, without what this node leaves out: tips, and flags that it doesn't have.
#[test]
fn rows_are_those_of_redis() {
    let Some(redis) = Reference::start() else { return };
    let server = TestServer::start(&Options::default());
    let mut sides = Sides {
        node: server.connect(),
        redis: Client::connect(redis.addr()),
    };
    for entry in annulus_node::command::table().commands() {
        let command = entry.command;
        let groups = [
            "generic",
            "hash",
            "list",
            "scripting",
            "set",
            "sorted-set",
            "string",
        ];
        // Redis 7.0 doesn't know what came after it.
        if !groups.contains(&command.group.name()) || command.since.starts_with('9') {
            continue;
        }
        for (what, fields) in [("arity", 1..2), ("keys", 3..6), ("key specifications", 8..9)] {
            // What SET does depends on its options, which Redis says and this table doesn't.
            if what == "key specifications" && command.name == "set" {
                continue;
            }
            // They have had an option since 7.2.
            if what == "arity" && ["zrank", "zrevrank"].contains(&command.name) {
                continue;
            }
            let row = |client: &mut Client| {
                client.command(&format!("COMMAND INFO {}", command.name));
                let reply = reference::Reply::read(client).without_notes();
                reply.items()[0].items()[fields.clone()].to_vec()
            };
            assert_eq!(
                row(&mut sides.node),
                row(&mut sides.redis),
                "{} {what}",
                command.name
            );
        }
        let flags = |client: &mut Client| {
            client.command(&format!("COMMAND INFO {}", command.name));
            let reply = reference::Reply::read(client);
            let known = [
                "+write",
                "+readonly",
                "+denyoom",
                "+fast",
                "+movablekeys",
                "+noscript",
                "+no_mandatory_keys",
            ];
            let mut flags: Vec<String> = reply.items()[0].items()[2]
                .items()
                .iter()
                .map(|flag| flag.text().to_owned())
                .filter(|flag| known.contains(&flag.as_str()))
                .collect();
            flags.sort();
            flags
        };
        assert_eq!(
            flags(&mut sides.node),
            flags(&mut sides.redis),
            "{}",
            command.name
        );
    }
}
