//! The one next step of the ring: store the document, then tell the nodes.
//!
//! Invariant: a document is given to nodes only once it is stored, and it is stored only if what was stored
//! before is still what the decision was made from. The write is a replace with resourceVersion, never a forced
//! apply, so of two leaders at most one advances a ring.

use annulus_crds::v1alpha1::CacheCluster;
use annulus_ring::{ChangeReason, Epoch, NodeId, RingDocument};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tracing::{info, warn};

use crate::build::{config_map, ring_config_map_name};
use crate::context::Context;
use crate::drift::FIELD_MANAGER;
use crate::events::EventReason;
use crate::observe::stored_document;
use crate::plan::{Plan, Replacement, RingStep};
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
}

/// Takes the step. Afterwards `view` tells what is stored and what nodes said to it.
pub async fn execute(
    ctx: &Context,
    object: &CacheCluster,
    cluster: &ValidCluster,
    plan: &Plan,
    view: &mut View,
) -> Result<(), ExecuteError> {
    match &plan.ring {
        RingStep::Next { document, reasons } => {
            store(ctx, cluster, document, view).await?;
            info!(cluster = %cluster.key, epoch = %document.epoch, changes = %sentences(reasons), "stored the next ring");
            ctx.metrics.ring_changed();
            ctx.metrics.slots_lost(slots_lost(reasons));
            tell_nodes(ctx, cluster, view).await;
            ctx.events.ring_changed(object, document, reasons).await;
        }
        RingStep::Restore(document) => {
            store(ctx, cluster, document, view).await?;
            warn!(cluster = %cluster.key, epoch = %document.epoch, "stored the ring again, it was missing or older");
            tell_nodes(ctx, cluster, view).await;
            let note = format!(
                "the ring of epoch {} was missing or replaced by an older one, and was stored again",
                document.epoch
            );
            ctx.events
                .publish(object, EventReason::RingRestored, None, note)
                .await;
        }
        RingStep::Steady | RingStep::Waiting(_) => tell_nodes(ctx, cluster, view).await,
        RingStep::Recovering => {}
    }
    for replacement in &plan.replace {
        delete_pod(ctx, object, cluster, replacement).await?;
    }
    Ok(())
}

/// Stores the document if what is stored is what the decision was made from.
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
    match api.get_opt(&name).await.map_err(&failed)? {
        None => {
            ctx.metrics.wrote("ConfigMap", "create");
            api.create(&params, &config_map::with_document(cluster, document))
                .await
                .map_err(&failed)?;
        }
        Some(mut live) => {
            if !may_overwrite(stored_document(&live, cluster).as_ref(), view, document) {
                return Err(ExecuteError::RingChanged);
            }
            config_map::set_document(&mut live, document);
            live.metadata.managed_fields = None;
            ctx.metrics.wrote("ConfigMap", "replace");
            api.replace(&name, &params, &live).await.map_err(&failed)?;
        }
    }
    ctx.memory.update(&cluster.key, &cluster.uid, |remembered| {
        remembered.document = Some(document.clone());
    });
    view.document = Some(document.clone());
    view.stored = true;
    Ok(())
}

/// The stored document must be the one that was decided from; or, when that one comes from elsewhere, at least
/// not newer than what is to be stored.
fn may_overwrite(stored: Option<&RingDocument>, view: &View, next: &RingDocument) -> bool {
    match (stored, view.stored) {
        (Some(stored), true) => Some(stored) == view.document.as_ref() && stored.epoch < next.epoch,
        (Some(stored), false) => stored.epoch <= next.epoch && view.document.is_some(),
        (None, true) => false,
        (None, false) => true,
    }
}

/// Pushes the stored document to the members that answer and are behind.
async fn tell_nodes(ctx: &Context, cluster: &ValidCluster, view: &mut View) {
    let Some(document) = view.document.as_ref().filter(|_| view.stored) else {
        return;
    };
    let behind: Vec<&NodeId> = document
        .members
        .iter()
        .map(|member| &member.id)
        .filter(|id| {
            view.reports
                .get(*id)
                .is_some_and(|report| report.epoch < document.epoch)
        })
        .collect();
    if behind.is_empty() {
        return;
    }
    let json = document.to_json();
    let pushes = behind.into_iter().map(|id| async {
        if let Err(error) = ctx.hub.push(&cluster.key, id, document, &json).await {
            warn!(cluster = %cluster.key, %error, "can't push the ring");
        }
    });
    futures::future::join_all(pushes).await;
    view.reports = ctx.hub.snapshot(&cluster.key).reports;
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
                .publish(object, EventReason::PodReplaced, Some(id.as_str()), note)
                .await;
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
