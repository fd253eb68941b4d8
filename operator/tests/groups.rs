//! Passes over a cluster's groups against an API server and nodes of the test: what nodes are told, what groups are told, and
//! what is left alone.

mod support;

use std::time::Duration;

use annulus_proto::tenants::{TenantId, TenantsDocument};
use serde_json::json;
use support::groups::{ORDERS, USERS, names, pass_until, stored};
use support::node::FakeNode;
use support::world::{CLUSTER, World, group_path};

const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/demo-groups";

async fn running(spec: &str) -> (World, Vec<FakeNode>) {
    let mut world = World::new(spec);
    let nodes = world.run_nodes(2).await;
    (world, nodes)
}

fn put_secret(world: &World, namespace: &str, token: &[u8]) {
    let data = k8s_openapi::ByteString(token.to_vec());
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api", "namespace": namespace}, "data": {"token": data}});
    world
        .api
        .put(&format!("/api/v1/namespaces/{namespace}/secrets/api"), object);
}

fn assert_condition(world: &World, (namespace, name): (&str, &str), type_: &str, status: &str, reason: &str) {
    let condition = world.group_condition(namespace, name, type_);
    let said = (condition.0.as_str(), condition.1.as_str());
    assert_eq!(
        said,
        (status, reason),
        "{type_} of {namespace}/{name}: {}",
        condition.2
    );
}

/// Passes until the group is ready: a node that was too slow for one is told by the next.
async fn is_ready(world: &mut World, (namespace, name): (&str, &str)) {
    let ready = |world: &World| world.group_condition(namespace, name, "Ready").0 == "True";
    pass_until(world, "ready", ready).await;
    assert_condition(world, (namespace, name), "Ready", "True", "AsSpecified");
}

#[tokio::test]
async fn nodes_follow_a_group_without_any_tenant() {
    let (mut world, nodes) = running("nodes: 2").await;
    world.group("shop", "users", 1, USERS);
    world.pass().await.unwrap();
    let writes = world.api.take_writes();
    assert_eq!(
        writes,
        [
            "POST /api/v1/namespaces/shop/secrets".to_owned(),
            format!("PATCH {POLICY}"),
            format!("PATCH {}/status", group_path("shop", "users")),
        ]
    );
    for node in &nodes {
        let known = node.tenants().expect("the node was told");
        assert_eq!(
            (names(&known).as_slice(), known.groups[0].tenant),
            (["shop/users".to_owned()].as_slice(), TenantId(0))
        );
    }
    for type_ in ["Accepted", "Ready"] {
        assert_condition(&world, ("shop", "users"), type_, "True", "AsSpecified");
    }
    let egress = world.api.get(POLICY).unwrap()["spec"]["egress"].to_string();
    assert!(
        egress.contains(r#""values":["shop"]"#) && !egress.contains("ports"),
        "{egress}"
    );

    // Who has no tenants tells of none.
    world.reconcile().await.unwrap();
    assert_eq!(world.api.get(CLUSTER).unwrap()["status"]["tenants"], json!(null));

    // Idle means idle.
    world.pass().await.unwrap();
    world.api.take_writes();
    world.api.take_reads();
    world.pass().await.unwrap();
    assert_eq!((world.api.take_reads(), world.api.take_writes()), (0, Vec::new()));

    // A changed group is a new version, and so is a deleted one.
    let before = stored(&world).version;
    world.group("shop", "users", 2, &USERS.replace("user:", "person:"));
    world.pass().await.unwrap();
    assert_eq!(
        (
            stored(&world).version,
            stored(&world).groups[0].key_prefix.as_str()
        ),
        (before + 1, "person:")
    );
    world.api.remove(&group_path("shop", "users"));
    world.pass().await.unwrap();
    assert_eq!(
        (stored(&world).version, names(&stored(&world))),
        (before + 2, Vec::new())
    );
    assert_eq!(nodes[0].tenants().unwrap().version, before + 2);
    let egress = &world.api.get(POLICY).unwrap()["spec"]["egress"];
    assert_eq!(egress, &json!([]), "nodes need not get anywhere any more");
}

#[tokio::test]
async fn a_missing_secret_leaves_out_one_group_alone() {
    let (mut world, nodes) = running("nodes: 2").await;
    world.group("shop", "users", 1, USERS);
    world.group("shop", "orders", 1, ORDERS);
    let again = world.pass().await.unwrap();
    assert!(
        again <= Duration::from_secs(10),
        "it is looked for soon: {again:?}"
    );
    is_ready(&mut world, ("shop", "users")).await;
    assert_condition(&world, ("shop", "orders"), "Accepted", "False", "SecretMissing");
    assert_eq!(names(&stored(&world)), ["shop/users"]);
    // A new generation is looked at at once.
    put_secret(&world, "shop", b"Bearer s3cret\n");
    world.group("shop", "orders", 2, ORDERS);
    world.pass().await.unwrap();
    is_ready(&mut world, ("shop", "orders")).await;
    let known = nodes[1].tenants().unwrap();
    let headers = &known.groups[0].origin.headers;
    assert_eq!(
        headers,
        &[("authorization".to_owned(), "Bearer s3cret".to_owned())]
    );
    let status = world.api.get(&group_path("shop", "orders")).unwrap()["status"].to_string();
    assert!(!status.contains("s3cret"));
    let egress = world.api.get(POLICY).unwrap()["spec"]["egress"].to_string();
    assert!(egress.contains("8443"), "{egress}");
    // What can't be a header's value is told apart from what isn't there.
    put_secret(&world, "shop", b"two\nlines");
    world.group("shop", "orders", 3, ORDERS);
    world.pass().await.unwrap();
    assert_condition(&world, ("shop", "orders"), "Accepted", "False", "SecretInvalid");
    assert_eq!(names(&nodes[0].tenants().unwrap()), ["shop/users"]);
}

#[tokio::test]
async fn groups_of_a_tenant_come_and_go_with_it() {
    let (mut world, nodes) = running("nodes: 2, tenancy: {allowedNamespaces: {from: All}}").await;
    world.group("blog", "users", 1, &USERS.replace("shop", "blog"));
    world.pass().await.unwrap();
    assert_condition(&world, ("blog", "users"), "Accepted", "False", "TenantNotFound");
    world.tenant("blog", "cache", 1, "");
    world.pass().await.unwrap();
    is_ready(&mut world, ("blog", "users")).await;
    assert_eq!(
        world.api.get(&group_path("blog", "users")).unwrap()["status"]["tenant"],
        "cache"
    );
    let known = nodes[0].tenants().unwrap();
    assert_eq!(known.groups[0].tenant, known.tenants[0].id);
    // An origin of somebody else is refused, and allowed once the cluster's owner says so.
    world.group("blog", "users", 2, USERS);
    world.pass().await.unwrap();
    assert_condition(&world, ("blog", "users"), "Ready", "False", "OriginNotAllowed");
    assert_eq!(names(&nodes[0].tenants().unwrap()), Vec::<String>::new());
    world.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["groups"] = json!({"allowedOrigins": ["*.shop.svc"]});
    });
    world.pass().await.unwrap();
    is_ready(&mut world, ("blog", "users")).await;
    // The namespace is no longer allowed.
    world.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["tenancy"] = json!({"allowedNamespaces": {"from": "Same"}});
    });
    world.pass().await.unwrap();
    assert_condition(&world, ("blog", "users"), "Accepted", "False", "TenantNotBound");
    assert_eq!(names(&nodes[1].tenants().unwrap()), Vec::<String>::new());
}

