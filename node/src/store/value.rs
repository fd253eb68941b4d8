//! What a key holds.

use std::borrow::Cow;

use annulus_proto::tenants::TenantId;

use super::collections::{Hash, List, Set, SortedSet};
use super::memory::allocation_bytes;
use super::stored::Stored;
use crate::resp::number::{self, Decimal};

/// A value by itself: on its way into the store, or out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string that is the canonical decimal form of this number.
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

/// A value that is looked at where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueRef<'a> {
    /// A string that is the canonical decimal form of this number.
    Int(i64),
    /// Any other string.
    Bytes(&'a [u8]),
    /// A hash.
    Hash(&'a Hash),
    /// A list.
    List(&'a List),
    /// A set.
    Set(&'a Set),
    /// A sorted set.
    SortedSet(&'a SortedSet),
}

/// A collection that is changed where it is.
#[derive(Debug)]
pub enum CollectionMut<'a> {
    /// A hash.
    Hash(&'a mut Hash),
    /// A list.
    List(&'a mut List),
    /// A set.
    Set(&'a mut Set),
    /// A sorted set.
    SortedSet(&'a mut SortedSet),
}

/// A string on its way into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text<'a> {
    /// The canonical decimal form of this number.
    Int(i64),
    /// Any other string.
    Bytes(&'a [u8]),
}

impl<'a> Text<'a> {
    /// The string of these bytes.
    #[inline]
    pub fn of(bytes: &'a [u8]) -> Self {
        number::parse_i64(bytes).map_or(Self::Bytes(bytes), Self::Int)
    }
}

/// A value's type, of which a command wants one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
pub struct WrongType;

/// A type of values that have elements.
pub trait Collection: Default {
    /// The value as one of this type.
    fn of(value: ValueRef<'_>) -> Option<&Self>;

    /// The collection as one of this type, to change it.
    fn of_mut(collection: CollectionMut<'_>) -> Option<&mut Self>;

    /// Whether it has no elements: then its key ceases to exist.
    fn is_empty(&self) -> bool;

    /// The value.
    fn into_value(self) -> Value;
}

macro_rules! collection {
    ($variant:ident) => {
        impl Collection for $variant {
            fn of(value: ValueRef<'_>) -> Option<&Self> {
                match value {
                    ValueRef::$variant(found) => Some(found),
                    _ => None,
                }
            }

            fn of_mut(collection: CollectionMut<'_>) -> Option<&mut Self> {
                match collection {
                    CollectionMut::$variant(found) => Some(found),
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
        match Text::of(bytes) {
            Text::Int(number) => Self::Int(number),
            Text::Bytes(bytes) => Self::Bytes(bytes.into()),
        }
    }

    /// The value, looked at.
    #[inline]
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Int(number) => ValueRef::Int(*number),
            Self::Bytes(bytes) => ValueRef::Bytes(bytes),
            Self::Hash(hash) => ValueRef::Hash(hash),
            Self::List(list) => ValueRef::List(list),
            Self::Set(set) => ValueRef::Set(set),
            Self::SortedSet(set) => ValueRef::SortedSet(set),
        }
    }

    /// The string as a buffer that can be changed; what was allocated is re-used. Empty for a collection.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Int(number) => Decimal::new(number).as_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.into_vec(),
            _ => Vec::new(),
        }
    }
}

impl<'a> ValueRef<'a> {
    /// Whether it is a string.
    #[inline]
    pub fn is_string(self) -> bool {
        matches!(self, Self::Int(_) | Self::Bytes(_))
    }

    /// The string's bytes; none for a collection.
    pub fn to_bytes(self) -> Cow<'a, [u8]> {
        match self {
            Self::Int(number) => Cow::Owned(Decimal::new(number).as_bytes().to_vec()),
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            _ => Cow::Borrowed(&[]),
        }
    }

    /// The string's length in bytes; 0 for a collection.
    pub fn len(self) -> usize {
        match self {
            Self::Int(number) => Decimal::new(number).as_bytes().len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// Whether it is no string of at least one byte.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// A copy by itself.
    pub fn to_value(self) -> Value {
        match self {
            Self::Int(number) => Value::Int(number),
            Self::Bytes(bytes) => Value::Bytes(bytes.into()),
            Self::Hash(hash) => Value::Hash(Box::new(hash.clone())),
            Self::List(list) => Value::List(Box::new(list.clone())),
            Self::Set(set) => Value::Set(Box::new(set.clone())),
            Self::SortedSet(set) => Value::SortedSet(Box::new(set.clone())),
        }
    }

    /// What a collection allocates, as [`super::memory`] counts; a string stands in its entry.
    #[inline]
    pub fn heap_bytes(self) -> u64 {
        match self {
            Self::Int(_) | Self::Bytes(_) => 0,
            Self::Hash(hash) => allocation_bytes(size_of::<Hash>()) + hash.heap_bytes(),
            Self::List(list) => allocation_bytes(size_of::<List>()) + list.heap_bytes(),
            Self::Set(set) => allocation_bytes(size_of::<Set>()) + set.heap_bytes(),
            Self::SortedSet(set) => allocation_bytes(size_of::<SortedSet>()) + set.heap_bytes(),
        }
    }

    /// The name that `TYPE` gives.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Int(_) | Self::Bytes(_) => "string",
            Self::Hash(_) => "hash",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::SortedSet(_) => "zset",
        }
    }

    /// The name that `OBJECT ENCODING` gives.
    pub fn encoding(self) -> &'static str {
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

    /// How long before `now_ms` that was, to a tick. A moment that is ahead by less than some hours counts as now: threads
    /// look at the clock at different times, and clocks are set back.
    #[inline]
    pub fn age_ms(self, now_ms: u64) -> u64 {
        const AHEAD_MAX: u32 = 1 << 20;
        let ticks = Self::at(now_ms).0.wrapping_sub(self.0);
        let is_ahead = ticks > u32::MAX - AHEAD_MAX;
        if is_ahead {
            0
        } else {
            u64::from(ticks) << Self::TICK_SHIFT
        }
    }
}

/// An entry as it travels: to another owner, or later to a replica or a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub tenant: TenantId,
    /// The key.
    pub key: Box<[u8]>,
    /// Its value.
    pub value: Value,
    /// When it ceases to exist, in milliseconds since the Unix epoch; `None` for never.
    pub expires_at_ms: Option<u64>,
    /// How long it has not been used, in milliseconds.
    pub idle_ms: u64,
}

impl Entry {
    /// A copy of a tenant's entry of the store.
    pub fn of(tenant: TenantId, stored: &Stored, now_ms: u64) -> Self {
        Self {
            tenant,
            key: stored.key().into(),
            value: stored.value().to_value(),
            expires_at_ms: stored.expires_at_ms(),
            idle_ms: stored.idle_ms(now_ms),
        }
    }
}
