//! Sets: members without order.

use super::packed::Packed;
use super::table::Table;
use super::{COMPACT_ELEMENT_BYTES_MAX, COMPACT_LEN_MAX, scan_window};
use crate::resp::number;

#[derive(Debug, Clone)]
enum Repr {
    Compact(Packed),
    Large(Table<Box<[u8]>>),
}

/// A set.
#[derive(Debug, Clone)]
pub struct Set {
    repr: Repr,
    /// Whether it never had another member than integers, and never very many: only what `OBJECT ENCODING`
    /// answers depends on it.
    is_intset: bool,
}

impl Default for Set {
    fn default() -> Self {
        Self {
            repr: Repr::Compact(Packed::default()),
            is_intset: true,
        }
    }
}

impl Set {
    /// How many members there are.
    pub fn len(&self) -> usize {
        match &self.repr {
            Repr::Compact(packed) => packed.len(),
            Repr::Large(table) => table.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it allocates, itself not included.
    pub fn heap_bytes(&self) -> u64 {
        match &self.repr {
            Repr::Compact(packed) => packed.heap_bytes(),
            Repr::Large(table) => table.heap_bytes(),
        }
    }

    /// The name of its form in `OBJECT ENCODING`.
    pub fn encoding(&self) -> &'static str {
        if self.is_intset { "intset" } else { "hashtable" }
    }

    /// Whether that is a member.
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.repr {
            Repr::Compact(packed) => packed.iter().any(|found| found == member),
            Repr::Large(table) => table.position(member).is_some(),
        }
    }

    /// Adds a member, and says whether it is new.
    pub fn insert(&mut self, member: &[u8]) -> bool {
        const INTSET_LEN_MAX: usize = 512;
        if self.contains(member) {
            return false;
        }
        self.is_intset = self.is_intset && self.len() < INTSET_LEN_MAX && number::parse_i64(member).is_some();
        if let Repr::Compact(packed) = &mut self.repr {
            if packed.len() < COMPACT_LEN_MAX && member.len() <= COMPACT_ELEMENT_BYTES_MAX {
                packed.push(member);
                return true;
            }
            let mut table = Table::default();
            for member in packed.iter() {
                table.push(member.into());
            }
            self.repr = Repr::Large(table);
        }
        if let Repr::Large(table) = &mut self.repr {
            table.push(member.into());
        }
        true
    }

    /// Removes a member, and says whether it was one.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let found = match &self.repr {
            Repr::Compact(packed) => packed.iter().position(|found| found == member),
            Repr::Large(table) => table.position(member),
        };
        if let Some(place) = found {
            self.remove_at(place);
        }
        found.is_some()
    }

    /// Removes the member at a place below [`Self::len`].
    pub fn remove_at(&mut self, place: usize) {
        match &mut self.repr {
            Repr::Compact(packed) => packed.splice(place, 1, &[]),
            Repr::Large(table) => {
                table.swap_remove(place);
            }
        }
    }

    /// The members.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let (packed, records): (_, &[Box<[u8]>]) = match &self.repr {
            Repr::Compact(packed) => (Some(packed), &[]),
            Repr::Large(table) => (None, table.records()),
        };
        packed
            .into_iter()
            .flat_map(Packed::iter)
            .chain(records.iter().map(|member| &**member))
    }

    /// The member at a place below [`Self::len`].
    pub fn at(&self, place: usize) -> &[u8] {
        match &self.repr {
            Repr::Compact(packed) => packed.get(place).unwrap_or_default(),
            Repr::Large(table) => table.at(place),
        }
    }

    /// A step of a scan from `cursor` on: about `count` members, and the next cursor, 0 at the end.
    pub fn scan(&self, cursor: u64, count: usize) -> (impl Iterator<Item = &[u8]>, u64) {
        let (packed, records, next): (_, &[Box<[u8]>], _) = match &self.repr {
            Repr::Compact(packed) => (Some(packed), &[], 0),
            Repr::Large(table) => {
                let (window, next) = scan_window(table.len(), cursor, count);
                (None, &table.records()[window], next)
            }
        };
        let found = packed
            .into_iter()
            .flat_map(Packed::iter)
            .chain(records.iter().map(|member| &**member));
        (found, next)
    }
}

impl<'a> FromIterator<&'a [u8]> for Set {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(members: I) -> Self {
        let mut set = Self::default();
        for member in members {
            set.insert(member);
        }
        set
    }
}

/// Same members in the same order.
impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Set {}
