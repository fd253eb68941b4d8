//! From a `CacheCluster` as it was written to one that can be built: every default filled in, every mistake
//! collected.
//!
//! The API server enforces the same rules at `kubectl apply`; this is for objects that got past it (an older
//! schema, rules removed, local mode). Each mistake names the field and says what to write instead. The one
//! rule that is not repeated is that `virtualNodes` must not change: that takes the older object, and the
//! planner would move slots correctly all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use annulus_crds::bytes_of;
use annulus_crds::v1alpha1::{
    CacheCluster, CacheClusterSpec, EvictionPolicy, ImagePullPolicy, NamespacesFrom, NodeAddresses, Pool,
    Scheduling, ServiceType, defaults,
};
use annulus_ring::{ClusterUid, NodeId, Weight};
use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::key::ClusterKey;

mod rules;
pub mod tenancy;
mod tls;

pub(crate) use rules::is_label;
pub use tenancy::ValidTenancy;
pub use tls::{PLAIN_PORT, TLS_PORT, TlsSecret, ValidClientTls, ValidTls};

/// What the operator was installed with, for fields that a spec leaves out.
#[derive(Debug, Clone, Default)]
pub struct Installation {
    /// The image of cache nodes.
    pub node_image: Option<String>,
    /// The operator's own namespace, where it is known.
    pub namespace: Option<String>,
}

/// Which hot keys nodes mirror; 0 reads a second for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValidMirrors {
    /// A key that is asked for so often.
    pub reads_per_second: u64,
    /// How old what is served of it may be, in milliseconds.
    pub staleness_max_ms: u64,
}

/// A checked cluster with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidCluster {
    /// Where it is.
    pub key: ClusterKey,
    /// Which one it is, for ever.
    pub uid: ClusterUid,
    /// The version of the spec.
    pub generation: i64,
    /// At least one; names are unique.
    pub pools: Vec<ValidPool>,
    /// Copies of each slot.
    pub replication_factor: u8,
    /// How many of the others must have a write before it is answered.
    pub replication_acks: u8,
    /// What each node sends at most to fill copies and to hand slots over; 0 for no limit.
    pub transfer_bytes_per_second: u64,
    /// How old a copy may be at most that is read, in milliseconds; 0 for however old.
    pub copy_staleness_max_ms: u64,
    /// Which hot keys nodes mirror.
    pub mirrors: ValidMirrors,
    /// Whether and how the operator chooses the number of nodes.
    pub autoscaling: Option<ValidAutoscaling>,
    /// Tokens that each node holds.
    pub tokens_per_member: u16,
    /// What happens when a node is full.
    pub eviction_policy: EvictionPolicy,
    /// The image of the nodes.
    pub image: String,
    /// When to pull it.
    pub image_pull_policy: ImagePullPolicy,
    /// Credentials to pull it with.
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Threads that serve clients; as many as CPUs where absent.
    pub threads: Option<u16>,
    /// Where pods may run, without the defaults.
    pub scheduling: Scheduling,
    /// Labels for pods.
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations for pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// Type of the Service.
    pub service_type: ServiceType,
    /// Annotations for the Service.
    pub service_annotations: BTreeMap<String, String>,
    /// Where cluster clients are sent.
    pub node_addresses: NodeAddresses,
    /// Who may have a tenant, and how much of the cluster.
    pub tenancy: ValidTenancy,
    /// Hosts that groups of other namespaces may have their values from, as they are written.
    pub allowed_origins: Vec<String>,
    /// The operator's own namespace, where it is known.
    pub operator_namespace: Option<String>,
    /// Where the password is.
    pub auth: ValidAuth,
    /// What is encrypted.
    pub tls: ValidTls,
    /// Nothing is to be touched.
    pub pause: bool,
}

/// A pool: one StatefulSet.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidPool {
    /// Its name, `default` for the only pool of a cluster that names none.
    pub name: String,
    /// The StatefulSet's name; pods are `<this>-<number>`.
    pub stateful_set: String,
    /// How many nodes.
    pub nodes: u16,
    /// Each node's weight on the ring.
    pub weight: Weight,
    /// The zone that it is bound to.
    pub zone: Option<String>,
    /// The container's resources; the memory limit is always there.
    pub resources: ResourceRequirements,
    /// That memory limit.
    pub memory_limit_bytes: u64,
    /// The budget for data; derived by the node from the memory limit where absent.
    pub memory_max_bytes: Option<u64>,
    /// Labels that Kubernetes nodes must have, the cluster's and the pool's.
    pub node_selector: BTreeMap<String, String>,
}

impl ValidPool {
    /// The name of its pod with that number, which is its node id.
    pub fn pod_name(&self, ordinal: u16) -> String {
        format!("{}-{ordinal}", self.stateful_set)
    }

