//! `CacheTenant`s: refused for the same reasons as the reconciler gives, and labelled.
//!
//! What is counted is what `CacheTenant`s say of themselves. The reconciler knows more (the shares of tenants whose data
//! is retained, what a refused tenant had before) and so may refuse what passes here; never the other way round.

use std::sync::Arc;

use annulus_crds::v1alpha1::{CacheTenant, NamespacesFrom, TenantConditionType, TenantReason};
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::decision::Decision;
use crate::build::CLUSTER_LABEL;
use crate::build::binding::TENANT_LABEL;
use crate::key::{ClusterKey, TenantKey};
use crate::tenants::admission::{Labels, Others, Refusal, agree, fits, may_bind};
use crate::tenants::validate::{ValidTenant, validate};
use crate::validate::{InvalidSpec, ValidCluster, ValidTenancy};

/// Label of a `CacheTenant`: the namespace of its cluster.
pub const CLUSTER_NAMESPACE_LABEL: &str = "annulus.dev/cluster-namespace";

/// What is known around a tenant.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// The cluster that it names, if it is there.
    pub cluster: Option<Result<ValidCluster, InvalidSpec>>,
    /// The labels of the tenant's namespace, where they are known.
    pub labels: Option<Labels>,
    /// Every `CacheTenant` that names the cluster.
    pub tenants: Vec<Arc<CacheTenant>>,
}

/// Whether the tenant may be stored as it is. `before` is what an update replaces.
pub fn check(tenant: &CacheTenant, before: Option<&CacheTenant>, around: &Around) -> Decision {
    // Who is in keeps what it has: labels, finalizers and the annotation for new passwords can always change.
    let is_same = before.is_some_and(|before| before.spec == tenant.spec);
    if is_same || tenant.metadata.deletion_timestamp.is_some() {
        return Decision::allow();
    }
    let deny = |refusal: Refusal| Decision::Deny {
        reason: refusal.reason.as_str(),
        message: refusal.message,
    };
    let asks = match validate(tenant) {
        Ok(asks) => asks,
        Err(invalid) => return deny(Refusal::new(TenantReason::InvalidSpec, invalid.to_string())),
    };
    let warn = |warning: String| Decision::warn(vec![warning]);
    let named = &asks.cluster;
    let cluster = match &around.cluster {
        None => {
            return warn(format!(
                "CacheCluster {named} does not exist (or this operator doesn't look after it): the tenant waits for it"
            ));
        }
        Some(Err(_)) => {
            return warn(format!(
                "CacheCluster {named} has an invalid spec, see its conditions: the tenant waits until it is right"
            ));
        }
        Some(Ok(cluster)) => cluster,
    };
    match judge(&asks, before, cluster, around) {
        Ok(()) => Decision::allow(),
        // It is not known whether the namespace has the label: the reconciler waits, too.
        Err(refusal)
            if refusal.reason == TenantReason::NamespaceNotAllowed
                && cluster.tenancy.allowed_namespaces.from == NamespacesFrom::Selector
                && around.labels.is_none() =>
        {
            warn(refusal.message)
        }
        // The change is about something else, perhaps about shutting somebody out; the reconciler lets it have that.
        Err(refusal)
            if refusal.reason != TenantReason::NamespaceNotAllowed
                && before.is_some_and(|before| is_in(before) && asks_as_much(before, tenant)) =>
        {
            warn(format!(
                "{}; what was agreed before stays in force",
                refusal.message
            ))
        }
        Err(refusal) => deny(refusal),
    }
}

/// Whether both ask the same cluster for the same.
fn asks_as_much(before: &CacheTenant, tenant: &CacheTenant) -> bool {
    let of = |tenant: &CacheTenant| (tenant.spec.quota.clone(), tenant.spec.ttl.clone());
    of(before) == of(tenant) && ClusterKey::of_tenant(before) == ClusterKey::of_tenant(tenant)
}

fn judge(
    asks: &ValidTenant,
    before: Option<&CacheTenant>,
    cluster: &ValidCluster,
    around: &Around,
) -> Result<(), Refusal> {
    may_bind(
        &cluster.tenancy,
        &cluster.key,
        &asks.key.namespace,
        around.labels.as_ref(),
    )?;
    let (quota, _) = agree(&cluster.tenancy, asks)?;
    // What it asked for before may not be allowed any more; it has what it has, and that is for the reconciler to know.
    let had_bytes = before
        .filter(|before| is_in(before))
        .map(|before| asked_bytes(&cluster.tenancy, before).unwrap_or(u64::MAX));
    let others = others(&cluster.tenancy, &around.tenants, &asks.key);
    fits(cluster, others, had_bytes, quota.guaranteed_bytes)
}

/// Whether the cluster has given the tenant a number: it has its place, whatever it asks for now.
pub(super) fn is_in(tenant: &CacheTenant) -> bool {
    tenant
        .status
        .as_ref()
        .is_some_and(|status| status.tenant_id.is_some())
}

/// What a tenant that is in is guaranteed. One whose newest wish was refused counts as nothing, since what it had before is
/// not known here.
pub(super) fn guaranteed_bytes(tenancy: &ValidTenancy, tenant: &CacheTenant) -> u64 {
    let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
    let accepted = TenantConditionType::Accepted.as_str();
    let is_refused = conditions
        .filter(|condition| condition.type_ == accepted)
        .any(|condition| condition.status == "False");
    if is_refused || !is_in(tenant) {
        return 0;
    }
    asked_bytes(tenancy, tenant).unwrap_or_default()
}

fn asked_bytes(tenancy: &ValidTenancy, tenant: &CacheTenant) -> Option<u64> {
    let (quota, _) = agree(tenancy, &validate(tenant).ok()?).ok()?;
    Some(quota.guaranteed_bytes)
}

fn others(tenancy: &ValidTenancy, tenants: &[Arc<CacheTenant>], but: &TenantKey) -> Others {
    let others = || {
        tenants
            .iter()
            .filter(|tenant| is_in(tenant) && TenantKey::from(tenant.as_ref()) != *but)
    };
    Others {
        tenants: others().count(),
        guaranteed_bytes: others().map(|tenant| guaranteed_bytes(tenancy, tenant)).sum(),
    }
}

/// Labels by which tenants are found: their own name, and their cluster. Quotas stay as they were written.
pub fn label(tenant: &CacheTenant) -> Decision {
    let cluster = ClusterKey::of_tenant(tenant);
    let name = tenant.metadata.name.clone().unwrap_or_default();
    let wanted = [
        (TENANT_LABEL, name),
        (CLUSTER_LABEL, cluster.name),
        (CLUSTER_NAMESPACE_LABEL, cluster.namespace),
    ];
    let wanted = wanted
        .into_iter()
        // A name that is still to be generated is not known yet.
        .filter(|(key, value)| !value.is_empty() && tenant.labels().get(*key) != Some(value));
    let mut patch = Vec::new();
    for (key, value) in wanted {
        if patch.is_empty() && tenant.metadata.labels.is_none() {
            patch.push(add(["metadata", "labels"], json!({})));
        }
        patch.push(add(["metadata", "labels", key], Value::String(value)));
    }
    Decision::Allow {
        patch,
        warnings: Vec::new(),
    }
}

/// Puts the value there.
pub(super) fn add<'a>(path: impl IntoIterator<Item = &'a str>, value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: PointerBuf::from_tokens(path),
        value,
    })
}
