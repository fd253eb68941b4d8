//! A test and its namespaces.
//!
//! Each test has namespaces of its own under the `restricted` pod security profile. They are deleted at the end,
//! also of a test that failed (after what is in them was written to `target/e2e/<test>/`), unless `KEEP_FAILED` is set.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow, bail};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::bystander::Bystander;
use crate::cache::Cache;
use crate::kubernetes::{Kubernetes, results_dir};
use crate::operator::{self, Operator};
use crate::tenant::Tenant;
use crate::wait::{seconds, until};

const KINDS: &str = "cacheclusters,cachetenants,cachegroups,statefulsets,pods,services,configmaps,poddisruptionbudgets,serviceaccounts,endpointslices";

/// A running test.
pub struct Test {
    name: String,
    /// The cluster that it runs on.
    pub kubernetes: Kubernetes,
    /// The operator under test.
    pub operator: Operator,
    namespaces: Mutex<Vec<String>>,
}

/// A namespace that belongs to a test.
pub struct TestNamespace<'a> {
    /// Its name, generated.
    pub name: String,
    /// Whose it is.
    pub test: &'a Test,
}

/// Runs a test by that name; the body asks for the namespaces that it needs. Panics when the test fails.
pub async fn run(name: &str, body: impl AsyncFnOnce(&Test) -> Result<()>) {
    if let Err(error) = try_run(name, body).await {
        panic!("{name}: {error:#}");
    }
}

/// Like [`run`], for a caller that goes on after a failure.
pub async fn try_run(name: &str, body: impl AsyncFnOnce(&Test) -> Result<()>) -> Result<()> {
    let kubernetes = Kubernetes::connect().await?;
    let operator = operator::installed(&kubernetes).await?;
    let test = Test {
        name: name.to_owned(),
        kubernetes,
        operator,
        namespaces: Mutex::default(),
    };
    let outcome = match AssertUnwindSafe(body(&test)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("a panic without a text");
            Err(anyhow!("{said}"))
        }
    };
    match outcome {
        Ok(()) => test.delete_namespaces().await,
        Err(error) => {
            let folder = results_dir()?.join(name);
            let seen = match test.dump(&folder).await {
                Ok(()) => format!("what was seen is in {}", folder.display()),
                Err(problem) => format!("what was seen could not be kept: {problem:#}"),
            };
            if std::env::var_os("KEEP_FAILED").is_some_and(|value| !value.is_empty()) {
                return Err(error.context(format!(
                    "{seen}; kept namespaces {}",
                    test.namespace_names()?.join(", ")
                )));
            }
            test.delete_namespaces()
                .await
                .with_context(|| format!("after a failure: {error:#}"))?;
            Err(error.context(seen))
        }
    }
}

