//! One pass over all tenants and groups of a cluster: observe, plan, store, tell the nodes, write the bindings, admit, tell
//! the tenants and the groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::{
    CacheCluster, CacheGroup, CacheTenant, CacheTenantStatus, NetworkPolicyMode, TenantReason,
};
use annulus_proto::tenants::TenantId;
use annulus_ring::NodeId;
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource};
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use super::admission::Refusal;
use super::bindings::Wanted;
use super::ledger::Ledger;
use super::memory::{Remembered, Tenancy, Told};
use super::plan::{Seen, SeenTenant, TenantsPlan, Verdict, is_believable, plan};
use super::status::{Outcome, Reach, event, is_bound, is_ready, status, summary};
use super::usage::{self, Usage};
use super::validate::ValidTenant;
use super::{bindings, endpoint, observe, store};
use crate::apply::{self, ApplyError};
use crate::build::network_policy;
use crate::build::secret::Password;
use crate::context::Context;
use crate::drift::FIELD_MANAGER;
use crate::events::EventReason;
use crate::groups::plan::Reach as OriginReach;
use crate::groups::{origin, tell as groups};
use crate::key::{ClusterKey, GroupKey, TenantKey};
use crate::node_client::Snapshot;
use crate::validate::{ValidCluster, validate};

/// Statuses that are written at the same time.
const AT_ONCE: usize = 16;
/// How long a cache may lag behind a status that was written.
const STATUS_LAG: Duration = Duration::from_secs(5);
/// Figures of a status change at most so often.
const USAGE_AGAIN: Duration = Duration::from_mins(5);
/// Tenants are looked at this often without a cause: Secrets are not watched.
const RECHECK: Duration = Duration::from_mins(1);
/// Nodes that could not be told, or a Secret that is in the way, are tried again.
const RECHECK_SOON: Duration = Duration::from_secs(1);
/// What is due at once waits for so long, so that passes never follow each other without a break.
const SOONEST: Duration = Duration::from_millis(100);
/// Node names in a message.
const NAMES_MAX: usize = 5;

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    /// A Secret can't be read.
    #[error("can't read Secret {name}: {source}")]
    Read {
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// Somebody else has the name of the document's Secret.
    #[error(
        "Secret {name} exists and isn't this cluster's: delete it, or give the CacheCluster another name"
    )]
    NameTaken {
        /// Its name.
        name: String,
    },
    /// It was changed at the same time: decide again.
    #[error("the stored tenants changed while the next ones were decided")]
    Changed,
    /// The document can't be stored.
    #[error("can't store the tenants in Secret {name}: {source}")]
    Store {
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The operating system gives no randomness for passwords.
    #[error("can't make a password: {0}")]
    Password(getrandom::Error),
    /// The policy that admits tenants can't be applied.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A status can't be written.
    #[error("can't write the status of CacheTenant {tenant}: {source}")]
    Status {
        /// Whose.
        tenant: TenantKey,
        /// Why.
        source: Box<kube::Error>,
    },
    /// A group's status can't be written.
    #[error("can't write the status of CacheGroup {group}: {source}")]
    GroupStatus {
        /// Whose.
        group: GroupKey,
        /// Why.
        source: Box<kube::Error>,
    },
    /// It took too long.
    #[error("not done within {0:?}")]
    Timeout(Duration),
}

impl TenantsError {
    /// Makes an error of one that came from reading a Secret.
    pub fn read(name: &str) -> impl FnOnce(kube::Error) -> Self {
        let name = name.to_owned();
        move |source| Self::Read {
            name,
            source: Box::new(source),
        }
    }

    /// The variant, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::NameTaken { .. } => "name_taken",
            Self::Changed => "changed",
            Self::Store { .. } => "store",
            Self::Password(_) => "password",
            Self::Apply(_) => "apply",
            Self::Status { .. } => "status",
            Self::GroupStatus { .. } => "group_status",
            Self::Timeout(_) => "timeout",
        }
    }
}

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
    let asks: HashMap<&TenantKey, &ValidTenant> = tenants
        .iter()
        .filter_map(|tenant| Some((&tenant.key, tenant.asks.as_ref().ok()?)))
        .collect();
    let new = writes.into_iter().filter_map(|write| {
        let asks = asks.get(&write.tenant)?;
        let wanted = Wanted {
            binding: asks.binding(&write.user, &endpoint),
            stamp: asks.stamp(&endpoint),
        };
        Some((wanted, write.password))
    });
    let mut all: Vec<_> = new.collect();
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
    tell_tenants(
        shell, ctx, key, objects, &verdicts, &snapshot, &current, remembered,
    )
    .await?;
    tell_cluster(shell, ctx, key, &tenants, &verdicts, &current);
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
                .publish_of_tenant(object, EventReason::PasswordReplaced, note);
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

