//! The file that the local mode runs: one `CacheCluster`, and any number of `CacheTenant`s, `CacheGroup`s, `Namespace`s and
//! `Secret`s.

use std::collections::BTreeMap;

use annulus_crds::v1alpha1::{CacheCluster, CacheGroup, CacheTenant};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use crate::tenants::admission::Labels;
use crate::validate::{Installation, ValidCluster, validate};

/// Where objects are that name no namespace.
const NAMESPACE: &str = "default";

/// What the file says.
#[derive(Debug)]
pub(super) struct File {
    pub(super) cluster: ValidCluster,
    pub(super) tenants: Vec<CacheTenant>,
    /// In the order of the file.
    pub(super) groups: Vec<CacheGroup>,
    /// What Secrets hold, by namespace and name.
    pub(super) secrets: BTreeMap<(String, String), BTreeMap<String, ByteString>>,
    /// Labels of the namespaces that are written; others have none.
    pub(super) namespaces: BTreeMap<String, Labels>,
}

/// Reads the YAML documents of a file.
pub(super) fn parse(text: &str) -> Result<File, String> {
    let (mut cluster, mut tenants, mut groups) = (None, Vec::new(), Vec::new());
    let mut secrets = BTreeMap::new();
    let mut namespaces = BTreeMap::<String, Labels>::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| format!("no YAML: {error}"))?;
        match value.get("kind").and_then(Value::as_str) {
            None if value.is_null() => {}
            Some("CacheCluster") if cluster.is_none() => cluster = Some(read::<CacheCluster>(value)?),
            Some("CacheCluster") => return Err("more than one CacheCluster: leave one".to_owned()),
            Some("CacheTenant") => {
                let mut tenant = read::<CacheTenant>(value)?;
                place(&mut tenant.metadata);
                tenants.push(tenant);
            }
            Some("CacheGroup") => {
                let mut group = read::<CacheGroup>(value)?;
                place(&mut group.metadata);
                groups.push(group);
            }
            Some("Secret") => {
                let mut secret = read::<Secret>(value)?;
                let key = place(&mut secret.metadata);
                let mut data = secret.data.unwrap_or_default();
                let texts = secret.string_data.unwrap_or_default().into_iter();
                data.extend(texts.map(|(key, text)| (key, ByteString(text.into_bytes()))));
                secrets.insert(key, data);
            }
            Some("Namespace") => {
                let metadata = read::<Namespace>(value)?.metadata;
                let labels = metadata.labels.unwrap_or_default();
                namespaces.insert(metadata.name.unwrap_or_default(), labels);
            }
            kind => {
                return Err(format!(
                    "{} is not for the local mode: write a CacheCluster, CacheTenants, CacheGroups, Namespaces and Secrets",
                    kind.unwrap_or("a document without a kind")
                ));
            }
        }
    }
    let mut cluster = cluster.ok_or("no CacheCluster in it")?;
    let name = cluster.metadata.name.clone().unwrap_or_default();
    cluster
        .metadata
        .namespace
        .get_or_insert_with(|| NAMESPACE.to_owned());
    cluster.metadata.uid = Some(format!("local-{name}"));
    let installation = Installation {
        node_image: Some("local".to_owned()),
        namespace: None,
    };
    let cluster = validate(&cluster, &installation).map_err(|invalid| invalid.to_string())?;
    Ok(File {
        cluster,
        tenants,
        groups,
        secrets,
        namespaces,
    })
}

fn read<K: DeserializeOwned>(value: Value) -> Result<K, String> {
    let kind = value
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    serde_yaml::from_value(value).map_err(|error| format!("no {kind}: {error}"))
}

/// Says where and which one an object is that may not say so itself. Returns its namespace and name.
fn place(metadata: &mut ObjectMeta) -> (String, String) {
    let namespace = metadata
        .namespace
        .get_or_insert_with(|| NAMESPACE.to_owned())
        .clone();
    let name = metadata.name.clone().unwrap_or_default();
    metadata.uid = Some(format!("local-{namespace}-{name}"));
    (namespace, name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{ClusterKey, TenantKey};

    const FILE: &str = "
kind: CacheCluster
metadata: {name: demo, namespace: platform}
spec: {nodes: 1}
---
kind: Namespace
metadata: {name: blog, labels: {team: a}}
---
kind: CacheTenant
metadata: {name: cache, namespace: blog}
spec: {clusterRef: {name: demo, namespace: platform}}
---
";

    #[test]
    fn documents_are_told_apart_by_their_kind() {
        let file = parse(FILE).unwrap();
        assert_eq!(file.cluster.key, ClusterKey::new("platform", "demo"));
        assert_eq!(file.namespaces["blog"]["team"], "a");
        let tenant = &file.tenants[0];
        assert_eq!(TenantKey::from(tenant), TenantKey::new("blog", "cache"));
        assert_eq!(ClusterKey::of_tenant(tenant), file.cluster.key);
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        for (text, expected) in [
            ("", "no CacheCluster in it"),
            ("kind: Pod", "Pod is not for the local mode"),
            ("a: 1", "a document without a kind"),
            (
                "kind: CacheCluster\nmetadata: {name: a}\nspec: {nodes: 0}",
                "must be 1 to 200",
            ),
            (
                "kind: CacheTenant\nmetadata: {name: a}\nspec: {}",
                "no CacheTenant",
            ),
            (
                "kind: CacheCluster\nmetadata: {name: a}\nspec: {nodes: 1}\n---\nkind: CacheCluster\nmetadata: {name: b}\nspec: {nodes: 1}",
                "more than one",
            ),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text:?}: {problem}");
        }
    }
}
