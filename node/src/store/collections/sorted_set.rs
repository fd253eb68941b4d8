//! Sorted sets: members with scores, in the order of the scores and, among equal ones, of the members' bytes.

use std::cmp::Ordering;

use super::order::Order;
use super::packed::Packed;
use super::table::{Record, Table};
use super::{COMPACT_ELEMENT_BYTES_MAX, COMPACT_LEN_MAX, scan_window};
use crate::store::memory::allocation_bytes;

#[derive(Debug, Clone)]
struct Scored {
    score: f64,
    member: Box<[u8]>,
}

impl Record for Scored {
    fn key(&self) -> &[u8] {
        &self.member
    }

    fn heap_bytes(&self) -> u64 {
        allocation_bytes(self.member.len())
    }
}

impl Scored {
    fn parts(&self) -> (&[u8], f64) {
        (&self.member, self.score)
    }
}

#[derive(Debug, Clone)]
enum Repr {
    /// Each element is the score's eight bytes, lowest first, and the member; in order.
    Compact(Packed),
    Large {
        members: Table<Scored>,
        /// The members' places in order.
        order: Order,
    },
}

impl Repr {
    /// The large form of elements in order.
    fn large<'a>(elements: impl Iterator<Item = (&'a [u8], f64)>) -> Self {
        let mut members = Table::default();
        for (member, score) in elements {
            members.push(Scored {
                score,
                member: member.into(),
            });
        }
        let order = (0..).take(members.len()).collect();
        Self::Large { members, order }
    }
}

/// A sorted set. No score is NaN.
#[derive(Debug, Clone)]
pub struct SortedSet(Repr);

impl Default for SortedSet {
    fn default() -> Self {
        Self(Repr::Compact(Packed::default()))
    }
}

/// The order of a sorted set's elements, each a member and its score. Minus zero equals zero.
pub fn compare(a: (&[u8], f64), b: (&[u8], f64)) -> Ordering {
    a.1.partial_cmp(&b.1)
        .unwrap_or(Ordering::Equal)
        .then_with(|| a.0.cmp(b.0))
}

const SCORE_BYTES: usize = 8;

/// An element of a compact set as member and score; `None` for what is too short to have a score.
fn split_element(element: &[u8]) -> Option<(&[u8], f64)> {
    let (score, member) = element.split_first_chunk::<SCORE_BYTES>()?;
    Some((member, f64::from_le_bytes(*score)))
}

fn elements(packed: &Packed) -> impl Iterator<Item = (&[u8], f64)> {
    packed.iter().filter_map(split_element)
}

impl SortedSet {
    /// How many members there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Compact(packed) => packed.len(),
            Repr::Large { members, .. } => members.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it allocates, itself not included.
    pub fn heap_bytes(&self) -> u64 {
        match &self.0 {
            Repr::Compact(packed) => packed.heap_bytes(),
            Repr::Large { members, order } => members.heap_bytes() + order.heap_bytes(),
        }
    }

    /// Whether it has its small form.
    pub fn is_compact(&self) -> bool {
        matches!(self.0, Repr::Compact(_))
    }

