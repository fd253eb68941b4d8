//! One cluster with everything around it: the reconcile runs against an API server and nodes of the test.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, CacheGroup, CacheTenant};
use annulus_operator::caches::{Caches, FOREIGN_WRITER_ANNOTATION, Namespaces, Zones};
use annulus_operator::context::{Context, Memory, Summaries};
use annulus_operator::events::Events;
use annulus_operator::key::ClusterKey;
use annulus_operator::metrics::Metrics;
use annulus_operator::node_client::{Hub, Snapshot};
use annulus_operator::reconcile::{ReconcileError, reconcile};
use annulus_operator::service_paths::ServicePaths;
use annulus_operator::tenants::error::TenantsError;
use annulus_operator::tenants::memory::Tenancy;
use annulus_operator::tenants::reconcile::pass;
use annulus_operator::validate::Installation;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Lookup, store::Writer};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::api::FakeApi;
use super::node::FakeNode;

/// The cluster's UID.
pub const UID: &str = "6f1c1b1e-2f8e-4c57-9a59-9f6a6a3f00aa";
/// Where the cluster itself is.
pub const CLUSTER: &str = "/apis/annulus.dev/v1alpha1/namespaces/shop/cacheclusters/demo";
/// Where its ring is.
pub const RING: &str = "/api/v1/namespaces/shop/configmaps/demo-ring";
/// Where its StatefulSet is.
pub const SET: &str = "/apis/apps/v1/namespaces/shop/statefulsets/demo";

/// A cluster and its surroundings.
pub struct World {
    /// The API server.
    pub api: FakeApi,
    /// Where events go.
    pub events: FakeApi,
    /// What the operator shares and remembers.
    pub ctx: Arc<Context>,
    /// What the tenants' passes share.
    pub tenancy: Tenancy,
    wakes: UnboundedReceiver<ClusterKey>,
    writers: Writers,
    pods: BTreeMap<String, Value>,
}

struct Writers {
    clusters: Writer<CacheCluster>,
    tenants: Writer<CacheTenant>,
    groups: Writer<CacheGroup>,
    namespaces: Writer<PartialObjectMeta<Namespace>>,
    stateful_sets: Writer<StatefulSet>,
    pods: Writer<Pod>,
    services: Writer<Service>,
    config_maps: Writer<ConfigMap>,
    pod_disruption_budgets: Writer<PodDisruptionBudget>,
    network_policies: Writer<NetworkPolicy>,
    service_accounts: Writer<ServiceAccount>,
}

impl World {
    /// The cluster `shop/demo` with that spec, in YAML's flow style.
    pub fn new(spec: &str) -> Self {
        Self::with_patience(spec, Duration::from_secs(1))
    }

    /// The same, with an operator that bears silence for that long.
    pub fn with_patience(spec: &str, silence: Duration) -> Self {
        let api = FakeApi::default();
        let text = format!(
            "{{apiVersion: annulus.dev/v1alpha1, kind: CacheCluster, metadata: {{name: demo, namespace: shop, uid: {UID}, generation: 1}}, spec: {{{spec}}}}}"
        );
        api.put(CLUSTER, serde_yaml::from_str(&text).unwrap());
        Self::of_patient(api, silence)
    }

    /// An operator that has just begun, before what is stored there.
    pub fn of(api: FakeApi) -> Self {
        Self::of_patient(api, Duration::from_secs(1))
    }

    fn of_patient(api: FakeApi, silence: Duration) -> Self {
        let (wake, wakes) = unbounded_channel();
        let metrics = Metrics::default();
        let (clusters, cluster_writer) = reflector::store();
        let (tenants, tenant_writer) = reflector::store();
        let (groups, group_writer) = reflector::store();
        let (namespaces, namespace_writer) = reflector::store();
        let (stateful_sets, stateful_set_writer) = reflector::store();
        let (pods, pod_writer) = reflector::store();
        let (services, service_writer) = reflector::store();
        let (config_maps, config_map_writer) = reflector::store();
        let (pod_disruption_budgets, budget_writer) = reflector::store();
        let (network_policies, policy_writer) = reflector::store();
        let (service_accounts, account_writer) = reflector::store();
        let events = FakeApi::default();
        let ctx = Arc::new(Context {
            client: api.client(),
            caches: Caches {
                clusters,
                tenants,
                groups,
                stateful_sets,
                pods,
                services,
                config_maps,
                pod_disruption_budgets,
                network_policies,
                service_accounts,
            },
            zones: Zones::new(reflector::store().0),
            service_paths: ServicePaths::new(wake.clone()),
            hub: Hub::new(Duration::from_millis(100), silence, wake.clone(), metrics.clone()),
            events: Events::new(events.client(), "test".to_owned(), metrics.clone()),
            metrics,
            installation: Installation {
                node_image: Some("annulus-node:1".to_owned()),
                ..Installation::default()
            },
            memory: Memory::default(),
            summaries: Summaries::default(),
        });
        let tenancy = Tenancy {
            scopes: vec![Arc::clone(&ctx)],
            watched: None,
            namespaces: Namespaces::new(namespaces),
            wake,
            memory: parking_lot::Mutex::default(),
        };
        let writers = Writers {
            clusters: cluster_writer,
            tenants: tenant_writer,
            groups: group_writer,
            namespaces: namespace_writer,
            stateful_sets: stateful_set_writer,
            pods: pod_writer,
            services: service_writer,
            config_maps: config_map_writer,
            pod_disruption_budgets: budget_writer,
            network_policies: policy_writer,
            service_accounts: account_writer,
        };
        Self {
            api,
            events,
            ctx,
            tenancy,
            wakes,
            writers,
            pods: BTreeMap::new(),
        }
    }

