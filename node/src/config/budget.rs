//! The memory budget of the store, when nobody names one.
//!
//! The budget counts what entries cost. Beside it the process needs room for connection buffers, replies that
//! clients are slow to read, slots in handoff and what the allocator can't reuse. The control group kills
//! the process for going over its limit by one page, so the room is generous, and [`crate::governor`] sees to it that
//! it is enough.

use crate::config::machine::Machine;

/// Where a budget comes from, for the log line at boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetSource {
    /// `--max-memory`.
    Flag,
    /// The control group's limit, less headroom.
    CgroupLimit,
    /// Half of the machine's memory.
    PhysicalMemory,
    /// Nothing is known about the machine.
    Fallback,
}

impl BudgetSource {
    /// The source as a word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::CgroupLimit => "cgroup limit",
            Self::PhysicalMemory => "physical memory",
            Self::Fallback => "fallback",
        }
    }
}

/// Buffers, code and the runtime need this much, whatever the size of the store.
const HEADROOM_MIN_BYTES: u64 = 64 << 20;

/// Of the limit; grows with the store because fragmentation does.
const HEADROOM_PERCENT: u64 = 15;

/// Used when neither a limit nor the machine's memory is known.
const FALLBACK_BYTES: u64 = 256 << 20;

/// What to leave free below a limit: 15 % of it, at least 64 MiB, but never more than half, so that a small
/// container is still a cache.
pub fn headroom_bytes(limit_bytes: u64) -> u64 {
    let share = limit_bytes / 100 * HEADROOM_PERCENT;
    share.max(HEADROOM_MIN_BYTES.min(limit_bytes / 2))
}

/// The limit that the process keeps its memory below: the control group's, or, without one, that of which the budget
/// and its headroom are the whole.
pub fn limit_bytes(budget_bytes: u64, machine: &Machine) -> u64 {
    machine.cgroup_limit_bytes.unwrap_or_else(|| {
        let by_share = (budget_bytes / (100 - HEADROOM_PERCENT)).saturating_mul(100);
        by_share.max(budget_bytes.saturating_add(HEADROOM_MIN_BYTES.min(budget_bytes)))
    })
}

/// The budget for this machine: the control group's limit less headroom; without a limit half of the machine's
/// memory, since a machine without limits runs other things too.
pub fn default_budget_bytes(machine: &Machine) -> (u64, BudgetSource) {
    match (machine.cgroup_limit_bytes, machine.physical_bytes) {
        (Some(limit), _) => (limit - headroom_bytes(limit), BudgetSource::CgroupLimit),
        (None, Some(physical)) => (physical / 2, BudgetSource::PhysicalMemory),
        (None, None) => (FALLBACK_BYTES, BudgetSource::Fallback),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn headroom_by_limit() {
        let table = [
            (16, 8),
            (64, 32),
            (128, 64),
            (256, 64),
            (400, 64),
            (512, 76),
            (1024, 153),
            (16 * 1024, 2457),
        ];
        for (limit, headroom) in table {
            assert_eq!(headroom_bytes(limit * MIB) / MIB, headroom, "{limit} MiB");
        }
    }

    #[test]
    fn without_a_limit_the_budget_has_its_usual_headroom() {
        let machine = |cgroup_limit_bytes| Machine {
            cgroup_limit_bytes,
            physical_bytes: None,
            parallelism: NonZeroUsize::MIN,
        };
        assert_eq!(limit_bytes(100 * MIB, &machine(Some(300 * MIB))), 300 * MIB);
        for limit in [16, 64, 128, 256, 512, 1024, 16 * 1024] {
            let budget = limit * MIB - headroom_bytes(limit * MIB);
            let found = limit_bytes(budget, &machine(None));
            assert!(found.abs_diff(limit * MIB) < 400, "{limit} MiB: {found}");
        }
    }

    #[test]
    fn a_budget_is_always_below_its_limit() {
        for limit in [0, 1, 2, 99, 4096, u64::MAX] {
            assert!(headroom_bytes(limit) <= limit);
        }
    }

    #[test]
    fn the_limit_counts_before_the_machine() {
        let machine = |cgroup_limit_bytes, physical_bytes| Machine {
            cgroup_limit_bytes,
            physical_bytes,
            parallelism: NonZeroUsize::MIN,
        };
        let table = [
            (
                machine(Some(256 * MIB), Some(4096 * MIB)),
                (192 * MIB, BudgetSource::CgroupLimit),
            ),
            (
                machine(Some(256 * MIB), None),
                (192 * MIB, BudgetSource::CgroupLimit),
            ),
            (
                machine(None, Some(4096 * MIB)),
                (2048 * MIB, BudgetSource::PhysicalMemory),
            ),
            (machine(None, None), (256 * MIB, BudgetSource::Fallback)),
        ];
        for (machine, expected) in table {
            assert_eq!(default_budget_bytes(&machine), expected, "{machine:?}");
        }
    }
}
