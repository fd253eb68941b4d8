//! Where a slot is served: the border between the data path and the node's knowledge of the ring.
//!
//! A connection asks [`Routing::access`] while it holds the slot's lock. Whoever takes a slot away (to freeze it
//! for a handoff, to follow a newer ring) changes the answer under the same lock, so that no command is in
//! the middle of the slot when the answer changes. The data path never reads the ring document itself.

mod listing;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use annulus_ring::Access;
use annulus_ring::{Address, ClusterUid, Epoch, MemberState, NodeId, RingDocument, Slot, SlotRange, Zone};
pub use listing::Listed;

/// The node's place in the ring, read by every connection.
///
/// Callers hold the slot's lock while they ask for `access`; implementers answer it with one atomic load and
/// never take a slot's lock themselves.
pub trait Routing: Send + Sync + 'static {
    /// What to do with a command on this slot now.
    fn access(&self, slot: Slot) -> Access;

    /// Who serves a slot that is [`Access::Elsewhere`]; `None` when that is not known.
    fn moved_to(&self, slot: Slot) -> Option<Address>;

    /// Of a slot that is [`Access::Elsewhere`]: whether this node has a copy that may be read, and up to which moment,
    /// on the journal's clock, the copy has everything; 0 when that is not known.
    fn copied_until_ms(&self, _slot: Slot) -> Option<u64> {
        None
    }

    /// Which time it is that this node serves the slot: what was learned of its keys holds for one of them, since writes go to
    /// somebody else in between.
    fn tenure(&self, _slot: Slot) -> Tenure {
        Tenure::default()
    }

    /// Grows whenever a slot has come to be served here. Looks at every slot.
    fn gains(&self) -> u64 {
        0
    }

    /// The ring as clients see it, for the `CLUSTER` commands.
    fn view(&self) -> Arc<ClusterView>;
}

/// A time in which a slot is served by this process, from when it comes until it goes; counted by slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Tenure(pub u32);

/// The ring as clients see it.
#[derive(Debug, Clone)]
pub struct ClusterView {
    /// The cluster that the node belongs to.
    pub cluster_uid: ClusterUid,
    /// The node that answers.
    pub own_id: NodeId,
    /// The ring's version; [`Epoch::NONE`] without a ring.
    pub epoch: Epoch,
    /// Every member, in the order of their ids. Empty without a ring.
    pub members: Vec<MemberView>,
}

/// A member of the ring as clients see it.
#[derive(Debug, Clone)]
pub struct MemberView {
    /// Its stable name.
    pub id: NodeId,
    /// The 40 hexadecimal digits that clients know it by: [`NodeId::wire_id`].
    pub wire_id: String,
    /// Where clients reach it. `None` for the answering node itself, when it announces no address: clients are
    /// then told the address that they are connected to.
    pub address: Option<Address>,
    /// Its failure domain.
    pub zone: Option<Zone>,
    /// Its state.
    pub state: MemberState,
    /// The slots that it owns, in order and without gaps that could be joined.
    pub ranges: Vec<SlotRange>,
    /// The slots that it has whole copies of, likewise.
    pub copies: Vec<SlotRange>,
}

impl ClusterView {
    /// The view of a node that has no ring.
    pub fn without_ring(cluster_uid: ClusterUid, own_id: NodeId) -> Self {
        Self {
            cluster_uid,
            own_id,
            epoch: Epoch::NONE,
            members: Vec::new(),
        }
    }

    /// The view that a ring document gives.
    pub fn from_document(document: &RingDocument, own_id: NodeId) -> Self {
        let mut ranges: BTreeMap<NodeId, Vec<SlotRange>> = BTreeMap::new();
        for (range, owner) in document.ring().arcs() {
            let of_owner = ranges.entry(owner.clone()).or_default();
            match of_owner.last_mut() {
                Some(last) if last.last.number() + 1 == range.first.number() => last.last = range.last,
                _ => of_owner.push(range),
            }
        }
        let members = document.members.iter().map(|member| MemberView {
            id: member.id.clone(),
            wire_id: member.id.wire_id(&document.cluster_uid),
            address: Some(member.address.clone()),
            zone: member.zone.clone(),
            state: member.state,
            ranges: ranges.remove(&member.id).unwrap_or_default(),
            copies: document
                .replicas
                .get(&member.id)
                .map(|slots| slots.ranges().collect())
                .unwrap_or_default(),
        });
        Self {
            cluster_uid: document.cluster_uid.clone(),
            own_id,
            epoch: document.epoch,
            members: members.collect(),
        }
    }

    /// The answering node's own entry, once the ring lists it.
    pub fn own(&self) -> Option<&MemberView> {
        self.members.iter().find(|member| member.id == self.own_id)
    }

    /// The answering node's wire id, whether the ring lists it or not.
    pub fn own_wire_id(&self) -> String {
        self.own_id.wire_id(&self.cluster_uid)
    }

    /// How many slots have an owner.
    pub fn slots_assigned(&self) -> u32 {
        self.members
            .iter()
            .flat_map(|member| &member.ranges)
            .map(|range| u32::from(range.len()))
            .sum()
    }
}

/// The routing of a node that is its own cluster of one: it owns every slot, and nothing ever changes.
///
/// Commands whose keys lie in several slots are refused here too: what works on one node then works on a
/// cluster.
pub struct Standalone {
    view: Arc<ClusterView>,
}

impl Standalone {
    /// A ring of this one node.
    pub fn new(cluster_uid: ClusterUid, own_id: NodeId) -> Self {
        let own = MemberView {
            wire_id: own_id.wire_id(&cluster_uid),
            id: own_id.clone(),
            address: None,
            zone: None,
            state: MemberState::Active,
            ranges: vec![SlotRange {
                first: Slot::ZERO,
                last: Slot::MAX,
            }],
            copies: Vec::new(),
        };
        let view = ClusterView {
            cluster_uid,
            own_id,
            epoch: Epoch(1),
            members: vec![own],
        };
        Self { view: Arc::new(view) }
    }

    /// The same, telling clients this address and failure domain.
    #[must_use]
    pub fn announcing(mut self, address: Option<&Address>, zone: Option<&Zone>) -> Self {
        for own in &mut Arc::make_mut(&mut self.view).members {
            (own.address, own.zone) = (address.cloned(), zone.cloned());
        }
        self
    }
}

impl Routing for Standalone {
    fn access(&self, _slot: Slot) -> Access {
        Access::ReadWrite
    }

    fn moved_to(&self, _slot: Slot) -> Option<Address> {
        None
    }

    fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view)
    }
}
