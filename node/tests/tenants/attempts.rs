//! What a hostile tenant tries: every command of the table, on every name of another tenant that it knows or has guessed.
//!
//! Of a process here, of a real cluster in the end-to-end tests.

use std::collections::BTreeSet;

use annulus_node::command::{Command, Entry, table};
use annulus_ring::Slot;

/// Names that it has guessed, one for each type, and one where nothing is.
pub const KEYS: [&str; 6] = ["{v}text", "{v}list", "{v}set", "{v}hash", "{v}zset", "{v}none"];

/// The victim's script, which is a secret; its name is known.
pub const SCRIPT: &str = "return 'secret-script'";

/// What the hostile tenant knows of the victim.
pub struct Known {
    pub user: String,
    pub client_ids: Vec<String>,
    pub addresses: Vec<String>,
    pub script: String,
}

/// A command with its arguments.
pub type Attempt = Vec<Vec<u8>>;

fn words(line: &str) -> Attempt {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// As many arguments as the command needs, with guessed keys where it has keys, and each of some fillers elsewhere.
fn by_row(entry: &Entry, attempts: &mut Vec<Attempt>) {
    let Command { keys, arity, .. } = entry.command;
    let name: Vec<Vec<u8>> = entry
        .full_name
        .split('|')
        .map(|part| part.as_bytes().to_vec())
        .collect();
    for key in KEYS {
        for filler in ["1", "*"] {
            let len = usize::from(arity.unsigned_abs()).max(name.len());
            let mut attempt = name.clone();
            while attempt.len() < len.max(usize::from(keys.first) + 1) {
                let place = attempt.len();
                let is_key = keys.first > 0 && place >= usize::from(keys.first);
                attempt.push(if is_key && (keys.last < 0 || place == usize::from(keys.first)) {
                    key.into()
                } else {
                    filler.into()
                });
            }
            if let Some(counted) = keys.counted {
                attempt.truncate(usize::from(counted.at));
                attempt.extend([b"1".to_vec(), key.into()]);
            }
            attempts.push(attempt.clone());
            if *arity < 0 {
                attempt.push(filler.into());
                attempts.push(attempt);
            }
        }
    }
}

/// Said as they stand, but for the name of the victim's user.
const LINES: &[&str] = &[
    "SCAN 0 COUNT 100000",
    "SCAN 0 MATCH * TYPE string COUNT 100000",
    "KEYS *",
    "KEYS {v}*",
    "DBSIZE",
    "RANDOMKEY",
    "FLUSHALL SYNC",
    "FLUSHDB ASYNC",
    "INFO",
    "INFO all",
    "INFO everything commandstats errorstats latencystats replication",
    "MEMORY STATS",
    "MEMORY DOCTOR",
    "MEMORY USAGE {v}hash SAMPLES 0",
    "OBJECT FREQ {v}text",
    "OBJECT IDLETIME {v}text",
    "OBJECT ENCODING {v}zset",
    "SLOWLOG GET -1",
    "SLOWLOG LEN",
    "SLOWLOG RESET",
    "LATENCY LATEST",
    "LATENCY HISTOGRAM",
    "LATENCY DOCTOR",
    "LATENCY RESET",
    "CONFIG GET *",
    "CONFIG SET maxclients 1",
    "CONFIG RESETSTAT",
    "CLIENT LIST",
    "CLIENT LIST TYPE normal",
    "CLIENT LIST TYPE pubsub",
    "CLIENT KILL TYPE normal SKIPME yes",
    "CLIENT KILL TYPE pubsub SKIPME yes",
    "CLIENT KILL MAXAGE 1 SKIPME yes",
    "CLIENT KILL USER victim",
    "CLIENT KILL USER default",
    "CLIENT PAUSE 100000 ALL",
    "CLIENT PAUSE 100000 WRITE",
    "CLIENT UNPAUSE",
    "PUBLISH {v}news hello",
    "PUBLISH somewhere hello",
    "SPUBLISH {v}news hello",
    "SUBSCRIBE {v}news",
    "PSUBSCRIBE *",
    "SSUBSCRIBE {v}news",
    "UNSUBSCRIBE {v}news",
    "PUBSUB CHANNELS",
    "PUBSUB CHANNELS *",
    "PUBSUB NUMSUB {v}news",
    "PUBSUB NUMPAT",
    "PUBSUB SHARDCHANNELS *",
    "PUBSUB SHARDNUMSUB {v}news",
    "SCRIPT FLUSH SYNC",
    "SCRIPT KILL",
    "ACL GETUSER victim",
    "ACL GETUSER default",
    "ACL WHOAMI",
    "ACL LIST",
    "ACL USERS",
    "ACL SETUSER hostile +@all",
    "ACL DELUSER victim",
    "ACL LOG",
    "ACL CAT dangerous",
    "AUTH victim wrong",
    "AUTH nobody wrong",
    "AUTH wrong",
    "HELLO 3 AUTH victim wrong SETNAME me",
    "RESET",
    "ROLE",
    "WAIT 0 0",
    "MONITOR",
    "DEBUG SLEEP 0",
    "SHUTDOWN NOSAVE",
    "SAVE",
    "REPLICAOF NO ONE",
    "CLUSTER RESET HARD",
    "CLUSTER FAILOVER FORCE",
    "CLUSTER DELSLOTS 1",
    "CLUSTER LINKS",
    "CLUSTER INFO",
    "MIGRATE 127.0.0.1 1 {v}text 0 10",
    "DUMP {v}text",
    "SWAPDB 0 1",
    "SELECT 1",
    "MOVE {v}text 1",
    "SORT {v}list BY weight-* GET *",
    "COPY {v}text {v}copy",
    "COPY {v}text {v}copy DB 1",
    "RENAME {v}text {v}mine",
    "SET {v}text mine GET",
    "SET {v}text mine XX",
    "SET {v}text mine NX GET",
    "GETEX {v}text PERSIST",
    "EXPIRE {v}text 0",
    "SINTERSTORE {v}mine {v}set {v}set",
    "ZRANGESTORE {v}mine {v}zset 0 -1",
    "LMOVE {v}list {v}mine LEFT LEFT",
    "WATCH {v}text",
    "COMMAND GETKEYS GET {v}text",
];

/// Run without keys.
const SCRIPTS: &[&str] = &[
    "return redis.call('GET', '{v}text')",
    "return redis.call('SCAN', 0)",
    "return redis.call('CONFIG', 'GET', '*')",
    "return redis.call('CLIENT', 'LIST')",
    "return redis.call('PUBLISH', '{v}news', 'hello')",
    "return redis.pcall('DEL', '{v}text', '{v}hash')",
    "return redis.call('PUBSUB', 'CHANNELS')",
    "redis.log(redis.LOG_WARNING, 'noise') return 1",
    "local all = {} for name in pairs(_G) do all[#all + 1] = name end table.sort(all) return all",
    "return {KEYS, ARGV}",
];

/// What is said with options, or has keys where no row says so.
pub fn by_hand(known: &Known) -> Vec<Attempt> {
    let slot = Slot::for_key(b"{v}text");
    let [works, listens] = [&known.client_ids[0], &known.client_ids[1]];
    let [address, local] = [&known.addresses[0], &known.addresses[1]];
    let script = &known.script;
    let lines = LINES.iter().map(|line| line.replace("victim", &known.user));
    let mut attempts: Vec<Attempt> = lines.map(|line| words(&line)).collect();
    attempts.extend(
        [
            format!("CLUSTER COUNTKEYSINSLOT {slot}"),
            format!("CLUSTER GETKEYSINSLOT {slot} 1000"),
            format!("CLIENT LIST ID {works} {listens}"),
            format!("CLIENT KILL ID {works}"),
            format!("CLIENT KILL ID {listens} SKIPME no"),
            format!("CLIENT KILL ADDR {address}"),
            format!("CLIENT KILL LADDR {local} SKIPME yes"),
            format!("CLIENT KILL {address}"),
            format!("CLIENT TRACKING ON REDIRECT {works}"),
            format!("CLIENT TRACKING ON REDIRECT {listens} BCAST"),
            format!("SCRIPT EXISTS {script}"),
            format!("SCRIPT SHOW {script}"),
            format!("EVALSHA {script} 0"),
            format!("EVALSHA_RO {script} 1 {{v}}text"),
        ]
        .iter()
        .map(|line| words(line)),
    );
    for body in SCRIPTS {
        attempts.push(vec![b"EVAL".to_vec(), body.as_bytes().to_vec(), b"0".to_vec()]);
    }
    attempts
}

/// Everything that is tried.
pub fn attempts(known: &[&Known]) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = known.iter().flat_map(|known| by_hand(known)).collect();
    for entry in table().commands() {
        by_row(entry, &mut attempts);
        for subcommand in &entry.subcommands {
            by_row(subcommand, &mut attempts);
        }
    }
    let mut seen = BTreeSet::new();
    attempts.retain(|attempt| seen.insert(attempt.clone()));
    attempts
}

