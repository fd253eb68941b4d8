//! Client-side caching over sockets: what clients are told, byte for byte as a Redis 7.0 in cluster mode tells it.

mod support;

#[path = "differential/reference.rs"]
mod reference;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use reference::Reference;
use support::transcript::play;
use support::{Client, Options, TestServer};

/// Plays a conversation with this node, and with a Redis server where there is one. What only this node says of tracking is
/// added for it.
#[track_caller]
fn as_in_redis(text: &str) {
    let server = TestServer::start(&Options::default());
    let with_own_fields = |line: &str| {
        let more = " $13 invalidations :0 $6 leases :1";
        if line.contains("TRACKINGINFO") {
            line.strip_suffix(' ')
                .unwrap_or(line)
                .replacen("=> %3", "=> %5", 1)
                .replacen("=> *6", "=> *10", 1)
                + more
        } else {
            line.to_owned()
        }
    };
    let own: Vec<String> = text.lines().map(with_own_fields).collect();
    play(server.addr, &own.join("\n"));
    if let Some(redis) = Reference::start_cluster() {
        play(redis.addr(), text);
    }
}

#[test]
fn options_are_checked() {
    as_in_redis(
        "
        a HELLO 3
        a CLIENT TRACKINGINFO => %3 $5 flags ~1 $3 off $8 redirect :-1 $8 prefixes *0
        a CLIENT GETREDIR => :-1
        a CLIENT TRACKING => -ERR wrong number of arguments for 'client|tracking' command
        a CLIENT TRACKING maybe => -ERR syntax error
        a CLIENT TRACKING ON nonsense => -ERR syntax error
        a CLIENT TRACKING ON REDIRECT => -ERR syntax error
        a CLIENT TRACKING ON REDIRECT x => -ERR value is not an integer or out of range
        a CLIENT TRACKING ON REDIRECT 0 => -ERR The client ID you want redirect to does not exist
        a CLIENT TRACKING ON REDIRECT {a} REDIRECT {a} => -ERR A client can only redirect to a single other client
        a CLIENT TRACKING ON OPTIN BCAST => -ERR OPTIN and OPTOUT are not compatible with BCAST
        a CLIENT TRACKING ON OPTIN OPTOUT => -ERR You can't specify both OPTIN mode and OPTOUT mode
        a CLIENT TRACKING ON PREFIX a => -ERR PREFIX option requires BCAST mode to be enabled
        a CLIENT TRACKING ON BCAST PREFIX a PREFIX ab => -ERR Prefix 'a' overlaps with another provided prefix 'ab'. Prefixes for a single client must not overlap.
        a CLIENT CACHING YES => -ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled
        a CLIENT TRACKING ON => +OK
        a CLIENT CACHING YES => -ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.
        a CLIENT CACHING NO => -ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.
        a CLIENT CACHING maybe => -ERR syntax error
        a CLIENT GETREDIR => :0
        a CLIENT TRACKING ON BCAST => -ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.
        a CLIENT TRACKING ON OPTIN NOLOOP => +OK
        a CLIENT TRACKING ON OPTOUT => -ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.
        a CLIENT CACHING YES => +OK
        a CLIENT TRACKINGINFO => %3 $5 flags ~4 $2 on $5 optin $11 caching-yes $6 noloop $8 redirect :0 $8 prefixes *0
        a PING => +PONG
        a CLIENT TRACKINGINFO => %3 $5 flags ~3 $2 on $5 optin $6 noloop $8 redirect :0 $8 prefixes *0
        a CLIENT TRACKING OFF => +OK
        a CLIENT TRACKING ON OPTOUT => +OK
        a CLIENT CACHING NO => +OK
        a CLIENT TRACKINGINFO => %3 $5 flags ~3 $2 on $6 optout $10 caching-no $8 redirect :0 $8 prefixes *0
        a CLIENT TRACKING OFF => +OK
        a CLIENT TRACKING ON BCAST PREFIX b PREFIX a => +OK
        a CLIENT TRACKING ON BCAST PREFIX ab => -ERR Prefix 'ab' overlaps with an existing prefix 'a'. Prefixes for a single client must not overlap.
        a CLIENT TRACKING ON BCAST PREFIX c => +OK
        a CLIENT TRACKINGINFO => %3 $5 flags ~2 $2 on $5 bcast $8 redirect :0 $8 prefixes *3 $1 a $1 b $1 c
        b CLIENT TRACKING ON BCAST => +OK
        b CLIENT TRACKINGINFO => *6 $5 flags *2 $2 on $5 bcast $8 redirect :0 $8 prefixes *1 $0 \x20
        b RESET => +RESET
        b CLIENT TRACKINGINFO => *6 $5 flags *1 $3 off $8 redirect :-1 $8 prefixes *0
        ",
    );
}

