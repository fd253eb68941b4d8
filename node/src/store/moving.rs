//! Slots that change hands at this moment: for some milliseconds nobody writes them, or both nodes would send a client to
//! the other. Commands wait for that, instead of being refused: clients give up after a few refusals.

use std::sync::atomic::{AtomicU32, Ordering};

use annulus_ring::Slot;

use super::bitmap::SlotBitmap;

/// What of the slots is on its way.
pub struct Moving {
    /// Slots that are frozen here, and slots that arrive.
    count: AtomicU32,
    arriving: SlotBitmap,
}

/// A slot is about to be served here: for as long as this is kept.
pub struct Arriving<'a> {
    moving: &'a Moving,
    slot: Slot,
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.moving.arriving.set(self.slot, false);
        self.moving.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Moving {
    pub(super) fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            arriving: SlotBitmap::new(),
        }
    }

    /// Whether any slot is on its way. One load.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Whether its source has been asked to give the slot up, so that it may have done so.
    pub fn is_arriving(&self, slot: Slot) -> bool {
        self.arriving.contains(slot)
    }

    /// Its source is asked to give the slot up.
    pub fn arrive(&self, slot: Slot) -> Arriving<'_> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.arriving.set(slot, true);
        Arriving { moving: self, slot }
    }

    /// A slot that was or wasn't frozen now is or isn't.
    pub fn note_frozen(&self, was_frozen: bool, is_frozen: bool) {
        match (was_frozen, is_frozen) {
            (false, true) => self.count.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.count.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_while_any_slot_is_on_its_way() {
        let moving = Moving::new();
        assert!(!moving.is_on());
        let arriving = moving.arrive(Slot::ZERO);
        moving.note_frozen(false, true);
        moving.note_frozen(true, true);
        assert!(moving.is_on() && moving.is_arriving(Slot::ZERO));
        drop(arriving);
        assert!(moving.is_on() && !moving.is_arriving(Slot::ZERO));
        moving.note_frozen(true, false);
        moving.note_frozen(false, false);
        assert!(!moving.is_on());
    }
}
