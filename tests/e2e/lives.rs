//! A node's death and its next life.

use annulus_tests::{Cache, figure, kill, processes, run, seconds, until};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::small;

const KEYS: u32 = 300;

/// After `end` has ended the life of demo-1, the next one gets its place in the ring. Only its keys are gone, and not even
/// those if it was asked to end.
async fn replaced(
    cache: &Cache<'_>,
    how: &str,
    is_asked: bool,
    end: impl AsyncFnOnce(Pod) -> Result<()>,
) -> Result<()> {
    let before = cache.document().await?;
    let old = before
        .members
        .iter()
        .find(|member| member.id.as_str() == "demo-1")
        .context("demo-1 is no member")?;
    let lives = cache.lives().await?;
    let mut connection = cache.connect().await?;
    cache.fill(&mut connection, KEYS).await?;
    let pod = cache.pods().await?.remove("demo-1").context("no pod demo-1")?;

    let begin = Instant::now();
    end(pod).await?;
    let document = until("new life of demo-1 in the ring", seconds(60), async || {
        let document = cache.document().await?;
        let new = document
            .members
            .iter()
            .find(|member| member.id == old.id)
            .context("demo-1 is no member")?;
        ensure!(new.incarnation != old.incarnation, "it is still the old life");
        Ok(document)
    })
    .await?;
    ensure!(
        document.epoch > before.epoch,
        "epoch {} came after {}",
        document.epoch,
        before.epoch
    );
    cache.settled(3, seconds(60)).await?;
    let elapsed = begin.elapsed();
    cache.agreed().await?;
    let now = cache.lives().await?;
    for (name, life) in &lives {
        ensure!(
            (now.get(name) == Some(life)) == (name != "demo-1"),
            "{name} was {life:?}, is {:?}",
            now.get(name)
        );
    }
    // A client of before finds its way too.
    let missing = cache.missing(&mut connection, KEYS).await?;
    let gone_max = if is_asked { 0 } else { KEYS * 2 / 3 };
    ensure!(
        missing <= gone_max,
        "{missing} of {KEYS} keys are gone, at most {gone_max} may be"
    );
    cache.fill(&mut connection, KEYS).await?;
    ensure!(
        cache.missing(&mut connection, KEYS).await? == 0,
        "the new life forgets"
    );
    figure(
        how,
        format_args!(
            "Ready again after {:.1} s, {missing} of {KEYS} keys gone with it",
            elapsed.as_secs_f64()
        ),
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_is_replaced() {
    run("deleted_pod", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        replaced(&cache, "pod deleted", true, async |pod| {
            cache
                .kubectl(&["delete", "pod", &pod.name_any(), "--wait=false"])
                .await
                .map(drop)
        })
        .await?;
        replaced(&cache, "pod deleted by force", false, async |pod| {
            let name = pod.name_any();
            cache
                .kubectl(&[
                    "delete",
                    "pod",
                    &name,
                    "--wait=false",
                    "--grace-period=0",
                    "--force",
                ])
                .await
                .map(drop)
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_in_place_is_a_new_life() {
    run("killed_process", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        let uid = cache.pods().await?["demo-1"].uid().context("no UID")?;
        if !test.kubernetes.is_development {
            figure(
                "process killed in place",
                "not tried: only on the development cluster are its processes in reach",
            );
            return Ok(());
        }
        replaced(&cache, "process killed in place", false, async |pod| {
            let found = processes(&pod.uid().context("no UID")?, "annulus-node")?;
            ensure!(found.len() == 1, "processes {found:?} of the pod");
            kill(&found)?;
            Ok(())
        })
        .await?;
        ensure!(
            cache.pods().await?["demo-1"].uid() == Some(uid),
            "the pod was replaced, not restarted in place"
        );
        Ok(())
    })
    .await;
}
