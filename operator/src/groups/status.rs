//! What a group's status says, from what was decided and done.

use annulus_crds::v1alpha1::{CacheGroupStatus, GroupConditionType, GroupReason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::GroupRefusal;
use super::plan::GroupVerdict;
use crate::events::EventReason;
use crate::key::ClusterKey;
use crate::status::condition;

/// How far the nodes are with a group as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Every node that answers follows it.
    Everywhere,
    /// Some don't yet.
    Behind {
        /// How many do.
        following: usize,
        /// Of how many.
        nodes: usize,
        /// Who doesn't.
        late: String,
    },
    /// No node answers.
    Nowhere,
    /// The operator has only just begun to ask.
    Unknown,
}

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
    let mut conditions = status.conditions.iter();
    conditions.any(|condition| condition.type_ == type_.as_str() && condition.status == "True")
}

/// Whether the group was told already that it is left out as it is now.
pub fn is_refused(status: &CacheGroupStatus, generation: i64) -> bool {
    let accepted = GroupConditionType::Accepted.as_str();
    let mut conditions = status.conditions.iter();
    status.observed_generation == Some(generation)
        && conditions.any(|condition| condition.type_ == accepted && condition.status == "False")
}

/// What is worth an event when one status follows another: whether the group is taken, and why not, when that changes.
pub fn event(previous: &CacheGroupStatus, next: &CacheGroupStatus) -> Option<(EventReason, String)> {
    let accepted = |status: &CacheGroupStatus| {
        let type_ = GroupConditionType::Accepted.as_str();
        let mut conditions = status.conditions.iter();
        conditions.find(|condition| condition.type_ == type_).cloned()
    };
    let (before, now) = (accepted(previous), accepted(next)?);
    if before.is_some_and(|before| (&before.status, &before.reason) == (&now.status, &now.reason)) {
        return None;
    }
    Some(if now.status == "True" {
        (EventReason::GroupAccepted, now.message)
    } else {
        (
            EventReason::GroupRefused,
            format!("{}: {}", now.reason, now.message),
        )
    })
}
