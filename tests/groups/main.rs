//! `annulus-groups [SCENARIO…]`: what read-through groups do to an origin, on a cluster that is up, and the page about it.

mod avalanche;
mod crowd;
mod hot;
mod penetration;
mod plot;
mod readers;
mod stampede;
mod world;

use std::process::ExitCode;

use annulus_tests::{Page, exit_code};
use anyhow::{Result, bail};

const PAGE: Page = Page {
    program: "groups",
    scenarios: &["stampede", "avalanche", "penetration", "hot"],
    file: "groups.md",
    head: "# Read-through groups and their origin\n\n\
           Written by `make groups`: the development cluster with three workers, the origin and all clients on one machine \
           with two processors. What groups are: [groups.md](../groups.md).",
};

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(groups().await)
}

async fn groups() -> Result<bool> {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    PAGE.write(&chosen, async |name, test| match name {
        "stampede" => stampede::run(test).await,
        "avalanche" => avalanche::run(test).await,
        "penetration" => penetration::run(test).await,
        "hot" => hot::run(test).await,
        _ => bail!("no such scenario: {name}"),
    })
    .await
}