#[test]
fn what_was_read_is_told_once() {
    as_in_redis(
        "
        a HELLO 3
        a CLIENT TRACKING ON => +OK
        a GET k => _
        b SET k 1 => +OK
        a <- >2 $10 invalidate *1 $1 k
        b SET k 2 => +OK
        a GET k => $1 2
        a SET k 3 => +OK >2 $10 invalidate *1 $1 k
        a SET k 4 => +OK
        a MGET {t}1 {t}2 {t}1 => *3 _ _ _
        b MSET {t}1 x {t}2 y {t}3 z => +OK
        a <- >2 $10 invalidate *1 $4 {t}1 >2 $10 invalidate *1 $4 {t}2
        a STRLEN k => :1
        b DEL k => :1
        a <- >2 $10 invalidate *1 $1 k
        a LRANGE k 0 -1 => *0
        b LPUSH k x => :1
        a <- >2 $10 invalidate *1 $1 k
        a LLEN k => :1
        b RPOP k => $1 x
        a <- >2 $10 invalidate *1 $1 k
        a GET k => _
        b GET k => $-1
        b DEL k => :0
        b EXPIRE k 10 => :0
        b SET k 1 => +OK
        a <- >2 $10 invalidate *1 $1 k
        a TTL k => :-1
        b EXPIRE k 100 => :1
        a <- >2 $10 invalidate *1 $1 k
        a GET k => $1 1
        b PEXPIREAT k 1 => :1
        a <- >2 $10 invalidate *1 $1 k
        a GET k => _
        a CLIENT TRACKING OFF => +OK
        b SET k 1 => +OK
        a GET k => $1 1
        ",
    );
}

#[test]
fn transactions_are_told_behind_their_reply() {
    as_in_redis(
        "
        a HELLO 3
        a CLIENT TRACKING ON => +OK
        a MULTI => +OK
        a GET {t} => +QUEUED
        a SET {t} 2 => +QUEUED
        a SET {t} 3 => +QUEUED
        a EXEC => *3 _ +OK +OK >2 $10 invalidate *1 $3 {t}
        a GET {t} => $1 3
        b MULTI => +OK
        b SET {t} 4 => +QUEUED
        b INCR {t} => +QUEUED
        b EXEC => *2 +OK :5
        a <- >2 $10 invalidate *1 $3 {t}
        ",
    );
}

/// Commands that arrive together: the news of each stand behind its reply, before the next one.
#[test]
fn pipelined_commands_are_told_one_by_one() {
    let server = TestServer::start(&Options::default());
    let redis = Reference::start_cluster();
    for addr in [Some(server.addr), redis.as_ref().map(Reference::addr)]
        .into_iter()
        .flatten()
    {
        let mut client = Client::connect(addr);
        client.ask("HELLO 3");
        client.check("CLIENT TRACKING ON", "+OK\r\n");
        client.send("GET k\r\nSET k 1\r\nGET k\r\nSET k 2\r\nSET k 3\r\n");
        let told = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
        client.expect(format!("_\r\n+OK\r\n{told}$1\r\n1\r\n+OK\r\n{told}+OK\r\n"));
    }
}

