//! The entries of one slot, with what they cost.
//!
//! Invariant: `entry_bytes` is the sum of the entries' costs by [`super::memory`], and `volatile` counts the entries
//! that have a time of expiry. An entry is found once and then named by its [`Place`], which holds until the
//! next insertion or removal. Nothing here knows of locks, budgets or other slots.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::memory::allocation_bytes;
use super::stored::Stored;

/// Hashes keys, with a seed that is the store's own.
#[derive(Clone, Default)]
pub(super) struct KeyHasher(RandomState);

impl KeyHasher {
    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

/// The entries of one slot. It allocates nothing while it is empty.
///
/// A cache line holds all of it but the entries and their index.
#[repr(align(64))]
pub(super) struct SlotMap {
    index: HashTable<Stored>,
    entry_bytes: u64,
    volatile: usize,
    /// No entry expires before this moment.
    expiry_first_ms: u64,
}

impl Default for SlotMap {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            entry_bytes: 0,
            volatile: 0,
            expiry_first_ms: u64::MAX,
        }
    }
}

impl SlotMap {
    /// An index with fewer buckets is not made smaller.
    const SHRUNK_BUCKETS_MIN: usize = 64;

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// What the entries and their index take; the slot's own line belongs to the store.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.entry_bytes + allocation_bytes(self.index.allocation_size())
    }

    #[inline]
    pub(super) fn volatile(&self) -> usize {
        self.volatile
    }

    /// No entry expires before this moment.
    pub(super) fn expiry_first_ms(&self) -> u64 {
        self.expiry_first_ms
    }

    /// Where the entry of that key is, expired or not.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<Place> {
        self.index
            .find_bucket_index(hash, |stored| stored.key() == key)
            .map(Place)
    }

    #[inline]
    pub(super) fn get(&self, place: Place) -> Option<&Stored> {
        self.index.get_bucket(place.0)
    }

    /// The entry, to change what doesn't change its cost nor its time of expiry.
    #[inline]
    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Stored> {
        self.index.get_bucket_mut(place.0)
    }

    /// Changes an entry in any way but its key.
    #[inline]
    pub(super) fn update<R>(&mut self, place: Place, change: impl FnOnce(&mut Stored) -> R) -> Option<R> {
        let stored = self.index.get_bucket_mut(place.0)?;
        self.entry_bytes -= stored.cost();
        self.volatile -= usize::from(stored.expires_at_ms().is_some());
        let result = change(stored);
        self.entry_bytes += stored.cost();
        let expires_at_ms = stored.expires_at_ms();
        self.note_expiry(expires_at_ms);
        Some(result)
    }

    /// Adds an entry whose key is not there.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, stored: Stored, hasher: &KeyHasher) {
        self.entry_bytes += stored.cost();
        self.note_expiry(stored.expires_at_ms());
        self.index
            .insert_unique(hash, stored, |stored| hasher.hash(stored.key()));
    }

    pub(super) fn remove(&mut self, place: Place, hasher: &KeyHasher) -> Option<Stored> {
        let (stored, _) = self.index.get_bucket_entry(place.0).ok()?.remove();
        self.entry_bytes -= stored.cost();
        self.volatile -= usize::from(stored.expires_at_ms().is_some());
        self.shrink(hasher);
        Some(stored)
    }

    /// Removes every entry whose time is over, and says how many those were.
    pub(super) fn remove_expired(&mut self, now_ms: u64, hasher: &KeyHasher) -> usize {
        if self.expiry_first_ms > now_ms {
            return 0;
        }
        let (mut removed, mut bytes, mut first_ms) = (0, 0, u64::MAX);
        self.index.retain(|stored| {
            let expires_at_ms = stored.expires_at_ms().unwrap_or(u64::MAX);
            let expired = stored.is_expired(now_ms);
            if expired {
                removed += 1;
                bytes += stored.cost();
            } else {
                first_ms = first_ms.min(expires_at_ms);
            }
            !expired
        });
        self.entry_bytes -= bytes;
        self.volatile -= removed;
        self.expiry_first_ms = first_ms;
        self.shrink(hasher);
        removed
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The entries, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.index.iter()
    }

    /// Entries from a place that `random` gives, with their places' order.
    pub(super) fn sample(&self, random: u64) -> impl Iterator<Item = &Stored> {
        let buckets = self.index.num_buckets();
        // The remainder is below a length, so that it is one.
        let begin = usize::try_from(random % buckets.max(1) as u64).unwrap_or(0);
        (begin..buckets)
            .chain(0..begin)
            .filter_map(|bucket| self.index.get_bucket(bucket))
    }

    /// The entries with that hash: nearly always one, or none.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = (Place, &Stored)> {
        self.index
            .iter_hash_buckets(hash)
            .filter_map(|bucket| Some((Place(bucket), self.index.get_bucket(bucket)?)))
    }

    /// Gives back what the index has too much, at a length far from where it would grow again.
    fn shrink(&mut self, hasher: &KeyHasher) {
        if self.index.is_empty() {
            self.clear();
        } else if self.index.num_buckets() >= Self::SHRUNK_BUCKETS_MIN
            && self.index.len() * 8 <= self.index.num_buckets()
        {
            self.index
                .shrink_to(self.index.len() * 2, |stored| hasher.hash(stored.key()));
        }
    }

    #[inline]
    fn note_expiry(&mut self, expires_at_ms: Option<u64>) {
        if let Some(expires_at_ms) = expires_at_ms {
            self.volatile += 1;
            self.expiry_first_ms = self.expiry_first_ms.min(expires_at_ms);
        }
    }
}
