//! Many clusters at once: how many, made, and waited for.

use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, ConditionType};
use annulus_tests::{Test, condition, until};
use anyhow::{Context as _, Result, ensure};
use kube::Api;
use kube::api::ListParams;

pub(crate) const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// What an operator may use. The chart's limit is 256Mi.
pub(crate) const MEMORY_MAX: f64 = 200.0 * MEBIBYTE;
/// Kubelets refresh their figures every 10 s or so.
pub(crate) const SAMPLE: Duration = Duration::from_secs(15);

/// As many as that environment variable says.
pub(crate) fn wanted(variable: &str, default: u32) -> Result<u32> {
    match std::env::var(variable) {
        Ok(number) => number
            .parse()
            .with_context(|| format!("{variable} must be a number")),
        Err(_) => Ok(default),
    }
}

/// The name of one of them.
pub(crate) fn name(number: u32) -> String {
    format!("many-{number}")
}

/// Applies so many clusters with that spec, in YAML's flow style, by one kubectl.
pub(crate) async fn apply(test: &Test, namespace: &str, clusters: u32, spec: &str) -> Result<()> {
    let spec: serde_json::Value = serde_yaml::from_str(spec)?;
    let all: Vec<String> = (0..clusters)
        .map(|number| {
            serde_json::json!({
                "apiVersion": "annulus.dev/v1alpha1",
                "kind": "CacheCluster",
                "metadata": {"name": name(number)},
                "spec": spec,
            })
            .to_string()
        })
        .collect();
    test.kubernetes
        .apply(namespace, &all.join("\n---\n"))
        .await?
        .success()?;
    Ok(())
}

/// Waits until each was reconciled once.
pub(crate) async fn reconciled(
    test: &Test,
    namespace: &str,
    clusters: u32,
    deadline: Duration,
) -> Result<()> {
    all(test, namespace, clusters, deadline, "reconciled", |_| true).await
}

/// Waits until each is Ready.
pub(crate) async fn ready(test: &Test, namespace: &str, clusters: u32, deadline: Duration) -> Result<()> {
    all(test, namespace, clusters, deadline, "Ready", |status| {
        status == "True"
    })
    .await
}

/// Waits until each has a condition Ready with such a status.
async fn all(
    test: &Test,
    namespace: &str,
    clusters: u32,
    deadline: Duration,
    what: &str,
    holds: impl Fn(&str) -> bool,
) -> Result<()> {
    let api: Api<CacheCluster> = Api::namespaced(test.kubernetes.client.clone(), namespace);
    until(&format!("each cluster {what}"), deadline, async || {
        let found = api.list(&ListParams::default()).await?;
        let ready = found
            .iter()
            .filter_map(|cluster| condition(cluster, ConditionType::Ready));
        let count = ready.filter(|ready| holds(&ready.status)).count();
        ensure!(count == usize::try_from(clusters)?, "{count} of {clusters}");
        Ok(())
    })
    .await
}
