//! `annulus-tenancy [SCENARIO…]`: what tenants do to each other and to a cluster that is up, and the page about it.

mod churn;
mod many;
mod noise;
mod quiet;
mod resp;
mod rotation;

use std::io::Write as _;
use std::process::ExitCode;

use annulus_tests::{Cache, Page, Test, TestNamespace, exit_code};
use anyhow::{Result, bail};

const PAGE: Page = Page {
    program: "tenancy",
    scenarios: &["noisy", "churn", "rotation", "many"],
    file: "tenants.md",
    head: "# Tenants beside each other\n\n\
           Written by `make tenancy`: the development cluster with three workers, and all clients, on one machine. What \
           tenants are: [tenants.md](../tenants.md).",
};

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(tenancy().await)
}

/// Whether all went as promised.
async fn tenancy() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = arguments.as_slice()
        && role == "noise"
    {
        let figures = noise::make(rest).await?;
        std::io::stdout().write_all(figures.as_bytes())?;
        return Ok(true);
    }
    PAGE.write(&arguments, async |name, test| match name {
        "noisy" => quiet::run(test).await,
        "churn" => churn::run(test).await,
        "rotation" => rotation::run(test).await,
        "many" => many::run(test).await,
        _ => bail!("no such scenario: {name}"),
    })
    .await
}

/// A cluster that takes tenants of all namespaces.
async fn shared<'a>(test: &'a Test, nodes: u32, more: &str) -> Result<(TestNamespace<'a>, Cache<'a>)> {
    let namespace = test.namespace().await?;
    let spec = format!(
        "{{nodes: {nodes}, resources: {{requests: {{cpu: 300m, memory: 256Mi}}, limits: {{memory: 512Mi}}}}, tenancy: {{allowedNamespaces: {{from: All}}}}{more}}}"
    );
    let cache = namespace.ready_cache("shared", &spec).await?;
    Ok((namespace, cache))
}
