//! What is to be done about a cluster: pure decisions from the checked spec and what is seen.
//!
//! Invariant: no pod is taken away that the ring still names, neither by a smaller StatefulSet, nor by a pool
//! that left the spec. The next ring is decided by `annulus_ring::advance` alone; what is added here is when
//! the first one may be made, and that a document which was lost is put back before anything else changes.

use std::collections::BTreeSet;
use std::time::Duration;

use annulus_crds::v1alpha1::NodeAddresses;
use annulus_ring::{
    Advance, ChangeReason, Desired, Epoch, HANDOFF_SLOTS_MAX_DEFAULT, NodeId, Placement, PlacementParams,
    RingDocument, RingSettings, WaitReason, Zone, advance,
};

use crate::validate::{ValidCluster, ValidPool};
use crate::view::View;

mod autoscale;
mod keep;
mod replace;

pub use autoscale::{Resize, autoscale, is_at_rest};
pub use keep::Kept;
pub use replace::{Hold, Replacement};

/// How long the first ring waits for nodes that have not answered, once one has.
pub const FIRST_RING_GRACE: Duration = Duration::from_secs(15);

/// Everything that is to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Each pool and how many pods it is to have now.
    pub pools: Vec<PoolPlan>,
    /// The `StatefulSets` of pools that left the spec.
    pub retired: Vec<RetiredSet>,
    /// The nodes that clients are, or will be, sent to by a Service of their own.
    pub node_services: BTreeSet<NodeId>,
    /// Who is to be on the ring in the end.
    pub desired: Desired,
    /// What is to be done about the ring.
    pub ring: RingStep,
    /// Pods to be deleted, so that their StatefulSet makes them from its newest template.
    pub replace: Vec<Replacement>,
    /// Why pods with an older template are left alone for now.
    pub holds: Vec<Hold>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolPlan {
    /// What the spec says.
    pub pool: ValidPool,
    /// Pods that its StatefulSet is to have now; more than the spec says while the ring needs them.
    pub replicas: u16,
    /// Why there are more.
    pub kept: Vec<Kept>,
}

/// A StatefulSet whose pool left the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredSet {
    /// Its name.
    pub name: String,
    /// Why it can't be deleted yet; empty when it can.
    pub kept: Vec<Kept>,
}

/// What is to be done about the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RingStep {
    /// The ring is as desired.
    Steady,
    /// Something is to be done, but not now.
    Waiting(Vec<WaitReason>),
    /// Nodes have a ring that could not be read yet; nothing may be decided without it.
    Recovering,
    /// The newest document is not the stored one: it is to be stored again as it is.
    Restore(RingDocument),
    /// This document is to be stored and given to the nodes.
    Next {
        /// The next epoch.
        document: RingDocument,
        /// What is new in it.
        reasons: Vec<ChangeReason>,
    },
}

/// Decides everything.
pub fn plan(cluster: &ValidCluster, view: &View) -> Plan {
    let desired = desired(cluster, |id| view.zone(id));
    let ring = ring_step(&desired, view);
    let pools: Vec<PoolPlan> = cluster.pools.iter().map(|pool| keep::pool(pool, view)).collect();
    let in_spec = |name: &str| cluster.pools.iter().any(|pool| pool.stateful_set == name);
    let retired = view
        .sets
        .iter()
        .filter(|set| !in_spec(&set.name))
        .map(|set| keep::retired(set, view))
        .collect();
    let (replace, holds) = replace::decide(cluster, view, &ring);
    Plan {
        node_services: node_services(cluster, &pools, view),
        pools,
        retired,
        desired,
        ring,
        replace,
        holds,
    }
}

/// Those that are to be there, and those to which the ring still sends clients.
fn node_services(cluster: &ValidCluster, pools: &[PoolPlan], view: &View) -> BTreeSet<NodeId> {
    let announced = view.document.iter().flat_map(|document| &document.members);
    let announced = announced.filter(|member| member.address.client_host.is_some());
    let mut needed: BTreeSet<NodeId> = announced.map(|member| member.id.clone()).collect();
    if cluster.node_addresses == NodeAddresses::Service {
        needed.extend(pools.iter().flat_map(|plan| plan.pool.first_nodes(plan.replicas)));
    }
    needed
}

