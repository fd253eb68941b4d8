//! The copies of slots: which ones this node has of others' slots, and who has some of its own.
//!
//! Invariant: whoever is listed for a slot, by the document or by [`SlotTable::declare`], has every write of it that
//! was acknowledged, since its owner acknowledges none without all of them. So any of them can take its place.
//! The owner declares; the planner only writes down what owners have declared (compare the in-sync replicas of
//! Kafka, and the configurations of Viewstamped Replication Revisited, Liskov and Cowling 2012).

use std::collections::BTreeMap;

use super::{SlotTable, State, index_of};
use crate::{Handoff, Incarnation, Member, NodeId, RingDocument, Slot, SlotSet};

/// What there is here of a slot that another node serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Copy {
    /// Nothing.
    #[default]
    None,
    /// Part of it: it is being filled.
    Filling,
    /// All of it, kept up by whoever serves the slot.
    Complete,
}

/// Who has, or is being given, a copy of a slot that this node serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Copies {
    /// They have whole copies: nothing is acknowledged without them.
    pub required: Vec<NodeId>,
    /// They are to be given one.
    pub filling: Vec<NodeId>,
}

impl SlotTable {
    /// Whether the ring asks for copies at all.
    pub fn has_copies(&self) -> bool {
        self.document
            .as_ref()
            .is_some_and(|document| document.replication_factor > 1)
    }

    /// What there is here of a slot that another node serves.
    pub fn copy(&self, slot: Slot) -> Copy {
        self.copies[slot.index()]
    }

    /// Whether clients that ask for it may read the slot from this node's copy: the copy is whole, and the document
    /// lists it, so that it has every write that was acknowledged. Not while this node is about to pull the slot.
    pub fn may_read_copy(&self, slot: Slot) -> bool {
        let index = slot.index();
        self.copies[index] == Copy::Complete
            && matches!(self.states[index], State::Elsewhere(_))
            && self
                .document
                .as_ref()
                .is_some_and(|document| document.is_replica(&self.id, slot))
    }

    /// The slots of which this node has a copy, whole or in part.
    pub fn copied(&self) -> SlotSet {
        Slot::all()
            .filter(|slot| self.copies[slot.index()] != Copy::None)
            .collect()
    }

    /// Whether that life of that node may write into this node's copy of the slot: it owns the slot or is the target
    /// of its handoff, and this node is to have a copy and isn't just pulling the slot.
    pub fn may_copy(&self, slot: Slot, sender: &NodeId, incarnation: Incarnation) -> bool {
        let index = slot.index();
        if self.taken_over.contains(slot) && self.handoff_of(slot).is_some_and(|h| h.from == *sender) {
            return false;
        }
        let open = match self.states[index] {
            State::Elsewhere(_) | State::HandedOver(_) | State::Unheld(_) => true,
            State::Incoming { .. } | State::Pulling { .. } => self.copies[index] == Copy::Complete,
            State::Owned | State::Frozen | State::Activated | State::Down => false,
        };
        let wanted = self.copies[index] != Copy::None || self.wanted.contains(slot);
        open && wanted
            && self.servers(slot).iter().any(|&server| {
                self.member_at(server)
                    .is_some_and(|member| member.id == *sender && member.incarnation == incarnation)
            })
    }

    /// Begins to fill a copy. `false` when the sender may not. A copy that was whole stays so, with its entries, since
    /// others may count on it meanwhile: entries that the fill doesn't bring are dropped at its end. Otherwise
    /// ([`copy`](Self::copy) is [`Copy::Filling`] afterwards) what there was is to be dropped now.
    pub fn begin_copy(&mut self, slot: Slot, sender: &NodeId, incarnation: Incarnation) -> bool {
        let may = self.may_copy(slot, sender, incarnation);
        if may {
            let copy = &mut self.copies[slot.index()];
            if *copy != Copy::Complete {
                *copy = Copy::Filling;
            }
            // What the source of the handoff sent before may still be on its way, in a stream of its own.
            if self.handoff_of(slot).is_some_and(|handoff| handoff.to == *sender) {
                self.taken_over.insert(slot);
            }
        }
        may
    }

    /// A change came from that sender. If it is the target of the slot's handoff, what the source sent before doesn't count
    /// any more.
    pub fn note_change_from(&mut self, slot: Slot, sender: &NodeId) {
        if self.handoff_of(slot).is_some_and(|handoff| handoff.to == *sender) {
            self.taken_over.insert(slot);
        }
    }

