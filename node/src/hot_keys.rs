//! Which keys are used most: a sample of the commands, in a sketch of a fixed size.
//!
//! The sketch is Space-Saving (Metwally, Agrawal, El Abbadi: "Efficient computation of frequent and top-k elements in data
//! streams", 2005): a key that has no counter takes over the smallest one, with its count as the error. Of what takes more
//! than one part in [`COUNTERS`] of the uses, nothing is missed. Counting begins anew every [`WINDOW_MS`]; what is told is of
//! the last whole window.

use annulus_ring::Slot;
use parking_lot::Mutex;

/// One use in so many is looked at, each with the same chance.
pub const SAMPLE: u64 = 64;

const WINDOW_MS: u64 = 1000;
const COUNTERS: usize = 64;
/// Longer keys are not hot, or those who use them have other worries.
const KEY_BYTES_MAX: usize = 1024;
/// Fewer looks at a key in a window say nothing.
const SEEN_MIN: u64 = 8;

/// A key that is used often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotKey {
    /// The key.
    pub key: Box<[u8]>,
    /// Its slot.
    pub slot: Slot,
    /// Estimated.
    pub reads_per_second: u64,
    /// Estimated.
    pub writes_per_second: u64,
    /// Of a thousand uses of any key.
    pub permille: u64,
}

/// The hot keys of one keyspace on one node.
#[derive(Debug, Default)]
pub struct HotKeys(Mutex<Windows>);

#[derive(Debug, Default)]
struct Windows {
    began_ms: u64,
    counters: Vec<Counter>,
    seen: u64,
    /// Of the last whole window, the hottest first.
    last: Vec<HotKey>,
}

#[derive(Debug)]
struct Counter {
    key: Box<[u8]>,
    slot: Slot,
    reads: u64,
    writes: u64,
    /// So many of these may have been other keys'.
    error: u64,
}

impl Counter {
    fn uses(&self) -> u64 {
        self.reads + self.writes
    }
}

/// Whether the use that has this number is one of those that are looked at.
#[inline]
pub fn is_sampled(number: u64) -> bool {
    // Patterns in what clients send must not meet those of the numbers. (Multiplier: L'Ecuyer 1999.)
    number.wrapping_mul(0xd134_2543_de82_ef95) >> (64 - SAMPLE.ilog2()) == 0
}

impl HotKeys {
    /// A use that was looked at.
    pub fn note(&self, key: &[u8], is_write: bool, now_ms: u64) {
        if key.len() <= KEY_BYTES_MAX {
            self.0.lock().note(key, is_write, now_ms);
        }
    }

    /// The slot is served elsewhere from now on: what was counted of its keys is over.
    pub fn leave(&self, slot: Slot) {
        let mut windows = self.0.lock();
        windows.counters.retain(|counter| counter.slot != slot);
        windows.last.retain(|hot| hot.slot != slot);
    }

    /// The keys that were used most in the last whole window, the hottest first.
    pub fn hottest(&self, now_ms: u64) -> Vec<HotKey> {
        let mut windows = self.0.lock();
        windows.turn(now_ms);
        windows.last.clone()
    }
}

impl Windows {
    fn note(&mut self, key: &[u8], is_write: bool, now_ms: u64) {
        self.turn(now_ms);
        self.seen += 1;
        let known = self.counters.iter().position(|counter| *counter.key == *key);
        let place = known.unwrap_or_else(|| self.make_room(key));
        let Some(counter) = self.counters.get_mut(place) else {
            return;
        };
        if is_write {
            counter.writes += 1;
        } else {
            counter.reads += 1;
        }
    }

    /// A counter for a key that has none.
    fn make_room(&mut self, key: &[u8]) -> usize {
        let slot = Slot::for_key(key);
        if self.counters.len() < COUNTERS {
            self.counters.push(Counter {
                key: key.into(),
                slot,
                reads: 0,
                writes: 0,
                error: 0,
            });
            return self.counters.len() - 1;
        }
        let by_uses = self.counters.iter_mut().enumerate();
        let smallest = by_uses.min_by_key(|(_, counter)| counter.uses());
        let Some((place, counter)) = smallest else {
            return 0;
        };
        (counter.error, counter.key, counter.slot) = (counter.uses(), key.into(), slot);
        place
    }

