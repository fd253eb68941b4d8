//! Tenants on several nodes: their document, and their entries and messages on the way from node to node.

use annulus_proto::tenants::{PasswordDigest, Quota, Tenant, TenantId, TenantsDocument, TtlBounds, User};
use annulus_proto::v1;
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::cluster::Cluster;
use crate::documents::CLUSTER;
use crate::member::operator;
use crate::processes::{Process, wait_for};
use crate::support::Client;

/// Tenants `a` and `b`, with users and passwords of the same names.
pub fn document(cluster: &str, version: u64, ids: &[(u32, &str)]) -> TenantsDocument {
    let tenant = |&(id, name): &(u32, &str)| Tenant {
        id: TenantId(id),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        quota: Quota::default(),
        ttl: TtlBounds::default(),
        users: vec![User {
            name: name.to_owned(),
            passwords: vec![PasswordDigest(Sha256::digest(name).into())],
            rules: vec!["+@all".to_owned()],
        }],
    };
    TenantsDocument {
        version,
        next_id: TenantId(10),
        tenants: ids.iter().map(tenant).collect(),
        ..TenantsDocument::empty(cluster.parse().unwrap())
    }
}

pub const BOTH: [(u32, &str); 2] = [(1, "a"), (2, "b")];

pub async fn push(process: &Process, document: &TenantsDocument) -> Result<v1::NodeReport, tonic::Status> {
    let request = v1::PushTenantsRequest {
        sender: operator(CLUSTER),
        document: document.to_json().into(),
    };
    let mut peer = process.try_operator().await.unwrap();
    Ok(peer.push_tenants(request).await?.into_inner())
}

