//! What is read of the Kubernetes API: label-selected watches into stores that keep only what is used.
//!
//! Secrets are never watched. Of pods and Kubernetes nodes a few fields are kept; managedFields are dropped
//! once it is known whether somebody else wrote the spec. A watch that fails (no permission, API server away)
//! backs off by itself and holds up no other.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, CacheGroup, CacheTenant};
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Namespace, Node, Pod, PodSpec, PodStatus, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::Api;
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::reflector::{self, Lookup, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::build::{CLUSTER_LABEL, MANAGED_BY};
use crate::drift::foreign_spec_writer;
use crate::key::ClusterKey;
use crate::tenants::controller::Wake;

/// In a cached object: who else wrote its spec. Never sent to the API server.
pub const FOREIGN_WRITER_ANNOTATION: &str = "cache.annulus.dev/foreign-spec-writer";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Zones of Kubernetes nodes, from their metadata alone.
#[derive(Clone)]
pub struct Zones(Store<PartialObjectMeta<Node>>);

impl Zones {
    /// Zones of the nodes in that store.
    pub fn new(nodes: Store<PartialObjectMeta<Node>>) -> Self {
        Self(nodes)
    }

    /// The zone of that Kubernetes node, where it has one and the operator may read it.
    pub fn of(&self, node: &str) -> Option<String> {
        self.0
            .get(&ObjectRef::new(node))?
            .labels()
            .get(ZONE_LABEL)
            .cloned()
    }

    /// Watches nodes. Without the permission to do so zones stay unknown, and everything else works.
    pub fn watch(client: Client, tasks: &mut JoinSet<()>) -> Self {
        let (store, writer) = reflector::store();
        let stream = watcher(
            Api::<PartialObjectMeta<Node>>::all(client),
            watcher::Config::default(),
        )
        .default_backoff()
        .modify(|node| {
            node.metadata.managed_fields = None;
            node.metadata.annotations = None;
            node.labels_mut().retain(|key, _| key == ZONE_LABEL);
        })
        .reflect(writer);
        let what = "Kubernetes nodes, zones are unknown";
        tasks.spawn(follow_without_right(stream, what, |_| true));
        Self(store)
    }
}

/// Follows a watch that the operator may have no right to: complains once each time that it fails. Ends when nobody takes what
/// was seen.
async fn follow_without_right<T>(
    stream: impl Stream<Item = Result<T, watcher::Error>>,
    what: &'static str,
    mut take: impl FnMut(T) -> bool,
) {
    let mut stream = std::pin::pin!(stream);
    let mut complained = false;
    while let Some(event) = stream.next().await {
        match event {
            Err(error) if !complained => {
                warn!(%error, "can't watch {what}");
                complained = true;
            }
            Err(error) => debug!(%error, "can't watch {what}"),
            Ok(seen) => {
                complained = false;
                if !take(seen) {
                    return;
                }
            }
        }
    }
}

/// Labels of namespaces, from their metadata alone.
#[derive(Clone)]
pub struct Namespaces(Store<PartialObjectMeta<Namespace>>);

impl Namespaces {
    /// Labels of the namespaces in that store.
    pub fn new(namespaces: Store<PartialObjectMeta<Namespace>>) -> Self {
        Self(namespaces)
    }

    /// The labels of that namespace, where the operator may read it.
    pub fn labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        Some(self.0.get(&ObjectRef::new(namespace))?.labels().clone())
    }

    /// Waits until they are known, but not for ever: the permission may be missing.
    pub async fn filled(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.0.wait_until_ready())
            .await
            .is_err()
        {
            warn!("the labels of namespaces are not known yet");
        }
    }

    /// Watches namespaces. Without the permission to do so labels stay unknown, and tenants of namespaces that are chosen
    /// by labels are not taken.
    pub fn watch(client: Client, wake: UnboundedSender<Wake>, tasks: &mut JoinSet<()>) -> Self {
        let (store, writer) = reflector::store();
        let stream = watcher(
            Api::<PartialObjectMeta<Namespace>>::all(client),
            watcher::Config::default(),
        )
        .default_backoff()
        .modify(|namespace| {
            namespace.metadata.managed_fields = None;
            namespace.metadata.annotations = None;
        })
        .reflect(writer)
        .touched_objects();
        let what = "namespaces, their labels are unknown";
        let wake = move |namespace: PartialObjectMeta<Namespace>| {
            wake.send(Wake::Namespace(namespace.name_any())).is_ok()
        };
        tasks.spawn(follow_without_right(stream, what, wake));
        Self(store)
    }
}

/// The stores of one scope: a namespace, or all.
#[derive(Clone)]
pub struct Caches {
    /// The clusters themselves.
    pub clusters: Store<CacheCluster>,
    /// Their tenants.
    pub tenants: Store<CacheTenant>,
    /// Their read-through groups.
    pub groups: Store<CacheGroup>,
    /// Of every kind that is owned, what carries the operator's label.
    pub stateful_sets: Store<StatefulSet>,
    /// Pods of clusters.
    pub pods: Store<Pod>,
    /// Services of clusters.
    pub services: Store<Service>,
    /// `ConfigMaps` of clusters.
    pub config_maps: Store<ConfigMap>,
    /// Disruption budgets of clusters.
    pub pod_disruption_budgets: Store<PodDisruptionBudget>,
    /// Network policies of clusters.
    pub network_policies: Store<NetworkPolicy>,
    /// Service accounts of clusters.
    pub service_accounts: Store<ServiceAccount>,
}

