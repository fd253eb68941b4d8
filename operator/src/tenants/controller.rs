//! Runs passes: which cluster when. Wake-ups that come close together are one pass, so that many tenants are one document.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::error::TenantsError;
use super::memory::Tenancy;
use super::reconcile::pass;
use crate::key::ClusterKey;

/// Wake-ups that come within this time are looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// A pass that hangs is given up.
const PASS_MAX: Duration = Duration::from_mins(1);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_mins(1);

/// What is worth a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// The cluster, a tenant or a group of it changed.
    Cluster(ClusterKey),
    /// The labels of a namespace may have changed.
    Namespace(String),
    /// Something is new of the cluster's nodes: worth a pass only if tenants wait for them.
    Nodes(ClusterKey),
}

/// Runs passes until nobody can wake it any more.
pub async fn run(shell: Arc<Tenancy>, mut wakes: UnboundedReceiver<Wake>) {
    let mut due = BTreeMap::<ClusterKey, Instant>::new();
    let mut running = BTreeSet::<ClusterKey>::new();
    let mut failures = BTreeMap::<ClusterKey, u32>::new();
    let mut passes = JoinSet::new();
    loop {
        let next = due
            .iter()
            .filter(|(key, _)| !running.contains(*key))
            .map(|(_, at)| *at)
            .min();
        let wait = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            wake = wakes.recv() => {
                let Some(wake) = wake else { return };
                for key in concerned(&shell, wake) {
                    let at = Instant::now() + GATHER;
                    due.entry(key).and_modify(|due| *due = at.min(*due)).or_insert(at);
                }
            }
            () = wait => {
                let now = Instant::now();
                let ready: Vec<ClusterKey> = due
                    .iter()
                    .filter(|(key, at)| **at <= now && !running.contains(*key))
                    .map(|(key, _)| key.clone())
                    .collect();
                for key in ready {
                    due.remove(&key);
                    running.insert(key.clone());
                    passes.spawn(one(Arc::clone(&shell), key));
                }
            }
            Some(ended) = passes.join_next() => {
                let Ok((key, outcome)) = ended else {
                    // A panic is a bug; without this controller the operator ends and is started again.
                    return;
                };
                running.remove(&key);
                let delay = after(&shell, &key, outcome, &mut failures);
                if let Some(delay) = delay {
                    let at = Instant::now() + delay;
                    due.entry(key).and_modify(|due| *due = at.min(*due)).or_insert(at);
                }
            }
        }
    }
}

async fn one(shell: Arc<Tenancy>, key: ClusterKey) -> (ClusterKey, Result<Duration, TenantsError>) {
    let started = Instant::now();
    let outcome = timeout(PASS_MAX, Box::pin(pass(&shell, &key))).await;
    if let Some(scope) = shell.scopes.first() {
        scope.metrics.looked_at_tenants(started.elapsed());
    }
    debug!(cluster = %key, took = ?started.elapsed(), "looked after the tenants");
    (key, outcome.unwrap_or(Err(TenantsError::Timeout(PASS_MAX))))
}

/// When to look again; `None` for a cluster that is gone and has neither tenants nor groups.
fn after(
    shell: &Tenancy,
    key: &ClusterKey,
    outcome: Result<Duration, TenantsError>,
    failures: &mut BTreeMap<ClusterKey, u32>,
) -> Option<Duration> {
    match outcome {
        Ok(delay) => {
            failures.remove(key);
            let is_wanted = shell.cluster(key).is_some()
                || !shell.tenants_of(key).is_empty()
                || !shell.groups_of(key).is_empty();
            is_wanted.then_some(delay)
        }
        Err(error) => {
            if let Some(scope) = shell.scopes.first() {
                scope.metrics.failed("tenants", error.label());
            }
            let count = failures.entry(key.clone()).or_default();
            *count = count.saturating_add(1);
            let doublings = (*count - 1).min(16);
            let delay = BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX);
            if matches!(error, TenantsError::Changed) && *count < 10 {
                debug!(cluster = %key, %error, "looking after the tenants again");
            } else {
                warn!(cluster = %key, %error, ?delay, "can't look after the tenants");
            }
            Some(delay)
        }
    }
}

fn concerned(shell: &Tenancy, wake: Wake) -> BTreeSet<ClusterKey> {
    match wake {
        Wake::Cluster(key) => BTreeSet::from([key]),
        Wake::Namespace(namespace) => shell.clusters_of(&namespace),
        Wake::Nodes(key) => {
            let waits = nodes_wait(shell, &key);
            waits.then_some(key).into_iter().collect()
        }
    }
}

/// Whether some node has not the newest tenants, or had not when it was last looked at.
fn nodes_wait(shell: &Tenancy, key: &ClusterKey) -> bool {
    let Some((ctx, _)) = shell.cluster(key) else {
        return false;
    };
    let remembered = shell.remembered(key);
    // A pass that is under way looks itself, or is asked to look again.
    let Ok(remembered) = remembered.try_lock() else {
        return true;
    };
    let Some(stored) = &remembered.stored else {
        return false;
    };
    let version = stored.ledger.document.version;
    let reports = ctx.hub.snapshot(key).reports;
    !remembered.distributed || reports.values().any(|report| report.tenants_version < version)
}
