use std::net::SocketAddr;

use super::*;
use crate::clients::Clients;
use crate::store::{EvictionPolicy, Store, StoreOptions, Value};

const NOW_MS: u64 = 1000;

struct World {
    store: Store,
    clients: Vec<Arc<Client>>,
}

fn options(mode: Mode, prefixes: &[&str]) -> TrackingOptions {
    TrackingOptions {
        mode,
        prefixes: prefixes.iter().map(|prefix| prefix.as_bytes().into()).collect(),
        ..TrackingOptions::default()
    }
}

const READS: Mode = Mode::Keys(Consent::Always);

impl World {
    /// So many clients that speak RESP3 and track nothing yet.
    fn new(clients: usize) -> Self {
        let all = Clients::default();
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let clients = (0..clients).map(|_| {
            let client = all.admit((addr, addr), 0, clients, false).unwrap();
            client.resp3.store(true, Ordering::Relaxed);
            client
        });
        Self {
            clients: clients.collect(),
            store: Store::new(StoreOptions {
                budget_bytes: 1 << 20,
                eviction: EvictionPolicy::Lru,
            }),
        }
    }

    fn enable(&self, client: usize, options: TrackingOptions) {
        self.store.own.tracking.enable(&self.clients[client], options);
    }

    fn read(&self, client: usize, key: &str) {
        self.read_within(client, key, 0);
    }

    fn read_within(&self, client: usize, key: &str, keys_max: usize) {
        let slot = Slot::for_key(key.as_bytes());
        let guard = self.store.lock_slot(slot);
        let client = &self.clients[client];
        self.store
            .own
            .tracking
            .remember(slot, [key.as_bytes()].into_iter(), client, keys_max);
        drop(guard);
    }

    fn write(&self, client: usize, key: &str) {
        self.set(client, key, None);
    }

    fn set(&self, client: usize, key: &str, expires_at_ms: Option<u64>) {
        let mut guard = self.store.lock_slot(Slot::for_key(key.as_bytes()));
        guard.set_client(self.clients[client].id);
        guard
            .set(key.as_bytes(), Value::Int(1), expires_at_ms, NOW_MS)
            .unwrap();
    }

    /// What a client has been told, with blanks for line ends.
    fn told(&self, client: usize) -> String {
        let mut reply = Reply::new(usize::MAX);
        self.clients[client].mailbox.collect_all(&mut reply);
        let text = String::from_utf8(reply.take_buffer()).unwrap();
        text.trim_end().replace("\r\n", " ")
    }
}

fn of(key: &str) -> String {
    format!(">2 $10 invalidate *1 ${} {key}", key.len())
}

/// How client 0 tracks, what it reads, what client 1 and then client 0 write, and how often it is told.
#[test]
fn a_client_is_told_of_what_it_asked_for() {
    type Row<'a> = (
        TrackingOptions,
        &'a [&'a str],
        &'a [&'a str],
        &'a [&'a str],
        usize,
    );
    let no_loop = |options: TrackingOptions| TrackingOptions {
        no_loop: true,
        ..options
    };
    let table: [Row<'_>; 10] = [
        (options(Mode::Off, &[]), &[], &["a"], &["a"], 0),
        (options(READS, &[]), &[], &["a"], &["a"], 0),
        (options(READS, &[]), &["a", "b"], &["a"], &[], 1),
        (options(READS, &[]), &["a", "b"], &["a", "b"], &["a"], 2),
        (options(READS, &[]), &["a"], &[], &["a"], 1),
        (no_loop(options(READS, &[])), &["a", "b"], &["b"], &["a"], 1),
        (options(Mode::Broadcast, &[""]), &[], &["a", "b"], &["c"], 3),
        (
            options(Mode::Broadcast, &["a", "b"]),
            &[],
            &["a1", "b1", "c1"],
            &["a"],
            3,
        ),
        (no_loop(options(Mode::Broadcast, &[""])), &[], &["a"], &["b"], 1),
        (options(Mode::Broadcast, &["aa"]), &[], &["a", "ba"], &["a"], 0),
    ];
    for (options, reads, of_other, own, expected) in table {
        let world = World::new(2);
        let described = format!("{options:?} {reads:?} {of_other:?} {own:?}");
        if options.mode != Mode::Off {
            world.enable(0, options);
        }
        for key in reads {
            world.read(0, key);
        }
        for key in of_other {
            world.write(1, key);
        }
        for key in own {
            world.write(0, key);
        }
        let told = world.told(0);
        assert_eq!(
            told.matches("invalidate").count(),
            expected,
            "{described}: {told}"
        );
        world.store.own.tracking.disable(&world.clients[0]);
        world.write(1, "a");
        assert_eq!(world.told(0), "", "{described}");
        assert_eq!(
            (
                world.store.own.tracking.clients(),
                world.store.own.tracking.prefixes()
            ),
            (0, 0)
        );
    }
}

