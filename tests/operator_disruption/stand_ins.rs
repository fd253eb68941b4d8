//! Hundreds of clusters of three nodes at once, with stand-ins for the nodes: what they cost the operator, and how soon it
//! replaces one of them while it watches all. 12 clusters, or as many as `ANNULUS_STAND_IN_CLUSTERS` says.

use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, ConditionType};
use annulus_tests::{Operator, STAND_INS_SPEC, StandIns, alone, condition, figure, run, seconds, until};
use anyhow::{Context as _, Result, ensure};
use kube::Api;
use kube::api::ListParams;
use tokio::time::{Instant, sleep};

const CLUSTERS: usize = 12;
/// As many failovers are timed, one after the other, and then as many at once.
const FAILOVERS: usize = 5;
const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// The chart's limit is 256Mi.
const MEMORY_MAX: f64 = 200.0 * MEBIBYTE;
/// Kubelets refresh their figures every 10 s or so.
const SAMPLE: Duration = Duration::from_secs(15);
const FAILOVER_MAX: Duration = Duration::from_secs(10);

fn name(number: usize) -> String {
    format!("many-{number}")
}

#[tokio::test(flavor = "multi_thread")]
async fn many_nodes() {
    run("many_nodes", async |test| {
        if !test.kubernetes.is_development {
            figure("stand-ins", "not tried: they need the development cluster");
            return Ok(());
        }
        let _alone = alone().await;
        Operator::wait_available(&test.kubernetes).await?;
        let clusters = match std::env::var("ANNULUS_STAND_IN_CLUSTERS") {
            Ok(number) => number
                .parse()
                .context("ANNULUS_STAND_IN_CLUSTERS must be a number")?,
            Err(_) => CLUSTERS,
        };
        ensure!(
            clusters > 2 * FAILOVERS,
            "at least {} clusters",
            2 * FAILOVERS + 1
        );
        let namespace = test.namespace().await?;
        let stand_ins = StandIns::start(&test.kubernetes).await?;
        let begin = Instant::now();
        apply(test, &namespace.name, clusters).await?;
        all_ready(test, &namespace.name, clusters).await?;
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

        let lose = async |number: usize| -> Result<Duration> {
            let (lost, witness) = (format!("{}-1", name(number)), format!("{}-0", name(number)));
            let silent_since = Instant::now();
            stand_ins.silence(&namespace.name, &lost)?;
            let told = stand_ins
                .told_of_loss(&namespace.name, &witness, &lost, FAILOVER_MAX)
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
                    took[FAILOVERS / 2],
                    took[FAILOVERS - 1]
                ),
            );
        }
        ensure!(
            test.operator.leader(&test.kubernetes).await? == leader,
            "the leader has changed"
        );
        test.clean_up().await?;
        stand_ins.stop().await
    })
    .await;
}

async fn apply(test: &annulus_tests::Test, namespace: &str, clusters: usize) -> Result<()> {
    let spec = format!("{{nodes: 3, replication: {{factor: 2, acks: 1}}, {STAND_INS_SPEC}}}");
    let spec: serde_json::Value = serde_yaml::from_str(&spec)?;
    let all: Vec<String> = (0..clusters)
        .map(|number| {
            serde_json::json!({
                "apiVersion": "annulus.dev/v1alpha1",
                "kind": "CacheCluster",
                "metadata": {"name": name(number)},
                "spec": spec,
            })
            .to_string()
        })
        .collect();
    test.kubernetes
        .apply(namespace, &all.join("\n---\n"))
        .await?
        .success()?;
    Ok(())
}

async fn all_ready(test: &annulus_tests::Test, namespace: &str, clusters: usize) -> Result<()> {
    let api: Api<CacheCluster> = Api::namespaced(test.kubernetes.client.clone(), namespace);
    let deadline = seconds(60 + 2 * u64::try_from(clusters)?);
    until("each cluster Ready", deadline, async || {
        let all = api.list(&ListParams::default()).await?;
        let is_ready = |cluster: &&CacheCluster| {
            condition(cluster, ConditionType::Ready).is_some_and(|ready| ready.status == "True")
        };
        let ready = all.iter().filter(is_ready).count();
        ensure!(ready == clusters, "{ready} of {clusters}");
        Ok(())
    })
    .await
}
