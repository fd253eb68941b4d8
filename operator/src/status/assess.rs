//! From what is seen to the three conditions. A chain of small checks: the first that objects gives the reason.

use annulus_crds::v1alpha1::Reason;
use annulus_ring::{MemberState, NodeId, SLOT_COUNT, WaitReason};

use super::{Obstacle, serves, slots_lacking_copies};
use crate::plan::{Plan, RingStep};
use crate::validate::{InvalidSpec, ValidCluster, ValidPool};
use crate::view::View;

/// Names listed in a message before the rest is only counted.
const NAMES_MAX: usize = 5;

/// One condition's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the condition holds.
    pub holds: bool,
    /// Why.
    pub reason: Reason,
    /// What is waited for, or what to do.
    pub message: String,
}

impl Verdict {
    fn new(holds: bool, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            holds,
            reason,
            message: message.into(),
        }
    }
}

/// All three conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// Every slot is served and every node that the spec asks for is ready.
    pub ready: Verdict,
    /// The operator is bringing the cluster to the spec.
    pub progressing: Verdict,
    /// Something that the spec asks for does not hold.
    pub degraded: Verdict,
}

/// The conditions of a cluster whose spec breaks rules.
pub(super) fn invalid(invalid: &InvalidSpec) -> Assessment {
    let message = format!("the spec is not usable, and nothing is changed until it is corrected: {invalid}");
    Assessment {
        ready: Verdict::new(false, Reason::InvalidSpec, message.clone()),
        progressing: Verdict::new(false, Reason::InvalidSpec, message.clone()),
        degraded: Verdict::new(true, Reason::InvalidSpec, message),
    }
}

/// The conditions of a cluster that was looked at.
pub fn assess(cluster: &ValidCluster, view: &View, plan: &Plan, obstacle: Option<&Obstacle>) -> Assessment {
    Assessment {
        ready: ready(cluster, view, plan, obstacle),
        progressing: progressing(cluster, view, plan, obstacle),
        degraded: degraded(cluster, view, plan, obstacle),
    }
}

fn ready(cluster: &ValidCluster, view: &View, plan: &Plan, obstacle: Option<&Obstacle>) -> Verdict {
    // What keeps a cluster from starting; one that serves goes on serving.
    if let Some(obstacle) = obstacle.filter(|_| view.document.is_none()) {
        return Verdict::new(false, obstacle.reason(), obstacle.message());
    }
    let objection = no_ring(cluster, view, plan)
        .or_else(|| unreachable(view))
        .or_else(|| not_distributed(view))
        .or_else(|| not_ready(cluster, view));
    if let Some((reason, message)) = objection {
        return Verdict::new(false, reason, message);
    }
    let nodes: u32 = cluster.pools.iter().map(|pool| u32::from(pool.nodes)).sum();
    let message = format!("all slots are served by {}", plural(nodes, "node"));
    Verdict::new(true, Reason::AsSpecified, message)
}

fn progressing(cluster: &ValidCluster, view: &View, plan: &Plan, obstacle: Option<&Obstacle>) -> Verdict {
    if let Some(obstacle) = obstacle {
        return Verdict::new(false, obstacle.reason(), obstacle.message());
    }
    let work = no_ring(cluster, view, plan)
        .or_else(|| moving(plan))
        .or_else(|| not_distributed(view))
        .or_else(|| not_ready(cluster, view))
        .or_else(|| replacing(plan))
        .or_else(|| leaving(plan));
    match work {
        Some((reason, message)) => Verdict::new(true, reason, message),
        None => Verdict::new(false, Reason::AsSpecified, "the cluster is as the spec says"),
    }
}

