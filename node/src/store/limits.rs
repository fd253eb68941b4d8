//! What a tenant may have on one node: its quota, as far as this node has of the slots.
//!
//! Everything here is a number that the tenants document sets and that commands read; a limit that is not set is no
//! limit. Rates are kept as the time at which the tenant has used up what it was given (the generic cell rate algorithm,
//! as in ITU-T I.371): one number, no refilling. An operation is asked for before it is done. Bytes are known only behind it,
//! so they are asked for without a number and paid later: whoever is not in debt may begin.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use annulus_proto::tenants::{OverRate, Quota, TtlBounds};
use annulus_ring::SLOT_COUNT;

const UNLIMITED: u64 = u64::MAX;

/// So much of a second's operations may come at once.
const BURST_NS: u64 = 100_000_000;

/// So many may come at once whatever the rate is: clients send the commands of one task together.
const BURST_OPERATIONS: u64 = 16;

/// A node allows so many bytes a second however few slots it has: clients must be able to learn where to go.
const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// What one command takes beyond the rate is paid back by waiting, but not for longer than this.
const DEBT_NS_MAX: u64 = 60_000_000_000;

/// A tenant's limits. All of them are read without locks, each by itself.
#[derive(Debug)]
pub struct Limits {
    memory_bytes: AtomicU64,
    guaranteed_bytes: AtomicU64,
    keys: AtomicU64,
    connections: AtomicU32,
    ops_per_second: AtomicU64,
    bytes_per_second: AtomicU64,
    delays: AtomicBool,
    value_bytes_max: AtomicU64,
    ttl_default_ms: AtomicU64,
    ttl_max_ms: AtomicU64,
    /// Up to this moment, in nanoseconds, what the tenant may do is done.
    used_up_to_ns: AtomicU64,
    /// The same for the bytes that it sends and receives.
    paid_up_to_ns: AtomicU64,
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
            bytes_per_second: unlimited(),
            delays: AtomicBool::new(false),
            value_bytes_max: unlimited(),
            ttl_default_ms: unlimited(),
            ttl_max_ms: unlimited(),
            used_up_to_ns: AtomicU64::new(0),
            paid_up_to_ns: AtomicU64::new(0),
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
    /// It is refused, by this limit.
    Refused(RateLimit),
    /// It has to wait for so many milliseconds.
    Wait(u64),
}

/// This node's part of a rate. Displayed as what a tenant may do in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimit {
    /// Commands.
    Operations(u64),
    /// Bytes of requests, replies and messages.
    Bytes(u64),
}

impl fmt::Display for RateLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operations(count) => write!(formatter, "run {count} operations"),
            Self::Bytes(bytes) => write!(formatter, "send and receive {bytes} bytes"),
        }
    }
}

/// From when on something more is used; `used_up_to_ns` is at most so far ahead of this moment.
fn begin_ns(used_up_to_ns: u64, moment_ns: u64, ahead_ns_max: u64) -> u64 {
    // A clock that was set back must not keep the tenant out.
    if used_up_to_ns > moment_ns.saturating_add(ahead_ns_max) {
        moment_ns
    } else {
        used_up_to_ns.max(moment_ns)
    }
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
            (&self.bytes_per_second, limit(quota.bytes_per_second)),
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

    /// The longest that an entry lives, if there is a bound.
    pub fn ttl_max_ms(&self) -> Option<u64> {
        let max_ms = self.ttl_max_ms.load(Ordering::Relaxed);
        (max_ms != UNLIMITED).then_some(max_ms)
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
        if self.delays() != may_wait {
            return Rate::Within;
        }
        match self.is_in_debt(slots, now_ms, may_wait) {
            Rate::Within => self.take_operation(slots, now_ms, may_wait),
            in_debt => in_debt,
        }
    }

    fn take_operation(&self, slots: u32, now_ms: u64, may_wait: bool) -> Rate {
        let whole = self.ops_per_second.load(Ordering::Relaxed);
        if whole == UNLIMITED {
            return Rate::Within;
        }
        let per_second = part_of(whole, slots).max(1);
        let step_ns = 1_000_000_000 / per_second;
        let burst_ns = BURST_NS.max(BURST_OPERATIONS * step_ns);
        let moment_ns = now_ms.saturating_mul(1_000_000);
        let mut outcome = Rate::Within;
        let next = |used_up_to_ns: u64| {
            let end_ns = begin_ns(used_up_to_ns, moment_ns, 2 * burst_ns) + step_ns;
            let ahead_ns = end_ns - moment_ns;
            if ahead_ns <= burst_ns {
                outcome = Rate::Within;
                return Some(end_ns);
            }
            outcome = if may_wait {
                Rate::Wait((ahead_ns - burst_ns).div_ceil(1_000_000))
            } else {
                Rate::Refused(RateLimit::Operations(per_second))
            };
            None
        };
        // Whoever loses a race looks again; a refusal changes nothing.
        self.used_up_to_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .ok();
        outcome
    }

    /// Whether what was sent and received is more than the rate allows by now.
    fn is_in_debt(&self, slots: u32, now_ms: u64, may_wait: bool) -> Rate {
        let whole = self.bytes_per_second.load(Ordering::Relaxed);
        if whole == UNLIMITED {
            return Rate::Within;
        }
        let moment_ns = now_ms.saturating_mul(1_000_000);
        let paid_up_to_ns = self.paid_up_to_ns.load(Ordering::Relaxed);
        let ahead_ns = begin_ns(paid_up_to_ns, moment_ns, DEBT_NS_MAX) - moment_ns;
        match ahead_ns.checked_sub(BURST_NS) {
            None | Some(0) => Rate::Within,
            Some(debt_ns) if may_wait => Rate::Wait(debt_ns.div_ceil(1_000_000)),
            Some(_) => Rate::Refused(RateLimit::Bytes(bytes_of_node(whole, slots))),
        }
    }

    /// So many bytes were received and sent for the tenant.
    #[inline]
    pub fn pay(&self, bytes: usize, slots: u32, now_ms: u64) {
        let whole = self.bytes_per_second.load(Ordering::Relaxed);
        if whole != UNLIMITED {
            self.pay_for(bytes as u64, bytes_of_node(whole, slots), now_ms);
        }
    }

    fn pay_for(&self, bytes: u64, per_second: u64, now_ms: u64) {
        let cost_ns = bytes.saturating_mul(1_000_000_000) / per_second;
        let moment_ns = now_ms.saturating_mul(1_000_000);
        let next = |paid_up_to_ns: u64| {
            let end_ns = begin_ns(paid_up_to_ns, moment_ns, DEBT_NS_MAX).saturating_add(cost_ns);
            Some(end_ns.min(moment_ns.saturating_add(DEBT_NS_MAX)))
        };
        self.paid_up_to_ns
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .ok();
    }
}

