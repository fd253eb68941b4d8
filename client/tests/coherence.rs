//! The near cache before real processes: hits, invalidations, and the bound while things break.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of the test, outside of test functions"
)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use annulus_client::{Bytes, Client};
use support::checker::Checker;
use support::world::World;
use tokio::time::{Instant, sleep, timeout};

const LEASE: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_secs(20);

async fn until(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn value(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn reads_and_writes(world: &World) {
    let (client, other) = (world.client(LEASE, true).await, world.client(LEASE, true).await);
    assert_eq!(client.get("greeting").await.unwrap(), None);
    client.set("greeting", "hello").await.unwrap();
    assert_eq!(
        client.get("greeting").await.unwrap(),
        Some(value("hello")),
        "its own write"
    );
    until("a hit", async || {
        let before = client.stats().hits;
        client.get("greeting").await.unwrap();
        client.stats().hits > before
    })
    .await;
    other.set("greeting", "ahoy").await.unwrap();
    until("another client's write", async || {
        client.get("greeting").await.unwrap() == Some(value("ahoy"))
    })
    .await;
    assert!(other.del("greeting").await.unwrap());
    until("another client's removal", async || {
        client.get("greeting").await.unwrap().is_none()
    })
    .await;
    client
        .set_for("short", "lived", Duration::from_millis(50))
        .await
        .unwrap();
    until("its time is over", async || {
        client.get("short").await.unwrap().is_none()
    })
    .await;
    let keys: Vec<String> = (0..100).map(|number| format!("many:{number}")).collect();
    for key in &keys {
        client.set(key, key.as_str()).await.unwrap();
    }
    let wanted: Vec<_> = keys.iter().map(|key| Some(Bytes::from(key.clone()))).collect();
    assert_eq!(client.mget(&keys).await.unwrap(), wanted);
    assert_eq!(client.stats().passed_on, 0, "each was read from its owner");
    let pushed: u32 = client
        .command(redis::cmd("RPUSH").arg("list").arg("x"))
        .await
        .unwrap();
    assert_eq!(pushed, 1);
    let error = client.get("list").await.unwrap_err().to_string();
    assert!(error.contains("WRONGTYPE"), "{error}");
    let stats = client.stats();
    assert!(
        stats.invalidations > 0 && stats.lost_invalidations == 0,
        "{stats:?}"
    );
    assert_eq!(stats.uncounted_checks, 0);
}

async fn is_cached(client: &Client, key: &'static str) {
    until("a hit", async || {
        client.get(key).await.unwrap();
        client.stats().hits > 0
    })
    .await;
}

/// Waits until `new` is read; nothing else is by reads that begin later than the lease lasts.
async fn is_replaced(client: &Client, key: &'static str, written: Instant) {
    until("it isn't served any more", async || {
        let begun = Instant::now();
        let found = client.get(key).await.unwrap();
        let is_new = found == Some(value("new"));
        assert!(
            is_new || begun - written <= LEASE,
            "{found:?} after {:?}",
            begun - written
        );
        is_new
    })
    .await;
}

async fn lost_invalidations_are_noticed(world: &World) {
    let (client, other) = (world.client(LEASE, true).await, world.client(LEASE, true).await);
    other.set("lossy", "old").await.unwrap();
    is_cached(&client, "lossy").await;
    world.faults.lost_percent.store(100, Ordering::Relaxed);
    other.set("lossy", "new").await.unwrap();
    let written = Instant::now();
    is_replaced(&client, "lossy", written).await;
    until("it is counted", async || client.stats().lost_invalidations > 0).await;
    world.faults.lost_percent.store(0, Ordering::Relaxed);
}

async fn a_stalled_connection_vouches_for_nothing(world: &World) {
    let (client, other) = (world.client(LEASE, true).await, world.client(LEASE, true).await);
    other.set("stalled", "old").await.unwrap();
    is_cached(&client, "stalled").await;
    world.proxies.iter().for_each(|proxy| proxy.stall(true));
    // By a way that isn't stalled.
    other
        .command::<()>(redis::cmd("SET").arg("stalled").arg("new"))
        .await
        .unwrap();
    let written = Instant::now();
    is_replaced(&client, "stalled", written).await;
    assert!(client.stats().stale_refused > 0, "{:?}", client.stats());
    world.proxies.iter().for_each(|proxy| proxy.stall(false));
    let before = client.stats().hits;
    until("hits again", async || {
        client.get("stalled").await.unwrap();
        client.stats().hits > before
    })
    .await;
}

/// Cuts, losses and a node that is killed, under load.
async fn nothing_is_older_than_the_bound(world: &World) {
    let client = world.client(LEASE, true).await;
    let checker = Checker::start(&world.cluster.addresses(), &client, LEASE).await;
    until("hits", async || client.stats().hits > 10_000).await;
    world.faults.lost_percent.store(30, Ordering::Relaxed);
    until("losses", async || client.stats().lost_invalidations > 20).await;
    world.faults.lost_percent.store(0, Ordering::Relaxed);
    for proxy in &world.proxies {
        let before = client.stats().connections_lost;
        // There may be none at the moment: it may have been given up just before.
        until("a lost connection", async || {
            proxy.cut();
            client.stats().connections_lost > before
        })
        .await;
    }
    let before = world.cluster.nodes();
    world.cluster.kill_one(1);
    until("another process in its place", async || {
        let now = world.cluster.nodes();
        now.len() == before.len() && now != before
    })
    .await;
    world.cluster.whole().await;
    let before = client.stats().hits;
    until("hits again", async || client.stats().hits > before + 10_000).await;
    let seen = checker.stop().await;
    assert_eq!(seen.violations, 0, "{:#?}", seen.shown);
    assert!(seen.hits.count() > seen.misses.count());
}

/// The same losses without the check: the checker finds them.
async fn without_checks_the_checker_finds_what_was_lost(world: &World) {
    let client = world.client(LEASE, false).await;
    let checker = Checker::start(&world.cluster.addresses(), &client, LEASE).await;
    until("hits", async || client.stats().hits > 10_000).await;
    world.faults.lost_percent.store(30, Ordering::Relaxed);
    let lost = world.faults.lost.load(Ordering::Relaxed);
    until("losses", async || {
        world.faults.lost.load(Ordering::Relaxed) > lost + 20
    })
    .await;
    world.faults.lost_percent.store(0, Ordering::Relaxed);
    sleep(2 * LEASE).await;
    let seen = checker.stop().await;
    assert!(seen.violations > 0);
    assert!(seen.worst_hit_age > LEASE);
}

async fn commands_fail_when_nobody_answers(world: &World) {
    let client = world.client(LEASE, true).await;
    client.set("there", "1").await.unwrap();
    world.cluster.stand_still();
    let ended = timeout(PATIENCE, async {
        assert!(client.get("elsewhere").await.is_err());
        assert!(client.set("there", "2").await.is_err());
    });
    assert!(ended.await.is_ok(), "commands that neither succeed nor fail");
    world.cluster.go_on();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_never_older_than_the_lease() {
    let world = World::start().await;
    reads_and_writes(&world).await;
    lost_invalidations_are_noticed(&world).await;
    a_stalled_connection_vouches_for_nothing(&world).await;
    without_checks_the_checker_finds_what_was_lost(&world).await;
    nothing_is_older_than_the_bound(&world).await;
    commands_fail_when_nobody_answers(&world).await;
}
