//! From `kubectl apply` to a cache that every real client can use.

use annulus_tests::{CLIENTS, ClientProgram, figure, run, seconds};
use anyhow::{Context as _, ensure};
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn becomes_ready_and_serves_every_client() {
    run("becomes_ready", async |test| {
        let namespace = test.namespace().await?;
        let begin = Instant::now();
        // Nothing but the number of nodes: all the defaults.
        let cache = namespace.cache("demo", "{nodes: 3}").await?;
        let cluster = cache.ready(seconds(90)).await?;
        figure(
            "apply to Ready, 3 nodes",
            format_args!("{:.1} s", begin.elapsed().as_secs_f64()),
        );

        let view = cache.agreed().await?;
        let mut owned = std::collections::BTreeMap::<&str, u32>::new();
        for (first, last, owner) in &view.slots {
            *owned.entry(owner).or_default() += u32::from(last - first) + 1;
        }
        ensure!(owned.len() == 3, "owners {owned:?}");
        ensure!(
            owned.values().all(|slots| *slots * 3 <= 16384 * 105 / 100),
            "not balanced: {owned:?}"
        );
        figure(
            "ring of 3 nodes",
            format_args!("{} arcs, slots {:?}", view.slots.len(), owned.values()),
        );

        let status = cluster.status.context("no status")?;
        ensure!((status.nodes, status.ready_nodes) == (3, 3), "{status:?}");
        ensure!(status.endpoint.ends_with(":6379"), "{status:?}");
        ensure!(
            status.members.len() == 3 && status.members.iter().all(|member| member.ready),
            "{status:?}"
        );

        let (host, password) = (cache.service_ip().await?, cache.password().await?);
        for client in CLIENTS {
            let line = client
                .run(&test.kubernetes, &host, &password)
                .await
                .with_context(|| client.name)?;
            figure("client", line);
        }
        let intruder = ClientProgram {
            name: "redis-cli",
            keys: 10,
        };
        let refused = intruder.run(&test.kubernetes, &host, "not-the-password").await;
        ensure!(refused.is_err(), "a wrong password was let in");
        Ok(())
    })
    .await;
}
