//! Passes over a cluster's tenants against an API server and nodes of the test: what is written, in which order, who gets in,
//! and above all who doesn't.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod support;

use std::time::Duration;

use annulus_operator::build::secret::Password;
use annulus_operator::tenants::ledger::Ledger;
use annulus_proto::tenants::{PasswordDigest, Tenant, TenantId};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use support::node::FakeNode;
use support::world::{CLUSTER, UID, World, tenant_path};

const DOCUMENT: &str = "/api/v1/namespaces/shop/secrets/demo-tenants";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/demo-tenants";
const OPEN: &str = "nodes: 2, tenancy: {allowedNamespaces: {from: All}}";

fn binding_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

fn secret(world: &World, path: &str) -> Secret {
    serde_json::from_value(world.api.get(path).unwrap_or_else(|| panic!("no {path}"))).unwrap()
}

fn text(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
}

fn digest(secret: &Secret) -> PasswordDigest {
    Password::known(&text(secret, "password")).unwrap().digest()
}

fn stored(world: &World) -> Ledger {
    Ledger::read(&secret(world, DOCUMENT).data.unwrap())
        .unwrap()
        .unwrap()
}

fn entry(world: &World, namespace: &str, name: &str) -> Option<Tenant> {
    let tenants = stored(world).document.tenants;
    tenants
        .into_iter()
        .find(|tenant| (tenant.namespace.as_str(), tenant.name.as_str()) == (namespace, name))
}

/// A cluster whose nodes answer, and nothing to write.
async fn running(spec: &str) -> (World, Vec<FakeNode>) {
    let mut world = World::new(spec);
    let nodes = world.run_nodes(2).await;
    (world, nodes)
}

fn is(condition: &(String, String, String), status: &str, reason: &str) -> bool {
    (condition.0.as_str(), condition.1.as_str()) == (status, reason)
}

