//! What this node tells the operator about itself.

use std::sync::Arc;
use std::time::Duration;

use annulus_proto::v1;
use futures::Stream;
use futures::stream::unfold;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::PeerContext;
use crate::tenants::Tenant;

/// Changes that come within this time of each other share a report.
const GAP_MIN: Duration = Duration::from_millis(20);

/// What a watcher may ask for.
const INTERVAL_MIN: Duration = Duration::from_millis(50);
const INTERVAL_MAX: Duration = Duration::from_mins(1);

/// The node's state at this moment.
pub fn report(context: &PeerContext) -> v1::NodeReport {
    let progress = context.state.progress();
    let totals = context.node.stats.totals();
    let mut sender = context.sender();
    sender.epoch = progress.epoch.0;
    v1::NodeReport {
        sender: Some(sender),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: progress.is_ready(),
        keys: context.node.store.all_keys(),
        used_bytes: context.node.store.used_bytes(),
        budget_bytes: context.node.store.budget_bytes(),
        connections: context.node.stats.connections_open(),
        activated: progress.activated.ranges().map(Into::into).collect(),
        settled: progress.settled,
        hits: totals.keyspace_hits,
        misses: totals.keyspace_misses,
        commands: totals.commands_processed,
        evictions: totals.evicted_keys,
        handoff_bytes: context.counters.bytes_in.get(),
        declared: declared(context),
        leaving: context.state.is_leaving(),
        tenants_version: context.node.tenants.version(),
        tenants: tenants(context),
        handoff_waits: if progress.settled {
            String::new()
        } else {
            waits(context)
        },
    }
}

fn tenants(context: &PeerContext) -> Vec<v1::TenantUsage> {
    let store = &context.node.store;
    let usage = |tenant: &Arc<Tenant>| {
        let (space, counters) = (tenant.space(), &tenant.space().counters);
        v1::TenantUsage {
            tenant: tenant.id().0,
            keys: space.keys(),
            used_bytes: store.own_bytes_of(space),
            connections: tenant.connections().into(),
            hits: counters.hits.get(),
            misses: counters.misses.get(),
            commands: counters.commands.get(),
            evictions: counters.evictions.get(),
            throttled: counters.throttled.get(),
        }
    };
    context.node.tenants.all().iter().map(usage).collect()
}

fn declared(context: &PeerContext) -> Vec<v1::Copies> {
    let declared = context.state.declared();
    let copies = declared.into_iter().map(|(id, slots)| v1::Copies {
        node_id: id.to_string(),
        slots: slots.ranges().map(Into::into).collect(),
    });
    copies.collect()
}

fn waits(context: &PeerContext) -> String {
    let waits = context.waits.lock();
    waits
        .iter()
        .next()
        .map(|(source, why)| format!("slots from {source} wait: {why}"))
        .unwrap_or_default()
}

/// A report at once, then one every interval, and soon after every change that the operator acts on.
pub fn reports(context: Arc<PeerContext>, interval_ms: u32) -> impl Stream<Item = v1::NodeReport> {
    let interval = Duration::from_millis(interval_ms.into()).clamp(INTERVAL_MIN, INTERVAL_MAX);
    let changes = context.state.changes();
    unfold(
        (context, changes, None),
        move |(context, mut changes, last)| async move {
            if let Some(last) = last {
                wait(&mut changes, last, interval).await;
            }
            changes.mark_unchanged();
            let report = report(&context);
            Some((report, (context, changes, Some(Instant::now()))))
        },
    )
}

async fn wait(changes: &mut watch::Receiver<u64>, last: Instant, interval: Duration) {
    if timeout_at(last + interval, changes.changed())
        .await
        .is_ok_and(|changed| changed.is_ok())
    {
        sleep((last + GAP_MIN).saturating_duration_since(Instant::now())).await;
    }
}
