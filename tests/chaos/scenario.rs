//! The scenarios, and one run of one of them.

use std::time::Duration;

use annulus_tests::report::{self, BUCKET_MS, BUCKETS_AFTER, BUCKETS_BEFORE, ClientFigures, Run};
use annulus_tests::{Cache, Findings, Ledger, LoadProgram, Operator, Test, repository, seconds, try_run};
use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep};

use crate::faults::{Fault, World};
use crate::undo::Undo;

/// How long every key may take to be written.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// How long missing nodes and copies may take.
pub const WHOLE: Duration = Duration::from_mins(5);
/// Makes new pods of the same kind necessary.
pub const ROLLED: &str = "podMetadata: {annotations: {rolled: 'yes'}}";
/// Seen on the plot before the fault.
const LEAD: Duration = Duration::from_secs(4);
/// What a client's latencies during a change are compared with takes longer to be measured.
const CLIENTS_LEAD: Duration = Duration::from_secs(10);
/// Enough for 5000 writes a second on two cores.
pub const WRITERS: usize = 64;
const CLIENTS: [&str; 2] = ["redis-py", "go-redis"];

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    Kill,
    Stop,
    Delete,
    Force,
    Scale,
    Roll,
    Cut,
    Drain,
    OperatorsInHandoff,
    ApiStopped,
    OperatorsGone,
    OperatorsGoneKill,
    LeaderAndNode,
    Flap,
}

impl Scenario {
    /// In the order in which they run.
    pub const ALL: [Self; 14] = [
        Self::Kill,
        Self::Stop,
        Self::Delete,
        Self::Force,
        Self::Scale,
        Self::Roll,
        Self::Cut,
        Self::Drain,
        Self::OperatorsInHandoff,
        Self::ApiStopped,
        Self::OperatorsGone,
        Self::OperatorsGoneKill,
        Self::LeaderAndNode,
        Self::Flap,
    ];

    /// By which it can be chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Delete => "delete",
            Self::Force => "force",
            Self::Scale => "scale",
            Self::Roll => "roll",
            Self::Cut => "cut",
            Self::Drain => "drain",
            Self::OperatorsInHandoff => "operators-in-handoff",
            Self::ApiStopped => "api-stopped",
            Self::OperatorsGone => "operators-gone",
            Self::OperatorsGoneKill => "operators-gone-kill",
            Self::LeaderAndNode => "leader-and-node",
            Self::Flap => "flap",
        }
    }

    /// What happens.
    pub fn title(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of a node",
            Self::Stop => "SIGSTOP of a node, later SIGCONT",
            Self::Delete => "pod deleted",
            Self::Force => "pod deleted by force",
            Self::Scale => "scaled 3 → 4 → 3",
            Self::Roll => "rolling update of 3 nodes",
            Self::Cut => "worker cut from the network",
            Self::Drain => "worker drained",
            Self::OperatorsInHandoff => "operators killed in handoffs, 3 → 4 → 3",
            Self::ApiStopped => "API server stopped for 20 s",
            Self::OperatorsGone => "no operator for a minute",
            Self::OperatorsGoneKill => "kill -9 without operators; from an operator's start",
            Self::LeaderAndNode => "leader and node killed together",
            Self::Flap => "nodes 3 → 4 → 3 → 5 → 3 at once",
        }
    }

    /// Whether it is a change that a person plans: clients must see no error.
    fn is_planned(self) -> bool {
        matches!(self, Self::Scale | Self::Roll | Self::Drain)
    }
}

/// A spec of that many nodes with two copies of everything, small enough for a developer's machine.
pub fn spec(nodes: u32, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!(
        "{{nodes: {nodes}, resources: {{requests: {{cpu: 10m, memory: 64Mi}}, limits: {{memory: 256Mi}}}}, \
         replication: {{factor: 2, acks: 1}}{comma}{more}}}"
    )
}

/// Runs it once, in a namespace of its own. What could be measured before a failure is kept.
pub async fn run(scenario: Scenario, number: u32, undo: &Undo) -> Run {
    let mut run = Run::default();
    let name = format!("chaos-{}-{number}", scenario.name());
    let outcome = try_run(&name, async |test| {
        let outcome = one(scenario, test, undo, &mut run).await;
        // First, since nothing that follows can rely on a broken machine.
        let undone = undo.all(&test.kubernetes).await;
        outcome?;
        undone
    })
    .await;
    // The page is for other machines too.
    let here = format!("{}/", repository().display());
    run.failure = outcome.err().map(|error| format!("{error:#}").replace(&here, ""));
    run
}

