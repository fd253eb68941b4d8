//! Clients: the programs of tests/clients, and a load that runs while a test changes the cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, Result, anyhow, ensure};
use redis::cluster_async::ClusterConnection;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use crate::kubernetes::{Kubernetes, repository};

/// A program of tests/clients and how many keys it works with.
pub struct Client {
    /// As tests/clients/run knows it.
    pub name: &'static str,
    /// Its keys.
    pub keys: u32,
}

/// Every client. The async mode of redis-rs is an extra: fewer keys.
pub const CLIENTS: [Client; 8] = [
    Client {
        name: "redis-cli",
        keys: 10_000,
    },
    Client {
        name: "redis-py",
        keys: 10_000,
    },
    Client {
        name: "go-redis",
        keys: 10_000,
    },
    Client {
        name: "redis-rs",
        keys: 10_000,
    },
    Client {
        name: "redis-rs-async",
        keys: 2_000,
    },
    Client {
        name: "ioredis",
        keys: 10_000,
    },
    Client {
        name: "lettuce",
        keys: 10_000,
    },
    Client {
        name: "redis-benchmark",
        keys: 10_000,
    },
];

static PREPARED: OnceCell<Result<(), String>> = OnceCell::const_new();

impl Client {
    /// Runs it; its line of result, or everything that it said.
    pub async fn run(&self, kubernetes: &Kubernetes, host: &str, password: &str) -> Result<String> {
        prepare(kubernetes).await?;
        let mut command = Command::new(repository().join("tests/clients/run"));
        command
            .env("ANNULUS_REDIS_RS", redis_rs()?)
            .args([self.name, host, "6379", &self.keys.to_string()])
            .env("ANNULUS_PASSWORD", password);
        let line = kubernetes.run(&mut command, "").await?.success()?;
        ensure!(
            line.contains(" errors=0 ") && line.contains(&format!("keys={} ", self.keys)),
            "{line}"
        );
        Ok(line.trim_end().to_owned())
    }
}

/// The program that cargo builds beside the tests, which are in `deps`.
fn redis_rs() -> Result<PathBuf> {
    let tests = std::env::current_exe()?;
    let built = tests.ancestors().nth(2).context("the tests run from nowhere")?;
    Ok(built.join("annulus-client-redis-rs"))
}

pub(crate) async fn prepare(kubernetes: &Kubernetes) -> Result<()> {
    let outcome = PREPARED.get_or_init(async || {
        // Cargo has built the program of redis-rs along with the tests.
        let mut command = Command::new(repository().join("tests/clients/prepare"));
        command.arg("--without-redis-rs");
        let outcome = kubernetes
            .run(&mut command, "")
            .await
            .and_then(crate::Answer::success);
        outcome.map(drop).map_err(|error| format!("{error:#}"))
    });
    outcome
        .await
        .clone()
        .map_err(|error| anyhow!("the clients could not be prepared: {error}"))
}

/// Clients that write and read without a pause, each key by one of them, until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

const LOAD_KEYS: u64 = 500;
const ERRORS_KEPT: usize = 5;

impl Load {
    /// Starts that many clients over one connection to the cluster.
    pub fn start(connection: &ClusterConnection, clients: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let operations = Arc::new(AtomicU64::new(0));
        let tasks = (0..clients)
            .map(|client| {
                tokio::spawn(work(
                    connection.clone(),
                    client,
                    Arc::clone(&stop),
                    Arc::clone(&operations),
                ))
            })
            .collect();
        Self {
            stop,
            operations,
            tasks,
        }
    }

    /// Stops the clients. How many operations they did, or the first errors of each.
    pub async fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut errors = Vec::new();
        for task in self.tasks {
            errors.extend(task.await?);
        }
        let operations = self.operations.load(Ordering::Relaxed);
        ensure!(
            errors.is_empty(),
            "errors after {operations} operations: {errors:#?}"
        );
        Ok(operations)
    }
}

/// Writes each key with the number of the round and reads it back; a value of an older round is a lost write.
async fn work(
    mut connection: ClusterConnection,
    client: u64,
    stop: Arc<AtomicBool>,
    operations: Arc<AtomicU64>,
) -> Vec<String> {
    let mut errors = Vec::new();
    let mut round: u64 = 0;
    while !stop.load(Ordering::Relaxed) && errors.len() < ERRORS_KEPT {
        for number in 0..LOAD_KEYS {
            if stop.load(Ordering::Relaxed) || errors.len() >= ERRORS_KEPT {
                break;
            }
            let key = format!("load:{client}:{number}");
            if round > 0 {
                let read: redis::RedisResult<Option<u64>> =
                    redis::cmd("GET").arg(&key).query_async(&mut connection).await;
                match read {
                    Ok(Some(value)) if value == round - 1 => {}
                    Ok(other) => errors.push(format!("GET {key}: {other:?}, not {}", round - 1)),
                    Err(error) => errors.push(format!("GET {key}: {error}")),
                }
            }
            let written: redis::RedisResult<()> = redis::cmd("SET")
                .arg(&key)
                .arg(round)
                .query_async(&mut connection)
                .await;
            if let Err(error) = written {
                errors.push(format!("SET {key}: {error}"));
            }
            operations.fetch_add(2, Ordering::Relaxed);
        }
        round += 1;
    }
    errors
}