fn degraded(cluster: &ValidCluster, view: &View, plan: &Plan, obstacle: Option<&Obstacle>) -> Verdict {
    if let Some(
        obstacle
        @ (Obstacle::AuthSecretMissing(_) | Obstacle::TlsSecretMissing(_) | Obstacle::ApplyFailed(_)),
    ) = obstacle
    {
        return Verdict::new(true, obstacle.reason(), obstacle.message());
    }
    if let Some((reason, message)) = unreachable(view) {
        return Verdict::new(true, reason, message);
    }
    if let Some((reason, message)) = copies_missing(cluster, view, plan) {
        return Verdict::new(true, reason, message);
    }
    Verdict::new(
        false,
        Reason::AsSpecified,
        "nothing that the spec asks for is missing",
    )
}

type Objection = Option<(Reason, String)>;

fn no_ring(cluster: &ValidCluster, view: &View, plan: &Plan) -> Objection {
    if view.document.is_some() {
        return None;
    }
    if plan.ring == RingStep::Recovering {
        return Some((
            Reason::RingNotCreated,
            "the ring document is lost; asking the nodes for theirs".to_owned(),
        ));
    }
    let silent: Vec<_> = cluster
        .pools
        .iter()
        .flat_map(ValidPool::node_ids)
        .filter(|id| !view.reports.contains_key(id))
        .collect();
    if silent.is_empty() {
        return Some((
            Reason::RingNotCreated,
            "every node answers, the first ring is being made".to_owned(),
        ));
    }
    Some((
        Reason::WaitingForNodes,
        format!("no ring yet: waiting for {}", describe(view, &silent)),
    ))
}

/// Slots that have fewer copies than asked for, and what stands in the way. The numbers change with the ring alone.
fn copies_missing(cluster: &ValidCluster, view: &View, plan: &Plan) -> Objection {
    let document = view.document.as_ref()?;
    let factor = cluster.replication_factor;
    let lacking = slots_lacking_copies(document, factor);
    if lacking == 0 {
        return None;
    }
    let down: Vec<_> = document
        .members
        .iter()
        .filter(|member| !view.reports.contains_key(&member.id))
        .map(|member| member.id.clone())
        .collect();
    let mut why = copying(plan);
    if !down.is_empty() {
        why.insert(0, format!("no answer from {}", describe(view, &down)));
    }
    if why.is_empty() {
        why.push("they are being made".to_owned());
    }
    let message = format!(
        "{lacking} of {SLOT_COUNT} slots have fewer than {factor} copies: {}",
        sentences(&why)
    );
    Some((Reason::CopiesMissing, message))
}

/// Who is being given copies.
fn copying(plan: &Plan) -> Vec<String> {
    let RingStep::Waiting(reasons) = &plan.ring else {
        return Vec::new();
    };
    let copying = reasons
        .iter()
        .filter(|reason| matches!(reason, WaitReason::Copying { .. }));
    copying.map(ToString::to_string).collect()
}

/// Members that own something and do not answer. Where copies took over from one, nobody misses it here.
fn unreachable(view: &View) -> Objection {
    let document = view.document.as_ref()?;
    let slots = document.ring().owned_counts();
    let silent: Vec<_> = document
        .members
        .iter()
        .filter(|member| slots.contains_key(&member.id) && !view.reports.contains_key(&member.id))
        .map(|member| member.id.clone())
        .collect();
    if silent.is_empty() {
        return None;
    }
    let unserved: u32 = silent.iter().filter_map(|id| slots.get(id)).sum();
    let message = format!(
        "{} slots are not served: no answer from {}",
        unserved,
        describe(view, &silent)
    );
    Some((Reason::NodeUnreachable, message))
}

fn not_distributed(view: &View) -> Objection {
    let document = view.document.as_ref()?;
    let behind = |member: &&annulus_ring::Member| {
        view.reports
            .get(&member.id)
            .is_some_and(|report| report.epoch < document.epoch)
    };
    let ids: Vec<_> = document
        .members
        .iter()
        .filter(behind)
        .map(|member| member.id.clone())
        .collect();
    if ids.is_empty() {
        return None;
    }
    Some((
        Reason::DistributingRing,
        format!("epoch {} has not reached {}", document.epoch, names(&ids)),
    ))
}

