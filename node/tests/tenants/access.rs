//! Who gets in, as whom, and for how long.

use std::io::Write;
use std::time::Duration;

use annulus_proto::tenants::Quota;

use crate::support::{Options, encode};
use crate::world::{ROOT, adopt, digest, log_in, options, root, start, tenant, user, wait_for};

const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

#[test]
fn users_get_in_with_any_of_their_passwords() {
    let mut shop = tenant(1, "shop");
    shop.users[0].passwords.push(digest("the other"));
    let server = start(&options(), vec![shop]);
    let mut client = server.connect();
    client.check("GET a", "-NOAUTH Authentication required.\r\n");
    for (user, password) in [
        ("shop", "no"),
        ("shop", ROOT),
        ("nobody", "secret-shop"),
        ("default", "secret-shop"),
    ] {
        client.check(&format!("AUTH {user} {password}"), WRONG);
    }
    client.send(encode(&[b"AUTH", b"shop", b"the other"]));
    client.expect("+OK\r\n");
    client.check("ACL WHOAMI", "$4\r\nshop\r\n");
    // A refused attempt changes nothing.
    client.check("AUTH shop no", WRONG);
    client.check("ACL WHOAMI", "$4\r\nshop\r\n");
    client.check("SET a 1", "+OK\r\n");
    client.check(&format!("AUTH {ROOT}"), "+OK\r\n");
    client.check("ACL WHOAMI", "$7\r\ndefault\r\n");
    client.check("GET a", "$-1\r\n");
    let hello = client.ask("HELLO 3 AUTH shop secret-shop SETNAME me");
    assert!(hello.starts_with("%7\r\n"), "{hello}");
    client.check("GET a", "$1\r\n1\r\n");
    let info = client.ask("CLIENT INFO");
    assert!(
        info.contains(" name=me ") && info.contains(" user=shop "),
        "{info}"
    );
    client.check("RESET", "+RESET\r\n");
    client.check("GET a", "-NOAUTH Authentication required.\r\n");
}

