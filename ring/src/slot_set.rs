//! Runs and sets of slots.
//!
//! A [`SlotRange`] is never empty and never wraps; what wraps around the end of the slot space is two ranges.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{SLOT_COUNT, Slot};

/// Why a text or a pair of numbers is not a range of slots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of slots, write one slot (\"7\") or first-last (\"0-120\") within 0 to 16383")]
pub struct SlotRangeError(pub String);

/// A run of slots, both ends included. Written `0-120`, or `7` when it is one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotRange {
    /// The lowest slot.
    pub first: Slot,
    /// The highest slot, not below `first`.
    pub last: Slot,
}

impl SlotRange {
    /// Every slot.
    pub const ALL: Self = Self {
        first: Slot::ZERO,
        last: Slot::MAX,
    };

    /// The run from `first` to `last`; an error when `last` comes before `first`.
    pub fn new(first: Slot, last: Slot) -> Result<Self, SlotRangeError> {
        if first <= last {
            Ok(Self { first, last })
        } else {
            Err(SlotRangeError(format!("{first}-{last}")))
        }
    }

    /// How many slots: 1 to 16384.
    #[expect(clippy::len_without_is_empty, reason = "a range holds at least one slot")]
    pub fn len(self) -> u16 {
        self.last.number() + 1 - self.first.number()
    }

    /// Whether the slot is in it.
    pub fn contains(self, slot: Slot) -> bool {
        (self.first..=self.last).contains(&slot)
    }

    /// Its slots in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Slot> + ExactSizeIterator {
        Slot::between(self.first, self.last)
    }
}

impl From<Slot> for SlotRange {
    fn from(slot: Slot) -> Self {
        Self {
            first: slot,
            last: slot,
        }
    }
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for SlotRange {
    type Err = SlotRangeError;

    fn from_str(text: &str) -> Result<Self, SlotRangeError> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits
                .then(|| part.parse::<u16>().ok().and_then(|number| Slot::new(number).ok()))
                .flatten()
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(SlotRangeError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for SlotRange {
    type Error = SlotRangeError;

    fn try_from(text: String) -> Result<Self, SlotRangeError> {
        text.parse()
    }
}

impl From<SlotRange> for String {
    fn from(range: SlotRange) -> Self {
        range.to_string()
    }
}

const WORDS: usize = SLOT_COUNT as usize / 64;

/// A set of slots: a bit each, 2 KiB whatever it holds. Written as its runs, `0-120,7000`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotSet(Box<[u64; WORDS]>);

impl SlotSet {
    /// The empty set.
    pub fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }

    /// Adds a slot; whether it was new.
    pub fn insert(&mut self, slot: Slot) -> bool {
        let (word, bit) = place_of(slot);
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Adds every slot of a run.
    pub fn insert_range(&mut self, range: SlotRange) {
        for slot in range.iter() {
            self.insert(slot);
        }
    }

    /// Takes a slot out; whether it was there.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let (word, bit) = place_of(slot);
        let there = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        there
    }

    /// Whether the slot is in it.
    pub fn contains(&self, slot: Slot) -> bool {
        let (word, bit) = place_of(slot);
        self.0[word] & bit != 0
    }

    /// How many slots it holds: 0 to 16384.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Its slots in order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        let mut words = self.0.iter().enumerate();
        let (mut first, mut rest) = (0, 0_u64);
        std::iter::from_fn(move || {
            while rest == 0 {
                let (index, &word) = words.next()?;
                (first, rest) = (index * 64, word);
            }
            let bit = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            Some(Slot::wrapping(first + bit))
        })
    }

    /// Its slots as the fewest runs, in order.
    pub fn ranges(&self) -> impl Iterator<Item = SlotRange> + '_ {
        let mut slots = self.iter().peekable();
        std::iter::from_fn(move || {
            let first = slots.next()?;
            let mut last = first;
            while let Some(next) = slots.next_if(|next| next.number() == last.number() + 1) {
                last = next;
            }
            Some(SlotRange { first, last })
        })
    }

    /// The slots that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    /// The slots of this set that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & !b)
    }

    /// The slots that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    fn combine(&self, other: &Self, word: impl Fn(u64, u64) -> u64) -> Self {
        let mut result = self.clone();
        for (mine, &theirs) in result.0.iter_mut().zip(other.0.iter()) {
            *mine = word(*mine, theirs);
        }
        result
    }
}

fn place_of(slot: Slot) -> (usize, u64) {
    (slot.index() / 64, 1 << (slot.index() % 64))
}

impl Default for SlotSet {
    fn default() -> Self {
        Self::new()
    }
}

/// As its runs, for instance `SlotSet(0-120,7000)`.
impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({self})")
    }
}

impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{range}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for SlotSet {
    type Error = SlotRangeError;

    fn try_from(text: String) -> Result<Self, SlotRangeError> {
        if text.is_empty() {
            return Ok(Self::new());
        }
        text.split(',').map(str::parse::<SlotRange>).collect()
    }
}

impl From<SlotSet> for String {
    fn from(set: SlotSet) -> Self {
        set.to_string()
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::new();
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

impl FromIterator<SlotRange> for SlotSet {
    fn from_iter<I: IntoIterator<Item = SlotRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert_range(range);
        }
        set
    }
}
