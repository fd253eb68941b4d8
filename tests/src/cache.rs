//! A CacheCluster under test, seen through the API server and through its nodes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, ConditionType};
use annulus_ring::{RING_DOCUMENT_KEY, RingDocument};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use redis::Value;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use serde_json::json;

use crate::kubernetes::{Answer, Kubernetes};
use crate::wait::{seconds, until, watched};

const SLOTS: u32 = 16384;

/// A CacheCluster by its name.
pub struct Cache<'a> {
    pub(crate) kubernetes: &'a Kubernetes,
    /// Where it is.
    pub namespace: String,
    /// What it is called.
    pub name: String,
}

/// An object that the CacheCluster owns directly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owned {
    /// For example `StatefulSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
}

/// What one node says about the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// First slot, last slot and the owner's id in the Redis protocol, sorted.
    pub slots: Vec<(u16, u16, String)>,
}

/// The condition of that type.
pub fn condition(cluster: &CacheCluster, wanted: ConditionType) -> Option<&Condition> {
    cluster
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == wanted.as_str())
}

fn is_ready(cluster: Option<&CacheCluster>) -> Result<CacheCluster> {
    let cluster = cluster.context("there is no such CacheCluster")?;
    let status = cluster.status.as_ref().context("it has no status yet")?;
    let seen = status.observed_generation == cluster.metadata.generation;
    match condition(cluster, ConditionType::Ready) {
        Some(ready) if ready.status == "True" && seen => Ok(cluster.clone()),
        _ => bail!("generation {:?}, status {status:?}", cluster.metadata.generation),
    }
}

