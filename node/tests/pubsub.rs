//! Publish and subscribe over sockets: what clients get, byte for byte as a Redis 7.0 in cluster mode sends it, and what
//! happens to clients that don't read.

mod support;

#[path = "differential/reference.rs"]
mod reference;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use annulus_node::connection::Pipeline;
use annulus_node::mailbox;
use reference::Reference;
use support::transcript::play;
use support::{Client, Options, TestServer, encode};

/// Plays a conversation with this node, and with a Redis server where there is one.
#[track_caller]
fn as_in_redis(text: &str) {
    let server = TestServer::start(&Options::default());
    play(server.addr, text);
    if let Some(redis) = Reference::start_cluster() {
        play(redis.addr(), text);
    }
}

#[test]
fn messages_in_resp2() {
    as_in_redis(
        "
        a UNSUBSCRIBE => *3 $11 unsubscribe $-1 :0
        a PUNSUBSCRIBE x => *3 $12 punsubscribe $1 x :0
        a SUNSUBSCRIBE => *3 $12 sunsubscribe $-1 :0
        a SUBSCRIBE => -ERR wrong number of arguments for 'subscribe' command
        a SUBSCRIBE news news other => *3 $9 subscribe $4 news :1 *3 $9 subscribe $4 news :1 *3 $9 subscribe $5 other :2
        a PSUBSCRIBE n?ws => *3 $10 psubscribe $4 n?ws :3
        b PUBLISH news hello => :2
        a <- *3 $7 message $4 news $5 hello *4 $8 pmessage $4 n?ws $4 news $5 hello
        b PUBLISH nows hello => :1
        a <- *4 $8 pmessage $4 n?ws $4 nows $5 hello
        b PUBLISH nobody hello => :0
        a GET key => -ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
        a CLIENT ID => -ERR Can't execute 'client|id': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context
        a PING => *2 $4 pong $0 \x20
        a PING me => *2 $4 pong $2 me
        a PING me twice => -ERR wrong number of arguments for 'ping' command
        b PUBSUB NUMSUB news nobody => *4 $4 news :1 $6 nobody :0
        b PUBSUB NUMPAT => :1
        b PUBSUB CHANNELS n* => *1 $4 news
        b PUBSUB CHANNELS a b => -ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.
        b PUBSUB NUMPAT x => -ERR wrong number of arguments for 'pubsub|numpat' command
        a UNSUBSCRIBE news nobody => *3 $11 unsubscribe $4 news :2 *3 $11 unsubscribe $6 nobody :2
        a PUNSUBSCRIBE => *3 $12 punsubscribe $4 n?ws :1
        a UNSUBSCRIBE => *3 $11 unsubscribe $5 other :0
        a GET key => $-1
        b PUBLISH other gone => :0
        a SUBSCRIBE again => *3 $9 subscribe $5 again :1
        a RESET => +RESET
        b PUBSUB CHANNELS => *0
        a GET key => $-1
        ",
    );
}

#[test]
fn messages_in_resp3() {
    as_in_redis(
        "
        a HELLO 3
        a UNSUBSCRIBE => >3 $11 unsubscribe _ :0
        a SUBSCRIBE news => >3 $9 subscribe $4 news :1
        a PSUBSCRIBE n* => >3 $10 psubscribe $2 n* :2
        a SSUBSCRIBE own => >3 $10 ssubscribe $3 own :1
        b PUBLISH news hello => :2
        a <- >3 $7 message $4 news $5 hello >4 $8 pmessage $2 n* $4 news $5 hello
        a GET key => _
        a PING => +PONG
        a PUBLISH news mine => >3 $7 message $4 news $4 mine >4 $8 pmessage $2 n* $4 news $4 mine :2
        a SPUBLISH own mine => >3 $8 smessage $3 own $4 mine :1
        a CLIENT REPLY SKIP =>
        a PUBLISH news quiet => >3 $7 message $4 news $5 quiet >4 $8 pmessage $2 n* $4 news $5 quiet
        a CLIENT REPLY OFF =>
        a SUBSCRIBE more => >3 $9 subscribe $4 more :3
        a PING =>
        b PUBLISH more hello => :1
        a <- >3 $7 message $4 more $5 hello
        a UNSUBSCRIBE more => >3 $11 unsubscribe $4 more :2
        a CLIENT REPLY ON => +OK
        a SUNSUBSCRIBE => >3 $12 sunsubscribe $3 own :0
        a SUNSUBSCRIBE => >3 $12 sunsubscribe _ :0
        ",
    );
}

