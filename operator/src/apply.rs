//! Server-side apply of what was built, by one field manager, and only where the live object differs.
//!
//! An object of that name which is not the cluster's is never touched. The cache says cheaply that all is
//! well; before anything is written the API server is asked, so that a cache that lags causes no write.

use std::collections::BTreeSet;
use std::fmt::Debug;

use annulus_crds::v1alpha1::CacheCluster;
use annulus_ring::NodeId;
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::{Lookup, ObjectRef, Store};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::info;

use crate::build::{Built, CLUSTER_LABEL, NODE_LABEL, secret};
use crate::caches::FOREIGN_WRITER_ANNOTATION;
use crate::context::Context;
use crate::drift::{self, Drift, FIELD_MANAGER, HASH_ANNOTATION};
use crate::pki::PkiError;
use crate::plan::RetiredSet;
use crate::validate::{ValidAuth, ValidCluster};

/// Why an object could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Something else has the name.
    #[error(
        "{kind} {name} exists and isn't this cluster's: delete it, or give the CacheCluster another name"
    )]
    NameTaken {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An earlier cluster of the same name is still being cleaned up.
    #[error("{kind} {name} of the deleted cluster of the same name is still there")]
    Predecessor {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Somebody else wrote at the same time.
    #[error("{kind} {name} was changed at the same time")]
    Conflict {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The API server refuses it, and will until something changes.
    #[error("the API server refuses {kind} {name}: {message}")]
    Refused {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The API server's words.
        message: String,
    },
    /// The namespace is being deleted, and this cluster with it.
    #[error("the namespace is being deleted")]
    NamespaceEnding,
    /// The API server did not do it this time.
    #[error("can't write {kind} {name}: {source}")]
    Transient {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// No certificate could be made.
    #[error(transparent)]
    Certificates(#[from] PkiError),
    /// The operating system gives no randomness for a password.
    #[error("can't make a password: {0}")]
    Password(getrandom::Error),
}

/// Kinds that are applied as a whole.
pub trait Owned:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Lookup<DynamicType = ()>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// The kind's name.
    const KIND: &'static str;
    /// Whether every field of the spec is the operator's: what somebody else adds is removed again. Services
    /// are written by load balancers' controllers too.
    const WHOLE_SPEC: bool;

    /// Where it is cached.
    fn store(ctx: &Context) -> &Store<Self>;
}

macro_rules! owned {
    ($($kind:ident, $whole:literal, $store:ident;)+) => {$(
        impl Owned for $kind {
            const KIND: &'static str = stringify!($kind);
            const WHOLE_SPEC: bool = $whole;

            fn store(ctx: &Context) -> &Store<Self> {
                &ctx.caches.$store
            }
        }
    )+};
}

owned! {
    ServiceAccount, false, service_accounts;
    Service, false, services;
    ConfigMap, false, config_maps;
    PodDisruptionBudget, true, pod_disruption_budgets;
    NetworkPolicy, true, network_policies;
    StatefulSet, true, stateful_sets;
}

/// Applies every object, those first that pods need to start. Returns the names of the `StatefulSets` that the
/// cache did not show as they were built: what it tells of their revisions is about another template.
pub async fn apply(
    ctx: &Context,
    cluster: &ValidCluster,
    built: Built,
) -> Result<BTreeSet<String>, ApplyError> {
    let Built {
        service_account,
        client_service,
        nodes_service,
        node_services,
        ring_config_map,
        pod_disruption_budget,
        network_policy,
        stateful_sets,
    } = built;
    let ensure = Ensure { ctx, cluster };
    futures::try_join!(
        ensure.object(service_account),
        ensure.object(nodes_service),
        ensure.object(client_service),
        ensure.object(ring_config_map),
        ensure.object(pod_disruption_budget),
        ensure.object(network_policy),
    )?;
    let sets = stateful_sets.into_iter().map(|set| async {
        let name = set.name_any();
        let seen = ensure.object(set).await?;
        Ok::<_, ApplyError>((name, seen))
    });
    let node_services = node_services.into_iter().map(|service| ensure.object(service));
    let (sets, _) = futures::try_join!(try_join_all(sets), try_join_all(node_services))?;
    let differed = |(name, seen): (String, Seen)| (seen == Seen::Otherwise).then_some(name);
    Ok(sets.into_iter().filter_map(differed).collect())
}

/// Applies a policy of the cluster's beside its own.
pub async fn network_policy(
    ctx: &Context,
    cluster: &ValidCluster,
    policy: NetworkPolicy,
) -> Result<(), ApplyError> {
    Ensure { ctx, cluster }.object(policy).await.map(|_| ())
}

/// How the cache showed an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    AsBuilt,
    Otherwise,
}

/// Creates the Secret with a generated password. One that is there is never written.
pub async fn create_secret(ctx: &Context, cluster: &ValidCluster) -> Result<(), ApplyError> {
    let ValidAuth::Generated { secret: name } = &cluster.auth else {
        return Ok(());
    };
    let password = secret::Password::draw(getrandom::fill).map_err(ApplyError::Password)?;
    let secret = secret::build(cluster, name, password);
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    ctx.metrics.wrote("Secret", "create");
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match api.create(&params, &secret).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(failed("Secret", name, error)),
    }
}

/// Deletes the `StatefulSets` of pools that left the spec and that the ring no longer needs.
pub async fn delete_retired(
    ctx: &Context,
    cluster: &ValidCluster,
    retired: &[RetiredSet],
) -> Result<(), ApplyError> {
    for set in retired.iter().filter(|set| set.kept.is_empty()) {
        delete::<StatefulSet>(ctx, cluster, &set.name, "its pool left the spec").await?;
    }
    Ok(())
}

/// Deletes the Services of nodes that are not among those, which clients are sent to.
pub async fn delete_node_services(
    ctx: &Context,
    cluster: &ValidCluster,
    needed: &BTreeSet<NodeId>,
) -> Result<(), ApplyError> {
    let is_stale = |service: &Service| {
        let node = service.labels().get(NODE_LABEL);
        service.metadata.namespace.as_ref() == Some(&cluster.key.namespace)
            && service.labels().get(CLUSTER_LABEL) == Some(&cluster.key.name)
            && node.is_some_and(|node| !node.parse().is_ok_and(|node| needed.contains(&node)))
    };
    for service in ctx.caches.services.state_filter(is_stale) {
        delete::<Service>(ctx, cluster, &service.name_any(), "no client is sent there").await?;
    }
    Ok(())
}

/// Deletes an object, if it is the cluster's, and the one that the cache shows.
async fn delete<K: Owned>(
    ctx: &Context,
    cluster: &ValidCluster,
    name: &str,
    why: &str,
) -> Result<(), ApplyError> {
    let reference = ObjectRef::<K>::new(name).within(&cluster.key.namespace);
    let Some(cached) = K::store(ctx).get(&reference) else {
        return Ok(());
    };
    if owner(cached.as_ref(), cluster) != Owner::Cluster || cached.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Background),
        preconditions: Some(Preconditions {
            uid: cached.meta().uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    info!(cluster = %cluster.key, kind = K::KIND, name, why, "deleting");
    ctx.metrics.wrote(K::KIND, "delete");
    match api.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(failed(K::KIND, name, error)),
    }
}

/// Whose an object is.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    /// This cluster's.
    Cluster,
    /// A deleted cluster's of the same name.
    Predecessor,
    /// Somebody else's.
    Other,
}

