//! Exclusive access to one slot.
//!
//! The guard accounts for what is done through it and brings the store's totals up to date when it is dropped,
//! so that a command costs one addition to shared memory, not one for each step. It works in one keyspace at a time; what is
//! about the whole slot, of which others have copies, goes through those of all tenants.

use std::sync::atomic::Ordering;

use annulus_proto::tenants::TenantId;
use annulus_ring::Slot;
use parking_lot::MutexGuard;

use super::Store;
use super::eviction::{EvictionPolicy, Kind, Rank};
use super::line::{Line, PLACE_BYTES};
use super::slot_map::{Place, SlotMap};
use super::space::{Keyspace, Space};
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

/// A key, and whose it is.
pub type TenantKey = (TenantId, Box<[u8]>);

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
    pub(super) line: MutexGuard<'a, Line>,
    /// Whose entries the line's map has.
    keyspace: Keyspace,
    before: Before,
    tally: Tally,
    touches: bool,
    /// It is read, and nothing else.
    is_read_as_copy: bool,
    /// The client for whom it is locked, by number.
    client: Option<u64>,
    /// Changed keys, where somebody wants to know.
    changes: Option<Box<Changes>>,
}

/// Changed keys. Most guards have none.
#[derive(Default)]
struct Changes {
    /// Of these those are still to be told who listen to all of them.
    broadcast: Vec<Box<[u8]>>,
    /// These the client has changed, since somebody asked for them.
    by_client: Option<Vec<Box<[u8]>>>,
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
    pub(super) fn new(store: &'a Store, slot: Slot, line: MutexGuard<'a, Line>) -> Self {
        let before = Before::of(&line.map);
        Self {
            store,
            slot,
            line,
            keyspace: Keyspace::default(),
            before,
            tally: Tally::default(),
            touches: true,
            is_read_as_copy: false,
            client: None,
            changes: None,
        }
    }

    /// Works in that keyspace from now on.
    pub fn switch(&mut self, keyspace: &Keyspace) {
        if self.keyspace.id() == keyspace.id() {
            return;
        }
        self.leave();
        if keyspace.tenant().is_some() {
            self.line.enter(keyspace.id());
            self.keyspace = keyspace.clone();
        }
        self.before = self.measured();
    }

    /// Back to the cluster's own keyspace.
    #[cold]
    fn leave(&mut self) {
        self.tell_all();
        if self.keyspace.tenant().is_none() {
            self.settle();
            return;
        }
        if self.is_empty() {
            self.line.map.clear();
        }
        self.settle();
        self.line.leave(self.keyspace.id());
        self.keyspace = Keyspace::default();
        self.before = self.measured();
    }

    /// The tenants that have entries here, and the cluster itself.
    fn all_keyspaces(&self) -> Vec<Keyspace> {
        let tenants = self.line.tenants().filter(|tenant| *tenant != self.keyspace.id());
        let mut all: Vec<Keyspace> = tenants.map(|tenant| self.store.keyspace(tenant)).collect();
        if self.keyspace.tenant().is_some() {
            all.push(Keyspace::default());
        }
        all.push(self.keyspace.clone());
        all
    }

    /// The space of the keyspace that it works in.
    #[inline]
    fn space(&self) -> &Space {
        self.keyspace.space(self.store)
    }

    /// Whose entries it works with.
    #[inline]
    pub fn tenant(&self) -> TenantId {
        self.keyspace.id()
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        self.store.hasher.hash(key) ^ self.space().salt
    }

    #[inline]
    fn measured(&self) -> Before {
        let mut before = Before::of(&self.line.map);
        if self.keyspace.tenant().is_some() && before.len > 0 {
            before.bytes += PLACE_BYTES;
        }
        before
    }

    /// When an entry is to expire of which a client says that, or says nothing.
    #[inline]
    fn bounded(&self, expires_at_ms: Option<u64>, now_ms: u64) -> Option<u64> {
        match self.keyspace.tenant() {
            None => expires_at_ms,
            Some(space) if expires_at_ms.is_some() => space.limits.bounded_expiry_ms(expires_at_ms, now_ms),
            Some(space) => space.limits.default_expiry_ms(now_ms),
        }
    }

