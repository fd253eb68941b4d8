//! What an application team writes: the tenant that its namespace has on a cluster.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tenancy::{TenantQuota, TenantTtl};
use super::tenant_status::CacheTenantStatus;

/// The desired state of a tenant.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "annulus.dev",
    version = "v1alpha1",
    kind = "CacheTenant",
    plural = "cachetenants",
    shortname = "ct",
    category = "all",
    namespaced,
    status = "CacheTenantStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A part of a CacheCluster for one namespace: a user and a password of its own, a keyspace, quotas.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name", description = "The CacheCluster"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether the credentials work"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "Why they do or do not"),
    printcolumn(name = "Binding", type_ = "string", json_path = ".status.binding.name", description = "The Secret with the credentials"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.usage.memory", description = "Roughly what its entries take", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, description = "What is waited for", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')").message("metadata.name must be at most 40 characters of a-z, 0-9 and '-', starting with a letter: it becomes part of a user name and of the names of Secrets")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.clusterRef == oldSelf.clusterRef").message("clusterRef is immutable: the data would stay behind; make a new CacheTenant for the other cluster"))]
pub struct CacheTenantSpec {
    /// The cluster. Its `tenancy.allowedNamespaces` must name this namespace, too.
    pub cluster_ref: ClusterRef,

    /// What the tenant may use; within the cluster's `tenancy.limits`. Default: the cluster's `tenancy.defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<TenantQuota>,

    /// Who gets in, and what they may do. Default: one user that may read and write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<TenantAccess>,

    /// How long entries live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TenantTtl>,

    /// When passwords are replaced by new ones. Besides, any new value of the annotation `annulus.dev/rotate` replaces them
    /// at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,

    /// What becomes of the data when this object is deleted. Default: `Delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// A `CacheCluster`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct ClusterRef {
    /// Its name.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
    /// Its namespace. Default: this one.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Who gets in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantAccess {
    /// What the tenant's first user, `<namespace>.<name>`, may do. Default: `ReadWrite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
    /// More users, named `<namespace>.<name>.<user>`, each with a password and a Secret of its own.
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<TenantUser>,
}

/// One more user.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.permissions) && has(self.rules))").message("permissions and rules exclude each other: write the one or the other"))]
pub struct TenantUser {
    /// Its name, unique in the tenant.
    #[schemars(length(min = 1, max = 32), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What the user may do. Default: `ReadWrite`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Permissions>,
    /// What the user may do, as rules of Redis' ACL about commands, one after the other: `["+@read", "-keys"]`.
    #[schemars(
        length(min = 1, max = 32),
        inner(
            length(max = 64),
            regex(pattern = r"^[+-](@[a-z]+|[a-z][a-z0-9_.-]*([|][a-z0-9_-]+)?)$")
        )
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<String>>,
}

/// What a user may do with the tenant's keys.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Permissions {
    /// Everything.
    #[default]
    ReadWrite,
    /// Everything but writing and publishing.
    ReadOnly,
}

/// When passwords are replaced.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.interval) || duration(self.interval) >= duration('30s')").message("rotation.interval must be at least 30s"))]
#[x_kube(validation = Rule::new("!has(self.interval) || !has(self.overlap) || duration(self.overlap) < duration(self.interval)").message("rotation.overlap must be shorter than rotation.interval: no more than two passwords work at a time"))]
pub struct Rotation {
    /// How long passwords live, for example `720h`; at least 30s. Default: until somebody asks.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long the old password works beside the new one; it must be long enough for applications to see the new Secret.
    /// Default: 10m, or half of an interval that is shorter than 20m.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<String>,
}

/// What becomes of the data of a tenant that is deleted.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// It is deleted.
    #[default]
    Delete,
    /// It is kept, and nobody gets in, until a `CacheTenant` of the same namespace and name is there again.
    Retain,
}
