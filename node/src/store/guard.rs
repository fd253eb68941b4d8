//! Exclusive access to one slot.
//!
//! The guard accounts for what is done through it and brings the store's totals up to date when it is dropped,
//! so that a command costs one addition to shared memory, not one for each step.

use std::sync::atomic::Ordering;

use annulus_ring::Slot;
use parking_lot::MutexGuard;

use super::Store;
use super::eviction::{EvictionPolicy, Kind, Rank};
use super::slot_map::{Place, SlotMap};
use super::stored::Stored;
use super::value::{AccessStamp, Collection, Entry, Text, Value, WrongType};
use super::watch::WatchFlag;

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
    pub(super) map: MutexGuard<'a, SlotMap>,
    before: Before,
    tally: Tally,
    touches: bool,
    /// It is read, and nothing else.
    is_read_as_copy: bool,
    /// The client for whom it is locked, by number.
    client: Option<u64>,
    /// Changed keys of which those are still to be told who listen to all of them.
    broadcast: Vec<Box<[u8]>>,
}

/// So many changed keys are told of at once.
const BROADCAST_KEYS_MAX: usize = 1000;

/// The slot when it was locked.
#[derive(Clone, Copy)]
struct Before {
    bytes: u64,
    len: usize,
    volatile: u32,
    fresh: u32,
}

impl Before {
    fn of(map: &SlotMap) -> Self {
        Self {
            bytes: map.bytes(),
            len: map.len(),
            volatile: map.volatile(),
            fresh: map.fresh(),
        }
    }
}

impl<'a> SlotGuard<'a> {
    #[inline]
    pub(super) fn new(store: &'a Store, slot: Slot, map: MutexGuard<'a, SlotMap>) -> Self {
        let before = Before::of(&map);
        Self {
            store,
            slot,
            map,
            before,
            tally: Tally::default(),
            touches: true,
            is_read_as_copy: false,
            client: None,
            broadcast: Vec::new(),
        }
    }

    /// The slot that is locked.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// How many entries it holds, those included whose time is over and who have not been removed yet.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its entries cost.
    pub fn bytes(&self) -> u64 {
        self.map.bytes()
    }

    /// The counts since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Whether [`Self::read`] makes an entry the most recently used one; it does unless told otherwise.
    pub fn set_touches(&mut self, touches: bool) {
        self.touches = touches && !self.is_read_as_copy;
    }

    /// From now on the entries stay as the owner of the slot made them: expired ones are not seen, and not removed.
    pub fn read_as_copy(&mut self) {
        self.is_read_as_copy = true;
        self.touches = false;
    }

    /// Says which client's command makes the changes that follow.
    #[inline]
    pub fn set_client(&mut self, id: u64) {
        self.client = Some(id);
    }

    /// The entry as a reading command sees it: counted as hit or miss, and most recently used from now on.
    #[inline]
    pub fn read(&mut self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        self.look_up(key, now_ms, self.touches)
    }

    /// Counts the look-up as hit or miss, and as a use if `touches`.
    #[inline]
    fn look_up(&mut self, key: &[u8], now_ms: u64, touches: bool) -> Option<&Stored> {
        let hash = self.store.hasher.hash(key);
        let found = self.live(hash, key, now_ms);
        self.tally.hits += u64::from(found.is_some());
        self.tally.misses += u64::from(found.is_none());
        if touches {
            self.note_use(found?, hash, now_ms)
        } else {
            self.map.get(found?)
        }
    }

    /// The entry as a writing command sees it: not counted, and most recently used from now on.
    #[inline]
    pub fn find(&mut self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        let hash = self.store.hasher.hash(key);
        let found = self.live(hash, key, now_ms)?;
        self.note_use(found, hash, now_ms)
    }

    #[inline]
    fn note_use(&mut self, place: Place, hash: u64, now_ms: u64) -> Option<&Stored> {
        let policy = self.store.eviction;
        if policy == EvictionPolicy::TinyLfu {
            self.store.sketch.count(hash);
        }
        let accessed = AccessStamp::at(now_ms);
        self.map.note_use(place, accessed, |rank| rank.used(policy))
    }

    /// The entry without any trace of the look: neither counted nor more recent.
    #[inline]
    pub fn peek(&self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        let place = self.map.find(self.store.hasher.hash(key), key)?;
        self.map.get(place).filter(|stored| !stored.is_expired(now_ms))
    }

