//! The ring as a circle of arcs that can be changed, and what a change does to everybody's load.

use crate::SLOT_COUNT;

/// The owner of slots that have none yet.
pub(super) const NOBODY: u16 = u16::MAX;

/// A run of slots with one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arc {
    pub(super) owner: u16,
    pub(super) len: u32,
}

/// What a member has, or how that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Load {
    /// Slots.
    pub(super) owned: i32,
    /// Copies of slots, the owned ones included.
    pub(super) copies: i32,
    /// Arcs.
    pub(super) arcs: i32,
}

/// The circle. No two neighbours have the same owner, unless there is one arc only.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The slot at which the first arc begins.
    origin: usize,
    arcs: Vec<Arc>,
    loads: Vec<Load>,
    zones: Vec<u16>,
    /// How many copies there can be: the factor, or all members.
    copies_wanted: usize,
    /// How many copies can be in zones of their own.
    zones_wanted: usize,
}

impl Layout {
    /// The layout of an owner per slot, for members with these zones.
    pub(super) fn new(owners: &[u16], zones: &[u16], factor: u8) -> Self {
        let boundary =
            (0..owners.len()).find(|&slot| owners[slot] != owners[(slot + owners.len() - 1) % owners.len()]);
        let origin = boundary.unwrap_or(0);
        let mut arcs: Vec<Arc> = Vec::new();
        for offset in 0..owners.len() {
            let owner = owners[(origin + offset) % owners.len()];
            match arcs.last_mut() {
                Some(last) if last.owner == owner => last.len += 1,
                _ => arcs.push(Arc { owner, len: 1 }),
            }
        }
        let mut distinct = zones.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let copies_wanted = usize::from(factor.max(1)).min(zones.len());
        let zones_wanted = copies_wanted.min(distinct.len());
        let loads = vec![Load::default(); zones.len()];
        let mut layout = Self {
            origin,
            arcs,
            loads,
            zones: zones.to_vec(),
            copies_wanted,
            zones_wanted,
        };
        let mut copies = Vec::new();
        for index in 0..layout.arcs.len() {
            let arc = layout.arcs[index];
            if arc.owner == NOBODY {
                continue;
            }
            layout.copies_of(
                arc.owner,
                layout.arcs.len() - 1,
                |step| layout.at(index + step).owner,
                &mut copies,
            );
            layout.loads[usize::from(arc.owner)].owned += signed(arc.len);
            layout.loads[usize::from(arc.owner)].arcs += 1;
            for &copy in &copies {
                layout.loads[usize::from(copy)].copies += signed(arc.len);
            }
        }
        layout
    }

    pub(super) fn arcs(&self) -> &[Arc] {
        &self.arcs
    }

    /// The arc at an index that may go beyond the end.
    pub(super) fn at(&self, index: usize) -> Arc {
        let count = self.arcs.len();
        if index < count {
            self.arcs[index]
        } else {
            self.arcs[(index - count) % count]
        }
    }

    /// The arc before that one.
    pub(super) fn before(&self, index: usize) -> Arc {
        self.at(index + self.arcs.len() - 1)
    }

    pub(super) fn load(&self, member: u16) -> Load {
        self.loads[usize::from(member)]
    }

    /// The slots at which the arcs begin.
    pub(super) fn starts(&self) -> Vec<usize> {
        let mut slot = self.origin;
        let mut starts = Vec::with_capacity(self.arcs.len());
        for arc in &self.arcs {
            starts.push(slot % usize::from(SLOT_COUNT));
            slot += arc.len as usize;
        }
        starts
    }

    /// The owner of each slot.
    pub(super) fn owners(&self) -> Vec<u16> {
        let count = self.arcs.iter().map(|arc| arc.len as usize).sum();
        let mut owners = vec![NOBODY; count];
        let mut slot = self.origin;
        for arc in &self.arcs {
            for _ in 0..arc.len {
                owners[slot % count] = arc.owner;
                slot += 1;
            }
        }
        owners
    }

    /// The index of the arc that holds the slot, and how many slots of it come before.
    pub(super) fn find(&self, slot: usize) -> (usize, u32) {
        let count: usize = self.arcs.iter().map(|arc| arc.len as usize).sum();
        let mut offset = u32::try_from((slot + count - self.origin) % count).unwrap_or_default();
        for (index, arc) in self.arcs.iter().enumerate() {
            if offset < arc.len {
                return (index, offset);
            }
            offset -= arc.len;
        }
        (0, 0)
    }

    /// Who has copies of an arc of `owner`, the owner first: as `HashRing::replicas`. `next` gives the owners
    /// clockwise from step 1 to `steps`. Returns how many steps it had to look at.
    fn copies_of(
        &self,
        owner: u16,
        steps: usize,
        next: impl Fn(usize) -> u16,
        copies: &mut Vec<u16>,
    ) -> usize {
        copies.clear();
        copies.push(owner);
        let zone = |member: u16| self.zones[usize::from(member)];
        let mut looked = 0;
        for step in 1..=steps {
            if copies.len() >= self.zones_wanted {
                break;
            }
            looked = step;
            let member = next(step);
            if member != NOBODY && !copies.iter().any(|&copy| zone(copy) == zone(member)) {
                copies.push(member);
            }
        }
        for step in 1..=steps {
            if copies.len() >= self.copies_wanted {
                break;
            }
            looked = looked.max(step);
            let member = next(step);
            if member != NOBODY && !copies.contains(&member) {
                copies.push(member);
            }
        }
        looked
    }

