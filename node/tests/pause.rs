//! `CLIENT PAUSE`: commands wait, in their order, and go on when it is over; as in a Redis 7.0 in cluster mode.

mod support;

#[path = "differential/reference.rs"]
mod reference;

use std::time::Duration;

use reference::Reference;
use support::transcript::play;
use support::{Client, Options, TestServer, encode};

#[test]
fn writes_wait_until_they_may_go_on() {
    let text = "
        a CLIENT PAUSE => -ERR wrong number of arguments for 'client|pause' command
        a CLIENT PAUSE x => -ERR timeout is not an integer or out of range
        a CLIENT PAUSE -1 => -ERR timeout is negative
        a CLIENT PAUSE 100 nonsense => -ERR CLIENT PAUSE mode must be WRITE or ALL
        a CLIENT PAUSE 100 WRITE x => -ERR unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP.
        a CLIENT UNPAUSE => +OK
        a CLIENT PAUSE 60000 WRITE => +OK
        b GET {k} => $-1
        b MULTI => +OK
        b GET {k} => +QUEUED
        b SET {k} 1 =>
        b GET {k} =>
        b EXEC =>
        c PUBLISH c 1 =>
        d SPUBLISH c 1 =>
        e FLUSHALL =>
        g SET {k} => -ERR wrong number of arguments for 'set' command
        f MULTI => +OK
        f GET {k} => +QUEUED
        f EXEC => *1 $-1
        a GET {k} => $-1
        a CLIENT UNPAUSE => +OK
        b <- +QUEUED +QUEUED *3 $-1 +OK $1 1
        c <- :0
        d <- :0
        e <- +OK
        a SET {k} 2 => +OK
        a CLIENT PAUSE 50 WRITE => +OK
        a SET {k} 3 => +OK
        a CLIENT PAUSE 50 => +OK
        b PING => +PONG
        ";
    let server = TestServer::start(&Options::default());
    play(server.addr, text);
    if let Some(redis) = Reference::start_cluster() {
        play(redis.addr(), text);
    }
}

/// A pipeline that is held goes on with the command that was held, and nothing in it is lost or done twice.
#[test]
fn a_pipeline_goes_on_where_it_was_held() {
    const INCREMENTS: usize = 20_000;
    let server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    let (mut admin, mut client) = (server.connect(), server.connect());
    let pipeline = "INCR n\r\n".repeat(INCREMENTS);
    admin.check("CLIENT PAUSE 600000 WRITE", "+OK\r\n");
    client.send(pipeline);
    // Until it has arrived, to be held.
    while admin.ask("CLIENT LIST").matches(" qbuf=0 ").count() > 1 {}
    admin.check("GET n", "$-1\r\n");
    admin.check("CLIENT UNPAUSE", "+OK\r\n");
    for number in 1..=INCREMENTS {
        client.expect(format!(":{number}\r\n"));
    }
}

/// Who is held can still be ended.
#[test]
fn a_held_client_can_be_killed() {
    let mut server = TestServer::start(&Options::default());
    let (mut admin, mut client) = (server.connect(), server.connect());
    let id = client.ask("CLIENT ID")[1..].trim_end().to_owned();
    admin.check("CLIENT PAUSE 600000 WRITE", "+OK\r\n");
    client.command("SET k 1");
    admin.check(&format!("CLIENT KILL ID {id}"), ":1\r\n");
    assert_eq!(client.rest(), b"");
    let mut other: Client = server.connect();
    other.command("SET k 1");
    assert_eq!(server.shutdown(Duration::from_secs(10)), 0);
    assert_eq!(other.rest(), b"");
}

#[test]
fn who_waits_is_counted() {
    let server = TestServer::start(&Options::default());
    let (mut looker, mut first, mut second) = (server.connect(), server.connect(), server.connect());
    looker.check("CLIENT PAUSE 60000 WRITE", "+OK\r\n");
    first.command("SET k 1");
    second.command("SET k 2");
    let mut wait_for = |waiting: &str| while !looker.ask("INFO clients").contains(waiting) {};
    wait_for("blocked_clients:2\r\n");
    drop(second);
    wait_for("blocked_clients:1\r\n");
    looker.check("CLIENT UNPAUSE", "+OK\r\n");
    first.expect("+OK\r\n");
    assert!(looker.ask("INFO clients").contains("blocked_clients:0\r\n"));
}

#[test]
fn scripts_that_say_that_they_write_nothing_go_on() {
    const READS: &[u8] = b"#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])";
    let server = TestServer::start(&Options::default());
    let (mut client, mut writer) = (server.connect(), server.connect());
    client.check("SET k v", "+OK\r\n");
    client.send(encode(&[b"SCRIPT", b"LOAD", READS]));
    let id = String::from_utf8(client.reply()).unwrap();
    let id = id.lines().nth(1).unwrap();
    client.check("CLIENT PAUSE 60000 WRITE", "+OK\r\n");
    client.send(encode(&[b"EVAL", READS, b"1", b"k"]));
    client.expect("$1\r\nv\r\n");
    client.check(&format!("EVALSHA {id} 1 k"), "$1\r\nv\r\n");
    client.check("MULTI", "+OK\r\n");
    client.check(&format!("EVALSHA {id} 1 k"), "+QUEUED\r\n");
    client.check("EXEC", "*1\r\n$1\r\nv\r\n");
    writer.command("EVAL return(1) 0");
    while !client.ask("INFO clients").contains("blocked_clients:1\r\n") {}
    client.check("CLIENT UNPAUSE", "+OK\r\n");
    writer.expect(":1\r\n");
}
