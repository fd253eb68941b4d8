//! Fairness between tenants on one thread: a tenant's connections work one after the other.
//!
//! Each thread runs its connections in turns. A tenant with thousands of them would have as many turns as it has
//! connections, and a quiet one would wait for all of them. So a tenant has one turn at a time on each thread, for which its
//! connections queue up, and a turn is short: then the thread goes on to whoever else is ready.

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

/// A turn that took so much longer, by one long command, is followed by a rest of the same length.
const OVERLONG: Duration = Duration::from_millis(1);

/// How many tenants a thread remembers before it looks who is gone.
const REMEMBERED_MAX: usize = 64;

thread_local! {
    static TURNS: RefCell<HashMap<TenantId, Arc<Semaphore>>> = RefCell::default();
}

/// A tenant's turn on this thread.
pub struct Turn {
    began: Instant,
    _permit: Option<OwnedSemaphorePermit>,
}

fn of(tenant: TenantId) -> Arc<Semaphore> {
    TURNS.with_borrow_mut(|turns| {
        if turns.len() >= REMEMBERED_MAX {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        let turn = turns.entry(tenant).or_insert_with(|| Arc::new(Semaphore::new(1)));
        Arc::clone(turn)
    })
}

/// Waits for the tenant's turn.
pub async fn take_turn(tenant: TenantId) -> Turn {
    // Semaphores here are never closed.
    let permit = of(tenant).acquire_owned().await.ok();
    Turn {
        began: clock::monotonic(),
        _permit: permit,
    }
}

impl Turn {
    /// Ends it; others come first if `has_more` to do, or when it took long.
    pub async fn end(self, has_more: bool) {
        let took = self.began.elapsed();
        if took > OVERLONG {
            // Kept meanwhile: so a tenant has half of the thread's time at most, whatever its commands take. The reply
            // doesn't wait for that.
            tokio::spawn(async move {
                sleep(took).await;
                drop(self);
            });
            yield_now().await;
        } else if has_more {
            drop(self);
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
