//! Who is subscribed to which channel, by name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use annulus_ring::Slot;
use parking_lot::Mutex;

use super::{Kind, Push};
use crate::clients::Client;
use crate::commands::matches_pattern;

/// Locks that the channels share.
const SHARDS: usize = 64;
const SHARDS_SMALL: usize = 4;

/// In the order in which they came.
pub(super) type Subscribers = Vec<Arc<Client>>;
type Shard = HashMap<Box<[u8]>, Subscribers, foldhash::fast::RandomState>;

/// Channels that have subscribers. Those of one slot share a lock.
pub struct Channels {
    shards: Box<[Mutex<Shard>]>,
    count: AtomicUsize,
}

impl Default for Channels {
    fn default() -> Self {
        Self::with_shards(SHARDS)
    }
}

/// Takes a client off a name, and the name away with its last one.
pub(super) fn remove(names: &mut Shard, name: &[u8], client: &Arc<Client>) {
    if let Some(subscribers) = names.get_mut(name) {
        // Pointers are compared, so that nobody's memory but the list's is looked at.
        if let Some(place) = subscribers.iter().position(|other| Arc::ptr_eq(other, client)) {
            subscribers.remove(place);
        }
        if subscribers.is_empty() {
            names.remove(name);
        }
    }
}

impl Channels {
    /// The same with few locks.
    pub(super) fn small() -> Self {
        Self::with_shards(SHARDS_SMALL)
    }

    fn with_shards(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            count: AtomicUsize::new(0),
        }
    }

    /// How many channels have subscribers.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `look` with the channel's subscribers. Nobody else posts to the channel meanwhile.
    pub fn with<R>(&self, name: &[u8], look: impl FnOnce(&[Arc<Client>]) -> R) -> R {
        let shard = self.shard(Slot::for_key(name)).lock();
        look(shard.get(name).map_or(&[], Vec::as_slice))
    }

    /// How many are subscribed to the channel.
    pub fn subscribers(&self, name: &[u8]) -> usize {
        self.with(name, <[_]>::len)
    }

    /// The channels that match a pattern, in no order.
    pub fn names(&self, pattern: Option<&[u8]>) -> Vec<Box<[u8]>> {
        let is_wanted = |name: &[u8]| pattern.is_none_or(|pattern| matches_pattern(pattern, name));
        let mut names = Vec::new();
        for shard in &self.shards {
            names.extend(shard.lock().keys().filter(|name| is_wanted(name)).cloned());
        }
        names
    }

    pub(super) fn subscribe(&self, name: &[u8], client: &Arc<Client>) {
        self.update(Slot::for_key(name), |shard| {
            shard.entry(name.into()).or_default().push(Arc::clone(client));
        });
    }

    pub(super) fn unsubscribe(&self, name: &[u8], client: &Arc<Client>) {
        self.update(Slot::for_key(name), |shard| remove(shard, name, client));
    }

    /// The slot is served elsewhere from now on: its channels' subscribers are told and are subscribed no more. The
    /// caller holds the slot.
    pub fn leave(&self, slot: Slot) {
        if self.is_empty() {
            return;
        }
        self.update(slot, |shard| {
            for (name, subscribers) in shard.extract_if(|name, _| Slot::for_key(name) == slot) {
                for client in subscribers {
                    // Who has just ended the subscription itself is told so by its reply.
                    if let Some(left) = client.subscriptions.remove(Kind::Shard, &name) {
                        let push = Push::new(|reply| {
                            reply.push(3);
                            reply.bulk(b"sunsubscribe");
                            reply.bulk(&name);
                            reply.count(left);
                        });
                        push.post(&client);
                    }
                }
            }
        });
    }

    fn shard(&self, slot: Slot) -> &Mutex<Shard> {
        &self.shards[slot.index() % self.shards.len()]
    }

    fn update(&self, slot: Slot, update: impl FnOnce(&mut Shard)) {
        let mut shard = self.shard(slot).lock();
        let before = shard.len();
        update(&mut shard);
        // Differences wrap, and so does the sum.
        self.count
            .fetch_add(shard.len().wrapping_sub(before), Ordering::Relaxed);
    }
}