    /// The copy is whole from now on. `false` when it isn't being filled by that sender.
    pub fn complete_copy(&mut self, slot: Slot, sender: &NodeId, incarnation: Incarnation) -> bool {
        let may = self.may_copy(slot, sender, incarnation) && self.copies[slot.index()] != Copy::None;
        if may {
            self.copies[slot.index()] = Copy::Complete;
        }
        may
    }

    /// Target: what there is of a copy of a slot that is being pulled is to be dropped, since the source sends
    /// everything. Whether there was any.
    pub fn forget_copy(&mut self, slot: Slot) -> bool {
        let index = slot.index();
        matches!(self.states[index], State::Pulling { .. })
            && std::mem::take(&mut self.copies[index]) != Copy::None
    }

    /// Who has, or is being given, a copy of each slot that this node serves; `None` for the others.
    pub fn copies_of(&self, slot: Slot, wanted: &BTreeMap<NodeId, SlotSet>) -> Option<Copies> {
        let document = self.document.as_ref()?;
        let state = self.states[slot.index()];
        if !state.is_served() || document.replication_factor < 2 {
            return None;
        }
        let handoff = self.handoff_of(slot);
        let listed = |id: &NodeId| {
            document.is_replica(id, slot) || self.declared.get(id).is_some_and(|slots| slots.contains(slot))
        };
        // Its target is sent the slot by the handoff.
        let is_target = |id: &NodeId| handoff.is_some_and(|handoff| handoff.to == *id);
        let mut copies = Copies::default();
        for member in document.members.iter().filter(|member| member.id != self.id) {
            if listed(&member.id) {
                copies.required.push(member.id.clone());
            } else if !is_target(&member.id)
                && wanted.get(&member.id).is_some_and(|slots| slots.contains(slot))
            {
                copies.filling.push(member.id.clone());
            }
        }
        Some(copies)
    }

    /// Owner: that node has a whole copy of the slot, and nothing is acknowledged without it from now on. `false` when
    /// this node doesn't serve the slot or the document has no such member.
    pub fn declare(&mut self, slot: Slot, id: &NodeId) -> bool {
        let known = self
            .document
            .as_ref()
            .is_some_and(|document| document.member(id).is_some());
        let may = known && self.states[slot.index()].is_served();
        if may {
            self.declared.entry(id.clone()).or_default().insert(slot);
        }
        may
    }

    /// Owner: what was declared and does not stand in the document, by member; for the report.
    pub fn declared(&self) -> &BTreeMap<NodeId, SlotSet> {
        &self.declared
    }

    /// The copies under a new document, and those that it wants. A copy is kept while it is listed, or while the same
    /// life of the same node serves the slot and this one is still to have a copy.
    pub(super) fn copies_under(&self, document: &RingDocument, states: &[State]) -> (Vec<Copy>, SlotSet) {
        let mut copies = vec![Copy::None; states.len()];
        let listed = document.replicas.get(&self.id).cloned().unwrap_or_default();
        let to_have = document.wanted_replicas().remove(&self.id).unwrap_or_default();
        let wanted = listed.union(&to_have);
        for slot in Slot::all() {
            let (index, after) = (slot.index(), states[slot.index()]);
            if after.is_served() || after == State::Down {
                continue;
            }
            let before = self.copies[index];
            let handed_over = matches!(after, State::HandedOver(_)) && document.replication_factor > 1;
            // Also when the target of a handoff has become the owner: it may have filled the copy.
            let same_server = || {
                let new = match after {
                    State::Elsewhere(owner)
                    | State::Incoming { from: owner, .. }
                    | State::Pulling { from: owner } => document.members.get(usize::from(owner)),
                    _ => None,
                };
                let same = |old: &Member| {
                    new.is_some_and(|new| old.id == new.id && old.incarnation == new.incarnation)
                };
                self.servers(slot)
                    .into_iter()
                    .filter_map(|old| self.member_at(old))
                    .any(same)
            };
            let keeps = match before {
                Copy::None => false,
                Copy::Complete if handed_over || listed.contains(slot) => true,
                Copy::Filling | Copy::Complete => to_have.contains(slot) && same_server(),
            };
            if keeps {
                copies[index] = before;
            }
        }
        (copies, wanted)
    }

