//! What a group's status says, from what was decided and done.

use annulus_crds::v1alpha1::{CacheGroupStatus, GroupConditionType, GroupReason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::GroupRefusal;
use super::plan::GroupVerdict;
use crate::events::EventReason;
use crate::key::ClusterKey;
use crate::status::{self, condition, find};
use crate::tenants::reach::Reach;

/// What there is to be told.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The cluster can't be used at all.
    Blocked(&'a GroupRefusal),
    /// It was decided and done.
    Done(&'a GroupVerdict, Reach),
}

type Said = (bool, GroupReason, String);

/// The status to be told.
pub fn status(
    previous: &CacheGroupStatus,
    cluster: &ClusterKey,
    generation: i64,
    outcome: &Outcome<'_>,
    now: &Time,
) -> CacheGroupStatus {
    let refused = |refusal: &GroupRefusal| {
        let said = (false, refusal.reason, refusal.message.clone());
        (said.clone(), said, None)
    };
    let (accepted, ready, tenant) = match outcome {
        Outcome::Blocked(refusal) => refused(refusal),
        Outcome::Done(
            GroupVerdict {
                refused: Some(refusal),
                ..
            },
            _,
        ) => refused(refusal),
        Outcome::Done(verdict, reach) => {
            let message = format!("CacheCluster {cluster} takes the group as its spec says");
            let accepted = (true, GroupReason::AsSpecified, message);
            (accepted, ready(previous, reach), verdict.tenant.clone())
        }
    };
    CacheGroupStatus {
        observed_generation: Some(generation),
        conditions: [
            (GroupConditionType::Accepted, accepted),
            (GroupConditionType::Ready, ready),
        ]
        .into_iter()
        .map(|(type_, (holds, reason, message))| {
            let said = (holds, reason.as_str(), message);
            condition(&previous.conditions, type_.as_str(), said, generation, now)
        })
        .collect(),
        tenant,
    }
}

fn ready(previous: &CacheGroupStatus, reach: &Reach) -> Said {
    let works = || {
        let message = "every node loads the group's keys".to_owned();
        (true, GroupReason::AsSpecified, message)
    };
    match reach {
        Reach::Everywhere => works(),
        Reach::Unknown if holds(previous, GroupConditionType::Ready) => works(),
        Reach::Unknown => (
            false,
            GroupReason::DistributingGroups,
            "the nodes are being asked".to_owned(),
        ),
        Reach::Behind {
            following,
            nodes,
            late,
        } => (
            false,
            GroupReason::DistributingGroups,
            format!("{following} of {nodes} nodes follow the group, it has not reached {late}"),
        ),
        Reach::Nowhere => (
            false,
            GroupReason::ClusterNotServing,
            "no node of the cluster answers: see the CacheCluster's own conditions".to_owned(),
        ),
    }
}

/// Whether a condition is True.
pub fn holds(status: &CacheGroupStatus, type_: GroupConditionType) -> bool {
    status::holds(&status.conditions, type_.as_str())
}

/// Whether the group was told already that it is left out as it is now.
pub fn is_refused(status: &CacheGroupStatus, generation: i64) -> bool {
    let accepted = find(&status.conditions, GroupConditionType::Accepted.as_str());
    status.observed_generation == Some(generation)
        && accepted.is_some_and(|accepted| accepted.status == "False")
}

/// What is worth an event when one status follows another: whether the group is taken, and why not, when that changes.
pub fn event(previous: &CacheGroupStatus, next: &CacheGroupStatus) -> Option<(EventReason, String)> {
    let type_ = GroupConditionType::Accepted.as_str();
    let (before, now) = (find(&previous.conditions, type_), find(&next.conditions, type_)?);
    if before.is_some_and(|before| (&before.status, &before.reason) == (&now.status, &now.reason)) {
        return None;
    }
    Some(if now.status == "True" {
        (EventReason::GroupAccepted, now.message.clone())
    } else {
        (
            EventReason::GroupRefused,
            format!("{}: {}", now.reason, now.message),
        )
    })
}
