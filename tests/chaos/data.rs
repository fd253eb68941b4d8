//! Changes of a cluster that holds much: how long they take, and how much they move.

use std::collections::BTreeMap;

use annulus_ring::{NodeId, Slot};
use annulus_tests::report::Moved;
use annulus_tests::{Cache, Operator, Test, repository, seconds, try_run};
use anyhow::{Context as _, Result, ensure};
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use crate::scenario::{ROLLED, WHOLE};

const VALUE_BYTES: usize = 1024;
/// Keys in one pipeline.
const BATCH: usize = 500;

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// 3 to 4 nodes with 300 MB.
    Move300,
    /// 3 to 4 nodes with a million keys.
    MoveMillion,
    /// New pods, one after the other.
    Roll300,
}

impl Change {
    /// In the order in which they run.
    pub const ALL: [Self; 3] = [Self::Move300, Self::Roll300, Self::MoveMillion];

    /// By which it can be chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Move300 => "move-300mb",
            Self::MoveMillion => "move-1m-keys",
            Self::Roll300 => "roll-300mb",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Move300 => "3 → 4 nodes with 300 MB, one copy",
            Self::MoveMillion => "3 → 4 nodes with a million keys, one copy",
            Self::Roll300 => "rolling update of 3 nodes with 300 MB, two copies",
        }
    }

    fn keys(self) -> usize {
        match self {
            Self::Move300 | Self::Roll300 => 290_000,
            Self::MoveMillion => 1_000_000,
        }
    }

    /// With more fields, after a comma.
    fn spec(self, nodes: usize, more: &str) -> String {
        let copies = match self {
            Self::Roll300 => ", replication: {factor: 2, acks: 1}",
            Self::Move300 | Self::MoveMillion => "",
        };
        format!(
            "{{nodes: {nodes}, resources: {{requests: {{cpu: 10m, memory: 64Mi}}, limits: {{memory: 1536Mi}}}}{copies}{more}}}"
        )
    }

    /// Runs it that often, each time in a namespace of its own.
    pub async fn repeat(self, times: u32) -> Moved {
        let stored_bytes = (0..self.keys())
            .map(|number| key(number).len() + VALUE_BYTES)
            .sum::<usize>();
        let stored_bytes = u64::try_from(stored_bytes).unwrap_or(u64::MAX);
        let mut moved = Moved {
            name: self.name().to_owned(),
            title: self.title().to_owned(),
            keys: u64::try_from(self.keys()).unwrap_or(u64::MAX),
            stored_bytes,
            ideal_bytes: (self != Self::Roll300).then_some(stored_bytes / 4),
            ..Moved::default()
        };
        for number in 1..=times {
            let name = format!("chaos-{}-{number}", self.name());
            let outcome = try_run(&name, async |test| self.once(test, &mut moved).await).await;
            if let Err(error) = outcome {
                eprintln!("{name}: {error:#}");
                let here = format!("{}/", repository().display());
                moved.failures.push(format!("{error:#}").replace(&here, ""));
            }
        }
        moved
    }

    async fn once(self, test: &Test, moved: &mut Moved) -> Result<()> {
        Operator::wait_available(&test.kubernetes).await?;
        let namespace = test.namespace().await?;
        let cache = namespace.ready_cache("demo", &self.spec(3, "")).await?;
        self.wait(&cache, 3).await?;
        let begin = Instant::now();
        fill(&cache, self.keys()).await?;
        eprintln!("filled in {:.1} s", begin.elapsed().as_secs_f64());

        let lives = cache.lives().await?;
        let begin = Instant::now();
        if self == Self::Roll300 {
            cache
                .apply(&self.spec(3, &format!(", {ROLLED}")))
                .await?
                .success()?;
            cache.replaced(&lives, WHOLE).await?;
            self.wait(&cache, 3).await?;
        } else {
            cache.kubectl(&["scale", "cc/demo", "--replicas=4"]).await?;
            self.wait(&cache, 4).await?;
        }
        let took = begin.elapsed();
        if self != Self::Roll300 {
            moved.moved_bytes.push(received(&cache).await?);
        }
        moved.seconds.push(took.as_secs_f64());
        let missing = missing(&cache, self.keys()).await?;
        moved.missing += missing;
        eprintln!(
            "{}: {:.1} s, {missing} keys missing",
            self.name(),
            took.as_secs_f64()
        );
        ensure!(missing == 0, "{missing} of {} keys were lost", self.keys());
        cache.ended(WHOLE).await
    }

    async fn wait(self, cache: &Cache<'_>, nodes: usize) -> Result<()> {
        if self == Self::Roll300 {
            cache.whole(nodes, WHOLE).await?;
        } else {
            cache.settled(nodes, WHOLE).await?;
        }
        Ok(())
    }
}

