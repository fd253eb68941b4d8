//! A quiet tenant beside a noisy one: its latencies, hits and evictions.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use annulus_ring::{RingDocument, Slot};
use annulus_tests::{Binding, Cache, Section, Test, env_number};
use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::noise::Kind;
use crate::resp::{self, Numbers, command};
use crate::shared;

const KEYS: u64 = 20_000;
const CONNECTIONS_TO_EACH: usize = 4;
/// Of each connection.
const PERIOD: Duration = Duration::from_millis(5);
const RATIO_MAX: f64 = 2.0;

fn key(number: u64) -> Vec<u8> {
    format!("quiet:{number}").into_bytes()
}

/// The quiet tenant's keys by the node that has them.
struct Nodes(Vec<(SocketAddr, Vec<u64>)>);

impl Nodes {
    async fn of(cache: &Cache<'_>, document: &RingDocument) -> Result<Self> {
        let ring = document.ring();
        let mut nodes = Vec::new();
        for (pod, ip) in cache.pod_ips().await? {
            let owned = (0..KEYS).filter(|number| {
                let owner = ring.owner(Slot::for_key(&key(*number)));
                owner.is_some_and(|owner| owner.to_string() == pod)
            });
            nodes.push(((ip, 6379).into(), owned.collect()));
        }
        Ok(Self(nodes))
    }

