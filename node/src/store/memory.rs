//! What an entry costs in memory: the formula that the budget counts with.
//!
//! An entry costs what the allocator takes for its node in the recency list, its key and its value; a slot
//! that holds entries costs its index beside. `allocation_bytes` follows the GNU allocator on 64 bits: a
//! chunk has 8 bytes of its own, is a multiple of 16 and at least 32; from 128 KiB a request gets pages of
//! its own. The index is a table with a power of two of buckets, at most 7/8 full, 17 bytes a bucket; in a
//! large slot that loses entries it is taken to be twice as large.
//!
//! A collection costs each of its allocations by the same formula, with the room in it that is not used yet; it
//! keeps their sum as it changes ([`super::collections`]).
//!
//! `tests/memory.rs` holds the formula against a counting allocator. What it leaves out, the fragmentation of
//! the heap, is what the headroom under the container's limit is for.

use super::slot_map::ENTRY_NODE_BYTES;

/// What one allocation of that many bytes takes.
#[inline]
pub const fn allocation_bytes(requested: usize) -> u64 {
    const PAGE: usize = 4096;
    const OWN_PAGES_FROM: usize = 128 << 10;
    let taken = match requested {
        0 => 0,
        1..=24 => 32,
        25..OWN_PAGES_FROM => (requested + 8).next_multiple_of(16),
        _ => (requested + 16).next_multiple_of(PAGE),
    };
    taken as u64
}

/// What an entry takes with a key of that length, beside what its value allocates.
#[inline]
pub const fn entry_bytes(key_len: usize) -> u64 {
    allocation_bytes(ENTRY_NODE_BYTES) + allocation_bytes(key_len)
}

/// What the index of a slot takes that held at most that many entries since it was last empty.
pub const fn index_bytes(entries_max: usize) -> u64 {
    const BUCKET: usize = 16 + 1;
    let buckets = match entries_max {
        0 => return 0,
        1..4 => 4,
        4..8 => 8,
        _ => (entries_max * 8 / 7).next_power_of_two(),
    };
    allocation_bytes(buckets * BUCKET + 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_a_chunk() {
        let table = [
            (0, 0),
            (1, 32),
            (24, 32),
            (25, 48),
            (40, 48),
            (41, 64),
            (64, 80),
            (131_071, 131_088),
            (131_072, 135_168),
        ];
        for (requested, taken) in table {
            assert_eq!(allocation_bytes(requested), taken, "{requested}");
        }
    }

    #[test]
    fn an_index_grows_by_doubling() {
        let table = [
            (0, 0),
            (1, 96),
            (3, 96),
            (4, 160),
            (7, 160),
            (8, 304),
            (14, 304),
            (15, 576),
            (28, 576),
            (29, 1120),
        ];
        for (entries, taken) in table {
            assert_eq!(index_bytes(entries), taken, "{entries}");
        }
    }
}
