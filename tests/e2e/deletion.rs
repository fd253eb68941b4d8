//! Deletion leaves nothing behind and never hangs.

use annulus_tests::{figure, run, seconds, until};
use anyhow::ensure;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tokio::time::Instant;

use super::small;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_cluster_leaves_nothing() {
    run("deleted_cluster", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &small(3, "")).await?;
        ensure!(cache.everything().await?.len() > 10, "where is everything?");
        let begin = Instant::now();
        cache.kubectl(&["delete", "cc", "demo", "--wait=false"]).await?;
        until("nothing left of the cluster", seconds(30), async || {
            let left = cache.everything().await?;
            ensure!(left.is_empty(), "{left:#?}");
            Ok(())
        })
        .await?;
        figure(
            "cluster deleted, nothing left",
            format_args!("after {:.1} s", begin.elapsed().as_secs_f64()),
        );

        // Its name can be used again, for a cluster of its own.
        let again = namespace.ready_cache("demo", &small(1, "")).await?;
        ensure!(
            again.document().await?.members.len() == 1,
            "the new cluster has members of the old one"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_takes_everything_along() {
    run("deleted_namespace", async |test| {
        let namespace = test.namespace().await?;
        namespace.ready_cache("demo", &small(3, "")).await?;
        // One that is still being made must not hold it up either.
        namespace.cache("second", &small(2, "")).await?;
        let begin = Instant::now();
        test.kubernetes
            .kubectl(&["delete", "namespace", &namespace.name, "--wait=false"])
            .await?
            .success()?;
        let api: Api<Namespace> = Api::all(test.kubernetes.client.clone());
        until("namespace gone", seconds(60), async || {
            let left = api.get_opt(&namespace.name).await?;
            ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
            Ok(())
        })
        .await?;
        figure(
            "namespace with two clusters deleted",
            format_args!("gone after {:.1} s", begin.elapsed().as_secs_f64()),
        );
        Ok(())
    })
    .await;
}
