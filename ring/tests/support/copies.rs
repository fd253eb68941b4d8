//! The streams of changes between a slot's server and its copies.

use std::collections::VecDeque;

use annulus_ring::{Copy, Epoch, Incarnation, NodeId, Slot, SlotSet};

use super::node::{Phase, Step};
use super::{Bug, LEASE_MS, Message, World};

#[derive(Debug, Clone)]
pub struct Append {
    lsn: u64,
    epoch: Epoch,
    sent_ms: u64,
    slot: Slot,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Epoch,
    NotFromYou,
    NeedsBegin(Slot),
}

#[derive(Debug, Clone)]
pub struct Answer {
    lsn: u64,
    epoch: Epoch,
    sent_ms: u64,
    refused: Option<Refused>,
}

/// One connection: ordered, and at its end whatever is still in it may be lost.
#[derive(Debug, Clone)]
pub struct Stream {
    pub number: u64,
    pub from: (NodeId, Incarnation),
    pub to: (NodeId, Incarnation),
    pub there: VecDeque<Append>,
    pub back: VecDeque<Answer>,
    /// Its sender has given it up; what is in it may still be read.
    pub given_up: bool,
}

impl World {
    /// A node sends what its copies lack.
    pub fn send_changes(&mut self, id: &NodeId) {
        self.fill_unseen(id);
        let now_ms = self.now_ms;
        let Some(node) = self.nodes.get(id) else { return };
        let me = node.me();
        let peers: Vec<(NodeId, Incarnation)> = node
            .peers
            .iter()
            .map(|(id, peer)| (id.clone(), peer.incarnation))
            .collect();
        for (to, incarnation) in peers {
            let open = self
                .streams
                .iter()
                .position(|s| s.from == me && s.to.0 == to && !s.given_up);
            let index = open.unwrap_or_else(|| {
                self.numbers += 1;
                self.streams.push(Stream {
                    number: self.numbers,
                    from: me.clone(),
                    to: (to.clone(), incarnation),
                    there: VecDeque::new(),
                    back: VecDeque::new(),
                    given_up: false,
                });
                self.streams.len() - 1
            });
            let Some(node) = self.nodes.get_mut(id) else {
                return;
            };
            let epoch = node.table.epoch();
            let sent_ms = now_ms + node.clock_ms;
            let Some(peer) = node.peers.get_mut(&to) else {
                continue;
            };
            let mut steps: Vec<(Slot, Step)> = Vec::new();
            for (&slot, progress) in &mut peer.slots {
                let version = node.versions.get(&slot).copied().unwrap_or_default();
                let value = node.data.get(&slot).copied();
                // Fills go step by step, so that writes come in between.
                while !self.random.one_in(3) {
                    let step = match progress.phase {
                        Phase::Begin => {
                            progress.phase = Phase::Begun;
                            if self.bug == Some(Bug::DeclaresBeforeFilled) {
                                node.table.declare(slot, &to);
                            }
                            Step::Begin
                        }
                        Phase::Begun => {
                            progress.phase = Phase::Sent;
                            progress.sent = version;
                            Step::Apply { value, version }
                        }
                        _ if progress.sent < version => {
                            progress.sent = version;
                            Step::Apply { value, version }
                        }
                        Phase::Sent => {
                            progress.phase = Phase::Completing;
                            Step::Complete
                        }
                        Phase::Completing | Phase::Filled => break,
                    };
                    steps.push((slot, step));
                }
            }
            steps.push((Slot::ZERO, Step::Beat));
            for (slot, step) in steps {
                peer.lsn += 1;
                peer.outstanding.push_back((peer.lsn, slot, step));
                self.streams[index].there.push_back(Append {
                    lsn: peer.lsn,
                    epoch,
                    sent_ms,
                    slot,
                    step,
                });
            }
        }
    }

