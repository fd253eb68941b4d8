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

mod copies;
mod handoff;
mod published;
pub mod ring_source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use annulus_ring::{
    Access, Address, ClusterUid, Copy, DocumentError, Epoch, Incarnation, MemberState, NodeId, Refusal,
    RingDocument, Slot, SlotSet, SlotTable,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use copies::{CopyChange, CopyRefusal};
use copies::{Neighbour, Promises, link_set};
pub use handoff::{FrozenSlot, PullTicket, ReceiveError, Wanted};
use published::{AccessTable, Published};

use crate::journal::LEASE_MS;
use crate::routing::{ClusterView, Routing, Tenure};
use crate::store::{Store, TenantKey};

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

/// What a node is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needed {
    /// Slots that it serves or owns, and those of which the ring counts on its copy.
    pub slots: u32,
    /// Those that it serves: they get fewer while the ring still says that it owns them.
    pub served: u32,
}

/// The node's place in the ring; see the module.
pub struct ClusterState {
    identity: Identity,
    store: Arc<Store>,
    control: Mutex<Control>,
    access: AccessTable,
    published: RwLock<Arc<Published>>,
    changes: watch::Sender<u64>,
    /// Slots that the document wants to be handed over to this node and that it doesn't serve yet.
    incoming: AtomicU32,
    /// The process was told to end.
    leaving: AtomicBool,
}