#[test]
fn sharded_channels_are_in_one_slot() {
    as_in_redis(
        "
        a SSUBSCRIBE {x}1 {y}1 => -CROSSSLOT Keys in request don't hash to the same slot
        a SSUBSCRIBE {x}1 {x}2 => *3 $10 ssubscribe $4 {x}1 :1 *3 $10 ssubscribe $4 {x}2 :2
        a SUBSCRIBE {x}1 => *3 $9 subscribe $4 {x}1 :1
        a SUNSUBSCRIBE {x}1 {y}1 => -CROSSSLOT Keys in request don't hash to the same slot
        b SPUBLISH {x}1 hello => :1
        a <- *3 $8 smessage $4 {x}1 $5 hello
        b PUBLISH {x}1 hello => :1
        a <- *3 $7 message $4 {x}1 $5 hello
        b PUBSUB SHARDNUMSUB {x}1 {x}3 => *4 $4 {x}1 :1 $4 {x}3 :0
        b PUBSUB SHARDCHANNELS *2 => *1 $4 {x}2
        b COMMAND GETKEYS SSUBSCRIBE a => -ERR The command has no key arguments
        a SUNSUBSCRIBE {x}1 => *3 $12 sunsubscribe $4 {x}1 :1
        a SUNSUBSCRIBE => *3 $12 sunsubscribe $4 {x}2 :0
        b SPUBLISH {x}1 gone => :0
        a PING => *2 $4 pong $0 \x20
        ",
    );
}

#[test]
fn subscriptions_in_a_transaction() {
    as_in_redis(
        "
        a MULTI => +OK
        a SUBSCRIBE c => +QUEUED
        a SSUBSCRIBE c => +QUEUED
        a PING => +QUEUED
        a UNSUBSCRIBE c => +QUEUED
        a EXEC => *4 *3 $9 subscribe $1 c :1 -ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client *2 $4 pong $0  *3 $11 unsubscribe $1 c :0
        a MULTI => +OK
        a SUNSUBSCRIBE => +QUEUED
        a EXEC => *1 *3 $12 sunsubscribe $-1 :0
        a MULTI => +OK
        a PUBLISH c 1 => +QUEUED
        a SPUBLISH {k} 1 => +QUEUED
        a SET {k} 1 => +QUEUED
        b SUBSCRIBE c => *3 $9 subscribe $1 c :1
        b SSUBSCRIBE {k} => *3 $10 ssubscribe $3 {k} :1
        a EXEC => *3 :1 :1 +OK
        b <- *3 $7 message $1 c $1 1 *3 $8 smessage $3 {k} $1 1
        a MULTI => +OK
        a SPUBLISH {k} 1 => +QUEUED
        a SET {other} 1 => +QUEUED
        a EXEC => -CROSSSLOT Keys in request don't hash to the same slot
        ",
    );
}

/// A client's own messages don't tear the reply of its transaction apart, as they do in Redis 7.0.
#[test]
fn an_exec_reply_stays_whole() {
    let server = TestServer::start(&Options::default());
    play(
        server.addr,
        "
        a SUBSCRIBE c => *3 $9 subscribe $1 c :1
        a RESET => +RESET
        a MULTI => +OK
        a SUBSCRIBE c => +QUEUED
        a PUBLISH c 1 => +QUEUED
        a EXEC => *2 *3 $9 subscribe $1 c :1 :1 *3 $7 message $1 c $1 1
        a RESET => +RESET
        a MULTI => +OK
        a SUBSCRIBE c => +QUEUED
        a PUBLISH c 1 => +QUEUED
        a UNSUBSCRIBE c => +QUEUED
        a EXEC => *3 *3 $9 subscribe $1 c :1 :1 *3 $11 unsubscribe $1 c :0
        ",
    );
}

/// A message that waits when its subscription ends comes before the end is confirmed: in RESP2 it would be taken for the
/// reply to the next command otherwise.
#[test]
fn nothing_comes_behind_the_end_of_a_subscription() {
    const MESSAGE: &str = "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n";
    let table = [
        ("UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n"),
        ("RESET", "+RESET\r\n"),
    ];
    for (command, confirmed) in table {
        let node = support::node(&Options::default());
        let addr = "127.0.0.1:1".parse().unwrap();
        let client = node.clients.admit((addr, addr), 0, 1, false).unwrap();
        let mut pipeline = Pipeline::new(Arc::clone(&node), node.stats.register_thread(), client);
        let mut answer = |input: &str| {
            pipeline.receive(input.as_bytes());
            pipeline.process(1);
            let output = pipeline.unsent().to_vec();
            pipeline.mark_sent(output.len());
            String::from_utf8(output).unwrap()
        };
        answer("SUBSCRIBE c\r\n");
        node.store.own.pubsub.publish(b"c", b"m");
        assert_eq!(answer(&format!("{command}\r\n")), format!("{MESSAGE}{confirmed}"));
        assert_eq!(node.store.own.pubsub.publish(b"c", b"m"), 0);
        assert_eq!(answer("PING\r\n"), "+PONG\r\n");
    }
}

