//! One keyspace, sharded by slot, within a budget of bytes.
//!
//! Every slot has a map of its own ([`slot_map`]) behind a lock of its own, in one cache line. Whoever holds a
//! [`SlotGuard`] has the slot to itself, and so a transaction on one slot takes one lock. A thread never holds
//! two guards: there is no order between locks.
//!
//! The store counts what its entries cost ([`memory`]) and evicts, at the caller's call, by a policy over samples
//! of all slots ([`eviction`]). Time is an argument. An entry whose time is over does not exist for any reader
//! from that millisecond on; its memory is given back when somebody asks for it ([`SlotGuard`]) or by
//! [`Store::sweep`].
//!
//! Every change of an entry goes through `set`, `set_string`, `edit_string`, `update`, `set_expiry`, `remove`, `insert`
//! or `clear` of the guard. What clients, expiry and eviction change is told to the [`journal`](crate::journal) there,
//! and so to other nodes.

pub(crate) mod bitmap;
pub mod collections;
mod evict;
mod eviction;
mod guard;
mod history;
mod index;
pub mod memory;
pub mod moving;
mod prefetch;
mod slot_map;
mod stored;
mod value;
mod watch;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use annulus_ring::{SLOT_COUNT, Slot};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::journal::Journal;
use crate::pubsub::Channels;
use crate::tracking::Tracking;
use bitmap::SlotBitmap;
pub use eviction::EvictionPolicy;
use eviction::Victims;
pub use guard::{SlotGuard, Tally, TooBig};
use history::{Ghosts, Sketch};
use moving::Moving;
use slot_map::{KeyHasher, SlotMap};
pub use stored::Stored;
pub use value::{AccessStamp, Collection, Entry, Text, Value, ValueRef, WrongType};
pub use watch::WatchFlag;
use watch::Watches;

/// Slots that are made together when one of them is first used: a keyspace with few keys stays small.
const SHARD_SLOTS: usize = 16;
const SHARDS: usize = SLOT_COUNT as usize / SHARD_SLOTS;

/// So much growth of connections is told to who looks after the process's memory.
const GROWTH_BYTES: u64 = 4 << 20;

/// Connections may hold so much together at the cost of the headroom over the budget, not of the entries: so that a large
/// request, which may yet be refused, evicts nothing.
const CONNECTION_BYTES_FREE: u64 = 16 << 20;

/// Keys that [`Store::prefetch`] takes at once.
pub const PREFETCH_MAX: usize = 16;

/// Slots that one sweep looks at, at most.
const SWEEP_SLOTS_MAX: usize = 4096;

/// What a store is made with.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// What the entries may cost together.
    pub budget_bytes: u64,
    /// What happens when they would cost more.
    pub eviction: EvictionPolicy,
}

/// A slot on a cache line of its own: what finds its entries is fetched at once with its lock.
#[derive(Default)]
#[repr(align(64))]
struct SlotLine(Mutex<SlotMap>);

const _: () = assert!(size_of::<SlotLine>() == 64);

type Shard = OnceLock<Box<[SlotLine; SHARD_SLOTS]>>;

/// One keyspace.
pub struct Store {
    shards: Box<[Shard]>,
    budget_bytes: u64,
    eviction: EvictionPolicy,
    /// Who will be evicted next. It is locked before any slot.
    victims: Mutex<Victims>,
    /// Keys that were evicted from their probation.
    ghosts: Ghosts,
    /// How often keys were used.
    sketch: Sketch,
    hasher: KeyHasher,
    used_bytes: AtomicU64,
    /// What connections hold beyond the room that is always left for them.
    connection_bytes: AtomicU64,
    /// What connections have grown by, ever.
    grown_bytes: AtomicU64,
    grew: Notify,
    /// Slots that change hands.
    pub moving: Moving,
    /// What of the budget entries may not have, because the process takes more than is counted.
    withheld_bytes: AtomicU64,
    keys: AtomicU64,
    /// Entries on probation.
    fresh: AtomicU64,
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
    /// What other nodes must have of the changes.
    pub journal: Journal,
    /// Slots whose entries are copies of what another node serves: nobody scans, expires or evicts them here, and they
    /// are in none of the sets and counts of entries.
    copies: SlotBitmap,
    copied_keys: AtomicU64,
    copied_bytes: AtomicU64,
    /// What the entries that are no copies may cost.
    own_budget_bytes: AtomicU64,
    /// Where the next sweep begins.
    sweep_next: AtomicU16,
    /// State of the generator that picks slots to sample.
    random: AtomicU64,
}

