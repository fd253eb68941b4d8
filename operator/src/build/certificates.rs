//! The Secrets with certificates that the cluster's own authority signs.
//!
//! | Secret | who mounts it |
//! | --- | --- |
//! | `<cluster>-ca` | nobody: it has the authority's key |
//! | `<cluster>-tls` | the cluster's pods: what they show clients; clients take its `ca.crt` |
//! | `<cluster>-client-tls` | clients, where they must show a certificate |
//! | `<cluster>-peers` | the cluster's pods: two files for each of them |

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::metadata;
use super::service::nodes_name;
use crate::pki::Files;
use crate::validate::ValidCluster;

/// The Secret with the authority.
pub fn authority_name(cluster: &ValidCluster) -> String {
    format!("{}-ca", cluster.key.name)
}

/// The Secret with what nodes show clients.
pub fn server_name(cluster: &ValidCluster) -> String {
    format!("{}-tls", cluster.key.name)
}

/// The Secret with what nodes show each other.
pub fn peers_name(cluster: &ValidCluster) -> String {
    format!("{}-peers", cluster.key.name)
}

/// Authority, server, client and peers.
pub fn names(cluster: &ValidCluster) -> [String; 4] {
    [
        authority_name(cluster),
        server_name(cluster),
        format!("{}-client-tls", cluster.key.name),
        peers_name(cluster),
    ]
}

/// What clients may call a node of the cluster. Its IP is not among them: it is drawn when a pod starts.
pub fn hosts(cluster: &ValidCluster) -> Vec<String> {
    let (name, namespace) = (&cluster.key.name, &cluster.key.namespace);
    let nodes = nodes_name(cluster);
    vec![
        name.clone(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
        format!("*.{nodes}.{namespace}.svc"),
        format!("*.{nodes}.{namespace}.svc.cluster.local"),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ]
}

/// The Secret of that name.
pub fn secret(cluster: &ValidCluster, name: String, content: &Files) -> Secret {
    Secret {
        metadata: metadata(cluster, name),
        type_: Some("Opaque".to_owned()),
        data: Some(
            content
                .iter()
                .map(|(key, value)| (key.clone(), ByteString(value.clone())))
                .collect(),
        ),
        ..Secret::default()
    }
}
