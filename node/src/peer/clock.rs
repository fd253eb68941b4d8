//! A clock that never goes backwards, for freezes.

use std::time::Duration;

use tokio::time::Instant;

/// Counts milliseconds from its start.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    origin: Instant,
}

impl MonotonicClock {
    /// A clock that starts now at 0.
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment of that millisecond, to sleep until.
    pub fn moment(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }
}
