//! One keyspace, sharded by slot, within a budget of bytes.
//!
//! Every slot has a map of its own ([`slot_map`]); 16 slots share a lock. Whoever holds a [`SlotGuard`] has the
//! slot to itself, and so a transaction on one slot takes one lock. A thread never holds two guards: two
//! slots may share a lock, and there is no order between locks.
//!
//! The store counts what its entries cost ([`memory`]) and evicts, at the caller's call, by approximate LRU over
//! all slots: exact within a slot, sampled between slots. Time is an argument. An entry whose time is over
//! does not exist for any reader from that millisecond on; its memory is given back when somebody asks for it
//! ([`SlotGuard`]) or by [`Store::sweep`].
//!
//! Every change of an entry goes through `set`, `modify`, `update`, `set_expiry`, `remove`, `insert` or `clear` of the guard:
//! that is where a stream of mutations is to be taken from.

pub(crate) mod bitmap;
pub mod collections;
mod guard;
pub mod memory;
mod slot_map;
mod value;
mod watch;

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use annulus_ring::{SLOT_COUNT, Slot};
use parking_lot::Mutex;

use crate::pubsub::Channels;
use crate::tracking::Tracking;
use bitmap::SlotBitmap;
pub use guard::{SlotGuard, Tally, TooBig};
use slot_map::SlotMap;
pub use value::{AccessStamp, Collection, Entry, Stored, Value, WrongType};
pub use watch::WatchFlag;
use watch::Watches;

/// Slots that share a lock.
const SHARD_SLOTS: usize = 16;
const SHARDS: usize = SLOT_COUNT as usize / SHARD_SLOTS;

/// Slots whose oldest entries compete for each eviction.
const EVICTION_SAMPLE: usize = 8;

/// Slots that one sweep looks at, at most.
const SWEEP_SLOTS_MAX: usize = 4096;

/// What happens to a write when the budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// The entries that were not used for longest make room.
    Lru,
    /// Commands that may need memory are refused.
    NoEviction,
}

impl EvictionPolicy {
    /// The policy's name in `CONFIG GET maxmemory-policy`.
    pub fn redis_name(self) -> &'static str {
        match self {
            Self::Lru => "allkeys-lru",
            Self::NoEviction => "noeviction",
        }
    }
}

/// What a store is made with.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// What the entries may cost together.
    pub budget_bytes: u64,
    /// What happens when they would cost more.
    pub eviction: EvictionPolicy,
}

/// A shard without entries allocates nothing.
#[derive(Default)]
struct Shard(Option<Box<[SlotMap; SHARD_SLOTS]>>);

impl Shard {
    fn slot(&self, slot: Slot) -> Option<&SlotMap> {
        self.0.as_ref().map(|slots| &slots[slot.index() % SHARD_SLOTS])
    }

    fn slot_mut(&mut self, slot: Slot) -> &mut SlotMap {
        &mut self.0.get_or_insert_default()[slot.index() % SHARD_SLOTS]
    }
}

/// One keyspace.
pub struct Store {
    shards: Box<[Mutex<Shard>]>,
    budget_bytes: u64,
    eviction: EvictionPolicy,
    used_bytes: AtomicU64,
    keys: AtomicU64,
    /// Slots that hold entries.
    occupied: SlotBitmap,
    /// Slots that hold entries with a time of expiry.
    volatile: SlotBitmap,
    /// Keys that transactions depend on.
    watches: Watches,
    /// Sharded channels, which are in slots as keys are.
    pub shard_channels: Channels,
    /// Keys in clients' caches.
    pub tracking: Tracking,
    /// Where the next sweep begins.
    sweep_next: AtomicU16,
    /// State of the generator that picks slots to sample.
    random: AtomicU64,
}