impl Store {
    /// An empty keyspace.
    pub fn new(options: StoreOptions) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::new()).collect(),
            budget_bytes: options.budget_bytes,
            eviction: options.eviction,
            victims: Mutex::default(),
            ghosts: Ghosts::new(),
            sketch: Sketch::new(),
            hasher: KeyHasher::default(),
            used_bytes: AtomicU64::new(0),
            connection_bytes: AtomicU64::new(0),
            grown_bytes: AtomicU64::new(0),
            grew: Notify::new(),
            moving: Moving::new(),
            withheld_bytes: AtomicU64::new(0),
            keys: AtomicU64::new(0),
            fresh: AtomicU64::new(0),
            occupied: SlotBitmap::new(),
            volatile: SlotBitmap::new(),
            watches: Watches::new(),
            shard_channels: Channels::default(),
            tracking: Tracking::default(),
            journal: Journal::default(),
            copies: SlotBitmap::new(),
            copied_keys: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
            own_budget_bytes: AtomicU64::new(options.budget_bytes),
            sweep_next: AtomicU16::new(0),
            random: AtomicU64::new(0),
        }
    }

    /// Takes the slot for as long as the guard lives. A thread that holds a guard must not take another.
    #[inline]
    pub fn lock_slot(&self, slot: Slot) -> SlotGuard<'_> {
        let shard = self.shards[slot.index() / SHARD_SLOTS].get_or_init(Box::default);
        SlotGuard::new(self, slot, shard[slot.index() % SHARD_SLOTS].0.lock())
    }

    /// Has the processor fetch what commands on these keys will look at, all of them at the same time. A look-up
    /// waits for memory three times in a row, each time for what the last one pointed to; several look-ups at
    /// once wait no longer than one.
    pub fn prefetch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let mut wanted = [(Slot::ZERO, 0); PREFETCH_MAX];
        let mut count = 0;
        for (place, key) in wanted.iter_mut().zip(keys) {
            *place = (Slot::for_key(key), self.hasher.hash(key));
            if let Some(map) = self.map_of(place.0) {
                prefetch::prefetch(map);
            }
            count += 1;
        }
        // A slot that is locked is being used, so that it is at hand already.
        for (slot, hash) in &wanted[..count] {
            if let Some(map) = self.map_of(*slot).and_then(Mutex::try_lock) {
                map.prefetch(*hash);
            }
        }
        for (slot, hash) in &wanted[..count] {
            if let Some(map) = self.map_of(*slot).and_then(Mutex::try_lock) {
                map.prefetch_entry(*hash);
            }
        }
    }

    /// The slot's entries, if any slot of its shard was ever used.
    #[inline]
    fn map_of(&self, slot: Slot) -> Option<&Mutex<SlotMap>> {
        let shard = self.shards[slot.index() / SHARD_SLOTS].get()?;
        Some(&shard[slot.index() % SHARD_SLOTS].0)
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
        self.map_of(slot).map_or(0, |map| map.lock().len())
    }

    /// What a slot's entries cost.
    pub fn slot_bytes(&self, slot: Slot) -> u64 {
        self.map_of(slot).map_or(0, |map| map.lock().bytes())
    }

    /// How many entries have a time of expiry. Looks at every slot that has such entries.
    pub fn volatile_keys(&self) -> u64 {
        let mut keys = 0;
        let mut next = self.volatile.next_from(Slot::ZERO);
        while let Some(slot) = next {
            keys += self
                .map_of(slot)
                .map_or(0, |map| u64::from(map.lock().volatile()));
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
        mixed(self.random.fetch_add(1, Ordering::Relaxed))
    }

    fn random_slot(&self) -> Slot {
        let number = self.random() % u64::from(SLOT_COUNT);
        u16::try_from(number)
            .ok()
            .and_then(|number| Slot::new(number).ok())
            .unwrap_or(Slot::ZERO)
    }

    /// What connections hold, beyond a little for each.
    #[inline]
    pub fn connection_bytes(&self) -> u64 {
        self.connection_bytes.load(Ordering::Relaxed)
    }

    /// What connections may hold together before the next that grows is closed: as much as the budget, since entries
    /// make room for them, and for requests and replies of usual size there is always room.
    pub fn connection_bytes_max(&self) -> u64 {
        self.budget_bytes.max(CONNECTION_BYTES_FREE)
    }

    /// What connections take from the entries.
    #[inline]
    fn charged_bytes(&self) -> u64 {
        self.connection_bytes().saturating_sub(CONNECTION_BYTES_FREE)
    }

    /// A connection holds so much now, and held so much before. `false` when it has grown and there is no room
    /// for that.
    pub fn note_connection_bytes(&self, before: u64, now: u64) -> bool {
        if now > before {
            self.note_growth(now - before);
        }
        // The difference wraps, and so does the sum.
        let change = now.wrapping_sub(before);
        let sum = self
            .connection_bytes
            .fetch_add(change, Ordering::Relaxed)
            .wrapping_add(change);
        now <= before || sum <= self.connection_bytes_max()
    }

    /// Large requests and replies are what memory can grow by suddenly: beside it, time passes slowly.
    fn note_growth(&self, bytes: u64) {
        let before = self.grown_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before / GROWTH_BYTES != before.wrapping_add(bytes) / GROWTH_BYTES {
            self.grew.notify_one();
        }
    }

    /// Waits until connections have grown by a few MiB, all together, since it was last waited for.
    pub async fn has_grown(&self) {
        self.grew.notified().await;
    }

    /// Takes so much of the budget from the entries. Who writes next evicts, or whoever calls [`Store::evict`].
    pub fn withhold(&self, bytes: u64) {
        self.withheld_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What of the budget entries may not have.
    #[inline]
    pub fn withheld_bytes(&self) -> u64 {
        self.withheld_bytes.load(Ordering::Relaxed)
    }

    /// What entries and connections take of the budget, and what is withheld from them.
    #[inline]
    fn taken_bytes(&self) -> u64 {
        self.used_bytes() + self.charged_bytes() + self.withheld_bytes()
    }

    /// Whether entries and connections take more than they may.
    #[inline]
    pub fn is_over_budget(&self) -> bool {
        self.taken_bytes() > self.budget_bytes || self.own_bytes() > self.own_budget_bytes()
    }

    /// What the entries cost that are no copies.
    #[inline]
    fn own_bytes(&self) -> u64 {
        self.used_bytes().saturating_sub(self.copied_bytes())
    }

    #[inline]
    fn own_budget_bytes(&self) -> u64 {
        self.own_budget_bytes.load(Ordering::Relaxed)
    }

    /// With so many copies of each slot in the cluster, the owner's included, a node's own entries have that part of the
    /// budget: the rest is for its copies of others' slots.
    pub fn set_copies_factor(&self, factor: u8) {
        self.own_budget_bytes
            .store(self.budget_bytes / u64::from(factor.max(1)), Ordering::Relaxed);
    }

    /// What copies of other nodes' slots cost.
    #[inline]
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes.load(Ordering::Relaxed)
    }

    /// How many entries the copies of other nodes' slots have.
    pub fn copied_keys(&self) -> u64 {
        self.copied_keys.load(Ordering::Relaxed)
    }

    /// Whether the slot's entries are a copy of what another node serves.
    pub fn is_copy(&self, slot: Slot) -> bool {
        self.copies.contains(slot)
    }

    /// Whether there is no room for more copies.
    pub fn is_full_of_copies(&self) -> bool {
        self.copied_bytes() > self.budget_bytes
    }

    /// Gives back the memory of entries whose time is over, and says how many those were. Looks at a bounded
    /// number of slots, going on where the last sweep ended, and stops after `entries_max` entries; a slot
    /// in which nothing can have expired costs a look at one number. The caller holds no guard.
    pub fn sweep(&self, now_ms: u64, entries_max: usize) -> u64 {
        if let Some(victims) = self.victims.try_lock() {
            self.grow_history();
            drop(victims);
        }
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

/// The number of that place in a sequence that looks random: `SplitMix64` (Steele, Lea, Flood 2014), whose state is a
/// counter, so that threads can share it.
fn mixed(place: u64) -> u64 {
    let mut mixed = place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The slot after this one, if there is one.
pub fn following(slot: Slot) -> Option<Slot> {
    Slot::new(slot.number() + 1).ok()
}

#[cfg(test)]
mod tests;
