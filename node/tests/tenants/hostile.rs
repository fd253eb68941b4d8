//! A hostile tenant tries every command of the table, on everything of another tenant that it can name or guess.
//!
//! It does so on two nodes: one where the other tenant has planted something under those names, and one where there is
//! nothing. Every reply must be the same on both, so that nothing shows, be it a value, a count or an error; no reply may
//! hold a planted secret, that is, a word which the hostile tenant never says; and the other tenant must not notice.

use std::collections::BTreeSet;
use std::sync::Arc;

use annulus_node::command::{Command, Entry, table};
use annulus_node::store::Space;
use annulus_proto::tenants::TenantId;
use annulus_ring::Slot;

use crate::support::{Client, TestServer, encode};
use crate::world::{log_in, options, root, start, tenant, wait_for};

/// What stands in everything that the hostile tenant doesn't know.
const SECRET: &str = "secret";

/// Names that it has guessed, one for each type, and one where nothing is.
const KEYS: [&str; 6] = ["{v}text", "{v}list", "{v}set", "{v}hash", "{v}zset", "{v}none"];

/// The victim's script, which is a secret; its name is known.
const SCRIPT: &str = "return 'secret-script'";

/// The victim's connections: one that works, and one that listens and has a cache.
struct Victim {
    works: Client,
    listens: Client,
    watches: Client,
}

/// What the hostile tenant knows of the victim.
struct Known {
    client_ids: Vec<String>,
    addresses: Vec<String>,
    script: String,
}

fn field(line: &str, name: &str) -> String {
    let mut words = line.split_whitespace();
    let found = words.find_map(|word| word.strip_prefix(name));
    found.unwrap().to_owned()
}

