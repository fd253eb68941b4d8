//! What a platform engineer writes.
//!
//! Doc comments are what `kubectl explain` shows. Rules name the field and say what to write.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::CacheClusterStatus;
use super::tenancy::Tenancy;

/// The desired state of a cache cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "annulus.dev",
    version = "v1alpha1",
    kind = "CacheCluster",
    plural = "cacheclusters",
    shortname = "cc",
    category = "all",
    namespaced,
    status = "CacheClusterStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A distributed cache: nodes that share one ring of 16384 slots and speak the Redis Cluster protocol.",
    scale(
        spec_replicas_path = ".spec.nodes",
        status_replicas_path = ".status.nodes",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether every slot is served and every node is ready"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes", description = "Nodes that exist"),
    printcolumn(name = "Ready nodes", type_ = "integer", json_path = ".status.readyNodes", description = "Nodes that serve"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.ringEpoch", description = "Version of the ring"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "Why it is ready or not"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint", description = "Where clients connect", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, description = "What is waited for", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')").message("metadata.name must be at most 40 characters of a-z, 0-9 and '-', starting with a letter: it becomes part of the names of pods and Services"),
    validation = Rule::new("!has(self.spec.pools) || self.spec.pools.all(p, self.metadata.name.size() + p.name.size() <= 48)").message("metadata.name and the longest pool name must be at most 48 characters together: pods are named <cluster>-<pool>-<number>")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.nodes) || has(self.pools)").message("say how many nodes: write nodes: 3, or pools: with nodes in each"))]
#[x_kube(validation = Rule::new("!(has(self.nodes) && has(self.pools))").message("nodes and pools exclude each other: remove nodes and write nodes in each pool, or remove pools"))]
#[x_kube(validation = Rule::new("!has(self.replication) || !has(self.replication.factor) || !has(self.nodes) || self.replication.factor <= self.nodes").message("replication.factor must not be greater than nodes: each copy of a slot lives on a node of its own"))]
#[x_kube(validation = Rule::new("!has(self.replication) || !has(self.replication.factor) || !has(self.pools) || self.replication.factor <= self.pools.map(p, p.nodes).sum()").message("replication.factor must not be greater than the nodes of all pools together: each copy of a slot lives on a node of its own"))]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || has(self.nodes)").message("autoscaling sets nodes and knows nothing of pools: write nodes instead of pools, or leave autoscaling out"))]
#[x_kube(validation = Rule::new("!has(self.autoscaling) || !has(self.replication) || !has(self.replication.factor) || self.replication.factor <= self.autoscaling.minNodes").message("autoscaling.minNodes must not be less than replication.factor: each copy of a slot lives on a node of its own"))]
#[x_kube(validation = Rule::new("!has(self.pools) || self.pools.map(p, p.nodes).sum() <= 200").message("all pools together must have at most 200 nodes"))]
#[x_kube(validation = Rule::new("!has(self.memory) || !has(self.memory.max) || !isQuantity(self.memory.max) || !has(self.resources) || !has(self.resources.limits) || !('memory' in self.resources.limits) || !isQuantity(self.resources.limits['memory']) || quantity(self.memory.max).compareTo(quantity(self.resources.limits['memory'])) < 0").message("memory.max must be less than resources.limits.memory: connections and the process itself need room beside the data; leave memory.max out to have it derived, or raise the limit"))]
#[x_kube(validation = Rule::new("!has(self.memory) || !has(self.memory.max) || !isQuantity(self.memory.max) || (has(self.resources) && has(self.resources.limits) && 'memory' in self.resources.limits) || quantity(self.memory.max).compareTo(quantity('512Mi')) < 0").message("memory.max must be less than the container's memory limit, which is 512Mi unless resources.limits.memory says otherwise: set resources.limits.memory above memory.max"))]
#[x_kube(validation = Rule::new("!has(self.resources) || !has(self.resources.limits) || !('memory' in self.resources.limits) || (isQuantity(self.resources.limits['memory']) && quantity(self.resources.limits['memory']).compareTo(quantity('64Mi')) >= 0)").message("resources.limits.memory must be a quantity of at least 64Mi, for example 512Mi or 2Gi"))]
#[x_kube(validation = Rule::new("!has(self.resources) || !has(self.resources.limits) || !has(self.resources.requests) || !('memory' in self.resources.limits) || !('memory' in self.resources.requests) || !isQuantity(self.resources.limits['memory']) || !isQuantity(self.resources.requests['memory']) || quantity(self.resources.requests['memory']).compareTo(quantity(self.resources.limits['memory'])) <= 0").message("resources.requests.memory must not be greater than resources.limits.memory"))]
#[x_kube(validation = Rule::new("(has(self.tls) && has(self.tls.peers) && self.tls.peers) == (has(oldSelf.tls) && has(oldSelf.tls.peers) && oldSelf.tls.peers)").message("tls.peers is immutable: nodes with and without it could not talk with each other; make a new CacheCluster"))]
#[x_kube(validation = Rule::new("has(self.virtualNodes) == has(oldSelf.virtualNodes) && (!has(self.virtualNodes) || self.virtualNodes == oldSelf.virtualNodes)").message("virtualNodes is immutable: every slot would have to move; make a new CacheCluster with the other number"))]
pub struct CacheClusterSpec {
    /// How many cache nodes to run, 1 to 200, in one pool. `kubectl scale cc NAME --replicas=N` sets it.
    /// Exclusive with `pools`.
    #[schemars(range(min = 1, max = 200))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u16>,

