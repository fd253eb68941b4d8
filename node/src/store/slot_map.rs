//! The entries of one slot, with what they cost.
//!
//! Invariant: `entry_bytes` is the sum of the entries' costs by [`super::memory`], and `volatile` counts the entries
//! that have a time of expiry, `fresh` those on probation. An entry is found once and then named by its [`Place`], which holds until the
//! next insertion or removal. Nothing here knows of locks, budgets or other slots.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use super::eviction::Rank;
use super::index::Index;
pub(super) use super::index::Place;
use super::memory::allocation_bytes;
use super::stored::{Stored, Tag};
use super::value::AccessStamp;

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

/// The entries of one slot. It allocates nothing while it is empty.
pub(super) struct SlotMap {
    index: Index,
    entry_bytes: u64,
    volatile: u32,
    fresh: u32,
    /// No entry expires before this moment.
    expiry_first_ms: u64,
}

impl Default for SlotMap {
    fn default() -> Self {
        Self {
            index: Index::default(),
            entry_bytes: 0,
            volatile: 0,
            fresh: 0,
            expiry_first_ms: u64::MAX,
        }
    }
}

impl SlotMap {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// What the entries and their index take; the slot's own line belongs to the store.
    #[inline]
    pub(super) fn bytes(&self) -> u64 {
        self.entry_bytes + allocation_bytes(self.index.allocated_bytes())
    }

    #[inline]
    pub(super) fn volatile(&self) -> u32 {
        self.volatile
    }

    #[inline]
    pub(super) fn fresh(&self) -> u32 {
        self.fresh
    }

    /// No entry expires before this moment.
    pub(super) fn expiry_first_ms(&self) -> u64 {
        self.expiry_first_ms
    }

    /// Where the entry of that key is, expired or not.
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<Place> {
        self.index.find(Tag::of(hash), key)
    }

    #[inline]
    pub(super) fn get(&self, place: Place) -> Option<&Stored> {
        self.index.get(place)
    }

    /// The entry, after a use of it.
    #[inline]
    pub(super) fn note_use(
        &mut self,
        place: Place,
        accessed: AccessStamp,
        used: impl FnOnce(Rank) -> Rank,
    ) -> Option<&Stored> {
        let stored = self.index.get_mut(place)?;
        stored.set_accessed(accessed);
        let before = Rank::of(stored);
        let after = used(before);
        if after != before {
            after.write(stored);
            self.fresh -= before.is_fresh();
            self.fresh += after.is_fresh();
        }
        Some(stored)
    }

    /// Changes an entry in any way but its key.
    #[inline]
    pub(super) fn update<R>(&mut self, place: Place, change: impl FnOnce(&mut Stored) -> R) -> Option<R> {
        let stored = self.index.get_mut(place)?;
        self.entry_bytes -= stored.cost();
        self.volatile -= u32::from(stored.expires_at_ms().is_some());
        self.fresh -= Rank::of(stored).is_fresh();
        let result = change(stored);
        self.entry_bytes += stored.cost();
        self.fresh += Rank::of(stored).is_fresh();
        let expires_at_ms = stored.expires_at_ms();
        self.note_expiry(expires_at_ms);
        Some(result)
    }

    /// Adds an entry whose key is not there.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, stored: Stored) {
        self.entry_bytes += stored.cost();
        self.fresh += Rank::of(&stored).is_fresh();
        self.note_expiry(stored.expires_at_ms());
        self.index.insert(Tag::of(hash), stored);
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<Stored> {
        let stored = self.index.remove(place)?;
        self.entry_bytes -= stored.cost();
        self.volatile -= u32::from(stored.expires_at_ms().is_some());
        self.fresh -= Rank::of(&stored).is_fresh();
        self.forget_if_empty();
        Some(stored)
    }

    /// Removes every entry whose time is over, and says how many those were.
    pub(super) fn remove_expired(&mut self, now_ms: u64) -> usize {
        if self.expiry_first_ms > now_ms {
            return 0;
        }
        let (mut removed, mut bytes, mut fresh, mut first_ms) = (0, 0, 0, u64::MAX);
        self.index.retain(|stored| {
            let expires_at_ms = stored.expires_at_ms().unwrap_or(u64::MAX);
            let expired = stored.is_expired(now_ms);
            if expired {
                removed += 1;
                bytes += stored.cost();
                fresh += Rank::of(stored).is_fresh();
            } else {
                first_ms = first_ms.min(expires_at_ms);
            }
            !expired
        });
        self.entry_bytes -= bytes;
        self.volatile -= removed;
        self.fresh -= fresh;
        self.expiry_first_ms = first_ms;
        self.forget_if_empty();
        removed as usize
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The entries, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.index.iter()
    }

    /// The entries from a place that `random` gives, and on around.
    pub(super) fn sample(&self, random: u64) -> impl Iterator<Item = &Stored> {
        self.index.sample(random)
    }

    /// The entries whose hash begins like that one: nearly always one, or none.
    pub(super) fn with_hash(&self, hash: u64) -> impl Iterator<Item = (Place, &Stored)> {
        self.index.with_tag(Tag::of(hash))
    }

    /// Has the processor fetch what a search begins with.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.index.prefetch(Tag::of(hash));
    }

    /// Has the processor fetch what a search finds.
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: u64) {
        self.index.prefetch_entry(Tag::of(hash));
    }

    fn forget_if_empty(&mut self) {
        if self.index.len() == 0 {
            self.expiry_first_ms = u64::MAX;
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
