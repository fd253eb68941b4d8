use std::net::SocketAddr;

use super::*;
use crate::clients::Clients;
use crate::resp::Reply;
use crate::store::{EvictionPolicy, Store, StoreOptions};
use annulus_ring::Slot;

struct World {
    store: Store,
    clients: Vec<Arc<Client>>,
}

impl World {
    fn new(clients: usize) -> Self {
        let all = Clients::default();
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        Self {
            store: Store::new(StoreOptions {
                budget_bytes: 1 << 20,
                eviction: EvictionPolicy::Lru,
            }),
            clients: (0..clients)
                .map(|_| all.admit((addr, addr), 0, clients, false).unwrap())
                .collect(),
        }
    }

    fn subscribe(&self, client: usize, kind: Kind, name: &str) {
        let client = &self.clients[client];
        if client.subscriptions.add(kind, name.as_bytes()) {
            self.store.own.pubsub.subscribe(kind, name.as_bytes(), client);
        }
    }

    fn unsubscribe(&self, client: usize, kind: Kind, name: &str) {
        let client = &self.clients[client];
        if client.subscriptions.remove(kind, name.as_bytes()).is_some() {
            self.store.own.pubsub.unsubscribe(kind, name.as_bytes(), client);
        }
    }

    /// What has come for a client, with blanks for line ends.
    fn mail(&self, client: usize) -> String {
        let mut reply = Reply::new(usize::MAX);
        self.clients[client].mailbox.collect_all(&mut reply);
        let text = String::from_utf8(reply.take_buffer()).unwrap();
        text.trim_end().replace("\r\n", " ")
    }
}

/// Subscriptions of client 0 and 1, a channel, and how many messages each of them gets.
#[test]
fn a_message_goes_to_every_subscription_that_fits() {
    use Kind::{Channel, Pattern, Shard};
    type Row<'a> = (&'a [(usize, Kind, &'a str)], &'a str, [usize; 2]);
    let table: [Row<'_>; 7] = [
        (&[], "news", [0, 0]),
        (&[(0, Channel, "news")], "news", [1, 0]),
        (&[(0, Channel, "news"), (1, Channel, "news")], "news", [1, 1]),
        (&[(0, Channel, "news"), (0, Channel, "news")], "news", [1, 0]),
        (
            &[(0, Channel, "news"), (0, Pattern, "n*"), (0, Pattern, "*s")],
            "news",
            [3, 0],
        ),
        (&[(0, Pattern, "x*"), (1, Pattern, "n[ae]ws")], "news", [0, 1]),
        (&[(0, Shard, "news")], "news", [0, 0]),
    ];
    for (subscriptions, channel, expected) in table {
        let world = World::new(2);
        for (client, kind, name) in subscriptions {
            world.subscribe(*client, *kind, name);
        }
        let receivers = world.store.own.pubsub.publish(channel.as_bytes(), b"!");
        assert_eq!(receivers, expected.iter().sum::<usize>(), "{subscriptions:?}");
        for (client, count) in expected.into_iter().enumerate() {
            assert_eq!(
                world.mail(client).matches("message").count(),
                count,
                "{subscriptions:?}"
            );
        }
        for (client, kind, name) in subscriptions {
            world.unsubscribe(*client, *kind, name);
        }
        assert_eq!(world.store.own.pubsub.publish(channel.as_bytes(), b"!"), 0);
        assert!(world.store.own.pubsub.channels.is_empty() && world.store.own.pubsub.shards.is_empty());
        assert_eq!(world.store.own.pubsub.patterns(), 0);
    }
}

#[test]
fn each_gets_its_protocol_and_shares_the_bytes() {
    let world = World::new(3);
    world.clients[2].resp3.store(true, Ordering::Relaxed);
    for client in 0..3 {
        world.subscribe(client, Kind::Channel, "c");
    }
    assert_eq!(world.store.own.pubsub.publish(b"c", b"hi"), 3);
    for client in 0..2 {
        assert_eq!(world.mail(client), "*3 $7 message $1 c $2 hi");
    }
    assert_eq!(world.mail(2), ">3 $7 message $1 c $2 hi");

    let large = vec![b'x'; 1 << 20];
    world.store.own.pubsub.publish(b"c", &large);
    let letter = |client: usize| world.clients[client].mailbox.take_large().unwrap();
    assert_eq!(letter(0).as_ptr(), letter(1).as_ptr());
}

#[test]
fn who_is_gone_gets_nothing_and_others_stay() {
    let world = World::new(2);
    for client in 0..2 {
        for kind in Kind::ALL {
            world.subscribe(client, kind, "name");
        }
    }
    assert_eq!(world.clients[0].subscriptions.counts(), [1, 1, 1]);
    world.store.own.pubsub.forget(&world.clients[0]);
    assert_eq!(world.clients[0].subscriptions.total(), 0);
    assert_eq!(world.store.own.pubsub.publish(b"name", b"!"), 2);
    assert_eq!(world.store.own.pubsub.publish_sharded(b"name", b"!"), 1);
    assert_eq!(world.mail(0), "");
    assert_eq!(
        world.store.own.pubsub.channels.names(Some(b"n*")),
        [Box::from(&b"name"[..])]
    );
    assert!(world.store.own.pubsub.channels.names(Some(b"x*")).is_empty());
}

/// A slot leaves: its subscribers are told, those of other slots under the same lock are not.
#[test]
fn sharded_channels_leave_with_their_slot() {
    let world = World::new(2);
    let slot = Slot::for_key(b"a");
    let neighbour = (0..1_000_000)
        .map(|number| format!("n{number}"))
        .find(|name| {
            let other = Slot::for_key(name.as_bytes());
            other != slot && other.index() % 64 == slot.index() % 64
        })
        .unwrap();
    for name in ["a", "{a}2", &neighbour] {
        world.subscribe(0, Kind::Shard, name);
    }
    world.subscribe(1, Kind::Shard, &neighbour);
    world.subscribe(1, Kind::Channel, "a");
    world.store.lock_slot(slot).release_clients();

    let mail = world.mail(0);
    assert_eq!(mail.matches("sunsubscribe").count(), 2, "{mail}");
    assert!(mail.contains(":2 ") && mail.ends_with(":1"), "{mail}");
    assert_eq!(world.mail(1), "");
    assert_eq!(world.store.own.pubsub.publish_sharded(b"a", b"!"), 0);
    assert_eq!(
        world.store.own.pubsub.publish_sharded(neighbour.as_bytes(), b"!"),
        2
    );
    assert_eq!(world.store.own.pubsub.publish(b"a", b"!"), 1);
    assert_eq!(world.store.own.pubsub.shards.len(), 1);
}
