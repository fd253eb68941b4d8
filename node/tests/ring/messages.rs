//! Published messages cross the ring, and what clients hold on to in a slot ends when it leaves.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use annulus_node::server::{Server, ServerOptions};
use annulus_ring::{RingDocument, Slot};
use tokio::task::block_in_place;

use crate::documents::{document, handoff};
use crate::member::TestMember;
use crate::support::Client;

/// A member with a port for clients.
struct Served {
    member: TestMember,
    addr: SocketAddr,
    server: Server,
}

impl Served {
    async fn start(number: usize) -> Self {
        let member = TestMember::start(number).await;
        let options = ServerOptions {
            addr: Some("127.0.0.1:0".parse().unwrap()),
            tls: None,
            api: annulus_node::server::ApiOptions::default(),
            threads: NonZeroUsize::MIN,
        };
        let server = Server::bind(options, Arc::clone(&member.node)).unwrap();
        Self {
            addr: server.local_addr().unwrap(),
            member,
            server,
        }
    }

    fn connect(&self) -> Client {
        Client::connect(self.addr)
    }
}

async fn start(count: usize) -> Vec<Served> {
    let mut nodes = Vec::new();
    for number in 0..count {
        nodes.push(Served::start(number).await);
    }
    nodes
}

fn ring(epoch: u64, nodes: &[Served]) -> RingDocument {
    let listed: Vec<_> = nodes.iter().map(|node| node.member.listed.clone()).collect();
    document(epoch, &listed, u16::try_from(nodes.len()).unwrap())
}

async fn end(nodes: Vec<Served>) {
    for node in nodes {
        node.server.shutdown(Duration::ZERO).await;
    }
}

