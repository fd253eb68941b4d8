//! A slot's entries as messages, and back.
//!
//! What fits is packed into chunks of about [`CHUNK_BYTES_MAX`]. A larger entry is cut: first its key, then its
//! value, each part the last of its chunk, all but the last part marked `continued`. [`Joiner`] is the inverse
//! and refuses what would grow without bound.

use annulus_proto::v1::{self, entry};
use bytes::Bytes;

use super::{CHUNK_BYTES_MAX, VALUE_BYTES_MAX};
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
        Some(entry::Value::Text(text)) => text.len(),
        None => 0,
    }
}

/// The parts of an entry: one when it fits into a chunk.
fn cut(entry: Entry) -> impl Iterator<Item = v1::Entry> {
    let expires_at_ms = entry.expires_at_ms.unwrap_or(0);
    let mut key = Bytes::from(entry.key);
    let mut text = Bytes::from(entry.value.into_vec());
    let part_max = CHUNK_BYTES_MAX - FRAME_BYTES;
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let key_part = key.split_to(key.len().min(part_max));
        let text_part = text.split_to(text.len().min(part_max - key_part.len()));
        done = key.is_empty() && text.is_empty();
        Some(v1::Entry {
            key: key_part,
            expires_at_ms,
            value: Some(entry::Value::Text(text_part)),
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
    /// Beyond what any client could have written.
    #[error("an entry is larger than 512 MiB")]
    TooLarge,
    /// The last entry lacks its end.
    #[error("the last entry is not complete")]
    Incomplete,
}

/// Joins parts into entries.
#[derive(Debug, Default)]
pub struct Joiner {
    partial: Option<(Vec<u8>, Vec<u8>)>,
}

impl Joiner {
    /// The entries that a chunk completes.
    pub fn join(&mut self, chunk: Vec<v1::Entry>) -> Result<Vec<Entry>, JoinError> {
        let mut entries = Vec::with_capacity(chunk.len());
        for part in chunk {
            let Some(entry::Value::Text(text)) = part.value else {
                return Err(JoinError::UnknownValue);
            };
            let expires_at_ms = Some(part.expires_at_ms).filter(|&ms| ms > 0);
            if self.partial.is_none() && !part.continued {
                let value = Value::from_bytes(&text);
                entries.push(Entry {
                    key: part.key.to_vec().into(),
                    value,
                    expires_at_ms,
                });
                continue;
            }
            let (mut key, mut value) = self.partial.take().unwrap_or_default();
            key.extend_from_slice(&part.key);
            value.extend_from_slice(&text);
            if key.len() > VALUE_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
                return Err(JoinError::TooLarge);
            }
            if part.continued {
                self.partial = Some((key, value));
            } else {
                entries.push(Entry {
                    key: key.into(),
                    value: Value::from(value),
                    expires_at_ms,
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
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn entry(key: usize, value: usize, expires_at_ms: Option<u64>) -> Entry {
        let bytes = |len: usize, first: u8| {
            (0..len)
                .map(|i| first.wrapping_add(i.to_le_bytes()[0]))
                .collect::<Vec<_>>()
        };
        Entry {
            key: bytes(key, 0).into(),
            value: Value::from(bytes(value, 7)),
            expires_at_ms,
        }
    }

    fn assert_comes_back(entries: &[Entry]) -> usize {
        let chunks = pack(entries.to_vec());
        let count = chunks.len();
        let mut joiner = Joiner::default();
        let mut found = Vec::new();
        for entries in chunks {
            let chunk = v1::SlotChunk {
                entries,
                freeze_id: u64::MAX,
            };
            assert!(
                chunk.encoded_len() <= CHUNK_BYTES_MAX + 64,
                "{}",
                chunk.encoded_len()
            );
            found.extend(joiner.join(chunk.entries).unwrap());
        }
        joiner.finish().unwrap();
        assert_eq!(found, entries);
        count
    }

    #[test]
    fn entries_are_packed_into_bounded_chunks_and_come_back() {
        let mib = 1 << 20;
        let table: [(&str, Vec<Entry>, usize); 7] = [
            ("no entry", vec![], 0),
            ("empty key and value", vec![entry(0, 0, None)], 1),
            (
                "small ones share a chunk",
                vec![entry(3, 9, Some(5)), entry(4, 0, None)],
                1,
            ),
            (
                "a value that just fits",
                vec![entry(0, mib - FRAME_BYTES, None)],
                1,
            ),
            ("one byte more", vec![entry(1, mib - FRAME_BYTES, Some(1))], 2),
            (
                "large among small",
                vec![entry(1, 1, None), entry(2, 3 * mib, Some(9)), entry(3, 3, None)],
                5,
            ),
            ("a large key too", vec![entry(2 * mib, 2 * mib, None)], 5),
        ];
        for (name, entries, chunks) in table {
            assert_eq!(assert_comes_back(&entries), chunks, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_sizes_come_back(sizes in prop::collection::vec(
            (0..400_usize, 0..700_000_usize, prop::option::of(1..9_u64)),
            0..9,
        )) {
            let entries = sizes.into_iter().map(|(key, value, expiry)| entry(key, value, expiry));
            assert_comes_back(&entries.collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_lacks_its_end_or_its_type_is_refused() {
        let part = |continued| v1::Entry {
            key: "k".into(),
            expires_at_ms: 0,
            value: Some(entry::Value::Text("v".into())),
            continued,
        };
        let mut joiner = Joiner::default();
        assert_eq!(joiner.join(vec![part(true)]), Ok(vec![]));
        assert_eq!(joiner.finish(), Err(JoinError::Incomplete));
        let unknown = v1::Entry {
            value: None,
            ..part(false)
        };
        assert_eq!(
            Joiner::default().join(vec![unknown]),
            Err(JoinError::UnknownValue)
        );
    }
}
