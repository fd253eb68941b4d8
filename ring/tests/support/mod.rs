//! The world of `world.rs`: everything outside the code under test, and the checks.
//!
//! A slot's data is one number, the last one written; a few slots stand for all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use annulus_ring::{
    Access, Address, Advance, ClusterUid, Desired, Epoch, FreezeRequest, Incarnation, MemberState, NodeId,
    Observed, Placement, PlacementParams, RingDocument, Slot, SlotTable, Weight, advance,
};

const NAMES: [&str; 5] = ["n-0", "n-1", "n-2", "n-3", "n-4"];
const SAMPLED_SLOTS: u16 = 24;
const FREEZE_MS: u64 = 300;
const HISTORY: usize = 40;
const CALM_STEPS_MAX: usize = 20_000;

/// A mistake that could be made in the code around the planner and the table; the checks must notice each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The target serves a slot as soon as it has the entries, without the source's yes.
    ActivatesBeforeCommit,
    /// The source goes on accepting writes while it sends a slot.
    WritesDuringFreeze,
    /// A restarted process claims to be the life that it was before.
    KeepsIncarnation,
    /// Operators overwrite a document that changed since they read it.
    WritesWithoutGuard,
    /// A target that gets no answer to its commit forgets the slot's entries and asks for them again.
    ForgetsUnansweredCommit,
}

impl Bug {
    pub const ALL: [Self; 5] = [
        Self::ActivatesBeforeCommit,
        Self::WritesDuringFreeze,
        Self::KeepsIncarnation,
        Self::WritesWithoutGuard,
        Self::ForgetsUnansweredCommit,
    ];
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// How far a target is with a slot that it pulls.
#[derive(Debug, Clone, Copy)]
enum Pull {
    Asked,
    Committing { freeze_id: u64 },
}

struct Node {
    table: SlotTable,
    data: BTreeMap<Slot, u64>,
    pulls: BTreeMap<Slot, Pull>,
}

#[derive(Debug, Clone)]
enum Message {
    Push {
        to: NodeId,
        document: RingDocument,
    },
    Prepare {
        from: (NodeId, Incarnation),
        to: NodeId,
        slot: Slot,
    },
    Prepared {
        to: (NodeId, Incarnation),
        source: NodeId,
        slot: Slot,
        freeze_id: u64,
        value: Option<u64>,
    },
    Commit {
        from: (NodeId, Incarnation),
        to: NodeId,
        slot: Slot,
        freeze_id: u64,
    },
    Committed {
        to: (NodeId, Incarnation),
        slot: Slot,
        freeze_id: u64,
        accepted: bool,
    },
}

/// What a slot's only writer must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Exactly this: it was acknowledged, or the slot was never written.
    Exactly(Option<u64>),
    /// A process died with it: anything up to the last write, or nothing.
    Unsure,
}

/// What an operator is about to write, and the epoch that it has read.
type Decision = Option<(Epoch, RingDocument)>;

