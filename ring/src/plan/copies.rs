//! Copies: who takes over from whom, who is listed, and who is not needed any more.
//!
//! Invariant: whoever is listed for a slot has all that was acknowledged of it (see `slot_table/copies.rs`), so any
//! listed member that lives may become the owner, whatever the owner, or the target of a handoff, was in the middle
//! of: at the next epoch the copies answer neither of them.

use std::collections::{BTreeMap, BTreeSet};

use super::next::{Draft, ring_of};
use super::{ChangeReason, WaitReason};
use crate::document::wanted_replicas;
use crate::{Handoff, MemberState, NodeId, Slot, SlotRange, SlotSet, Zone};

/// By the last slot of each arc, in order: the members clockwise from its owner.
struct Clockwise(Vec<(Slot, Vec<NodeId>)>);

impl Clockwise {
    fn members(&self, slot: Slot) -> impl Iterator<Item = &NodeId> {
        let arc = self.0.partition_point(|(last, _)| *last < slot);
        self.0.get(arc).into_iter().flat_map(|(_, members)| members)
    }
}

impl Draft<'_> {
    /// Of a slot that was handed over the source has a copy, when the target says so, and the target stops being one.
    pub(super) fn keep_as_copies(&mut self, handoff: &Handoff, moved: &SlotSet) {
        self.unlist(&handoff.to, moved);
        let target = self.same_life(&handoff.to);
        let vouched = target.and_then(|target| target.declared.get(&handoff.from));
        if let Some(vouched) = vouched
            && !self.has_restarted(&handoff.from)
        {
            self.list(&handoff.from, &moved.intersection(vouched));
        }
    }

    fn list(&mut self, id: &NodeId, slots: &SlotSet) {
        if !slots.is_empty() {
            let listed = self.replicas.entry(id.clone()).or_default();
            *listed = listed.union(slots);
        }
    }

    fn unlist(&mut self, id: &NodeId, slots: &SlotSet) {
        if let Some(listed) = self.replicas.get_mut(id) {
            *listed = listed.difference(slots);
            if listed.is_empty() {
                self.replicas.remove(id);
            }
        }
    }

    /// Who died, in the life that the document lists, owns nothing any more that has a copy elsewhere.
    pub(super) fn replace_lost(&mut self) {
        let lost: BTreeSet<NodeId> = self
            .members
            .iter()
            .filter(|member| {
                self.has_restarted(&member.id)
                    || self.failed.contains(&member.id) && member.state != MemberState::Down
            })
            .map(|member| member.id.clone())
            .collect();
        if lost.is_empty() || self.current.replication_factor < 2 {
            return;
        }
        // Whose process ended has nothing. What the others have counts until somebody else is there for the slot.
        for id in &lost {
            if self.has_restarted(id) {
                self.replicas.remove(id);
            }
        }
        let promoted = self.promote(&lost);
        for ((from, to), slots) in promoted {
            self.changes.push(ChangeReason::Promoted { from, to, slots });
        }
        let served: SlotSet = Slot::all()
            .filter(|slot| !lost.contains(&self.owners[slot.index()]))
            .collect();
        for id in &lost {
            self.unlist(id, &served);
        }
        let silent: Vec<&NodeId> = lost.iter().filter(|id| !self.has_restarted(id)).collect();
        for id in silent {
            let slots_without_copy = self.owned(id);
            if let Ok(index) = self.members.binary_search_by(|member| member.id.cmp(id))
                && slots_without_copy == 0
                && !self.replicas.contains_key(id)
            {
                self.members[index].state = MemberState::Down;
            } else if self.current.replicas.get(id) == self.replicas.get(id)
                && self.current.ring().owned_counts().get(id) == Some(&slots_without_copy)
            {
                // Nothing of it could be saved before either.
                continue;
            }
            self.changes.push(ChangeReason::Failed {
                id: id.clone(),
                slots_without_copy,
            });
        }
    }

    /// Gives every slot of the dead that has a copy to the first clockwise that has one. Handoffs of such slots end:
    /// where their target serves the slot already, it is the owner.
    fn promote(&mut self, lost: &BTreeSet<NodeId>) -> BTreeMap<(NodeId, NodeId), u32> {
        let order = self.clockwise();
        let mut promoted: BTreeMap<(NodeId, NodeId), u32> = BTreeMap::new();
        let mut ended = SlotSet::new();
        for slot in Slot::all() {
            let owner = self.owners[slot.index()].clone();
            let handoff = self.handoffs.iter().find(|handoff| handoff.slots.contains(slot));
            if !lost.contains(&owner) {
                if handoff.is_some_and(|handoff| lost.contains(&handoff.to)) {
                    ended.insert(slot);
                }
                continue;
            }
            let target =
                handoff.filter(|handoff| self.serves_already(handoff, slot) && !lost.contains(&handoff.to));
            let next = target.map(|handoff| handoff.to.clone()).or_else(|| {
                let has_copy = |id: &&NodeId| {
                    !lost.contains(*id) && self.replicas.get(*id).is_some_and(|listed| listed.contains(slot))
                };
                let clockwise = order.members(slot).find(has_copy);
                clockwise.or_else(|| self.replicas.keys().find(has_copy)).cloned()
            });
            if let Some(next) = next {
                if let Some(listed) = self.replicas.get_mut(&next) {
                    listed.remove(slot);
                }
                self.owners[slot.index()] = next.clone();
                ended.insert(slot);
                self.promoted.insert(slot);
                *promoted.entry((owner, next)).or_default() += 1;
            }
        }
        self.replicas.retain(|_, listed| !listed.is_empty());
        self.end_handoffs(&ended);
        promoted
    }

    fn serves_already(&self, handoff: &Handoff, slot: Slot) -> bool {
        self.same_life(&handoff.to)
            .is_some_and(|target| target.epoch == self.current.epoch && target.activated.contains(slot))
    }

    /// Takes slots out of whatever handoffs they are in.
    fn end_handoffs(&mut self, slots: &SlotSet) {
        if slots.is_empty() {
            return;
        }
        for handoff in std::mem::take(&mut self.handoffs) {
            let whole: SlotSet = [handoff.slots].into_iter().collect();
            for range in whole.difference(slots).ranges() {
                self.handoffs.push(Handoff {
                    slots: range,
                    ..handoff.clone()
                });
            }
        }
    }

    /// The members clockwise from the owner of each slot, as many as have copies usually.
    fn clockwise(&self) -> Clockwise {
        let zones: BTreeMap<NodeId, Option<Zone>> = self
            .members
            .iter()
            .map(|member| (member.id.clone(), member.zone.clone()))
            .collect();
        let ring = ring_of(&self.owners);
        let factor = self.factor().max(self.current.replication_factor);
        let copies = ring.copies_among(factor, &zones).into_iter();
        Clockwise(
            copies
                .map(|(range, members)| (range.last, members.into_iter().skip(1).cloned().collect()))
                .collect(),
        )
    }

    /// Whether a member was told to end, and has not ended yet.
    pub(super) fn somebody_leaves(&self) -> bool {
        self.members.iter().any(|member| self.is_leaving(&member.id))
    }

    pub(super) fn is_leaving(&self, id: &NodeId) -> bool {
        self.same_life(id).is_some_and(|node| node.leaving)
    }

    /// Whether there are copies, or are to be.
    pub(super) fn has_copies(&self) -> bool {
        self.factor() > 1 || !self.replicas.is_empty()
    }

    /// The owners once every leaver's slots are with somebody who has a copy of them. They stay where there is no copy yet.
    /// `None` when nobody leaves, and without copies: then slots move with their data, as when a member goes for good.
    pub(super) fn owners_without_leavers(&self) -> Option<Vec<NodeId>> {
        if !self.has_copies() || !self.somebody_leaves() {
            return None;
        }
        let order = self.clockwise();
        let mut owners = self.owners_after_handoffs();
        for slot in Slot::all() {
            if !self.is_leaving(&owners[slot.index()]) {
                continue;
            }
            let takes = |id: &&NodeId| {
                let has_copy = self.replicas.get(*id).is_some_and(|listed| listed.contains(slot));
                has_copy && self.same_life(id).is_some_and(|node| !node.leaving)
            };
            let clockwise = || order.members(slot).chain(self.replicas.keys()).filter(takes);
            let stays = |id: &&NodeId| self.is_desired(id);
            if let Some(next) = clockwise().find(stays).or_else(|| clockwise().next()) {
                owners[slot.index()] = next.clone();
            }
        }
        Some(owners)
    }

    /// Lists the copies that owners have declared, and drops those that are not needed any more.
    pub(super) fn follow_copies(&mut self) {
        let wanted = self.wanted_replicas();
        self.list_declared(&wanted);
        self.drop_unwanted(&wanted);
        let missing = wanted.iter().map(|(id, slots)| {
            let listed = self.replicas.get(id).cloned().unwrap_or_default();
            (id.clone(), slots.difference(&listed).len())
        });
        let missing: Vec<_> = missing.filter(|(_, slots)| *slots > 0).collect();
        self.waits.extend(
            missing
                .into_iter()
                .map(|(id, slots)| WaitReason::Copying { id, slots }),
        );
    }

    /// Who is to have copies under the owners of this draft.
    fn wanted_replicas(&self) -> BTreeMap<NodeId, SlotSet> {
        wanted_replicas(&ring_of(&self.owners), self.factor(), &self.members)
    }

    /// An owner's word counts for what it still owns. Each change of the ring costs every node something, so a pair's
    /// copies are listed when all of them are there, or when the ring changes anyway.
    fn list_declared(&mut self, wanted: &BTreeMap<NodeId, SlotSet>) {
        let mut listed: BTreeMap<NodeId, u32> = BTreeMap::new();
        let changes_anyway = !self.changes.is_empty();
        let moving: SlotSet = self.handoffs.iter().map(|handoff| handoff.slots).collect();
        let observed: Vec<_> = self.observed.values().copied().collect();
        for node in observed {
            let speaks_for_it = self.same_life(&node.id).is_some() && node.epoch == self.current.epoch;
            if !speaks_for_it || node.declared.is_empty() {
                continue;
            }
            // During a handoff its target may serve the slot already, and know nothing of what the source declared.
            let owns: SlotSet = Slot::all()
                .filter(|slot| self.owners[slot.index()] == node.id && !moving.contains(*slot))
                .collect();
            for (id, declared) in &node.declared {
                if self.has_restarted(id) || self.failed.contains(id) {
                    continue;
                }
                let Some(wanted) = wanted.get(id) else { continue };
                let before = self.replicas.get(id).cloned().unwrap_or_default();
                let open = wanted.intersection(&owns).difference(&before);
                let new = declared.intersection(&open);
                if new.is_empty() || !(changes_anyway || new == open) {
                    continue;
                }
                *listed.entry(id.clone()).or_default() += new.len();
                self.list(id, &new);
            }
        }
        self.changes.extend(
            listed
                .into_iter()
                .map(|(id, slots)| ChangeReason::Copied { id, slots }),
        );
    }

    /// A copy that is not wanted goes when every wanted one of its slot is there, and there are as many as there are
    /// to be, or can be.
    fn drop_unwanted(&mut self, wanted: &BTreeMap<NodeId, SlotSet>) {
        let mut missing = SlotSet::new();
        for (id, slots) in wanted {
            let listed = self.replicas.get(id).cloned().unwrap_or_default();
            missing = missing.union(&slots.difference(&listed));
        }
        let complete = [SlotRange::ALL]
            .into_iter()
            .collect::<SlotSet>()
            .difference(&missing);
        let mut dropped = Vec::new();
        for (id, listed) in &self.replicas {
            let kept = wanted.get(id).cloned().unwrap_or_default();
            let extra = listed.difference(&kept).intersection(&complete);
            if !extra.is_empty() {
                dropped.push((id.clone(), extra));
            }
        }
        for (id, slots) in dropped {
            self.unlist(&id, &slots);
            self.changes.push(ChangeReason::CopiesDropped {
                id,
                slots: slots.len(),
            });
        }
    }
}
