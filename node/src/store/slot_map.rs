//! The entries of one slot, most recently used first, with what they cost.
//!
//! Invariant: `bytes` is the sum of the entries' costs by [`super::memory`] plus the slot's own while it holds
//! entries, and 0 when it holds none; `volatile` counts the entries that have a time of expiry. Nothing here
//! knows of locks, budgets or other slots.

use std::mem::size_of;

use foldhash::fast::RandomState;
use lru::LruCache;

use super::memory::{allocation_bytes, entry_bytes, index_bytes};
use super::value::{AccessStamp, Stored, Value};

/// The node of an entry in the `lru` crate's list: key, value and two pointers.
pub(super) const ENTRY_NODE_BYTES: usize =
    size_of::<Box<[u8]>>() + size_of::<Stored>() + 2 * size_of::<usize>();

/// A slot that holds entries allocates itself and the two ends of its list.
const SLOT_BYTES: u64 = allocation_bytes(size_of::<Entries>()) + 2 * allocation_bytes(ENTRY_NODE_BYTES);

/// What an entry costs.
fn cost(key_len: usize, stored: &Stored) -> u64 {
    entry_bytes(key_len) + stored.value.heap_bytes()
}

/// The entries of one slot. It allocates nothing while it is empty.
#[derive(Default)]
pub(super) struct SlotMap {
    entries: Option<Box<Entries>>,
}

struct Entries {
    by_recency: LruCache<Box<[u8]>, Stored, RandomState>,
    bytes: u64,
    /// The most entries since the slot was empty: the index never shrinks before it is empty again.
    len_max: usize,
    /// Entries removed since then.
    removed: usize,
    volatile: usize,
    /// No entry expires before this moment.
    expiry_first_ms: u64,
}

impl SlotMap {
    pub(super) fn len(&self) -> usize {
        self.entries
            .as_ref()
            .map_or(0, |entries| entries.by_recency.len())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.entries.as_ref().map_or(0, |entries| entries.bytes)
    }

    pub(super) fn volatile(&self) -> usize {
        self.entries.as_ref().map_or(0, |entries| entries.volatile)
    }

    /// No entry expires before this moment.
    pub(super) fn expiry_first_ms(&self) -> u64 {
        self.entries
            .as_ref()
            .map_or(u64::MAX, |entries| entries.expiry_first_ms)
    }

    /// The entry, expired or not; its recency stays.
    #[inline]
    pub(super) fn peek(&self, key: &[u8]) -> Option<&Stored> {
        self.entries.as_ref()?.by_recency.peek(key)
    }

    /// The entry, expired or not, as the most recently used one.
    #[inline]
    pub(super) fn touch(&mut self, key: &[u8], now_ms: u64) -> Option<&Stored> {
        let stored = self.entries.as_mut()?.by_recency.get_mut(key)?;
        stored.accessed = AccessStamp::at(now_ms);
        Some(stored)
    }

    /// Adds or replaces an entry as the most recently used one.
    #[inline]
    pub(super) fn put(&mut self, key: &[u8], stored: Stored) {
        let entries = self.entries.get_or_insert_with(|| Box::new(Entries::new()));
        if let Some(old) = entries.by_recency.get_mut(key) {
            let old = std::mem::replace(old, stored);
            entries.bytes -= cost(key.len(), &old);
            entries.volatile -= usize::from(old.expires_at_ms().is_some());
        } else {
            entries.by_recency.put(key.into(), stored);
            entries.note_len();
        }
        // The entry was just made the most recent one.
        if let Some((key, stored)) = entries.by_recency.peek_mru() {
            entries.bytes += cost(key.len(), stored);
            let expires_at_ms = stored.expires_at_ms();
            entries.note_expiry(expires_at_ms);
        }
    }

    /// Replaces an entry's value by what `change` makes of it. The entry keeps its time of expiry and becomes
    /// the most recently used one; `false` when there is none.
    #[inline]
    pub(super) fn modify(&mut self, key: &[u8], now_ms: u64, change: impl FnOnce(&mut Value)) -> bool {
        let Some(entries) = self.entries.as_mut() else {
            return false;
        };
        let Some(stored) = entries.by_recency.get_mut(key) else {
            return false;
        };
        let before = stored.value.heap_bytes();
        change(&mut stored.value);
        stored.accessed = AccessStamp::at(now_ms);
        entries.bytes = entries.bytes - before + stored.value.heap_bytes();
        true
    }

