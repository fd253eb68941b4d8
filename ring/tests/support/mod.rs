//! The world of `world.rs`: everything outside the code under test, and the checks.
//!
//! A slot's data is one number, the last one written; a few slots stand for all. Nodes have clocks of their own that
//! differ by a constant. Time passes and things happen as the seed says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use annulus_ring::{Advance, Desired, Epoch, Incarnation, MemberState, NodeId, RingDocument, Slot, advance};

mod chaos;
mod clients;
mod copies;
mod handoff;
mod node;
mod operators;
mod random;

use copies::Stream;
use node::Node;
use operators::{Operator, desired};
use random::Random;

const NAMES: [&str; 5] = ["n-0", "n-1", "n-2", "n-3", "n-4"];
const SAMPLED_SLOTS: u16 = 24;
const FREEZE_MS: u64 = 300;
const LEASE_MS: u64 = 300;
const HISTORY: usize = 60;
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
    /// Owners acknowledge at once.
    AcksWithoutCopies,
    /// Owners declare a copy when they begin to fill it.
    DeclaresBeforeFilled,
    /// Owners answer without the promises of their copies.
    IgnoresLease,
    /// Promoted nodes answer at once.
    IgnoresFence,
    /// Copies take changes of an older epoch.
    AcceptsOldEpoch,
    /// The source of a handoff forgets a slot that it handed over.
    DropsSourceCopy,
    /// An operator gives slots of the dead to nodes that are still being filled.
    PromotesUnlisted,
}

impl Bug {
    /// Each with a seed that found it lately, to begin the search with.
    pub const ALL: [(Self, u64); 12] = [
        (Self::ActivatesBeforeCommit, 0),
        (Self::WritesDuringFreeze, 30),
        (Self::KeepsIncarnation, 0),
        (Self::WritesWithoutGuard, 0),
        (Self::ForgetsUnansweredCommit, 30),
        (Self::AcksWithoutCopies, 0),
        (Self::DeclaresBeforeFilled, 0),
        (Self::IgnoresLease, 12),
        (Self::IgnoresFence, 12),
        (Self::AcceptsOldEpoch, 33),
        (Self::DropsSourceCopy, 0),
        (Self::PromotesUnlisted, 0),
    ];
}

#[derive(Debug, Clone)]
enum Message {
    Push {
        /// `None` is an operator.
        from: Option<NodeId>,
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
        /// The target has a copy already, and nothing is sent.
        whole: bool,
    },
    Commit {
        from: (NodeId, Incarnation),
        to: NodeId,
        slot: Slot,
        freeze_id: u64,
    },
    Committed {
        to: (NodeId, Incarnation),
        source: NodeId,
        slot: Slot,
        freeze_id: u64,
        accepted: bool,
    },
}

impl Message {
    /// Between whom.
    fn ends(&self) -> (Option<&NodeId>, &NodeId) {
        match self {
            Self::Push { from, to, .. } => (from.as_ref(), to),
            Self::Prepare { from, to, .. } | Self::Commit { from, to, .. } => (Some(&from.0), to),
            Self::Prepared { to, source, .. } | Self::Committed { to, source, .. } => (Some(source), &to.0),
        }
    }
}

