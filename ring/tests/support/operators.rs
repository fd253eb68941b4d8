//! Operators: two that don't know of each other.

use std::collections::{BTreeMap, BTreeSet};

use annulus_ring::{
    Advance, ClusterUid, Desired, Epoch, MemberState, NodeId, Observed, Placement, PlacementParams,
    RingDocument, RingSettings, Slot, Weight, advance,
};

use super::{Bug, Message, NAMES, World};

/// What one operator is about.
#[derive(Default)]
pub struct Operator {
    /// The document that it has read, before it asked anybody.
    read: Option<RingDocument>,
    /// It is asking.
    asks: bool,
    asked: BTreeSet<NodeId>,
    observed: Vec<Observed>,
    /// What it takes for dead.
    pub failed: BTreeSet<NodeId>,
    next: Option<RingDocument>,
}

impl World {
    pub fn observe(&self) -> Vec<Observed> {
        let reached = self
            .nodes
            .iter()
            .filter(|(id, node)| !node.paused && !self.silent.contains(*id));
        reached.map(|(_, node)| node.report(self.bug)).collect()
    }

    pub fn operate(&mut self) {
        let index = self.random.below(2);
        if self.operators[index].next.is_some() {
            self.store(index);
        } else if !self.operators[index].asks {
            // It looks again when a node reports something new, which is less often than anything happens.
            if !self.calm || self.random.one_in(3) {
                self.operators[index].read.clone_from(&self.stored);
                self.operators[index].asks = true;
                self.ask(index);
            }
        } else {
            self.ask(index);
        }
    }

    /// Asks those that were not asked yet, some of them later than others.
    fn ask(&mut self, index: usize) {
        let all_at_once = self.calm || self.random.one_in(2);
        let mut left = false;
        for name in NAMES {
            let id: NodeId = name.parse().unwrap();
            if self.operators[index].asked.contains(&id) {
                continue;
            }
            if !all_at_once && self.random.one_in(3) {
                left = true;
                continue;
            }
            let reached = !self.silent.contains(&id);
            let report = self
                .nodes
                .get(&id)
                .filter(|node| reached && !node.paused)
                .map(|node| node.report(self.bug));
            self.operators[index].observed.extend(report);
            self.operators[index].asked.insert(id);
        }
        if !left {
            self.suspect(index);
            self.decide(index);
        }
    }

    /// Who is silent is dead, rightly or not. A mistake counts as a loss, and there are not two losses at once.
    fn suspect(&mut self, index: usize) {
        let Some(read) = self.operators[index].read.clone() else {
            return;
        };
        let observed = self.operators[index].observed.clone();
        let mut failed = BTreeSet::new();
        for member in &read.members {
            let answered = observed
                .iter()
                .any(|node| node.id == member.id && node.incarnation == member.incarnation);
            let lives = self
                .nodes
                .get(&member.id)
                .is_some_and(|node| node.table.incarnation() == member.incarnation);
            let restarted = observed.iter().any(|node| node.id == member.id && !answered);
            let suspected = if lives {
                !self.calm
                    && if answered {
                        self.random.one_in(60)
                    } else {
                        self.random.one_in(2)
                    }
            } else {
                !restarted && (self.calm || self.random.one_in(2))
            };
            if suspected && (!lives || self.unsafe_without(&member.id).is_empty()) {
                failed.insert(member.id.clone());
                self.operators[index].failed.clone_from(&failed);
            }
        }
        self.operators[index].failed = failed;
    }

    fn decide(&mut self, index: usize) {
        let operator = &mut self.operators[index];
        let read = operator.read.take();
        operator.asks = false;
        let observed = std::mem::take(&mut operator.observed);
        operator.asked.clear();
        let failed = operator.failed.clone();
        let Advance::Next {
            mut document,
            reasons,
        } = advance(read.as_ref(), &self.desired, &observed, &failed)
        else {
            self.operators[index].failed.clear();
            return;
        };
        if self.bug == Some(Bug::PromotesUnlisted) {
            promote_unlisted(&mut document, read.as_ref(), &failed);
        }
        let same_life = |node: &Observed| {
            let known = read.as_ref().and_then(|read| read.member(&node.id));
            known.is_none_or(|member| member.incarnation == node.incarnation)
        };
        let planned = failed.is_empty() && observed.iter().all(same_life);
        if planned && let Some(read) = &read {
            self.check_planned(read, &document, &observed);
        }
        let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        self.note(format!(
            "operator {index} decides on epoch {}, failed {failed:?}: {}",
            document.epoch,
            reasons.join("; ")
        ));
        self.operators[index].next = Some(document);
    }

    /// No planned change leaves fewer whole copies than there were, unless there are enough.
    fn check_planned(&mut self, read: &RingDocument, next: &RingDocument, observed: &[Observed]) {
        let (old, new) = (read.ring(), next.ring());
        let staying = next
            .members
            .iter()
            .filter(|member| matches!(member.state, MemberState::Active | MemberState::Joining))
            .count();
        let enough = staying.min(usize::from(next.replication_factor)).max(1);
        for &slot in &self.slots {
            let whole = |document: &RingDocument, owner: Option<&NodeId>| -> BTreeSet<NodeId> {
                let listed = document.replicas.iter().filter(|(_, slots)| slots.contains(slot));
                listed.map(|(id, _)| id.clone()).chain(owner.cloned()).collect()
            };
            let mut before = whole(read, old.owner(slot));
            let activated = observed
                .iter()
                .filter(|node| node.epoch == read.epoch && node.activated.contains(slot));
            before.extend(activated.map(|node| node.id.clone()));
            let declared = observed.iter().flat_map(|node| &node.declared);
            before.extend(
                declared
                    .filter(|(_, slots)| slots.contains(slot))
                    .map(|(id, _)| id.clone()),
            );
            let after = whole(next, new.owner(slot));
            let kept = after.intersection(&before).count();
            if kept < enough.min(whole(read, old.owner(slot)).len()) {
                self.problem = Some(format!(
                    "epoch {} leaves slot {slot} with {after:?} of {before:?}",
                    next.epoch
                ));
            }
        }
    }

