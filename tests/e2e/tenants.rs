//! Tenants on the real cluster: who gets in with what, who sees what, and who doesn't.

use annulus_crds::v1alpha1::TenantConditionType;
use annulus_tests::{TestNamespace, figure, run, seconds, until};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use redis::cluster_async::ClusterConnection;
use tokio::time::Instant;

use super::small;

/// Label of the namespaces that may have tenants; each test has a value of its own.
const LABEL: &str = "annulus.dev/test-tenants";

pub(crate) fn tenancy(value: &str) -> String {
    format!(
        "tenancy: {{allowedNamespaces: {{from: Selector, selector: {{matchLabels: {{{LABEL}: {value}}}}}}}, limits: {{quota: {{memory: 32Mi}}}}}}"
    )
}

pub(crate) async fn allow(namespace: &TestNamespace<'_>, value: &str) -> Result<()> {
    let label = format!("{LABEL}={value}");
    let arguments = ["label", "namespace", &namespace.name, &label, "--overwrite"];
    namespace.test.kubernetes.kubectl(&arguments).await?.success()?;
    Ok(())
}

async fn get(connection: &mut ClusterConnection, key: &str) -> Result<Option<String>> {
    Ok(redis::cmd("GET").arg(key).query_async(connection).await?)
}

async fn set(connection: &mut ClusterConnection, key: &str, value: &str) -> Result<()> {
    Ok(redis::cmd("SET")
        .arg(key)
        .arg(value)
        .query_async(connection)
        .await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_see_only_their_own() {
    run("tenants", async |test| {
        let (platform, blog, shop) = (
            test.namespace().await?,
            test.namespace().await?,
            test.namespace().await?,
        );
        let cache = platform.ready_cache("shared", &small(2, &tenancy("own"))).await?;
        let mut begin = Instant::now();
        let mut bindings = Vec::new();
        for namespace in [&blog, &shop] {
            allow(namespace, "own").await?;
            let tenant = namespace.tenant("cache");
            begin = Instant::now();
            tenant.apply(&cache, "quota: {memory: 8Mi}").await?;
            tenant.ready().await?;
            bindings.push(tenant.binding().await?);
        }
        let ready = begin.elapsed();
        ensure!(bindings[0].username != bindings[1].username, "{bindings:?}");
        ensure!(
            bindings[0].host == format!("shared.{}.svc", platform.name),
            "{bindings:?}"
        );
        let mut first = bindings[0].connect(&cache).await?;
        let mut second = bindings[1].connect(&cache).await?;
        figure(
            "CacheTenant applied, credentials work",
            format_args!("after {:.2} s", ready.as_secs_f64()),
        );
        set(&mut first, "greeting", "of the first").await?;
        ensure!(
            get(&mut second, "greeting").await?.is_none(),
            "the second sees the first's"
        );
        set(&mut second, "greeting", "of the second").await?;
        ensure!(
            get(&mut first, "greeting").await?.as_deref() == Some("of the first"),
            "overwritten"
        );
        ensure!(
            get(&mut cache.connect().await?, "greeting").await?.is_none(),
            "the cluster's own keyspace has it"
        );

        // A deleted tenant is out, and the other one is not touched.
        let begin = Instant::now();
        blog.kubectl(&["delete", "ct", "cache"]).await?;
        bindings[0].refused(&cache).await?;
        figure(
            "CacheTenant deleted, credentials refused",
            format_args!("after {:.2} s", begin.elapsed().as_secs_f64()),
        );
        ensure!(
            get(&mut second, "greeting").await?.as_deref() == Some("of the second"),
            "lost"
        );
        until("the binding is gone", seconds(30), async || {
            let left: Option<Secret> = Api::namespaced(test.kubernetes.client.clone(), &blog.name)
                .get_opt("cache-binding")
                .await?;
            ensure!(left.is_none(), "it is still there");
            Ok(())
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_not_allowed_gets_nothing() {
    run("tenants_refused", async |test| {
        let (platform, blog) = (test.namespace().await?, test.namespace().await?);
        // The webhook refuses whom the cluster doesn't take; who was there before the cluster gets past it.
        let (tenant, greedy) = (blog.tenant("cache"), blog.tenant("greedy"));
        for (tenant, quota) in [
            (&tenant, "quota: {memory: 8Mi}"),
            (&greedy, "quota: {memory: 33Mi}"),
        ] {
            tenant
                .try_apply(&platform.name, "shared", quota)
                .await?
                .success()?;
        }
        let cache = platform
            .ready_cache("shared", &small(1, &tenancy("refused")))
            .await?;
        let not_allowed = (TenantConditionType::Accepted, "False", "NamespaceNotAllowed");
        tenant
            .condition(not_allowed.0, not_allowed.1, not_allowed.2)
            .await?;
        ensure!(tenant.binding().await.is_err(), "it has a binding");
        until("the cluster counts the refusal", seconds(20), async || {
            let told = cache.get().await?.status.and_then(|status| status.tenants);
            let told = told.context("it tells nothing of tenants")?;
            ensure!(told.refused == 2 && told.bound == 0, "{told:?}");
            Ok(())
        })
        .await?;

        // The label comes, and goes again.
        allow(&blog, "refused").await?;
        tenant.ready().await?;
        let binding = tenant.binding().await?;
        binding.connect(&cache).await?;
        allow(&blog, "no-more").await?;
        tenant
            .condition(not_allowed.0, not_allowed.1, not_allowed.2)
            .await?;
        binding.refused(&cache).await?;

        // More than the cluster gives anybody.
        allow(&blog, "refused").await?;
        greedy
            .condition(TenantConditionType::Accepted, "False", "QuotaTooHigh")
            .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_replaces_the_old_one_while_both_work() {
    run("tenants_rotation", async |test| {
        let platform = test.namespace().await?;
        let cache = platform.ready_cache("shared", &small(1, "")).await?;
        let tenant = platform.tenant("cache");
        tenant.apply(&cache, "rotation: {overlap: 15s}").await?;
        tenant.ready().await?;
        let old = tenant.binding().await?;
        let mut open = old.connect(&cache).await?;
        set(&mut open, "kept", "yes").await?;
        tenant.rotate("1").await?;
        let new = until("a new password", seconds(10), async || {
            let new = tenant.binding().await?;
            ensure!(new != old, "it is the old one");
            Ok(new)
        })
        .await?;
        for binding in [&new, &old] {
            let mut connection = binding.connect(&cache).await?;
            ensure!(
                get(&mut connection, "kept").await?.as_deref() == Some("yes"),
                "another keyspace"
            );
        }
        tokio::time::sleep(seconds(15)).await;
        old.refused(&cache).await?;
        ensure!(
            get(&mut open, "kept").await?.as_deref() == Some("yes"),
            "an open connection was closed"
        );
        new.connect(&cache).await?;
        Ok(())
    })
    .await;
}