pub struct World {
    random: Random,
    bug: Option<Bug>,
    factor: u8,
    acks: usize,
    now_ms: u64,
    stored: Option<RingDocument>,
    desired: Desired,
    /// The processes that run.
    nodes: BTreeMap<NodeId, Node>,
    /// The last life of each.
    lives: BTreeMap<NodeId, Incarnation>,
    operators: [Operator; 2],
    messages: Vec<Message>,
    streams: Vec<Stream>,
    /// Pairs of nodes that can't reach each other.
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// Nodes that operators can't reach.
    silent: BTreeSet<NodeId>,
    slots: Vec<Slot>,
    /// By slot the highest number that was acknowledged or read, unless a process died with it.
    floors: BTreeMap<Slot, u64>,
    numbers: u64,
    problem: Option<String>,
    history: VecDeque<(u64, String)>,
    trace: u64,
    calm: bool,
    /// Clients stop too, so that copies can be compared.
    quiet: bool,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = Random(seed);
        let slots: BTreeSet<Slot> = (0..SAMPLED_SLOTS)
            .map(|_| Slot::new((random.next() % 16_384) as u16).unwrap())
            .collect();
        let factor = [1, 2, 2, 3][random.below(4)];
        let mut world = Self {
            random,
            bug,
            factor,
            acks: usize::from(factor > 1),
            now_ms: 0,
            stored: None,
            desired: desired(&[("n-0", 100), ("n-1", 100), ("n-2", 100)], factor),
            nodes: BTreeMap::new(),
            lives: BTreeMap::new(),
            operators: [Operator::default(), Operator::default()],
            messages: Vec::new(),
            streams: Vec::new(),
            cuts: BTreeSet::new(),
            silent: BTreeSet::new(),
            slots: slots.into_iter().collect(),
            floors: BTreeMap::new(),
            numbers: 0,
            problem: None,
            history: VecDeque::new(),
            trace: 0,
            calm: false,
            quiet: false,
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
        match self.random.below(if self.calm { 88 } else { 100 }) {
            0..=34 => self.deliver(),
            35..=59 => self.tick(),
            60..=71 => self.operate(),
            72..=76 => self.push(),
            77 => self.gossip(),
            78..=80 => self.expire(),
            81..=87 if self.quiet => {}
            81..=87 => self.clients(),
            88..=90 => self.lose_message(),
            91 => self.break_a_stream(),
            92 => self.crash(),
            93 => self.change_spec(),
            94 => self.pause(),
            95 => self.partition(),
            96 => self.leave(),
            97..=98 => self.recover(),
            _ => self.operators = [Operator::default(), Operator::default()],
        }
        self.check()
    }

