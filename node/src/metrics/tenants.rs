//! What tenants have and do, by tenant: for whoever runs the cluster. Clients never come here.

use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Unit;

use super::Page;
use crate::node::Node;
use crate::tenants::Tenant;

const LABEL: &str = "tenant";

type Value = fn(&Node, &Tenant) -> u64;

/// What is there now.
const GAUGES: [(&str, &str, Option<Unit>, Value); 4] = [
    (
        "annulus_tenant_keys",
        "Entries of a tenant that are no copies",
        None,
        |_, tenant| tenant.space().keys(),
    ),
    (
        "annulus_tenant_memory_used",
        "What they cost",
        Some(Unit::Bytes),
        |node, tenant| node.store.own_bytes_of(tenant.space()),
    ),
    (
        "annulus_tenant_memory_limit",
        "What they may cost on this node; the node's whole budget where the tenant has no quota",
        Some(Unit::Bytes),
        |node, tenant| {
            let limit = tenant.space().limits.memory_bytes(node.store.slots());
            limit.unwrap_or(node.store.budget_bytes())
        },
    ),
    (
        "annulus_tenant_connections",
        "Connections that have logged in as a user of a tenant",
        None,
        |_, tenant| tenant.connections().into(),
    ),
];

/// What happened since the node started.
const COUNTERS: [(&str, &str, Value); 7] = [
    ("annulus_tenant_commands", "Commands of a tenant", |_, tenant| {
        tenant.space().counters.commands.get()
    }),
    (
        "annulus_tenant_hits",
        "Key look-ups of a tenant's reading commands that found the key",
        |_, tenant| tenant.space().counters.hits.get(),
    ),
    (
        "annulus_tenant_misses",
        "Key look-ups of a tenant's reading commands that did not",
        |_, tenant| tenant.space().counters.misses.get(),
    ),
    (
        "annulus_tenant_evictions",
        "Entries of a tenant removed to make room",
        |_, tenant| tenant.space().counters.evictions.get(),
    ),
    (
        "annulus_tenant_expirations",
        "Entries of a tenant removed because their time was over",
        |_, tenant| tenant.space().counters.expirations.get(),
    ),
    (
        "annulus_tenant_throttled",
        "Commands of a tenant that came too fast, and were refused or had to wait",
        |_, tenant| tenant.space().counters.throttled.get(),
    ),
    (
        "annulus_tenant_connections_refused",
        "Connections that a tenant had too many already to log in",
        |_, tenant| tenant.space().counters.connections_refused.get(),
    ),
];

pub(super) fn encode(node: &Node, page: &mut Page<'_, '_>) -> fmt::Result {
    page.gauge(
        "annulus_tenants_version",
        "The version of the tenants document that is followed; 0 for none",
        None,
        node.tenants.version(),
    )?;
    let tenants = node.tenants.all();
    if tenants.is_empty() {
        return Ok(());
    }
    let values = |value: Value| {
        tenants
            .iter()
            .map(move |tenant: &Arc<Tenant>| (tenant.label(), value(node, tenant)))
    };
    for (name, help, unit, value) in GAUGES {
        page.gauges_in(name, help, unit.as_ref(), LABEL, values(value))?;
    }
    for (name, help, value) in COUNTERS {
        page.counters(name, help, LABEL, values(value))?;
    }
    Ok(())
}
