//! What one life of another node is to be sent, and what it has acknowledged.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use annulus_proto::tenants::TenantId;
use annulus_ring::{Epoch, Incarnation, NodeId, Slot};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::{Journal, LEASE_MS};
use crate::store::TenantKey;

/// More changes than these are kept as whole slots, of which there are fewer.
const CHANGES_MAX: usize = 1 << 18;

/// A key that changed, or a whole slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Where.
    pub slot: Slot,
    /// Which key; `None` for all of the slot.
    pub key: Option<TenantKey>,
}

/// What is to be sent next.
#[derive(Debug)]
pub struct Batch {
    /// In the order of the changes; a key may come twice.
    pub changes: Vec<Changed>,
    /// They are all that there is up to this lsn.
    pub lsn: u64,
}

/// What was sent and not acknowledged.
#[derive(Debug)]
struct Flight {
    lsn: u64,
    changes: Vec<Changed>,
}

/// What waits to be sent.
#[derive(Default)]
pub struct Queue {
    changes: Vec<Changed>,
    flights: VecDeque<Flight>,
    was_empty: bool,
}

impl Queue {
    pub(super) fn push(&mut self, slot: Slot, key: Option<(TenantId, &[u8])>) {
        self.was_empty |= self.changes.is_empty();
        self.changes.push(Changed {
            slot,
            key: key.map(|(tenant, key)| (tenant, key.into())),
        });
        if self.changes.len() > CHANGES_MAX {
            self.collapse();
        }
    }

    /// Instead of the keys, whole slots: so that what is kept for a node that is away is bounded.
    #[cold]
    fn collapse(&mut self) {
        let slots: BTreeSet<Slot> = self.changes.iter().map(|changed| changed.slot).collect();
        self.changes = slots
            .into_iter()
            .map(|slot| Changed { slot, key: None })
            .collect();
    }
}

/// A queue that is locked; whoever sends from it is woken when it is freed, if there was nothing in it.
pub struct QueueGuard<'a> {
    link: &'a Link,
    queue: MutexGuard<'a, Queue>,
}

impl std::ops::Deref for QueueGuard<'_> {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.queue
    }
}

impl std::ops::DerefMut for QueueGuard<'_> {
    fn deref_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }
}

impl Drop for QueueGuard<'_> {
    fn drop(&mut self) {
        if std::mem::take(&mut self.queue.was_empty) {
            self.link.wake.notify_one();
        }
    }
}

/// One life of another node that has, or is given, copies.
pub struct Link {
    /// The node.
    pub id: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    queue: Mutex<Queue>,
    wake: Notify,
    acked: AtomicU64,
    leased_until_ms: AtomicU64,
    /// The epoch at which the last lease was given.
    lease_epoch: AtomicU64,
    waiters: Mutex<Vec<(u64, Waker)>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} {})", self.id, self.incarnation)
    }
}

