//! What an eviction policy remembers of keys that may not be there any more.
//!
//! Both memories are arrays of atomics that grow with the number of entries, by doubling; when they do, what was
//! remembered is forgotten. They never shrink. Threads read and write without locks: a count that is lost now and then makes no
//! difference to an estimate.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Arrays of doubling size, of which the largest is in use.
#[derive(Debug)]
struct Doubling<T> {
    levels: [OnceLock<Box<[T]>>; usize::BITS as usize],
    level: AtomicUsize,
}

impl<T: Default> Doubling<T> {
    fn new() -> Self {
        Self {
            levels: std::array::from_fn(|_| OnceLock::new()),
            level: AtomicUsize::new(0),
        }
    }

    /// The array in use; none before the first growth.
    #[inline]
    fn get(&self) -> &[T] {
        let level = self.level.load(Ordering::Acquire);
        self.levels[level].get().map_or(&[], |array| array)
    }

    /// Uses an array of a power of two of at least so many from now on, if that is more. What smaller ones take is
    /// half of that together, and stays.
    fn grow(&self, len: usize) {
        let level = len.next_power_of_two().ilog2() as usize;
        if level > self.level.load(Ordering::Relaxed) || self.get().is_empty() {
            self.levels[level].get_or_init(|| (0..1usize << level).map(|_| T::default()).collect());
            self.level.fetch_max(level, Ordering::Release);
        }
    }

    fn bytes(&self) -> u64 {
        let arrays = self.levels.iter().filter_map(OnceLock::get);
        arrays.map(|array| size_of_val(&**array) as u64).sum()
    }
}

/// Keys that were evicted soon after they came (the ghost queue of Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all
/// you need for cache eviction", SOSP 2023). A table of fingerprints in place of a queue: a new one takes the
/// place of an older one at random.
#[derive(Debug)]
pub(super) struct Ghosts(Doubling<AtomicU32>);

impl Ghosts {
    pub(super) fn new() -> Self {
        Self(Doubling::new())
    }

    /// Makes room for so many.
    pub(super) fn grow(&self, entries: u64) {
        self.0.grow(usize::try_from(entries).unwrap_or(0));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    pub(super) fn add(&self, hash: u64) {
        if let Some(place) = self.place(hash) {
            place.store(fingerprint(hash), Ordering::Relaxed);
        }
    }

    /// Whether the key was evicted not long ago; it is forgotten then.
    #[inline]
    pub(super) fn take(&self, hash: u64) -> bool {
        let Some(place) = self.place(hash) else {
            return false;
        };
        let found = place.load(Ordering::Relaxed) == fingerprint(hash);
        if found {
            place.store(0, Ordering::Relaxed);
        }
        found
    }

    #[inline]
    fn place(&self, hash: u64) -> Option<&AtomicU32> {
        let places = self.0.get();
        places.get(usize::try_from(hash).unwrap_or(0) & places.len().wrapping_sub(1))
    }
}

/// Bits of the hash that don't choose the place; never 0.
#[inline]
fn fingerprint(hash: u64) -> u32 {
    (hash >> 32) as u32 | 1
}

/// How often keys were used lately, approximately: a count-min sketch of four-bit counters that are halved from time to
/// time, a cache line after the other (all at once would let a command wait) (after Einziger, Friedman, Manes: "`TinyLFU`: a highly efficient cache admission policy", 2017). The four counters of
/// a key are in one cache line.
#[derive(Debug)]
pub(super) struct Sketch {
    /// Each of 16 counters.
    words: Doubling<AtomicU64>,
    /// Uses that were counted.
    counted: AtomicU64,
}

impl Sketch {
    /// Words of a cache line.
    const BLOCK: usize = 8;
    /// Counters are halved after so many uses for each word, some ten for each entry.
    const USES_A_WORD: u64 = 10;
    const USES_A_BLOCK: u64 = Self::USES_A_WORD * Self::BLOCK as u64;
    const COUNT_MAX: u64 = 15;
    /// The lowest bit of every counter.
    const ONES: u64 = 0x1111_1111_1111_1111;