fn versions(snapshot: &Snapshot) -> impl Iterator<Item = u64> + '_ {
    snapshot.reports.values().map(|report| report.tenants_version)
}

fn warn_of_unbelievable(key: &ClusterKey, snapshot: &Snapshot, stored: u64) {
    for (node, report) in &snapshot.reports {
        let told = report.tenants_version;
        if !is_believable(stored, told) {
            warn!(cluster = %key, %node, stored, told, "a node tells a version of the tenants that can't be: ignored, restart it");
        }
    }
}

/// The nodes that don't have that version yet.
pub(crate) fn behind(snapshot: &Snapshot, version: u64) -> Vec<NodeId> {
    let reports = snapshot.reports.iter();
    let behind = reports.filter(|(_, report)| report.tenants_version < version);
    behind.map(|(id, _)| id.clone()).collect()
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

#[expect(clippy::too_many_arguments, reason = "the pass's own parts, each used once")]
async fn tell_tenants(
    shell: &Tenancy,
    ctx: &Context,
    key: &ClusterKey,
    objects: &[Arc<CacheTenant>],
    verdicts: &BTreeMap<TenantKey, Verdict>,
    snapshot: &Snapshot,
    ledger: &Ledger,
    remembered: &mut Remembered,
) -> Result<(), TenantsError> {
    let slowest = versions(snapshot).min();
    let late = behind(snapshot, ledger.document.version);
    let usage = usage::sum(snapshot.reports.values().map(|report| &report.tenants));
    let mut news = Vec::new();
    for object in objects {
        let tenant = TenantKey::from(object.as_ref());
        let Some(verdict) = verdicts.get(&tenant) else {
            continue;
        };
        let previous = previous(object, &tenant, remembered);
        let since = verdict.id.and_then(|id| remembered.changed.get(&id).copied());
        // Of what an earlier leader stored it is not known when it changed.
        let since = since.unwrap_or(if is_ready(&previous) {
            0
        } else {
            ledger.document.version
        });
        let reach = match slowest {
            _ if snapshot.connecting => Reach::Unknown,
            None => Reach::Nowhere,
            Some(slowest) if slowest >= since => Reach::Everywhere,
            Some(_) => Reach::Behind(names(&late)),
        };
        let figures = verdict.id.and_then(|id| usage.get(&id));
        let outcome = Outcome::Done {
            verdict,
            reach,
            usage: usage_to_tell(&previous, figures, remembered.told.get(&tenant)),
        };
        news.extend(change(object, tenant, key, &previous, &outcome));
    }
    let present: BTreeSet<TenantKey> = objects
        .iter()
        .map(|object| TenantKey::from(object.as_ref()))
        .collect();
    remembered.told.retain(|tenant, _| present.contains(tenant));
    remembered
        .checked
        .retain(|(tenant, _), _| present.contains(tenant));
    remembered
        .refused
        .retain(|(tenant, _), _| present.contains(tenant));
    tell(shell, ctx, news, remembered).await
}

/// The figures to be told: those that were told, as long as they are about right or were told just now.
fn usage_to_tell(
    previous: &CacheTenantStatus,
    now: Option<&Usage>,
    told: Option<&Told>,
) -> Option<annulus_crds::v1alpha1::TenantUsageStatus> {
    let now = now.map(usage::figures);
    match (&previous.usage, now) {
        (Some(before), Some(now)) => {
            let is_young = told.is_some_and(|told| told.usage_at.elapsed() < USAGE_AGAIN);
            Some(if is_young || usage::is_still_right(before, &now) {
                before.clone()
            } else {
                now
            })
        }
        (before, now) => now.or_else(|| before.clone()),
    }
}

/// A status that is to be written.
struct News {
    object: Arc<CacheTenant>,
    tenant: TenantKey,
    usage_changed: bool,
    status: CacheTenantStatus,
    event: Option<(EventReason, String)>,
}

fn previous(object: &CacheTenant, tenant: &TenantKey, remembered: &Remembered) -> CacheTenantStatus {
    let written = remembered
        .told
        .get(tenant)
        .filter(|told| told.at.elapsed() < STATUS_LAG);
    written.map_or_else(
        || object.status.clone().unwrap_or_default(),
        |told| told.status.clone(),
    )
}

fn change(
    object: &Arc<CacheTenant>,
    tenant: TenantKey,
    key: &ClusterKey,
    previous: &CacheTenantStatus,
    outcome: &Outcome<'_>,
) -> Option<News> {
    let generation = object.metadata.generation.unwrap_or_default();
    let now = Time(Timestamp::now());
    let status = status(previous, (&tenant, key), generation, outcome, &now);
    (status != *previous).then(|| News {
        object: Arc::clone(object),
        tenant,
        usage_changed: status.usage != previous.usage,
        event: event(previous, &status),
        status,
    })
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
    let mut news = Vec::new();
    for object in objects.tenants.iter().filter(|object| concerns(object)) {
        let tenant = TenantKey::from(object.as_ref());
        let previous = previous(object, &tenant, remembered);
        news.extend(change(object, tenant, key, &previous, &Outcome::Blocked(refusal)));
    }
    tell(shell, ctx, news, remembered).await?;
    groups::block(shell, key, &objects.groups, refusal, &mut remembered.groups).await
}

async fn tell(
    shell: &Tenancy,
    ctx: &Context,
    news: Vec<News>,
    remembered: &mut Remembered,
) -> Result<(), TenantsError> {
    let writable = news
        .into_iter()
        .filter(|news| shell.scope_of(&news.tenant.namespace).is_some());
    let mut answers = futures::stream::iter(writable)
        .map(|news| async move {
            let outcome = write_status(ctx, &news).await;
            (news, outcome)
        })
        .buffer_unordered(AT_ONCE);
    let mut failure = None;
    while let Some((news, outcome)) = answers.next().await {
        match outcome {
            Ok(()) => {
                if let Some((reason, note)) = news.event {
                    ctx.events.publish_of_tenant(&news.object, reason, note);
                }
                let now = Instant::now();
                let before = remembered.told.get(&news.tenant);
                let usage_at = before
                    .filter(|_| !news.usage_changed)
                    .map_or(now, |told| told.usage_at);
                let told = Told {
                    status: news.status,
                    at: now,
                    usage_at,
                };
                remembered.told.insert(news.tenant, told);
            }
            // It is gone, or another one has its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => {
                failure.get_or_insert(TenantsError::Status {
                    tenant: news.tenant,
                    source: Box::new(source),
                });
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn write_status(ctx: &Context, news: &News) -> Result<(), kube::Error> {
    let TenantKey { namespace, name } = &news.tenant;
    let body = json!({
        "apiVersion": CacheTenant::api_version(&()),
        "kind": CacheTenant::kind(&()),
        "metadata": {"name": name, "namespace": namespace, "uid": news.object.metadata.uid},
        "status": news.status,
    });
    let params = PatchParams {
        force: true,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let api: Api<CacheTenant> = Api::namespaced(ctx.client.clone(), namespace);
    ctx.metrics.wrote("CacheTenant", "apply_status");
    api.patch_status(name, &params, &Patch::Apply(&body)).await?;
    Ok(())
}

/// Leaves word for the cluster's own status, which has one writer.
fn tell_cluster(
    shell: &Tenancy,
    ctx: &Context,
    key: &ClusterKey,
    tenants: &[SeenTenant],
    verdicts: &BTreeMap<TenantKey, Verdict>,
    ledger: &Ledger,
) {
    let verdicts: HashMap<_, _> = verdicts.iter().collect();
    let in_order = tenants
        .iter()
        .filter_map(|tenant| verdicts.get(&tenant.key).map(|verdict| (&tenant.key, *verdict)));
    let last_id = ledger.document.next_id.0.saturating_sub(1);
    // Groups alone are no tenants.
    if tenants.is_empty() && last_id == 0 {
        return;
    }
    let mut in_order: Vec<_> = in_order.collect();
    in_order.sort_by_key(|(tenant, _)| *tenant);
    let summary = summary(in_order.into_iter(), last_id);
    ctx.metrics.count_tenants(key, summary.bound, summary.refused);
    if ctx.summaries.set(key, summary) && shell.wake.send(key.clone()).is_err() {
        tracing::debug!(cluster = %key, "nobody reconciles any more");
    }
}

/// Some of their names, for a message.
pub(crate) fn names(nodes: &[NodeId]) -> String {
    let shown: Vec<_> = nodes.iter().take(NAMES_MAX).map(ToString::to_string).collect();
    match nodes.len().saturating_sub(NAMES_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
