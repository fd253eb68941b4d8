//! The one next step of the ring: store the document, then tell the nodes.
//!
//! Invariant: a document is given to nodes only once it is stored, and it is stored only if what was stored
//! before is still what the decision was made from. The write is a replace with resourceVersion, never a forced
//! apply, so of two leaders at most one advances a ring.

use std::collections::BTreeMap;

use annulus_crds::v1alpha1::CacheCluster;
use annulus_ring::{ChangeReason, Epoch, NodeId, RingDocument};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::build::{config_map, ring_config_map_name};
use crate::context::Context;
use crate::drift::FIELD_MANAGER;
use crate::events::EventReason;
use crate::observe::stored_document;
use crate::plan::{Plan, Replacement, Resize, RingStep};
use crate::validate::ValidCluster;
use crate::view::View;

/// Why the step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    /// Something newer is stored, or was written at the same time: decide again.
    #[error("the stored ring changed while the next one was decided")]
    RingChanged,
    /// The ring's ConfigMap can't be written.
    #[error("can't store the ring in ConfigMap {name}: {source}")]
    StoreRing {
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// A pod can't be deleted.
    #[error("can't delete pod {name} to replace it: {source}")]
    DeletePod {
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// `spec.nodes` can't be set.
    #[error("can't set the number of nodes: {0}")]
    Resize(Box<kube::Error>),
}

/// Takes the ring's step. Afterwards `view` tells what is stored and what nodes said to it. Returns whether that
/// changed, so that the plan speaks of the past.
pub async fn advance(
    ctx: &Context,
    object: &CacheCluster,
    cluster: &ValidCluster,
    step: &RingStep,
    view: &mut View,
) -> Result<bool, ExecuteError> {
    Ok(match step {
        RingStep::Next { document, reasons } => {
            let begun = Instant::now();
            let dead = view.dead.clone();
            store(ctx, cluster, document, view).await?;
            let stored = begun.elapsed();
            info!(cluster = %cluster.key, epoch = %document.epoch, changes = %sentences(reasons), ?stored, "stored the next ring");
            ctx.metrics.ring_changed();
            ctx.metrics.slots_lost(slots_lost(reasons));
            tell_nodes(ctx, cluster, view).await;
            for (node, last_heard) in failed_over(reasons, &dead) {
                let took = last_heard.elapsed();
                info!(cluster = %cluster.key, %node, ?took, pushed = ?begun.elapsed(), "copies took the place of a dead node");
                ctx.metrics.failed_over(took);
            }
            ctx.events.ring_changed(object, document, reasons);
            true
        }
        RingStep::Restore(document) => {
            store(ctx, cluster, document, view).await?;
            warn!(cluster = %cluster.key, epoch = %document.epoch, "stored the ring again, it was missing or older");
            tell_nodes(ctx, cluster, view).await;
            let note = format!(
                "the ring of epoch {} was missing or replaced by an older one, and was stored again",
                document.epoch
            );
            ctx.events.publish(object, EventReason::RingRestored, None, note);
            true
        }
        RingStep::Steady | RingStep::Waiting(_) => tell_nodes(ctx, cluster, view).await,
        RingStep::Recovering => false,
    })
}

/// Deletes the pods that are to be replaced.
pub async fn replace(
    ctx: &Context,
    object: &CacheCluster,
    cluster: &ValidCluster,
    plan: &Plan,
) -> Result<(), ExecuteError> {
    for replacement in &plan.replace {
        delete_pod(ctx, object, cluster, replacement).await?;
    }
    Ok(())
}

/// Sets `spec.nodes`, as `kubectl scale` does.
pub async fn resize(
    ctx: &Context,
    object: &CacheCluster,
    cluster: &ValidCluster,
    resize: &Resize,
) -> Result<(), ExecuteError> {
    let api: Api<CacheCluster> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    info!(cluster = %cluster.key, nodes = resize.nodes, why = resize.why, "autoscaling");
    ctx.metrics.wrote("CacheCluster", "scale");
    let scale = Patch::Merge(json!({"spec": {"replicas": resize.nodes}}));
    api.patch_scale(&cluster.key.name, &PatchParams::default(), &scale)
        .await
        .map_err(|error| ExecuteError::Resize(Box::new(error)))?;
    let note = format!("nodes is set to {}: {}", resize.nodes, resize.why);
    ctx.events.publish(object, EventReason::Autoscaled, None, note);
    Ok(())
}

/// Of whom the copies took over, and when they were last heard.
fn failed_over<'a>(
    reasons: &'a [ChangeReason],
    dead: &BTreeMap<NodeId, Instant>,
) -> BTreeMap<&'a NodeId, Instant> {
    let promoted = reasons.iter().filter_map(|reason| match reason {
        ChangeReason::Promoted { from, .. } => Some(from),
        _ => None,
    });
    promoted
        .filter_map(|from| Some((from, *dead.get(from)?)))
        .collect()
}