    /// The slot that is locked.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// How many entries it holds, those included whose time is over and who have not been removed yet.
    pub fn len(&self) -> usize {
        self.line.map.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its entries cost.
    pub fn bytes(&self) -> u64 {
        self.measured().bytes
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
        let hash = self.hash(key);
        let found = self.live(hash, key, now_ms);
        self.tally.hits += u64::from(found.is_some());
        self.tally.misses += u64::from(found.is_none());
        if touches {
            self.note_use(found?, hash, now_ms)
        } else {
            self.line.map.get(found?)
        }
    }

    /// The entry as a writing command sees it: not counted, and most recently used from now on.
    #[inline]
    pub fn find(&mut self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        let hash = self.hash(key);
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
        self.line.map.note_use(place, accessed, |rank| rank.used(policy))
    }

    /// The entry without any trace of the look: neither counted nor more recent.
    #[inline]
    pub fn peek(&self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        let place = self.line.map.find(self.hash(key), key)?;
        self.line
            .map
            .get(place)
            .filter(|stored| !stored.is_expired(now_ms))
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
        let budget_bytes = match self.keyspace.tenant() {
            None => self.store.budget_bytes,
            Some(space) => self.store.entry_bytes_max(space),
        };
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
                let expires_at_ms = self.bounded(expires_at_ms, now_ms);
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
        let hash = self.hash(key);
        let expires_at_ms = self.bounded(expires_at_ms, now_ms);
        let accessed = AccessStamp::at(now_ms);
        if let Some(place) = self.line.map.find(hash, key) {
            self.note_use(place, hash, now_ms);
            self.line
                .map
                .update(place, |stored| stored.set_string(text, expires_at_ms, accessed));
        } else {
            let mut stored = Stored::string(key, text, expires_at_ms, accessed);
            self.store.rank_of_new(&self.keyspace, hash).write(&mut stored);
            self.line.map.insert(hash, stored);
        }
        self.note_change(key);
    }

    /// Adds an entry, or replaces the one that has its key.
    fn put(&mut self, mut stored: Stored) {
        let hash = self.hash(stored.key());
        if let Some(place) = self.line.map.find(hash, stored.key()) {
            self.line.map.update(place, |old| old.replace_with(stored));
        } else if self.is_copy() {
            // Nobody evicts it here.
            Rank::new(Kind::Settled).write(&mut stored);
            self.line.map.insert(hash, stored);
        } else {
            self.store.rank_of_new(&self.keyspace, hash).write(&mut stored);
            self.line.map.insert(hash, stored);
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
        let place = self.live(self.hash(key), key, now_ms)?;
        let result = self.line.map.update(place, change);
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
        let Some(place) = self.live(self.hash(key), key, now_ms) else {
            let mut collection = C::default();
            let result = change(&mut collection);
            if !collection.is_empty() {
                let expires_at_ms = self.bounded(None, now_ms);
                self.put(Stored::new(key, collection.into_value(), expires_at_ms, accessed));
                self.note_change(key);
            }
            return Ok(result);
        };
        let changed = self.line.map.update(place, |stored| {
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
        (store.eviction == EvictionPolicy::TinyLfu).then(|| store.sketch.estimate(self.hash(key)))
    }

    /// A number from the generator that the store has.
    pub fn random(&self) -> u64 {
        self.store.random()
    }

    /// Sets or takes away an entry's time of expiry; `false` when there is no such entry.
    pub fn set_expiry(&mut self, key: &[u8], expires_at_ms: Option<u64>, now_ms: u64) -> bool {
        let expires_at_ms = match self.keyspace.tenant() {
            None => expires_at_ms,
            Some(space) => space.limits.bounded_expiry_ms(expires_at_ms, now_ms),
        };
        self.change(key, now_ms, |stored| stored.set_expires_at_ms(expires_at_ms))
            .is_some()
    }

    /// Removes an entry and returns it; `None` when there was none, or only an expired one.
    pub fn remove(&mut self, key: &[u8], now_ms: u64) -> Option<Stored> {
        let place = self.live(self.hash(key), key, now_ms)?;
        self.remove_at(place)
    }

    fn remove_at(&mut self, place: Place) -> Option<Stored> {
        let removed = self.line.map.remove(place)?;
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
            self.line
                .map
                .update(place, |stored| Rank::new(Kind::Settled).write(stored))
        });
        settled.is_some()
    }

    fn find_hashed(&self, hash: u64, is_it: impl Fn(&Stored) -> bool) -> Option<Place> {
        let mut same_hash = self.line.map.with_hash(hash);
        same_hash
            .find(|(_, stored)| is_it(stored))
            .map(|(place, _)| place)
    }

    /// Adds an entry that another owner gave, as it is, and works in its keyspace from now on. No client has seen the slot
    /// here, so nobody is told.
    pub fn insert(&mut self, entry: Entry, now_ms: u64) -> Result<(), TooBig> {
        self.enter(entry.tenant);
        let used_at_ms = now_ms.saturating_sub(entry.idle_ms);
        let accessed = AccessStamp::at(used_at_ms);
        let stored = Stored::new(&entry.key, entry.value, entry.expires_at_ms, accessed);
        // Its owner has looked at the tenant's limits.
        let (bytes, budget_bytes) = (stored.cost(), self.store.budget_bytes);
        if bytes > budget_bytes {
            return Err(TooBig { bytes, budget_bytes });
        }
        self.put(stored);
        Ok(())
    }

    /// Works in the tenant's keyspace from now on.
    pub fn enter(&mut self, tenant: TenantId) {
        if tenant != self.tenant() {
            self.switch(&self.store.keyspace(tenant));
        }
    }

    /// Every entry that has not expired, in no order.
    pub fn iter(&self, now_ms: u64) -> impl Iterator<Item = &Stored> {
        self.line
            .map
            .iter()
            .filter(move |stored| !stored.is_expired(now_ms))
    }

    /// A copy of every entry, expired ones too, in no order.
    pub fn snapshot(&self, now_ms: u64) -> Vec<Entry> {
        let tenant = self.tenant();
        self.line
            .map
            .iter()
            .map(|stored| Entry::of(tenant, stored, now_ms))
            .collect()
    }

    /// The keys of all keyspaces, of entries that have not expired.
    pub fn all_keys(&mut self, now_ms: u64) -> Vec<TenantKey> {
        let mut keys = Vec::new();
        for keyspace in self.all_keyspaces() {
            self.switch(&keyspace);
            let tenant = self.tenant();
            keys.extend(self.iter(now_ms).map(|stored| (tenant, stored.key().into())));
        }
        keys
    }

    /// The entry of a tenant as another node is to have it.
    pub fn entry(&mut self, tenant: TenantId, key: &[u8], now_ms: u64) -> Option<Entry> {
        self.enter(tenant);
        let stored = self.peek(key, now_ms)?;
        Some(Entry::of(tenant, stored, now_ms))
    }

    /// Removes every entry of its keyspace at a client's wish, and says how many there were.
    pub fn flush(&mut self) -> usize {
        if self.keyspace.tenant().is_none() && !self.line.has_tenants() {
            let removed = self.clear_one();
            if removed > 0 {
                self.store.journal.cleared(self.slot);
            }
            return removed;
        }
        // Whoever has copies is to hear of this tenant's entries alone, not to get all others' again.
        if self.store.journal.is_on() {
            for stored in self.line.map.iter() {
                self.store.journal.changed(self.slot, self.tenant(), stored.key());
            }
        }
        self.clear_one()
    }

    /// Removes some entries of its keyspace, whose tenant is no more, and says how many.
    pub(super) fn drop_some(&mut self, keys_max: usize) -> usize {
        let keys: Vec<Box<[u8]>> = self
            .line
            .map
            .iter()
            .take(keys_max)
            .map(|stored| stored.key().into())
            .collect();
        // At the beginning of time nothing has expired.
        keys.iter().filter(|key| self.remove(key, 0).is_some()).count()
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
        for keyspace in self.all_keyspaces() {
            self.switch(&keyspace);
            self.settle();
            self.count_as(copy);
        }
        self.store.copies.set(self.slot, copy);
    }

    /// Counts the entries of one keyspace as copies, or no more as copies.
    fn count_as(&self, copy: bool) {
        let (bytes, len) = (self.before.bytes, self.before.len as u64);
        let (store, space, fresh) = (self.store, self.space(), u64::from(self.before.fresh));
        // Taking away wraps, and so do the sums.
        let (len, bytes, fresh) = if copy {
            (len, bytes, fresh)
        } else {
            (len.wrapping_neg(), bytes.wrapping_neg(), fresh.wrapping_neg())
        };
        space.keys.fetch_sub(len, Ordering::Relaxed);
        space.fresh.fetch_sub(fresh, Ordering::Relaxed);
        self.count_copied(len, bytes);
        store.copied_keys.fetch_add(len, Ordering::Relaxed);
        store.copied_bytes.fetch_add(bytes, Ordering::Relaxed);
        space.occupied.set(self.slot, !copy && self.before.len > 0);
        space.volatile.set(self.slot, !copy && self.before.volatile > 0);
    }

    /// The tenant's share of the copies changes.
    fn count_copied(&self, len_change: u64, bytes_change: u64) {
        if let Some(space) = self.keyspace.tenant() {
            space.copied_keys.fetch_add(len_change, Ordering::Relaxed);
            space.copied_bytes.fetch_add(bytes_change, Ordering::Relaxed);
        }
    }

    /// Removes a tenant's entry because its owner says that it is gone.
    pub fn remove_copied(&mut self, tenant: TenantId, key: &[u8]) {
        self.enter(tenant);
        let hash = self.hash(key);
        if let Some(place) = self.line.map.find(hash, key) {
            self.line.map.remove(place);
        }
    }

    /// Of a copy: removes what its owner doesn't have.
    pub fn keep_copied(&mut self, has: impl Fn(&TenantKey) -> bool) {
        // At the beginning of time nothing has expired.
        for key in self.all_keys(0) {
            if !has(&key) {
                self.remove_copied(key.0, &key.1);
            }
        }
    }

    /// Removes every entry of all keyspaces, and says how many there were. Other nodes are not told.
    pub fn clear(&mut self) -> usize {
        let mut removed = 0;
        for keyspace in self.all_keyspaces() {
            self.switch(&keyspace);
            removed += self.clear_one();
        }
        removed
    }

    fn clear_one(&mut self) -> usize {
        let removed = self.len();
        if removed > 0 {
            if self.space().watches.any(self.slot) {
                let was_there = |key: &[u8]| self.peek(key, 0).is_some();
                self.space().watches.changed_where(self.slot, was_there);
            }
            self.line.map.clear();
        }
        removed
    }

    /// Ends what clients hold on to in the slot: it is served elsewhere from now on, or begins anew.
    pub fn release_clients(&self) {
        self.store.own.leave(self.slot);
        for space in self.store.spaces() {
            space.leave(self.slot);
        }
    }

    pub(super) fn may_have_expired(&self, now_ms: u64) -> bool {
        self.line.map.expiry_first_ms() <= now_ms
    }

    pub(super) fn remove_expired(&mut self, now_ms: u64) -> usize {
        if self.space().watches.any(self.slot) {
            let is_over = |key: &[u8]| self.peek(key, 0).is_some() && self.peek(key, now_ms).is_none();
            self.space().watches.changed_where(self.slot, is_over);
        }
        if self.space().tracking.any(self.slot) {
            let is_over = |stored: &&Stored| stored.is_expired(now_ms);
            let keys: Vec<Box<[u8]>> = self
                .line
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
            for stored in self.line.map.iter().filter(|stored| stored.is_expired(now_ms)) {
                self.store.journal.changed(self.slot, self.tenant(), stored.key());
            }
        }
        self.line.map.remove_expired(now_ms)
    }

    /// Marks the flag when that key changes from now on, in whatever way.
    pub fn watch(&self, key: &[u8], flag: &WatchFlag) {
        self.space().watches.add(self.slot, key, flag);
    }

    /// Ends [`watch`](Self::watch).
    pub fn unwatch(&self, key: &[u8], flag: &WatchFlag) {
        if self.space().watches.any(self.slot) {
            self.space().watches.remove(self.slot, key, flag);
        }
    }

    /// Collects the keys that the client changes from now on, but not those whose time is over.
    pub fn collect_changes(&mut self) {
        self.changes.get_or_insert_default().by_client = Some(Vec::new());
    }

    /// The keys that it has changed since, some perhaps more than once.
    pub fn take_changes(&mut self) -> Vec<Box<[u8]>> {
        let changes = self.changes.as_mut();
        changes
            .and_then(|changes| changes.by_client.take())
            .unwrap_or_default()
    }

    #[inline]
    fn note_change(&mut self, key: &[u8]) {
        if let Some(changes) = &mut self.changes
            && let Some(changed) = &mut changes.by_client
            && self.client.is_some()
        {
            changed.push(key.into());
        }
        let space = self.space();
        if space.watches.any(self.slot) {
            space.watches.changed(self.slot, key);
        }
        if space.tracking.any(self.slot) {
            self.tell(key);
        }
        self.store.journal.changed(self.slot, self.tenant(), key);
    }

    /// Tells those who have read the key that it changes, and the others later, of all keys together.
    #[cold]
    fn tell(&mut self, key: &[u8]) {
        let tracking = &self.space().tracking;
        tracking.changed(self.slot, key, self.client);
        if tracking.prefixes() > 0 {
            let changes = self.changes.get_or_insert_default();
            changes.broadcast.push(key.into());
            if changes.broadcast.len() >= BROADCAST_KEYS_MAX {
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
        if let Some(changes) = &mut self.changes
            && !changes.broadcast.is_empty()
        {
            let keys = std::mem::take(&mut changes.broadcast);
            self.space().tracking.broadcast(&keys, self.client);
        }
    }

    /// By how much the slot has grown through this guard.
    pub fn grown_bytes(&self) -> u64 {
        self.bytes().saturating_sub(self.before.bytes)
    }

    /// Whether a tenant's slot has grown so much that the tenant is more than a hundredth above its limit, with what was done
    /// through this guard: nothing of it is evicted meanwhile.
    pub fn is_far_beyond_limits(&self) -> bool {
        let (grown_bytes, slots) = (self.grown_bytes(), self.store.slots());
        self.keyspace.tenant().is_some_and(|space| {
            let max = space.limits.memory_bytes(slots);
            grown_bytes > 0 && max.is_some_and(|max| space.own_bytes() + grown_bytes > max + max / 128)
        })
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
        self.live(self.hash(key), key, now_ms);
    }

    /// Where the entry is; one whose time is over is removed.
    #[inline]
    fn live(&mut self, hash: u64, key: &[u8], now_ms: u64) -> Option<Place> {
        let place = self.line.map.find(hash, key)?;
        if self.line.map.get(place)?.is_expired(now_ms) {
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
        let after = self.measured();
        self.before = after;
        let space = self.space();
        // Differences wrap, and so does the sum: what matters is the sum of all of them.
        if after.bytes != bytes {
            self.store
                .used_bytes
                .fetch_add(after.bytes.wrapping_sub(bytes), Ordering::Relaxed);
            if let Some(space) = self.keyspace.tenant() {
                let change = after.bytes.wrapping_sub(bytes);
                space.used_bytes.fetch_add(change, Ordering::Relaxed);
            }
        }
        if self.is_copy() {
            self.settle_copy(bytes, len);
        } else if after.len != len {
            space
                .keys
                .fetch_add((after.len as u64).wrapping_sub(len as u64), Ordering::Relaxed);
            if (after.len == 0) != (len == 0) {
                space.occupied.set(self.slot, after.len > 0);
            }
        }
        if after.fresh != fresh && !self.is_copy() {
            let change = u64::from(after.fresh).wrapping_sub(fresh.into());
            space.fresh.fetch_add(change, Ordering::Relaxed);
        }
        if (after.volatile == 0) != (volatile == 0) && !self.is_copy() {
            space.volatile.set(self.slot, after.volatile > 0);
        }
    }

    /// The same of a copy, which had so much before.
    fn settle_copy(&self, bytes_before: u64, len_before: usize) {
        let bytes_change = self.before.bytes.wrapping_sub(bytes_before);
        self.store.copied_bytes.fetch_add(bytes_change, Ordering::Relaxed);
        let len_change = (self.before.len as u64).wrapping_sub(len_before as u64);
        self.store.copied_keys.fetch_add(len_change, Ordering::Relaxed);
        self.count_copied(len_change, bytes_change);
    }
}

impl Drop for SlotGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.changes.is_some() {
            self.tell_all();
        }
        if self.keyspace.tenant().is_some() {
            self.leave();
        } else {
            self.settle();
        }
    }
}
