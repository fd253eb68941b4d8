//! The near cache: what was read, which connection vouches for it, and reads that are under way.
//!
//! A reply is put here by whoever reads its connection, in the order of the stream: an invalidation of a key that was read comes
//! behind the reply, so it finds the entry. Only the client's own writes, which go another way, can pass a reply that is still
//! under way; such a read is answered and not kept.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use lru::LruCache;
use parking_lot::Mutex;

use crate::source::{Source, State};

const SHARDS: usize = 64;

/// An entry takes about so much beside its key and value.
const ENTRY_BYTES: usize = 160;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The value; `None` for a key that is known not to exist.
    Hit(Option<Bytes>),
    /// Nothing is known of the key.
    Miss,
    /// Something is, but its connection has not vouched for it lately.
    Unchecked,
}

struct Entry {
    value: Option<Bytes>,
    source: Arc<Source>,
    generation: u64,
    until_ns: u64,
}

/// Reads of a key that are under way.
#[derive(Default)]
struct Pending {
    reads: usize,
    /// Counts own writes meanwhile.
    writes: u64,
}

struct Shard {
    entries: LruCache<Bytes, Entry, RandomState>,
    pending: HashMap<Bytes, Pending, RandomState>,
    bytes: usize,
    counts: Counts,
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads answered from here.
    pub hits: u64,
    /// Reads of keys of which nothing was known.
    pub misses: u64,
    /// Reads of keys whose connection had not vouched for them lately.
    pub unchecked: u64,
    /// Entries that left to make room.
    pub evictions: u64,
    /// Values that were not kept since the client itself wrote the key meanwhile.
    pub overtaken: u64,
    /// What is here, and what it takes.
    pub entries: u64,
    /// Keys, values and what keeps them, about.
    pub bytes: u64,
}

/// All that was read and may be served again.
pub struct NearCache {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    shard_bytes_max: usize,
}

/// A read that is under way. It ends when this is dropped.
pub struct Reading {
    cache: Arc<NearCache>,
    key: Bytes,
    writes: u64,
}

fn cost(key: &[u8], value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, Bytes::len) + ENTRY_BYTES
}

impl Shard {
    fn remove(&mut self, key: &[u8]) {
        if let Some((key, entry)) = self.entries.pop_entry(key) {
            self.bytes -= cost(&key, entry.value.as_ref());
        }
    }
}

impl NearCache {
    /// Has room for about so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        let shard = || Shard {
            entries: LruCache::unbounded_with_hasher(RandomState::default()),
            pending: HashMap::default(),
            bytes: 0,
            counts: Counts::default(),
        };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            hasher: RandomState::default(),
            shard_bytes_max: bytes_max / SHARDS,
        }
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(key);
        // What is left of it is below the number of shards.
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of it is taken")]
        let place = hash as usize % SHARDS;
        &self.shards[place]
    }

    /// What may be said of the key at that moment.
    pub fn look_up(&self, key: &[u8], now_ns: u64) -> Lookup {
        let mut shard = self.shard(key).lock();
        let Shard { entries, counts, .. } = &mut *shard;
        let Some(entry) = entries.get(key) else {
            counts.misses += 1;
            return Lookup::Miss;
        };
        match entry.source.state(entry.generation, now_ns) {
            State::Valid if now_ns < entry.until_ns => {
                counts.hits += 1;
                return Lookup::Hit(entry.value.clone());
            }
            State::Unchecked if now_ns < entry.until_ns => {
                counts.unchecked += 1;
                return Lookup::Unchecked;
            }
            State::Valid | State::Unchecked | State::Flushed => {}
        }
        counts.misses += 1;
        shard.remove(key);
        Lookup::Miss
    }

    /// A read of the key begins.
    pub fn begin_read(self: &Arc<Self>, key: Bytes) -> Reading {
        let mut shard = self.shard(&key).lock();
        let pending = shard.pending.entry(key.clone()).or_default();
        pending.reads += 1;
        let writes = pending.writes;
        drop(shard);
        Reading {
            cache: Arc::clone(self),
            key,
            writes,
        }
    }

    /// The key has changed.
    pub fn invalidate(&self, key: &[u8]) {
        self.shard(key).lock().remove(key);
    }

    /// The client itself writes the key. To be called before and after: what is read in between is not kept.
    pub fn overtake(&self, key: &[u8]) {
        let mut shard = self.shard(key).lock();
        shard.remove(key);
        if let Some(pending) = shard.pending.get_mut(key) {
            pending.writes += 1;
        }
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for shard in &self.shards {
            let shard = shard.lock();
            sum.hits += shard.counts.hits;
            sum.misses += shard.counts.misses;
            sum.unchecked += shard.counts.unchecked;
            sum.evictions += shard.counts.evictions;
            sum.overtaken += shard.counts.overtaken;
            sum.entries += shard.entries.len() as u64;
            sum.bytes += shard.bytes as u64;
        }
        sum
    }
}

impl Reading {
    /// Which key.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The reply has come over that connection; it may be served until `until_ns`. To be called before anything that came
    /// later on the connection is looked at.
    pub fn keep(self, value: Option<Bytes>, source: &Arc<Source>, until_ns: u64) {
        let cache = &self.cache;
        let mut shard = cache.shard(&self.key).lock();
        let is_current = shard
            .pending
            .get(&self.key)
            .is_some_and(|pending| pending.writes == self.writes);
        if !is_current {
            shard.counts.overtaken += 1;
            return;
        }
        shard.remove(&self.key);
        let bytes = cost(&self.key, value.as_ref());
        if bytes > cache.shard_bytes_max {
            return;
        }
        let entry = Entry {
            value,
            generation: source.generation(),
            source: Arc::clone(source),
            until_ns,
        };
        shard.entries.put(self.key.clone(), entry);
        shard.bytes += bytes;
        while shard.bytes > cache.shard_bytes_max
            && let Some((key, entry)) = shard.entries.pop_lru()
        {
            shard.bytes -= cost(&key, entry.value.as_ref());
            shard.counts.evictions += 1;
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut shard = self.cache.shard(&self.key).lock();
        if let Some(pending) = shard.pending.get_mut(&self.key) {
            pending.reads -= 1;
            if pending.reads == 0 {
                shard.pending.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
