//! Tenants on the real cluster: who gets in with what, who sees what, and who doesn't.

use annulus_crds::v1alpha1::{CacheTenant, TenantConditionType};
use annulus_tests::{Answer, Cache, Test, TestNamespace, figure, run, seconds, until};
use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use tokio::time::Instant;

use super::small;

/// Label of the namespaces that may have tenants; each test has a value of its own.
const LABEL: &str = "annulus.dev/test-tenants";

fn tenancy(value: &str) -> String {
    format!(
        "tenancy: {{allowedNamespaces: {{from: Selector, selector: {{matchLabels: {{{LABEL}: {value}}}}}}}, limits: {{quota: {{memory: 32Mi}}}}}}"
    )
}

/// A CacheTenant in that namespace.
pub(super) struct Tenant<'a> {
    pub(super) test: &'a Test,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl Tenant<'_> {
    pub(super) async fn apply(&self, cache: &Cache<'_>, spec: &str) -> Result<()> {
        self.try_apply(&cache.namespace, &cache.name, spec)
            .await?
            .success()?;
        Ok(())
    }

    /// `kubectl apply` of the tenant of that cluster, which need not be there.
    pub(super) async fn try_apply(&self, namespace: &str, cluster: &str, spec: &str) -> Result<Answer> {
        let yaml = format!(
            "{{apiVersion: annulus.dev/v1alpha1, kind: CacheTenant, metadata: {{name: {}}}, spec: {{clusterRef: {{name: {cluster}, namespace: {namespace}}}, {spec}}}}}",
            self.name
        );
        self.test.kubernetes.apply(self.namespace, &yaml).await
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.test.kubernetes.client.clone(), self.namespace)
    }

    /// Waits until a condition has that status and reason.
    pub(super) async fn condition(
        &self,
        type_: TenantConditionType,
        status: &str,
        reason: &str,
    ) -> Result<()> {
        let what = format!("{}: {}={status}, reason {reason}", self.name, type_.as_str());
        until(&what, seconds(30), async || {
            let tenant: CacheTenant = self.api().get(self.name).await?;
            let conditions = tenant.status.context("no status yet")?.conditions;
            let found = conditions.iter().find(|one| one.type_ == type_.as_str());
            let found = found.context("no such condition yet")?;
            ensure!(found.status == status && found.reason == reason, "{found:?}");
            Ok(())
        })
        .await
    }

    pub(super) async fn ready(&self) -> Result<()> {
        self.condition(TenantConditionType::Ready, "True", "AsSpecified")
            .await
    }

    /// What stands in the binding.
    pub(super) async fn binding(&self) -> Result<Binding> {
        let secret: Secret = self.api().get(&format!("{}-binding", self.name)).await?;
        let data = secret.data.context("an empty Secret")?;
        let text = |key: &str| -> Result<String> {
            let value = data.get(key).with_context(|| format!("no {key}"))?;
            Ok(String::from_utf8(value.0.clone())?)
        };
        ensure!(
            secret.type_.as_deref() == Some("servicebinding.io/redis"),
            "{:?}",
            secret.type_
        );
        Ok(Binding {
            username: text("username")?,
            password: text("password")?,
            host: text("host")?,
        })
    }
}

#[derive(Debug, PartialEq)]
pub(super) struct Binding {
    username: String,
    pub(super) password: String,
    host: String,
}

impl Binding {
    /// A connection with these credentials.
    async fn connect(&self, cache: &Cache<'_>) -> Result<ClusterConnection> {
        let address = format!("redis://{}:6379", cache.service_ip().await?);
        let client = ClusterClient::builder(vec![address])
            .username(self.username.clone())
            .password(self.password.clone())
            .build()?;
        Ok(client.get_async_connection().await?)
    }

    /// Waits until they are refused.
    async fn refused(&self, cache: &Cache<'_>) -> Result<()> {
        until(
            "the old credentials are refused",
            seconds(10),
            async || match self.connect(cache).await {
                Ok(_) => bail!("they still work"),
                Err(_) => Ok(()),
            },
        )
        .await
    }
}

async fn allow(namespace: &TestNamespace<'_>, value: &str) -> Result<()> {
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
            let tenant = Tenant {
                test,
                namespace: &namespace.name,
                name: "cache",
            };
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
        let tenant = Tenant {
            test,
            namespace: &blog.name,
            name: "cache",
        };
        // The webhook refuses whom the cluster doesn't take; who was there before the cluster gets past it.
        tenant
            .try_apply(&platform.name, "shared", "quota: {memory: 8Mi}")
            .await?
            .success()?;
        let greedy = Tenant {
            name: "greedy",
            ..tenant
        };
        greedy
            .try_apply(&platform.name, "shared", "quota: {memory: 33Mi}")
            .await?
            .success()?;
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
        let tenant = Tenant {
            test,
            namespace: &platform.name,
            name: "cache",
        };
        tenant.apply(&cache, "rotation: {overlap: 15s}").await?;
        tenant.ready().await?;
        let old = tenant.binding().await?;
        let mut open = old.connect(&cache).await?;
        set(&mut open, "kept", "yes").await?;
        platform
            .kubectl(&["annotate", "ct", "cache", "annulus.dev/rotate=1"])
            .await?;
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
