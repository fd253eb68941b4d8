//! The ring: which member of a cluster owns which slot, and how that changes.
//!
//! Everything here is a function of values: no I/O, no async, no clock, no randomness. The operator plans with
//! it, the node routes with it, the simulation drives it.
//!
//! The ring *is* the slot space of Redis Cluster. A member holds many tokens; a token is a slot position,
//! and a slot belongs to the first token clockwise (towards higher slots, wrapping), so a member owns the arcs
//! that end at its tokens.

mod document;
mod draw;
mod hash_ring;
mod ids;
mod placement;
mod plan;
mod slot;
mod slot_set;
mod slot_table;

pub use document::{
    Address, DocumentError, Handoff, Member, MemberState, RING_DOCUMENT_KEY, RingDocument, RingSettings,
};
pub use draw::{DrawOptions, draw};
pub use hash_ring::{HashRing, RingError};
pub use ids::{ClusterUid, Epoch, IdError, Incarnation, NodeId, Weight, Zone};
pub use placement::{Move, Placement, PlacementParams, moves, place};
pub use plan::{
    Advance, ChangeReason, Desired, HANDOFF_SLOTS_MAX_DEFAULT, Observed, Progress, WaitReason, advance,
    progress,
};
pub use slot::{SLOT_COUNT, Slot, SlotError};
pub use slot_set::{SlotRange, SlotRangeError, SlotSet};
pub use slot_table::{
    Access, AdoptOutcome, CommitRefusal, Committed, Copies, Copy, FreezeRefusal, FreezeRequest, Frozen,
    PullRefusal, Refusal, SlotTable,
};
