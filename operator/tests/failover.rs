//! Nodes die, hang and end, against an API server and nodes of the test: who takes over, how soon, and when nobody does.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use std::time::Duration;

use annulus_ring::{MemberState, NodeId, RingDocument, Slot, SlotSet};
use support::node::FakeNode;
use support::world::{RING, UID, World};
use tokio::time::{Instant, timeout};

const COPIES: &str = "nodes: 3, replication: {factor: 2, acks: 1}";

fn stored(world: &World) -> RingDocument {
    let ring = world.api.get(RING).expect("the ring's ConfigMap");
    RingDocument::from_json(ring["data"]["ring.json"].as_str().expect("a document").as_bytes()).unwrap()
}

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn owned(document: &RingDocument, name: &str) -> SlotSet {
    document.ring().slots_of(&id(name))
}

fn state(document: &RingDocument, name: &str) -> MemberState {
    document.member(&id(name)).expect("a member").state
}

/// Reconciles whenever the hub says so, until the stored ring is as wanted. How long that took.
async fn until_stored(world: &mut World, what: &str, wanted: impl Fn(&RingDocument) -> bool) -> Duration {
    let begun = Instant::now();
    let reached = async {
        while !wanted(&stored(world)) {
            world.woken().await;
            world.reconcile().await.unwrap();
        }
    };
    timeout(Duration::from_secs(30), reached)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
    begun.elapsed()
}

/// Every slot that somebody lost is with a member that had a copy of it.
fn assert_taken_over(before: &RingDocument, after: &RingDocument, dead: &str) {
    let (old, new) = (before.ring(), after.ring());
    for slot in Slot::all().filter(|&slot| old.owner(slot) == Some(&id(dead))) {
        let owner = new.owner(slot).unwrap();
        assert!(
            before.is_replica(owner, slot),
            "{owner} has no copy of slot {slot}"
        );
    }
    let kept = Slot::all().filter(|&slot| old.owner(slot) != Some(&id(dead)));
    for slot in kept {
        assert_eq!(old.owner(slot), new.owner(slot), "{slot}");
    }
}

#[tokio::test]
async fn copies_take_over_from_a_node_that_died_before_anything_else_is_written() {
    // Silence alone would tell long after.
    let mut world = World::with_patience(COPIES, Duration::from_secs(20));
    let mut nodes = world.run_nodes(3).await;
    let before = stored(&world);
    let listed: u32 = before.replicas.values().map(SlotSet::len).sum();
    assert_eq!(listed, 16_384, "every slot has its copy");
    world.api.take_writes();
    world.take_wakes();

    drop(nodes.remove(1));
    let took = until_stored(&mut world, "nobody took over", |ring| {
        owned(ring, "demo-1").is_empty()
    })
    .await;
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    println!("from the end of the node to the stored ring: {took:?}");
    let after = stored(&world);
    assert_taken_over(&before, &after, "demo-1");
    assert_eq!(state(&after, "demo-1"), MemberState::Down);
    let writes = world.api.take_writes();
    let first = writes.iter().find(|write| !write.ends_with("/status"));
    assert_eq!(first, Some(&format!("PUT {RING}")), "{writes:?}");
    assert!(
        nodes.iter().all(|node| node.epoch() == after.epoch),
        "the living know it at once"
    );

    world.settle().await;
    let (status, reason) = world.condition("Degraded");
    let whole = ("False", "AsSpecified");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        whole,
        "two nodes hold everything twice"
    );
    let (status, reason) = world.condition("Ready");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "WaitingForNodes"));

    // The next life is filled, and is given slots again.
    let again = FakeNode::start(UID, "demo-1", 77);
    world.add_pod("demo-1", &again);
    until_stored(&mut world, "it does not come back", |ring| {
        !owned(ring, "demo-1").is_empty() && state(ring, "demo-1") == MemberState::Active
    })
    .await;
    world.settle().await;
    assert_eq!(world.condition("Degraded").0, "False");
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test]
async fn a_node_that_hangs_is_replaced_after_a_second_and_joins_when_it_goes_on() {
    let mut world = World::new(COPIES);
    let nodes = world.run_nodes(3).await;
    let before = stored(&world);
    world.take_wakes();
    nodes[0].change(|node| node.hangs = true);
    let took = until_stored(&mut world, "nobody took over", |ring| {
        owned(ring, "demo-0").is_empty()
    })
    .await;
    assert!(took > Duration::from_millis(500), "it took {took:?}");
    println!("from the last report to the stored ring: {took:?}");
    assert_taken_over(&before, &stored(&world), "demo-0");

    nodes[0].change(|node| node.hangs = false);
    until_stored(&mut world, "it does not come back", |ring| {
        !owned(ring, "demo-0").is_empty()
    })
    .await;
    world.settle().await;
    assert_eq!(world.condition("Ready").0, "True");
}

