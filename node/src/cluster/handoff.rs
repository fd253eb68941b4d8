//! The steps of a handoff at either end, each of them one change of the table and of the slot's entries.
//!
//! A pull writes under the ticket that it began with. When the document changes so that the slot is not to be
//! pulled any more, or from another life of the source, the ticket is void and nothing more gets in.

use std::sync::atomic::Ordering;

use annulus_ring::{
    Access, CommitRefusal, Committed, Copy, Epoch, FreezeRefusal, FreezeRequest, Frozen, Incarnation, Member,
    NodeId, PullRefusal, Slot,
};

use super::copies::link_set;
use super::{ClusterState, Control};
use crate::store::{Entry, EvictionPolicy, TenantKey, TooBig};

/// A slot that refuses writes, as the source of a handoff sends it.
#[derive(Debug)]
pub struct FrozenSlot {
    /// Names the freeze in the commit.
    pub freeze_id: u64,
    /// The keys to send, least recently used first. Their values are read when they are sent: nothing writes to
    /// them meanwhile, and a copy of a whole slot could be as large as the store.
    pub keys: Vec<TenantKey>,
}

/// The right to write into a slot that is being pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullTicket {
    /// The slot.
    pub slot: Slot,
    id: u64,
}

/// Why received entries were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// The document changed.
    #[error("the ring changed, slot {0} is not to be pulled like this any more")]
    Void(Slot),
    /// One entry is larger than this node's budget.
    #[error(transparent)]
    TooBig(#[from] TooBig),
    /// There is no room, and nothing may be evicted.
    #[error("the memory budget of {budget_bytes} bytes is used up and the eviction policy forbids eviction")]
    NoRoom {
        /// The budget.
        budget_bytes: u64,
    },
}

/// A slot to pull and where from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its owner, who is to hand it over.
    pub source: NodeId,
    /// The slot.
    pub slot: Slot,
}

impl ClusterState {
    /// Source: refuses writes to the slot from now on, until `until_ms` on the caller's monotonic clock.
    pub fn freeze(
        &self,
        slot: Slot,
        (requester, incarnation): (&NodeId, Incarnation),
        until_ms: u64,
        unix_ms: u64,
    ) -> Result<FrozenSlot, FreezeRefusal> {
        let (freeze_id, frozen) = self.freeze_only(slot, (requester, incarnation), until_ms)?;
        let mut guard = self.store.lock_slot(slot);
        let keys = match frozen {
            Frozen::NothingHere => Vec::new(),
            Frozen::ForThisRequest => guard.all_keys(unix_ms),
        };
        Ok(FrozenSlot { freeze_id, keys })
    }

    /// Source: the same where no entries are to be sent. Returns what names the freeze, and what it is for.
    pub fn freeze_only(
        &self,
        slot: Slot,
        (requester, incarnation): (&NodeId, Incarnation),
        until_ms: u64,
    ) -> Result<(u64, Frozen), FreezeRefusal> {
        let mut control = self.control.lock();
        let freeze_id = control.draw_id();
        let request = FreezeRequest {
            slot,
            freeze_id,
            until_ms,
            requester,
            incarnation,
        };
        let frozen = control.table.freeze(request)?;
        let guard = self.store.lock_slot(slot);
        self.publish(&control, slot);
        drop(guard);
        Ok((freeze_id, frozen))
    }

    /// Source: copies of these entries of a frozen slot, as many from the front as are `bytes_max` together but at
    /// least one; and how many keys that took, since some may be gone. `None` when the slot isn't frozen.
    pub fn read_frozen(
        &self,
        slot: Slot,
        keys: &[TenantKey],
        bytes_max: usize,
        unix_ms: u64,
    ) -> Option<(Vec<Entry>, usize)> {
        let mut guard = self.store.lock_slot(slot);
        if self.access.get(slot) != Access::ReadOnly {
            return None;
        }
        let (mut entries, mut bytes, mut taken) = (Vec::new(), 0, 0);
        for (tenant, key) in keys {
            guard.enter(*tenant);
            if let Some(stored) = guard.peek(key, unix_ms) {
                bytes += key.len() + stored.value().len();
                if bytes > bytes_max && !entries.is_empty() {
                    break;
                }
                entries.push(Entry::of(*tenant, stored, unix_ms));
            }
            taken += 1;
        }
        Some((entries, taken))
    }

    /// Source: gives the slot up, with its entries.
    pub fn commit(&self, slot: Slot, freeze_id: u64, now_ms: u64) -> Result<Committed, CommitRefusal> {
        let mut control = self.control.lock();
        let outcome = control.table.commit(slot, freeze_id, now_ms);
        let mut guard = self.store.lock_slot(slot);
        if outcome == Ok(Committed::Now) {
            // Where there are copies, the source keeps what it had as one.
            if control.table.copy(slot) == Copy::Complete {
                guard.set_copy(true);
            } else {
                guard.clear();
            }
            self.store.journal.leave(slot, true);
            guard.release_clients();
        }
        self.publish(&control, slot);
        outcome
    }

