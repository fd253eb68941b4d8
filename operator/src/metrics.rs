//! What the operator measures about itself, in the Prometheus text format.
//!
//! Labels are bounded: kinds, steps and variants come from enums, clusters by namespace and name are dropped
//! when the cluster goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use annulus_crds::v1alpha1::GroupReason;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::key::ClusterKey;
use crate::process;

/// Where an error arose.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    step: &'static str,
    variant: &'static str,
}

/// Which kind was written, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    kind: &'static str,
    verb: &'static str,
}

/// What the API server asked, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReviewLabels {
    path: &'static str,
    outcome: &'static str,
}

/// Why a node's report was not used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: &'static str,
}

/// One cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabels {
    namespace: String,
    cluster: String,
}

impl From<&ClusterKey> for ClusterLabels {
    fn from(key: &ClusterKey) -> Self {
        Self {
            namespace: key.namespace.clone(),
            cluster: key.name.clone(),
        }
    }
}

/// Groups of one cluster that are told the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    namespace: String,
    cluster: String,
    reason: &'static str,
}

/// Every metric of the operator. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Counter,
    reconcile_seconds: Histogram,
    errors: Family<ErrorLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    ring_changes: Counter,
    ring_epoch: Family<ClusterLabels, Gauge>,
    last_success: Family<ClusterLabels, Gauge<f64, AtomicU64>>,
    slots_lost: Counter,
    failover_seconds: Histogram,
    leader: Gauge,
    /// Nodes with an open report stream.
    pub nodes_watched: Gauge,
    reports_refused: Family<RefusalLabels, Counter>,
    pushes: Counter,
    tenants_pushes: Counter,
    tenants: Family<ClusterLabels, Gauge>,
    tenants_refused: Family<ClusterLabels, Gauge>,
    tenants_seconds: Histogram,
    groups: Family<GroupLabels, Gauge>,
    reviews: Family<ReviewLabels, Counter>,
}

fn group_labels(key: &ClusterKey, reason: GroupReason) -> GroupLabels {
    GroupLabels {
        namespace: key.namespace.clone(),
        cluster: key.name.clone(),
        reason: reason.as_str(),
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("annulus_operator");
        let metrics = Self {
            registry: Arc::default(),
            reconciles: Counter::default(),
            reconcile_seconds: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
            errors: Family::default(),
            writes: Family::default(),
            ring_changes: Counter::default(),
            ring_epoch: Family::default(),
            last_success: Family::default(),
            slots_lost: Counter::default(),
            failover_seconds: Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0]),
            leader: Gauge::<i64, AtomicI64>::default(),
            nodes_watched: Gauge::default(),
            reports_refused: Family::default(),
            pushes: Counter::default(),
            tenants_pushes: Counter::default(),
            tenants: Family::default(),
            tenants_refused: Family::default(),
            tenants_seconds: Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
            groups: Family::default(),
            reviews: Family::default(),
        };
        let m = &metrics;
        registry.register("reconciles", "Reconciles of CacheClusters", m.reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "How long a reconcile took",
            Unit::Seconds,
            m.reconcile_seconds.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed reconciles by step and variant",
            m.errors.clone(),
        );
        registry.register(
            "api_writes",
            "Writes to the Kubernetes API by kind and verb",
            m.writes.clone(),
        );
        registry.register("ring_changes", "Ring epochs written", m.ring_changes.clone());
        registry.register("ring_epoch", "Epoch of a cluster's ring", m.ring_epoch.clone());
        registry.register(
            "last_success_timestamp_seconds",
            "When a cluster was last reconciled without an error, Unix time",
            m.last_success.clone(),
        );
        registry.register(
            "slots_lost",
            "Slots that were declared empty since their node restarted",
            m.slots_lost.clone(),
        );
        registry.register_with_unit(
            "failover_duration",
            "From the last word of a dead node until the nodes were told who takes its place",
            Unit::Seconds,
            m.failover_seconds.clone(),
        );
        registry.register("leader", "1 while this replica leads", m.leader.clone());
        registry.register(
            "nodes_watched",
            "Cache nodes with an open report stream",
            m.nodes_watched.clone(),
        );
        registry.register(
            "node_reports_refused",
            "Reports that were ignored: another cluster's or node's, or malformed",
            m.reports_refused.clone(),
        );
        registry.register("ring_pushes", "Ring documents pushed to nodes", m.pushes.clone());
        m.register_tenants(&mut registry);
        process::register(&mut registry);
        Self {
            registry: Arc::new(registry),
            ..metrics
        }
    }
}

