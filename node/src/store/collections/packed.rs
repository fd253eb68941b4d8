//! Several byte strings in one allocation: each as its length in base 128, lowest digits first, and its bytes.

use std::iter::FusedIterator;

use crate::store::memory::allocation_bytes;

/// A length as it is written before a byte string.
struct Frame {
    digits: [u8; Self::DIGITS_MAX],
    len: usize,
}

impl Frame {
    const DIGITS_MAX: usize = 10;

    fn new(len: usize) -> Self {
        let (mut digits, mut count, mut rest) = ([0; Self::DIGITS_MAX], 0, len);
        loop {
            let [digit, ..] = (rest & 0x7f).to_le_bytes();
            rest >>= 7;
            digits[count] = if rest > 0 { digit | 0x80 } else { digit };
            count += 1;
            if rest == 0 {
                break Self { digits, len: count };
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.len]
    }
}

/// Appends a byte string that is given in pieces, with its length before it.
pub fn write_framed(buffer: &mut Vec<u8>, pieces: &[&[u8]]) {
    let len = pieces.iter().map(|piece| piece.len()).sum();
    buffer.extend_from_slice(Frame::new(len).as_bytes());
    for piece in pieces {
        buffer.extend_from_slice(piece);
    }
}

/// Where the first byte string begins and ends, which may be behind the last byte; `None` when its length isn't
/// complete or isn't one.
#[inline]
pub fn read_framed(bytes: &[u8]) -> Option<(usize, usize)> {
    // 35 bits; nothing is near that size.
    const DIGITS_MAX: usize = 5;
    let mut len = 0usize;
    for (place, &byte) in bytes.iter().enumerate().take(DIGITS_MAX) {
        len |= usize::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            return Some((place + 1, place + 1 + len));
        }
    }
    None
}

fn framed_len(len: usize) -> usize {
    Frame::new(len).len + len
}

/// A sequence of byte strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    bytes: Vec<u8>,
    len: usize,
}

impl Packed {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes in use.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// What it allocates.
    #[inline]
    pub fn heap_bytes(&self) -> u64 {
        allocation_bytes(self.bytes.capacity())
    }

    /// The byte strings in order.
    #[inline]
    pub fn iter(&self) -> PackedIter<'_> {
        PackedIter { rest: &self.bytes }
    }

    /// The byte string at an index.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.iter().nth(index)
    }

    /// Adds one at the end.
    pub fn push(&mut self, item: &[u8]) {
        self.splice(self.len, 0, &[item]);
    }

    /// Replaces `removed` byte strings from `index` on by these.
    pub fn splice(&mut self, index: usize, removed: usize, items: &[&[u8]]) {
        let start = if index >= self.len {
            self.bytes.len()
        } else {
            self.skip(0, index)
        };
        let end = self.skip(start, removed);
        let added: usize = items.iter().map(|item| framed_len(item.len())).sum();
        let old_len = self.bytes.len();
        let len = old_len - (end - start) + added;
        if len > old_len {
            self.grow_to(len);
            self.bytes.resize(len, 0);
        }
        self.bytes.copy_within(end..old_len, start + added);
        self.bytes.truncate(len);
        let mut at = start;
        for item in items {
            for part in [Frame::new(item.len()).as_bytes(), item] {
                self.bytes[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
        }
        self.len = self.len + items.len() - removed.min(self.len - index.min(self.len));
        self.give_back();
    }

    /// Takes the byte strings from `index` on into another sequence.
    pub fn split_off(&mut self, index: usize) -> Self {
        let index = index.min(self.len);
        let start = self.skip(0, index);
        let tail = Self {
            bytes: self.bytes[start..].to_vec(),
            len: self.len - index,
        };
        self.bytes.truncate(start);
        self.len = index;
        self.give_back();
        tail
    }

    /// Adds those of another sequence at the end.
    pub fn append(&mut self, other: &Self) {
        self.grow_to(self.bytes.len() + other.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.len += other.len;
    }

    /// Where the byte string `count` places after the one at `from` begins.
    fn skip(&self, from: usize, count: usize) -> usize {
        let mut at = from;
        for _ in 0..count {
            match read_framed(&self.bytes[at..]) {
                Some((_, end)) => at += end,
                None => break,
            }
        }
        at
    }

    /// Makes room with a little to spare, so that growing bit by bit doesn't copy everything each time.
    fn grow_to(&mut self, len: usize) {
        const SPARE_MAX: usize = 1 << 10;
        if len > self.bytes.capacity() {
            // What the allocator would round up anyway is used.
            let spare = (len / 8).min(SPARE_MAX);
            let capacity = (len + spare + 8).next_multiple_of(16).max(32) - 8;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
    }

    fn give_back(&mut self) {
        const SLACK: usize = 64;
        if self.bytes.capacity() > 2 * self.bytes.len() + SLACK {
            self.bytes.shrink_to(self.bytes.len() + self.bytes.len() / 8);
        }
    }
}

/// The byte strings of a [`Packed`].
#[derive(Debug, Clone)]
pub struct PackedIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for PackedIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (start, end) = read_framed(self.rest)?;
        let (item, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        item.get(start..)
    }
}

impl FusedIterator for PackedIter<'_> {}
