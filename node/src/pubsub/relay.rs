//! Messages on their way to other nodes: one bounded queue for each.
//!
//! Whoever publishes puts a message into every queue and goes on; what doesn't fit is dropped and counted. A message
//! is taken out once and never put back, so that it arrives at most once and in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use annulus_proto::tenants::TenantId;
use annulus_ring::NodeId;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::stats::Total;

/// What may wait for one node.
pub const QUEUED_BYTES_MAX: usize = 16 << 20;

/// So much of that may be one tenant's, so that it drives out nobody else's.
const TENANT_BYTES_MAX: usize = QUEUED_BYTES_MAX / 4;

/// What goes to a node at once; a larger message goes alone.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// The longest message, its channel included: so much fits into one message between nodes.
pub const PUBLICATION_BYTES_MAX: usize = 3 << 20;

/// What a message costs beside its bytes: its place, and what two allocations hold beside their content.
const OVERHEAD_BYTES: usize = 2 * size_of::<Publication>();

/// A message that was published here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Whose clients hear it.
    pub tenant: TenantId,
    /// The channel.
    pub channel: Bytes,
    /// What was said.
    pub payload: Bytes,
}

impl Publication {
    fn bytes(&self) -> usize {
        self.channel.len() + self.payload.len() + OVERHEAD_BYTES
    }
}

/// What waits for one node.
#[derive(Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    publications: VecDeque<Publication>,
    bytes: usize,
    /// What of that tenants have, where they have any.
    tenants: BTreeMap<TenantId, usize>,
}

impl Outbox {
    /// Adds a message unless that is too much; says whether it did.
    pub fn push(&self, publication: Publication) -> bool {
        let mut queue = self.queue.lock();
        let bytes = queue.bytes + publication.bytes();
        if bytes > QUEUED_BYTES_MAX {
            return false;
        }
        if publication.tenant != TenantId::CLUSTER {
            let queued = queue.tenants.entry(publication.tenant).or_default();
            if *queued > 0 && *queued + publication.bytes() > TENANT_BYTES_MAX {
                return false;
            }
            *queued += publication.bytes();
        }
        queue.bytes = bytes;
        queue.publications.push_back(publication);
        drop(queue);
        self.filled.notify_one();
        true
    }

    /// Waits for messages and takes as many as go at once.
    pub async fn take(&self) -> Vec<Publication> {
        loop {
            let batch = self.take_ready();
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    fn take_ready(&self) -> Vec<Publication> {
        let mut queue = self.queue.lock();
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        while let Some(next) = queue.publications.front() {
            let bytes = next.bytes();
            if batch_bytes + bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                break;
            }
            batch_bytes += bytes;
            let tenant = next.tenant;
            if let Some(queued) = queue.tenants.get_mut(&tenant) {
                *queued -= bytes;
                if *queued == 0 {
                    queue.tenants.remove(&tenant);
                }
            }
            batch.extend(queue.publications.pop_front());
        }
        queue.bytes -= batch_bytes;
        batch
    }
}

/// What became of messages; one message counts for each node that it goes to.
#[derive(Debug, Default)]
pub struct RelayCounters {
    /// Another node has taken it.
    pub sent: Total,
    /// It didn't get there, or nobody knows.
    pub dropped: Total,
    /// It came from another node.
    pub received: Total,
}

/// The queues to all other nodes of the ring.
#[derive(Default)]
pub struct Relay {
    /// What became of messages.
    pub counters: RelayCounters,
    has_peers: AtomicBool,
    outboxes: RwLock<BTreeMap<NodeId, Arc<Outbox>>>,
}

impl Relay {
    /// Offers a message to every other node; those that have no room for it won't get it.
    pub fn send(&self, tenant: TenantId, channel: &[u8], payload: &[u8]) {
        if !self.has_peers.load(Ordering::Relaxed) {
            return;
        }
        let publication = Publication {
            tenant,
            channel: Bytes::copy_from_slice(channel),
            payload: Bytes::copy_from_slice(payload),
        };
        let outboxes = self.outboxes.read();
        for outbox in outboxes.values() {
            if !outbox.push(publication.clone()) {
                self.counters.dropped.add(1);
            }
        }
    }

    /// Has queues to these nodes and to no others from now on; what waits for one that stays is kept.
    pub fn set_peers(&self, peers: impl IntoIterator<Item = NodeId>) -> BTreeMap<NodeId, Arc<Outbox>> {
        let mut outboxes = self.outboxes.write();
        let mut former = std::mem::take(&mut *outboxes);
        for peer in peers {
            let outbox = former.remove(&peer).unwrap_or_default();
            outboxes.insert(peer, outbox);
        }
        self.has_peers.store(!outboxes.is_empty(), Ordering::Relaxed);
        outboxes.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(bytes: usize) -> Publication {
        Publication {
            tenant: TenantId::CLUSTER,
            channel: Bytes::from_static(b"c"),
            payload: vec![0; bytes - 1 - OVERHEAD_BYTES].into(),
        }
    }

    /// The sizes of what is put in, and how many come out at once.
    #[test]
    fn batches_are_bounded_and_in_order() {
        const HALF: usize = BATCH_BYTES_MAX / 2;
        let table: [(&[usize], &[usize]); 5] = [
            (&[], &[0]),
            (&[HALF, HALF, HALF], &[2, 1, 0]),
            (&[HALF, HALF + 1, HALF], &[1, 1, 1, 0]),
            (&[PUBLICATION_BYTES_MAX, 1000, 1000], &[1, 2, 0]),
            (&[1000, PUBLICATION_BYTES_MAX, 1000], &[1, 1, 1, 0]),
        ];
        for (sizes, batches) in table {
            let outbox = Outbox::default();
            for bytes in sizes {
                assert!(outbox.push(publication(*bytes)));
            }
            let mut taken = Vec::new();
            for len in batches {
                let batch = outbox.take_ready();
                assert_eq!(batch.len(), *len, "{sizes:?}");
                taken.extend(batch.iter().map(Publication::bytes));
            }
            assert_eq!(taken, sizes);
            assert_eq!(outbox.queue.lock().bytes, 0);
        }
    }

    #[test]
    fn a_full_queue_takes_no_more_and_others_go_on() {
        let relay = Relay::default();
        relay.send(TenantId::CLUSTER, b"c", b"nobody is there");
        let id = |name: &str| name.parse::<NodeId>().unwrap();
        let outboxes = relay.set_peers([id("a"), id("b")]);
        let payload = vec![0; PUBLICATION_BYTES_MAX];
        let fitting = QUEUED_BYTES_MAX / (PUBLICATION_BYTES_MAX + OVERHEAD_BYTES + 1);
        for _ in 0..fitting {
            relay.send(TenantId::CLUSTER, b"c", &payload);
        }
        assert_eq!(relay.counters.dropped.get(), 0);
        assert_eq!(outboxes[&id("b")].take_ready().len(), 1);
        relay.send(TenantId::CLUSTER, b"c", &payload);
        assert_eq!(relay.counters.dropped.get(), 1, "a is full, b is not");

        let outboxes = relay.set_peers([id("a"), id("c")]);
        assert_eq!(outboxes[&id("a")].take_ready().len(), 1, "what waits for a stays");
        assert_eq!(outboxes[&id("c")].take_ready().len(), 0);
        assert_eq!(outboxes.len(), 2);
    }
}
