//! Which keys an origin has: a Bloom filter (Bloom, 1970), so that it isn't asked for others.
//!
//! A key that isn't in the filter is not at the origin, unless it came there after the list of keys was read. Whatever a
//! client writes is added, so that an application that creates something and then sets or deletes its key is heard at once.

use fastbloom::BloomFilter;
use foldhash::quality::RandomState;
use parking_lot::Mutex;
use std::hash::BuildHasher;

type Filter = BloomFilter<RandomState>;

/// The filter of a group, once there is one.
#[derive(Default)]
pub struct KeyFilter(Mutex<State>);

#[derive(Default)]
struct State {
    filter: Option<Filter>,
    figures: Figures,
    /// Which list is wanted: those that were begun before are of no use.
    generation: u64,
    /// Keys that were added while a list is read.
    added: Option<Vec<Box<[u8]>>>,
}

/// What there is to say about a filter.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Keys that it was made of.
    pub keys: u64,
    /// What it takes.
    pub bytes: u64,
    /// When the list that it was made of was read.
    pub read_at_ms: u64,
}

/// More keys than that aren't noted while a list is read: the filter is then made anew from the next one only.
const ADDED_MAX: usize = 10_000;

/// Longer keys have no URL.
const KEY_BYTES_MAX: usize = 2048;

impl KeyFilter {
    /// Whether there is a filter, and it says that the origin doesn't have the key.
    pub fn excludes(&self, key: &[u8]) -> bool {
        let state = self.0.lock();
        state.filter.as_ref().is_some_and(|filter| !filter.contains(key))
    }

    /// Whether there is a filter.
    pub fn is_there(&self) -> bool {
        self.0.lock().filter.is_some()
    }

    /// The origin may have that key from now on.
    pub fn add(&self, key: &[u8]) {
        if key.len() > KEY_BYTES_MAX {
            return;
        }
        let mut state = self.0.lock();
        if let Some(filter) = &mut state.filter {
            filter.insert(key);
        }
        if let Some(added) = &mut state.added
            && added.len() < ADDED_MAX
        {
            added.push(key.into());
        }
    }

    /// A list begins to be read: keys that are added from now on may not be in it. Returns what to give with it.
    pub fn begin(&self) -> u64 {
        let mut state = self.0.lock();
        state.added = Some(Vec::new());
        state.generation
    }

    /// The list of that generation was read. `false` when it isn't wanted any more, or too much was written meanwhile for the
    /// filter to be right. Takes as long as making the filter does.
    pub fn replace(
        &self,
        generation: u64,
        read: &ReadKeys,
        false_positives_per_million: u32,
        now_ms: u64,
    ) -> bool {
        let mut filter = read.filter(false_positives_per_million);
        let mut state = self.0.lock();
        if state.generation != generation {
            return false;
        }
        let added = state.added.take().unwrap_or_default();
        if added.len() >= ADDED_MAX {
            return false;
        }
        for key in added {
            filter.insert(&*key);
        }
        state.figures = Figures {
            keys: read.len() as u64,
            bytes: filter.num_bits() as u64 / 8,
            read_at_ms: now_ms,
        };
        state.filter = Some(filter);
        true
    }

    /// There is to be none any more.
    pub fn clear(&self) {
        let mut state = self.0.lock();
        *state = State {
            generation: state.generation + 1,
            ..State::default()
        };
    }

    /// What there is to say about it.
    pub fn figures(&self) -> Option<Figures> {
        let state = self.0.lock();
        state.filter.is_some().then_some(state.figures)
    }
}

/// The keys of a list, as it is read.
#[derive(Default)]
pub struct ReadKeys {
    hasher: RandomState,
    hashes: Vec<u64>,
}

impl ReadKeys {
    /// One more key.
    pub fn push(&mut self, key: &[u8]) {
        self.hashes.push(self.hasher.hash_one(key));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// What they take.
    pub fn bytes(&self) -> usize {
        self.hashes.capacity() * size_of::<u64>()
    }

    fn filter(&self, false_positives_per_million: u32) -> Filter {
        let rate = f64::from(false_positives_per_million.clamp(1, 500_000)) / 1e6;
        let mut filter = BloomFilter::with_false_pos(rate)
            .hasher(self.hasher.clone())
            .expected_items(self.len().max(1));
        for hash in &self.hashes {
            filter.insert_hash(*hash);
        }
        filter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_while_a_list_is_read_is_in_it() {
        let filter = KeyFilter::default();
        assert!(!filter.excludes(b"a"), "there is none yet");
        let generation = filter.begin();
        filter.add(b"new");
        let mut read = ReadKeys::default();
        read.push(b"a");
        assert!(filter.replace(generation, &read, 1000, 7));
        assert!(!filter.excludes(b"a") && !filter.excludes(b"new"));
        assert!(filter.excludes(b"b"));
        filter.add(b"b");
        assert!(!filter.excludes(b"b"));
        assert_eq!(filter.figures().unwrap().keys, 1);
        filter.clear();
        assert!(!filter.excludes(b"c"));
        let is_taken = filter.replace(generation, &read, 1000, 7);
        assert!(!is_taken && !filter.excludes(b"c"), "a list from before");
    }

    #[test]
    fn false_positives_and_memory_are_as_the_theory_says() {
        let mut read = ReadKeys::default();
        for key in 0..100_000 {
            read.push(format!("user:{key}").as_bytes());
        }
        let filter = read.filter(10_000);
        // -n ln p / (ln 2)^2 bits.
        let bits = 100_000.0 * 100.0_f64.ln() / std::f64::consts::LN_2.powi(2);
        let ratio = f64::from(u32::try_from(filter.num_bits()).unwrap()) / bits;
        assert!((0.95..1.25).contains(&ratio), "{ratio}");
        let wrong = (0..100_000).filter(|key| filter.contains(format!("no:{key}").as_bytes()));
        let wrong = wrong.count();
        assert!(wrong < 1300, "{wrong} of 100,000, with 1000 expected");
    }
}
