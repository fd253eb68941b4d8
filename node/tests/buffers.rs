//! What connections hold is part of the memory budget.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "tests fail where they stand"
)]

mod support;

use std::io::Read;

use annulus_node::store::EvictionPolicy;
use support::{Client, Options, TestServer};

const BUDGET_BYTES: u64 = 128 << 20;

fn start(eviction: EvictionPolicy) -> TestServer {
    TestServer::start(&Options {
        budget_bytes: BUDGET_BYTES,
        eviction,
        ..Options::default()
    })
}

/// Whether the server ends the connection; what it sends before is dropped.
fn is_closed(client: &mut Client) -> bool {
    let mut dropped = [0; 8 << 10];
    loop {
        match client.stream.read(&mut dropped) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn slow_readers_take_the_place_of_entries_and_no_more() {
    let server = start(EvictionPolicy::TinyLfu);
    let mut writer = server.connect();
    for number in 0..14_000 {
        writer.command(&format!("SET key-{number} {}", "x".repeat(10_000)));
        writer.expect("+OK\r\n");
    }
    writer.command(&format!("SET large {}", "x".repeat(1 << 20)));
    writer.expect("+OK\r\n");
    let keys = server.node.store.keys();
    // Each asks for much and reads nothing.
    let mut readers: Vec<Client> = (0..200).map(|_| server.connect()).collect();
    for reader in &mut readers {
        reader.send("GET large\r\n".repeat(32));
        let store = &server.node.store;
        assert!(store.connection_bytes() <= store.connection_bytes_max() + (8 << 20));
    }
    let evicted = || server.node.stats.totals().clients_evicted;
    while evicted() == 0 {
        std::thread::yield_now();
    }
    // The node goes on, with less room for entries.
    writer.command("SET after 1");
    writer.expect("+OK\r\n");
    assert!(server.node.store.keys() < keys);
    drop(readers);
    while server.node.store.connection_bytes() > 0 {
        std::thread::yield_now();
    }
    writer.command("GET after");
    writer.expect("$1\r\n1\r\n");
}

#[test]
fn a_reply_larger_than_half_of_the_budget_ends_its_connection() {
    let server = start(EvictionPolicy::NoEviction);
    let mut client = server.connect();
    client.command("SADD set member");
    client.expect(":1\r\n");
    client.command("SRANDMEMBER set -1000000000");
    assert!(is_closed(&mut client));
    let mut client = server.connect();
    client.command("SCARD set");
    client.expect(":1\r\n");
    while server.node.store.connection_bytes() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_large_request_is_counted_while_it_arrives() {
    let server = start(EvictionPolicy::NoEviction);
    let mut client = server.connect();
    let value = vec![b'x'; 8 << 20];
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len()));
    client.send(&value);
    while server.node.store.connection_bytes() < value.len() as u64 {
        std::thread::yield_now();
    }
    client.send("\r\n");
    client.expect("+OK\r\n");
    while server.node.store.connection_bytes() > 0 {
        std::thread::yield_now();
    }
    client.command("STRLEN k");
    client.expect(format!(":{}\r\n", value.len()));
}
