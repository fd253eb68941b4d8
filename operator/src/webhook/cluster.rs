//! `CacheCluster`s that change: what the change does to tenants is said, and never refused.
//!
//! A cluster's owner may take away what they gave. Tenants that are in keep their quotas when a limit or the memory shrinks,
//! and `allowedNamespaces` is how an owner locks somebody out; both are what somebody may want, and an owner who could not
//! would have to delete the cluster.

use std::sync::Arc;

use annulus_crds::v1alpha1::{CacheCluster, CacheTenant};

use super::decision::Decision;
use super::tenant::{guaranteed_bytes, is_in};
use crate::key::TenantKey;
use crate::tenants::admission::{Labels, agree, may_bind};
use crate::tenants::validate::validate as validate_tenant;
use crate::validate::{Installation, ValidCluster, validate};

/// How many are called by name.
const NAMED_MAX: usize = 3;

/// What the change means for the tenants that are in. `labels` tells those of a namespace, where they are known.
pub fn check(
    cluster: &CacheCluster,
    before: &CacheCluster,
    tenants: &[Arc<CacheTenant>],
    labels: impl Fn(&str) -> Option<Labels>,
    installation: &Installation,
) -> Decision {
    // What breaks rules is told by the API server's own rules and by the conditions.
    let (Ok(after), Ok(before)) = (validate(cluster, installation), validate(before, installation)) else {
        return Decision::allow();
    };
    let tenants: Vec<&CacheTenant> = tenants
        .iter()
        .map(AsRef::as_ref)
        .filter(|tenant| is_in(tenant))
        .collect();
    let warnings = [
        less_memory(&after, &before, &tenants),
        fewer_tenants(&after, &before, &tenants),
        lower_limits(&after, &before, &tenants),
        locked_out(&after, &before, &tenants, labels),
    ];
    Decision::warn(warnings.into_iter().flatten().collect())
}

fn less_memory(after: &ValidCluster, before: &ValidCluster, tenants: &[&CacheTenant]) -> Option<String> {
    let guaranteed_bytes: u64 = tenants
        .iter()
        .map(|tenant| guaranteed_bytes(&before.tenancy, tenant))
        .sum();
    let budget_bytes = after.budget_bytes();
    let is_worse = budget_bytes < before.budget_bytes() && budget_bytes < guaranteed_bytes;
    is_worse.then(|| {
        format!(
            "the cluster is left with {budget_bytes} bytes, and its tenants are guaranteed {guaranteed_bytes}: they keep \
             their guarantees, which can't all be met; no new one is given"
        )
    })
}

fn fewer_tenants(after: &ValidCluster, before: &ValidCluster, tenants: &[&CacheTenant]) -> Option<String> {
    let (count, max) = (tenants.len(), after.tenancy.tenants_max);
    let is_worse = max < before.tenancy.tenants_max && u32::try_from(count).is_ok_and(|count| count > max);
    is_worse.then(|| {
        format!(
            "spec.tenancy.limits.maxTenants is {max}, and {count} tenants are in: they stay, nobody comes in"
        )
    })
}

fn lower_limits(after: &ValidCluster, before: &ValidCluster, tenants: &[&CacheTenant]) -> Option<String> {
    let asks_too_much = |cluster: &ValidCluster, tenant: &CacheTenant| {
        validate_tenant(tenant).is_ok_and(|asks| agree(&cluster.tenancy, &asks).is_err())
    };
    let above = tenants
        .iter()
        .filter(|tenant| asks_too_much(after, tenant) && !asks_too_much(before, tenant));
    named(above).map(|tenants| {
        format!("above spec.tenancy.limits are now: {tenants}. They keep what they have until they change")
    })
}

fn locked_out(
    after: &ValidCluster,
    before: &ValidCluster,
    tenants: &[&CacheTenant],
    labels: impl Fn(&str) -> Option<Labels>,
) -> Option<String> {
    let gone = tenants.iter().filter(|tenant| {
        let namespace = TenantKey::from(**tenant).namespace;
        let labels = labels(&namespace);
        let may = |cluster: &ValidCluster| {
            may_bind(&cluster.tenancy, &cluster.key, &namespace, labels.as_ref()).is_ok()
        };
        may(before) && !may(after)
    });
    named(gone).map(|tenants| {
        format!("spec.tenancy.allowedNamespaces leaves out: {tenants}. Their access ends at once, their data stays")
    })
}

/// The first few by name.
fn named<'a>(tenants: impl Iterator<Item = &'a &'a CacheTenant>) -> Option<String> {
    let mut names: Vec<String> = tenants
        .map(|tenant| TenantKey::from(*tenant).to_string())
        .collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    let listed = names.join(", ");
    match (names.len(), more) {
        (0, _) => None,
        (_, 0) => Some(listed),
        (_, more) => Some(format!("{listed} and {more} more")),
    }
}
