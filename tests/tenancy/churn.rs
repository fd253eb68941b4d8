//! Quota arithmetic under churn: no tenant above its quota, no node above its budget, seen every second.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annulus_tests::{Binding, Cache, Section, Test, env_number};
use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::resp::{self, Numbers, command};
use crate::shared;

const QUOTAS_MIB: [u64; 4] = [8, 16, 32, 64];
const WRITERS_TO_EACH: usize = 2;
/// Above the quota.
const TOLERANCE: f64 = 1.01;

/// Writes, with and without a time to live, reads and deletes values of all sizes.
fn churn(numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..16 {
        let key = format!("churn:{}", numbers.below(50_000)).into_bytes();
        // As many small ones as large ones by the order of magnitude.
        let len = 1_u64 << numbers.below(16);
        #[expect(clippy::cast_possible_truncation, reason = "64 KiB at most")]
        let value = vec![b'v'; (len + numbers.below(len)) as usize];
        bytes.extend(match numbers.below(10) {
            0 => command(&[b"DEL", &key]),
            1 => command(&[b"APPEND", &key, &value[..value.len().min(1000)]]),
            2 => command(&[
                b"RPUSH",
                &[b"list:", &key[..]].concat(),
                &value[..value.len().min(1000)],
            ]),
            3..=5 => command(&[b"SET", &key, &value, b"PX", b"3000"]),
            _ => command(&[b"SET", &key, &value]),
        });
    }
    bytes
}

async fn write(
    node: SocketAddr,
    binding: &Binding,
    seed: u64,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<()> {
    let stream = resp::connect(node, binding).await?;
    let (mut input, mut output) = stream.into_split();
    let reading = tokio::spawn(async move {
        let mut part = vec![0; 1 << 16];
        while input.read(&mut part).await.is_ok_and(|len| len > 0) {}
    });
    let mut numbers = Numbers::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let bytes = churn(&mut numbers);
        output.write_all(&bytes).await?;
        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
    reading.abort();
    Ok(())
}

/// What was seen of one thing.
#[derive(Default, Clone, Copy)]
struct Peak {
    ratio: f64,
    above: u32,
}

impl Peak {
    fn see(&mut self, used: f64, limit: f64, tolerance: f64) {
        let ratio = used / limit;
        self.ratio = self.ratio.max(ratio);
        self.above += u32::from(ratio > tolerance);
    }
}

fn values<'a>(page: &'a str, metric: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
    let lines = page.lines().filter(move |line| {
        line.strip_prefix(metric)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name, value.parse().ok()?))
    })
}

pub async fn run(test: &Test) -> Result<Section> {
    let seconds = env_number("TENANCY_CHURN_SECONDS", 600)?;
    let (_platform, cache) = shared(test, 3, "").await?;
    let mut tenants: Vec<(String, Binding, u64)> = Vec::new();
    for quota in QUOTAS_MIB {
        let namespace = test.namespace().await?;
        let tenant = namespace.tenant("cache");
        tenant
            .apply(&cache, &format!("quota: {{memory: {quota}Mi}}"))
            .await?;
        tenant.ready().await?;
        tenants.push((
            format!("{}/cache", namespace.name),
            tenant.binding().await?,
            quota << 20,
        ));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for (number, (_, binding, _)) in tenants.iter().enumerate() {
        for (pod, ip) in cache.pod_ips().await?.into_values().enumerate() {
            for writer in 0..WRITERS_TO_EACH {
                let (binding, stop, sent) = (binding.clone(), Arc::clone(&stop), Arc::clone(&sent));
                let seed = (number * 100 + pod * 10 + writer) as u64;
                tasks.push(tokio::spawn(async move {
                    write((ip, 6379).into(), &binding, seed, &stop, &sent).await
                }));
            }
        }
    }
    let mut peaks: BTreeMap<String, Peak> = BTreeMap::new();
    let mut node_peak = Peak::default();
    let (mut samples, mut evicted) = (0_u32, 0.0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut every_second = interval(Duration::from_secs(1));
    every_second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while Instant::now() < end {
        every_second.tick().await;
        evicted = sample(&cache, &tenants, &mut peaks, &mut node_peak).await?;
        samples += 1;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await?.context("a writer failed")?;
    }
    let mut section = Section::new(
        "Quotas under churn",
        format!(
            "3 nodes, four tenants whose writers never pause: values from 1 byte to 128 KiB, with and without a time to live, lists, \
             deletions; {samples} samples in {seconds} s, {} MiB sent, {evicted} evictions.",
            sent.load(Ordering::Relaxed) >> 20
        ),
        &[
            "whose memory",
            "limit",
            "highest seen",
            "samples above (goal 0 above 1 %)",
        ],
    );
    for (name, _, quota) in &tenants {
        let peak = peaks.get(name).copied().unwrap_or_default();
        section.row([
            "a tenant".to_owned(),
            format!("{} MiB", quota >> 20),
            format!("{:.2} %", peak.ratio * 100.0),
            peak.above.to_string(),
        ]);
        if peak.above > 0 || peak.ratio == 0.0 {
            section.problems.push(format!(
                "a tenant of {} MiB: {} samples above",
                quota >> 20,
                peak.above
            ));
        }
    }
    section.row([
        "a node".to_owned(),
        "its budget".to_owned(),
        format!("{:.2} %", node_peak.ratio * 100.0),
        node_peak.above.to_string(),
    ]);
    if node_peak.above > 0 {
        section
            .problems
            .push(format!("a node: {} samples above its budget", node_peak.above));
    }
    Ok(section)
}

/// One look at all nodes; all evictions of tenants so far.
async fn sample(
    cache: &Cache<'_>,
    tenants: &[(String, Binding, u64)],
    peaks: &mut BTreeMap<String, Peak>,
    node_peak: &mut Peak,
) -> Result<f64> {
    let mut used: BTreeMap<&str, f64> = BTreeMap::new();
    let mut evicted = 0.0;
    for pod in ["shared-0", "shared-1", "shared-2"] {
        let page = cache.metrics(pod).await?;
        for (name, value) in values(&page, "annulus_tenant_memory_used_bytes") {
            for (tenant, ..) in tenants
                .iter()
                .filter(|(tenant, ..)| name.contains(&format!("\"{tenant}\"")))
            {
                *used.entry(tenant).or_default() += value;
            }
        }
        evicted += values(&page, "annulus_tenant_evictions_total")
            .map(|(_, value)| value)
            .sum::<f64>();
        let one = |metric: &str| -> Result<f64> {
            let found = values(&page, metric).next();
            Ok(found.with_context(|| format!("no {metric}"))?.1)
        };
        node_peak.see(
            one("annulus_memory_used_bytes")?,
            one("annulus_memory_budget_bytes")?,
            1.0,
        );
    }
    for (tenant, _, quota) in tenants {
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let quota = *quota as f64;
        let used = used.get(tenant.as_str()).copied().unwrap_or_default();
        peaks
            .entry(tenant.clone())
            .or_default()
            .see(used, quota, TOLERANCE);
    }
    Ok(evicted)
}
