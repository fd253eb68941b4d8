//! What is seen of a cluster at one moment, without a Kubernetes type: the input of `plan` and `status`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use annulus_crds::v1alpha1::{ClusterTenantsStatus, defaults};
use annulus_ring::{Address, Epoch, NodeId, Observed, RingDocument, Zone};

use tokio::time::Instant;

use crate::node_client::Report;
use crate::suspect;

/// What is seen of a cluster.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The newest ring document, if there is one anywhere.
    pub document: Option<RingDocument>,
    /// Whether exactly that document is stored in the ConfigMap.
    pub stored: bool,
    /// The highest epoch that the cluster's status ever told. A ring that is made anew starts above it.
    pub epoch_told: Epoch,
    /// Its `StatefulSets`.
    pub sets: Vec<SetView>,
    /// Its pods.
    pub pods: BTreeMap<NodeId, PodView>,
    /// The newest report of each node that answers. Read after `document`.
    pub reports: BTreeMap<NodeId, Report>,
    /// How long ago the first node answered this operator.
    pub since_first_answer: Option<Duration>,
    /// This operator has only just begun to watch the cluster: a node's silence means nothing yet.
    pub connecting: bool,
    /// Nodes that are taken for dead because of what was heard of them, and when that was last.
    pub dead: BTreeMap<NodeId, Instant>,
    /// What the tenants' controller says of them; `None` while it has said nothing.
    pub tenants: Option<ClusterTenantsStatus>,
}

/// A StatefulSet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetView {
    /// Its name.
    pub name: String,
    /// Pods that it is to have.
    pub replicas: u16,
    /// The revision of its template; `None` until its controller has seen the newest one.
    pub revision: Option<String>,
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodView {
    /// Which one of that name.
    pub uid: String,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// The address of its own Service, where clients are to be sent there.
    pub service_ip: Option<IpAddr>,
    /// Clients get through to it there.
    pub service_open: bool,
    /// The zone of the Kubernetes node that it is on.
    pub zone: Option<Zone>,
    /// Kubernetes sends clients to it.
    pub ready: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// The revision of the template that it was made from.
    pub revision: Option<String>,
    /// Why it does not run, in the words of Kubernetes.
    pub trouble: Option<String>,
    /// The ports that it was made with for clients: a spec may say otherwise since.
    pub ports: ClientPorts,
}

/// Which ports a pod has for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientPorts {
    /// One without TLS.
    pub plain: bool,
    /// One with TLS.
    pub tls: bool,
}

impl Default for ClientPorts {
    fn default() -> Self {
        Self {
            plain: true,
            tls: false,
        }
    }
}

impl View {
    /// What the ring planner sees: everyone who answers, and whom clients get through to.
    pub fn observed(&self) -> Vec<Observed> {
        let answering = self.reports.iter().filter_map(|(id, report)| {
            let pod = self.pods.get(id)?;
            if !self.is_open(id, pod, report) {
                return None;
            }
            let ip = pod.ip?;
            Some(Observed {
                id: id.clone(),
                incarnation: report.incarnation,
                address: Address {
                    host: ip.to_string(),
                    client_host: pod.service_ip.map(|ip| ip.to_string()),
                    client_port: if pod.ports.plain { defaults::CLIENT_PORT } else { 0 },
                    client_tls_port: pod.ports.tls.then_some(defaults::CLIENT_TLS_PORT),
                    peer_port: defaults::PEER_PORT,
                },
                epoch: report.epoch,
                activated: report.activated.clone(),
                settled: report.settled,
                declared: report.declared.clone(),
                leaving: report.leaving,
            })
        });
        answering.collect()
    }

    /// Whether clients get through to the pod. Where they have been sent already, they are not sent away again; and as long
    /// as there is no ring, there are none.
    fn is_open(&self, id: &NodeId, pod: &PodView, report: &Report) -> bool {
        let Some(document) = &self.document else {
            return true;
        };
        let member = document.member(id);
        let is_known = member.is_some_and(|member| member.incarnation == report.incarnation);
        is_known || pod.service_open || pod.service_ip.is_none()
    }

    /// The members of the ring that are taken for dead.
    pub fn failed(&self) -> BTreeSet<NodeId> {
        self.document
            .as_ref()
            .map(|document| suspect::failed(document, self))
            .unwrap_or_default()
    }

    /// Takes the revisions of these `StatefulSets` as not known.
    pub fn forget_revisions(&mut self, sets: &BTreeSet<String>) {
        for set in self.sets.iter_mut().filter(|set| sets.contains(&set.name)) {
            set.revision = None;
        }
    }

    /// A node's zone: where it runs, or else where the ring last knew it, so that a pod which is being
    /// rescheduled does not change the ring twice.
    pub fn zone(&self, id: &NodeId) -> Option<Zone> {
        let seen = self.pods.get(id).and_then(|pod| pod.zone.clone());
        seen.or_else(|| self.document.as_ref()?.member(id)?.zone.clone())
    }
}
