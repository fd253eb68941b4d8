//! The reconcile against an API server and nodes of the test: what is written, in which order, and above all
//! what is not.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use annulus_operator::reconcile::{ReconcileError, Retry};
use annulus_ring::{Epoch, RingDocument};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use support::node::FakeNode;
use support::world::{CLUSTER, RING, SET, UID, World};

fn stored(world: &World) -> RingDocument {
    let ring = world.api.get(RING).expect("the ring's ConfigMap");
    RingDocument::from_json(ring["data"]["ring.json"].as_str().expect("a document").as_bytes()).unwrap()
}

#[tokio::test]
async fn objects_come_first_then_the_status() {
    let mut world = World::new("nodes: 3");
    world.reconcile().await.unwrap();
    let writes = world.api.take_writes();
    let position = |part: &str| {
        writes
            .iter()
            .position(|write| write.contains(part))
            .unwrap_or_else(|| panic!("{part}: {writes:?}"))
    };
    assert!(
        position("/secrets") < position("/statefulsets/demo"),
        "pods need the Secret: {writes:?}"
    );
    assert!(
        position("/serviceaccounts/demo") < position("/statefulsets/demo"),
        "{writes:?}"
    );
    assert_eq!(
        position("/cacheclusters/demo/status"),
        writes.len() - 1,
        "{writes:?}"
    );
    assert_eq!(writes.len(), 12, "{writes:?}");
    assert_eq!(
        world.condition("Ready"),
        ("False".to_owned(), "WaitingForNodes".to_owned())
    );
}

#[tokio::test]
async fn a_cluster_at_rest_causes_no_write_and_no_command() {
    let mut world = World::new("nodes: 3");
    let nodes = world.run_nodes(3).await;
    assert_eq!(
        world.condition("Ready"),
        ("True".to_owned(), "AsSpecified".to_owned())
    );
    assert_eq!(
        world.condition("Progressing"),
        ("False".to_owned(), "AsSpecified".to_owned())
    );
    assert_eq!(stored(&world).epoch, Epoch(1));
    assert!(nodes.iter().all(|node| node.epoch() == Epoch(1)));
    let pushed = |world: &World| {
        world
            .ctx
            .metrics
            .encode()
            .unwrap()
            .lines()
            .find(|l| l.starts_with("annulus_operator_ring_pushes_total"))
            .map(str::to_owned)
    };
    let before = pushed(&world);
    for _ in 0..5 {
        world.reconcile().await.unwrap();
    }
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
    assert_eq!(pushed(&world), before);
}

#[tokio::test]
async fn caches_that_lag_cause_no_write() {
    let mut world = World::new("nodes: 3");
    let _nodes = world.run_nodes(3).await;
    let stale = World::of(world.api.clone());
    world.reconcile().await.unwrap();
    // This one's caches are empty, as if nothing had been seen yet: it asks the API server before it writes.
    stale.reconcile_with_stale_caches().await.unwrap();
    let writes = world.api.take_writes();
    assert!(
        writes
            .iter()
            .all(|write| write.ends_with("/cacheclusters/demo/status")),
        "{writes:?}"
    );
}

#[tokio::test]
async fn clients_are_sent_to_a_service_of_each_node_and_to_pods_where_the_spec_says_so() {
    let mut world = World::new("nodes: 2");
    let _nodes = world.run_nodes(2).await;
    let service = |world: &World| world.api.get("/api/v1/namespaces/shop/services/demo-1-node");
    let announced = |world: &World| stored(world).members[1].address.client_host.clone();
    let address = service(&world).expect("the node's Service")["spec"]["clusterIP"].clone();
    assert_eq!(announced(&world).map(|host| json!(host)), Some(address));
    assert_eq!(stored(&world).epoch, Epoch(1), "known from the beginning");

    world.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["service"] = json!({"nodeAddresses": "Pod"});
    });
    world.reconcile().await.unwrap();
    let writes = world.api.take_writes();
    let position = |part: &str| writes.iter().position(|write| write.contains(part));
    let (ring, deleted) = (position("demo-ring"), position("DELETE"));
    assert!(
        ring.is_some() && ring < deleted,
        "the ring names pods first: {writes:?}"
    );
    world.settle().await;
    assert_eq!(announced(&world), None);
    assert!(service(&world).is_none());
}

