//! The operator's connections to cache nodes.
//!
//! One task for each known pod address keeps a report stream open. Whatever comes from it counts only when it
//! names the expected cluster and node: pod IPs are re-used, so an answer at a known address proves nothing.
//! A node that is silent, or whose stream broke, has no report; whether it is dead is for [`crate::suspect`] to say.
//! The hub decides nothing; it wakes a cluster's reconcile when something changed that the operator acts on, which
//! counters are not. While nothing changes it sends nothing to nodes.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annulus_proto::credentials::LiveCredentials;
use annulus_proto::tenants::{TenantId, TenantsDocument};
use annulus_proto::v1::peer_client::PeerClient;
use annulus_proto::{Sender, v1};
use annulus_ring::{ClusterUid, DocumentError, Epoch, Incarnation, NodeId, RingDocument, SlotSet};
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tonic::transport::Channel;
use tracing::{debug, warn};

use crate::key::ClusterKey;
use crate::metrics::Metrics;
use crate::suspect::{Patience, Voice, judge};
use crate::tenants::usage::Usage;

mod watcher;

use watcher::Watcher;

const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reconcile waits for nodes to take a ring.
const PUSHES_AWAITED: Duration = Duration::from_millis(250);
/// By then every first attempt to connect has had its outcome.
const FIRST_ATTEMPTS: Duration = Duration::from_secs(3);

/// What a node says of itself, as far as the operator acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The life of the process.
    pub incarnation: Incarnation,
    /// The ring that it has.
    pub epoch: Epoch,
    /// It has a ring, and is filled.
    pub ready: bool,
    /// Slots of this epoch's handoffs that it serves already, as their target.
    pub activated: SlotSet,
    /// None of this epoch's handoffs towards it is in flight.
    pub settled: bool,
    /// Why its oldest unfinished handoff waits; empty when none does.
    pub handoff_waits: String,
    /// Who has whole copies of what it serves, beside those that the ring tells of: it acknowledges nothing without
    /// them.
    pub declared: BTreeMap<NodeId, SlotSet>,
    /// What its entries and copies take. That it changes is no reason to decide anything at once.
    pub used_bytes: u64,
    /// What they may take.
    pub budget_bytes: u64,
    /// It was told to end, and waits for others to take over what it has.
    pub leaving: bool,
    /// The version of the tenants document that it follows.
    pub tenants_version: u64,
    /// What the tenants use there.
    pub tenants: Arc<[(TenantId, Usage)]>,
}

impl Report {
    /// Whether the other report asks for another decision. Slots that were activated on the way do not: only a
    /// settled handoff, or the target's death, makes them count.
    fn decides_as(&self, other: &Self) -> bool {
        let acted_on = |report: &Self| {
            (
                report.incarnation,
                report.epoch,
                report.ready,
                report.settled,
                report.leaving,
                report.tenants_version,
            )
        };
        acted_on(self) == acted_on(other) && self.declared == other.declared
    }
}

/// What the hub knows of a cluster at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The newest report of each node that answers.
    pub reports: BTreeMap<NodeId, Report>,
    /// How long ago the first node of the cluster answered this operator.
    pub since_first_answer: Option<Duration>,
    /// The operator has only just begun to watch this cluster, and has yet to hear how the first attempt to
    /// connect to some node went: silence means nothing yet.
    pub connecting: bool,
    /// Nodes that are taken for dead, with when they were last heard.
    pub dead: BTreeMap<NodeId, Instant>,
}

/// Why a node could not be told or asked something.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No report stream to it is open.
    #[error("node {0} is not connected")]
    NotConnected(NodeId),
    /// It answered with an error, or not in time.
    #[error("node {node} refused: {status}")]
    Refused {
        /// Which node.
        node: NodeId,
        /// Its answer.
        status: Box<tonic::Status>,
    },
    /// It sent something that is not a ring document.
    #[error("node {node} sent an unusable ring: {error}")]
    Document {
        /// Which node.
        node: NodeId,
        /// What is wrong with it.
        error: DocumentError,
    },
}

/// All connections to nodes, by cluster. Cloning shares them.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
}

struct Shared {
    clusters: Mutex<HashMap<ClusterKey, Cluster>>,
    wake: UnboundedSender<ClusterKey>,
    interval: Duration,
    patience: Patience,
    metrics: Metrics,
    connections_made: AtomicU64,
}

struct Cluster {
    uid: ClusterUid,
    nodes: BTreeMap<NodeId, Node>,
    opened: Instant,
    first_answer: Option<Instant>,
}

