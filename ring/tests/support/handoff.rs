//! Handoffs as the two nodes carry them out.

use annulus_ring::{Copy, FreezeRequest, Frozen, Incarnation, NodeId, Slot};

use super::node::{Prepare, Pull};
use super::{Bug, FREEZE_MS, Message, World};

impl World {
    /// A target goes on with its pulls, and begins others.
    pub fn pull(&mut self, id: &NodeId) {
        let sampled = self.slots.clone();
        let Some(node) = self.nodes.get(id) else { return };
        let me = node.me();
        // Slots that nobody looks at move at once, or no handoff would ever end.
        let (open, unseen): (Vec<Slot>, Vec<Slot>) = node
            .table
            .to_pull()
            .iter()
            .partition(|slot| sampled.contains(slot));
        for slot in unseen {
            self.move_unseen(id, slot);
        }
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        for &slot in &open {
            if node.table.begin(slot).is_ok() {
                node.pulls.insert(slot, Pull::Asked);
            }
        }
        // A request without an answer is repeated after a while, as a time-out would.
        let patience = if self.bug == Some(Bug::ForgetsUnansweredCommit) {
            2
        } else {
            8
        };
        for (slot, pull) in node.pulls.clone() {
            if !open.contains(&slot) && !self.random.one_in(patience) {
                continue;
            }
            let Some(source) = node.table.moved_to(slot).map(|member| member.id.clone()) else {
                continue;
            };
            match pull {
                Pull::Asked => self.messages.push(Message::Prepare {
                    from: me.clone(),
                    to: source,
                    slot,
                }),
                Pull::Committing { whole: false, .. } if self.bug == Some(Bug::ForgetsUnansweredCommit) => {
                    node.pulls.insert(slot, Pull::Asked);
                    node.data.remove(&slot);
                }
                Pull::Committing { freeze_id, .. } => self.messages.push(Message::Commit {
                    from: me.clone(),
                    to: source,
                    slot,
                    freeze_id,
                }),
            }
        }
    }

    /// The whole handoff of a slot that is not sampled, at one moment.
    fn move_unseen(&mut self, target: &NodeId, slot: Slot) {
        let (now_ms, freeze_id) = (self.now_ms, self.number());
        let Some((source, incarnation)) = self
            .nodes
            .get(target)
            .and_then(|node| Some((node.table.moved_to(slot)?.id.clone(), node.table.incarnation())))
        else {
            return;
        };
        if self.cut(&source, target) || self.nodes.get(&source).is_none_or(|node| node.paused) {
            return;
        }
        if self
            .nodes
            .get_mut(target)
            .is_none_or(|node| node.table.begin(slot).is_err())
        {
            return;
        }
        let request = FreezeRequest {
            slot,
            freeze_id,
            until_ms: now_ms + FREEZE_MS,
            requester: target,
            incarnation,
        };
        let committed = self.nodes.get_mut(&source).is_some_and(|node| {
            node.table
                .freeze(request)
                .is_ok_and(|_| node.table.commit(slot, freeze_id, now_ms).is_ok())
        });
        if let Some(node) = self.nodes.get_mut(target) {
            let done = if committed {
                node.table.activate(slot)
            } else {
                node.table.abandon(slot)
            };
            done.unwrap();
        }
    }

    pub fn prepare(&mut self, from: (NodeId, Incarnation), to: &NodeId, slot: Slot) {
        let (now_ms, freeze_id) = (self.now_ms, self.number());
        let Some(node) = self.nodes.get_mut(to) else {
            return;
        };
        let request = FreezeRequest {
            slot,
            freeze_id,
            until_ms: now_ms + node.clock_ms + FREEZE_MS,
            requester: &from.0,
            incarnation: from.1,
        };
        match node.table.freeze(request) {
            Ok(Frozen::ForThisRequest) => {
                let whole = node.copies_of(slot).required.contains(&from.0);
                self.note(format!("{to} freezes slot {slot} for {}", from.0));
                if let Some(node) = self.nodes.get_mut(to) {
                    node.prepares.insert(
                        slot,
                        Prepare {
                            target: from,
                            freeze_id,
                            whole,
                        },
                    );
                }
                self.prepared(to);
            }
            Ok(Frozen::NothingHere) => self.messages.push(Message::Prepared {
                to: from,
                source: to.clone(),
                slot,
                freeze_id,
                value: None,
                whole: false,
            }),
            Err(_) => {
                if let Some(target) = self.life(&from)
                    && matches!(target.pulls.get(&slot), Some(Pull::Asked))
                    && target.table.abandon(slot).is_ok()
                {
                    target.pulls.remove(&slot);
                }
            }
        }
    }

