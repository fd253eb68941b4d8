//! What the operator answers to a `CacheTenant`. Figures are told roughly and seldom, so that a busy tenant is not a busy
//! API server.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The observed state of a tenant.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CacheTenantStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted, Bound and Ready; reasons are listed in docs/status.md.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The Secret with the credentials of the first user, as the Service Binding specification wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<BindingStatus>,
    /// The tenant's number in the cluster, as it stands in the metrics of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<u32>,
    /// What it uses: told when it has changed by a tenth, at most every five minutes. The metrics of nodes are exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TenantUsageStatus>,
}

/// The Secret with the credentials.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct BindingStatus {
    /// Its name.
    pub name: String,
}

/// What a tenant uses in the whole cluster, copies not counted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantUsageStatus {
    /// What its entries take.
    #[serde(default)]
    pub memory: String,
    /// Its entries.
    #[serde(default)]
    pub keys: i64,
    /// Its connections to all nodes.
    #[serde(default)]
    pub connections: i64,
    /// Of a hundred reads, how many found something. Absent before the first read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_ratio_percent: Option<i32>,
    /// Entries that made room for others, since its nodes started.
    #[serde(default)]
    pub evictions: i64,
    /// Commands that came too fast, since its nodes started.
    #[serde(default)]
    pub throttled: i64,
}

/// The types of a tenant's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TenantConditionType {
    /// The cluster takes the tenant as its spec says.
    Accepted,
    /// Its credentials are in their Secrets.
    Bound,
    /// The credentials work on every node.
    Ready,
}

impl TenantConditionType {
    /// The text in `conditions[].type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Bound => "Bound",
            Self::Ready => "Ready",
        }
    }
}

/// Every reason that a tenant's condition may give. Documented for users in docs/status.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TenantReason {
    /// All is as the spec says.
    AsSpecified,
    /// There is no such `CacheCluster`.
    ClusterNotFound,
    /// The cluster's own spec breaks rules.
    ClusterInvalid,
    /// The cluster doesn't take tenants of this namespace.
    NamespaceNotAllowed,
    /// The tenant's spec breaks a rule.
    InvalidSpec,
    /// It asks for more than the cluster's `tenancy.limits`.
    QuotaTooHigh,
    /// All guaranteed memory together would be more than the cluster has.
    MemoryOvercommitted,
    /// The cluster has as many tenants as it takes.
    TooManyTenants,
    /// A Secret of somebody else has the name.
    NameTaken,
    /// The API server refused a Secret.
    SecretRefused,
    /// Nodes haven't taken the newest tenants yet.
    DistributingTenants,
    /// No node of the cluster answers.
    ClusterNotServing,
    /// The cluster's `pause` is true.
    Paused,
}

impl TenantReason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 13] = [
        Self::AsSpecified,
        Self::ClusterNotFound,
        Self::ClusterInvalid,
        Self::NamespaceNotAllowed,
        Self::InvalidSpec,
        Self::QuotaTooHigh,
        Self::MemoryOvercommitted,
        Self::TooManyTenants,
        Self::NameTaken,
        Self::SecretRefused,
        Self::DistributingTenants,
        Self::ClusterNotServing,
        Self::Paused,
    ];

    /// The text in `conditions[].reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsSpecified => "AsSpecified",
            Self::ClusterNotFound => "ClusterNotFound",
            Self::ClusterInvalid => "ClusterInvalid",
            Self::NamespaceNotAllowed => "NamespaceNotAllowed",
            Self::InvalidSpec => "InvalidSpec",
            Self::QuotaTooHigh => "QuotaTooHigh",
            Self::MemoryOvercommitted => "MemoryOvercommitted",
            Self::TooManyTenants => "TooManyTenants",
            Self::NameTaken => "NameTaken",
            Self::SecretRefused => "SecretRefused",
            Self::DistributingTenants => "DistributingTenants",
            Self::ClusterNotServing => "ClusterNotServing",
            Self::Paused => "Paused",
        }
    }
}
