//! Mistakes that `kubectl apply` refuses, from the table in `bad_specs.yaml`.

use annulus_tests::{figure, run};
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

const TABLE: &str = include_str!("bad_specs.yaml");

/// A row of the table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    mistake: String,
    /// The CacheCluster's name, where that is the mistake.
    name: Option<String>,
    /// What is applied first, for changes that are refused.
    before: Option<serde_json::Value>,
    spec: serde_json::Value,
    field: String,
    advice: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_refused_with_advice() {
    run("bad_specs", async |test| {
        let namespace = test.namespace().await?;
        let mistakes: Vec<Row> = serde_yaml::from_str(TABLE)?;
        let mut wrong = Vec::new();
        for (number, row) in mistakes.iter().enumerate() {
            let outcome: Result<()> = async {
                let name = row.name.clone().unwrap_or_else(|| format!("row-{number}"));
                if let Some(before) = &row.before {
                    namespace
                        .cache(&name, &before.to_string())
                        .await
                        .context("the spec before the change")?;
                }
                let refused = namespace
                    .cache(&name, &row.spec.to_string())
                    .await
                    .err()
                    .context("it was accepted")?;
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
        figure("bad specs refused with advice", mistakes.len());
        Ok(())
    })
    .await;
}
