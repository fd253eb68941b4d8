//! Copies of slots between real processes: what is acknowledged is kept.

use crate::cluster::{Cluster, Load};
use crate::documents::id;
use crate::processes::wait_for;
use crate::support::Client;

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_listed_and_hold_what_was_written() {
    let mut cluster = Cluster::start(3, 2, 1).await;
    let document = cluster.document.clone().unwrap();
    let copied: u32 = document.replicas.values().map(annulus_ring::SlotSet::len).sum();
    assert_eq!(copied, 16_384, "{document:?}");

    let table = [
        ("SET {a}text value", "GET {a}text"),
        ("SET {a}number 17", "GET {a}number"),
        ("HSET {a}hash f1 v1 f2 v2", "HGETALL {a}hash"),
        ("RPUSH {a}list x y z", "LRANGE {a}list 0 -1"),
        ("SADD {a}set m", "SMEMBERS {a}set"),
        ("ZADD {a}sorted 1.5 m 2 n", "ZRANGE {a}sorted 0 -1 WITHSCORES"),
        ("SET {a}mortal v PXAT 9999999999999", "PEXPIRETIME {a}mortal"),
        ("SET {a}gone v", "EXISTS {a}gone"),
        (
            "EVAL return(redis.call('set',KEYS[1],'lua')) 1 {a}script",
            "GET {a}script",
        ),
    ];
    let mut client = cluster.client("{a}");
    for (write, _) in table {
        let reply = client.ask(write);
        assert!(!reply.starts_with('-'), "{write}: {reply}");
    }
    client.check("DEL {a}gone", ":1\r\n");
    client.check("HDEL {a}hash f2", ":1\r\n");
    let before: Vec<String> = table.iter().map(|(_, read)| client.ask(read)).collect();
    client.check("WAIT 1 100", ":1\r\n");
    assert!(client.ask("INFO replication").contains("connected_slaves:"));
    assert!(client.ask("ROLE").starts_with("*3\r\n$6\r\nmaster\r\n"));
    let keys = client.ask("DBSIZE");

    let (owner, copy) = (cluster.owner("{a}"), cluster.copy("{a}"));
    // Nobody sees the copies.
    let mut copy_client = Client::connect(cluster.nodes[&copy].client);
    assert_eq!(keys, ":8\r\n");
    assert_eq!(copy_client.ask("DBSIZE"), ":0\r\n");
    assert!(copy_client.ask("GET {a}text").starts_with("-MOVED"));

    cluster.kill(owner);
    cluster.step().await;
    assert_eq!(cluster.owner("{a}"), copy);
    let mut client = cluster.client("{a}");
    let after: Vec<String> = table.iter().map(|(_, read)| client.ask(read)).collect();
    assert_eq!(after, before);
    assert_eq!(client.ask("DBSIZE"), ":8\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_owners_die_one_after_the_other() {
    let mut cluster = Cluster::start(3, 2, 1).await;
    let load = Load::start(&cluster.map, 8, 500);
    for victim in [0, 1, 2, 0] {
        load.wait_for_writes(2_000);
        cluster.kill(victim);
        cluster.settle_without(victim).await;
        load.wait_for_writes(500);
        // It comes back as another life, is filled, and gets its share.
        cluster.failed.remove(&id(victim));
        cluster.boot(victim);
        cluster.settle().await;
    }
    load.wait_for_writes(1_000);
    load.check(&cluster.map);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_while_slots_move() {
    let mut cluster = Cluster::start(3, 2, 1).await;
    let load = Load::start(&cluster.map, 8, 500);
    load.wait_for_writes(1_000);
    cluster.boot(3);
    cluster.desired.insert(3);
    cluster.settle().await;
    load.wait_for_writes(1_000);
    cluster.desired.remove(&0);
    cluster.settle().await;
    let mut left = cluster.nodes.remove(&0).unwrap();
    left.signal("TERM");
    assert_eq!(left.wait_for_exit().code(), Some(0));
    load.wait_for_writes(1_000);
    load.check(&cluster.map);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_end_gives_everything_to_its_copies_first() {
    ends_without_loss(Cluster::start(3, 2, 1).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_end_without_copies_hands_its_data_over_first() {
    ends_without_loss(Cluster::start(3, 1, 0).await).await;
}

async fn ends_without_loss(mut cluster: Cluster) {
    let load = Load::start(&cluster.map, 4, 200);
    load.wait_for_writes(1_000);
    cluster.nodes[&1].signal("TERM");
    let mut ended = false;
    while !ended {
        cluster.step().await;
        ended = cluster.nodes.get_mut(&1).unwrap().has_ended();
    }
    assert_eq!(cluster.nodes.get_mut(&1).unwrap().wait_for_exit().code(), Some(0));
    let log = cluster.nodes[&1].log();
    assert!(log.contains("nobody needs this node any more"), "{log}");
    cluster.kill(1);
    cluster.step().await;
    load.wait_for_writes(1_000);
    load.check(&cluster.map);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_for_its_copy_and_for_whoever_takes_its_place() {
    let mut cluster = Cluster::start(3, 2, 1).await;
    let copy = cluster.copy("k");
    let mut client = cluster.client("k");
    client.check("SET k 1", "+OK\r\n");
    cluster.nodes[&copy].signal("STOP");
    client.command("SET k 2");
    // Nothing comes before there is another copy.
    let mut other = cluster.client("k");
    other.command("GET k");
    cluster.failed.insert(id(copy));
    cluster.settle_without(copy).await;
    client.expect("+OK\r\n");
    other.expect("$1\r\n2\r\n");
    assert_ne!(cluster.copy("k"), copy);
    cluster.nodes[&copy].signal("CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_many_copies_a_write_needs_can_change_while_nodes_run() {
    let mut cluster = Cluster::start(3, 2, 0).await;
    let copy = cluster.copy("k");
    let mut client = cluster.client("k");
    cluster.nodes[&copy].signal("STOP");
    client.check("SET k 1", "+OK\r\n");
    cluster.nodes[&copy].signal("CONT");
    cluster.settings.acks = 1;
    cluster.settle().await;
    cluster.nodes[&copy].signal("STOP");
    let reply = client.ask("SET k 2");
    assert!(reply.starts_with("-UNCERTAIN"), "{reply}");
    cluster.nodes[&copy].signal("CONT");
    cluster.settings.acks = 0;
    cluster.settle().await;
    cluster.nodes[&copy].signal("STOP");
    client.check("SET k 3", "+OK\r\n");
    cluster.nodes[&copy].signal("CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_was_paused_answers_nothing_that_others_have_changed() {
    let mut cluster = Cluster::start(3, 2, 1).await;
    let owner = cluster.owner("k");
    let mut old = cluster.client("k");
    old.check("SET k old", "+OK\r\n");
    cluster.nodes[&owner].signal("STOP");
    old.command("GET k");
    cluster.failed.insert(id(owner));
    cluster.step().await;
    let mut client = cluster.client("k");
    client.check("SET k new", "+OK\r\n");
    cluster.nodes[&owner].signal("CONT");
    let reply = String::from_utf8(old.reply()).unwrap();
    assert!(
        reply.starts_with("-MOVED") || reply.starts_with("-TRYAGAIN") || reply.starts_with("-CLUSTERDOWN"),
        "{reply}"
    );
    // Once it is believed to live again, it is filled and takes part.
    cluster.failed.clear();
    cluster.settle().await;
    cluster.client("k").check("GET k", "$3\r\nnew\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anybody_to_copy_to_a_write_is_refused_and_a_read_is_not() {
    let mut cluster = Cluster::start(2, 2, 1).await;
    let (owner, copy) = (cluster.owner("k"), cluster.copy("k"));
    cluster.client("k").check("SET k 1", "+OK\r\n");
    cluster.kill(copy);
    cluster.step().await;
    let mut client = Client::connect(cluster.nodes[&owner].client);
    wait_for("the refusal", || {
        client.ask("SET k 2").starts_with("-NOREPLICAS").then_some(())
    });
    client.check("GET k", "$1\r\n1\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_three_copies_two_may_die() {
    let mut cluster = Cluster::start(3, 3, 1).await;
    let load = Load::start(&cluster.map, 4, 200);
    load.wait_for_writes(1_000);
    cluster.kill(2);
    cluster.step().await;
    load.wait_for_writes(200);
    cluster.kill(0);
    cluster.step().await;
    // Nobody is left to have a copy: nothing more is acknowledged.
    load.check(&cluster.map);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_flushed_evicted_or_expired_is_gone_from_copies_too() {
    let mut cluster = Cluster::start(3, 2, 1).await;
    let (owner, copy) = (cluster.owner("{a}"), cluster.copy("{a}"));
    let mut client = cluster.client("{a}");
    client.check("SET {a}1 v PX 50", "+OK\r\n");
    client.check("SET {a}2 v", "+OK\r\n");
    wait_for("the expiry", || {
        (client.ask("EXISTS {a}1") == ":0\r\n").then_some(())
    });
    client.check("FLUSHALL", "+OK\r\n");
    client.check("SET {a}3 v", "+OK\r\n");
    cluster.kill(owner);
    cluster.step().await;
    assert_eq!(cluster.owner("{a}"), copy);
    let mut client = cluster.client("{a}");
    client.check("EXISTS {a}1 {a}2 {a}3", ":1\r\n");
    client.check("DBSIZE", ":1\r\n");
}
