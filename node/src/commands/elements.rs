//! What the commands on collections share.

use std::collections::BTreeSet;

use crate::commands::{integer, is_word, matches_pattern};
use crate::error::CommandError;
use crate::execute::Keyed;
use crate::resp::{Args, Reply, number};
use crate::store::memory::allocation_bytes;
use crate::store::{Collection, SlotGuard, Stored, WrongType};

/// The value as a collection of the type that a command works on.
fn typed<C: Collection>(stored: Option<&Stored>) -> Result<Option<&C>, WrongType> {
    stored
        .map(|stored| C::of(stored.value()).ok_or(WrongType))
        .transpose()
}

/// The collection at a key, as a reading command sees it.
pub(super) fn read<'a, C: Collection>(
    slot: &'a mut SlotGuard<'_>,
    key: &[u8],
    now_ms: u64,
) -> Result<Option<&'a C>, WrongType> {
    typed(slot.read(key, now_ms))
}

/// The collection at a key, as a writing command sees it.
pub(super) fn find<'a, C: Collection>(
    slot: &'a mut SlotGuard<'_>,
    key: &[u8],
    now_ms: u64,
) -> Result<Option<&'a C>, WrongType> {
    typed(slot.find(key, now_ms))
}

/// The collection at a key, without a trace of the look.
pub(super) fn peek<'a, C: Collection>(
    slot: &'a SlotGuard<'_>,
    key: &[u8],
    now_ms: u64,
) -> Result<Option<&'a C>, WrongType> {
    typed(slot.peek(key, now_ms))
}

/// Whether the key's collection, if it is of that type, may grow by these elements.
pub(super) fn check_growth<'a, C: Collection>(
    call: &mut Keyed<'_, '_>,
    key: &[u8],
    elements: impl Iterator<Item = &'a [u8]>,
) -> Result<(), CommandError> {
    // More than the index and the frame of an element take in any of the types.
    const ELEMENT_BYTES: u64 = 64;
    const COLLECTION_BYTES: u64 = 512;
    find::<C>(call.slot, key, call.now_ms)?;
    let added: u64 = elements
        .map(|element| allocation_bytes(element.len()) + ELEMENT_BYTES)
        .sum();
    Ok(call
        .slot
        .check_growth(key, added + COLLECTION_BYTES, call.now_ms)?)
}

/// The keys behind the argument that counts them, once that is known to be sound.
pub(super) fn counted_keys(args: Args<'_>, at: usize) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
    let count = args.get(at).and_then(number::parse_i64);
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    args.skip(at + 1).first(count).from(0)
}

/// A number below `bound`, which is not 0, as likely as any other.
pub(super) fn random_below(slot: &SlotGuard<'_>, bound: usize) -> usize {
    // The upper half of a product spreads evenly enough.
    let product = u128::from(slot.random()) * bound as u128;
    usize::try_from(product >> 64).unwrap_or(0)
}

/// `count` different numbers below `bound`, which is at least as large, in no order.
pub(super) fn sample(slot: &SlotGuard<'_>, bound: usize, count: usize) -> Vec<usize> {
    // Floyd's: of the numbers up to a growing one, each is as likely to be in.
    let mut chosen = BTreeSet::new();
    for last in bound - count..bound {
        let number = random_below(slot, last + 1);
        if !chosen.insert(number) {
            chosen.insert(last);
        }
    }
    chosen.into_iter().collect()
}

/// The count of a command that returns random elements: how many, and whether one may come twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct RandomCount {
    count: usize,
    repeats: bool,
}

