//! The Secrets with certificates that the cluster's own authority signs.
//!
//! | Secret | who mounts it |
//! | --- | --- |
//! | `<cluster>-ca` | nobody: it has the authority's key |
//! | `<cluster>-tls` | the cluster's pods: what they show clients; clients take its `ca.crt` |
//! | `<cluster>-client-tls` | clients, where they must show a certificate |
//! | `<cluster>-peers` | the cluster's pods: two files for each of them |

use std::collections::BTreeSet;
use std::net::IpAddr;

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

/// The Secret with what clients show nodes.
pub fn client_name(cluster: &ValidCluster) -> String {
    format!("{}-client-tls", cluster.key.name)
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
        client_name(cluster),
        peers_name(cluster),
    ]
}

/// What clients may call a node of the cluster: its Services' names, and their addresses as far as they are known. Pods'
/// IPs are not among them: they are drawn when a pod starts.
pub fn hosts(cluster: &ValidCluster, addresses: &BTreeSet<IpAddr>) -> Vec<String> {
    let (name, namespace) = (&cluster.key.name, &cluster.key.namespace);
    let nodes = nodes_name(cluster);
    let names = [
        name.clone(),
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
        format!("*.{nodes}.{namespace}.svc"),
        format!("*.{nodes}.{namespace}.svc.cluster.local"),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    let addresses = addresses.iter().map(ToString::to_string);
    names.into_iter().chain(addresses).collect()
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
