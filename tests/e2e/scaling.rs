//! `kubectl scale`, with clients at work.

use annulus_ring::RingDocument;
use annulus_tests::{Load, figure, run, seconds};
use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::small;

const KEYS: u32 = 5_000;

fn balanced(document: &RingDocument) -> Result<()> {
    let owned = document.ring().owned_counts();
    let fair = 16384.0 / f64::from(u32::try_from(owned.len())?);
    ensure!(
        owned.values().all(|slots| f64::from(*slots) <= fair * 1.05),
        "not balanced: {owned:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_keeps_every_key_and_disturbs_no_client() {
    run("scaling", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        let mut connection = cache.connect().await?;
        cache.fill(&mut connection, KEYS).await?;
        let load = Load::start(&cache.connect().await?, 4);
        let lives = cache.lives().await?;
        let mut epoch = cache.document().await?.epoch;

        for nodes in [4, 3] {
            let begin = Instant::now();
            cache
                .kubectl(&["scale", "cc/demo", &format!("--replicas={nodes}")])
                .await?;
            let document = cache.settled(nodes, seconds(120)).await?;
            figure(
                &format!("scaled to {nodes} under load"),
                format_args!("settled after {:.1} s", begin.elapsed().as_secs_f64()),
            );
            ensure!(
                document.epoch > epoch,
                "epoch {} came after {epoch}",
                document.epoch
            );
            epoch = document.epoch;
            balanced(&document)?;
            cache.agreed().await?;
            let missing = cache.missing(&mut connection, KEYS).await?;
            ensure!(
                missing == 0,
                "{missing} of {KEYS} keys were lost in scaling to {nodes}"
            );
            let columns = cache.kubectl(&["get", "cc", "demo"]).await?;
            for wanted in [
                "READY",
                "NODES",
                "READY NODES",
                "EPOCH",
                "REASON",
                "AGE",
                "True",
                "AsSpecified",
            ] {
                ensure!(columns.contains(wanted), "no {wanted} in {columns}");
            }
            let scale = cache
                .kubectl(&[
                    "get",
                    "cc",
                    "demo",
                    "--subresource=scale",
                    "--output=jsonpath={.status.replicas} {.status.selector}",
                ])
                .await?;
            ensure!(
                scale.starts_with(&format!("{nodes} ")) && scale.contains("annulus.dev/cluster=demo"),
                "{scale}"
            );
        }
        let operations = load.finish().await?;
        figure(
            "operations of 4 clients during 3 -> 4 -> 3",
            format_args!("{operations}, no error"),
        );
        let now = cache.lives().await?;
        ensure!(
            now == lives,
            "pods were replaced or restarted, or one is left over: {now:?}"
        );
        Ok(())
    })
    .await;
}