    /// Source: takes writes again because nobody waits for this freeze any more. A commit of it is refused from
    /// now on.
    pub fn end_freeze(&self, slot: Slot, freeze_id: u64) {
        let mut control = self.control.lock();
        // At the end of time every freeze has run out; one that was committed stays committed.
        if control.table.commit(slot, freeze_id, u64::MAX).is_err() {
            let guard = self.store.lock_slot(slot);
            self.publish(&control, slot);
            drop(guard);
        }
    }

    /// Source: ends the freezes that ran out.
    pub fn expire_freezes(&self, now_ms: u64) {
        let mut control = self.control.lock();
        for slot in control.table.expire_freezes(now_ms).iter() {
            let guard = self.store.lock_slot(slot);
            self.publish(&control, slot);
            drop(guard);
        }
    }

    /// Source: when the next freeze runs out.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.control.lock().table.next_expiry_ms()
    }

    /// Target: every slot that is still to be begun, in order, and the epoch that says so.
    pub fn wanted(&self) -> (Epoch, Vec<Wanted>) {
        let control = self.control.lock();
        let source = |slot| {
            control.table.moved_to(slot).map(|member| Wanted {
                source: member.id.clone(),
                slot,
            })
        };
        (
            control.table.epoch(),
            control.table.to_pull().iter().filter_map(source).collect(),
        )
    }

    /// Target: who has the slot that is to be pulled.
    pub fn member(&self, id: &NodeId) -> Option<Member> {
        self.control.lock().table.document()?.member(id).cloned()
    }

    /// Target: begins to pull a slot. What there is of a copy stays if it is whole.
    pub fn begin(&self, slot: Slot) -> Result<PullTicket, PullRefusal> {
        let mut control = self.control.lock();
        control.table.begin(slot)?;
        if control.table.copy(slot) == Copy::None && self.store.is_copy(slot) {
            let mut guard = self.store.lock_slot(slot);
            guard.clear();
            guard.set_copy(false);
        }
        let id = control.draw_id();
        control.pulls.insert(slot, id);
        Ok(PullTicket { slot, id })
    }

    /// Target: whether the pull is still wanted.
    pub fn is_current(&self, ticket: PullTicket) -> bool {
        is_current(&self.control.lock(), ticket)
    }

    /// Target: keeps entries of a slot that is being pulled, invisible to clients until it is activated. Returns
    /// how many entries, of any slot, were evicted to make room.
    pub fn receive(
        &self,
        ticket: PullTicket,
        entries: Vec<Entry>,
        unix_ms: u64,
    ) -> Result<u64, ReceiveError> {
        let control = self.control.lock();
        if !is_current(&control, ticket) {
            return Err(ReceiveError::Void(ticket.slot));
        }
        let mut guard = self.store.lock_slot(ticket.slot);
        for entry in entries {
            guard.insert(entry, unix_ms)?;
        }
        drop(guard);
        if self.store.is_over_budget() {
            if self.store.eviction() == EvictionPolicy::NoEviction {
                return Err(ReceiveError::NoRoom {
                    budget_bytes: self.store.budget_bytes(),
                });
            }
            return Ok(self.store.evict(unix_ms));
        }
        Ok(0)
    }

    /// Target: the source sends everything, although this node has a copy: that goes first.
    pub fn forget_copy(&self, ticket: PullTicket) {
        let mut control = self.control.lock();
        if is_current(&control, ticket) && control.table.forget_copy(ticket.slot) {
            let mut guard = self.store.lock_slot(ticket.slot);
            guard.clear();
            guard.set_copy(false);
        }
    }

    /// Target: gives up a pull whose commit was not sent or was refused, and drops what it brought.
    pub fn abandon(&self, ticket: PullTicket) {
        let mut control = self.control.lock();
        // A void ticket's entries were dropped with the change that made it void.
        if is_current(&control, ticket) && control.table.abandon(ticket.slot).is_ok() {
            control.pulls.remove(&ticket.slot);
            let mut guard = self.store.lock_slot(ticket.slot);
            if control.table.copy(ticket.slot) == Copy::None {
                guard.clear();
                guard.set_copy(false);
            }
            self.publish(&control, ticket.slot);
            drop(guard);
            drop(control);
            self.note_change();
        }
    }

    /// Target: serves the slot from now on. Only after the source's yes to the commit.
    pub fn activate(&self, ticket: PullTicket) -> Result<(), ReceiveError> {
        let mut control = self.control.lock();
        if !is_current(&control, ticket) || control.table.activate(ticket.slot).is_err() {
            return Err(ReceiveError::Void(ticket.slot));
        }
        control.pulls.remove(&ticket.slot);
        let one_less = |incoming: u32| incoming.checked_sub(1);
        self.incoming
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .ok();
        let copies = control.table.copies_of(ticket.slot, &control.wanted);
        let mut guard = self.store.lock_slot(ticket.slot);
        guard.set_copy(false);
        if let Some(copies) = copies {
            let links = link_set(&control, &copies);
            let epoch = control.table.epoch();
            self.store.journal.serve(ticket.slot, links, epoch, 0);
        }
        self.publish(&control, ticket.slot);
        drop(guard);
        Self::follow_fill_of(&mut control, ticket.slot);
        drop(control);
        self.note_change();
        Ok(())
    }
}

fn is_current(control: &Control, ticket: PullTicket) -> bool {
    control.pulls.get(&ticket.slot) == Some(&ticket.id)
}
