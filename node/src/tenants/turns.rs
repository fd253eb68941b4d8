//! Fairness between tenants on one thread: a tenant's connections work one after the other, and what takes long is rare.
//!
//! Each thread runs its connections in turns. A tenant with thousands of them would have as many turns as it has
//! connections, and a quiet one would wait for all of them. So a tenant has one turn at a time on each thread, for which its
//! connections queue up, and a turn is short: then the thread goes on to whoever else is ready.
//!
//! One command can make a turn long. A token bucket (Turner 1986) bounds how much of the thread's time a tenant's long turns take
//! while other tenants are at work there, to less than what the slowest hundredth of their commands would notice for long.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use annulus_proto::tenants::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::clock;

/// Commands are begun for so long in one turn.
pub const TURN_MAX: Duration = Duration::from_micros(300);

/// A turn that took longer, by one long command, is followed by a rest.
const OVERLONG: Duration = Duration::from_millis(1);

/// Long turns of a tenant may take one part in so many of a thread's time: half of what would move the others' 99th percentile.
const LONG_PART: u32 = 200;

/// So much of it at once.
const LONG_AT_ONCE: Duration = Duration::from_millis(50);

/// However long the turn was: its clients have long given up then.
const REST_MAX: Duration = Duration::from_secs(10);

/// Another tenant that had a turn so recently is at work.
const AT_WORK: Duration = Duration::from_secs(1);

/// How many tenants a thread remembers before it looks who is gone.
const REMEMBERED_MAX: usize = 64;

/// How much of a thread's time a tenant's long turns have taken, less what they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LongTurns {
    taken: Duration,
    at: Instant,
}

impl LongTurns {
    fn new(now: Instant) -> Self {
        Self {
            taken: Duration::ZERO,
            at: now,
        }
    }

    fn refill(&mut self, now: Instant) {
        let given = now.saturating_duration_since(self.at) / LONG_PART;
        self.taken = self.taken.saturating_sub(given);
        self.at = now;
    }

    /// How long the tenant rests after a turn that ended now. At least as long as the turn took, so that it has half of the
    /// thread in any case.
    fn rest(&mut self, took: Duration, now: Instant, others_work: bool) -> Duration {
        self.refill(now);
        if took <= OVERLONG {
            return Duration::ZERO;
        }
        if !others_work {
            return took.min(REST_MAX);
        }
        self.taken = (self.taken + took).min(LONG_AT_ONCE + REST_MAX / LONG_PART);
        let beyond = self.taken.saturating_sub(LONG_AT_ONCE);
        took.max(beyond * LONG_PART).min(REST_MAX)
    }
}

/// A tenant on a thread.
struct Known {
    turns: Arc<Semaphore>,
    long: LongTurns,
}

/// All tenants on a thread, and who had the last two turns of different tenants.
#[derive(Default)]
struct OnThread {
    /// How long turns have taken since the thread last looked at its sockets.
    unlooked: Duration,
    known: HashMap<TenantId, Known>,
    last: Option<(TenantId, Instant)>,
    last_of_another: Option<(TenantId, Instant)>,
}

impl OnThread {
    fn turns_of(&mut self, tenant: TenantId, now: Instant) -> Arc<Semaphore> {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.retain(|_, known| {
                known.long.refill(now);
                Arc::strong_count(&known.turns) > 1 || !known.long.taken.is_zero()
            });
        }
        let known = self.known.entry(tenant).or_insert_with(|| Known {
            turns: Arc::new(Semaphore::new(1)),
            long: LongTurns::new(now),
        });
        Arc::clone(&known.turns)
    }

    fn begin(&mut self, tenant: TenantId, now: Instant) {
        if let Some((other, _)) = self.last
            && other != tenant
        {
            self.last_of_another = self.last;
        }
        self.last = Some((tenant, now));
    }

    fn others_work(&self, tenant: TenantId, now: Instant) -> bool {
        let of_another = [self.last, self.last_of_another].into_iter().flatten();
        of_another
            .filter(|(other, _)| *other != tenant)
            .any(|(_, at)| now.saturating_duration_since(at) < AT_WORK)
    }

    /// Whether it is time to look who else is ready: a thread with work at hand does that after many turns only.
    fn must_look(&mut self, took: Duration) -> bool {
        self.unlooked += took;
        let must_look = self.unlooked > TURN_MAX;
        if must_look {
            self.unlooked = Duration::ZERO;
        }
        must_look
    }

    fn rest(&mut self, tenant: TenantId, took: Duration, now: Instant) -> Duration {
        let others_work = self.others_work(tenant, now);
        let known = self.known.get_mut(&tenant);
        known.map_or(took, |known| known.long.rest(took, now, others_work))
    }
}

thread_local! {
    static TURNS: RefCell<OnThread> = RefCell::default();
}