impl Link {
    /// A node that has acknowledged nothing and given no lease.
    pub fn new(id: NodeId, incarnation: Incarnation) -> Self {
        Self {
            id,
            incarnation,
            queue: Mutex::default(),
            wake: Notify::new(),
            acked: AtomicU64::new(0),
            leased_until_ms: AtomicU64::new(0),
            lease_epoch: AtomicU64::new(0),
            waiters: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> QueueGuard<'_> {
        QueueGuard {
            link: self,
            queue: self.queue.lock(),
        }
    }

    /// Waits until there may be something to send.
    pub async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Has whoever waits look again.
    pub fn notify(&self) {
        self.wake.notify_one();
    }

    /// Takes all that waits to be sent; it is in flight from now on. `None` when there is nothing.
    pub fn take(&self, journal: &Journal) -> Option<Batch> {
        let mut queue = self.queue.lock();
        if queue.changes.is_empty() {
            return None;
        }
        let changes = std::mem::take(&mut queue.changes);
        let lsn = journal.last_lsn();
        queue.flights.push_back(Flight {
            lsn,
            changes: changes.clone(),
        });
        Some(Batch { changes, lsn })
    }

    /// Up to where everything was taken, when nothing waits to be.
    pub fn idle_lsn(&self, journal: &Journal) -> Option<u64> {
        let queue = self.queue.lock();
        queue.changes.is_empty().then(|| journal.last_lsn())
    }

    /// What was in flight waits to be sent again: the stream ended.
    pub fn requeue(&self) {
        let mut queue = self.queue.lock();
        let flights = std::mem::take(&mut queue.flights);
        let mut changes: Vec<Changed> = flights.into_iter().flat_map(|flight| flight.changes).collect();
        changes.append(&mut queue.changes);
        queue.changes = changes;
    }

    /// The keys that the node may not have, of the slots for which `wanted` holds.
    pub fn unacknowledged(&self, wanted: impl Fn(Slot) -> bool) -> Vec<Changed> {
        let queue = self.queue.lock();
        let flights = queue.flights.iter().flat_map(|flight| &flight.changes);
        flights
            .chain(&queue.changes)
            .filter(|changed| wanted(changed.slot))
            .cloned()
            .collect()
    }

    /// Forgets what is to be sent of other slots than these.
    pub(super) fn keep(&self, wanted: impl Fn(Slot) -> bool) {
        let mut queue = self.queue.lock();
        queue.changes.retain(|changed| wanted(changed.slot));
        for flight in &mut queue.flights {
            flight.changes.retain(|changed| wanted(changed.slot));
        }
    }

    /// The node has everything up to the lsn, and gave a lease at that epoch in answer to what was sent at that moment.
    pub fn acknowledge(&self, lsn: u64, sent_ms: u64, epoch: Epoch) {
        let mut queue = self.queue.lock();
        while queue.flights.front().is_some_and(|flight| flight.lsn <= lsn) {
            queue.flights.pop_front();
        }
        drop(queue);
        self.acked.fetch_max(lsn, Ordering::Release);
        self.leased_until_ms
            .fetch_max(sent_ms + LEASE_MS, Ordering::Release);
        // After the moment, so that whoever sees the epoch sees its lease.
        self.lease_epoch.fetch_max(epoch.0, Ordering::Release);
        let acked = self.acked();
        let mut waiters = self.waiters.lock();
        let mut ready = Vec::new();
        waiters.retain(|(lsn, waker)| {
            let waits = *lsn > acked;
            if !waits {
                ready.push(waker.clone());
            }
            waits
        });
        drop(waiters);
        ready.into_iter().for_each(Waker::wake);
    }

    /// What the node has acknowledged.
    #[inline]
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Until when the node answers for none of this node's slots.
    #[inline]
    pub fn leased_until_ms(&self) -> u64 {
        self.leased_until_ms.load(Ordering::Acquire)
    }

    /// Whether the node has everything up to the lsn; if not, the waker is called when it has.
    pub(super) fn poll_acked(&self, lsn: u64, waker: &Waker) -> bool {
        self.poll_until(lsn, waker, || self.acked() >= lsn)
    }

    /// Whether the node's lease holds at that moment and was given at that epoch or later, since which this node serves what
    /// it is about; if not, the waker is called when the node has answered.
    pub(super) fn poll_leased(&self, since: Epoch, now_ms: u64, waker: &Waker) -> bool {
        self.poll_until(0, waker, || self.is_leased(since, now_ms))
    }

    /// Whether the node's lease holds at that moment and was given at that epoch or later.
    pub(super) fn is_leased(&self, since: Epoch, now_ms: u64) -> bool {
        self.lease_epoch.load(Ordering::Acquire) >= since.0 && self.leased_until_ms() > now_ms
    }

    fn poll_until(&self, lsn: u64, waker: &Waker, is_met: impl Fn() -> bool) -> bool {
        if is_met() {
            return true;
        }
        let mut waiters = self.waiters.lock();
        // A task waits for one thing at a time.
        waiters.retain(|(_, other)| !other.will_wake(waker));
        waiters.push((lsn, waker.clone()));
        drop(waiters);
        // It may have come true before the waker was there.
        is_met()
    }

    pub(super) fn wake_all(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        for (_, waker) in waiters {
            waker.wake();
        }
        self.wake.notify_one();
    }
}
