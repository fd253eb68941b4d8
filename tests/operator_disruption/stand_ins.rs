//! Hundreds of clusters of three nodes at once, with stand-ins for the nodes: what they cost the operator, and how soon it
//! replaces one of them while it watches all. 12 clusters, or as many as `ANNULUS_STAND_IN_CLUSTERS` says.

use std::time::Duration;

use annulus_tests::{Operator, STAND_INS_SPEC, StandIns, Test, alone, figure, run, seconds};
use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::many::{self, MEBIBYTE, MEMORY_MAX, SAMPLE};

const CLUSTERS: u32 = 12;
/// As many failovers are timed, one after the other, and then as many at once.
const FAILOVERS: u32 = 5;
const FAILOVER_MAX: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes() {
    run("many_nodes", async |test| {
        if !test.kubernetes.is_development {
            figure("stand-ins", "not tried: they need the development cluster");
            return Ok(());
        }
        let _alone = alone().await;
        Operator::wait_available(&test.kubernetes).await?;
        let clusters = many::wanted("ANNULUS_STAND_IN_CLUSTERS", CLUSTERS)?;
        ensure!(
            clusters > 2 * FAILOVERS,
            "at least {} clusters",
            2 * FAILOVERS + 1
        );
        let namespace = test.namespace().await?;
        let stand_ins = StandIns::start(&test.kubernetes).await?;
        // Also after a failure: nobody else would end what is on that machine, or take it away.
        let measured = measure(test, &namespace.name, &stand_ins, clusters).await;
        test.clean_up().await?;
        stand_ins.stop().await?;
        measured
    })
    .await;
}

async fn measure(test: &Test, namespace: &str, stand_ins: &StandIns, clusters: u32) -> Result<()> {
    let begin = Instant::now();
    let spec = format!("{{nodes: 3, replication: {{factor: 2, acks: 1}}, {STAND_INS_SPEC}}}");
    many::apply(test, namespace, clusters, &spec).await?;
    let deadline = seconds(60 + 2 * u64::from(clusters));
    many::ready(test, namespace, clusters, deadline).await?;
    figure(
        &format!("{clusters} clusters of 3 stand-ins Ready"),
        format_args!("after {:.1} s", begin.elapsed().as_secs_f64()),
    );

    sleep(SAMPLE).await;
    // A machine that is busy with making hundreds of clusters may have changed it.
    let leader = test.operator.leader(&test.kubernetes).await?;
    let before = test.operator.usage(&test.kubernetes).await?;
    let sampled = Instant::now();
    sleep(2 * SAMPLE).await;
    let after = test.operator.usage(&test.kubernetes).await?;
    let elapsed = sampled.elapsed().as_secs_f64();
    for (pod, usage) in &after {
        let role = if *pod == leader { "leader" } else { "follower" };
        let cpu = before
            .get(pod)
            .map_or(0.0, |before| usage.cpu_seconds - before.cpu_seconds);
        figure(
            &format!("{role} that watches {} nodes", 3 * clusters),
            format_args!(
                "{:.1} MiB, {:.1} % of one CPU",
                usage.memory_bytes / MEBIBYTE,
                cpu / elapsed * 100.0
            ),
        );
        ensure!(usage.memory_bytes < MEMORY_MAX, "{pod} uses {usage:?}");
    }

    let lose = async |number: u32| -> Result<Duration> {
        let (lost, witness) = (
            format!("{}-1", many::name(number)),
            format!("{}-0", many::name(number)),
        );
        let silent_since = Instant::now();
        stand_ins.silence(namespace, &lost)?;
        let told = stand_ins
            .told_of_loss(namespace, &witness, &lost, FAILOVER_MAX)
            .await?;
        Ok(told.duration_since(silent_since))
    };
    let mut alone = Vec::new();
    for number in 0..FAILOVERS {
        alone.push(lose(number).await?);
    }
    let together = futures::future::try_join_all((FAILOVERS..2 * FAILOVERS).map(&lose)).await?;
    for (what, mut took) in [("one after the other", alone), ("at once", together)] {
        took.sort_unstable();
        figure(
            &format!("{FAILOVERS} nodes of {} that fall silent {what}", 3 * clusters),
            format_args!(
                "replaced after {:.2?}, at most {:.2?}",
                took[took.len() / 2],
                took[took.len() - 1]
            ),
        );
    }
    ensure!(
        test.operator.leader(&test.kubernetes).await? == leader,
        "the leader has changed"
    );
    Ok(())
}
