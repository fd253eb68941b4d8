//! Client-side caching: which clients hold which keys, and how they learn that one has changed.
//!
//! Clients that only say `CLIENT TRACKING ON` are remembered with each key that they read, and told once when it
//! changes; those that ask for `BCAST` are told of every change of a key that begins as they like. Whatever takes a key
//! away counts as a change: a write, expiry, eviction, `FLUSHALL`, a slot that leaves.
//!
//! A write looks at two numbers, one of them of its slot, and goes on where nobody is to be told. Everything that adds
//! to the [`table`] or takes from it is called with the slot's lock held, so that no change falls between a read and
//! the memory of it. Locks are taken in this order: the prefixes', then a client's options, then a mailbox.

mod options;
mod table;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use annulus_ring::Slot;
use parking_lot::{Mutex, RwLock};

pub use options::{Consent, Mode, Redirect, TrackingOptions};
use table::{Readers, Table};

use crate::clients::Client;
use crate::pubsub::Push;
use crate::resp::Reply;

/// So many keys of a tenant are remembered at most, whatever `tracking-table-max-keys` says.
pub const TENANT_KEYS_MAX: usize = 1 << 16;

/// Where clients listen that have the news of another connection.
const CHANNEL: &[u8] = b"__redis__:invalidate";

type Prefixes = BTreeMap<Box<[u8]>, Vec<Arc<Client>>>;

/// The caches of all clients of a tenant.
#[derive(Default)]
pub struct Tracking {
    table: Table,
    /// Who wants to know of all keys that begin like this.
    prefixes: RwLock<Prefixes>,
    prefix_count: AtomicUsize,
    clients: Mutex<HashMap<u64, Weak<Client>, foldhash::fast::RandomState>>,
}

