//! Idle means idle: a healthy, unchanged cluster causes no API writes and no commands to nodes.

use std::collections::BTreeMap;

use annulus_tests::{AuditLog, Operator, alone, figure, run, seconds, until};
use anyhow::ensure;
use tokio::time::sleep;

use crate::small;

/// Replies and commands of all nodes, the readiness probes' and this test's own not among them.
fn commands(page: &str) -> Vec<&str> {
    page.lines()
        .filter(|line| line.starts_with("annulus_commands_total"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_cluster_causes_no_writes() {
    run("idle", async |test| {
        let _alone = alone().await;
        Operator::wait_available(&test.kubernetes).await?;
        let Some(audit) = AuditLog::of(&test.kubernetes) else {
            return Ok(());
        };
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        cache.settled(3, seconds(60)).await?;
        // Earlier tests' namespaces may still be ending, and the operator of clusters in them still be busy.
        until("ends of other namespaces", seconds(120), async || {
            let ending = test
                .kubernetes
                .kubectl(&[
                    "get",
                    "namespaces",
                    "--field-selector=status.phase=Terminating",
                    "--output=name",
                ])
                .await?
                .success()?;
            ensure!(ending.trim().is_empty(), "{ending}");
            Ok(())
        })
        .await?;
        // Events of the start are still being written about for a moment.
        let quiet = async |count: u64| -> anyhow::Result<Vec<String>> {
            let from = audit.mark().await?;
            sleep(seconds(count)).await;
            let to = audit.mark().await?;
            let requests = audit.between(&from, &to).await?;
            Ok(requests
                .iter()
                .filter(|request| request.is_from(&test.operator.user) && request.is_write())
                .map(annulus_tests::Request::describe)
                .collect())
        };
        for _ in 0..20 {
            if quiet(3).await?.is_empty() {
                break;
            }
        }
        let mut before = BTreeMap::new();
        for pod in cache.pods().await?.into_keys() {
            before.insert(pod.clone(), cache.metrics(&pod).await?);
        }
        let objects = cache.everything().await?;
        let writes = quiet(60).await?;
        figure(
            "API writes of the operator in one idle minute, its Lease apart",
            writes.len(),
        );
        ensure!(writes.is_empty(), "{writes:#?}");
        let after = cache.everything().await?;
        ensure!(objects == after, "objects were {objects:#?}, are {after:#?}");
        for (pod, page) in before {
            let now = cache.metrics(&pod).await?;
            ensure!(
                commands(&page) == commands(&now),
                "{pod} was sent commands: {:?}",
                commands(&now)
            );
        }
        Ok(())
    })
    .await;
}