    /// The name of its form in `OBJECT ENCODING`.
    pub fn encoding(&self) -> &'static str {
        match self.0 {
            Repr::Compact(_) => "listpack",
            Repr::Large { .. } => "skiplist",
        }
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.0 {
            Repr::Compact(packed) => elements(packed)
                .find(|(found, _)| *found == member)
                .map(|(_, score)| score),
            Repr::Large { members, .. } => members.get(member).map(|found| found.score),
        }
    }

    /// How many members come before this one; `None` when it isn't one.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.0 {
            Repr::Compact(packed) => elements(packed).position(|(found, _)| found == member),
            Repr::Large { .. } => {
                let score = self.score(member)?;
                Some(self.rank_of(member, score))
            }
        }
    }

    /// How many elements come before that one, which need not be there.
    fn rank_of(&self, member: &[u8], score: f64) -> usize {
        self.partition_point(|found, found_score| compare((found, found_score), (member, score)).is_lt())
    }

    /// How many elements at the front meet `is_before`, which no element behind one that doesn't may meet.
    pub fn partition_point(&self, is_before: impl Fn(&[u8], f64) -> bool) -> usize {
        match &self.0 {
            Repr::Compact(packed) => elements(packed)
                .take_while(|(member, score)| is_before(member, *score))
                .count(),
            Repr::Large { members, order } => order.partition_point(|place| {
                let (member, score) = members.at(place as usize).parts();
                is_before(member, score)
            }),
        }
    }

    /// Adds a member or changes its score.
    pub fn insert(&mut self, member: &[u8], score: f64) {
        if let Repr::Compact(packed) = &mut self.0 {
            let known = elements(packed).position(|(found, _)| found == member);
            if let Some(at) = known {
                packed.splice(at, 1, &[]);
            }
            if packed.len() < COMPACT_LEN_MAX && member.len() <= COMPACT_ELEMENT_BYTES_MAX {
                let at = elements(packed)
                    .take_while(|found| compare(*found, (member, score)).is_lt())
                    .count();
                // Adding 0 makes minus zero zero, which a small set has no room for in Redis.
                let element = [&(score + 0.0).to_le_bytes()[..], member].concat();
                packed.splice(at, 0, &[&element]);
                return;
            }
            self.enlarge();
        }
        let known = match &self.0 {
            Repr::Large { members, .. } => members.position(member),
            Repr::Compact(_) => None,
        };
        let old_rank = known.and_then(|_| self.rank(member));
        let Repr::Large { members, order } = &mut self.0 else {
            return;
        };
        let place = if let (Some(at), Some(rank)) = (known, old_rank) {
            order.remove(rank);
            members.change(at, |found| found.score = score);
            u32::try_from(at).unwrap_or(u32::MAX)
        } else {
            members.push(Scored {
                score,
                member: member.into(),
            })
        };
        let rank = order
            .partition_point(|other| compare(members.at(other as usize).parts(), (member, score)).is_lt());
        order.insert(rank, place);
    }

    /// Removes a member and returns its score; `None` when it wasn't one.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.score(member)?;
        self.remove_at(self.rank(member)?);
        Some(score)
    }

    /// Removes the element with so many before it.
    fn remove_at(&mut self, rank: usize) {
        match &mut self.0 {
            Repr::Compact(packed) => packed.splice(rank, 1, &[]),
            Repr::Large { members, order } => {
                let Some(place) = order.get(rank) else { return };
                order.remove(rank);
                let last = members.len() - 1;
                if place as usize != last {
                    // The last record is about to move into the gap.
                    let moved = members.at(last).parts();
                    let moved_rank = order
                        .partition_point(|other| compare(members.at(other as usize).parts(), moved).is_lt());
                    order.set(moved_rank, place);
                }
                members.swap_remove(place as usize);
            }
        }
    }

    /// Removes the elements from `start` to before `end`.
    pub fn remove_range(&mut self, start: usize, end: usize) {
        let end = end.min(self.len());
        if start >= end {
            return;
        }
        if let Repr::Compact(packed) = &mut self.0 {
            packed.splice(start, end - start, &[]);
            return;
        }
        if start == 0 && end == self.len() {
            *self = Self::default();
            return;
        }
        for rank in (start..end).rev() {
            self.remove_at(rank);
        }
    }

    /// Members and scores in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], f64)> {
        self.iter_from(0)
    }

    /// Members and scores in the order that scans go by.
    pub fn iter_as_kept(&self) -> impl Iterator<Item = (&[u8], f64)> {
        self.scan(0, usize::MAX).0
    }

    /// Members and scores in order, the first `start` left out.
    pub fn iter_from(&self, start: usize) -> impl Iterator<Item = (&[u8], f64)> {
        let (packed, large) = match &self.0 {
            Repr::Compact(packed) => (Some(packed), None),
            Repr::Large { members, order } => (None, Some((members, order))),
        };
        let compact = packed
            .into_iter()
            .flat_map(move |packed| elements(packed).skip(start));
        compact.chain(large.into_iter().flat_map(move |(members, order)| {
            order
                .iter_from(start)
                .map(|place| members.at(place as usize).parts())
        }))
    }

    /// Members and scores from the one before `end` to the first.
    pub fn iter_back_from(&self, end: usize) -> impl Iterator<Item = (&[u8], f64)> {
        let (compact, large) = match &self.0 {
            Repr::Compact(packed) => (elements(packed).take(end).collect::<Vec<_>>(), None),
            Repr::Large { members, order } => (Vec::new(), Some((members, order))),
        };
        compact
            .into_iter()
            .rev()
            .chain(large.into_iter().flat_map(move |(members, order)| {
                order
                    .iter_back_from(end)
                    .map(|place| members.at(place as usize).parts())
            }))
    }

    /// The element with so many before it.
    pub fn at(&self, rank: usize) -> Option<(&[u8], f64)> {
        self.iter_from(rank).next()
    }

    /// A step of a scan from `cursor` on: about `count` members with their scores, and the next cursor, 0 at
    /// the end.
    pub fn scan(&self, cursor: u64, count: usize) -> (impl Iterator<Item = (&[u8], f64)>, u64) {
        let (packed, records, next) = match &self.0 {
            Repr::Compact(packed) => (Some(packed), &[][..], 0),
            Repr::Large { members, .. } => {
                let (window, next) = scan_window(members.len(), cursor, count);
                (None, &members.records()[window], next)
            }
        };
        let found = packed
            .into_iter()
            .flat_map(elements)
            .chain(records.iter().map(Scored::parts));
        (found, next)
    }

    fn enlarge(&mut self) {
        self.0 = Repr::large(self.iter());
    }
}

/// The elements, in any order and each with a member of its own.
impl<'a> FromIterator<(&'a [u8], f64)> for SortedSet {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], f64)>>(elements: I) -> Self {
        let mut elements: Vec<_> = elements.into_iter().collect();
        elements.sort_unstable_by(|a, b| compare(*a, *b));
        let is_small = elements.len() <= COMPACT_LEN_MAX
            && elements
                .iter()
                .all(|(member, _)| member.len() <= COMPACT_ELEMENT_BYTES_MAX);
        let mut set = Self::default();
        if is_small {
            for (member, score) in elements {
                set.insert(member, score);
            }
        } else {
            set.0 = Repr::large(elements.into_iter());
        }
        set
    }
}

/// Same members with the same scores.
impl PartialEq for SortedSet {
    fn eq(&self, other: &Self) -> bool {
        let bits = |(member, score): (&'_ [u8], f64)| (member.to_vec(), score.to_bits());
        self.iter().map(bits).eq(other.iter().map(bits))
    }
}

impl Eq for SortedSet {}