    /// How everybody's load changes when the arc at `index` is replaced by `pieces` of the same total length.
    pub(super) fn change(&self, index: usize, pieces: &[Arc], scratch: &mut Scratch) {
        let count = self.arcs.len();
        let new_count = count - 1 + pieces.len();
        // Owners of the new circle, by steps from the first of the pieces.
        let new_at = |step: usize| {
            let step = if step < new_count { step } else { step - new_count };
            if step < pieces.len() {
                pieces[step]
            } else {
                self.at(index + 1 + step - pieces.len())
            }
        };
        let Scratch { deltas, copies } = scratch;
        deltas.clear();
        for back in 1..count {
            let here = index + count - back;
            let arc = self.at(here);
            if arc.owner == NOBODY {
                continue;
            }
            let looked = self.copies_of(arc.owner, count - 1, |step| self.at(here + step).owner, copies);
            if looked < back {
                break;
            }
            for &copy in copies.iter() {
                entry(deltas, copy).copies -= signed(arc.len);
            }
            self.copies_of(
                arc.owner,
                new_count - 1,
                |step| new_at(new_count - back + step).owner,
                copies,
            );
            for &copy in copies.iter() {
                entry(deltas, copy).copies += signed(arc.len);
            }
        }
        let old = self.arcs[index];
        if old.owner != NOBODY {
            entry(deltas, old.owner).owned -= signed(old.len);
            self.copies_of(old.owner, count - 1, |step| self.at(index + step).owner, copies);
            for &copy in copies.iter() {
                entry(deltas, copy).copies -= signed(old.len);
            }
        }
        for (piece, arc) in pieces.iter().enumerate().filter(|(_, arc)| arc.owner != NOBODY) {
            entry(deltas, arc.owner).owned += signed(arc.len);
            self.copies_of(
                arc.owner,
                new_count - 1,
                |step| new_at(piece + step).owner,
                copies,
            );
            for &copy in copies.iter() {
                entry(deltas, copy).copies += signed(arc.len);
            }
        }
        // An arc counts when it begins: when the one before has another owner.
        let mut begins = |previous: u16, owner: u16, sign: i32| {
            if owner != NOBODY && previous != owner {
                entry(deltas, owner).arcs += sign;
            }
        };
        if count == 1 {
            begins(NOBODY, old.owner, -1);
            let mut previous = pieces[pieces.len() - 1].owner;
            for piece in pieces {
                begins(previous, piece.owner, 1);
                previous = piece.owner;
            }
            return;
        }
        let (before, after) = (self.before(index).owner, self.at(index + 1).owner);
        begins(before, old.owner, -1);
        begins(old.owner, after, -1);
        let mut previous = before;
        for piece in pieces {
            begins(previous, piece.owner, 1);
            previous = piece.owner;
        }
        begins(previous, after, 1);
    }

    /// Makes that change.
    pub(super) fn apply(&mut self, index: usize, pieces: &[Arc], scratch: &mut Scratch) {
        debug_assert_eq!(
            self.arcs[index].len,
            pieces.iter().map(|piece| piece.len).sum::<u32>()
        );
        self.change(index, pieces, scratch);
        for &(member, delta) in &scratch.deltas {
            let load = &mut self.loads[usize::from(member)];
            load.owned += delta.owned;
            load.copies += delta.copies;
            load.arcs += delta.arcs;
        }
        self.arcs.splice(index..=index, pieces.iter().copied());
        self.merge(index.saturating_sub(1), index + pieces.len() + 1);
    }

    /// Makes one arc of neighbours with one owner, between two indices and across the origin.
    fn merge(&mut self, from: usize, to: usize) {
        let mut index = from;
        let mut end = to.min(self.arcs.len());
        while index + 1 < end {
            if self.arcs[index].owner == self.arcs[index + 1].owner {
                self.arcs[index].len += self.arcs[index + 1].len;
                self.arcs.remove(index + 1);
                end -= 1;
            } else {
                index += 1;
            }
        }
        let last = self.arcs.len() - 1;
        if last > 0 && self.arcs[0].owner == self.arcs[last].owner {
            let first = self.arcs.remove(0);
            self.origin = (self.origin + first.len as usize) % usize::from(SLOT_COUNT);
            self.arcs[last - 1].len += first.len;
        }
    }
}

/// Room to work in, and the result of [`Layout::change`].
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) deltas: Vec<(u16, Load)>,
    copies: Vec<u16>,
}

fn entry(deltas: &mut Vec<(u16, Load)>, member: u16) -> &mut Load {
    let index = deltas
        .iter()
        .position(|(id, _)| *id == member)
        .unwrap_or_else(|| {
            deltas.push((member, Load::default()));
            deltas.len() - 1
        });
    &mut deltas[index].1
}

fn signed(len: u32) -> i32 {
    i32::try_from(len).unwrap_or_default()
}
