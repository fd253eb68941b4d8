//! Exclusive access to one slot.
//!
//! The guard accounts for what is done through it and brings the store's totals up to date when it is dropped,
//! so that a command costs one addition to shared memory, not one for each step.

use std::sync::atomic::Ordering;

use annulus_ring::Slot;
use parking_lot::MutexGuard;

use super::memory::{allocation_bytes, entry_bytes};
use super::slot_map::SlotMap;
use super::value::{Collection, Entry, Stored, Value, WrongType};
use super::watch::WatchFlag;
use super::{Shard, Store};

/// An entry that alone would take more than the whole budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an entry of {bytes} bytes does not fit in maxmemory of {budget_bytes} bytes")]
pub struct TooBig {
    /// What it would cost.
    pub bytes: u64,
    /// The budget.
    pub budget_bytes: u64,
}

/// What commands met in a slot, for the counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Look-ups that found their key.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Entries that were found to be expired and removed.
    pub expired: u64,
}

/// A slot that is locked for this guard's life.
pub struct SlotGuard<'a> {
    store: &'a Store,
    slot: Slot,
    shard: MutexGuard<'a, Shard>,
    before: Before,
    tally: Tally,
    touches: bool,
    /// The client for whom it is locked, by number.
    client: Option<u64>,
}

/// The slot when it was locked.
#[derive(Clone, Copy)]
struct Before {
    bytes: u64,
    len: usize,
    volatile: usize,
}

impl Before {
    fn of(map: Option<&SlotMap>) -> Self {
        map.map_or(
            Self {
                bytes: 0,
                len: 0,
                volatile: 0,
            },
            |map| Self {
                bytes: map.bytes(),
                len: map.len(),
                volatile: map.volatile(),
            },
        )
    }
}

impl<'a> SlotGuard<'a> {
    #[inline]
    pub(super) fn new(store: &'a Store, slot: Slot, shard: MutexGuard<'a, Shard>) -> Self {
        let before = Before::of(shard.slot(slot));
        Self {
            store,
            slot,
            shard,
            before,
            tally: Tally::default(),
            touches: true,
            client: None,
        }
    }