/// A client can find out that invalidations got lost on their way: all that were counted stand before the count.
#[test]
fn invalidations_are_counted_in_their_stream() {
    let server = TestServer::start(&Options::default());
    let info = |count: usize| {
        format!("%5 $5 flags ~1 $2 on $8 redirect :0 $8 prefixes *0 $13 invalidations :{count} $6 leases :1")
    };
    let (none, one, three) = (info(0), info(1), info(3));
    let text = format!(
        "
        a HELLO 3
        a CLIENT TRACKING ON => +OK
        a CLIENT TRACKINGINFO => {none}
        a GET k => _
        b SET k 1 => +OK
        a CLIENT TRACKINGINFO => >2 $10 invalidate *1 $1 k {one}
        a CLIENT TRACKING ON => +OK
        a CLIENT TRACKINGINFO => {one}
        a GET k => $1 1
        b FLUSHALL => +OK
        a <- >2 $10 invalidate _
        a GET l => _
        b SET l 1 => +OK
        a CLIENT TRACKINGINFO => >2 $10 invalidate *1 $1 l {three}
        a CLIENT TRACKING OFF => +OK
        a CLIENT TRACKING ON => +OK
        a CLIENT TRACKINGINFO => {none}
        "
    );
    play(server.addr, &text);
    // Each reply of many that arrive together, while others write.
    let (mut client, mut other) = (server.connect(), server.connect());
    client.ask("HELLO 3");
    client.check("CLIENT TRACKING ON", "+OK\r\n");
    let (mut received, mut seen) = (0, 0);
    for round in 0..200 {
        client.send("GET k\r\nCLIENT TRACKINGINFO\r\n".repeat(5));
        other.check(&format!("SET k {round}"), "+OK\r\n");
        let mut replies = 0;
        while replies < 10 {
            let reply = String::from_utf8(client.reply()).unwrap();
            if reply.starts_with('>') {
                received += 1;
                continue;
            }
            replies += 1;
            if let Some((_, rest)) = reply.split_once("invalidations\r\n:") {
                seen = rest.split("\r\n").next().unwrap().parse().unwrap();
                assert_eq!(seen, received, "round {round}");
            }
        }
    }
    assert!(seen > 0);
}

#[test]
fn consent_is_asked_for() {
    as_in_redis(
        "
        a HELLO 3
        a CLIENT TRACKING ON OPTIN => +OK
        a GET k => _
        a CLIENT CACHING YES => +OK
        a GET l => _
        a GET m => _
        b SET k 1 => +OK
        b SET l 1 => +OK
        a <- >2 $10 invalidate *1 $1 l
        b SET m 1 => +OK
        a CLIENT CACHING YES => +OK
        a MULTI => +OK
        a GET {t}1 => +QUEUED
        a GET {t}2 => +QUEUED
        a EXEC => *2 _ _
        b MSET {t}1 1 {t}2 2 => +OK
        a <- >2 $10 invalidate *1 $4 {t}1 >2 $10 invalidate *1 $4 {t}2
        a CLIENT TRACKING OFF => +OK
        a CLIENT TRACKING ON OPTOUT => +OK
        a GET k => $1 1
        a CLIENT CACHING NO => +OK
        a GET l => $1 1
        b SET l 2 => +OK
        b SET k 2 => +OK
        a <- >2 $10 invalidate *1 $1 k
        ",
    );
}

#[test]
fn own_changes_may_be_left_out() {
    as_in_redis(
        "
        a HELLO 3
        a CLIENT TRACKING ON NOLOOP => +OK
        b HELLO 3
        b CLIENT TRACKING ON => +OK
        a GET k => _
        b GET k => _
        a SET k 1 => +OK
        b <- >2 $10 invalidate *1 $1 k
        b SET k 2 => +OK
        a GET k => $1 2
        b SET k 3 => +OK
        a <- >2 $10 invalidate *1 $1 k
        ",
    );
}