impl Cache<'_> {
    /// `kubectl apply` of the cluster with that `spec:` in YAML.
    pub async fn apply(&self, spec: &str) -> Result<Answer> {
        let spec: serde_json::Value = serde_yaml::from_str(spec)?;
        let object = json!({
            "apiVersion": "annulus.dev/v1alpha1",
            "kind": "CacheCluster",
            "metadata": {"name": self.name},
            "spec": spec,
        });
        self.kubernetes.apply(&self.namespace, &object.to_string()).await
    }

    /// An API in its namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.kubernetes.client.clone(), &self.namespace)
    }

    /// Runs kubectl in its namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let all: Vec<&str> = ["--namespace", &self.namespace]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let answer = self.kubernetes.kubectl(&all).await?;
        answer
            .success()
            .with_context(|| format!("kubectl {}", arguments.join(" ")))
    }

    /// The object as it is now.
    pub async fn get(&self) -> Result<CacheCluster> {
        Ok(self.api().get(&self.name).await?)
    }

    /// Waits until it is Ready as its present spec says.
    pub async fn ready(&self, deadline: Duration) -> Result<CacheCluster> {
        let what = format!("CacheCluster {} Ready", self.name);
        watched(self.api(), &self.name, &what, deadline, is_ready).await
    }

    /// Waits until the condition has that status and reason; returns its message.
    pub async fn condition(
        &self,
        wanted: ConditionType,
        status: &str,
        reason: &str,
        deadline: Duration,
    ) -> Result<String> {
        let what = format!(
            "CacheCluster {}: {}={status}, reason {reason}",
            self.name,
            wanted.as_str()
        );
        watched(
            self.api(),
            &self.name,
            &what,
            deadline,
            |cluster: Option<&CacheCluster>| {
                let cluster = cluster.context("there is no such CacheCluster")?;
                match condition(cluster, wanted) {
                    Some(found) if found.status == status && found.reason == reason => {
                        Ok(found.message.clone())
                    }
                    _ => bail!("{:?}", cluster.status),
                }
            },
        )
        .await
    }

    /// Waits until it is Ready, has that many members in its ring and no slot is to be moved.
    pub async fn settled(&self, nodes: usize, deadline: Duration) -> Result<RingDocument> {
        until(
            &format!("ring of {} settled with {nodes} members", self.name),
            deadline,
            async || {
                is_ready(Some(&self.get().await?))?;
                let document = self.document().await?;
                ensure!(
                    document.members.len() == nodes,
                    "{} members",
                    document.members.len()
                );
                ensure!(
                    document.handoffs.is_empty(),
                    "{} handoffs",
                    document.handoffs.len()
                );
                let owners = document.ring().owned_counts();
                ensure!(
                    owners.len() == nodes && owners.values().all(|slots| *slots > 0),
                    "{owners:?}"
                );
                Ok(document)
            },
        )
        .await
    }

    /// The ring as it is stored.
    pub async fn document(&self) -> Result<RingDocument> {
        let name = format!("{}-ring", self.name);
        let stored: ConfigMap = self.api().get(&name).await?;
        let data = stored.data.unwrap_or_default();
        let json = data.get(RING_DOCUMENT_KEY).context("no ring is stored yet")?;
        Ok(RingDocument::from_json(json.as_bytes())?)
    }

    /// Its pods, by name.
    pub async fn pods(&self) -> Result<BTreeMap<String, Pod>> {
        let labels = format!("annulus.dev/cluster={}", self.name);
        let pods = Api::<Pod>::list(&self.api(), &ListParams::default().labels(&labels)).await?;
        Ok(pods.items.into_iter().map(|pod| (pod.name_any(), pod)).collect())
    }

    /// UIDs and restarts of its pods: equal means that none was replaced or restarted.
    pub async fn lives(&self) -> Result<BTreeMap<String, (Option<String>, i32)>> {
        let restarts = |pod: &Pod| -> i32 {
            let containers = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref());
            containers
                .into_iter()
                .flatten()
                .map(|container| container.restart_count)
                .sum()
        };
        let pods = self.pods().await?;
        Ok(pods
            .into_iter()
            .map(|(name, pod)| (name, (pod.uid(), restarts(&pod))))
            .collect())
    }

    /// The address of a pod.
    pub async fn pod_ip(&self, pod: &str) -> Result<Ipv4Addr> {
        let pod: Pod = self.api().get(pod).await?;
        let ip = pod
            .status
            .and_then(|status| status.pod_ip)
            .context("the pod has no address yet")?;
        Ok(ip.parse()?)
    }

    /// Addresses of all pods.
    pub async fn pod_ips(&self) -> Result<BTreeMap<String, Ipv4Addr>> {
        let mut ips = BTreeMap::new();
        for (name, pod) in self.pods().await? {
            let ip = pod
                .status
                .and_then(|status| status.pod_ip)
                .with_context(|| format!("{name} has no address"))?;
            ips.insert(name, ip.parse()?);
        }
        Ok(ips)
    }

    /// The generated password.
    pub async fn password(&self) -> Result<String> {
        let secret: Secret = self.api().get(&format!("{}-auth", self.name)).await?;
        let data = secret.data.unwrap_or_default();
        let password = data.get("password").context("the Secret has no password")?;
        Ok(String::from_utf8(password.0.clone())?)
    }

    /// The address of the Service for clients.
    pub async fn service_ip(&self) -> Result<String> {
        let service: Service = self.api().get(&self.name).await?;
        service
            .spec
            .and_then(|spec| spec.cluster_ip)
            .context("the Service has no address")
    }

    /// A connection to one node.
    pub async fn connect_to(&self, ip: Ipv4Addr) -> Result<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://:{}@{ip}:6379", self.password().await?))?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// A connection to the cluster through its Service, with the library's default options. The Service's rules
    /// reach the nodes of Kubernetes a moment after a pod is ready, and refuse connections until then.
    pub async fn connect(&self) -> Result<ClusterConnection> {
        until(&format!("connection to {}", self.name), seconds(10), async || {
            let address = format!("redis://{}:6379", self.service_ip().await?);
            let client = ClusterClient::builder(vec![address])
                .password(self.password().await?)
                .build()?;
            Ok(client.get_async_connection().await?)
        })
        .await
    }

    /// What the node at that address says about the ring.
    pub async fn view_of(&self, ip: Ipv4Addr) -> Result<NodeView> {
        let mut connection = self.connect_to(ip).await?;
        let answer: Vec<Value> = redis::cmd("CLUSTER")
            .arg("SLOTS")
            .query_async(&mut connection)
            .await?;
        let mut slots = Vec::new();
        for row in answer {
            let Value::Array(fields) = row else {
                bail!("CLUSTER SLOTS has a row {row:?}")
            };
            let [first, last, Value::Array(owner), ..] = fields.as_slice() else {
                bail!("CLUSTER SLOTS has a row {fields:?}")
            };
            let id = owner.get(2).context("an owner without an id")?;
            slots.push((
                redis::from_redis_value(first.clone())?,
                redis::from_redis_value(last.clone())?,
                redis::from_redis_value(id.clone())?,
            ));
        }
        slots.sort();
        Ok(NodeView { slots })
    }

    /// Waits until every node tells the same ring, in which each of the 16384 slots has one owner.
    pub async fn agreed(&self) -> Result<NodeView> {
        until(
            &format!("agreement of the nodes of {}", self.name),
            seconds(30),
            async || {
                let mut agreed: Option<NodeView> = None;
                for (pod, ip) in self.pod_ips().await? {
                    let view = self.view_of(ip).await.with_context(|| pod.clone())?;
                    let mut next = 0;
                    for (first, last, _) in &view.slots {
                        ensure!(
                            u32::from(*first) == next,
                            "{pod} leaves a gap or overlap at slot {next}: {view:?}"
                        );
                        next = u32::from(*last) + 1;
                    }
                    ensure!(next == SLOTS, "{pod} ends at slot {next}");
                    match &agreed {
                        None => agreed = Some(view),
                        Some(other) => ensure!(*other == view, "{pod} says {view:?}, another {other:?}"),
                    }
                }
                agreed.context("there are no nodes")
            },
        )
        .await
    }

    /// Every object of its namespace that it owns directly, by kind and name. Events are left out.
    pub async fn owned(&self) -> Result<BTreeMap<(String, String), Owned>> {
        let uid = self.get().await?.uid().context("a CacheCluster without a UID")?;
        let found = self.all_objects().await?;
        let owned = found.into_iter().filter(|object| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners
                .into_iter()
                .flatten()
                .any(|owner| owner["uid"] == uid.as_str())
        });
        Ok(owned
            .map(|object| described(&object))
            .map(|owned| ((owned.kind.clone(), owned.name.clone()), owned))
            .collect())
    }

    /// Everything in its namespace but events and what Kubernetes itself puts into each namespace.
    pub async fn everything(&self) -> Result<Vec<Owned>> {
        let mut everything: Vec<Owned> = self.all_objects().await?.iter().map(described).collect();
        everything.retain(|object| {
            !matches!(
                (object.kind.as_str(), object.name.as_str()),
                ("ConfigMap", "kube-root-ca.crt") | ("ServiceAccount", "default")
            )
        });
        everything.sort();
        Ok(everything)
    }

    async fn all_objects(&self) -> Result<Vec<serde_json::Value>> {
        let kinds = self
            .kubernetes
            .kubectl(&["api-resources", "--namespaced", "--verbs=list", "--output=name"])
            .await?
            .success()?;
        let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
        let listed = self
            .kubectl(&["get", &kinds.join(","), "--output=json", "--ignore-not-found"])
            .await?;
        if listed.trim().is_empty() {
            return Ok(Vec::new());
        }
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        listed["items"]
            .as_array()
            .cloned()
            .ok_or_else(|| anyhow!("not a list: {listed}"))
    }

    /// A pod's metrics page.
    pub async fn metrics(&self, pod: &str) -> Result<String> {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{pod}:9121/proxy/metrics",
            self.namespace
        );
        Ok(self
            .kubernetes
            .client
            .request_text(http::Request::get(path).body(Vec::new())?)
            .await?)
    }

    /// Writes keys `key:0`… through a cluster client.
    pub async fn fill(&self, connection: &mut ClusterConnection, keys: u32) -> Result<()> {
        for number in 0..keys {
            let set = redis::cmd("SET").arg(format!("key:{number}")).arg(number).clone();
            set.query_async::<()>(connection)
                .await
                .with_context(|| format!("SET key:{number}"))?;
        }
        Ok(())
    }

    /// Reads what [`Self::fill`] wrote; how many of the keys are gone. A wrong value is an error.
    pub async fn missing(&self, connection: &mut ClusterConnection, keys: u32) -> Result<u32> {
        let mut missing = 0;
        for number in 0..keys {
            let get = redis::cmd("GET").arg(format!("key:{number}")).clone();
            let found: Option<u32> = get
                .query_async(connection)
                .await
                .with_context(|| format!("GET key:{number}"))?;
            match found {
                None => missing += 1,
                Some(found) => ensure!(found == number, "key:{number} has the value {found}"),
            }
        }
        Ok(missing)
    }
}

fn described(object: &serde_json::Value) -> Owned {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Owned {
        kind: text(&object["kind"]),
        name: text(&object["metadata"]["name"]),
        uid: text(&object["metadata"]["uid"]),
        resource_version: text(&object["metadata"]["resourceVersion"]),
    }
}
