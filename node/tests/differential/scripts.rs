//! Scripts that a Redis server and this node must answer with the same bytes, one behind the other.

use super::reference::Reference;
use super::{
    Sides,
    support::{Client, Options, TestServer},
};

/// A script, with `\n` for a line end; behind `|` its keys and arguments, of which those up to `,` are keys.
const SCRIPTS: &str = include_str!("scripts.txt");

#[test]
fn scripts_answer_as_in_redis() {
    let Some(redis) = Reference::start() else { return };
    for resp3 in [false, true] {
        let server = TestServer::start(&Options::default());
        let mut sides = Sides {
            node: server.connect(),
            redis: Client::connect(redis.addr()),
        };
        if resp3 {
            sides.both("HELLO 3");
        }
        sides.both("FLUSHALL");
        for line in SCRIPTS
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("-- "))
        {
            let (script, rest) = line.split_once(" | ").unwrap_or((line, ""));
            let (keys, args) = rest.split_once(',').unwrap_or((rest, ""));
            let keys: Vec<&str> = keys.split_whitespace().collect();
            let mut command = vec![
                "EVAL".to_owned(),
                script.replace("\\n", "\n"),
                keys.len().to_string(),
            ];
            command.extend(keys.into_iter().chain(args.split_whitespace()).map(str::to_owned));
            let command: Vec<Vec<u8>> = command.into_iter().map(String::into_bytes).collect();
            let (found, expected) = sides.ask(&command);
            assert_eq!(
                super::show(&found),
                super::show(&expected),
                "RESP3 {resp3}: {line}"
            );
        }
    }
}
