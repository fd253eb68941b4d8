//! From the ring as it is to one in which everybody has a share, moving as little as possible.
//!
//! Two kinds of steps, each one piece of an arc at a time and each chosen, among the pieces that are allowed,
//! by what it does to everybody's load: orphaned slots are given away, and members in need are given pieces of
//! those who have most. Afterwards each piece that moved is taken up and put down once more, now that all
//! the others are known.

use super::layout::{Arc, Layout, Load, NOBODY, Scratch};
use super::shares::{ARCS_MAX, Share, whole};

/// How many members are looked at for one piece besides its neighbours: those that are furthest from their
/// share.
const CANDIDATES: usize = 10;
/// How often every moved piece is placed anew at most: this many divided by the number of members, since the
/// fewer there are, the more one piece matters and the less it takes.
const ROUNDS: usize = 36;
/// And never more often than this.
const ROUNDS_MAX: usize = 6;
/// A piece is placed anew only for at least this much less cost.
pub(super) const GAIN_MIN: f64 = 1e-5;

/// What counts, as factors of squared relative deviations.
const COST_COPIES: f64 = 4.0;
const COST_EXCESS: f64 = 200.0;
const COPIES_EXCESS: f64 = 0.06;
const COST_OWNED: f64 = 1.0;
const COST_ARCS: f64 = 0.05;

pub(super) struct Rebalance<'a> {
    shares: &'a [Share],
    pub(super) layout: Layout,
    scratch: Scratch,
}

/// A change that could be made: replace the arc at `index` by `pieces`.
#[derive(Debug, Clone)]
struct Change {
    index: usize,
    pieces: Vec<Arc>,
    /// The change in everybody's cost, by slot moved.
    cost: f64,
}

/// Somebody who may give a piece away.
#[derive(Debug, Clone, Copy)]
struct Donor {
    member: u16,
    /// How long the piece may be.
    len_max: u32,
}

impl<'a> Rebalance<'a> {
    pub(super) fn new(layout: Layout, shares: &'a [Share]) -> Self {
        Self {
            shares,
            layout,
            scratch: Scratch::default(),
        }
    }

    /// The owner of each slot after all steps.
    pub(super) fn run(mut self) -> Vec<u16> {
        let before = self.layout.owners();
        self.adopt_orphans();
        self.fill_needs();
        for _ in 0..(ROUNDS / self.shares.len()).clamp(1, ROUNDS_MAX) {
            let moved = self.place_anew(&before);
            if !(self.exchange_adopted(&before) || moved) {
                break;
            }
        }
        self.layout.owners()
    }

    fn members(&self) -> impl Iterator<Item = u16> + use<> {
        0..u16::try_from(self.shares.len()).unwrap_or(NOBODY)
    }