    /// Who may still believe to serve slots that this node serves now and did not before.
    pub(super) fn fences(&self, states: &[State]) -> BTreeMap<NodeId, SlotSet> {
        let new: SlotSet = Slot::all()
            .filter(|slot| states[slot.index()].is_served() && !self.states[slot.index()].is_served())
            .collect();
        let fences = self
            .former
            .iter()
            .map(|(id, slots)| (id.clone(), slots.intersection(&new)));
        fences.filter(|(_, slots)| !slots.is_empty()).collect()
    }

    /// Every promise that was made under a document before the present one has run out: who served what by those
    /// documents alone is no reason for a fence any more. To be called a lease time after the last document was
    /// adopted; a fence that is longer than needed is the price of not calling it.
    pub fn forget_former_servers(&mut self) {
        self.former.clear();
    }

    /// Notes who serves what, or may begin to at any moment, by the document that is replaced.
    pub(super) fn note_former_servers(&mut self) {
        let Some(document) = &self.document else { return };
        let ring = document.ring();
        let owners = ring.arcs();
        let targets = document
            .handoffs
            .iter()
            .map(|handoff| (handoff.slots, &handoff.to));
        for (slots, id) in owners.chain(targets).filter(|(_, id)| **id != self.id) {
            self.former.entry(id.clone()).or_default().insert_range(slots);
        }
    }

    /// Keeps of the declared copies what a new document does not tell and does not take back: those of slots that are
    /// served still, by the same lives. When documents were skipped, a copy may have been dropped by one of them and
    /// be wanted again by this one, so that nothing is known of it; but the source of a handoff keeps what it handed
    /// over while the handoff stands.
    pub(super) fn follow_declared(&mut self, document: &RingDocument, states: &[State]) {
        let mut declared = std::mem::take(&mut self.declared);
        if declared.is_empty() {
            return;
        }
        let wanted = document.wanted_replicas();
        let follows = document.epoch == self.epoch().next();
        declared.retain(|id, slots| {
            let same_life = document.member(id).is_some_and(|new| {
                let old = self.document.as_ref().and_then(|old| old.member(id));
                old.is_some_and(|old| old.incarnation == new.incarnation)
                    && new.state != crate::MemberState::Down
            });
            let stays = |slot: &Slot| {
                states[slot.index()].is_served()
                    && self.states[slot.index()].is_served()
                    && !document.is_replica(id, *slot)
                    && (follows && wanted.get(id).is_some_and(|wanted| wanted.contains(*slot))
                        || states[slot.index()] == State::Activated
                            && self.handoff_of(*slot).is_some_and(|handoff| handoff.from == *id))
            };
            *slots = slots.iter().filter(stays).collect();
            same_life && !slots.is_empty()
        });
        self.declared = declared;
    }

    /// Who serves the slot, or may begin to at any moment: its owner, and the target of its handoff. As numbers of the
    /// document's members.
    fn servers(&self, slot: Slot) -> Vec<u16> {
        let Some(document) = &self.document else {
            return Vec::new();
        };
        if let State::Elsewhere(owner) = self.states[slot.index()]
            && document.handoffs.is_empty()
        {
            return vec![owner];
        }
        let owner = self.owner_at(slot).map(|owner| index_of(document, &owner.id));
        let target = self
            .handoff_of(slot)
            .map(|handoff| index_of(document, &handoff.to));
        owner.into_iter().chain(target).collect()
    }

    /// The slot's owner by the adopted document's tokens.
    fn owner_at(&self, slot: Slot) -> Option<&Member> {
        match self.states[slot.index()] {
            State::Elsewhere(owner)
            | State::Incoming { from: owner, .. }
            | State::Pulling { from: owner } => self.member_at(owner),
            State::Activated => {
                let from = &self.handoff_of(slot)?.from;
                self.document.as_ref()?.member(from)
            }
            State::Owned | State::Frozen | State::HandedOver(_) | State::Unheld(_) => {
                self.document.as_ref()?.member(&self.id)
            }
            State::Down => None,
        }
    }

    fn handoff_of(&self, slot: Slot) -> Option<&Handoff> {
        let handoffs = &self.document.as_ref()?.handoffs;
        handoffs.iter().find(|handoff| handoff.slots.contains(slot))
    }
}
