//! The operator's connections to cache nodes.
//!
//! One task for each known pod address keeps a report stream open. Whatever comes from it counts only when it
//! names the expected cluster and node: pod IPs are re-used, so an answer at a known address proves nothing.
//! A node that is silent, or whose stream broke, has no report. The hub decides nothing; it wakes a cluster's
//! reconcile when something changed that the operator acts on, which counters are not. While nothing changes
//! it sends nothing to nodes.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::v1::peer_client::PeerClient;
use annulus_proto::{MessageError, Sender, v1};
use annulus_ring::{ClusterUid, DocumentError, Epoch, Incarnation, NodeId, RingDocument, SlotRange, SlotSet};
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, warn};

use crate::key::ClusterKey;
use crate::metrics::Metrics;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A stream that misses this many reports in a row is dead.
const SILENT_INTERVALS: u32 = 8;

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
}

impl Report {
    /// Whether the other report asks for another decision. Slots that were activated on the way do not: only a
    /// settled handoff, or the target's death, makes them count.
    fn decides_as(&self, other: &Self) -> bool {
        (self.incarnation, self.epoch, self.ready, self.settled)
            == (other.incarnation, other.epoch, other.ready, other.settled)
    }
}

/// What the hub knows of a cluster at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The newest report of each node that answers.
    pub reports: BTreeMap<NodeId, Report>,
    /// How long ago the first node of the cluster answered this operator.
    pub since_first_answer: Option<Duration>,
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
    metrics: Metrics,
}

struct Cluster {
    uid: ClusterUid,
    nodes: BTreeMap<NodeId, Node>,
    first_answer: Option<Instant>,
    connections_made: u64,
}