/// What a node with so many slots has of a rate in bytes.
fn bytes_of_node(whole: u64, slots: u32) -> u64 {
    part_of(whole, slots).max(BYTES_PER_SECOND_MIN)
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
        assert_eq!(
            limits.operate(slots, 60_000, false),
            Rate::Refused(RateLimit::Operations(1000))
        );
        assert_eq!(granted(1000), 100, "the clock was set back");
        assert_eq!(
            limits.operate(slots / 2, 1000, false),
            Rate::Refused(RateLimit::Operations(500))
        );
    }

    fn metered(over_rate: OverRate) -> Limits {
        let quota = Quota {
            bytes_per_second: Some(1_000_000),
            over_rate,
            ..Quota::default()
        };
        limits(quota, TtlBounds::default())
    }

    #[test]
    fn bytes_are_paid_behind_the_command_that_took_them() {
        let slots = u32::from(SLOT_COUNT);
        let (rejects, delays) = (metered(OverRate::Reject), metered(OverRate::Delay));
        let refused = |bytes| Rate::Refused(RateLimit::Bytes(bytes));
        // What was paid at 5000 ms, the node's slots, then a moment and what is said to each of the two.
        let rows = [
            ("nothing yet", 0, slots, 5000, None),
            ("a tenth of a second's", 100_000, slots, 5000, None),
            ("a little more", 101_000, slots, 5000, Some(1)),
            ("a little later", 101_000, slots, 5001, None),
            ("a large command", 5_000_000, slots, 5000, Some(4900)),
            ("half of it paid back", 5_000_000, slots, 7500, Some(2400)),
            ("all of it paid back", 5_000_000, slots, 9900, None),
            ("on a node with a quarter", 100_000, slots / 4, 5000, Some(300)),
            ("a debt ends", 9_000_000_000_usize, slots, 5000, Some(59_900)),
            ("a minute later", 9_000_000_000_usize, slots, 64_900, None),
            ("the clock was set back", 9_000_000_000_usize, slots, 4999, None),
            ("without slots", 1600, 0, 5000, None),
            ("without slots, too much", 16_384, 0, 5000, Some(900)),
        ];
        for (case, paid_bytes, slots, now_ms, wait_ms) in rows {
            for limits in [&rejects, &delays] {
                limits.paid_up_to_ns.store(0, Ordering::Relaxed);
                limits.pay(paid_bytes, slots, 5000);
            }
            let per_second = part_of(1_000_000, slots).max(16 << 10);
            let told = wait_ms.map_or(Rate::Within, |_| refused(per_second));
            assert_eq!(rejects.operate(slots, now_ms, false), told, "{case}");
            assert_eq!(rejects.operate(slots, now_ms, true), Rate::Within, "{case}");
            let told = wait_ms.map_or(Rate::Within, Rate::Wait);
            assert_eq!(delays.operate(slots, now_ms, true), told, "{case}");
            assert_eq!(delays.operate(slots, now_ms, false), Rate::Within, "{case}");
        }
    }

    #[test]
    fn whoever_is_in_debt_uses_up_no_operation() {
        let quota = Quota {
            bytes_per_second: Some(1_000_000),
            ops_per_second: Some(1),
            ..Quota::default()
        };
        let (limits, slots) = (limits(quota, TtlBounds::default()), u32::from(SLOT_COUNT));
        limits.pay(2_000_000, slots, 5000);
        for _ in 0..100 {
            let refused = Rate::Refused(RateLimit::Bytes(1_000_000));
            assert_eq!(limits.operate(slots, 5000, false), refused);
        }
        assert_eq!(limits.operate(slots, 6900, false), Rate::Within);
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
