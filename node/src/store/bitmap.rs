//! One bit a slot, set and cleared under the slot's lock, read without it.

use std::sync::atomic::{AtomicU64, Ordering};

use annulus_ring::{SLOT_COUNT, Slot};

const WORDS: usize = SLOT_COUNT as usize / 64;

/// A set of slots that can be read while it changes. What it says was true a moment ago: whoever needs to be
/// sure looks again under the slot's lock.
pub struct SlotBitmap(Box<[AtomicU64]>);

impl SlotBitmap {
    pub(crate) fn new() -> Self {
        Self((0..WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn set(&self, slot: Slot, member: bool) {
        let bit = 1 << (slot.index() % 64);
        let word = &self.0[slot.index() / 64];
        if member {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// Whether the slot is a member.
    #[inline]
    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.0[slot.index() / 64].load(Ordering::Relaxed) >> (slot.index() % 64) & 1 == 1
    }

    /// The first member at or after `from`; `None` when there is none up to the last slot.
    pub(crate) fn next_from(&self, from: Slot) -> Option<Slot> {
        let first = from.index() / 64;
        let mut mask = u64::MAX << (from.index() % 64);
        for (index, word) in self.0.iter().enumerate().skip(first) {
            let bits = word.load(Ordering::Relaxed) & mask;
            if bits != 0 {
                let number = index * 64 + bits.trailing_zeros() as usize;
                return u16::try_from(number)
                    .ok()
                    .and_then(|number| Slot::new(number).ok());
            }
            mask = u64::MAX;
        }
        None
    }

    /// The first member at or after `from`, starting again at slot 0 when there is none.
    pub(crate) fn next_around(&self, from: Slot) -> Option<Slot> {
        self.next_from(from).or_else(|| self.next_from(Slot::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_member() {
        let slot = |number| Slot::new(number).unwrap();
        let bitmap = SlotBitmap::new();
        assert_eq!(bitmap.next_around(slot(5)), None);
        for number in [3, 64, 16_383] {
            bitmap.set(slot(number), true);
        }
        let table = [
            (0, Some(3)),
            (3, Some(3)),
            (4, Some(64)),
            (65, Some(16_383)),
            (16_383, Some(16_383)),
        ];
        for (from, expected) in table {
            assert_eq!(bitmap.next_from(slot(from)), expected.map(slot), "{from}");
        }
        bitmap.set(slot(16_383), false);
        assert_eq!(bitmap.next_from(slot(65)), None);
        assert_eq!(bitmap.next_around(slot(65)), Some(slot(3)));
    }
}
