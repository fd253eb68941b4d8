//! The ring: which member of a cluster owns which slot, and how that changes.
//!
//! Everything here is a function of values: no I/O, no async, no clock, no randomness. The operator plans with
//! it, the node routes with it, the simulation drives it.
//!
//! The ring *is* the slot space of Redis Cluster. A member holds many [`Token`]s; a token is a slot position,
//! and a slot belongs to the first token clockwise (towards higher slots, wrapping), so a member owns the arcs
//! that end at its tokens.

mod document;
mod hash_ring;
mod ids;
mod slot;

pub use document::{
    Address, DocumentError, Handoff, Member, MemberState, RingDocument, RING_DOCUMENT_KEY,
};
pub use hash_ring::HashRing;
pub use ids::{ClusterUid, Epoch, IdError, Incarnation, NodeId, Weight, Zone};
pub use slot::{SLOT_COUNT, Slot, SlotError, SlotRange, SlotSet};
