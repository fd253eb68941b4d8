//! Two copies of every slot and `acks: 1`: whatever happens to one node, nothing that was acknowledged is lost.

use std::time::Duration;

use annulus_ring::NodeId;
use annulus_tests::{Cache, Ledger, figure, kill, node_processes, run, seconds, signal, until};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::small;

const VICTIM: &str = "demo-1";
/// How long every key may take to be written, on a machine that does much else.
const PATIENCE: Duration = Duration::from_mins(2);
/// What is measured here is how soon clients go on: these tests don't run beside each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
/// How long the missing copies may take.
const WHOLE: Duration = Duration::from_mins(3);
const COPIES: &str = "replication: {factor: 2, acks: 1}";

/// Something happens to demo-1 while clients write; afterwards there are three nodes again.
async fn fault(name: &str, what: &str, happens: impl AsyncFnOnce(&Cache<'_>, Pod) -> Result<()>) {
    let _alone = ONE_AT_A_TIME.lock().await;
    run(name, async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, COPIES)).await?;
        let before = cache.whole(3, WHOLE).await?;
        let victim: NodeId = VICTIM.parse()?;
        let ledger = Ledger::start(&cache, "ledger").await?;
        ledger.all_written(PATIENCE).await?;
        let pod = cache.pods().await?.remove(VICTIM).context("no victim")?;

        let at = Instant::now();
        happens(&cache, pod).await?;
        let after = until("another ring", seconds(30), async || {
            let document = cache.document().await?;
            ensure!(document.epoch > before.epoch, "epoch {}", document.epoch);
            Ok(document)
        })
        .await?;
        let restarted = after.member(&victim).is_some_and(|member| {
            before
                .member(&victim)
                .is_some_and(|old| old.incarnation != member.incarnation)
        });
        if restarted {
            let owned = after.ring().owned_counts().get(&victim).copied();
            ensure!(
                owned.is_none(),
                "an empty node came back as the owner of {owned:?} slots"
            );
        }
        cache.whole(3, WHOLE).await?;
        ledger.all_written(PATIENCE).await?;
        let findings = ledger.finish().await?;
        let (first, all) = findings.recovery(&before, &victim, at)?;
        figure(
            what,
            format_args!(
                "first write on its slots after {:.2} s, on each of them after {:.2} s; {}",
                first.as_secs_f64(),
                all.as_secs_f64(),
                findings.describe()
            ),
        );
        findings.nothing_lost()?;
        cache.agreed().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_comes_back_in_place_and_empty_and_nothing_is_lost() {
    fault("replication_kill", "copies, kill -9 of a node", async |_, pod| {
        let victims = node_processes(&pod)?;
        if victims.is_empty() {
            figure(
                "copies, kill -9 of a node",
                "not tried: its process is out of reach",
            );
        }
        kill(&victims)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_is_replaced_and_can_do_no_harm_when_it_goes_on() {
    fault(
        "replication_stop",
        "copies, SIGSTOP of a node for 10 s",
        async |cache, pod| {
            let victims = node_processes(&pod)?;
            signal(&victims, "STOP")?;
            let epoch = cache.document().await?.epoch;
            sleep(seconds(10)).await;
            let replaced = cache.document().await?.epoch > epoch;
            signal(&victims, "CONT")?;
            ensure!(
                replaced || victims.is_empty(),
                "nobody took its place within 10 s"
            );
            Ok(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_hands_over_before_it_ends() {
    fault(
        "replication_delete",
        "copies, kubectl delete pod",
        async |cache, _| {
            cache.kubectl(&["delete", "pod", VICTIM, "--wait=false"]).await?;
            Ok(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_by_force_is_replaced() {
    fault(
        "replication_force",
        "copies, kubectl delete pod --force",
        async |cache, _| {
            cache
                .kubectl(&[
                    "delete",
                    "pod",
                    VICTIM,
                    "--force",
                    "--grace-period=0",
                    "--wait=false",
                ])
                .await?;
            Ok(())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_with_copies_loses_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    run("replication_scale", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, COPIES)).await?;
        cache.whole(3, WHOLE).await?;
        let ledger = Ledger::start(&cache, "ledger").await?;
        ledger.all_written(PATIENCE).await?;
        for nodes in [4, 3] {
            let begin = Instant::now();
            cache
                .kubectl(&["scale", "cc/demo", &format!("--replicas={nodes}")])
                .await?;
            cache.whole(nodes, WHOLE).await?;
            figure(
                &format!("copies, scaled to {nodes}"),
                format_args!("whole after {:.1} s", begin.elapsed().as_secs_f64()),
            );
        }
        ledger.all_written(PATIENCE).await?;
        let findings = ledger.finish().await?;
        figure("copies, scaled 3 to 4 to 3", findings.describe());
        findings.nothing_lost()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_with_copies_loses_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    run("replication_roll", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, COPIES)).await?;
        cache.whole(3, WHOLE).await?;
        let lives = cache.lives().await?;
        let ledger = Ledger::start(&cache, "ledger").await?;
        ledger.all_written(PATIENCE).await?;
        let begin = Instant::now();
        let spec = small(
            3,
            &format!("{COPIES}, podMetadata: {{annotations: {{rolled: 'yes'}}}}"),
        );
        cache.apply(&spec).await?.success()?;
        cache.replaced(&lives, seconds(300)).await?;
        cache.whole(3, WHOLE).await?;
        figure(
            "copies, rolling update of 3 nodes",
            format_args!("whole after {:.1} s", begin.elapsed().as_secs_f64()),
        );
        ledger.all_written(PATIENCE).await?;
        let findings = ledger.finish().await?;
        figure("copies, rolling update", findings.describe());
        findings.nothing_lost()
    })
    .await;
}
