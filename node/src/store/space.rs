//! What one tenant has of a store, and what it may have: everything that clients can name, count or use up.
//!
//! The cluster's own keyspace, that of the user `default`, has a [`Space`] as every tenant has one. What names channels,
//! tracked keys, watched keys, scripts and slow commands is kept once a space and never shared, so that a command that is
//! given its client's space can't show another's. Entries are in the slots' lines ([`super::line`]); here is their count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use annulus_proto::tenants::TenantId;
use annulus_ring::Slot;
use parking_lot::Mutex;

use super::bitmap::SlotBitmap;
use super::eviction::Victims;
use super::limits::Limits;
use super::line::Line;
use super::slot_map::SlotMap;
use super::watch::Watches;
use super::{Store, following, mixed};
use crate::hot_keys::HotKeys;
use crate::pubsub::PubSub;
use crate::script::Cache;
use crate::stats::Total;
use crate::timing::SlowLog;
use crate::tracking::Tracking;

/// What a tenant's clients did, since the node started. Those of the cluster's own clients are with their threads.
#[derive(Debug, Default)]
pub struct SpaceCounters {
    /// Commands that were executed or refused.
    pub commands: Total,
    /// Key look-ups of reading commands that found the key.
    pub hits: Total,
    /// Key look-ups of reading commands that did not.
    pub misses: Total,
    /// Entries removed to make room.
    pub evictions: Total,
    /// Entries removed because their time was over.
    pub expirations: Total,
    /// Commands that came too fast.
    pub throttled: Total,
    /// Connections that were one too many.
    pub connections_refused: Total,
}

/// One tenant's part of a store.
pub struct Space {
    /// Whose it is.
    pub id: TenantId,
    /// Added to the hashes of its keys, so that the policy's memory of keys tells tenants apart.
    pub(super) salt: u64,
    /// What it may have.
    pub limits: Limits,
    /// What its clients did.
    pub counters: SpaceCounters,
    /// Subscriptions of its clients.
    pub pubsub: PubSub,
    /// Keys in its clients' caches.
    pub tracking: Tracking,
    /// Its scripts.
    pub scripts: Mutex<Cache>,
    /// Its slowest commands of late.
    pub slow_log: SlowLog,
    /// What its clients use most.
    pub hot_keys: HotKeys,
    /// Keys that its transactions depend on.
    pub(super) watches: Watches,
    /// Slots that hold entries of it.
    pub(super) occupied: SlotBitmap,
    /// Slots that hold entries with a time of expiry.
    pub(super) volatile: SlotBitmap,
    /// Who will be evicted next. It is locked before any slot.
    pub(super) victims: Mutex<Victims>,
    pub(super) keys: AtomicU64,
    /// Entries on probation.
    pub(super) fresh: AtomicU64,
    /// What its entries cost, copies too; of the cluster's own it is not kept, being what others leave of the sum.
    pub(super) used_bytes: AtomicU64,
    /// What copies of other nodes' slots have of it; as above.
    pub(super) copied_bytes: AtomicU64,
    pub(super) copied_keys: AtomicU64,
    /// What its connections hold beyond a little for each.
    connection_bytes: AtomicU64,
    /// Where the next sweep begins.
    pub(super) sweep_next: AtomicU16,
}

impl Space {
    pub(super) fn new(id: TenantId) -> Self {
        let is_own = id == TenantId::CLUSTER;
        Self {
            id,
            salt: if is_own { 0 } else { mixed(id.0.into()) },
            limits: Limits::default(),
            counters: SpaceCounters::default(),
            pubsub: if is_own {
                PubSub::default()
            } else {
                PubSub::small()
            },
            tracking: if is_own {
                Tracking::default()
            } else {
                Tracking::small()
            },
            scripts: Mutex::new(if is_own { Cache::default() } else { Cache::small() }),
            slow_log: SlowLog::default(),
            hot_keys: HotKeys::default(),
            watches: Watches::new(),
            occupied: SlotBitmap::new(),
            volatile: SlotBitmap::new(),
            victims: Mutex::default(),
            keys: AtomicU64::new(0),
            fresh: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
            copied_keys: AtomicU64::new(0),
            connection_bytes: AtomicU64::new(0),
            sweep_next: AtomicU16::new(0),
        }
    }

    /// A space that nobody uses.
    pub(crate) fn unused() -> Self {
        Self::new(TenantId::CLUSTER)
    }

    /// How many entries there are that are no copies, those included whose time is over.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// How many there are with the copies.
    pub(super) fn all_keys(&self) -> u64 {
        self.keys() + self.copied_keys.load(Ordering::Relaxed)
    }

    /// What a tenant's entries cost that are no copies.
    pub(super) fn own_bytes(&self) -> u64 {
        let used_bytes = self.used_bytes.load(Ordering::Relaxed);
        used_bytes.saturating_sub(self.copied_bytes.load(Ordering::Relaxed))
    }

    /// What its connections hold beyond a little for each.
    pub fn connection_bytes(&self) -> u64 {
        self.connection_bytes.load(Ordering::Relaxed)
    }

    /// A connection of it holds so much now, and held so much before. Returns what all of them hold.
    pub fn note_connection_bytes(&self, before: u64, now: u64) -> u64 {
        // The difference wraps, and so does the sum.
        let change = now.wrapping_sub(before);
        let sum = self.connection_bytes.fetch_add(change, Ordering::Relaxed);
        sum.wrapping_add(change)
    }

