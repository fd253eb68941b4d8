//! One node under every kind of load at once, watched every second: its memory beside its limit, and every answer.
//!
//! The node's budget is what it would give itself in a container of that limit. Whatever is not as it should be fails the
//! run: memory over the limit at any moment, a wrong answer, a lost connection, a panic, an end that is not clean.

mod loads;
mod report;
mod wire;

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::random::Random;
use loads::Shared;
use wire::{Reply, Wire};

/// What is run, and for how long.
#[derive(Debug, Args)]
pub struct Options {
    /// The cache node.
    #[arg(long, default_value = "target/release/annulus-node")]
    node: PathBuf,
    /// Where the page and the plot go.
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
    /// How long, in minutes.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// The memory that the node may take, in MiB.
    #[arg(long, default_value_t = 512)]
    limit_mib: u64,
    /// Connections that come and go.
    #[arg(long, default_value_t = 2_000)]
    visitors: u64,
    /// Only these loads, to find the one that makes the difference: small, big, collections, visitor, slow-reader,
    /// publisher, subscriber, deaf-subscriber.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// What the load is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How long the node may take to start, to answer `INFO`, and to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// One second of the run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Seconds since the start.
    pub at_s: f64,
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// What entries and connections take by the node's own count.
    pub used_bytes: u64,
    /// What of it are entries.
    pub entry_bytes: u64,
    /// Connections.
    pub connections: u64,
    /// Replies that were right, so far.
    pub operations: u64,
}

/// What came of the run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By second.
    pub samples: Vec<Sample>,
    /// The most that was ever resident, by the kernel's count.
    pub resident_bytes_max: u64,
    /// The limit.
    pub limit_bytes: u64,
    /// What the node was told to take for entries.
    pub budget_bytes: u64,
    /// Connections that were made.
    pub connections: u64,
    /// Messages that were heard.
    pub messages: u64,
    /// Subscribers that were closed because they didn't read.
    pub closed_for_not_reading: u64,
    /// `evicted_keys`.
    pub evicted: u64,
    /// `expired_keys`.
    pub expired: u64,
    /// `evicted_clients`: none is expected.
    pub evicted_clients: u64,
    /// What was wrong.
    pub errors: u64,
    /// The first of it.
    pub first_errors: Vec<String>,
}

/// The node's own budget in a container of that limit.
fn budget_bytes(limit_bytes: u64) -> u64 {
    limit_bytes - (limit_bytes * 15 / 100).max(64 << 20)
}

