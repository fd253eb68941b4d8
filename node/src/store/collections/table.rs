//! Records by key: the records in one row, and an index of their places.
//!
//! A row without gaps makes a random pick and a scan simple: see [`super::scan_window`]. A removed record's place
//! is taken by the last one.

use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::store::memory::allocation_bytes;

/// What a table holds.
pub(super) trait Record {
    /// What it is found by; it doesn't change while it is in a table.
    fn key(&self) -> &[u8];

    /// What it allocates.
    fn heap_bytes(&self) -> u64;
}

impl Record for Box<[u8]> {
    fn key(&self) -> &[u8] {
        self
    }

    fn heap_bytes(&self) -> u64 {
        allocation_bytes(self.len())
    }
}

/// Where a record is. Part of its hash is kept, so that the index grows without a look at the records.
#[derive(Debug, Clone, Copy)]
struct Place {
    hash: u32,
    at: u32,
}

impl Place {
    /// The hash that the index is built with: its buckets come from the lower bits, its tags from the upper ones.
    fn spread(self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

fn hash_of(key: &[u8]) -> u32 {
    /// Seeded at random for the process.
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    let mut hasher = STATE.build_hasher();
    hasher.write(key);
    let hash = hasher.finish();
    // Half of the bits are enough.
    (hash >> 32) as u32
}

/// Records, each with a key of its own.
#[derive(Debug, Clone)]
pub(super) struct Table<R> {
    records: Vec<R>,
    index: HashTable<Place>,
    /// What the records allocate.
    records_bytes: u64,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            index: HashTable::new(),
            records_bytes: 0,
        }
    }
}

impl<R: Record> Table<R> {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// What it allocates.
    pub(super) fn heap_bytes(&self) -> u64 {
        self.records_bytes
            + allocation_bytes(self.records.capacity() * size_of::<R>())
            + allocation_bytes(self.index.allocation_size())
    }

    /// The record's place.
    pub(super) fn position(&self, key: &[u8]) -> Option<usize> {
        let hash = hash_of(key);
        let sought = Place { hash, at: 0 };
        self.index
            .find(sought.spread(), |place| {
                place.hash == hash && self.records[place.at as usize].key() == key
            })
            .map(|place| place.at as usize)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&R> {
        self.position(key).map(|at| &self.records[at])
    }

    /// The record at a place below [`Self::len`].
    pub(super) fn at(&self, at: usize) -> &R {
        &self.records[at]
    }

    /// The records in their places' order.
    pub(super) fn records(&self) -> &[R] {
        &self.records
    }

    /// Adds a record whose key isn't there yet, and returns its place.
    pub(super) fn push(&mut self, record: R) -> u32 {
        const SPARE_MIN: usize = 8;
        let place = Place {
            hash: hash_of(record.key()),
            at: u32::try_from(self.records.len()).unwrap_or(u32::MAX),
        };
        if self.records.len() == self.records.capacity() {
            self.records
                .reserve_exact((self.records.len() / 4).max(SPARE_MIN));
        }
        self.records_bytes += record.heap_bytes();
        self.records.push(record);
        self.index
            .insert_unique(place.spread(), place, |place| place.spread());
        place.at
    }

    /// Changes the record at a place, but not its key.
    pub(super) fn change<T>(&mut self, at: usize, change: impl FnOnce(&mut R) -> T) -> T {
        let record = &mut self.records[at];
        self.records_bytes -= record.heap_bytes();
        let result = change(record);
        self.records_bytes += record.heap_bytes();
        result
    }

    /// Removes the record at a place; the last record comes there.
    pub(super) fn swap_remove(&mut self, at: usize) -> R {
        self.forget(at);
        let last = self.records.len() - 1;
        if at != last {
            let place = Place {
                hash: hash_of(self.records[last].key()),
                at: 0,
            };
            if let Some(moved) = self
                .index
                .find_mut(place.spread(), |place| place.at as usize == last)
            {
                moved.at = u32::try_from(at).unwrap_or(u32::MAX);
            }
        }
        let record = self.records.swap_remove(at);
        self.records_bytes -= record.heap_bytes();
        self.give_back();
        record
    }

    fn forget(&mut self, at: usize) {
        let place = Place {
            hash: hash_of(self.records[at].key()),
            at: 0,
        };
        if let Ok(entry) = self
            .index
            .find_entry(place.spread(), |place| place.at as usize == at)
        {
            entry.remove();
        }
    }

    fn give_back(&mut self) {
        const LEN_MIN: usize = 64;
        let len = self.records.len().max(LEN_MIN);
        if self.records.capacity() > 2 * len {
            self.records.shrink_to(len + len / 4);
        }
        if self.index.capacity() > 4 * len {
            self.index.shrink_to(len + len / 2, |place| place.spread());
        }
    }
}
