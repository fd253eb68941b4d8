//! Keeps a cluster's certificates in Secrets, and the operator's own in memory.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::credentials::LiveCredentials;
use annulus_ring::NodeId;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Resource as _};
use tokio::time::Instant;
use tracing::info;

use super::{Files, Stored, Wanted, is_due, operator_credentials, renew};
use crate::apply::{ApplyError, Owner, failed, owner};
use crate::build::certificates;
use crate::context::Context;
use crate::drift::FIELD_MANAGER;
use crate::observe::of_cluster;
use crate::validate::{TlsSecret, ValidCluster};

/// Secrets that were as they should be this recently are not read again, unless something else is wanted.
const FRESH: Duration = Duration::from_mins(5);

/// What is remembered of a cluster's certificates.
#[derive(Clone, Default)]
pub struct Remembered {
    /// What the Secrets were last seen to have, and when.
    checked: Option<(Wanted, Instant)>,
    /// The operator's own.
    credentials: Option<Arc<LiveCredentials>>,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered")
            .field("checked", &self.checked)
            .finish_non_exhaustive()
    }
}

/// What the cluster needs, for those nodes, and for clients that connect to those addresses.
pub fn wanted(cluster: &ValidCluster, nodes: BTreeSet<NodeId>, addresses: &BTreeSet<IpAddr>) -> Wanted {
    let tls = cluster.tls.clients.as_ref();
    let built_in = tls.filter(|tls| tls.secret == TlsSecret::BuiltIn);
    Wanted {
        cluster: cluster.uid.clone(),
        nodes: if cluster.tls.peers { nodes } else { BTreeSet::new() },
        hosts: built_in.map_or_else(Vec::new, |_| certificates::hosts(cluster, addresses)),
        client: built_in.is_some_and(|tls| tls.auth.asks()),
    }
}

/// The operator's identity in that cluster; `None` where peers need none, or the cluster has no authority yet.
pub async fn credentials(
    ctx: &Context,
    cluster: &ValidCluster,
) -> Result<Option<Arc<LiveCredentials>>, ApplyError> {
    if !cluster.tls.peers {
        return Ok(None);
    }
    let remembered = ctx.memory.get(&cluster.key, &cluster.uid).pki.credentials;
    if remembered.is_some() {
        return Ok(remembered);
    }
    let name = certificates::authority_name(cluster);
    match read(ctx, cluster, &name).await? {
        None => Ok(None),
        Some(secret) => Ok(Some(sign_own(ctx, cluster, &files(&secret), now_s())?)),
    }
}

/// Makes the cluster's Secrets hold what they should.
pub async fn ensure(
    ctx: &Context,
    cluster: &ValidCluster,
    nodes: BTreeSet<NodeId>,
) -> Result<(), ApplyError> {
    let wanted = wanted(cluster, nodes, &service_addresses(ctx, cluster));
    if wanted.nodes.is_empty() && wanted.hosts.is_empty() {
        return Ok(());
    }
    let remembered = ctx.memory.get(&cluster.key, &cluster.uid).pki;
    let fresh = |(seen, at): (Wanted, Instant)| seen == wanted && at.elapsed() < FRESH;
    if remembered.checked.is_some_and(fresh) {
        return Ok(());
    }
    let now_s = now_s();
    let [authority, server, client, peers] = certificates::names(cluster);
    let found = futures::try_join!(
        read(ctx, cluster, &authority),
        read(ctx, cluster, &server),
        read(ctx, cluster, &client),
        read(ctx, cluster, &peers),
    )?;
    let content = |secret: &Option<Secret>| secret.as_ref().map(files).unwrap_or_default();
    let stored = Stored {
        authority: content(&found.0),
        server: content(&found.1),
        client: content(&found.2),
        peers: content(&found.3),
    };
    let next = renew(&wanted, &stored, now_s)?;
    // The authority first: nothing may be shown that nobody could check.
    for (name, found, before, after) in [
        (authority, found.0, &stored.authority, &next.authority),
        (server, found.1, &stored.server, &next.server),
        (client, found.2, &stored.client, &next.client),
        (peers, found.3, &stored.peers, &next.peers),
    ] {
        if before != after && !after.is_empty() {
            write(ctx, cluster, name, found, after).await?;
        }
    }
    if cluster.tls.peers {
        let due = remembered.credentials.as_ref().is_none_or(|live| {
            let validity = live.now().validity;
            validity.is_none_or(|validity| is_due(validity, now_s))
        });
        if due || stored.authority != next.authority {
            sign_own(ctx, cluster, &next.authority, now_s)?;
        }
    }
    ctx.memory.update(&cluster.key, &cluster.uid, |remembered| {
        remembered.pki.checked = Some((wanted, Instant::now()));
    });
    Ok(())
}

/// The addresses of the cluster's Services, to which clients are sent. Those of Services that are only just made come with
/// the next reconcile, which they wake.
fn service_addresses(ctx: &Context, cluster: &ValidCluster) -> BTreeSet<IpAddr> {
    let services = of_cluster(&ctx.caches.services, &cluster.key);
    let addresses = services
        .iter()
        .filter_map(|service| service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok());
    addresses.collect()
}

fn now_s() -> i64 {
    Timestamp::now().as_second()
}

/// Signs the operator's identity anew; open connections go on with the former one.
fn sign_own(
    ctx: &Context,
    cluster: &ValidCluster,
    authority: &Files,
    now_s: i64,
) -> Result<Arc<LiveCredentials>, ApplyError> {
    let credentials = operator_credentials(&cluster.uid, authority, now_s)?;
    Ok(ctx.memory.update(&cluster.key, &cluster.uid, |remembered| {
        if let Some(live) = &remembered.pki.credentials {
            live.replace(credentials);
            return Arc::clone(live);
        }
        let live = Arc::new(LiveCredentials::new(credentials));
        remembered.pki.credentials = Some(Arc::clone(&live));
        live
    }))
}

/// The Secret, if it is there and the cluster's.
async fn read(ctx: &Context, cluster: &ValidCluster, name: &str) -> Result<Option<Secret>, ApplyError> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    let found = api
        .get_opt(name)
        .await
        .map_err(|error| failed("Secret", name, error))?;
    let name = name.to_owned();
    match &found {
        Some(secret) => match owner(secret, cluster) {
            Owner::Cluster => Ok(found),
            Owner::Predecessor => Err(ApplyError::Predecessor { kind: "Secret", name }),
            Owner::Other => Err(ApplyError::NameTaken { kind: "Secret", name }),
        },
        None => Ok(None),
    }
}

fn files(secret: &Secret) -> Files {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

/// Creates the Secret, or replaces exactly the one that was read.
async fn write(
    ctx: &Context,
    cluster: &ValidCluster,
    name: String,
    found: Option<Secret>,
    content: &Files,
) -> Result<(), ApplyError> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let mut secret = certificates::secret(cluster, name.clone(), content);
    info!(cluster = %cluster.key, secret = name, "writing certificates");
    let written = if let Some(found) = found {
        secret.meta_mut().resource_version = found.metadata.resource_version;
        // The type of a Secret can't change.
        secret.type_ = found.type_;
        ctx.metrics.wrote("Secret", "replace");
        api.replace(&name, &params, &secret).await
    } else {
        ctx.metrics.wrote("Secret", "create");
        api.create(&params, &secret).await
    };
    written.map(drop).map_err(|error| failed("Secret", &name, error))
}