async fn one(scenario: Scenario, test: &Test, undo: &Undo, run: &mut Run) -> Result<()> {
    Operator::wait_available(&test.kubernetes).await?;
    let namespace = test.namespace().await?;
    let cache = namespace.ready_cache("demo", &spec(3, "")).await?;
    let before = cache.whole(3, WHOLE).await?;
    let mut clients = Vec::new();
    if scenario.is_planned() {
        for name in CLIENTS {
            clients.push(LoadProgram::start(&cache, name).await?);
        }
    }
    let ledger = Ledger::with_writers(&cache, "ledger", WRITERS).await?;
    ledger.all_written(PATIENCE).await?;
    if !clients.is_empty() {
        // Connecting and the first writes are no part of what comes later.
        phase(&mut clients, "before").await?;
    }
    sleep(if clients.is_empty() { LEAD } else { CLIENTS_LEAD }).await;
    phase(&mut clients, "during").await?;

    let world = World {
        test,
        cache: &cache,
        ledger: &ledger,
        before: &before,
        undo,
    };
    let happened = world.happen(scenario).await;
    let settled = settled(&cache, &ledger, happened.as_ref().ok()).await;
    for client in clients {
        run.clients.push(client.finish().await?);
    }
    let findings = ledger.finish().await?;
    measure(run, &findings, happened.as_ref().ok());
    let lost = findings.nothing_lost();
    let fault = happened?;
    lost?;
    run.whole_seconds = Some(settled?.as_secs_f64());
    if let Some(hit) = &fault.hit {
        let (first, every) = findings.recovery(&before, hit, fault.at)?;
        run.first_write_seconds = Some(first.as_secs_f64());
        run.every_write_seconds = Some(every.as_secs_f64());
    }
    cache.agreed().await?;
    no_error(&run.clients)?;
    cache.ended(WHOLE).await
}

async fn phase(clients: &mut [LoadProgram], name: &str) -> Result<()> {
    for client in clients {
        client.phase(name).await?;
    }
    Ok(())
}

/// How long after the fault everything was as before, and goes on.
async fn settled(cache: &Cache<'_>, ledger: &Ledger, fault: Option<&Fault>) -> Result<Duration> {
    let fault = fault.context("the fault did not happen")?;
    cache.whole(3, WHOLE).await?;
    let whole = fault.at.elapsed();
    ledger.all_written(PATIENCE).await?;
    // A fault of a few seconds would leave most of its lane empty.
    let shown = seconds(BUCKET_MS * u64::try_from(BUCKETS_AFTER)? / 1000);
    tokio::time::sleep_until((fault.at + shown).min(Instant::now() + LEAD)).await;
    Ok(whole)
}

fn measure(run: &mut Run, findings: &Findings, fault: Option<&Fault>) {
    run.acked = u64::try_from(findings.acked()).unwrap_or(u64::MAX);
    run.load_seconds = findings.load_time().as_secs_f64();
    run.lost = u64::try_from(findings.lost.len()).unwrap_or(u64::MAX);
    run.stale = u64::try_from(findings.stale.len()).unwrap_or(u64::MAX);
    run.errors.clone_from(&findings.errors);
    if let Some(fault) = fault {
        if let Some((gap, ended)) = findings.longest_gap_since(Some(fault.at)) {
            run.longest_gap_seconds = gap.as_secs_f64();
            run.longest_gap_ended_seconds = Some(ended.duration_since(fault.at).as_secs_f64());
        }
        let bucket = Duration::from_millis(BUCKET_MS);
        run.timeline = findings.timeline(fault.at, bucket, BUCKETS_BEFORE, BUCKETS_AFTER);
    }
}

fn no_error(clients: &[ClientFigures]) -> Result<()> {
    let failed = clients.iter().filter(|client| !client.errors.is_empty());
    let failed: Vec<_> = failed.map(|client| (&client.client, &client.errors)).collect();
    anyhow::ensure!(
        failed.is_empty(),
        "clients saw errors in a planned change: {failed:?}"
    );
    Ok(())
}

/// What is told of a scenario.
pub fn described(scenario: Scenario, runs: Vec<Run>) -> report::Scenario {
    report::Scenario {
        name: scenario.name().to_owned(),
        title: scenario.title().to_owned(),
        runs,
    }
}
