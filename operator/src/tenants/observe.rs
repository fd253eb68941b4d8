//! The reads of a pass: `CacheTenant`s and namespaces from caches, the bindings that are due from the API server.

use std::collections::BTreeSet;
use std::sync::Arc;

use annulus_crds::v1alpha1::CacheTenant;
use kube::Client;

use super::admission::may_bind;
use super::bindings::{self, Found, Wanted};
use super::error::TenantsError;
use super::ledger::Ledger;
use super::memory::{Remembered, Tenancy};
use super::plan::SeenTenant;
use super::validate::validate;
use crate::build::binding::Endpoint;
use crate::key::TenantKey;
use crate::validate::ValidCluster;

/// What is seen of each `CacheTenant`, and of the Secrets that were looked at.
pub async fn tenants(
    shell: &Tenancy,
    client: &Client,
    cluster: &ValidCluster,
    objects: &[Arc<CacheTenant>],
    (ledger, endpoint): (&Ledger, &Arc<Endpoint>),
    remembered: &mut Remembered,
) -> Result<(Vec<SeenTenant>, Found), TenantsError> {
    let known: BTreeSet<&str> = ledger
        .document
        .tenants
        .iter()
        .flat_map(|tenant| tenant.users.iter().map(|user| user.name.as_str()))
        .collect();
    let mut seen: Vec<SeenTenant> = objects.iter().map(|object| see(shell, object)).collect();
    let mut wanted = Vec::new();
    for tenant in &seen {
        let allowed = may_bind(
            &cluster.tenancy,
            &cluster.key,
            &tenant.key.namespace,
            tenant.labels.as_ref(),
        );
        let (Ok(asks), Ok(())) = (&tenant.asks, allowed) else {
            continue;
        };
        for user in &asks.users {
            let wants = Wanted {
                binding: asks.binding(user, endpoint),
                stamp: asks.stamp(endpoint),
            };
            let is_unknown = !known.contains(user.name.as_str());
            if (is_unknown || wants.is_due(remembered)) && !wants.was_refused(remembered) {
                wanted.push(wants);
            }
        }
    }
    let mut found = bindings::look(client, wanted, remembered).await?;
    for tenant in &mut seen {
        tenant.bindings = found.seen.remove(&tenant.key).unwrap_or_default();
    }
    Ok((seen, found))
}

fn see(shell: &Tenancy, object: &CacheTenant) -> SeenTenant {
    let key = TenantKey::from(object);
    let created = object.metadata.creation_timestamp.as_ref();
    SeenTenant {
        asks: validate(object),
        created_ms: created.map_or(0, |created| created.0.as_millisecond()),
        labels: shell.labels(&key.namespace),
        told_id: object.status.as_ref().and_then(|status| status.tenant_id),
        bindings: std::collections::BTreeMap::new(),
        key,
    }
}
