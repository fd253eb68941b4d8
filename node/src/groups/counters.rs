//! What is counted of a group on one node.

use crate::stats::Total;

/// Since the node started.
#[derive(Debug, Default)]
pub struct GroupCounters {
    /// Reads that were answered by a fresh value.
    pub fresh: Total,
    /// Reads that were answered by a value beyond its soft TTL.
    pub soft: Total,
    /// Reads that were answered by a value beyond its hard TTL, since it couldn't be loaded.
    pub stale: Total,
    /// Reads that waited for a load that was under way.
    pub joined: Total,
    /// Reads that waited for a load that they began.
    pub began: Total,
    /// Reads that were told that there is no value, as was remembered.
    pub absent: Total,
    /// Reads that were told that there is no value, by the filter.
    pub filtered: Total,
    /// Reads that were answered an error.
    pub failed: Total,
    /// Requests to the origin, retries included.
    pub requests: Total,
    /// Requests that were retries.
    pub retries: Total,
    /// Loads that brought a value.
    pub loaded: Total,
    /// Loads that were told that there is no value.
    pub loaded_absent: Total,
    /// Of these, loads of keys that the filter took for keys of the origin.
    pub false_positives: Total,
    /// Loads that failed.
    pub loads_failed: Total,
    /// What loads brought and wasn't kept, because the key was written meanwhile or there was no room.
    pub not_kept: Total,
    /// Bytes that the origin sent as values.
    pub received_bytes: Total,
    /// Milliseconds that loads took, waiting for their turn included.
    pub load_ms: Total,
    /// Times that the breaker opened.
    pub breaker_opened: Total,
}
