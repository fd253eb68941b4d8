//! Writers that note when each version of a key was acknowledged, and readers of the near cache that compare.
//!
//! Each key has one writer, which writes ever higher numbers. A read that began at `t` and returned version `v` is a violation if
//! a higher version had been acknowledged before `t - bound`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annulus_client::Client;
use futures::{FutureExt as _, StreamExt as _};
use redis::cluster::ClusterClient;
use std::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

pub const KEYS: usize = 256;
const WRITERS: usize = 4;
const READERS: usize = 2;
/// Reads between two pauses, so that readers leave the processor to others.
const READS_AT_ONCE: usize = 25;
const VIOLATIONS_SHOWN: usize = 10;
/// Acknowledgements are remembered for longer than anything may be old.
const REMEMBERED: Duration = Duration::from_mins(2);

/// Counts of durations, in buckets of a sixteenth of a power of two.
#[derive(Clone)]
pub struct Histogram(Vec<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Self(vec![0; 64 * 16])
    }
}

impl Histogram {
    fn place(ns: u64) -> usize {
        let ns = ns.max(16);
        let power = ns.ilog2();
        (power as usize) * 16 + usize::try_from((ns >> (power - 4)) & 15).unwrap()
    }

    pub fn add(&mut self, ns: u64) {
        self.0[Self::place(ns)] += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own += other;
        }
    }

    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The upper end of the bucket in which that share of all durations is reached, in nanoseconds.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut sum = 0;
        for (place, count) in self.0.iter().enumerate() {
            sum += count;
            if sum >= wanted && sum > 0 {
                let power = place / 16;
                return (((place % 16) as u64 + 17) << power) >> 4;
            }
        }
        0
    }
}

/// What one reader saw.
#[derive(Default, Clone)]
pub struct Seen {
    pub hits: Histogram,
    pub misses: Histogram,
    pub worst_age: Duration,
    pub worst_hit_age: Duration,
    pub violations: u64,
    pub shown: Vec<String>,
    pub errors: u64,
}

impl Seen {
    fn merge(&mut self, other: Self) {
        self.hits.merge(&other.hits);
        self.misses.merge(&other.misses);
        self.worst_age = self.worst_age.max(other.worst_age);
        self.worst_hit_age = self.worst_hit_age.max(other.worst_hit_age);
        self.violations += other.violations;
        self.errors += other.errors;
        self.shown.extend(other.shown);
        self.shown.truncate(VIOLATIONS_SHOWN);
    }
}

struct Key {
    name: String,
    /// When which version was acknowledged, oldest first.
    acked: Mutex<VecDeque<(Instant, u64)>>,
}

impl Key {
    fn acknowledge(&self, version: u64) {
        let now = Instant::now();
        let mut acked = self.acked.lock().unwrap();
        acked.push_back((now, version));
        while acked.len() > 1 && now - acked[1].0 > REMEMBERED {
            acked.pop_front();
        }
    }

    /// How long before `begun` the version had been replaced by an acknowledged one.
    fn age(&self, version: u64, begun: Instant) -> Duration {
        let acked = self.acked.lock().unwrap();
        let next = acked.partition_point(|&(_, acked)| acked <= version);
        acked
            .get(next)
            .map_or(Duration::ZERO, |&(at, _)| begun.saturating_duration_since(at))
    }
}

struct World {
    keys: Vec<Key>,
    stop: AtomicBool,
    writes: AtomicU64,
    write_errors: AtomicU64,
    bound: Duration,
}

pub struct Checker {
    world: Arc<World>,
    writers: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<Seen>>,
}