    pub(super) fn new() -> Self {
        Self {
            words: Doubling::new(),
            counted: AtomicU64::new(0),
        }
    }

    /// Makes room for so many.
    pub(super) fn grow(&self, entries: u64) {
        let words = usize::try_from(entries).unwrap_or(0);
        self.words.grow(words.max(Self::BLOCK));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.words.bytes()
    }

    /// How often the key was used lately, at most 15; too often rather than too rarely.
    pub(super) fn estimate(&self, hash: u64) -> u64 {
        let words = self.words.get();
        let counts = Self::counters(words.len(), hash).filter_map(|(word, shift)| {
            Some(words.get(word)?.load(Ordering::Relaxed) >> shift & Self::COUNT_MAX)
        });
        counts.min().unwrap_or(0)
    }

    /// Counts a use.
    #[inline]
    pub(super) fn count(&self, hash: u64) {
        let words = self.words.get();
        if words.is_empty() {
            return;
        }
        for (word, shift) in Self::counters(words.len(), hash) {
            let Some(word) = words.get(word) else { continue };
            let counters = word.load(Ordering::Relaxed);
            if counters >> shift & Self::COUNT_MAX < Self::COUNT_MAX {
                word.store(counters + (1 << shift), Ordering::Relaxed);
            }
        }
        let counted = self.counted.load(Ordering::Relaxed) + 1;
        self.counted.store(counted, Ordering::Relaxed);
        if counted.is_multiple_of(Self::USES_A_BLOCK) {
            let block = counted / Self::USES_A_BLOCK % (words.len() / Self::BLOCK) as u64;
            let first = usize::try_from(block).unwrap_or(0) * Self::BLOCK;
            for word in &words[first..first + Self::BLOCK] {
                let counters = word.load(Ordering::Relaxed);
                word.store(counters >> 1 & !(Self::ONES << 3), Ordering::Relaxed);
            }
        }
    }

    /// The words and places in them of a key's counters.
    #[inline]
    fn counters(words: usize, hash: u64) -> impl Iterator<Item = (usize, u64)> {
        let block = usize::try_from(hash).unwrap_or(0) & words.wrapping_sub(1) & !(Self::BLOCK - 1);
        (0..4u32).map(move |number| {
            // Six bits each of those that neither choose the block nor are the first to be alike.
            let bits = hash >> (38 + 6 * number) & 0x3f;
            let word = (bits & 1) as usize + 2 * number as usize;
            (block + word, (bits >> 1 & 0xf) * 4)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::mixed as hash_of;

    #[test]
    fn ghosts_are_remembered_once() {
        let ghosts = Ghosts::new();
        ghosts.add(hash_of(1));
        assert!(!ghosts.take(hash_of(1)), "without room nothing is remembered");
        ghosts.grow(1000);
        (0..300).for_each(|number| ghosts.add(hash_of(number)));
        let remembered = (0..300).filter(|&number| ghosts.take(hash_of(number))).count();
        assert!(remembered > 230, "{remembered} of 300");
        assert_eq!(
            (0..10_000).filter(|&number| ghosts.take(hash_of(number))).count(),
            0
        );
        assert_eq!(ghosts.bytes(), 4096);
    }

    #[test]
    fn a_sketch_tells_the_frequent_from_the_rare() {
        let sketch = Sketch::new();
        sketch.grow(1000);
        for _ in 0..8 {
            (0..500).for_each(|number| sketch.count(hash_of(number)));
        }
        // Some were halved on the way.
        assert!((0..500).all(|number| sketch.estimate(hash_of(number)) > 2));
        let rare = (1000..2000).filter(|&number| sketch.estimate(hash_of(number)) > 2);
        assert!(rare.count() < 50);
    }

    #[test]
    fn a_sketch_forgets() {
        let sketch = Sketch::new();
        sketch.grow(64);
        (0..15).for_each(|_| sketch.count(hash_of(0)));
        (0..3000).for_each(|number| sketch.count(hash_of(number + 1)));
        assert!(sketch.estimate(hash_of(0)) < 15);
    }
}