#[tokio::test]
async fn a_tenant_gets_a_binding_with_which_nodes_let_it_in() {
    let (mut world, nodes) = running(OPEN).await;
    world.tenant("blog", "cache", 1, "quota: {memory: 64Mi}");
    world.pass().await.unwrap();
    let writes = world.api.take_writes();
    assert_eq!(
        writes,
        [
            "POST /api/v1/namespaces/shop/secrets".to_owned(),
            "POST /api/v1/namespaces/blog/secrets".to_owned(),
            format!("PATCH {POLICY}"),
            format!("PATCH {}/status", tenant_path("blog", "cache")),
        ],
        "the document comes before the binding"
    );
    let binding = secret(&world, &binding_path("blog", "cache-binding"));
    assert_eq!(binding.type_.as_deref(), Some("servicebinding.io/redis"));
    let password = text(&binding, "password");
    for (key, expected) in [
        ("type", "redis".to_owned()),
        ("provider", "annulus".to_owned()),
        ("host", "demo.shop.svc".to_owned()),
        ("port", "6379".to_owned()),
        ("username", "blog.cache".to_owned()),
        ("uri", format!("redis://blog.cache:{password}@demo.shop.svc:6379")),
    ] {
        assert_eq!(text(&binding, key), expected, "{key}");
    }
    let owner = &binding.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.uid.as_str()),
        ("CacheTenant", "blog-cache-1")
    );
    for node in &nodes {
        let known = node.tenants().expect("the node was told");
        assert_eq!(known, stored(&world).document);
        assert_eq!(known.tenants[0].users[0].passwords, [digest(&binding)]);
        assert_eq!(known.tenants[0].quota.memory_bytes, Some(64 << 20));
    }
    assert!(
        !world.api.get(DOCUMENT).unwrap().to_string().contains(&password),
        "the document holds no password"
    );
    for type_ in ["Accepted", "Bound", "Ready"] {
        let condition = world.tenant_condition("blog", "cache", type_);
        assert!(is(&condition, "True", "AsSpecified"), "{type_}: {condition:?}");
    }
    let status = world.api.get(&tenant_path("blog", "cache")).unwrap()["status"].clone();
    assert_eq!(status["binding"]["name"], "cache-binding");
    assert_eq!(status["tenantId"], 1);
    assert!(!status.to_string().contains(&password));

    let policy = world.api.get(POLICY).unwrap()["spec"]["ingress"].clone();
    assert!(policy.to_string().contains(r#""values":["blog"]"#), "{policy}");

    // The cluster tells how many there are.
    world.reconcile().await.unwrap();
    let cluster = world.api.get(CLUSTER).unwrap();
    assert_eq!(
        cluster["status"]["tenants"],
        json!({"bound": 1, "refused": 0, "lastId": 1})
    );
}

#[tokio::test]
async fn a_binding_has_what_tls_asks_for() {
    let spec =
        "nodes: 2, tls: {enabled: true, clientAuth: Required}, tenancy: {allowedNamespaces: {from: All}}";
    let (mut world, _nodes) = running(spec).await;
    world.reconcile().await.unwrap();
    world.tenant("blog", "cache", 1, "");
    world.pass().await.unwrap();
    let binding = |world: &World| secret(world, &binding_path("blog", "cache-binding"));
    let first = binding(&world);
    let password = text(&first, "password");
    assert_eq!(
        text(&first, "uri"),
        format!("rediss://blog.cache:{password}@demo.shop.svc:6380")
    );
    assert_eq!(text(&first, "port"), "6380");
    let made = |name: &str| secret(&world, &format!("/api/v1/namespaces/shop/secrets/{name}"));
    assert_eq!(text(&first, "ca.crt"), text(&made("demo-tls"), "ca.crt"));
    for key in ["tls.crt", "tls.key"] {
        assert_eq!(text(&first, key), text(&made("demo-client-tls"), key), "{key}");
        assert_ne!(text(&first, key), text(&made("demo-tls"), key), "the nodes' own");
    }
    // The authority is another one: bindings follow, with the password that they have.
    for name in ["demo-ca", "demo-tls", "demo-client-tls"] {
        world
            .api
            .remove(&format!("/api/v1/namespaces/shop/secrets/{name}"));
    }
    let mut fresh = World::of(world.api.clone());
    fresh.reconcile().await.unwrap();
    fresh.pass().await.unwrap();
    let next = binding(&fresh);
    assert_ne!(text(&next, "ca.crt"), text(&first, "ca.crt"));
    assert_eq!(
        text(&next, "ca.crt"),
        text(
            &secret(&fresh, "/api/v1/namespaces/shop/secrets/demo-tls"),
            "ca.crt"
        )
    );
    assert_eq!(text(&next, "password"), password);
}

#[tokio::test]
async fn events_tell_who_is_let_in_and_who_is_refused() {
    let (mut world, _nodes) = running("nodes: 2, tenancy: {limits: {quota: {connections: 5}}}").await;
    world.tenant("shop", "cache", 1, "");
    world.tenant("blog", "cache", 1, "");
    for _ in 0..3 {
        world.pass().await.unwrap();
    }
    let path = binding_path("shop", "cache-binding");
    let mut passwords = vec![text(&secret(&world, &path), "password")];
    world.api.edit(&tenant_path("shop", "cache"), |tenant| {
        tenant["metadata"]["annotations"] = json!({"annulus.dev/rotate": "1"});
    });
    for _ in 0..3 {
        world.pass().await.unwrap();
    }
    passwords.push(text(&secret(&world, &path), "password"));
    world.api.edit(&tenant_path("shop", "cache"), |tenant| {
        tenant["spec"]["quota"] = json!({"connections": 6});
        tenant["metadata"]["generation"] = json!(2);
    });
    for _ in 0..3 {
        world.pass().await.unwrap();
    }
    let published = |world: &World| {
        let mut events = world.events.list("/events/");
        events.retain(|event| event["regarding"]["kind"] == "CacheTenant");
        events
    };
    while published(&world).len() < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut told: Vec<String> = published(&world)
        .iter()
        .map(|event| {
            let of = event["metadata"]["namespace"].as_str().unwrap();
            let (reason, note) = (event["reason"].as_str().unwrap(), event["note"].as_str().unwrap());
            format!("{of} {reason} {note}")
        })
        .collect();
    told.sort();
    let begins = [
        "blog TenantRefused NamespaceNotAllowed: CacheCluster shop/demo takes tenants of its own namespace only",
        "shop PasswordReplaced user shop.cache has a new password",
        "shop TenantAccepted the credentials are in Secret cache-binding",
        "shop TenantRefused QuotaTooHigh: spec.quota.connections is 6",
    ];
    assert_eq!(told.len(), begins.len(), "{told:#?}");
    for (told, begin) in told.iter().zip(begins) {
        assert!(told.starts_with(begin), "{told}");
    }
    let all = format!("{:?}", published(&world));
    assert!(passwords.iter().all(|password| !all.contains(password)));
}

#[tokio::test]
async fn tenants_at_rest_cause_no_write_and_no_command() {
    let (mut world, nodes) = running(OPEN).await;
    for number in 0..20 {
        world.tenant("blog", &format!("t{number}"), 1, "");
    }
    world.pass().await.unwrap();
    let writes = world.api.take_writes();
    let documents = writes.iter().filter(|write| write.contains("/shop/secrets"));
    assert_eq!(documents.count(), 1, "many tenants are one document: {writes:?}");
    world.settle().await;
    world.take_wakes();
    for node in &nodes {
        node.change(|state| state.tenant_bytes = 5 << 20);
    }
    // Usage wakes nobody.
    let told = |world: &World| {
        let reports = world.snapshot().reports;
        reports
            .values()
            .all(|report| report.tenants.iter().all(|(_, usage)| usage.used_bytes > 0))
    };
    for _ in 0..100 {
        if told(&world) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told(&world) && world.take_wakes() == 0);
    world.pass().await.unwrap();
    world.pass().await.unwrap();
    world.reconcile().await.unwrap();
    world.api.take_writes();
    let pushed = |world: &World| {
        let text = world.ctx.metrics.encode().unwrap();
        text.lines()
            .find(|line| line.starts_with("annulus_operator_tenants_pushes_total"))
            .map(str::to_owned)
    };
    let before = pushed(&world);
    // What tenants do in the meantime is no reason to write.
    for node in &nodes {
        node.change(|state| state.tenant_bytes = 50 << 20);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..5 {
        world.pass().await.unwrap();
    }
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
    assert_eq!(pushed(&world), before);
    assert_eq!(before.as_deref(), Some("annulus_operator_tenants_pushes_total 2"));
}

#[tokio::test]
async fn an_operator_that_begins_anew_finds_all_as_it_should_be() {
    let (mut world, nodes) = running(OPEN).await;
    world.tenant("blog", "cache", 1, "");
    world.pass().await.unwrap();
    world.settle().await;
    let before = stored(&world);
    let mut fresh = World::of(world.api.clone());
    for (number, node) in nodes.iter().enumerate() {
        fresh.add_pod(&format!("demo-{number}"), node);
    }
    fresh.reconcile().await.unwrap();
    // Before the nodes have answered nothing may be told of them.
    fresh.pass().await.unwrap();
    assert!(is(
        &fresh.tenant_condition("blog", "cache", "Ready"),
        "True",
        "AsSpecified"
    ));
    fresh.until(|seen| seen.reports.len() == 2).await;
    fresh.settle().await;
    fresh.pass().await.unwrap();
    assert_eq!(fresh.api.take_writes(), Vec::<String>::new());
    assert_eq!(stored(&fresh), before);
}

#[tokio::test]
async fn both_sides_must_agree() {
    let spec =
        "nodes: 2, tenancy: {allowedNamespaces: {from: Selector, selector: {matchLabels: {cache: \"yes\"}}}}";
    let (mut world, nodes) = running(spec).await;
    world.namespace("blog", &json!({"cache": "yes"}));
    world.namespace("other", &json!({"cache": "no"}));
    world.tenant("blog", "cache", 1, "");
    world.tenant("other", "cache", 1, "");
    world.tenant("shop", "cache", 1, "");
    world.pass().await.unwrap();
    for (namespace, reason) in [
        ("blog", None),
        ("other", Some("NamespaceNotAllowed")),
        ("shop", None),
    ] {
        let condition = world.tenant_condition(namespace, "cache", "Ready");
        let status = if reason.is_some() { "False" } else { "True" };
        assert!(
            is(&condition, status, reason.unwrap_or("AsSpecified")),
            "{namespace}: {condition:?}"
        );
    }
    assert_eq!(world.api.get(&binding_path("other", "cache-binding")), None);
    let policy = world.api.get(POLICY).unwrap().to_string();
    assert!(
        policy.contains(r#""values":["blog"]"#),
        "the cluster's own namespace is in its own policy: {policy}"
    );
    world.reconcile().await.unwrap();
    let told = world.api.get(CLUSTER).unwrap()["status"]["tenants"].clone();
    assert_eq!(
        told["refusals"],
        json!([{"reason": "NamespaceNotAllowed", "tenants": 1, "example": "other/cache"}])
    );

    // A namespace that loses its label loses its access, not its data.
    world.namespace("blog", &json!({}));
    world.pass().await.unwrap();
    assert!(is(
        &world.tenant_condition("blog", "cache", "Bound"),
        "False",
        "NamespaceNotAllowed"
    ));
    let left = entry(&world, "blog", "cache").expect("its data stays");
    assert_eq!(left.users, []);
    assert_eq!(nodes[0].tenants().unwrap(), stored(&world).document);
    assert!(!world.api.get(POLICY).unwrap().to_string().contains("blog"));

    // And gets in again with the password that it has.
    world.namespace("blog", &json!({"cache": "yes"}));
    world.pass().await.unwrap();
    let binding = secret(&world, &binding_path("blog", "cache-binding"));
    assert_eq!(
        entry(&world, "blog", "cache").unwrap().users[0].passwords,
        [digest(&binding)]
    );
    assert_eq!(entry(&world, "blog", "cache").unwrap().id, left.id);
}

#[tokio::test]
async fn a_deleted_tenant_is_gone_and_a_retained_one_comes_back_as_itself() {
    let (mut world, _nodes) = running(OPEN).await;
    world.tenant("blog", "cache", 1, "");
    world.tenant("blog", "kept", 1, "deletionPolicy: Retain");
    world.pass().await.unwrap();
    let (gone, kept) = (
        entry(&world, "blog", "cache").unwrap(),
        entry(&world, "blog", "kept").unwrap(),
    );
    for name in ["cache", "kept"] {
        world.api.remove(&tenant_path("blog", name));
        world
            .api
            .remove(&binding_path("blog", &format!("{name}-binding")));
    }
    // An operator that was away meanwhile learns it from what is stored.
    let mut world = World::of(world.api.clone());
    world.pass().await.unwrap();
    assert_eq!(entry(&world, "blog", "cache"), None);
    assert_eq!(entry(&world, "blog", "kept").unwrap().users, []);

    world.tenant("blog", "cache", 2, "");
    world.tenant("blog", "kept", 2, "");
    world.pass().await.unwrap();
    assert_eq!(entry(&world, "blog", "kept").unwrap().id, kept.id);
    let again = entry(&world, "blog", "cache").unwrap();
    assert!(
        again.id > gone.id && again.id > kept.id,
        "numbers are not used again: {again:?}"
    );
}

#[tokio::test]
async fn a_name_that_is_used_again_within_one_look_is_another_tenant() {
    let (mut world, _nodes) = running(OPEN).await;
    world.tenant("blog", "cache", 1, "");
    world.pass().await.unwrap();
    let first = entry(&world, "blog", "cache").unwrap();
    world.api.remove(&tenant_path("blog", "cache"));
    world.tenant("blog", "cache", 2, "");
    world.pass().await.unwrap();
    let condition = world.tenant_condition("blog", "cache", "Bound");
    assert!(
        is(&condition, "False", "NameTaken"),
        "the old binding is still there: {condition:?}"
    );
    world.api.remove(&binding_path("blog", "cache-binding"));
    world.pass().await.unwrap();
    assert!(is(
        &world.tenant_condition("blog", "cache", "Ready"),
        "True",
        "AsSpecified"
    ));
    assert_ne!(entry(&world, "blog", "cache").unwrap().id, first.id);
}

#[tokio::test]
async fn a_rotation_lets_both_passwords_in_for_a_while() {
    let (mut world, _nodes) = running(OPEN).await;
    let spec = "rotation: {overlap: 300ms}, access: {users: [{name: reader, permissions: ReadOnly}]}";
    world.tenant("blog", "cache", 1, spec);
    world.pass().await.unwrap();
    let reader = secret(&world, &binding_path("blog", "cache-binding.reader"));
    assert_eq!(text(&reader, "username"), "blog.cache.reader");
    let users = entry(&world, "blog", "cache").unwrap().users;
    assert_eq!(users[1].rules, ["+@all", "-@write", "-publish", "-spublish"]);

    let path = binding_path("blog", "cache-binding");
    let old = digest(&secret(&world, &path));
    world.api.edit(&tenant_path("blog", "cache"), |tenant| {
        tenant["metadata"]["annotations"] = json!({"annulus.dev/rotate": "1"});
    });
    let again = world.pass().await.unwrap();
    assert!(
        again <= Duration::from_millis(300),
        "the overlap's end is waited for: {again:?}"
    );
    let new = digest(&secret(&world, &path));
    assert!(new != old);
    assert_eq!(
        entry(&world, "blog", "cache").unwrap().users[0].passwords,
        [new, old]
    );
    // It was done: the same value asks for nothing more.
    world.pass().await.unwrap();
    assert_eq!(digest(&secret(&world, &path)), new);
    tokio::time::sleep(Duration::from_millis(400)).await;
    world.pass().await.unwrap();
    assert_eq!(entry(&world, "blog", "cache").unwrap().users[0].passwords, [new]);
    assert_eq!(
        entry(&world, "blog", "cache").unwrap().users[1].passwords.len(),
        1
    );
}

#[tokio::test]
async fn a_binding_that_was_deleted_or_edited_is_put_right() {
    let (mut world, _nodes) = running(OPEN).await;
    world.tenant("blog", "cache", 1, "");
    world.pass().await.unwrap();
    let path = binding_path("blog", "cache-binding");
    let first = digest(&secret(&world, &path));
    world.api.remove(&path);
    // Secrets are not watched: a change of the tenant has them looked at.
    world.tenant("blog", "cache", 2, "quota: {keys: 5}");
    world.pass().await.unwrap();
    let second = digest(&secret(&world, &path));
    assert!(first != second);
    assert_eq!(
        entry(&world, "blog", "cache").unwrap().users[0].passwords,
        [second, first]
    );

    world
        .api
        .edit(&path, |secret| secret["data"]["host"] = json!("ZXZpbA=="));
    world.tenant("blog", "cache", 3, "quota: {keys: 6}");
    world.pass().await.unwrap();
    assert_eq!(text(&secret(&world, &path), "host"), "demo.shop.svc");
    assert_eq!(digest(&secret(&world, &path)), second, "its password stays");

    // A password that somebody put there works, if it is as long as ours.
    world.api.edit(&path, |secret| {
        secret["data"]["password"] = json!("QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=");
    });
    world.tenant("blog", "cache", 4, "quota: {keys: 7}");
    world.pass().await.unwrap();
    let put = digest(&secret(&world, &path));
    assert_eq!(
        entry(&world, "blog", "cache").unwrap().users[0].passwords,
        [put, second]
    );
    world
        .api
        .edit(&path, |secret| secret["data"]["password"] = json!("c2hvcnQ="));
    world.tenant("blog", "cache", 5, "quota: {keys: 8}");
    world.pass().await.unwrap();
    assert_ne!(text(&secret(&world, &path), "password"), "short");
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_not_touched() {
    let (mut world, _nodes) = running(OPEN).await;
    let path = binding_path("blog", "cache-binding");
    let theirs = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cache-binding", "namespace": "blog"}});
    world.api.put(&path, theirs);
    let before = world.api.get(&path);
    world.tenant("blog", "cache", 1, "");
    world.pass().await.unwrap();
    assert_eq!(world.api.get(&path), before);
    let condition = world.tenant_condition("blog", "cache", "Bound");
    assert!(
        is(&condition, "False", "NameTaken") && condition.2.contains("cache-binding"),
        "{condition:?}"
    );
    assert!(is(
        &world.tenant_condition("blog", "cache", "Accepted"),
        "True",
        "AsSpecified"
    ));
    assert_eq!(
        entry(&world, "blog", "cache").unwrap().users,
        [],
        "nobody gets in"
    );
    world.api.remove(&path);
    world.pass().await.unwrap();
    assert!(is(
        &world.tenant_condition("blog", "cache", "Ready"),
        "True",
        "AsSpecified"
    ));
}

#[tokio::test]
async fn a_binding_that_is_refused_costs_no_document_a_second() {
    let (mut world, _nodes) = running(OPEN).await;
    world.api.refuse(Some("/api/v1/namespaces/blog/secrets"));
    world.tenant("blog", "cache", 1, "");
    world.pass().await.unwrap();
    let condition = world.tenant_condition("blog", "cache", "Bound");
    assert!(
        is(&condition, "False", "SecretRefused") && condition.2.contains("Forbidden"),
        "{condition:?}"
    );
    world.api.take_writes();
    let again = world.pass().await.unwrap();
    assert!(again > Duration::from_secs(20), "{again:?}");
    world.pass().await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
    // An operator that begins anew tries at once.
    world.api.refuse(None);
    let mut fresh = World::of(world.api.clone());
    fresh.pass().await.unwrap();
    let path = binding_path("blog", "cache-binding");
    let newest = entry(&fresh, "blog", "cache").unwrap().users[0].passwords[0];
    assert_eq!(digest(&secret(&fresh, &path)), newest);
    let condition = fresh.tenant_condition("blog", "cache", "Bound");
    assert!(is(&condition, "True", "AsSpecified"), "{condition:?}");
}

#[tokio::test]
async fn many_tenants_are_read_and_written_once_each() {
    const TENANTS: u64 = 500;
    let (mut world, _nodes) = running(OPEN).await;
    for number in 0..TENANTS {
        world.tenant(&format!("team-{number}"), "cache", 1, "quota: {memory: 1Mi}");
    }
    world.api.take_reads();
    let begun = tokio::time::Instant::now();
    world.pass().await.unwrap();
    println!("{TENANTS} tenants bound in {:?}", begun.elapsed());
    let writes = world.api.take_writes();
    let count = |part: &str| writes.iter().filter(|write| write.contains(part)).count() as u64;
    assert_eq!(count("/shop/secrets"), 1, "one document");
    assert_eq!(count("/status"), TENANTS);
    assert_eq!(
        writes.len() as u64,
        2 * TENANTS + 2,
        "a binding and a status each"
    );
    // The Secret of the document, the policy, and each binding.
    assert_eq!(world.api.take_reads(), TENANTS + 2);
    let size = stored(&world).document.to_json().len();
    assert!(size < 400_000, "{size} bytes leave room in a Secret");
    let begun = tokio::time::Instant::now();
    world.pass().await.unwrap();
    println!("an idle pass takes {:?}", begun.elapsed());
    assert_eq!((world.api.take_reads(), world.api.take_writes().len()), (0, 0));
}

#[tokio::test]
async fn a_document_that_was_lost_is_made_again_from_what_is_left() {
    let (mut world, nodes) = running(OPEN).await;
    world.tenant("blog", "cache", 1, "");
    world.tenant("blog", "second", 1, "");
    world.pass().await.unwrap();
    world.settle().await;
    let before = stored(&world);
    world.api.remove(DOCUMENT);
    let mut fresh = World::of(world.api.clone());
    for (number, node) in nodes.iter().enumerate() {
        fresh.add_pod(&format!("demo-{number}"), node);
    }
    fresh.reconcile().await.unwrap();
    fresh.until(|seen| seen.reports.len() == 2).await;
    fresh.pass().await.unwrap();
    let after = stored(&fresh).document;
    assert_eq!(
        after.tenants, before.document.tenants,
        "ids and passwords are those that were"
    );
    assert!(after.version > before.document.version, "nodes take it");
    assert_eq!(after.next_id, before.document.next_id);
    assert_eq!(nodes[0].tenants().unwrap(), after);
}

#[tokio::test]
async fn of_two_leaders_only_one_gives_numbers() {
    let (mut world, _nodes) = running(OPEN).await;
    world.tenant("blog", "cache", 1, "");
    world.pass().await.unwrap();
    let mut other = World::of(world.api.clone());
    other.pass().await.unwrap();
    world.tenant("blog", "first", 1, "");
    world.pass().await.unwrap();
    let before = stored(&world);
    // The other one has not seen that, and wants to give the same number to somebody else.
    world.tenant("blog", "second", 1, "");
    world.api.remove(&tenant_path("blog", "first"));
    let error = other.pass().await.unwrap_err();
    assert_eq!(error.label(), "changed");
    assert_eq!(stored(&world), before);
    other.pass().await.unwrap();
    assert_eq!(entry(&other, "blog", "second").unwrap().id, TenantId(3));
}

#[tokio::test]
async fn a_cluster_that_is_missing_or_unusable_is_named() {
    let (mut world, _nodes) = running(OPEN).await;
    world.tenant("blog", "cache", 1, "");
    world.pass().await.unwrap();
    world
        .api
        .edit(CLUSTER, |cluster| cluster["spec"] = json!({"nodes": 0}));
    world.tenant("blog", "late", 1, "");
    world.pass().await.unwrap();
    assert!(is(
        &world.tenant_condition("blog", "late", "Ready"),
        "False",
        "ClusterInvalid"
    ));
    assert!(is(
        &world.tenant_condition("blog", "cache", "Ready"),
        "True",
        "AsSpecified"
    ));
    let cluster = world.api.get(CLUSTER).unwrap();
    world.api.remove(CLUSTER);
    world.pass().await.unwrap();
    for name in ["cache", "late"] {
        let condition = world.tenant_condition("blog", name, "Ready");
        assert!(is(&condition, "False", "ClusterNotFound"), "{condition:?}");
    }
    // A cluster of that name that comes later is another one, with the tenants that are there.
    world.api.remove(DOCUMENT);
    world.api.remove(POLICY);
    let mut next: Value = cluster;
    next["metadata"]["uid"] = json!("another");
    next["spec"] = json!({"nodes": 2, "tenancy": {"allowedNamespaces": {"from": "All"}}});
    world.api.put(CLUSTER, next);
    world.pass().await.unwrap();
    assert_eq!(stored(&world).document.tenants.len(), 2);
}

#[tokio::test]
async fn nodes_that_lag_behind_are_named_and_only_who_changed_waits() {
    let (mut world, nodes) = running(OPEN).await;
    world.tenant("blog", "cache", 1, "");
    world.pass().await.unwrap();
    nodes[1].change(|state| state.deaf_to_tenants = true);
    world.tenant("blog", "late", 1, "");
    let again = world.pass().await.unwrap();
    assert_eq!(again, Duration::from_secs(1), "they are told again soon");
    let condition = world.tenant_condition("blog", "late", "Ready");
    assert!(
        is(&condition, "False", "DistributingTenants") && condition.2.contains("demo-1"),
        "{condition:?}"
    );
    assert!(is(
        &world.tenant_condition("blog", "cache", "Ready"),
        "True",
        "AsSpecified"
    ));
    nodes[1].change(|state| state.deaf_to_tenants = false);
    world.pass().await.unwrap();
    assert!(is(
        &world.tenant_condition("blog", "late", "Ready"),
        "True",
        "AsSpecified"
    ));
    assert_eq!(nodes[1].tenants().unwrap(), stored(&world).document);
}

#[tokio::test]
async fn a_cluster_without_tenants_has_no_secret_for_them() {
    let mut world = World::new("nodes: 1");
    world.pass().await.unwrap();
    world.pass().await.unwrap();
    assert_eq!(world.api.take_writes(), Vec::<String>::new());
    assert_eq!(UID, stored_uid(&world));
}

fn stored_uid(world: &World) -> String {
    let cluster = world.api.get(CLUSTER).unwrap();
    cluster["metadata"]["uid"].as_str().unwrap().to_owned()
}
