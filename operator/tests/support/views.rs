//! Views of a cluster `c`, as the pure steps get them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_operator::node_client::Report;
use annulus_operator::plan::desired;
use annulus_operator::validate::{Installation, ValidCluster, validate};
use annulus_operator::view::{PodView, SetView, View};
use annulus_ring::{Advance, Epoch, Incarnation, NodeId, SlotSet, advance};

/// The cluster `n/c` with that spec, in YAML's flow style.
pub fn cluster(spec: &str) -> ValidCluster {
    let text = format!(
        "{{apiVersion: annulus.dev/v1alpha1, kind: CacheCluster, metadata: {{name: c, namespace: n, uid: u-1}}, spec: {{{spec}}}}}"
    );
    let installation = Installation {
        node_image: Some("node:1".to_owned()),
        ..Installation::default()
    };
    validate(&serde_yaml::from_str(&text).unwrap(), &installation).unwrap()
}

/// A node id.
pub fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// What a node says that has nothing to do at that epoch.
pub fn report(number: u128, epoch: u64) -> Report {
    Report {
        incarnation: Incarnation(number),
        epoch: Epoch(epoch),
        ready: epoch > 0,
        activated: SlotSet::new(),
        settled: true,
        handoff_waits: String::new(),
        declared: BTreeMap::new(),
        used_bytes: 0,
        budget_bytes: 0,
        leaving: false,
        tenants_version: 0,
        tenants: std::sync::Arc::default(),
    }
}

/// A view in which the pods `c-0` … are ready and answer at that epoch.
pub fn view(nodes: u8, epoch: u64) -> View {
    let mut view = View {
        since_first_answer: Some(Duration::ZERO),
        ..View::default()
    };
    view.sets.push(SetView {
        name: "c".to_owned(),
        replicas: nodes.into(),
        revision: Some("new".to_owned()),
    });
    for number in 0..nodes {
        let pod = PodView {
            uid: format!("uid-{number}"),
            ip: Some(format!("10.0.0.{}", number + 1).parse().unwrap()),
            ready: true,
            revision: Some("new".to_owned()),
            ..PodView::default()
        };
        view.pods.insert(id(&format!("c-{number}")), pod);
        view.reports
            .insert(id(&format!("c-{number}")), report(number.into(), epoch));
    }
    view
}

/// A view whose stored ring is shared by all its nodes at epoch 1.
pub fn ringed(nodes: u8) -> View {
    let mut seen = view(nodes, 0);
    let wanted = desired(&cluster(&format!("nodes: {nodes}")), |_| None);
    let Advance::Next { document, .. } = advance(None, &wanted, &seen.observed(), &BTreeSet::new()) else {
        panic!("no first ring")
    };
    seen.reports.values_mut().for_each(|report| {
        report.epoch = Epoch(1);
        report.ready = true;
    });
    View {
        document: Some(document),
        stored: true,
        ..seen
    }
}
