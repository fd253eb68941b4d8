//! Whether a cluster takes a tenant: small checks, the first that objects gives the reason.

use std::collections::BTreeMap;

use annulus_crds::v1alpha1::{NamespacesFrom, OverRate, TenantReason};
use annulus_proto::tenants::{self, Quota, TtlBounds};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::validate::ValidTenant;
use crate::key::ClusterKey;
use crate::validate::ValidCluster;
use crate::validate::tenancy::{AskedQuota, ValidTenancy};

/// Why something is not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In a word.
    pub reason: TenantReason,
    /// And what to do about it.
    pub message: String,
}

impl Refusal {
    /// A refusal for that reason.
    pub fn new(reason: TenantReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// Labels of a namespace, where they are known.
pub type Labels = BTreeMap<String, String>;

/// Whether the cluster takes tenants of that namespace.
pub fn may_bind(
    tenancy: &ValidTenancy,
    cluster: &ClusterKey,
    namespace: &str,
    labels: Option<&Labels>,
) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::new(TenantReason::NamespaceNotAllowed, message));
    let allowed = &tenancy.allowed_namespaces;
    match (allowed.from, labels) {
        (NamespacesFrom::All, _) => Ok(()),
        _ if namespace == cluster.namespace => Ok(()),
        (NamespacesFrom::Same, _) => refuse(format!(
            "CacheCluster {cluster} takes tenants of its own namespace only: its owner can allow others with \
             spec.tenancy.allowedNamespaces"
        )),
        (NamespacesFrom::Selector, None) => refuse(format!(
            "the labels of namespace {namespace} are not known to the operator, which needs the right to read namespaces"
        )),
        (NamespacesFrom::Selector, Some(labels)) => match &allowed.selector {
            Some(selector) if matches(selector, labels) => Ok(()),
            _ => refuse(format!(
                "namespace {namespace} has not the labels that spec.tenancy.allowedNamespaces of CacheCluster {cluster} \
                 asks for"
            )),
        },
    }
}

/// What a tenant gets: what it asks for, or else the default, or else the limit; and nothing above the limit.
pub fn agree(tenancy: &ValidTenancy, tenant: &ValidTenant) -> Result<(Quota, TtlBounds), Refusal> {
    let AskedQuota {
        memory_bytes,
        guaranteed_bytes,
        keys,
        connections,
        ops_per_second,
        bytes_per_second,
        over_rate,
        value_bytes_max,
    } = tenant.quota;
    let (default, limit) = (&tenancy.default_quota, &tenancy.limits);
    let memory_bytes = pick(
        "quota.memory",
        memory_bytes,
        default.memory_bytes,
        limit.memory_bytes,
    )?;
    let guaranteed_bytes = guaranteed_bytes.or(default.guaranteed_bytes).unwrap_or_default();
    within(
        "quota.guaranteedMemory",
        Some(guaranteed_bytes),
        limit.guaranteed_bytes,
    )?;
    if memory_bytes.is_some_and(|memory_bytes| guaranteed_bytes > memory_bytes) {
        let message = "quota.guaranteedMemory is more than quota.memory, of which one may be the cluster's default: set both";
        return Err(Refusal::new(TenantReason::QuotaTooHigh, message));
    }
    let quota = Quota {
        memory_bytes,
        guaranteed_bytes,
        keys: pick("quota.keys", keys, default.keys, limit.keys)?,
        connections: pick(
            "quota.connections",
            connections,
            default.connections,
            limit.connections,
        )?,
        ops_per_second: pick(
            "quota.opsPerSecond",
            ops_per_second,
            default.ops_per_second,
            limit.ops_per_second,
        )?,
        bytes_per_second: pick(
            "quota.bytesPerSecond",
            bytes_per_second,
            default.bytes_per_second,
            limit.bytes_per_second,
        )?,
        over_rate: match over_rate.or(default.over_rate).unwrap_or_default() {
            OverRate::Reject => tenants::OverRate::Reject,
            OverRate::Delay => tenants::OverRate::Delay,
        },
        value_bytes_max: pick(
            "quota.maxValueBytes",
            value_bytes_max,
            default.value_bytes_max,
            limit.value_bytes_max,
        )?,
    };
    let max_ms = pick(
        "ttl.max (milliseconds)",
        tenant.ttl.max_ms,
        tenancy.default_ttl.max_ms,
        tenancy.ttl_max_ms,
    )?;
    let default_ms = tenant.ttl.default_ms.or(tenancy.default_ttl.default_ms);
    Ok((
        quota,
        TtlBounds {
            // A default of the cluster's may be longer than what the tenant itself allows.
            default_ms: default_ms.map(|ms| max_ms.map_or(ms, |max_ms| ms.min(max_ms))),
            max_ms,
        },
    ))
}

/// What a cluster has given to the tenants other than the one that is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Others {
    /// How many they are.
    pub tenants: usize,
    /// What they are guaranteed together.
    pub guaranteed_bytes: u64,
}

/// Whether the cluster has room for what a tenant is to be guaranteed, beside what the others have. A newcomer has had
/// nothing; whoever is in keeps what it had.
pub fn fits(
    cluster: &ValidCluster,
    others: Others,
    had_bytes: Option<u64>,
    wants_bytes: u64,
) -> Result<(), Refusal> {
    let tenants_max = usize::try_from(cluster.tenancy.tenants_max).unwrap_or(usize::MAX);
    if had_bytes.is_none() && others.tenants >= tenants_max {
        let message = format!(
            "the cluster takes {tenants_max} tenants and has as many: its owner can raise spec.tenancy.limits.maxTenants"
        );
        return Err(Refusal::new(TenantReason::TooManyTenants, message));
    }
    let (others_bytes, budget_bytes) = (others.guaranteed_bytes, cluster.budget_bytes());
    let is_more = wants_bytes > had_bytes.unwrap_or_default();
    if is_more && others_bytes.saturating_add(wants_bytes) > budget_bytes {
        let message = format!(
            "quota.guaranteedMemory is {wants_bytes} bytes; of the cluster's {budget_bytes} bytes other tenants are \
             guaranteed {others_bytes}: ask for less, or have the cluster enlarged"
        );
        return Err(Refusal::new(TenantReason::MemoryOvercommitted, message));
    }
    Ok(())
}

fn pick<N: Copy + PartialOrd + std::fmt::Display>(
    field: &str,
    asked: Option<N>,
    default: Option<N>,
    limit: Option<N>,
) -> Result<Option<N>, Refusal> {
    within(field, asked, limit)?;
    let given = asked.or(default).or(limit);
    Ok(match (given, limit) {
        // A default above the limit is the limit.
        (Some(given), Some(limit)) if given > limit => Some(limit),
        _ => given,
    })
}

fn within<N: PartialOrd + std::fmt::Display>(
    field: &str,
    asked: Option<N>,
    limit: Option<N>,
) -> Result<(), Refusal> {
    match (asked, limit) {
        (Some(asked), Some(limit)) if asked > limit => Err(Refusal::new(
            TenantReason::QuotaTooHigh,
            format!(
                "spec.{field} is {asked}, and the cluster's spec.tenancy.limits allow {limit}: ask for less"
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether a selector chooses labels, as Kubernetes means it. An operator that nobody knows chooses nothing.
fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let mut pairs = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    pairs.all(|(key, value)| labels.get(key) == Some(value))
        && expressions.all(|wanted| {
            let value = labels.get(&wanted.key);
            let listed = |value: &String| wanted.values.iter().flatten().any(|one| one == value);
            match wanted.operator.as_str() {
                "In" => value.is_some_and(listed),
                "NotIn" => !value.is_some_and(listed),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
