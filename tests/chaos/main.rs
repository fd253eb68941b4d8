//! `annulus-chaos REPEAT [SCENARIO…]`: faults and changes under load on the cluster that is up, and the page about them.
//!
//! What scenarios gave is kept in `target/e2e/chaos`, so that a run of some of them leaves the others on the page.
//! The last line says whether every acknowledged write was there in the end; so does the exit code.

mod data;
mod faults;
mod scenario;
mod undo;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use annulus_tests::report::{self, BUCKET_MS, BUCKETS_AFTER, BUCKETS_BEFORE, Lane, Moved};
use annulus_tests::{Kubernetes, exit_code, repository, results_dir};
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

use data::Change;
use scenario::Scenario;
use undo::Undo;

const USAGE: &str =
    "usage: annulus-chaos REPEAT [SCENARIO…]; REPEAT is a number from 1 on, 0 only writes the page anew";

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(chaos().await)
}

/// Whether all went as promised.
async fn chaos() -> Result<bool> {
    let mut arguments = std::env::args().skip(1);
    let times: u32 = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .context(USAGE)?;
    let chosen: Vec<String> = arguments.collect();
    for name in &chosen {
        let known: Vec<&str> = names().collect();
        ensure!(
            known.contains(&name.as_str()),
            "no such scenario: {name}; there are {}",
            known.join(" ")
        );
    }
    let kubernetes = Kubernetes::connect().await?;
    let undo = Undo::default();
    let mut ended = signal(SignalKind::terminate())?;
    let promised = tokio::select! {
        promised = all(times, &chosen, &undo) => promised,
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| false).map_err(Into::into),
        _ = ended.recv() => Ok(false),
    };
    // After an interruption; otherwise there is nothing left to be put back.
    undo.all(&kubernetes).await?;
    promised
}

fn names() -> impl Iterator<Item = &'static str> {
    let scenarios = Scenario::ALL.into_iter().map(Scenario::name);
    scenarios.chain(Change::ALL.into_iter().map(Change::name))
}

async fn all(times: u32, chosen: &[String], undo: &Undo) -> Result<bool> {
    let is_chosen = |name: &str| times > 0 && (chosen.is_empty() || chosen.iter().any(|other| other == name));
    let kept = results_dir()?.join("chaos");
    if times > 0 && chosen.is_empty() && kept.exists() {
        std::fs::remove_dir_all(&kept)?;
    }
    std::fs::create_dir_all(&kept)?;
    let mut promised = true;
    for scenario in Scenario::ALL
        .into_iter()
        .filter(|scenario| is_chosen(scenario.name()))
    {
        let mut runs = Vec::new();
        for number in 1..=times {
            let run = scenario::run(scenario, number, undo).await;
            eprintln!("{} {number}/{times}: {}", scenario.name(), in_a_line(&run));
            runs.push(run);
            let so_far = scenario::described(scenario, runs.clone());
            keep(&kept, scenario.name(), &so_far)?;
            write_page(&kept)?;
            promised &= so_far.kept_its_promise();
        }
    }
    for change in Change::ALL.into_iter().filter(|change| is_chosen(change.name())) {
        let moved = change.repeat(times).await;
        promised &= moved.failures.is_empty() && moved.missing == 0;
        keep(&kept, change.name(), &moved)?;
        write_page(&kept)?;
    }
    write_page(&kept)?;
    eprintln!(
        "{}",
        if promised {
            "nothing was lost"
        } else {
            "FAILED: see docs/benchmarks/chaos.md"
        }
    );
    Ok(promised)
}

fn in_a_line(run: &report::Run) -> String {
    let seconds = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = run.acked as f64 / run.load_seconds.max(0.001);
    format!(
        "first write after {} s, every one after {} s, whole after {} s; {} acknowledged ({rate:.0}/s), lost {}, stale {}, \
         longest gap {:.2} s until {} s, errors {:?}, clients {:?}{}",
        seconds(run.first_write_seconds),
        seconds(run.every_write_seconds),
        seconds(run.whole_seconds),
        run.acked,
        run.lost,
        run.stale,
        run.longest_gap_seconds,
        seconds(run.longest_gap_ended_seconds),
        run.errors,
        run.clients,
        run.failure
            .as_ref()
            .map_or_else(String::new, |failure| format!("; FAILED: {failure}"))
    )
}

fn path_of(kept: &Path, name: &str) -> PathBuf {
    kept.join(format!("{name}.json"))
}

fn keep(kept: &Path, name: &str, result: &impl Serialize) -> Result<()> {
    std::fs::write(path_of(kept, name), serde_json::to_string(result)?)?;
    Ok(())
}

fn kept_of<T: DeserializeOwned>(kept: &Path, name: &str) -> Result<Option<T>> {
    let path = path_of(kept, name);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path)?;
    let result = serde_json::from_str(&text)
        .with_context(|| format!("{} is of another version: delete it", path.display()))?;
    Ok(Some(result))
}

/// From all that is kept.
fn write_page(kept: &Path) -> Result<()> {
    let mut scenarios: Vec<report::Scenario> = Vec::new();
    for scenario in Scenario::ALL {
        scenarios.extend(kept_of(kept, scenario.name())?);
    }
    let mut moved: Vec<Moved> = Vec::new();
    for change in Change::ALL {
        moved.extend(kept_of(kept, change.name())?);
    }
    let about = format!(
        "The development cluster with three workers in three zones, and the clients, all on one machine with {} CPUs; \
         three nodes with two copies of everything and `acks: 1`; {} writers.",
        std::thread::available_parallelism()?,
        scenario::WRITERS
    );
    let lanes: Vec<Lane> = scenarios
        .iter()
        .filter_map(|scenario| {
            Some(Lane {
                label: scenario.title.clone(),
                counts: scenario.representative()?.timeline.clone(),
            })
        })
        .collect();
    let folder = repository().join("docs/benchmarks");
    std::fs::write(folder.join("chaos.md"), report::page(&about, &scenarios, &moved))?;
    let title = "Acknowledged writes around the fault, the median run of each scenario";
    let plot = report::lanes(title, &lanes, BUCKET_MS, BUCKETS_BEFORE, BUCKETS_AFTER);
    std::fs::write(folder.join("chaos.svg"), plot)?;
    Ok(())
}