    /// The nodes that the spec asks for.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.first_nodes(self.nodes)
    }

    /// So many of its nodes, as its StatefulSet makes them. A checked pool's names are always node ids.
    pub fn first_nodes(&self, count: u16) -> impl Iterator<Item = NodeId> + '_ {
        (0..count).filter_map(|ordinal| self.pod_name(ordinal).parse().ok())
    }

    /// The budget for data of each of its nodes: what the spec says, or what nodes derive by themselves, which is their
    /// memory limit less 15 %, less at least 64 MiB, but never less more than half.
    pub fn budget_bytes(&self) -> u64 {
        let limit = self.memory_limit_bytes;
        let headroom = (limit / 100 * 15).max((64 << 20).min(limit / 2));
        self.memory_max_bytes.unwrap_or(limit - headroom)
    }
}

impl ValidCluster {
    /// What entries of all tenants together may take in the whole cluster, copies not counted.
    pub fn budget_bytes(&self) -> u64 {
        let pools = self.pools.iter();
        let all: u64 = pools
            .map(|pool| u64::from(pool.nodes) * pool.budget_bytes())
            .sum();
        all / u64::from(self.replication_factor.max(1))
    }
}

/// How the operator chooses the number of nodes, which are in one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidAutoscaling {
    /// The fewest.
    pub nodes_min: u16,
    /// The most.
    pub nodes_max: u16,
    /// How much of the memory for data is to be in use.
    pub memory_percent: u8,
    /// How long the cluster must have been at rest before the next change.
    pub cooldown: Duration,
}

/// Where the password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidAuth {
    /// None is asked for.
    Disabled,
    /// The operator makes one, once.
    Generated {
        /// The Secret that it is kept in.
        secret: String,
    },
    /// The user made one.
    Given {
        /// The Secret that it is in.
        secret: String,
    },
}

impl ValidAuth {
    /// The Secret with the password.
    pub fn secret(&self) -> Option<&str> {
        match self {
            Self::Disabled => None,
            Self::Generated { secret } | Self::Given { secret } => Some(secret),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where, as a path such as `spec.pools[1].nodes`.
    pub field: String,
    /// What is wrong and what to write.
    pub problem: String,
}

/// Everything that is wrong with a spec; at least one mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSpec {
    /// In the order of the spec.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for InvalidSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", mistake.field, mistake.problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidSpec {}

/// Collects mistakes.
#[derive(Default)]
pub(crate) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// What was collected, if anything.
    pub(crate) fn into_result(self) -> Result<(), InvalidSpec> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(InvalidSpec { mistakes: self.0 })
        }
    }

    pub(crate) fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Mistake {
            field: field.into(),
            problem: problem.into(),
        });
    }

    pub(crate) fn require(&mut self, holds: bool, field: &str, problem: &str) {
        if !holds {
            self.add(field, problem);
        }
    }
}

/// Checks the cluster against every rule and fills in the defaults.
pub fn validate(cluster: &CacheCluster, installation: &Installation) -> Result<ValidCluster, InvalidSpec> {
    let spec = &cluster.spec;
    let mut mistakes = Mistakes::default();
    let key = ClusterKey::from(cluster);
    rules::check(cluster, &mut mistakes);
    let uid = cluster
        .metadata
        .uid
        .as_deref()
        .unwrap_or_default()
        .parse::<ClusterUid>();
    if let Err(error) = &uid {
        mistakes.add("metadata.uid", error.to_string());
    }
    let image = spec.image.clone().or_else(|| installation.node_image.clone());
    mistakes.require(
        image.is_some(),
        "spec.image",
        "name the image of the cache node, or install the operator with a default one (--node-image)",
    );
    let pools = pools(&key.name, spec, &mut mistakes);
    let transfer_bytes_per_second = rules::transfer_bytes_per_second(spec, &mut mistakes);
    let tenancy = tenancy::check(spec.tenancy.as_ref(), &mut mistakes);
    let (Ok(uid), Some(image), true) = (uid, image, mistakes.0.is_empty()) else {
        return Err(InvalidSpec { mistakes: mistakes.0 });
    };
    let replication = spec.replication.clone().unwrap_or_default();
    let pod_metadata = spec.pod_metadata.clone().unwrap_or_default();
    let service = spec.service.clone().unwrap_or_default();
    Ok(ValidCluster {
        uid,
        generation: cluster.metadata.generation.unwrap_or_default(),
        pools,
        replication_factor: replication.factor.unwrap_or(defaults::REPLICATION_FACTOR),
        replication_acks: replication.acks.unwrap_or(defaults::REPLICATION_ACKS),
        transfer_bytes_per_second,
        copy_staleness_max_ms: replication.max_staleness_ms.unwrap_or_default().into(),
        mirrors: mirrors(spec),
        autoscaling: spec.autoscaling.as_ref().map(|autoscaling| ValidAutoscaling {
            nodes_min: autoscaling.min_nodes,
            nodes_max: autoscaling.max_nodes,
            memory_percent: autoscaling
                .target_memory_percent
                .unwrap_or(defaults::AUTOSCALING_MEMORY_PERCENT),
            cooldown: Duration::from_secs(
                autoscaling
                    .cooldown_seconds
                    .unwrap_or(defaults::AUTOSCALING_COOLDOWN_SECONDS)
                    .into(),
            ),
        }),
        tokens_per_member: spec.virtual_nodes.unwrap_or(defaults::VIRTUAL_NODES),
        eviction_policy: spec
            .memory
            .as_ref()
            .and_then(|memory| memory.eviction_policy)
            .unwrap_or_default(),
        image,
        image_pull_policy: spec.image_pull_policy.unwrap_or_default(),
        image_pull_secrets: spec.image_pull_secrets.clone(),
        threads: spec.threads,
        scheduling: spec.scheduling.clone().unwrap_or_default(),
        pod_labels: pod_metadata.labels,
        pod_annotations: pod_metadata.annotations,
        service_type: service.type_.unwrap_or_default(),
        service_annotations: service.annotations,
        node_addresses: service.node_addresses.unwrap_or_default(),
        tenancy,
        allowed_origins: spec.groups.clone().unwrap_or_default().allowed_origins,
        operator_namespace: installation.namespace.clone(),
        auth: auth(&key.name, spec),
        tls: tls::checked(spec),
        pause: spec.pause,
        key,
    })
}