/// A tenant's turn on this thread.
pub struct Turn {
    tenant: TenantId,
    began: Instant,
    worked: Option<Duration>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// Waits for the tenant's turn.
pub async fn take_turn(tenant: TenantId) -> Turn {
    let turns = TURNS.with_borrow_mut(|on_thread| on_thread.turns_of(tenant, clock::monotonic()));
    // Semaphores here are never closed.
    let permit = turns.acquire_owned().await.ok();
    let began = clock::monotonic();
    TURNS.with_borrow_mut(|on_thread| on_thread.begin(tenant, began));
    Turn {
        tenant,
        began,
        worked: clock::thread_cpu(),
        _permit: permit,
    }
}

impl Turn {
    /// One that nobody waits for, and that was waited for by nobody.
    pub fn at_once(tenant: TenantId) -> Self {
        Self {
            tenant,
            began: clock::monotonic(),
            worked: clock::thread_cpu(),
            _permit: None,
        }
    }

    /// How long the thread has worked since, which is what others have lost. Waiting for another tenant's slot is not.
    fn work(&self, took: Duration) -> Duration {
        let now = clock::thread_cpu();
        let worked = now.zip(self.worked);
        worked.map_or(took, |(now, before)| now.saturating_sub(before))
    }

    /// Ends it; others come first if `has_more` to do, or when it took long.
    pub async fn end(self, has_more: bool) {
        let now = clock::monotonic();
        let took = now.saturating_duration_since(self.began);
        let work = if took > OVERLONG { self.work(took) } else { took };
        if work > OVERLONG {
            let rest = TURNS.with_borrow_mut(|on_thread| on_thread.rest(self.tenant, work, now));
            // Kept meanwhile. The reply doesn't wait for that.
            tokio::spawn(async move {
                sleep(rest).await;
                drop(self);
            });
            yield_now().await;
        } else if has_more || TURNS.with_borrow_mut(|on_thread| on_thread.must_look(took)) {
            // Kept until the thread has looked at its sockets, or the tenant's other connections would go on before that.
            yield_now().await;
            drop(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn a_tenant_has_one_turn_and_another_tenant_another() {
        let first = take_turn(TenantId(1)).await;
        let other = take_turn(TenantId(2)).await;
        let second = tokio::spawn(async { take_turn(TenantId(1)).await.end(false).await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        other.end(true).await;
        assert!(!second.is_finished());
        first.end(true).await;
        second.await.unwrap();
    }

    #[test]
    fn long_turns_take_little_of_a_thread_that_others_use() {
        for turn_ms in [2, 7, 30] {
            let begin = clock::monotonic();
            let mut long = LongTurns::new(begin);
            let (mut now, mut worked) = (begin, Duration::ZERO);
            while now - begin < 3_600_000 * MS {
                now += turn_ms * MS;
                worked += turn_ms * MS;
                now += long.rest(turn_ms * MS, now, true);
            }
            let allowed = (now - begin) / LONG_PART + LONG_AT_ONCE + turn_ms * MS;
            assert!(worked <= allowed, "{turn_ms} ms: {worked:?}");
            assert!(worked * 2 > allowed, "{turn_ms} ms: only {worked:?}");
        }
    }

    #[test]
    fn no_rest_is_longer_than_ten_seconds() {
        let begin = clock::monotonic();
        for others_work in [true, false] {
            let mut long = LongTurns::new(begin);
            assert_eq!(long.rest(20_000 * MS, begin, others_work), REST_MAX);
        }
        let mut long = LongTurns::new(begin);
        for _ in 0..100 {
            assert!(long.rest(100 * MS, begin, true) <= REST_MAX);
        }
    }

    #[test]
    fn alone_a_tenant_has_half_and_a_rare_long_command_is_not_felt() {
        let begin = clock::monotonic();
        let mut long = LongTurns::new(begin);
        assert_eq!(long.rest(80 * MS, begin, false), 80 * MS);
        assert_eq!(long.rest(30 * MS, begin, true), 30 * MS);
        assert_eq!(long.rest(MS, begin, true), Duration::ZERO);
        // Time has given that back.
        assert_eq!(long.rest(50 * MS, begin + 6_000 * MS, true), 50 * MS);
    }

    #[test]
    fn whoever_had_a_turn_lately_is_at_work() {
        let begin = clock::monotonic();
        let mut on_thread = OnThread::default();
        on_thread.begin(TenantId(2), begin);
        for step in 1..5 {
            on_thread.begin(TenantId(1), begin + step * MS);
        }
        assert!(on_thread.others_work(TenantId(1), begin + 10 * MS));
        assert!(on_thread.others_work(TenantId(2), begin + 10 * MS));
        assert!(!on_thread.others_work(TenantId(1), begin + 2 * AT_WORK));
    }
}
