//! Keeps the process's memory below its limit when the heap is fuller of holes than the headroom has room for.
//!
//! The store counts what entries cost; the kernel counts pages. What lies between, holes in the heap above all, depends
//! on the sizes that come and go, and no formula knows it beforehand. So the process looks at itself: beyond a quarter
//! of the headroom it gives free pages back, and withholds a part of the budget from the entries until the holes
//! that they leave are used again. Below that it gives the part back, slowly. It looks ten times a second, and whenever large
//! requests and replies have come together to a few MiB: those are what memory can grow by suddenly.
//!
//! [`Governor::step`] is pure. It never withholds more than half of the budget: a process that takes its memory for
//! something else than entries is not helped by having none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use crate::clock;
use crate::heap;
use crate::node::Node;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// Trimming may take one part in so many of the time, and in so many where the limit is near.
const TRIM_SHARE: u32 = 50;
const TRIM_SHARE_URGENT: u32 = 4;

/// What is withheld grows by so much of the budget in a step at least, and shrinks by a quarter of that.
const STEP_SHARE: u64 = 256;

/// Decides what to withhold. All figures are bytes.
#[derive(Debug)]
pub struct Governor {
    budget: u64,
    /// Beyond so much resident memory, the limit is near.
    urgent: u64,
    /// Beyond so much, some must be had back.
    high: u64,
    /// Below so much there is room again.
    low: u64,
    withheld: u64,
}

impl Governor {
    /// Withholds nothing yet. The limit is above the budget.
    pub fn new(budget_bytes: u64, limit_bytes: u64) -> Self {
        let headroom_bytes = limit_bytes.saturating_sub(budget_bytes);
        Self {
            budget: budget_bytes,
            urgent: budget_bytes.saturating_add(headroom_bytes / 2),
            high: budget_bytes.saturating_add(headroom_bytes / 4),
            low: budget_bytes.saturating_add(headroom_bytes / 8),
            withheld: 0,
        }
    }

    /// What is to be withheld when so much is resident, and the share of the time in which free pages may be given back;
    /// `None` where that isn't needed.
    pub fn step(&mut self, resident_bytes: u64) -> (u64, Option<u32>) {
        let step_bytes = self.budget / STEP_SHARE;
        if resident_bytes > self.high {
            // Half of the excess: what the last step withheld is still on its way back.
            let excess_bytes = (resident_bytes - self.high) / 2;
            self.withheld = (self.withheld + excess_bytes.max(step_bytes)).min(self.budget / 2);
        } else if resident_bytes < self.low {
            self.withheld = self.withheld.saturating_sub(step_bytes / 4);
        }
        let trim_share = match resident_bytes {
            bytes if bytes > self.urgent => Some(TRIM_SHARE_URGENT),
            bytes if bytes > self.high => Some(TRIM_SHARE),
            _ => None,
        };
        (self.withheld, trim_share)
    }
}

/// Governs the node's memory; for ever, or not at all where the kernel doesn't say what is resident.
#[expect(
    clippy::disallowed_methods,
    reason = "trimming is kept to a share of the time that passes"
)]
pub async fn govern(node: Arc<Node>, limit_bytes: u64) {
    let mut governor = Governor::new(node.store.budget_bytes(), limit_bytes);
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stats = node.stats.register_thread();
    let (mut trimmed_at, mut trim_took) = (Instant::now(), Duration::ZERO);
    let mut is_said = false;
    loop {
        let in_time = tokio::select! {
            _ = ticks.tick() => true,
            () = node.store.has_grown() => false,
        };
        let Some(resident_bytes) = heap::resident_bytes() else {
            return;
        };
        // What is given back is given back in time.
        if !in_time && resident_bytes <= governor.high {
            continue;
        }
        let (withheld_bytes, trim_share) = governor.step(resident_bytes);
        if withheld_bytes != node.store.withheld_bytes() {
            debug!(
                resident_bytes,
                withheld_bytes, "withholds memory from the entries"
            );
        }
        node.store.withhold(withheld_bytes);
        let Some(trim_share) = trim_share else {
            continue;
        };
        if resident_bytes > limit_bytes && !is_said {
            is_said = true;
            warn!(
                resident_bytes,
                limit_bytes,
                withheld_bytes,
                used_bytes = node.store.used_bytes(),
                "more is resident than the limit; said once"
            );
        }
        let store = Arc::clone(&node);
        let now_ms = clock::now_ms();
        let may_trim = Instant::now() >= trimmed_at + trim_took * trim_share;
        // The heap of a large store takes its time to be looked at.
        let outcome = tokio::task::spawn_blocking(move || {
            let evicted = store.store.evict(now_ms);
            let begin = Instant::now();
            if may_trim {
                heap::trim();
            }
            (evicted, begin.elapsed())
        })
        .await;
        if let Ok((evicted, took)) = outcome {
            stats.evicted_keys.add(evicted);
            if may_trim {
                (trimmed_at, trim_took) = (Instant::now(), took);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn governor() -> Governor {
        Governor::new(256 * MIB, 320 * MIB)
    }

    #[test]
    fn within_the_headroom_nothing_is_withheld() {
        let mut governor = governor();
        for resident in [0, 256, 271, 272] {
            assert_eq!(governor.step(resident * MIB), (0, None), "{resident} MiB");
        }
    }

    #[test]
    fn an_excess_is_withheld_by_and_by_and_never_more_than_half_of_the_budget() {
        let mut governor = governor();
        assert_eq!(
            governor.step(273 * MIB),
            (MIB, Some(TRIM_SHARE)),
            "at least a step"
        );
        assert_eq!(
            governor.step(292 * MIB),
            (11 * MIB, Some(TRIM_SHARE_URGENT)),
            "half of the excess"
        );
        for _ in 0..100 {
            governor.step(1024 * MIB);
        }
        assert_eq!(governor.step(1024 * MIB), (128 * MIB, Some(TRIM_SHARE_URGENT)));
    }

    #[test]
    fn it_is_given_back_slowly_and_only_when_there_is_room() {
        let mut governor = governor();
        governor.step(280 * MIB);
        assert_eq!(
            governor.step(268 * MIB),
            (4 * MIB, None),
            "between the marks it stays"
        );
        assert_eq!(governor.step(263 * MIB), (4 * MIB - MIB / 4, None));
        for _ in 0..15 {
            governor.step(0);
        }
        assert_eq!(governor.step(0), (0, None));
    }
}