    /// Which cluster.
    pub fn key() -> ClusterKey {
        ClusterKey::new("shop", "demo")
    }

    /// Lets the caches see what is stored.
    pub fn see(&mut self) {
        let writers = &mut self.writers;
        fill(&mut writers.clusters, self.api.list("/cacheclusters/"));
        fill(&mut writers.tenants, self.api.list("/cachetenants/"));
        fill(&mut writers.groups, self.api.list("/cachegroups/"));
        fill(
            &mut writers.namespaces,
            self.api.list("/api/v1/namespace-objects/"),
        );
        fill(&mut writers.stateful_sets, self.api.list("/statefulsets/"));
        fill(&mut writers.services, self.api.list("/services/"));
        fill(&mut writers.config_maps, self.api.list("/configmaps/"));
        fill(
            &mut writers.pod_disruption_budgets,
            self.api.list("/poddisruptionbudgets/"),
        );
        fill(&mut writers.network_policies, self.api.list("/networkpolicies/"));
        fill(&mut writers.service_accounts, self.api.list("/serviceaccounts/"));
        fill(&mut writers.pods, self.pods.values().cloned().collect());
    }

    /// Lets the caches see what is stored, and reconciles once.
    pub async fn reconcile(&mut self) -> Result<Duration, ReconcileError> {
        self.see();
        self.reconcile_with_stale_caches().await
    }

    /// Reconciles once with what the caches have.
    pub async fn reconcile_with_stale_caches(&self) -> Result<Duration, ReconcileError> {
        let object: CacheCluster = serde_json::from_value(self.api.get(CLUSTER).unwrap()).unwrap();
        reconcile(&self.ctx, &Arc::new(object)).await
    }

    /// Lets the caches see what is stored, and looks after the cluster's tenants once.
    pub async fn pass(&mut self) -> Result<Duration, TenantsError> {
        self.see();
        pass(&self.tenancy, &Self::key()).await
    }

    /// Adds a namespace with these labels.
    pub fn namespace(&self, name: &str, labels: &Value) {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.api.put(&format!("/api/v1/namespace-objects/{name}"), object);
    }

    /// Adds or replaces a tenant of the cluster with that spec beside its `clusterRef`, in YAML's flow style. Its UID is made
    /// of its name and its generation.
    pub fn tenant(&self, namespace: &str, name: &str, generation: i64, spec: &str) {
        let path = tenant_path(namespace, name);
        let before = self.api.get(&path);
        let uid = before.as_ref().map_or_else(
            || json!(format!("{namespace}-{name}-{generation}")),
            |it| it["metadata"]["uid"].clone(),
        );
        let text = format!(
            "{{apiVersion: annulus.dev/v1alpha1, kind: CacheTenant, metadata: {{name: {name}, namespace: {namespace}, generation: {generation}}}, spec: {{clusterRef: {{name: demo, namespace: shop}}, {spec}}}}}"
        );
        let mut object: Value = serde_yaml::from_str(&text).unwrap();
        object["metadata"]["uid"] = uid;
        if let Some(before) = before {
            object["status"] = before["status"].clone();
        }
        self.api.put(&path, object);
    }

    /// Adds or replaces a group of the cluster with that spec beside its `clusterRef` and its TTL, in YAML's flow style.
    pub fn group(&self, namespace: &str, name: &str, generation: i64, spec: &str) {
        let path = group_path(namespace, name);
        let before = self.api.get(&path);
        let text = format!(
            "{{apiVersion: annulus.dev/v1alpha1, kind: CacheGroup, metadata: {{name: {name}, namespace: {namespace}, generation: {generation}, uid: g-{namespace}-{name}}}, spec: {{clusterRef: {{name: demo, namespace: shop}}, ttl: {{hard: 10m}}, {spec}}}}}"
        );
        let mut object: Value = serde_yaml::from_str(&text).unwrap();
        if let Some(before) = before {
            object["status"] = before["status"].clone();
        }
        self.api.put(&path, object);
    }