impl Store {
    /// An empty keyspace.
    pub fn new(options: StoreOptions) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            budget_bytes: options.budget_bytes,
            eviction: options.eviction,
            used_bytes: AtomicU64::new(0),
            keys: AtomicU64::new(0),
            occupied: SlotBitmap::new(),
            volatile: SlotBitmap::new(),
            watches: Watches::new(),
            shard_channels: Channels::default(),
            tracking: Tracking::default(),
            sweep_next: AtomicU16::new(0),
            random: AtomicU64::new(0),
        }
    }

    /// Takes the slot for as long as the guard lives. A thread that holds a guard must not take another.
    #[inline]
    pub fn lock_slot(&self, slot: Slot) -> SlotGuard<'_> {
        SlotGuard::new(self, slot, self.shards[slot.index() / SHARD_SLOTS].lock())
    }

    /// What the entries cost now.
    #[inline]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// What they may cost.
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// What happens when they would cost more.
    pub fn eviction(&self) -> EvictionPolicy {
        self.eviction
    }

    /// How many entries there are, those included whose time is over and who have not been removed yet.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// How many entries a slot holds, in the same sense.
    pub fn slot_len(&self, slot: Slot) -> usize {
        self.shards[slot.index() / SHARD_SLOTS]
            .lock()
            .slot(slot)
            .map_or(0, SlotMap::len)
    }

    /// What a slot's entries cost.
    pub fn slot_bytes(&self, slot: Slot) -> u64 {
        self.shards[slot.index() / SHARD_SLOTS]
            .lock()
            .slot(slot)
            .map_or(0, SlotMap::bytes)
    }

    /// How many entries have a time of expiry. Looks at every slot that has such entries.
    pub fn volatile_keys(&self) -> u64 {
        let mut keys = 0;
        let mut next = self.volatile.next_from(Slot::ZERO);
        while let Some(slot) = next {
            let shard = self.shards[slot.index() / SHARD_SLOTS].lock();
            keys += shard.slot(slot).map_or(0, SlotMap::volatile) as u64;
            next = following(slot).and_then(|slot| self.volatile.next_from(slot));
        }
        keys
    }

    /// The first slot at or after `from` that holds entries.
    pub fn next_occupied(&self, from: Slot) -> Option<Slot> {
        self.occupied.next_from(from)
    }

    /// Some slot that holds entries; `None` when there are none.
    pub fn random_occupied(&self) -> Option<Slot> {
        self.occupied.next_around(self.random_slot())
    }

    /// A number from the generator that samples slots.
    pub fn random(&self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014): a counter, well mixed, so that threads can share it.
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self
            .random
            .fetch_add(GAMMA, Ordering::Relaxed)
            .wrapping_add(GAMMA);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn random_slot(&self) -> Slot {
        let number = self.random() % u64::from(SLOT_COUNT);
        u16::try_from(number)
            .ok()
            .and_then(|number| Slot::new(number).ok())
            .unwrap_or(Slot::ZERO)
    }

    /// Whether the entries cost more than they may. One load.
    #[inline]
    pub fn is_over_budget(&self) -> bool {
        self.used_bytes() > self.budget_bytes
    }

    /// Removes least recently used entries until the rest is within the budget, and says how many. Does
    /// nothing under [`EvictionPolicy::NoEviction`]. The caller holds no guard.
    pub fn evict(&self, now_ms: u64) -> u64 {
        let mut evicted = 0;
        while self.eviction == EvictionPolicy::Lru && self.is_over_budget() {
            let removed = self.evict_from_sample(now_ms);
            if removed == 0 && self.keys() == 0 {
                break;
            }
            evicted += removed;
        }
        evicted
    }

    /// Samples slots and evicts from the one with the oldest entry, until another of them has an older one.
    fn evict_from_sample(&self, now_ms: u64) -> u64 {
        let (mut victim, mut victim_age_ms, mut runner_up_age_ms) = (None, 0, 0);
        for _ in 0..EVICTION_SAMPLE {
            let Some(slot) = self.random_occupied() else {
                return 0;
            };
            let oldest = self.shards[slot.index() / SHARD_SLOTS]
                .lock()
                .slot(slot)
                .and_then(SlotMap::oldest);
            let Some(age_ms) = oldest.map(|stamp| stamp.age_ms(now_ms)) else {
                continue;
            };
            if victim.is_none() || age_ms > victim_age_ms {
                (victim, runner_up_age_ms, victim_age_ms) = (Some(slot), victim_age_ms, age_ms);
            } else {
                runner_up_age_ms = runner_up_age_ms.max(age_ms);
            }
        }
        let Some(slot) = victim else { return 0 };
        let mut guard = self.lock_slot(slot);
        let mut removed = 0;
        // The first goes in any case; more only while they are older than every other candidate.
        while guard.excess_bytes() > 0 {
            let Some(age_ms) = guard.oldest_age_ms(now_ms) else {
                break;
            };
            if removed > 0 && age_ms <= runner_up_age_ms {
                break;
            }
            guard.remove_oldest();
            removed += 1;
        }
        removed
    }

    /// Gives back the memory of entries whose time is over, and says how many those were. Looks at a bounded
    /// number of slots, going on where the last sweep ended, and stops after `entries_max` entries; a slot
    /// in which nothing can have expired costs a look at one number. The caller holds no guard.
    pub fn sweep(&self, now_ms: u64, entries_max: usize) -> u64 {
        let (mut removed, mut visited) = (0, 0);
        let begin = Slot::new(self.sweep_next.load(Ordering::Relaxed)).unwrap_or(Slot::ZERO);
        let mut next = begin;
        for _ in 0..SWEEP_SLOTS_MAX {
            let Some(slot) = self.volatile.next_from(next) else {
                next = Slot::ZERO;
                break;
            };
            let mut guard = self.lock_slot(slot);
            if guard.may_have_expired(now_ms) {
                visited += guard.len();
                removed += guard.remove_expired(now_ms);
            }
            drop(guard);
            next = following(slot).unwrap_or(Slot::ZERO);
            if next == Slot::ZERO || visited >= entries_max {
                break;
            }
        }
        self.sweep_next.store(next.number(), Ordering::Relaxed);
        removed as u64
    }

    /// Removes every entry of every slot, and says how many there were. Slots are emptied one after the
    /// other: what is written meanwhile to a slot that was already emptied stays.
    pub fn clear(&self) -> u64 {
        let mut removed = 0;
        let mut next = self.next_occupied(Slot::ZERO);
        while let Some(slot) = next {
            removed += self.lock_slot(slot).clear() as u64;
            next = following(slot).and_then(|slot| self.next_occupied(slot));
        }
        removed
    }
}

/// The slot after this one, if there is one.
pub fn following(slot: Slot) -> Option<Slot> {
    Slot::new(slot.number() + 1).ok()
}

#[cfg(test)]
mod tests;