#[tokio::test]
async fn a_group_is_ready_when_every_node_follows_it() {
    let (mut world, nodes) = running("nodes: 2").await;
    nodes[1].change(|state| state.deaf_to_tenants = true);
    world.group("shop", "users", 1, USERS);
    world.pass().await.unwrap();
    assert_condition(&world, ("shop", "users"), "Accepted", "True", "AsSpecified");
    assert_condition(&world, ("shop", "users"), "Ready", "False", "DistributingGroups");
    let message = world.group_condition("shop", "users", "Ready").2;
    assert!(
        message.contains("1 of 2 nodes") && message.contains("demo-1"),
        "{message}"
    );
    nodes[1].change(|state| state.deaf_to_tenants = false);
    world.pass().await.unwrap();
    world
        .until(|seen| seen.reports.values().all(|report| report.tenants_version > 0))
        .await;
    world.pass().await.unwrap();
    is_ready(&mut world, ("shop", "users")).await;
}

#[tokio::test]
async fn a_paused_or_missing_cluster_says_so() {
    let (mut world, _nodes) = running("nodes: 2").await;
    world.group("shop", "users", 1, USERS);
    world.pass().await.unwrap();
    world
        .api
        .edit(CLUSTER, |cluster| cluster["spec"]["pause"] = json!(true));
    world.group("shop", "orders", 1, &USERS.replace("user:", "order:"));
    world.pass().await.unwrap();
    is_ready(&mut world, ("shop", "users")).await;
    assert_condition(&world, ("shop", "orders"), "Accepted", "False", "Paused");
    world.api.remove(CLUSTER);
    world.pass().await.unwrap();
    assert_condition(&world, ("shop", "users"), "Ready", "False", "ClusterNotFound");
}

