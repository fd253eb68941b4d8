//! Groups without Kubernetes: the same decisions, with Secrets from the file, and origins anywhere.

use annulus_crds::v1alpha1::CacheGroup;

use super::file::File;
use crate::groups::plan::{GroupVerdict, SeenGroup};
use crate::groups::secrets;
use crate::groups::tell::see_one;
use crate::key::{ClusterKey, GroupKey};

/// The groups of the file that name its cluster, those further up being the older ones; and what there is to be said of the others.
pub(super) fn see(file: &File) -> (Vec<SeenGroup>, Vec<String>) {
    let (mut seen, mut said) = (Vec::new(), Vec::new());
    for (place, group) in file.groups.iter().enumerate() {
        let cluster = ClusterKey::of_group(group);
        if cluster == file.cluster.key {
            seen.push(see_group(file, group, place));
        } else {
            let key = GroupKey::from(group);
            said.push(format!(
                "CacheGroup {key}: there is no CacheCluster {cluster} in the file"
            ));
        }
    }
    (seen, said)
}

fn see_group(file: &File, group: &CacheGroup, place: usize) -> SeenGroup {
    let mut seen = see_one(group);
    seen.created_ms = i64::try_from(place).unwrap_or(i64::MAX);
    if let Ok(asks) = &seen.asks {
        let found = |name: &str| {
            let key = (asks.key.namespace.clone(), name.to_owned());
            file.secrets.get(&key)
        };
        seen.headers = secrets::headers(asks, |name| Ok(found(name)));
    }
    seen
}

/// What there is to be said of a group.
pub(super) fn say(key: &GroupKey, verdict: &GroupVerdict) -> String {
    match (&verdict.refused, &verdict.tenant) {
        (Some(refusal), _) => format!(
            "CacheGroup {key}: {}: {}",
            refusal.reason.as_str(),
            refusal.message
        ),
        (None, Some(tenant)) => {
            format!(
                "CacheGroup {key}: taken, in the keyspace of CacheTenant {}/{tenant}",
                key.namespace
            )
        }
        (None, None) => format!("CacheGroup {key}: taken, in the cluster's own keyspace"),
    }
}
