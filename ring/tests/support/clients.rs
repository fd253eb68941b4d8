//! Clients: they write growing numbers and read them, and each may wait for its reply.

use annulus_ring::{Access, NodeId, Slot};

use super::node::Waiting;
use super::{Bug, World};

impl World {
    pub fn clients(&mut self) {
        for _ in 0..24 {
            let slot = self.slots[self.random.below(self.slots.len())];
            let ids: Vec<NodeId> = self
                .nodes
                .iter()
                .filter(|(_, node)| !node.paused && node.serves(slot))
                .map(|(id, _)| id.clone())
                .collect();
            if ids.is_empty() {
                continue;
            }
            let id = ids[self.random.below(ids.len())].clone();
            if self.random.one_in(3) {
                self.read(&id, slot);
            } else {
                self.write(&id, slot);
            }
            self.reply(&id);
        }
    }

    fn write(&mut self, id: &NodeId, slot: Slot) {
        let value = self.number();
        let (acks, now_ms, bug) = (self.acks, self.now_ms, self.bug);
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let access = node.table.access(slot);
        if access != Access::ReadWrite && bug != Some(Bug::WritesDuringFreeze) {
            return;
        }
        let fenced = node
            .fenced
            .get(&slot)
            .is_some_and(|&until_ms| until_ms > now_ms + node.clock_ms);
        let copies = node.copies_of(slot);
        if copies.required.len() + copies.filling.len() < acks || fenced && bug != Some(Bug::IgnoresFence) {
            return;
        }
        node.data.insert(slot, value);
        node.versions.insert(slot, value);
        node.waiting.push(Waiting {
            slot,
            version: value,
            value: Some(value),
            floor: None,
            reads: false,
        });
    }

    fn read(&mut self, id: &NodeId, slot: Slot) {
        let floor = self.floors.get(&slot).copied();
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        node.waiting.push(Waiting {
            slot,
            version: node.versions.get(&slot).copied().unwrap_or_default(),
            value: node.data.get(&slot).copied(),
            floor,
            reads: true,
        });
    }

    /// Sends the replies that may be sent.
    pub fn reply(&mut self, id: &NodeId) {
        let (acks, now_ms, bug) = (self.acks, self.now_ms, self.bug);
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let mut waiting = std::mem::take(&mut node.waiting);
        let node = &self.nodes[id];
        let mut problem = None;
        waiting.retain(|client| {
            let copies = node.copies_of(client.slot);
            let have = copies.required.iter().chain(&copies.filling);
            let have = have
                .filter(|id| node.has(id, client.slot, client.version))
                .count();
            let enough = client.reads || have >= acks || bug == Some(Bug::AcksWithoutCopies);
            let may = enough
                && node.copies_have(client.slot, client.version, bug)
                && node.may_answer(client.slot, now_ms, bug);
            if !may {
                return true;
            }
            if client.reads && client.value < client.floor {
                problem = Some(format!(
                    "{id} answers a read of slot {} with {:?}, acknowledged was {:?}",
                    client.slot, client.value, client.floor
                ));
            }
            // What somebody has read may not go away either.
            if let Some(value) = client.value {
                let floor = self.floors.entry(client.slot).or_default();
                *floor = value.max(*floor);
            }
            false
        });
        if waiting.len() > 200 {
            waiting.drain(..100);
        }
        if let Some(node) = self.nodes.get_mut(id) {
            node.waiting = waiting;
        }
        if self.problem.is_none() {
            self.problem = problem;
        }
    }
}
