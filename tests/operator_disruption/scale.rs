//! Many clusters at once: what they cost the operator. 20 of them, or as many as `ANNULUS_SCALE_CLUSTERS` says.

use std::collections::BTreeMap;

use annulus_tests::{Operator, Usage, alone, figure, run, seconds};
use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::many::{self, MEBIBYTE, MEMORY_MAX, SAMPLE};

const CLUSTERS: u32 = 20;
/// What the idle operator may take of one CPU.
const IDLE_CPU_MAX: f64 = 0.25;

fn total(usage: &BTreeMap<String, Usage>) -> Usage {
    usage.values().fold(Usage::default(), |sum, pod| Usage {
        memory_bytes: sum.memory_bytes + pod.memory_bytes,
        cpu_seconds: sum.cpu_seconds + pod.cpu_seconds,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clusters() {
    run("many_clusters", async |test| {
        let _alone = alone().await;
        Operator::wait_available(&test.kubernetes).await?;
        let clusters = many::wanted("ANNULUS_SCALE_CLUSTERS", CLUSTERS)?;
        let namespace = test.namespace().await?;
        let leader = test.operator.leader(&test.kubernetes).await?;
        let before = test.operator.usage(&test.kubernetes).await?;
        let spec = "{nodes: 1, resources: {requests: {cpu: 1m, memory: 16Mi}, limits: {memory: 64Mi}}}";

        let begin = Instant::now();
        many::apply(test, &namespace.name, clusters, spec).await?;
        figure(
            &format!("{clusters} clusters applied"),
            format_args!("after {:.1} s", begin.elapsed().as_secs_f64()),
        );
        many::reconciled(test, &namespace.name, clusters, seconds(120)).await?;
        figure(
            &format!("{clusters} clusters reconciled once"),
            format_args!("after {:.1} s", begin.elapsed().as_secs_f64()),
        );
        let deadline = seconds(60 + 5 * u64::from(clusters));
        many::ready(test, &namespace.name, clusters, deadline).await?;
        let elapsed = begin.elapsed();
        figure(
            &format!("{clusters} clusters Ready"),
            format_args!("after {:.1} s", elapsed.as_secs_f64()),
        );

        sleep(SAMPLE).await;
        let after = test.operator.usage(&test.kubernetes).await?;
        let rise = total(&after).cpu_seconds - total(&before).cpu_seconds;
        figure(
            &format!("operator's CPU for {clusters} clusters"),
            format_args!("{rise:.1} s until all were Ready, both replicas"),
        );
        for (pod, usage) in &after {
            let role = if *pod == leader { "leader" } else { "follower" };
            figure(
                &format!("memory of the {role} with {clusters} clusters"),
                format_args!("{:.1} MiB", usage.memory_bytes / MEBIBYTE),
            );
            ensure!(usage.memory_bytes < MEMORY_MAX, "{pod} uses {usage:?}");
        }
        sleep(SAMPLE).await;
        let idle = test.operator.usage(&test.kubernetes).await?;
        let share = (total(&idle).cpu_seconds - total(&after).cpu_seconds) / SAMPLE.as_secs_f64();
        figure(
            &format!("operator's CPU with {clusters} idle clusters"),
            format_args!("{:.1} % of one CPU", share * 100.0),
        );
        ensure!(share < IDLE_CPU_MAX, "the idle operator takes {share:.2} CPUs");
        ensure!(
            test.operator.leader(&test.kubernetes).await? == leader,
            "the leader has changed"
        );
        Ok(())
    })
    .await;
}
