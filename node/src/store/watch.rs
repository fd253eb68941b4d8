//! Keys that transactions depend on: `WATCH`.
//!
//! A write to a slot looks at one bit; only where that is set does it look for watched keys. Everything here is called
//! with the slot's lock held, so that nothing changes between a look and a mark.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use annulus_ring::Slot;
use parking_lot::Mutex;

use super::bitmap::SlotBitmap;

/// Set once a watched key has changed.
#[derive(Debug, Clone, Default)]
pub struct WatchFlag(Arc<AtomicBool>);

impl WatchFlag {
    /// Whether a watched key has changed.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

type Watchers = Vec<Weak<AtomicBool>>;
type Keys = HashMap<Box<[u8]>, Watchers, foldhash::fast::RandomState>;

/// The watched keys of a store.
pub(super) struct Watches {
    slots: SlotBitmap,
    keys: Mutex<HashMap<Slot, Keys, foldhash::fast::RandomState>>,
}

impl Watches {
    pub(super) fn new() -> Self {
        Self {
            slots: SlotBitmap::new(),
            keys: Mutex::default(),
        }
    }

    /// Whether the slot has watched keys. One load.
    #[inline]
    pub(super) fn any(&self, slot: Slot) -> bool {
        self.slots.contains(slot)
    }

    pub(super) fn add(&self, slot: Slot, key: &[u8], flag: &WatchFlag) {
        let mut all = self.keys.lock();
        let watchers = all.entry(slot).or_default().entry(key.into()).or_default();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        watchers.push(Arc::downgrade(&flag.0));
        self.slots.set(slot, true);
    }

    /// Takes the flag off a key.
    pub(super) fn remove(&self, slot: Slot, key: &[u8], flag: &WatchFlag) {
        self.update(slot, |keys| {
            if let Some(watchers) = keys.get_mut(key) {
                watchers.retain(|watcher| !std::ptr::eq(watcher.as_ptr(), Arc::as_ptr(&flag.0)));
                if watchers.is_empty() {
                    keys.remove(key);
                }
            }
        });
    }

    /// The key changed: whoever watches it learns so, and the key is watched no more.
    #[cold]
    pub(super) fn changed(&self, slot: Slot, key: &[u8]) {
        self.update(slot, |keys| {
            if let Some(watchers) = keys.remove(key) {
                mark(&watchers);
            }
        });
    }

    /// As [`changed`](Self::changed), for all watched keys of the slot for which `is_changed` holds.
    #[cold]
    pub(super) fn changed_where(&self, slot: Slot, is_changed: impl Fn(&[u8]) -> bool) {
        self.update(slot, |keys| {
            keys.retain(|key, watchers| {
                let changed = is_changed(key);
                if changed {
                    mark(watchers);
                }
                !changed
            });
        });
    }

    fn update(&self, slot: Slot, update: impl FnOnce(&mut Keys)) {
        let mut all = self.keys.lock();
        let Some(keys) = all.get_mut(&slot) else {
            return;
        };
        update(keys);
        if keys.is_empty() {
            all.remove(&slot);
            self.slots.set(slot, false);
        }
    }
}

fn mark(watchers: &Watchers) {
    for flag in watchers.iter().filter_map(Weak::upgrade) {
        flag.store(true, Ordering::Release);
    }
}