#[tokio::test]
async fn a_process_that_starts_again_in_place_owns_nothing_at_first() {
    let mut world = World::new(COPIES);
    let mut nodes = world.run_nodes(3).await;
    let before = stored(&world);
    world.take_wakes();
    let dead = nodes.remove(2);
    let ip = dead.ip;
    drop(dead);
    // At the same address, before anybody has looked.
    tokio::time::sleep(Duration::from_millis(5)).await;
    nodes.push(FakeNode::start_at(ip, UID, "demo-2", 99));
    let took = until_stored(&mut world, "nobody took over", |ring| ring.epoch > before.epoch).await;
    println!("from the end of the process to the stored ring: {took:?}");
    let after = stored(&world);
    assert_taken_over(&before, &after, "demo-2");
    assert!(owned(&after, "demo-2").is_empty() && !after.replicas.contains_key(&id("demo-2")));
}

#[tokio::test]
async fn an_operator_that_comes_later_takes_over_for_a_node_that_it_never_heard() {
    let mut world = World::new(COPIES);
    let mut nodes = world.run_nodes(3).await;
    let before = stored(&world);
    let mut later = World::of(world.api.clone());
    for (number, node) in nodes.iter().enumerate() {
        later.add_pod(&format!("demo-{number}"), node);
    }
    drop(world);
    drop(nodes.remove(1));
    later.reconcile().await.unwrap();
    assert_eq!(stored(&later), before, "it has heard nobody yet");
    until_stored(&mut later, "nobody took over", |ring| {
        owned(ring, "demo-1").is_empty()
    })
    .await;
    assert_taken_over(&before, &stored(&later), "demo-1");
}

#[tokio::test]
async fn a_pod_that_is_gone_is_dead() {
    let mut world = World::new(COPIES);
    let nodes = world.run_nodes(3).await;
    let before = stored(&world);
    // As after a forced deletion: the process may live on for a while.
    world.remove_pod("demo-1");
    world.reconcile().await.unwrap();
    assert_taken_over(&before, &stored(&world), "demo-1");
    assert!(owned(&stored(&world), "demo-1").is_empty());
    drop(nodes);
}

#[tokio::test]
async fn when_nobody_answers_nobody_is_dead() {
    let mut world = World::new(COPIES);
    let nodes = world.run_nodes(3).await;
    let before = stored(&world);
    for node in &nodes {
        node.change(|node| node.hangs = true);
    }
    world.until(|seen| seen.reports.is_empty()).await;
    world.settle().await;
    assert_eq!(stored(&world), before);
    // They come back one after the other, as after a cut of the operator's own network.
    for node in &nodes {
        node.change(|node| node.hangs = false);
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.reconcile().await.unwrap();
    }
    world.until(|seen| seen.reports.len() == 3).await;
    world.settle().await;
    assert_eq!(stored(&world), before);
}

#[tokio::test]
async fn a_node_that_was_told_to_end_gives_everything_away_and_then_ends() {
    let mut world = World::new(COPIES);
    let mut nodes = world.run_nodes(3).await;
    world.take_wakes();
    nodes[0].change(|node| node.leaving = true);
    let given_away =
        |ring: &RingDocument| owned(ring, "demo-0").is_empty() && !ring.replicas.contains_key(&id("demo-0"));
    let took = until_stored(&mut world, "it still has something", given_away).await;
    println!("from the signal until nobody needs the node: {took:?}");
    world.settle().await;
    let ring = stored(&world);
    assert_eq!(state(&ring, "demo-0"), MemberState::Draining);
    let listed: u32 = ring.replicas.values().map(SlotSet::len).sum();
    assert_eq!(listed, 16_384, "every slot has two copies without it");

    drop(nodes.remove(0));
    world.remove_pod("demo-0");
    let again = FakeNode::start(UID, "demo-0", 55);
    world.add_pod("demo-0", &again);
    until_stored(&mut world, "it does not come back", |ring| {
        !owned(ring, "demo-0").is_empty()
    })
    .await;
    world.settle().await;
    assert_eq!(world.condition("Ready").0, "True");
}