    fn store(&mut self, index: usize) {
        let operator = &mut self.operators[index];
        let Some(document) = operator.next.take() else {
            return;
        };
        operator.failed.clear();
        let current = self.stored.as_ref().map_or(Epoch::NONE, |stored| stored.epoch);
        if document.epoch == current.next() || self.bug == Some(Bug::WritesWithoutGuard) {
            self.note(format!("operator {index} stores epoch {}", document.epoch));
            if self
                .stored
                .as_ref()
                .is_some_and(|stored| stored.epoch > document.epoch)
            {
                self.problem = Some("an operator went back".to_owned());
            }
            self.stored = Some(document);
        }
    }

    pub fn push(&mut self) {
        let Some(document) = self.stored.clone() else {
            return;
        };
        let to = self.some_name();
        if self
            .nodes
            .get(&to)
            .is_some_and(|node| node.table.epoch() < document.epoch)
        {
            self.messages.push(Message::Push {
                from: None,
                to,
                document,
            });
        }
    }

    pub fn change_spec(&mut self) {
        let mut members: Vec<(&str, u16)> = Vec::new();
        for name in NAMES {
            if !self.random.one_in(3) {
                members.push((name, if self.random.one_in(4) { 200 } else { 100 }));
            }
        }
        if !members.is_empty() {
            self.note(format!("the spec wants {members:?}"));
            self.desired = desired(&members, self.factor);
        }
    }

    /// Who else has everything of a slot and would be given it.
    fn others_have(&self, slot: Slot, id: &NodeId) -> bool {
        let Some(stored) = &self.stored else { return false };
        let owner = stored.ring().owner(slot).cloned();
        let suspected = |id: &NodeId| self.operators.iter().any(|operator| operator.failed.contains(id));
        let whole = |node: &super::node::Node| {
            let other = node.table.id();
            let member = stored
                .member(other)
                .filter(|m| m.incarnation == node.table.incarnation());
            let next = owner.as_ref() == Some(other) || stored.is_replica(other, slot);
            other != id && member.is_some() && next && node.is_whole(slot) && !suspected(other)
        };
        self.nodes.values().any(whole)
    }

    /// The sampled slots that would lose acknowledged writes with that node.
    pub fn unsafe_without(&self, id: &NodeId) -> Vec<Slot> {
        let Some(node) = self.nodes.get(id) else {
            return Vec::new();
        };
        let Some(stored) = &self.stored else {
            return Vec::new();
        };
        let ring = stored.ring();
        let concerned = |slot: Slot| {
            node.is_whole(slot)
                || node.data.contains_key(&slot)
                || ring.owner(slot) == Some(id)
                || stored
                    .handoffs
                    .iter()
                    .any(|h| h.slots.contains(slot) && (h.from == *id || h.to == *id))
        };
        let slots = self.slots.iter().copied();
        slots
            .filter(|&slot| concerned(slot) && !self.others_have(slot, id))
            .collect()
    }
}

/// Gives what a dead member owned to nodes that have no whole copy.
fn promote_unlisted(document: &mut RingDocument, read: Option<&RingDocument>, failed: &BTreeSet<NodeId>) {
    let Some(read) = read else { return };
    let wanted = read.wanted_replicas();
    let before = read.ring();
    for (slots, owner) in before.arcs() {
        let unlisted = |(id, wanted): &(&NodeId, &annulus_ring::SlotSet)| {
            wanted.contains(slots.first)
                && !failed.contains(*id)
                && document
                    .member(id)
                    .is_some_and(|member| member.state != MemberState::Down)
                && !slots.iter().any(|slot| document.is_replica(id, slot))
        };
        if !failed.contains(owner) {
            continue;
        }
        let Some((id, _)) = wanted.iter().find(unlisted) else {
            continue;
        };
        let id = id.clone();
        let mut tokens = document.tokens.clone();
        for tokens in tokens.values_mut() {
            tokens.retain(|token| !slots.contains(*token));
        }
        // Whoever owns the arc before keeps its end.
        if slots.first == Slot::ZERO {
            continue;
        }
        let end = Slot::new(slots.first.number() - 1).unwrap();
        let holder = document.ring().owner(end).cloned();
        for tokens in tokens.values_mut() {
            tokens.retain(|token| *token != end);
        }
        tokens.entry(holder.unwrap()).or_default().push(end);
        tokens.entry(id).or_default().push(slots.last);
        tokens.retain(|_, tokens| !tokens.is_empty());
        for tokens in tokens.values_mut() {
            tokens.sort_unstable();
        }
        let mut changed = document.clone();
        changed.tokens = tokens;
        if changed.validate().is_ok() {
            *document = changed;
        }
    }
}

pub fn desired(members: &[(&str, u16)], factor: u8) -> Desired {
    let members: BTreeMap<&str, u16> = members.iter().copied().collect();
    Desired {
        cluster_uid: "world".parse::<ClusterUid>().unwrap(),
        members: members
            .into_iter()
            .map(|(name, weight)| Placement {
                id: name.parse().unwrap(),
                weight: Weight(weight.try_into().unwrap()),
                zone: None,
            })
            .collect(),
        params: PlacementParams {
            replication_factor: factor,
            tokens_per_member: 8,
        },
        settings: RingSettings::default(),
        handoff_slots_max: 2048,
    }
}
