//! A ledger of acknowledged writes: what clients were told, to be compared with what can be read afterwards.
//!
//! Each key has one writer, which writes ever higher numbers, one after the other. So a value that is lower than the
//! highest acknowledged one is a lost write, whenever and wherever it is read; a higher one is a write whose outcome
//! the client was never told, which may have been made or not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annulus_ring::Slot;
use anyhow::{Result, anyhow, ensure};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::cache::Cache;
use crate::findings::{Acked, Findings};
use crate::wait::{seconds, until};

/// As many as leave a machine with two cores some air.
const WRITERS: usize = 16;
/// All writers' keys together: the more writers, the sooner each key is written again.
const KEYS: usize = 1024;
const READERS: usize = 2;
/// Errors of which the text is kept, by their kind.
const KINDS_MAX: usize = 12;

/// Writers and readers at work.
pub struct Ledger {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Vec<Acked>>>,
    readers: Vec<JoinHandle<()>>,
}

struct Shared {
    client: ClusterClient,
    prefix: String,
    stop: AtomicBool,
    /// By key: the highest number that was acknowledged.
    acked: Vec<AtomicU64>,
    /// By key: the highest number that was ever sent.
    sent: Vec<AtomicU64>,
    reads: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    stale: Mutex<Vec<String>>,
}

impl Ledger {
    /// Starts clients of that cluster.
    pub async fn start(cache: &Cache<'_>, prefix: &str) -> Result<Self> {
        Self::with_writers(cache, prefix, WRITERS).await
    }

    /// The same with that many writers, which share the keys.
    pub async fn with_writers(cache: &Cache<'_>, prefix: &str, writers: usize) -> Result<Self> {
        ensure!(
            (1..=KEYS).contains(&writers),
            "there can be 1 to {KEYS} writers, not {writers}"
        );
        let mut hosts: Vec<String> = cache.pod_ips().await?.values().map(ToString::to_string).collect();
        hosts.push(cache.service_ip().await?);
        let addresses = hosts.iter().map(|host| format!("redis://{host}:6379"));
        // Impatient: what is measured is how soon a write succeeds, not how well a client waits.
        let client = ClusterClient::builder(addresses)
            .password(cache.password().await?)
            .connection_timeout(Duration::from_secs(1))
            .response_timeout(Duration::from_millis(500))
            .retries(2)
            .min_retry_wait(10)
            .max_retry_wait(50)
            .build()?;
        let shared = Arc::new(Shared {
            client,
            prefix: prefix.to_owned(),
            stop: AtomicBool::new(false),
            acked: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
            sent: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
            reads: AtomicU64::new(0),
            errors: Mutex::default(),
            stale: Mutex::default(),
        });
        // One connection that works before anybody counts errors.
        shared.client.get_async_connection().await?;
        Ok(Self {
            writers: (0..writers)
                .map(|writer| tokio::spawn(write(Arc::clone(&shared), writer, writers)))
                .collect(),
            readers: (0..READERS)
                .map(|reader| tokio::spawn(read(Arc::clone(&shared), reader)))
                .collect(),
            shared,
        })
    }

    /// How many writes were acknowledged to all writers together, of each key the highest.
    pub fn acked(&self) -> u64 {
        self.shared
            .acked
            .iter()
            .map(|key| key.load(Ordering::Relaxed))
            .sum()
    }

    /// Waits until every key was written again.
    pub async fn all_written(&self, deadline: Duration) -> Result<()> {
        let load = || -> Vec<u64> {
            let acked = self.shared.acked.iter();
            acked.map(|key| key.load(Ordering::Relaxed)).collect()
        };
        let before = load();
        until("a write of every key", deadline, async || {
            let now = load();
            let waiting = before.iter().zip(&now).filter(|(before, now)| now <= before);
            let waiting = waiting.count();
            ensure!(waiting == 0, "{waiting} keys were not written");
            Ok(())
        })
        .await
    }

