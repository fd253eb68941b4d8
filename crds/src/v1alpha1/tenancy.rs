//! What the two sides of a tenancy have in common: quotas and lifetimes, and what a cluster says about its tenants.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may have a tenant here, and how much of the cluster.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tenancy {
    /// The namespaces whose `CacheTenant`s may bind to this cluster. Default: the cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<AllowedNamespaces>,
    /// What a tenant has that doesn't say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defaults: Option<TenantDefaults>,
    /// The most that a tenant may ask for. One that doesn't say gets the default, or else this. Tenants that are bound
    /// keep what they have when a limit is lowered, until they change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<TenantLimits>,
    /// Whose pods may connect, where the network plugin enforces `NetworkPolicy`. Default: `Enforce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicyMode>,
    /// Labels of the namespaces whose pods may read metrics, which tell of every tenant, beside the cluster's own and the
    /// operator's. Default: the namespace `monitoring`. Where `networkPolicy` is `Open`, everybody may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_from: Option<LabelSelector>,
}

/// Whose pods may connect as clients.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkPolicyMode {
    /// Those of the cluster's namespace, and of namespaces with a `CacheTenant` that is bound.
    #[default]
    Enforce,
    /// Those of all namespaces that `allowedNamespaces` names, bound or not.
    Allowed,
    /// Everybody's. Passwords and certificates alone keep strangers out.
    Open,
}

/// What a tenant has that doesn't say otherwise.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantDefaults {
    /// What it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<TenantQuota>,
    /// How long its entries live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TenantTtl>,
}

/// The most that a tenant may ask for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TenantLimits {
    /// How many tenants the cluster takes, 0 to 2000. Default: 1000.
    #[schemars(range(min = 0, max = 2_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tenants: Option<u32>,
    /// The most of each that one tenant may ask for. `overRate` has no meaning here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<TenantQuota>,
    /// The longest that a tenant may let its entries live, for example `24h`.
    #[schemars(regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_ttl: Option<String>,
}

/// What a tenant may use. What is left out is without a limit, unless the cluster has one.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.memory) || !has(self.guaranteedMemory) || !isQuantity(self.memory) || !isQuantity(self.guaranteedMemory) || quantity(self.guaranteedMemory).compareTo(quantity(self.memory)) <= 0").message("quota.guaranteedMemory must not be greater than quota.memory: it is the part of it that nobody else ever takes"))]
pub struct TenantQuota {
    /// Bytes of its entries in the whole cluster, copies not counted, for example `256Mi`, at least 1Mi. When it is used up,
    /// its own entries make room.
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).compareTo(quantity('1Mi')) >= 0").message("quota.memory must be a quantity of at least 1Mi, for example 256Mi or 2Gi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// So much of the memory that no other tenant ever takes; the rest is lent as long as there is room. Default: 0.
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).compareTo(quantity('0')) >= 0").message("quota.guaranteedMemory must be a quantity such as 64Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guaranteed_memory: Option<Quantity>,
    /// Connections to each node, 1 to 100000. A client of a cluster opens one to every node.
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Commands a second in the whole cluster.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops_per_second: Option<u64>,
    /// Bytes of requests, replies and messages a second in the whole cluster, for example `10Mi`, at least 64Ki. What one
    /// command takes beyond that is paid back before the next one.
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).compareTo(quantity('64Ki')) >= 0").message("quota.bytesPerSecond must be a quantity of at least 64Ki, for example 10Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<Quantity>,
    /// What happens to commands beyond these rates. Default: `Reject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_rate: Option<OverRate>,
    /// The longest value, for example `1Mi`.
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("quota.maxValueBytes must be a positive quantity, for example 1Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_value_bytes: Option<Quantity>,
    /// Entries in the whole cluster.
    #[schemars(range(min = 1, max = 1_000_000_000_000_i64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
}

/// What happens to commands beyond a rate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverRate {
    /// They are answered with an error.
    #[default]
    Reject,
    /// They wait.
    Delay,
}

/// How long entries live, as durations of hours, minutes, seconds and milliseconds: `10m`, `1h30m`, `500ms`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.max) || !has(self.default) || duration(self.default) <= duration(self.max)").message("ttl.default must not be longer than ttl.max"))]
pub struct TenantTtl {
    /// For entries for which nobody says how long. Default: for ever.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The longest that can be asked for; entries for ever live so long, too. Default: however long.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
}

/// A choice of namespaces, in the manner of Gateway API's `allowedRoutes`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.from == 'Selector') == has(self.selector)").message("selector goes with from: Selector, and only with it"))]
pub struct AllowedNamespaces {
    /// `Same` (the cluster's own), `All`, or `Selector`.
    pub from: NamespacesFrom,
    /// Labels of the namespaces, with `from: Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Which namespaces are meant.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NamespacesFrom {
    /// The cluster's own.
    #[default]
    Same,
    /// Every one.
    All,
    /// Those with the labels.
    Selector,
}
