//! A member of a ring inside the test's process: real store, real peer protocol on loopback, no clients' port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_node::cluster::{ClusterState, Identity, Progress};
use annulus_node::node::{Node, NodeOptions};
use annulus_node::peer::{self, Links, PeerContext, PeersUp};
use annulus_node::routing::Routing;
use annulus_node::store::{EvictionPolicy, Store, StoreOptions, Value};
use annulus_proto::v1;
use annulus_proto::v1::peer_client::PeerClient;
use annulus_ring::{Access, Incarnation, Member, RingDocument, Slot};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::documents::{CLUSTER, id, member};

pub const NOW_MS: u64 = 1;

/// A running member. Everything it runs ends with it.
pub struct TestMember {
    pub state: Arc<ClusterState>,
    pub node: Arc<Node>,
    pub context: Arc<PeerContext>,
    pub peers_up: Arc<PeersUp>,
    pub addr: SocketAddr,
    pub listed: Member,
    stop: CancellationToken,
    _tasks: JoinSet<()>,
}

impl TestMember {
    pub async fn start(number: usize) -> Self {
        Self::start_in(CLUSTER, number).await
    }

    pub async fn start_in(cluster: &str, number: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        // Ports of this machine are unique, so the incarnation is.
        let incarnation = Incarnation(addr.port().into());
        let identity = Identity {
            cluster_uid: cluster.parse().unwrap(),
            node_id: id(number),
            incarnation,
        };
        let options = StoreOptions {
            budget_bytes: 1 << 30,
            eviction: EvictionPolicy::Lru,
        };
        let store = Arc::new(Store::new(options));
        let state = Arc::new(ClusterState::new(identity, Arc::clone(&store)));
        let node = Arc::new(Node::new(NodeOptions {
            store,
            routing: Arc::clone(&state) as Arc<dyn Routing>,
            password: None,
            clients_max: 100,
            threads: 1,
            started_at_ms: NOW_MS,
            run_id: incarnation.0,
        }));
        let context = Arc::new(PeerContext::new(Arc::clone(&state), Arc::clone(&node)));
        let (links, peers_up) = (Arc::new(Links::default()), Arc::new(PeersUp::default()));
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let server = peer::serve(listener, None, Arc::clone(&context), stop.clone());
        tasks.spawn(async { server.await.unwrap() });
        tasks.spawn(peer::expire_freezes(Arc::clone(&context)));
        tasks.spawn(peer::gossip(
            Arc::clone(&context),
            Arc::clone(&links),
            Arc::clone(&peers_up),
        ));
        tasks.spawn(peer::relay_messages(Arc::clone(&context), Arc::clone(&links)));
        tasks.spawn(peer::pull_handoffs(Arc::clone(&context), links));
        let listed = member(number, incarnation, addr.port(), addr.port());
        Self {
            state,
            node,
            context,
            peers_up,
            addr,
            listed,
            stop,
            _tasks: tasks,
        }
    }

    /// Writes one value as a connection would, under the slot's lock.
    pub fn write(&self, slot: Slot, key: &[u8], value: Vec<u8>) -> Access {
        let mut guard = self.node.store.lock_slot(slot);
        let access = self.state.access(slot);
        if access == Access::ReadWrite {
            guard.set(key, Value::from(value), None, NOW_MS).unwrap();
        }
        access
    }

    /// Writes a value of any type.
    pub fn write_value(&self, slot: Slot, key: &[u8], value: Value) {
        let mut guard = self.node.store.lock_slot(slot);
        guard.set(key, value, None, NOW_MS).unwrap();
    }

    /// The value of any type at a key.
    pub fn value(&self, slot: Slot, key: &[u8]) -> Option<Value> {
        let guard = self.node.store.lock_slot(slot);
        guard.peek(key, NOW_MS).map(|stored| stored.value().to_value())
    }

    pub fn read(&self, slot: Slot, key: &[u8]) -> Option<Vec<u8>> {
        let guard = self.node.store.lock_slot(slot);
        guard
            .peek(key, NOW_MS)
            .map(|stored| stored.value().to_bytes().into_owned())
    }

    /// Adopts a document, unless a peer has brought it already.
    pub fn adopt(&self, document: &RingDocument) {
        self.state.adopt(document.clone()).unwrap();
    }

    /// Waits until the node's progress is as wanted.
    pub async fn wait(&self, what: &str, wanted: impl Fn(&Progress) -> bool) {
        let mut changes = self.state.changes();
        let reached = async {
            while !wanted(&self.state.progress()) {
                changes.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_mins(1), reached)
            .await
            .is_err()
        {
            panic!("not within a minute: {what}; {:?}", self.state.progress());
        }
    }

    pub async fn client(&self) -> PeerClient<Channel> {
        connect(self.addr).await
    }
}

impl Drop for TestMember {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub async fn connect(addr: SocketAddr) -> PeerClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).unwrap();
    PeerClient::new(endpoint.connect().await.unwrap())
}

#[expect(clippy::unnecessary_wraps, reason = "as messages have it")]
pub fn operator(cluster: &str) -> Option<v1::Sender> {
    Some(v1::Sender {
        cluster_uid: cluster.to_owned(),
        ..v1::Sender::default()
    })
}
