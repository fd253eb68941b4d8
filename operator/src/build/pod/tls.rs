//! What a pod needs for TLS: Secrets, mounted as a whole so that they change while it runs, and where to find what.

use annulus_crds::v1alpha1::{ClientAuth, defaults};
use k8s_openapi::api::core::v1::{EnvVar, SecretVolumeSource, Volume, VolumeMount};

use super::{mount, text};
use crate::build::certificates;
use crate::pki::{AUTHORITIES, CERTIFICATE, KEY};
use crate::validate::{TlsSecret, ValidCluster};

const CLIENTS_DIR: &str = "/etc/annulus/tls";
const PEERS_DIR: &str = "/etc/annulus/peers";

pub(super) fn mounts(cluster: &ValidCluster) -> Vec<VolumeMount> {
    let clients = cluster.tls.clients.is_some();
    let clients = clients.then(|| mount("tls", CLIENTS_DIR, true));
    let peers = cluster.tls.peers.then(|| mount("peers", PEERS_DIR, true));
    clients.into_iter().chain(peers).collect()
}

pub(super) fn volumes(cluster: &ValidCluster) -> Vec<Volume> {
    let clients = cluster.tls.clients.as_ref().map(|tls| {
        let name = match &tls.secret {
            TlsSecret::BuiltIn => certificates::server_name(cluster),
            TlsSecret::Given(name) => name.clone(),
        };
        volume("tls", name)
    });
    let peers = cluster
        .tls
        .peers
        .then(|| volume("peers", certificates::peers_name(cluster)));
    clients.into_iter().chain(peers).collect()
}

/// `$(ANNULUS_NODE_ID)` is the pod's name, which Kubernetes fills in: the variable comes before these.
pub(super) fn variables(cluster: &ValidCluster) -> Vec<EnvVar> {
    let mut variables = Vec::new();
    if let Some(tls) = &cluster.tls.clients {
        let path = |file: &str| format!("{CLIENTS_DIR}/{file}");
        let any = |port| format!("0.0.0.0:{port}");
        variables.extend([
            text("ANNULUS_TLS_BIND", any(defaults::CLIENT_TLS_PORT)),
            text("ANNULUS_API_TLS_BIND", any(defaults::API_TLS_PORT)),
            text("ANNULUS_TLS_CERT", path(CERTIFICATE)),
            text("ANNULUS_TLS_KEY", path(KEY)),
        ]);
        let auth = match tls.auth {
            ClientAuth::None => None,
            ClientAuth::Optional => Some("optional"),
            ClientAuth::Required => Some("required"),
        };
        if let Some(auth) = auth {
            variables.extend([
                text("ANNULUS_TLS_CLIENT_CA", path(AUTHORITIES)),
                text("ANNULUS_TLS_CLIENT_AUTH", auth.to_owned()),
            ]);
        }
    }
    if cluster.tls.peers {
        let path = |file: &str| format!("{PEERS_DIR}/{file}");
        variables.extend([
            text("ANNULUS_PEER_TLS_CERT", path("$(ANNULUS_NODE_ID).crt")),
            text("ANNULUS_PEER_TLS_KEY", path("$(ANNULUS_NODE_ID).key")),
            text("ANNULUS_PEER_TLS_CA", path(AUTHORITIES)),
        ]);
    }
    variables
}

fn volume(name: &str, secret: String) -> Volume {
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}