impl Test {
    /// A new namespace for this test.
    pub async fn namespace(&self) -> Result<TestNamespace<'_>> {
        let api: Api<Namespace> = Api::all(self.kubernetes.client.clone());
        // Names carry the test's, which is cut so that the names of things in it stay within bounds.
        let short: String = self.name.replace('_', "-").chars().take(30).collect();
        let wanted: Namespace = serde_json::from_value(json!({
            "metadata": {
                "generateName": format!("annulus-test-{short}-"),
                "labels": {"annulus.dev/test": self.name, "pod-security.kubernetes.io/enforce": "restricted"},
            }
        }))?;
        let made = api.create(&PostParams::default(), &wanted).await?;
        let name = made.metadata.name.context("a namespace without a name")?;
        self.locked()?.push(name.clone());
        Ok(TestNamespace { name, test: self })
    }

    fn locked(&self) -> Result<std::sync::MutexGuard<'_, Vec<String>>> {
        self.namespaces
            .lock()
            .map_err(|_| anyhow!("the list of namespaces is poisoned"))
    }

    fn namespace_names(&self) -> Result<Vec<String>> {
        Ok(self.locked()?.clone())
    }

    async fn delete_namespaces(&self) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.kubernetes.client.clone());
        for name in self.namespace_names()? {
            match api.delete(&name, &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until none of the test's namespaces is left, so that what follows has the machine to itself.
    pub async fn clean_up(&self) -> Result<()> {
        self.delete_namespaces().await?;
        let api: Api<Namespace> = Api::all(self.kubernetes.client.clone());
        for name in self.namespace_names()? {
            until(
                &format!("namespace {name} gone"),
                seconds(300),
                async || match api.get_opt(&name).await? {
                    None => Ok(()),
                    Some(left) => bail!("{:?}", left.status),
                },
            )
            .await?;
        }
        Ok(())
    }

    async fn dump(&self, folder: &Path) -> Result<()> {
        if folder.exists() {
            tokio::fs::remove_dir_all(folder).await?;
        }
        tokio::fs::create_dir_all(folder).await?;
        for namespace in self.namespace_names()? {
            let scope = ["--namespace", namespace.as_str()];
            let keep = async |file: &str, arguments: &[&str]| -> Result<()> {
                let all: Vec<&str> = scope.iter().chain(arguments).copied().collect();
                let answer = self.kubernetes.kubectl(&all).await?;
                let path = folder.join(format!("{namespace}.{file}"));
                Ok(tokio::fs::write(path, answer.stdout + &answer.stderr).await?)
            };
            keep("overview.txt", &["get", KINDS, "--output", "wide"]).await?;
            keep("objects.yaml", &["get", KINDS, "--output", "yaml"]).await?;
            keep(
                "events.txt",
                &["get", "events", "--sort-by", ".metadata.creationTimestamp"],
            )
            .await?;
            keep("pods.txt", &["describe", "pods"]).await?;
            let pods = self
                .kubernetes
                .kubectl(&["get", "pods", "--output", "name", scope[0], scope[1]])
                .await?;
            for pod in pods.stdout.lines() {
                let name = pod.trim_start_matches("pod/");
                keep(&format!("{name}.log"), &["logs", pod, "--timestamps"]).await?;
                keep(
                    &format!("{name}.previous.log"),
                    &["logs", pod, "--timestamps", "--previous"],
                )
                .await?;
            }
        }
        for (pod, log) in self.operator.logs(&self.kubernetes).await? {
            tokio::fs::write(folder.join(format!("{pod}.log")), log).await?;
        }
        Ok(())
    }
}

impl<'a> TestNamespace<'a> {
    /// Applies a CacheCluster of that name and `spec:` in YAML; an error says how it was refused.
    pub async fn cache(&self, name: &str, spec: &str) -> Result<Cache<'a>> {
        let cache = Cache {
            kubernetes: &self.test.kubernetes,
            namespace: self.name.clone(),
            name: name.to_owned(),
        };
        cache.apply(spec).await?.success()?;
        Ok(cache)
    }

    /// Like [`Self::cache`], and Ready.
    pub async fn ready_cache(&self, name: &str, spec: &str) -> Result<Cache<'a>> {
        let cache = self.cache(name, spec).await?;
        cache.ready(seconds(90)).await?;
        Ok(cache)
    }

    /// A CacheTenant of that name, which is there once it is applied.
    pub fn tenant(&self, name: &str) -> Tenant<'a> {
        Tenant {
            kubernetes: &self.test.kubernetes,
            namespace: self.name.clone(),
            name: name.to_owned(),
        }
    }

    /// A pod in this namespace that does nothing, to look at the network from.
    pub async fn bystander(&self) -> Result<Bystander> {
        Bystander::start(&self.test.kubernetes, &self.name).await
    }

    /// Runs kubectl in this namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let all: Vec<&str> = ["--namespace", &self.name]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        let answer = self.test.kubernetes.kubectl(&all).await?;
        answer
            .success()
            .with_context(|| format!("kubectl {}", arguments.join(" ")))
    }
}
