//! The operator is killed in the middle of its work; what is left is finished by its successor.

use annulus_ring::RingDocument;
use annulus_tests::{Cache, Choice, Load, Operator, alone, appeared, figure, run, seconds, until};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Api;
use tokio::time::Instant;

use crate::small;

const KEYS: u32 = 2_000;

/// Objects that a finished cluster owns.
const WHOLE: [(&str, &str); 8] = [
    ("ConfigMap", "demo-ring"),
    ("NetworkPolicy", "demo-annulus"),
    ("PodDisruptionBudget", "demo"),
    ("Secret", "demo-auth"),
    ("Service", "demo"),
    ("Service", "demo-nodes"),
    ("ServiceAccount", "demo"),
    ("StatefulSet", "demo"),
];

async fn whole(cache: &Cache<'_>, nodes: usize) -> Result<RingDocument> {
    let document = cache.settled(nodes, seconds(120)).await?;
    cache.agreed().await?;
    let owned = cache.owned().await?;
    for (kind, name) in WHOLE {
        ensure!(
            owned.contains_key(&(kind.to_owned(), name.to_owned())),
            "no {kind} {name}: {:?}",
            owned.keys()
        );
    }
    let mut connection = cache.connect().await?;
    cache.fill(&mut connection, 100).await?;
    ensure!(cache.missing(&mut connection, 100).await? == 0, "keys were lost");
    Ok(document)
}

/// How far a new cluster has come when the operator dies.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Applied,
    StatefulSetMade,
    RingStored,
}

impl Moment {
    const ALL: [Self; 3] = [Self::Applied, Self::StatefulSetMade, Self::RingStored];

    async fn reached(self, cache: &Cache<'_>) -> Result<()> {
        let deadline = seconds(30);
        match self {
            Self::Applied => Ok(()),
            Self::StatefulSetMade => appeared::<StatefulSet>(cache.api(), "demo", deadline).await,
            Self::RingStored => until("a ring", deadline, async || cache.document().await.map(drop)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_a_cluster_is_created() {
    run("crash_create", async |test| {
        let _alone = alone().await;
        for moment in Moment::ALL {
            Operator::wait_available(&test.kubernetes).await?;
            let victims = test.operator.victims(&test.kubernetes, Choice::All).await?;
            let namespace = test.namespace().await?;
            let cache = namespace.cache("demo", &small(2, "")).await?;
            moment.reached(&cache).await?;
            let begin = Instant::now();
            victims.kill(&test.kubernetes).await?;
            whole(&cache, 2).await?;
            figure(
                &format!("operator killed in making a cluster ({moment:?})"),
                format_args!("whole after {:.1} s", begin.elapsed().as_secs_f64()),
            );
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_slots_move() {
    run("crash_scale", async |test| {
        let _alone = alone().await;
        Operator::wait_available(&test.kubernetes).await?;
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        let mut epoch = cache.settled(3, seconds(60)).await?.epoch;
        let mut connection = cache.connect().await?;
        cache.fill(&mut connection, KEYS).await?;
        let load = Load::start(&cache.connect().await?, 2);
        for nodes in [4_u32, 3] {
            Operator::wait_available(&test.kubernetes).await?;
            let victims = test.operator.victims(&test.kubernetes, Choice::All).await?;
            cache
                .kubectl(&["scale", "cc/demo", &format!("--replicas={nodes}")])
                .await?;
            until("slots that move", seconds(60), async || {
                let document = cache.document().await?;
                ensure!(
                    document.epoch > epoch && !document.handoffs.is_empty(),
                    "epoch {}",
                    document.epoch
                );
                Ok(())
            })
            .await?;
            let begin = Instant::now();
            victims.kill(&test.kubernetes).await?;
            epoch = whole(&cache, usize::try_from(nodes)?).await?.epoch;
            let missing = cache.missing(&mut connection, KEYS).await?;
            ensure!(missing == 0, "{missing} of {KEYS} keys were lost");
            figure(
                &format!("operator killed while slots moved to {nodes} nodes"),
                format_args!("whole after {:.1} s", begin.elapsed().as_secs_f64()),
            );
        }
        load.finish().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edited_while_nobody_led() {
    run("edited_while_nobody_led", async |test| {
        let _alone = alone().await;
        Operator::wait_available(&test.kubernetes).await?;
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        let document = cache.settled(3, seconds(60)).await?;
        let lives = cache.lives().await?;
        let sets: Api<StatefulSet> = cache.api();
        let wanted = sets.get("demo").await?;

        let victim = test.operator.victims(&test.kubernetes, Choice::Leader).await?;
        victim.kill(&test.kubernetes).await?;
        cache
            .kubectl(&["set", "image", "statefulset/demo", "node=example.com/not-this:1"])
            .await?;
        // Now every pod looks outdated, but only by a template that nobody asked for in the spec.
        until(
            "the edited template noticed by Kubernetes",
            seconds(10),
            async || {
                let status = sets.get("demo").await?.status.context("no status")?;
                let before = wanted
                    .status
                    .as_ref()
                    .and_then(|status| status.update_revision.clone());
                ensure!(status.update_revision != before, "{status:?}");
                Ok(())
            },
        )
        .await?;
        until("the template put right", seconds(40), async || {
            let set = sets.get("demo").await?;
            ensure!(
                set.spec == wanted.spec,
                "the StatefulSet is {}",
                serde_json::to_string(&set.spec)?
            );
            Ok(())
        })
        .await?;
        // Work that comes after whatever the operator concluded from the edit.
        cache.kubectl(&["scale", "cc/demo", "--replicas=4"]).await?;
        let after = cache.settled(4, seconds(60)).await?;
        let mut now = cache.lives().await?;
        now.retain(|pod, _| lives.contains_key(pod));
        ensure!(
            now == lives,
            "an edit that was put right cost a pod its life: {lives:?}, now {now:?}"
        );
        for member in &document.members {
            let same = after
                .member(&member.id)
                .is_some_and(|now| now.incarnation == member.incarnation);
            ensure!(same, "{} has another incarnation", member.id);
        }
        Ok(())
    })
    .await;
}
