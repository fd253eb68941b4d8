//! Why a pass over a cluster's tenants and groups failed.

use std::time::Duration;

use crate::apply::ApplyError;
use crate::key::{GroupKey, TenantKey};

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