#[tokio::test]
async fn what_is_deleted_or_edited_by_hand_is_put_right() {
    let mut world = World::new("nodes: 3");
    let _nodes = world.run_nodes(3).await;
    let before = stored(&world);
    for path in [
        "/api/v1/namespaces/shop/services/demo",
        "/api/v1/namespaces/shop/services/demo-nodes",
        "/api/v1/namespaces/shop/serviceaccounts/demo",
        "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/demo",
        SET,
        RING,
    ] {
        world.api.remove(path);
        world.settle().await;
        assert!(world.api.get(path).is_some(), "{path}");
    }
    assert_eq!(stored(&world), before, "the ring that came back is the same one");

    world.api.edit(SET, |set| set["spec"]["replicas"] = json!(7));
    world.settle().await;
    assert_eq!(world.api.get(SET).unwrap()["spec"]["replicas"], 3);

    // A field that the operator never set, and so does not own: only the record of who did tells.
    world.api.edit(SET, |set| {
        set["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
        set["metadata"]["managedFields"] = json!([
            {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:template": {}}}},
        ]);
    });
    world.settle().await;
    assert!(world.api.get(SET).unwrap()["spec"]["template"]["spec"]["hostNetwork"].is_null());
}

#[tokio::test]
async fn an_object_of_somebody_else_is_not_touched() {
    let mut world = World::new("nodes: 1");
    let theirs = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "demo", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}});
    let path = "/api/v1/namespaces/shop/services/demo";
    world.api.put(path, theirs);
    let before = world.api.get(path);
    let error = world.reconcile().await.unwrap_err();
    assert_eq!(error.label(), ("apply", "name_taken"));
    assert_eq!(world.api.get(path), before);
    assert_eq!(
        world.condition("Ready"),
        ("False".to_owned(), "ApplyFailed".to_owned())
    );
}

#[tokio::test]
async fn a_spec_that_breaks_rules_touches_nothing_and_a_good_one_heals() {
    let mut world = World::new("nodes: 3");
    let _nodes = world.run_nodes(3).await;
    world.api.edit(CLUSTER, |cluster| {
        cluster["spec"] = json!({"nodes": 0});
        cluster["metadata"]["generation"] = json!(2);
    });
    world.reconcile().await.unwrap();
    assert_eq!(world.api.take_writes(), [format!("PATCH {CLUSTER}/status")]);
    assert_eq!(
        world.condition("Ready"),
        ("False".to_owned(), "InvalidSpec".to_owned())
    );
    world.reconcile().await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new());

    world.api.edit(CLUSTER, |cluster| {
        cluster["spec"] = json!({"nodes": 3});
        cluster["metadata"]["generation"] = json!(3);
    });
    world.settle().await;
    assert_eq!(
        world.condition("Ready"),
        ("True".to_owned(), "AsSpecified".to_owned())
    );
}

#[tokio::test]
async fn a_paused_cluster_is_left_alone() {
    let mut world = World::new("nodes: 3");
    let _nodes = world.run_nodes(3).await;
    world.api.edit(CLUSTER, |cluster| {
        cluster["spec"] = json!({"nodes": 5, "pause": true});
    });
    world.reconcile().await.unwrap();
    assert_eq!(world.api.take_writes(), [format!("PATCH {CLUSTER}/status")]);
    assert_eq!(
        world.condition("Progressing"),
        ("False".to_owned(), "Paused".to_owned())
    );
    assert_eq!(world.api.get(SET).unwrap()["spec"]["replicas"], 3);
}

