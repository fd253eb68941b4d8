//! Many groups whose Secrets are missing. Apart from the other tests of groups, whose nodes should not have to share a processor
//! with them.

mod support;

use annulus_operator::groups::turns::{READS_MAX, WINDOW};
use support::groups::{ORDERS, USERS, names, pass_until, stored};
use support::world::World;

#[tokio::test]
async fn many_groups_without_secrets_hold_up_nobody() {
    const CROWD: usize = 250;
    let mut world = World::new("nodes: 2, tenancy: {allowedNamespaces: {from: All}}");
    let spec = |name: &str| {
        ORDERS
            .replace("order:", &format!("{name}:"))
            .replace("name: api", &format!("name: {name}"))
    };
    for number in 0..CROWD {
        let name = format!("g{number}");
        world.group("shop", &name, 1, &spec(&name));
    }
    world.tenant("blog", "cache", 1, "");
    world.group("blog", "users", 1, &USERS.replace("shop", "blog"));
    // What a pass reads beside these Secrets.
    let around = 20;
    let started = tokio::time::Instant::now();
    world.api.take_reads();
    let first = world.pass().await.unwrap();
    let reads = world.api.take_reads();
    assert!(reads <= READS_MAX as u64 + around, "one pass reads {reads} times");
    assert!(first <= WINDOW, "the others have their turn soon: {first:?}");
    assert_eq!(
        names(&stored(&world)),
        ["blog/users"],
        "tenants and their groups don't wait"
    );
    let reason =
        |world: &World, number: usize| world.group_condition("shop", &format!("g{number}"), "Accepted").1;
    let count = |world: &World, wanted: &str| {
        (0..CROWD)
            .filter(|number| reason(world, *number) == wanted)
            .count()
    };
    assert_eq!(
        (count(&world, "SecretMissing"), count(&world, "SecretUnreadable")),
        (READS_MAX, CROWD - READS_MAX)
    );
    // Passes that follow at once, for other causes, read no more.
    for generation in 2..5 {
        world.group(
            "blog",
            "users",
            generation,
            &USERS
                .replace("shop", "blog")
                .replace("user:", &format!("{generation}:")),
        );
        world.pass().await.unwrap();
    }
    let reads = reads + world.api.take_reads();
    let windows = started.elapsed().as_secs() / WINDOW.as_secs() + 1;
    assert!(
        reads <= windows * READS_MAX as u64 + 4 * around,
        "four passes read {reads} times within {windows} windows"
    );
    // Everybody has their turn.
    pass_until(&mut world, "all Secrets looked for", |world| {
        count(world, "SecretMissing") == CROWD
    })
    .await;

    // A new leader has the same before it, and says nothing new of whoever waits.
    let mut world = World::of(world.api.clone());
    world.api.take_writes();
    world.pass().await.unwrap();
    let told: Vec<String> = world
        .api
        .take_writes()
        .into_iter()
        .filter(|write| write.contains("/cachegroups/g"))
        .collect();
    assert_eq!(told, Vec::<String>::new());
    assert_eq!(count(&world, "SecretMissing"), CROWD);
}