#[test]
fn what_one_has_is_left_behind_with_the_user() {
    let server = start(&options(), vec![tenant(1, "a"), tenant(2, "b")]);
    let (mut client, mut other) = (log_in(&server, "a"), log_in(&server, "a"));
    client.ask("HELLO 3");
    client.check("SUBSCRIBE news", ">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    client.check("HELLO 3 AUTH b wrong", WRONG);
    other.check("PUBLISH news x", ":1\r\n");
    client.expect(">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n");
    let hello = client.ask("HELLO 3 AUTH b secret-b");
    assert!(hello.contains("proto"), "{hello}");
    other.check("PUBLISH news x", ":0\r\n");
    client.check("WATCH k", "+OK\r\n");
    client.check("MULTI", "+OK\r\n");
    client.check("SET k 1", "+QUEUED\r\n");
    client.check("EXEC", "*1\r\n+OK\r\n");
    client.check("AUTH a secret-a", "+OK\r\n");
    client.check("GET k", "_\r\n");
    client.check("AUTH b secret-b", "+OK\r\n");
    client.check("GET k", "$1\r\n1\r\n");
}

#[test]
fn rules_are_those_of_the_document_and_change_live() {
    let mut shop = tenant(1, "shop");
    shop.users = vec![
        user("reader", "+@read +@connection +@transaction +eval +acl -keys"),
        user("shop", "+@all"),
    ];
    let server = start(&options(), vec![shop.clone()]);
    let mut reader = log_in(&server, "reader");
    let denied =
        |command: &str| format!("-NOPERM User reader has no permissions to run the '{command}' command\r\n");
    reader.check("GET a", "$-1\r\n");
    reader.check("SET a 1", denied("set"));
    reader.check("KEYS *", denied("keys"));
    reader.check("CONFIG GET maxmemory", denied("config|get"));
    reader.send(encode(&[b"EVAL", b"return redis.pcall('SET', 'a', '1')", b"0"]));
    let reply = String::from_utf8(reader.reply()).unwrap();
    assert!(
        reply.contains("The user executing the script can't run this command"),
        "{reply}"
    );
    reader.check("ACL GETUSER shop", "$-1\r\n");
    let own = reader.ask("ACL GETUSER reader");
    assert!(
        own.contains("-keys") && !own.contains(&format!("{:x?}", digest("secret-reader").0)),
        "{own}"
    );
    reader.check("MULTI", "+OK\r\n");
    reader.check("SET a 1", denied("set"));
    reader.check(
        "EXEC",
        "-EXECABORT Transaction discarded because of previous errors.\r\n",
    );
    reader.check("MULTI", "+OK\r\n");
    reader.check("GET a", "+QUEUED\r\n");
    shop.users[0].rules = vec!["+set +exec".to_owned()];
    adopt(&server, 2, vec![shop]);
    reader.check("EXEC", format!("*1\r\n{}", denied("get")));
    reader.check("SET a 1", "+OK\r\n");
    reader.check("GET a", denied("get"));
}

#[test]
fn connections_end_with_their_user_but_not_with_a_password() {
    let server = start(&options(), vec![tenant(1, "a"), tenant(2, "b"), tenant(3, "c")]);
    let mut clients = ["a", "b", "c"].map(|name| log_in(&server, name));
    clients[1].check("SET kept 1", "+OK\r\n");
    let mut root = root(&server);
    // Tenant a gets a new password, b has no users for now, c stays as it is.
    let (mut a, mut b) = (tenant(1, "a"), tenant(2, "b"));
    a.users[0].passwords = vec![digest("new")];
    b.users.clear();
    adopt(&server, 2, vec![a, b, tenant(3, "c")]);
    assert_eq!(clients[1].rest(), b"");
    clients[0].check("SET kept 2", "+OK\r\n");
    clients[2].check("PING", "+PONG\r\n");
    root.check("PING", "+PONG\r\n");
    let mut again = server.connect();
    again.check("AUTH a secret-a", WRONG);
    again.check("AUTH b secret-b", WRONG);
    again.check("AUTH a new", "+OK\r\n");
    // What b has is kept for it.
    adopt(&server, 3, vec![tenant(2, "b")]);
    log_in(&server, "b").check("GET kept", "$1\r\n1\r\n");
    assert_eq!(again.rest(), b"");
}

#[test]
fn what_a_tenant_had_goes_with_it() {
    let server = start(&options(), vec![tenant(1, "a"), tenant(2, "b")]);
    let store = &server.node.store;
    for (name, count) in [("a", 20_000), ("b", 100)] {
        let mut client = log_in(&server, name);
        for first in (0..count).step_by(100) {
            let commands = (first..first + 100).map(|number| format!("SET key{number} value\r\n"));
            client.send(commands.collect::<String>());
            client.expect("+OK\r\n".repeat(100));
        }
    }
    let used_bytes = store.used_bytes();
    adopt(&server, 2, vec![tenant(2, "b")]);
    wait_for("the entries are dropped", || store.all_keys() == 100);
    wait_for("the tenant is forgotten", || store.spaces().len() == 1);
    assert!(
        store.used_bytes() < used_bytes / 50,
        "{} of {used_bytes}",
        store.used_bytes()
    );
    log_in(&server, "b").check("DBSIZE", ":100\r\n");
}

#[test]
fn a_tenant_has_so_many_connections() {
    let mut shop = tenant(1, "shop");
    shop.quota = Quota {
        connections: Some(2),
        ..Quota::default()
    };
    let server = start(&options(), vec![shop, tenant(2, "other")]);
    let (first, mut second) = (log_in(&server, "shop"), log_in(&server, "shop"));
    // A connection that logs in again takes no second place.
    second.check("AUTH shop secret-shop", "+OK\r\n");
    // The same connection once more is no third one for long.
    second.check("RESET", "+RESET\r\n");
    second.check("AUTH shop secret-shop", "+OK\r\n");
    let mut third = server.connect();
    let refused = third.ask("AUTH shop secret-shop");
    assert!(
        refused.contains("has its 2 connections to this node already"),
        "{refused}"
    );
    third.check("GET a", "-NOAUTH Authentication required.\r\n");
    third.check("AUTH other secret-other", "+OK\r\n");
    drop(first);
    wait_for("a place is free", || {
        third.ask("AUTH shop secret-shop") == "+OK\r\n"
    });
}

/// Strangers are few, quick and brief.
#[test]
fn strangers_get_little() {
    let server = start(
        &Options {
            clients_max: 64,
            ..options()
        },
        vec![tenant(1, "shop")],
    );
    let mut known = log_in(&server, "shop");
    // From one address 16 may not have said who they are.
    let strangers: Vec<_> = (0..16).map(|_| server.connect()).collect();
    let mut one_too_many = None;
    wait_for("all of them are counted", || {
        let mut next = server.connect();
        next.stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let line = next.try_ask(&[b"PING"]).unwrap_or_default();
        let is_refused = line.starts_with(b"-ERR too many connections that have not authenticated");
        one_too_many = Some(next);
        is_refused
    });
    known.check("PING", "+PONG\r\n");
    drop(strangers);
    wait_for("there is room again", || {
        server.connect().ask("PING").starts_with("-NOAUTH")
    });
    // A command of a stranger is short.
    let mut wordy = server.connect();
    let word = format!("$16000\r\n{}\r\n", "w".repeat(16_000));
    wordy.stream.write_all(b"*10\r\n").unwrap();
    for _ in 0..4 {
        wordy.stream.write_all(word.as_bytes()).ok();
    }
    assert_eq!(wordy.rest(), b"");
    // Who says nothing is gone after some time.
    let mut silent = server.connect();
    silent
        .stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(silent.rest(), b"");
    known.check("PING", "+PONG\r\n");
}

/// A slot that was locked with one user's rights is not worked in with another's.
#[test]
fn a_transaction_is_one_users() {
    let server = start(&options(), vec![tenant(1, "a"), tenant(2, "b")]);
    let mut client = log_in(&server, "a");
    client.check("MULTI", "+OK\r\n");
    client.check("SET k 1", "+QUEUED\r\n");
    let refused = client.ask("AUTH b secret-b");
    assert!(
        refused.starts_with("-ERR a command that looks at many slots"),
        "{refused}"
    );
    client.check(
        "EXEC",
        "-EXECABORT Transaction discarded because of previous errors.\r\n",
    );
    // A script without keys locks its slot only when it runs.
    client.check("MULTI", "+OK\r\n");
    for (script, with_auth) in [("1", true), ("2", false)] {
        let source = format!("return redis.call('SET', 'k', '{script}')");
        client.send(encode(&[b"EVAL", source.as_bytes(), b"0"]));
        client.expect("+QUEUED\r\n");
        if with_auth {
            client.check("AUTH b secret-b", "+QUEUED\r\n");
        }
    }
    client.command("EXEC");
    let reply = String::from_utf8(client.reply()).unwrap();
    let refusal = "-ERR a command that looks at many slots can't run while one is locked";
    assert_eq!(reply, format!("*3\r\n+OK\r\n{refusal}\r\n+OK\r\n"));
    client.check("ACL WHOAMI", "$1\r\na\r\n");
    client.check("GET k", "$1\r\n2\r\n");
    log_in(&server, "b").check("GET k", "$-1\r\n");
}
