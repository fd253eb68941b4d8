//! The next document, step by step: each step is one rule, changes the draft and says why.

use std::collections::{BTreeMap, BTreeSet};

use super::{Advance, ChangeReason, Desired, Observed, WaitReason};
use crate::{
    Epoch, Handoff, HashRing, Member, MemberState, Move, NodeId, Placement, RingDocument, SLOT_COUNT,
    SlotRange, SlotSet, moves, place,
};

/// A document in the making.
pub(super) struct Draft<'a> {
    pub(super) current: &'a RingDocument,
    desired: BTreeMap<&'a NodeId, &'a Placement>,
    wanted: &'a Desired,
    pub(super) observed: BTreeMap<&'a NodeId, &'a Observed>,
    pub(super) failed: &'a BTreeSet<NodeId>,
    pub(super) members: Vec<Member>,
    /// Each slot's owner by tokens.
    pub(super) owners: Vec<NodeId>,
    /// Who has whole copies.
    pub(super) replicas: BTreeMap<NodeId, SlotSet>,
    /// What copies take over in this document. They have to adopt it before they can hand it on.
    pub(super) promoted: SlotSet,
    pub(super) handoffs: Vec<Handoff>,
    pub(super) changes: Vec<ChangeReason>,
    pub(super) waits: Vec<WaitReason>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        current: &'a RingDocument,
        wanted: &'a Desired,
        observed: &'a [Observed],
        failed: &'a BTreeSet<NodeId>,
    ) -> Self {
        let mut by_id: BTreeMap<&NodeId, &Observed> = BTreeMap::new();
        for node in observed {
            // Two lives of one name can answer while one of them dies; the one that the document knows goes first.
            let known = current
                .member(&node.id)
                .is_some_and(|member| member.incarnation == node.incarnation);
            if known || !by_id.contains_key(&node.id) {
                by_id.insert(&node.id, node);
            }
        }
        let owners = owners_of(&current.ring());
        Self {
            current,
            desired: wanted
                .members
                .iter()
                .map(|placement| (&placement.id, placement))
                .collect(),
            wanted,
            observed: by_id,
            failed,
            replicas: current.replicas.clone(),
            members: current.members.clone(),
            owners,
            promoted: SlotSet::new(),
            handoffs: current.handoffs.clone(),
            changes: Vec::new(),
            waits: Vec::new(),
        }
    }

    /// The life that the current document lists answers.
    fn answers(&self, id: &NodeId) -> bool {
        self.same_life(id).is_some()
    }

    pub(super) fn same_life(&self, id: &NodeId) -> Option<&'a Observed> {
        let node = self.observed.get(id)?;
        self.current
            .member(id)
            .filter(|member| member.incarnation == node.incarnation)
            .map(|_| *node)
    }

    pub(super) fn is_desired(&self, id: &NodeId) -> bool {
        self.desired.contains_key(id)
    }

    pub(super) fn has_restarted(&self, id: &NodeId) -> bool {
        self.observed.contains_key(id) && self.current.member(id).is_some() && !self.answers(id)
    }

    /// What the target has of a handoff, once that can't change any more at this epoch.
    fn outcome(&self, handoff: &Handoff) -> Option<SlotSet> {
        let target = self
            .same_life(&handoff.to)
            .filter(|target| target.epoch == self.current.epoch)?;
        let has: SlotSet = handoff
            .slots
            .iter()
            .filter(|&slot| target.activated.contains(slot))
            .collect();
        (target.settled || has.len() == u32::from(handoff.slots.len())).then_some(has)
    }

    /// Rule 3: handoffs end together, as soon as those that still wait are only waiting for nodes that do not
    /// answer. A restart ends at once what is done.
    pub(super) fn settle_handoffs(&mut self) {
        let restarted = self
            .current
            .members
            .iter()
            .any(|member| self.has_restarted(&member.id));
        let runs = |h: &Handoff| self.outcome(h).is_none() && self.answers(&h.from) && self.answers(&h.to);
        if !restarted && self.handoffs.iter().any(runs) {
            return;
        }
        let mut moved: BTreeMap<(NodeId, NodeId), (u32, u32)> = BTreeMap::new();
        for handoff in std::mem::take(&mut self.handoffs) {
            let Some(has) = self.outcome(&handoff) else {
                self.handoffs.push(handoff);
                continue;
            };
            for slot in has.iter() {
                self.owners[slot.index()] = handoff.to.clone();
            }
            self.keep_as_copies(&handoff, &has);
            let counts = moved.entry((handoff.from, handoff.to)).or_default();
            counts.0 += has.len();
            counts.1 += u32::from(handoff.slots.len()) - has.len();
        }
        self.changes
            .extend(
                moved
                    .into_iter()
                    .map(|((from, to), (slots_moved, slots_kept))| ChangeReason::Settled {
                        from,
                        to,
                        slots_moved,
                        slots_kept,
                    }),
            );
    }

    /// Rule 2: a restarted member keeps its tokens, empty. Handoffs to the earlier life end. Those from it are
    /// cancelled and not ended: their target may learn at any moment that its last commit had been accepted, so
    /// only the target's word, at an epoch at which it begins nothing new, says who has which slot.
    pub(super) fn follow_restarts(&mut self) {
        let restarted: Vec<NodeId> = self
            .members
            .iter()
            .map(|member| member.id.clone())
            .filter(|id| self.has_restarted(id))
            .collect();
        for id in &restarted {
            self.replicas.remove(id);
            let (Some(node), Some(index)) = (self.observed.get(id), self.index_of(id)) else {
                continue;
            };
            self.members[index].incarnation = node.incarnation;
            self.members[index].address = node.address.clone();
            self.changes.push(ChangeReason::Restarted {
                id: id.clone(),
                slots_emptied: self.owned(id),
            });
        }
        let (lost, kept) = std::mem::take(&mut self.handoffs)
            .into_iter()
            .partition(|h| restarted.contains(&h.to));
        self.handoffs = kept;
        for ((from, to), slots) in per_pair(&lost) {
            self.changes.push(ChangeReason::TargetLost { from, to, slots });
        }
        self.cancel(|handoff| restarted.contains(&handoff.from), true);
    }

    /// Rules 4 and 6: who takes part, with which weight, zone and address.
    pub(super) fn follow_desired(&mut self) {
        for placement in self.desired.values() {
            if self.current.member(&placement.id).is_some() {
                continue;
            }
            if let Some(node) = self.observed.get(&placement.id) {
                self.changes.push(ChangeReason::Joining(placement.id.clone()));
                self.members.push(newcomer(placement, node, MemberState::Joining));
            } else {
                self.waits.push(WaitReason::NewcomerSilent(placement.id.clone()));
            }
        }
        self.members.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        for member in &mut self.members {
            let before = member.clone();
            if let Some(placement) = self.desired.get(&member.id) {
                member.weight = placement.weight;
                member.zone.clone_from(&placement.zone);
            }
            if let Some(node) = self.observed.get(&member.id) {
                member.address.clone_from(&node.address);
            }
            if *member != before {
                self.changes.push(ChangeReason::Updated(member.id.clone()));
            }
        }
        if self.current.settings != self.wanted.settings {
            self.changes.push(ChangeReason::Settings);
        }
        if self.current.replication_factor != self.factor() {
            self.changes.push(ChangeReason::ReplicationFactor(self.factor()));
        }
    }

    /// The ring to go to, from what will be once the standing handoffs are through.
    pub(super) fn target(&self) -> HashRing {
        if let Some(owners) = self.owners_without_leavers() {
            return ring_of(&owners);
        }
        // Whoever is leaving is given nothing back once it has nothing any more.
        self.target_for(|placement| self.index_of(&placement.id).is_some() && !self.is_leaving(&placement.id))
    }

    /// The ring to go to once every desired member takes part.
    pub(super) fn desired_target(&self) -> HashRing {
        self.target_for(|_| true)
    }

    fn target_for(&self, takes_part: impl Fn(&Placement) -> bool) -> HashRing {
        let members: Vec<Placement> = self
            .desired
            .values()
            .filter(|placement| takes_part(placement))
            .map(|&p| p.clone())
            .collect();
        let coming = ring_of(&self.owners_after_handoffs());
        if members.is_empty() {
            coming
        } else {
            place(&coming, &members, &self.wanted.params)
        }
    }

    pub(super) fn owners_after_handoffs(&self) -> Vec<NodeId> {
        let mut owners = self.owners.clone();
        for handoff in self.handoffs.iter().filter(|handoff| !handoff.cancelled) {
            owners[handoff.slots.first.index()..=handoff.slots.last.index()].fill(handoff.to.clone());
        }
        owners
    }

    /// Rule 3, end: a handoff that leads somewhere else than the target ring is cancelled.
    pub(super) fn cancel_unwanted(&mut self, target: &HashRing) {
        let leads_there = |h: &Handoff| h.slots.iter().all(|slot| target.owner(slot) == Some(&h.to));
        let unwanted: Vec<SlotRange> = self
            .handoffs
            .iter()
            .filter(|handoff| !leads_there(handoff) && self.outcome(handoff).is_none())
            .map(|handoff| handoff.slots)
            .collect();
        self.cancel(|handoff| unwanted.contains(&handoff.slots), false);
    }

    fn cancel(&mut self, chosen: impl Fn(&Handoff) -> bool, source_restarted: bool) {
        let mut cancelled = Vec::new();
        for handoff in self
            .handoffs
            .iter_mut()
            .filter(|handoff| !handoff.cancelled && chosen(handoff))
        {
            handoff.cancelled = true;
            cancelled.push(handoff.clone());
        }
        for ((from, to), slots) in per_pair(&cancelled) {
            self.changes.push(ChangeReason::Cancelled {
                from,
                to,
                slots,
                source_restarted,
            });
        }
    }

    /// Rule 4: the next batch, when no handoff is running. Rule 5: nothing from or to a silent node, nor one that may
    /// still have an earlier handoff of the same slots in mind.
    pub(super) fn begin_handoffs(&mut self, target: &HashRing) {
        let standing: SlotSet = self.handoffs.iter().map(|handoff| handoff.slots).collect();
        let answers = |id: &NodeId| self.observed.contains_key(id) && !self.failed.contains(id);
        let behind = |id: &NodeId| {
            let epoch = self.observed.get(id).map(|node| node.epoch)?;
            (epoch != self.current.epoch && epoch != Epoch::NONE).then_some((id.clone(), epoch))
        };
        let running = self.handoffs.iter().any(|h| answers(&h.from) && answers(&h.to));
        // What a leaver gives to its copies takes no data along.
        let slots_max = if self.has_copies() && self.somebody_leaves() {
            u32::from(SLOT_COUNT)
        } else {
            u32::from(self.wanted.handoff_slots_max.max(1))
        };
        let mut budget = slots_max.saturating_sub(standing.len());
        let mut begun = Vec::new();
        let mut blocked = Vec::new();
        let mut late: BTreeMap<NodeId, Epoch> = BTreeMap::new();
        for Move { slots, from, to } in moves(&ring_of(&self.owners), target) {
            let free: SlotSet = slots
                .iter()
                .filter(|&slot| !standing.contains(slot) && !self.promoted.contains(slot))
                .collect();
            for range in free.ranges() {
                let handoff = Handoff {
                    slots: range,
                    from: from.clone(),
                    to: to.clone(),
                    cancelled: false,
                };
                if !(answers(&from) && answers(&to)) {
                    blocked.push(handoff);
                } else if let Some((id, epoch)) = behind(&from).or_else(|| behind(&to)) {
                    late.insert(id, epoch);
                } else if !running && budget > 0 {
                    let range = shortened(range, budget);
                    budget -= u32::from(range.len());
                    begun.push(Handoff {
                        slots: range,
                        ..handoff
                    });
                }
            }
        }
        for ((from, to), slots) in per_pair(&begun) {
            self.changes.push(ChangeReason::Begun { from, to, slots });
        }
        let late = late
            .into_iter()
            .map(|(id, epoch)| WaitReason::NotAdopted { id, epoch });
        self.waits.extend(late);
        for ((from, to), slots) in per_pair(&blocked) {
            let silent = if answers(&from) { to.clone() } else { from.clone() };
            // A leaver that is silent gets a sentence of its own.
            if self.desired.contains_key(&silent) {
                self.waits.push(WaitReason::Silent {
                    silent,
                    from,
                    to,
                    slots,
                });
            }
        }
        self.handoffs.extend(begun);
        self.handoffs.sort_unstable_by_key(|handoff| handoff.slots);
    }

    /// Rule 4: newcomers are members once they have their share; leavers drain, and go when they are empty.
    pub(super) fn update_states(&mut self, target: &HashRing) {
        let mut counts = ring_of(&self.owners).owned_counts();
        for index in 0..self.members.len() {
            let id = self.members[index].id.clone();
            let owned = counts.remove(&id).unwrap_or_default();
            let before = self.members[index].state;
            let state = if !self.desired.contains_key(&id) || self.is_leaving(&id) {
                MemberState::Draining
            } else if owned > 0 && before != MemberState::Joining
                // While somebody leaves nobody is given a share.
                || !self.somebody_leaves() && self.has_its_share(&id, target)
            {
                MemberState::Active
            } else {
                MemberState::Joining
            };
            // The planner alone makes members Down, and whoever answers and is not taken for dead any more is new.
            let answers = self.observed.contains_key(&id) && !self.failed.contains(&id);
            if before == state || before == MemberState::Down && !answers {
                continue;
            }
            self.members[index].state = state;
            match state {
                MemberState::Active => self.changes.push(ChangeReason::Active(id)),
                MemberState::Draining => self.changes.push(ChangeReason::Draining { id, slots: owned }),
                MemberState::Joining | MemberState::Down => self.changes.push(ChangeReason::Joining(id)),
            }
        }
    }

    /// No slot is still to come to that member.
    fn has_its_share(&self, id: &NodeId, target: &HashRing) -> bool {
        target
            .slots_of(id)
            .iter()
            .all(|slot| self.owners[slot.index()] == *id)
    }

    /// Rule 4: who isn't desired, owns nothing and has no handoff is removed. Rule 5: who is silent can't leave.
    pub(super) fn remove_leavers(&mut self) {
        let counts = ring_of(&self.owners).owned_counts();
        for member in std::mem::take(&mut self.members) {
            let id = &member.id;
            let owned = counts.get(id).copied().unwrap_or_default();
            let involved = self
                .handoffs
                .iter()
                .any(|handoff| handoff.from == *id || handoff.to == *id);
            if self.desired.contains_key(id) {
                self.members.push(member);
            } else if owned == 0 && !involved && !self.replicas.contains_key(id) {
                self.changes.push(ChangeReason::Removed(id.clone()));
            } else {
                if !self.observed.contains_key(id) {
                    self.waits.push(WaitReason::LeaverSilent {
                        id: id.clone(),
                        slots: owned,
                    });
                }
                self.members.push(member);
            }
        }
    }

    /// Why the handoffs that stand have not ended.
    pub(super) fn explain_handoffs(&mut self) {
        for ((from, to), slots) in per_pair(&self.handoffs) {
            let reason = match (self.observed.get(&from), self.observed.get(&to)) {
                (_, None) => WaitReason::Silent {
                    silent: to.clone(),
                    from,
                    to,
                    slots,
                },
                (_, Some(node)) if node.epoch < self.current.epoch => WaitReason::NotAdopted {
                    id: to,
                    epoch: node.epoch,
                },
                (None, _) => WaitReason::Silent {
                    silent: from.clone(),
                    from,
                    to,
                    slots,
                },
                (Some(_), Some(node)) => {
                    let pair = self.handoffs.iter().filter(|h| h.from == from && h.to == to);
                    let left = pair
                        .flat_map(|h| h.slots.iter())
                        .filter(|&slot| !node.activated.contains(slot));
                    WaitReason::Moving {
                        slots_left: u32::try_from(left.count()).unwrap_or(u32::MAX),
                        from,
                        to,
                    }
                }
            };
            if !self.waits.contains(&reason) {
                self.waits.push(reason);
            }
        }
    }

    pub(super) fn finish(mut self) -> Advance {
        let document = RingDocument {
            cluster_uid: self.current.cluster_uid.clone(),
            epoch: self.current.epoch.next(),
            replication_factor: self.factor(),
            settings: self.wanted.settings,
            tokens: ring_of(&self.owners).tokens(),
            members: std::mem::take(&mut self.members),
            replicas: std::mem::take(&mut self.replicas),
            handoffs: std::mem::take(&mut self.handoffs),
        };
        debug_assert!(document.validate().is_ok(), "{:?}", document.validate());
        if !self.changes.is_empty() {
            Advance::Next {
                document,
                reasons: self.changes,
            }
        } else if self.waits.is_empty() {
            Advance::Steady
        } else {
            Advance::Waiting(self.waits)
        }
    }

    pub(super) fn factor(&self) -> u8 {
        self.wanted.params.replication_factor.max(1)
    }

    pub(super) fn owned(&self, id: &NodeId) -> u32 {
        u32::try_from(self.owners.iter().filter(|owner| *owner == id).count()).unwrap_or(u32::MAX)
    }

    fn index_of(&self, id: &NodeId) -> Option<usize> {
        self.members.binary_search_by(|member| member.id.cmp(id)).ok()
    }
}