#[tokio::test]
async fn events_tell_which_groups_are_taken_and_which_are_not() {
    let (mut world, _nodes) = running("nodes: 2").await;
    world.group("shop", "a", 1, USERS);
    world.group("shop", "b", 1, USERS);
    for _ in 0..3 {
        world.pass().await.unwrap();
    }
    let published = |world: &World| {
        let mut events = world.events.list("/events/");
        events.retain(|event| event["regarding"]["kind"] == "CacheGroup");
        events
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while published(&world).len() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", published(&world));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut said: Vec<(String, String, String)> = published(&world)
        .iter()
        .map(|event| {
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            (
                text(&event["regarding"]["name"]),
                text(&event["type"]),
                text(&event["reason"]),
            )
        })
        .collect();
    said.sort();
    let row = |name: &str, type_: &str, reason: &str| (name.to_owned(), type_.to_owned(), reason.to_owned());
    assert_eq!(
        said,
        [
            row("a", "Normal", "GroupAccepted"),
            row("b", "Warning", "GroupRefused")
        ]
    );
    let metrics = world.ctx.metrics.encode().unwrap();
    let counted = r#"groups{namespace="shop",cluster="demo",reason="PrefixTaken"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_takes_no_group_from_the_nodes() {
    let (mut world, nodes) = running("nodes: 2").await;
    put_secret(&world, "shop", b"old");
    world.group("shop", "orders", 1, ORDERS);
    world.pass().await.unwrap();
    assert_condition(&world, ("shop", "orders"), "Ready", "True", "AsSpecified");
    let token = |document: &TenantsDocument| document.groups[0].origin.headers[0].1.clone();
    let mut generation = 1;
    for code in [400, 401, 403, 408, 409, 422, 429, 500, 503, 504] {
        // The API server is away for this Secret when the group changes, and tenants are looked after all the same.
        world.api.fail_reads(Some(("/secrets/api", code)));
        generation += 1;
        world.group("shop", "orders", generation, ORDERS);
        world.tenant("shop", &format!("t{code}"), 1, "");
        let again = world.pass().await.unwrap();
        assert!(
            again <= Duration::from_secs(1),
            "{code}: tried again soon: {again:?}"
        );
        assert_condition(&world, ("shop", "orders"), "Ready", "True", "AsSpecified");
        let bound = world.tenant_condition("shop", &format!("t{code}"), "Bound");
        assert_eq!(bound.0, "True", "{code}: {}", bound.2);
        assert_eq!(token(&nodes[0].tenants().unwrap()), "old", "{code}");
    }
    // Nor does it have to answer.
    world.api.fail_reads(None);
    world.api.hang_reads(Some("/secrets/api"));
    world.group("shop", "orders", generation + 1, ORDERS);
    world.tenant("shop", "late", 1, "");
    world.pass().await.unwrap();
    assert_condition(&world, ("shop", "orders"), "Ready", "True", "AsSpecified");
    assert_eq!(world.tenant_condition("shop", "late", "Bound").0, "True");
    assert_eq!(token(&stored(&world)), "old");
    generation += 1;
    world.api.hang_reads(None);
    world.api.fail_reads(Some(("/secrets/api", 503)));
    // A new leader has what is stored.
    let mut world = World::of(world.api.clone());
    world.pass().await.unwrap();
    assert_eq!(token(&stored(&world)), "old");
    assert_condition(&world, ("shop", "orders"), "Accepted", "True", "AsSpecified");
    // One that never had any waits, and is told why.
    world.group("shop", "second", 1, &ORDERS.replace("order:", "second:"));
    world.pass().await.unwrap();
    assert_condition(
        &world,
        ("shop", "second"),
        "Accepted",
        "False",
        "SecretUnreadable",
    );
    let message = world.group_condition("shop", "second", "Accepted").2;
    assert!(message.contains("can't read Secret shop/api"), "{message}");
    // It is read once that is possible again, without any change of the group.
    put_secret(&world, "shop", b"new");
    world.api.fail_reads(None);
    pass_until(&mut world, "the new value", |world| {
        let stored = stored(world);
        stored.groups.len() == 2
            && stored
                .groups
                .iter()
                .all(|group| group.origin.headers[0].1 == "new")
    })
    .await;
    let metrics = world.ctx.metrics.encode().unwrap();
    assert!(metrics.contains(r#"step="group_secrets""#), "{metrics}");
    // That it is gone is told, and counts.
    world.api.remove("/api/v1/namespaces/shop/secrets/api");
    world.group("shop", "orders", generation + 1, ORDERS);
    world.pass().await.unwrap();
    assert_condition(&world, ("shop", "orders"), "Accepted", "False", "SecretMissing");
    assert_eq!(names(&stored(&world)), ["shop/second"]);
}
