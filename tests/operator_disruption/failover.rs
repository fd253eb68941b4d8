//! A node dies, and the operator that is to replace it dies at the same time: its successor does it.

use annulus_ring::NodeId;
use annulus_tests::{Choice, Ledger, Operator, alone, figure, kill, node_processes, run, seconds};
use anyhow::Context as _;
use tokio::time::Instant;

use crate::small;

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_node_is_replaced() {
    run("crash_failover", async |test| {
        let _alone = alone().await;
        Operator::wait_available(&test.kubernetes).await?;
        let namespace = test.namespace().await?;
        let spec = small(3, "replication: {factor: 2, acks: 1}");
        let cache = namespace.ready_cache("demo", &spec).await?;
        let before = cache.whole(3, seconds(120)).await?;
        let ledger = Ledger::start(&cache, "ledger").await?;
        ledger.all_written(seconds(60)).await?;
        let victim: NodeId = "demo-1".parse()?;
        let pod = cache.pods().await?.remove(victim.as_str()).context("no victim")?;
        let node = node_processes(&pod)?;
        let operators = test.operator.victims(&test.kubernetes, Choice::Leader).await?;

        let at = Instant::now();
        kill(&node)?;
        operators.kill(&test.kubernetes).await?;
        ledger.all_written(seconds(60)).await?;
        Operator::wait_available(&test.kubernetes).await?;
        cache.whole(3, seconds(120)).await?;
        let findings = ledger.finish().await?;
        let (first, all) = findings.recovery(&before, &victim, at)?;
        figure(
            "a node and the leading operator killed together",
            format_args!(
                "first write on its slots after {:.2} s, on each of them after {:.2} s; {}",
                first.as_secs_f64(),
                all.as_secs_f64(),
                findings.describe()
            ),
        );
        findings.nothing_lost()
    })
    .await;
}