    /// Groups of nodes that differ in size, place or ring weight; each becomes a StatefulSet. Exclusive with `nodes`.
    #[schemars(length(min = 1, max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pools: Option<Vec<Pool>>,

    /// How many copies of each slot exist, and how many must have a write before it is acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,

    /// How slots travel between nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,

    /// Let the operator set `nodes` by the memory that is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,

    /// Tokens that each node holds on the ring, 1 to 64. More tokens spread a node's slots over more
    /// neighbours; fewer keep CLUSTER SLOTS short. Can't be changed later. Default: 32.
    #[schemars(range(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_nodes: Option<u16>,

    /// How much memory the data of a node may take, and what happens when it is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,

    /// The image of the cache node, for example `registry.example.com/annulus-node:0.1.0`. Default: the one that
    /// the operator was installed with.
    #[schemars(length(min = 1, max = 512))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,

    /// When to pull the image. Default: `IfNotPresent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,

    /// Secrets of this namespace that hold registry credentials.
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// CPU and memory of each node's container. Default: a memory limit and request of 512Mi, a CPU request of
    /// 100m and no CPU limit. The memory limit must be at least 64Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Threads that serve clients, 1 to 64. Default: as many as the container may use CPUs.
    #[schemars(range(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u16>,

    /// Where the pods may run. By default they prefer different hosts and spread over zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,

    /// Labels and annotations to add to the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_metadata: Option<PodMetadata>,

    /// The Service that clients connect to first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Service>,

    /// The password that clients give. Default: a random one is put into the Secret `<name>-auth`, key `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,

    /// Encryption of connections: with clients, and among nodes and operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,

    /// Keeping data over restarts. Not available in this version: leave it out or set `enabled: false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,

    /// Which namespaces may have tenants on this cluster, and how much of it. Default: only its own, without limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenancy: Option<Tenancy>,

    /// What `CacheGroup`s, whose keys load themselves, may do here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Groups>,

    /// What becomes of keys that very many clients read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_keys: Option<HotKeys>,

    /// While true the operator changes nothing about this cluster; the nodes go on serving.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause: bool,
}

/// What becomes of keys that very many clients read.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HotKeys {
    /// Nodes answer for hot keys of other nodes' slots, to clients which said `READONLY`. Default: they don't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
}

/// Which keys are mirrored, and how old what is served of them may be.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// A node mirrors a key of another node's slot that it is asked for so often a second, 1 to 1000000. Default: 500.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads_per_second: Option<u32>,

    /// How old a mirrored value may be at most, in milliseconds, 20 to 60000. Default: 200.
    #[schemars(range(min = 20, max = 60_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_staleness_ms: Option<u32>,
}

/// What `CacheGroup`s may do.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Groups {
    /// Hosts that nodes load values from for groups of other namespaces, beside the Services of the group's own: `api.example.com`,
    /// or `*.example.com` for every host below it. Nodes connect to them from this namespace. Groups of this namespace may name
    /// any host.
    #[schemars(
        length(max = 64),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^([*][.])?[A-Za-z0-9_\[:]([-A-Za-z0-9_.:\]]*[A-Za-z0-9_\]])?$")
        )
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
}

