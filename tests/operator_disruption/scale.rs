//! Many clusters at once: what they cost the operator. 20 of them, or as many as `ANNULUS_SCALE_CLUSTERS` says.

use std::collections::BTreeMap;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, ConditionType};
use annulus_tests::{Operator, Usage, alone, condition, figure, run, seconds, until};
use anyhow::{Context as _, Result, ensure};
use kube::Api;
use kube::api::ListParams;
use tokio::time::{Instant, sleep};

const CLUSTERS: u32 = 20;
const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// The chart's limit is 256Mi.
const MEMORY_MAX: f64 = 200.0 * MEBIBYTE;
/// What the idle operator may take of one CPU.
const IDLE_CPU_MAX: f64 = 0.25;
/// Kubelets refresh their figures every 10 s or so.
const SAMPLE: Duration = Duration::from_secs(15);

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
        let clusters = match std::env::var("ANNULUS_SCALE_CLUSTERS") {
            Ok(number) => number
                .parse()
                .context("ANNULUS_SCALE_CLUSTERS must be a number")?,
            Err(_) => CLUSTERS,
        };
        let namespace = test.namespace().await?;
        let leader = test.operator.leader(&test.kubernetes).await?;
        let before = test.operator.usage(&test.kubernetes).await?;
        let spec = "{nodes: 1, resources: {requests: {cpu: 1m, memory: 16Mi}, limits: {memory: 64Mi}}}";
        let spec: serde_json::Value = serde_yaml::from_str(spec)?;
        let all: Vec<String> = (0..clusters)
            .map(|number| {
                serde_json::json!({
                    "apiVersion": "annulus.dev/v1alpha1",
                    "kind": "CacheCluster",
                    "metadata": {"name": format!("many-{number}")},
                    "spec": spec,
                })
                .to_string()
            })
            .collect();

        let begin = Instant::now();
        test.kubernetes
            .apply(&namespace.name, &all.join("\n---\n"))
            .await?
            .success()?;
        figure(
            &format!("{clusters} clusters applied"),
            format_args!("after {:.1} s", begin.elapsed().as_secs_f64()),
        );
        let api: Api<CacheCluster> = Api::namespaced(test.kubernetes.client.clone(), &namespace.name);
        let states = async || -> Result<(u32, u32)> {
            let (mut reconciled, mut ready) = (0, 0);
            for cluster in api.list(&ListParams::default()).await? {
                reconciled += u32::from(condition(&cluster, ConditionType::Ready).is_some());
                ready += u32::from(
                    condition(&cluster, ConditionType::Ready).is_some_and(|ready| ready.status == "True"),
                );
            }
            Ok((reconciled, ready))
        };
        until("each cluster reconciled", seconds(120), async || {
            let (reconciled, _) = states().await?;
            ensure!(reconciled == clusters, "{reconciled} of {clusters}");
            Ok(())
        })
        .await?;
        figure(
            &format!("{clusters} clusters reconciled once"),
            format_args!("after {:.1} s", begin.elapsed().as_secs_f64()),
        );
        until(
            "each cluster Ready",
            seconds(60 + 5 * u64::from(clusters)),
            async || {
                let (_, ready) = states().await?;
                ensure!(ready == clusters, "{ready} of {clusters}");
                Ok(())
            },
        )
        .await?;
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
