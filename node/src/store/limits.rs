//! What a tenant may have on one node: its quota, as far as this node has of the slots.
//!
//! Everything here is a number that the tenants document sets and that commands read; a limit that is not set is no
//! limit. Rates are kept as the time at which the tenant has used up what it was given (the generic cell rate algorithm,
//! as in ITU-T I.371): one number, no refilling.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use annulus_proto::tenants::{OverRate, Quota, TtlBounds};
use annulus_ring::SLOT_COUNT;

const UNLIMITED: u64 = u64::MAX;

/// So much of a second's operations may come at once.
const BURST_NS: u64 = 100_000_000;

/// So many may come at once whatever the rate is: clients send the commands of one task together.
const BURST_OPERATIONS: u64 = 16;

/// A tenant's limits. All of them are read without locks, each by itself.
#[derive(Debug)]
pub struct Limits {
    memory_bytes: AtomicU64,
    guaranteed_bytes: AtomicU64,
    keys: AtomicU64,
    connections: AtomicU32,
    ops_per_second: AtomicU64,
    delays: AtomicBool,
    value_bytes_max: AtomicU64,
    ttl_default_ms: AtomicU64,
    ttl_max_ms: AtomicU64,
    /// Up to this moment, in nanoseconds, what the tenant may do is done.
    used_up_to_ns: AtomicU64,
}

impl Default for Limits {
    fn default() -> Self {
        let unlimited = || AtomicU64::new(UNLIMITED);
        Self {
            memory_bytes: unlimited(),
            guaranteed_bytes: AtomicU64::new(0),
            keys: unlimited(),
            connections: AtomicU32::new(u32::MAX),
            ops_per_second: unlimited(),
            delays: AtomicBool::new(false),
            value_bytes_max: unlimited(),
            ttl_default_ms: unlimited(),
            ttl_max_ms: unlimited(),
            used_up_to_ns: AtomicU64::new(0),
        }
    }
}

/// What a node with so many slots has of what is for the whole cluster.
pub fn part_of(whole: u64, slots: u32) -> u64 {
    if whole == UNLIMITED {
        return UNLIMITED;
    }
    let part = u128::from(whole) * u128::from(slots) / u128::from(SLOT_COUNT);
    u64::try_from(part).unwrap_or(UNLIMITED)
}

/// What came of asking for one more operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// It may be done.
    Within,
    /// It is refused: so many a second may be done here.
    Refused(u64),
    /// It has to wait for so many milliseconds.
    Wait(u64),
}

impl Limits {
    /// Takes what the tenants document says.
    pub fn follow(&self, quota: Quota, ttl: TtlBounds) {
        let limit = |limit: Option<u64>| limit.unwrap_or(UNLIMITED);
        for (number, value) in [
            (&self.memory_bytes, limit(quota.memory_bytes)),
            (&self.guaranteed_bytes, quota.guaranteed_bytes),
            (&self.keys, limit(quota.keys)),
            (&self.ops_per_second, limit(quota.ops_per_second)),
            (&self.value_bytes_max, limit(quota.value_bytes_max)),
            (&self.ttl_default_ms, limit(ttl.default_ms)),
            (&self.ttl_max_ms, limit(ttl.max_ms)),
        ] {
            number.store(value, Ordering::Relaxed);
        }
        let connections = quota.connections.unwrap_or(u32::MAX);
        self.connections.store(connections, Ordering::Relaxed);
        let delays = quota.over_rate == OverRate::Delay;
        self.delays.store(delays, Ordering::Relaxed);
    }

    /// What its entries may cost on a node with so many slots; `None` without a limit.
    pub fn memory_bytes(&self, slots: u32) -> Option<u64> {
        let part = part_of(self.memory_bytes.load(Ordering::Relaxed), slots);
        (part != UNLIMITED).then_some(part)
    }

    /// So much of that no other tenant's entries take.
    pub fn guaranteed_bytes(&self, slots: u32) -> u64 {
        part_of(self.guaranteed_bytes.load(Ordering::Relaxed), slots)
    }

    /// How many entries it may have; never less than one where it may have any at all.
    pub fn keys(&self, slots: u32) -> Option<u64> {
        let keys = self.keys.load(Ordering::Relaxed);
        (keys != UNLIMITED).then(|| part_of(keys, slots).max(keys.min(1)))
    }

    /// How many connections it may have to this node.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The longest value.
    #[inline]
    pub fn value_bytes_max(&self) -> u64 {
        self.value_bytes_max.load(Ordering::Relaxed)
    }

    /// When an entry expires of which nobody says when.
    #[inline]
    pub fn default_expiry_ms(&self, now_ms: u64) -> Option<u64> {
        let default_ms = self.ttl_default_ms.load(Ordering::Relaxed);
        self.bounded_expiry_ms(
            (default_ms != UNLIMITED).then(|| now_ms.saturating_add(default_ms)),
            now_ms,
        )
    }

