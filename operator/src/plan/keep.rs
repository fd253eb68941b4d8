//! Which pods must stay because the ring still names them.

use std::fmt;

use annulus_ring::{NodeId, RingDocument};

use super::{PoolPlan, RetiredSet};
use crate::validate::ValidPool;
use crate::view::{SetView, View};

/// Why a pod that the spec no longer asks for stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// It owns slots.
    Owns {
        /// The node.
        id: NodeId,
        /// How many.
        slots: u32,
    },
    /// It owns nothing any more, but the ring names it.
    Member(NodeId),
    /// A ring exists that could not be read yet.
    RingUnknown,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owns { id, slots } => write!(f, "{id} stays until its {slots} slots have moved"),
            Self::Member(id) => write!(f, "{id} stays until every node knows that it left the ring"),
            Self::RingUnknown => write!(f, "no pod is removed until the ring is known"),
        }
    }
}

/// Whether the pod may go.
fn may_go(document: &RingDocument, id: &NodeId) -> Result<(), Kept> {
    if document.member(id).is_none() {
        return Ok(());
    }
    let slots = document
        .ring()
        .owned_counts()
        .get(id)
        .copied()
        .unwrap_or_default();
    Err(if slots > 0 {
        Kept::Owns {
            id: id.clone(),
            slots,
        }
    } else {
        Kept::Member(id.clone())
    })
}

/// How many pods the pool's StatefulSet is to have: what the spec says, and those beyond that must stay.
pub(super) fn pool(pool: &ValidPool, view: &View) -> PoolPlan {
    let current = view
        .sets
        .iter()
        .find(|set| set.name == pool.stateful_set)
        .map_or(0, |set| set.replicas);
    let (mut replicas, mut kept) = (pool.nodes, Vec::new());
    match &view.document {
        Some(document) => {
            for (ordinal, id) in members_of(document, &pool.stateful_set) {
                if ordinal < pool.nodes {
                    continue;
                }
                if let Err(reason) = may_go(document, id) {
                    replicas = replicas.max(ordinal.saturating_add(1));
                    kept.push(reason);
                }
            }
        }
        None if ring_is_unknown(view) && current > pool.nodes => {
            replicas = current;
            kept.push(Kept::RingUnknown);
        }
        None => {}
    }
    PoolPlan {
        pool: pool.clone(),
        replicas,
        kept,
    }
}

/// Whether a StatefulSet whose pool left the spec may be deleted.
pub(super) fn retired(set: &SetView, view: &View) -> RetiredSet {
    let kept = match &view.document {
        Some(document) => members_of(document, &set.name)
            .filter_map(|(_, id)| may_go(document, id).err())
            .collect(),
        None if ring_is_unknown(view) => vec![Kept::RingUnknown],
        None => Vec::new(),
    };
    RetiredSet {
        name: set.name.clone(),
        kept,
    }
}

/// There was a ring, but nobody has shown it to this operator.
fn ring_is_unknown(view: &View) -> bool {
    view.epoch_told > annulus_ring::Epoch::NONE
}

/// The members that are pods of that StatefulSet, with their numbers.
fn members_of<'a>(document: &'a RingDocument, set: &'a str) -> impl Iterator<Item = (u16, &'a NodeId)> {
    document.members.iter().filter_map(move |member| {
        let ordinal = member.id.as_str().strip_prefix(set)?.strip_prefix('-')?;
        Some((ordinal.parse().ok()?, &member.id))
    })
}