/// Rule 1: the first ring, once every desired member answers.
pub(super) fn first(desired: &Desired, observed: &[Observed]) -> Advance {
    let by_id: BTreeMap<&NodeId, &Observed> = observed.iter().map(|node| (&node.id, node)).collect();
    let mut waits: Vec<WaitReason> = desired
        .members
        .iter()
        .filter(|placement| !by_id.contains_key(&placement.id))
        .map(|placement| WaitReason::NewcomerSilent(placement.id.clone()))
        .collect();
    // Nodes that have a ring hold data: theirs is the document to go on from.
    let ahead = observed.iter().filter(|node| node.epoch > Epoch::NONE);
    waits.extend(ahead.map(|node| WaitReason::Behind {
        id: node.id.clone(),
        epoch: node.epoch,
    }));
    if !waits.is_empty() {
        return Advance::Waiting(waits);
    }
    let placements: BTreeMap<&NodeId, &Placement> = desired.members.iter().map(|p| (&p.id, p)).collect();
    let members: Vec<Member> = placements
        .iter()
        .filter_map(|(id, placement)| Some(newcomer(placement, by_id.get(id)?, MemberState::Active)))
        .collect();
    let reasons = vec![ChangeReason::FirstRing {
        members: members.len(),
    }];
    let document = RingDocument {
        cluster_uid: desired.cluster_uid.clone(),
        epoch: Epoch::NONE.next(),
        replication_factor: desired.params.replication_factor.max(1),
        settings: desired.settings,
        tokens: place(&HashRing::default(), &desired.members, &desired.params).tokens(),
        members,
        replicas: BTreeMap::new(),
        handoffs: Vec::new(),
    };
    debug_assert!(document.validate().is_ok(), "{:?}", document.validate());
    Advance::Next { document, reasons }
}