    /// The slot that is locked.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// How many entries it holds, those included whose time is over and who have not been removed yet.
    pub fn len(&self) -> usize {
        self.shard.slot(self.slot).map_or(0, SlotMap::len)
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its entries cost.
    pub fn bytes(&self) -> u64 {
        self.shard.slot(self.slot).map_or(0, SlotMap::bytes)
    }

    /// The counts since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Whether [`Self::read`] makes an entry the most recently used one; it does unless told otherwise.
    pub fn set_touches(&mut self, touches: bool) {
        self.touches = touches;
    }

    /// Says which client's command makes the changes that follow.
    #[inline]
    pub fn set_client(&mut self, id: u64) {
        self.client = Some(id);
    }

    /// The entry as a reading command sees it: counted as hit or miss, and most recently used from now on.
    #[inline]
    pub fn read(&mut self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        self.drop_if_expired(key, now_ms);
        let Self {
            shard,
            slot,
            tally,
            touches,
            ..
        } = self;
        let map = shard.slot_mut(*slot);
        let found = if *touches {
            map.touch(key, now_ms)
        } else {
            map.peek(key)
        };
        if found.is_some() {
            tally.hits += 1;
        } else {
            tally.misses += 1;
        }
        found
    }

    /// The entry as a writing command sees it: not counted, and most recently used from now on.
    #[inline]
    pub fn find(&mut self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        self.drop_if_expired(key, now_ms);
        self.map().touch(key, now_ms)
    }

    /// The entry without any trace of the look: neither counted nor more recent.
    #[inline]
    pub fn peek(&self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        self.shard
            .slot(self.slot)?
            .peek(key)
            .filter(|stored| !stored.is_expired(now_ms))
    }

    /// [`Self::peek`], counted as hit or miss.
    #[inline]
    pub fn peek_counted(&mut self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        self.drop_if_expired(key, now_ms);
        let found = self.peek(key, now_ms).is_some();
        self.tally.hits += u64::from(found);
        self.tally.misses += u64::from(!found);
        self.peek(key, now_ms)
    }

    /// Whether an entry with a key and a string of these lengths can be kept at all.
    #[inline]
    pub fn check_size(&self, key_len: usize, value_len: usize) -> Result<(), TooBig> {
        self.check_bytes(key_len, allocation_bytes(value_len))
    }

    /// Whether an entry can be kept whose value allocates `added_bytes` more than it does now.
    pub fn check_growth(&self, key: &[u8], added_bytes: u64, now_ms: u64) -> Result<(), TooBig> {
        let value_bytes = self
            .peek(key, now_ms)
            .map_or(0, |stored| stored.value.heap_bytes());
        self.check_bytes(key.len(), value_bytes + added_bytes)
    }

    /// Whether an entry can be kept with a key of that length and a value that allocates so much.
    #[inline]
    pub fn check_bytes(&self, key_len: usize, value_bytes: u64) -> Result<(), TooBig> {
        let bytes = entry_bytes(key_len) + value_bytes;
        let budget_bytes = self.store.budget_bytes;
        if bytes <= budget_bytes {
            Ok(())
        } else {
            Err(TooBig { bytes, budget_bytes })
        }
    }

    /// Adds or replaces an entry.
    #[inline]
    pub fn set(
        &mut self,
        key: &[u8],
        value: Value,
        expires_at_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), TooBig> {
        self.check_bytes(key.len(), value.heap_bytes())?;
        self.note_change(key);
        self.map().put(key, Stored::new(value, expires_at_ms, now_ms));
        Ok(())
    }

    /// Replaces the value of an entry by what `change` makes of it; its time of expiry stays. `None` when there is
    /// no such entry. The caller has checked the new size with [`Self::check_size`].
    #[inline]
    pub fn modify<R>(&mut self, key: &[u8], now_ms: u64, change: impl FnOnce(&mut Value) -> R) -> Option<R> {
        self.drop_if_expired(key, now_ms);
        let mut result = None;
        self.map()
            .modify(key, now_ms, |value| result = Some(change(value)));
        if result.is_some() {
            self.note_change(key);
        }
        result
    }

    /// Changes the collection at a key: an empty one is made when there is no entry, and the entry is removed when
    /// nothing is left in it. The caller has checked the growth with [`Self::check_growth`].
    pub fn update<C: Collection, R>(
        &mut self,
        key: &[u8],
        now_ms: u64,
        change: impl FnOnce(&mut C) -> R,
    ) -> Result<R, WrongType> {
        if self.find(key, now_ms).is_none() {
            let mut collection = C::default();
            let result = change(&mut collection);
            if !collection.is_empty() {
                self.note_change(key);
                self.map()
                    .put(key, Stored::new(collection.into_value(), None, now_ms));
            }
            return Ok(result);
        }
        let changed = self.modify(key, now_ms, |value| {
            let collection = C::of_mut(value)?;
            let result = change(collection);
            Some((result, collection.is_empty()))
        });
        let (result, is_empty) = changed.flatten().ok_or(WrongType)?;
        if is_empty {
            self.remove(key, now_ms);
        }
        Ok(result)
    }

    /// A number from the generator that the store has.
    pub fn random(&self) -> u64 {
        self.store.random()
    }

    /// Sets or takes away an entry's time of expiry; `false` when there is no such entry.
    pub fn set_expiry(&mut self, key: &[u8], expires_at_ms: Option<u64>, now_ms: u64) -> bool {
        self.drop_if_expired(key, now_ms);
        let is_there = self.map().set_expiry(key, expires_at_ms);
        if is_there {
            self.note_change(key);
        }
        is_there
    }

    /// Removes an entry and returns it; `None` when there was none, or only an expired one.
    pub fn remove(&mut self, key: &[u8], now_ms: u64) -> Option<Stored> {
        let removed = self.map().remove(key)?;
        self.note_change(key);
        if removed.is_expired(now_ms) {
            self.tally.expired += 1;
            return None;
        }
        Some(removed)
    }

    /// Adds an entry that another owner gave, as it is. No client has seen the slot here, so nobody is told.
    pub fn insert(&mut self, entry: Entry, now_ms: u64) -> Result<(), TooBig> {
        self.check_bytes(entry.key.len(), entry.value.heap_bytes())?;
        let stored = Stored::new(entry.value, entry.expires_at_ms, now_ms);
        self.map().put(&entry.key, stored);
        Ok(())
    }

    /// Every entry that has not expired, most recently used first.
    pub fn iter(&self, now_ms: u64) -> impl Iterator<Item = (&[u8], &Stored)> {
        let entries = self.shard.slot(self.slot).into_iter().flat_map(SlotMap::iter);
        entries.filter(move |(_, stored)| !stored.is_expired(now_ms))
    }

    /// A copy of every entry, expired ones too, least recently used first: inserted in this order elsewhere they
    /// have the same order of recency.
    pub fn snapshot(&self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.len());
        for (key, stored) in self.shard.slot(self.slot).into_iter().flat_map(SlotMap::iter) {
            entries.push(Entry {
                key: key.into(),
                value: stored.value.clone(),
                expires_at_ms: stored.expires_at_ms(),
            });
        }
        entries.reverse();
        entries
    }

