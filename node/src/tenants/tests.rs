use std::net::SocketAddr;

use annulus_proto::tenants::{self as document, Quota, TtlBounds};

use super::*;
use crate::clients::Client;
use crate::command::table;
use crate::store::{EvictionPolicy, StoreOptions, Value};

struct World {
    tenants: Tenants,
    store: Store,
    clients: Clients,
}

fn digest(password: &str) -> PasswordDigest {
    PasswordDigest(Sha256::digest(password).into())
}

fn uid(text: &str) -> ClusterUid {
    text.parse().unwrap()
}

type Users<'a> = &'a [(&'a str, &'a [&'a str], &'a str)];

fn tenant(id: u32, users: Users<'_>) -> document::Tenant {
    document::Tenant {
        id: TenantId(id),
        namespace: "shop".to_owned(),
        name: format!("t{id}"),
        quota: Quota {
            connections: Some(2),
            ..Quota::default()
        },
        ttl: TtlBounds::default(),
        users: users
            .iter()
            .map(|(name, passwords, rules)| document::User {
                name: (*name).to_owned(),
                passwords: passwords.iter().map(|password| digest(password)).collect(),
                rules: vec![(*rules).to_owned()],
            })
            .collect(),
    }
}

impl World {
    fn new() -> Self {
        Self {
            tenants: Tenants::default(),
            store: Store::new(StoreOptions {
                budget_bytes: 1 << 20,
                eviction: EvictionPolicy::Lru,
            }),
            clients: Clients::default(),
        }
    }

    fn adopt(&self, version: u64, tenants: Vec<document::Tenant>) -> Result<bool, Refusal> {
        let document = TenantsDocument {
            version,
            next_id: TenantId(10),
            tenants,
            ..TenantsDocument::empty(uid("c"))
        };
        self.tenants
            .adopt(document, (&uid("c"), &self.store, &self.clients))
    }

    /// A connection that has logged in.
    fn connect(&self, user: &str, password: &str) -> Result<Arc<Client>, CommandError> {
        let login = self.tenants.log_in(user.as_bytes(), password.as_bytes(), None)?;
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let client = self.clients.admit((addr, addr), 0, 100, true).unwrap();
        client.set_login(Some(login));
        Ok(client)
    }

    fn is_open(&self, client: &Client) -> bool {
        self.clients.all().iter().any(|other| other.id == client.id)
    }
}

#[test]
fn the_highest_version_of_this_cluster_holds() {
    let world = World::new();
    for (version, is_new) in [(2, true), (2, false), (1, false), (5, true), (4, false)] {
        assert_eq!(world.adopt(version, Vec::new()), Ok(is_new), "{version}");
    }
    assert_eq!(world.tenants.version(), 5);
    let foreign = TenantsDocument {
        version: 9,
        ..TenantsDocument::empty(uid("d"))
    };
    let own = uid("c");
    let refused = world.tenants.adopt(foreign, (&own, &world.store, &world.clients));
    assert_eq!(
        refused,
        Err(Refusal::OtherCluster {
            expected: uid("c"),
            found: uid("d")
        })
    );
    assert_eq!(world.tenants.version(), 5);
}

/// What is in the document, and which of three connections stay: two of user a by passwords 1 and 2, one of user b.
#[test]
fn connections_end_that_would_not_be_let_in() {
    type Row<'a> = (&'a str, Users<'a>, [bool; 3]);
    let table: [Row<'_>; 6] = [
        (
            "nothing changes",
            &[("a", &["1", "2"], "+@all"), ("b", &["3"], "+@all")],
            [true; 3],
        ),
        (
            "other rules",
            &[("a", &["2", "1"], "-@all"), ("b", &["3", "4"], "+get")],
            [true; 3],
        ),
        (
            "a password is gone",
            &[("a", &["2"], "+@all"), ("b", &["3"], "+@all")],
            [true; 3],
        ),
        ("a user is gone", &[("b", &["3"], "+@all")], [false, false, true]),
        (
            "a password is another's",
            &[("a", &["3"], "+@all"), ("b", &["1"], "+@all")],
            [true; 3],
        ),
        ("nobody is let in", &[], [false; 3]),
    ];
    for (what, users, stay) in table {
        let world = World::new();
        let before: Users<'_> = &[("a", &["1", "2"], "+@all"), ("b", &["3"], "+@all")];
        let tenants = vec![tenant(1, &before[..1]), tenant(2, &before[1..])];
        world.adopt(1, tenants).unwrap();
        let clients = [("a", "1"), ("a", "2"), ("b", "3")].map(|(user, pw)| world.connect(user, pw).unwrap());
        let (first, second): (Vec<_>, Vec<_>) = users.iter().copied().partition(|user| user.0 == "a");
        world
            .adopt(2, vec![tenant(1, &first), tenant(2, &second)])
            .unwrap();
        assert_eq!(
            clients.each_ref().map(|client| world.is_open(client)),
            stay,
            "{what}"
        );
    }
    // A name that goes to another tenant is another user.
    let world = World::new();
    world
        .adopt(1, vec![tenant(1, &[("a", &["1"], "+@all")])])
        .unwrap();
    let client = world.connect("a", "1").unwrap();
    let tenants = vec![tenant(1, &[]), tenant(2, &[("a", &["1"], "+@all")])];
    world.adopt(2, tenants).unwrap();
    assert!(!world.is_open(&client));
}

#[test]
fn only_who_has_a_password_gets_in_and_as_many_as_may() {
    let world = World::new();
    let get = table().find(b"get").unwrap();
    world
        .adopt(
            1,
            vec![tenant(1, &[("a", &["1", "2"], "+set"), ("b", &[], "+@all")])],
        )
        .unwrap();
    for (user, password) in [("a", "3"), ("a", ""), ("b", ""), ("b", "1"), ("", ""), ("c", "1")] {
        let refused = world.connect(user, password).err();
        assert_eq!(refused, Some(CommandError::WrongPass), "{user} {password}");
    }
    let (first, second) = (world.connect("a", "1").unwrap(), world.connect("a", "2").unwrap());
    let login = second.login().unwrap();
    assert!(!login.user().may(get));
    let refused = world.connect("a", "1").err().unwrap().to_string();
    assert!(refused.contains("shop/t1 has its 2 connections"), "{refused}");
    world.clients.dismiss(first.id);
    drop(first);
    world.connect("a", "1").unwrap();
    world
        .adopt(2, vec![tenant(1, &[("a", &["1", "2"], "+get")])])
        .unwrap();
    assert!(login.user().may(get), "as of the next command");
}

#[test]
fn what_is_gone_is_dropped_and_what_is_unknown_is_kept() {
    let world = World::new();
    for id in [1, 2, 12] {
        let keyspace = world.store.keyspace(TenantId(id));
        for number in 0..100u32 {
            let key = number.to_string();
            let slot = annulus_ring::Slot::for_key(key.as_bytes());
            let mut guard = world.store.lock_slot_of(slot, &keyspace);
            guard.set(key.as_bytes(), Value::Int(1), None, 0).unwrap();
        }
    }
    let keys = |id| world.store.find_space(TenantId(id)).map(|space| space.keys());
    assert_eq!(
        world.tenants.drop_some(&world.store, 1000),
        0,
        "no document, no judgement"
    );
    world.adopt(1, vec![tenant(2, &[])]).unwrap();
    assert_eq!(world.tenants.drop_some(&world.store, 30), 30);
    assert_eq!(keys(1), Some(70));
    while world.tenants.drop_some(&world.store, 30) > 0 {}
    assert_eq!((keys(1), keys(2), keys(12)), (None, Some(100), Some(100)));
    for id in [2, 12] {
        let keyspace = world.store.keyspace(TenantId(id));
        for slot in annulus_ring::Slot::all() {
            world.store.lock_slot_of(slot, &keyspace).flush();
        }
    }
    assert_eq!(
        world.store.used_bytes(),
        0,
        "everything that was counted is counted back"
    );
}
