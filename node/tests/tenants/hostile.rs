//! A hostile tenant tries every command of the table, on everything of another tenant that it can name or guess.
//!
//! It does so on two nodes: one where the other tenant has planted something under those names, and one where there is
//! nothing. Every reply must be the same on both, so that nothing shows, be it a value, a count or an error; no reply may
//! hold a planted secret, that is, a word which the hostile tenant never says; and the other tenant must not notice.

use std::collections::BTreeSet;
use std::sync::Arc;

use annulus_node::command::table;
use annulus_node::store::Space;
use annulus_proto::tenants::TenantId;

use crate::attempts::{Attempt, Known, SCRIPT, attempts, comparable, show};
use crate::support::{Client, TestServer, encode};
use crate::world::{log_in, options, root, start, tenant, wait_for};

/// What stands in everything that the hostile tenant doesn't know.
const SECRET: &str = "secret";

/// The victim's connections: one that works, and one that listens and has a cache.
struct Victim {
    works: Client,
    listens: Client,
    watches: Client,
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
        user: name.to_owned(),
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