fn auth(name: &str, spec: &CacheClusterSpec) -> ValidAuth {
    match &spec.auth {
        Some(auth) if auth.disabled == Some(true) => ValidAuth::Disabled,
        Some(auth) => match &auth.secret_ref {
            Some(given) => ValidAuth::Given {
                secret: given.name.clone(),
            },
            None => ValidAuth::Generated {
                secret: format!("{name}-auth"),
            },
        },
        None => ValidAuth::Generated {
            secret: format!("{name}-auth"),
        },
    }
}

fn pools(cluster: &str, spec: &CacheClusterSpec, mistakes: &mut Mistakes) -> Vec<ValidPool> {
    let only;
    let (written, named) = match (&spec.pools, spec.nodes) {
        (Some(pools), _) => (pools.as_slice(), true),
        (None, nodes) => {
            only = [Pool {
                name: defaults::POOL_NAME.to_owned(),
                nodes: nodes.unwrap_or(1),
                ..Pool::default()
            }];
            (only.as_slice(), false)
        }
    };
    let mut valid = Vec::with_capacity(written.len());
    for (index, pool) in written.iter().enumerate() {
        let path = if named {
            format!("spec.pools[{index}]")
        } else {
            "spec".to_owned()
        };
        // A pool without resources of its own has the cluster's, and mistakes in those are told once.
        let resources_path = if pool.resources.is_some() {
            format!("{path}.resources")
        } else {
            "spec.resources".to_owned()
        };
        let resources = pool
            .resources
            .clone()
            .or_else(|| spec.resources.clone())
            .unwrap_or_default();
        let (resources, memory_limit_bytes) = rules::resources(resources, &resources_path, mistakes);
        let memory_max_bytes = rules::memory_max(spec, &resources, &resources_path, mistakes);
        let mut node_selector = spec
            .scheduling
            .as_ref()
            .map(|scheduling| scheduling.node_selector.clone())
            .unwrap_or_default();
        node_selector.extend(pool.node_selector.clone());
        valid.push(ValidPool {
            name: pool.name.clone(),
            stateful_set: if named {
                format!("{cluster}-{}", pool.name)
            } else {
                cluster.to_owned()
            },
            nodes: pool.nodes,
            weight: weight(pool.weight),
            zone: pool.zone.clone(),
            resources,
            memory_limit_bytes,
            memory_max_bytes,
            node_selector,
        });
    }
    mistakes.0.dedup();
    valid
}

/// Weight 0 is a mistake that was noted before; the value is not used then.
fn weight(written: Option<u16>) -> Weight {
    std::num::NonZeroU16::new(written.unwrap_or(defaults::POOL_WEIGHT)).map_or(Weight::DEFAULT, Weight)
}

fn mirrors(spec: &CacheClusterSpec) -> ValidMirrors {
    let mirror = spec
        .hot_keys
        .as_ref()
        .and_then(|hot_keys| hot_keys.mirror.as_ref());
    mirror.map_or_else(ValidMirrors::default, |mirror| ValidMirrors {
        reads_per_second: mirror
            .reads_per_second
            .unwrap_or(defaults::MIRROR_READS_PER_SECOND)
            .into(),
        staleness_max_ms: mirror
            .max_staleness_ms
            .unwrap_or(defaults::MIRROR_STALENESS_MS)
            .into(),
    })
}