impl RandomCount {
    /// Reads `[count [word]]` from the second argument on; `None` without count. Also says whether the word, which
    /// asks for each element's second half, is there.
    pub(super) fn parse(args: Args<'_>, word: &str) -> Result<Option<(Self, bool)>, CommandError> {
        let Some(count) = args.get(2) else {
            return Ok(None);
        };
        let number = integer(count)?;
        if number == i64::MIN {
            return Err(CommandError::BeyondSymmetric);
        }
        let both = args.get(3).is_some_and(|found| is_word(found, word));
        if args.len() > 4 || args.len() == 4 && !both {
            return Err(CommandError::Syntax);
        }
        if both && number.unsigned_abs() > i64::MAX.unsigned_abs() / 2 {
            return Err(CommandError::Fixed("ERR value is out of range"));
        }
        let count = Self {
            count: usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX),
            repeats: number < 0,
        };
        Ok(Some((count, both)))
    }

    /// How many elements there will be of `len`.
    pub(super) fn of(self, len: usize) -> usize {
        match (len, self.repeats) {
            (0, _) => 0,
            (_, true) => self.count,
            (len, false) => self.count.min(len),
        }
    }

    /// Calls `write` with the places of random elements of `len`, as many as [`Self::of`] says, or until the reply
    /// is full.
    pub(super) fn pick(
        self,
        slot: &SlotGuard<'_>,
        len: usize,
        reply: &mut Reply,
        mut write: impl FnMut(usize, &mut Reply),
    ) {
        let count = self.of(len);
        if self.repeats {
            for _ in 0..count {
                write(random_below(slot, len), reply);
                if reply.overflowed() {
                    break;
                }
            }
        } else if count == len {
            (0..len).for_each(|place| write(place, reply));
        } else {
            for place in sample(slot, len, count) {
                write(place, reply);
            }
        }
    }
}

/// What `HSCAN`, `SSCAN` and `ZSCAN` are to return.
#[derive(Debug)]
pub(super) struct ElementScan<'a> {
    pattern: Option<&'a [u8]>,
    /// After how many elements to stop.
    pub(super) count: usize,
    /// Only the first half of each element: `NOVALUES`, `NOSCORES`.
    pub(super) halves: bool,
}

impl<'a> ElementScan<'a> {
    /// Where to go on: the second argument.
    pub(super) fn cursor(args: Args<'a>) -> Result<u64, CommandError> {
        number::parse_u64(args.at(2)).ok_or(CommandError::Fixed("ERR invalid cursor"))
    }

    /// Reads `[MATCH pattern] [COUNT count]` from the third argument on, and this word if there is one.
    pub(super) fn parse(args: Args<'a>, halves_word: Option<&str>) -> Result<Self, CommandError> {
        Self::parse_with(args.from(3), halves_word, |_, _| false)
    }

    /// Reads the same from these words; `other` takes an option that is none of these with its value, or refuses it.
    pub(super) fn parse_with(
        mut words: impl Iterator<Item = &'a [u8]>,
        halves_word: Option<&str>,
        mut other: impl FnMut(&'a [u8], &'a [u8]) -> bool,
    ) -> Result<Self, CommandError> {
        const COUNT_DEFAULT: usize = 10;
        let mut options = Self {
            pattern: None,
            count: COUNT_DEFAULT,
            halves: false,
        };
        while let Some(word) = words.next() {
            if halves_word.is_some_and(|halves_word| is_word(word, halves_word)) {
                options.halves = true;
                continue;
            }
            let value = words.next().ok_or(CommandError::Syntax)?;
            if is_word(word, "MATCH") {
                options.pattern = Some(value);
            } else if is_word(word, "COUNT") {
                let count = usize::try_from(integer(value)?).ok().filter(|&count| count > 0);
                options.count = count.ok_or(CommandError::Syntax)?;
            } else if !other(word, value) {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }

    /// Whether an element is to be returned.
    pub(super) fn wants(&self, element: &[u8]) -> bool {
        self.pattern
            .is_none_or(|pattern| matches_pattern(pattern, element))
    }
}

/// The reply's head: the cursor, and that so many strings follow.
pub(super) fn write_scan_head(cursor: u64, len: usize, reply: &mut Reply) {
    reply.array(2);
    reply.bulk(cursor.to_string().as_bytes());
    reply.array(len);
}
