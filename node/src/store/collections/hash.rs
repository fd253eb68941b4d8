//! Hashes: values by field.

use super::packed::{Packed, read_framed, write_framed};
use super::table::{Record, Table};
use super::{COMPACT_ELEMENT_BYTES_MAX, COMPACT_LEN_MAX, scan_window};
use crate::store::memory::allocation_bytes;

/// A field and its value in one allocation: the field framed, then the value.
#[derive(Debug, Clone)]
struct Pair(Box<[u8]>);

impl Pair {
    fn new(field: &[u8], value: &[u8]) -> Self {
        const LENGTH_BYTES: usize = 5;
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + field.len() + value.len());
        write_framed(&mut bytes, &[field]);
        bytes.extend_from_slice(value);
        Self(bytes.into_boxed_slice())
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        let (start, end) = read_framed(&self.0).unwrap_or_default();
        let (field, value) = self.0.split_at(end);
        (&field[start..], value)
    }
}

impl Record for Pair {
    fn key(&self) -> &[u8] {
        self.parts().0
    }

    fn heap_bytes(&self) -> u64 {
        allocation_bytes(self.0.len())
    }
}

#[derive(Debug, Clone)]
enum Repr {
    /// Field, value, field, value …
    Compact(Packed),
    Large(Table<Pair>),
}

/// A hash.
#[derive(Debug, Clone)]
pub struct Hash(Repr);

impl Default for Hash {
    fn default() -> Self {
        Self(Repr::Compact(Packed::default()))
    }
}

impl Hash {
    /// How many fields there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Compact(packed) => packed.len() / 2,
            Repr::Large(table) => table.len(),
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
            Repr::Large(table) => table.heap_bytes(),
        }
    }

    /// The name of its form in `OBJECT ENCODING`.
    pub fn encoding(&self) -> &'static str {
        match self.0 {
            Repr::Compact(_) => "listpack",
            Repr::Large(_) => "hashtable",
        }
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match &self.0 {
            Repr::Compact(packed) => find(packed, field).map(|(_, value)| value),
            Repr::Large(table) => table.get(field).map(|pair| pair.parts().1),
        }
    }

    /// Sets a field, and says whether it is new.
    pub fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let is_small = field.len().max(value.len()) <= COMPACT_ELEMENT_BYTES_MAX;
        if let Repr::Compact(packed) = &mut self.0 {
            let found = find(packed, field).map(|(at, _)| at);
            match found {
                Some(at) if is_small => {
                    packed.splice(2 * at + 1, 1, &[value]);
                    return false;
                }
                None if is_small && packed.len() < 2 * COMPACT_LEN_MAX => {
                    packed.splice(packed.len(), 0, &[field, value]);
                    return true;
                }
                _ => self.enlarge(),
            }
        }
        let Repr::Large(table) = &mut self.0 else {
            return false;
        };
        let pair = Pair::new(field, value);
        let found = table.position(field);
        if let Some(at) = found {
            table.change(at, |old| *old = pair);
        } else {
            table.push(pair);
        }
        found.is_none()
    }

    /// Removes a field, and says whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.0 {
            Repr::Compact(packed) => {
                let found = find(packed, field).map(|(at, _)| at);
                if let Some(at) = found {
                    packed.splice(2 * at, 2, &[]);
                }
                found.is_some()
            }
            Repr::Large(table) => {
                let found = table.position(field);
                if let Some(at) = found {
                    table.swap_remove(at);
                }
                found.is_some()
            }
        }
    }

    /// The fields and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (packed, table) = match &self.0 {
            Repr::Compact(packed) => (Some(packed), None),
            Repr::Large(table) => (None, Some(table)),
        };
        packed.into_iter().flat_map(pairs).chain(
            table
                .into_iter()
                .flat_map(|table| table.records().iter().map(Pair::parts)),
        )
    }

    /// The field at a place below [`Self::len`], and its value.
    pub fn at(&self, place: usize) -> (&[u8], &[u8]) {
        match &self.0 {
            Repr::Compact(packed) => pairs(packed).nth(place).unwrap_or_default(),
            Repr::Large(table) => table.at(place).parts(),
        }
    }

    /// A step of a scan from `cursor` on: about `count` fields with their values, and the next cursor, 0 at the
    /// end.
    pub fn scan(&self, cursor: u64, count: usize) -> (impl Iterator<Item = (&[u8], &[u8])>, u64) {
        let (packed, records, next) = match &self.0 {
            Repr::Compact(packed) => (Some(packed), &[][..], 0),
            Repr::Large(table) => {
                let (window, next) = scan_window(table.len(), cursor, count);
                (None, &table.records()[window], next)
            }
        };
        let found = packed
            .into_iter()
            .flat_map(pairs)
            .chain(records.iter().map(Pair::parts));
        (found, next)
    }

    fn enlarge(&mut self) {
        let mut table = Table::default();
        for (field, value) in self.iter() {
            table.push(Pair::new(field, value));
        }
        self.0 = Repr::Large(table);
    }
}

fn pairs(packed: &Packed) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut items = packed.iter();
    std::iter::from_fn(move || Some((items.next()?, items.next()?)))
}

fn find<'a>(packed: &'a Packed, field: &[u8]) -> Option<(usize, &'a [u8])> {
    pairs(packed)
        .enumerate()
        .find_map(|(at, (found, value))| (found == field).then_some((at, value)))
}

/// Same fields in the same order with the same values.
impl PartialEq for Hash {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Hash {}
