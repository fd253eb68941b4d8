//! One connection's task: it keeps the report stream of a node open, checks who speaks, and tells the hub.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::v1::Copies;
use annulus_proto::v1::peer_client::PeerClient;
use annulus_proto::{MessageError, Sender, v1};
use annulus_ring::{ClusterUid, Epoch, NodeId, SlotRange, SlotSet};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tracing::{debug, warn};

use super::{Node, Report, Shared, operator};
use crate::key::ClusterKey;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A stream that misses this many reports in a row is dead.
const SILENT_INTERVALS: u32 = 8;

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
}

impl Watcher {
    pub(super) async fn run(self, address: SocketAddr) {
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
        let state = |node: &Node| (node.tried, node.channel.is_some(), node.report.is_some());
        let before = state(node);
        change(node);
        node.tried = true;
        let changed = before != state(node);
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
        leaving: message.leaving,
    })
}
