use annulus_proto::tenants::{OverRate, PasswordDigest, Quota, Tenant, TenantId, TtlBounds, User};
use sha2::{Digest, Sha256};

use crate::origin::{Mode, Origin};
use crate::support::Client;
use crate::world::{World, bulk, described, wait_for};

fn tenant(id: u32, name: &str, quota: Quota, rules: &str) -> Tenant {
    Tenant {
        id: TenantId(id),
        namespace: name.to_owned(),
        name: name.to_owned(),
        quota,
        ttl: TtlBounds::default(),
        users: vec![User {
            name: name.to_owned(),
            passwords: vec![PasswordDigest(Sha256::digest(name).into())],
            rules: vec![rules.to_owned()],
        }],
    }
}

fn log_in(world: &World, name: &str) -> Client {
    let mut client = world.connect();
    client.check(&format!("AUTH {name} {name}"), "+OK\r\n");
    client
}

#[test]
fn each_tenant_has_its_own_groups() {
    let world = World::without_groups(Origin::start());
    let group = |tenant: u32, path: &str| {
        let mut group = described(&world.origin);
        group.tenant = TenantId(tenant);
        group.origin.url_template = format!("http://{}/{path}/{{key}}", world.origin.addr);
        group
    };
    let tenants = vec![
        tenant(1, "one", Quota::default(), "+@all"),
        tenant(2, "two", Quota::default(), "+@all"),
        tenant(3, "three", Quota::default(), "+@all"),
    ];
    world.follow(1, tenants, vec![group(1, "a"), group(2, "b")]);
    for (name, expected) in [
        ("one", bulk("value-of-/a/1-1")),
        ("two", bulk("value-of-/b/1-1")),
        ("three", "$-1\r\n".to_owned()),
    ] {
        log_in(&world, name).check("GET user:1", expected);
    }
    world.connect().check("GET user:1", "$-1\r\n");
    assert_eq!(world.origin.asked_in_all(), 2);
}

#[test]
fn who_may_not_read_loads_nothing() {
    let world = World::without_groups(Origin::start());
    let mut group = described(&world.origin);
    group.tenant = TenantId(1);
    let tenants = vec![tenant(1, "one", Quota::default(), "+set")];
    world.follow(1, tenants, vec![group]);
    let reply = log_in(&world, "one").ask("GET user:1");
    assert!(reply.starts_with("-NOPERM"), "{reply}");
    assert_eq!(world.origin.asked_in_all(), 0);
}

#[test]
fn quotas_hold_for_what_is_loaded() {
    let world = World::without_groups(Origin::start());
    let mut group = described(&world.origin);
    group.tenant = TenantId(1);
    let quota = Quota {
        memory_bytes: Some(64 << 10),
        value_bytes_max: Some(20 << 10),
        ..Quota::default()
    };
    world.follow(1, vec![tenant(1, "one", quota, "+@all")], vec![group]);
    let mut client = log_in(&world, "one");
    world.origin.set(Mode::Bytes(21 << 10));
    let reply = client.ask("GET user:long");
    assert!(reply.contains("maxValueBytes"), "{reply}");
    world.origin.set(Mode::Bytes(10 << 10));
    for number in 0..20 {
        let reply = client.ask(&format!("GET user:{number}"));
        assert!(reply.starts_with("$10240\r\n"), "{number}");
    }
    let space = world.server.node.store.find_space(TenantId(1)).unwrap();
    assert!(world.server.node.store.own_bytes_of(&space) <= 64 << 10);
    assert!((3..=6).contains(&space.keys()), "{}", space.keys());
}

#[test]
fn a_command_that_waits_for_a_load_is_counted_once() {
    for over_rate in [OverRate::Delay, OverRate::Reject] {
        let world = World::without_groups(Origin::start());
        let mut group = described(&world.origin);
        group.tenant = TenantId(1);
        let quota = Quota {
            ops_per_second: Some(1),
            over_rate,
            ..Quota::default()
        };
        world.follow(1, vec![tenant(1, "one", quota, "+@all")], vec![group]);
        let mut client = log_in(&world, "one");
        // Sixteen at once are what such a rate allows.
        for number in 0..15 {
            let loaded = bulk(&format!("value-of-/u/{number}-1"));
            client.check(&format!("GET user:{number}"), loaded);
        }
        let space = world.server.node.store.find_space(TenantId(1)).unwrap();
        assert_eq!(space.counters.throttled.get(), 0, "{over_rate:?}");
    }
}

#[test]
fn a_tenant_that_goes_takes_its_groups_along() {
    let world = World::without_groups(Origin::start());
    let mut group = described(&world.origin);
    group.tenant = TenantId(1);
    world.follow(1, vec![tenant(1, "one", Quota::default(), "+@all")], vec![group]);
    let mut client = log_in(&world, "one");
    world.origin.set(Mode::Wait);
    client.command("GET user:1");
    wait_for("a load", || world.origin.asked_in_all() == 1);
    world.follow(2, Vec::new(), Vec::new());
    world.origin.let_go();
    assert!(client.rest().is_empty());
    let keys = || {
        world
            .server
            .node
            .store
            .find_space(TenantId(1))
            .map_or(0, |space| space.keys())
    };
    wait_for("nothing is left", || keys() == 0);
}