    /// [`Self::peek`], counted as hit or miss.
    #[inline]
    pub fn peek_counted(&mut self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        self.look_up(key, now_ms, false)
    }

    /// Whether an entry with a key and a string of these lengths can be kept at all.
    #[inline]
    pub fn check_size(&self, key_len: usize, value_len: usize) -> Result<(), TooBig> {
        let cost = if value_len.max(key_len) > Stored::LEN_MAX {
            u64::MAX
        } else {
            Stored::string_cost(key_len, value_len)
        };
        self.check_cost(cost)
    }

    /// Whether a collection can be kept that allocates `added_bytes` more than it does now.
    pub fn check_growth(&self, key: &[u8], added_bytes: u64, now_ms: u64) -> Result<(), TooBig> {
        let cost = self
            .peek(key, now_ms)
            .map_or_else(|| Stored::collection_cost(key.len()), Stored::cost);
        self.check_cost(cost + added_bytes)
    }

    /// Whether an entry can be kept that takes so much.
    #[inline]
    pub fn check_cost(&self, bytes: u64) -> Result<(), TooBig> {
        let budget_bytes = self.store.budget_bytes;
        if bytes <= budget_bytes {
            Ok(())
        } else {
            Err(TooBig { bytes, budget_bytes })
        }
    }

    /// Adds or replaces an entry.
    pub fn set(
        &mut self,
        key: &[u8],
        value: Value,
        expires_at_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), TooBig> {
        match value {
            Value::Int(number) => {
                self.check_size(key.len(), size_of_val(&number))?;
                self.set_text(key, Text::Int(number), expires_at_ms, now_ms);
            }
            Value::Bytes(bytes) => {
                self.check_size(key.len(), bytes.len())?;
                self.set_text(key, Text::Bytes(&bytes), expires_at_ms, now_ms);
            }
            collection => {
                let cost = Stored::collection_cost(key.len()) + collection.as_ref().heap_bytes();
                self.check_cost(cost)?;
                let stored = Stored::new(key, collection, expires_at_ms, AccessStamp::at(now_ms));
                self.put(stored);
                self.note_change(key);
            }
        }
        Ok(())
    }

    /// Adds or replaces an entry by a string.
    #[inline]
    pub fn set_string(
        &mut self,
        key: &[u8],
        bytes: &[u8],
        expires_at_ms: Option<u64>,
        now_ms: u64,
    ) -> Result<(), TooBig> {
        self.check_size(key.len(), bytes.len())?;
        self.set_text(key, Text::of(bytes), expires_at_ms, now_ms);
        Ok(())
    }

    #[inline]
    fn set_text(&mut self, key: &[u8], text: Text<'_>, expires_at_ms: Option<u64>, now_ms: u64) {
        let hash = self.store.hasher.hash(key);
        let accessed = AccessStamp::at(now_ms);
        if let Some(place) = self.map.find(hash, key) {
            self.note_use(place, hash, now_ms);
            self.map
                .update(place, |stored| stored.set_string(text, expires_at_ms, accessed));
        } else {
            let mut stored = Stored::string(key, text, expires_at_ms, accessed);
            self.store.rank_of_new(hash).write(&mut stored);
            self.map.insert(hash, stored);
        }
        self.note_change(key);
    }

    /// Adds an entry, or replaces the one that has its key.
    fn put(&mut self, mut stored: Stored) {
        let hash = self.store.hasher.hash(stored.key());
        if let Some(place) = self.map.find(hash, stored.key()) {
            self.map.update(place, |old| old.replace_with(stored));
        } else if self.is_copy() {
            // Nobody evicts it here.
            Rank::new(Kind::Settled).write(&mut stored);
            self.map.insert(hash, stored);
        } else {
            self.store.rank_of_new(hash).write(&mut stored);
            self.map.insert(hash, stored);
        }
    }

    /// Replaces the value of an entry by a string; its time of expiry stays. `false` when there is no such
    /// entry.
    pub fn replace_string(&mut self, key: &[u8], bytes: &[u8], now_ms: u64) -> Result<bool, TooBig> {
        self.check_size(key.len(), bytes.len())?;
        Ok(self.replace_text(key, Text::of(bytes), now_ms))
    }

    /// Replaces the value of an entry by an integer; its time of expiry stays. `false` when there is no such
    /// entry.
    pub fn replace_integer(&mut self, key: &[u8], number: i64, now_ms: u64) -> bool {
        self.replace_text(key, Text::Int(number), now_ms)
    }

