//! What a client has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::settings::Shared;

/// What a client has done since it was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reads answered from memory.
    pub hits: u64,
    /// Reads of keys that were not there.
    pub misses: u64,
    /// Reads of keys that were there and not served, since no check of their node had been answered within the lease.
    pub stale_refused: u64,
    /// Reads that no node's own connection could answer, and that went the way of all other commands.
    pub passed_on: u64,
    /// Values that were not kept, since this client wrote their key while they were read.
    pub overtaken: u64,
    /// Entries that left to make room.
    pub evictions: u64,
    /// Entries that are there.
    pub entries: u64,
    /// What they take, about.
    pub bytes: u64,
    /// Invalidations received.
    pub invalidations: u64,
    /// Invalidations that a node had sent and that did not arrive.
    pub lost_invalidations: u64,
    /// How often everything that was read from a node was forgotten: lost invalidations and `FLUSHALL`.
    pub flushes: u64,
    /// Checks that were answered.
    pub checks: u64,
    /// Checks of servers that don't count their invalidations.
    pub uncounted_checks: u64,
    /// Checks whose node wasn't sure that it hadn't been replaced.
    pub refused_checks: u64,
    /// Connections made to nodes.
    pub connections: u64,
    /// Connections that ended, with whatever was read over them.
    pub connections_lost: u64,
}

impl Stats {
    pub(crate) fn of(shared: &Shared) -> Self {
        let (counts, counters) = (shared.near.counts(), &shared.counters);
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            hits: counts.hits,
            misses: counts.misses,
            stale_refused: counts.unchecked,
            passed_on: get(&counters.passed_on),
            overtaken: counts.overtaken,
            evictions: counts.evictions,
            entries: counts.entries,
            bytes: counts.bytes,
            invalidations: get(&counters.invalidations),
            lost_invalidations: get(&counters.lost_invalidations),
            flushes: get(&counters.flushes),
            checks: get(&counters.checks),
            uncounted_checks: get(&counters.uncounted_checks),
            refused_checks: get(&counters.refused_checks),
            connections: get(&counters.connections),
            connections_lost: get(&counters.connections_lost),
        }
    }
}