#[tokio::test]
async fn scaling_in_keeps_the_pod_until_its_slots_have_left() {
    let mut world = World::new("nodes: 3");
    let _nodes = world.run_nodes(3).await;
    world
        .api
        .edit(CLUSTER, |cluster| cluster["spec"] = json!({"nodes": 2}));
    world.reconcile().await.unwrap();
    assert_eq!(
        world.api.get(SET).unwrap()["spec"]["replicas"],
        3,
        "demo-2 still owns slots"
    );
    assert_eq!(stored(&world).epoch, Epoch(2));
    world.settle().await;
    let ring = stored(&world);
    assert_eq!(world.api.get(SET).unwrap()["spec"]["replicas"], 2, "{ring:?}");
    assert_eq!(ring.members.len(), 2);
    assert_eq!(ring.ring().owned_counts().values().sum::<u32>(), 16_384);
}

#[tokio::test]
async fn a_pool_that_left_the_spec_is_deleted_after_its_slots_have_left() {
    let mut world = World::new("nodes: 2");
    let _nodes = world.run_nodes(2).await;
    world.api.edit(CLUSTER, |cluster| {
        cluster["spec"] = json!({"pools": [{"name": "big", "nodes": 1}]});
    });
    world.reconcile().await.unwrap();
    assert!(world.api.get(SET).is_some());
    let node = FakeNode::start(UID, "demo-big-0", 9);
    world.add_pod("demo-big-0", &node);
    world.reconcile().await.unwrap();
    world.until(|seen| seen.reports.len() == 3).await;
    world.settle().await;
    assert_eq!(world.api.get(SET), None);
    assert_eq!(stored(&world).members.len(), 1);
}

#[tokio::test]
async fn a_ring_that_was_deleted_is_fetched_from_the_nodes_by_an_operator_that_never_saw_it() {
    let mut world = World::new("nodes: 2");
    let nodes = world.run_nodes(2).await;
    let before = stored(&world);
    world.api.remove(RING);
    let mut fresh = World::of(world.api.clone());
    for (number, node) in nodes.iter().enumerate() {
        fresh.add_pod(&format!("demo-{number}"), node);
    }
    fresh.reconcile().await.unwrap();
    fresh.until(|seen| seen.reports.len() == 2).await;
    fresh.settle().await;
    assert_eq!(stored(&fresh), before);
}

#[tokio::test]
async fn an_older_ring_that_was_put_back_by_hand_is_replaced_by_the_newest() {
    let mut world = World::new("nodes: 2");
    let _nodes = world.run_nodes(2).await;
    let old = world.api.get(RING).unwrap();
    world
        .api
        .edit(CLUSTER, |cluster| cluster["spec"] = json!({"nodes": 1}));
    world.settle().await;
    let newest = stored(&world);
    assert!(newest.epoch > Epoch(1));
    world.api.edit(RING, |ring| ring["data"] = old["data"].clone());
    world.settle().await;
    assert_eq!(stored(&world), newest);
}

#[tokio::test]
async fn when_everything_is_lost_the_new_ring_starts_above_the_last_known_epoch() {
    let mut world = World::new("nodes: 1");
    let _nodes = world.run_nodes(1).await;
    world
        .api
        .edit(CLUSTER, |cluster| cluster["status"]["ringEpoch"] = json!(41));
    world.api.remove(RING);
    let mut fresh = World::of(world.api.clone());
    let node = FakeNode::start(UID, "demo-0", 77);
    fresh.add_pod("demo-0", &node);
    fresh.reconcile().await.unwrap();
    fresh.until(|seen| seen.reports.len() == 1).await;
    fresh.settle().await;
    assert_eq!(stored(&fresh).epoch, Epoch(42));
}

