//! Copies of slots, at both ends: who has, or is given, some of what is served here, and what is copied here.
//!
//! An owner's part: the queue of changes to each neighbour is the journal's; here is which slots a neighbour is to be
//! given, how far that is, and when it may be declared to have them (docs/decisions/0008-replication.md). A copy's
//! part: changes are taken from whoever serves the slot at the same epoch, and each time that is done, a promise is
//! made to answer for none of its slots for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use annulus_ring::{Copies, Copy, Epoch, Incarnation, Member, MemberState, NodeId, Slot, SlotSet};

use super::{ClusterState, Control};
use crate::journal::{LEASE_MS, Link, LinkSet};
use crate::store::{Entry, SlotGuard, TenantKey, TooBig};

/// Another node that has, or is given, copies of slots that are served here, or may soon be.
pub(super) struct Neighbour {
    link: Arc<Link>,
    /// Slots that it is to be given and that have not been begun.
    to_fill: SlotSet,
    /// Begun, and not acknowledged to be whole.
    in_fill: SlotSet,
    /// Whole by its word.
    filled: SlotSet,
    /// Nothing is acknowledged without it any more; to be declared once it has acknowledged that lsn.
    declaring: Vec<(Slot, u64)>,
}

impl Neighbour {
    fn new(id: NodeId, incarnation: Incarnation) -> Self {
        Self {
            link: Arc::new(Link::new(id, incarnation)),
            to_fill: SlotSet::new(),
            in_fill: SlotSet::new(),
            filled: SlotSet::new(),
            declaring: Vec::new(),
        }
    }

    fn is_at_rest(&self) -> bool {
        self.to_fill.is_empty() && self.in_fill.is_empty() && self.declaring.is_empty()
    }
}

/// What a node may not answer for, and until when, because it gave others its word.
#[derive(Default)]
pub(super) struct Promises(BTreeMap<NodeId, u64>);

impl Promises {
    fn make(&mut self, id: &NodeId, now_ms: u64) {
        self.0.insert(id.clone(), now_ms + LEASE_MS);
    }

    fn until_ms(&self, id: &NodeId) -> u64 {
        self.0.get(id).copied().unwrap_or_default()
    }
}

/// What a message says of one slot.
#[derive(Debug)]
pub struct CopyChange {
    /// The slot.
    pub slot: Slot,
    /// The copy begins anew.
    pub begins: bool,
    /// Afterwards it is whole.
    pub completes: bool,
    /// Entries that are new or changed.
    pub entries: Vec<Entry>,
    /// Keys that are gone.
    pub removed: Vec<TenantKey>,
}

/// Why changes were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopyRefusal {
    /// The two have rings of different epochs.
    #[error("the ring here has epoch {0}")]
    OtherEpoch(Epoch),
    /// The sender has opened another stream since.
    #[error("this is not the sender's newest stream")]
    OldStream,
    /// This node is to have no copy of the slot from that sender.
    #[error("no copy of slot {0} is to come from that node")]
    NotACopy(Slot),
    /// The copies would take more than the budget.
    #[error("there is no room for a copy of slot {0}")]
    NoRoom(Slot),
}

impl ClusterState {
    /// Who is to be sent changes, each with its queue.
    pub fn neighbours(&self) -> Vec<(Member, Arc<Link>)> {
        let control = self.control.lock();
        let Some(document) = control.table.document() else {
            return Vec::new();
        };
        let member = |id: &NodeId| document.member(id).cloned();
        control
            .neighbours
            .iter()
            .filter_map(|(id, neighbour)| Some((member(id)?, Arc::clone(&neighbour.link))))
            .collect()
    }

