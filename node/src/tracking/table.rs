//! Who has read which key, by slot.
//!
//! Invariant: a slot's bit is set exactly while it has keys, and `keys` and `items` count what is in the table. Clients
//! that are gone stay in it until the key changes or is read again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use annulus_ring::Slot;
use parking_lot::Mutex;

use crate::clients::Client;
use crate::store::bitmap::SlotBitmap;

/// Locks that the slots share.
const SHARDS: usize = 64;
const SHARDS_SMALL: usize = 4;

/// Who has read a key.
pub(super) type Readers = Vec<Weak<Client>>;
type Keys = HashMap<Box<[u8]>, Readers, foldhash::fast::RandomState>;
type Shard = HashMap<Slot, Keys, foldhash::fast::RandomState>;

pub(super) struct Table {
    slots: SlotBitmap,
    shards: Box<[Mutex<Shard>]>,
    keys: AtomicUsize,
    items: AtomicUsize,
    /// Where the next key is taken from when there are too many.
    next_shard: AtomicUsize,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_shards(SHARDS)
    }
}

impl Table {
    /// The same with few locks.
    pub(super) fn small() -> Self {
        Self::with_shards(SHARDS_SMALL)
    }

    fn with_shards(shards: usize) -> Self {
        Self {
            slots: SlotBitmap::new(),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            next_shard: AtomicUsize::new(0),
        }
    }
}

impl Table {
    /// Whether keys of the slot are in the table. One load.
    #[inline]
    pub(super) fn any(&self, slot: Slot) -> bool {
        self.slots.contains(slot)
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    pub(super) fn items(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, slot: Slot, key: &[u8], client: &Arc<Client>) {
        let mut shard = self.shard(slot).lock();
        let keys = shard.entry(slot).or_default();
        let Some(readers) = keys.get_mut(key) else {
            keys.insert(key.into(), vec![Arc::downgrade(client)]);
            self.keys.fetch_add(1, Ordering::Relaxed);
            self.items.fetch_add(1, Ordering::Relaxed);
            self.slots.set(slot, true);
            return;
        };
        if readers
            .iter()
            .any(|reader| std::ptr::eq(reader.as_ptr(), Arc::as_ptr(client)))
        {
            return;
        }
        let before = readers.len();
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(client));
        // Differences wrap, and so does the sum.
        self.items
            .fetch_add(readers.len().wrapping_sub(before), Ordering::Relaxed);
    }

    pub(super) fn remove(&self, slot: Slot, key: &[u8]) -> Option<Readers> {
        let mut shard = self.shard(slot).lock();
        let keys = shard.get_mut(&slot)?;
        let readers = keys.remove(key)?;
        if keys.is_empty() {
            shard.remove(&slot);
            self.slots.set(slot, false);
        }
        self.forget(1, readers.len());
        Some(readers)
    }

    pub(super) fn take_slot(&self, slot: Slot) -> Keys {
        if !self.any(slot) {
            return Keys::default();
        }
        let mut shard = self.shard(slot).lock();
        let keys = shard.remove(&slot).unwrap_or_default();
        self.slots.set(slot, false);
        self.forget_all(&keys);
        keys
    }

    /// Takes any key, each time from another part of the table.
    pub(super) fn pop(&self) -> Option<(Box<[u8]>, Readers)> {
        for _ in 0..self.shards.len() {
            let place = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            let shard = self.shards[place].lock();
            let first = shard.iter().next();
            let Some((slot, key)) = first.and_then(|(slot, keys)| Some((*slot, keys.keys().next()?.clone())))
            else {
                continue;
            };
            drop(shard);
            if let Some(readers) = self.remove(slot, &key) {
                return Some((key, readers));
            }
        }
        None
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            for (slot, keys) in shard.lock().drain() {
                self.slots.set(slot, false);
                self.forget_all(&keys);
            }
        }
    }

    fn shard(&self, slot: Slot) -> &Mutex<Shard> {
        &self.shards[slot.index() % self.shards.len()]
    }

    fn forget_all(&self, keys: &Keys) {
        self.forget(keys.len(), keys.values().map(Vec::len).sum());
    }

    fn forget(&self, keys: usize, items: usize) {
        self.keys.fetch_sub(keys, Ordering::Relaxed);
        self.items.fetch_sub(items, Ordering::Relaxed);
    }
}