fn key(number: usize) -> String {
    format!("data:{number:010}")
}

/// What a key must have: begins with its number.
fn value(number: usize) -> String {
    let mut value = key(number).repeat(VALUE_BYTES / key(number).len() + 1);
    value.truncate(VALUE_BYTES);
    value
}

/// By owner: a connection to it and its keys.
async fn by_owner(cache: &Cache<'_>, keys: usize) -> Result<Vec<(MultiplexedConnection, Vec<usize>)>> {
    let document = cache.document().await?;
    let ring = document.ring();
    let mut keys_of = BTreeMap::<NodeId, Vec<usize>>::new();
    for number in 0..keys {
        let owner = ring
            .owner(Slot::for_key(key(number).as_bytes()))
            .context("a slot without owner")?;
        keys_of.entry(owner.clone()).or_default().push(number);
    }
    let mut all = Vec::new();
    for (owner, keys) in keys_of {
        let mut connection = cache.connect_to(cache.pod_ip(owner.as_str()).await?).await?;
        connection.set_response_timeout(seconds(30));
        all.push((connection, keys));
    }
    Ok(all)
}

async fn fill(cache: &Cache<'_>, keys: usize) -> Result<()> {
    let nodes = by_owner(cache, keys)
        .await?
        .into_iter()
        .map(async |(mut connection, keys)| {
            for batch in keys.chunks(BATCH) {
                let mut pipe = redis::pipe();
                for number in batch {
                    pipe.set(key(*number), value(*number)).ignore();
                }
                pipe.query_async::<()>(&mut connection).await?;
            }
            anyhow::Ok(())
        });
    futures::future::try_join_all(nodes).await?;
    Ok(())
}

async fn missing(cache: &Cache<'_>, keys: usize) -> Result<u64> {
    let nodes = by_owner(cache, keys)
        .await?
        .into_iter()
        .map(async |(mut connection, keys)| {
            let mut missing = 0;
            for batch in keys.chunks(BATCH) {
                let mut pipe = redis::pipe();
                for number in batch {
                    pipe.get(key(*number));
                }
                let found: Vec<Option<String>> = pipe.query_async(&mut connection).await?;
                for (number, found) in batch.iter().zip(found) {
                    match found {
                        None => missing += 1,
                        Some(found) => {
                            ensure!(found == value(*number), "{} has another's value", key(*number));
                        }
                    }
                }
            }
            anyhow::Ok(missing)
        });
    Ok(futures::future::try_join_all(nodes).await?.into_iter().sum())
}

/// What all nodes took over, by their own count.
async fn received(cache: &Cache<'_>) -> Result<u64> {
    let mut bytes = 0;
    for pod in cache.pods().await?.into_keys() {
        let page = cache.metrics(&pod).await?;
        let line = page
            .lines()
            .find(|line| line.starts_with("annulus_handoff_bytes_total") && line.contains("direction=\"in\""))
            .with_context(|| format!("{pod} does not count what it received"))?;
        let count = line.split_whitespace().last().context("no figure")?;
        bytes += count.parse::<u64>().with_context(|| line.to_owned())?;
    }
    Ok(bytes)
}
