//! The steps in their order, and nothing else: observe, validate, plan, build, apply, execute, status.
//!
//! The next step of a ring that is stored comes right after the plan: when a node has died, clients wait for it, and
//! nothing that may be slow (a Secret, objects to be applied) comes between.

use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, CacheClusterStatus, ConditionType};
use annulus_ring::Epoch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::json;
use tokio::time::Instant;

use crate::apply::{self, ApplyError};
use crate::build::build;
use crate::context::Context;
use crate::drift::FIELD_MANAGER;
use crate::events::EventReason;
use crate::execute::{self, ExecuteError};
use crate::key::ClusterKey;
use crate::observe::{self, ObserveError, SecretState};
use crate::pki;
use crate::plan::{self, FIRST_RING_GRACE, Plan, RingStep};
use crate::status::{Obstacle, Outcome, status};
use crate::validate::{InvalidSpec, ValidAuth, ValidCluster, validate};
use crate::view::View;

/// How long the cache may lag behind a status that was written.
const STATUS_LAG: Duration = Duration::from_secs(5);
/// A healthy cluster is looked at this often without a cause.
const RECHECK: Duration = Duration::from_mins(5);
/// Secrets are not watched, so a cluster that needs one is looked at more often.
const RECHECK_SECRET: Duration = Duration::from_secs(20);
/// Where memory in use decides about the number of nodes. Looking at it is a look at what nodes have reported.
const RECHECK_LOAD: Duration = Duration::from_secs(5);
/// Nodes that could not be told or asked are tried again.
const RECHECK_NODES: Duration = Duration::from_secs(1);

/// Why a reconcile failed, by step.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Reading.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// Applying objects.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The ring's next step.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// Telling the status.
    #[error("can't write the status: {0}")]
    Status(Box<kube::Error>),
    /// It took too long.
    #[error("not done within {0:?}")]
    Timeout(Duration),
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// At once, more or less: somebody else was faster.
    Soon,
    /// After a delay that doubles with each failure.
    Backoff,
}

impl ReconcileError {
    /// The step and the variant, for metrics.
    pub fn label(&self) -> (&'static str, &'static str) {
        match self {
            Self::Observe(ObserveError::RingConfigMap { .. }) => ("observe", "ring_config_map"),
            Self::Observe(ObserveError::Secret { .. }) => ("observe", "secret"),
            Self::Observe(ObserveError::Credentials(_)) => ("observe", "credentials"),
            Self::Apply(ApplyError::NameTaken { .. }) => ("apply", "name_taken"),
            Self::Apply(ApplyError::Predecessor { .. }) => ("apply", "predecessor"),
            Self::Apply(ApplyError::Conflict { .. }) => ("apply", "conflict"),
            Self::Apply(ApplyError::NamespaceEnding) => ("apply", "namespace_ending"),
            Self::Apply(ApplyError::Refused { .. }) => ("apply", "refused"),
            Self::Apply(ApplyError::Transient { .. }) => ("apply", "transient"),
            Self::Apply(ApplyError::Password(_)) => ("apply", "password"),
            Self::Apply(ApplyError::Certificates(_)) => ("apply", "certificates"),
            Self::Execute(ExecuteError::RingChanged) => ("execute", "ring_changed"),
            Self::Execute(ExecuteError::StoreRing { .. }) => ("execute", "store_ring"),
            Self::Execute(ExecuteError::DeletePod { .. }) => ("execute", "delete_pod"),
            Self::Execute(ExecuteError::Resize(_)) => ("execute", "resize"),
            Self::Status(_) => ("status", "write"),
            Self::Timeout(_) => ("reconcile", "timeout"),
        }
    }

    /// When to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Apply(ApplyError::Predecessor { .. } | ApplyError::Conflict { .. })
            | Self::Execute(ExecuteError::RingChanged) => Retry::Soon,
            Self::Observe(_) | Self::Apply(_) | Self::Execute(_) | Self::Status(_) | Self::Timeout(_) => {
                Retry::Backoff
            }
        }
    }
}