/// Stores the document if what is stored is what the decision was made from. Where the cache shows just that, its
/// resourceVersion guards the write, and the API server is asked once.
async fn store(
    ctx: &Context,
    cluster: &ValidCluster,
    document: &RingDocument,
    view: &mut View,
) -> Result<(), ExecuteError> {
    let name = ring_config_map_name(&cluster.key.name);
    let failed = |error: kube::Error| match error {
        kube::Error::Api(status) if status.code == 409 => ExecuteError::RingChanged,
        source => ExecuteError::StoreRing {
            name: name.clone(),
            source: Box::new(source),
        },
    };
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let reference = ObjectRef::<ConfigMap>::new(&name).within(&cluster.key.namespace);
    let cached = ctx.caches.config_maps.get(&reference).filter(|map| {
        let basis = view.document.as_ref().filter(|_| view.stored);
        basis.is_some() && stored_document(map, cluster).as_ref() == basis
    });
    if let Some(cached) = cached {
        let mut next = cached.as_ref().clone();
        config_map::set_document(&mut next, document);
        ctx.metrics.wrote("ConfigMap", "replace");
        match api.replace(&name, &params, &next).await {
            Ok(_) => {
                remember(ctx, cluster, document, view);
                return Ok(());
            }
            // The cache is behind: the ConfigMap, though not yet its document, is another by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    match api.get_opt(&name).await.map_err(&failed)? {
        None => {
            ctx.metrics.wrote("ConfigMap", "create");
            api.create(&params, &config_map::with_document(cluster, document))
                .await
                .map_err(&failed)?;
        }
        Some(mut live) => {
            let stored = stored_document(&live, cluster);
            if stored.as_ref() != Some(document) {
                let basis = view.document.as_ref().filter(|_| view.stored);
                if !may_overwrite(stored.as_ref(), basis, document) {
                    return Err(ExecuteError::RingChanged);
                }
                config_map::set_document(&mut live, document);
                live.metadata.managed_fields = None;
                ctx.metrics.wrote("ConfigMap", "replace");
                api.replace(&name, &params, &live).await.map_err(&failed)?;
            }
        }
    }
    remember(ctx, cluster, document, view);
    Ok(())
}

fn remember(ctx: &Context, cluster: &ValidCluster, document: &RingDocument, view: &mut View) {
    ctx.memory.update(&cluster.key, &cluster.uid, |remembered| {
        remembered.document = Some(document.clone());
    });
    view.document = Some(document.clone());
    view.stored = true;
}

/// What is stored must be what the decision was made from, its `basis`. A decision made from a document that
/// was not stored (it came from memory or from nodes) may only replace something that is not newer.
fn may_overwrite(stored: Option<&RingDocument>, basis: Option<&RingDocument>, next: &RingDocument) -> bool {
    match (stored, basis) {
        (Some(stored), Some(basis)) => stored == basis && stored.epoch < next.epoch,
        (Some(stored), None) => stored.epoch <= next.epoch,
        (None, Some(_)) => false,
        (None, None) => true,
    }
}

/// Pushes the stored document to the members that answer and are behind. Returns whether there were any.
async fn tell_nodes(ctx: &Context, cluster: &ValidCluster, view: &mut View) -> bool {
    let Some(document) = view.document.as_ref().filter(|_| view.stored) else {
        return false;
    };
    let behind: Vec<NodeId> = document
        .members
        .iter()
        .map(|member| member.id.clone())
        .filter(|id| {
            view.reports
                .get(id)
                .is_some_and(|report| report.epoch < document.epoch)
        })
        .collect();
    if behind.is_empty() {
        return false;
    }
    ctx.hub.push(&cluster.key, behind, document).await;
    let snapshot = ctx.hub.snapshot(&cluster.key);
    (view.reports, view.dead) = (snapshot.reports, snapshot.dead);
    true
}

/// Whether every member that answers has the document.
pub fn is_distributed(view: &View) -> bool {
    let epoch = view
        .document
        .as_ref()
        .map_or(Epoch::NONE, |document| document.epoch);
    let members = view.document.iter().flat_map(|document| &document.members);
    members
        .filter_map(|member| view.reports.get(&member.id))
        .all(|report| report.epoch >= epoch)
}

async fn delete_pod(
    ctx: &Context,
    object: &CacheCluster,
    cluster: &ValidCluster,
    replacement: &Replacement,
) -> Result<(), ExecuteError> {
    let Replacement { id, uid, serving } = replacement;
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.clone()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    info!(cluster = %cluster.key, pod = %id, serving, "deleting a pod that has older settings");
    ctx.metrics.wrote("Pod", "delete");
    match api.delete(id.as_str(), &params).await {
        Ok(_) => {
            let note = format!("{id} is replaced by a pod with the new settings");
            ctx.events
                .publish(object, EventReason::PodReplaced, Some(id.as_str()), note);
            Ok(())
        }
        // It is gone already, or another one of the same name is there.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(source) => Err(ExecuteError::DeletePod {
            name: id.to_string(),
            source: Box::new(source),
        }),
    }
}

