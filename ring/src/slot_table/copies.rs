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

    /// Begins to fill a copy: what there was of it is to be dropped. `false` when the sender may not.
    pub fn begin_copy(&mut self, slot: Slot, sender: &NodeId, incarnation: Incarnation) -> bool {
        let may = self.may_copy(slot, sender, incarnation);
        if may {
            self.copies[slot.index()] = Copy::Filling;
        }
        may
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
            document.is_replica(id, slot)
                || self.declared.get(id).is_some_and(|slots| slots.contains(slot))
                // The source of a handoff keeps what it handed over.
                || handoff.is_some_and(|handoff| state == State::Activated && handoff.from == *id)
        };
        // Its target is sent the slot by the handoff.
        let is_target = |id: &NodeId| handoff.is_some_and(|handoff| handoff.to == *id && !handoff.cancelled);
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
            let same_server = || {
                let new = match after {
                    State::Elsewhere(owner)
                    | State::Incoming { from: owner, .. }
                    | State::Pulling { from: owner } => document.members.get(usize::from(owner)),
                    _ => None,
                };
                self.owner_at(slot)
                    .zip(new)
                    .is_some_and(|(old, new)| old.id == new.id && old.incarnation == new.incarnation)
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
        let mut fences: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
        for slot in Slot::all() {
            let index = slot.index();
            if states[index].is_served() && !self.states[index].is_served() {
                for server in self.servers(slot) {
                    if let Some(member) = self.member_at(server).filter(|member| member.id != self.id) {
                        fences.entry(member.id.clone()).or_default().insert(slot);
                    }
                }
            }
        }
        fences
    }

    /// Keeps of the declared copies what a new document does not tell and does not take back: those of slots that are
    /// served still, by the same lives.
    pub(super) fn follow_declared(&mut self, document: &RingDocument, states: &[State]) {
        let mut declared = std::mem::take(&mut self.declared);
        if declared.is_empty() {
            return;
        }
        let wanted = document.wanted_replicas();
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
                    && wanted.get(id).is_some_and(|wanted| wanted.contains(*slot))
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
