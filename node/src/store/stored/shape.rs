//! Where the parts of an entry stand, apart from those behind the key: what the tag says.

use crate::store::value::Text;

/// How the value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A string with a length of one byte.
    Bytes8,
    /// A string with a length of two bytes.
    Bytes16,
    /// A string with a length of four bytes.
    Bytes32,
    Int,
    Hash,
    List,
    Set,
    SortedSet,
}

impl Form {
    const ALL: [Self; 8] = [
        Self::Bytes8,
        Self::Bytes16,
        Self::Bytes32,
        Self::Int,
        Self::Hash,
        Self::List,
        Self::Set,
        Self::SortedSet,
    ];

    /// For a string of that many bytes.
    pub(super) const fn of_len(len: usize) -> Self {
        match len {
            0..=0xff => Self::Bytes8,
            0x100..=0xffff => Self::Bytes16,
            _ => Self::Bytes32,
        }
    }

    pub(super) const fn of(text: Text<'_>) -> Self {
        match text {
            Text::Int(_) => Self::Int,
            Text::Bytes(bytes) => Self::of_len(bytes.len()),
        }
    }

    /// Whether the value is a pointer to a collection, which the entry owns.
    pub(super) const fn is_collection(self) -> bool {
        matches!(self, Self::Hash | Self::List | Self::Set | Self::SortedSet)
    }

    /// Bytes of the value's length.
    const fn len_width(self) -> usize {
        match self {
            Self::Bytes8 => 1,
            Self::Bytes16 => 2,
            Self::Bytes32 => 4,
            _ => 0,
        }
    }
}

/// Where the parts of an entry stand, apart from those behind the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) form: Form,
    pub(super) has_expiry: bool,
    pub(super) long_key: bool,
}

pub(super) const TAG_AT: usize = 4;
pub(super) const KEY_LEN_AT: usize = 5;
pub(super) const FORM_MASK: u8 = 0b111;
pub(super) const HAS_EXPIRY: u8 = 1 << 3;
pub(super) const LONG_KEY: u8 = 1 << 4;
pub(super) const RANK_SHIFT: u32 = 5;
/// Bytes of an integer, and of a pointer.
pub(super) const WORD: usize = 8;

impl Shape {
    pub(super) const fn new(key_len: usize, form: Form, has_expiry: bool) -> Self {
        Self {
            form,
            has_expiry,
            long_key: key_len > 0xff,
        }
    }

    pub(super) const fn from_tag(tag: u8) -> Self {
        Self {
            form: Form::ALL[(tag & FORM_MASK) as usize],
            has_expiry: tag & HAS_EXPIRY != 0,
            long_key: tag & LONG_KEY != 0,
        }
    }

    pub(super) const fn tag(self) -> u8 {
        self.form as u8
            | if self.has_expiry { HAS_EXPIRY } else { 0 }
            | if self.long_key { LONG_KEY } else { 0 }
    }

    pub(super) const fn value_len_at(self) -> usize {
        KEY_LEN_AT + if self.long_key { 4 } else { 1 }
    }

    pub(super) const fn expiry_at(self) -> usize {
        self.value_len_at() + self.form.len_width()
    }

    pub(super) const fn key_at(self) -> usize {
        self.expiry_at() + if self.has_expiry { 8 } else { 0 }
    }
}
