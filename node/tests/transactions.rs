//! MULTI, EXEC, WATCH: replies as a Redis 7.0 in cluster mode gives them, and what one connection's writes do to
//! another's transaction.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use support::{Client, Options, TestServer};

#[track_caller]
fn expect(client: &mut Client, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, expected) = line
            .split_once(" => ")
            .unwrap_or_else(|| panic!("no reply in {line:?}"));
        let found = client.ask(command);
        assert_eq!(found.trim_end().replace("\r\n", " "), expected, "{command}");
    }
}

#[test]
fn commands_are_queued_and_run_at_once() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    expect(
        &mut client,
        "
        EXEC => -ERR EXEC without MULTI
        DISCARD => -ERR DISCARD without MULTI
        MULTI => +OK
        MULTI => -ERR MULTI calls can not be nested
        EXEC => -EXECABORT Transaction discarded because of previous errors.
        MULTI => +OK
        SET {t}a 1 => +QUEUED
        INCR {t}a => +QUEUED
        GET {t}b => +QUEUED
        PING => +QUEUED
        INCR {t}a => +QUEUED
        EXEC => *5 +OK :2 $-1 +PONG :3
        EXEC => -ERR EXEC without MULTI
        MULTI => +OK
        EXEC => *0
        MULTI => +OK
        SET {t}a 9 => +QUEUED
        DISCARD => +OK
        GET {t}a => $1 3
        MULTI => +OK
        SET {t}a x => +QUEUED
        INCR {t}a => +QUEUED
        SET {t}a 4 => +QUEUED
        EXEC => *3 +OK -ERR value is not an integer or out of range +OK
        GET {t}a => $1 4
        ",
    );
}

#[test]
fn a_refused_command_aborts() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    expect(
        &mut client,
        "
        MULTI => +OK
        SET a => -ERR wrong number of arguments for 'set' command
        SET a 1 => +QUEUED
        EXEC => -EXECABORT Transaction discarded because of previous errors.
        MULTI => +OK
        NOSUCH => -ERR unknown command 'NOSUCH', with args beginning with:
        DISCARD => +OK
        MULTI => +OK
        MGET a b => -CROSSSLOT Keys in request don't hash to the same slot
        EXEC => -EXECABORT Transaction discarded because of previous errors.
        MULTI => +OK
        SET a 1 => +QUEUED
        SET b 1 => +QUEUED
        EXEC => -CROSSSLOT Keys in request don't hash to the same slot
        GET a => $-1
        MULTI => +OK
        SET a 1 => +QUEUED
        KEYS * => -ERR a command that looks at many slots can't be in a transaction with commands on keys
        EXEC => -EXECABORT Transaction discarded because of previous errors.
        MULTI => +OK
        DBSIZE => +QUEUED
        KEYS * => +QUEUED
        EXEC => *2 :0 *0
        SET gone 1 PXAT 1 => +OK
        WATCH gone => +OK
        GET gone => $-1
        MULTI => +OK
        SET gone 2 => +QUEUED
        EXEC => *1 +OK
        MULTI => +OK
        WATCH a => -ERR WATCH inside MULTI is not allowed
        RESET => +RESET
        EXEC => -ERR EXEC without MULTI
        ",
    );
}

/// What another connection does between WATCH and EXEC, and whether that changes the watched key.
#[test]
fn watched_keys_stop_a_transaction_when_they_change() {
    let server = TestServer::start(&Options::default());
    let (mut watcher, mut other) = (server.connect(), server.connect());
    let rows = [
        ("GET {t}k", false),
        ("SET {t}other 1", false),
        ("SET {t}k v", true),
        ("SET {t}k old", true),
        ("APPEND {t}k more", true),
        ("EXPIRE {t}k 100", true),
        ("DEL {t}k", true),
        ("DEL {t}absent", false),
        ("SET {t}absent 1", true),
        ("LPUSH {t}absent 1", true),
        ("RENAME {t}k {t}other", true),
        ("COPY {t}k {t}absent", true),
        ("PEXPIREAT {t}k 1", true),
        ("FLUSHALL", true),
    ];
    for (command, changes) in rows {
        watcher.ask("DEL {t}absent {t}other");
        expect(&mut watcher, "SET {t}k old => +OK\nWATCH {t}k {t}absent => +OK");
        other.ask(command);
        let ran = if changes { "*-1" } else { "*1 +OK" };
        expect(
            &mut watcher,
            &format!("MULTI => +OK\nSET {{t}}mine 1 => +QUEUED\nEXEC => {ran}"),
        );
        // The next transaction depends on nothing any more.
        other.ask("SET {t}k again");
        expect(
            &mut watcher,
            "MULTI => +OK\nSET {t}mine 1 => +QUEUED\nEXEC => *1 +OK",
        );
    }
    expect(&mut watcher, "WATCH {t}k => +OK\nUNWATCH => +OK");
    other.ask("SET {t}k once-more");
    expect(&mut watcher, "MULTI => +OK\nPING => +QUEUED\nEXEC => *1 +PONG");
}

/// Nobody sees a transaction half done, and none is lost: counters that move in pairs stay equal.
#[test]
fn transactions_are_atomic_and_watch_loses_no_update() {
    const ROUNDS: usize = 300;
    let server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    for _ in 0..ROUNDS {
                        client.ask("MULTI");
                        client.ask("INCR {t}x");
                        client.ask("INCR {t}y");
                        client.ask("EXEC");
                        // The same by WATCH: read, then write only if nobody else did.
                        loop {
                            client.ask("WATCH {t}z");
                            let read = client.ask("GET {t}z");
                            let number: u64 = read
                                .trim_end()
                                .rsplit("\r\n")
                                .next()
                                .unwrap()
                                .parse()
                                .unwrap_or(0);
                            client.ask("MULTI");
                            client.ask(&format!("SET {{t}}z {}", number + 1));
                            if client.ask("EXEC").starts_with("*1") {
                                break;
                            }
                        }
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut client = server.connect();
            while !done.load(Ordering::Relaxed) {
                let both = client.ask("MGET {t}x {t}y");
                let values: Vec<&str> = both
                    .split("\r\n")
                    .filter(|line| !line.starts_with(['*', '$']))
                    .collect();
                assert!(values.len() < 2 || values[0] == values[1], "{both:?}");
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    let mut client = server.connect();
    for key in ["{t}x", "{t}z"] {
        assert_eq!(client.ask(&format!("GET {key}")), "$3\r\n900\r\n", "{key}");
    }
}
