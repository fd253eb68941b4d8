//! What a client was built with, and what its connections share.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::near::NearCache;

/// Checks in a lease time.
const CHECKS_PER_LEASE: u32 = 4;

/// A node that leaves a check unanswered for so long is connected to anew, however short the lease is.
const SILENCE_MIN: Duration = Duration::from_secs(1);

/// Another address for one that the cluster shows.
pub type AddressMap = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What a client was built with.
#[derive(Clone)]
pub struct Settings {
    pub user: Option<String>,
    pub password: Option<String>,
    pub lease: Duration,
    pub ttl_max: Duration,
    pub read_timeout: Duration,
    pub command_timeout: Duration,
    pub address_map: Option<AddressMap>,
    pub checks: bool,
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Settings {
    /// How long a good check vouches for what was read.
    pub fn lease_ns(&self) -> u64 {
        nanoseconds(self.lease)
    }

    pub fn ttl_max_ns(&self) -> u64 {
        nanoseconds(self.ttl_max)
    }

    pub fn check_interval(&self) -> Duration {
        (self.lease / CHECKS_PER_LEASE).max(Duration::from_millis(1))
    }

    pub fn silence_max_ns(&self) -> u64 {
        nanoseconds(SILENCE_MIN.max(self.lease * 2))
    }

    /// Where to connect to for an address that the cluster shows.
    pub fn address_of<'a>(&self, shown: &'a str) -> Cow<'a, str> {
        self.address_map
            .as_ref()
            .map_or(Cow::Borrowed(shown), |map| Cow::Owned(map(shown)))
    }
}

/// Moments since the client began.
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    #[inline]
    pub fn now_ns(&self) -> u64 {
        nanoseconds(self.0.elapsed())
    }
}

/// What connections count.
#[derive(Default)]
pub struct Counters {
    pub invalidations: AtomicU64,
    pub lost_invalidations: AtomicU64,
    pub flushes: AtomicU64,
    pub checks: AtomicU64,
    pub uncounted_checks: AtomicU64,
    pub refused_checks: AtomicU64,
    pub connections: AtomicU64,
    pub connections_lost: AtomicU64,
    pub passed_on: AtomicU64,
}

impl Counters {
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a client's connections share.
pub struct Shared {
    pub settings: Settings,
    pub clock: Clock,
    pub near: Arc<NearCache>,
    pub counters: Counters,
}
