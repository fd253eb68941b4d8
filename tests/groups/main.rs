//! `annulus-groups [SCENARIO…]`: what read-through groups do to an origin, on a cluster that is up, and the page about it.
//!
//! What scenarios gave is kept in `target/e2e/groups`, so that a run of some of them leaves the others on the page.

mod avalanche;
mod crowd;
mod hot;
mod penetration;
mod plot;
mod readers;
mod stampede;
mod world;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use annulus_tests::{repository, results_dir, try_run};
use anyhow::{Context as _, Result, bail, ensure};

/// In the order in which they run and stand on the page.
const SCENARIOS: [&str; 4] = ["stampede", "avalanche", "penetration", "hot"];

/// What a scenario has to say.
pub struct Section {
    text: String,
    /// Whether everything was as promised.
    is_kept: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match groups().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn groups() -> Result<bool> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    for name in &chosen {
        ensure!(
            SCENARIOS.contains(&name.as_str()),
            "no such scenario: {name}; there are {}",
            SCENARIOS.join(" ")
        );
    }
    let kept = results_dir()?.join("groups");
    std::fs::create_dir_all(&kept)?;
    let mut all_kept = true;
    for name in SCENARIOS {
        if !chosen.is_empty() && !chosen.iter().any(|other| other == name) {
            continue;
        }
        eprintln!("{name}");
        let section = run(name).await?;
        eprintln!("{}", section.text);
        all_kept &= section.is_kept;
        std::fs::write(kept.join(format!("{name}.md")), &section.text)?;
        write_page(&kept)?;
    }
    Ok(all_kept)
}

async fn run(name: &'static str) -> Result<Section> {
    let mut section = None;
    try_run(&format!("groups_{name}"), async |test| {
        section = Some(match name {
            "stampede" => stampede::run(test).await?,
            "avalanche" => avalanche::run(test).await?,
            "penetration" => penetration::run(test).await?,
            "hot" => hot::run(test).await?,
            _ => bail!("no such scenario: {name}"),
        });
        test.clean_up().await
    })
    .await?;
    section.context("the scenario gave nothing")
}

fn write_page(kept: &Path) -> Result<()> {
    let mut page = String::from(
        "# Read-through groups and their origin\n\n\
         Written by `make groups`: the development cluster with three workers, the origin and all clients on one machine \
         with two processors. What groups are: [groups.md](../groups.md).\n",
    );
    for name in SCENARIOS {
        let path = kept.join(format!("{name}.md"));
        if path.exists() {
            write!(page, "\n{}", std::fs::read_to_string(path)?)?;
        }
    }
    std::fs::write(repository().join("docs/benchmarks/groups.md"), page)?;
    Ok(())
}

/// A whole number from the environment.
fn number(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} must be a number")),
        Err(_) => Ok(default),
    }
}
