//! From a plan to Kubernetes objects. Pure: one builder for each kind, pinned by golden tests, so that an
//! operator upgrade does not change pod templates, and with them every running cluster, by accident.

use std::collections::BTreeMap;

use annulus_crds::v1alpha1::CacheCluster;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::Resource;

use crate::plan::PoolPlan;
use crate::validate::ValidCluster;

pub mod binding;
pub mod certificates;
pub mod config_map;
pub mod network_policy;
mod pod;
mod pod_disruption_budget;
pub mod secret;
pub mod service;
mod service_account;
mod stateful_set;
pub mod tenants_secret;

/// Label of everything that belongs to a cluster: its name.
pub const CLUSTER_LABEL: &str = "annulus.dev/cluster";
/// Label of a pod: the pool that it is of.
pub const POOL_LABEL: &str = "annulus.dev/pool";
/// Label of the Service of one node: the node, whose pod has that name.
pub const NODE_LABEL: &str = "annulus.dev/node";
/// Label of everything that this operator makes, and its value.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "annulus-operator");

/// Every object of a cluster that is applied as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// For the pods; has no rights and mounts no token.
    pub service_account: ServiceAccount,
    /// Where clients connect first.
    pub client_service: Service,
    /// Gives each pod a name of its own.
    pub nodes_service: Service,
    /// Gives each pod an address of its own that stays when the pod is replaced.
    pub node_services: Vec<Service>,
    /// The place for the ring document, without the document.
    pub ring_config_map: ConfigMap,
    /// How many pods may be evicted at once.
    pub pod_disruption_budget: PodDisruptionBudget,
    /// Who may talk to the pods.
    pub network_policy: NetworkPolicy,
    /// One for each pool.
    pub stateful_sets: Vec<StatefulSet>,
}

/// Builds every object of the cluster.
pub fn build(cluster: &ValidCluster, pools: &[PoolPlan]) -> Built {
    Built {
        service_account: service_account::build(cluster),
        client_service: service::client(cluster),
        nodes_service: service::nodes(cluster),
        node_services: service::of_each_node(cluster, pools),
        ring_config_map: config_map::empty(cluster),
        pod_disruption_budget: pod_disruption_budget::build(cluster),
        network_policy: network_policy::build(cluster),
        stateful_sets: pools
            .iter()
            .map(|pool| stateful_set::build(cluster, pool))
            .collect(),
    }
}

/// Labels of every object of the cluster.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    let pairs = [
        ("app.kubernetes.io/name", "annulus"),
        ("app.kubernetes.io/instance", cluster),
        MANAGED_BY,
        (CLUSTER_LABEL, cluster),
    ];
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// What selects the cluster's pods, and nothing else in its namespace.
pub fn pod_selector(cluster: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "annulus".to_owned()),
        (CLUSTER_LABEL.to_owned(), cluster.to_owned()),
    ])
}

/// Name of the ConfigMap with the ring document.
pub fn ring_config_map_name(cluster: &str) -> String {
    format!("{cluster}-ring")
}

/// Name of the Secret with the tenants document.
pub fn tenants_secret_name(cluster: &str) -> String {
    format!("{cluster}-tenants")
}

/// The owner reference that makes the garbage collector remove an object with its cluster. It does not block
/// the cluster's deletion, which so never waits for anything.
pub fn owner(cluster: &ValidCluster) -> OwnerReference {
    OwnerReference {
        api_version: CacheCluster::api_version(&()).into_owned(),
        kind: CacheCluster::kind(&()).into_owned(),
        name: cluster.key.name.clone(),
        uid: cluster.uid.to_string(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn metadata(cluster: &ValidCluster, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(cluster.key.namespace.clone()),
        labels: Some(labels(&cluster.key.name)),
        owner_references: Some(vec![owner(cluster)]),
        ..ObjectMeta::default()
    }
}

fn selects(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    }
}
