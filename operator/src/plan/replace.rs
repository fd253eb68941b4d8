//! Which pods are replaced because their StatefulSet has a newer template.
//!
//! A pod that neither serves nor answers loses nothing and is replaced at once, so that a good spec heals what
//! a bad one broke. Pods that serve are replaced one at a time, and only while the ring and everybody else are at rest,
//! which a ring with copies is when every copy is there. With copies a pod gives what it has to others before it ends;
//! without copies it sends its slots along.

use std::collections::BTreeSet;
use std::fmt;

use annulus_ring::NodeId;

use super::RingStep;
use crate::validate::{ValidCluster, ValidPool};
use crate::view::{PodView, View};

/// A pod to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// Its name.
    pub id: NodeId,
    /// Which one of that name: the decision is about no other.
    pub uid: String,
    /// Whether it serves: what it has is handed over before it ends.
    pub serving: bool,
}

/// Why a pod with an older template is left alone for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// The ring is changing.
    RingChanging(NodeId),
    /// Another pod is not ready.
    OtherNotReady {
        /// The pod that waits to be replaced.
        id: NodeId,
        /// The one that isn't ready.
        other: NodeId,
    },
    /// Another pod is replaced first.
    Turn {
        /// The pod that waits to be replaced.
        id: NodeId,
        /// The one whose turn it is.
        other: NodeId,
    },
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RingChanging(id) => write!(
                f,
                "{id} is replaced by one with the new settings once the ring is at rest"
            ),
            Self::OtherNotReady { id, other } => {
                write!(
                    f,
                    "{id} is replaced by one with the new settings once {other} is ready"
                )
            }
            Self::Turn { id, other } => {
                write!(f, "{id} is replaced by one with the new settings after {other}")
            }
        }
    }
}

/// The pods to be deleted now, and why others are not.
pub(super) fn decide(cluster: &ValidCluster, view: &View, ring: &RingStep) -> (Vec<Replacement>, Vec<Hold>) {
    let outdated: Vec<(&NodeId, &PodView)> = view
        .pods
        .iter()
        .filter(|(id, pod)| !pod.terminating && is_outdated(cluster, view, id, pod))
        .collect();
    let mut replace: Vec<_> = outdated
        .iter()
        .filter(|(id, pod)| !pod.ready && !view.reports.contains_key(*id))
        .map(|(id, pod)| Replacement {
            id: (*id).clone(),
            uid: pod.uid.clone(),
            serving: false,
        })
        .collect();
    let mut holds = Vec::new();
    let gone: BTreeSet<_> = replace.iter().map(|replacement| replacement.id.clone()).collect();
    let mut turn = None;
    for (id, pod) in outdated.iter().filter(|(id, _)| !gone.contains(*id)) {
        match may_replace(cluster, view, ring, id, turn.as_ref()) {
            Ok(()) => {
                turn = Some((*id).clone());
                replace.push(Replacement {
                    id: (*id).clone(),
                    uid: pod.uid.clone(),
                    serving: true,
                });
            }
            Err(hold) => holds.push(hold),
        }
    }
    (replace, holds)
}

/// Made from another template than the newest of its StatefulSet, whose pool is still in the spec.
fn is_outdated(cluster: &ValidCluster, view: &View, id: &NodeId, pod: &PodView) -> bool {
    let set = cluster
        .pools
        .iter()
        .find(|pool| pool.node_ids().any(|of_pool| of_pool == *id));
    let newest = set.and_then(|pool| view.sets.iter().find(|set| set.name == pool.stateful_set));
    match (newest.and_then(|set| set.revision.as_ref()), &pod.revision) {
        (Some(newest), Some(revision)) => newest != revision,
        _ => false,
    }
}

fn may_replace(
    cluster: &ValidCluster,
    view: &View,
    ring: &RingStep,
    id: &NodeId,
    turn: Option<&NodeId>,
) -> Result<(), Hold> {
    if let Some(other) = turn {
        return Err(Hold::Turn {
            id: id.clone(),
            other: other.clone(),
        });
    }
    let serves = |other: &NodeId| {
        view.pods
            .get(other)
            .is_some_and(|pod| pod.ready && !pod.terminating)
    };
    let idle = cluster
        .pools
        .iter()
        .flat_map(ValidPool::node_ids)
        .find(|other| other != id && !serves(other));
    if let Some(other) = idle {
        return Err(Hold::OtherNotReady {
            id: id.clone(),
            other,
        });
    }
    match ring {
        RingStep::Steady => Ok(()),
        _ => Err(Hold::RingChanging(id.clone())),
    }
}
