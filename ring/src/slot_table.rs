//! The node's side of the ring: what one life of one node may do with each slot.
//!
//! Invariant: while nobody is taken for dead, of all the tables that follow these rules at most one answers
//! [`Access::ReadWrite`] for a slot, at any moment and whichever documents each of them has adopted; who took over
//! from somebody taken for dead waits for its [`fences`](AdoptOutcome::fences) besides. A source relinquishes
//! ([`commit`](SlotTable::commit)) before the target activates ([`activate`](SlotTable::activate)), and the
//! planner gives the tokens away only afterwards.
//!
//! A slot of a handoff goes through these states, the source's on the left:
//!
//! ```text
//!  owned ──freeze──▶ frozen ──commit──▶ handed over        incoming ──begin──▶ pulling ──activate──▶ activated
//!    ▲                  │                                      ▲                  │
//!    └──expired, thawed─┘                                      └─────abandon──────┘
//! ```
//!
//! A slot that this node does not serve may still be one of its copies: [`Copy`] says how far it is, and
//! [`copies`](self) of a slot's owner who has one. Where there are copies, a source keeps what it handed over as
//! one, so that at no moment of a handoff there are fewer.
//!
//! The table refuses to guess: without a document that lists exactly its own incarnation it serves nothing, a
//! slot that it can't remember to have held is not taken back from a handoff that still stands, and a freeze
//! that ran out can't be committed. It reads no clock (`now_ms` is an argument: any millisecond clock of this
//! process that never goes backwards) and holds no entries: it says which slots' entries are to be dropped,
//! and whoever owns the table drops them before anybody sees the new state.

use std::collections::BTreeMap;

mod copies;

pub use copies::{Copies, Copy};

use crate::{
    DocumentError, Epoch, Handoff, Incarnation, Member, MemberState, NodeId, RingDocument, SLOT_COUNT, Slot,
    SlotSet,
};

/// What a client may do with a slot at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// This node serves the slot.
    ReadWrite,
    /// This node serves reads; writes are refused for the milliseconds that a handoff of the slot takes
    /// (`-TRYAGAIN`).
    ReadOnly,
    /// Another node serves it: [`SlotTable::moved_to`] (`-MOVED`).
    Elsewhere,
    /// This node has no part in the ring (`-CLUSTERDOWN`).
    Down,
}

/// What changed by adopting a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AdoptOutcome {
    /// False when the epoch was known already, and nothing changed.
    pub is_new: bool,
    /// Slots that this node serves now and did not serve before, and had no whole copy of. They are empty.
    pub gained: SlotSet,
    /// Slots that this node serves now, did not serve before, and has a whole copy of, which is kept.
    pub promoted: SlotSet,
    /// Who may still believe to serve slots that were gained or promoted, as far as the documents before said. They
    /// must not be answered for before this node's promises to that node have run out.
    pub fences: BTreeMap<NodeId, SlotSet>,
    /// Slots whose entries, if there are any, are to be dropped now: served, copied or being pulled before, and none
    /// of it now.
    pub lost: SlotSet,
    /// The handoffs towards this node that are to be carried out; some of their slots may be activated already.
    pub pull: Vec<Handoff>,
}

/// Why a document was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It belongs to another cluster, or contradicts itself.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Epochs only grow.
    #[error("the document's epoch {offered} is lower than {current}, which this node has adopted already")]
    OlderEpoch {
        /// The document's.
        offered: Epoch,
        /// This node's.
        current: Epoch,
    },
}

/// A request to freeze one slot for its target.
#[derive(Debug, Clone, Copy)]
pub struct FreezeRequest<'a> {
    /// The slot.
    pub slot: Slot,
    /// A number that this life of the source never used before for the slot; names the freeze in the commit.
    pub freeze_id: u64,
    /// When the freeze ends by itself, on the clock that `now_ms` comes from.
    pub until_ms: u64,
    /// Who asks.
    pub requester: &'a NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
}