    async fn fill(&self, binding: &Binding) -> Result<()> {
        for (node, keys) in &self.0 {
            let mut stream = resp::connect(*node, binding).await?;
            for part in keys.chunks(500) {
                let mut bytes = Vec::new();
                for number in part {
                    bytes.extend(command(&[b"SET", &key(*number), &[b'q'; 100]]));
                }
                stream.write_all(&bytes).await?;
                let mut replies = vec![0; 5 * part.len()];
                stream.read_exact(&mut replies).await?;
                ensure!(
                    replies == "+OK\r\n".repeat(part.len()).as_bytes(),
                    "a SET was refused"
                );
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Measured {
    latencies_us: Vec<u64>,
    missed: u64,
    failed: u64,
}

impl Measured {
    fn percentile_ms(&mut self, percent: usize) -> f64 {
        self.latencies_us.sort_unstable();
        let at = (self.latencies_us.len() * percent / 100).min(self.latencies_us.len().saturating_sub(1));
        let us = self.latencies_us.get(at).copied().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let ms = us as f64 / 1000.0;
        ms
    }
}

/// Reads at a steady rate for that time. A reply that comes late makes the next one late, which counts from when it was due.
async fn measure(nodes: &Nodes, binding: &Binding, time: Duration) -> Result<Measured> {
    let mut tasks = Vec::new();
    for (node, keys) in &nodes.0 {
        for connection in 0..CONNECTIONS_TO_EACH {
            let (node, keys, binding) = (*node, keys.clone(), binding.clone());
            tasks.push(tokio::spawn(async move {
                let mut measured = Measured::default();
                let mut numbers = Numbers::new(connection as u64 + 7);
                let mut stream = timeout(Duration::from_secs(10), resp::connect(node, &binding)).await??;
                let end = Instant::now() + time;
                let mut due = interval(PERIOD);
                due.set_missed_tick_behavior(MissedTickBehavior::Burst);
                while Instant::now() < end {
                    let begin = due.tick().await;
                    #[expect(clippy::cast_possible_truncation, reason = "20,000 at most")]
                    let chosen = keys[numbers.below(keys.len() as u64) as usize];
                    match timeout(Duration::from_secs(10), get(&mut stream, chosen)).await {
                        Ok(Ok(true)) => {}
                        Ok(Ok(false)) => measured.missed += 1,
                        _ => {
                            measured.failed += 1;
                            stream = resp::connect(node, &binding).await?;
                        }
                    }
                    #[expect(clippy::cast_possible_truncation, reason = "seconds at most")]
                    measured.latencies_us.push(begin.elapsed().as_micros() as u64);
                }
                anyhow::Ok(measured)
            }));
        }
    }
    let mut all = Measured::default();
    for task in tasks {
        let one = task.await??;
        all.latencies_us.extend(one.latencies_us);
        all.missed += one.missed;
        all.failed += one.failed;
    }
    Ok(all)
}

/// Whether the key was there.
async fn get(stream: &mut TcpStream, number: u64) -> Result<bool> {
    stream.write_all(&command(&[b"GET", &key(number)])).await?;
    let mut reply = Vec::new();
    loop {
        let mut part = [0; 256];
        let len = stream.read(&mut part).await?;
        ensure!(len > 0, "closed");
        reply.extend_from_slice(&part[..len]);
        if reply.starts_with(b"$-1\r\n") {
            return Ok(false);
        }
        if reply.starts_with(b"-") {
            anyhow::bail!("{}", String::from_utf8_lossy(&reply));
        }
        if reply.len() >= "$100\r\n".len() + 102 {
            return Ok(true);
        }
    }
}

/// A counter of the nodes, added up.
async fn total(cache: &Cache<'_>, metric: &str, tenant: &str) -> Result<f64> {
    let mut total = 0.0;
    for pod in cache.pods().await?.into_keys() {
        let page = cache.metrics(&pod).await?;
        let label = format!("tenant=\"{tenant}\"");
        let line = page
            .lines()
            .find(|line| line.starts_with(metric) && line.contains(&label))
            .with_context(|| format!("no {metric} of {tenant}"))?;
        total += line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(total)
}

pub async fn run(test: &Test) -> Result<Section> {
    let seconds = env_number("TENANCY_NOISE_SECONDS", 20)?;
    let node_count = u32::try_from(env_number("TENANCY_NODES", 3)?)?;
    let (_platform, cache) = shared(test, node_count, "").await?;
    let mut tenants = Vec::new();
    for (name, quota) in [
        ("quiet", "memory: 64Mi, guaranteedMemory: 32Mi"),
        ("noisy", "memory: 192Mi"),
    ] {
        let namespace = test.namespace().await?;
        let tenant = namespace.tenant(name);
        tenant.apply(&cache, &format!("quota: {{{quota}}}")).await?;
        tenant.ready().await?;
        tenants.push((format!("{}/{name}", namespace.name), tenant.binding().await?));
    }
    let [(quiet_name, quiet), (_, loud)] = &tenants[..] else {
        anyhow::bail!("two tenants");
    };
    let nodes = Nodes::of(&cache, &cache.document().await?).await?;
    nodes.fill(quiet).await?;
    let mut section = Section::new(
        "A quiet tenant beside a noisy one",
        format!(
            "{node_count} nodes of 512 MiB on the same two CPUs. The quiet tenant reads 20,000 keys over {CONNECTIONS_TO_EACH} connections to each node, each every 5 ms; \
             latencies count from when a read was due. The noisy one has 192 MiB; its clients run at a lower priority, as if they were \
             elsewhere. {seconds} s alone, then {seconds} s beside each noise."
        ),
        &[
            "noise",
            "its bytes in and out",
            "p50 alone",
            "p50",
            "p99 alone",
            "p99",
            "ratio (goal 2)",
            "max",
            "hits",
            "evicted",
        ],
    );
    for kind in Kind::ALL {
        let time = Duration::from_secs(seconds);
        let mut alone = measure(&nodes, quiet, time).await?;
        let evicted = total(&cache, "annulus_tenant_evictions", quiet_name).await?;
        let mut program = Command::new("nice");
        program.args(["-n", "10"]).arg(std::env::current_exe()?);
        program.args([
            "noise",
            kind.name(),
            &(seconds + 4).to_string(),
            &loud.username,
            &loud.password,
        ]);
        program.args(nodes.0.iter().map(|(node, _)| node.to_string()));
        let noise = program.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        // Its connections are made first.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let mut beside = measure(&nodes, quiet, time).await?;
        let said = noise.wait_with_output().await?;
        let said = String::from_utf8(said.stdout)?;
        let mut counted = said
            .split_whitespace()
            .map(|text| text.parse::<u64>().unwrap_or_default());
        let (sent, received) = (
            counted.next().unwrap_or_default(),
            counted.next().unwrap_or_default(),
        );
        let evicted = total(&cache, "annulus_tenant_evictions", quiet_name).await? - evicted;
        let (before, after) = (alone.percentile_ms(99), beside.percentile_ms(99));
        let ratio = after / before;
        let reads = beside.latencies_us.len();
        section.row([
            kind.name().to_owned(),
            format!("{} and {} MiB", sent >> 20, received >> 20),
            format!("{:.2} ms", alone.percentile_ms(50)),
            format!("{:.2} ms", beside.percentile_ms(50)),
            format!("{before:.2} ms"),
            format!("{after:.2} ms"),
            format!("{ratio:.2}"),
            format!("{:.1} ms", beside.percentile_ms(100)),
            format!("{} of {reads}", reads as u64 - beside.missed - beside.failed),
            format!("{evicted}"),
        ]);
        if beside.missed + beside.failed > 0 || evicted > 0.0 {
            section.problems.push(format!(
                "{}: {} misses, {} failures, {evicted} evictions of the quiet tenant",
                kind.name(),
                beside.missed,
                beside.failed
            ));
        }
        if ratio > RATIO_MAX {
            section
                .problems
                .push(format!("{}: p99 is {ratio:.2} times the one alone", kind.name()));
        }
    }
    Ok(section)
}
