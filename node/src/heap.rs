//! The GNU allocator, told to give memory back.
//!
//! By itself it learns from large values that are freed: it then takes the next ones, up to 32 MiB, from the same heap
//! as small entries, where the holes that they leave are seldom whole enough to be used again. Held at its first
//! threshold it gives each large value pages of its own, as [`crate::store::memory`] counts them, and the kernel has
//! them back at once. With another allocator nothing here does anything.

use std::fs;

/// A request of so much gets pages of its own.
#[cfg(target_env = "gnu")]
const OWN_PAGES_FROM_BYTES: libc::c_int = 128 << 10;

/// So much may be free at the heap's end before it is given back.
#[cfg(target_env = "gnu")]
const FREE_END_BYTES: libc::c_int = 1 << 20;

/// Sets the thresholds. To be called before there are other threads.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "the allocator is set by the C library alone")
)]
pub fn tune() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_MMAP_THRESHOLD, OWN_PAGES_FROM_BYTES),
        (libc::M_TRIM_THRESHOLD, FREE_END_BYTES),
    ] {
        // SAFETY: it takes two numbers and touches nothing but the allocator's settings, behind the allocator's lock.
        let done = unsafe { libc::mallopt(parameter, value) };
        if done == 0 {
            tracing::warn!(parameter, value, "the allocator refuses a setting");
        }
    }
}

/// Gives back to the kernel all whole pages that are free. Looks at the whole heap.
#[cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "the allocator is asked by the C library alone")
)]
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number and gives back what nobody has; allocations are left as they are.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the process has in memory; `None` where the kernel doesn't say.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
