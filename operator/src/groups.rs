//! Read-through groups: from the `CacheGroup`s that name a cluster to what its tenants document says of them.
//!
//! A part of the tenants' pass, since both are in one document: [`validate`] and [`origin`] check, [`secrets`] reads the values
//! of [`headers`] in [`turns`], [`plan`] decides, [`status`] and [`tell`] say what became of it. All but `secrets` and `tell` are pure.
//!
//! Invariants: a group that can't be taken is left out and says why, and holds up no other. Nodes connect for a tenant only to
//! where the tenant's own pods can be, or to where the cluster's owner allows.

pub mod headers;
pub mod origin;
pub mod plan;
pub mod secrets;
pub mod status;
pub mod tell;
pub mod turns;
pub mod validate;

use annulus_crds::v1alpha1::GroupReason;

/// Why a group is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRefusal {
    /// In a word.
    pub reason: GroupReason,
    /// And what to do about it.
    pub message: String,
}

impl GroupRefusal {
    /// A refusal for that reason.
    pub fn new(reason: GroupReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}
