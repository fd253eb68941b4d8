//! Kubernetes Events, with static reasons.

use annulus_crds::v1alpha1::CacheCluster;
use annulus_ring::{ChangeReason, RingDocument};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tracing::warn;

use crate::metrics::Metrics;

/// The API server refuses longer notes.
const NOTE_BYTES_MAX: usize = 1_000;

/// Every reason that an event of the operator may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventReason {
    /// The first ring exists.
    RingCreated,
    /// The stored ring document was lost or spoilt, and put back.
    RingRestored,
    /// A node is being given its share.
    NodeJoined,
    /// A node is handing over its slots.
    NodeDraining,
    /// A node left the ring.
    NodeLeft,
    /// A node restarted, and its slots are empty now.
    SlotsLost,
    /// Copies took the place of a node that died.
    FailedOver,
    /// A node is taken for dead.
    NodeFailed,
    /// A pod is replaced by one with newer settings.
    PodReplaced,
    /// The number of nodes was changed by `spec.autoscaling`.
    Autoscaled,
    /// The spec breaks a rule.
    InvalidSpec,
    /// A tenant got in.
    TenantAccepted,
    /// Something that a tenant asks for is refused.
    TenantRefused,
    /// A user of a tenant has a new password.
    PasswordReplaced,
    /// A group is followed from now on.
    GroupAccepted,
    /// A group is left out.
    GroupRefused,
}

impl EventReason {
    /// The text in the event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RingCreated => "RingCreated",
            Self::RingRestored => "RingRestored",
            Self::NodeJoined => "NodeJoined",
            Self::NodeDraining => "NodeDraining",
            Self::NodeLeft => "NodeLeft",
            Self::SlotsLost => "SlotsLost",
            Self::FailedOver => "FailedOver",
            Self::NodeFailed => "NodeFailed",
            Self::PodReplaced => "PodReplaced",
            Self::Autoscaled => "Autoscaled",
            Self::InvalidSpec => "InvalidSpec",
            Self::TenantAccepted => "TenantAccepted",
            Self::TenantRefused => "TenantRefused",
            Self::PasswordReplaced => "PasswordReplaced",
            Self::GroupAccepted => "GroupAccepted",
            Self::GroupRefused => "GroupRefused",
        }
    }

    fn type_(self) -> EventType {
        match self {
            Self::SlotsLost
            | Self::FailedOver
            | Self::NodeFailed
            | Self::InvalidSpec
            | Self::TenantRefused
            | Self::GroupRefused
            | Self::RingRestored => EventType::Warning,
            _ => EventType::Normal,
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::PodReplaced => "Replace",
            Self::Autoscaled => "Scale",
            Self::InvalidSpec => "Validate",
            Self::TenantAccepted | Self::TenantRefused => "Bind",
            Self::GroupAccepted | Self::GroupRefused => "Admit",
            Self::PasswordReplaced => "Rotate",
            _ => "AdvanceRing",
        }
    }
}

/// Publishes events.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    metrics: Metrics,
}

impl Events {
    /// Events reported by that replica of the operator.
    pub fn new(client: Client, identity: String, metrics: Metrics) -> Self {
        let reporter = Reporter {
            controller: "annulus-operator".to_owned(),
            instance: Some(identity),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            metrics,
        }
    }

    /// Publishes one event, beside whatever goes on. `about` is the pod that it is about, if any. An event that
    /// can't be published is logged and forgotten: events tell, they decide nothing.
    pub fn publish(&self, cluster: &CacheCluster, reason: EventReason, about: Option<&str>, note: String) {
        let secondary = about.map(|pod| ObjectReference {
            kind: Some("Pod".to_owned()),
            api_version: Some("v1".to_owned()),
            namespace: cluster.metadata.namespace.clone(),
            name: Some(pod.to_owned()),
            ..ObjectReference::default()
        });
        self.send(cluster.object_ref(&()), reason, secondary, note);
    }

    /// The same of a tenant or a group, in its own namespace.
    pub fn publish_of(&self, object: &impl Resource<DynamicType = ()>, reason: EventReason, note: String) {
        self.send(object.object_ref(&()), reason, None, note);
    }

    fn send(
        &self,
        object: ObjectReference,
        reason: EventReason,
        secondary: Option<ObjectReference>,
        note: String,
    ) {
        let event = Event {
            type_: reason.type_(),
            reason: reason.as_str().to_owned(),
            note: Some(shorten(note)),
            action: reason.action().to_owned(),
            secondary,
        };
        self.metrics.wrote("Event", "create");
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            if let Err(error) = recorder.publish(&event, &object).await {
                warn!(%error, reason = reason.as_str(), "can't publish an event");
            }
        });
    }

    /// Publishes what is new in a ring document.
    pub fn ring_changed(&self, cluster: &CacheCluster, document: &RingDocument, reasons: &[ChangeReason]) {
        for change in reasons {
            let (reason, about) = match change {
                ChangeReason::FirstRing { .. } => (EventReason::RingCreated, None),
                ChangeReason::Restarted { id, slots_emptied } if *slots_emptied > 0 => {
                    (EventReason::SlotsLost, Some(id))
                }
                ChangeReason::Promoted { to, .. } => (EventReason::FailedOver, Some(to)),
                ChangeReason::Failed { id, .. } => (EventReason::NodeFailed, Some(id)),
                ChangeReason::Joining(id) => (EventReason::NodeJoined, Some(id)),
                ChangeReason::Draining { id, .. } => (EventReason::NodeDraining, Some(id)),
                ChangeReason::Removed(id) => (EventReason::NodeLeft, Some(id)),
                _ => continue,
            };
            let note = format!("epoch {}: {change}", document.epoch);
            self.publish(cluster, reason, about.map(annulus_ring::NodeId::as_str), note);
        }
    }
}

fn shorten(mut note: String) -> String {
    if note.len() > NOTE_BYTES_MAX {
        let cut = (0..=NOTE_BYTES_MAX)
            .rev()
            .find(|at| note.is_char_boundary(*at))
            .unwrap_or_default();
        note.truncate(cut);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters_below_one_kilobyte() {
        let note = shorten("ü".repeat(2_000));
        assert!(note.len() <= 1_024 && note.ends_with('…'));
        assert_eq!(shorten("short".to_owned()), "short");
    }
}
