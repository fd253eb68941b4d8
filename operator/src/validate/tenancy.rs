//! Quotas and lifetimes in numbers, for both sides of a tenancy.

use annulus_crds::v1alpha1::{
    AllowedNamespaces, NetworkPolicyMode, OverRate, Tenancy, TenantQuota, TenantTtl, defaults,
};
use annulus_crds::{bytes_of, milliseconds_of};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Mistakes;

/// The least memory that a tenant can ask for.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// The least rate in bytes that a tenant can ask for: a node tells where the slots are in a few KiB.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;
const TENANTS_MAX: u32 = 2_000;

/// What a cluster says about its tenants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValidTenancy {
    /// Whose tenants it takes.
    pub allowed_namespaces: AllowedNamespaces,
    /// Whose pods may connect.
    pub network_policy: NetworkPolicyMode,
    /// The namespaces whose pods may read metrics; the default's where nothing is said.
    pub metrics_from: Option<LabelSelector>,
    /// For tenants that don't say otherwise.
    pub default_quota: AskedQuota,
    /// For tenants that don't say otherwise.
    pub default_ttl: AskedTtl,
    /// The most of each that one may ask for.
    pub limits: AskedQuota,
    /// The longest that one may let its entries live.
    pub ttl_max_ms: Option<u64>,
    /// How many tenants it takes.
    pub tenants_max: u32,
}

/// A quota as somebody wrote it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AskedQuota {
    /// Bytes of entries in the whole cluster.
    pub memory_bytes: Option<u64>,
    /// So much of that which nobody else takes.
    pub guaranteed_bytes: Option<u64>,
    /// Entries in the whole cluster.
    pub keys: Option<u64>,
    /// Connections to each node.
    pub connections: Option<u32>,
    /// Commands a second in the whole cluster.
    pub ops_per_second: Option<u64>,
    /// Bytes of requests, replies and messages a second in the whole cluster.
    pub bytes_per_second: Option<u64>,
    /// What happens to commands beyond these rates.
    pub over_rate: Option<OverRate>,
    /// The longest value.
    pub value_bytes_max: Option<u64>,
}

/// How long entries live, as somebody wrote it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AskedTtl {
    /// Those for which nobody says how long.
    pub default_ms: Option<u64>,
    /// All of them, at most.
    pub max_ms: Option<u64>,
}

/// Checks what a cluster says about its tenants. What is wrong is left out of the answer.
pub(crate) fn check(tenancy: Option<&Tenancy>, mistakes: &mut Mistakes) -> ValidTenancy {
    let Some(tenancy) = tenancy else {
        return ValidTenancy {
            tenants_max: defaults::TENANTS_MAX,
            ..ValidTenancy::default()
        };
    };
    let given = tenancy.defaults.clone().unwrap_or_default();
    let limits = tenancy.limits.clone().unwrap_or_default();
    let tenants_max = limits.max_tenants.unwrap_or(defaults::TENANTS_MAX);
    mistakes.require(
        tenants_max <= TENANTS_MAX,
        "spec.tenancy.limits.maxTenants",
        "must be 0 to 2000",
    );
    ValidTenancy {
        allowed_namespaces: tenancy.allowed_namespaces.clone().unwrap_or_default(),
        network_policy: tenancy.network_policy.unwrap_or_default(),
        metrics_from: tenancy.metrics_from.clone(),
        default_quota: quota(given.quota.as_ref(), "spec.tenancy.defaults.quota", mistakes),
        default_ttl: ttl(given.ttl.as_ref(), "spec.tenancy.defaults.ttl", mistakes),
        limits: quota(limits.quota.as_ref(), "spec.tenancy.limits.quota", mistakes),
        ttl_max_ms: duration(limits.max_ttl.as_ref(), "spec.tenancy.limits.maxTtl", mistakes),
        tenants_max,
    }
}

/// Checks a quota that stands at `path`.
pub(crate) fn quota(written: Option<&TenantQuota>, path: &str, mistakes: &mut Mistakes) -> AskedQuota {
    let Some(written) = written else {
        return AskedQuota::default();
    };
    let at = |field: &str| format!("{path}.{field}");
    let asked = AskedQuota {
        memory_bytes: bytes(written.memory.as_ref(), MEMORY_BYTES_MIN, &at("memory"), mistakes),
        guaranteed_bytes: bytes(
            written.guaranteed_memory.as_ref(),
            0,
            &at("guaranteedMemory"),
            mistakes,
        ),
        keys: written.keys,
        connections: written.connections,
        ops_per_second: written.ops_per_second,
        bytes_per_second: bytes(
            written.bytes_per_second.as_ref(),
            BYTES_PER_SECOND_MIN,
            &at("bytesPerSecond"),
            mistakes,
        ),
        over_rate: written.over_rate,
        value_bytes_max: bytes(
            written.max_value_bytes.as_ref(),
            1,
            &at("maxValueBytes"),
            mistakes,
        ),
    };
    mistakes.require(asked.keys != Some(0), &at("keys"), "must be at least 1");
    mistakes.require(
        asked.connections != Some(0),
        &at("connections"),
        "must be at least 1",
    );
    mistakes.require(
        asked.ops_per_second != Some(0),
        &at("opsPerSecond"),
        "must be at least 1",
    );
    if let (Some(memory), Some(guaranteed)) = (asked.memory_bytes, asked.guaranteed_bytes) {
        mistakes.require(
            guaranteed <= memory,
            &at("guaranteedMemory"),
            "must not be greater than memory: it is the part of it that nobody else ever takes",
        );
    }
    asked
}

/// Checks lifetimes that stand at `path`.
pub(crate) fn ttl(written: Option<&TenantTtl>, path: &str, mistakes: &mut Mistakes) -> AskedTtl {
    let Some(written) = written else {
        return AskedTtl::default();
    };
    let asked = AskedTtl {
        default_ms: duration(written.default.as_ref(), &format!("{path}.default"), mistakes),
        max_ms: duration(written.max.as_ref(), &format!("{path}.max"), mistakes),
    };
    if let (Some(default), Some(max)) = (asked.default_ms, asked.max_ms) {
        mistakes.require(
            default <= max,
            &format!("{path}.default"),
            "must not be longer than ttl.max",
        );
    }
    asked
}

/// A duration of at least a millisecond.
pub(crate) fn duration(written: Option<&String>, path: &str, mistakes: &mut Mistakes) -> Option<u64> {
    match milliseconds_of(written?) {
        Ok(0) => mistakes.add(path, "must be longer than nothing, for example 10m"),
        Ok(milliseconds) => return Some(milliseconds),
        Err(error) => mistakes.add(path, error.to_string()),
    }
    None
}

fn bytes(written: Option<&Quantity>, least: u64, path: &str, mistakes: &mut Mistakes) -> Option<u64> {
    match bytes_of(written?) {
        Ok(bytes) if bytes >= least => return Some(bytes),
        Ok(_) => mistakes.add(path, format!("must be at least {least} bytes, for example 64Mi")),
        Err(error) => mistakes.add(path, error.to_string()),
    }
    None
}
