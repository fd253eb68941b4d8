//! What a key holds, and what the store remembers beside it.

use std::borrow::Cow;

use super::collections::{Hash, List, Set, SortedSet};
use super::memory::allocation_bytes;
use crate::resp::number::{self, Decimal};

/// A value. Collections are boxed, so that every entry is as small as a string's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string that is the canonical decimal form of this number; it needs no memory of its own.
    Int(i64),
    /// Any other string.
    Bytes(Box<[u8]>),
    /// A hash.
    Hash(Box<Hash>),
    /// A list.
    List(Box<List>),
    /// A set.
    Set(Box<Set>),
    /// A sorted set.
    SortedSet(Box<SortedSet>),
}

/// A value's type, of which a command wants one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
pub struct WrongType;

/// A type of values that have elements.
pub trait Collection: Default {
    /// The value as one of this type.
    fn of(value: &Value) -> Option<&Self>;

    /// The value as one of this type, to change it.
    fn of_mut(value: &mut Value) -> Option<&mut Self>;

    /// Whether it has no elements: then its key ceases to exist.
    fn is_empty(&self) -> bool;

    /// The value.
    fn into_value(self) -> Value;
}

macro_rules! collection {
    ($variant:ident) => {
        impl Collection for $variant {
            fn of(value: &Value) -> Option<&Self> {
                match value {
                    Value::$variant(found) => Some(found),
                    _ => None,
                }
            }

            fn of_mut(value: &mut Value) -> Option<&mut Self> {
                match value {
                    Value::$variant(found) => Some(found),
                    _ => None,
                }
            }

            fn is_empty(&self) -> bool {
                self.is_empty()
            }

            fn into_value(self) -> Value {
                Value::$variant(Box::new(self))
            }
        }
    };
}

collection!(Hash);
collection!(List);
collection!(Set);
collection!(SortedSet);

impl Value {
    /// A string value.
    #[inline]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match number::parse_i64(bytes) {
            Some(number) => Self::Int(number),
            None => Self::Bytes(bytes.into()),
        }
    }

    /// Whether it is a string.
    #[inline]
    pub fn is_string(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Bytes(_))
    }

    /// The string's bytes; none for a collection.
    pub fn to_bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Int(number) => Cow::Owned(Decimal::new(*number).as_bytes().to_vec()),
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            _ => Cow::Borrowed(&[]),
        }
    }

    /// The string's length in bytes; 0 for a collection.
    pub fn len(&self) -> usize {
        match self {
            Self::Int(number) => Decimal::new(*number).as_bytes().len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// Whether it is no string of at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The string as a buffer that can be changed; what was allocated is re-used. Empty for a collection.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Int(number) => Decimal::new(number).as_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.into_vec(),
            _ => Vec::new(),
        }
    }

    /// What it allocates, as [`super::memory`] counts.
    #[inline]
    pub fn heap_bytes(&self) -> u64 {
        match self {
            Self::Int(_) => 0,
            Self::Bytes(bytes) => allocation_bytes(bytes.len()),
            Self::Hash(hash) => allocation_bytes(size_of::<Hash>()) + hash.heap_bytes(),
            Self::List(list) => allocation_bytes(size_of::<List>()) + list.heap_bytes(),
            Self::Set(set) => allocation_bytes(size_of::<Set>()) + set.heap_bytes(),
            Self::SortedSet(set) => allocation_bytes(size_of::<SortedSet>()) + set.heap_bytes(),
        }
    }

    /// The name that `TYPE` gives.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) | Self::Bytes(_) => "string",
            Self::Hash(_) => "hash",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::SortedSet(_) => "zset",
        }
    }

    /// The name that `OBJECT ENCODING` gives.
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::Int(_) => "int",
            Self::Bytes(bytes) if bytes.len() <= 44 => "embstr",
            Self::Bytes(_) => "raw",
            Self::Hash(hash) => hash.encoding(),
            Self::List(_) => "quicklist",
            Self::Set(set) => set.encoding(),
            Self::SortedSet(set) => set.encoding(),
        }
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        match number::parse_i64(&bytes) {
            Some(number) => Self::Int(number),
            None => Self::Bytes(bytes.into_boxed_slice()),
        }
    }
}

/// A moment of access in ticks of 16 ms, which wraps around after two years: coarse, because it only ranks
/// entries for eviction, and small, because every entry has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessStamp(u32);

impl AccessStamp {
    const TICK_SHIFT: u32 = 4;

    /// The stamp of that moment.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap around by design")]
    pub fn at(now_ms: u64) -> Self {
        Self((now_ms >> Self::TICK_SHIFT) as u32)
    }

    /// How long before `now_ms` that was, to a tick.
    #[inline]
    pub fn age_ms(self, now_ms: u64) -> u64 {
        u64::from(Self::at(now_ms).0.wrapping_sub(self.0)) << Self::TICK_SHIFT
    }
}

/// A value with what the store remembers of it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The value.
    pub value: Value,
    expires_at_ms: u64,
    pub(super) accessed: AccessStamp,
}

impl Stored {
    /// In place of a time of expiry: never. Keeps the field at eight bytes.
    const NEVER: u64 = u64::MAX;

    pub(super) fn new(value: Value, expires_at_ms: Option<u64>, now_ms: u64) -> Self {
        Self {
            value,
            expires_at_ms: expires_at_ms.unwrap_or(Self::NEVER),
            accessed: AccessStamp::at(now_ms),
        }
    }

    /// When the entry ceases to exist, in milliseconds since the Unix epoch.
    #[inline]
    pub fn expires_at_ms(&self) -> Option<u64> {
        (self.expires_at_ms != Self::NEVER).then_some(self.expires_at_ms)
    }

    /// Sets or takes away the time of expiry.
    pub(super) fn set_expires_at_ms(&mut self, expires_at_ms: Option<u64>) {
        self.expires_at_ms = expires_at_ms.unwrap_or(Self::NEVER);
    }

    /// Whether its time is over.
    #[inline]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms <= now_ms
    }

    /// How long ago it was last read or written.
    pub fn idle_ms(&self, now_ms: u64) -> u64 {
        self.accessed.age_ms(now_ms)
    }
}

/// An entry as it travels: to another owner, or later to a replica or a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Box<[u8]>,
    /// Its value.
    pub value: Value,
    /// When it ceases to exist, in milliseconds since the Unix epoch; `None` for never.
    pub expires_at_ms: Option<u64>,
}