/// What nodes are to follow while they run.
fn ring_settings(cluster: &ValidCluster) -> RingSettings {
    RingSettings {
        acks: cluster.replication_acks,
        transfer_bytes_per_second: cluster.transfer_bytes_per_second,
        copy_staleness_max_ms: cluster.copy_staleness_max_ms,
        mirror_reads_per_second: cluster.mirrors.reads_per_second,
        mirror_staleness_max_ms: cluster.mirrors.staleness_max_ms,
    }
}

/// Who is to be on the ring in the end.
pub fn desired(cluster: &ValidCluster, zone: impl Fn(&NodeId) -> Option<Zone>) -> Desired {
    let members = cluster
        .pools
        .iter()
        .flat_map(|pool| pool.node_ids().map(move |id| (pool, id)));
    Desired {
        cluster_uid: cluster.uid.clone(),
        members: members
            .map(|(pool, id)| Placement {
                zone: zone(&id).or_else(|| pool.zone.clone().map(Zone)),
                weight: pool.weight,
                id,
            })
            .collect(),
        params: PlacementParams {
            replication_factor: cluster.replication_factor,
            tokens_per_member: cluster.tokens_per_member,
        },
        settings: ring_settings(cluster),
        handoff_slots_max: HANDOFF_SLOTS_MAX_DEFAULT,
    }
}

/// Every node that is there or is to be.
pub fn existing_nodes(plan: &Plan, view: &View) -> BTreeSet<NodeId> {
    let planned = plan.pools.iter().flat_map(|planned| {
        let names = (0..planned.replicas).map(|ordinal| planned.pool.pod_name(ordinal));
        names.filter_map(|name| name.parse().ok())
    });
    let on_ring = view.document.iter().flat_map(|document| &document.members);
    let on_ring = on_ring.map(|member| member.id.clone());
    planned.chain(view.pods.keys().cloned()).chain(on_ring).collect()
}

fn ring_step(desired: &Desired, view: &View) -> RingStep {
    let observed = view.observed();
    let newest_seen = observed
        .iter()
        .map(|node| node.epoch)
        .max()
        .unwrap_or(Epoch::NONE);
    match &view.document {
        Some(document) if document.epoch < newest_seen => RingStep::Recovering,
        Some(document) if !view.stored => RingStep::Restore(document.clone()),
        Some(document) => from_advance(advance(Some(document), desired, &observed, &view.failed())),
        None if newest_seen > Epoch::NONE => RingStep::Recovering,
        None => first_ring(desired, view, &observed),
    }
}

/// The first ring is made when every node that is to share it has answered, or when the others have had their
/// time: then those that answer share it, and the others join when they come.
fn first_ring(desired: &Desired, view: &View, observed: &[annulus_ring::Observed]) -> RingStep {
    let answers = |id: &NodeId| observed.iter().any(|node| node.id == *id);
    let (present, absent): (Vec<_>, Vec<_>) = desired
        .members
        .iter()
        .cloned()
        .partition(|member| answers(&member.id));
    let grace_is_over = view
        .since_first_answer
        .is_some_and(|since| since >= FIRST_RING_GRACE);
    if !absent.is_empty() && (present.is_empty() || !grace_is_over) {
        return RingStep::Waiting(
            absent
                .into_iter()
                .map(|member| WaitReason::NewcomerSilent(member.id))
                .collect(),
        );
    }
    let among_present = Desired {
        members: present,
        ..desired.clone()
    };
    match from_advance(advance(None, &among_present, observed, &BTreeSet::new())) {
        RingStep::Next {
            mut document,
            reasons,
        } => {
            // Epochs only grow, even when the ring and everyone who knew it are lost.
            document.epoch = document.epoch.max(view.epoch_told.next());
            RingStep::Next { document, reasons }
        }
        other => other,
    }
}

fn from_advance(advance: Advance) -> RingStep {
    match advance {
        Advance::Steady => RingStep::Steady,
        Advance::Waiting(reasons) => RingStep::Waiting(reasons),
        Advance::Next { document, reasons } => RingStep::Next { document, reasons },
    }
}
