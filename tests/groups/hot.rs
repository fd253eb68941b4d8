//! One key that gets half of all reads.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annulus_ring::Slot;
use annulus_tests::wire::{command, reply};
use annulus_tests::{Section, Test};
use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::world::World;

const HOT: &str = "hot";
const KEYS: u64 = 10_000;
const CONNECTIONS: usize = 16;
const MEASURED: Duration = Duration::from_secs(20);
/// As in `spec.hotKeys.mirror.maxStalenessMs`.
const STALENESS_MAX_MS: u64 = 200;
const WRITES_EVERY: Duration = Duration::from_millis(500);

/// What readers of one run saw.
#[derive(Default)]
struct Seen {
    /// Of the hot key, in microseconds, redirections included.
    waited_us: Vec<u64>,
    /// Answers by node.
    answers: BTreeMap<Ipv4Addr, u64>,
    redirected: u64,
    others: u64,
    /// Of the hot key: how long after the next value was acknowledged a read of an old one was begun.
    oldest_ms: u64,
}

/// When each value of the hot key was acknowledged, by its number, since the beginning.
struct Written {
    began: Instant,
    acked_us: Vec<AtomicU64>,
}

pub async fn run(test: &Test) -> Result<Section> {
    let mut section = Section::new(
        "Hot key",
        format!(
            "One of {KEYS} keys gets half of all reads, from {CONNECTIONS} connections that said `READONLY`, each to one of \
             three nodes, in turn; who is sent to the owner goes there for this read, on a second connection. The key is \
             written every {} ms. *Age* is how long after the acknowledgement of a newer value a read was begun that still got the old one; the bound \
             with mirrors is {STALENESS_MAX_MS} ms.",
            WRITES_EVERY.as_millis()
        ),
        &[
            "mirrors",
            "reads a second",
            "of the hot key",
            "answered by each node",
            "redirected",
            "hot key, µs: median / p99",
            "greatest age, ms",
        ],
    );
    for mirrors in [false, true] {
        let world = World::start_with(
            test,
            if mirrors {
                ", hotKeys: {mirror: {readsPerSecond: 100, maxStalenessMs: 200}}"
            } else {
                ""
            },
        )
        .await?;
        let seen = measure(&world).await?;
        let mut waited_us = seen.waited_us;
        waited_us.sort_unstable();
        let at = |percent: usize| {
            waited_us
                .get(waited_us.len() * percent / 100)
                .copied()
                .unwrap_or(0)
        };
        let answers: Vec<String> = seen.answers.values().map(u64::to_string).collect();
        let hot = waited_us.len() as u64;
        section.row([
            if mirrors { "on" } else { "off" }.to_owned(),
            ((hot + seen.others) / MEASURED.as_secs()).to_string(),
            hot.to_string(),
            answers.join(", "),
            seen.redirected.to_string(),
            format!("{} / {}", at(50), at(99)),
            seen.oldest_ms.to_string(),
        ]);
        let bound_ms = if mirrors { STALENESS_MAX_MS } else { 0 };
        section.promise(hot > 0 && seen.oldest_ms <= bound_ms, || {
            format!(
                "of {hot} reads one got a value that was {} ms old, not at most {bound_ms}.",
                seen.oldest_ms
            )
        });
        world.end().await?;
    }
    Ok(section)
}

async fn measure(world: &World<'_>) -> Result<Seen> {
    let document = world.cache.document().await?;
    let ring = document.ring();
    let owner = ring
        .owner(Slot::for_key(HOT.as_bytes()))
        .context("no owner")?
        .to_string();
    let owner = world.cache.pod_ip(&owner).await?;
    let values_max = usize::try_from(MEASURED.as_millis() / WRITES_EVERY.as_millis())? + 100;
    let written = Arc::new(Written {
        began: Instant::now(),
        acked_us: (0..values_max).map(|_| AtomicU64::new(u64::MAX)).collect(),
    });
    let mut writer = Link::open(owner, &world.password, false).await?;
    write(&mut writer, &written, 0).await?;
    // Until the mirrors are there, if there are to be any.
    let mut warm = Vec::new();
    for node in &world.nodes {
        warm.push(Link::open(*node, &world.password, true).await?);
    }
    for link in &mut warm {
        for _ in 0..300 {
            link.ask(&[b"GET", HOT.as_bytes()]).await?;
        }
    }
    let end = Instant::now() + MEASURED;
    let mut readers = JoinSet::new();
    for number in 0..CONNECTIONS {
        let node = world.nodes[number % world.nodes.len()];
        let (password, written) = (world.password.clone(), Arc::clone(&written));
        readers.spawn(async move { read(number, (node, owner), password, &written, end).await });
    }
    let mut ticks = interval(WRITES_EVERY);
    let mut value = 1;
    while Instant::now() < end {
        ticks.tick().await;
        write(&mut writer, &written, value).await?;
        value += 1;
    }
    let mut all = Seen::default();
    while let Some(seen) = readers.join_next().await {
        let seen = seen??;
        all.waited_us.extend(seen.waited_us);
        for (node, count) in seen.answers {
            *all.answers.entry(node).or_default() += count;
        }
        all.redirected += seen.redirected;
        all.others += seen.others;
        all.oldest_ms = all.oldest_ms.max(seen.oldest_ms);
    }
    Ok(all)
}

