//! What a tenant's status says, from what was decided and done.

use annulus_crds::v1alpha1::{
    BindingStatus, CacheTenantStatus, ClusterTenantsStatus, TenantConditionType, TenantReason,
    TenantRefusals, TenantUsageStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::admission::Refusal;
use super::plan::Verdict;
use super::reach::Reach;
use super::validate::binding_name;
use crate::events::EventReason;
use crate::key::{ClusterKey, TenantKey};
use crate::status::{condition, find, holds};

/// What there is to be told.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The cluster can't be used at all. Who is bound already stays as it is.
    Blocked(&'a Refusal),
    /// It was decided and done.
    Done {
        /// The decision.
        verdict: &'a Verdict,
        /// How far nodes are with it.
        reach: Reach,
        /// What the tenant uses, where that is known.
        usage: Option<TenantUsageStatus>,
    },
}

type Said = (bool, TenantReason, String);

/// Whether the tenant's users get in, as far as documents and Secrets go.
pub fn is_bound(verdict: &Verdict) -> bool {
    let keeps = verdict
        .refused
        .as_ref()
        .is_none_or(|refusal| refusal.reason != TenantReason::NamespaceNotAllowed);
    verdict.id.is_some() && verdict.unbound.is_none() && keeps
}

/// The status to be told.
pub fn status(
    previous: &CacheTenantStatus,
    (tenant, cluster): (&TenantKey, &ClusterKey),
    generation: i64,
    outcome: &Outcome<'_>,
    now: &Time,
) -> CacheTenantStatus {
    let (accepted, bound, ready, mut next) = match outcome {
        Outcome::Blocked(refusal) => {
            let said = (false, refusal.reason, refusal.message.clone());
            let next = CacheTenantStatus {
                tenant_id: previous.tenant_id,
                ..CacheTenantStatus::default()
            };
            (said.clone(), said.clone(), said, next)
        }
        Outcome::Done {
            verdict,
            reach,
            usage,
        } => {
            let accepted = accepted(verdict, cluster);
            let bound = bound(verdict, &accepted);
            let ready = ready(previous, reach, &bound);
            let next = CacheTenantStatus {
                binding: is_bound(verdict).then(|| BindingStatus {
                    name: binding_name(&tenant.name),
                }),
                tenant_id: verdict.id.map(|id| id.0),
                usage: usage.clone(),
                ..CacheTenantStatus::default()
            };
            (accepted, bound, ready, next)
        }
    };
    next.observed_generation = Some(generation);
    next.conditions = [
        (TenantConditionType::Accepted, accepted),
        (TenantConditionType::Bound, bound),
        (TenantConditionType::Ready, ready),
    ]
    .into_iter()
    .map(|(type_, (holds, reason, message))| {
        let said = (holds, reason.as_str(), message);
        condition(&previous.conditions, type_.as_str(), said, generation, now)
    })
    .collect();
    next
}

fn accepted(verdict: &Verdict, cluster: &ClusterKey) -> Said {
    match &verdict.refused {
        None => {
            let message = format!("CacheCluster {cluster} takes the tenant as its spec says");
            (true, TenantReason::AsSpecified, message)
        }
        Some(refusal) if is_bound(verdict) => {
            let message = format!("{}; what was agreed before stays in force", refusal.message);
            (false, refusal.reason, message)
        }
        Some(refusal) => (false, refusal.reason, refusal.message.clone()),
    }
}

fn bound(verdict: &Verdict, accepted: &Said) -> Said {
    match &verdict.unbound {
        Some(refusal) => (false, refusal.reason, refusal.message.clone()),
        None if is_bound(verdict) => (
            true,
            TenantReason::AsSpecified,
            "the credentials are in their Secrets".to_owned(),
        ),
        None => accepted.clone(),
    }
}

fn ready(previous: &CacheTenantStatus, reach: &Reach, bound: &Said) -> Said {
    if !bound.0 {
        return bound.clone();
    }
    let works = || {
        let message = "every node lets the tenant in".to_owned();
        (true, TenantReason::AsSpecified, message)
    };
    match reach {
        Reach::Everywhere => works(),
        Reach::Unknown if is_ready(previous) => works(),
        Reach::Unknown => (
            false,
            TenantReason::DistributingTenants,
            "the nodes are being asked".to_owned(),
        ),
        Reach::Behind { late, .. } => (
            false,
            TenantReason::DistributingTenants,
            format!("the tenant has not reached {late}"),
        ),
        Reach::Nowhere => (
            false,
            TenantReason::ClusterNotServing,
            "no node of the cluster answers: see the CacheCluster's own conditions".to_owned(),
        ),
    }
}

/// Whether the status says that the credentials work.
pub fn is_ready(status: &CacheTenantStatus) -> bool {
    holds(&status.conditions, TenantConditionType::Ready.as_str())
}

/// What is worth an event when one status follows another: who is let in, and who is refused something, when that
/// changes.
pub fn event(previous: &CacheTenantStatus, next: &CacheTenantStatus) -> Option<(EventReason, String)> {
    let said = |status: &CacheTenantStatus, type_: TenantConditionType| {
        let found = find(&status.conditions, type_.as_str());
        found.map(|condition| (condition.status == "True", condition.reason.clone()))
    };
    let decides = [TenantConditionType::Accepted, TenantConditionType::Bound];
    let refused = decides
        .into_iter()
        .find(|type_| said(next, *type_).is_some_and(|(holds, _)| !holds));
    if let Some(type_) = refused {
        let condition = find(&next.conditions, type_.as_str())?;
        let note = format!("{}: {}", condition.reason, condition.message);
        return (said(previous, type_) != said(next, type_)).then_some((EventReason::TenantRefused, note));
    }
    let has = |status| decides.map(|type_| said(status, type_).is_some_and(|(holds, _)| holds));
    let binding = next.binding.as_ref()?;
    (has(previous) != has(next)).then(|| {
        let note = format!("the credentials are in Secret {}", binding.name);
        (EventReason::TenantAccepted, note)
    })
}

/// What the cluster's status says of all its tenants.
pub fn summary<'a>(
    verdicts: impl Iterator<Item = (&'a TenantKey, &'a Verdict)>,
    last_id: u32,
) -> ClusterTenantsStatus {
    let mut summary = ClusterTenantsStatus {
        last_id,
        ..ClusterTenantsStatus::default()
    };
    for (key, verdict) in verdicts {
        summary.bound += i32::from(is_bound(verdict));
        let Some(refusal) = verdict.refused.as_ref().or(verdict.unbound.as_ref()) else {
            continue;
        };
        summary.refused += 1;
        let reason = refusal.reason.as_str();
        match summary.refusals.iter_mut().find(|one| one.reason == reason) {
            Some(refusals) => refusals.tenants += 1,
            None => summary.refusals.push(TenantRefusals {
                reason: reason.to_owned(),
                tenants: 1,
                example: key.to_string(),
            }),
        }
    }
    summary.refusals.sort_by(|a, b| a.reason.cmp(&b.reason));
    summary
}