/// Whose the object is, by its owner reference.
pub fn owner<K: Resource>(object: &K, cluster: &ValidCluster) -> Owner {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    match owners.iter().find(|owner| owner.controller == Some(true)) {
        Some(owner) if owner.uid == cluster.uid.as_str() => Owner::Cluster,
        Some(owner)
            if owner.kind == <CacheCluster as Resource>::kind(&()) && owner.name == cluster.key.name =>
        {
            Owner::Predecessor
        }
        _ => Owner::Other,
    }
}

struct Ensure<'a> {
    ctx: &'a Context,
    cluster: &'a ValidCluster,
}

impl Ensure<'_> {
    async fn object<K: Owned>(&self, built: K) -> Result<Seen, ApplyError> {
        let name = built.name_any();
        let mut body = to_value(&built)?;
        let hash = drift::hash(&body);
        let reference = ObjectRef::<K>::new(&name).within(&self.cluster.key.namespace);
        if let Some(cached) = K::store(self.ctx).get(&reference) {
            let foreign = cached
                .annotations()
                .get(FOREIGN_WRITER_ANNOTATION)
                .map(String::as_str);
            let ours = owner(cached.as_ref(), self.cluster) == Owner::Cluster;
            if ours && drift::drift(&body, &hash, &to_value(cached.as_ref())?, foreign).is_none() {
                return Ok(Seen::AsBuilt);
            }
        }
        let api: Api<K> = Api::namespaced(self.ctx.client.clone(), &self.cluster.key.namespace);
        let live = api
            .get_opt(&name)
            .await
            .map_err(|error| failed(K::KIND, &name, error))?;
        let drift = match &live {
            None => Drift::Absent,
            // It comes back once it is gone, which wakes the reconcile.
            Some(live) if live.meta().deletion_timestamp.is_some() => return Ok(Seen::Otherwise),
            Some(live) => match owner(live, self.cluster) {
                Owner::Predecessor => return Err(ApplyError::Predecessor { kind: K::KIND, name }),
                Owner::Other if !was_ours(live, self.cluster) => {
                    return Err(ApplyError::NameTaken { kind: K::KIND, name });
                }
                Owner::Cluster | Owner::Other => {
                    match drift::drift(&body, &hash, &to_value(live)?, foreign(live).as_deref()) {
                        None => return Ok(Seen::Otherwise),
                        Some(drift) => drift,
                    }
                }
            },
        };
        info!(cluster = %self.cluster.key, kind = K::KIND, name, ?drift, "applying");
        annotate(&mut body, &hash);
        let params = PatchParams {
            force: true,
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        self.ctx.metrics.wrote(K::KIND, "apply");
        let applied = api
            .patch(&name, &params, &Patch::Apply(&body))
            .await
            .map_err(|error| failed(K::KIND, &name, error))?;
        // Applying takes back the fields that were built. Fields and list entries that somebody else added stay
        // theirs, and only replacing the object removes them.
        let replacement = if K::WHOLE_SPEC && foreign(&applied).is_some() {
            body["metadata"]["resourceVersion"] = json!(applied.resource_version());
            Some(body)
        } else {
            drift::without_foreign_keys(&body, to_value(&applied)?)
        };
        if let Some(replacement) = replacement {
            let replacement: K =
                serde_json::from_value(replacement).map_err(|error| unreadable(K::KIND, &name, error))?;
            let params = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PostParams::default()
            };
            self.ctx.metrics.wrote(K::KIND, "replace");
            api.replace(&name, &params, &replacement)
                .await
                .map_err(|error| failed(K::KIND, &name, error))?;
        }
        Ok(Seen::Otherwise)
    }
}