/// What two nodes may tell differently: who they are, the time, and the numbers of connections.
pub fn comparable(tried: &Attempt, reply: &str) -> String {
    const PASSING: [&str; 8] = [
        "total_commands_processed:",
        "expired_keys:",
        "process_id:",
        "run_id:",
        "tcp_port:",
        "server_time_usec:",
        "uptime_in_",
        "connected_clients:",
    ];
    const NUMBERED: [&str; 8] = [
        "client", "cluster", "hello", "time", "slowlog", "info", "eval", "memory",
    ];
    let name = String::from_utf8_lossy(&tried[0]).to_lowercase();
    if !NUMBERED.contains(&name.as_str()) {
        return reply.to_owned();
    }
    let lines = reply.lines().map(|line| {
        if PASSING.iter().any(|passing| line.starts_with(passing)) {
            line.split(':').next().unwrap_or_default().to_owned()
        } else if name == "info" || name == "memory" {
            // Lengths of texts that hold what passes.
            line.trim_start_matches(['$', '=']).to_owned() + if line.starts_with('$') { "#" } else { "" }
        } else if ["client", "cluster", "hello", "time", "slowlog"].contains(&name.as_str())
            && counts_nothing(tried)
        {
            line.replace(|digit: char| digit.is_ascii_digit(), "")
        } else {
            line.to_owned()
        }
    });
    let lines: Vec<String> = lines.collect();
    if name == "info" {
        // The first line is the length.
        lines[1.min(lines.len())..].join("\n")
    } else {
        lines.join("\n")
    }
}

/// Whether the numbers in a reply are those of connections, ports and times, and not of keys, channels or clients.
fn counts_nothing(tried: &Attempt) -> bool {
    let subcommand = tried
        .get(1)
        .map(|word| String::from_utf8_lossy(word).to_lowercase());
    !matches!(
        subcommand.as_deref(),
        Some("countkeysinslot" | "getkeysinslot" | "kill" | "tracking" | "links" | "keyslot")
    )
}

pub fn show(attempt: &Attempt) -> String {
    let words = attempt.iter().map(|word| String::from_utf8_lossy(word));
    words.collect::<Vec<_>>().join(" ")
}