/// Until a first message has come through, connections between members may still be made.
fn publish_until_heard(speaker: &mut Client, listener: &mut Client, channel: &str) {
    listener
        .stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut byte = [0];
    loop {
        speaker.ask(&format!("PUBLISH {channel} anybody"));
        if listener.stream.peek(&mut byte).is_ok() {
            break;
        }
    }
    listener
        .stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    // Whatever of these comes, it comes before this one.
    speaker.ask(&format!("PUBLISH {channel} begin"));
    while !listener.reply().ends_with(b"begin\r\n") {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_subscribers_on_every_node() {
    const MESSAGES: usize = 3000;
    let nodes = start(3).await;
    let ring = ring(1, &nodes);
    for node in &nodes {
        node.member.adopt(&ring);
    }
    block_in_place(|| {
        let mut speaker = nodes[0].connect();
        let mut near = nodes[0].connect();
        near.check("SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
        let mut far: Vec<Client> = nodes[1..].iter().map(Served::connect).collect();
        for client in &mut far {
            client.ask("HELLO 3");
            client.ask("PSUBSCRIBE n*");
            publish_until_heard(&mut speaker, client, "news");
        }
        // The two prologues reached everybody.
        speaker.ask("PUBLISH news ready");
        for client in far.iter_mut().chain([&mut near]) {
            while !client.reply().ends_with(b"ready\r\n") {}
        }
        for number in 0..MESSAGES {
            // Only the subscriber of this node is counted.
            speaker.check(&format!("PUBLISH news {number}"), ":1\r\n");
        }
        for number in 0..MESSAGES {
            let payload = number.to_string();
            let len = payload.len();
            near.expect(format!(
                "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${len}\r\n{payload}\r\n"
            ));
            for client in &mut far {
                client.expect(format!(
                    ">4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n${len}\r\n{payload}\r\n"
                ));
            }
        }
        let large = "x".repeat(3 << 20);
        assert!(
            speaker
                .ask(&format!("PUBLISH news {large}"))
                .starts_with("-ERR a message")
        );
        let large = &large[10..];
        speaker.check(&format!("PUBLISH news {large}"), ":1\r\n");
        for client in &mut far {
            assert!(client.reply().len() > large.len());
        }
    });
    let counters = &nodes[0].member.node.relay.counters;
    assert_eq!(counters.dropped.get(), 0);
    // The last batch is counted once its answer is here.
    while counters.sent.get() < 2 * MESSAGES as u64 {
        tokio::task::yield_now().await;
    }
    end(nodes).await;
}

/// A member is away: nobody waits for it, what it doesn't get is counted, and the others get everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_away_delays_nobody() {
    const PIECE: usize = 1 << 20;
    let mut nodes = start(3).await;
    let ring = ring(1, &nodes);
    for node in &nodes {
        node.member.adopt(&ring);
    }
    let away = nodes.pop().unwrap();
    away.server.shutdown(Duration::ZERO).await;
    drop(away.member);
    block_in_place(|| {
        let (mut speaker, mut listener) = (nodes[0].connect(), nodes[1].connect());
        listener.ask("SUBSCRIBE news");
        publish_until_heard(&mut speaker, &mut listener, "news");
        let payload = "x".repeat(PIECE);
        let mut sent = 0;
        while nodes[0].member.node.relay.counters.dropped.get() == 0 || sent < 32 {
            speaker.check(&format!("PUBLISH news {payload}"), ":0\r\n");
            assert!(listener.reply().len() > PIECE);
            sent += 1;
        }
        assert!(speaker.ask("INFO stats").contains("pubsub_forwards_dropped:"));
    });
    end(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sharded_channels_move_with_their_slot() {
    let nodes = start(2).await;
    let mut ring = ring(1, &nodes);
    for node in &nodes {
        node.member.adopt(&ring);
    }
    // "a" is in slot 15495, the second member's.
    assert_eq!(Slot::for_key(b"a").number(), 15_495);
    let (mut speaker, mut listener) = block_in_place(|| {
        let (mut first, mut second) = (nodes[0].connect(), nodes[1].connect());
        let port = nodes[1].member.listed.address.client_port;
        for command in ["SSUBSCRIBE a", "SPUBLISH a x", "SUNSUBSCRIBE a"] {
            first.check(command, format!("-MOVED 15495 127.0.0.1:{port}\r\n"));
        }
        second.check("SSUBSCRIBE a", "*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n");
        let mut speaker = nodes[1].connect();
        speaker.check("SPUBLISH a x", ":1\r\n");
        second.expect("*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
        (speaker, second)
    });
    ring.epoch.0 = 2;
    ring.handoffs = vec![handoff("15495", 1, 0)];
    for node in &nodes {
        node.member.adopt(&ring);
    }
    nodes[0]
        .member
        .wait("the slot is here", |progress| progress.settled)
        .await;
    block_in_place(|| {
        listener.expect("*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n");
        // It is subscribed to nothing any more, and a normal client again.
        listener.check("PING", "+PONG\r\n");
        assert!(speaker.ask("SPUBLISH a x").starts_with("-MOVED 15495 "));
        let mut first = nodes[0].connect();
        first.check("SSUBSCRIBE a", "*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n");
    });
    end(nodes).await;
}

/// What clients have cached of a slot that leaves is taken out of their caches: keys that are there, and such that are
/// not. Other slots' keys stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caches_forget_a_slot_that_moves() {
    let nodes = start(2).await;
    let mut ring = ring(1, &nodes);
    for node in &nodes {
        node.member.adopt(&ring);
    }
    let (mut reader, mut broadcast) = block_in_place(|| {
        let (mut reader, mut broadcast) = (nodes[1].connect(), nodes[1].connect());
        reader.ask("HELLO 3");
        reader.check("SET a 1", "+OK\r\n");
        reader.check("CLIENT TRACKING ON", "+OK\r\n");
        reader.check("GET a", "$1\r\n1\r\n");
        reader.check("GET {a}nothing", "_\r\n");
        reader.check("GET d", "_\r\n");
        broadcast.ask("HELLO 3");
        broadcast.check("CLIENT TRACKING ON BCAST PREFIX x", "+OK\r\n");
        (reader, broadcast)
    });
    ring.epoch.0 = 2;
    ring.handoffs = vec![handoff("15495", 1, 0)];
    for node in &nodes {
        node.member.adopt(&ring);
    }
    nodes[0]
        .member
        .wait("the slot is here", |progress| progress.settled)
        .await;
    block_in_place(|| {
        let mut told = [reader.reply(), reader.reply()].map(|push| String::from_utf8(push).unwrap());
        told.sort();
        let [first, second] = told;
        assert_eq!(first, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n");
        assert_eq!(second, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$10\r\n{a}nothing\r\n");
        broadcast.expect(">2\r\n$10\r\ninvalidate\r\n_\r\n");
        assert!(reader.ask("GET a").starts_with("-MOVED 15495 "));
        reader.check("SET d 1", "+OK\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nd\r\n");
    });
    end(nodes).await;
}
