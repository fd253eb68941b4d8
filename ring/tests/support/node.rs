//! One life of one node, as far as the table under test leaves it to its caller: data, streams, leases and replies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use annulus_ring::{
    Access, Address, Copies, Copy, Epoch, Incarnation, NodeId, Observed, Slot, SlotSet, SlotTable,
};

use super::Bug;

/// How far a target is with a slot that it pulls.
#[derive(Debug, Clone, Copy)]
pub enum Pull {
    Asked,
    /// `whole` when the source sent nothing, since the target has a copy.
    Committing {
        freeze_id: u64,
        whole: bool,
    },
}

/// Source: a freeze whose slot is handed over as soon as the copies have everything.
#[derive(Debug, Clone)]
pub struct Prepare {
    pub target: (NodeId, Incarnation),
    pub freeze_id: u64,
    pub whole: bool,
}

/// How far a peer's copy of a slot is, as its server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It is to be filled from the beginning.
    Begin,
    /// BEGIN is sent.
    Begun,
    /// The value is sent.
    Sent,
    /// COMPLETE is sent.
    Completing,
    /// It is whole.
    Filled,
}

#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub phase: Phase,
    /// The newest change that is on its way.
    pub sent: u64,
    /// The newest change that it has.
    pub has: u64,
    /// What it must have before its declaration counts.
    pub declared_at: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Begin,
    Apply {
        value: Option<u64>,
        version: u64,
    },
    Complete,
    /// Nothing changed; asks for a promise.
    Beat,
}

/// What a server knows of one life of a node that has copies of its slots.
#[derive(Debug, Clone)]
pub struct Peer {
    pub incarnation: Incarnation,
    pub slots: BTreeMap<Slot, Progress>,
    pub outstanding: VecDeque<(u64, Slot, Step)>,
    pub lsn: u64,
    /// By the epoch at which it promised until when, on this node's clock.
    pub leases: BTreeMap<Epoch, u64>,
}

/// A client that waits.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub slot: Slot,
    pub version: u64,
    pub value: Option<u64>,
    /// Reads: the highest acknowledged value when it was asked.
    pub floor: Option<u64>,
    pub reads: bool,
}

pub struct Node {
    pub table: SlotTable,
    pub data: BTreeMap<Slot, u64>,
    pub pulls: BTreeMap<Slot, Pull>,
    pub prepares: BTreeMap<Slot, Prepare>,
    pub peers: BTreeMap<NodeId, Peer>,
    /// By slot that is served: the number of its last change, and since which epoch it is served.
    pub versions: BTreeMap<Slot, u64>,
    pub since: BTreeMap<Slot, Epoch>,
    /// Promises that this node gave: until when, on its own clock, it answers for none of that node's slots.
    pub promises: BTreeMap<NodeId, u64>,
    /// Until when slots are not answered for.
    pub fenced: BTreeMap<Slot, u64>,
    /// The newest stream of each sender; older ones are not listened to.
    pub streams: BTreeMap<(NodeId, Incarnation), u64>,
    /// What a fill has brought of a copy that was whole before.
    pub swept: BTreeSet<Slot>,
    pub waiting: Vec<Waiting>,
    pub wanted: BTreeMap<NodeId, SlotSet>,
    pub leaving: bool,
    pub paused: bool,
    /// Its clock is that much ahead of the world's.
    pub clock_ms: u64,
    /// When the last document was adopted, on its own clock; until the promises from before have run out.
    pub adopted_ms: Option<u64>,
}

impl Node {
    pub fn new(table: SlotTable, clock_ms: u64) -> Self {
        Self {
            table,
            data: BTreeMap::new(),
            pulls: BTreeMap::new(),
            prepares: BTreeMap::new(),
            peers: BTreeMap::new(),
            versions: BTreeMap::new(),
            since: BTreeMap::new(),
            promises: BTreeMap::new(),
            fenced: BTreeMap::new(),
            streams: BTreeMap::new(),
            swept: BTreeSet::new(),
            waiting: Vec::new(),
            wanted: BTreeMap::new(),
            leaving: false,
            paused: false,
            clock_ms,
            adopted_ms: None,
        }
    }

    pub fn me(&self) -> (NodeId, Incarnation) {
        (self.table.id().clone(), self.table.incarnation())
    }

    pub fn copies_of(&self, slot: Slot) -> Copies {
        self.table.copies_of(slot, &self.wanted).unwrap_or_default()
    }

    pub fn serves(&self, slot: Slot) -> bool {
        matches!(self.table.access(slot), Access::ReadWrite | Access::ReadOnly)
    }

    /// All that is listed for the slot has what it had at that version.
    pub fn copies_have(&self, slot: Slot, version: u64, bug: Option<Bug>) -> bool {
        bug == Some(Bug::AcksWithoutCopies)
            || self
                .copies_of(slot)
                .required
                .iter()
                .all(|id| self.has(id, slot, version))
    }

