//! One pass over all tenants and groups of a cluster: observe, plan, store, tell the nodes, write the bindings, admit, tell
//! the tenants and the groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, CacheGroup, CacheTenant, NetworkPolicyMode, TenantReason};
use annulus_proto::tenants::TenantId;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tracing::warn;

use super::admission::Refusal;
use super::bindings::Wanted;
use super::error::TenantsError;
use super::ledger::Ledger;
use super::memory::{Remembered, Tenancy};
use super::plan::{BindingWrite, Seen, SeenTenant, TenantsPlan, Verdict, is_believable, plan};
use super::reach::{behind, versions};
use super::status::is_bound;
use super::tell::Decided;
use super::validate::ValidTenant;
use super::{bindings, endpoint, observe, store, tell};
use crate::apply;
use crate::build::binding::Endpoint;
use crate::build::network_policy;
use crate::build::secret::Password;
use crate::context::Context;
use crate::events::EventReason;
use crate::groups::plan::Reach as OriginReach;
use crate::groups::{origin, tell as groups};
use crate::key::{ClusterKey, TenantKey};
use crate::node_client::Snapshot;
use crate::validate::{ValidCluster, validate};

/// Tenants are looked at this often without a cause: Secrets are not watched.
const RECHECK: Duration = Duration::from_mins(1);
/// Nodes that could not be told, or a Secret that is in the way, are tried again.
const RECHECK_SOON: Duration = Duration::from_secs(1);
/// What is due at once waits for so long, so that passes never follow each other without a break.
const SOONEST: Duration = Duration::from_millis(100);

/// What names a cluster.
struct Objects {
    tenants: Vec<Arc<CacheTenant>>,
    groups: Vec<Arc<CacheGroup>>,
}

/// Looks after all tenants and groups of a cluster. Returns after which time to look again without a cause.
pub async fn pass(shell: &Tenancy, key: &ClusterKey) -> Result<Duration, TenantsError> {
    let objects = Objects {
        tenants: shell.tenants_of(key),
        groups: shell.groups_of(key),
    };
    let remembered = shell.remembered(key);
    let mut remembered = remembered.lock().await;
    let Some((ctx, object)) = shell.cluster(key) else {
        let message =
            format!("there is no CacheCluster {key}, or the operator doesn't look after its namespace");
        let refusal = Refusal::new(TenantReason::ClusterNotFound, message);
        block(shell, &mut remembered, key, &objects, &refusal, |_| true).await?;
        shell.forget(key);
        return Ok(RECHECK);
    };
    let unbound = |tenant: &CacheTenant| {
        tenant
            .status
            .as_ref()
            .is_none_or(|status| status.binding.is_none())
    };
    let cluster = match validate(&object, &ctx.installation) {
        Ok(cluster) if !cluster.pause => cluster,
        Ok(_) => {
            let message =
                format!("CacheCluster {key} is paused: nothing is changed until its spec.pause is false");
            let refusal = Refusal::new(TenantReason::Paused, message);
            block(shell, &mut remembered, key, &objects, &refusal, unbound).await?;
            return Ok(RECHECK);
        }
        Err(invalid) => {
            let message = format!("the spec of CacheCluster {key} is not usable: {invalid}");
            let refusal = Refusal::new(TenantReason::ClusterInvalid, message);
            block(shell, &mut remembered, key, &objects, &refusal, unbound).await?;
            return Ok(RECHECK);
        }
    };
    if remembered.uid.as_ref() != Some(&cluster.uid) {
        *remembered = Remembered {
            uid: Some(cluster.uid.clone()),
            ..Remembered::default()
        };
    }
    let never_had_any = remembered.read_at.is_some() && remembered.stored.is_none();
    if objects.tenants.is_empty() && objects.groups.is_empty() && never_had_any {
        return Ok(RECHECK);
    }
    let outcome = look_after(shell, ctx, &object, &cluster, &objects, &mut remembered).await;
    if let Err(error @ TenantsError::NameTaken { .. }) = &outcome {
        let refusal = Refusal::new(TenantReason::NameTaken, error.to_string());
        block(shell, &mut remembered, key, &objects, &refusal, |_| true).await?;
    }
    outcome
}

