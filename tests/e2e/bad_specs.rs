//! Mistakes that `kubectl apply` refuses, from the tables in `bad_specs.yaml` and `bad_tenants.yaml`.

use annulus_tests::{figure, run};
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

const CLUSTERS: &str = include_str!("bad_specs.yaml");
const TENANTS: &str = include_str!("bad_tenants.yaml");

/// A row of the table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    mistake: String,
    /// The object's name, where that is the mistake.
    name: Option<String>,
    /// What is applied first, for changes that are refused.
    before: Option<Value>,
    spec: Value,
    field: String,
    advice: String,
}

async fn check(
    table: &str,
    apply: impl AsyncFn(&str, &Value) -> Result<()>,
    what: &'static str,
) -> Result<()> {
    let mistakes: Vec<Row> = serde_yaml::from_str(table)?;
    let mut wrong = Vec::new();
    for (number, row) in mistakes.iter().enumerate() {
        let outcome: Result<()> = async {
            let name = row.name.clone().unwrap_or_else(|| format!("row-{number}"));
            if let Some(before) = &row.before {
                apply(&name, before).await.context("the spec before the change")?;
            }
            let refused = apply(&name, &row.spec).await.err().context("it was accepted")?;
            let message = format!("{refused:#}");
            ensure!(
                message.contains(&row.field),
                "the message does not name {:?}: {message}",
                row.field
            );
            ensure!(
                message.contains(&row.advice),
                "the message does not say {:?}: {message}",
                row.advice
            );
            Ok(())
        }
        .await;
        if let Err(error) = outcome {
            wrong.push(format!("{}: {error:#}", row.mistake));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        mistakes.len(),
        wrong.join("\n")
    );
    figure(what, mistakes.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_refused_with_advice() {
    run("bad_specs", async |test| {
        let namespace = test.namespace().await?;
        let apply = async |name: &str, spec: &Value| {
            namespace.cache(name, &spec.to_string()).await?;
            Ok(())
        };
        check(CLUSTERS, apply, "bad specs refused with advice").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_of_tenants_are_refused_with_advice() {
    run("bad_tenants", async |test| {
        let namespace = test.namespace().await?;
        let apply = async |name: &str, spec: &Value| {
            let mut tenant = json!({
                "apiVersion": "annulus.dev/v1alpha1",
                "kind": "CacheTenant",
                "metadata": {"name": name},
                "spec": {"clusterRef": {"name": "shared"}},
            });
            for (field, value) in spec.as_object().context("a spec that is no object")? {
                tenant["spec"][field] = value.clone();
            }
            let answer = test
                .kubernetes
                .apply(&namespace.name, &tenant.to_string())
                .await?;
            answer.success()?;
            Ok(())
        };
        check(TENANTS, apply, "bad tenants refused with advice").await
    })
    .await;
}