fn not_ready(cluster: &ValidCluster, view: &View) -> Objection {
    let document = view.document.as_ref()?;
    let missing: Vec<_> = cluster
        .pools
        .iter()
        .flat_map(ValidPool::node_ids)
        .filter(|id| !serves(view, id))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let joining = |id: &NodeId| {
        document
            .member(id)
            .is_some_and(|member| member.state == MemberState::Joining)
    };
    if missing
        .iter()
        .all(|id| joining(id) && view.reports.contains_key(id))
    {
        return Some((Reason::MovingSlots, format!("being filled: {}", names(&missing))));
    }
    Some((
        Reason::WaitingForNodes,
        format!("waiting for {}", describe(view, &missing)),
    ))
}

fn moving(plan: &Plan) -> Objection {
    match &plan.ring {
        RingStep::Steady => None,
        RingStep::Recovering => Some((
            Reason::DistributingRing,
            "the nodes have a newer ring than the stored one; fetching it".to_owned(),
        )),
        RingStep::Restore(document) => Some((
            Reason::DistributingRing,
            format!("storing the ring of epoch {} again", document.epoch),
        )),
        RingStep::Next { reasons, .. } => Some((Reason::MovingSlots, sentences(reasons))),
        RingStep::Waiting(reasons) => {
            let moves = |reason: &WaitReason| {
                !matches!(reason, WaitReason::NewcomerSilent(_) | WaitReason::Copying { .. })
            };
            let reason = if reasons.iter().any(moves) {
                Reason::MovingSlots
            } else if copying(plan).is_empty() {
                Reason::WaitingForNodes
            } else {
                Reason::CopiesMissing
            };
            Some((
                reason,
                sentences(&reasons.iter().map(steady_words).collect::<Vec<_>>()),
            ))
        }
    }
}

/// The reason in words that stay the same while it does: how many slots of a handoff are left changes a hundred
/// times a second, and each change would be a write.
fn steady_words(reason: &WaitReason) -> String {
    match reason {
        WaitReason::Moving { from, to, .. } => format!("slots are moving from {from} to {to}"),
        other => other.to_string(),
    }
}

fn replacing(plan: &Plan) -> Objection {
    if plan.replace.is_empty() && plan.holds.is_empty() {
        return None;
    }
    let now = plan.replace.iter().map(|replacement| {
        format!(
            "{} is being replaced by one with the new settings",
            replacement.id
        )
    });
    let later = plan.holds.iter().map(ToString::to_string);
    Some((
        Reason::WaitingForNodes,
        sentences(&now.chain(later).collect::<Vec<_>>()),
    ))
}

fn leaving(plan: &Plan) -> Objection {
    let pools = plan.pools.iter().flat_map(|pool| &pool.kept);
    let kept: Vec<_> = pools
        .chain(plan.retired.iter().flat_map(|set| &set.kept))
        .collect();
    if kept.is_empty() {
        None
    } else {
        Some((Reason::MovingSlots, sentences(&kept)))
    }
}

/// Names with the trouble of their pods, where Kubernetes tells one.
fn describe(view: &View, ids: &[NodeId]) -> String {
    let troubles = ids.iter().find_map(|id| {
        let trouble = view.pods.get(id)?.trouble.as_ref()?;
        Some(format!(" ({id}: {trouble})"))
    });
    format!("{}{}", names(ids), troubles.unwrap_or_default())
}

fn names(ids: &[NodeId]) -> String {
    list(ids, ", ")
}

fn sentences<T: ToString>(items: &[T]) -> String {
    list(items, "; ")
}

fn list<T: ToString>(items: &[T], separator: &str) -> String {
    let shown: Vec<_> = items.iter().take(NAMES_MAX).map(ToString::to_string).collect();
    match items.len().saturating_sub(NAMES_MAX) {
        0 => shown.join(separator),
        more => format!("{} and {more} more", shown.join(separator)),
    }
}

fn plural(number: u32, what: &str) -> String {
    if number == 1 {
        format!("1 {what}")
    } else {
        format!("{number} {what}s")
    }
}