/// Nodes of one kind: a StatefulSet of its own.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// The pool's name, unique in the cluster; pods are named `<cluster>-<name>-<number>`.
    #[schemars(length(min = 1, max = 20), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// How many nodes this pool has, 0 to 200. 0 empties the pool, its slots move to the others.
    #[schemars(range(min = 0, max = 200))]
    pub nodes: u16,

    /// The share of slots of each node of this pool relative to nodes of other pools, 1 to 10000: a node of
    /// weight 200 gets twice the slots of a node of weight 100. Default: 100.
    #[schemars(range(min = 1, max = 10_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,

    /// Run this pool's pods only in this zone (the value of the node label `topology.kubernetes.io/zone`).
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,

    /// CPU and memory of this pool's containers; replaces the cluster's `resources` as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!has(self.limits) || !('memory' in self.limits) || (isQuantity(self.limits['memory']) && quantity(self.limits['memory']).compareTo(quantity('64Mi')) >= 0)").message("a pool's resources.limits.memory must be a quantity of at least 64Mi, for example 512Mi or 2Gi"))]
    pub resources: Option<ResourceRequirements>,

    /// Labels that a Kubernetes node must have to run this pool's pods; added to the cluster's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
}

/// Copies and acknowledgement.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.maxStalenessMs) || (has(self.factor) && self.factor > 1)").message("replication.maxStalenessMs is about copies, and with a replication.factor of 1 there are none; raise factor or leave maxStalenessMs out"))]
#[x_kube(validation = Rule::new("!has(self.acks) || self.acks == 0 || (has(self.factor) && self.acks < self.factor)").message("replication.acks must be less than replication.factor: only the other factor - 1 copies can acknowledge; raise factor or lower acks"))]
pub struct Replication {
    /// Copies of each slot, the owner's included, 1 to 5. With more than 1 the loss of a node loses no slot that has
    /// a copy elsewhere. Default: 1.
    #[schemars(range(min = 1, max = 5))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<u8>,

    /// How many of the other copies must have a write before the client gets its answer, 0 to 4. With 1, a write that
    /// was answered survives the loss of any one node; 0 answers at once, and a failover may lose what was written
    /// last. Default: 0.
    #[schemars(range(min = 0, max = 4))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acks: Option<u8>,

    /// How old a copy may be at most that clients read which said `READONLY`, in milliseconds, 500 to 86400000. When the
    /// copy's node has heard nothing of the owner for longer, it sends them to the owner. Default: however old.
    #[schemars(range(min = 500, max = 86_400_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_staleness_ms: Option<u32>,
}

/// How slots and their copies travel between nodes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// Bytes a second that each node sends at most to hand slots over and to fill copies, for example `50Mi`, at least
    /// 1Mi. Changes of entries that clients make are never held back. Default: no limit.
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).compareTo(quantity('1Mi')) >= 0").message("rebalance.maxBytesPerSecond must be a quantity of at least 1Mi, for example 50Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes_per_second: Option<Quantity>,
}

/// When the operator changes the number of nodes by itself.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minNodes <= self.maxNodes").message("autoscaling.minNodes must not be greater than autoscaling.maxNodes"))]
pub struct Autoscaling {
    /// The fewest nodes, 1 to 200, and at least `replication.factor`.
    #[schemars(range(min = 1, max = 200))]
    pub min_nodes: u16,

    /// The most nodes, 1 to 200.
    #[schemars(range(min = 1, max = 200))]
    pub max_nodes: u16,

    /// Nodes are added when more than this share of the memory for data is in use, 10 to 95 percent, and taken away one at a
    /// time when fewer would do. A cache that evicts is full: with enough room it grows until it no longer has to.
    /// Default: 75.
    #[schemars(range(min = 10, max = 95))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_memory_percent: Option<u8>,

    /// How long the cluster must have been at rest, all slots moved and all copies filled, before the next change,
    /// 5 to 86400 seconds. Default: 300.
    #[schemars(range(min = 5, max = 86_400))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_seconds: Option<u32>,
}

/// The budget of a node's data.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Bytes that keys, values and their overhead may take on each node, for example `400Mi`. Must be less than the
    /// container's memory limit. Default: derived from that limit, with headroom for connections and the process.
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("memory.max must be a positive quantity, for example 400Mi or 2Gi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Quantity>,

    /// What happens to a write when the budget is used up. Default: `tinylfu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction_policy: Option<EvictionPolicy>,
}

/// What happens to a write when the budget is used up.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum EvictionPolicy {
    /// New keys make room unless they are used more often than the old keys they would drive out. It keeps most of what
    /// is asked for on most workloads.
    #[default]
    TinyLfu,
    /// New keys make room unless they are used again soon. Nearly as good, and it needs no memory of other keys' use.
    S3Fifo,
    /// The keys that were used longest ago make room.
    Lru,
    /// The keys that expire soonest make room; those that never do are the last.
    Ttl,
    /// Nothing makes room: the write is refused with `-OOM`.
    NoEviction,
}