    /// Stops the clients and reads every key.
    pub async fn finish(mut self) -> Result<Findings> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut writes = Vec::new();
        for writer in self.writers.drain(..) {
            writes.extend(writer.await?);
        }
        for reader in self.readers.drain(..) {
            reader.await?;
        }
        let shared = &self.shared;
        let mut connection = shared.client.get_async_connection().await?;
        let mut lost = Vec::new();
        for key in 0..shared.acked.len() {
            let name = shared.name(key);
            let found = until(&format!("GET {name}"), seconds(20), async || {
                match shared.get(&mut connection, key).await {
                    Ok(found) => Ok(found),
                    Err(error) => {
                        connection = shared.client.get_async_connection().await?;
                        Err(error.into())
                    }
                }
            })
            .await?;
            if let Some(problem) = shared.problem(key, shared.acked[key].load(Ordering::Relaxed), found) {
                lost.push(problem);
            }
        }
        Ok(Findings {
            writes,
            slots: (0..shared.acked.len())
                .map(|key| Slot::for_key(shared.name(key).as_bytes()))
                .collect(),
            reads: shared.reads.load(Ordering::Relaxed),
            errors: std::mem::take(&mut *shared.errors.lock().map_err(|_| anyhow!("a client panicked"))?),
            stale: std::mem::take(&mut *shared.stale.lock().map_err(|_| anyhow!("a client panicked"))?),
            lost,
        })
    }
}

/// Clients of a scenario that failed must not go on beside the next one.
impl Drop for Ledger {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn name(&self, key: usize) -> String {
        format!("{}:{key}", self.prefix)
    }

    async fn get(&self, connection: &mut ClusterConnection, key: usize) -> redis::RedisResult<Option<u64>> {
        redis::cmd("GET")
            .arg(self.name(key))
            .query_async(connection)
            .await
    }

    /// What is wrong with a value that was read after `acked` had been acknowledged.
    fn problem(&self, key: usize, acked: u64, found: Option<u64>) -> Option<String> {
        let sent = self.sent[key].load(Ordering::Acquire);
        let right = found.map_or(acked == 0, |found| (acked..=sent).contains(&found));
        (!right).then(|| {
            format!(
                "{}: acknowledged {acked}, sent {sent}, found {found:?}",
                self.name(key)
            )
        })
    }

    fn count(&self, error: &redis::RedisError) {
        // Addresses and numbers differ from one to the next.
        let kind: String = error.to_string().chars().take(60).collect();
        let kind = kind.replace(|c: char| c.is_ascii_digit(), "#");
        if let Ok(mut errors) = self.errors.lock() {
            let full = errors.len() >= KINDS_MAX && !errors.contains_key(&kind);
            let kind = if full { "others".to_owned() } else { kind };
            *errors.entry(kind).or_default() += 1;
        }
    }

    /// A new connection, which asks the nodes anew who owns what.
    async fn reconnect(&self) -> Option<ClusterConnection> {
        while !self.stop.load(Ordering::Relaxed) {
            match self.client.get_async_connection().await {
                Ok(connection) => return Some(connection),
                Err(error) => self.count(&error),
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }
}

async fn write(shared: Arc<Shared>, writer: usize, writers: usize) -> Vec<Acked> {
    let mut done = Vec::new();
    let Some(mut connection) = shared.reconnect().await else {
        return done;
    };
    let keys = (writer..KEYS).step_by(writers);
    for key in keys.cycle() {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let number = shared.sent[key].load(Ordering::Relaxed) + 1;
        shared.sent[key].store(number, Ordering::Release);
        let begun = Instant::now();
        let answer = redis::cmd("SET")
            .arg(shared.name(key))
            .arg(number)
            .query_async::<()>(&mut connection)
            .await;
        match answer {
            Ok(()) => {
                shared.acked[key].store(number, Ordering::Release);
                done.push(Acked {
                    key,
                    begun,
                    answered: Instant::now(),
                });
            }
            Err(error) => {
                shared.count(&error);
                let Some(fresh) = shared.reconnect().await else {
                    break;
                };
                connection = fresh;
            }
        }
    }
    done
}

async fn read(shared: Arc<Shared>, reader: usize) {
    let Some(mut connection) = shared.reconnect().await else {
        return;
    };
    let keys = (0..shared.acked.len()).filter(|key| key % READERS == reader);
    for key in keys.cycle() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let acked = shared.acked[key].load(Ordering::Acquire);
        match shared.get(&mut connection, key).await {
            Ok(found) => {
                shared.reads.fetch_add(1, Ordering::Relaxed);
                if let Some(problem) = shared.problem(key, acked, found)
                    && let Ok(mut stale) = shared.stale.lock()
                {
                    stale.push(problem);
                }
            }
            Err(error) => {
                shared.count(&error);
                let Some(fresh) = shared.reconnect().await else {
                    return;
                };
                connection = fresh;
            }
        }
    }
}
