//! The decision about the next epoch.
//!
//! Invariant: a document that is planned here never gives a slot to a new owner while the old one might still
//! accept writes for it. Slots change hands only through handoffs, and the tokens follow when the target has
//! reported, at the epoch of the handoff, which slots it serves.
//!
//! It sees only what it is given. The caller observes the nodes *after* it has read `current`, and writes the
//! next document only if the stored one is still `current`; so a decision made from something stale is never
//! written.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Address, ClusterUid, Epoch, Incarnation, NodeId, Placement, PlacementParams, RingDocument, RingSettings,
    SlotSet, moves,
};

mod copies;
mod next;
mod reasons;

pub use reasons::{ChangeReason, WaitReason};

use next::Draft;

/// How many slots are in flight at most when nothing else is asked for.
pub const HANDOFF_SLOTS_MAX_DEFAULT: u16 = 1024;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Whose ring it is.
    pub cluster_uid: ClusterUid,
    /// Everyone who is to take part.
    pub members: Vec<Placement>,
    /// How to place.
    pub params: PlacementParams,
    /// What members are to follow while they run.
    pub settings: RingSettings,
    /// How many slots may be in flight per epoch; at least 1 is taken. See [`HANDOFF_SLOTS_MAX_DEFAULT`].
    pub handoff_slots_max: u16,
}

/// What one node that answers said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Its name.
    pub id: NodeId,
    /// Which life of it answered.
    pub incarnation: Incarnation,
    /// Where it is reached.
    pub address: Address,
    /// The epoch that it has adopted, [`Epoch::NONE`] without a ring.
    pub epoch: Epoch,
    /// The slots of that epoch's handoffs that it serves as their target.
    pub activated: SlotSet,
    /// Nothing of that epoch's handoffs towards it is in flight or to be begun.
    pub settled: bool,
    /// Of the slots that it serves at that epoch: who has whole copies without which it acknowledges nothing, beside
    /// those that the document tells.
    pub declared: BTreeMap<NodeId, SlotSet>,
    /// It was told to end, and waits for others to take over what it serves.
    pub leaving: bool,
}

/// What is to be done about the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advance {
    /// The ring is as desired.
    Steady,
    /// There is something to do, but not now; look again when a node reports something new.
    Waiting(Vec<WaitReason>),
    /// This document is to replace the current one.
    Next {
        /// The next epoch.
        document: RingDocument,
        /// What is new in it.
        reasons: Vec<ChangeReason>,
    },
}

/// What is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Slots that are still to be served by another node than now, as far as the document tells.
    pub slots_to_move: u32,
}

/// Decides about the next epoch. Applied to its own output, with nodes that reported nothing new, it gives
/// [`Advance::Waiting`] or [`Advance::Steady`].
///
/// `observed` has each node of the cluster that answers, asked after `current` was read. `failed` are members that
/// are taken for dead, in the life that `current` lists: what they own goes to whoever has a whole copy of it.
pub fn advance(
    current: Option<&RingDocument>,
    desired: &Desired,
    observed: &[Observed],
    failed: &BTreeSet<NodeId>,
) -> Advance {
    if desired.members.is_empty() {
        return Advance::Waiting(vec![WaitReason::NobodyDesired]);
    }
    let Some(current) = current else {
        return next::first(desired, observed);
    };
    if current.cluster_uid != desired.cluster_uid {
        return Advance::Waiting(vec![WaitReason::OtherCluster(current.cluster_uid.clone())]);
    }
    if let Some(node) = observed.iter().find(|node| node.epoch > current.epoch) {
        return Advance::Waiting(vec![WaitReason::Behind {
            id: node.id.clone(),
            epoch: node.epoch,
        }]);
    }
    let mut draft = Draft::new(current, desired, observed, failed);
    draft.settle_handoffs();
    draft.replace_lost();
    draft.follow_restarts();
    draft.follow_desired();
    let target = draft.target();
    draft.cancel_unwanted(&target);
    draft.begin_handoffs(&target);
    draft.update_states(&target);
    draft.follow_copies();
    draft.remove_leavers();
    draft.explain_handoffs();
    draft.finish()
}

/// How much is left to do until the ring is as desired, counting newcomers that do not answer yet.
pub fn progress(current: &RingDocument, desired: &Desired) -> Progress {
    let from = current.ring();
    let target = Draft::new(current, desired, &[], &BTreeSet::new()).desired_target();
    Progress {
        slots_to_move: moves(&from, &target)
            .iter()
            .map(|part| u32::from(part.slots.len()))
            .sum(),
    }
}
