//! A slot's entries as messages, and back.
//!
//! What fits is packed into chunks of about [`CHUNK_BYTES_MAX`]. A larger entry is cut: first its key, then its
//! value (a collection as [`super::elements`] writes it), each part the last of its chunk, all but the last part marked `continued`. [`Joiner`] is the inverse
//! and refuses what would grow without bound.

use annulus_proto::tenants::TenantId;
use annulus_proto::v1::{self, entry};
use bytes::Bytes;

use super::elements::{Elements, write_elements};
use super::{CHUNK_BYTES_MAX, VALUE_BYTES_MAX};
use crate::store::collections::{Hash, List, Set, SortedSet};
use crate::store::{Entry, Value};

/// Bytes that an entry's frame takes, roughly: tags, lengths, the time of expiry.
const FRAME_BYTES: usize = 32;

/// Packs entries into chunks' contents, in order.
pub fn pack(entries: Vec<Entry>) -> Vec<Vec<v1::Entry>> {
    let mut chunks = Vec::new();
    let (mut chunk, mut chunk_bytes) = (Vec::new(), 0);
    for entry in entries {
        for part in cut(entry) {
            let part_bytes = part.key.len() + value_len(&part) + FRAME_BYTES;
            if chunk_bytes + part_bytes > CHUNK_BYTES_MAX && !chunk.is_empty() {
                chunks.push(std::mem::take(&mut chunk));
                chunk_bytes = 0;
            }
            let ends_chunk = part.continued;
            chunk_bytes += part_bytes;
            chunk.push(part);
            if ends_chunk {
                chunks.push(std::mem::take(&mut chunk));
                chunk_bytes = 0;
            }
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// Keys and values of a chunk, in bytes.
pub fn payload_bytes(entries: &[v1::Entry]) -> u64 {
    entries
        .iter()
        .map(|entry| (entry.key.len() + value_len(entry)) as u64)
        .sum()
}

fn value_len(entry: &v1::Entry) -> usize {
    match &entry.value {
        Some(
            entry::Value::Text(bytes)
            | entry::Value::Hash(bytes)
            | entry::Value::List(bytes)
            | entry::Value::Set(bytes)
            | entry::Value::SortedSet(bytes),
        ) => bytes.len(),
        None => 0,
    }
}

/// The parts of an entry: one when it fits into a chunk.
fn cut(entry: Entry) -> impl Iterator<Item = v1::Entry> {
    let (expires_at_ms, idle_ms) = (entry.expires_at_ms.unwrap_or(0), entry.idle_ms);
    let tenant = entry.tenant.0;
    let mut key = Bytes::from(entry.key);
    let wrap = match &entry.value {
        Value::Int(_) | Value::Bytes(_) => entry::Value::Text,
        Value::Hash(_) => entry::Value::Hash,
        Value::List(_) => entry::Value::List,
        Value::Set(_) => entry::Value::Set,
        Value::SortedSet(_) => entry::Value::SortedSet,
    };
    let mut value = Bytes::from(if entry.value.as_ref().is_string() {
        entry.value.into_vec()
    } else {
        write_elements(&entry.value)
    });
    let part_max = CHUNK_BYTES_MAX - FRAME_BYTES;
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let key_part = key.split_to(key.len().min(part_max));
        let value_part = value.split_to(value.len().min(part_max - key_part.len()));
        done = key.is_empty() && value.is_empty();
        Some(v1::Entry {
            key: key_part,
            expires_at_ms,
            idle_ms,
            tenant,
            value: Some(wrap(value_part)),
            continued: !done,
        })
    })
}

/// Why chunks can't be joined into entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// A type of value that this version doesn't know.
    #[error("an entry has a type of value that this version does not know; upgrade this node first")]
    UnknownValue,
    /// Beyond what any client could have written, or what this node could keep.
    #[error("an entry has a part that is larger than 512 MiB, or takes more than maxmemory")]
    TooLarge,
    /// Not what a source of this protocol sends.
    #[error("an entry's value is not well formed")]
    Malformed,
    /// The last entry lacks its end.
    #[error("the last entry is not complete")]
    Incomplete,
}

