//! The hub: whose reports count, what wakes a reconcile, and that nothing is left open.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, outside of test functions"
)]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use annulus_crds::v1alpha1::defaults::PEER_PORT;
use annulus_operator::key::ClusterKey;
use annulus_operator::metrics::Metrics;
use annulus_operator::node_client::Hub;
use annulus_ring::{ClusterUid, Incarnation, NodeId};
use support::node::FakeNode;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

const UID: &str = "cluster-one";

struct Fixture {
    hub: Hub,
    wakes: UnboundedReceiver<ClusterKey>,
    metrics: Metrics,
}

impl Fixture {
    fn new() -> Self {
        let (wake, wakes) = unbounded_channel();
        let metrics = Metrics::default();
        Self {
            hub: Hub::new(
                Duration::from_millis(100),
                Duration::from_secs(1),
                wake,
                metrics.clone(),
            ),
            wakes,
            metrics,
        }
    }

    fn key() -> ClusterKey {
        ClusterKey::new("n", "c")
    }

    fn watch(&self, uid: &str, nodes: &[(&str, &FakeNode)]) {
        let addresses: BTreeMap<NodeId, SocketAddr> = nodes
            .iter()
            .map(|(id, node)| (id.parse().unwrap(), SocketAddr::new(node.ip, PEER_PORT)))
            .collect();
        self.hub.sync(
            &Self::key(),
            &uid.parse::<ClusterUid>().unwrap(),
            &addresses,
            None,
        );
    }

    fn answering(&self) -> Vec<String> {
        self.hub
            .snapshot(&Self::key())
            .reports
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    async fn woken(&mut self) {
        timeout(Duration::from_secs(10), self.wakes.recv())
            .await
            .expect("no wake-up came")
            .unwrap();
    }

    async fn refused(&self, reason: &str) {
        let line = format!("annulus_operator_node_reports_refused_total{{reason=\"{reason}\"}}");
        let seen = async {
            while !self.metrics.encode().unwrap().contains(&line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), seen)
            .await
            .expect("no refusal was counted");
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let seen = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), seen)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_report_counts_only_from_the_expected_cluster_and_node() {
    let fixture = Fixture::new();
    let other_cluster = FakeNode::start("cluster-two", "c-0", 1);
    fixture.watch(UID, &[("c-0", &other_cluster)]);
    fixture.refused("other_cluster").await;
    assert!(fixture.answering().is_empty());

    let other_node = FakeNode::start(UID, "c-9", 1);
    fixture.watch(UID, &[("c-0", &other_node)]);
    fixture.refused("other_node").await;
    assert!(fixture.answering().is_empty());
}

#[tokio::test]
async fn counters_wake_nobody_and_a_new_life_does() {
    let mut fixture = Fixture::new();
    let node = FakeNode::start(UID, "c-0", 1);
    fixture.watch(UID, &[("c-0", &node)]);
    fixture.woken().await;
    assert_eq!(fixture.answering(), ["c-0"]);
    for keys in 0..20 {
        node.change(|state| state.keys = keys);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(
        fixture.wakes.try_recv().is_err(),
        "keys are no reason to reconcile"
    );
    node.change(|state| state.incarnation = Incarnation(2));
    fixture.woken().await;
    let snapshot = fixture.hub.snapshot(&Fixture::key());
    assert_eq!(
        snapshot.reports.values().next().unwrap().incarnation,
        Incarnation(2)
    );
}

#[tokio::test]
async fn a_node_that_ends_has_no_report_and_one_that_comes_back_is_found() {
    let mut fixture = Fixture::new();
    let node = FakeNode::start(UID, "c-0", 1);
    let ip = node.ip;
    fixture.watch(UID, &[("c-0", &node)]);
    fixture.woken().await;
    drop(node);
    eventually("the report stays", || fixture.answering().is_empty()).await;
    let _again = FakeNode::start_at(ip, UID, "c-0", 2);
    eventually("the node is not found again", || fixture.answering() == ["c-0"]).await;
}

#[tokio::test]
async fn nothing_stays_open_for_nodes_and_clusters_that_are_gone() {
    let mut fixture = Fixture::new();
    let (first, second) = (FakeNode::start(UID, "c-0", 1), FakeNode::start(UID, "c-1", 2));
    fixture.watch(UID, &[("c-0", &first), ("c-1", &second)]);
    while fixture.answering().len() < 2 {
        fixture.woken().await;
    }
    fixture.watch(UID, &[("c-0", &first)]);
    assert_eq!(fixture.answering(), ["c-0"]);
    eventually("the stream to c-1 stays open", || second.watchers() == 0).await;
    fixture.hub.forget(&Fixture::key());
    eventually("the stream to c-0 stays open", || first.watchers() == 0).await;
    assert!(fixture.hub.keys().is_empty());
}
