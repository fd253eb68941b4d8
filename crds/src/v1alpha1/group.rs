//! What somebody writes who wants keys to load themselves: a group, its origin and how long its values live.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::group_status::CacheGroupStatus;
use super::tenant::ClusterRef;

/// The desired state of a group.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "annulus.dev",
    version = "v1alpha1",
    kind = "CacheGroup",
    plural = "cachegroups",
    shortname = "cg",
    category = "all",
    namespaced,
    status = "CacheGroupStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Keys of a CacheCluster that load themselves: whoever reads one that is not there gets it from the group's origin.",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".spec.clusterRef.name", description = "The CacheCluster"),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".status.tenant", description = "The CacheTenant in whose keyspace it is; empty for the cluster's own"),
    printcolumn(name = "Prefix", type_ = "string", json_path = ".spec.keyPrefix", description = "How its keys begin"),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether every node loads its keys"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "Why they do or do not"),
    printcolumn(name = "Origin", type_ = "string", json_path = ".spec.origin.http.urlTemplate", description = "Where values come from", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].message"#, description = "What is waited for", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')").message("metadata.name must be at most 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit: it becomes part of URLs and of metrics")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.clusterRef == oldSelf.clusterRef").message("clusterRef is immutable: make a new CacheGroup for the other cluster"))]
pub struct CacheGroupSpec {
    /// The cluster.
    pub cluster_ref: ClusterRef,

    /// The `CacheTenant` of this namespace in whose keyspace the group is. Default: the only one that this namespace has on the
    /// cluster; in the cluster's own namespace, the cluster's own keyspace, which is that of the user `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_ref: Option<TenantRef>,

    /// How the group's keys begin, 1 to 256 bytes, for example `user:`. What follows is the key at the origin. No other group's
    /// prefix in the same keyspace may begin with it, or it with another's.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("size(bytes(self)) <= 256").message("keyPrefix must be at most 256 bytes"))]
    pub key_prefix: String,

    /// Where values come from.
    pub origin: GroupOrigin,

    /// How long values live.
    pub ttl: GroupTtl,

    /// For so long it is remembered that the origin doesn't have a key; `0s` for not at all. Default: 30s.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(rename = "negativeTTL", default, skip_serializing_if = "Option::is_none")]
    pub negative_ttl: Option<String>,

    /// For so long it is remembered that a key could not be loaded; `0s` for not at all. Default: 1s.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(rename = "failureTTL", default, skip_serializing_if = "Option::is_none")]
    pub failure_ttl: Option<String>,

    /// Longer values are not loaded; at most 512Mi. Default: 1Mi.
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0')) && quantity(self).compareTo(quantity('512Mi')) <= 0").message("maxValueBytes must be a positive quantity of at most 512Mi, for example 1Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_value_bytes: Option<Quantity>,

    /// For so long beyond `ttl.hard` a value is kept, and served when the origin fails, for example `1h`. Default: not at all.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serve_stale_on_error: Option<String>,

    /// Lets nodes know which keys the origin has, so that it isn't asked for others. Default: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bloom_filter: Option<BloomFilter>,
}

/// A `CacheTenant` of the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct TenantRef {
    /// Its name.
    #[schemars(length(min = 1, max = 40))]
    pub name: String,
}

/// Where values come from.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct GroupOrigin {
    /// A server that answers `GET`: 200 and the value, 404 or 410 when there is none, anything else for a failure.
    pub http: HttpOrigin,
}

/// An HTTP server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.caBundle) || self.urlTemplate.startsWith('https://')").message("caBundle is about an origin with TLS: write https:// in urlTemplate, or leave caBundle out"))]
pub struct HttpOrigin {
    /// The URL of a key, with `{key}` in its path or query for what follows the prefix, percent-encoded:
    /// `http://users.shop.svc/users/{key}`. Groups of tenants outside the cluster's namespace may name Services of their own
    /// namespace (`name.<namespace>.svc`) and what the cluster's `groups.allowedOrigins` lists.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')").message("urlTemplate must begin with http:// or https://"))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]+://[^/?#{}@]+[/?][^#]*[{]key[}]')").message("urlTemplate must have {key} in its path or query, and neither {key} nor a user in its host: http://users.shop.svc/users/{key}"))]
    pub url_template: String,