/// Joins parts into entries.
#[derive(Debug)]
pub struct Joiner {
    partial: Option<(Vec<u8>, Building)>,
    collection_bytes_max: u64,
}

/// A value of which parts have come.
#[derive(Debug)]
enum Building {
    Text(Vec<u8>),
    Hash(Elements<Hash>),
    List(Elements<List>),
    Set(Elements<Set>),
    SortedSet(Elements<SortedSet>),
}

impl Building {
    /// Nothing yet of a value of this part's type.
    fn new(part: &entry::Value) -> Self {
        match part {
            entry::Value::Text(_) => Self::Text(Vec::new()),
            entry::Value::Hash(_) => Self::Hash(Elements::new()),
            entry::Value::List(_) => Self::List(Elements::new()),
            entry::Value::Set(_) => Self::Set(Elements::new()),
            entry::Value::SortedSet(_) => Self::SortedSet(Elements::new()),
        }
    }

    /// Adds a part, which must be of the same type.
    fn add(&mut self, part: &entry::Value, bytes_max: u64) -> Result<(), JoinError> {
        match (self, part) {
            (Self::Text(text), entry::Value::Text(bytes)) => {
                if text.len() + bytes.len() > VALUE_BYTES_MAX {
                    return Err(JoinError::TooLarge);
                }
                text.extend_from_slice(bytes);
                Ok(())
            }
            (Self::Hash(hash), entry::Value::Hash(bytes)) => hash.read(bytes, bytes_max),
            (Self::List(list), entry::Value::List(bytes)) => list.read(bytes, bytes_max),
            (Self::Set(set), entry::Value::Set(bytes)) => set.read(bytes, bytes_max),
            (Self::SortedSet(set), entry::Value::SortedSet(bytes)) => set.read(bytes, bytes_max),
            _ => Err(JoinError::Malformed),
        }
    }

    fn finish(self) -> Result<Value, JoinError> {
        match self {
            Self::Text(text) => Ok(Value::from(text)),
            Self::Hash(hash) => hash.finish(),
            Self::List(list) => list.finish(),
            Self::Set(set) => set.finish(),
            Self::SortedSet(set) => set.finish(),
        }
    }
}

impl Joiner {
    /// Nothing yet. A collection that allocates more than `collection_bytes_max` is refused.
    pub fn new(collection_bytes_max: u64) -> Self {
        Self {
            partial: None,
            collection_bytes_max,
        }
    }

    /// The entries that a chunk completes.
    pub fn join(&mut self, chunk: Vec<v1::Entry>) -> Result<Vec<Entry>, JoinError> {
        let mut entries = Vec::with_capacity(chunk.len());
        for part in chunk {
            let value_part = part.value.ok_or(JoinError::UnknownValue)?;
            let expires_at_ms = Some(part.expires_at_ms).filter(|&ms| ms > 0);
            if let (None, false, entry::Value::Text(text)) = (&self.partial, part.continued, &value_part) {
                entries.push(Entry {
                    tenant: TenantId(part.tenant),
                    key: part.key.to_vec().into(),
                    value: Value::from_bytes(text),
                    expires_at_ms,
                    idle_ms: part.idle_ms,
                });
                continue;
            }
            let partial = self.partial.take();
            let (mut key, mut value) = partial.unwrap_or_else(|| (Vec::new(), Building::new(&value_part)));
            key.extend_from_slice(&part.key);
            if key.len() > VALUE_BYTES_MAX {
                return Err(JoinError::TooLarge);
            }
            value.add(&value_part, self.collection_bytes_max)?;
            if part.continued {
                self.partial = Some((key, value));
            } else {
                entries.push(Entry {
                    tenant: TenantId(part.tenant),
                    key: key.into(),
                    value: value.finish()?,
                    expires_at_ms,
                    idle_ms: part.idle_ms,
                });
            }
        }
        Ok(entries)
    }

    /// After the last chunk: nothing may be left over.
    pub fn finish(&self) -> Result<(), JoinError> {
        if self.partial.is_none() {
            Ok(())
        } else {
            Err(JoinError::Incomplete)
        }
    }
}

#[cfg(test)]
mod tests;
