//! Buffers that the connections of a thread lend each other.
//!
//! A connection needs buffers only while a command or a reply is under way. What it has no use for goes back to
//! its thread's pool, so that ten thousand idle connections hold none.

use std::cell::RefCell;

use bytes::BytesMut;

/// A read asks the kernel for up to so much.
pub const READ_BYTES: usize = 32 << 10;

/// Larger buffers are given back to the allocator, and so is what goes beyond so many.
const KEPT_BYTES_MAX: usize = 2 * READ_BYTES;
const KEPT_MAX: usize = 16;

#[derive(Default)]
struct Pool {
    inputs: Vec<BytesMut>,
    outputs: Vec<Vec<u8>>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// An empty buffer with room for a read.
pub fn take_input() -> BytesMut {
    let pooled = POOL.with_borrow_mut(|pool| pool.inputs.pop());
    pooled.unwrap_or_else(|| BytesMut::with_capacity(READ_BYTES))
}

/// Gives a buffer back.
pub fn give_input(mut buffer: BytesMut) {
    buffer.clear();
    // What was consumed in front counts again once everything was.
    if buffer.try_reclaim(READ_BYTES) && buffer.capacity() <= KEPT_BYTES_MAX {
        POOL.with_borrow_mut(|pool| {
            if pool.inputs.len() < KEPT_MAX {
                pool.inputs.push(buffer);
            }
        });
    }
}

/// An empty buffer for replies.
pub fn take_output() -> Vec<u8> {
    POOL.with_borrow_mut(|pool| pool.outputs.pop())
        .unwrap_or_default()
}

/// Gives a buffer back.
pub fn give_output(mut buffer: Vec<u8>) {
    buffer.clear();
    if (1..=KEPT_BYTES_MAX).contains(&buffer.capacity()) {
        POOL.with_borrow_mut(|pool| {
            if pool.outputs.len() < KEPT_MAX {
                pool.outputs.push(buffer);
            }
        });
    }
}

/// Room is made for so much of a body at once, and then for as much as has come.
const ROOM_BYTES_MIN: usize = 64 << 10;

/// Makes room in a body's buffer for a piece that has come, and for more that is missing: never for more than has come, nor beyond
/// the end.
pub fn make_room(buffer: &mut BytesMut, piece_bytes: usize, missing_bytes: u64) {
    let needed = buffer.len() + piece_bytes;
    if needed <= buffer.capacity() {
        return;
    }
    let missing = usize::try_from(missing_bytes).unwrap_or(usize::MAX);
    let ahead = missing.min(needed.max(ROOM_BYTES_MIN));
    // Growing in place would double what there is, however little is missing.
    let mut larger = BytesMut::with_capacity(needed.saturating_add(ahead));
    larger.extend_from_slice(buffer);
    *buffer = larger;
}