    /// Headers to send with each request.
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,

    /// Headers whose values are in Secrets of this namespace. A changed Secret takes effect within two minutes.
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers_from: Vec<HeaderFrom>,

    /// One request takes no longer, 10ms to 5m. Default: 2s.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10ms') && duration(self) <= duration('5m')").message("timeout must be 10ms to 5m"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,

    /// What happens after a failure that may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,

    /// Requests at a time from the whole cluster, 1 to 10000. Each node makes as many of them as it has of the slots, and at
    /// least one. Default: 32.
    #[schemars(range(min = 1, max = 10_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u32>,

    /// Spares an origin that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,

    /// Certificates in PEM that sign the origin's. Default: the usual public authorities.
    #[schemars(length(min = 1, max = 65_536))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
}

/// A header.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// A header whose value is in a Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HeaderFrom {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"))]
    pub name: String,
    /// Where its value is.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret of the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// What happens after a failure that may pass: no connection, a timeout, an answer of 5xx or 429.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.backoff) ? duration(self.backoff) : duration('100ms')) <= (has(self.maxBackoff) ? duration(self.maxBackoff) : duration('2s'))").message("retries.backoff must not be longer than retries.maxBackoff (100ms and 2s where they are left out)"))]
pub struct Retries {
    /// So often a load is tried again, 0 to 10. Default: 1.
    #[schemars(range(min = 0, max = 10))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// About so long passes before the first retry, and twice as long before each further one. Default: 100ms.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<String>,
    /// But never longer than this, at most 1m. Default: 2s.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[x_kube(validation = Rule::new("duration(self) <= duration('1m')").message("retries.maxBackoff must be at most 1m"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<String>,
}

/// Spares an origin that fails.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// After so many failures in a row a node loads nothing for a while, 1 to 1000. Default: 5.
    #[schemars(range(min = 1, max = 1_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// For so long, 100ms to 1h; then single loads tell whether the origin is back. Default: 10s.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('100ms') && duration(self) <= duration('1h')").message("circuitBreaker.openFor must be 100ms to 1h"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_for: Option<String>,
}

/// How long values live, as durations of hours, minutes, seconds and milliseconds: `10m`, `1h30m`, `500ms`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.soft) || duration(self.soft) <= duration(self.hard)").message("ttl.soft must not be longer than ttl.hard"))]
pub struct GroupTtl {
    /// Within this age a value is fresh. An older one is served at once, and loaded anew behind the scenes. Default:
    /// `ttl.hard`, so that nothing is.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("ttl.soft must be longer than nothing, for example 5m"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<String>,
    /// A value of this age is gone: whoever asks for it waits for a new one.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[x_kube(validation = Rule::new("duration(self) > duration('0s')").message("ttl.hard must be longer than nothing, for example 10m"))]
    pub hard: String,
    /// By up to so many percent both are shortened, by another share for each key, so that keys that were loaded together don't
    /// expire together: 0 to 90. Default: 10.
    #[schemars(range(min = 0, max = 90))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_percent: Option<u8>,
}

/// A filter of the keys that the origin has.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BloomFilter {
    /// A URL that answers `GET` with all keys, each on a line of its own, without the group's prefix. What holds for the host of
    /// `urlTemplate` holds for this one.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/?#{}@]+')").message("bloomFilter.keysURL must begin with http:// or https:// and a host: http://users.shop.svc/keys"))]
    #[serde(rename = "keysURL")]
    pub keys_url: String,
    /// It is asked for anew after so long, at least 10s. Default: 10m.
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("bloomFilter.refresh must be at least 10s"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<String>,
    /// The share of absent keys for which the origin is asked all the same, `0.000001` to `0.5`. Default: `0.01`.
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.matches('^0?[.][0-9]{1,6}$') && double(self) > 0.0 && double(self) <= 0.5").message("bloomFilter.falsePositiveRate must be a text from \"0.000001\" to \"0.5\", for example \"0.01\""))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_positive_rate: Option<String>,
    /// With more keys than this there is no filter, 1 to 100000000. Default: 10000000, which take 12 MB on each node.
    #[schemars(range(min = 1, max = 100_000_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<u64>,
}
