//! The admission webhook as users meet it: refusals of `kubectl apply`, warnings, and pods that get credentials.

use std::net::Ipv4Addr;

use annulus_tests::{OPERATOR_NAMESPACE, Test, TestNamespace, figure, run, seconds, until};
use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use tokio::time::Instant;

use super::small;

/// What the API server says to a refused request comes with the webhook's name.
const REFUSED_BY: &str = "admission webhook \"tenants.annulus.dev\" denied the request";

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_with_the_reason() {
    run("admission_quota", async |test| {
        let platform = test.namespace().await?;
        // One node of 128 MiB has 64 MiB for entries.
        let cache = platform.ready_cache("shared", &small(1, "")).await?;
        let (first, second) = (platform.tenant("first"), platform.tenant("second"));
        first.apply(&cache, "quota: {guaranteedMemory: 40Mi}").await?;
        first.ready().await?;

        // The API server knows a webhook that was just installed a moment later.
        let said = until("the webhook refuses", seconds(60), async || {
            let answer = second
                .try_apply(&platform.name, "shared", "quota: {guaranteedMemory: 25Mi}")
                .await?;
            if answer.succeeded {
                platform.kubectl(&["delete", "ct", "second"]).await?;
                bail!("it was stored");
            }
            Ok(answer.stderr)
        })
        .await?;
        for expected in [
            REFUSED_BY,
            "MemoryOvercommitted: quota.guaranteedMemory is 26214400 bytes",
            "other tenants are guaranteed 41943040",
            "ask for less",
        ] {
            ensure!(said.contains(expected), "no {expected:?} in: {said}");
        }
        second.apply(&cache, "quota: {guaranteedMemory: 24Mi}").await?;
        second.ready().await?;
        let more = second
            .try_apply(&platform.name, "shared", "quota: {guaranteedMemory: 25Mi}")
            .await?;
        ensure!(!more.succeeded && more.stderr.contains(REFUSED_BY), "{more:?}");

        let listed = platform
            .kubectl(&[
                "get",
                "ct",
                "--selector",
                "annulus.dev/cluster=shared",
                "--output",
                "name",
            ])
            .await?;
        ensure!(listed.lines().count() == 2, "{listed}");

        // Its owner may take it away, and is told what that means.
        let fewer = cache
            .apply(&small(1, "tenancy: {limits: {maxTenants: 1}}"))
            .await?;
        let warned = fewer
            .stderr
            .contains("Warning: spec.tenancy.limits.maxTenants is 1, and 2 tenants are in");
        ensure!(fewer.succeeded && warned, "{fewer:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_a_cluster_does_not_take_is_refused() {
    run("admission_namespace", async |test| {
        let (platform, blog) = (test.namespace().await?, test.namespace().await?);
        platform.ready_cache("own", &small(1, "")).await?;
        let stranger = blog.tenant("cache");
        let said = until("the webhook refuses", seconds(60), async || {
            let answer = stranger.try_apply(&platform.name, "own", "").await?;
            if answer.succeeded {
                blog.kubectl(&["delete", "ct", "cache"]).await?;
                bail!("it was stored");
            }
            Ok(answer.stderr)
        })
        .await?;
        let expected = format!(
            "NamespaceNotAllowed: CacheCluster {}/own takes tenants of its own namespace only",
            platform.name
        );
        ensure!(said.contains(REFUSED_BY) && said.contains(&expected), "{said}");
        // A cluster that isn't there yet is no mistake.
        let early = stranger.try_apply(&platform.name, "later", "").await?;
        ensure!(
            early.succeeded && early.stderr.contains("does not exist"),
            "{early:?}"
        );
        Ok(())
    })
    .await;
}

/// The image that clusters without one of their own get: it is on every machine of the cluster.
async fn node_image(test: &Test) -> Result<String> {
    let api: Api<Deployment> = Api::namespaced(test.kubernetes.client.clone(), OPERATOR_NAMESPACE);
    let pod = api.get("annulus").await?.spec.and_then(|spec| spec.template.spec);
    let containers = pod.context("no pod template")?.containers;
    let mut variables = containers
        .into_iter()
        .flat_map(|container| container.env.unwrap_or_default());
    let image = variables.find(|variable| variable.name == "ANNULUS_NODE_IMAGE");
    image
        .and_then(|image| image.value)
        .context("the operator knows no image of nodes")
}

/// A pod of a program that reads its password from a file, and its port from its command line: a cache node without a ring.
async fn application(
    namespace: &TestNamespace<'_>,
    name: &str,
    annotations: serde_json::Value,
    arguments: &[&str],
) -> Result<String> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "application", "image": node_image(namespace.test).await?, "args": arguments,
                "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
                "resources": {"requests": {"cpu": "1m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    });
    let answer = namespace
        .test
        .kubernetes
        .apply(&namespace.name, &pod.to_string())
        .await?;
    ensure!(answer.succeeded, "{answer:?}");
    Ok(answer.stderr)
}

async fn address(namespace: &TestNamespace<'_>, pod: &str) -> Result<Ipv4Addr> {
    until(&format!("{pod} runs"), seconds(150), async || {
        let api: Api<Pod> = Api::namespaced(namespace.test.kubernetes.client.clone(), &namespace.name);
        let status = api.get(pod).await?.status.context("no status")?;
        let runs = status.container_statuses.iter().flatten().any(|one| one.ready);
        ensure!(runs, "{:?}", status.container_statuses);
        Ok(status.pod_ip.context("no address")?.parse()?)
    })
    .await
}

async fn connect(address: Ipv4Addr, password: &str) -> Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://:{password}@{address}:6379"))?;
    Ok(client.get_multiplexed_async_connection().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_the_credentials_that_they_ask_for() {
    run("admission_pods", async |test| {
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("shared", &small(1, "")).await?;
        test.kubernetes
            .kubectl(&[
                "label",
                "namespace",
                &namespace.name,
                "annulus.dev/inject=enabled",
            ])
            .await?
            .success()?;
        // Before the tenant is there: the pod waits. The API server learns of the label a moment after it is set.
        let from_file = [
            "serve",
            "--bind",
            "0.0.0.0:6379",
            "--password-file",
            "/bindings/cache/password",
        ];
        let begin = Instant::now();
        until("the pod is told what it waits for", seconds(60), async || {
            let asks = json!({"annulus.dev/tenant": "cache"});
            let said = application(&namespace, "files", asks, &from_file).await?;
            if !said.contains("the pod waits for its Secret cache-binding") {
                namespace
                    .kubectl(&["delete", "pod", "files", "--grace-period=0", "--force"])
                    .await?;
                bail!("it was not looked at: {said}");
            }
            Ok(())
        })
        .await?;
        let tenant = namespace.tenant("cache");
        tenant.apply(&cache, "").await?;
        tenant.ready().await?;
        let password = tenant.binding().await?.password;

        let with_files = address(&namespace, "files").await?;
        figure(
            "pod applied before its CacheTenant, runs with the credentials",
            format_args!("after {:.1} s", begin.elapsed().as_secs_f64()),
        );
        let answer: String = redis::cmd("PING")
            .query_async(&mut connect(with_files, &password).await?)
            .await?;
        ensure!(answer == "PONG", "{answer}");
        ensure!(
            connect(with_files, "another").await.is_err(),
            "it asks for no password"
        );

        // Kubernetes puts the variable into the argument; without it the program would not start.
        let asks = json!({"annulus.dev/tenant": "cache", "annulus.dev/inject-as": "env"});
        let from_variable = ["serve", "--bind", "0.0.0.0:$(CACHE_PORT)"];
        application(&namespace, "env", asks, &from_variable).await?;
        let with_env = address(&namespace, "env").await?;
        let client = redis::Client::open(format!("redis://{with_env}:6379"))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let answer: String = redis::cmd("PING").query_async(&mut connection).await?;
        ensure!(answer == "PONG", "{answer}");

        // Who asks nothing gets nothing, and who asks for what can't be is told so.
        application(
            &namespace,
            "plain",
            json!({}),
            &["serve", "--bind", "0.0.0.0:6379"],
        )
        .await?;
        let plain = namespace
            .kubectl(&["get", "pod", "plain", "--output", "yaml"])
            .await?;
        ensure!(!plain.contains("binding"), "{plain}");
        let wrong = json!({"annulus.dev/tenant": "cache", "annulus.dev/inject-as": "vars"});
        let refused = application(&namespace, "wrong", wrong, &from_file).await;
        let refused = format!("{:#}", refused.err().context("it was made")?);
        ensure!(refused.contains("write files or env"), "{refused}");
        Ok(())
    })
    .await;
}
