//! What one client is subscribed to. Its own thread adds and removes; another thread removes sharded channels that
//! leave with their slot.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Subscriptions that one connection may have.
pub const SUBSCRIPTIONS_MAX: usize = 100_000;

/// To what a subscription is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A channel, of whatever node a message comes from.
    Channel,
    /// All channels that match a pattern.
    Pattern,
    /// A channel of a slot that this node serves.
    Shard,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];

    /// How the subscription is confirmed.
    pub fn subscribed(self) -> &'static str {
        match self {
            Self::Channel => "subscribe",
            Self::Pattern => "psubscribe",
            Self::Shard => "ssubscribe",
        }
    }

    /// How its end is confirmed.
    pub fn unsubscribed(self) -> &'static str {
        match self {
            Self::Channel => "unsubscribe",
            Self::Pattern => "punsubscribe",
            Self::Shard => "sunsubscribe",
        }
    }
}

/// What one client is subscribed to.
#[derive(Default)]
pub struct Subscriptions {
    names: Mutex<[BTreeSet<Box<[u8]>>; 3]>,
    total: AtomicUsize,
}

type Names = [BTreeSet<Box<[u8]>>; 3];

/// The number in a confirmation: channels and patterns together, or sharded channels.
fn count(names: &Names, kind: Kind) -> usize {
    match kind {
        Kind::Channel | Kind::Pattern => {
            names[Kind::Channel as usize].len() + names[Kind::Pattern as usize].len()
        }
        Kind::Shard => names[Kind::Shard as usize].len(),
    }
}

impl Subscriptions {
    /// Whether there are any. One load.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.total() > 0
    }

    /// How many there are.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Calls `act` if there are any; they don't end meanwhile.
    pub fn while_any(&self, act: impl FnOnce()) {
        let names = self.names.lock();
        if names.iter().any(|names| !names.is_empty()) {
            act();
        }
    }

    /// How many there are of each kind.
    pub fn counts(&self) -> [usize; 3] {
        let names = self.names.lock();
        Kind::ALL.map(|kind| names[kind as usize].len())
    }

    /// The number in a confirmation.
    pub fn count(&self, kind: Kind) -> usize {
        count(&self.names.lock(), kind)
    }

    /// Adds one; `false` when it was there.
    pub fn add(&self, kind: Kind, name: &[u8]) -> bool {
        let is_new = self.names.lock()[kind as usize].insert(name.into());
        if is_new {
            self.total.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    /// Removes one, and says how many are left; `None` when it wasn't there.
    pub fn remove(&self, kind: Kind, name: &[u8]) -> Option<usize> {
        let mut names = self.names.lock();
        if !names[kind as usize].remove(name) {
            return None;
        }
        self.total.fetch_sub(1, Ordering::Relaxed);
        Some(count(&names, kind))
    }

    /// The names, in order.
    pub fn names(&self, kind: Kind) -> Vec<Box<[u8]>> {
        self.names.lock()[kind as usize].iter().cloned().collect()
    }

    /// Removes all of a kind.
    pub fn take(&self, kind: Kind) -> BTreeSet<Box<[u8]>> {
        let taken = std::mem::take(&mut self.names.lock()[kind as usize]);
        self.total.fetch_sub(taken.len(), Ordering::Relaxed);
        taken
    }
}
