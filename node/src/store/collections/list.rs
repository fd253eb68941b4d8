//! Lists: a row of chunks, each with some elements in one allocation.

use std::collections::VecDeque;

use super::packed::Packed;
use crate::store::memory::allocation_bytes;

/// A chunk has at most so many elements.
const CHUNK_LEN_MAX: usize = 128;

/// A chunk of several elements has at most so many bytes.
const CHUNK_BYTES_MAX: usize = 8 << 10;

/// A list.
#[derive(Debug, Default)]
pub struct List {
    /// None of them is empty.
    chunks: VecDeque<Packed>,
    len: usize,
    /// What the chunks allocate.
    chunks_bytes: u64,
}

impl List {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What it allocates, itself not included.
    pub fn heap_bytes(&self) -> u64 {
        self.chunks_bytes + allocation_bytes(self.chunks.capacity() * size_of::<Packed>())
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().flat_map(Packed::iter)
    }

    /// The elements from an index on.
    pub fn iter_from(&self, index: usize) -> impl Iterator<Item = &[u8]> {
        let (chunk, offset) = self.locate(index);
        self.chunks
            .range(chunk.min(self.chunks.len())..)
            .flat_map(Packed::iter)
            .skip(offset)
    }

    /// The elements from the last to the first.
    pub fn iter_reversed(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks.iter().rev().flat_map(|chunk| {
            let mut items: Vec<_> = chunk.iter().collect();
            items.reverse();
            items
        })
    }