    /// How many scripts are known, and what their sources take.
    pub fn cached_scripts(&self) -> (usize, usize) {
        let scripts = self.scripts.lock();
        (scripts.len(), scripts.bytes())
    }

    /// The first slot at or after `from` that holds entries.
    pub fn next_occupied(&self, from: Slot) -> Option<Slot> {
        self.occupied.next_from(from)
    }

    /// Some slot that holds entries; `None` when there are none.
    pub fn random_occupied(&self, store: &Store) -> Option<Slot> {
        self.occupied.next_around(store.random_slot())
    }

    /// Ends what its clients hold on to in the slot: it is served elsewhere from now on, or begins anew. The caller holds
    /// the slot.
    pub(super) fn leave(&self, slot: Slot) {
        self.pubsub.shards.leave(slot);
        self.tracking.leave(slot);
        self.hot_keys.leave(slot);
    }
}

/// In whose keyspace something is done; the cluster's own unless told otherwise.
#[derive(Clone, Default)]
pub struct Keyspace(Option<Arc<Space>>);

impl Keyspace {
    /// Whose it is.
    #[inline]
    pub fn id(&self) -> TenantId {
        self.0.as_ref().map_or(TenantId::CLUSTER, |space| space.id)
    }

    /// Its space.
    #[inline]
    pub fn space<'a>(&'a self, store: &'a Store) -> &'a Space {
        self.0.as_deref().unwrap_or(&store.own)
    }

    /// The space of a tenant; `None` for the cluster's own keyspace.
    #[inline]
    pub fn tenant(&self) -> Option<&Arc<Space>> {
        self.0.as_ref()
    }
}

impl From<Arc<Space>> for Keyspace {
    fn from(space: Arc<Space>) -> Self {
        Self(Some(space))
    }
}

impl Store {
    /// The keyspace of a tenant, made if there was none: entries may come before anybody has told of their tenant.
    pub fn keyspace(&self, id: TenantId) -> Keyspace {
        if id == TenantId::CLUSTER {
            return Keyspace::default();
        }
        if let Some(space) = self.spaces.read().get(&id) {
            return Keyspace(Some(Arc::clone(space)));
        }
        let mut spaces = self.spaces.write();
        let space = spaces.entry(id).or_insert_with(|| Arc::new(Space::new(id)));
        let space = Arc::clone(space);
        self.space_count.store(spaces.len(), Ordering::Relaxed);
        Keyspace(Some(space))
    }

    /// The tenant's space, if anything is known of it.
    pub fn find_space(&self, id: TenantId) -> Option<Arc<Space>> {
        self.spaces.read().get(&id).cloned()
    }

    /// All tenants' spaces, by id.
    pub fn spaces(&self) -> Vec<Arc<Space>> {
        if self.has_tenants() {
            self.spaces.read().values().cloned().collect()
        } else {
            Vec::new()
        }
    }

    /// Whether there is any space but the cluster's own. One load.
    #[inline]
    pub fn has_tenants(&self) -> bool {
        self.space_count.load(Ordering::Relaxed) > 0
    }

    /// What a space's entries cost that are no copies.
    pub fn own_bytes_of(&self, space: &Space) -> u64 {
        if space.id != TenantId::CLUSTER {
            return space.own_bytes();
        }
        let tenants_bytes: u64 = self.spaces().iter().map(|space| space.own_bytes()).sum();
        self.own_bytes().saturating_sub(tenants_bytes)
    }

    /// How many entries there are of all tenants and the cluster's own, copies not counted.
    pub fn all_keys(&self) -> u64 {
        let tenants: u64 = self.spaces().iter().map(|space| space.keys()).sum();
        self.keys() + tenants
    }

    /// How many entries of a space have a time of expiry. Looks at every slot that has such entries.
    pub fn volatile_keys_of(&self, space: &Space) -> u64 {
        let mut keys = 0;
        let mut next = space.volatile.next_from(Slot::ZERO);
        while let Some(slot) = next {
            let volatile = |line: &Line| line.of(space.id).map_or(0, SlotMap::volatile);
            keys += self
                .line_of(slot)
                .map_or(0, |line| u64::from(volatile(&line.lock())));
            next = following(slot).and_then(|slot| space.volatile.next_from(slot));
        }
        keys
    }

    /// Removes some entries of a tenant that is no more, `keys_max` at most, and says how many; of copies they are
    /// removed as their owner removes them. Whatever was left of it is forgotten with its last entry.
    pub fn drop_some(&self, space: &Arc<Space>, keys_max: usize) -> usize {
        let keyspace = Keyspace::from(Arc::clone(space));
        let mut removed = 0;
        while removed < keys_max {
            let Some(slot) = space.next_occupied(Slot::ZERO) else {
                break;
            };
            let mut guard = self.lock_slot_of(slot, &keyspace);
            let dropped = guard.drop_some(keys_max - removed);
            drop(guard);
            if dropped == 0 {
                break;
            }
            removed += dropped;
        }
        if space.all_keys() == 0 {
            let mut spaces = self.spaces.write();
            // Under the lock nobody can have got it meanwhile but those who have it.
            if Arc::strong_count(space) <= 3 && space.all_keys() == 0 {
                spaces.remove(&space.id);
            }
            self.space_count.store(spaces.len(), Ordering::Relaxed);
        }
        removed
    }
}
