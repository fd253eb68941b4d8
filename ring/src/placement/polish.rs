//! Arcs change places while that makes everybody's copies more even, as far as it costs no moves: in a first
//! ring, where nothing is owned yet, and among the arcs that were orphaned.

use super::layout::{Arc, NOBODY};
use super::rebalance::{GAIN_MIN, Rebalance};

/// How many exchanges are tried at most. Large rings are even without them.
const TRIES_MAX: usize = 24_000;
/// An exchange leaves a member this part of the arcs that it should have at least, or copies would concentrate.
const ARCS_KEPT: f64 = 0.75;
/// How many exchanges of adopted arcs are tried at most.
const TRIES_ADOPTED_MAX: usize = 1_000;
/// How many partners are tried for each arc in one pass.
const PARTNERS: usize = 12;

impl Rebalance<'_> {
    /// Exchanges arcs of different owners.
    pub(super) fn polish(&mut self) {
        let arcs = self.layout.arcs().len();
        for pass in 0..TRIES_MAX / (arcs * PARTNERS) {
            let starts = self.layout.starts();
            let mut better = false;
            for (index, &slot) in starts.iter().enumerate() {
                for partner in 0..PARTNERS {
                    let distance = 2 + (partner * starts.len() + pass * 5) / PARTNERS;
                    better |= self.exchange(slot, starts[(index + distance) % starts.len()]);
                }
            }
            if !better {
                break;
            }
        }
    }

    /// Exchanges arcs that had no owner before. Whether that changed anything.
    pub(super) fn exchange_adopted(&mut self, before: &[u16]) -> bool {
        let mut adopted = self.layout.starts();
        adopted.retain(|&slot| self.is_adopted(slot, before));
        // A first ring is polished instead.
        if adopted.len() == self.layout.arcs().len() {
            return false;
        }
        let mut better = false;
        let mut tries = TRIES_ADOPTED_MAX;
        for (index, &slot) in adopted.iter().enumerate() {
            for &other in &adopted[index + 1..] {
                if tries == 0 {
                    return better;
                }
                tries -= 1;
                // An exchange may have joined an arc to one that was owned before.
                if self.is_adopted(slot, before) && self.is_adopted(other, before) {
                    better |= self.exchange(slot, other);
                }
            }
        }
        better
    }

    /// No slot of the arc that begins here had an owner.
    fn is_adopted(&self, slot: usize, before: &[u16]) -> bool {
        let len = self.layout.at(self.layout.find(slot).0).len as usize;
        (slot..slot + len).all(|slot| before[slot % before.len()] == NOBODY)
    }

    /// Exchanges the owners of the arcs that begin at two slots, if that is better. Whether it was.
    fn exchange(&mut self, slot: usize, other_slot: usize) -> bool {
        let (index, offset) = self.layout.find(slot);
        let (other, other_offset) = self.layout.find(other_slot);
        let (arc, other_arc) = (self.layout.at(index), self.layout.at(other));
        // An arc may have become part of another meanwhile.
        if offset + other_offset > 0 || arc.owner == other_arc.owner || arc.owner == NOBODY {
            return false;
        }
        let saved = self.layout.clone();
        let cost = self.replace(
            slot,
            Arc {
                owner: other_arc.owner,
                ..arc
            },
        ) + self.replace(
            other_slot,
            Arc {
                owner: arc.owner,
                ..other_arc
            },
        );
        let within = |member: u16| {
            let share = self.share(member);
            let arcs = f64::from(self.layout.load(member).arcs);
            (share.kept..=share.full).contains(&self.owned(member)) && arcs >= share.arcs * ARCS_KEPT
        };
        let better = cost < -GAIN_MIN && within(arc.owner) && within(other_arc.owner);
        if !better {
            self.layout = saved;
        }
        better
    }

    /// Gives the slots of an arc, which may have become part of a longer one, to another member.
    fn replace(&mut self, slot: usize, piece: Arc) -> f64 {
        let (index, offset) = self.layout.find(slot);
        let arc = self.layout.at(index);
        let head = Arc { len: offset, ..arc };
        let tail = Arc {
            len: arc.len - offset - piece.len,
            ..arc
        };
        let pieces: Vec<Arc> = [head, piece, tail]
            .into_iter()
            .filter(|arc| arc.len > 0)
            .collect();
        let cost = self.cost_of(index, &pieces);
        self.apply(index, &pieces);
        cost
    }
}