    /// The element at an index.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (chunk, offset) = self.locate(index);
        self.chunks.get(chunk)?.get(offset)
    }

    /// Adds an element before the first.
    pub fn push_front(&mut self, item: &[u8]) {
        if self.chunks.front().is_none_or(|chunk| is_full(chunk, item.len())) {
            self.chunks.push_front(Packed::default());
        }
        self.change(0, |chunk| chunk.splice(0, 0, &[item]));
    }

    /// Adds an element behind the last.
    pub fn push_back(&mut self, item: &[u8]) {
        if self.chunks.back().is_none_or(|chunk| is_full(chunk, item.len())) {
            self.chunks.push_back(Packed::default());
        }
        self.change(self.chunks.len() - 1, |chunk| chunk.push(item));
    }

    /// Replaces the element at an index below [`Self::len`].
    pub fn set(&mut self, index: usize, item: &[u8]) {
        let (at, offset) = self.locate(index);
        let chunk = &self.chunks[at];
        if chunk.len() == 1 || chunk.byte_len() + item.len() <= CHUNK_BYTES_MAX {
            self.change(at, |chunk| chunk.splice(offset, 1, &[item]));
        } else {
            self.remove(index, 1);
            self.insert(index, item);
        }
    }

    /// Adds an element before the one at an index, which may be [`Self::len`].
    pub fn insert(&mut self, index: usize, item: &[u8]) {
        if index >= self.len {
            return self.push_back(item);
        }
        let (mut at, mut offset) = self.locate(index);
        if is_full(&self.chunks[at], item.len()) {
            // The new element goes between two chunks, to the end of the first if there is room.
            if offset > 0 {
                let tail = self.change(at, |chunk| chunk.split_off(offset));
                self.chunks_bytes += tail.heap_bytes();
                self.len += tail.len();
                at += 1;
                self.chunks.insert(at, tail);
            }
            match at.checked_sub(1) {
                Some(before) if !is_full(&self.chunks[before], item.len()) => {
                    at = before;
                    offset = self.chunks[at].len();
                }
                _ => {
                    self.chunks.insert(at, Packed::default());
                    offset = 0;
                }
            }
        }
        self.change(at, |chunk| chunk.splice(offset, 0, &[item]));
    }

    /// Removes the elements from `index` to before `index + count`.
    pub fn remove(&mut self, index: usize, count: usize) {
        let mut left = count.min(self.len.saturating_sub(index));
        let (mut at, mut offset) = self.locate(index);
        while left > 0 {
            let len = self.chunks[at].len();
            let removed = left.min(len - offset);
            if removed == len {
                self.drop_chunk(at);
            } else {
                self.change(at, |chunk| chunk.splice(offset, removed, &[]));
                at += 1;
            }
            left -= removed;
            offset = 0;
        }
        self.join_around(at);
        self.give_back();
    }

    /// Keeps the elements from `start` to before `end`.
    pub fn trim(&mut self, start: usize, end: usize) {
        self.remove(end, self.len);
        self.remove(0, start);
    }

    /// Takes the first elements equal to `item` away, at most `count` of them, from the end when `reversed`, and
    /// says how many those were.
    pub fn remove_equal(&mut self, item: &[u8], count: usize, reversed: bool) -> usize {
        let equal = |(index, found): (usize, &[u8])| (found == item).then_some(index);
        let mut doomed: Vec<usize> = if reversed {
            let from_end = self.iter_reversed().enumerate().filter_map(equal);
            from_end.take(count).map(|index| self.len - 1 - index).collect()
        } else {
            self.iter().enumerate().filter_map(equal).take(count).collect()
        };
        doomed.sort_unstable();
        // One by one costs a search each; many at once are cheaper to leave out of a copy.
        if doomed.len() <= 8 {
            for index in doomed.iter().rev() {
                self.remove(*index, 1);
            }
        } else {
            let mut kept = Self::default();
            let mut next = doomed.iter().peekable();
            for (index, found) in self.iter().enumerate() {
                if next.next_if(|doomed| **doomed == index).is_none() {
                    kept.push_back(found);
                }
            }
            *self = kept;
        }
        doomed.len()
    }

    /// The chunk of an index and the index in it; behind the last chunk for an index behind the last element.
    fn locate(&self, index: usize) -> (usize, usize) {
        if index >= self.len {
            return (self.chunks.len(), 0);
        }
        if index < self.len / 2 {
            let mut rest = index;
            for (at, chunk) in self.chunks.iter().enumerate() {
                if rest < chunk.len() {
                    return (at, rest);
                }
                rest -= chunk.len();
            }
        } else {
            let mut start = self.len;
            for (at, chunk) in self.chunks.iter().enumerate().rev() {
                start -= chunk.len();
                if index >= start {
                    return (at, index - start);
                }
            }
        }
        (self.chunks.len(), 0)
    }

    /// Changes a chunk and keeps count.
    fn change<T>(&mut self, at: usize, change: impl FnOnce(&mut Packed) -> T) -> T {
        let chunk = &mut self.chunks[at];
        self.chunks_bytes -= chunk.heap_bytes();
        self.len -= chunk.len();
        let result = change(chunk);
        self.chunks_bytes += chunk.heap_bytes();
        self.len += chunk.len();
        result
    }

    fn drop_chunk(&mut self, at: usize) {
        if let Some(chunk) = self.chunks.remove(at) {
            self.chunks_bytes -= chunk.heap_bytes();
            self.len -= chunk.len();
        }
    }

    /// Joins the chunk at `at` with the one before it when both are nearly empty.
    fn join_around(&mut self, at: usize) {
        let Some(before) = at.checked_sub(1) else { return };
        let (Some(left), Some(right)) = (self.chunks.get(before), self.chunks.get(at)) else {
            return;
        };
        if left.len() + right.len() <= CHUNK_LEN_MAX / 2
            && left.byte_len() + right.byte_len() <= CHUNK_BYTES_MAX / 2
        {
            let right = right.clone();
            self.drop_chunk(at);
            self.change(before, |left| left.append(&right));
        }
    }

    fn give_back(&mut self) {
        const CHUNKS_MIN: usize = 16;
        if self.chunks.capacity() > 4 * self.chunks.len().max(CHUNKS_MIN) {
            self.chunks.shrink_to(2 * self.chunks.len());
        }
    }
}

/// Whether an element of that length must go elsewhere.
fn is_full(chunk: &Packed, item_len: usize) -> bool {
    !chunk.is_empty() && (chunk.len() >= CHUNK_LEN_MAX || chunk.byte_len() + item_len > CHUNK_BYTES_MAX)
}

impl Clone for List {
    fn clone(&self) -> Self {
        let chunks = self.chunks.clone();
        Self {
            chunks_bytes: chunks.iter().map(Packed::heap_bytes).sum(),
            chunks,
            len: self.len,
        }
    }
}

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for List {}
