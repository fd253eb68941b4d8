//! Publish and subscribe: who gets a message.
//!
//! A message is in the mailboxes of all its local subscribers before `PUBLISH` answers, and is offered to every other
//! node by the [`relay`]. It is delivered at most once; what one connection publishes arrives in its order. All
//! subscribers on a node see the messages of one channel in the same order, because they are posted while the
//! channel's lock is held. No lock is held longer than that, and none while a socket is written.
//!
//! Sharded channels are in slots, as keys are, and leave with their slot. Every tenant has a [`PubSub`] of its own, which the
//! store keeps with what else the tenant has.

mod channels;
mod push;
pub mod relay;
mod subscriptions;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

pub use channels::Channels;
pub use push::Push;
pub use subscriptions::{Kind, SUBSCRIPTIONS_MAX, Subscriptions};

use crate::clients::Client;
use crate::commands::matches_pattern;
use channels::{Subscribers, remove};

/// The channels and patterns that a tenant's clients are subscribed to on this node.
#[derive(Default)]
pub struct PubSub {
    /// Channels that reach across the ring.
    pub channels: Channels,
    /// Channels that are in slots.
    pub shards: Channels,
    patterns: RwLock<HashMap<Box<[u8]>, Subscribers, foldhash::fast::RandomState>>,
    pattern_count: AtomicUsize,
}

impl PubSub {
    /// The same for one of many tenants: smaller, and more often waited for.
    pub fn small() -> Self {
        Self {
            channels: Channels::small(),
            shards: Channels::small(),
            ..Self::default()
        }
    }

    /// Delivers a message to the subscribers here, and says how many they are.
    pub fn publish(&self, channel: &[u8], payload: &[u8]) -> usize {
        self.channels.with(channel, |subscribers| {
            let mut receivers = post_all(subscribers, "message", channel, payload);
            if self.patterns() == 0 {
                return receivers;
            }
            for (pattern, subscribers) in &*self.patterns.read() {
                if matches_pattern(pattern, channel) {
                    let push = Push::new(|reply| {
                        reply.push(4);
                        reply.bulk(b"pmessage");
                        reply.bulk(pattern);
                        reply.bulk(channel);
                        reply.bulk(payload);
                    });
                    for client in subscribers {
                        push.post(client);
                    }
                    receivers += subscribers.len();
                }
            }
            receivers
        })
    }

    /// Delivers a message of a sharded channel, and says to how many.
    pub fn publish_sharded(&self, channel: &[u8], payload: &[u8]) -> usize {
        self.shards.with(channel, |subscribers| {
            post_all(subscribers, "smessage", channel, payload)
        })
    }

    /// How many patterns there are subscriptions to.
    pub fn patterns(&self) -> usize {
        self.pattern_count.load(Ordering::Relaxed)
    }

    /// Adds a subscription that the client didn't have. For a sharded channel the caller holds its slot.
    pub fn subscribe(&self, kind: Kind, name: &[u8], client: &Arc<Client>) {
        match kind {
            Kind::Channel => self.channels.subscribe(name, client),
            Kind::Shard => self.shards.subscribe(name, client),
            Kind::Pattern => {
                let mut patterns = self.patterns.write();
                patterns.entry(name.into()).or_default().push(Arc::clone(client));
                self.pattern_count.store(patterns.len(), Ordering::Relaxed);
            }
        }
    }

    /// Ends a subscription: once this returns, no message comes by it.
    pub fn unsubscribe(&self, kind: Kind, name: &[u8], client: &Arc<Client>) {
        match kind {
            Kind::Channel => self.channels.unsubscribe(name, client),
            Kind::Shard => self.shards.unsubscribe(name, client),
            Kind::Pattern => {
                let mut patterns = self.patterns.write();
                remove(&mut patterns, name, client);
                self.pattern_count.store(patterns.len(), Ordering::Relaxed);
            }
        }
    }

    /// Ends all subscriptions of a client.
    pub fn forget(&self, client: &Arc<Client>) {
        if client.subscriptions.is_any() {
            for kind in Kind::ALL {
                for name in client.subscriptions.take(kind) {
                    self.unsubscribe(kind, &name, client);
                }
            }
        }
    }
}

fn post_all(subscribers: &[Arc<Client>], kind: &str, channel: &[u8], payload: &[u8]) -> usize {
    let push = Push::new(|reply| {
        reply.push(3);
        reply.bulk(kind.as_bytes());
        reply.bulk(channel);
        reply.bulk(payload);
    });
    for client in subscribers {
        push.post(client);
    }
    subscribers.len()
}

#[cfg(test)]
mod tests;
