//! The end of a pass for its tenants: what each is told, and what the cluster is told of them all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheTenant, CacheTenantStatus, TenantUsageStatus};
use tokio::time::Instant;

use super::admission::Refusal;
use super::error::TenantsError;
use super::ledger::Ledger;
use super::memory::{Remembered, Tenancy};
use super::plan::{SeenTenant, Verdict};
use super::reach::Reach;
use super::status::{Outcome, event, is_ready, status, summary};
use super::usage::{self, Usage};
use crate::context::Context;
use crate::events::EventReason;
use crate::key::{ClusterKey, TenantKey};
use crate::node_client::Snapshot;
use crate::tell::{News, Told};

/// Figures of a status change at most so often.
const USAGE_AGAIN: Duration = Duration::from_mins(5);

impl Told for CacheTenant {
    const KIND: &'static str = "CacheTenant";
    type Key = TenantKey;
    type Status = CacheTenantStatus;

    fn status(&self) -> Option<&CacheTenantStatus> {
        self.status.as_ref()
    }

    fn event(previous: &CacheTenantStatus, next: &CacheTenantStatus) -> Option<(EventReason, String)> {
        event(previous, next)
    }
}

/// What was decided, and is with the nodes or on its way there.
pub struct Decided<'a> {
    /// What is said to each tenant.
    pub verdicts: &'a BTreeMap<TenantKey, Verdict>,
    /// What is stored.
    pub ledger: &'a Ledger,
    /// How far the nodes are with it.
    pub snapshot: &'a Snapshot,
}

/// Tells each tenant what was decided, and how far the nodes are with it.
pub async fn tell_tenants(
    shell: &Tenancy,
    ctx: &Context,
    key: &ClusterKey,
    objects: &[Arc<CacheTenant>],
    decided: &Decided<'_>,
    remembered: &mut Remembered,
) -> Result<(), TenantsError> {
    let snapshot = decided.snapshot;
    let usage = usage::sum(snapshot.reports.values().map(|report| &report.tenants));
    let mut news = Vec::new();
    for object in objects {
        let tenant = TenantKey::from(object.as_ref());
        let Some(verdict) = decided.verdicts.get(&tenant) else {
            continue;
        };
        let previous = remembered.told.previous(object);
        let changed = verdict.id.and_then(|id| remembered.changed.get(&id).copied());
        let version = decided.ledger.document.version;
        let figures = verdict.id.and_then(|id| usage.get(&id));
        let outcome = Outcome::Done {
            verdict,
            reach: Reach::of(snapshot, version, changed, is_ready(&previous)),
            usage: usage_to_tell(&previous, figures, remembered.usage_told_at.get(&tenant)),
        };
        news.extend(change(object, key, previous, &outcome));
    }
    let present: BTreeSet<TenantKey> = objects
        .iter()
        .map(|object| TenantKey::from(object.as_ref()))
        .collect();
    remembered.told.retain(&present);
    remembered
        .usage_told_at
        .retain(|tenant, _| present.contains(tenant));
    remembered
        .checked
        .retain(|(tenant, _), _| present.contains(tenant));
    remembered
        .refused
        .retain(|(tenant, _), _| present.contains(tenant));
    tell(shell, ctx, news, remembered).await
}

/// Tells the chosen tenants that nothing can be done.
pub async fn block(
    shell: &Tenancy,
    ctx: &Context,
    key: &ClusterKey,
    objects: impl Iterator<Item = &Arc<CacheTenant>>,
    refusal: &Refusal,
    remembered: &mut Remembered,
) -> Result<(), TenantsError> {
    let news = objects.filter_map(|object| {
        let previous = remembered.told.previous(object);
        change(object, key, previous, &Outcome::Blocked(refusal))
    });
    tell(shell, ctx, news.collect(), remembered).await
}

/// Leaves word for the cluster's own status, which has one writer.
pub fn tell_cluster(
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

/// The figures to be told: those that were told, as long as they are about right or were told just now.
fn usage_to_tell(
    previous: &CacheTenantStatus,
    now: Option<&Usage>,
    told_at: Option<&Instant>,
) -> Option<TenantUsageStatus> {
    let now = now.map(usage::figures);
    match (&previous.usage, now) {
        (Some(before), Some(now)) => {
            let is_young = told_at.is_some_and(|at| at.elapsed() < USAGE_AGAIN);
            Some(if is_young || usage::is_still_right(before, &now) {
                before.clone()
            } else {
                now
            })
        }
        (before, now) => now.or_else(|| before.clone()),
    }
}

fn change(
    object: &Arc<CacheTenant>,
    key: &ClusterKey,
    previous: CacheTenantStatus,
    outcome: &Outcome<'_>,
) -> Option<News<CacheTenant>> {
    let tenant = TenantKey::from(object.as_ref());
    News::of(object, previous, |previous, generation, now| {
        status(previous, (&tenant, key), generation, outcome, now)
    })
}

async fn tell(
    shell: &Tenancy,
    ctx: &Context,
    news: Vec<News<CacheTenant>>,
    remembered: &mut Remembered,
) -> Result<(), TenantsError> {
    let telling = remembered.told.tell(shell, ctx, news).await;
    for news in telling.written {
        let (now, key) = (Instant::now(), news.key());
        if news.status.usage == news.previous.usage {
            remembered.usage_told_at.entry(key).or_insert(now);
        } else {
            remembered.usage_told_at.insert(key, now);
        }
    }
    match telling.failure {
        None => Ok(()),
        Some((tenant, source)) => Err(TenantsError::Status { tenant, source }),
    }
}
