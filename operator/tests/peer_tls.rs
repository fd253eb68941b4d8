//! `tls.peers`: which Secrets the operator writes and when, and which nodes it talks to.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod support;

use std::time::Duration;

use annulus_operator::pki::{Files, Stored, Wanted, renew};
use annulus_proto::credentials::{PeerCredentials, PeerPem};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use support::node::FakeNode;
use support::world::{CLUSTER, UID, World};

const SECRETS: &str = "/api/v1/namespaces/shop/secrets";

fn files(world: &World, name: &str) -> Files {
    let secret = world.api.get(&format!("{SECRETS}/{name}")).unwrap();
    let secret: Secret = serde_json::from_value(secret).unwrap();
    let data = secret.data.unwrap();
    data.into_iter().map(|(key, value)| (key, value.0)).collect()
}

/// What the files say of that node.
fn credentials(files: &Files, node: &str) -> PeerCredentials {
    let pem = PeerPem {
        certificate: &files[&format!("{node}.crt")],
        key: &files[&format!("{node}.key")],
        authorities: &files["ca.crt"],
    };
    let identity = format!("annulus://{UID}/node/{node}").parse().unwrap();
    PeerCredentials::from_pem(&identity, pem).unwrap()
}

#[tokio::test]
async fn a_cluster_whose_peers_prove_who_they_are_comes_up_and_to_rest() {
    let mut world = World::new("nodes: 2, auth: {disabled: true}, tls: {peers: true}");
    world.reconcile().await.unwrap();
    let writes = world.api.take_writes();
    let secrets: Vec<&String> = writes.iter().filter(|write| write.contains("/secrets")).collect();
    assert_eq!(secrets.len(), 2, "authority and peers: {writes:?}");
    let position = |part: &str| writes.iter().position(|write| write.contains(part)).unwrap();
    assert!(
        position("/secrets") < position("/statefulsets/demo"),
        "{writes:?}"
    );
    let peers = files(&world, "demo-peers");
    assert!(!peers.contains_key("ca.key") && files(&world, "demo-ca").contains_key("ca.key"));

    let mut nodes = Vec::new();
    for (number, name) in ["demo-0", "demo-1"].into_iter().enumerate() {
        let node = FakeNode::start_secure(UID, name, number as u128 + 1, credentials(&peers, name));
        world.add_pod(name, &node);
        nodes.push(node);
    }
    world.reconcile().await.unwrap();
    world.until(|seen| seen.reports.len() == 2).await;
    world.settle().await;
    assert_eq!(world.condition("Ready").0, "True");
    assert_eq!(files(&world, "demo-peers"), peers);

    // A new leader has nothing but the Secret.
    let mut other = World::of(world.api.clone());
    for (name, node) in ["demo-0", "demo-1"].into_iter().zip(&nodes) {
        other.add_pod(name, node);
    }
    other.reconcile().await.unwrap();
    other.until(|seen| seen.reports.len() == 2).await;

    // The files of a pod are there before the pod.
    world.api.take_writes();
    world
        .api
        .edit(CLUSTER, |cluster| cluster["spec"]["nodes"] = json!(3));
    world.reconcile().await.unwrap();
    let writes = world.api.take_writes();
    let position = |part: &str| writes.iter().position(|write| write.contains(part)).unwrap();
    assert!(
        position("PUT /api/v1/namespaces/shop/secrets/demo-peers") < position("/statefulsets/demo"),
        "{writes:?}"
    );
    let more = files(&world, "demo-peers");
    assert!(more.contains_key("demo-2.key"));
    assert_eq!(more["demo-0.key"], peers["demo-0.key"]);
}

#[tokio::test]
async fn who_proves_to_be_another_or_nobody_is_not_heard() {
    let mut world = World::new("nodes: 4, auth: {disabled: true}, tls: {peers: true}");
    world.reconcile().await.unwrap();
    let peers = files(&world, "demo-peers");
    let foreign = Wanted {
        cluster: UID.parse().unwrap(),
        nodes: ["demo-3".parse().unwrap()].into(),
        hosts: Vec::new(),
        client: false,
    };
    let foreign = renew(&foreign, &Stored::default(), Timestamp::now().as_second()).unwrap();
    // Each says in its reports what it should; its certificate is another node's, none, and another authority's.
    let nodes = [
        (
            "demo-0",
            FakeNode::start_secure(UID, "demo-0", 1, credentials(&peers, "demo-0")),
        ),
        (
            "demo-1",
            FakeNode::start_secure(UID, "demo-1", 2, credentials(&peers, "demo-0")),
        ),
        ("demo-2", FakeNode::start(UID, "demo-2", 3)),
        (
            "demo-3",
            FakeNode::start_secure(UID, "demo-3", 4, credentials(&foreign.peers, "demo-3")),
        ),
    ];
    for (name, node) in &nodes {
        world.add_pod(name, node);
    }
    world.reconcile().await.unwrap();
    world
        .until(|seen| !seen.reports.is_empty() && !seen.connecting)
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let heard: Vec<String> = world.snapshot().reports.keys().map(ToString::to_string).collect();
    assert_eq!(heard, ["demo-0"]);
}

#[tokio::test]
async fn certificates_for_clients_are_made_unless_the_user_makes_them() {
    let mut world =
        World::new("nodes: 1, auth: {disabled: true}, tls: {enabled: true, clientAuth: Required}");
    world.reconcile().await.unwrap();
    for name in ["demo-tls", "demo-client-tls"] {
        let keys: Vec<String> = files(&world, name).into_keys().collect();
        assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"], "{name}");
    }

    let mut world =
        World::new("nodes: 1, auth: {disabled: true}, tls: {enabled: true, secretRef: {name: mine}}");
    world.reconcile().await.unwrap();
    assert!(world.api.list("/secrets/").is_empty());
    assert_eq!(world.condition("Ready").1, "TlsSecretMissing");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine", "namespace": "shop"},
        "data": {"tls.crt": "", "tls.key": ""}});
    world.api.put(&format!("{SECRETS}/mine"), secret);
    world.reconcile().await.unwrap();
    assert_eq!(world.condition("Ready").1, "WaitingForNodes");
}

#[tokio::test]
async fn a_secret_that_is_not_the_clusters_is_not_touched() {
    let mut world = World::new("nodes: 1, auth: {disabled: true}, tls: {enabled: true}");
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo-tls", "namespace": "shop"}});
    world.api.put(&format!("{SECRETS}/demo-tls"), secret.clone());
    assert!(world.reconcile().await.is_err());
    assert_eq!(world.condition("Ready").1, "ApplyFailed");
    assert!(world.api.get(&format!("{SECRETS}/demo-tls")).unwrap()["data"].is_null());
}