async fn look_after(
    shell: &Tenancy,
    ctx: &Context,
    object: &CacheCluster,
    cluster: &ValidCluster,
    Objects {
        tenants: objects,
        groups: group_objects,
    }: &Objects,
    remembered: &mut Remembered,
) -> Result<Duration, TenantsError> {
    let key = &cluster.key;
    let (ledger, is_stored) = store::read(ctx, cluster, remembered).await?;
    let (endpoint, is_complete) = endpoint::look(ctx, cluster, remembered).await?;
    let about = (&ledger, &endpoint);
    let (tenants, found) = observe::tenants(shell, &ctx.client, cluster, objects, about, remembered).await?;
    let stored = &ledger.document.groups;
    let (groups, look_at_secrets) =
        groups::see(ctx, cluster, group_objects, stored, &mut remembered.groups).await;
    let now = Timestamp::now();
    let snapshot = ctx.hub.snapshot(key);
    let told = object.status.as_ref().and_then(|status| status.tenants.as_ref());
    let versions_told: Vec<u64> = versions(&snapshot).collect();
    warn_of_unbelievable(key, &snapshot, ledger.document.version);
    let seen = Seen {
        cluster,
        ledger: &ledger,
        tenants: &tenants,
        groups: &groups,
        reach: OriginReach::Fenced,
        watched: shell.watched.as_ref(),
        versions_told: &versions_told,
        last_id_told: told.map_or(0, |told| told.last_id),
        now_ms: now.as_millisecond().try_into().unwrap_or_default(),
    };
    let draw = || Password::draw(getrandom::fill).map_err(TenantsError::Password);
    let TenantsPlan {
        next,
        mut verdicts,
        groups: group_verdicts,
        writes,
        look_again_ms,
    } = plan(&seen, draw)?;
    let next = next.or_else(|| (!is_stored).then(|| ledger.clone()));
    if let Some(next) = next {
        note_changes(&ledger, &next, remembered);
        store::write(ctx, cluster, next, remembered).await?;
    }
    let current = remembered.stored.as_ref().map(|stored| stored.ledger.clone());
    let current = current.unwrap_or_else(|| ledger.clone());
    // Nodes first: whoever can read a binding gets in with it.
    let snapshot = tell_nodes(ctx, key, &current, snapshot).await;
    let mut all = new_bindings(writes, &tenants, &endpoint);
    let drawn: BTreeSet<_> = all
        .iter()
        .map(|(wanted, _)| wanted.binding.user.clone())
        .collect();
    let spoilt = found.spoilt.into_iter();
    all.extend(spoilt.filter(|(wanted, _)| !drawn.contains(&wanted.binding.user)));
    // A Secret that the tenant had already.
    let replaced: Vec<_> = all
        .iter()
        .map(|(wanted, _)| (wanted.binding.tenant.clone(), wanted.binding.user.clone()))
        .filter(|place| drawn.contains(&place.1) && found.live.contains_key(place))
        .collect();
    let passing = bindings::write(&ctx.client, &ctx.metrics, all, &found.live, remembered).await;
    announce_passwords(ctx, objects, replaced, remembered);
    let must_retry = !passing.is_empty();
    let refused = remembered.refused.iter();
    let refused = refused.map(|((tenant, _), (_, refusal))| (tenant.clone(), refusal.clone()));
    for (tenant, refusal) in passing.into_iter().chain(refused) {
        if let Some(verdict) = verdicts.get_mut(&tenant) {
            verdict.unbound.get_or_insert(refusal);
        }
    }
    // Who is told what must not wait for a policy that the API server refuses.
    let admitted = admit(ctx, cluster, &current, &verdicts).await;
    let let_out = let_out(ctx, cluster, &current).await;
    let told = Decided {
        verdicts: &verdicts,
        ledger: &current,
        snapshot: &snapshot,
    };
    tell::tell_tenants(shell, ctx, key, objects, &told, remembered).await?;
    tell::tell_cluster(shell, ctx, key, &tenants, &verdicts, &current);
    let decided = (&group_verdicts, current.document.version);
    let of_groups = &mut remembered.groups;
    groups::tell_groups(shell, ctx, key, group_objects, decided, &snapshot, of_groups).await?;
    admitted?;
    let_out?;
    remembered.distributed =
        snapshot.reports.is_empty() || behind(&snapshot, current.document.version).is_empty();
    let waits = must_retry || !remembered.distributed || snapshot.connecting;
    let refused = (!remembered.refused.is_empty()).then_some(bindings::TRY_AGAIN);
    let by_time = look_again_ms.map(|at_ms| Duration::from_millis(at_ms.saturating_sub(seen.now_ms).max(10)));
    Ok(by_time
        .into_iter()
        .chain(waits.then_some(RECHECK_SOON))
        .chain(refused)
        .chain((!is_complete).then_some(endpoint::LOOK_AGAIN))
        .chain(look_at_secrets.map(|again| again.max(SOONEST)))
        .fold(RECHECK, Duration::min))
}

/// The bindings with new passwords.
fn new_bindings(
    writes: Vec<BindingWrite>,
    tenants: &[SeenTenant],
    endpoint: &Arc<Endpoint>,
) -> Vec<(Wanted, Password)> {
    let asks: HashMap<&TenantKey, &ValidTenant> = tenants
        .iter()
        .filter_map(|tenant| Some((&tenant.key, tenant.asks.as_ref().ok()?)))
        .collect();
    let new = writes.into_iter().filter_map(|write| {
        let asks = asks.get(&write.tenant)?;
        let wanted = Wanted {
            binding: asks.binding(&write.user, endpoint),
            stamp: asks.stamp(endpoint),
        };
        Some((wanted, write.password))
    });
    new.collect()
}

