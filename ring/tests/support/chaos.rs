//! What goes wrong.

use annulus_ring::{Incarnation, NodeId, SlotTable};

use super::node::Node;
use super::{Bug, NAMES, World};

impl World {
    pub fn boot(&mut self, id: NodeId) {
        let fresh = Incarnation(u128::from(self.number()));
        let old = self.lives.get(&id).copied();
        let incarnation = old
            .filter(|_| self.bug == Some(Bug::KeepsIncarnation))
            .unwrap_or(fresh);
        self.note(format!("{id} boots as {incarnation}"));
        let clock_ms = self.random.next() % 1000;
        let table = SlotTable::new(id.clone(), incarnation);
        self.lives.insert(id.clone(), incarnation);
        self.nodes.insert(id, Node::new(table, clock_ms));
    }

    /// A process dies, and comes back at once or later. Where a second loss would be one too many, it mostly doesn't.
    pub fn crash(&mut self) {
        let id = self.some_name();
        if !self.nodes.contains_key(&id) {
            return;
        }
        let lost = self.unsafe_without(&id);
        if self.factor > 1 && !lost.is_empty() && !self.random.one_in(10) {
            return;
        }
        self.end(&id);
        if self.random.one_in(2) {
            self.boot(id);
        }
    }

    fn end(&mut self, id: &NodeId) {
        // To claim to be who one was is no death that anybody could know of.
        if self.bug != Some(Bug::KeepsIncarnation) {
            for slot in self.unsafe_without(id) {
                self.floors.remove(&slot);
            }
        }
        self.note(format!("{id} dies"));
        self.nodes.remove(id);
    }

    /// A node does nothing for a while, and does not know of it.
    pub fn pause(&mut self) {
        let id = self.some_name();
        if let Some(node) = self.nodes.get_mut(&id)
            && !node.paused
        {
            node.paused = true;
            self.note(format!("{id} is paused"));
        }
    }

    pub fn partition(&mut self) {
        let (a, b) = (self.some_name(), self.some_name());
        if a == b {
            self.note(format!("{a} is cut off from operators"));
            self.silent.insert(a);
        } else {
            self.note(format!("{a} and {b} are cut off"));
            self.cuts.insert((a.clone().min(b.clone()), a.max(b)));
        }
    }

    pub fn cut(&self, a: &NodeId, b: &NodeId) -> bool {
        self.cuts.contains(&(a.min(b).clone(), a.max(b).clone()))
    }

    /// Something that went wrong is right again.
    pub fn recover(&mut self) {
        match self.random.below(4) {
            0 => {
                for node in self.nodes.values_mut() {
                    node.paused = false;
                }
                self.note("nobody is paused".to_owned());
            }
            1 => self.cuts.clear(),
            2 => self.silent.clear(),
            _ => {
                for name in NAMES {
                    let id: NodeId = name.parse().unwrap();
                    if !self.nodes.contains_key(&id) {
                        self.boot(id);
                    }
                }
            }
        }
    }

    pub fn heal(&mut self) {
        self.note("calm".to_owned());
        self.cuts.clear();
        self.silent.clear();
        for node in self.nodes.values_mut() {
            node.paused = false;
        }
        for name in NAMES {
            let id: NodeId = name.parse().unwrap();
            if !self.nodes.contains_key(&id) {
                self.boot(id);
            }
        }
    }

    /// A node is told to end. One at a time: a rolling update does no more either.
    pub fn leave(&mut self) {
        let id = self.some_name();
        if self.nodes.values().any(|node| node.leaving) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.leaving = true;
            self.note(format!("{id} is told to end"));
        }
    }

    /// It ends when nobody needs it any more, and is started again.
    pub fn end_leaving(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.get(id).filter(|node| node.leaving) else {
            return;
        };
        let listed = node.table.document().is_some_and(|document| {
            document.replicas.contains_key(id) || document.ring().owned_counts().contains_key(id)
        });
        // Nobody may be there to take its slots: it is killed in the end.
        let patience_ends = if self.calm { 100 } else { 10 };
        let patience_ends = self.random.one_in(patience_ends)
            && (self.calm || self.factor == 1 || self.unsafe_without(id).is_empty());
        if !listed && node.table.served().is_empty() || patience_ends {
            self.end(id);
            self.boot(id.clone());
        }
    }
}
