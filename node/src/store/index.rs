//! Finds the entries of one slot.
//!
//! An ordered open-addressing table (Amble, Knuth: "Ordered hash tables", 1974) of pointers that carry 20 bits of their
//! key's hash, the tag. A tag's home is proportional to it, so that the buckets are in the order of tags: a
//! search ends at the first greater tag, a larger table is filled front to back without a look at any entry, and
//! the table need not double. Together that is some 10 bytes an entry, and mostly one cache line a search.
//!
//! Invariants: tags never fall from bucket to bucket; no entry is before its home, and no empty bucket between its
//! home and it. Tables of millions of entries have several for each tag, whose keys are then compared.

use super::prefetch::prefetch;
use super::stored::{Stored, Tag};

/// Where an entry is, until the next insertion or removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

#[derive(Debug, Default)]
pub(super) struct Index {
    buckets: Box<[Option<Stored>]>,
    len: usize,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that it has allocated.
    #[inline]
    pub(super) fn allocated_bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Where the search for a tag begins. Behind the last home are buckets for what it has no room for.
    #[inline]
    fn home(&self, tag: Tag) -> usize {
        tag.scaled(self.buckets.len() - self.buckets.len() / 8)
    }

    /// The entries with that tag.
    #[inline]
    pub(super) fn with_tag(&self, tag: Tag) -> impl Iterator<Item = (Place, &Stored)> {
        let home = self.home(tag);
        self.buckets[home..]
            .iter()
            .map_while(Option::as_ref)
            .zip(home..)
            .skip_while(move |(stored, _)| stored.tag() < tag)
            .take_while(move |(stored, _)| stored.tag() == tag)
            .map(|(stored, bucket)| (Place(bucket), stored))
    }

    /// Where the entry with that tag and key is.
    #[inline]
    pub(super) fn find(&self, tag: Tag, key: &[u8]) -> Option<Place> {
        let home = self.home(tag);
        for (bucket, stored) in self.buckets.iter().enumerate().skip(home) {
            let stored = stored.as_ref()?;
            let found = stored.tag();
            if found >= tag {
                if found > tag {
                    return None;
                }
                if stored.key() == key {
                    return Some(Place(bucket));
                }
            }
        }
        None
    }

    #[inline]
    pub(super) fn get(&self, place: Place) -> Option<&Stored> {
        self.buckets.get(place.0)?.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Stored> {
        self.buckets.get_mut(place.0)?.as_mut()
    }

    /// Adds an entry whose key is not there.
    pub(super) fn insert(&mut self, tag: Tag, mut stored: Stored) {
        stored.set_tag(tag);
        // Fuller than 13/16 a search would take more than three steps.
        if self.len * 16 >= self.buckets.len() * 13 {
            self.resize(grown(self.buckets.len()));
        }
        loop {
            let behind = self.buckets[self.home(tag)..]
                .iter()
                .take_while(|bucket| bucket.as_ref().is_some_and(|other| other.tag() <= tag))
                .count();
            let bucket = self.home(tag) + behind;
            let empty = self.buckets[bucket..].iter().position(Option::is_none);
            if let Some(moved) = empty {
                self.buckets[bucket..=bucket + moved].rotate_right(1);
                self.buckets[bucket] = Some(stored);
                self.len += 1;
                return;
            }
            self.resize(grown(self.buckets.len()));
        }
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<Stored> {
        let removed = self.buckets.get_mut(place.0)?.take()?;
        self.len -= 1;
        // Those behind it that are not at home move up.
        let begin = place.0 + 1;
        let moved = (begin..self.buckets.len())
            .take_while(|&bucket| {
                self.buckets[bucket]
                    .as_ref()
                    .is_some_and(|other| self.home(other.tag()) < bucket)
            })
            .count();
        self.buckets[place.0..begin + moved].rotate_left(1);
        self.shrink();
        Some(removed)
    }

    /// Removes the entries for which `keep` does not hold.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Stored) -> bool) {
        let before = self.len;
        for bucket in &mut self.buckets {
            if bucket.as_ref().is_some_and(|stored| !keep(stored)) {
                *bucket = None;
                self.len -= 1;
            }
        }
        if self.len < before {
            // Gaps between an entry and its home are closed.
            self.resize(self.buckets.len());
            self.shrink();
        }
    }

    /// The entries, in the order of their tags.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.buckets.iter().flatten()
    }

    /// The entries from a bucket that `random` gives, and on around.
    pub(super) fn sample(&self, random: u64) -> impl Iterator<Item = &Stored> {
        // The remainder is below a length, so that it is one.
        let begin = usize::try_from(random % self.buckets.len().max(1) as u64).unwrap_or(0);
        let (front, back) = self.buckets.split_at(begin);
        back.iter().chain(front).flatten()
    }

    /// Has the processor fetch the bucket where a search for the tag begins.
    #[inline]
    pub(super) fn prefetch(&self, tag: Tag) {
        if let Some(bucket) = self.buckets.get(self.home(tag)) {
            prefetch(bucket);
        }
    }