pub struct World {
    random: Random,
    bug: Option<Bug>,
    now_ms: u64,
    stored: Option<RingDocument>,
    desired: Desired,
    nodes: BTreeMap<NodeId, Node>,
    operators: [Decision; 2],
    messages: Vec<Message>,
    slots: Vec<Slot>,
    known: BTreeMap<Slot, Known>,
    numbers: u64,
    history: VecDeque<String>,
    trace: u64,
    calm: bool,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = Random(seed);
        let slots: BTreeSet<Slot> = (0..SAMPLED_SLOTS)
            .map(|_| Slot::new((random.next() % 16_384) as u16).unwrap())
            .collect();
        let mut world = Self {
            random,
            bug,
            now_ms: 0,
            stored: None,
            desired: desired(&[("n-0", 100), ("n-1", 100), ("n-2", 100)]),
            nodes: BTreeMap::new(),
            operators: [None, None],
            messages: Vec::new(),
            known: slots.iter().map(|&slot| (slot, Known::Exactly(None))).collect(),
            slots: slots.into_iter().collect(),
            numbers: 0,
            history: VecDeque::new(),
            trace: 0,
            calm: false,
        };
        for name in NAMES {
            world.boot(name.parse().unwrap());
        }
        world
    }

    /// A number that depends on everything that happened.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// One thing happens, and the invariants are checked.
    pub fn step(&mut self) -> Result<(), String> {
        self.now_ms += self.random.next() % 4;
        match self.random.below(if self.calm { 80 } else { 100 }) {
            0..=34 => self.deliver(),
            35..=54 => self.tick(),
            55..=62 => self.decide(),
            63..=67 => self.write_decision(),
            68..=72 => self.push(),
            73 => self.gossip(),
            74..=79 => self.expire(),
            80..=93 => self.client_writes(),
            94..=96 => self.lose_message(),
            97 => self.restart(),
            98 => self.change_spec(),
            _ => self.operators = [None, None],
        }
        self.check()
    }

    /// Nothing bad happens any more: the world must come to rest as the spec wants it.
    pub fn calm_down(&mut self) -> Result<(), String> {
        self.calm = true;
        for _ in 0..CALM_STEPS_MAX {
            self.step()?;
            if self.random.one_in(50) && self.at_rest() {
                return self.check_rest();
            }
        }
        let nodes = self.nodes.iter().map(|(id, node)| {
            let (to_pull, pulls) = (node.table.to_pull(), node.pulls.keys().collect::<Vec<_>>());
            let (epoch, settled) = (node.table.epoch(), node.table.settled());
            format!(
                "{id} epoch {epoch} settled {settled} to pull {} pulling {pulls:?}",
                to_pull.len()
            )
        });
        let nodes: Vec<String> = nodes.collect();
        let advance = advance(
            self.stored.as_ref(),
            &self.desired,
            &self.observe(),
            &BTreeSet::new(),
        );
        let problem = format!(
            "the world didn't come to rest: {nodes:?}, {} messages, {advance:?}",
            self.messages.len()
        );
        Err(self.violation(&problem))
    }

    fn at_rest(&self) -> bool {
        let Some(stored) = &self.stored else { return false };
        let members = stored.members.iter().all(|member| {
            self.nodes
                .get(&member.id)
                .is_some_and(|node| node.table.epoch() == stored.epoch)
        });
        members
            && self.messages.is_empty()
            && advance(Some(stored), &self.desired, &self.observe(), &BTreeSet::new()) == Advance::Steady
    }

    fn check_rest(&mut self) -> Result<(), String> {
        let Some(stored) = self.stored.clone() else {
            return Ok(());
        };
        let wanted: Vec<&NodeId> = self.desired.members.iter().map(|member| &member.id).collect();
        let present: Vec<&NodeId> = stored.members.iter().map(|member| &member.id).collect();
        if wanted != present
            || stored
                .members
                .iter()
                .any(|member| member.state != MemberState::Active)
        {
            return Err(self.violation(&format!("at rest with {present:?}, wanted {wanted:?}")));
        }
        for slot in Slot::all() {
            if self.writers(slot).count() != 1 {
                return Err(self.violation(&format!("at rest nobody serves slot {slot}")));
            }
        }
        Ok(())
    }

    fn writers(&self, slot: Slot) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.nodes.iter().filter(move |(_, node)| {
            let access = node.table.access(slot);
            access == Access::ReadWrite
                || (self.bug == Some(Bug::WritesDuringFreeze) && access == Access::ReadOnly)
        })
    }

    /// Invariants 1 (one writer) and 2 (acknowledged means kept, while no process dies) for the sampled slots, and
    /// what 3 (epochs only grow) is for: nobody has another ring of the same epoch.
    fn check(&mut self) -> Result<(), String> {
        let documents = || {
            self.nodes
                .values()
                .filter_map(|node| node.table.document())
                .chain(&self.stored)
        };
        for document in documents() {
            let epoch = document.epoch;
            if documents().any(|other| other.epoch == epoch && other != document) {
                return Err(self.violation(&format!("there are two rings of epoch {epoch}")));
            }
        }
        for slot in self.slots.clone() {
            let writers: Vec<(&NodeId, &Node)> = self.writers(slot).collect();
            if let [_, _, ..] = writers[..] {
                let names: Vec<&NodeId> = writers.iter().map(|(id, _)| *id).collect();
                let problem = format!("slot {slot} has the writers {names:?}");
                return Err(self.violation(&problem));
            }
            if let ([(id, node)], Known::Exactly(value)) = (&writers[..], self.known[&slot]) {
                let held = node.data.get(&slot).copied();
                if held != value {
                    let problem = format!("slot {slot} at {id} has {held:?}, acknowledged was {value:?}");
                    return Err(self.violation(&problem));
                }
            }
        }
        Ok(())
    }

    fn violation(&self, problem: &str) -> String {
        let history: Vec<&str> = self.history.iter().map(String::as_str).collect();
        format!(
            "{problem} at {} ms; what happened last:\n  {}",
            self.now_ms,
            history.join("\n  ")
        )
    }

    fn note(&mut self, what: String) {
        for byte in what.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.history.push_back(what);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn boot(&mut self, id: NodeId) {
        let fresh = Incarnation(u128::from(self.number()));
        let old = self.nodes.get(&id).map(|node| node.table.incarnation());
        let incarnation = old
            .filter(|_| self.bug == Some(Bug::KeepsIncarnation))
            .unwrap_or(fresh);
        self.note(format!("{id} boots as {incarnation}"));
        let table = SlotTable::new(id.clone(), incarnation);
        self.nodes.insert(
            id,
            Node {
                table,
                data: BTreeMap::new(),
                pulls: BTreeMap::new(),
            },
        );
    }

    // Operators.

    fn observe(&self) -> Vec<Observed> {
        let observed = self.nodes.iter().map(|(id, node)| Observed {
            id: id.clone(),
            incarnation: node.table.incarnation(),
            address: Address {
                host: id.to_string(),
                client_port: 6379,
                peer_port: 16379,
            },
            epoch: node.table.epoch(),
            activated: node.table.activated(),
            settled: node.table.settled(),
            declared: node.table.declared().clone(),
            leaving: false,
        });
        observed.collect()
    }

    fn decide(&mut self) {
        // An operator looks again when a node reports something new, which is less often than anything happens.
        if self.calm && !self.random.one_in(4) {
            return;
        }
        let mut observed = self.observe();
        if !self.calm && self.random.one_in(4) {
            observed.remove(self.random.below(NAMES.len()));
        }
        if let Advance::Next { document, reasons } =
            advance(self.stored.as_ref(), &self.desired, &observed, &BTreeSet::new())
        {
            let operator = self.random.below(2);
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            self.note(format!(
                "operator {operator} decides on epoch {}: {}",
                document.epoch,
                reasons.join("; ")
            ));
            let read = self.stored.as_ref().map_or(Epoch::NONE, |stored| stored.epoch);
            self.operators[operator] = Some((read, document));
        }
    }

    fn write_decision(&mut self) {
        let operator = self.random.below(2);
        let Some((read, document)) = self.operators[operator].take() else {
            return;
        };
        let current = self.stored.as_ref().map_or(Epoch::NONE, |stored| stored.epoch);
        if read == current || self.bug == Some(Bug::WritesWithoutGuard) {
            self.note(format!("operator {operator} stores epoch {}", document.epoch));
            self.stored = Some(document);
        }
    }

    fn push(&mut self) {
        let Some(document) = self.stored.clone() else {
            return;
        };
        let to = self.some_node();
        if self.nodes[&to].table.epoch() < document.epoch {
            self.messages.push(Message::Push { to, document });
        }
    }

    fn change_spec(&mut self) {
        let mut members: Vec<(&str, u16)> = Vec::new();
        for name in NAMES {
            if !self.random.one_in(3) {
                members.push((name, if self.random.one_in(4) { 200 } else { 100 }));
            }
        }
        if !members.is_empty() {
            self.note(format!("the spec wants {members:?}"));
            self.desired = desired(&members);
        }
    }

    // Nodes.

    fn some_node(&mut self) -> NodeId {
        NAMES[self.random.below(NAMES.len())].parse().unwrap()
    }

    fn gossip(&mut self) {
        let (from, to) = (self.some_node(), self.some_node());
        if let Some(document) = self.nodes[&from].table.document().cloned()
            && document.epoch > self.nodes[&to].table.epoch()
        {
            self.messages.push(Message::Push { to, document });
        }
    }

    fn restart(&mut self) {
        let id = self.some_node();
        let handoffs: Vec<_> = self
            .nodes
            .values()
            .filter_map(|node| node.table.document())
            .chain(&self.stored)
            .collect();
        let involved = |slot: Slot| {
            let mut handoffs = handoffs.iter().flat_map(|document| &document.handoffs);
            handoffs.any(|handoff| handoff.slots.contains(slot) && (handoff.from == id || handoff.to == id))
        };
        let node = &self.nodes[&id];
        let unsure: Vec<Slot> = self
            .slots
            .iter()
            .copied()
            .filter(|&slot| node.table.served().contains(slot) || involved(slot))
            .collect();
        if self.bug != Some(Bug::KeepsIncarnation) {
            for slot in unsure {
                self.known.insert(slot, Known::Unsure);
            }
        }
        self.boot(id);
    }

    fn expire(&mut self) {
        let now_ms = self.now_ms;
        for node in self.nodes.values_mut() {
            node.table.expire_freezes(now_ms);
        }
    }

    /// A target goes on with one of its pulls, or begins one.
    fn tick(&mut self) {
        let id = self.some_node();
        let sampled = self.slots.clone();
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let me = (id.clone(), node.table.incarnation());
        // Slots that nobody looks at move at once, or no handoff would ever end.
        let begun: Vec<Slot> = node
            .table
            .to_pull()
            .iter()
            .filter(|slot| !sampled.contains(slot))
            .collect();
        for slot in begun {
            self.move_unseen(&id, slot);
        }
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let open: Vec<Slot> = node
            .table
            .to_pull()
            .iter()
            .filter(|slot| sampled.contains(slot))
            .collect();
        for &slot in &open {
            if node.table.begin(slot).is_ok() {
                node.pulls.insert(slot, Pull::Asked);
            }
        }
        // A request without an answer is repeated after a while, as a time-out would.
        for (slot, pull) in node.pulls.clone() {
            let patience = if self.bug == Some(Bug::ForgetsUnansweredCommit) {
                2
            } else {
                20
            };
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
                Pull::Committing { .. } if self.bug == Some(Bug::ForgetsUnansweredCommit) => {
                    node.pulls.insert(slot, Pull::Asked);
                    node.data.remove(&slot);
                }
                Pull::Committing { freeze_id } => {
                    self.messages.push(Message::Commit {
                        from: me.clone(),
                        to: source,
                        slot,
                        freeze_id,
                    });
                }
            }
        }
        if self.messages.len() > 600 {
            self.messages.truncate(300);
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
        if self
            .nodes
            .get_mut(target)
            .is_none_or(|node| node.table.begin(slot).is_err())
        {
            return;
        }
        let until_ms = now_ms + FREEZE_MS;
        let request = FreezeRequest {
            slot,
            freeze_id,
            until_ms,
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

    // The network.

    fn lose_message(&mut self) {
        if !self.messages.is_empty() {
            let lost = self.random.below(self.messages.len());
            self.messages.swap_remove(lost);
        }
    }

    fn deliver(&mut self) {
        for _ in 0..8 {
            if self.messages.is_empty() {
                return;
            }
            let picked = self.random.below(self.messages.len());
            let message = if !self.calm && self.random.one_in(10) {
                self.messages[picked].clone()
            } else {
                self.messages.swap_remove(picked)
            };
            self.receive(message);
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Push { to, document } => self.adopt(&to, document),
            Message::Prepare { from, to, slot } => self.prepare(from, &to, slot),
            Message::Prepared {
                to,
                source,
                slot,
                freeze_id,
                value,
            } => {
                let bug = self.bug;
                let Some(node) = self.life(&to) else { return };
                if matches!(node.pulls.get(&slot), Some(Pull::Asked)) {
                    node.data.remove(&slot);
                    node.data.extend(value.map(|value| (slot, value)));
                    node.pulls.insert(slot, Pull::Committing { freeze_id });
                    if bug == Some(Bug::ActivatesBeforeCommit) {
                        node.table.activate(slot).ok();
                    }
                    self.messages.push(Message::Commit {
                        from: to,
                        to: source,
                        slot,
                        freeze_id,
                    });
                }
            }
            Message::Commit {
                from,
                to,
                slot,
                freeze_id,
            } => {
                let now_ms = self.now_ms;
                let Some(node) = self.nodes.get_mut(&to) else {
                    return;
                };
                let accepted = node.table.commit(slot, freeze_id, now_ms).is_ok();
                if accepted {
                    node.data.remove(&slot);
                }
                self.note(format!(
                    "{to} answers {}'s commit of slot {slot}: {accepted}",
                    from.0
                ));
                self.messages.push(Message::Committed {
                    to: from,
                    slot,
                    freeze_id,
                    accepted,
                });
            }
            Message::Committed {
                to,
                slot,
                freeze_id,
                accepted,
            } => self.committed(&to, slot, freeze_id, accepted),
        }
    }

    fn life(&mut self, (id, incarnation): &(NodeId, Incarnation)) -> Option<&mut Node> {
        self.nodes
            .get_mut(id)
            .filter(|node| node.table.incarnation() == *incarnation)
    }

    fn adopt(&mut self, to: &NodeId, document: RingDocument) {
        let Some(node) = self.nodes.get_mut(to) else {
            return;
        };
        let (before, epoch) = (node.table.epoch(), document.epoch);
        let Ok(outcome) = node.table.adopt(document) else {
            return;
        };
        for slot in outcome.lost.iter() {
            node.data.remove(&slot);
            node.pulls.remove(&slot);
        }
        assert!(
            node.table.epoch() >= before,
            "invariant 3: {to} went back from {before}"
        );
        if outcome.is_new {
            self.note(format!("{to} adopts epoch {epoch}"));
        }
    }

    fn prepare(&mut self, from: (NodeId, Incarnation), to: &NodeId, slot: Slot) {
        let (now_ms, freeze_id) = (self.now_ms, self.number());
        let Some(node) = self.nodes.get_mut(to) else {
            return;
        };
        let request = FreezeRequest {
            slot,
            freeze_id,
            until_ms: now_ms + FREEZE_MS,
            requester: &from.0,
            incarnation: from.1,
        };
        match node.table.freeze(request) {
            Ok(_) => {
                let value = node.data.get(&slot).copied();
                self.note(format!("{to} prepares slot {slot} for {}", from.0));
                self.messages.push(Message::Prepared {
                    to: from,
                    source: to.clone(),
                    slot,
                    freeze_id,
                    value,
                });
            }
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

    fn committed(&mut self, to: &(NodeId, Incarnation), slot: Slot, freeze_id: u64, accepted: bool) {
        let Some(node) = self.life(to) else { return };
        if !matches!(node.pulls.get(&slot), Some(Pull::Committing { freeze_id: asked }) if *asked == freeze_id)
        {
            return;
        }
        node.pulls.remove(&slot);
        if accepted {
            if node.table.activate(slot).is_ok() {
                self.note(format!("{} serves slot {slot}", to.0));
            }
        } else {
            node.data.remove(&slot);
            node.table.abandon(slot).ok();
        }
    }

    // Clients.

    fn client_writes(&mut self) {
        for _ in 0..24 {
            let slot = self.slots[self.random.below(self.slots.len())];
            let writer = self.writers(slot).map(|(id, _)| id.clone()).next();
            let value = self.number();
            if let Some(node) = writer.and_then(|id| self.nodes.get_mut(&id)) {
                node.data.insert(slot, value);
                self.known.insert(slot, Known::Exactly(Some(value)));
            }
        }
    }
}

fn desired(members: &[(&str, u16)]) -> Desired {
    Desired {
        cluster_uid: "world".parse::<ClusterUid>().unwrap(),
        members: members
            .iter()
            .map(|&(name, weight)| Placement {
                id: name.parse().unwrap(),
                weight: Weight(weight.try_into().unwrap()),
                zone: None,
            })
            .collect(),
        params: PlacementParams {
            replication_factor: 1,
            tokens_per_member: 8,
        },
        handoff_slots_max: 2048,
    }
}
