//! `annulus-tenancy [SCENARIO…]`: what tenants do to each other and to a cluster that is up, and the page about it.
//!
//! What scenarios gave is kept in `target/e2e/tenancy`, so that a run of some of them leaves the others on the page.

mod churn;
mod many;
mod noise;
mod quiet;
mod resp;
mod rotation;
mod table;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use annulus_tests::{Cache, Test, TestNamespace, repository, results_dir, try_run};
use anyhow::{Context as _, Result, bail, ensure};

use table::Section;

/// In the order in which they run and stand on the page.
const SCENARIOS: [&str; 4] = ["noisy", "churn", "rotation", "many"];

#[tokio::main]
async fn main() -> ExitCode {
    match tenancy().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
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
    for name in &arguments {
        ensure!(
            SCENARIOS.contains(&name.as_str()),
            "no such scenario: {name}; there are {}",
            SCENARIOS.join(" ")
        );
    }
    let kept = results_dir()?.join("tenancy");
    std::fs::create_dir_all(&kept)?;
    let mut promised = true;
    for name in SCENARIOS {
        if !arguments.is_empty() && !arguments.iter().any(|chosen| chosen == name) {
            continue;
        }
        eprintln!("{name}");
        let section = run(name).await?;
        eprintln!("{}", section.text());
        promised &= section.problems.is_empty();
        std::fs::write(kept.join(format!("{name}.md")), section.text())?;
        write_page(&kept)?;
    }
    Ok(promised)
}

async fn run(name: &'static str) -> Result<Section> {
    let mut section = None;
    try_run(&format!("tenancy_{name}"), async |test| {
        section = Some(match name {
            "noisy" => quiet::run(test).await?,
            "churn" => churn::run(test).await?,
            "rotation" => rotation::run(test).await?,
            "many" => many::run(test).await?,
            _ => bail!("no such scenario: {name}"),
        });
        test.clean_up().await
    })
    .await?;
    section.context("the scenario gave nothing")
}

fn write_page(kept: &Path) -> Result<()> {
    let mut page = String::from(
        "# Tenants beside each other\n\n\
         Written by `make tenancy`: the development cluster with three workers, and all clients, on one machine. What tenants are: [tenants.md](../tenants.md).\n",
    );
    for name in SCENARIOS {
        let path = kept.join(format!("{name}.md"));
        if path.exists() {
            write!(page, "\n{}", std::fs::read_to_string(path)?)?;
        }
    }
    std::fs::write(repository().join("docs/benchmarks/tenants.md"), page)?;
    Ok(())
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

/// A whole number from the environment.
fn number(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} must be a number")),
        Err(_) => Ok(default),
    }
}