    /// Owner: after a new document, who has copies of what. The caller goes through all slots and gives each served one the
    /// set that [`link_set`] makes.
    pub(super) fn follow_neighbours(control: &mut Control) -> Vec<Arc<Link>> {
        let before: Vec<Arc<Link>> = control
            .neighbours
            .values()
            .map(|neighbour| Arc::clone(&neighbour.link))
            .collect();
        let Some(document) = control.table.document() else {
            return before;
        };
        let mut wanted: Vec<Member> = Vec::new();
        if document.replication_factor > 1 && control.table.member().is_some() {
            let concerned = concerned(control);
            let others = document
                .members
                .iter()
                .filter(|member| concerned.contains(&&member.id));
            wanted.extend(others.cloned());
        }
        control.neighbours.retain(|id, neighbour| {
            let same = |member: &Member| member.id == *id && member.incarnation == neighbour.link.incarnation;
            wanted.iter().any(same)
        });
        for member in wanted {
            control
                .neighbours
                .entry(member.id.clone())
                .or_insert_with(|| Neighbour::new(member.id, member.incarnation));
        }
        before
    }

    /// Owner: after all slots have their sets: what of `filling`, which is who is to be given which slots, is to be filled
    /// now, and declared again. Unless the document follows the one before directly, copies may have been dropped in
    /// between, and are filled anew.
    pub(super) fn follow_fills(
        &self,
        control: &mut Control,
        mut filling: BTreeMap<NodeId, SlotSet>,
        follows: bool,
    ) {
        let mut again = Vec::new();
        for (id, neighbour) in &mut control.neighbours {
            let filling = filling.remove(id).unwrap_or_default();
            if !follows {
                neighbour.filled = SlotSet::new();
                neighbour.in_fill = SlotSet::new();
            }
            neighbour.filled = neighbour.filled.intersection(&filling);
            neighbour.in_fill = neighbour.in_fill.intersection(&filling);
            neighbour.to_fill = filling
                .difference(&neighbour.filled)
                .difference(&neighbour.in_fill);
            neighbour.declaring.clear();
            again.extend(neighbour.filled.iter().map(|slot| (id.clone(), slot)));
            neighbour.link.notify();
        }
        for (id, slot) in again {
            self.require(control, &id, slot);
        }
    }

    /// Owner: the same for one slot that is served from now on.
    pub(super) fn follow_fill_of(control: &mut Control, slot: Slot) {
        let Some(copies) = control.table.copies_of(slot, &control.wanted) else {
            return;
        };
        for id in copies.filling {
            if let Some(neighbour) = control.neighbours.get_mut(&id) {
                neighbour.to_fill.insert(slot);
                neighbour.link.notify();
            }
        }
    }

    /// Owner: a slot that the neighbour is to be given next, if there is one.
    pub fn next_fill(&self, link: &Link) -> Option<Slot> {
        let mut control = self.control.lock();
        let neighbour = neighbour(&mut control, link)?;
        let slot = neighbour.to_fill.iter().next()?;
        neighbour.to_fill.remove(slot);
        neighbour.in_fill.insert(slot);
        Some(slot)
    }

    /// Owner: the stream to the neighbour ended, and what was begun is begun again.
    pub fn fills_interrupted(&self, link: &Link) {
        let mut control = self.control.lock();
        if let Some(neighbour) = neighbour(&mut control, link) {
            neighbour.to_fill = neighbour.to_fill.union(&neighbour.in_fill);
            neighbour.in_fill = SlotSet::new();
        }
    }

    /// Owner: the neighbour has acknowledged what it was sent, and that with it these slots are whole. Declares what can
    /// be declared.
    pub fn note_copied(&self, link: &Link, whole: &[Slot]) {
        let mut control = self.control.lock();
        for &slot in whole {
            let Some(neighbour) = neighbour(&mut control, link) else {
                return;
            };
            if neighbour.in_fill.remove(slot) {
                neighbour.filled.insert(slot);
                self.require(&mut control, &link.id, slot);
            }
        }
        let acked = link.acked();
        let Some(neighbour) = neighbour(&mut control, link) else {
            return;
        };
        if neighbour.declaring.is_empty() {
            return;
        }
        let mut ready = Vec::new();
        neighbour.declaring.retain(|&(slot, lsn)| {
            let waits = lsn > acked;
            if !waits {
                ready.push(slot);
            }
            waits
        });
        let is_at_rest = neighbour.is_at_rest();
        for slot in &ready {
            control.table.declare(*slot, &link.id);
        }
        drop(control);
        // Whoever waits for copies waits for all of them.
        if is_at_rest && !ready.is_empty() {
            self.note_change();
        }
    }