    pub(super) fn share(&self, member: u16) -> &'a Share {
        &self.shares[usize::from(member)]
    }

    pub(super) fn owned(&self, member: u16) -> u32 {
        u32::try_from(self.layout.load(member).owned).unwrap_or_default()
    }

    fn may_have_another_arc(&self, member: u16) -> bool {
        u32::try_from(self.layout.load(member).arcs).unwrap_or_default() < ARCS_MAX
    }

    /// How bad a load is for a member.
    fn cost(&self, member: u16, load: Load) -> f64 {
        let share = self.share(member);
        let copies = f64::from(load.copies) / share.copies - 1.0;
        let owned = f64::from(load.owned) / share.fair - 1.0;
        let arcs = (f64::from(load.arcs) / share.arcs - 1.0).max(0.0);
        let excess = (copies - COPIES_EXCESS).max(0.0);
        COST_COPIES * copies * copies
            + COST_EXCESS * excess * excess
            + COST_OWNED * owned * owned
            + COST_ARCS * arcs * arcs
    }

    /// What a change costs everybody.
    pub(super) fn cost_of(&mut self, index: usize, pieces: &[Arc]) -> f64 {
        let mut scratch = std::mem::take(&mut self.scratch);
        self.layout.change(index, pieces, &mut scratch);
        let mut cost = 0.0;
        for &(member, delta) in &scratch.deltas {
            let now = self.layout.load(member);
            let then = Load {
                owned: now.owned + delta.owned,
                copies: now.copies + delta.copies,
                arcs: now.arcs + delta.arcs,
            };
            cost += self.cost(member, then) - self.cost(member, now);
        }
        self.scratch = scratch;
        cost
    }

    pub(super) fn apply(&mut self, index: usize, pieces: &[Arc]) {
        self.layout.apply(index, pieces, &mut self.scratch);
    }

    /// Gives every slot that has no owner to somebody.
    fn adopt_orphans(&mut self) {
        while let Some(index) = self.layout.arcs().iter().position(|arc| arc.owner == NOBODY) {
            let Some(change) = self.best_adoption(index, false) else {
                break;
            };
            self.apply(change.index, &change.pieces);
        }
    }

    /// Who is to have a piece of the orphaned arc, or all of it: one of its neighbours, or one of those who have
    /// least. A neighbour in spite of its having enough, when nobody else may have another arc.
    fn best_adoption(&mut self, index: usize, all: bool) -> Option<Change> {
        let neighbours = [self.layout.before(index).owner, self.layout.at(index + 1).owner];
        let in_need = self.most_in_need();
        let mut likely: Vec<u16> = in_need.iter().copied().take(CANDIDATES).collect();
        likely.extend(neighbours);
        let found = self.best_adopter(index, &likely, all, false);
        if all || found.is_some() {
            return found;
        }
        self.best_adopter(index, &in_need, all, false)
            .or_else(|| self.best_adopter(index, &neighbours, all, true))
    }

    fn best_adopter(&mut self, index: usize, receivers: &[u16], all: bool, beyond: bool) -> Option<Change> {
        let orphan = self.layout.arcs()[index];
        let (before, after) = (self.layout.before(index).owner, self.layout.at(index + 1).owner);
        let left: u32 = self
            .layout
            .arcs()
            .iter()
            .filter(|arc| arc.owner == NOBODY)
            .map(|arc| arc.len)
            .sum();
        let missing = |member: u16| self.share(member).kept.saturating_sub(self.owned(member));
        let all_missing: u32 = self.members().map(missing).sum();
        let misses: Vec<u32> = receivers
            .iter()
            .map(|&m| if m == NOBODY { 0 } else { missing(m) })
            .collect();
        let mut best: Option<Change> = None;
        for (&receiver, misses) in receivers.iter().zip(misses) {
            if receiver == NOBODY {
                continue;
            }
            let room = self.share(receiver).full.saturating_sub(self.owned(receiver));
            let room = if beyond { orphan.len } else { room };
            let adjacent = receiver == before || receiver == after;
            // What others lack is theirs, or it would have to come from somebody else later.
            let spare = left.saturating_sub(all_missing - misses).max(misses.min(left));
            let room = if all || beyond { room } else { room.min(spare) };
            let len = if all {
                orphan.len
            } else {
                self.piece_of(receiver, orphan.len).min(room)
            };
            if len == 0 || len > room || !adjacent && !self.may_have_another_arc(receiver) {
                continue;
            }
            let piece = Arc { owner: receiver, len };
            let rest = Arc {
                owner: NOBODY,
                len: orphan.len - len,
            };
            let pieces: &[Arc] = match (rest.len, receiver == after && receiver != before) {
                (0, _) => &[piece],
                (_, true) => &[rest, piece],
                (_, false) => &[piece, rest],
            };
            let cost = self.cost_of(index, pieces) / f64::from(len);
            if best.as_ref().is_none_or(|best| cost < best.cost) {
                best = Some(Change {
                    index,
                    pieces: pieces.to_vec(),
                    cost,
                });
            }
        }
        best
    }

    /// The size of the next piece for a member that gains slots.
    fn gain(&self, member: u16) -> u32 {
        let share = self.share(member);
        equal_piece(share.fair - f64::from(self.owned(member)), share.piece())
    }

    /// How much of an orphaned arc a member is to have: all of it when it is not much longer than a piece.
    fn piece_of(&self, receiver: u16, orphan: u32) -> u32 {
        let piece = self.gain(receiver);
        if orphan <= piece + piece / 4 {
            orphan
        } else {
            piece
        }
    }

    /// The size of the next piece from a member that gives slots away.
    fn loss(&self, member: u16) -> u32 {
        let share = self.share(member);
        let owned = self.owned(member);
        equal_piece(f64::from(owned) - share.fair, share.piece()).min(owned.saturating_sub(share.kept))
    }

    /// The members by how little they have of their share.
    fn most_in_need(&self) -> Vec<u16> {
        let mut members: Vec<(f64, u16)> = self
            .members()
            .filter(|&member| self.owned(member) < self.share(member).full)
            .map(|member| {
                let (share, load) = (self.share(member), self.layout.load(member));
                (
                    f64::from(load.owned) / share.fair + f64::from(load.copies) / share.copies,
                    member,
                )
            })
            .collect();
        members.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        members.into_iter().map(|(_, member)| member).collect()
    }

    /// Gives members in need their share from those who have most, and takes from those who have too much.
    fn fill_needs(&mut self) {
        let needy: Vec<u16> = self
            .members()
            .filter(|&member| self.owned(member) < self.share(member).needy)
            .collect();
        let mut receivers = needy.clone();
        let mut can_relieve = true;
        loop {
            receivers.retain(|&member| f64::from(self.owned(member)) + 0.5 < self.share(member).fair);
            let over = if can_relieve { self.over() } else { Vec::new() };
            let change = if over.is_empty() {
                let Some(receiver) = self.poorest(&receivers) else {
                    break;
                };
                let donors = self.donors(&receivers);
                let change = self.best_gift(receiver, &donors, None);
                if change.is_none() {
                    receivers.retain(|&member| member != receiver);
                    continue;
                }
                change
            } else {
                // Whoever gets slots anyway gets these first, even beyond its share; then those who have least.
                let donors = self.relief(&over, &receivers);
                let mut likely: Vec<u16> = self.poorest(&receivers).into_iter().collect();
                likely.extend(needy.iter().filter(|member| !receivers.contains(member)));
                likely.extend(self.most_in_need());
                likely
                    .into_iter()
                    .find_map(|receiver| self.best_gift(receiver, &donors, None))
            };
            let Some(change) = change else {
                // Nobody may take a piece of those who have too much; who lacks something can still get it.
                can_relieve = false;
                continue;
            };
            self.apply(change.index, &change.pieces);
        }
    }

    /// Who has least of its share.
    fn poorest(&self, members: &[u16]) -> Option<u16> {
        let owned = |member: u16| f64::from(self.owned(member)) / self.share(member).fair;
        members
            .iter()
            .copied()
            .min_by(|&a, &b| owned(a).total_cmp(&owned(b)))
    }

    /// Those who have too much, and by how much.
    fn over(&self) -> Vec<(u16, u32)> {
        let excess = |member: u16| self.owned(member).saturating_sub(self.share(member).max);
        self.members()
            .map(|member| (member, excess(member)))
            .filter(|&(_, excess)| excess > 0)
            .collect()
    }

    /// How much each of those who have too much may give, so that what the receivers are still to get is enough
    /// for all of them.
    fn relief(&self, over: &[(u16, u32)], receivers: &[u16]) -> Vec<Donor> {
        let all: u32 = over.iter().map(|(_, excess)| excess).sum();
        let lack = |&member: &u16| whole(self.share(member).fair).saturating_sub(self.owned(member));
        let lacking: u32 = receivers.iter().map(lack).sum();
        let most = |member: u16, excess: u32| {
            self.loss(member)
                .min(lacking.saturating_sub(all - excess))
                .max(excess)
        };
        over.iter()
            .map(|&(member, excess)| Donor {
                member,
                len_max: most(member, excess),
            })
            .collect()
    }

    /// Those who have most of what they may give away. Nobody who is still to get something: two of those would
    /// pass the same slots to and fro for ever.
    fn donors(&self, receivers: &[u16]) -> Vec<Donor> {
        let mut donors: Vec<(f64, u16)> = self
            .members()
            .filter(|&member| self.loss(member) > 0 && !receivers.contains(&member))
            .map(|member| {
                let (share, load) = (self.share(member), self.layout.load(member));
                (
                    f64::from(load.owned) / share.fair + f64::from(load.copies) / share.copies,
                    member,
                )
            })
            .collect();
        donors.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        donors.truncate(CANDIDATES);
        let donor = |(_, member)| Donor {
            member,
            len_max: self.loss(member),
        };
        donors.into_iter().map(donor).collect()
    }

    /// Which piece of a donor's arc the receiver is to have: its head, its tail, its middle or all of it.
    fn best_gift(&mut self, receiver: u16, donors: &[Donor], exactly: Option<u32>) -> Option<Change> {
        let mut best: Option<Change> = None;
        let room = self.share(receiver).full.saturating_sub(self.owned(receiver));
        let gain = exactly.unwrap_or_else(|| self.gain(receiver)).min(room);
        for index in 0..self.layout.arcs().len() {
            let arc = self.layout.arcs()[index];
            let donor = donors
                .iter()
                .find(|donor| donor.member == arc.owner && arc.owner != receiver);
            let Some(donor) = donor else { continue };
            let len = exactly.unwrap_or(donor.len_max).min(gain);
            let spare = self.owned(arc.owner).saturating_sub(self.share(arc.owner).kept);
            if len == 0 || exactly.is_some() && (arc.len < len || spare < len) {
                continue;
            }
            let len = len.min(arc.len);
            let piece = Arc { owner: receiver, len };
            let rest = Arc {
                len: arc.len - len,
                ..arc
            };
            let half = Arc {
                len: rest.len / 2,
                ..arc
            };
            let other = Arc {
                len: rest.len - rest.len / 2,
                ..arc
            };
            let options: [&[Arc]; 3] = [&[piece, rest], &[rest, piece], &[half, piece, other]];
            let (before, after) = (self.layout.before(index).owner, self.layout.at(index + 1).owner);
            let new_arc = self.may_have_another_arc(receiver);
            let whole: [&[Arc]; 1] = [&[piece]];
            let options: &[&[Arc]] = if rest.len == 0 { &whole } else { &options };
            for (which, pieces) in options.iter().enumerate() {
                let joins = match which {
                    0 => before == receiver || pieces.len() == 1 && after == receiver,
                    1 => after == receiver,
                    _ => false,
                };
                if !joins && !new_arc {
                    continue;
                }
                if which == 2 && (half.len == 0 || !self.may_have_another_arc(arc.owner)) {
                    continue;
                }
                let cost = self.cost_of(index, pieces) / f64::from(len);
                if best.as_ref().is_none_or(|best| cost < best.cost) {
                    best = Some(Change {
                        index,
                        pieces: pieces.to_vec(),
                        cost,
                    });
                }
            }
        }
        best
    }

    /// Takes up every piece that moved and puts it down again where it is best now. Whether that changed anything.
    fn place_anew(&mut self, before: &[u16]) -> bool {
        let mut changed = false;
        let count = before.len();
        let mut slot = 0;
        while slot < count {
            let (index, offset) = self.layout.find(slot);
            let arc = self.layout.arcs()[index];
            let left = (arc.len - offset) as usize;
            // The run of slots from here with one owner before and one owner now.
            let run = (0..left.min(count - slot))
                .take_while(|&step| before[slot + step] == before[slot])
                .count();
            let (old, start) = (before[slot], slot);
            slot += run;
            if old != arc.owner {
                changed |= self.place_piece_anew(index, offset, run, old, start);
            }
        }
        changed
    }

    fn place_piece_anew(&mut self, index: usize, offset: u32, run: usize, old: u16, start: usize) -> bool {
        let arc = self.layout.arcs()[index];
        let len = u32::try_from(run).unwrap_or_default();
        if old == NOBODY && self.owned(arc.owner) < self.share(arc.owner).kept + len {
            return false;
        }
        let head = Arc { len: offset, ..arc };
        let tail = Arc {
            len: arc.len - offset - len,
            ..arc
        };
        let back = Arc { owner: old, len };
        let taken: Vec<Arc> = [head, back, tail].into_iter().filter(|arc| arc.len > 0).collect();
        let saved = self.layout.clone();
        let undo_cost = self.cost_of(index, &taken);
        self.apply(index, &taken);
        let (index, _) = self.layout.find(start);
        let change = if old == NOBODY {
            self.best_adoption(index, true)
        } else {
            // Somebody who had too much can only give another piece instead.
            let over = self.owned(old) > self.share(old).max;
            let mut donors = if over { Vec::new() } else { self.donors(&[]) };
            donors.push(Donor {
                member: old,
                len_max: len,
            });
            self.best_gift(arc.owner, &donors, Some(len))
        };
        match change {
            Some(change) if undo_cost + change.cost * f64::from(len) < -GAIN_MIN => {
                self.apply(change.index, &change.pieces);
                true
            }
            _ => {
                self.layout = saved;
                false
            }
        }
    }
}

/// A piece of about `usual` size, so that a whole number of equal ones makes up `total`; one piece when `total`
/// is less than half of that.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 1 and 16384"
)]
fn equal_piece(total: f64, usual: f64) -> u32 {
    let size = if total < usual / 2.0 {
        usual
    } else {
        total / (total / usual + 0.5).floor()
    };
    (size + 0.5).floor().clamp(1.0, 16_384.0) as u32
}
