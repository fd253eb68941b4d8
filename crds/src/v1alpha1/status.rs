//! What the operator answers: facts that a person or a tool acts on, none that changes by itself, so that a
//! healthy cluster's status stands still.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The observed state of a cache cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CacheClusterStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Progressing and Degraded; reasons are listed in docs/status.md.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Nodes that exist.
    #[serde(default)]
    pub nodes: i32,
    /// Nodes that are members of the ring and answer.
    #[serde(default)]
    pub ready_nodes: i32,
    /// Version of the ring.
    #[serde(default)]
    pub ring_epoch: i64,
    /// What is left to move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<RingStatus>,
    /// A row for each node, by name.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
    /// Selects the cluster's pods; for the scale subresource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Where clients connect: host and port of the Service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The `CacheTenant`s that name this cluster. Absent while there never were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<ClusterTenantsStatus>,
}

/// The tenants of a cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterTenantsStatus {
    /// Those that are bound.
    pub bound: i32,
    /// Those that the cluster doesn't take.
    pub refused: i32,
    /// Why not; each tenant's own conditions say more.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["reason".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<TenantRefusals>,
    /// The highest number that a tenant ever had here: numbers are not used again.
    #[serde(default)]
    pub last_id: u32,
}

/// How many tenants are refused for a reason.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantRefusals {
    /// The reason of their condition Accepted.
    pub reason: String,
    /// How many.
    pub tenants: i32,
    /// One of them, as `namespace/name`.
    pub example: String,
}

/// The ring's movement.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RingStatus {
    /// Slots that still have to change their owner until the ring is as the spec wants it.
    pub slots_to_move: i32,
    /// Slots that have fewer whole copies than `replication.factor` asks for.
    #[serde(default)]
    pub slots_lacking_copies: i32,
}

/// One node.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// The pod's name.
    pub name: String,
    /// `pending` (not on the ring yet), `joining`, `active`, `draining` or `down`.
    pub state: String,
    /// Slots that it owns.
    pub slots: i32,
    /// Slots of others that it has whole copies of.
    #[serde(default)]
    pub copies: i32,
    /// Whether it answers and serves what it owns.
    pub ready: bool,
    /// Its zone, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// The types of conditions, each with a meaning of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// Every slot is served and every node that the spec asks for is ready.
    Ready,
    /// The operator is bringing the cluster to the spec.
    Progressing,
    /// Something that the spec asks for doesn't hold, though the cluster may serve.
    Degraded,
}

impl ConditionType {
    /// The text in `conditions[].type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
        }
    }
}

/// Every reason that a condition may give. Documented for users in docs/status.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// All is as the spec says.
    AsSpecified,
    /// Pods are being made, or have not answered yet.
    WaitingForNodes,
    /// No ring exists yet.
    RingNotCreated,
    /// Slots are moving.
    MovingSlots,
    /// A node of the ring doesn't answer.
    NodeUnreachable,
    /// Nodes haven't taken the newest ring yet.
    DistributingRing,
    /// The spec breaks a rule; nothing is touched until it is corrected.
    InvalidSpec,
    /// The Secret that `auth.secretRef` names, or its key, is missing.
    AuthSecretMissing,
    /// The Secret that `tls.secretRef` names, or one of its keys, is missing.
    TlsSecretMissing,
    /// `pause` is true.
    Paused,
    /// Some slots have fewer copies than the spec asks for.
    CopiesMissing,
    /// The API server refused an object.
    ApplyFailed,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::AsSpecified,
        Self::WaitingForNodes,
        Self::RingNotCreated,
        Self::MovingSlots,
        Self::NodeUnreachable,
        Self::DistributingRing,
        Self::InvalidSpec,
        Self::AuthSecretMissing,
        Self::TlsSecretMissing,
        Self::Paused,
        Self::CopiesMissing,
        Self::ApplyFailed,
    ];

    /// The text in `conditions[].reason`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsSpecified => "AsSpecified",
            Self::WaitingForNodes => "WaitingForNodes",
            Self::RingNotCreated => "RingNotCreated",
            Self::MovingSlots => "MovingSlots",
            Self::NodeUnreachable => "NodeUnreachable",
            Self::DistributingRing => "DistributingRing",
            Self::InvalidSpec => "InvalidSpec",
            Self::AuthSecretMissing => "AuthSecretMissing",
            Self::TlsSecretMissing => "TlsSecretMissing",
            Self::Paused => "Paused",
            Self::CopiesMissing => "CopiesMissing",
            Self::ApplyFailed => "ApplyFailed",
        }
    }
}
