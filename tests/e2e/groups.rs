//! Read-through groups on the real cluster: an origin as a pod, and clients that know nothing of it.

use annulus_tests::{Answer, Origin, TestNamespace, figure, run, seconds, until};
use anyhow::{Context as _, Result, ensure};
use redis::cluster_async::ClusterConnection;
use serde_json::json;
use tokio::time::Instant;

use super::small;
use super::tenants::{allow, tenancy};

async fn get(connection: &mut ClusterConnection, key: &str) -> Result<Option<String>> {
    Ok(redis::cmd("GET").arg(key).query_async(connection).await?)
}

/// Applies a group of keys that begin with `user:`; `spec` is what stands beside the origin's URL, `clusterRef` and the
/// prefix.
async fn try_apply(
    namespace: &TestNamespace<'_>,
    (name, cluster): (&str, (&str, &str)),
    url: &str,
    spec: serde_json::Value,
) -> Result<Answer> {
    let mut wanted = spec;
    wanted["clusterRef"] = json!({"namespace": cluster.0, "name": cluster.1});
    wanted["keyPrefix"] = json!("user:");
    wanted["origin"]["http"]["urlTemplate"] = json!(url);
    let object = json!({
        "apiVersion": "annulus.dev/v1alpha1",
        "kind": "CacheGroup",
        "metadata": {"name": name},
        "spec": wanted,
    });
    namespace
        .test
        .kubernetes
        .apply(&namespace.name, &object.to_string())
        .await
}

/// The same for one that the API server takes.
async fn apply(
    namespace: &TestNamespace<'_>,
    of: (&str, (&str, &str)),
    url: &str,
    spec: serde_json::Value,
) -> Result<()> {
    try_apply(namespace, of, url, spec).await?.success()?;
    Ok(())
}

/// Waits until the group's condition has that status and reason.
async fn condition(namespace: &TestNamespace<'_>, name: &str, wanted: (&str, &str, &str)) -> Result<()> {
    let (type_, status, reason) = wanted;
    let path = format!("jsonpath={{.status.conditions[?(@.type==\"{type_}\")]['status','reason']}}");
    let group = format!("cachegroup/{name}");
    until(
        &format!("{name}: {type_}={status}, {reason}"),
        seconds(30),
        async || {
            let arguments = ["get", &group, "--namespace", &namespace.name, "--output", &path];
            let found = namespace.test.kubernetes.kubectl(&arguments).await?.success()?;
            ensure!(found == format!("{status} {reason}"), "{found}");
            Ok(())
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_keys_load_themselves() {
    run("groups", async |test| {
        let (platform, blog) = (test.namespace().await?, test.namespace().await?);
        let kubernetes = &test.kubernetes;
        let cache = platform.ready_cache("shared", &small(2, &tenancy("groups"))).await?;
        allow(&blog, "groups").await?;
        let tenant = blog.tenant("cache");
        tenant.apply(&cache, "quota: {memory: 8Mi}").await?;
        let origin = Origin::start(kubernetes, &blog.name, "users").await?;
        tenant.ready().await?;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api"}, "stringData": {"token": "s3cret"}});
        kubernetes.apply(&blog.name, &secret.to_string()).await?.success()?;
        let spec = |hard: &str| {
            json!({
                "tenantRef": {"name": "cache"},
                "origin": {"http": {"headersFrom": [{"name": "authorization", "secretKeyRef": {"name": "api", "key": "token"}}]}},
                "ttl": {"hard": hard},
            })
        };
        let cluster = (cache.namespace.as_str(), cache.name.as_str());
        let begin = Instant::now();
        apply(&blog, ("users", cluster), &origin.template(), spec("10m")).await?;
        condition(&blog, "users", ("Ready", "True", "AsSpecified")).await?;
        figure("group applied to ready, seconds", begin.elapsed().as_secs_f64());

        let mut client = tenant.binding().await?.connect(&cache).await?;
        for _ in 0..3 {
            let user = get(&mut client, "user:42").await?.context("no user 42")?;
            ensure!(user.contains("\"User 42\""), "{user}");
        }
        let figures = origin.figures().await?;
        ensure!(figures.requests == 1, "{figures:?}");
        ensure!(get(&mut client, "other:42").await?.is_none());
        // What is not there is remembered.
        origin.set(&json!({"users": 0})).await?;
        for _ in 0..3 {
            ensure!(get(&mut client, "user:7").await?.is_none());
        }
        ensure!(origin.figures().await?.requests == 2);
        // Another origin, live: what was remembered of the former one is forgotten.
        origin.set(&json!({})).await?;
        let other = format!("{}?full=1", origin.template());
        apply(&blog, ("users", cluster), &other, spec("10m")).await?;
        until("the other origin", seconds(30), async || {
            ensure!(get(&mut client, "user:7").await?.is_some(), "still the former one");
            Ok(())
        })
        .await?;
        // Without the group its keys are keys like others.
        let delete = ["delete", "cachegroup", "users", "--namespace", &blog.name];
        kubernetes.kubectl(&delete).await?.success()?;
        until("the group is gone", seconds(30), async || {
            // What was loaded a moment ago stays.
            redis::cmd("DEL").arg("user:8").query_async::<()>(&mut client).await?;
            ensure!(get(&mut client, "user:8").await?.is_none(), "it loads still");
            Ok(())
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_may_not_be_is_said() {
    run("groups_refused", async |test| {
        let (platform, blog) = (test.namespace().await?, test.namespace().await?);
        let cache = platform
            .ready_cache("shared", &small(1, &tenancy("refused")))
            .await?;
        let cluster = (cache.namespace.as_str(), cache.name.as_str());
        allow(&blog, "refused").await?;
        let spec = || json!({"tenantRef": {"name": "cache"}, "origin": {"http": {}}, "ttl": {"hard": "10m"}});
        let own = format!("http://users.{}.svc/{{key}}", blog.name);
        apply(&blog, ("first", cluster), &own, spec()).await?;
        condition(&blog, "first", ("Accepted", "False", "TenantNotFound")).await?;
        let tenant = blog.tenant("cache");
        tenant.apply(&cache, "quota: {memory: 8Mi}").await?;
        tenant.ready().await?;
        condition(&blog, "first", ("Ready", "True", "AsSpecified")).await?;
        // The same keys, the API server as an origin, a Secret that isn't there.
        apply(&blog, ("second", cluster), &own, spec()).await?;
        condition(&blog, "second", ("Accepted", "False", "PrefixTaken")).await?;
        let foreign = "http://kubernetes.default.svc/{key}";
        apply(&blog, ("third", cluster), foreign, spec()).await?;
        condition(&blog, "third", ("Accepted", "False", "OriginNotAllowed")).await?;
        // What no rule of the schema sees is refused before it is stored.
        let mut wrong = spec();
        wrong["origin"]["http"]["caBundle"] = json!("no certificate");
        let secure = own.replace("http:", "https:");
        let said = try_apply(&blog, ("fourth", cluster), &secure, wrong).await?;
        ensure!(
            !said.succeeded && said.stderr.contains("InvalidSpec: spec.origin.http.caBundle"),
            "{said:?}"
        );
        condition(&blog, "first", ("Ready", "True", "AsSpecified")).await
    })
    .await;
}