#[test]
fn broadcasts_are_by_prefix() {
    as_in_redis(
        "
        a HELLO 3
        a CLIENT TRACKING ON BCAST PREFIX user: PREFIX cart: => +OK
        b SET user:1 x => +OK
        a <- >2 $10 invalidate *1 $6 user:1
        b SET other x => +OK
        b DEL user:1 => :1
        a <- >2 $10 invalidate *1 $6 user:1
        a SET cart:1 x => +OK >2 $10 invalidate *1 $6 cart:1
        b FLUSHALL => +OK
        a <- >2 $10 invalidate _
        c HELLO 3
        c CLIENT TRACKING ON BCAST NOLOOP => +OK
        c SET x 1 => +OK
        b SET x 1 => +OK
        c <- >2 $10 invalidate *1 $1 x
        ",
    );
}

#[test]
fn everything_goes_with_flushall() {
    as_in_redis(
        "
        a HELLO 3
        a CLIENT TRACKING ON => +OK
        a GET k => _
        b HELLO 3
        b CLIENT TRACKING ON NOLOOP => +OK
        a FLUSHALL => +OK >2 $10 invalidate _
        b <- >2 $10 invalidate _
        b SET k 1 => +OK
        b FLUSHDB => +OK >2 $10 invalidate _
        a <- >2 $10 invalidate _
        ",
    );
}

#[test]
fn another_connection_listens() {
    as_in_redis(
        "
        l SUBSCRIBE __redis__:invalidate => *3 $9 subscribe $20 __redis__:invalidate :1
        a CLIENT TRACKING ON REDIRECT {l} => +OK
        a CLIENT TRACKINGINFO => *6 $5 flags *1 $2 on $8 redirect :{l} $8 prefixes *0
        a CLIENT GETREDIR => :{l}
        a GET k => $-1
        b SET k 1 => +OK
        l <- *3 $7 message $20 __redis__:invalidate *1 $1 k
        b FLUSHALL => +OK
        l <- *3 $7 message $20 __redis__:invalidate $-1
        n SET k 1 => +OK
        n CLIENT TRACKING ON => +OK
        n GET k => $1 1
        n SET k 2 => +OK
        ",
    );
}

