//! Pools of different weights, and pause.

use annulus_crds::v1alpha1::{ConditionType, Reason};
use annulus_tests::{figure, run, seconds, until};
use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;

use super::{SMALL, small};

const KEYS: u32 = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn pools_get_slots_in_proportion_to_their_weight() {
    run("pools", async |test| {
        let namespace = test.namespace().await?;
        let spec = |nodes: u32, weight: u32| {
            format!("{{{SMALL}, pools: [{{name: small, nodes: 2, weight: 100}}, {{name: big, nodes: {nodes}, weight: {weight}}}]}}")
        };
        let cache = namespace.ready_cache("demo", &spec(1, 200)).await?;
        let shares = async |nodes: usize| -> anyhow::Result<Vec<(String, u32)>> {
            let document = cache.settled(nodes, seconds(90)).await?;
            let owned = document.ring().owned_counts();
            Ok(owned.into_iter().map(|(id, slots)| (id.to_string(), slots)).collect())
        };
        let fair = |owned: &[(String, u32)], total: f64, weight: f64| {
            owned.iter().all(|(id, slots)| {
                let share = 16384.0 * if id.starts_with("demo-big") { weight } else { 100.0 } / total;
                (f64::from(*slots) - share).abs() <= share * 0.05
            })
        };
        let owned = shares(3).await?;
        figure("pools of weight 100, 100, 200", format_args!("{owned:?}"));
        ensure!(fair(&owned, 400.0, 200.0), "{owned:?}");

        let mut connection = cache.connect().await?;
        cache.fill(&mut connection, KEYS).await?;
        cache.apply(&spec(1, 100)).await?.success()?;
        until("new weight on the ring", seconds(60), async || {
            let owned = shares(3).await?;
            ensure!(fair(&owned, 300.0, 100.0), "{owned:?}");
            Ok(())
        })
        .await?;
        ensure!(cache.missing(&mut connection, KEYS).await? == 0, "keys were lost by a change of weight");

        // A pool that is emptied gives its slots away, with their keys.
        cache.apply(&spec(0, 100)).await?.success()?;
        let owned = shares(2).await?;
        ensure!(owned.iter().all(|(id, _)| id.starts_with("demo-small")), "{owned:?}");
        ensure!(cache.missing(&mut connection, KEYS).await? == 0, "keys were lost with a pool");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_cluster_is_left_alone_and_serves() {
    run("paused", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(2, "")).await?;
        cache.apply(&small(2, "pause: true")).await?.success()?;
        let paused = Reason::Paused.as_str();
        cache
            .condition(ConditionType::Progressing, "False", paused, seconds(30))
            .await?;
        let services: Api<Service> = cache.api();
        cache
            .kubectl(&[
                "label",
                "service/demo",
                "app.kubernetes.io/instance=edited",
                "--overwrite",
            ])
            .await?;
        cache.kubectl(&["delete", "pdb", "demo"]).await?;
        let mut connection = cache.connect().await?;
        // The operator reacts to such a change within a second or two; here it must not within five.
        let put_right = until("a change by the operator", seconds(5), async || {
            let labels = services.get("demo").await?.metadata.labels.context("no labels")?;
            let instance = labels.get("app.kubernetes.io/instance").map(String::as_str);
            let budgets = cache.kubectl(&["get", "pdb", "--output=name"]).await?;
            ensure!(
                instance != Some("edited") || !budgets.is_empty(),
                "nothing has changed"
            );
            Ok(())
        })
        .await;
        ensure!(put_right.is_err(), "a paused cluster was changed");
        cache.fill(&mut connection, 100).await?;
        cache.apply(&small(2, "")).await?.success()?;
        until("the changes put right after the pause", seconds(30), async || {
            let labels = services.get("demo").await?.metadata.labels.context("no labels")?;
            ensure!(
                labels.get("app.kubernetes.io/instance").map(String::as_str) == Some("demo"),
                "{labels:?}"
            );
            cache.kubectl(&["get", "pdb", "demo"]).await?;
            Ok(())
        })
        .await?;
        cache.ready(seconds(30)).await?;
        ensure!(cache.missing(&mut connection, 100).await? == 0, "keys were lost");
        Ok(())
    })
    .await;
}
