//! `CacheGroup`s: refused where their own spec breaks a rule, by the reconciler's check.
//!
//! Nothing around them is looked at: a cluster, a tenant or a Secret that is missing may come, an origin may be allowed, and a
//! prefix that is taken may become free. The conditions tell of these.

use annulus_crds::v1alpha1::{CacheGroup, GroupReason};

use super::decision::Decision;
use crate::groups::validate::validate;

/// Whether the group may be stored as it is. `before` is what an update replaces.
pub fn check(group: &CacheGroup, before: Option<&CacheGroup>) -> Decision {
    // A group that was stored while the webhook was away can still be labelled, and deleted.
    let is_same = before.is_some_and(|before| before.spec == group.spec);
    if is_same || group.metadata.deletion_timestamp.is_some() {
        return Decision::allow();
    }
    match validate(group) {
        Ok(_) => Decision::allow(),
        Err(invalid) => Decision::Deny {
            reason: GroupReason::InvalidSpec.as_str(),
            message: invalid.to_string(),
        },
    }
}