#[test]
fn a_listener_that_goes_is_missed() {
    let server = TestServer::start(&Options::default());
    let redis = Reference::start_cluster();
    for addr in [Some(server.addr), redis.as_ref().map(Reference::addr)]
        .into_iter()
        .flatten()
    {
        let (mut listener, mut client, mut other) = (
            Client::connect(addr),
            Client::connect(addr),
            Client::connect(addr),
        );
        let id = listener.ask("CLIENT ID")[1..].trim_end().to_owned();
        listener.ask("SUBSCRIBE __redis__:invalidate");
        client.ask("HELLO 3");
        client.check(&format!("CLIENT TRACKING ON REDIRECT {id}"), "+OK\r\n");
        client.ask("GET k");
        drop(listener);
        while other.ask("CLIENT LIST").contains("sub=1") {}
        other.check("SET k 1", "+OK\r\n");
        client.expect(format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{id}\r\n"));
        let info = client.ask("CLIENT TRACKINGINFO");
        assert!(info.contains("broken_redirect"), "{info}");
        let info = client.ask("CLIENT INFO");
        assert!(
            info.contains(" flags=tR ") && info.contains(&format!(" redir={id} ")),
            "{info}"
        );
        client.check("CLIENT TRACKING ON", "+OK\r\n");
        assert!(client.ask("CLIENT INFO").contains(" flags=t "));
        assert!(other.ask("INFO clients").contains("tracking_clients:1\r\n"));
        drop(client);
        while !other.ask("INFO clients").contains("tracking_clients:0\r\n") {}
    }
}

#[test]
fn the_table_is_bounded() {
    let server = TestServer::start(&Options::default());
    let (mut client, mut other) = (server.connect(), server.connect());
    other.check("CONFIG SET tracking-table-max-keys 10", "+OK\r\n");
    client.ask("HELLO 3");
    client.check("CLIENT TRACKING ON", "+OK\r\n");
    let mut told = 0;
    for number in 0..30 {
        client.command(&format!("GET k{number}"));
        client.expect("_\r\n");
        if number >= 10 {
            assert!(client.reply().starts_with(b">2\r\n$10\r\ninvalidate\r\n*1\r\n"));
            told += 1;
        }
    }
    assert_eq!(told, 20);
    let info = other.ask("INFO stats");
    assert!(
        info.contains("tracking_total_keys:10\r\ntracking_total_items:10\r\n"),
        "{info}"
    );
}

/// A cache that is kept by invalidations is never stale for longer than they take: once writers rest and all that was
/// sent has arrived, what is cached is what is there.
#[test]
fn a_cache_follows_its_server() {
    const KEYS: usize = 20;
    let server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let mut client = server.connect();
                scope.spawn(move || {
                    for round in 0..1500 {
                        client.check(&format!("SET k{} {writer}-{round}", round * 7 % KEYS), "+OK\r\n");
                    }
                })
            })
            .collect();
        let done = &done;
        let reader = scope.spawn(|| {
            let mut client = server.connect();
            client.ask("HELLO 3");
            client.check("CLIENT TRACKING ON", "+OK\r\n");
            let mut cache: HashMap<String, Vec<u8>> = HashMap::new();
            let ask = |client: &mut Client, words: &str, cache: &mut HashMap<String, Vec<u8>>| {
                client.command(words);
                loop {
                    let reply = client.reply();
                    if reply[0] != b'>' {
                        return reply;
                    }
                    let text = String::from_utf8(reply).unwrap();
                    cache.remove(text.trim_end().rsplit("\r\n").next().unwrap());
                }
            };
            let mut was_done = false;
            while !was_done {
                was_done = done.load(Ordering::Relaxed);
                // What was posted before this is answered comes with it, or before the next one.
                ask(&mut client, "PING", &mut cache);
                ask(&mut client, "PING", &mut cache);
                for number in 0..KEYS {
                    let key = format!("k{number}");
                    if !cache.contains_key(&key) {
                        let value = ask(&mut client, &format!("GET {key}"), &mut cache);
                        cache.insert(key, value);
                    }
                }
            }
            let mut other = server.connect();
            for (key, value) in &cache {
                assert_eq!(&other.ask(&format!("GET {key}")).into_bytes(), value, "{key}");
            }
            cache.len()
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(reader.join().unwrap(), KEYS);
    });
}

/// A client that listens to beginnings of keys is told once of all keys that a command, or a transaction, has changed.
#[test]
fn keys_that_change_together_are_told_together() {
    as_in_redis(
        "
        a HELLO 3
        a CLIENT TRACKING ON BCAST PREFIX {t}a PREFIX {t}b => +OK
        b MSET {t}a1 1 {t}a2 2 {t}c 3 => +OK
        a <- >2 $10 invalidate *2 $5 {t}a1 $5 {t}a2
        b MULTI => +OK
        b INCR {t}a1 => +QUEUED
        b INCR {t}c => +QUEUED
        b INCR {t}b1 => +QUEUED
        b EXEC => *3 :2 :4 :1
        a <- >2 $10 invalidate *1 $5 {t}a1 >2 $10 invalidate *1 $5 {t}b1
        ",
    );
}

#[test]
fn a_smaller_table_forgets_at_once() {
    let server = TestServer::start(&Options::default());
    play(
        server.addr,
        "
        a HELLO 3
        a CLIENT TRACKING ON => +OK
        a GET k => _
        b CONFIG SET tracking-table-max-keys 1 => +OK
        a MGET {x}1 => *1 _ >2 $10 invalidate *1 $1 k
        ",
    );
}
