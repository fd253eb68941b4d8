//! `spec.autoscaling`: the number of nodes follows the memory in use.

use annulus_tests::{figure, run, seconds};
use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::small;

const VALUE_BYTES: usize = 10 << 10;
/// Of these, two nodes of 16 MiB would be full to more than 75 percent.
const KEYS: usize = 2_600;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_follow_the_memory_in_use() {
    run("autoscaling", async |test| {
        let namespace = test.namespace().await?;
        let policy = "memory: {max: 16Mi}, \
            autoscaling: {minNodes: 2, maxNodes: 3, targetMemoryPercent: 60, cooldownSeconds: 5}";
        let cache = namespace.ready_cache("demo", &small(2, policy)).await?;
        let mut connection = cache.connect().await?;
        let begin = Instant::now();
        let value = "v".repeat(VALUE_BYTES);
        for key in 0..KEYS {
            let () = redis::cmd("SET")
                .arg(format!("key:{key}"))
                .arg(&value)
                .query_async(&mut connection)
                .await?;
        }
        let filled = begin.elapsed().as_secs_f64();
        cache.settled(3, seconds(90)).await?;
        figure(
            "autoscaled from 2 to 3 nodes",
            format_args!(
                "settled {:.1} s after 25 MB were written in {filled:.1} s",
                begin.elapsed().as_secs_f64() - filled
            ),
        );
        let events = cache
            .kubectl(&["get", "events", "--field-selector", "reason=Autoscaled"])
            .await?;
        ensure!(events.contains("nodes is set to 3"), "no event: {events}");
        for key in 0..KEYS {
            let found: Option<String> = redis::cmd("GET")
                .arg(format!("key:{key}"))
                .query_async(&mut connection)
                .await?;
            ensure!(found.as_ref() == Some(&value), "key:{key} was lost");
        }

        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
        let emptied = Instant::now();
        cache.settled(2, seconds(90)).await?;
        figure(
            "autoscaled from 3 to 2 nodes",
            format_args!(
                "settled {:.1} s after all keys were removed",
                emptied.elapsed().as_secs_f64()
            ),
        );
        Result::Ok(())
    })
    .await;
}