    /// Copies of the slots that nobody looks at are filled at once, or none would ever be listed.
    fn fill_unseen(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        let Some(document) = node.table.document() else {
            return;
        };
        let (me, epoch) = (node.me(), node.table.epoch());
        let mut missing: Vec<(NodeId, SlotSet)> = Vec::new();
        let served = node.table.served();
        for (to, wanted) in &node.wanted {
            let mut open = wanted.intersection(&served);
            for known in [document.replicas.get(to), node.table.declared().get(to)]
                .into_iter()
                .flatten()
            {
                open = open.difference(known);
            }
            for slot in &self.slots {
                open.remove(*slot);
            }
            missing.push((to.clone(), open));
        }
        for (to, open) in missing {
            let reached = !self.cut(id, &to)
                && self
                    .nodes
                    .get(&to)
                    .is_some_and(|node| !node.paused && node.table.epoch() == epoch);
            if !reached {
                continue;
            }
            for slot in open.iter() {
                let filled = self.nodes.get_mut(&to).is_some_and(|node| {
                    node.table.begin_copy(slot, &me.0, me.1) && node.table.complete_copy(slot, &me.0, me.1)
                });
                if filled && let Some(node) = self.nodes.get_mut(id) {
                    node.table.declare(slot, &to);
                }
            }
        }
    }

    /// Moves one message of one stream, if its end is up.
    pub fn deliver_stream(&mut self) {
        if self.streams.is_empty() {
            return;
        }
        let index = self.random.below(self.streams.len());
        let stream = &self.streams[index];
        let (from, to) = (stream.from.clone(), stream.to.clone());
        let alive = |(id, incarnation): &(NodeId, Incarnation)| {
            self.nodes
                .get(id)
                .is_some_and(|node| node.table.incarnation() == *incarnation)
        };
        if !alive(&from) || !alive(&to) {
            self.end_stream(index);
            return;
        }
        if self.cut(&from.0, &to.0) {
            if self.random.one_in(8) {
                self.end_stream(index);
            }
            return;
        }
        if self.random.one_in(2) && !self.nodes[&to.0].paused {
            if let Some(append) = self.streams[index].there.pop_front() {
                let answer = self.append(&from, &to.0, self.streams[index].number, &append);
                if let Some(answer) = answer {
                    self.streams[index].back.push_back(answer);
                }
            }
        } else if !self.nodes[&from.0].paused
            && !self.streams[index].given_up
            && let Some(answer) = self.streams[index].back.pop_front()
            && self.answered(&from.0, &to.0, &answer)
        {
            self.end_stream(index);
        }
        if let Some(stream) = self.streams.get(index)
            && stream.given_up
            && stream.there.is_empty()
        {
            self.streams.swap_remove(index);
        }
    }

    pub fn break_a_stream(&mut self) {
        if !self.streams.is_empty() {
            let index = self.random.below(self.streams.len());
            self.end_stream(index);
        }
    }

    /// The sender opens another one; what is in the old one is lost, or read late.
    pub fn end_stream(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        if !stream.given_up
            && let Some(node) = self.nodes.get_mut(&stream.from.0)
            && node.me() == stream.from
        {
            node.broken(&stream.to.0.clone());
        }
        stream.given_up = true;
        stream.back.clear();
        if stream.there.is_empty() || self.random.one_in(2) {
            self.streams.swap_remove(index);
        }
    }

