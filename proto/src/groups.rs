//! Read-through groups: which keys load themselves, from where, and how long they live.
//!
//! They are part of the tenants document ([`TenantsDocument`](crate::tenants::TenantsDocument)), since a group belongs to a
//! keyspace and may hold secrets of an origin.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tenants::TenantId;

/// What stands in a URL template for the key behind the group's prefix, percent-encoded.
pub const KEY_PLACEHOLDER: &str = "{key}";

/// A group: every key of one keyspace that begins with its prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// In whose keyspace; 0 for the cluster's own.
    pub tenant: TenantId,
    /// The namespace of the `CacheGroup`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How its keys begin; not empty, and no other group's of the same keyspace begins with it or it with another's.
    pub key_prefix: String,
    /// Where values come from.
    pub origin: Origin,
    /// Within this age a value is fresh. Beyond it, it is served still, and loaded anew behind the scenes.
    pub soft_ttl_ms: u64,
    /// Beyond this age a value isn't served any more, unless the origin fails; not less than `softTtlMs`.
    pub hard_ttl_ms: u64,
    /// By up to so many percent both ages are shortened, by another share for each key: 0 to 90.
    #[serde(default)]
    pub jitter_percent: u8,
    /// For so long it is remembered that the origin doesn't have a key; 0 for not at all.
    #[serde(default)]
    pub negative_ttl_ms: u64,
    /// For so long it is remembered that a key can't be loaded; 0 for not at all.
    #[serde(default)]
    pub failure_ttl_ms: u64,
    /// For so long beyond `hardTtlMs` a value is kept, and served when the origin fails; 0 for not at all.
    #[serde(default)]
    pub stale_ms: u64,
    /// Longer values are not loaded.
    pub value_bytes_max: u64,
    /// Which keys the origin has, so that it isn't asked for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
}

/// An origin that answers `GET` over HTTP: 200 and the value, or 404 or 410 when there is none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// An absolute `http` or `https` URL with [`KEY_PLACEHOLDER`] in its path or query.
    pub url_template: String,
    /// Sent with each request, name and value. Some are secrets.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Certificates in PEM that sign the origin's; the usual public ones otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// Whether the origin may be at a loopback or link-local address, which is whoever runs beside a node.
    #[serde(default)]
    pub may_be_local: bool,
    /// One try, from the first byte sent to the last one received, takes no longer.
    pub timeout_ms: u64,
    /// A load that fails in a way that may pass is tried again so often.
    #[serde(default)]
    pub retries: u32,
    /// Before the first retry about so long passes, twice as long before the next one.
    #[serde(default)]
    pub backoff_ms: u64,
    /// But never longer than this.
    #[serde(default)]
    pub backoff_max_ms: u64,
    /// So many requests at a time in the whole cluster; each node makes as many of them as it has of the slots, and one at
    /// least.
    pub concurrent_max: u32,
    /// After so many failures in a row nothing is loaded for a while.
    pub breaker_failures: u32,
    /// For so long; then one load after the other tells whether the origin is back.
    pub breaker_open_ms: u64,
}

// What is sent along may be a secret.
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin")
            .field("url_template", &self.url_template)
            .field("headers", &self.headers.len())
            .field("timeout_ms", &self.timeout_ms)
            .field("retries", &self.retries)
            .field("concurrent_max", &self.concurrent_max)
            .finish_non_exhaustive()
    }
}

/// A filter of the keys that the origin has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Answers `GET` with all keys, each on a line of its own, without the group's prefix.
    pub keys_url: String,
    /// It is asked for anew after so long.
    pub refresh_ms: u64,
    /// Of so many million keys that the origin doesn't have one is asked for all the same.
    pub false_positives_per_million: u32,
    /// More keys than this aren't read: there is no filter then.
    pub keys_max: u64,
}

/// What is wrong with a group, apart from others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// It would be all keys.
    #[error("keyPrefix must not be empty")]
    NoPrefix,
    /// Nothing would tell the keys apart.
    #[error("urlTemplate must begin with http:// or https:// and have {{key}} in its path or query")]
    Template,
    /// A time or a number that makes no sense.
    #[error("{0}")]
    OutOfRange(&'static str),
}

impl Group {
    /// Its name among those of all namespaces, `namespace/name`.
    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether it can be followed.
    pub fn check(&self) -> Result<(), GroupError> {
        if self.key_prefix.is_empty() {
            return Err(GroupError::NoPrefix);
        }
        let template = &self.origin.url_template;
        let host_and_path = template
            .strip_prefix("http://")
            .or_else(|| template.strip_prefix("https://"));
        let behind_host = host_and_path.and_then(|rest| rest.find(['/', '?']).map(|at| &rest[at..]));
        if !behind_host.is_some_and(|behind| behind.contains(KEY_PLACEHOLDER)) {
            return Err(GroupError::Template);
        }
        for (holds, otherwise) in [
            (self.soft_ttl_ms > 0, "ttl.soft must be longer than 0"),
            (
                self.hard_ttl_ms >= self.soft_ttl_ms,
                "ttl.hard must not be shorter than ttl.soft",
            ),
            (self.jitter_percent <= 90, "ttl.jitterPercent must be at most 90"),
            (self.origin.timeout_ms > 0, "timeout must be longer than 0"),
            (self.origin.concurrent_max > 0, "maxConcurrent must be at least 1"),
            (
                self.origin.breaker_failures > 0,
                "circuitBreaker.failures must be at least 1",
            ),
            (self.value_bytes_max > 0, "maxValueBytes must be more than 0"),
        ] {
            if !holds {
                return Err(GroupError::OutOfRange(otherwise));
            }
        }
        Ok(())
    }
}