/// Brings the cluster one step nearer to its spec. Returns after which time to look again without a cause.
pub async fn reconcile(ctx: &Context, object: &Arc<CacheCluster>) -> Result<Duration, ReconcileError> {
    let key = ClusterKey::from(object.as_ref());
    if object.meta().deletion_timestamp.is_some() {
        ctx.hub.forget(&key);
        ctx.service_paths.forget(&key);
        return Ok(RECHECK);
    }
    let cluster = match validate(object, &ctx.installation) {
        Ok(cluster) => cluster,
        Err(invalid) => return refuse(ctx, object, &invalid).await,
    };
    let mut view = observe::view(ctx, object, &cluster).await?;
    let mut plan = plan::plan(&cluster, &view);
    let advances_first = view.stored && !cluster.pause;
    if advances_first && execute::advance(ctx, object, &cluster, &plan.ring, &mut view).await? {
        plan = plan::plan(&cluster, &view);
    }
    let secret = observe::secret(ctx, &cluster).await?;
    let mut obstacle = missing_secret(&cluster, secret);
    if let Some(lacking) = observe::lacking_tls_secret(ctx, &cluster).await? {
        obstacle.get_or_insert(Obstacle::TlsSecretMissing(lacking));
    }
    if cluster.pause {
        obstacle = Some(Obstacle::Paused);
    } else {
        if secret == SecretState::Missing {
            apply::create_secret(ctx, &cluster).await?;
        }
        let built = build(&cluster, &plan.pools);
        let applied = async {
            // Before the pods that mount it.
            pki::ensure::ensure(ctx, &cluster, plan::existing_nodes(&plan, &view)).await?;
            Box::pin(apply::apply(ctx, &cluster, built)).await
        };
        match applied.await {
            Ok(differed) if differed.is_empty() => {}
            // Which pods are to be replaced was decided by a revision of something that wasn't built so.
            Ok(differed) => {
                view.forget_revisions(&differed);
                plan = plan::plan(&cluster, &view);
            }
            Err(error) => {
                tell_apply_failed(ctx, object, &cluster, &view, &plan, &error).await?;
                return Err(error.into());
            }
        }
        let moved_on =
            !advances_first && execute::advance(ctx, object, &cluster, &plan.ring, &mut view).await?;
        execute::replace(ctx, object, &cluster, &plan).await?;
        apply::delete_retired(ctx, &cluster, &plan.retired).await?;
        apply::delete_node_services(ctx, &cluster, &plan.node_services).await?;
        if moved_on {
            plan = plan::plan(&cluster, &view);
        }
        if cluster.autoscaling.is_some() {
            let rested = rested(ctx, &cluster, plan::is_at_rest(&view, &plan));
            if let Some(resize) = rested.and_then(|rested| plan::autoscale(&cluster, &view, rested)) {
                execute::resize(ctx, object, &cluster, &resize).await?;
            }
        }
    }
    // A new leader must not tell that nodes are unreachable before it has tried to reach them.
    if view.connecting && (view.document.is_some() || view.epoch_told > Epoch::NONE) {
        return Ok(RECHECK_NODES);
    }
    let recheck = recheck(&cluster, &view, &plan);
    ctx.metrics.ring_epoch(
        &key,
        view.document.as_ref().map_or(0, |document| document.epoch.0),
    );
    let outcome = Outcome::Seen {
        cluster: &cluster,
        view: &view,
        plan: &plan,
        obstacle,
    };
    tell(ctx, object, &outcome).await?;
    Ok(recheck)
}

/// For how long the cluster has been at rest, as far as this operator has seen; `None` when it isn't.
fn rested(ctx: &Context, cluster: &ValidCluster, is_at_rest: bool) -> Option<Duration> {
    ctx.memory.update(&cluster.key, &cluster.uid, |remembered| {
        remembered.at_rest_since = is_at_rest.then(|| remembered.at_rest_since.unwrap_or_else(Instant::now));
        remembered.at_rest_since.map(|since| since.elapsed())
    })
}

fn recheck(cluster: &ValidCluster, view: &View, plan: &Plan) -> Duration {
    if cluster.pause {
        return RECHECK;
    }
    if plan.ring == RingStep::Recovering || !execute::is_distributed(view) {
        return RECHECK_NODES;
    }
    if let (None, Some(since)) = (&view.document, view.since_first_answer) {
        return FIRST_RING_GRACE
            .saturating_sub(since)
            .max(Duration::from_millis(100));
    }
    if matches!(plan.ring, RingStep::Next { .. } | RingStep::Restore(_)) {
        return Duration::ZERO;
    }
    if cluster.autoscaling.is_some() {
        RECHECK_LOAD
    } else if cluster.auth == ValidAuth::Disabled {
        RECHECK
    } else {
        RECHECK_SECRET
    }
}

