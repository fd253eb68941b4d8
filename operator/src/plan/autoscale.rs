//! How many nodes a cluster is to have, where `spec.autoscaling` leaves that to the operator. Pure.
//!
//! The rule is that of Kubernetes' own autoscaler of pods: nodes grow in proportion to how far the memory in use is above its target.
//! Nodes go one at a time, and only if those that stay are well below the target afterwards, so that the two never
//! alternate. Nothing is decided while slots move or copies are missing, nor for the cool-down that begins when that ends.

use std::time::Duration;

use super::{Plan, RingStep};
use crate::validate::{ValidAutoscaling, ValidCluster};
use crate::view::View;

/// A node goes if the others then stay so many percent points below the target.
const MARGIN_PERCENT: u64 = 10;

/// Another number of nodes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resize {
    /// How many nodes there are to be.
    pub nodes: u16,
    /// Why, for the event.
    pub why: String,
}

/// Whether the cluster is at rest: everybody is there and answers, nothing moves, and no copy is missing.
pub fn is_at_rest(view: &View, plan: &Plan) -> bool {
    let members = view.document.iter().flat_map(|document| &document.members);
    plan.ring == RingStep::Steady
        && plan.replace.is_empty()
        && plan.desired.members.len() == members.clone().count()
        && members
            .clone()
            .all(|member| view.reports.get(&member.id).is_some_and(|report| report.ready))
}

/// The number of nodes that the cluster is to have, if that is another one. It has been at rest for that long.
pub fn autoscale(cluster: &ValidCluster, view: &View, rested: Duration) -> Option<Resize> {
    let policy = cluster.autoscaling.as_ref()?;
    let nodes = cluster.pools.first()?.nodes;
    let bounded = |wanted: u16| wanted.clamp(policy.nodes_min, policy.nodes_max);
    if bounded(nodes) != nodes {
        return Some(Resize {
            nodes: bounded(nodes),
            why: format!(
                "autoscaling allows {} to {} nodes",
                policy.nodes_min, policy.nodes_max
            ),
        });
    }
    if rested < policy.cooldown {
        return None;
    }
    let used: u64 = view.reports.values().map(|report| report.used_bytes).sum();
    let budget: u64 = view.reports.values().map(|report| report.budget_bytes).sum();
    let percent = used.saturating_mul(100).checked_div(budget)?;
    let wanted = bounded(wanted(policy, nodes, used, budget)?);
    (wanted != nodes).then(|| Resize {
        nodes: wanted,
        why: format!(
            "{percent} % of the memory of {nodes} nodes is in use, the target is {} %",
            policy.memory_percent
        ),
    })
}

fn wanted(policy: &ValidAutoscaling, nodes: u16, used: u64, budget: u64) -> Option<u16> {
    let target = u64::from(policy.memory_percent);
    let per_node = budget / u64::from(nodes.max(1));
    // What so many nodes may have in use.
    let room = |nodes: u64, percent: u64| u128::from(per_node) * u128::from(nodes) * u128::from(percent);
    let needed = u128::from(used) * 100;
    if needed > room(nodes.into(), target) {
        let all = needed.div_ceil(room(1, target).max(1));
        return Some(u16::try_from(all).unwrap_or(u16::MAX));
    }
    let fewer = nodes.checked_sub(1).filter(|fewer| *fewer > 0)?;
    (needed <= room(fewer.into(), target.saturating_sub(MARGIN_PERCENT))).then_some(fewer)
}