#[tokio::test]
async fn of_two_leaders_only_one_advances_the_ring() {
    let mut world = World::new("nodes: 2");
    let nodes = world.run_nodes(2).await;
    let mut other = World::of(world.api.clone());
    for (number, node) in nodes.iter().enumerate() {
        other.add_pod(&format!("demo-{number}"), node);
    }
    other.reconcile().await.unwrap();
    other.until(|seen| seen.reports.len() == 2).await;
    // Both see epoch 1 and a smaller spec; the first writes epoch 2, the second still has epoch 1 cached.
    world
        .api
        .edit(CLUSTER, |cluster| cluster["spec"] = json!({"nodes": 1}));
    world.reconcile().await.unwrap();
    let second = stored(&world);
    assert_eq!(second.epoch, Epoch(2));
    match other.reconcile_with_stale_caches().await {
        Ok(_) => {}
        Err(error @ ReconcileError::Execute(_)) => assert_eq!(error.retry(), Retry::Soon),
        Err(error) => panic!("{error}"),
    }
    assert_eq!(stored(&world), second);
}

#[tokio::test]
async fn a_missing_secret_of_the_user_is_named() {
    let mut world = World::new("nodes: 1, auth: {secretRef: {name: mine}}");
    world.reconcile().await.unwrap();
    assert_eq!(
        world.condition("Ready"),
        ("False".to_owned(), "AuthSecretMissing".to_owned())
    );
    let writes = world.api.take_writes();
    assert!(
        !writes.iter().any(|write| write.contains("/secrets")),
        "{writes:?}"
    );
}

#[tokio::test]
async fn a_generated_secret_is_never_written_again() {
    let mut world = World::new("nodes: 1");
    world.reconcile().await.unwrap();
    let path = "/api/v1/namespaces/shop/secrets/demo-auth";
    let secret = world.api.get(path).unwrap();
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], UID);
    world
        .api
        .edit(path, |secret| secret["data"]["password"] = json!("bWluZQ=="));
    world.settle().await;
    assert_eq!(world.api.get(path).unwrap()["data"]["password"], "bWluZQ==");
}

#[tokio::test]
async fn a_pod_that_never_served_gets_the_newest_template_at_once() {
    let mut world = World::new("nodes: 3");
    let _nodes = world.run_nodes(3).await;
    world.api.edit(SET, |set| {
        set["status"] = json!({"replicas": 3, "updateRevision": "two"});
    });
    world.edit_pod("demo-1", |pod| {
        pod["status"] = json!({"conditions": [{"type": "Ready", "status": "False"}]});
    });
    world.reconcile().await.unwrap();
    let deleted = |world: &World| {
        world
            .api
            .take_writes()
            .into_iter()
            .filter(|write| write.starts_with("DELETE"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        deleted(&world),
        ["DELETE /api/v1/namespaces/shop/pods/demo-1"],
        "the others wait for it"
    );
}

#[tokio::test]
async fn the_certificate_names_the_addresses_that_clients_are_sent_to() {
    let mut world = World::new("nodes: 2, tls: {enabled: true}");
    // The Services are made in the first, and seen in the second.
    for _ in 0..2 {
        world.reconcile().await.unwrap();
    }
    let service = world.api.get("/api/v1/namespaces/shop/services/demo-1-node");
    let address = service.expect("the node's Service")["spec"]["clusterIP"].clone();
    let names = ["demo.shop.svc", address.as_str().unwrap()];
    let certificate = |world: &World| {
        let secret = world.api.get("/api/v1/namespaces/shop/secrets/demo-tls").unwrap();
        let secret: Secret = serde_json::from_value(secret).unwrap();
        secret.data.unwrap()["tls.crt"].0.clone()
    };
    let pem = certificate(&world);
    let chain = annulus_proto::certificate::certificates("test", &pem).unwrap();
    let leaf = webpki::EndEntityCert::try_from(&chain[0]).unwrap();
    let is_named = |name: &str| {
        let name = rustls::pki_types::ServerName::try_from(name).unwrap();
        leaf.verify_is_valid_for_subject_name(&name).is_ok()
    };
    for name in names {
        assert!(is_named(name), "{name}");
    }
    assert!(!is_named("10.255.0.1") && !is_named("other.shop.svc"));
    world.reconcile().await.unwrap();
    assert!(certificate(&world) == pem, "nothing changed");
}
