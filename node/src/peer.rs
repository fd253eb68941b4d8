//! The peer protocol's two ends: what the operator and other nodes ask of this node, and what it asks of them.
//!
//! Every message that arrives is first checked for its cluster, before anything else is looked at: pod IPs are
//! re-used, so that a connection proves nothing. Where the node has a certificate for peers, both ends of a connection prove
//! who they are, and no message may name another sender. Every call that leaves has a deadline. No message is larger
//! than [`MESSAGE_BYTES_MAX`], whatever the size of a slot or a value.

mod backoff;
mod chunk;
mod copies;
mod elements;
mod execute;
mod forward;
mod gossip;
mod incoming;
mod links;
mod mirror;
mod pace;
mod puller;
mod relay;
mod replicate;
mod report;
mod secure;
mod server;
mod take_over;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::v1;
use annulus_ring::NodeId;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use forward::{ForwardError, Forwarder};
pub use gossip::{PeersUp, gossip};
pub(crate) use incoming::accept;
pub use links::Links;
pub use mirror::mirror;
pub use puller::pull_handoffs;
pub use relay::relay_messages;
pub use replicate::replicate;
pub use secure::{OwnCredentials, PeerTlsFiles};
pub use server::{expire_freezes, serve};

use crate::clock::MonotonicClock;
use crate::cluster::ClusterState;
use crate::node::Node;
use crate::stats::{ThreadStats, Total};

/// The largest message that is accepted. Documents stay under 1 MiB since a ConfigMap holds no more, and a slot's
/// entries are cut into chunks.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// What a chunk of entries carries at most, beside its frame.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The largest key, the largest string and the largest element of a collection that a pull accepts.
const VALUE_BYTES_MAX: usize = 512 << 20;

/// A freeze ends by itself after at most this long, whatever the target asks for.
const FREEZE_MAX: Duration = Duration::from_mins(1);

/// What the peer protocol works on.
pub struct PeerContext {
    /// The node's place in the ring.
    pub state: Arc<ClusterState>,
    /// The entries, and what the data path counts.
    pub node: Arc<Node>,
    /// What the peer protocol counts.
    pub counters: PeerCounters,
    /// The control thread's share of the data path's counters.
    thread_stats: Arc<ThreadStats>,
    /// Somebody spoke of a higher epoch.
    newer_epoch: Notify,
    /// A slot was frozen.
    froze: Notify,
    /// What fills copies and hands slots over goes out at it.
    pace: pace::Pace,
    /// Why the pulls from a source wait, by source.
    waits: Mutex<BTreeMap<NodeId, String>>,
}

impl PeerContext {
    /// A context with counters at 0. Everything that gets it runs on the one control thread.
    pub fn new(state: Arc<ClusterState>, node: Arc<Node>) -> Self {
        Self {
            thread_stats: node.stats.register_thread(),
            state,
            node,
            counters: PeerCounters::default(),
            newer_epoch: Notify::new(),
            froze: Notify::new(),
            pace: pace::Pace::default(),
            waits: Mutex::default(),
        }
    }

    /// The clock of freezes and leases.
    fn clock(&self) -> &MonotonicClock {
        self.node.store.journal.clock()
    }

    /// Whether slots may go out now, by the pace that the ring sets.
    fn may_transfer(&self) -> bool {
        self.pace.wait_ms(self.clock().now_ms()) == 0
    }

    /// So many bytes of slots went out.
    fn transferred(&self, bytes: u64) {
        let limit = self.state.transfer_bytes_per_second();
        self.pace.spend(bytes, limit, self.clock().now_ms());
    }

    /// Waits until slots may go out.
    async fn pace_allows(&self) {
        loop {
            let now_ms = self.clock().now_ms();
            let wait_ms = self.pace.wait_ms(now_ms);
            if wait_ms == 0 {
                return;
            }
            tokio::time::sleep_until(self.clock().moment(now_ms + wait_ms)).await;
        }
    }

    /// This node as the sender of a message.
    fn sender(&self) -> v1::Sender {
        sender(&self.state)
    }
}

/// The node of that state as the sender of a message.
fn sender(state: &ClusterState) -> v1::Sender {
    let identity = state.identity();
    v1::Sender {
        cluster_uid: identity.cluster_uid.to_string(),
        epoch: state.epoch().0,
        node_id: identity.node_id.to_string(),
        incarnation: identity.incarnation.to_bytes().to_vec().into(),
    }
}

/// Totals since boot.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Slots that were pulled and activated.
    pub slots_in: Total,
    /// Slots that were handed over.
    pub slots_out: Total,
    /// Bytes of keys and values received for pulls, those of failed ones included.
    pub bytes_in: Total,
    /// Bytes of keys and values sent for other nodes' pulls.
    pub bytes_out: Total,
    /// Pulls of a slot that failed and were begun again.
    pub pulls_failed: Total,
}
