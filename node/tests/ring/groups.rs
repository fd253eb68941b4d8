//! Read-through groups on several nodes: whoever is asked, the slot's owner loads, once.

use annulus_proto::groups::Group;
use annulus_proto::tenants::TenantsDocument;

use crate::cluster::Cluster;
use crate::documents::CLUSTER;
use crate::origin::{Mode, Origin, described};
use crate::processes::{Process, wait_for};
use crate::support::Client;
use crate::support::http::HttpClient;
use crate::tenants::push;

/// The group `users`, in the cluster's own keyspace.
fn document(origin: &Origin) -> TenantsDocument {
    let group = Group {
        value_bytes_max: 8 << 20,
        ..described(origin)
    };
    TenantsDocument {
        version: 1,
        groups: vec![group],
        ..TenantsDocument::empty(CLUSTER.parse().unwrap())
    }
}

async fn follow(processes: impl Iterator<Item = &Process>, origin: &Origin) {
    for process in processes {
        push(process, &document(origin)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn any_node_answers_over_http_and_one_loads() {
    let (origin, cluster) = (Origin::start(), Cluster::start(3, 1, 0).await);
    follow(cluster.nodes.values(), &origin).await;
    let mut clients: Vec<HttpClient> = cluster
        .nodes
        .values()
        .map(|process| HttpClient::connect(process.api.unwrap()))
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let response = client.ask("GET", "/v1/groups/users/42", &[]);
        assert_eq!(
            (response.status, response.body.as_slice()),
            (200, &b"value-of-/u/42-1"[..]),
            "{number}"
        );
        assert!(response.header("annulus-ttl-ms").is_some());
        // The same key by its whole name, and one that is in no group.
        assert_eq!(client.ask("GET", "/v1/keys/user:42", &[]).status, 200);
        assert_eq!(client.ask("GET", "/v1/keys/other:42", &[]).status, 404);
        assert_eq!(
            client.ask("GET", "/v1/groups/others/42", &[]).problem(),
            "no-such-group"
        );
    }
    assert_eq!(origin.asked_in_all(), 1);
    origin.set(Mode::Status(404));
    assert_eq!(
        clients[0].ask("GET", "/v1/groups/users/absent", &[]).problem(),
        "no-such-key"
    );
    origin.set(Mode::Status(500));
    let failed = clients[1].ask("GET", "/v1/groups/users/broken", &[]);
    assert_eq!((failed.status, failed.problem().as_str()), (502, "origin-failed"));
    // In more than one piece, to all but the owner.
    origin.set(Mode::Bytes(5 << 20));
    for client in &mut clients {
        let response = client.ask("GET", "/v1/groups/users/long", &[]);
        assert_eq!((response.status, response.body.len()), (200, 5 << 20));
    }
    assert_eq!(origin.asked("/u/long"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn when_the_owner_dies_the_next_one_loads() {
    let (origin, mut cluster) = (Origin::start(), Cluster::start(3, 2, 1).await);
    follow(cluster.nodes.values(), &origin).await;
    let key = "user:1";
    let owner = cluster.owner(key);
    origin.set(Mode::Wait);
    let mut waiting = cluster.client(key);
    waiting.command("GET user:1");
    wait_for("the load", || (origin.asked("/u/1") == 1).then_some(()));
    cluster.kill(owner);
    assert!(waiting.rest().is_empty(), "its connection ends");
    cluster.settle_without(owner).await;
    let mut client = cluster.client(key);
    client.command("GET user:1");
    wait_for("the other load", || (origin.asked("/u/1") == 2).then_some(()));
    origin.let_go();
    client.expect("$15\r\nvalue-of-/u/1-2\r\n");
    // The copies have it, too.
    client.check("GET user:1", "$15\r\nvalue-of-/u/1-2\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_load_outlives_a_change_of_the_ring_that_leaves_its_slot_where_it_is() {
    let (origin, mut cluster) = (Origin::start(), Cluster::start(3, 2, 1).await);
    follow(cluster.nodes.values(), &origin).await;
    let owner = cluster.owner("user:1");
    origin.set(Mode::Wait);
    let mut waiting = cluster.client("user:1");
    waiting.command("GET user:1");
    wait_for("the load", || (origin.asked("/u/1") == 1).then_some(()));
    let other = (0..3).find(|number| *number != owner).unwrap();
    let before = cluster.epoch();
    cluster.kill(other);
    cluster.settle_without(other).await;
    assert!(cluster.epoch() > before);
    assert_eq!(cluster.owner("user:1"), owner);
    origin.let_go();
    waiting.expect("$15\r\nvalue-of-/u/1-1\r\n");
    cluster
        .client("user:1")
        .check("GET user:1", "$15\r\nvalue-of-/u/1-1\r\n");
    assert_eq!(origin.asked("/u/1"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_copy_that_has_nothing_fresh_sends_to_the_owner() {
    let (origin, cluster) = (Origin::start(), Cluster::start(3, 2, 1).await);
    follow(cluster.nodes.values(), &origin).await;
    let mut reader = Client::connect(cluster.nodes[&cluster.copy("user:1")].client);
    reader.check("READONLY", "+OK\r\n");
    assert!(reader.ask("GET user:1").starts_with("-MOVED"));
    assert_eq!(origin.asked_in_all(), 0);
    cluster
        .client("user:1")
        .check("GET user:1", "$15\r\nvalue-of-/u/1-1\r\n");
    wait_for("the copy", || {
        (reader.ask("GET user:1") == "$15\r\nvalue-of-/u/1-1\r\n").then_some(())
    });
    assert_eq!(origin.asked_in_all(), 1);
}
