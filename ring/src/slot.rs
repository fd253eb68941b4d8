//! Slots: the 16384 positions of the ring, computed as Redis Cluster does.
//!
//! Source: Redis Cluster specification, "Key distribution model" and "Hash tags" (CRC16/XMODEM, polynomial
//! 0x1021, initial value 0).

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many slots there are.
pub const SLOT_COUNT: u16 = 16_384;

/// A number that is not a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("slot {0} is out of range, it must be 0 to 16383")]
pub struct SlotError(pub u64);

/// One position of the ring, 0 to 16383.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Slot(u16);

impl Slot {
    /// The last slot.
    pub const MAX: Self = Self(SLOT_COUNT - 1);
    /// The first slot.
    pub const ZERO: Self = Self(0);

    /// The slot of that number.
    pub fn new(number: u16) -> Result<Self, SlotError> {
        if number < SLOT_COUNT {
            Ok(Self(number))
        } else {
            Err(SlotError(number.into()))
        }
    }

    /// The slot of a key: of its hash tag when it has one, otherwise of the whole key.
    #[inline]
    pub fn for_key(key: &[u8]) -> Self {
        Self(crc16(hash_tag(key)) % SLOT_COUNT)
    }

    /// The slot's number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The slot's number, to index with.
    #[inline]
    pub fn index(self) -> usize {
        self.0.into()
    }

    /// All slots in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..SLOT_COUNT).map(Self)
    }

    /// The slots from `first` to `last`, both included; none when `last` comes before `first`.
    pub(crate) fn between(
        first: Self,
        last: Self,
    ) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (first.0..=last.0).map(Self)
    }

    /// The slot at an index below [`SLOT_COUNT`]; higher ones wrap around.
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below 16384")]
    pub(crate) fn wrapping(index: usize) -> Self {
        Self((index % SLOT_COUNT as usize) as u16)
    }
}

impl TryFrom<u16> for Slot {
    type Error = SlotError;

    fn try_from(number: u16) -> Result<Self, SlotError> {
        Self::new(number)
    }
}

impl TryFrom<u32> for Slot {
    type Error = SlotError;

    fn try_from(number: u32) -> Result<Self, SlotError> {
        u16::try_from(number)
            .ok()
            .and_then(|n| Self::new(n).ok())
            .ok_or(SlotError(number.into()))
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> Self {
        slot.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The part of the key that is hashed: what stands between the first `{` and the first `}` after it, unless
/// that is empty.
#[inline]
fn hash_tag(key: &[u8]) -> &[u8] {
    // Most keys have none, and a search for one byte is far quicker than for its position.
    if !key.contains(&b'{') {
        return key;
    }
    let tag = key.iter().position(|&b| b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter()
            .position(|&b| b == b'}')
            .filter(|&len| len > 0)
            .map(|len| &rest[..len])
    });
    tag.unwrap_or(key)
}

/// Bytes that one step takes.
const CRC16_STEP: usize = 8;

/// What a byte adds to the checksum when so many others follow it in the same step (Kounavis, Berry: "Novel
/// table lookup-based algorithms for high-performance CRC generation", 2008).
#[expect(clippy::cast_possible_truncation, reason = "the index is below 256")]
static CRC16_TABLES: [[u16; 256]; CRC16_STEP] = {
    let mut tables = [[0; 256]; CRC16_STEP];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        tables[0][index] = crc;
        index += 1;
    }
    let mut following = 1;
    while following < CRC16_STEP {
        index = 0;
        while index < 256 {
            let crc = tables[following - 1][index];
            tables[following][index] = (crc << 8) ^ tables[0][(crc >> 8) as usize];
            index += 1;
        }
        following += 1;
    }
    tables
};

fn crc16(bytes: &[u8]) -> u16 {
    let mut steps = bytes.chunks_exact(CRC16_STEP);
    let mut crc = 0u16;
    for step in &mut steps {
        let [high, low] = crc.to_be_bytes();
        let table = |following: usize, byte: u8| CRC16_TABLES[following][usize::from(byte)];
        crc = table(7, step[0] ^ high)
            ^ table(6, step[1] ^ low)
            ^ table(5, step[2])
            ^ table(4, step[3])
            ^ table(3, step[4])
            ^ table(2, step[5])
            ^ table(1, step[6])
            ^ table(0, step[7]);
    }
    steps.remainder().iter().fold(crc, |crc, &byte| {
        let [high, low] = crc.to_be_bytes();
        u16::from_be_bytes([low, 0]) ^ CRC16_TABLES[0][usize::from(high ^ byte)]
    })
}