    /// Owner: from now on nothing of the slot is acknowledged without the neighbour.
    fn require(&self, control: &mut Control, id: &NodeId, slot: Slot) {
        let Some(mut copies) = control.table.copies_of(slot, &control.wanted) else {
            return;
        };
        if !copies.filling.contains(id) {
            return;
        }
        // Those who were declared just before it, by another document's count, are required as well.
        let is_required = |other: &NodeId| {
            other == id
                || control
                    .neighbours
                    .get(other)
                    .is_some_and(|neighbour| neighbour.filled.contains(slot))
        };
        let (required, filling) = copies.filling.into_iter().partition(is_required);
        copies.filling = filling;
        copies.required.extend::<Vec<NodeId>>(required);
        let journal = &self.store.journal;
        let guard = self.store.lock_slot(slot);
        journal.serve(slot, link_set(control, &copies), control.table.epoch(), 0);
        let written = journal.written(slot);
        drop(guard);
        if let Some(neighbour) = control.neighbours.get_mut(id) {
            neighbour.declaring.push((slot, written));
        }
    }

    /// Copy: takes changes of slots that the sender, which has that epoch, serves, and gives it a lease from now on.
    pub fn apply_copies(
        &self,
        (sender, incarnation): (&NodeId, Incarnation),
        (epoch, stream): (Epoch, u64),
        changes: Vec<CopyChange>,
        unix_ms: u64,
    ) -> Result<(), CopyRefusal> {
        let mut control = self.control.lock();
        let newest = control
            .streams
            .entry(sender.clone())
            .and_modify(|newest| *newest = newest_of(*newest, (incarnation, stream)))
            .or_insert((incarnation, stream));
        if *newest != (incarnation, stream) {
            return Err(CopyRefusal::OldStream);
        }
        if control.table.epoch() != epoch {
            return Err(CopyRefusal::OtherEpoch(control.table.epoch()));
        }
        for change in changes {
            let slot = change.slot;
            // A change may come before the slot's turn to be filled: it counts as held, and is sent again then.
            let may = if change.begins || control.table.copy(slot) == Copy::None {
                control.table.begin_copy(slot, sender, incarnation)
            } else {
                control.table.may_copy(slot, sender, incarnation)
            };
            if !may {
                return Err(CopyRefusal::NotACopy(slot));
            }
            control.table.note_change_from(slot, sender);
            let mut guard = self.store.lock_slot(slot);
            guard.set_copy(true);
            if change.begins {
                // A copy that others may count on keeps what it has until the new is whole.
                if control.table.copy(slot) == Copy::Complete {
                    control.refills.insert(slot, BTreeSet::new());
                } else {
                    control.refills.remove(&slot);
                    guard.clear();
                }
            }
            let mut refill = control.refills.remove(&slot);
            if let Some(come) = &mut refill {
                come.extend(
                    change
                        .entries
                        .iter()
                        .map(|entry| (entry.tenant, entry.key.clone())),
                );
            }
            let is_whole = write_copy(&mut guard, change, unix_ms).map_err(|_| CopyRefusal::NoRoom(slot))?;
            match refill {
                Some(come) if is_whole => guard.keep_copied(|key| come.contains(key)),
                Some(come) => {
                    control.refills.insert(slot, come);
                }
                None => {}
            }
            if is_whole && control.table.complete_copy(slot, sender, incarnation) {
                self.show(&control.table, slot);
            }
            drop(guard);
            if self.store.is_full_of_copies() {
                return Err(CopyRefusal::NoRoom(slot));
            }
        }
        let now_ms = self.store.journal.clock().now_ms();
        control.promises.make(sender, now_ms);
        drop(control);
        if self.store.is_over_budget() {
            self.store.evict(unix_ms);
        }
        Ok(())
    }