struct Node {
    address: SocketAddr,
    /// Tells this connection from earlier ones to the same node, whose last words may still be on the way.
    connection: u64,
    channel: Option<Channel>,
    report: Option<Report>,
    task: AbortHandle,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hub {
    /// A hub that asks nodes for a report every `interval` and sends the key of a cluster to `wake` when it
    /// should be reconciled.
    pub fn new(interval: Duration, wake: UnboundedSender<ClusterKey>, metrics: Metrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                clusters: Mutex::default(),
                wake,
                interval,
                metrics,
            }),
        }
    }

    /// Makes the cluster's connections exactly these: new ones are opened, others closed.
    pub fn sync(&self, key: &ClusterKey, uid: &ClusterUid, addresses: &BTreeMap<NodeId, SocketAddr>) {
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
                cluster.connections_made += 1;
                let watcher = Watcher {
                    shared: Arc::clone(&self.shared),
                    key: key.clone(),
                    uid: uid.clone(),
                    id: id.clone(),
                    connection: cluster.connections_made,
                };
                let task = tokio::spawn(watcher.run(*address)).abort_handle();
                let connection = cluster.connections_made;
                let node = Node {
                    address: *address,
                    connection,
                    channel: None,
                    report: None,
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
        Snapshot {
            reports: cluster
                .nodes
                .iter()
                .filter_map(|(id, node)| node.report.clone().map(|report| (id.clone(), report)))
                .collect(),
            since_first_answer: cluster.first_answer.map(|at| at.elapsed()),
        }
    }

    /// Tells a node the ring. Its answer counts as a report.
    pub async fn push(
        &self,
        key: &ClusterKey,
        node: &NodeId,
        document: &RingDocument,
        json: &str,
    ) -> Result<(), NodeError> {
        let (connection, mut client) = self.client(key, node)?;
        let request = v1::PushRingRequest {
            sender: Some(operator(&document.cluster_uid, document.epoch)),
            document: json.to_owned().into(),
        };
        self.shared.metrics.pushed();
        let answer = call(node, client.push_ring(request)).await?;
        let watcher = Watcher {
            shared: Arc::clone(&self.shared),
            key: key.clone(),
            uid: document.cluster_uid.clone(),
            id: node.clone(),
            connection,
        };
        if let Err(refusal) = watcher.accept(answer) {
            self.shared.metrics.report_refused(refusal.label());
        }
        Ok(())
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
            first_answer: None,
            connections_made: 0,
        }
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

/// Why a report is ignored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("it answers for cluster {0}")]
    OtherCluster(String),
    #[error("it answers as {0}")]
    OtherNode(String),
    #[error("its report is malformed: {0}")]
    Malformed(#[from] MessageError),
}

impl Refusal {
    fn label(&self) -> &'static str {
        match self {
            Self::OtherCluster(_) => "other_cluster",
            Self::OtherNode(_) => "other_node",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// One connection's task.
struct Watcher {
    shared: Arc<Shared>,
    key: ClusterKey,
    uid: ClusterUid,
    id: NodeId,
    connection: u64,
}

impl Watcher {
    async fn run(self, address: SocketAddr) {
        let mut backoff = BACKOFF_MIN;
        let mut complained = false;
        loop {
            let mut answered = false;
            if let Err(problem) = self.stream(address, &mut answered).await {
                let refused = matches!(problem, StreamEnd::Refused(_));
                if refused && !complained {
                    warn!(cluster = %self.key, node = %self.id, %address, %problem, "ignoring a node's reports");
                    complained = true;
                } else {
                    debug!(cluster = %self.key, node = %self.id, %address, %problem, "report stream ended");
                }
            }
            self.disconnected();
            if answered {
                backoff = BACKOFF_MIN;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Reads reports until the stream ends or is silent.
    async fn stream(&self, address: SocketAddr, answered: &mut bool) -> Result<(), StreamEnd> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .connect()
            .await?;
        let interval_ms = u32::try_from(self.shared.interval.as_millis()).unwrap_or(u32::MAX);
        let request = v1::WatchRequest {
            sender: Some(operator(&self.uid, Epoch::NONE)),
            interval_ms,
        };
        let mut client = PeerClient::new(channel.clone());
        let silence = (self.shared.interval * SILENT_INTERVALS).max(Duration::from_secs(1));
        let opened = tokio::time::timeout(silence, client.watch(request)).await;
        let mut reports = opened.map_err(|_| StreamEnd::Silent)??.into_inner();
        loop {
            let next = tokio::time::timeout(silence, reports.message()).await;
            let Some(message) = next.map_err(|_| StreamEnd::Silent)?? else {
                return Ok(());
            };
            if let Err(refusal) = self.accept(message) {
                self.shared.metrics.report_refused(refusal.label());
                return Err(StreamEnd::Refused(refusal));
            }
            if !*answered {
                *answered = true;
                self.connected(&channel);
            }
        }
    }

    /// Checks who speaks, keeps the report, and wakes the reconcile when it matters.
    fn accept(&self, message: v1::NodeReport) -> Result<(), Refusal> {
        let report = read_report(message, &self.uid, &self.id)?;
        let mut clusters = self.shared.clusters.lock();
        let Some(cluster) = clusters.get_mut(&self.key) else {
            return Ok(());
        };
        let Some(node) = cluster
            .nodes
            .get_mut(&self.id)
            .filter(|node| node.connection == self.connection)
        else {
            return Ok(());
        };
        let news = node
            .report
            .as_ref()
            .is_none_or(|known| !known.decides_as(&report));
        let first = node.report.replace(report).is_none();
        cluster.first_answer.get_or_insert_with(Instant::now);
        if first {
            self.shared.count(&clusters);
        }
        drop(clusters);
        // The first report wakes once its connection can be used, see `connected`.
        if news && !first {
            self.shared.wake(&self.key);
        }
        Ok(())
    }

    fn connected(&self, channel: &Channel) {
        self.change(|node| node.channel = Some(channel.clone()));
    }

    fn disconnected(&self) {
        self.change(|node| {
            node.channel = None;
            node.report = None;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Node)) {
        let mut clusters = self.shared.clusters.lock();
        let node = clusters
            .get_mut(&self.key)
            .and_then(|cluster| cluster.nodes.get_mut(&self.id));
        let Some(node) = node.filter(|node| node.connection == self.connection) else {
            return;
        };
        let before = (node.channel.is_some(), node.report.is_some());
        change(node);
        let changed = before != (node.channel.is_some(), node.report.is_some());
        self.shared.count(&clusters);
        drop(clusters);
        if changed {
            self.shared.wake(&self.key);
        }
    }
}

/// Why a report stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("can't connect: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("{0}")]
    Status(#[from] tonic::Status),
    #[error("no report came in time")]
    Silent,
    #[error(transparent)]
    Refused(Refusal),
}

fn read_report(message: v1::NodeReport, uid: &ClusterUid, id: &NodeId) -> Result<Report, Refusal> {
    let sender = Sender::try_from(message.sender)?;
    if sender.cluster_uid != *uid {
        return Err(Refusal::OtherCluster(sender.cluster_uid.to_string()));
    }
    let Some((node, incarnation)) = sender.node else {
        return Err(Refusal::OtherNode("an operator".to_owned()));
    };
    if node != *id {
        return Err(Refusal::OtherNode(node.to_string()));
    }
    let activated = message
        .activated
        .into_iter()
        .map(SlotRange::try_from)
        .collect::<Result<SlotSet, _>>()?;
    Ok(Report {
        incarnation,
        epoch: sender.epoch,
        ready: message.ready,
        activated,
        settled: message.settled,
        handoff_waits: message.handoff_waits,
    })
}