    /// Removes every entry, and says how many there were.
    pub fn clear(&mut self) -> usize {
        let removed = self.len();
        if removed > 0 {
            if self.store.watches.any(self.slot) {
                let map = self.shard.slot(self.slot);
                let was_there = |key: &[u8]| map.is_some_and(|map| map.peek(key).is_some());
                self.store.watches.changed_where(self.slot, was_there);
            }
            self.map().clear();
        }
        removed
    }

    /// Ends what clients hold on to in the slot: it is served elsewhere from now on, or begins anew.
    pub fn release_clients(&self) {
        self.store.shard_channels.leave(self.slot);
        self.store.tracking.leave(self.slot);
    }

    pub(super) fn may_have_expired(&self, now_ms: u64) -> bool {
        self.shard
            .slot(self.slot)
            .is_some_and(|map| map.expiry_first_ms() <= now_ms)
    }

    pub(super) fn remove_expired(&mut self, now_ms: u64) -> usize {
        if self.store.watches.any(self.slot) {
            let map = self.shard.slot(self.slot);
            let is_over = |key: &[u8]| {
                map.and_then(|map| map.peek(key))
                    .is_some_and(|stored| stored.is_expired(now_ms))
            };
            self.store.watches.changed_where(self.slot, is_over);
        }
        if self.store.tracking.any(self.slot) {
            let entries = self.shard.slot(self.slot).into_iter().flat_map(SlotMap::iter);
            for (key, _) in entries.filter(|(_, stored)| stored.is_expired(now_ms)) {
                self.store.tracking.changed(self.slot, key, None);
            }
        }
        self.map().remove_expired(now_ms)
    }

    pub(super) fn oldest_age_ms(&self, now_ms: u64) -> Option<u64> {
        self.shard
            .slot(self.slot)?
            .oldest()
            .map(|stamp| stamp.age_ms(now_ms))
    }

    pub(super) fn remove_oldest(&mut self) {
        if let Some(key) = self.map().remove_oldest() {
            self.note_change(&key);
        }
    }

    /// Marks the flag when that key changes from now on, in whatever way.
    pub fn watch(&self, key: &[u8], flag: &WatchFlag) {
        self.store.watches.add(self.slot, key, flag);
    }

    /// Ends [`watch`](Self::watch).
    pub fn unwatch(&self, key: &[u8], flag: &WatchFlag) {
        if self.store.watches.any(self.slot) {
            self.store.watches.remove(self.slot, key, flag);
        }
    }

    #[inline]
    fn note_change(&self, key: &[u8]) {
        if self.store.watches.any(self.slot) {
            self.store.watches.changed(self.slot, key);
        }
        if self.store.tracking.any(self.slot) {
            self.store.tracking.changed(self.slot, key, self.client);
        }
    }

    /// By how much the slot has grown through this guard.
    pub fn grown_bytes(&self) -> u64 {
        self.bytes().saturating_sub(self.before.bytes)
    }

    /// By how much the store is over its budget, with what was done through this guard.
    pub fn excess_bytes(&self) -> u64 {
        let used_bytes = self
            .store
            .used_bytes()
            .wrapping_add(self.bytes().wrapping_sub(self.before.bytes));
        used_bytes.saturating_sub(self.store.budget_bytes)
    }

    #[inline]
    fn map(&mut self) -> &mut SlotMap {
        self.shard.slot_mut(self.slot)
    }

    /// Removes the entry if its time is over.
    #[inline]
    pub fn drop_if_expired(&mut self, key: &[u8], now_ms: u64) {
        let map = self.shard.slot_mut(self.slot);
        // Most slots at most times have nothing that can have expired.
        if map.expiry_first_ms() <= now_ms && map.peek(key).is_some_and(|stored| stored.is_expired(now_ms)) {
            map.remove(key);
            self.tally.expired += 1;
            self.note_change(key);
        }
    }
}

impl Drop for SlotGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        let Before { bytes, len, volatile } = self.before;
        let after = Before::of(self.shard.slot(self.slot));
        // Differences wrap, and so does the sum: what matters is the sum of all of them.
        if after.bytes != bytes {
            self.store
                .used_bytes
                .fetch_add(after.bytes.wrapping_sub(bytes), Ordering::Relaxed);
        }
        if after.len != len {
            self.store
                .keys
                .fetch_add((after.len as u64).wrapping_sub(len as u64), Ordering::Relaxed);
            if (after.len == 0) != (len == 0) {
                self.store.occupied.set(self.slot, after.len > 0);
            }
        }
        if (after.volatile == 0) != (volatile == 0) {
            self.store.volatile.set(self.slot, after.volatile > 0);
        }
    }
}