    /// Copy: every change that the sender had made by then, on this node's clock, has been taken, at that epoch.
    pub fn note_covered(&self, (sender, incarnation): (&NodeId, Incarnation), epoch: Epoch, covered_ms: u64) {
        let published = self.published.read();
        // Who served what by an earlier document is not what counts now.
        if published.view.epoch == epoch {
            published.note_covered(sender, incarnation, covered_ms);
        }
    }

    /// Whether this node has a whole copy of the slot.
    pub fn has_whole_copy(&self, slot: Slot) -> bool {
        self.control.lock().table.copy(slot) == Copy::Complete
    }

    /// Owner: whether nothing of the slot is acknowledged without that node.
    pub fn is_required(&self, slot: Slot, id: &NodeId) -> bool {
        let set = self.store.journal.set_of(slot);
        set.is_some_and(|set| set.required.iter().any(|link| link.id == *id))
    }

    /// What was declared, by node, for the report.
    pub fn declared(&self) -> BTreeMap<NodeId, SlotSet> {
        self.control.lock().table.declared().clone()
    }

    /// Until when this node may not answer for a slot that any of these may still believe to serve.
    pub(super) fn fenced_until_ms(control: &Control, fences: &BTreeMap<NodeId, SlotSet>, slot: Slot) -> u64 {
        fences
            .iter()
            .filter(|(_, slots)| slots.contains(slot))
            .map(|(id, _)| control.promises.until_ms(id))
            .max()
            .unwrap_or_default()
    }
}

/// Of two streams of a sender the one that counts: the later of one life, and that of another life than was known.
fn newest_of(known: (Incarnation, u64), found: (Incarnation, u64)) -> (Incarnation, u64) {
    if known.0 == found.0 && known.1 > found.1 {
        known
    } else {
        found
    }
}

/// Takes what a message says of one slot. Returns whether it is whole with it.
fn write_copy(guard: &mut SlotGuard<'_>, change: CopyChange, unix_ms: u64) -> Result<bool, TooBig> {
    for (tenant, key) in &change.removed {
        guard.remove_copied(*tenant, key);
    }
    for entry in change.entries {
        guard.insert(entry, unix_ms)?;
    }
    Ok(change.completes)
}

fn neighbour<'a>(control: &'a mut Control, link: &Link) -> Option<&'a mut Neighbour> {
    control
        .neighbours
        .get_mut(&link.id)
        .filter(|neighbour| std::ptr::eq(&raw const *neighbour.link, link))
}

/// The links of those who have copies.
pub(super) fn link_set(control: &Control, copies: &Copies) -> LinkSet {
    let links = |ids: &[NodeId]| {
        let link = |id: &NodeId| {
            control
                .neighbours
                .get(id)
                .map(|neighbour| Arc::clone(&neighbour.link))
        };
        ids.iter().filter_map(link).collect()
    };
    LinkSet {
        required: links(&copies.required),
        filling: links(&copies.filling),
    }
}

/// Who has, or is to have, copies of what this node serves or is about to pull.
fn concerned(control: &Control) -> Vec<&NodeId> {
    let Some(document) = control.table.document() else {
        return Vec::new();
    };
    let own = control.table.id();
    let mut slots = control.table.served();
    let mut ids: Vec<&NodeId> = Vec::new();
    for handoff in document.handoffs.iter().filter(|handoff| handoff.to == *own) {
        slots.insert_range(handoff.slots);
        ids.push(&handoff.from);
    }
    let has_some = |of: &BTreeMap<NodeId, SlotSet>, id: &NodeId| {
        of.get(id)
            .is_some_and(|held| !held.intersection(&slots).is_empty())
    };
    let lives = document
        .members
        .iter()
        .filter(|member| member.id != *own && member.state != MemberState::Down);
    for member in lives {
        let declared = has_some(control.table.declared(), &member.id);
        if declared || has_some(&document.replicas, &member.id) || has_some(&control.wanted, &member.id) {
            ids.push(&member.id);
        }
    }
    ids
}