    /// Nothing bad happens any more: the world must come to rest as the spec wants it.
    pub fn calm_down(&mut self) -> Result<(), String> {
        self.calm = true;
        self.heal();
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
                "{id} epoch {epoch} settled {settled} to pull {} pulling {pulls:?} leaving {}",
                to_pull.len(),
                node.leaving
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
            "the world didn't come to rest: {nodes:?}, quiet {:?}, {} messages, {} streams, {advance:?}",
            self.slots.iter().filter(|&&slot| self.is_quiet(slot)).count(),
            self.messages.len(),
            self.streams.len()
        );
        Err(self.violation(&problem))
    }

    fn at_rest(&mut self) -> bool {
        let Some(stored) = &self.stored else { return false };
        let members = stored.members.iter().all(|member| {
            self.nodes
                .get(&member.id)
                .is_some_and(|node| node.table.epoch() == stored.epoch && !node.leaving)
        });
        self.quiet = members
            && self.messages.is_empty()
            && advance(Some(stored), &self.desired, &self.observe(), &BTreeSet::new()) == Advance::Steady;
        self.quiet && self.slots.iter().all(|&slot| self.is_quiet(slot))
    }

    /// Its owner could answer for it now.
    fn is_quiet(&self, slot: Slot) -> bool {
        let mut owners = self.nodes.values().filter(|node| node.serves(slot));
        owners.next().is_some_and(|node| {
            let version = node.versions.get(&slot).copied().unwrap_or_default();
            node.copies_have(slot, version, None) && node.may_answer(slot, self.now_ms, None)
        })
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
        if stored.replicas != stored.wanted_replicas() {
            return Err(self.violation("at rest others are listed than wanted"));
        }
        for slot in Slot::all() {
            if self.nodes.values().filter(|node| node.serves(slot)).count() != 1 {
                return Err(self.violation(&format!("at rest not one node serves slot {slot}")));
            }
        }
        for &slot in &self.slots {
            let values: BTreeSet<Option<u64>> = self
                .nodes
                .iter()
                .filter(|(id, node)| node.serves(slot) || stored.is_replica(id, slot))
                .map(|(_, node)| node.data.get(&slot).copied())
                .collect();
            if values.len() != 1 {
                return Err(self.violation(&format!("at rest slot {slot} has the copies {values:?}")));
            }
        }
        Ok(())
    }

    /// Invariants 1 (one writer) and 2 (acknowledged means kept) for the sampled slots, and what 3 (epochs only grow) is
    /// for: nobody has another ring of the same epoch.
    fn check(&mut self) -> Result<(), String> {
        if let Some(problem) = self.problem.take() {
            return Err(self.violation(&problem));
        }
        let documents: BTreeMap<Epoch, &RingDocument> = self
            .stored
            .iter()
            .map(|document| (document.epoch, document))
            .collect();
        let mut seen = documents;
        for document in self.nodes.values().filter_map(|node| node.table.document()) {
            if *seen.entry(document.epoch).or_insert(document) != document {
                return Err(self.violation(&format!("there are two rings of epoch {}", document.epoch)));
            }
        }
        let ring = self.stored.as_ref().map(RingDocument::ring);
        for &slot in &self.slots {
            let owner = ring.as_ref().and_then(|ring| ring.owner(slot));
            if let Err(problem) = self.check_slot(slot, owner) {
                return Err(self.violation(&problem));
            }
        }
        Ok(())
    }

    fn check_slot(&self, slot: Slot, owner: Option<&NodeId>) -> Result<(), String> {
        let answers = |node: &&Node| node.may_answer(slot, self.now_ms, self.bug);
        let answering: Vec<&Node> = self.nodes.values().filter(answers).collect();
        if answering.len() > 1 {
            let names: Vec<_> = answering
                .iter()
                .map(|node| (node.me().0, node.table.epoch()))
                .collect();
            return Err(format!("slot {slot} is answered for by {names:?}"));
        }
        let Some(&floor) = self.floors.get(&slot) else {
            return Ok(());
        };
        let misses = |node: &Node| node.data.get(&slot).is_none_or(|&value| value < floor);
        for node in answering {
            if misses(node) {
                let (id, held) = (node.me().0, node.data.get(&slot));
                return Err(format!(
                    "slot {slot} at {id} has {held:?}, acknowledged was {floor}"
                ));
            }
        }
        let Some(stored) = &self.stored else { return Ok(()) };
        for node in self.nodes.values() {
            let (id, incarnation) = node.me();
            let same_life = stored
                .member(&id)
                .is_some_and(|member| member.incarnation == incarnation);
            let listed = stored.is_replica(&id, slot);
            let moves = stored.handoffs.iter().any(|handoff| handoff.slots.contains(slot));
            let owns =
                owner == Some(&id) && !moves || node.serves(slot) && node.table.epoch() == stored.epoch;
            if same_life && (listed || owns) && (misses(node) || !node.is_whole(slot)) {
                let (held, copy) = (node.data.get(&slot), node.table.copy(slot));
                let role = if listed { "copy" } else { "owner" };
                return Err(format!(
                    "the {role} of slot {slot} at {id} is {copy:?} and has {held:?}, acknowledged was {floor}"
                ));
            }
        }
        Ok(())
    }

    fn violation(&self, problem: &str) -> String {
        let history = self
            .history
            .iter()
            .map(|(at_ms, what)| format!("{at_ms} ms: {what}"));
        let history: Vec<String> = history.collect();
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
        self.history.push_back((self.now_ms, what));
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn some_name(&mut self) -> NodeId {
        NAMES[self.random.below(NAMES.len())].parse().unwrap()
    }

    fn life(&mut self, (id, incarnation): &(NodeId, Incarnation)) -> Option<&mut Node> {
        self.nodes
            .get_mut(id)
            .filter(|node| node.table.incarnation() == *incarnation)
    }

    fn gossip(&mut self) {
        let (a, b) = (self.some_name(), self.some_name());
        if self.nodes.contains_key(&a) && self.nodes.contains_key(&b) {
            self.exchange(&a, &b);
        }
    }

    fn expire(&mut self) {
        let now_ms = self.now_ms;
        for node in self.nodes.values_mut().filter(|node| !node.paused) {
            for slot in node.table.expire_freezes(now_ms + node.clock_ms).iter() {
                node.prepares.remove(&slot);
            }
        }
    }

    /// A node does what it has to do.
    fn tick(&mut self) {
        let id = self.some_name();
        if self.nodes.get(&id).is_none_or(|node| node.paused) {
            return;
        }
        let now_ms = self.now_ms;
        if let Some(node) = self.nodes.get_mut(&id)
            && node
                .adopted_ms
                .is_some_and(|adopted_ms| adopted_ms + LEASE_MS < now_ms + node.clock_ms)
        {
            node.adopted_ms = None;
            node.table.forget_former_servers();
        }
        self.pull(&id);
        self.send_changes(&id);
        self.prepared(&id);
        self.reply(&id);
        self.end_leaving(&id);
        if self.messages.len() > 600 {
            self.messages.truncate(300);
        }
    }

    fn lose_message(&mut self) {
        if !self.messages.is_empty() {
            let lost = self.random.below(self.messages.len());
            self.messages.swap_remove(lost);
        }
    }

    fn deliver(&mut self) {
        for _ in 0..16 {
            self.deliver_stream();
            self.deliver_stream();
            if self.messages.is_empty() {
                continue;
            }
            let picked = self.random.below(self.messages.len());
            let (from, to) = self.messages[picked].ends();
            let cut = from.map_or(self.silent.contains(to), |from| self.cut(from, to));
            if self.nodes.get(to).is_some_and(|node| node.paused) {
                continue;
            }
            let message = if !self.calm && self.random.one_in(10) {
                self.messages[picked].clone()
            } else {
                self.messages.swap_remove(picked)
            };
            if !cut {
                self.receive(message);
            }
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Push { to, document, .. } => self.adopt(&to, document),
            Message::Prepare { from, to, slot } => self.prepare(from, &to, slot),
            Message::Prepared {
                to,
                source,
                slot,
                freeze_id,
                value,
                whole,
            } => self.is_prepared(to, source, slot, freeze_id, value, whole),
            Message::Commit {
                from,
                to,
                slot,
                freeze_id,
            } => self.commit(from, &to, slot, freeze_id),
            Message::Committed {
                to,
                slot,
                freeze_id,
                accepted,
                ..
            } => self.committed(&to, slot, freeze_id, accepted),
        }
    }

    fn adopt(&mut self, to: &NodeId, document: RingDocument) {
        let now_ms = self.now_ms;
        let version = self.number();
        let sampled = self.slots.clone();
        let Some(node) = self.nodes.get_mut(to) else {
            return;
        };
        let (before, epoch) = (node.table.epoch(), document.epoch);
        let Ok(outcome) = node.table.adopt(document) else {
            return;
        };
        assert!(
            node.table.epoch() >= before,
            "invariant 3: {to} went back from {before}"
        );
        if !outcome.is_new {
            return;
        }
        for slot in outcome.lost.iter().chain(outcome.gained.iter()) {
            node.data.remove(&slot);
            node.pulls.remove(&slot);
        }
        node.wanted = node
            .table
            .document()
            .map(RingDocument::wanted_replicas)
            .unwrap_or_default();
        let now = now_ms + node.clock_ms;
        for &slot in &sampled {
            if !node.serves(slot) {
                node.forget(slot);
            }
            if outcome.promoted.contains(slot) || outcome.gained.contains(slot) {
                node.forget(slot);
                node.pulls.remove(&slot);
                node.versions.insert(slot, version);
                node.since.insert(slot, epoch);
                let until = outcome.fences.iter().filter(|(_, slots)| slots.contains(slot));
                let until = until.filter_map(|(id, _)| node.promises.get(id)).max().copied();
                node.fenced.insert(slot, until.unwrap_or(now));
            }
        }
        node.adopted_ms = Some(now);
        // Copies that were neither listed nor declared yet begin anew; the rest goes on with another stream.
        for (id, peer) in &mut node.peers {
            let declared = node.table.declared().get(id);
            let listed = node
                .table
                .document()
                .and_then(|document| document.replicas.get(id));
            peer.slots.retain(|slot, _| {
                [declared, listed]
                    .into_iter()
                    .flatten()
                    .any(|slots| slots.contains(*slot))
            });
        }
        node.follow_copies(&sampled, None);
        self.note(format!("{to} adopts epoch {epoch}"));
        let me = self.nodes[to].me();
        while let Some(index) = self.streams.iter().position(|s| s.from == me && !s.given_up) {
            self.end_stream(index);
        }
    }
}