    pub fn has(&self, id: &NodeId, slot: Slot, version: u64) -> bool {
        let progress = self.peers.get(id).and_then(|peer| peer.slots.get(&slot));
        progress.is_some_and(|progress| progress.has >= version)
    }

    /// Nobody else can answer for the slot now: the fence is passed and all that is listed has promised.
    pub fn may_answer(&self, slot: Slot, now_ms: u64, bug: Option<Bug>) -> bool {
        let now_ms = now_ms + self.clock_ms;
        let since = self.since.get(&slot).copied().unwrap_or_default();
        let promised = |id: &NodeId| {
            let leases = self.peers.get(id).map(|peer| &peer.leases);
            leases.is_some_and(|leases| leases.range(since..).any(|(_, &until_ms)| until_ms > now_ms))
        };
        self.serves(slot)
            && (bug == Some(Bug::IgnoresFence)
                || self.fenced.get(&slot).is_none_or(|&until_ms| until_ms <= now_ms))
            && (bug == Some(Bug::IgnoresLease) || self.copies_of(slot).required.iter().all(promised))
    }

    /// What this node tells operators. A declaration counts when all that was written before it is there.
    pub fn report(&self, bug: Option<Bug>) -> Observed {
        let mut declared = self.table.declared().clone();
        for (id, slots) in &mut declared {
            let of_peer = self.peers.get(id).map(|peer| &peer.slots);
            for (&slot, version) in &self.versions {
                let progress = of_peer.and_then(|slots| slots.get(&slot));
                let counts = progress
                    .is_some_and(|p| p.phase == Phase::Filled && p.has >= p.declared_at.min(*version));
                if !counts && bug != Some(Bug::DeclaresBeforeFilled) {
                    slots.remove(slot);
                }
            }
        }
        declared.retain(|_, slots| !slots.is_empty());
        let (id, incarnation) = self.me();
        Observed {
            address: Address {
                host: id.to_string(),
                client_host: None,
                client_port: 6379,
                client_tls_port: None,
                peer_port: 16379,
            },
            id,
            incarnation,
            epoch: self.table.epoch(),
            activated: self.table.activated(),
            settled: self.table.settled(),
            declared,
            leaving: self.leaving,
        }
    }

    /// Follows who has, or is to have, copies of the sampled slots. `in_sync` slots came with copies that have all.
    pub fn follow_copies(&mut self, sampled: &[Slot], in_sync: Option<Slot>) {
        let mut served: BTreeMap<NodeId, BTreeMap<Slot, bool>> = BTreeMap::new();
        for &slot in sampled {
            let copies = self.copies_of(slot);
            for (ids, required) in [(copies.required, true), (copies.filling, false)] {
                for id in ids {
                    served.entry(id).or_default().insert(slot, required);
                }
            }
        }
        let Some(document) = self.table.document() else {
            return;
        };
        self.peers.retain(|id, peer| {
            served.contains_key(id)
                && document
                    .member(id)
                    .is_some_and(|m| m.incarnation == peer.incarnation)
        });
        for (id, slots) in served {
            let Some(member) = document.member(&id) else {
                continue;
            };
            let peer = self.peers.entry(id).or_insert_with(|| Peer {
                incarnation: member.incarnation,
                slots: BTreeMap::new(),
                outstanding: VecDeque::new(),
                lsn: 0,
                leases: BTreeMap::new(),
            });
            peer.slots.retain(|slot, _| slots.contains_key(slot));
            for (slot, required) in slots {
                let version = self.versions.get(&slot).copied().unwrap_or_default();
                let known = if in_sync == Some(slot) && required {
                    version
                } else {
                    0
                };
                peer.slots.entry(slot).or_insert(Progress {
                    phase: if known > 0 { Phase::Filled } else { Phase::Begin },
                    sent: known,
                    has: known,
                    declared_at: 0,
                });
            }
        }
    }

    /// What was on its way to a peer may not have come: it is sent again, and a fill begins anew.
    pub fn broken(&mut self, id: &NodeId) {
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        peer.outstanding.clear();
        for progress in peer.slots.values_mut() {
            progress.sent = progress.has;
            if progress.phase != Phase::Filled {
                progress.phase = Phase::Begin;
            }
        }
    }

    /// Everything of a slot that is served no more.
    pub fn forget(&mut self, slot: Slot) {
        self.versions.remove(&slot);
        self.since.remove(&slot);
        self.fenced.remove(&slot);
        self.prepares.remove(&slot);
        self.waiting.retain(|waiting| waiting.slot != slot);
        for peer in self.peers.values_mut() {
            peer.slots.remove(&slot);
            peer.outstanding.retain(|(_, other, _)| *other != slot);
        }
    }

    /// Whether it has all that was acknowledged of a slot, as far as it says itself.
    pub fn is_whole(&self, slot: Slot) -> bool {
        self.serves(slot) || self.table.copy(slot) == Copy::Complete
    }
}
