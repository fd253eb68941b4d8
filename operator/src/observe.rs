//! The reads: caches first, the API server where a cache can't be trusted, nodes where nobody else knows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, NodeAddresses, defaults};
use annulus_ring::{Epoch, NodeId, RING_DOCUMENT_KEY, RingDocument, Zone};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tracing::warn;

use crate::apply::ApplyError;
use crate::build::service::node_name;
use crate::build::{CLUSTER_LABEL, ring_config_map_name};
use crate::context::Context;
use crate::key::ClusterKey;
use crate::pki;
use crate::validate::{TlsSecret, ValidCluster};
use crate::view::{PodView, SetView, View};

mod pod;

/// A Secret that was there this recently is not asked for again: moving slots takes many reconciles a second.
const SECRET_FRESH: Duration = Duration::from_secs(10);

/// Why a cluster could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The ring's ConfigMap can't be read.
    #[error("can't read ConfigMap {name}: {source}")]
    RingConfigMap {
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The operator can't prove who it is.
    #[error(transparent)]
    Credentials(#[from] ApplyError),
    /// The Secret with the password can't be read.
    #[error("can't read Secret {name}: {source}")]
    Secret {
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// The Secret with the certificate for clients that the user makes, where it lacks something.
pub async fn lacking_tls_secret(
    ctx: &Context,
    cluster: &ValidCluster,
) -> Result<Option<String>, ObserveError> {
    let Some(tls) = &cluster.tls.clients else {
        return Ok(None);
    };
    let TlsSecret::Given(name) = &tls.secret else {
        return Ok(None);
    };
    let seen = ctx.memory.get(&cluster.key, &cluster.uid).tls_secret_seen;
    if seen.is_some_and(|(seen, at)| seen == *name && at.elapsed() < SECRET_FRESH) {
        return Ok(None);
    }
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    let found = api.get_opt(name).await.map_err(|source| ObserveError::Secret {
        name: name.clone(),
        source: Box::new(source),
    })?;
    let data = found.and_then(|secret| secret.data).unwrap_or_default();
    let mut needed = vec![pki::CERTIFICATE, pki::KEY];
    if tls.auth.asks() {
        needed.push(pki::AUTHORITIES);
    }
    needed.retain(|key| !data.contains_key(*key));
    if needed.is_empty() {
        ctx.memory.update(&cluster.key, &cluster.uid, |remembered| {
            remembered.tls_secret_seen = Some((name.clone(), tokio::time::Instant::now()));
        });
        return Ok(None);
    }
    Ok(Some(format!(
        "Secret {name}, which tls.secretRef names, lacks {}: create it in namespace {}, or leave tls.secretRef out to have \
         certificates made",
        needed.join(", "),
        cluster.key.namespace
    )))
}

/// Whether the Secret with the password is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretState {
    /// None is needed, or it has the key.
    Usable,
    /// It isn't there.
    Missing,
    /// It has no key `password`.
    KeyMissing,
}

/// Looks at the cluster, apart from its Secret.
pub async fn view(
    ctx: &Context,
    object: &CacheCluster,
    cluster: &ValidCluster,
) -> Result<View, ObserveError> {
    let key = &cluster.key;
    let mut pods: BTreeMap<NodeId, PodView> = of_cluster(&ctx.caches.pods, key)
        .iter()
        .filter_map(|pod| {
            let id = pod.name_any().parse().ok()?;
            let view = pod_view(ctx, cluster, &id, pod);
            Some((id, view))
        })
        .collect();
    try_services(ctx, cluster, &mut pods);
    let reachable =
        |(id, pod): (&NodeId, &PodView)| Some((id.clone(), SocketAddr::new(pod.ip?, defaults::PEER_PORT)));
    let credentials = pki::ensure::credentials(ctx, cluster).await?;
    // Without an identity nobody would answer; it is there before the first pod is.
    let has_identity = credentials.is_some() || !cluster.tls.peers;
    let addresses = pods.iter().filter(|_| has_identity).filter_map(reachable);
    let addresses = addresses.collect();
    ctx.hub.sync(key, &cluster.uid, &addresses, credentials.as_ref());

    // Nodes are asked after the document was read: what they say is then never older than it.
    let (document, stored) = find_document(ctx, cluster).await?;
    let snapshot = ctx.hub.snapshot(key);
    let told = object.status.as_ref().map_or(0, |status| status.ring_epoch);
    let mut view = View {
        document,
        stored,
        epoch_told: Epoch(told.try_into().unwrap_or_default()),
        sets: of_cluster(&ctx.caches.stateful_sets, key)
            .iter()
            .map(|set| set_view(set))
            .collect(),
        pods,
        reports: snapshot.reports,
        since_first_answer: snapshot.since_first_answer,
        connecting: snapshot.connecting,
        dead: snapshot.dead,
        tenants: ctx.summaries.of(key),
    };
    adopt_newer_from_nodes(ctx, cluster, &mut view).await;
    Ok(view)
}

/// Tries whether clients get through to the pods that have a Service of their own.
fn try_services(ctx: &Context, cluster: &ValidCluster, pods: &mut BTreeMap<NodeId, PodView>) {
    let port = cluster
        .tls
        .client_ports()
        .first()
        .map_or(defaults::CLIENT_PORT, |(_, port)| *port);
    let service = |pod: &PodView| Some(SocketAddr::new(pod.service_ip?, port));
    // A pod without an address has nothing behind its Service yet.
    let with_address = pods.values().filter(|pod| pod.ip.is_some());
    let tried = with_address.filter_map(|pod| Some((pod.uid.as_str(), service(pod)?)));
    let open = ctx.service_paths.open(&cluster.key, &tried.collect());
    for pod in pods.values_mut() {
        pod.service_open = open.contains(&pod.uid);
    }
}

/// The newest document that the ConfigMap and memory know, and whether it is what is stored.
async fn find_document(
    ctx: &Context,
    cluster: &ValidCluster,
) -> Result<(Option<RingDocument>, bool), ObserveError> {
    let name = ring_config_map_name(&cluster.key.name);
    let reference = ObjectRef::<ConfigMap>::new(&name).within(&cluster.key.namespace);
    let cached_map = ctx.caches.config_maps.get(&reference);
    let cached = cached_map
        .as_deref()
        .and_then(|map| stored_document(map, cluster));
    let known = ctx.memory.get(&cluster.key, &cluster.uid).document;
    let cache_is_newest = match (&cached, &known) {
        (Some(cached), Some(known)) => cached == known || cached.epoch > known.epoch,
        (Some(_), None) => true,
        (None, None) => cached_map.is_some(),
        (None, Some(_)) => false,
    };
    if cache_is_newest {
        let stored = cached.is_some();
        return Ok((cached, stored));
    }
    // The cache is behind, or somebody spoilt or deleted the ConfigMap.
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    let live = api
        .get_opt(&name)
        .await
        .map_err(|source| ObserveError::RingConfigMap {
            name,
            source: Box::new(source),
        })?
        .and_then(|map| stored_document(&map, cluster));
    Ok(match (live, known) {
        (Some(live), Some(known)) if live == known || live.epoch > known.epoch => (Some(live), true),
        (Some(live), None) => (Some(live), true),
        (_, Some(known)) => (Some(known), false),
        (None, None) => (None, false),
    })
}

/// The document in the ConfigMap, if it has a sound one of this cluster.
pub fn stored_document(map: &ConfigMap, cluster: &ValidCluster) -> Option<RingDocument> {
    let text = map.data.as_ref()?.get(RING_DOCUMENT_KEY)?;
    match RingDocument::from_json(text.as_bytes()) {
        Ok(document) if document.cluster_uid == cluster.uid => Some(document),
        Ok(document) => {
            warn!(cluster = %cluster.key, other = %document.cluster_uid, "the stored ring is another cluster's");
            None
        }
        Err(error) => {
            warn!(cluster = %cluster.key, %error, "the stored ring can't be used");
            None
        }
    }
}

/// A node that has a newer ring than the stored one knows better: the stored one was lost or put back.
async fn adopt_newer_from_nodes(ctx: &Context, cluster: &ValidCluster, view: &mut View) {
    let known = view
        .document
        .as_ref()
        .map_or(Epoch::NONE, |document| document.epoch);
    let newest = view
        .reports
        .iter()
        .filter(|(_, report)| report.epoch > known)
        .max_by_key(|(_, report)| report.epoch);
    let Some((node, _)) = newest else { return };
    match ctx.hub.fetch_ring(&cluster.key, &cluster.uid, node).await {
        Ok(document) if document.epoch > known => {
            view.document = Some(document);
            view.stored = false;
        }
        Ok(_) => {}
        Err(error) => warn!(cluster = %cluster.key, %error, "can't fetch the ring from a node"),
    }
}

/// Looks for the Secret with the password.
pub async fn secret(ctx: &Context, cluster: &ValidCluster) -> Result<SecretState, ObserveError> {
    let Some(name) = cluster.auth.secret() else {
        return Ok(SecretState::Usable);
    };
    let seen = ctx.memory.get(&cluster.key, &cluster.uid).secret_seen;
    if seen.is_some_and(|(seen, at)| seen == name && at.elapsed() < SECRET_FRESH) {
        return Ok(SecretState::Usable);
    }
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    let found = api.get_opt(name).await.map_err(|source| ObserveError::Secret {
        name: name.to_owned(),
        source: Box::new(source),
    })?;
    Ok(match found {
        None => SecretState::Missing,
        Some(secret)
            if !secret
                .data
                .as_ref()
                .is_some_and(|data| data.contains_key(defaults::AUTH_SECRET_KEY)) =>
        {
            SecretState::KeyMissing
        }
        Some(_) => {
            ctx.memory.update(&cluster.key, &cluster.uid, |remembered| {
                remembered.secret_seen = Some((name.to_owned(), tokio::time::Instant::now()));
            });
            SecretState::Usable
        }
    })
}

/// The objects of a store that carry the cluster's label.
pub(crate) fn of_cluster<K>(
    store: &kube::runtime::reflector::Store<K>,
    key: &ClusterKey,
) -> Vec<std::sync::Arc<K>>
where
    K: kube::Resource<DynamicType = ()>
        + kube::runtime::reflector::Lookup<DynamicType = ()>
        + Clone
        + 'static,
{
    store.state_filter(|object| {
        object.meta().namespace.as_ref() == Some(&key.namespace)
            && object.labels().get(CLUSTER_LABEL) == Some(&key.name)
    })
}

fn set_view(set: &StatefulSet) -> SetView {
    let status = set.status.as_ref();
    let is_current = status.is_some_and(|status| status.observed_generation == set.metadata.generation);
    SetView {
        name: set.name_any(),
        replicas: set
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .and_then(|n| n.try_into().ok())
            .unwrap_or_default(),
        revision: status
            .filter(|_| is_current)
            .and_then(|status| status.update_revision.clone()),
    }
}

fn pod_view(ctx: &Context, cluster: &ValidCluster, id: &NodeId, pod: &Pod) -> PodView {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let service = match cluster.node_addresses {
        NodeAddresses::Pod => None,
        NodeAddresses::Service => {
            let reference = ObjectRef::<Service>::new(&node_name(id)).within(&cluster.key.namespace);
            ctx.caches.services.get(&reference)
        }
    };
    pod::view(
        pod,
        service.as_deref(),
        node.and_then(|node| ctx.zones.of(node)).map(Zone),
    )
}