/// A freeze that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// Writes to the slot are refused from now on; its entries are to be sent, and the target commits.
    ForThisRequest,
    /// This life of the source never held the slot's entries (it is a new incarnation, and an earlier one may
    /// have handed the slot over): there is nothing to send, and the target may commit at once.
    NothingHere,
}

/// Why a slot was not frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FreezeRefusal {
    /// The source's document has no such handoff: one of the two has an older document.
    #[error("slot {slot} is not in a handoff to that node at epoch {epoch}, compare the ring documents")]
    NoHandoff {
        /// The slot.
        slot: Slot,
        /// The source's epoch.
        epoch: Epoch,
    },
    /// The handoff was cancelled.
    #[error("the handoff of slot {0} is cancelled")]
    Cancelled(Slot),
    /// The requester committed the slot before; it has to activate it, not to ask again.
    #[error("slot {0} was handed over to that node before")]
    HandedOver(Slot),
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The slot is the target's from now on; the source drops its entries.
    Now,
    /// It was the target's already: the commit was repeated.
    Before,
}

/// Why a slot was not handed over. It never will be by that freeze: the target discards what it received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitRefusal {
    /// It ran out, was replaced by a later one, or its handoff is gone; the source serves writes again.
    #[error("freeze {freeze_id} of slot {slot} is not in force any more, prepare the slot again")]
    NotInForce {
        /// The slot.
        slot: Slot,
        /// The freeze that the commit named.
        freeze_id: u64,
    },
}

/// A step of a pull that does not fit the slot's state: the document changed meanwhile. What was received of the
/// slot is to be discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("slot {slot} is not {expected} at epoch {epoch}, discard what was received of it")]
pub struct PullRefusal {
    /// The slot.
    pub slot: Slot,
    /// The state that the step needs.
    pub expected: &'static str,
    /// This node's epoch.
    pub epoch: Epoch,
}

/// One slot's state. Members are indices in the document's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The document does not list this life.
    Down,
    /// Somebody else's.
    Elsewhere(u16),
    /// Ours by the tokens, and served.
    Owned,
    /// Ours, but no writes; the freeze is in `freezes`.
    Frozen,
    /// Ours by the tokens, but the target of its handoff has it.
    HandedOver(u16),
    /// Ours by the tokens, but this life never held it, and an earlier one may have handed it over to the target.
    Unheld(u16),
    /// The source's; to be pulled unless the handoff is cancelled.
    Incoming { from: u16, cancelled: bool },
    /// Being pulled: entries are on their way, or a commit is.
    Pulling { from: u16 },
    /// Pulled and served; the tokens are still the source's.
    Activated,
}