async fn write(writer: &mut Link, written: &Written, value: usize) -> Result<()> {
    let said = writer
        .ask(&[b"SET", HOT.as_bytes(), value.to_string().as_bytes()])
        .await?;
    ensure!(said == "+OK", "SET: {said}");
    let at_us = u64::try_from(written.began.elapsed().as_micros())?;
    let acked = written
        .acked_us
        .get(value)
        .context("more writes than were thought of")?;
    acked.store(at_us, Ordering::SeqCst);
    Ok(())
}

async fn read(
    number: usize,
    (node, owner): (Ipv4Addr, Ipv4Addr),
    password: String,
    written: &Written,
    end: Instant,
) -> Result<Seen> {
    let mut links = BTreeMap::from([(node, Link::open(node, &password, true).await?)]);
    let mut seen = Seen::default();
    let mut key = number as u64;
    while Instant::now() < end {
        for is_hot in [true, false] {
            key = (key + 7919) % KEYS;
            let name = if is_hot {
                HOT.to_owned()
            } else {
                format!("cold:{key}")
            };
            let begun = Instant::now();
            let begun_us = u64::try_from(written.began.elapsed().as_micros())?;
            let mut at = node;
            let answer = loop {
                let link = match links.entry(at) {
                    Entry::Occupied(link) => link.into_mut(),
                    Entry::Vacant(place) => place.insert(Link::open(at, &password, true).await?),
                };
                let answer = link.ask(&[b"GET", name.as_bytes()]).await?;
                let Some(moved) = answer.strip_prefix("-MOVED ") else {
                    break answer;
                };
                seen.redirected += u64::from(is_hot);
                let address: SocketAddr = moved.rsplit(' ').next().context("MOVED to nowhere")?.parse()?;
                let std::net::IpAddr::V4(ip) = address.ip() else {
                    bail!("{answer}");
                };
                at = ip;
            };
            if !is_hot {
                seen.others += 1;
                continue;
            }
            seen.waited_us.push(u64::try_from(begun.elapsed().as_micros())?);
            // Who is sent on goes to the address of the owner's Service.
            let answerer = if at == node { node } else { owner };
            *seen.answers.entry(answerer).or_default() += 1;
            let value: usize = answer.parse().with_context(|| format!("GET: {answer}"))?;
            // The next value was acknowledged then, if it was.
            let next_us = written
                .acked_us
                .get(value + 1)
                .map_or(u64::MAX, |acked| acked.load(Ordering::SeqCst));
            seen.oldest_ms = seen.oldest_ms.max(begun_us.saturating_sub(next_us) / 1000);
        }
    }
    Ok(seen)
}

/// A connection with one command on its way.
struct Link {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Link {
    async fn open(node: Ipv4Addr, password: &str, reads_only: bool) -> Result<Self> {
        let stream = TcpStream::connect((node, 6379)).await?;
        stream.set_nodelay(true)?;
        let mut link = Self {
            stream,
            received: Vec::new(),
        };
        let said = link.ask(&[b"AUTH", password.as_bytes()]).await?;
        ensure!(said == "+OK", "AUTH: {said}");
        if reads_only {
            link.ask(&[b"READONLY"]).await?;
        }
        Ok(link)
    }

    async fn ask(&mut self, words: &[&[u8]]) -> Result<String> {
        self.stream.write_all(&command(words)).await?;
        let mut chunk = [0; 512];
        loop {
            if let Some((said, len)) = reply(&self.received) {
                let said = String::from_utf8_lossy(said).into_owned();
                self.received.drain(..len);
                return Ok(said);
            }
            let len = self.stream.read(&mut chunk).await?;
            ensure!(len > 0, "the connection ended");
            self.received.extend_from_slice(&chunk[..len]);
        }
    }
}
