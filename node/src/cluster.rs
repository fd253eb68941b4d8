//! The node's place in the ring: the one owner of its [`SlotTable`], and of the entries of slots that come and go.
//!
//! Invariant: what the data path reads for a slot is what the table says, and it changes only under the slot's
//! lock; so a write was either answered before a freeze, and is in the handoff's snapshot, or it is refused.
//! Entries of a slot are in the store only while the table holds it as served or being pulled.
//!
//! Locks are taken in this order: the table's, then a slot's, then the publication's. The data path takes a
//! slot's lock and then, at most, the publication's; it never waits for the table.
//!
//! Nothing here reads a clock, a socket or a file, and no document enters that is not newer and of this cluster.

mod handoff;
mod published;
pub mod ring_source;

use std::collections::BTreeMap;
use std::sync::Arc;

use annulus_ring::{
    Access, Address, ClusterUid, DocumentError, Epoch, Incarnation, MemberState, NodeId, Refusal,
    RingDocument, Slot, SlotSet, SlotTable,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use handoff::{FrozenSlot, PullTicket, ReceiveError, Wanted};
use published::{AccessTable, Published};

use crate::routing::{ClusterView, Routing};
use crate::store::Store;

/// Which life of which node of which cluster this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_uid: ClusterUid,
    /// The node's stable name in it.
    pub node_id: NodeId,
    /// Drawn at boot.
    pub incarnation: Incarnation,
}

/// What the operator acts on, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The adopted epoch.
    pub epoch: Epoch,
    /// This life's state in the ring; `None` when the ring doesn't list it.
    pub state: Option<MemberState>,
    /// Slots of this epoch's handoffs that this node serves already as their target.
    pub activated: SlotSet,
    /// Nothing of this epoch's handoffs towards this node is in flight or to be begun.
    pub settled: bool,
}

impl Progress {
    /// Whether the node has its share: the ring lists this life as more than a newcomer.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, Some(MemberState::Active | MemberState::Draining))
    }
}

/// Counts of slots by what this node does with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotCounts {
    /// Read and written here.
    pub owned: u32,
    /// Only read here for a moment, while they are handed over.
    pub frozen: u32,
}

/// The node's place in the ring; see the module.
pub struct ClusterState {
    identity: Identity,
    store: Arc<Store>,
    control: Mutex<Control>,
    access: AccessTable,
    published: RwLock<Arc<Published>>,
    changes: watch::Sender<u64>,
}

/// What only changes under the table's lock.
struct Control {
    table: SlotTable,
    /// The pull that may write into a slot that is being pulled.
    pulls: BTreeMap<Slot, u64>,
    /// Names freezes and pulls; never used twice.
    next_id: u64,
}

impl Control {
    fn draw_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl ClusterState {
    /// A node without a ring.
    pub fn new(identity: Identity, store: Arc<Store>) -> Self {
        let view = ClusterView::without_ring(identity.cluster_uid.clone(), identity.node_id.clone());
        let table = SlotTable::new(identity.node_id.clone(), identity.incarnation);
        Self {
            identity,
            store,
            control: Mutex::new(Control {
                table,
                pulls: BTreeMap::new(),
                next_id: 0,
            }),
            access: AccessTable::new(),
            published: RwLock::new(Arc::new(Published::without_ring(view))),
            changes: watch::Sender::new(0),
        }
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Changes whenever something of [`Progress`] may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes over a document that is newer. Returns whether it was; an equal epoch changes nothing.
    pub fn adopt(&self, document: RingDocument) -> Result<bool, Refusal> {
        if document.cluster_uid != self.identity.cluster_uid {
            let (expected, found) = (self.identity.cluster_uid.clone(), document.cluster_uid);
            return Err(DocumentError::OtherCluster { expected, found }.into());
        }
        let mut control = self.control.lock();
        let outcome = control.table.adopt(document)?;
        if !outcome.is_new {
            return Ok(false);
        }
        // What is gained is empty, but for what an unfinished pull may have brought.
        let stale = outcome.lost.union(&outcome.gained);
        control.pulls.retain(|&slot, _| !stale.contains(slot));
        if let Some(document) = control.table.document() {
            *self.published.write() = Arc::new(Published::of(&control.table, document));
        }
        for slot in Slot::all() {
            let access = control.table.access(slot);
            if access != self.access.get(slot) || stale.contains(slot) {
                let mut guard = self.store.lock_slot(slot);
                if stale.contains(slot) {
                    guard.clear();
                }
                if stale.contains(slot) || matches!(access, Access::Elsewhere | Access::Down) {
                    guard.release_clients();
                }
                self.access.set(slot, access);
            }
        }
        drop(control);
        self.note_change();
        Ok(true)
    }

    /// The adopted document.
    pub fn document(&self) -> Option<RingDocument> {
        self.control.lock().table.document().cloned()
    }

    /// The adopted epoch.
    pub fn epoch(&self) -> Epoch {
        self.published.read().view.epoch
    }

    /// What the operator acts on.
    pub fn progress(&self) -> Progress {
        let control = self.control.lock();
        Progress {
            epoch: control.table.epoch(),
            state: control.table.member().map(|member| member.state),
            activated: control.table.activated(),
            settled: control.table.settled(),
        }
    }

    /// How many slots this node serves. Looks at every slot.
    pub fn slot_counts(&self) -> SlotCounts {
        let mut counts = SlotCounts::default();
        for slot in Slot::all() {
            match self.access.get(slot) {
                Access::ReadWrite => counts.owned += 1,
                Access::ReadOnly => counts.frozen += 1,
                Access::Elsewhere | Access::Down => {}
            }
        }
        counts
    }

    /// Shows the data path what the table says of the slot. The caller holds the table's lock, and a guard of
    /// this slot.
    fn publish(&self, control: &Control, slot: Slot) {
        self.published.read().follow(&control.table, slot);
        self.access.set(slot, control.table.access(slot));
    }

    fn note_change(&self) {
        self.changes.send_modify(|revision| *revision += 1);
    }
}

impl Routing for ClusterState {
    #[inline]
    fn access(&self, slot: Slot) -> Access {
        self.access.get(slot)
    }

    fn moved_to(&self, slot: Slot) -> Option<Address> {
        self.published.read().moved_to(slot)
    }

    fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.published.read().view)
    }
}

#[cfg(test)]
mod tests;
