//! What the cluster's status says: from what is seen and what was decided, and nothing that changes by itself,
//! so that a healthy cluster's status stands still.

use std::collections::BTreeSet;

use annulus_crds::v1alpha1::{CacheClusterStatus, ConditionType, MemberStatus, Reason, RingStatus};
use annulus_ring::{MemberState, NodeId, RingDocument, Slot, progress};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::build::pod_selector;
use crate::plan::Plan;
use crate::validate::{InvalidSpec, ValidCluster};
use crate::view::View;

mod assess;

pub use assess::{Assessment, Verdict, assess};

/// Longest condition message. The API server takes 32 kB; people read less.
const MESSAGE_CHARS_MAX: usize = 1_000;

/// What came of a reconcile, to be told.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The spec breaks rules; nothing was touched.
    Invalid(&'a InvalidSpec),
    /// It was looked at, and maybe changed.
    Seen {
        /// What was asked for.
        cluster: &'a ValidCluster,
        /// What was seen.
        view: &'a View,
        /// What was decided.
        plan: &'a Plan,
        /// Why the decision was not carried out.
        obstacle: Option<Obstacle>,
    },
}

/// Why a decision was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// `pause` is true.
    Paused,
    /// The Secret with the password is missing: what to create.
    AuthSecretMissing(String),
    /// The Secret with the user's certificate is missing, or lacks something: what to create.
    TlsSecretMissing(String),
    /// The API server refused an object: its words.
    ApplyFailed(String),
}

impl Obstacle {
    fn reason(&self) -> Reason {
        match self {
            Self::Paused => Reason::Paused,
            Self::AuthSecretMissing(_) => Reason::AuthSecretMissing,
            Self::TlsSecretMissing(_) => Reason::TlsSecretMissing,
            Self::ApplyFailed(_) => Reason::ApplyFailed,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Paused => {
                "pause is true: the operator changes nothing until it is false or removed".to_owned()
            }
            Self::AuthSecretMissing(message)
            | Self::TlsSecretMissing(message)
            | Self::ApplyFailed(message) => message.clone(),
        }
    }
}

/// The status to be told after the outcome. Conditions keep the time of their last transition.
pub fn status(
    previous: &CacheClusterStatus,
    generation: i64,
    outcome: &Outcome<'_>,
    now: &Time,
) -> CacheClusterStatus {
    let (mut status, assessment) = match outcome {
        Outcome::Invalid(invalid) => (previous.clone(), assess::invalid(invalid)),
        Outcome::Seen {
            cluster,
            view,
            plan,
            obstacle,
        } => (
            facts(cluster, view, plan),
            assess(cluster, view, plan, obstacle.as_ref()),
        ),
    };
    status.observed_generation = Some(generation);
    status.conditions = [
        (ConditionType::Ready, assessment.ready),
        (ConditionType::Progressing, assessment.progressing),
        (ConditionType::Degraded, assessment.degraded),
    ]
    .into_iter()
    .map(|(type_, verdict)| {
        let said = (verdict.holds, verdict.reason.as_str(), verdict.message);
        condition(&previous.conditions, type_.as_str(), said, generation, now)
    })
    .collect();
    if let Outcome::Seen { view, .. } = outcome {
        status.tenants = view.tenants.clone().or_else(|| previous.tenants.clone());
    }
    status
}

/// The condition of that type.
pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of that type is True.
pub(crate) fn holds(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

/// The condition that says whether it holds, for which reason, and a message. It keeps the time of its last transition.
pub(crate) fn condition(
    previous: &[Condition],
    type_: &str,
    (holds, reason, message): (bool, &str, String),
    generation: i64,
    now: &Time,
) -> Condition {
    let status = if holds { "True" } else { "False" };
    let before = previous
        .iter()
        .find(|before| before.type_ == type_ && before.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: shorten(message),
        observed_generation: Some(generation),
        last_transition_time: before
            .map_or_else(|| now.clone(), |before| before.last_transition_time.clone()),
    }
}

fn shorten(message: String) -> String {
    if message.chars().count() <= MESSAGE_CHARS_MAX {
        return message;
    }
    let mut short: String = message.chars().take(MESSAGE_CHARS_MAX - 1).collect();
    short.push('…');
    short
}

fn facts(cluster: &ValidCluster, view: &View, plan: &Plan) -> CacheClusterStatus {
    let document = view.document.as_ref();
    let members = members(view);
    let selector = pod_selector(&cluster.key.name)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"));
    let epoch = document.map_or(view.epoch_told, |document| document.epoch.max(view.epoch_told));
    CacheClusterStatus {
        nodes: count(view.pods.len()),
        ready_nodes: count(members.iter().filter(|member| member.ready).count()),
        ring_epoch: i64::try_from(epoch.0).unwrap_or(i64::MAX),
        ring: document.map(|document| RingStatus {
            slots_to_move: i32::try_from(progress(document, &plan.desired).slots_to_move).unwrap_or(i32::MAX),
            slots_lacking_copies: i32::from(slots_lacking_copies(document, cluster.replication_factor)),
        }),
        members,
        selector: selector.collect::<Vec<_>>().join(","),
        endpoint: format!(
            "{}.{}.svc:{}",
            cluster.key.name,
            cluster.key.namespace,
            cluster.tls.first_port()
        ),
        ..CacheClusterStatus::default()
    }
}

/// A row for each pod and each member of the ring, by name.
fn members(view: &View) -> Vec<MemberStatus> {
    let on_ring = view
        .document
        .iter()
        .flat_map(|document| document.members.iter().map(|member| &member.id));
    let names: BTreeSet<&NodeId> = view.pods.keys().chain(on_ring).collect();
    let slots = view
        .document
        .as_ref()
        .map(|document| document.ring().owned_counts())
        .unwrap_or_default();
    let row = |id: &NodeId| {
        let member = view.document.as_ref().and_then(|document| document.member(id));
        let state = member.map_or("pending", |member| match member.state {
            MemberState::Joining => "joining",
            MemberState::Active => "active",
            MemberState::Draining => "draining",
            MemberState::Down => "down",
        });
        MemberStatus {
            name: id.to_string(),
            state: state.to_owned(),
            slots: slots
                .get(id)
                .copied()
                .and_then(|slots| slots.try_into().ok())
                .unwrap_or_default(),
            copies: view
                .document
                .as_ref()
                .and_then(|document| document.replicas.get(id)?.len().try_into().ok())
                .unwrap_or_default(),
            ready: serves(view, id),
            zone: view.zone(id).map(|zone| zone.0),
        }
    };
    names.into_iter().map(row).collect()
}

/// The node is on the ring, answers, and Kubernetes sends clients to it.
fn serves(view: &View, id: &NodeId) -> bool {
    let member = view.document.as_ref().and_then(|document| document.member(id));
    let answers = view.reports.get(id).is_some_and(|report| {
        report.ready && member.is_some_and(|member| member.incarnation == report.incarnation)
    });
    answers && view.pods.get(id).is_some_and(|pod| pod.ready && !pod.terminating)
}

/// How many slots have fewer whole copies than that factor asks for, the owner's included.
fn slots_lacking_copies(document: &RingDocument, factor: u8) -> i16 {
    let copies = |slot: Slot| {
        let listed = document.replicas.values().filter(|slots| slots.contains(slot));
        listed.count() + 1
    };
    let lacking = Slot::all().filter(|&slot| copies(slot) < usize::from(factor));
    lacking.count().try_into().unwrap_or(i16::MAX)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
