//! The values that have elements: hashes, sets, lists and sorted sets.
//!
//! Each is compact while it is small (one allocation for all elements, searched from front to back) and changes
//! to a table, chunks or a tree when it grows; it doesn't change back. Each knows at any time what it
//! allocates, so that a change of one element costs the accounting nothing that depends on the others.

mod hash;
mod list;
mod order;
mod packed;
mod set;
mod sorted_set;
mod table;

pub use hash::Hash;
pub use list::List;
pub use packed::{read_framed, write_framed};
pub use set::Set;
pub use sorted_set::{SortedSet, compare};

/// A compact collection has at most so many elements.
const COMPACT_LEN_MAX: usize = 128;

/// An element of a compact collection has at most so many bytes.
const COMPACT_ELEMENT_BYTES_MAX: usize = 64;

/// The part of a large collection that a scan sees next, and the cursor behind it.
///
/// A scan goes from the last position to the first. An element that goes is replaced by the last one, and
/// new ones come last: so none ever moves from the part not yet seen into the part that was, and each that is
/// there all the time is seen.
fn scan_window(len: usize, cursor: u64, count: usize) -> (std::ops::Range<usize>, u64) {
    let end = match usize::try_from(cursor) {
        Ok(end @ 1..) => end.min(len),
        Ok(0) | Err(_) => len,
    };
    let start = end.saturating_sub(count);
    (start..end, start as u64)
}

#[cfg(test)]
mod tests;