struct Node {
    address: SocketAddr,
    /// Tells this connection from earlier ones to the same node, whose last words may still be on the way.
    connection: u64,
    /// The first attempt to connect has succeeded or failed.
    tried: bool,
    channel: Option<Channel>,
    report: Option<Report>,
    voice: Voice,
    /// It changed in a way that nobody was woken for yet.
    untold: bool,
    task: AbortHandle,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hub {
    /// A hub that asks nodes for a report every `interval`, takes those for dead that are silent for `silence`, and
    /// sends the key of a cluster to `wake` when it should be reconciled.
    pub fn new(
        interval: Duration,
        silence: Duration,
        wake: UnboundedSender<ClusterKey>,
        metrics: Metrics,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                clusters: Mutex::default(),
                wake,
                interval,
                patience: Patience::new(silence, interval),
                metrics,
                connections_made: AtomicU64::default(),
            }),
        }
    }

    /// Makes the cluster's connections exactly these: new ones are opened, others closed. With credentials, each proves who
    /// is at its ends.
    pub fn sync(
        &self,
        key: &ClusterKey,
        uid: &ClusterUid,
        addresses: &BTreeMap<NodeId, SocketAddr>,
        credentials: Option<&Arc<LiveCredentials>>,
    ) {
        let mut clusters = self.shared.clusters.lock();
        let cluster = clusters
            .entry(key.clone())
            .or_insert_with(|| Cluster::new(uid.clone()));
        if cluster.uid != *uid {
            *cluster = Cluster::new(uid.clone());
        }
        cluster
            .nodes
            .retain(|id, node| addresses.get(id) == Some(&node.address));
        for (id, address) in addresses {
            if !cluster.nodes.contains_key(id) {
                let connection = self.shared.connections_made.fetch_add(1, Ordering::Relaxed);
                let watcher = Watcher {
                    shared: Arc::clone(&self.shared),
                    key: key.clone(),
                    uid: uid.clone(),
                    id: id.clone(),
                    connection,
                    credentials: credentials.cloned(),
                };
                let task = tokio::spawn(watcher.run(*address)).abort_handle();
                let node = Node {
                    address: *address,
                    connection,
                    tried: false,
                    channel: None,
                    report: None,
                    voice: Voice::new(Instant::now()),
                    untold: false,
                    task,
                };
                cluster.nodes.insert(id.clone(), node);
            }
        }
        self.shared.count(&clusters);
    }

    /// Closes every connection of a cluster that is gone.
    pub fn forget(&self, key: &ClusterKey) {
        let mut clusters = self.shared.clusters.lock();
        clusters.remove(key);
        self.shared.count(&clusters);
    }

    /// The clusters that have connections.
    pub fn keys(&self) -> Vec<ClusterKey> {
        self.shared.clusters.lock().keys().cloned().collect()
    }

    /// What is known of the cluster now.
    pub fn snapshot(&self, key: &ClusterKey) -> Snapshot {
        let clusters = self.shared.clusters.lock();
        let Some(cluster) = clusters.get(key) else {
            return Snapshot::default();
        };
        let (dead, alive): (Vec<_>, Vec<_>) =
            cluster.nodes.iter().partition(|(_, node)| node.voice.is_dead());
        Snapshot {
            // A stream may be open although nothing comes from it any more.
            reports: alive
                .into_iter()
                .filter_map(|(id, node)| node.report.clone().map(|report| (id.clone(), report)))
                .collect(),
            since_first_answer: cluster.first_answer.map(|at| at.elapsed()),
            connecting: cluster.is_connecting(),
            dead: dead
                .into_iter()
                .map(|(id, node)| (id.clone(), node.voice.last()))
                .collect(),
        }
    }

    /// Tells the nodes the ring, all at the same time. Their answers count as reports. Nodes that take longer are
    /// told in the background: one that hangs must not hold up what is to be decided about it.
    pub async fn push(&self, key: &ClusterKey, nodes: Vec<NodeId>, document: &RingDocument) {
        let request = v1::PushRingRequest {
            sender: Some(operator(&document.cluster_uid, document.epoch)),
            document: document.to_json().into(),
        };
        let push = |hub: Self, key: ClusterKey, uid, node| {
            let request = request.clone();
            async move {
                if let Err(error) = hub.push_to(&key, uid, &node, request).await {
                    warn!(cluster = %key, %error, "can't push the ring");
                }
            }
        };
        self.push_to_all(key, &document.cluster_uid, nodes, push).await;
    }

    /// Starts a push to each of the nodes, and waits for them, but not for long.
    async fn push_to_all<F>(
        &self,
        key: &ClusterKey,
        uid: &ClusterUid,
        nodes: Vec<NodeId>,
        push: impl Fn(Self, ClusterKey, ClusterUid, NodeId) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let pushes = nodes
            .into_iter()
            .map(|node| push(self.clone(), key.clone(), uid.clone(), node));
        let mut pushes: JoinSet<()> = pushes.collect();
        let all = async { while pushes.join_next().await.is_some() {} };
        if tokio::time::timeout(PUSHES_AWAITED, all).await.is_err() {
            pushes.detach_all();
        }
    }

    async fn push_to(
        &self,
        key: &ClusterKey,
        uid: ClusterUid,
        node: &NodeId,
        request: v1::PushRingRequest,
    ) -> Result<(), NodeError> {
        let (connection, mut client) = self.client(key, node)?;
        self.shared.metrics.pushed();
        let answer = call(node, client.push_ring(request)).await?;
        self.accept(key, uid, node, connection, answer);
        Ok(())
    }

    /// Tells the nodes their tenants, as [`Self::push`] tells the ring.
    pub async fn push_tenants(&self, key: &ClusterKey, nodes: Vec<NodeId>, document: &TenantsDocument) {
        let request = v1::PushTenantsRequest {
            sender: Some(operator(&document.cluster_uid, Epoch::NONE)),
            document: document.to_json().into(),
        };
        let push = |hub: Self, key: ClusterKey, uid, node| {
            let request = request.clone();
            async move {
                if let Err(error) = hub.push_tenants_to(&key, uid, &node, request).await {
                    debug!(cluster = %key, %error, "can't push the tenants");
                }
            }
        };
        self.push_to_all(key, &document.cluster_uid, nodes, push).await;
    }

    async fn push_tenants_to(
        &self,
        key: &ClusterKey,
        uid: ClusterUid,
        node: &NodeId,
        request: v1::PushTenantsRequest,
    ) -> Result<(), NodeError> {
        let (connection, mut client) = self.client(key, node)?;
        self.shared.metrics.pushed_tenants();
        let answer = call(node, client.push_tenants(request)).await?;
        self.accept(key, uid, node, connection, answer);
        Ok(())
    }

    /// Takes what a node answered to a push as its report.
    fn accept(
        &self,
        key: &ClusterKey,
        uid: ClusterUid,
        node: &NodeId,
        connection: u64,
        answer: v1::NodeReport,
    ) {
        let watcher = Watcher {
            shared: Arc::clone(&self.shared),
            key: key.clone(),
            uid,
            id: node.clone(),
            connection,
            credentials: None,
        };
        if let Err(refusal) = watcher.accept(answer) {
            self.shared.metrics.report_refused(refusal.label());
        }
    }

    /// Asks a node for the ring that it has.
    pub async fn fetch_ring(
        &self,
        key: &ClusterKey,
        uid: &ClusterUid,
        node: &NodeId,
    ) -> Result<RingDocument, NodeError> {
        let (_, mut client) = self.client(key, node)?;
        let request = v1::FetchRingRequest {
            sender: Some(operator(uid, Epoch::NONE)),
        };
        let answer = call(node, client.fetch_ring(request)).await?;
        let unusable = |error| NodeError::Document {
            node: node.clone(),
            error,
        };
        let document = RingDocument::from_json(&answer.document).map_err(unusable)?;
        if document.cluster_uid == *uid {
            Ok(document)
        } else {
            let status = tonic::Status::failed_precondition("the ring that it has is another cluster's");
            Err(NodeError::Refused {
                node: node.clone(),
                status: Box::new(status),
            })
        }
    }

    fn client(&self, key: &ClusterKey, id: &NodeId) -> Result<(u64, PeerClient<Channel>), NodeError> {
        let clusters = self.shared.clusters.lock();
        let node = clusters.get(key).and_then(|cluster| cluster.nodes.get(id));
        node.and_then(|node| Some((node.connection, PeerClient::new(node.channel.clone()?))))
            .ok_or_else(|| NodeError::NotConnected(id.clone()))
    }
}