    /// When an entry expires that is to expire then, or never.
    #[inline]
    pub fn bounded_expiry_ms(&self, asked_ms: Option<u64>, now_ms: u64) -> Option<u64> {
        let max_ms = self.ttl_max_ms.load(Ordering::Relaxed);
        if max_ms == UNLIMITED {
            return asked_ms;
        }
        let last_ms = now_ms.saturating_add(max_ms);
        Some(asked_ms.map_or(last_ms, |asked_ms| asked_ms.min(last_ms)))
    }

    /// Whether operations beyond the rate wait.
    pub fn delays(&self) -> bool {
        self.delays.load(Ordering::Relaxed)
    }

    /// Asks for one more operation, on a node with so many slots: by those who `may_wait` where operations beyond the rate
    /// wait, and by the others where they are refused.
    pub fn operate(&self, slots: u32, now_ms: u64, may_wait: bool) -> Rate {
        let whole = self.ops_per_second.load(Ordering::Relaxed);
        if whole == UNLIMITED || self.delays() != may_wait {
            return Rate::Within;
        }
        let per_second = part_of(whole, slots).max(1);
        let step_ns = 1_000_000_000 / per_second;
        let burst_ns = BURST_NS.max(BURST_OPERATIONS * step_ns);
        let moment_ns = now_ms.saturating_mul(1_000_000);
        let mut outcome = Rate::Within;
        let next = |used_up_to_ns: u64| {
            // A clock that was set back must not keep the tenant out.
            let begin_ns = if used_up_to_ns > moment_ns + 2 * burst_ns {
                moment_ns
            } else {
                used_up_to_ns.max(moment_ns)
            };
            let end_ns = begin_ns + step_ns;
            let ahead_ns = end_ns - moment_ns;
            if ahead_ns <= burst_ns {
                outcome = Rate::Within;
                return Some(end_ns);
            }
            outcome = if may_wait {
                Rate::Wait((ahead_ns - burst_ns).div_ceil(1_000_000))
            } else {
                Rate::Refused(per_second)
            };
            None
        };
        // Whoever loses a race looks again; a refusal changes nothing.
        self.used_up_to_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .ok();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(quota: Quota, ttl: TtlBounds) -> Limits {
        let limits = Limits::default();
        limits.follow(quota, ttl);
        limits
    }

    #[test]
    fn a_node_has_its_part() {
        let slots = u32::from(SLOT_COUNT);
        for (whole, of, expected) in [
            (100, slots, 100),
            (100, slots / 4, 25),
            (100, 0, 0),
            (UNLIMITED, 0, UNLIMITED),
            (u64::MAX - 1, slots, u64::MAX - 1),
            (3, slots / 2, 1),
        ] {
            assert_eq!(part_of(whole, of), expected, "{whole} {of}");
        }
    }

    #[test]
    fn times_of_expiry_are_bounded() {
        let bounds = |default_ms, max_ms| limits(Quota::default(), TtlBounds { default_ms, max_ms });
        for (default_ms, max_ms, without, asked_500) in [
            (None, None, None, Some(500)),
            (Some(50), None, Some(150), Some(500)),
            (None, Some(60), Some(160), Some(160)),
            (Some(70), Some(60), Some(160), Some(160)),
            (Some(30), Some(9000), Some(130), Some(500)),
        ] {
            let limits = bounds(default_ms, max_ms);
            assert_eq!(
                limits.default_expiry_ms(100),
                without,
                "{default_ms:?} {max_ms:?}"
            );
            assert_eq!(limits.bounded_expiry_ms(Some(500), 100), asked_500);
        }
    }

    fn rated(over_rate: OverRate) -> Limits {
        let quota = Quota {
            ops_per_second: Some(1000),
            over_rate,
            ..Quota::default()
        };
        limits(quota, TtlBounds::default())
    }

    #[test]
    fn operations_come_at_their_rate() {
        let (limits, slots) = (rated(OverRate::Reject), u32::from(SLOT_COUNT));
        let granted = |at_ms| {
            (0..1000)
                .filter(|_| limits.operate(slots, at_ms, false) == Rate::Within)
                .count()
        };
        assert_eq!(granted(5000), 100, "a tenth of a second's at once");
        assert_eq!(granted(5000), 0);
        assert_eq!(granted(5010), 10);
        assert_eq!(granted(60_000), 100, "what was not used is not kept for ever");
        assert_eq!(limits.operate(slots, 60_000, false), Rate::Refused(1000));
        assert_eq!(granted(1000), 100, "the clock was set back");
        assert_eq!(limits.operate(slots / 2, 1000, false), Rate::Refused(500));
    }

    #[test]
    fn what_is_delayed_is_told_for_how_long() {
        let (limits, slots) = (rated(OverRate::Delay), u32::from(SLOT_COUNT));
        while limits.operate(slots, 5000, true) == Rate::Within {}
        assert_eq!(limits.operate(slots, 5000, true), Rate::Wait(1));
        assert_eq!(limits.operate(slots, 5001, true), Rate::Within);
        assert_eq!(Limits::default().operate(1, 0, false), Rate::Within);
    }
}