impl Checker {
    /// Starts writers that know the nodes at `addresses`, and readers of `client`.
    pub async fn start(addresses: &[String], client: &Client, bound: Duration) -> Self {
        let keys = (0..KEYS).map(|number| Key {
            name: format!("near:{number}"),
            acked: Mutex::default(),
        });
        let world = Arc::new(World {
            keys: keys.collect(),
            stop: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
            bound,
        });
        let cluster = ClusterClient::builder(addresses.iter().map(|address| format!("redis://{address}")))
            .connection_timeout(Duration::from_secs(1))
            .response_timeout(Duration::from_secs(1))
            .retries(2)
            .min_retry_wait(10)
            .max_retry_wait(50)
            .build()
            .unwrap();
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let connection = cluster.get_async_connection().await.unwrap();
            writers.push(tokio::spawn(write(Arc::clone(&world), connection, number)));
        }
        let readers = (0..READERS).map(|_| tokio::spawn(read(Arc::clone(&world), client.clone())));
        let readers = readers.collect();
        Self {
            world,
            writers,
            readers,
        }
    }

    pub fn writes(&self) -> (u64, u64) {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (get(&self.world.writes), get(&self.world.write_errors))
    }

    /// Ends all of it.
    pub async fn stop(self) -> Seen {
        self.world.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for reader in self.readers {
            seen.merge(reader.await.unwrap());
        }
        for writer in self.writers {
            writer.await.unwrap();
        }
        seen
    }
}

async fn write(world: Arc<World>, mut cluster: redis::cluster_async::ClusterConnection, number: usize) {
    let mut version = 0;
    while !world.stop.load(Ordering::Relaxed) {
        version += 1;
        for key in world.keys.iter().skip(number).step_by(WRITERS) {
            let written = redis::cmd("SET")
                .arg(&key.name)
                .arg(version)
                .exec_async(&mut cluster)
                .await;
            // What became of a write that failed isn't known: nothing is asked of it.
            if written.is_ok() {
                key.acknowledge(version);
                world.writes.fetch_add(1, Ordering::Relaxed);
            } else {
                world.write_errors.fetch_add(1, Ordering::Relaxed);
            }
            sleep(Duration::from_millis(5)).await;
            if world.stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }
}

async fn read(world: Arc<World>, client: Client) -> Seen {
    let mut seen = Seen::default();
    let mut turn = 0_usize;
    while !world.stop.load(Ordering::Relaxed) {
        // Several at once, as in a server: one that waits doesn't keep the others from reading.
        let reads = (0..READS_AT_ONCE).map(|place| {
            // Keys in an order that is the same for nobody.
            let key = &world.keys[(turn * 7 + place * 31) % KEYS];
            read_one(&client, key, world.bound)
        });
        let mut reads: futures::stream::FuturesUnordered<_> = reads.collect();
        while let Some(one) = reads.next().await {
            one.note(&mut seen);
        }
        turn += 1;
        sleep(Duration::from_millis(1)).await;
    }
    seen
}

/// What became of one read.
struct One {
    took: Duration,
    is_hit: bool,
    age: Option<Duration>,
    violation: Option<String>,
}

async fn read_one(client: &Client, key: &Key, bound: Duration) -> One {
    let begun = Instant::now();
    let mut reading = Box::pin(client.get(&key.name));
    // A hit is there at once; whatever asks a node waits.
    let at_once = (&mut reading).now_or_never();
    let took_at_once = begun.elapsed();
    let is_hit = at_once.is_some();
    let (answer, took) = match at_once {
        Some(answer) => (answer, took_at_once),
        None => (reading.await, begun.elapsed()),
    };
    let Ok(value) = answer else {
        return One {
            took,
            is_hit,
            age: None,
            violation: None,
        };
    };
    let version = value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap());
    let age = key.age(version, begun);
    let violation = (age > bound).then(|| {
        format!(
            "{}: version {version} was replaced {age:?} before it was read ({})",
            key.name,
            if is_hit { "from memory" } else { "from a node" }
        )
    });
    One {
        took,
        is_hit,
        age: Some(age),
        violation,
    }
}

impl One {
    fn note(self, seen: &mut Seen) {
        let Some(age) = self.age else {
            seen.errors += 1;
            return;
        };
        let ns = u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX);
        if self.is_hit {
            seen.hits.add(ns);
            seen.worst_hit_age = seen.worst_hit_age.max(age);
        } else {
            seen.misses.add(ns);
        }
        seen.worst_age = seen.worst_age.max(age);
        if let Some(text) = self.violation {
            seen.violations += 1;
            if seen.shown.len() < VIOLATIONS_SHOWN {
                seen.shown.push(text);
            }
        }
    }
}