/// When the kubelet pulls the image.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImagePullPolicy {
    /// At every start.
    Always,
    /// When the node doesn't have it.
    #[default]
    IfNotPresent,
    /// Not at all: the node must have it.
    Never,
}

/// Where the pods may run.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Labels that a Kubernetes node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of Kubernetes nodes that the pods tolerate.
    #[schemars(length(max = 64))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Replaces the default affinity (pods prefer hosts without another node of this cluster).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Replaces the default spread (evenly over zones where that is possible).
    #[schemars(length(max = 16))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Name of the pods' `PriorityClass`.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// What to add to the pods' metadata.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels to add; those that the operator sets itself win.
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(k, !k.startsWith('annulus.dev/') && !k.startsWith('app.kubernetes.io/'))").message("podMetadata.labels must not start with annulus.dev/ or app.kubernetes.io/: the operator selects pods by those"))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to add.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The Service that clients connect to first.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its type. Clients outside the Kubernetes network also need a route to the pods' own addresses, since the ring
    /// names those. Default: `ClusterIP`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// Annotations to add, for example for a cloud's load balancer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Where cluster clients are sent for each node: to a Service of its own, whose address stays when the pod is
    /// replaced, or to the pod, whose address is gone with it. Default: `Service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_addresses: Option<NodeAddresses>,
}

/// Where cluster clients are sent for each node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeAddresses {
    /// To a Service of the node's own, of type `ClusterIP`. Clients that know an address of a pod that was replaced
    /// are refused at once instead of waiting for nobody.
    #[default]
    Service,
    /// To the pod's own address: for clients that have a route to pods and none to Services.
    Pod,
}

/// How the Service is reached.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// From inside the Kubernetes network.
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    /// From outside through a port of every Kubernetes node.
    NodePort,
    /// From outside through a load balancer.
    LoadBalancer,
}

/// Where the password comes from: exactly one of the fields.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.secretRef) ? 1 : 0) + (has(self.generated) && self.generated ? 1 : 0) + (has(self.disabled) && self.disabled ? 1 : 0) == 1").message("auth needs exactly one of secretRef: {name: …}, generated: true and disabled: true"))]
pub struct Auth {
    /// A Secret of this namespace with the key `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Make a random password and keep it in the Secret `<name>-auth`, key `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<bool>,
    /// Ask for no password: whoever reaches the pods reads and writes everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// A Secret of the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SecretRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Encryption of connections.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.enabled) && self.enabled) || !(has(self.mode) || has(self.secretRef) || has(self.clientAuth))").message("tls.mode, tls.secretRef and tls.clientAuth are about clients with TLS: write enabled: true, or leave them out"))]
pub struct Tls {
    /// Whether clients are served with TLS, at port 6380. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enabled: bool,

    /// Whether clients without TLS are served, too. Default: `TLSOnly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,

    /// A Secret of this namespace with what clients are shown, keys `tls.crt` and `tls.key`, and with whoever signs clients'
    /// certificates, key `ca.crt`, where `clientAuth` asks for those; as cert-manager makes it. Default: the cluster's own
    /// authority signs all of it, and clients find `ca.crt` in the Secret `<name>-tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// Whether clients with TLS must show a certificate. Without `secretRef` there is one for them in the Secret
    /// `<name>-client-tls`. Default: `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,

    /// Whether nodes and operator prove to each other who they are, by certificates of the cluster's own authority. Can't be
    /// changed later. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub peers: bool,
}

/// Which ports clients find.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// The one with TLS.
    #[default]
    #[serde(rename = "TLSOnly")]
    TlsOnly,
    /// One with TLS and one without.
    Both,
}

/// Whether clients must show a certificate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// They need none.
    #[default]
    None,
    /// One that is shown must be good.
    Optional,
    /// One that the CA signed.
    Required,
}

impl ClientAuth {
    /// Whether certificates of clients are looked at.
    pub fn asks(self) -> bool {
        self != Self::None
    }
}

/// Keeping data over restarts.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Persistence {
    /// Must be false in this version.
    #[x_kube(validation = Rule::new("!self").message("persistence is not available in this version: write enabled: false or leave persistence out"))]
    #[serde(default)]
    pub enabled: bool,
    /// Size of each node's volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// Name of the volumes' `StorageClass`.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
}
