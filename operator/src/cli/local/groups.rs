//! Groups without Kubernetes: the same decisions, with Secrets from the file, and origins anywhere.

use annulus_crds::v1alpha1::CacheGroup;

use super::file::File;
use crate::groups::headers::{Answer, headers};
use crate::groups::plan::{GroupVerdict, SeenGroup};
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
        seen.headers = headers(asks, |name| Answer::Told(found(name)));
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

#[cfg(test)]
mod tests {
    use super::super::file::parse;
    use super::super::tenants::Tenants;

    const CLUSTER: &str = "
kind: CacheCluster
metadata: {name: demo}
spec: {nodes: 1, auth: {disabled: true}}
";
    const GROUPS: &str = "
---
kind: CacheGroup
metadata: {name: users}
spec:
  clusterRef: {name: demo}
  keyPrefix: 'user:'
  origin:
    http:
      urlTemplate: http://127.0.0.1:8000/{key}
      headersFrom: [{name: authorization, secretKeyRef: {name: api, key: token}}]
  ttl: {hard: 1m}
---
kind: CacheGroup
metadata: {name: younger}
spec: {clusterRef: {name: demo}, keyPrefix: 'user:1', origin: {http: {urlTemplate: 'http://localhost/{key}'}}, ttl: {hard: 1m}}
---
kind: CacheGroup
metadata: {name: elsewhere}
spec: {clusterRef: {name: other}, keyPrefix: x, origin: {http: {urlTemplate: 'http://localhost/{key}'}}, ttl: {hard: 1m}}
";
    const SECRET: &str = "
---
kind: Secret
metadata: {name: api}
stringData: {token: Bearer x}
";

    #[test]
    fn groups_follow_the_file_and_need_no_folder() {
        let file = parse(&format!("{CLUSTER}{GROUPS}{SECRET}")).unwrap();
        let mut tenants = Tenants::in_memory(&file.cluster.uid);
        let said = tenants.step(&file, &[]).unwrap().join("\n");
        for expected in [
            "CacheGroup default/users: taken, in the cluster's own keyspace",
            "CacheGroup default/younger: PrefixTaken",
            "CacheGroup default/elsewhere: there is no CacheCluster default/other in the file",
        ] {
            assert!(said.contains(expected), "{said}");
        }
        assert!(!said.contains("Bearer"));
        let document = tenants.document().clone();
        let [group] = document.groups.as_slice() else {
            panic!("{:?}", document.groups)
        };
        assert!(group.origin.may_be_local);
        assert_eq!(
            group.origin.headers,
            [("authorization".to_owned(), "Bearer x".to_owned())]
        );

        // What changes in the file is a new version; what is missing from it leaves its group out.
        tenants.look_soon();
        tenants.step(&file, &[]).unwrap();
        assert_eq!(tenants.document().version, document.version);
        let without = parse(&format!("{CLUSTER}{GROUPS}")).unwrap();
        tenants.look_soon();
        let said = tenants.step(&without, &[]).unwrap().join("\n");
        assert!(
            said.contains("SecretMissing: there is no Secret default/api"),
            "{said}"
        );
        assert_eq!(tenants.document().version, document.version + 1);
        let names: Vec<_> = tenants
            .document()
            .groups
            .iter()
            .map(|group| &group.name)
            .collect();
        assert_eq!(names, ["younger"]);
    }

    #[test]
    fn tenants_need_a_folder() {
        let tenant = "\n---\nkind: CacheTenant\nmetadata: {name: cache}\nspec: {clusterRef: {name: demo}}\n";
        let file = parse(&format!("{CLUSTER}{tenant}")).unwrap();
        let mut tenants = Tenants::in_memory(&file.cluster.uid);
        let said = tenants.step(&file, &[]).unwrap().join("\n");
        assert!(said.contains("--state-dir"), "{said}");
        assert_eq!(tenants.document().tenants, []);
    }
}