    /// A group's condition: status, reason and message.
    pub fn group_condition(&self, namespace: &str, name: &str, type_: &str) -> (String, String, String) {
        condition_of(&self.api.get(&group_path(namespace, name)).unwrap(), type_)
    }

    /// A tenant's condition: status, reason and message.
    pub fn tenant_condition(&self, namespace: &str, name: &str, type_: &str) -> (String, String, String) {
        condition_of(&self.api.get(&tenant_path(namespace, name)).unwrap(), type_)
    }

    /// Reconciles until nothing is written any more.
    pub async fn settle(&mut self) {
        for _ in 0..60 {
            self.reconcile().await.unwrap();
            if self.api.take_writes().is_empty() && !self.snapshot().connecting {
                return;
            }
            // What nodes say to a push comes as a wake-up, which may be on its way.
            tokio::task::yield_now().await;
        }
        panic!("the cluster does not come to rest");
    }

    /// Adds a ready pod with that node in it.
    pub fn add_pod(&mut self, name: &str, node: &FakeNode) {
        self.pods.insert(
            name.to_owned(),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": name, "namespace": "shop", "uid": format!("pod-{name}"),
                    "labels": {"annulus.dev/cluster": "demo", "controller-revision-hash": "one"},
                },
                "status": {"podIP": node.ip.to_string(), "conditions": [{"type": "Ready", "status": "True"}]},
            }),
        );
    }

    /// Takes a pod away.
    pub fn remove_pod(&mut self, name: &str) {
        self.pods.remove(name);
    }

    /// Changes a pod.
    pub fn edit_pod(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        edit(self.pods.get_mut(name).unwrap());
    }

    /// What the hub knows.
    pub fn snapshot(&self) -> Snapshot {
        self.ctx.hub.snapshot(&Self::key())
    }

    /// Waits until the hub knows that, and fails after 10 s.
    pub async fn until(&mut self, holds: impl Fn(&Snapshot) -> bool) {
        let waited = timeout(Duration::from_secs(10), async {
            while !holds(&self.ctx.hub.snapshot(&Self::key())) {
                self.wakes.recv().await;
            }
        });
        waited.await.expect("the hub does not learn what it should");
    }

    /// Waits until the hub wants a reconcile, or a reconcile would look again by itself.
    pub async fn woken(&mut self) {
        let look_again = Duration::from_millis(100);
        if let Ok(wake) = timeout(look_again, self.wakes.recv()).await {
            wake.expect("the hub is gone");
        }
    }

    /// Wake-ups that came since the last call.
    pub fn take_wakes(&mut self) -> usize {
        std::iter::from_fn(|| self.wakes.try_recv().ok()).count()
    }

    /// Starts that many nodes, with pods, and reconciles until the ring is at rest.
    pub async fn run_nodes(&mut self, count: u16) -> Vec<FakeNode> {
        let mut nodes = Vec::new();
        for number in 0..count {
            let name = format!("demo-{number}");
            let node = FakeNode::start(UID, &name, u128::from(number) + 1);
            self.add_pod(&name, &node);
            nodes.push(node);
        }
        self.reconcile().await.unwrap();
        self.until(|seen| seen.reports.len() == usize::from(count)).await;
        self.settle().await;
        nodes
    }

    /// A condition's status and reason.
    pub fn condition(&self, type_: &str) -> (String, String) {
        let cluster = self.api.get(CLUSTER).unwrap();
        let conditions = cluster["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = conditions
            .into_iter()
            .find(|condition| condition["type"] == type_)
            .unwrap_or_default();
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }
}

/// Where a tenant is.
pub fn tenant_path(namespace: &str, name: &str) -> String {
    format!("/apis/annulus.dev/v1alpha1/namespaces/{namespace}/cachetenants/{name}")
}

/// Where a group is.
pub fn group_path(namespace: &str, name: &str) -> String {
    format!("/apis/annulus.dev/v1alpha1/namespaces/{namespace}/cachegroups/{name}")
}

fn condition_of(object: &Value, type_: &str) -> (String, String, String) {
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = conditions
        .into_iter()
        .find(|condition| condition["type"] == type_);
    let found = found.unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

fn fill<K>(writer: &mut Writer<K>, objects: Vec<Value>)
where
    K: kube::Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + DeserializeOwned + 'static,
{
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        let mut object: K = serde_json::from_value(object).unwrap();
        let foreign = object
            .meta()
            .managed_fields
            .as_deref()
            .and_then(annulus_operator::drift::foreign_spec_writer);
        if let Some(foreign) = foreign {
            let annotations = object.meta_mut().annotations.get_or_insert_default();
            annotations.insert(FOREIGN_WRITER_ANNOTATION.to_owned(), foreign);
        }
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
}
