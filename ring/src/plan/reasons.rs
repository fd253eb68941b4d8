//! Why the ring changes, and why it does not yet: plain sentences for conditions and events.

use std::fmt;

use crate::{ClusterUid, Epoch, NodeId};

/// What is new in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeReason {
    /// The cluster has a ring now.
    FirstRing {
        /// How many members share it.
        members: usize,
    },
    /// A member is another life of its process.
    Restarted {
        /// The member.
        id: NodeId,
        /// How many slots are empty now, because their data died with the earlier life.
        slots_emptied: u32,
    },
    /// Copies took the place of a member that died.
    Promoted {
        /// The member that died.
        from: NodeId,
        /// Whose copies are the owners now.
        to: NodeId,
        /// How many slots.
        slots: u32,
    },
    /// A member is taken for dead.
    Failed {
        /// The member.
        id: NodeId,
        /// How many of its slots have no other copy: they wait for it to come back, and are empty then.
        slots_without_copy: u32,
    },
    /// A member has whole copies of more slots.
    Copied {
        /// The member.
        id: NodeId,
        /// How many more.
        slots: u32,
    },
    /// A member's copies are not needed any more.
    CopiesDropped {
        /// The member.
        id: NodeId,
        /// How many slots.
        slots: u32,
    },
    /// A handoff ended because its target restarted; the slots stay with the source.
    TargetLost {
        /// The source.
        from: NodeId,
        /// The target.
        to: NodeId,
        /// How many slots.
        slots: u32,
    },
    /// A handoff ended as the target reported.
    Settled {
        /// The source.
        from: NodeId,
        /// The target.
        to: NodeId,
        /// How many slots are the target's now.
        slots_moved: u32,
        /// How many stay with the source.
        slots_kept: u32,
    },
    /// A handoff is to end early.
    Cancelled {
        /// The source.
        from: NodeId,
        /// The target.
        to: NodeId,
        /// How many slots.
        slots: u32,
        /// Whether the reason is that the source restarted, and not that something else is desired now.
        source_restarted: bool,
    },
    /// A new member.
    Joining(NodeId),
    /// A member has its share.
    Active(NodeId),
    /// A member is to leave.
    Draining {
        /// The member.
        id: NodeId,
        /// How many slots are to be moved away from it first.
        slots: u32,
    },
    /// A member that owned nothing any more has left.
    Removed(NodeId),
    /// Slots are to move.
    Begun {
        /// The source.
        from: NodeId,
        /// The target.
        to: NodeId,
        /// How many slots.
        slots: u32,
    },
    /// A member's weight, zone or address is another.
    Updated(NodeId),
    /// Another number of copies.
    ReplicationFactor(u8),
    /// What members follow while they run was changed.
    Settings,
}

impl fmt::Display for ChangeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstRing { members } => write!(f, "first ring, shared by {}", plural(*members, "member")),
            Self::Restarted { id, slots_emptied: 0 } => write!(f, "{id} restarted, it owned no slots"),
            Self::Restarted { id, slots_emptied } => {
                write!(f, "{id} restarted, its {} are empty now", slots(*slots_emptied))
            }
            Self::Promoted { from, to, slots: n } => {
                write!(f, "{to} took over {} from {from}, which died", slots(*n))
            }
            Self::Failed {
                id,
                slots_without_copy: 0,
            } => write!(f, "{id} does not answer and is taken for dead"),
            Self::Failed {
                id,
                slots_without_copy: n,
            } => write!(
                f,
                "{id} does not answer and is taken for dead, {} have no other copy and wait for it to come back",
                slots(*n)
            ),
            Self::Copied { id, slots: n } => write!(f, "{id} has copies of {} more", slots(*n)),
            Self::CopiesDropped { id, slots: n } => write!(f, "{id} drops copies of {}", slots(*n)),
            Self::TargetLost { from, to, slots: n } => {
                write!(
                    f,
                    "handoff of {} from {from} to {to} ended because {to} restarted",
                    slots(*n)
                )
            }
            Self::Settled {
                from,
                to,
                slots_moved,
                slots_kept: 0,
            } => {
                write!(f, "{} moved from {from} to {to}", slots(*slots_moved))
            }
            Self::Settled {
                from,
                to,
                slots_moved,
                slots_kept,
            } => {
                write!(
                    f,
                    "{} moved from {from} to {to}, {slots_kept} stayed with {from}",
                    slots(*slots_moved)
                )
            }
            Self::Cancelled {
                from,
                to,
                slots: n,
                source_restarted: true,
            } => {
                write!(
                    f,
                    "handoff of {} from {from} to {to} cancelled because {from} restarted",
                    slots(*n)
                )
            }
            Self::Cancelled {
                from,
                to,
                slots: n,
                source_restarted: false,
            } => {
                write!(
                    f,
                    "handoff of {} from {from} to {to} cancelled because it is no longer wanted",
                    slots(*n)
                )
            }
            Self::Joining(id) => write!(f, "{id} joins"),
            Self::Active(id) => write!(f, "{id} has its share of the ring"),
            Self::Draining { id, slots: n } => write!(f, "{id} leaves, it has {} to hand over", slots(*n)),
            Self::Removed(id) => write!(f, "{id} left, it owned nothing any more"),
            Self::Begun { from, to, slots: n } => {
                write!(f, "{} begin to move from {from} to {to}", slots(*n))
            }
            Self::Updated(id) => write!(f, "{id} has another weight, zone or address"),
            Self::Settings => f.write_str("members follow new settings"),
            Self::ReplicationFactor(1) => write!(f, "the replication factor is 1 now, no further copies"),
            Self::ReplicationFactor(factor) => write!(f, "the replication factor is {factor} now"),
        }
    }
}