/// What a client is told: that these keys have changed, or all of them.
fn invalidation<'a>(keys: Option<&'a [&'a [u8]]>) -> Push<impl Fn(&mut Reply) + 'a> {
    Push::new(move |reply| {
        if reply.is_resp3() {
            reply.push(2);
            reply.bulk(b"invalidate");
        } else {
            reply.array(3);
            reply.bulk(b"message");
            reply.bulk(CHANNEL);
        }
        match keys {
            Some(keys) => {
                reply.array(keys.len());
                for key in keys {
                    reply.bulk(key);
                }
            }
            None => reply.null(),
        }
    })
}

/// Sends it to the client, or to whom that has named.
fn tell<W: Fn(&mut Reply)>(client: &Client, options: &mut TrackingOptions, push: &Push<W>) {
    let Some(redirect) = &options.redirect else {
        // In RESP2 it could not be told from a reply.
        if client.resp3.load(Ordering::Relaxed) {
            options.invalidations += u64::from(push.post_once(client));
        }
        return;
    };
    // Who has become another tenant's is as good as gone.
    let target = redirect.target.upgrade();
    if let Some(target) = target.filter(|target| target.tenant() == client.tenant()) {
        let mut is_posted = false;
        if target.resp3.load(Ordering::Relaxed) {
            is_posted = push.post_once(&target);
        } else {
            // Behind the end of its last subscription it would be taken for a reply.
            target
                .subscriptions
                .while_any(|| is_posted = push.post_once(&target));
        }
        options.invalidations += u64::from(is_posted);
        return;
    }
    options.is_broken = true;
    if client.resp3.load(Ordering::Relaxed) {
        let id = redirect.id;
        let broken = Push::new(|reply| {
            reply.push(2);
            reply.bulk(b"tracking-redir-broken");
            reply.integer(i64::try_from(id).unwrap_or(i64::MAX));
        });
        broken.post(client);
    }
}

/// Tells those who have read a key.
fn tell_readers(key: &[u8], readers: &Readers, writer: Option<u64>) {
    let keys = [key];
    let push = invalidation(Some(&keys));
    for client in readers.iter().filter_map(Weak::upgrade) {
        let mut options = client.tracking.lock();
        if matches!(options.mode, Mode::Keys(_)) && !(options.no_loop && writer == Some(client.id)) {
            tell(&client, &mut options, &push);
        }
    }
}

impl Tracking {
    /// The same for one of many tenants: smaller, and more often waited for.
    pub fn small() -> Self {
        Self {
            table: Table::small(),
            ..Self::default()
        }
    }

    /// Whether anybody is to be told of a change in this slot. Two loads.
    #[inline]
    pub fn any(&self, slot: Slot) -> bool {
        self.table.any(slot) || self.prefixes() > 0
    }

    /// How many clients have it on.
    pub fn clients(&self) -> usize {
        self.clients.lock().len()
    }

    /// How many keys are in the table.
    pub fn keys(&self) -> usize {
        self.table.keys()
    }

    /// With how many clients together.
    pub fn items(&self) -> usize {
        self.table.items()
    }

    /// How many beginnings of keys somebody wants to know of.
    pub fn prefixes(&self) -> usize {
        self.prefix_count.load(Ordering::Relaxed)
    }

    /// The client has read these keys of a slot that the caller holds. When that makes more than `keys_max` keys (0 for
    /// no limit), others leave the table, and the caches that have them.
    pub fn remember<'a>(
        &self,
        slot: Slot,
        keys: impl Iterator<Item = &'a [u8]>,
        client: &Arc<Client>,
        keys_max: usize,
    ) {
        for key in keys {
            self.table.add(slot, key, client);
        }
        self.shrink(keys_max);
    }

    /// Takes keys out of the table, and out of the caches that have them, until there are `keys_max` at most.
    pub fn shrink(&self, keys_max: usize) {
        while keys_max > 0 && self.table.keys() > keys_max {
            let Some((key, readers)) = self.table.pop() else {
                break;
            };
            tell_readers(&key, &readers, None);
        }
    }

    /// A key has changed, by whatever the client of that number did: who has read it is told. The caller holds its
    /// slot.
    #[cold]
    pub fn changed(&self, slot: Slot, key: &[u8], writer: Option<u64>) {
        if let Some(readers) = self.table.remove(slot, key) {
            tell_readers(key, &readers, writer);
        }
    }

    /// Keys have changed: who listens to all that begin like one is told. The caller still holds their slot.
    pub fn broadcast(&self, keys: &[Box<[u8]>], writer: Option<u64>) {
        for (prefix, clients) in &*self.prefixes.read() {
            let begin_so: Vec<&[u8]> = keys
                .iter()
                .map(|key| &**key)
                .filter(|key| key.starts_with(prefix))
                .collect();
            if begin_so.is_empty() {
                continue;
            }
            let push = invalidation(Some(&begin_so));
            for client in clients {
                let mut options = client.tracking.lock();
                if !(options.no_loop && writer == Some(client.id)) {
                    tell(client, &mut options, &push);
                }
            }
        }
    }

    /// The slot is served elsewhere from now on, or begins anew. The caller holds it.
    pub fn leave(&self, slot: Slot) {
        for (key, readers) in self.table.take_slot(slot) {
            tell_readers(&key, &readers, None);
        }
        if self.prefixes() > 0 {
            // They may have any key of the slot, those included that aren't there.
            let push = invalidation(None);
            for client in self.prefixes.read().values().flatten() {
                tell(client, &mut client.tracking.lock(), &push);
            }
        }
    }

    /// All keys are gone.
    pub fn flush(&self) {
        // In this order: who reads a key meanwhile is remembered, or told.
        self.table.clear();
        let push = invalidation(None);
        let clients: Vec<_> = self.clients.lock().values().filter_map(Weak::upgrade).collect();
        for client in clients {
            let mut options = client.tracking.lock();
            if options.mode != Mode::Off {
                tell(&client, &mut options, &push);
            }
        }
    }

    /// Changes how a client is told. What it has read before stays remembered.
    pub fn enable(&self, client: &Arc<Client>, mut changed: TrackingOptions) {
        let mut prefixes = self.prefixes.write();
        let mut options = client.tracking.lock();
        changed.invalidations = options.invalidations;
        for prefix in changed.prefixes.difference(&options.prefixes) {
            prefixes
                .entry(prefix.clone())
                .or_default()
                .push(Arc::clone(client));
        }
        self.prefix_count.store(prefixes.len(), Ordering::Relaxed);
        *options = changed;
        drop((options, prefixes));
        self.clients.lock().insert(client.id, Arc::downgrade(client));
    }

    /// The client isn't told any more.
    pub fn disable(&self, client: &Arc<Client>) {
        let options = std::mem::take(&mut *client.tracking.lock());
        if options.mode == Mode::Off {
            return;
        }
        if !options.prefixes.is_empty() {
            let mut prefixes = self.prefixes.write();
            for prefix in &options.prefixes {
                if let Some(clients) = prefixes.get_mut(prefix) {
                    clients.retain(|other| !Arc::ptr_eq(other, client));
                    if clients.is_empty() {
                        prefixes.remove(prefix);
                    }
                }
            }
            self.prefix_count.store(prefixes.len(), Ordering::Relaxed);
        }
        self.clients.lock().remove(&client.id);
    }
}

#[cfg(test)]
mod tests;
