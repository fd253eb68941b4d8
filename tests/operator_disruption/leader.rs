//! The leader dies, the other leads, and nothing else changes.

use annulus_tests::{Choice, Load, Operator, alone, figure, run, seconds, until};
use anyhow::{bail, ensure};
use tokio::time::Instant;

use crate::small;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_followed_by_the_other() {
    run("leader_killed", async |test| {
        let _alone = alone().await;
        Operator::wait_available(&test.kubernetes).await?;
        ensure!(
            test.operator.pods(&test.kubernetes).await?.len() == 2,
            "the chart installs two replicas"
        );
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        let document = cache.settled(3, seconds(60)).await?;
        let lives = cache.lives().await?;
        let owned = cache.owned().await?;
        let load = Load::start(&cache.connect().await?, 2);
        let victim = test.operator.victims(&test.kubernetes, Choice::Leader).await?;
        let [leader] = victim.pods.as_slice() else {
            bail!("the leader is {victim:?}");
        };

        let begin = Instant::now();
        victim.kill(&test.kubernetes).await?;
        let next = until("another leader", seconds(20), async || {
            let next = test.operator.leader(&test.kubernetes).await?;
            ensure!(next != *leader, "{next} still holds the Lease");
            Ok(next)
        })
        .await?;
        figure(
            "leader killed, the other leads",
            format_args!("after {:.1} s", begin.elapsed().as_secs_f64()),
        );

        // The new leader works: it changes this cluster, and had changed nothing before.
        Operator::wait_available(&test.kubernetes).await?;
        ensure!(cache.document().await? == document, "the ring has changed");
        ensure!(cache.lives().await? == lives, "pods were replaced or restarted");
        let now = cache.owned().await?;
        ensure!(now == owned, "objects were {owned:#?}, are {now:#?}");
        ensure!(
            test.operator.leader(&test.kubernetes).await? == next,
            "the leader has changed again"
        );
        let operations = load.finish().await?;
        cache.apply(&small(2, "")).await?.success()?;
        cache.settled(2, seconds(60)).await?;
        figure(
            "operations of 2 clients while the leader changed",
            format_args!("{operations}, no error"),
        );
        Ok(())
    })
    .await;
}