/// Whether an object without our owner reference is the cluster's all the same, because somebody removed the
/// reference by hand: only objects of this operator carry both label and hash.
fn was_ours<K: Resource>(live: &K, cluster: &ValidCluster) -> bool {
    let no_owner = live.meta().owner_references.as_ref().is_none_or(Vec::is_empty);
    no_owner
        && live.annotations().contains_key(HASH_ANNOTATION)
        && live.labels().get(CLUSTER_LABEL) == Some(&cluster.key.name)
}

fn foreign<K: Owned>(live: &K) -> Option<String> {
    let managed = live.meta().managed_fields.as_deref().filter(|_| K::WHOLE_SPEC)?;
    drift::foreign_spec_writer(managed)
}

fn annotate(body: &mut Value, hash: &str) {
    let metadata = &mut body["metadata"];
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    metadata["annotations"][HASH_ANNOTATION] = json!(hash);
}

fn to_value<K: Owned>(object: &K) -> Result<Value, ApplyError> {
    serde_json::to_value(object).map_err(|error| unreadable(K::KIND, &object.name_any(), error))
}

fn unreadable(kind: &'static str, name: &str, error: serde_json::Error) -> ApplyError {
    ApplyError::Transient {
        kind,
        name: name.to_owned(),
        source: Box::new(kube::Error::SerdeError(error)),
    }
}

/// The error of a request about an object.
pub fn failed(kind: &'static str, name: &str, error: kube::Error) -> ApplyError {
    let name = name.to_owned();
    match error {
        kube::Error::Api(status) if status.code == 409 => ApplyError::Conflict { kind, name },
        kube::Error::Api(status) if is_namespace_ending(&status) => ApplyError::NamespaceEnding,
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 422) => ApplyError::Refused {
            kind,
            name,
            message: status.message,
        },
        source => ApplyError::Transient {
            kind,
            name,
            source: Box::new(source),
        },
    }
}

fn is_namespace_ending(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}