fn missing_secret(cluster: &ValidCluster, state: SecretState) -> Option<Obstacle> {
    let message = match (&cluster.auth, state) {
        (_, SecretState::Usable)
        | (ValidAuth::Disabled, _)
        | (ValidAuth::Generated { .. }, SecretState::Missing) => return None,
        (ValidAuth::Given { secret }, SecretState::Missing) => format!(
            "Secret {secret}, which auth.secretRef names, does not exist: create it in namespace {} with the key \
             password, for example kubectl create secret generic {secret} -n {} --from-literal=password=…",
            cluster.key.namespace, cluster.key.namespace
        ),
        (ValidAuth::Given { secret }, SecretState::KeyMissing) => {
            format!("Secret {secret}, which auth.secretRef names, has no key password: add it")
        }
        (ValidAuth::Generated { secret }, SecretState::KeyMissing) => {
            format!(
                "Secret {secret} has no key password: add it, or delete the Secret to have a new password made"
            )
        }
    };
    Some(Obstacle::AuthSecretMissing(message))
}

/// Tells that the spec breaks rules. Nothing else is done until it changes.
async fn refuse(
    ctx: &Context,
    object: &Arc<CacheCluster>,
    invalid: &InvalidSpec,
) -> Result<Duration, ReconcileError> {
    if tell(ctx, object, &Outcome::Invalid(invalid)).await? {
        ctx.events
            .publish(object, EventReason::InvalidSpec, None, invalid.to_string());
    }
    Ok(RECHECK)
}

async fn tell_apply_failed(
    ctx: &Context,
    object: &Arc<CacheCluster>,
    cluster: &ValidCluster,
    view: &View,
    plan: &Plan,
    error: &ApplyError,
) -> Result<(), ReconcileError> {
    if matches!(error, ApplyError::NameTaken { .. } | ApplyError::Refused { .. }) {
        let obstacle = Some(Obstacle::ApplyFailed(error.to_string()));
        tell(
            ctx,
            object,
            &Outcome::Seen {
                cluster,
                view,
                plan,
                obstacle,
            },
        )
        .await?;
    }
    Ok(())
}

/// Writes the status where it changed. Returns whether the reason of Ready is another than before.
async fn tell(
    ctx: &Context,
    object: &Arc<CacheCluster>,
    outcome: &Outcome<'_>,
) -> Result<bool, ReconcileError> {
    let key = ClusterKey::from(object.as_ref());
    let Some(uid) = object.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()) else {
        return Ok(false);
    };
    let cached = object.status.clone().unwrap_or_default();
    let written = ctx
        .memory
        .get(&key, &uid)
        .status
        .filter(|(_, at)| at.elapsed() < STATUS_LAG);
    let previous = written.map_or(cached, |(written, _)| written);
    let generation = object.metadata.generation.unwrap_or_default();
    let next = status(&previous, generation, outcome, &Time(Timestamp::now()));
    if next == previous {
        return Ok(false);
    }
    let body = json!({
        "apiVersion": CacheCluster::api_version(&()),
        "kind": CacheCluster::kind(&()),
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": object.metadata.uid},
        "status": next,
    });
    let params = PatchParams {
        force: true,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let api: Api<CacheCluster> = Api::namespaced(ctx.client.clone(), &key.namespace);
    ctx.metrics.wrote("CacheCluster", "apply_status");
    match api.patch_status(&key.name, &params, &Patch::Apply(&body)).await {
        Ok(_) => {}
        // The cluster is gone, or another one has its name.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return Ok(false),
        Err(error) => return Err(ReconcileError::Status(Box::new(error))),
    }
    let news = ready_reason(&previous) != ready_reason(&next);
    ctx.memory.update(&key, &uid, |remembered| {
        remembered.status = Some((next, tokio::time::Instant::now()));
    });
    Ok(news)
}

fn ready_reason(status: &CacheClusterStatus) -> Option<&str> {
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == ConditionType::Ready.as_str());
    ready
        .map(|condition| condition.reason.as_str())
        .filter(|reason| !reason.is_empty())
}