/// Runs it, writes what came of it, and fails if anything was wrong.
pub fn run(options: &Options) -> io::Result<()> {
    if options.limit_mib < 256 || options.minutes == 0 {
        return Err(io::Error::other(
            "give at least --limit-mib 256 and --minutes 1: the values are up to 8 MiB",
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(soak(options))?;
    report::write(&options.out, options, &outcome)?;
    let mut out = io::stdout();
    writeln!(out, "{}", report::table(options, &outcome))?;
    for error in &outcome.first_errors {
        writeln!(out, "error: {error}")?;
    }
    if outcome.errors > 0 {
        return Err(io::Error::other(format!("{} errors", outcome.errors)));
    }
    if outcome.resident_bytes_max > outcome.limit_bytes {
        return Err(io::Error::other("the node took more memory than its limit"));
    }
    Ok(())
}

/// The node's process. It ends with this value.
struct Node {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.child.kill().is_ok() {
            self.child.wait().map(drop).unwrap_or_default();
        }
        fs::remove_file(&self.log).unwrap_or_default();
    }
}

impl Node {
    fn start(program: &Path, budget_bytes: u64) -> io::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = std::env::temp_dir().join(format!("annulus-soak-{port}.log"));
        let child = Command::new(program)
            .args(["serve", "--log-level", "warn", "--bind", &address.to_string()])
            .args(["--max-memory", &budget_bytes.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()?;
        Ok(Self { child, address, log })
    }

    /// A figure of `/proc/<pid>/status`, in bytes.
    fn status_bytes(&self, name: &str) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| io::Error::other(format!("the node's status has no {name}: has it ended?")))
    }

    /// Ends it as Kubernetes would, and waits.
    async fn end(&mut self) -> io::Result<ExitStatus> {
        Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if begin.elapsed() > PATIENCE {
                return Err(io::Error::other("the node does not end"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The loads that run.
struct Loads {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
    random: Random,
    /// Those that are wanted; all of them if it is empty.
    only: Vec<String>,
}

impl Loads {
    /// Starts so many of a load. A connection that breaks is an error, and the load begins again.
    fn start<F>(&mut self, count: u64, name: &'static str, load: fn(Arc<Shared>, Random) -> F)
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        if !self.only.is_empty() && !self.only.iter().any(|only| only == name) {
            return;
        }
        for _ in 0..count {
            let (shared, mut random) = (Arc::clone(&self.shared), Random::new(self.random.next()));
            self.tasks.spawn(async move {
                while let Err(error) = load(Arc::clone(&shared), Random::new(random.next())).await {
                    shared.fail(format!("{name}: {error}"));
                    if !shared.goes_on() {
                        break;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            });
        }
    }
}

/// A figure of `INFO`.
fn figure(info: &str, name: &str) -> u64 {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|text| text.parse().ok()).unwrap_or_default()
}

async fn info(wire: &mut Wire) -> io::Result<String> {
    match timeout(PATIENCE, wire.ask(&[b"INFO"])).await?? {
        Reply::Text(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        other => Err(io::Error::other(format!("INFO: {other:?}"))),
    }
}

async fn soak(options: &Options) -> io::Result<Outcome> {
    let limit_bytes = options.limit_mib << 20;
    let budget_bytes = budget_bytes(limit_bytes);
    let mut node = Node::start(&options.node, budget_bytes)?;
    let begin = Instant::now();
    let mut watch = loop {
        match Wire::connect(node.address, None).await {
            Ok(wire) => break wire,
            Err(error) if begin.elapsed() > PATIENCE => return Err(error),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    let shared = Arc::new(Shared::new(node.address));
    let mut loads = Loads {
        tasks: JoinSet::new(),
        shared: Arc::clone(&shared),
        random: Random::new(options.seed),
        only: options.only.clone(),
    };
    loads.start(4, "small", loads::small);
    loads.start(3, "big", loads::big);
    loads.start(2, "collections", loads::collections);
    loads.start(options.visitors, "visitor", loads::visitor);
    loads.start(12, "slow-reader", loads::slow_reader);
    loads.start(2, "publisher", loads::publisher);
    loads.start(10, "subscriber", loads::subscriber);
    loads.start(3, "deaf-subscriber", loads::deaf_subscriber);

    let mut outcome = Outcome {
        limit_bytes,
        budget_bytes,
        ..Outcome::default()
    };
    watch_node(options, &node, &mut watch, &shared, &mut outcome).await?;

    shared.stop.store(true, Ordering::Relaxed);
    let ended = timeout(PATIENCE, async {
        while loads.tasks.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        shared.fail(format!("{} clients wait for ever", loads.tasks.len()));
    }
    let last = info(&mut watch).await?;
    outcome.evicted = figure(&last, "evicted_keys");
    outcome.expired = figure(&last, "expired_keys");
    outcome.evicted_clients = figure(&last, "evicted_clients");
    if options.only.is_empty() && (outcome.evicted == 0 || outcome.expired == 0) {
        shared.fail(format!(
            "{} evictions and {} expiries: the load is none",
            outcome.evicted, outcome.expired
        ));
    }
    outcome.resident_bytes_max = node.status_bytes("VmHWM")?;
    let status = node.end().await?;
    if !status.success() {
        shared.fail(format!("the node ended with {status}"));
    }
    for line in fs::read_to_string(&node.log)?.lines() {
        if line.contains("panicked") || line.contains("ERROR") {
            shared.fail(format!("the node's log: {line}"));
        }
    }
    outcome.connections = shared.connections.load(Ordering::Relaxed);
    outcome.messages = shared.messages.load(Ordering::Relaxed);
    outcome.closed_for_not_reading = shared.closed_for_not_reading.load(Ordering::Relaxed);
    outcome.errors = shared.errors.load(Ordering::Relaxed);
    let first = shared.first_errors.lock().unwrap_or_else(PoisonError::into_inner);
    outcome.first_errors.clone_from(&first);
    Ok(outcome)
}

/// Takes a sample each second until the time is over.
async fn watch_node(
    options: &Options,
    node: &Node,
    watch: &mut Wire,
    shared: &Shared,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let begin = Instant::now();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while begin.elapsed() < Duration::from_mins(options.minutes) {
        seconds.tick().await;
        let info = info(watch).await?;
        let sample = Sample {
            at_s: begin.elapsed().as_secs_f64(),
            resident_bytes: node.status_bytes("VmRSS")?,
            used_bytes: figure(&info, "used_memory"),
            entry_bytes: figure(&info, "used_memory_dataset"),
            connections: figure(&info, "connected_clients"),
            operations: shared.operations.load(Ordering::Relaxed),
        };
        outcome.samples.push(sample);
        if outcome.samples.len() % 60 == 1 {
            writeln!(
                io::stderr(),
                "{:5.0} s: resident {} MiB, entries {} MiB, with connections {} MiB, {} connections, {} answers, {} errors",
                sample.at_s,
                sample.resident_bytes >> 20,
                sample.entry_bytes >> 20,
                sample.used_bytes >> 20,
                sample.connections,
                sample.operations,
                shared.errors.load(Ordering::Relaxed)
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_whole_name() {
        let info = "used_memory_rss:3\r\nused_memory:17\r\n";
        assert_eq!(figure(info, "used_memory"), 17);
        assert_eq!(figure(info, "nothing"), 0);
    }

    #[test]
    fn the_budget_leaves_headroom() {
        assert_eq!(budget_bytes(512 << 20) >> 20, 435);
        assert_eq!(budget_bytes(256 << 20) >> 20, 192);
    }
}