impl Metrics {
    fn register_tenants(&self, registry: &mut Registry) {
        registry.register(
            "tenants_pushes",
            "Tenants documents pushed to nodes",
            self.tenants_pushes.clone(),
        );
        registry.register(
            "tenants",
            "Tenants that are bound to a cluster",
            self.tenants.clone(),
        );
        registry.register(
            "tenants_refused",
            "Tenants that a cluster doesn't take",
            self.tenants_refused.clone(),
        );
        registry.register(
            "groups",
            "Read-through groups of a cluster, by the reason of their condition Accepted",
            self.groups.clone(),
        );
        registry.register_with_unit(
            "tenants_pass_duration",
            "How long a look at all tenants of a cluster took",
            Unit::Seconds,
            self.tenants_seconds.clone(),
        );
        registry.register(
            "admission_reviews",
            "Questions of the API server by path and outcome",
            self.reviews.clone(),
        );
    }

    /// A reconcile ended.
    pub fn reconciled(&self, took: Duration) {
        self.reconciles.inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// A cluster was reconciled without an error at that Unix time.
    pub fn succeeded(&self, key: &ClusterKey, unix_seconds: f64) {
        self.last_success.get_or_create(&key.into()).set(unix_seconds);
    }

    /// A reconcile failed in that step.
    pub fn failed(&self, step: &'static str, variant: &'static str) {
        self.errors.get_or_create(&ErrorLabels { step, variant }).inc();
    }

    /// Something is about to be written to the API.
    pub fn wrote(&self, kind: &'static str, verb: &'static str) {
        self.writes.get_or_create(&WriteLabels { kind, verb }).inc();
    }

    /// A new epoch was stored.
    pub fn ring_changed(&self) {
        self.ring_changes.inc();
    }

    /// The cluster's epoch as seen now.
    pub fn ring_epoch(&self, key: &ClusterKey, epoch: u64) {
        self.ring_epoch
            .get_or_create(&key.into())
            .set(i64::try_from(epoch).unwrap_or(i64::MAX));
    }

    /// Slots were declared empty.
    pub fn slots_lost(&self, slots: u32) {
        self.slots_lost.inc_by(slots.into());
    }

    /// Copies took the place of a node that was last heard that long ago.
    pub fn failed_over(&self, took: Duration) {
        self.failover_seconds.observe(took.as_secs_f64());
    }

    /// Whether this replica leads.
    pub fn leading(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// A node's report was ignored.
    pub fn report_refused(&self, reason: &'static str) {
        self.reports_refused
            .get_or_create(&RefusalLabels { reason })
            .inc();
    }

    /// A ring document is about to be pushed to a node.
    pub fn pushed(&self) {
        self.pushes.inc();
    }

    /// A tenants document is about to be pushed to a node.
    pub fn pushed_tenants(&self) {
        self.tenants_pushes.inc();
    }

    /// The tenants of a cluster were looked at.
    pub fn looked_at_tenants(&self, took: Duration) {
        self.tenants_seconds.observe(took.as_secs_f64());
    }

    /// How many tenants a cluster has, and has refused.
    pub fn count_tenants(&self, key: &ClusterKey, bound: i32, refused: i32) {
        self.tenants.get_or_create(&key.into()).set(bound.into());
        self.tenants_refused
            .get_or_create(&key.into())
            .set(refused.into());
    }

    /// What the groups of a cluster are told in their condition Accepted.
    pub fn count_groups(&self, key: &ClusterKey, reasons: impl Iterator<Item = GroupReason>) {
        let reasons: Vec<GroupReason> = reasons.collect();
        for reason in GroupReason::ALL {
            let labels = group_labels(key, reason);
            match reasons.iter().filter(|one| **one == reason).count() {
                0 => drop(self.groups.remove(&labels)),
                count => drop(
                    self.groups
                        .get_or_create(&labels)
                        .set(i64::try_from(count).unwrap_or(i64::MAX)),
                ),
            }
        }
    }

    /// The webhook answered a question, or couldn't.
    pub fn reviewed(&self, path: &'static str, outcome: &'static str) {
        self.reviews.get_or_create(&ReviewLabels { path, outcome }).inc();
    }

    /// The cluster is gone, and its series with it.
    pub fn forget(&self, key: &ClusterKey) {
        self.count_groups(key, std::iter::empty());
        self.tenants.remove(&key.into());
        self.tenants_refused.remove(&key.into());
        self.ring_epoch.remove(&key.into());
        self.last_success.remove(&key.into());
    }

    /// Everything as text.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
