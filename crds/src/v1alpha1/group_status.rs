//! What the operator answers to a `CacheGroup`. It says nothing of traffic: nodes' metrics do.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The observed state of a group.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CacheGroupStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Accepted and Ready; reasons are listed in docs/status.md.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The `CacheTenant` in whose keyspace it is. Absent for the cluster's own, and while the group is not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// The types of a group's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupConditionType {
    /// The cluster takes the group as its spec says.
    Accepted,
    /// Every node that answers follows it.
    Ready,
}

impl GroupConditionType {
    /// The text in `conditions[].type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Ready => "Ready",
        }
    }
}

/// Every reason that a group's condition may give. Documented for users in docs/status.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GroupReason {
    /// All is as the spec says.
    AsSpecified,
    /// There is no such `CacheCluster`.
    ClusterNotFound,
    /// The cluster's own spec breaks rules.
    ClusterInvalid,
    /// The group's spec breaks a rule.
    InvalidSpec,
    /// There is no `CacheTenant` for it.
    TenantNotFound,
    /// The namespace has several, and the group names none.
    TenantNotNamed,
    /// The cluster doesn't take its `CacheTenant`.
    TenantNotBound,
    /// Nodes may not connect to its origin.
    OriginNotAllowed,
    /// Another group of the same keyspace has such keys.
    PrefixTaken,
    /// A Secret of `headersFrom`, or its key, is missing.
    SecretMissing,
    /// A Secret of `headersFrom` couldn't be read yet.
    SecretUnreadable,
    /// What the Secret holds can't be the value of a header.
    SecretInvalid,
    /// The keyspace, or the cluster, has as many groups as it takes.
    TooManyGroups,
    /// The Secret that the cluster's groups are stored in is somebody else's.
    NameTaken,
    /// Nodes haven't taken the newest groups yet.
    DistributingGroups,
    /// No node of the cluster answers.
    ClusterNotServing,
    /// The cluster's `pause` is true.
    Paused,
}

impl GroupReason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 17] = [
        Self::AsSpecified,
        Self::ClusterNotFound,
        Self::ClusterInvalid,
        Self::InvalidSpec,
        Self::TenantNotFound,
        Self::TenantNotNamed,
        Self::TenantNotBound,
        Self::OriginNotAllowed,
        Self::PrefixTaken,
        Self::SecretMissing,
        Self::SecretUnreadable,
        Self::SecretInvalid,
        Self::TooManyGroups,
        Self::NameTaken,
        Self::DistributingGroups,
        Self::ClusterNotServing,
        Self::Paused,
    ];

    /// The text in `conditions[].reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsSpecified => "AsSpecified",
            Self::ClusterNotFound => "ClusterNotFound",
            Self::ClusterInvalid => "ClusterInvalid",
            Self::InvalidSpec => "InvalidSpec",
            Self::TenantNotFound => "TenantNotFound",
            Self::TenantNotNamed => "TenantNotNamed",
            Self::TenantNotBound => "TenantNotBound",
            Self::OriginNotAllowed => "OriginNotAllowed",
            Self::PrefixTaken => "PrefixTaken",
            Self::SecretMissing => "SecretMissing",
            Self::SecretUnreadable => "SecretUnreadable",
            Self::SecretInvalid => "SecretInvalid",
            Self::TooManyGroups => "TooManyGroups",
            Self::NameTaken => "NameTaken",
            Self::DistributingGroups => "DistributingGroups",
            Self::ClusterNotServing => "ClusterNotServing",
            Self::Paused => "Paused",
        }
    }
}
