//! What entries cost in memory: the formula that the budget counts with.
//!
//! An entry costs what the allocator takes for the one piece of memory that header, key and string stand in
//! ([`super::Stored`]), and a slot costs its index, 8 bytes a bucket. `allocation_bytes` follows the GNU allocator on 64 bits: a chunk has 8 bytes of its own, is a
//! multiple of 16 and at least 32; from 128 KiB a request gets pages of its own.
//!
//! A collection costs each of its allocations by the same formula, with the room in it that is not used yet; it
//! keeps their sum as it changes ([`super::collections`]).
//!
//! `tests/memory.rs` holds the formula against a counting allocator. What it leaves out, the fragmentation of
//! the heap and 1 MiB for the slots themselves, is what the headroom under the container's limit is for.

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
}