#[test]
fn clients_are_shown_with_what_they_are_subscribed_to() {
    let server = TestServer::start(&Options::default());
    let (mut listener, mut other) = (server.connect(), server.connect());
    listener.ask("SUBSCRIBE a");
    listener.ask("PSUBSCRIBE a*");
    listener.ask("SSUBSCRIBE a");
    let list = other.ask("CLIENT LIST TYPE pubsub");
    assert!(list.contains(" flags=P db=0 sub=1 psub=1 ssub=1 "), "{list}");
    assert_eq!(list.matches("id=").count(), 1, "{list}");
    let list = other.ask("CLIENT LIST TYPE normal");
    assert!(list.contains("flags=N") && !list.contains("flags=P"), "{list}");
    let info = other.ask("INFO stats");
    for field in ["pubsub_channels:1", "pubsub_patterns:1", "pubsubshard_channels:1"] {
        assert!(info.contains(&format!("{field}\r\n")), "{field} in {info}");
    }
    assert_eq!(other.ask("CLIENT KILL TYPE pubsub"), ":1\r\n");
    assert_eq!(listener.rest(), b"");
    while !other.ask("INFO stats").contains("pubsub_channels:0\r\n") {}
    assert!(other.ask("INFO stats").contains("pubsubshard_channels:0\r\n"));
    assert_eq!(other.ask("PUBSUB NUMPAT"), ":0\r\n");
}

/// Three writers, a few threads, and listeners that get everything of each writer in its order.
#[test]
fn every_listener_gets_every_message_in_order() {
    const MESSAGES: usize = 2000;
    const WRITERS: usize = 3;
    let server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    std::thread::scope(|scope| {
        let listeners: Vec<_> = (0..4)
            .map(|number| {
                let mut client = server.connect();
                let subscribe = if number % 2 == 0 {
                    "SUBSCRIBE c"
                } else {
                    "PSUBSCRIBE [c]"
                };
                client.ask(subscribe);
                scope.spawn(move || {
                    let mut all = Vec::new();
                    for _ in 0..MESSAGES * WRITERS {
                        let reply = String::from_utf8(client.reply()).unwrap();
                        all.push(reply.trim_end().rsplit("\r\n").next().unwrap().to_owned());
                    }
                    all
                })
            })
            .collect();
        for writer in 0..WRITERS {
            let mut client = server.connect();
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    client.check(&format!("PUBLISH c {writer}:{number:06}"), ":4\r\n");
                }
            });
        }
        let heard: Vec<Vec<String>> = listeners
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        for other in &heard[1..] {
            assert_eq!(&heard[0], other, "all hear the same in the same order");
        }
        for writer in 0..WRITERS {
            let own: Vec<&String> = heard[0]
                .iter()
                .filter(|text| text.starts_with(&format!("{writer}:")))
                .collect();
            assert_eq!(own.len(), MESSAGES);
            assert!(own.is_sorted());
        }
    });
}

/// Large messages, so that they are sent without being copied, between replies that are large too.
#[test]
fn large_messages_stand_between_replies() {
    let server = TestServer::start(&Options::default());
    let (mut listener, mut writer) = (server.connect(), server.connect());
    listener.ask("HELLO 3");
    listener.ask("SUBSCRIBE c");
    let value = vec![b'v'; 300_000];
    writer.send(encode(&[b"SET", b"key", &value]));
    writer.expect("+OK\r\n");
    for _ in 0..50 {
        listener.command("GET key");
        writer.send(encode(&[b"PUBLISH", b"c", &value]));
    }
    let (mut replies, mut pushes) = (0, 0);
    for _ in 0..100 {
        let reply = listener.reply();
        match reply[0] {
            b'$' => replies += 1,
            b'>' => pushes += 1,
            kind => panic!("{}", kind.escape_ascii()),
        }
        assert!(reply.len() > value.len());
    }
    assert_eq!((replies, pushes), (50, 50));
}

/// A client that doesn't read is ended, and holds nobody up: others get everything.
#[test]
fn who_does_not_read_is_closed() {
    const PIECE: usize = 1 << 20;
    let server = TestServer::start(&Options::default());
    let (mut slow, mut quick, mut writer) = (server.connect(), server.connect(), server.connect());
    slow.ask("SUBSCRIBE c");
    quick.ask("SUBSCRIBE c");
    let piece = vec![b'x'; PIECE];
    let mut sent = 0;
    while server.node.stats.totals().slow_clients_closed == 0 {
        writer.send(encode(&[b"PUBLISH", b"c", &piece]));
        let reply = writer.reply();
        assert!(reply == b":2\r\n" || reply == b":1\r\n");
        assert!(quick.reply().len() > PIECE);
        sent += PIECE;
        assert!(
            sent < 4 * mailbox::BYTES_MAX,
            "{sent} bytes, and it is still there"
        );
    }
    assert!(sent >= mailbox::BYTES_MAX, "it was closed after {sent} bytes");
    let mut rest = Vec::new();
    // What the kernel had taken comes, then the end of the connection.
    drop(slow.stream.read_to_end(&mut rest));
    assert!(rest.len() < sent);
    writer.check("PUBLISH c last", ":1\r\n");
    assert!(quick.reply().ends_with(b"last\r\n"));
    assert!(
        writer
            .ask("INFO stats")
            .contains("client_output_buffer_limit_disconnections:1\r\n")
    );
}

/// Subscribers are let go at the end as everybody is.
#[test]
fn a_server_ends_with_subscribers() {
    let mut server = TestServer::start(&Options::default());
    let mut listener: Client = server.connect();
    listener.ask("SUBSCRIBE c");
    assert_eq!(server.shutdown(Duration::from_secs(10)), 0);
    assert_eq!(listener.rest(), b"");
}
