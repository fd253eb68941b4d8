//! A `CacheTenant` under test, and what an application gets of it.

use std::path::Path;

use annulus_crds::v1alpha1::{CacheTenant, TenantConditionType};
use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;

use crate::cache::Cache;
use crate::kubernetes::{Answer, Kubernetes};
use crate::wait::{seconds, until};

/// A `CacheTenant` by its name.
#[derive(Clone)]
pub struct Tenant<'a> {
    /// Where its namespace is.
    pub kubernetes: &'a Kubernetes,
    /// Its namespace.
    pub namespace: String,
    /// What it is called.
    pub name: String,
}

/// What stands in a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The user.
    pub username: String,
    /// Its password.
    pub password: String,
    /// The name of the cluster's Service.
    pub host: String,
    /// Whom to trust, PEM; where clients use TLS.
    pub authorities: Option<String>,
}

impl Tenant<'_> {
    /// `kubectl apply` of the tenant, with what stands in its `spec` beside `clusterRef`, in YAML's flow style.
    pub async fn apply(&self, cache: &Cache<'_>, spec: &str) -> Result<()> {
        self.try_apply(&cache.namespace, &cache.name, spec)
            .await?
            .success()?;
        Ok(())
    }

    /// The same for a cluster that need not be there, and a tenant that may be refused.
    pub async fn try_apply(&self, namespace: &str, cluster: &str, spec: &str) -> Result<Answer> {
        let yaml = format!(
            "{{apiVersion: annulus.dev/v1alpha1, kind: CacheTenant, metadata: {{name: {}}}, spec: {{clusterRef: {{name: {cluster}, namespace: {namespace}}}, {spec}}}}}",
            self.name
        );
        self.kubernetes.apply(&self.namespace, &yaml).await
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.kubernetes.client.clone(), &self.namespace)
    }

    /// Waits until a condition has that status and reason.
    pub async fn condition(&self, type_: TenantConditionType, status: &str, reason: &str) -> Result<()> {
        let what = format!("{}: {}={status}, reason {reason}", self.name, type_.as_str());
        until(&what, seconds(30), async || {
            let tenant: CacheTenant = self.api().get(&self.name).await?;
            let conditions = tenant.status.context("no status yet")?.conditions;
            let found = conditions.iter().find(|one| one.type_ == type_.as_str());
            let found = found.context("no such condition yet")?;
            ensure!(found.status == status && found.reason == reason, "{found:?}");
            Ok(())
        })
        .await
    }

    /// Waits until the binding is there.
    pub async fn ready(&self) -> Result<()> {
        self.condition(TenantConditionType::Ready, "True", "AsSpecified")
            .await
    }

    /// What the nodes call it: a number, in their metrics.
    pub async fn id(&self) -> Result<u32> {
        let tenant: CacheTenant = self.api().get(&self.name).await?;
        let id = tenant.status.and_then(|status| status.tenant_id);
        id.context("the tenant has no number yet")
    }

    /// Asks for new passwords.
    pub async fn rotate(&self, token: &str) -> Result<()> {
        let rotate = format!("annulus.dev/rotate={token}");
        let arguments = [
            "annotate",
            "--overwrite",
            "--namespace",
            &self.namespace,
            "cachetenant",
            &self.name,
            &rotate,
        ];
        self.kubernetes.kubectl(&arguments).await?.success()?;
        Ok(())
    }

    /// What stands in the binding now.
    pub async fn binding(&self) -> Result<Binding> {
        let secret: Secret = self.api().get(&format!("{}-binding", self.name)).await?;
        ensure!(
            secret.type_.as_deref() == Some("servicebinding.io/redis"),
            "{:?}",
            secret.type_
        );
        let data = secret.data.context("an empty Secret")?;
        let optional = |key: &str| -> Result<Option<String>> {
            let value = data.get(key);
            Ok(value
                .map(|value| String::from_utf8(value.0.clone()))
                .transpose()?)
        };
        let text = |key: &str| optional(key)?.with_context(|| format!("no {key}"));
        Ok(Binding {
            username: text("username")?,
            password: text("password")?,
            host: text("host")?,
            authorities: optional("ca.crt")?,
        })
    }
}

impl Binding {
    /// A connection with these credentials. As with [`Cache::connect`], the Service may be out of reach for a moment.
    pub async fn connect(&self, cache: &Cache<'_>) -> Result<ClusterConnection> {
        until(
            &format!("connection of {}", self.username),
            seconds(10),
            async || self.try_to_connect(cache).await,
        )
        .await
    }

    async fn try_to_connect(&self, cache: &Cache<'_>) -> Result<ClusterConnection> {
        let address = format!("redis://{}:6379", cache.service_ip().await?);
        let client = ClusterClient::builder(vec![address])
            .username(self.username.clone())
            .password(self.password.clone())
            .build()?;
        Ok(client.get_async_connection().await?)
    }

    /// Waits until every node refuses them as wrong.
    pub async fn refused(&self, cache: &Cache<'_>) -> Result<()> {
        until("the old credentials are refused", seconds(10), async || {
            for (pod, ip) in cache.pod_ips().await? {
                let address = format!("redis://{}:{}@{ip}:6379", self.username, self.password);
                let client = redis::Client::open(address)?;
                match client.get_multiplexed_async_connection().await {
                    Ok(_) => bail!("{pod}: they still work"),
                    Err(error) => ensure!(
                        error.kind() == redis::ErrorKind::AuthenticationFailed,
                        "{pod}: {error}"
                    ),
                }
            }
            Ok(())
        })
        .await
    }

    /// Writes its files, as a kubelet projects the Secret into a pod: each is whole at any time.
    pub fn project(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        let files = [
            ("username", Some(&self.username)),
            ("password", Some(&self.password)),
            ("ca.crt", self.authorities.as_ref()),
        ];
        for (name, text) in files {
            let Some(text) = text else { continue };
            let new = folder.join(format!("{name}.new"));
            std::fs::write(&new, text)?;
            std::fs::rename(&new, folder.join(name))?;
        }
        Ok(())
    }
}
