//! Connections that read keys where they are, in small pipelines.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annulus_ring::{RingDocument, Slot};
use annulus_tests::Cache;
use annulus_tests::wire::{command, reply};
use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

const PORT: u16 = 6379;
/// Commands on their way on one connection.
const PIPELINE: usize = 8;

/// Keys by the node that serves them.
pub struct Places(Vec<(Ipv4Addr, Vec<String>)>);

impl Places {
    pub async fn of(cache: &Cache<'_>, keys: impl Iterator<Item = String>) -> Result<Self> {
        let document: RingDocument = cache.document().await?;
        let ring = document.ring();
        let ips = cache.pod_ips().await?;
        let mut places: BTreeMap<Ipv4Addr, Vec<String>> = BTreeMap::new();
        for key in keys {
            let owner = ring
                .owner(Slot::for_key(key.as_bytes()))
                .context("a slot without an owner")?;
            let ip = ips
                .get(owner.as_str())
                .with_context(|| format!("no pod {owner}"))?;
            places.entry(*ip).or_default().push(key);
        }
        Ok(Self(places.into_iter().collect()))
    }
}

/// What readers saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub values: AtomicU64,
    pub absent: AtomicU64,
    pub errors: AtomicU64,
    /// The longest wait for a pipeline.
    pub slowest_ms: AtomicU64,
}

/// How long to read.
#[derive(Clone, Copy)]
pub enum Until {
    /// Each key so often, in order.
    Rounds(usize),
    /// Until then, whichever key comes.
    Moment(Instant),
}

/// How to read.
#[derive(Clone, Copy)]
pub struct Reads {
    /// To each node.
    pub connections: usize,
    /// How long.
    pub until: Until,
    /// At most so many reads by all connections together; as many as there can be without a limit.
    pub per_second: Option<u32>,
}

/// Reads the keys.
pub async fn read(places: &Places, password: &str, reads: Reads) -> Result<Arc<Seen>> {
    let Reads {
        connections, until, ..
    } = reads;
    let seen = Arc::new(Seen::default());
    let all = u32::try_from(PIPELINE * connections * places.0.len())?;
    let pause = reads
        .per_second
        .map(|per_second| Duration::from_secs(1) * all / per_second);
    let mut readers = JoinSet::new();
    for (ip, keys) in &places.0 {
        let part = keys.len().div_ceil(connections).max(1);
        for (number, part) in keys.chunks(part).enumerate() {
            // Those who read until a moment read all over the node's keys.
            let keys: Vec<String> = match until {
                Until::Rounds(_) => part.to_vec(),
                Until::Moment(_) => keys.iter().skip(number).step_by(connections).cloned().collect(),
            };
            let auth = command(&[b"AUTH", password.as_bytes()]);
            readers.spawn(reader(*ip, auth, keys, (until, pause), Arc::clone(&seen)));
        }
    }
    while let Some(ended) = readers.join_next().await {
        ended??;
    }
    Ok(seen)
}

/// Reads over one connection, with a pause from the beginning of a pipeline to that of the next.
async fn reader(
    ip: Ipv4Addr,
    auth: Vec<u8>,
    keys: Vec<String>,
    (until, pause): (Until, Option<Duration>),
    seen: Arc<Seen>,
) -> Result<()> {
    let mut stream = TcpStream::connect((ip, PORT)).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&auth).await?;
    let mut received = Vec::new();
    receive(&mut stream, &mut received, 1, &Seen::default()).await?;
    let mut round = 0;
    loop {
        for keys in keys.chunks(PIPELINE) {
            if matches!(until, Until::Moment(end) if Instant::now() >= end) {
                return Ok(());
            }
            let began = Instant::now();
            let commands: Vec<u8> = keys
                .iter()
                .flat_map(|key| command(&[b"GET", key.as_bytes()]))
                .collect();
            stream.write_all(&commands).await?;
            receive(&mut stream, &mut received, keys.len(), &seen).await?;
            let waited_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            seen.slowest_ms.fetch_max(waited_ms, Ordering::Relaxed);
            if let Some(pause) = pause {
                sleep_until(began + pause).await;
            }
        }
        round += 1;
        if matches!(until, Until::Rounds(rounds) if round >= rounds) {
            return Ok(());
        }
    }
}

/// Reads so many replies.
async fn receive(stream: &mut TcpStream, received: &mut Vec<u8>, replies: usize, seen: &Seen) -> Result<()> {
    let mut left = replies;
    let mut chunk = vec![0; 16 << 10];
    while left > 0 {
        let len = stream.read(&mut chunk).await?;
        ensure!(len > 0, "a node closed a reader's connection");
        received.extend_from_slice(&chunk[..len]);
        let mut read = 0;
        while left > 0
            && let Some((reply, len)) = reply(&received[read..])
        {
            let counter = match reply {
                b"$-1" => &seen.absent,
                _ if reply.starts_with(b"-") => &seen.errors,
                _ => &seen.values,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            read += len;
            left -= 1;
        }
        received.drain(..read);
    }
    Ok(())
}
