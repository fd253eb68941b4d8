//! No operator, and so no webhook: what docs/admission.md says of that time holds.

use annulus_crds::v1alpha1::{CacheTenant, TenantConditionType};
use annulus_tests::{Load, Operator, TestNamespace, alone, run, seconds, until};
use anyhow::{Context as _, Result, ensure};
use kube::Api;
use serde_json::json;

use crate::small;

async fn apply(namespace: &TestNamespace<'_>, name: &str, quota: &str) -> Result<annulus_tests::Answer> {
    let tenant = format!(
        "{{apiVersion: annulus.dev/v1alpha1, kind: CacheTenant, metadata: {{name: {name}}}, spec: {{clusterRef: {{name: demo}}, quota: {{{quota}}}}}}}"
    );
    namespace.test.kubernetes.apply(&namespace.name, &tenant).await
}

async fn accepted(namespace: &TestNamespace<'_>, name: &str, status: &str, reason: &str) -> Result<()> {
    until(&format!("{name}: {reason}"), seconds(60), async || {
        let api: Api<CacheTenant> =
            Api::namespaced(namespace.test.kubernetes.client.clone(), &namespace.name);
        let conditions = api.get(name).await?.status.context("no status yet")?.conditions;
        let accepted = TenantConditionType::Accepted.as_str();
        let found = conditions.iter().find(|one| one.type_ == accepted);
        let found = found.context("no such condition yet")?;
        ensure!(found.status == status && found.reason == reason, "{found:?}");
        Ok(())
    })
    .await
}

/// A pod that asks for credentials and need not run.
fn pod(name: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": {"annulus.dev/tenant": "first"}},
        "spec": {
            // Nobody has to pull an image for what is looked at here.
            "nodeSelector": {"annulus.dev/test": "nowhere"},
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "application", "image": "application",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
    .to_string()
}

async fn is_injected(namespace: &TestNamespace<'_>, name: &str) -> Result<bool> {
    namespace
        .test
        .kubernetes
        .apply(&namespace.name, &pod(name))
        .await?
        .success()?;
    let made = namespace
        .kubectl(&["get", "pod", name, "--output", "yaml"])
        .await?;
    namespace
        .kubectl(&["delete", "pod", name, "--grace-period=0", "--force"])
        .await?;
    Ok(made.contains("first-binding"))
}

/// Applies until the webhook refuses, which it does once its replicas are back and the API server has found them.
async fn refuses_again(namespace: &TestNamespace<'_>) -> Result<()> {
    until("the webhook refuses again", seconds(60), async || {
        let answer = apply(namespace, "third", "memory: 33Mi").await?;
        if answer.succeeded {
            namespace.kubectl(&["delete", "ct", "third"]).await?;
        }
        let refused = answer.stderr.contains("denied the request: QuotaTooHigh");
        ensure!(!answer.succeeded && refused, "{answer:?}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_documented_of_that_time_holds() {
    run("webhook_away", async |test| {
        let _alone = alone().await;
        Operator::wait_available(&test.kubernetes).await?;
        let replicas = u32::try_from(test.operator.pods(&test.kubernetes).await?.len())?;
        let namespace = test.namespace().await?;
        test.kubernetes
            .kubectl(&[
                "label",
                "namespace",
                &namespace.name,
                "annulus.dev/inject=enabled",
            ])
            .await?
            .success()?;
        let cache = namespace
            .ready_cache("demo", &small(1, "tenancy: {limits: {quota: {memory: 32Mi}}}"))
            .await?;
        apply(&namespace, "first", "memory: 8Mi").await?.success()?;
        accepted(&namespace, "first", "True", "AsSpecified").await?;
        refuses_again(&namespace).await?;
        until("pods are injected", seconds(60), async || {
            ensure!(is_injected(&namespace, "before").await?, "not yet");
            Ok(())
        })
        .await?;
        let load = Load::start(&cache.connect().await?, 2);

        Operator::scale(&test.kubernetes, 0).await?;
        let without: Result<()> = async {
            // Stored, both of them; pods without credentials.
            apply(&namespace, "second", "memory: 33Mi").await?.success()?;
            apply(&namespace, "fourth", "memory: 8Mi").await?.success()?;
            ensure!(
                !is_injected(&namespace, "during").await?,
                "who gave it the credentials?"
            );
            cache
                .apply(&small(
                    1,
                    "tenancy: {limits: {quota: {memory: 32Mi}, maxTenants: 5}}",
                ))
                .await?
                .success()?;
            Ok(())
        }
        .await;
        // The operator comes back, also after a failure: other tests need it.
        Operator::scale(&test.kubernetes, replicas).await?;
        without?;

        accepted(&namespace, "second", "False", "QuotaTooHigh").await?;
        accepted(&namespace, "fourth", "True", "AsSpecified").await?;
        refuses_again(&namespace).await?;
        load.finish().await?;
        Ok(())
    })
    .await;
}
