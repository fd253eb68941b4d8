//! The keyspaces of a node, sharded by slot, within a budget of bytes: the cluster's own, and one for each tenant.
//!
//! Every slot has a map of its own ([`slot_map`]) behind a lock of its own, in one cache line; what tenants have in the slot
//! is behind the same lock ([`line`]), and what else a tenant has is its [`Space`]. Whoever holds a
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
pub mod limits;
mod line;
pub mod memory;
mod mirrors;
pub mod moving;
mod prefetch;
mod slot_map;
mod space;
mod stored;
mod value;
mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use annulus_proto::tenants::TenantId;
use annulus_ring::{SLOT_COUNT, Slot};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::journal::Journal;
use bitmap::SlotBitmap;
pub use eviction::EvictionPolicy;
pub use guard::{SlotGuard, Tally, TenantKey, TooBig};
use history::{Ghosts, Sketch};
use line::Line;
pub use mirrors::{Fetch, Mirrors};
use moving::Moving;
use slot_map::KeyHasher;
pub use space::{Keyspace, Space, SpaceCounters};
pub use stored::Stored;
pub use value::{AccessStamp, Collection, Entry, Text, Value, ValueRef, WrongType};
pub use watch::WatchFlag;

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
struct SlotLine(Mutex<Line>);

const _: () = assert!(size_of::<SlotLine>() == 64);

type Shard = OnceLock<Box<[SlotLine; SHARD_SLOTS]>>;

/// The keyspaces.
pub struct Store {
    shards: Box<[Shard]>,
    budget_bytes: u64,
    eviction: EvictionPolicy,
    /// What the cluster's own clients have.
    pub own: Space,
    /// What tenants have.
    spaces: RwLock<BTreeMap<TenantId, Arc<Space>>>,
    space_count: AtomicUsize,
    /// How many slots this node has, or is about to get: its part of the tenants' quotas.
    slots: AtomicU32,
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
    /// What other nodes must have of the changes.
    pub journal: Journal,
    /// Hot keys of other nodes' slots.
    pub mirrors: Mirrors,
    /// Slots whose entries are copies of what another node serves: nobody scans, expires or evicts them here, and they
    /// are in none of the sets and counts of entries.
    copies: SlotBitmap,
    copied_keys: AtomicU64,
    copied_bytes: AtomicU64,
    /// What the entries that are no copies may cost.
    own_budget_bytes: AtomicU64,
    /// The tenant whose turn it is to be swept after the cluster's own keyspace.
    sweep_tenant: AtomicU32,
    /// State of the generator that picks slots to sample.
    random: AtomicU64,
}