    /// Has the processor fetch the entry that a search for the tag finds first.
    #[inline]
    pub(super) fn prefetch_entry(&self, tag: Tag) {
        if let Some((_, stored)) = self.with_tag(tag).next() {
            stored.prefetch();
        }
    }

    /// Gives back what is too much, at a length far from where it would grow again.
    fn shrink(&mut self) {
        const BUCKETS_MIN: usize = 32;
        if self.len == 0 {
            *self = Self::default();
        } else if self.buckets.len() > BUCKETS_MIN && self.len * 4 < self.buckets.len() {
            self.resize(grown(self.len));
        }
    }

    /// Moves all entries to a table of at least so many buckets.
    fn resize(&mut self, buckets: usize) {
        let mut wanted = buckets;
        while !self.try_resize(wanted) {
            wanted = grown(wanted);
        }
    }

    /// `false` when some would have no room behind their home.
    fn try_resize(&mut self, buckets: usize) -> bool {
        let mut larger = Self {
            buckets: std::iter::repeat_with(|| None).take(buckets).collect(),
            len: self.len,
        };
        let mut next = 0;
        for stored in self.iter() {
            next = larger.home(stored.tag()).max(next) + 1;
        }
        if next > buckets {
            return false;
        }
        let mut next = 0;
        for stored in std::mem::take(&mut self.buckets).into_iter().flatten() {
            let bucket = larger.home(stored.tag()).max(next);
            larger.buckets[bucket] = Some(stored);
            next = bucket + 1;
        }
        *self = larger;
        true
    }
}

/// The next size: a fourth more, and odd, since the allocator's chunks are of 16 bytes of which 8 are its own.
fn grown(buckets: usize) -> usize {
    (buckets + buckets / 4 + 4) | 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::value::{AccessStamp, Text};

    fn entry(key: u16) -> Stored {
        Stored::string(
            &key.to_le_bytes(),
            Text::Int(key.into()),
            None,
            AccessStamp::at(0),
        )
    }

    /// Few tags, so that many entries share one.
    fn tag_of(key: u16, spread: u16) -> Tag {
        Tag::of(u64::from(key % spread).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn assert_sound(index: &Index) {
        let mut last = None;
        for (bucket, stored) in index.buckets.iter().enumerate() {
            let Some(stored) = stored else { continue };
            let home = index.home(stored.tag());
            assert!(home <= bucket, "before its home");
            assert!(
                index.buckets[home..bucket].iter().all(Option::is_some),
                "behind a gap"
            );
            assert!(last <= Some(stored.tag()), "out of order");
            last = Some(stored.tag());
        }
        assert_eq!(index.iter().count(), index.len());
    }

    proptest! {
        #[test]
        fn it_is_a_map(
            spread in prop_oneof![Just(1u16), Just(7), Just(60_000)],
            steps in proptest::collection::vec((0..400u16, 0..10u8), 1..600),
        ) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            for (number, (key, kind)) in (0i64..).zip(steps) {
                let tag = tag_of(key, spread);
                let found = index.find(tag, &key.to_le_bytes());
                prop_assert_eq!(found.is_some(), model.contains_key(&key));
                match (kind, found) {
                    (0, _) => {
                        index.retain(|stored| !stored.key()[0].is_multiple_of(3));
                        model.retain(|key: &u16, _: &mut i64| !key.to_le_bytes()[0].is_multiple_of(3));
                    }
                    (1..=3, Some(place)) => {
                        prop_assert!(index.remove(place).is_some());
                        model.remove(&key);
                    }
                    (_, Some(place)) => {
                        let stored = index.get_mut(place).unwrap();
                        stored.set_string(Text::Int(number), None, AccessStamp::at(0));
                        model.insert(key, number);
                    }
                    (_, None) => {
                        index.insert(tag, entry(key));
                        model.insert(key, key.into());
                    }
                }
                assert_sound(&index);
            }
            for (key, number) in &model {
                let place = index.find(tag_of(*key, spread), &key.to_le_bytes()).unwrap();
                let found = index.get(place).unwrap().value().to_bytes().into_owned();
                prop_assert_eq!(found, number.to_string().into_bytes());
                prop_assert!(index.with_tag(tag_of(*key, spread)).any(|(other, _)| other == place));
            }
            prop_assert_eq!(index.sample(u64::MAX).count(), model.len());
        }
    }

    #[test]
    fn it_gives_memory_back() {
        let mut index = Index::default();
        for key in 0..1000 {
            index.insert(tag_of(key, u16::MAX), entry(key));
        }
        let full = index.allocated_bytes();
        assert!(full < 1000 * 12, "{full} bytes");
        for key in 0..1000 {
            let place = index.find(tag_of(key, u16::MAX), &key.to_le_bytes()).unwrap();
            index.remove(place);
            assert!(
                index.allocated_bytes() <= 8 * (40 + 4 * index.len() + index.len() / 4),
                "{key}"
            );
        }
        assert_eq!(index.allocated_bytes(), 0);
    }
}