/// What the ring waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// No members are desired: there is nobody to own the ring.
    NobodyDesired,
    /// The document is another cluster's.
    OtherCluster(ClusterUid),
    /// A node has adopted a later document than the one given.
    Behind {
        /// The node.
        id: NodeId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A desired member that is not in the ring does not answer.
    NewcomerSilent(NodeId),
    /// A member that is to leave does not answer, so that its slots can't be handed over.
    LeaverSilent {
        /// The member.
        id: NodeId,
        /// How many slots it owns.
        slots: u32,
    },
    /// A handoff can't go on because its source or target does not answer.
    Silent {
        /// Who does not answer.
        silent: NodeId,
        /// The source.
        from: NodeId,
        /// The target.
        to: NodeId,
        /// How many slots.
        slots: u32,
    },
    /// A handoff's target has not adopted the document yet.
    NotAdopted {
        /// The target.
        id: NodeId,
        /// The epoch that it has.
        epoch: Epoch,
    },
    /// A member is being given copies.
    Copying {
        /// The member.
        id: NodeId,
        /// How many slots it has no whole copy of yet.
        slots: u32,
    },
    /// A handoff is under way.
    Moving {
        /// The source.
        from: NodeId,
        /// The target.
        to: NodeId,
        /// How many slots the target does not serve yet.
        slots_left: u32,
    },
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyDesired => write!(f, "no members are desired, ask for at least one"),
            Self::OtherCluster(uid) => {
                write!(
                    f,
                    "the ring document belongs to cluster {uid}, it has to be deleted first"
                )
            }
            Self::Behind { id, epoch } => {
                write!(
                    f,
                    "{id} has epoch {epoch} already, which is later than the document that was read"
                )
            }
            Self::NewcomerSilent(id) => write!(f, "{id} does not answer yet"),
            Self::LeaverSilent { id, slots: n } => {
                write!(f, "{id} is to leave, but does not answer and owns {}", slots(*n))
            }
            Self::Silent {
                silent,
                from,
                to,
                slots: n,
            } => {
                write!(
                    f,
                    "{} can't move from {from} to {to} because {silent} does not answer",
                    slots(*n)
                )
            }
            Self::NotAdopted {
                id,
                epoch: Epoch::NONE,
            } => write!(f, "{id} has no ring yet"),
            Self::NotAdopted { id, epoch } => write!(f, "{id} has epoch {epoch} and not yet the current one"),
            Self::Copying { id, slots: n } => write!(f, "{id} is still being given copies of {}", slots(*n)),
            Self::Moving { from, to, slots_left } => {
                write!(f, "{} still to move from {from} to {to}", slots(*slots_left))
            }
        }
    }
}

fn slots(count: u32) -> String {
    plural(count as usize, "slot")
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}