impl Store {
    /// Empty keyspaces.
    pub fn new(options: StoreOptions) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::new()).collect(),
            budget_bytes: options.budget_bytes,
            eviction: options.eviction,
            own: Space::new(TenantId::CLUSTER),
            spaces: RwLock::default(),
            space_count: AtomicUsize::new(0),
            slots: AtomicU32::new(SLOT_COUNT.into()),
            ghosts: Ghosts::new(),
            sketch: Sketch::new(),
            hasher: KeyHasher::default(),
            used_bytes: AtomicU64::new(0),
            connection_bytes: AtomicU64::new(0),
            grown_bytes: AtomicU64::new(0),
            grew: Notify::new(),
            moving: Moving::new(),
            withheld_bytes: AtomicU64::new(0),
            journal: Journal::default(),
            mirrors: Mirrors::new(),
            copies: SlotBitmap::new(),
            copied_keys: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
            own_budget_bytes: AtomicU64::new(options.budget_bytes),
            sweep_tenant: AtomicU32::new(0),
            random: AtomicU64::new(0),
        }
    }

    /// Takes the slot for as long as the guard lives, and works in the cluster's own keyspace. A thread that holds a guard
    /// must not take another.
    #[inline]
    pub fn lock_slot(&self, slot: Slot) -> SlotGuard<'_> {
        let shard = self.shards[slot.index() / SHARD_SLOTS].get_or_init(Box::default);
        SlotGuard::new(self, slot, shard[slot.index() % SHARD_SLOTS].0.lock())
    }

    /// The same, in that keyspace.
    #[inline]
    pub fn lock_slot_of(&self, slot: Slot, keyspace: &Keyspace) -> SlotGuard<'_> {
        let mut guard = self.lock_slot(slot);
        if keyspace.tenant().is_some() {
            guard.switch(keyspace);
        }
        guard
    }

    /// Has the processor fetch what commands on these keys will look at, all of them at the same time. A look-up
    /// waits for memory three times in a row, each time for what the last one pointed to; several look-ups at
    /// once wait no longer than one.
    pub fn prefetch<'k>(&self, keyspace: &Keyspace, keys: impl Iterator<Item = &'k [u8]>) {
        let (tenant, salt) = (keyspace.id(), keyspace.space(self).salt);
        let mut wanted = [(Slot::ZERO, 0); PREFETCH_MAX];
        let mut count = 0;
        for (place, key) in wanted.iter_mut().zip(keys) {
            *place = (Slot::for_key(key), self.hasher.hash(key) ^ salt);
            if let Some(line) = self.line_of(place.0) {
                prefetch::prefetch(line);
            }
            count += 1;
        }
        // A slot that is locked is being used, so that it is at hand already.
        for (slot, hash) in &wanted[..count] {
            if let Some(line) = self.line_of(*slot).and_then(Mutex::try_lock)
                && let Some(map) = line.of(tenant)
            {
                map.prefetch(*hash);
            }
        }
        for (slot, hash) in &wanted[..count] {
            if let Some(line) = self.line_of(*slot).and_then(Mutex::try_lock)
                && let Some(map) = line.of(tenant)
            {
                map.prefetch_entry(*hash);
            }
        }
    }

    /// The slot's entries, if any slot of its shard was ever used.
    #[inline]
    fn line_of(&self, slot: Slot) -> Option<&Mutex<Line>> {
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

    /// How many slots this node has, or is about to get.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.slots.load(Ordering::Relaxed)
    }

    /// This node has, or is about to get, so many slots.
    pub fn set_slots(&self, slots: u32) {
        self.slots.store(slots, Ordering::Relaxed);
    }

    /// How many entries the cluster's own keyspace has, those included whose time is over and who have not been removed
    /// yet.
    pub fn keys(&self) -> u64 {
        self.own.keys()
    }

    /// How many of them a slot holds.
    pub fn slot_len(&self, slot: Slot) -> usize {
        self.line_of(slot).map_or(0, |line| line.lock().map.len())
    }

    /// What they cost.
    pub fn slot_bytes(&self, slot: Slot) -> u64 {
        self.line_of(slot).map_or(0, |line| line.lock().map.bytes())
    }

    /// How many entries of the cluster's own keyspace have a time of expiry. Looks at every slot that has such entries.
    pub fn volatile_keys(&self) -> u64 {
        self.volatile_keys_of(&self.own)
    }

    /// The first slot at or after `from` that holds entries of the cluster's own keyspace.
    pub fn next_occupied(&self, from: Slot) -> Option<Slot> {
        self.own.next_occupied(from)
    }

    /// Some slot that holds such entries; `None` when there are none.
    pub fn random_occupied(&self) -> Option<Slot> {
        self.own.random_occupied(self)
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
        if let Some(victims) = self.own.victims.try_lock() {
            self.grow_history();
            drop(victims);
        }
        let (mut removed, mut visited) = self.sweep_space(&Keyspace::default(), now_ms, entries_max);
        if !self.has_tenants() {
            return removed;
        }
        let (spaces, first) = (self.spaces(), self.sweep_tenant.load(Ordering::Relaxed));
        let behind = spaces.partition_point(|space| space.id.0 < first);
        for space in spaces[behind..].iter().chain(&spaces[..behind]) {
            // Whoever is not reached begins the next time.
            self.sweep_tenant.store(space.id.0, Ordering::Relaxed);
            if visited >= entries_max {
                break;
            }
            if space.keys() > 0 {
                let keyspace = Keyspace::from(Arc::clone(space));
                let left = entries_max - visited;
                let (expired, seen) = self.sweep_space(&keyspace, now_ms, left);
                space.counters.expirations.add(expired);
                removed += expired;
                visited += seen;
            }
        }
        removed
    }

    /// Sweeps one keyspace. Returns how many entries were removed and looked at.
    fn sweep_space(&self, keyspace: &Keyspace, now_ms: u64, entries_max: usize) -> (u64, usize) {
        let space = keyspace.space(self);
        let (mut removed, mut visited) = (0, 0);
        let mut next = Slot::new(space.sweep_next.load(Ordering::Relaxed)).unwrap_or(Slot::ZERO);
        for _ in 0..SWEEP_SLOTS_MAX {
            let Some(slot) = space.volatile.next_from(next) else {
                next = Slot::ZERO;
                break;
            };
            let mut guard = self.lock_slot_of(slot, keyspace);
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
        space.sweep_next.store(next.number(), Ordering::Relaxed);
        (removed as u64, visited)
    }

    /// Removes every entry of the cluster's own keyspace, and says how many there were. Slots are emptied one after the
    /// other: what is written meanwhile to a slot that was already emptied stays.
    pub fn clear(&self) -> u64 {
        let mut removed = 0;
        let mut next = self.next_occupied(Slot::ZERO);
        while let Some(slot) = next {
            removed += self.lock_slot(slot).flush() as u64;
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