fn slots_lost(reasons: &[ChangeReason]) -> u32 {
    let emptied = reasons.iter().map(|reason| match reason {
        ChangeReason::Restarted { slots_emptied, .. } => *slots_emptied,
        _ => 0,
    });
    emptied.sum()
}

fn sentences(reasons: &[ChangeReason]) -> String {
    reasons
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use annulus_ring::RingSettings;

    use super::*;

    fn document(epoch: u64, replication_factor: u8) -> RingDocument {
        RingDocument {
            cluster_uid: "c-1".parse().unwrap(),
            epoch: Epoch(epoch),
            replication_factor,
            settings: RingSettings::default(),
            members: Vec::new(),
            tokens: std::collections::BTreeMap::new(),
            replicas: std::collections::BTreeMap::new(),
            handoffs: Vec::new(),
        }
    }

    #[test]
    fn what_is_stored_is_overwritten_only_by_a_decision_that_was_made_from_it() {
        let (four, other_four, five) = (document(4, 1), document(4, 2), document(5, 1));
        let rows = [
            (
                "the next of what is stored",
                Some(&four),
                Some(&four),
                &five,
                true,
            ),
            (
                "somebody stored another one meanwhile",
                Some(&other_four),
                Some(&four),
                &five,
                false,
            ),
            (
                "somebody stored the same epoch already",
                Some(&five),
                Some(&four),
                &five,
                false,
            ),
            ("it was deleted meanwhile", None, Some(&four), &five, false),
            ("the first one", None, None, &document(1, 1), true),
            ("a lost one comes back", None, None, &five, true),
            (
                "over an older one that was put back",
                Some(&four),
                None,
                &five,
                true,
            ),
            (
                "over a newer one that nobody saw",
                Some(&five),
                None,
                &four,
                false,
            ),
            (
                "a first one over an existing one",
                Some(&four),
                None,
                &document(1, 1),
                false,
            ),
        ];
        for (name, stored, basis, next, may) in rows {
            assert_eq!(may_overwrite(stored, basis, next), may, "{name}");
        }
    }
}
