//! What is on its way from an origin counts like what connections hold.

use crate::origin::Mode;
use crate::support::Client;
use crate::world::{World, bulk, wait_for};

const MIB: usize = 1 << 20;

#[test]
fn a_body_is_charged_as_it_comes_and_for_as_long_as_it_is_there() {
    let world = World::start(|group| group.value_bytes_max = 64 << 20);
    let store = &world.server.node.store;
    let mut client = world.connect();
    assert_eq!(store.connection_bytes(), 0);
    world.origin.set(Mode::Part(4 * MIB));
    client.command("GET user:1");
    // Room is made for as much again as has come, at most.
    wait_for("half of it", || store.connection_bytes() >= 2 * MIB as u64);
    assert!(store.connection_bytes() <= 5 * MIB as u64);
    world.origin.let_go();
    client.expect(bulk(&"x".repeat(4 * MIB)));
    wait_for("nothing is held", || store.connection_bytes() == 0);
    // One of a few bytes, of which nobody says how long it is, is held as such.
    world.origin.set(Mode::Part(200));
    client.command("GET user:2");
    wait_for("half of it", || store.connection_bytes() >= 100);
    world.origin.let_go();
    client.expect(bulk(&"x".repeat(200)));
    wait_for("nothing is held", || store.connection_bytes() == 0);
}

#[test]
fn what_there_is_no_memory_for_is_an_error_that_says_so() {
    // As much as the node has for its connections: 64 MiB.
    let world = World::start(|group| group.value_bytes_max = 64 << 20);
    let node = &world.server.node;
    world.origin.set(Mode::Part(60 * MIB));
    let mut clients: Vec<Client> = (0..3).map(|_| world.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.command(&format!("GET user:{number}"));
    }
    let group = world.group();
    let refused = || group.counters().loads_failed.get();
    wait_for("one has no room", || refused() > 0);
    wait_for("what it held is given back", || {
        node.store.connection_bytes() <= node.store.connection_bytes_max()
    });
    // It is no fault of the origin's.
    assert_eq!(group.breaker(), 0);
    let mut told = None;
    wait_for("whoever asked for it is told", || {
        told = clients.iter().position(|client| {
            client.stream.set_nonblocking(true).unwrap();
            let has_come = client.stream.peek(&mut [0]).is_ok();
            client.stream.set_nonblocking(false).unwrap();
            has_come
        });
        told.is_some()
    });
    let reply = String::from_utf8(clients[told.unwrap()].reply()).unwrap();
    assert!(
        reply.starts_with("-ORIGIN group shop/users: ") && reply.contains("memory"),
        "{reply}"
    );
    drop(clients);
    world.origin.let_go();
    wait_for("nothing is held", || node.store.connection_bytes() == 0);
}