    /// Begins the next window if this one is over.
    fn turn(&mut self, now_ms: u64) {
        // A clock that was set back begins anew, too.
        let age_ms = now_ms.abs_diff(self.began_ms);
        if age_ms < WINDOW_MS {
            return;
        }
        let counters = std::mem::take(&mut self.counters);
        // What was counted long ago is nobody's last second.
        self.last = if age_ms < 2 * WINDOW_MS {
            hottest(counters, self.seen, age_ms)
        } else {
            Vec::new()
        };
        (self.began_ms, self.seen) = (now_ms, 0);
    }
}

fn hottest(mut counters: Vec<Counter>, seen: u64, within_ms: u64) -> Vec<HotKey> {
    counters.retain(|counter| counter.uses() - counter.error >= SEEN_MIN);
    counters.sort_by_key(|counter| std::cmp::Reverse(counter.uses()));
    let per_second = |count: u64| count * SAMPLE * 1000 / within_ms.max(1);
    let hot = counters.into_iter().map(|counter| HotKey {
        reads_per_second: per_second(counter.reads),
        writes_per_second: per_second(counter.writes),
        permille: counter.uses() * 1000 / seen.max(1),
        slot: counter.slot,
        key: counter.key,
    });
    hot.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_one_in_so_many_is_looked_at_whatever_the_pattern() {
        for step in [1, 2, 3, 64, 128] {
            let looked_at = (0..64_000).filter(|number| is_sampled(number * step));
            let looked_at = looked_at.count();
            assert!((900..1100).contains(&looked_at), "{step}: {looked_at}");
        }
    }

    #[test]
    fn what_is_used_often_is_found_among_many() {
        let hot = HotKeys::default();
        for number in 0..20_000_u64 {
            let now_ms = 5000 + number / 20;
            let key = match number % 10 {
                0..=4 => "half".to_owned(),
                5 => "tenth".to_owned(),
                _ => format!("other:{number}"),
            };
            hot.note(key.as_bytes(), number % 10 == 5, now_ms);
        }
        assert_eq!(hot.hottest(5999), [], "the window isn't over");
        let found = hot.hottest(6000);
        assert_eq!(*found[0].key, *b"half");
        assert_eq!(found[0].permille, 500);
        assert_eq!(found[0].reads_per_second, 10_000 * SAMPLE);
        assert_eq!(*found[1].key, *b"tenth");
        assert_eq!(
            (found[1].reads_per_second, found[1].writes_per_second),
            (0, 2000 * SAMPLE)
        );
        assert!(found[2..].iter().all(|other| other.permille < 50), "{found:?}");
        assert_eq!(hot.hottest(6999).len(), found.len());
        assert_eq!(hot.hottest(8000), [], "nothing was used since");
    }

    #[test]
    fn what_was_counted_of_a_slot_goes_with_it() {
        let (hot, keys) = (HotKeys::default(), [&b"gone"[..], b"here"]);
        let use_all = |now_ms| {
            for key in keys.into_iter().cycle().take(40) {
                hot.note(key, false, now_ms);
            }
        };
        let found = |now_ms| {
            let hottest = hot.hottest(now_ms).into_iter();
            hottest.map(|hot| hot.key).collect::<Vec<_>>()
        };
        use_all(5000);
        assert_eq!(found(6000).len(), 2);
        use_all(6000);
        hot.leave(Slot::for_key(b"gone"));
        assert_eq!(found(6999), [Box::from(&b"here"[..])], "of the last window");
        assert_eq!(
            found(7000),
            [Box::from(&b"here"[..])],
            "of the one that was begun"
        );
        // Who reads a copy of it from now on uses it here.
        use_all(7000);
        assert_eq!(found(8000).len(), 2);
    }

    #[test]
    fn a_few_looks_are_no_heat() {
        let hot = HotKeys::default();
        for _ in 0..7 {
            hot.note(b"a", false, 1000);
        }
        hot.note(&[b'x'; 2000], false, 1000);
        assert_eq!(hot.hottest(2000), []);
    }
}