    /// Hands over what is frozen once the copies have everything, and nobody before this node answers for it any more:
    /// the target knows of no fence.
    pub fn prepared(&mut self, id: &NodeId) {
        let (now_ms, bug) = (self.now_ms, self.bug);
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let now_ms = now_ms + node.clock_ms;
        let ready: Vec<Slot> = node
            .prepares
            .keys()
            .copied()
            .filter(|&slot| {
                let version = node.versions.get(&slot).copied().unwrap_or_default();
                let fenced = node.fenced.get(&slot).is_some_and(|&until_ms| until_ms > now_ms);
                !fenced && node.copies_have(slot, version, bug)
            })
            .collect();
        for slot in ready {
            let Some(prepare) = node.prepares.remove(&slot) else {
                continue;
            };
            let value = node.data.get(&slot).copied().filter(|_| !prepare.whole);
            self.messages.push(Message::Prepared {
                to: prepare.target,
                source: id.clone(),
                slot,
                freeze_id: prepare.freeze_id,
                value,
                whole: prepare.whole,
            });
        }
    }

    pub fn is_prepared(
        &mut self,
        to: (NodeId, Incarnation),
        source: NodeId,
        slot: Slot,
        freeze_id: u64,
        value: Option<u64>,
        whole: bool,
    ) {
        let bug = self.bug;
        let Some(node) = self.life(&to) else { return };
        if !matches!(node.pulls.get(&slot), Some(Pull::Asked)) {
            return;
        }
        if whole && node.table.copy(slot) != Copy::Complete {
            return;
        }
        if !whole {
            node.data.remove(&slot);
            node.data.extend(value.map(|value| (slot, value)));
        }
        node.pulls.insert(slot, Pull::Committing { freeze_id, whole });
        if bug == Some(Bug::ActivatesBeforeCommit) {
            self.activate(&to.0, slot);
        }
        self.messages.push(Message::Commit {
            from: to,
            to: source,
            slot,
            freeze_id,
        });
    }

    pub fn commit(&mut self, from: (NodeId, Incarnation), to: &NodeId, slot: Slot, freeze_id: u64) {
        let (now_ms, bug) = (self.now_ms, self.bug);
        let Some(node) = self.nodes.get_mut(to) else {
            return;
        };
        let accepted = node.table.commit(slot, freeze_id, now_ms + node.clock_ms).is_ok();
        if accepted {
            node.forget(slot);
            if !node.table.has_copies() || bug == Some(Bug::DropsSourceCopy) {
                node.data.remove(&slot);
            }
        }
        self.note(format!(
            "{to} answers {}'s commit of slot {slot}: {accepted}",
            from.0
        ));
        self.messages.push(Message::Committed {
            to: from,
            source: to.clone(),
            slot,
            freeze_id,
            accepted,
        });
    }

    pub fn committed(&mut self, to: &(NodeId, Incarnation), slot: Slot, freeze_id: u64, accepted: bool) {
        let Some(node) = self.life(to) else { return };
        let Some(&Pull::Committing {
            freeze_id: asked,
            whole,
        }) = node.pulls.get(&slot)
        else {
            return;
        };
        if asked != freeze_id {
            return;
        }
        node.pulls.remove(&slot);
        if accepted {
            self.activate(&to.0, slot);
        } else {
            if !whole {
                node.data.remove(&slot);
            }
            node.table.abandon(slot).ok();
        }
    }

    fn activate(&mut self, id: &NodeId, slot: Slot) {
        let version = self.number();
        let sampled = self.slots.clone();
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        if node.table.activate(slot).is_err() {
            return;
        }
        node.versions.insert(slot, version);
        node.since.insert(slot, node.table.epoch());
        node.follow_copies(&sampled, Some(slot));
        self.note(format!("{id} serves slot {slot}"));
    }
}
