//! A collection as a row of bytes, which may be cut anywhere, and back.
//!
//! Every element is its length in base 128, lowest digits first, and its bytes. A hash is field, value, field, value
//! …; a sorted set's element is the score's eight bytes, lowest first, and the member. The order is kept, so
//! that scans go on where they were.

use super::VALUE_BYTES_MAX;
use super::chunk::JoinError;
use crate::store::collections::{Hash, List, Set, SortedSet, read_framed, write_framed};
use crate::store::{Collection, Value};

/// The elements of a collection in order; empty for a string.
pub fn write_elements(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    match value {
        Value::Int(_) | Value::Bytes(_) => {}
        Value::Hash(hash) => {
            for (field, value) in hash.iter() {
                write_framed(&mut bytes, &[field]);
                write_framed(&mut bytes, &[value]);
            }
        }
        Value::List(list) => list.iter().for_each(|item| write_framed(&mut bytes, &[item])),
        Value::Set(set) => set.iter().for_each(|member| write_framed(&mut bytes, &[member])),
        Value::SortedSet(set) => {
            for (member, score) in set.iter_as_kept() {
                write_framed(&mut bytes, &[&score.to_le_bytes(), member]);
            }
        }
    }
    bytes
}

/// A collection that is being read.
#[derive(Debug)]
pub struct Elements<C> {
    collection: C,
    /// The beginning of an element whose end has not come yet.
    rest: Vec<u8>,
}

/// A type of collection, read element by element.
pub trait ReadElement: Collection {
    /// Reads the first element of `bytes` if it is complete, and says where it ends.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, JoinError>;

    /// What the collection allocates.
    fn allocated(&self) -> u64;
}

impl<C: ReadElement> Elements<C> {
    pub fn new() -> Self {
        Self {
            collection: C::default(),
            rest: Vec::new(),
        }
    }

    /// Reads the next bytes. Never holds more than `bytes_max` and one element.
    pub fn read(&mut self, bytes: &[u8], bytes_max: u64) -> Result<(), JoinError> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(len) = self.collection.read(&self.rest[at..])? {
            at += len;
            if self.collection.allocated() > bytes_max {
                return Err(JoinError::TooLarge);
            }
        }
        self.rest.drain(..at);
        Ok(())
    }

    /// The collection, once all its bytes were read.
    pub fn finish(self) -> Result<Value, JoinError> {
        if self.collection.is_empty() || !self.rest.is_empty() {
            return Err(JoinError::Malformed);
        }
        Ok(self.collection.into_value())
    }
}

/// The first framed byte string, if it is complete, and where it ends.
fn framed(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, JoinError> {
    const LENGTH_DIGITS_MAX: usize = 5;
    match read_framed(bytes) {
        None if bytes.len() >= LENGTH_DIGITS_MAX => Err(JoinError::Malformed),
        None => Ok(None),
        Some((start, end)) if end - start > VALUE_BYTES_MAX + size_of::<f64>() => Err(JoinError::TooLarge),
        Some((start, end)) => Ok(bytes.get(start..end).map(|found| (found, end))),
    }
}

/// Where a sound element ends. One that was there before, or can't be in such a collection, is none.
fn expect(is_sound: bool, end: usize) -> Result<Option<usize>, JoinError> {
    if is_sound {
        Ok(Some(end))
    } else {
        Err(JoinError::Malformed)
    }
}

impl ReadElement for Hash {
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, JoinError> {
        let Some((field, middle)) = framed(bytes)? else {
            return Ok(None);
        };
        let Some((value, len)) = framed(&bytes[middle..])? else {
            return Ok(None);
        };
        expect(self.set(field, value), middle + len)
    }

    fn allocated(&self) -> u64 {
        self.heap_bytes()
    }
}

impl ReadElement for List {
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, JoinError> {
        let Some((item, end)) = framed(bytes)? else {
            return Ok(None);
        };
        self.push_back(item);
        Ok(Some(end))
    }

    fn allocated(&self) -> u64 {
        self.heap_bytes()
    }
}

impl ReadElement for Set {
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, JoinError> {
        let Some((member, end)) = framed(bytes)? else {
            return Ok(None);
        };
        expect(self.insert(member), end)
    }

    fn allocated(&self) -> u64 {
        self.heap_bytes()
    }
}

impl ReadElement for SortedSet {
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, JoinError> {
        let Some((element, end)) = framed(bytes)? else {
            return Ok(None);
        };
        let (score, member) = element.split_first_chunk().ok_or(JoinError::Malformed)?;
        let score = f64::from_le_bytes(*score);
        let is_new = self.score(member).is_none();
        if is_new && !score.is_nan() {
            self.insert(member, score);
        }
        expect(is_new && !score.is_nan(), end)
    }

    fn allocated(&self) -> u64 {
        self.heap_bytes()
    }
}
