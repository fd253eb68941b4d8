//! The operator under test, as the chart installs it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::kubernetes::{Kubernetes, repository};
use crate::machine::{kill, processes};
use crate::wait::{seconds, until};

/// Where the chart is installed.
pub const NAMESPACE: &str = "annulus-system";
const DEPLOYMENT: &str = "annulus";
const PROGRAM: &str = "annulus-operator";
const LEASE: &str = "annulus-operator";
const SELECTOR: &str = "app.kubernetes.io/name=annulus,app.kubernetes.io/component=operator";

static INSTALLED: OnceCell<Result<(), String>> = OnceCell::const_new();
static ALONE: Mutex<()> = Mutex::const_new(());

/// Held by a test that disturbs the operator or counts what it does: one such test at a time.
pub async fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().await
}

/// The installed operator.
#[derive(Clone)]
pub struct Operator {
    /// Whom the API server sees.
    pub user: String,
}

/// What a pod has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Working set.
    pub memory_bytes: f64,
    /// Since the container started.
    pub cpu_seconds: f64,
}

/// The operator of this cluster; installs the chart when there is none. Once for all tests of a run.
pub(crate) async fn installed(kubernetes: &Kubernetes) -> Result<Operator> {
    let outcome = INSTALLED
        .get_or_init(async || install(kubernetes).await.map_err(|error| format!("{error:#}")))
        .await;
    outcome
        .clone()
        .map_err(|error| anyhow!("the operator could not be installed: {error}"))?;
    Ok(Operator {
        user: format!("system:serviceaccount:{NAMESPACE}:{DEPLOYMENT}"),
    })
}

async fn install(kubernetes: &Kubernetes) -> Result<()> {
    let api: Api<Deployment> = Api::namespaced(kubernetes.client.clone(), NAMESPACE);
    if api.get_opt(DEPLOYMENT).await?.is_none() {
        let mut command = Command::new("bash");
        command.current_dir(repository()).args([
            "-euo",
            "pipefail",
            "-c",
            "source tests/lib.sh; require_rust; install_chart",
        ]);
        kubernetes.run(&mut command, "").await?.success()?;
    }
    Operator::wait_available(kubernetes).await
}

impl Operator {
    /// Waits until as many replicas are ready as the Deployment asks for.
    pub async fn wait_available(kubernetes: &Kubernetes) -> Result<()> {
        let api: Api<Deployment> = Api::namespaced(kubernetes.client.clone(), NAMESPACE);
        until("operator ready", seconds(60), async || {
            let status = api.get(DEPLOYMENT).await?.status.unwrap_or_default();
            ensure!(
                status.replicas.is_some() && status.ready_replicas == status.replicas,
                "{status:?}"
            );
            ensure!(status.updated_replicas == status.replicas, "{status:?}");
            Ok(())
        })
        .await
    }

    /// So many replicas, and waits until there are no others: none at all is no operator.
    pub async fn scale(kubernetes: &Kubernetes, replicas: u32) -> Result<()> {
        let wanted = format!("--replicas={replicas}");
        let arguments = [
            "scale",
            "deployment",
            DEPLOYMENT,
            "--namespace",
            NAMESPACE,
            &wanted,
        ];
        kubernetes.kubectl(&arguments).await?.success()?;
        let api: Api<Deployment> = Api::namespaced(kubernetes.client.clone(), NAMESPACE);
        let pods: Api<Pod> = Api::namespaced(kubernetes.client.clone(), NAMESPACE);
        until("operator scaled", seconds(60), async || {
            let status = api.get(DEPLOYMENT).await?.status.unwrap_or_default();
            let ready = status.ready_replicas.unwrap_or_default();
            let there = pods
                .list(&ListParams::default().labels(SELECTOR))
                .await?
                .items
                .len();
            let is_so = u32::try_from(ready).is_ok_and(|ready| ready == replicas)
                && there == ready.unsigned_abs() as usize;
            ensure!(is_so, "{there} pods, {status:?}");
            Ok(())
        })
        .await
    }