    /// A copy takes a change.
    fn append(
        &mut self,
        from: &(NodeId, Incarnation),
        to: &NodeId,
        stream: u64,
        append: &Append,
    ) -> Option<Answer> {
        let (now_ms, bug) = (self.now_ms, self.bug);
        let node = self.nodes.get_mut(to)?;
        let newest = node.streams.entry(from.clone()).or_insert(stream);
        if *newest > stream {
            return None;
        }
        *newest = stream;
        let epoch = node.table.epoch();
        let answer = |refused| Answer {
            lsn: append.lsn,
            epoch,
            sent_ms: append.sent_ms,
            refused,
        };
        if append.epoch != epoch {
            let older = bug == Some(Bug::AcceptsOldEpoch) && append.epoch < epoch;
            if older && let Step::Apply { value, .. } = append.step {
                node.data.remove(&append.slot);
                node.data.extend(value.map(|value| (append.slot, value)));
                return Some(Answer {
                    epoch: append.epoch,
                    ..answer(None)
                });
            }
            self.exchange(&from.0.clone(), to);
            return Some(answer(Some(Refused::Epoch)));
        }
        let refused = match append.step {
            Step::Beat => None,
            Step::Begin => {
                if node.table.begin_copy(append.slot, &from.0, from.1) {
                    node.swept.insert(append.slot);
                    if node.table.copy(append.slot) == Copy::Filling {
                        node.data.remove(&append.slot);
                    }
                    None
                } else {
                    Some(Refused::NotFromYou)
                }
            }
            Step::Apply { value, .. } => {
                if !node.table.may_copy(append.slot, &from.0, from.1) {
                    Some(Refused::NotFromYou)
                } else if node.table.copy(append.slot) == Copy::None {
                    Some(Refused::NeedsBegin(append.slot))
                } else {
                    node.data.remove(&append.slot);
                    node.data.extend(value.map(|value| (append.slot, value)));
                    node.swept.remove(&append.slot);
                    None
                }
            }
            Step::Complete => {
                if node.table.complete_copy(append.slot, &from.0, from.1) {
                    // What a whole copy had and the fill did not bring is gone.
                    if node.swept.remove(&append.slot) {
                        node.data.remove(&append.slot);
                    }
                    None
                } else {
                    Some(Refused::NeedsBegin(append.slot))
                }
            }
        };
        if refused.is_none() {
            node.promises
                .insert(from.0.clone(), now_ms + node.clock_ms + LEASE_MS);
        }
        Some(answer(refused))
    }

    /// A sender hears of its changes; whether the stream is at its end.
    fn answered(&mut self, id: &NodeId, from: &NodeId, answer: &Answer) -> bool {
        let Some(node) = self.nodes.get_mut(id) else {
            return true;
        };
        let epoch = node.table.epoch();
        let Some(peer) = node.peers.get_mut(from) else {
            return true;
        };
        if let Some(refused) = answer.refused {
            match refused {
                Refused::Epoch => self.exchange(id, from),
                Refused::NotFromYou => {}
                Refused::NeedsBegin(slot) => {
                    if let Some(progress) = peer.slots.get_mut(&slot) {
                        progress.phase = Phase::Begin;
                    }
                }
            }
            return true;
        }
        if answer.epoch != epoch {
            return true;
        }
        peer.leases.insert(epoch, answer.sent_ms + LEASE_MS);
        let mut filled = Vec::new();
        while let Some(&(lsn, slot, step)) = peer.outstanding.front()
            && lsn <= answer.lsn
        {
            peer.outstanding.pop_front();
            let Some(progress) = peer.slots.get_mut(&slot) else {
                continue;
            };
            match step {
                Step::Apply { version, .. } => progress.has = progress.has.max(version),
                Step::Complete if progress.phase == Phase::Completing => {
                    progress.phase = Phase::Filled;
                    filled.push(slot);
                }
                _ => {}
            }
        }
        for slot in filled {
            if node.copies_of(slot).filling.contains(from) && node.table.declare(slot, from) {
                let version = node.versions.get(&slot).copied().unwrap_or_default();
                if let Some(progress) = node
                    .peers
                    .get_mut(from)
                    .and_then(|peer| peer.slots.get_mut(&slot))
                {
                    progress.declared_at = version;
                }
            }
        }
        self.reply(id);
        false
    }

    /// Whoever of the two has the older ring fetches the other's.
    pub fn exchange(&mut self, a: &NodeId, b: &NodeId) {
        let epoch = |id: &NodeId| {
            self.nodes
                .get(id)
                .map(|node| node.table.epoch())
                .unwrap_or_default()
        };
        let (newer, older) = if epoch(a) > epoch(b) { (a, b) } else { (b, a) };
        if epoch(newer) > epoch(older)
            && let Some(document) = self.nodes[newer].table.document().cloned()
        {
            self.messages.push(Message::Push {
                from: Some(newer.clone()),
                to: older.clone(),
                document,
            });
        }
    }
}