fn newcomer(placement: &Placement, node: &Observed, state: MemberState) -> Member {
    Member {
        id: placement.id.clone(),
        incarnation: node.incarnation,
        address: node.address.clone(),
        zone: placement.zone.clone(),
        weight: placement.weight,
        state,
    }
}

fn per_pair(handoffs: &[Handoff]) -> BTreeMap<(NodeId, NodeId), u32> {
    let mut pairs = BTreeMap::new();
    for handoff in handoffs {
        let slots: &mut u32 = pairs
            .entry((handoff.from.clone(), handoff.to.clone()))
            .or_default();
        *slots += u32::from(handoff.slots.len());
    }
    pairs
}

/// The first slots of a range, at most `count` of them and at least one.
fn shortened(range: SlotRange, count: u32) -> SlotRange {
    let last = range
        .iter()
        .take(count as usize)
        .next_back()
        .unwrap_or(range.first);
    SlotRange { last, ..range }
}

fn owners_of(ring: &HashRing) -> Vec<NodeId> {
    ring.arcs()
        .flat_map(|(range, id)| std::iter::repeat_n(id.clone(), range.len().into()))
        .collect()
}

pub(super) fn ring_of(owners: &[NodeId]) -> HashRing {
    HashRing::from_owners(|slot| &owners[slot.index()])
}