fn plant(server: &TestServer, name: &str) -> (Victim, Known) {
    let connect = || match name {
        "default" => root(server),
        name => log_in(server, name),
    };
    let mut victim = Victim {
        works: connect(),
        listens: connect(),
        watches: connect(),
    };
    let works = &mut victim.works;
    works.check("CLIENT SETNAME secret-client", "+OK\r\n");
    for line in [
        "SET {v}text secret-value",
        "RPUSH {v}list secret-element 1",
        "SADD {v}set secret-member 1",
        "HSET {v}hash secret-field secret-value",
        "ZADD {v}zset 1 secret-member 2 1",
        "SET secret-key 1 PX 10000000",
    ] {
        let reply = works.ask(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    works.send(encode(&[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()]));
    let script = String::from_utf8(works.reply()).unwrap();
    let listens = &mut victim.listens;
    listens.ask("HELLO 3");
    listens.check("CLIENT TRACKING ON BCAST", "+OK\r\n");
    for line in [
        "SUBSCRIBE {v}news secret-channel",
        "PSUBSCRIBE {v}* secret-*",
        "SSUBSCRIBE {v}news {v}secret-channel",
    ] {
        listens.command(line);
        for _ in line.split(' ').skip(1) {
            listens.reply();
        }
    }
    let watches = &mut victim.watches;
    watches.check("WATCH {v}text {v}none", "+OK\r\n");
    watches.check("MULTI", "+OK\r\n");
    let ids: Vec<String> = [&mut victim.works, &mut victim.listens]
        .into_iter()
        .map(|client| client.ask("CLIENT ID")[1..].trim_end().to_owned())
        .collect();
    let own = victim.works.ask("CLIENT INFO");
    let known = Known {
        client_ids: ids,
        addresses: vec![field(&own, "addr="), field(&own, "laddr=")],
        script: script.lines().nth(1).unwrap().to_owned(),
    };
    (victim, known)
}

impl Victim {
    /// Everything is as it was planted.
    #[track_caller]
    fn check(&mut self, tried: &str) {
        let works = &mut self.works;
        let found = [
            works.ask("GET {v}text"),
            works.ask("LRANGE {v}list 0 -1"),
            works.ask("SCARD {v}set"),
            works.ask("HGETALL {v}hash"),
            works.ask("ZRANGE {v}zset 0 -1"),
            works.ask("DBSIZE"),
            works.ask("TTL {v}text"),
        ];
        let expected = [
            "$12\r\nsecret-value\r\n",
            "*2\r\n$14\r\nsecret-element\r\n$1\r\n1\r\n",
            ":2\r\n",
            "*2\r\n$12\r\nsecret-field\r\n$12\r\nsecret-value\r\n",
            "*2\r\n$13\r\nsecret-member\r\n$1\r\n1\r\n",
            ":6\r\n",
            ":-1\r\n",
        ];
        assert_eq!(found, expected, "after {tried}");
        // A message or a changed key would stand before the reply.
        assert_eq!(self.listens.ask("PING"), "+PONG\r\n", "after {tried}");
    }

    /// At the end: nothing that was watched has changed, and the script is known.
    fn check_last(mut self, known: &Known) {
        self.watches.check("PING", "+QUEUED\r\n");
        self.watches.check("EXEC", "*1\r\n+PONG\r\n");
        let works = &mut self.works;
        assert_eq!(
            works.ask(&format!("SCRIPT EXISTS {}", known.script)),
            "*1\r\n:1\r\n"
        );
        assert!(works.ask("PUBSUB CHANNELS *").contains("secret-channel"));
        assert!(works.ask("PUBSUB SHARDCHANNELS *").contains("secret-channel"));
        assert_eq!(works.ask("PUBSUB NUMPAT"), ":2\r\n");
        assert_eq!(works.ask("CLIENT GETNAME"), "$13\r\nsecret-client\r\n");
    }
}

type Attempt = Vec<Vec<u8>>;

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

/// Said as they stand.
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
fn by_hand(known: &Known) -> Vec<Attempt> {
    let slot = Slot::for_key(b"{v}text");
    let [works, listens] = [&known.client_ids[0], &known.client_ids[1]];
    let [address, local] = [&known.addresses[0], &known.addresses[1]];
    let script = &known.script;
    let mut attempts: Vec<Attempt> = LINES.iter().map(|line| words(line)).collect();
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
fn attempts(known: &[&Known]) -> Vec<Attempt> {
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

fn space(server: &TestServer) -> Arc<Space> {
    server.node.store.find_space(TenantId(2)).unwrap()
}

/// Tries one command on a connection of its own, with nothing in the hostile tenant's keyspace, and returns all that comes.
fn attempt(server: &TestServer, attempt: &Attempt) -> String {
    let tenants = server.node.tenants.all();
    let own = tenants
        .iter()
        .find(|tenant| tenant.label().ends_with("/hostile"))
        .unwrap();
    wait_for("the last connection is gone", || own.connections() == 0);
    if space(server).keys() > 0 {
        log_in(server, "hostile").check("FLUSHALL", "+OK\r\n");
        wait_for("that one, too", || own.connections() == 0);
    }
    let mut commands = b"AUTH hostile secret-hostile\r\nSLOWLOG RESET\r\n".to_vec();
    commands.extend(encode(&attempt.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    commands.extend(b"QUIT\r\n");
    let mut client = server.connect();
    client.send(&commands);
    String::from_utf8_lossy(&client.rest()).into_owned()
}

/// What two nodes may tell differently: who they are, the time, and the numbers of connections.
fn comparable(tried: &Attempt, reply: &str) -> String {
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

fn show(attempt: &Attempt) -> String {
    let words = attempt.iter().map(|word| String::from_utf8_lossy(word));
    words.collect::<Vec<_>>().join(" ")
}

/// As if somebody else had planted what the cluster's own clients, and another tenant, have.
#[test]
fn a_tenant_sees_nothing_of_anybody_else() {
    let tenants = || vec![tenant(1, "victim"), tenant(2, "hostile")];
    let (planted, empty) = (start(&options(), tenants()), start(&options(), tenants()));
    for server in [&planted, &empty] {
        let mut root = root(server);
        root.check("CONFIG SET slowlog-log-slower-than 0", "+OK\r\n");
    }
    let mut victims = ["victim", "default"].map(|name| plant(&planted, name));
    let (mut tried, mut leaks) = (BTreeSet::new(), Vec::new());
    let known = victims.each_ref().map(|(_, known)| known);
    for (number, each) in attempts(&known).into_iter().enumerate() {
        let (found, expected) = (attempt(&planted, &each), attempt(&empty, &each));
        let line = show(&each);
        if found.contains(SECRET) {
            leaks.push(format!("{line}: a secret shows: {found}"));
        } else if comparable(&each, &found) != comparable(&each, &expected) {
            leaks.push(format!("{line}: {found}\nand where nothing is: {expected}"));
        }
        if number % 32 == 0 {
            for (victim, _) in &mut victims {
                victim.check(&line);
            }
        }
        tried.insert(each[0].to_ascii_lowercase());
    }
    for entry in table().commands() {
        assert!(
            tried.contains(entry.command.name.as_bytes()),
            "{} was not tried",
            entry.full_name
        );
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    for (mut victim, known) in victims {
        victim.check("everything");
        victim.check_last(&known);
    }
}

/// What is not a reply to the hostile tenant: what it is sent because of what others do.
#[test]
fn nothing_comes_of_what_another_tenant_does() {
    let server = start(&options(), vec![tenant(1, "victim"), tenant(2, "hostile")]);
    let mut hostile = log_in(&server, "hostile");
    hostile.ask("HELLO 3");
    for line in ["SUBSCRIBE {v}news", "PSUBSCRIBE *", "SSUBSCRIBE {v}news"] {
        hostile.ask(line);
    }
    hostile.ask("CLIENT TRACKING ON BCAST");
    hostile.check(
        "SET {v}text mine",
        "+OK\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$7\r\n{v}text\r\n",
    );
    let mut watching = log_in(&server, "hostile");
    watching.check("WATCH {v}text", "+OK\r\n");
    watching.check("MULTI", "+OK\r\n");
    for mut victim in [log_in(&server, "victim"), root(&server)] {
        for line in [
            "SET {v}text secret",
            "PUBLISH {v}news secret",
            "SPUBLISH {v}news secret",
            "DEL {v}text",
            "FLUSHALL",
        ] {
            let reply = victim.ask(line);
            assert!(!reply.starts_with('-') && reply != ":2\r\n", "{line}: {reply}");
            hostile.check("PING", "+PONG\r\n");
        }
    }
    hostile.check("GET {v}text", "$4\r\nmine\r\n");
    watching.check("EXEC", "*0\r\n");
}
