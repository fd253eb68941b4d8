//! Runs reconciles: which cluster when, how many at once, and what follows an error.

use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::CacheCluster;
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::Controller;
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::context::Context;
use crate::key::ClusterKey;
use crate::reconcile::{ReconcileError, Retry, reconcile};

/// A reconcile that hangs (the API server does not answer) is given up.
const RECONCILE_MAX: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_millis(100);
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_mins(1);
/// How often connections of clusters whose deletion was missed are looked for.
const SWEEP: Duration = Duration::from_secs(30);

/// Reconciles the clusters of one scope until the future is dropped. `wakes` are clusters to look at.
pub async fn run(ctx: Arc<Context>, wakes: UnboundedReceiver<ClusterKey>, concurrency: u16) {
    let sweep = sweep(Arc::clone(&ctx));
    let wakes = futures::stream::unfold(wakes, |mut wakes| async move {
        wakes.recv().await.map(|key| (key.object_ref(), wakes))
    });
    // Every trigger comes over the one channel: the reflectors send what they see, the hub what nodes say. So
    // a watch that fails delays no other.
    let reconciles = Controller::for_stream(futures::stream::pending(), ctx.caches.clusters.clone())
        .with_config(controller::Config::default().concurrency(concurrency))
        .reconcile_on(wakes)
        .run(once, after_error, Arc::clone(&ctx))
        .for_each(|result| {
            if let Err(controller::Error::ObjectNotFound(object)) = result {
                forget(&ctx, &object.into_kind_unchecked(()));
            }
            std::future::ready(())
        });
    futures::future::join(reconciles, sweep).await;
}

async fn once(object: Arc<CacheCluster>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    let key = ClusterKey::from(object.as_ref());
    let started = Instant::now();
    let result = timeout(RECONCILE_MAX, Box::pin(reconcile(&ctx, &object))).await;
    ctx.metrics.reconciled(started.elapsed());
    let recheck = result.unwrap_or(Err(ReconcileError::Timeout(RECONCILE_MAX)))?;
    remember_failures(&ctx, &object, |_| 0);
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds since 1970 are exact in a double"
    )]
    ctx.metrics
        .succeeded(&key, Timestamp::now().as_millisecond() as f64 / 1_000.0);
    debug!(cluster = %key, took = ?started.elapsed(), "reconciled");
    Ok(Action::requeue(jittered(recheck)))
}

#[expect(clippy::needless_pass_by_value, reason = "the controller's signature")]
fn after_error(object: Arc<CacheCluster>, error: &ReconcileError, ctx: Arc<Context>) -> Action {
    let (step, variant) = error.label();
    ctx.metrics.failed(step, variant);
    let failures = remember_failures(&ctx, &object, |failures| failures.saturating_add(1));
    let delay = match error.retry() {
        Retry::Soon if failures < 10 => SOON,
        Retry::Soon | Retry::Backoff => backoff(failures),
    };
    let cluster = ClusterKey::from(object.as_ref());
    if error.retry() == Retry::Soon && failures < 10 {
        debug!(%cluster, %error, step, variant, "trying again at once");
    } else {
        warn!(%cluster, %error, step, variant, ?delay, "reconcile failed");
    }
    Action::requeue(jittered(delay))
}

fn remember_failures(ctx: &Context, object: &CacheCluster, change: impl FnOnce(u32) -> u32) -> u32 {
    let Some(uid) = object.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()) else {
        return 0;
    };
    ctx.memory.update(&ClusterKey::from(object), &uid, |remembered| {
        remembered.failures = change(remembered.failures);
        remembered.failures
    })
}

/// Doubles with each failure in a row.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

/// Up to a fifth longer, so that clusters which failed together do not come back together.
fn jittered(delay: Duration) -> Duration {
    let share = getrandom::u32().map_or(0.0, |random| f64::from(random) / f64::from(u32::MAX));
    delay.mul_f64(1.0 + share * 0.2)
}

/// Closes what a cluster that is gone has left open.
fn forget(ctx: &Context, object: &ObjectRef<CacheCluster>) {
    let key = ClusterKey::from(object);
    ctx.hub.forget(&key);
    ctx.service_paths.forget(&key);
    ctx.memory.forget(&key);
    ctx.summaries.forget(&key);
    ctx.metrics.forget(&key);
}

async fn sweep(ctx: Arc<Context>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        for key in ctx.memory.keys() {
            let object = key.object_ref();
            if ctx.caches.clusters.get(&object).is_none() {
                forget(&ctx, &object);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_a_minute() {
        let seconds: Vec<_> = [1, 2, 3, 8, 9, 1_000]
            .into_iter()
            .map(|n| backoff(n).as_secs_f64())
            .collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 60.0, 60.0, 60.0]);
    }

    #[test]
    fn jitter_only_lengthens() {
        for _ in 0..100 {
            let delay = jittered(Duration::from_secs(10));
            assert!((Duration::from_secs(10)..=Duration::from_secs(12)).contains(&delay));
        }
    }
}