    #[inline]
    fn replace_text(&mut self, key: &[u8], text: Text<'_>, now_ms: u64) -> bool {
        let accessed = AccessStamp::at(now_ms);
        self.change(key, now_ms, |stored| {
            stored.set_string(text, stored.expires_at_ms(), accessed);
        })
        .is_some()
    }

    /// Makes the string at a key `len` bytes long, which `change` then sees; new bytes are 0. Its time of expiry
    /// stays. `false` when there is no such entry. The caller has checked the new size with
    /// [`Self::check_size`].
    pub fn edit_string(
        &mut self,
        key: &[u8],
        len: usize,
        now_ms: u64,
        change: impl FnOnce(&mut [u8]),
    ) -> bool {
        self.change(key, now_ms, |stored| {
            stored.set_accessed(AccessStamp::at(now_ms));
            stored.edit_string(len, change);
        })
        .is_some()
    }

    #[inline]
    fn change<R>(&mut self, key: &[u8], now_ms: u64, change: impl FnOnce(&mut Stored) -> R) -> Option<R> {
        let place = self.live(self.store.hasher.hash(key), key, now_ms)?;
        let result = self.map.update(place, change);
        self.note_change(key);
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
        let accessed = AccessStamp::at(now_ms);
        let Some(place) = self.live(self.store.hasher.hash(key), key, now_ms) else {
            let mut collection = C::default();
            let result = change(&mut collection);
            if !collection.is_empty() {
                self.put(Stored::new(key, collection.into_value(), None, accessed));
                self.note_change(key);
            }
            return Ok(result);
        };
        let changed = self.map.update(place, |stored| {
            stored.set_accessed(accessed);
            let collection = C::of_mut(stored.collection_mut()?)?;
            let result = change(collection);
            Some((result, collection.is_empty()))
        });
        let (result, is_empty) = changed.flatten().ok_or(WrongType)?;
        if is_empty {
            self.remove(key, now_ms);
        } else {
            self.note_change(key);
        }
        Ok(result)
    }

    /// How often a key was used lately, at most 15; `None` where the policy doesn't count that.
    pub fn uses(&self, key: &[u8]) -> Option<u64> {
        let store = self.store;
        (store.eviction == EvictionPolicy::TinyLfu).then(|| store.sketch.estimate(store.hasher.hash(key)))
    }

    /// A number from the generator that the store has.
    pub fn random(&self) -> u64 {
        self.store.random()
    }

    /// Sets or takes away an entry's time of expiry; `false` when there is no such entry.
    pub fn set_expiry(&mut self, key: &[u8], expires_at_ms: Option<u64>, now_ms: u64) -> bool {
        self.change(key, now_ms, |stored| stored.set_expires_at_ms(expires_at_ms))
            .is_some()
    }

    /// Removes an entry and returns it; `None` when there was none, or only an expired one.
    pub fn remove(&mut self, key: &[u8], now_ms: u64) -> Option<Stored> {
        let place = self.live(self.store.hasher.hash(key), key, now_ms)?;
        self.remove_at(place)
    }

    fn remove_at(&mut self, place: Place) -> Option<Stored> {
        let removed = self.map.remove(place)?;
        self.note_change(removed.key());
        Some(removed)
    }

    /// Removes an entry with that hash for which `is_it` holds.
    pub(super) fn remove_hashed(&mut self, hash: u64, is_it: impl Fn(&Stored) -> bool) -> bool {
        let place = self.find_hashed(hash, is_it);
        place.and_then(|place| self.remove_at(place)).is_some()
    }

    /// Ends the probation of an entry with that hash for which `is_it` holds.
    pub(super) fn settle_hashed(&mut self, hash: u64, is_it: impl Fn(&Stored) -> bool) -> bool {
        let place = self.find_hashed(hash, is_it);
        let settled = place.and_then(|place| {
            self.map
                .update(place, |stored| Rank::new(Kind::Settled).write(stored))
        });
        settled.is_some()
    }

    fn find_hashed(&self, hash: u64, is_it: impl Fn(&Stored) -> bool) -> Option<Place> {
        let mut same_hash = self.map.with_hash(hash);
        same_hash
            .find(|(_, stored)| is_it(stored))
            .map(|(place, _)| place)
    }