async fn call<T>(
    node: &NodeId,
    request: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, NodeError> {
    let answer = tokio::time::timeout(CALL_TIMEOUT, request).await;
    let answer = answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer within 2 s")));
    answer
        .map(tonic::Response::into_inner)
        .map_err(|status| NodeError::Refused {
            node: node.clone(),
            status: Box::new(status),
        })
}

fn operator(uid: &ClusterUid, epoch: Epoch) -> v1::Sender {
    (&Sender {
        cluster_uid: uid.clone(),
        epoch,
        node: None,
    })
        .into()
}

impl Cluster {
    fn new(uid: ClusterUid) -> Self {
        Self {
            uid,
            nodes: BTreeMap::new(),
            opened: Instant::now(),
            first_answer: None,
        }
    }

    fn is_connecting(&self) -> bool {
        self.opened.elapsed() < FIRST_ATTEMPTS && self.nodes.values().any(|node| !node.tried)
    }

    /// Returns whether somebody is taken for dead who wasn't before.
    fn judge(&mut self, patience: Patience) -> bool {
        !self.is_connecting()
            && judge(
                self.nodes.values_mut().map(|node| &mut node.voice),
                patience,
                Instant::now(),
            )
    }
}

impl Shared {
    fn count(&self, clusters: &HashMap<ClusterKey, Cluster>) {
        let nodes = clusters.values().flat_map(|cluster| cluster.nodes.values());
        let open = nodes.filter(|node| node.report.is_some()).count();
        self.metrics
            .nodes_watched
            .set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    fn wake(&self, key: &ClusterKey) {
        if self.wake.send(key.clone()).is_err() {
            debug!(cluster = %key, "nobody reconciles any more");
        }
    }
}