/// Opens the watches of one scope.
struct Watches<'a> {
    client: Client,
    namespace: Option<&'a str>,
    wake: UnboundedSender<ClusterKey>,
    wake_tenants: UnboundedSender<Wake>,
    tasks: &'a mut JoinSet<()>,
}

/// Whom a change concerns.
#[derive(Clone, Copy)]
enum Concerns {
    Cluster,
    Tenants,
    Both,
}

impl Caches {
    /// Watches everything in that namespace, or in all. Whatever happens to an object wakes its cluster, or those who look
    /// after the cluster's tenants.
    pub fn watch(
        client: Client,
        namespace: Option<&str>,
        wake: UnboundedSender<ClusterKey>,
        wake_tenants: UnboundedSender<Wake>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let mut watches = Watches {
            client,
            namespace,
            wake,
            wake_tenants,
            tasks,
        };
        let owned = watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
        Self {
            clusters: watches.open(
                watcher::Config::default(),
                drop_managed_fields,
                Concerns::Both,
                |cluster: &CacheCluster| Some(ClusterKey::from(cluster)),
            ),
            tenants: watches.open(
                watcher::Config::default(),
                drop_managed_fields,
                Concerns::Tenants,
                |tenant: &CacheTenant| Some(ClusterKey::of_tenant(tenant)),
            ),
            groups: watches.open(
                watcher::Config::default(),
                drop_managed_fields,
                Concerns::Tenants,
                |group: &CacheGroup| Some(ClusterKey::of_group(group)),
            ),
            stateful_sets: watches.open(
                owned.clone(),
                note_foreign_writer,
                Concerns::Cluster,
                cluster_label,
            ),
            pods: watches.open(owned.clone(), slim_pod, Concerns::Cluster, cluster_label),
            services: watches.open(
                owned.clone(),
                drop_managed_fields,
                Concerns::Cluster,
                cluster_label,
            ),
            config_maps: watches.open(
                owned.clone(),
                drop_managed_fields,
                Concerns::Cluster,
                cluster_label,
            ),
            pod_disruption_budgets: watches.open(
                owned.clone(),
                note_foreign_writer,
                Concerns::Cluster,
                cluster_label,
            ),
            network_policies: watches.open(
                owned.clone(),
                note_foreign_writer,
                Concerns::Cluster,
                cluster_label,
            ),
            service_accounts: watches.open(owned, drop_managed_fields, Concerns::Cluster, cluster_label),
        }
    }

    /// Waits until every store was filled once: before that, absence means nothing.
    pub async fn filled(&self) -> Result<(), reflector::store::WriterDropped> {
        self.clusters.wait_until_ready().await?;
        self.tenants.wait_until_ready().await?;
        self.groups.wait_until_ready().await?;
        self.stateful_sets.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.config_maps.wait_until_ready().await?;
        self.pod_disruption_budgets.wait_until_ready().await?;
        self.network_policies.wait_until_ready().await?;
        self.service_accounts.wait_until_ready().await
    }
}

impl Watches<'_> {
    fn open<K>(
        &mut self,
        config: watcher::Config,
        slim: impl FnMut(&mut K) + Send + 'static,
        concerns: Concerns,
        cluster: impl Fn(&K) -> Option<ClusterKey> + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Lookup<DynamicType = ()>,
        K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        <K as Lookup>::DynamicType: Eq + Hash + Clone + Default,
    {
        let api: Api<K> = match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let (store, writer) = reflector::store();
        let stream = watcher(api, config)
            .default_backoff()
            .modify(slim)
            .reflect(writer)
            .touched_objects();
        let (wake, wake_tenants) = (self.wake.clone(), self.wake_tenants.clone());
        let send = move |key: ClusterKey| {
            let for_tenants = matches!(concerns, Concerns::Tenants | Concerns::Both);
            let told = !for_tenants || wake_tenants.send(Wake::Cluster(key.clone())).is_ok();
            let for_cluster = matches!(concerns, Concerns::Cluster | Concerns::Both);
            told && (!for_cluster || wake.send(key).is_ok())
        };
        self.tasks.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(object) => {
                        if cluster(&object).is_some_and(|key| !send(key)) {
                            return;
                        }
                    }
                    Err(error) => {
                        warn!(kind = %<K as Resource>::kind(&()), %error, "watch failed, trying again");
                    }
                }
            }
        });
        store
    }
}

fn cluster_label<K: Resource>(object: &K) -> Option<ClusterKey> {
    let name = object.labels().get(CLUSTER_LABEL)?;
    Some(ClusterKey::new(object.meta().namespace.clone()?, name))
}

fn drop_managed_fields<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn note_foreign_writer<K: Resource>(object: &mut K) {
    let foreign = object
        .meta()
        .managed_fields
        .as_deref()
        .and_then(foreign_spec_writer);
    if let Some(foreign) = foreign {
        object
            .annotations_mut()
            .insert(FOREIGN_WRITER_ANNOTATION.to_owned(), foreign);
    }
    drop_managed_fields(object);
}

/// Keeps who the pod is, where it runs and how it is.
pub(crate) fn slim_pod(pod: &mut Pod) {
    drop_managed_fields(pod);
    pod.metadata.annotations = None;
    let spec = pod.spec.take().unwrap_or_default();
    let ports_of = |container: Container| Container {
        name: container.name,
        ports: container.ports,
        ..Container::default()
    };
    pod.spec = Some(PodSpec {
        node_name: spec.node_name,
        containers: spec.containers.into_iter().map(ports_of).collect(),
        ..PodSpec::default()
    });
    pod.status = pod.status.take().map(|status| PodStatus {
        pod_ip: status.pod_ip,
        conditions: status.conditions,
        container_statuses: status.container_statuses,
        ..PodStatus::default()
    });
}
