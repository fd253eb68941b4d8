//! The one place of the data path that reads a clock.
//!
//! Connections read it once a batch of commands; everything below gets the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that everything else is handed"
)]
pub fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// Microseconds since the Unix epoch, for `TIME`.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that everything else is handed"
)]
pub fn now_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

/// A moment to measure from, which no change of the clock moves.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that everything else is handed"
)]
pub fn monotonic() -> std::time::Instant {
    std::time::Instant::now()
}

/// How long this thread has worked: waiting for a lock, and for the processor, isn't work. `None` where nobody counts it.
#[expect(unsafe_code, reason = "the standard library doesn't ask for it")]
pub fn thread_cpu() -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a timespec that the call may write to, and it keeps no pointer.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    match (done, seconds, nanos) {
        (0, Ok(seconds), Ok(nanos)) => Some(Duration::new(seconds, nanos)),
        _ => None,
    }
}

/// Counts milliseconds from its start and never goes backwards: for freezes, leases and fences.
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