    /// Adds an entry that another owner gave, as it is. No client has seen the slot here, so nobody is told.
    pub fn insert(&mut self, entry: Entry, now_ms: u64) -> Result<(), TooBig> {
        let used_at_ms = now_ms.saturating_sub(entry.idle_ms);
        let accessed = AccessStamp::at(used_at_ms);
        let stored = Stored::new(&entry.key, entry.value, entry.expires_at_ms, accessed);
        self.check_cost(stored.cost())?;
        self.put(stored);
        Ok(())
    }

    /// Every entry that has not expired, in no order.
    pub fn iter(&self, now_ms: u64) -> impl Iterator<Item = &Stored> {
        self.map.iter().filter(move |stored| !stored.is_expired(now_ms))
    }

    /// A copy of every entry, expired ones too, in no order.
    pub fn snapshot(&self, now_ms: u64) -> Vec<Entry> {
        self.map.iter().map(|stored| Entry::of(stored, now_ms)).collect()
    }

    /// Removes every entry at a client's wish, and says how many there were.
    pub fn flush(&mut self) -> usize {
        let removed = self.clear();
        if removed > 0 {
            self.store.journal.cleared(self.slot);
        }
        removed
    }

    /// Whether the entries are a copy of what another node serves.
    pub fn is_copy(&self) -> bool {
        self.store.copies.contains(self.slot)
    }