impl State {
    fn is_served(self) -> bool {
        matches!(self, Self::Owned | Self::Frozen | Self::Activated)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Freeze {
    id: u64,
    until_ms: u64,
    to: u16,
}

/// What one life of one node may do with each slot; see the module.
#[derive(Debug, Clone)]
pub struct SlotTable {
    id: NodeId,
    incarnation: Incarnation,
    document: Option<RingDocument>,
    states: Vec<State>,
    /// The freezes in force: exactly one for each frozen slot.
    freezes: BTreeMap<Slot, Freeze>,
    /// By which freeze a slot was handed over, so that a repeated commit is known again.
    commits: BTreeMap<Slot, u64>,
    /// What there is of each slot that this node does not serve.
    copies: Vec<Copy>,
    /// What the document wants this node to have copies of.
    wanted: SlotSet,
    /// Of the slots that this node serves: who has whole copies that the document does not tell of yet.
    declared: BTreeMap<NodeId, SlotSet>,
    /// Who served what by earlier documents under which this node's promises may not have run out.
    former: BTreeMap<NodeId, SlotSet>,
    /// Copies that the target of a handoff has begun to fill: the source's changes don't count any more.
    taken_over: SlotSet,
}

impl SlotTable {
    /// The table of a node without a ring: it serves nothing.
    pub fn new(id: NodeId, incarnation: Incarnation) -> Self {
        Self {
            id,
            incarnation,
            document: None,
            states: vec![State::Down; usize::from(SLOT_COUNT)],
            freezes: BTreeMap::new(),
            commits: BTreeMap::new(),
            copies: vec![Copy::None; usize::from(SLOT_COUNT)],
            wanted: SlotSet::new(),
            declared: BTreeMap::new(),
            former: BTreeMap::new(),
            taken_over: SlotSet::new(),
        }
    }

    /// Whose table this is.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Which life of it.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The adopted document.
    pub fn document(&self) -> Option<&RingDocument> {
        self.document.as_ref()
    }

    /// The adopted document's epoch, [`Epoch::NONE`] without one.
    pub fn epoch(&self) -> Epoch {
        self.document
            .as_ref()
            .map_or(Epoch::NONE, |document| document.epoch)
    }

    /// This node as the document has it; `None` unless it lists this very incarnation.
    pub fn member(&self) -> Option<&Member> {
        let member = self.document.as_ref()?.member(&self.id)?;
        (member.incarnation == self.incarnation).then_some(member)
    }

    /// Takes over a document, in one step: afterwards every slot follows the new one.
    ///
    /// The tokens are the authority on what this node owns. What stands in no document is carried over: a slot
    /// that was handed over stays so while its handoff stands, and so does an activated one; a freeze stays in
    /// force while its handoff stands, cancelled or not; a pull goes on while the source is the same life of
    /// the same node. A slot of a standing handoff from this node that this life never held is taken to be
    /// handed over, since an earlier life may have done so.
    pub fn adopt(&mut self, document: RingDocument) -> Result<AdoptOutcome, Refusal> {
        document.validate()?;
        if let Some(current) = &self.document
            && !document.supersedes(current)?
        {
            if document.epoch < current.epoch {
                return Err(Refusal::OlderEpoch {
                    offered: document.epoch,
                    current: current.epoch,
                });
            }
            return Ok(AdoptOutcome {
                pull: self.pull(),
                ..AdoptOutcome::default()
            });
        }
        let states = self.states_under(&document);
        self.note_former_servers();
        let (copies, wanted) = self.copies_under(&document, &states);
        let mut outcome = AdoptOutcome {
            is_new: true,
            fences: self.fences(&states),
            ..AdoptOutcome::default()
        };
        for slot in Slot::all() {
            let index = slot.index();
            let (before, after) = (self.states[index], states[index]);
            let held = before.is_served()
                || matches!(before, State::Pulling { .. })
                || self.copies[index] != Copy::None;
            let holds =
                after.is_served() || matches!(after, State::Pulling { .. }) || copies[index] != Copy::None;
            if after.is_served() && !before.is_served() {
                if self.copies[index] == Copy::Complete {
                    outcome.promoted.insert(slot);
                } else {
                    outcome.gained.insert(slot);
                }
            }
            if held && !holds {
                outcome.lost.insert(slot);
            }
        }
        self.follow_declared(&document, &states);
        self.copies = copies;
        self.wanted = wanted;
        self.freezes
            .retain(|slot, _| states[slot.index()] == State::Frozen);
        self.commits
            .retain(|slot, _| matches!(states[slot.index()], State::HandedOver(_) | State::Unheld(_)));
        for (slot, freeze) in &mut self.freezes {
            if let Some(handoff) = document
                .handoffs
                .iter()
                .find(|handoff| handoff.slots.contains(*slot))
            {
                freeze.to = index_of(&document, &handoff.to);
            }
        }
        let standing = |slot: &Slot| {
            let handoff = document
                .handoffs
                .iter()
                .find(|handoff| handoff.slots.contains(*slot));
            handoff.is_some_and(|handoff| self.stands(*slot, handoff))
        };
        self.taken_over = self.taken_over.iter().filter(standing).collect();
        self.states = states;
        self.document = Some(document);
        outcome.pull = self.pull();
        Ok(outcome)
    }

    /// Every slot's state under a new document.
    fn states_under(&self, document: &RingDocument) -> Vec<State> {
        let listed = document.member(&self.id).is_some_and(|member| {
            member.incarnation == self.incarnation && member.state != MemberState::Down
        });
        if !listed {
            return vec![State::Down; usize::from(SLOT_COUNT)];
        }
        let mut states = Vec::with_capacity(self.states.len());
        for (range, owner) in document.ring().arcs() {
            let state = if *owner == self.id {
                State::Owned
            } else {
                State::Elsewhere(index_of(document, owner))
            };
            states.resize(states.len() + usize::from(range.len()), state);
        }
        for handoff in &document.handoffs {
            for slot in handoff.slots.iter() {
                if handoff.from == self.id {
                    states[slot.index()] = self.as_source(slot, handoff, document);
                } else if handoff.to == self.id {
                    states[slot.index()] = self.as_target(slot, handoff, document);
                }
            }
        }
        states
    }

    /// The state of a slot that a handoff of the new document takes from this node.
    fn as_source(&self, slot: Slot, handoff: &Handoff, document: &RingDocument) -> State {
        let to = index_of(document, &handoff.to);
        let same_life = |old: u16| self.same_life(old, document, &handoff.to);
        match self.states[slot.index()] {
            State::Frozen if self.freezes.get(&slot).is_some_and(|freeze| same_life(freeze.to)) => {
                State::Frozen
            }
            State::Owned | State::Activated | State::Frozen => State::Owned,
            State::HandedOver(old) | State::Unheld(old) if !same_life(old) => State::Owned,
            State::HandedOver(_) => State::HandedOver(to),
            _ => State::Unheld(to),
        }
    }

    /// The state of a slot that a handoff of the new document brings to this node.
    fn as_target(&self, slot: Slot, handoff: &Handoff, document: &RingDocument) -> State {
        let from = index_of(document, &handoff.from);
        match self.states[slot.index()] {
            State::Activated if self.stands(slot, handoff) => State::Activated,
            State::Pulling { from: old } if self.same_life(old, document, &handoff.from) => {
                State::Pulling { from }
            }
            _ => State::Incoming {
                from,
                cancelled: handoff.cancelled,
            },
        }
    }

    /// Whether the current document has the slot in a handoff between the same two.
    fn stands(&self, slot: Slot, handoff: &Handoff) -> bool {
        let same =
            |old: &Handoff| old.slots.contains(slot) && old.from == handoff.from && old.to == handoff.to;
        self.document
            .as_ref()
            .is_some_and(|document| document.handoffs.iter().any(same))
    }

    /// Whether a member of the current document is the same life of `id` that the new document lists.
    fn same_life(&self, old: u16, document: &RingDocument, id: &NodeId) -> bool {
        let old = self.member_at(old);
        let new = document.member(id);
        old.zip(new)
            .is_some_and(|(old, new)| old.id == new.id && old.incarnation == new.incarnation)
    }

    fn member_at(&self, index: u16) -> Option<&Member> {
        self.document.as_ref()?.members.get(usize::from(index))
    }

    fn pull(&self) -> Vec<Handoff> {
        let handoffs = self.document.iter().flat_map(|document| &document.handoffs);
        let wanted =
            |handoff: &&Handoff| handoff.to == self.id && !handoff.cancelled && self.member().is_some();
        handoffs.filter(wanted).cloned().collect()
    }

    /// What a client may do with the slot here.
    #[inline]
    pub fn access(&self, slot: Slot) -> Access {
        match self.states[slot.index()] {
            State::Owned | State::Activated => Access::ReadWrite,
            State::Frozen => Access::ReadOnly,
            State::Elsewhere(_)
            | State::HandedOver(_)
            | State::Unheld(_)
            | State::Incoming { .. }
            | State::Pulling { .. } => Access::Elsewhere,
            State::Down => Access::Down,
        }
    }

    /// Who serves the slot, when that is somebody else: the owner, or the other end of a handoff. Two nodes may
    /// name each other for the milliseconds between commit and activation.
    pub fn moved_to(&self, slot: Slot) -> Option<&Member> {
        match self.states[slot.index()] {
            State::Elsewhere(member)
            | State::HandedOver(member)
            | State::Unheld(member)
            | State::Incoming { from: member, .. }
            | State::Pulling { from: member } => self.member_at(member),
            State::Owned | State::Frozen | State::Activated | State::Down => None,
        }
    }

    /// Source: refuses writes to the slot until the commit or the end of the freeze. A freeze replaces an
    /// earlier one of the slot, which can't be committed any more.
    pub fn freeze(&mut self, request: FreezeRequest<'_>) -> Result<Frozen, FreezeRefusal> {
        let FreezeRequest {
            slot,
            freeze_id,
            until_ms,
            requester,
            incarnation,
        } = request;
        let no_handoff = FreezeRefusal::NoHandoff {
            slot,
            epoch: self.epoch(),
        };
        let document = self.document.as_ref().ok_or(no_handoff)?;
        let handoff = document
            .handoffs
            .iter()
            .find(|handoff| handoff.slots.contains(slot))
            .ok_or(no_handoff)?;
        let known = document
            .member(requester)
            .is_some_and(|member| member.incarnation == incarnation);
        if handoff.from != self.id || handoff.to != *requester || !known {
            return Err(no_handoff);
        }
        if handoff.cancelled {
            return Err(FreezeRefusal::Cancelled(slot));
        }
        let to = index_of(document, requester);
        match self.states[slot.index()] {
            State::Owned | State::Frozen => {
                self.states[slot.index()] = State::Frozen;
                self.freezes.insert(
                    slot,
                    Freeze {
                        id: freeze_id,
                        until_ms,
                        to,
                    },
                );
                Ok(Frozen::ForThisRequest)
            }
            State::HandedOver(_) => Err(FreezeRefusal::HandedOver(slot)),
            // As often as it is asked: an answer may get lost.
            State::Unheld(_) => {
                self.commits.insert(slot, freeze_id);
                Ok(Frozen::NothingHere)
            }
            _ => Err(no_handoff),
        }
    }

    /// Source: ends the freezes that ran out before `now_ms`; their slots take writes again. Returns those slots.
    pub fn expire_freezes(&mut self, now_ms: u64) -> SlotSet {
        let expired: SlotSet = self
            .freezes
            .iter()
            .filter(|(_, freeze)| freeze.until_ms < now_ms)
            .map(|(&slot, _)| slot)
            .collect();
        for slot in expired.iter() {
            self.thaw(slot);
        }
        expired
    }

    /// Source: when the next freeze runs out.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.freezes.values().map(|freeze| freeze.until_ms).min()
    }

    fn thaw(&mut self, slot: Slot) {
        self.freezes.remove(&slot);
        self.states[slot.index()] = State::Owned;
    }

    /// Source: gives the slot up to the target of its freeze. Whether a freeze ran out is decided here, by this
    /// clock alone, and the answer is final: after a refusal the same commit is never accepted.
    pub fn commit(&mut self, slot: Slot, freeze_id: u64, now_ms: u64) -> Result<Committed, CommitRefusal> {
        if self.commits.get(&slot) == Some(&freeze_id) {
            // Neither has anything of it, so that this node has what the target has.
            if let State::Unheld(to) = self.states[slot.index()] {
                self.hand_over(slot, to);
            }
            return Ok(Committed::Before);
        }
        let refusal = CommitRefusal::NotInForce { slot, freeze_id };
        let freeze = *self
            .freezes
            .get(&slot)
            .filter(|freeze| freeze.id == freeze_id)
            .ok_or(refusal)?;
        self.thaw(slot);
        if freeze.until_ms < now_ms {
            return Err(refusal);
        }
        self.hand_over(slot, freeze.to);
        self.commits.insert(slot, freeze_id);
        Ok(Committed::Now)
    }

    fn hand_over(&mut self, slot: Slot, to: u16) {
        self.states[slot.index()] = State::HandedOver(to);
        if self.has_copies() {
            self.copies[slot.index()] = Copy::Complete;
        }
    }

    /// Target: the slots that are still to be begun, in order.
    pub fn to_pull(&self) -> SlotSet {
        self.slots_where(|state| matches!(state, State::Incoming { cancelled: false, .. }))
    }

    /// Target: begins to pull a slot; from here until [`activate`](Self::activate) or
    /// [`abandon`](Self::abandon) the node is not settled.
    pub fn begin(&mut self, slot: Slot) -> Result<(), PullRefusal> {
        match self.states[slot.index()] {
            State::Incoming {
                from,
                cancelled: false,
            } => {
                self.states[slot.index()] = State::Pulling { from };
                // What is only part of a copy goes: the source sends everything.
                if self.copies[slot.index()] == Copy::Filling {
                    self.copies[slot.index()] = Copy::None;
                }
                Ok(())
            }
            _ => Err(PullRefusal {
                slot,
                expected: "waiting to be pulled",
                epoch: self.epoch(),
            }),
        }
    }

    /// Target: gives up a pull whose commit was not sent, or was refused. While a commit's outcome is unknown it
    /// must be repeated instead, since the source may have relinquished the slot.
    pub fn abandon(&mut self, slot: Slot) -> Result<(), PullRefusal> {
        match self.states[slot.index()] {
            State::Pulling { from } => {
                let handoffs = self.document.iter().flat_map(|document| &document.handoffs);
                let cancelled = handoffs
                    .filter(|h| h.slots.contains(slot))
                    .any(|handoff| handoff.cancelled);
                self.states[slot.index()] = State::Incoming { from, cancelled };
                Ok(())
            }
            _ => Err(self.not_pulling(slot)),
        }
    }

    /// Target: serves the slot from now on; only after the source's yes to the commit. Refused when the document
    /// changed so that the slot can't be this node's any more. Where there are copies, the source is declared to
    /// have one: it keeps what it handed over.
    pub fn activate(&mut self, slot: Slot) -> Result<(), PullRefusal> {
        match self.states[slot.index()] {
            State::Pulling { from } => {
                self.states[slot.index()] = State::Activated;
                self.copies[slot.index()] = Copy::None;
                if self.has_copies()
                    && let Some(source) = self.member_at(from).map(|member| member.id.clone())
                {
                    self.declare(slot, &source);
                }
                Ok(())
            }
            _ => Err(self.not_pulling(slot)),
        }
    }

    fn not_pulling(&self, slot: Slot) -> PullRefusal {
        PullRefusal {
            slot,
            expected: "being pulled",
            epoch: self.epoch(),
        }
    }

    /// Target: the slots of the document's handoffs that this node serves already; for the report.
    pub fn activated(&self) -> SlotSet {
        self.slots_where(|state| state == State::Activated)
    }

    /// Target: nothing of the document's handoffs towards this node is in flight or to be begun, so that
    /// [`activated`](Self::activated) is final at this epoch; for the report.
    pub fn settled(&self) -> bool {
        let open = |state: &State| {
            matches!(
                state,
                State::Pulling { .. } | State::Incoming { cancelled: false, .. }
            )
        };
        !self.states.iter().any(open)
    }

    /// The slots that this node serves, frozen ones included.
    pub fn served(&self) -> SlotSet {
        self.slots_where(State::is_served)
    }

    fn slots_where(&self, wanted: impl Fn(State) -> bool) -> SlotSet {
        Slot::all()
            .filter(|slot| wanted(self.states[slot.index()]))
            .collect()
    }
}

/// The index of a member that the document is known to have.
fn index_of(document: &RingDocument, id: &NodeId) -> u16 {
    let index = document
        .members
        .binary_search_by(|member| member.id.cmp(id))
        .unwrap_or_default();
    u16::try_from(index).unwrap_or_default()
}