/// What only changes under the table's lock.
struct Control {
    table: SlotTable,
    /// The pull that may write into a slot that is being pulled.
    pulls: BTreeMap<Slot, u64>,
    /// Names freezes and pulls; never used twice.
    next_id: u64,
    /// Who is to have copies, by the document.
    wanted: BTreeMap<NodeId, SlotSet>,
    neighbours: BTreeMap<NodeId, Neighbour>,
    promises: Promises,
    /// Whole copies that are being filled anew: the keys that have come.
    refills: BTreeMap<Slot, BTreeSet<TenantKey>>,
    /// The newest stream of each sender, and which life of it.
    streams: BTreeMap<NodeId, (Incarnation, u64)>,
    /// When the last document was adopted, on the journal's clock.
    adopted_at_ms: u64,
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
                wanted: BTreeMap::new(),
                neighbours: BTreeMap::new(),
                promises: Promises::default(),
                refills: BTreeMap::new(),
                streams: BTreeMap::new(),
                adopted_at_ms: 0,
            }),
            access: AccessTable::new(),
            published: RwLock::new(Arc::new(Published::without_ring(view))),
            changes: watch::Sender::new(0),
            incoming: AtomicU32::new(0),
            leaving: AtomicBool::new(false),
        }
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How many bytes of entries may go out a second to fill copies and to hand slots over; 0 is without a limit.
    pub fn transfer_bytes_per_second(&self) -> u64 {
        self.published.read().transfer_bytes_per_second
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
        let now_ms = self.store.journal.clock().now_ms();
        if now_ms.saturating_sub(control.adopted_at_ms) > LEASE_MS {
            control.table.forget_former_servers();
        }
        let follows = document.epoch == control.table.epoch().next();
        let outcome = control.table.adopt(document)?;
        if !outcome.is_new {
            return Ok(false);
        }
        control.adopted_at_ms = now_ms;
        control.refills.clear();
        // What is gained is empty, but for what an unfinished pull may have brought.
        let stale = outcome.lost.union(&outcome.gained);
        control.pulls.retain(|&slot, _| !stale.contains(slot));
        if let Some(document) = control.table.document() {
            *self.published.write() = Arc::new(Published::of(&control.table, document));
        }
        self.incoming.store(incoming(&control.table), Ordering::Relaxed);
        let (has_copies, epoch) = (control.table.has_copies(), control.table.epoch());
        if let Some(document) = control.table.document() {
            self.store.set_copies_factor(document.replication_factor);
            self.store.journal.follow(document.settings);
            self.store.mirrors.follow(document.settings);
            control.wanted = document.wanted_replicas();
        }
        let links_before = Self::follow_neighbours(&mut control);
        let mut filling: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
        for slot in Slot::all() {
            let access = control.table.access(slot);
            let is_served = matches!(access, Access::ReadWrite | Access::ReadOnly);
            let is_copy = control.table.copy(slot) != Copy::None && !is_served;
            let links = (has_copies && is_served)
                .then(|| control.table.copies_of(slot, &control.wanted))
                .flatten()
                .map(|copies| {
                    for id in &copies.filling {
                        filling.entry(id.clone()).or_default().insert(slot);
                    }
                    link_set(&control, &copies)
                });
            let same_links = match (&links, self.store.journal.set_of(slot)) {
                (Some(links), Some(before)) => before.is_same(links),
                (None, None) => true,
                _ => false,
            };
            let is_stale = stale.contains(slot);
            if access == self.access.get(slot)
                && !is_stale
                && same_links
                && !outcome.promoted.contains(slot)
                && self.store.is_copy(slot) == is_copy
                && self.access.is_copied(slot) == control.table.may_read_copy(slot)
            {
                continue;
            }
            let mut guard = self.store.lock_slot(slot);
            if is_stale {
                guard.clear();
                self.access.begin_tenure(slot);
            }
            guard.set_copy(is_copy);
            if is_stale || !is_served {
                guard.release_clients();
            }
            match links {
                Some(links) => {
                    let fenced_until_ms = Self::fenced_until_ms(&control, &outcome.fences, slot);
                    let has_others = !links.required.is_empty();
                    self.store.journal.serve(slot, links, epoch, fenced_until_ms);
                    if has_others && outcome.promoted.contains(slot) {
                        // Each may have more than the others of what was never acknowledged.
                        self.store.journal.cleared(slot);
                    }
                }
                None if is_served => self.store.journal.forget(slot),
                None => self.store.journal.leave(slot, false),
            }
            self.show(&control.table, slot);
        }
        self.store
            .journal
            .sets_changed(&links_before, |slot| self.store.lock_slot(slot));
        self.follow_fills(&mut control, filling, follows);
        self.follow_share();
        drop(control);
        self.note_change();
        Ok(true)
    }

    /// The adopted document.
    pub fn document(&self) -> Option<RingDocument> {
        self.control.lock().table.document().cloned()
    }

    /// Which life of which member serves the slot, as far as this node knows, and where.
    pub fn server_of(&self, slot: Slot) -> Option<(NodeId, Incarnation, Address)> {
        self.published.read().life_of_server(slot)
    }

    /// The member to which `MOVED` sends clients without TLS by that address.
    pub fn server_at(&self, address: &str) -> Option<(NodeId, Incarnation, Address)> {
        self.published.read().life_at(address)
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

    /// Whether the process was told to end.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The process was told to end: others are to take over what it has.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.note_change();
    }

    /// What others may need this node for; nothing when there is nobody else in the ring.
    pub fn needed(&self) -> Needed {
        let control = self.control.lock();
        let is_alone = |document: &RingDocument| document.members.len() < 2;
        if control.table.document().is_none_or(is_alone) {
            return Needed::default();
        }
        let copies = control
            .table
            .document()
            .and_then(|document| document.replicas.get(control.table.id()))
            .map_or(0, SlotSet::len);
        // What was handed over still counts on this node until the ring says who owns it.
        let owned = control.table.document().map_or_else(SlotSet::new, |document| {
            document.ring().slots_of(control.table.id())
        });
        let served = control.table.served();
        Needed {
            slots: served.union(&owned).len() + copies,
            served: served.len(),
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
        self.show(&control.table, slot);
    }

    /// Shows connections what the table says. The caller holds the slot's lock.
    fn show(&self, table: &SlotTable, slot: Slot) {
        let (was_frozen, is_frozen) = self.access.follow(table, slot);
        self.store.moving.note_frozen(was_frozen, is_frozen);
        self.follow_share();
    }

    /// What this node has of the tenants' quotas is for the slots that it serves or is about to get: their entries are here
    /// before they are served.
    fn follow_share(&self) {
        let slots = self.access.served() + self.incoming.load(Ordering::Relaxed);
        self.store.set_slots(slots);
    }

    fn note_change(&self) {
        self.changes.send_modify(|revision| *revision += 1);
    }
}

/// How many slots are to be handed over to this node that it doesn't serve.
fn incoming(table: &SlotTable) -> u32 {
    let Some(document) = table.document() else {
        return 0;
    };
    let mut slots = SlotSet::new();
    for handoff in document
        .handoffs
        .iter()
        .filter(|handoff| handoff.to == *table.id())
    {
        slots.insert_range(handoff.slots);
    }
    slots.difference(&table.served()).len()
}

impl Routing for ClusterState {
    #[inline]
    fn access(&self, slot: Slot) -> Access {
        self.access.get(slot)
    }

    fn moved_to(&self, slot: Slot) -> Option<Address> {
        self.published.read().moved_to(slot)
    }

    fn copied_until_ms(&self, slot: Slot) -> Option<u64> {
        self.access
            .is_copied(slot)
            .then(|| self.published.read().covered_ms(slot))
    }

    fn tenure(&self, slot: Slot) -> Tenure {
        self.access.tenure(slot)
    }

    fn gains(&self) -> u64 {
        self.access.gains()
    }

    fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.published.read().view)
    }
}

#[cfg(test)]
mod tests;