/// Tells those whose Secrets were there before and hold another password now.
fn announce_passwords(
    ctx: &Context,
    objects: &[Arc<CacheTenant>],
    replaced: Vec<(TenantKey, String)>,
    remembered: &Remembered,
) {
    for place in replaced {
        let object = objects
            .iter()
            .find(|object| TenantKey::from(object.as_ref()) == place.0);
        if let Some(object) = object.filter(|_| remembered.checked.contains_key(&place)) {
            let note = format!("user {} has a new password", place.1);
            ctx.events
                .publish_of(object.as_ref(), EventReason::PasswordReplaced, note);
        }
    }
}

/// Remembers in which version each tenant and each group changed: only those wait for the nodes to have it.
fn note_changes(before: &Ledger, next: &Ledger, remembered: &mut Remembered) {
    let known: BTreeMap<TenantId, _> = before
        .document
        .tenants
        .iter()
        .map(|tenant| (tenant.id, tenant))
        .collect();
    for tenant in &next.document.tenants {
        if known.get(&tenant.id) != Some(&tenant) {
            remembered.changed.insert(tenant.id, next.document.version);
        }
    }
    remembered.groups.note_changes(
        &before.document.groups,
        &next.document.groups,
        next.document.version,
    );
    remembered.changed.retain(|id, _| {
        next.document
            .tenants
            .binary_search_by_key(id, |tenant| tenant.id)
            .is_ok()
    });
}

/// Applies the policy that lets nodes connect to the origins of groups, where there is or was one.
async fn let_out(ctx: &Context, cluster: &ValidCluster, ledger: &Ledger) -> Result<(), TenantsError> {
    let destinations = origin::destinations(&cluster.key, &ledger.document.groups);
    let name = network_policy::groups_name(&cluster.key.name);
    let reference = ObjectRef::new(&name).within(&cluster.key.namespace);
    if ledger.document.groups.is_empty() && ctx.caches.network_policies.get(&reference).is_none() {
        return Ok(());
    }
    apply::network_policy(ctx, cluster, network_policy::for_groups(cluster, &destinations)).await?;
    Ok(())
}

fn warn_of_unbelievable(key: &ClusterKey, snapshot: &Snapshot, stored: u64) {
    for (node, report) in &snapshot.reports {
        let told = report.tenants_version;
        if !is_believable(stored, told) {
            warn!(cluster = %key, %node, stored, told, "a node tells a version of the tenants that can't be: ignored, restart it");
        }
    }
}

async fn tell_nodes(ctx: &Context, key: &ClusterKey, ledger: &Ledger, snapshot: Snapshot) -> Snapshot {
    let behind = behind(&snapshot, ledger.document.version);
    if behind.is_empty() {
        return snapshot;
    }
    ctx.hub.push_tenants(key, behind, &ledger.document).await;
    ctx.hub.snapshot(key)
}

/// Applies the policy that admits the pods of tenants, where there is or was one.
async fn admit(
    ctx: &Context,
    cluster: &ValidCluster,
    ledger: &Ledger,
    verdicts: &BTreeMap<TenantKey, Verdict>,
) -> Result<(), TenantsError> {
    let enforces = cluster.tenancy.network_policy == NetworkPolicyMode::Enforce;
    let with_users = ledger
        .document
        .tenants
        .iter()
        .filter(|tenant| !tenant.users.is_empty());
    let bound = with_users.map(|tenant| TenantKey::new(&tenant.namespace, &tenant.name));
    let bound = bound.filter(|tenant| verdicts.get(tenant).is_none_or(is_bound));
    let namespaces: BTreeSet<String> = bound
        .filter(|_| enforces)
        .map(|tenant| tenant.namespace)
        .filter(|namespace| *namespace != cluster.key.namespace)
        .collect();
    let name = network_policy::tenants_name(&cluster.key.name);
    let reference = ObjectRef::new(&name).within(&cluster.key.namespace);
    if namespaces.is_empty() && ctx.caches.network_policies.get(&reference).is_none() {
        return Ok(());
    }
    apply::network_policy(ctx, cluster, network_policy::for_tenants(cluster, &namespaces)).await?;
    Ok(())
}

/// Tells the chosen tenants, and the groups, that nothing can be done.
async fn block(
    shell: &Tenancy,
    remembered: &mut Remembered,
    key: &ClusterKey,
    objects: &Objects,
    refusal: &Refusal,
    concerns: impl Fn(&CacheTenant) -> bool,
) -> Result<(), TenantsError> {
    let Some(ctx) = shell.scopes.first() else {
        return Ok(());
    };
    let tenants = objects.tenants.iter().filter(|object| concerns(object));
    tell::block(shell, ctx, key, tenants, refusal, remembered).await?;
    groups::block(shell, key, &objects.groups, refusal, &mut remembered.groups).await
}
