//! Mistakes that admission can't see give a condition, and a good spec heals the cluster: no pod is deleted by hand.

use annulus_crds::v1alpha1::{ConditionType, Reason};
use annulus_tests::{condition, figure, run, seconds, until};
use anyhow::{Context as _, ensure};
use tokio::time::Instant;

use super::small;

const KEYS: u32 = 300;

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_got_past_admission_gives_a_condition_and_is_healed() {
    run("past_admission", async |test| {
        let namespace = test.namespace().await?;
        let spec = |limit: &str| {
            format!(
                "{{memory: {{max: 100Mi}}, pools: [{{name: a, nodes: 2, \
                 resources: {{requests: {{cpu: 10m, memory: 64Mi}}, limits: {{memory: {limit}}}}}}}]}}"
            )
        };
        let cache = namespace.ready_cache("demo", &spec("160Mi")).await?;
        let lives = cache.lives().await?;
        let mut connection = cache.connect().await?;
        cache.fill(&mut connection, KEYS).await?;

        // A pool's own limit is compared with memory.max by the operator alone.
        cache.apply(&spec("96Mi")).await?.success()?;
        let reason = Reason::InvalidSpec.as_str();
        let message = cache
            .condition(ConditionType::Ready, "False", reason, seconds(30))
            .await?;
        figure("past admission", &message);
        ensure!(
            message.contains("memory") && message.contains("pools"),
            "the message does not help: {message}"
        );
        ensure!(
            cache.missing(&mut connection, KEYS).await? == 0,
            "a bad spec stopped the nodes"
        );

        cache.apply(&spec("160Mi")).await?.success()?;
        cache.ready(seconds(30)).await?;
        ensure!(cache.lives().await? == lives, "pods were replaced or restarted");
        ensure!(cache.missing(&mut connection, KEYS).await? == 0, "keys were lost");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_born_with_a_missing_image_is_healed() {
    run("born_with_missing_image", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace
            .cache("demo", &small(2, "image: 'annulus-node:no-such-tag'"))
            .await?;
        let reason = Reason::WaitingForNodes.as_str();
        cache
            .condition(ConditionType::Progressing, "True", reason, seconds(30))
            .await?;
        until("a condition that names the image", seconds(60), async || {
            let cluster = cache.get().await?;
            let found = condition(&cluster, ConditionType::Ready).context("no condition Ready")?;
            ensure!(
                found.message.contains("no-such-tag") || found.message.contains("mage"),
                "{}",
                found.message
            );
            figure("missing image", &found.message);
            Ok(())
        })
        .await?;

        let begin = Instant::now();
        cache.apply(&small(2, "")).await?.success()?;
        cache.ready(seconds(90)).await?;
        figure(
            "missing image healed by a good spec",
            format_args!("after {:.1} s", begin.elapsed().as_secs_f64()),
        );
        cache.agreed().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_does_not_take_a_running_cluster_down() {
    run("update_to_missing_image", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        cache.apply(&small(3, "image: 'annulus-node:no-such-tag'")).await?.success()?;
        // One pod is replaced, does not start, and holds up the others.
        until("a pod with the missing image", seconds(60), async || {
            let waiting = cache.kubectl(&["get", "pods", "--output=jsonpath={..state.waiting.reason}"]).await?;
            ensure!(waiting.contains("Image"), "{waiting}");
            Ok(())
        })
        .await?;
        let running = async || -> anyhow::Result<usize> {
            let ready = "--output=jsonpath={range .items[*]}{.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
            Ok(cache.kubectl(&["get", "pods", ready]).await?.lines().filter(|line| *line == "True").count())
        };
        let reason = Reason::WaitingForNodes.as_str();
        let mut message = String::new();
        for reason in [reason, Reason::NodeUnreachable.as_str()] {
            if let Ok(found) = cache.condition(ConditionType::Ready, "False", reason, seconds(20)).await {
                message = found;
                break;
            }
        }
        figure("update to a missing image", &message);
        ensure!(running().await? == 2, "{} of 3 pods still serve", running().await?);

        cache.apply(&small(3, "")).await?.success()?;
        cache.ready(seconds(90)).await?;
        cache.settled(3, seconds(90)).await?;
        cache.agreed().await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_password_is_waited_for() {
    run("missing_password", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace
            .cache("demo", &small(1, "auth: {secretRef: {name: mine}}"))
            .await?;
        let reason = Reason::AuthSecretMissing.as_str();
        let message = cache
            .condition(ConditionType::Ready, "False", reason, seconds(30))
            .await?;
        ensure!(
            message.contains("mine") && message.contains("password"),
            "{message}"
        );
        figure("missing password", &message);
        cache
            .kubectl(&[
                "create",
                "secret",
                "generic",
                "mine",
                "--from-literal=password=open-sesame",
            ])
            .await?;
        cache.ready(seconds(150)).await?;
        let address = format!("redis://:open-sesame@{}:6379", cache.service_ip().await?);
        let client = redis::Client::open(address)?;
        until("an answer to the password", seconds(10), async || {
            let mut connection = client.get_multiplexed_async_connection().await?;
            let pong: String = redis::cmd("PING").query_async(&mut connection).await?;
            ensure!(pong == "PONG", "{pong}");
            Ok(())
        })
        .await?;
        Ok(())
    })
    .await;
}