/// Every way in which a key can go.
#[test]
fn whatever_takes_a_key_away_is_told() {
    type Change = fn(&World);
    let table: [(&str, Change, &str); 7] = [
        (
            "removed",
            |world| {
                world.store.lock_slot(Slot::for_key(b"k")).remove(b"k", NOW_MS);
            },
            "k",
        ),
        (
            "expired, found by a reader",
            |world| {
                world
                    .store
                    .lock_slot(Slot::for_key(b"k"))
                    .drop_if_expired(b"k", 3000);
            },
            "k",
        ),
        (
            "expired, found by the sweep",
            |world| {
                world.store.sweep(3000, 100);
            },
            "k",
        ),
        (
            "given another time",
            |world| {
                world
                    .store
                    .lock_slot(Slot::for_key(b"k"))
                    .set_expiry(b"k", None, NOW_MS);
            },
            "k",
        ),
        (
            "evicted",
            |world| {
                let is_there = || {
                    world
                        .store
                        .lock_slot(Slot::for_key(b"k"))
                        .peek(b"k", NOW_MS)
                        .is_some()
                };
                let mut number = 0;
                while is_there() {
                    world.write(1, &number.to_string());
                    world.store.evict(NOW_MS);
                    number += 1;
                }
            },
            "k",
        ),
        (
            "left with its slot",
            |world| {
                world.store.lock_slot(Slot::for_key(b"k")).release_clients();
            },
            "k",
        ),
        ("flushed", |world| world.store.own.tracking.flush(), ""),
    ];
    for (what, change, key) in table {
        let world = World::new(3);
        world.enable(0, options(READS, &[]));
        world.enable(2, options(Mode::Broadcast, &["k"]));
        world.set(1, "k", Some(2000));
        world.told(2);
        world.read(0, "k");
        change(&world);
        let everything = ">2 $10 invalidate _".to_owned();
        let expected = if key.is_empty() {
            everything.clone()
        } else {
            of(key)
        };
        assert_eq!(world.told(0), expected, "{what}");
        let left = what == "left with its slot";
        assert_eq!(world.told(2), if left { everything } else { expected }, "{what}");
        assert_eq!(
            (world.store.own.tracking.keys(), world.store.own.tracking.items()),
            (0, 0),
            "{what}"
        );
        assert!(!world.store.own.tracking.table.any(Slot::for_key(b"k")), "{what}");
    }
}

#[test]
fn absent_keys_are_remembered_too() {
    let world = World::new(2);
    world.enable(0, options(READS, &[]));
    world.read(0, "nothing");
    world.write(1, "nothing");
    assert_eq!(world.told(0), of("nothing"));
    world.write(1, "nothing");
    assert_eq!(world.told(0), "", "until it is read again");
}

#[test]
fn a_full_table_lets_keys_go_and_says_so() {
    let world = World::new(2);
    for client in 0..2 {
        world.enable(client, options(READS, &[]));
    }
    for number in 0..100 {
        world.read_within(0, &format!("k{number}"), 10);
        assert!(world.store.own.tracking.keys() <= 10);
    }
    assert_eq!(world.told(0).matches("invalidate").count(), 90);
    for number in 0..100 {
        world.read_within(1, &format!("k{number}"), 10);
    }
    for number in 0..100 {
        world.write(0, &format!("k{number}"));
    }
    // Each read was answered by one invalidation at the latest now.
    assert_eq!(world.told(0).matches("invalidate").count(), 10);
    assert_eq!(world.told(1).matches("invalidate").count(), 100);
    assert_eq!(
        (world.store.own.tracking.keys(), world.store.own.tracking.items()),
        (0, 0)
    );
}

#[test]
fn another_connection_may_be_told_instead() {
    let mut world = World::new(3);
    let target = world.clients.pop().unwrap();
    target.resp3.store(false, Ordering::Relaxed);
    let redirected = TrackingOptions {
        redirect: Some(Redirect {
            id: target.id,
            target: Arc::downgrade(&target),
        }),
        ..options(READS, &[])
    };
    world.enable(0, redirected);
    let told = |client: &Client| {
        let mut reply = Reply::new(usize::MAX);
        client.mailbox.collect_all(&mut reply);
        reply.as_bytes().escape_ascii().to_string()
    };
    world.read(0, "k");
    world.write(1, "k");
    assert_eq!(told(&target), "", "it isn't subscribed to anything");
    target.subscriptions.add(crate::pubsub::Kind::Channel, CHANNEL);
    world.read(0, "k");
    world.write(1, "k");
    let message = r"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\nk\r\n";
    assert_eq!(told(&target), message);
    world.store.own.tracking.flush();
    let flushed = r"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$-1\r\n";
    assert_eq!(told(&target), flushed);
    assert_eq!(world.told(0), "");

    let id = target.id;
    drop(target);
    world.read(0, "k");
    world.write(1, "k");
    assert_eq!(world.told(0), format!(">2 $21 tracking-redir-broken :{id}"));
    assert!(world.clients[0].tracking.lock().is_broken);
}