fn log_in(process: &Process, name: &str) -> Client {
    let mut client = Client::connect(process.client);
    client.check(&format!("AUTH {name} {name}"), "+OK\r\n");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_follows_the_highest_version_and_tells_so() {
    let cluster = Cluster::start(1, 1, 0).await;
    let node = &cluster.nodes[&0];
    let report = push(node, &document(CLUSTER, 3, &BOTH)).await.unwrap();
    assert_eq!((report.tenants_version, report.tenants.len()), (3, 2));
    let report = push(node, &document(CLUSTER, 2, &[])).await.unwrap();
    assert_eq!(report.tenants_version, 3, "an older one changes nothing");
    let foreign = push(node, &document("another", 9, &[])).await.unwrap_err();
    assert_eq!(foreign.code(), Code::FailedPrecondition, "{foreign}");
    let mut spoilt = document(CLUSTER, 4, &BOTH);
    spoilt.next_id = TenantId(1);
    assert_eq!(
        push(node, &spoilt).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let mut client = log_in(node, "a");
    client.check("SET k value", "+OK\r\n");
    client.check("GET k", "$5\r\nvalue\r\n");
    client.check("GET none", "$-1\r\n");
    let report = push(node, &document(CLUSTER, 4, &BOTH)).await.unwrap();
    let [a, b] = <[v1::TenantUsage; 2]>::try_from(report.tenants).unwrap();
    assert_eq!(
        (a.tenant, a.keys, a.connections, a.hits, a.misses),
        (1, 1, 1, 1, 1)
    );
    assert!(a.used_bytes > 0 && a.commands >= 3, "{a:?}");
    assert_eq!((b.tenant, b.keys, b.used_bytes, b.connections), (2, 0, 0, 0));
    assert_eq!(report.keys, 1);
    let (status, metrics) = node.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "annulus_tenants_version 4",
        "annulus_tenant_keys{tenant=\"shop/a\"} 1",
        "annulus_tenant_keys{tenant=\"shop/b\"} 0",
        "annulus_tenant_hits_total{tenant=\"shop/a\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_file_is_adopted_at_boot_and_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tenants.json");
    std::fs::write(&path, document("standalone", 1, &BOTH[..1]).to_json()).unwrap();
    let node = Process::standalone(&["--tenants-file", path.to_str().unwrap()]);
    let mut a = log_in(&node, "a");
    a.check("SET k 1", "+OK\r\n");
    // A document that can't be read, an older one, a missing one: the last one holds.
    std::fs::write(&path, "{").unwrap();
    wait_for("the log says so", || {
        node.log()
            .contains("the tenants file can't be used")
            .then_some(())
    });
    std::fs::remove_file(&path).unwrap();
    a.check("GET k", "$1\r\n1\r\n");
    std::fs::write(&path, document("standalone", 2, &BOTH[1..]).to_json()).unwrap();
    assert_eq!(a.rest(), b"");
    log_in(&node, "b").check("GET k", "$-1\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_and_handoffs_have_what_every_tenant_has() {
    let mut cluster = Cluster::start(3, 2, 1).await;
    // One node has not heard of any tenant yet.
    let deaf = cluster.copy("{k}");
    for (number, node) in &cluster.nodes {
        if *number != deaf {
            push(node, &document(CLUSTER, 1, &BOTH)).await.unwrap();
        }
    }
    let writes = |name: &str| {
        vec![
            format!("SET {{k}}text of-{name}"),
            format!("SADD {{k}}set of-{name}"),
            "SET {k}gone 1".to_owned(),
            format!("SET {{k}}large {}", name.repeat(100_000)),
        ]
    };
    let owner = cluster.owner("{k}");
    let mut own = cluster.client("{k}");
    own.check("SET {k}text own", "+OK\r\n");
    for name in ["a", "b"] {
        let mut client = log_in(&cluster.nodes[&owner], name);
        for line in writes(name) {
            let reply = client.ask(&line);
            assert!(!reply.starts_with('-'), "{line}: {reply}");
        }
    }
    let mut a = log_in(&cluster.nodes[&owner], "a");
    a.check("DEL {k}gone", ":1\r\n");
    let mut b = log_in(&cluster.nodes[&owner], "b");
    b.check("FLUSHALL", "+OK\r\n");
    b.check("SET {k}text of-b", "+OK\r\n");
    let check = |node: &Process| {
        let mut a = log_in(node, "a");
        a.check("GET {k}text", "$4\r\nof-a\r\n");
        a.check("SMEMBERS {k}set", "*1\r\n$4\r\nof-a\r\n");
        a.check("STRLEN {k}large", ":100000\r\n");
        a.check("EXISTS {k}gone", ":0\r\n");
        a.check("DBSIZE", ":3\r\n");
        let mut b = log_in(node, "b");
        b.check("GET {k}text", "$4\r\nof-b\r\n");
        b.check("DBSIZE", ":1\r\n");
        let mut own = Client::connect(node.client);
        own.check("GET {k}text", "$3\r\nown\r\n");
        own.check("DBSIZE", ":1\r\n");
    };
    check(&cluster.nodes[&owner]);

    // The copy takes over, and learns of its tenants only then.
    cluster.kill(owner);
    cluster.step().await;
    assert_eq!(cluster.owner("{k}"), deaf);
    push(&cluster.nodes[&deaf], &document(CLUSTER, 1, &BOTH))
        .await
        .unwrap();
    check(&cluster.nodes[&deaf]);

    // The dead one comes back empty and gets its slots by handoff, from the one that had them meanwhile.
    cluster.settle_without(owner).await;
    cluster.failed.remove(&crate::documents::id(owner));
    cluster.boot(owner);
    cluster.settle().await;
    for node in cluster.nodes.values() {
        push(node, &document(CLUSTER, 2, &BOTH)).await.unwrap();
    }
    check(&cluster.nodes[&cluster.owner("{k}")]);

    // Who is gone is gone from all copies.
    for node in cluster.nodes.values() {
        push(node, &document(CLUSTER, 3, &BOTH[1..])).await.unwrap();
    }
    for node in cluster.nodes.values() {
        wait_for("nothing is left of a", || {
            let mut own = Client::connect(node.client);
            let copied = own.ask("INFO replication");
            let keys = copied.lines().find(|line| line.starts_with("copied_keys:"))?;
            let keys: u64 = keys["copied_keys:".len()..].trim().parse().ok()?;
            (keys <= 2).then_some(())
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_reach_the_own_tenant_on_all_nodes_and_no_other() {
    let cluster = Cluster::start(2, 1, 0).await;
    for node in cluster.nodes.values() {
        push(node, &document(CLUSTER, 1, &BOTH)).await.unwrap();
    }
    let (near, far) = (&cluster.nodes[&0], &cluster.nodes[&1]);
    let mut listeners = [log_in(far, "a"), log_in(far, "b"), Client::connect(far.client)];
    for listener in &mut listeners {
        listener.check("SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
        listener.ask("PSUBSCRIBE n*");
        listener.check(
            "PUNSUBSCRIBE n*",
            "*3\r\n$12\r\npunsubscribe\r\n$2\r\nn*\r\n:1\r\n",
        );
    }
    let mut speakers = [log_in(near, "a"), log_in(near, "b"), Client::connect(near.client)];
    for (place, speaker) in speakers.iter_mut().enumerate() {
        speaker.check(&format!("PUBLISH news from-{place}"), ":0\r\n");
    }
    for (place, listener) in listeners.iter_mut().enumerate() {
        let message = format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$6\r\nfrom-{place}\r\n");
        listener.expect(message);
        // Nothing else is before the answer.
        listener.check("PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    }
}