    /// The operator's pods.
    pub async fn pods(&self, kubernetes: &Kubernetes) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(kubernetes.client.clone(), NAMESPACE);
        Ok(api.list(&ListParams::default().labels(SELECTOR)).await?.items)
    }

    /// The pod that holds the Lease. Its identity there is the pod's name and the number of its life.
    pub async fn leader(&self, kubernetes: &Kubernetes) -> Result<String> {
        let api: Api<Lease> = Api::namespaced(kubernetes.client.clone(), NAMESPACE);
        let holder = api.get(LEASE).await?.spec.and_then(|spec| spec.holder_identity);
        let holder = holder
            .filter(|holder| !holder.is_empty())
            .context("nobody leads")?;
        let pods = self.pods(kubernetes).await?.into_iter();
        let mut names = pods.filter_map(|pod| pod.metadata.name);
        names
            .find(|name| holder.starts_with(name.as_str()))
            .with_context(|| format!("{holder} leads, which is no pod any more"))
    }

    /// The logs of every operator pod, by its name.
    pub(crate) async fn logs(&self, kubernetes: &Kubernetes) -> Result<BTreeMap<String, String>> {
        let mut logs = BTreeMap::new();
        for pod in self.pods(kubernetes).await? {
            let name = pod.metadata.name.context("a pod without a name")?;
            let answer = kubernetes
                .kubectl(&["logs", "--namespace", NAMESPACE, &name, "--tail", "5000"])
                .await?;
            logs.insert(name, answer.stdout + &answer.stderr);
        }
        Ok(logs)
    }

    /// What the pods have used until now, as their kubelets measure it.
    pub async fn usage(&self, kubernetes: &Kubernetes) -> Result<BTreeMap<String, Usage>> {
        let mut usage = BTreeMap::<String, Usage>::new();
        for pod in self.pods(kubernetes).await? {
            let name = pod.metadata.name.context("a pod without a name")?;
            let node = pod
                .spec
                .and_then(|spec| spec.node_name)
                .context("a pod without a node")?;
            let request =
                http::Request::get(format!("/api/v1/nodes/{node}/proxy/metrics/resource")).body(Vec::new())?;
            let page = kubernetes.client.request_text(request).await?;
            let value = |metric: &str| -> Result<f64> {
                let wanted = format!("pod=\"{name}\"");
                page.lines()
                    .find(|line| line.starts_with(&format!("{metric}{{")) && line.contains(&wanted))
                    .and_then(|line| line.split('}').nth(1)?.split_whitespace().next()?.parse().ok())
                    .with_context(|| format!("{metric} of {name} is not in the kubelet's metrics"))
            };
            let figures = Usage {
                memory_bytes: value("pod_memory_working_set_bytes")?,
                cpu_seconds: value("pod_cpu_usage_seconds_total")?,
            };
            usage.insert(name.clone(), figures);
        }
        Ok(usage)
    }

    /// Replicas to be killed: all of them, or the leader alone.
    pub async fn victims(&self, kubernetes: &Kubernetes, choice: Choice) -> Result<Victims> {
        let leader = self.leader(kubernetes).await?;
        let mut victims = Victims::default();
        for pod in self.pods(kubernetes).await? {
            let name = pod.name_any();
            if choice == Choice::All || name == leader {
                victims
                    .processes
                    .extend(processes(&pod.uid().context("no UID")?, PROGRAM)?);
                victims.pods.push(name);
            }
        }
        Ok(victims)
    }
}

/// Which replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The one that holds the Lease.
    Leader,
    /// Every one.
    All,
}

/// Replicas that are about to die.
#[derive(Debug, Default)]
pub struct Victims {
    /// Their pods.
    pub pods: Vec<String>,
    processes: Vec<u32>,
}

impl Victims {
    /// Kills the processes at once, without a last word where they are in reach, and deletes their pods by force.
    pub async fn kill(&self, kubernetes: &Kubernetes) -> Result<()> {
        kill(&self.processes)?;
        let mut arguments = vec![
            "delete",
            "pod",
            "--namespace",
            NAMESPACE,
            "--grace-period=0",
            "--force",
            "--wait=false",
        ];
        arguments.extend(self.pods.iter().map(String::as_str));
        kubernetes.kubectl(&arguments).await?.success()?;
        Ok(())
    }
}