    /// From now on the entries are a copy of what another node serves, or are not.
    pub fn set_copy(&mut self, copy: bool) {
        if copy == self.is_copy() {
            return;
        }
        self.settle();
        let (bytes, len) = (self.before.bytes, self.before.len as u64);
        let (store, fresh) = (self.store, u64::from(self.before.fresh));
        store.copies.set(self.slot, copy);
        if copy {
            store.keys.fetch_sub(len, Ordering::Relaxed);
            store.fresh.fetch_sub(fresh, Ordering::Relaxed);
            store.copied_keys.fetch_add(len, Ordering::Relaxed);
            store.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            store.keys.fetch_add(len, Ordering::Relaxed);
            store.fresh.fetch_add(fresh, Ordering::Relaxed);
            store.copied_keys.fetch_sub(len, Ordering::Relaxed);
            store.copied_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        store.occupied.set(self.slot, !copy && len > 0);
        store.volatile.set(self.slot, !copy && self.before.volatile > 0);
    }

    /// Removes an entry because its owner says that it is gone.
    pub fn remove_copied(&mut self, key: &[u8]) {
        let hash = self.store.hasher.hash(key);
        if let Some(place) = self.map.find(hash, key) {
            self.map.remove(place);
        }
    }

    /// Of a copy: removes what its owner doesn't have.
    pub fn keep_copied(&mut self, has: impl Fn(&[u8]) -> bool) {
        let gone: Vec<Box<[u8]>> = self
            .map
            .iter()
            .filter(|stored| !has(stored.key()))
            .map(|stored| stored.key().into())
            .collect();
        for key in gone {
            self.remove_copied(&key);
        }
    }

    /// Removes every entry, and says how many there were. Other nodes are not told.
    pub fn clear(&mut self) -> usize {
        let removed = self.len();
        if removed > 0 {
            if self.store.watches.any(self.slot) {
                let was_there = |key: &[u8]| self.peek(key, 0).is_some();
                self.store.watches.changed_where(self.slot, was_there);
            }
            self.map.clear();
        }
        removed
    }

    /// Ends what clients hold on to in the slot: it is served elsewhere from now on, or begins anew.
    pub fn release_clients(&self) {
        self.store.shard_channels.leave(self.slot);
        self.store.tracking.leave(self.slot);
    }

    pub(super) fn may_have_expired(&self, now_ms: u64) -> bool {
        self.map.expiry_first_ms() <= now_ms
    }

    pub(super) fn remove_expired(&mut self, now_ms: u64) -> usize {
        if self.store.watches.any(self.slot) {
            let is_over = |key: &[u8]| self.peek(key, 0).is_some() && self.peek(key, now_ms).is_none();
            self.store.watches.changed_where(self.slot, is_over);
        }
        if self.store.tracking.any(self.slot) {
            let is_over = |stored: &&Stored| stored.is_expired(now_ms);
            let keys: Vec<Box<[u8]>> = self
                .map
                .iter()
                .filter(is_over)
                .map(|stored| stored.key().into())
                .collect();
            for key in &keys {
                self.tell(key);
            }
        }
        if self.store.journal.is_on() {
            for stored in self.map.iter().filter(|stored| stored.is_expired(now_ms)) {
                self.store.journal.changed(self.slot, stored.key());
            }
        }
        self.map.remove_expired(now_ms)
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
    fn note_change(&mut self, key: &[u8]) {
        if self.store.watches.any(self.slot) {
            self.store.watches.changed(self.slot, key);
        }
        if self.store.tracking.any(self.slot) {
            self.tell(key);
        }
        self.store.journal.changed(self.slot, key);
    }

    /// Tells those who have read the key that it changes, and the others later, of all keys together.
    #[cold]
    fn tell(&mut self, key: &[u8]) {
        self.store.tracking.changed(self.slot, key, self.client);
        if self.store.tracking.prefixes() > 0 {
            self.broadcast.push(key.into());
            if self.broadcast.len() >= BROADCAST_KEYS_MAX {
                self.tell_all();
            }
        }
    }

    /// Does something that is not the client's doing: the client is told as well.
    #[cold]
    fn not_by_client<R>(&mut self, work: impl FnOnce(&mut Self) -> R) {
        // What is still to be told was its doing, and what comes now isn't.
        self.tell_all();
        let client = self.client.take();
        work(self);
        self.tell_all();
        self.client = client;
    }

    #[cold]
    fn tell_all(&mut self) {
        if !self.broadcast.is_empty() {
            let keys = std::mem::take(&mut self.broadcast);
            self.store.tracking.broadcast(&keys, self.client);
        }
    }

    /// By how much the slot has grown through this guard.
    pub fn grown_bytes(&self) -> u64 {
        self.bytes().saturating_sub(self.before.bytes)
    }

    /// By how much the budget is exceeded, with what was done through this guard.
    pub fn excess_bytes(&self) -> u64 {
        let used_bytes = self
            .store
            .used_bytes()
            .wrapping_add(self.bytes().wrapping_sub(self.before.bytes));
        (used_bytes + self.store.charged_bytes()).saturating_sub(self.store.budget_bytes)
    }

    /// Removes the entry if its time is over.
    pub fn drop_if_expired(&mut self, key: &[u8], now_ms: u64) {
        self.live(self.store.hasher.hash(key), key, now_ms);
    }

    /// Where the entry is; one whose time is over is removed.
    #[inline]
    fn live(&mut self, hash: u64, key: &[u8], now_ms: u64) -> Option<Place> {
        let place = self.map.find(hash, key)?;
        if self.map.get(place)?.is_expired(now_ms) {
            if self.is_read_as_copy {
                return None;
            }
            self.tally.expired += 1;
            self.not_by_client(|guard| guard.remove_at(place));
            return None;
        }
        Some(place)
    }
}

impl SlotGuard<'_> {
    /// Brings the store's totals up to date.
    #[inline]
    fn settle(&mut self) {
        let Before {
            bytes,
            len,
            volatile,
            fresh,
        } = self.before;
        let after = Before::of(&self.map);
        self.before = after;
        // Differences wrap, and so does the sum: what matters is the sum of all of them.
        if after.bytes != bytes {
            self.store
                .used_bytes
                .fetch_add(after.bytes.wrapping_sub(bytes), Ordering::Relaxed);
        }
        if self.is_copy() {
            self.settle_copy(bytes, len);
        } else if after.len != len {
            self.store
                .keys
                .fetch_add((after.len as u64).wrapping_sub(len as u64), Ordering::Relaxed);
            if (after.len == 0) != (len == 0) {
                self.store.occupied.set(self.slot, after.len > 0);
            }
        }
        if after.fresh != fresh && !self.is_copy() {
            let change = u64::from(after.fresh).wrapping_sub(fresh.into());
            self.store.fresh.fetch_add(change, Ordering::Relaxed);
        }
        if (after.volatile == 0) != (volatile == 0) && !self.is_copy() {
            self.store.volatile.set(self.slot, after.volatile > 0);
        }
    }

    /// The same of a copy, which had so much before.
    fn settle_copy(&self, bytes_before: u64, len_before: usize) {
        let change = self.before.bytes.wrapping_sub(bytes_before);
        self.store.copied_bytes.fetch_add(change, Ordering::Relaxed);
        let change = (self.before.len as u64).wrapping_sub(len_before as u64);
        self.store.copied_keys.fetch_add(change, Ordering::Relaxed);
    }
}

impl Drop for SlotGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.broadcast.is_empty() {
            self.tell_all();
        }
        self.settle();
    }
}
