//! One connection's task: it keeps the report stream of a node open, checks who speaks, and tells the hub.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::credentials::{LiveCredentials, connector};
use annulus_proto::identity::PeerIdentity;
use annulus_proto::tenants::TenantId;
use annulus_proto::v1::Copies;
use annulus_proto::v1::peer_client::PeerClient;
use annulus_proto::{MessageError, Sender, v1};
use annulus_ring::{ClusterUid, Epoch, NodeId, SlotRange, SlotSet};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, warn};

use super::{Node, Report, Shared, operator};
use crate::key::ClusterKey;

/// Short, since a packet that is lost while a connection is made is missed for a second by TCP.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A stream that broke is opened again at once: whether that is refused tells a process that died.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A stream that lasted this long was a good one.
const LASTING: Duration = Duration::from_secs(1);

/// Why a report is ignored.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it answers for cluster {0}")]
    OtherCluster(String),
    #[error("it answers as {0}")]
    OtherNode(String),
    #[error("its report is malformed: {0}")]
    Malformed(#[from] MessageError),
}

impl Refusal {
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::OtherCluster(_) => "other_cluster",
            Self::OtherNode(_) => "other_node",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// One connection's task.
pub(super) struct Watcher {
    pub(super) shared: Arc<Shared>,
    pub(super) key: ClusterKey,
    pub(super) uid: ClusterUid,
    pub(super) id: NodeId,
    pub(super) connection: u64,
    /// What to prove oneself with; without, the node is asked who it is and believed.
    pub(super) credentials: Option<Arc<LiveCredentials>>,
}

impl Watcher {
    pub(super) async fn run(self, address: SocketAddr) {
        let mut backoff = BACKOFF_MIN;
        let mut complained = false;
        loop {
            let begun = Instant::now();
            let mut nobody_listens = false;
            if let Err(problem) = self.stream(address).await {
                nobody_listens = problem.is_refused_connection();
                if matches!(problem, StreamEnd::Refused(_)) && !complained {
                    warn!(cluster = %self.key, node = %self.id, %address, %problem, "ignoring a node's reports");
                    complained = true;
                } else {
                    debug!(cluster = %self.key, node = %self.id, %address, %problem, "report stream ended");
                }
            }
            self.disconnected(nobody_listens);
            if begun.elapsed() > LASTING {
                backoff = BACKOFF_MIN;
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Reads reports until the stream ends or is silent.
    async fn stream(&self, address: SocketAddr) -> Result<(), StreamEnd> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true);
        let channel = match &self.credentials {
            None => endpoint.connect().await?,
            Some(credentials) => {
                let peer = PeerIdentity::Node(self.uid.clone(), self.id.clone());
                let (host, port) = (address.ip().to_string(), address.port());
                let connector = connector(Arc::clone(credentials), host, port, peer);
                endpoint.connect_with_connector(connector).await?
            }
        };
        let interval_ms = u32::try_from(self.shared.interval.as_millis()).unwrap_or(u32::MAX);
        let request = v1::WatchRequest {
            sender: Some(operator(&self.uid, Epoch::NONE)),
            interval_ms,
        };
        let mut client = PeerClient::new(channel.clone());
        let silence = self.shared.patience.silence * 2;
        let opened = tokio::time::timeout(silence, client.watch(request)).await;
        let mut reports = opened.map_err(|_| StreamEnd::Silent)??.into_inner();
        let mut answered = false;
        loop {
            let next = tokio::time::timeout(silence, reports.message()).await;
            let Some(message) = next.map_err(|_| StreamEnd::Silent)?? else {
                return Ok(());
            };
            if let Err(refusal) = self.accept(message) {
                self.shared.metrics.report_refused(refusal.label());
                return Err(StreamEnd::Refused(refusal));
            }
            if !answered {
                answered = true;
                self.connected(&channel);
            }
        }
    }

    /// Checks who speaks, keeps the report, and wakes the reconcile when it matters.
    pub(super) fn accept(&self, message: v1::NodeReport) -> Result<(), Refusal> {
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
        let revived = node.voice.heard(Instant::now(), self.shared.patience);
        let news = node
            .report
            .as_ref()
            .is_none_or(|known| !known.decides_as(&report));
        let first = node.report.replace(report).is_none();
        cluster.first_answer.get_or_insert_with(Instant::now);
        // Whoever is heard is a witness of the others' silence.
        let somebody_died = cluster.judge(self.shared.patience);
        if first {
            self.shared.count(&clusters);
        }
        drop(clusters);
        // The first report wakes once its connection can be used, see `connected`.
        if (news || revived) && !first || somebody_died {
            self.shared.wake(&self.key);
        }
        Ok(())
    }

    fn connected(&self, channel: &Channel) {
        self.change(|node| {
            node.channel = Some(channel.clone());
            Tell::Now
        });
    }

    /// That a stream broke is told with what comes of the next attempt, which follows at once: whoever heard of the
    /// one before the other would begin to do something about a silent node, and do that before it takes it for dead.
    fn disconnected(&self, nobody_listens: bool) {
        self.change(|node| {
            let broke = node.report.take().is_some() && !node.voice.is_dead();
            node.channel = None;
            node.voice.lost(nobody_listens);
            if broke && !nobody_listens {
                Tell::NextTime
            } else {
                Tell::Now
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Node) -> Tell) {
        let mut clusters = self.shared.clusters.lock();
        let node = clusters
            .get_mut(&self.key)
            .and_then(|cluster| cluster.nodes.get_mut(&self.id));
        let Some(node) = node.filter(|node| node.connection == self.connection) else {
            return;
        };
        let state = |node: &Node| (node.tried, node.channel.is_some(), node.report.is_some());
        let before = state(node);
        let tell = change(node);
        node.tried = true;
        let changed = before != state(node) || std::mem::take(&mut node.untold);
        let news = match tell {
            Tell::Now => changed,
            Tell::NextTime => {
                node.untold = changed;
                false
            }
        };
        let somebody_died = clusters
            .get_mut(&self.key)
            .is_some_and(|cluster| cluster.judge(self.shared.patience));
        self.shared.count(&clusters);
        drop(clusters);
        if news || somebody_died {
            self.shared.wake(&self.key);
        }
    }
}

/// When a change is told.
enum Tell {
    Now,
    NextTime,
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

impl StreamEnd {
    /// The node's host answers that nobody listens at that port.
    fn is_refused_connection(&self) -> bool {
        let Self::Connect(error) = self else { return false };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            let io = error.downcast_ref::<std::io::Error>();
            if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
                return true;
            }
            cause = error.source();
        }
        false
    }
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
    let mut declared = BTreeMap::new();
    for Copies { node_id, slots } in message.declared {
        let id: NodeId = node_id.parse().map_err(MessageError::from)?;
        let slots = slots
            .into_iter()
            .map(SlotRange::try_from)
            .collect::<Result<SlotSet, _>>()?;
        declared.insert(id, slots);
    }
    Ok(Report {
        incarnation,
        epoch: sender.epoch,
        ready: message.ready,
        activated,
        settled: message.settled,
        handoff_waits: message.handoff_waits,
        declared,
        used_bytes: message.used_bytes,
        budget_bytes: message.budget_bytes,
        leaving: message.leaving,
        tenants_version: message.tenants_version,
        tenants: message
            .tenants
            .iter()
            .map(|usage| (TenantId(usage.tenant), usage.into()))
            .collect(),
    })
}
