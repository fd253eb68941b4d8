//! What a group remembers of keys beside their entries: that the origin doesn't have them, or can't tell, or that a client has
//! written them.
//!
//! Keys are remembered by a hash of 64 bits, with a seed of the process: of a million keys that are remembered, one of about
//! 10^13 others is mistaken for one of them, for as long as that is remembered. There are as many as the group has room for;
//! the one that was looked at the longest ago makes room.

use std::num::NonZeroUsize;
use std::sync::Arc;

use foldhash::fast::RandomState;
use lru::LruCache;
use std::hash::BuildHasher;

use crate::routing::Tenure;

/// What is known of a key beside its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The origin says that there is none.
    Absent,
    /// It couldn't be loaded.
    Failed(Arc<str>),
    /// There may be one: a client has written it, so it is no older than that.
    Written,
}

/// The keys without a value.
pub struct Remembered {
    seed: RandomState,
    keys: LruCache<u64, (Why, u64), RandomState>,
}

impl Remembered {
    /// None yet, and room for so many.
    pub fn new(keys_max: NonZeroUsize) -> Self {
        // The table grows with what is in it.
        let mut keys = LruCache::unbounded_with_hasher(RandomState::default());
        keys.resize(keys_max);
        Self {
            seed: RandomState::default(),
            keys,
        }
    }

    /// What is remembered of a key at that time, by a clock that is never set back.
    pub fn of(&mut self, (tenure, key): (Tenure, &[u8]), now_ms: u64) -> Option<&Why> {
        if self.keys.is_empty() {
            return None;
        }
        let hash = self.hash(tenure, key);
        if self.keys.peek(&hash)?.1 <= now_ms {
            self.keys.pop(&hash);
            return None;
        }
        self.keys.get(&hash).map(|(why, _)| why)
    }

    /// Has room for so many from now on.
    pub fn resize(&mut self, keys_max: NonZeroUsize) {
        self.keys.resize(keys_max);
    }

    /// Remembers that until then.
    pub fn note(&mut self, (tenure, key): (Tenure, &[u8]), why: Why, until_ms: u64) {
        self.keys.put(self.hash(tenure, key), (why, until_ms));
    }

    /// A key may have a value again.
    pub fn forget(&mut self, (tenure, key): (Tenure, &[u8])) {
        if !self.keys.is_empty() {
            self.keys.pop(&self.hash(tenure, key));
        }
    }

    /// Those may have of which that doesn't hold.
    pub fn retain(&mut self, holds: impl Fn(&Why) -> bool) {
        let gone = self.keys.iter().filter(|(_, (why, _))| !holds(why));
        let gone: Vec<u64> = gone.map(|(hash, _)| *hash).collect();
        for hash in gone {
            self.keys.pop(&hash);
        }
    }

    /// What was noted in a former tenure of the key's slot isn't found any more, and makes room in time.
    fn hash(&self, tenure: Tenure, key: &[u8]) -> u64 {
        self.seed.hash_one((tenure, key))
    }

    /// All may have.
    pub fn forget_all(&mut self) {
        self.keys.clear();
    }

    /// How many there are, those included whose time is over and that nobody has asked for since.
    pub fn len(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tenure = Tenure(7);

    #[test]
    fn it_remembers_for_a_while_and_so_many() {
        let mut remembered = Remembered::new(NonZeroUsize::new(2).unwrap());
        remembered.note((NOW, b"a"), Why::Absent, 100);
        remembered.note((NOW, b"b"), Why::Failed("no".into()), 50);
        assert_eq!(remembered.of((NOW, b"a"), 99), Some(&Why::Absent));
        assert_eq!(remembered.of((NOW, b"b"), 49), Some(&Why::Failed("no".into())));
        assert_eq!(remembered.of((NOW, b"b"), 50), None);
        assert_eq!(remembered.len(), 1);
        remembered.note((NOW, b"c"), Why::Absent, 100);
        assert_eq!(remembered.of((NOW, b"a"), 60), Some(&Why::Absent));
        remembered.note((NOW, b"d"), Why::Absent, 100);
        assert_eq!(
            remembered.of((NOW, b"c"), 60),
            None,
            "the one looked at the longest ago"
        );
        remembered.forget((NOW, b"a"));
        assert_eq!(remembered.of((NOW, b"a"), 60), None);
        assert_eq!(remembered.of((NOW, b"d"), 60), Some(&Why::Absent));
        assert_eq!(remembered.of((Tenure(8), b"d"), 60), None, "somebody else had it");
        remembered.forget_all();
        assert_eq!(remembered.len(), 0);
    }
}