    /// Sets or takes away an entry's time of expiry; `false` when there is no such entry.
    pub(super) fn set_expiry(&mut self, key: &[u8], expires_at_ms: Option<u64>) -> bool {
        let Some(entries) = self.entries.as_mut() else {
            return false;
        };
        let Some(stored) = entries.by_recency.peek_mut(key) else {
            return false;
        };
        entries.volatile -= usize::from(stored.expires_at_ms().is_some());
        stored.set_expires_at_ms(expires_at_ms);
        entries.note_expiry(expires_at_ms);
        true
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Stored> {
        let stored = self.entries.as_mut()?.by_recency.pop(key)?;
        self.forget(key.len(), &stored);
        Some(stored)
    }

    /// When the least recently used entry was last used.
    pub(super) fn oldest(&self) -> Option<AccessStamp> {
        self.entries
            .as_ref()?
            .by_recency
            .peek_lru()
            .map(|(_, stored)| stored.accessed)
    }

    /// Removes the least recently used entry.
    pub(super) fn remove_oldest(&mut self) -> Option<Box<[u8]>> {
        let (key, stored) = self.entries.as_mut()?.by_recency.pop_lru()?;
        self.forget(key.len(), &stored);
        Some(key)
    }

    /// Removes every entry whose time is over, and says how many those were.
    pub(super) fn remove_expired(&mut self, now_ms: u64) -> usize {
        let Some(entries) = self.entries.as_mut() else {
            return 0;
        };
        if entries.expiry_first_ms > now_ms {
            return 0;
        }
        let (mut removed, mut bytes, mut first_ms) = (0, 0, u64::MAX);
        entries.by_recency.retain(|key, stored| {
            let expired = stored.is_expired(now_ms);
            if expired {
                removed += 1;
                bytes += cost(key.len(), stored);
            } else {
                first_ms = first_ms.min(stored.expires_at_ms().unwrap_or(u64::MAX));
            }
            !expired
        });
        entries.bytes -= bytes;
        entries.volatile -= removed;
        entries.expiry_first_ms = first_ms;
        entries.note_removed(removed);
        self.release_if_empty();
        removed
    }

    pub(super) fn clear(&mut self) {
        self.entries = None;
    }

    /// The entries, most recently used first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Stored)> {
        self.entries
            .iter()
            .flat_map(|entries| entries.by_recency.iter().map(|(key, stored)| (&**key, stored)))
    }

    fn forget(&mut self, key_len: usize, stored: &Stored) {
        if let Some(entries) = self.entries.as_mut() {
            entries.bytes -= cost(key_len, stored);
            entries.volatile -= usize::from(stored.expires_at_ms().is_some());
            entries.note_removed(1);
        }
        self.release_if_empty();
    }

    fn release_if_empty(&mut self) {
        if self.len() == 0 {
            self.entries = None;
        }
    }
}

impl Entries {
    fn new() -> Self {
        Self {
            by_recency: LruCache::unbounded_with_hasher(RandomState::default()),
            bytes: SLOT_BYTES,
            len_max: 0,
            removed: 0,
            volatile: 0,
            expiry_first_ms: u64::MAX,
        }
    }

    /// The entries that the index has room for, as far as can be told from outside. Removals leave marks in a
    /// large index that only growing to twice the size gets rid of.
    fn indexed_len(&self) -> usize {
        const LARGE: usize = 1024;
        let is_marked = self.len_max >= LARGE && self.removed > self.len_max / 8;
        if is_marked { 2 * self.len_max } else { self.len_max }
    }

    fn note_len(&mut self) {
        let before = self.indexed_len();
        self.len_max = self.len_max.max(self.by_recency.len());
        self.note_index(before);
    }

    fn note_removed(&mut self, removed: usize) {
        let before = self.indexed_len();
        self.removed += removed;
        self.note_index(before);
    }

    #[inline]
    fn note_index(&mut self, before: usize) {
        let after = self.indexed_len();
        if after != before {
            self.bytes = self.bytes + index_bytes(after) - index_bytes(before);
        }
    }

    fn note_expiry(&mut self, expires_at_ms: Option<u64>) {
        if let Some(expires_at_ms) = expires_at_ms {
            self.volatile += 1;
            self.expiry_first_ms = self.expiry_first_ms.min(expires_at_ms);
        }
    }
}
