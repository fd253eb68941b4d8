//! Hundreds of tenants on one cluster: what an idle one costs, and how soon a new one can work.

use std::time::Duration;

use annulus_tests::{Cache, Section, Test, env_number, node_processes, seconds, until};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::shared;

/// In namespaces of so many each.
const IN_EACH: usize = 25;
/// Added one by one at the end.
const LATE: u64 = 10;
const IDLE: Duration = Duration::from_mins(1);

/// Resident bytes of all nodes.
async fn resident_bytes(cache: &Cache<'_>) -> Result<u64> {
    let mut total = 0;
    for pod in cache.pods().await?.values() {
        for process in node_processes(pod)? {
            let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.context("no VmRSS")?.trim().trim_end_matches(" kB");
            total += kib.parse::<u64>()? << 10;
        }
    }
    ensure!(total > 0, "the nodes' processes are not on this machine");
    Ok(total)
}

async fn bound(cache: &Cache<'_>) -> Result<i32> {
    let status = cache.get().await?.status.and_then(|status| status.tenants);
    Ok(status.map_or(0, |tenants| tenants.bound))
}

pub async fn run(test: &Test) -> Result<Section> {
    let count = usize::try_from(env_number("TENANCY_TENANTS", 500)?)?;
    let (_platform, cache) = shared(test, 3, "").await?;
    let before = resident_bytes(&cache).await?;
    let mut namespaces = Vec::new();
    for _ in 0..count.div_ceil(IN_EACH) {
        namespaces.push(test.namespace().await?);
    }
    let begin = Instant::now();
    let mut left = count;
    for namespace in &namespaces {
        let items: Vec<_> = (0..left.min(IN_EACH))
            .map(|number| {
                json!({
                    "apiVersion": "annulus.dev/v1alpha1",
                    "kind": "CacheTenant",
                    "metadata": {"name": format!("tenant-{number}")},
                    "spec": {
                        "clusterRef": {"name": cache.name, "namespace": cache.namespace},
                        "quota": {"memory": "1Mi", "connections": 10},
                    },
                })
            })
            .collect();
        left -= items.len();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        test.kubernetes.apply(&namespace.name, &list).await?.success()?;
    }
    let applied = begin.elapsed();
    let wanted = i32::try_from(count)?;
    until("all tenants bound", seconds(300), async || {
        let bound = bound(&cache).await?;
        ensure!(bound == wanted, "{bound} of {wanted}");
        Ok(())
    })
    .await?;
    let all_bound = begin.elapsed();
    // What the operator still has to say about them, it has said.
    sleep(Duration::from_secs(20)).await;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let kib_each =
        (resident_bytes(&cache).await?.saturating_sub(before)) as f64 / 1024.0 / count as f64 / 3.0;
    let cpu = async || -> Result<f64> {
        let usage = test.operator.usage(&test.kubernetes).await?;
        Ok(usage.values().map(|usage| usage.cpu_seconds).sum())
    };
    let cpu_before = cpu().await?;
    sleep(IDLE).await;
    let idle_percent = (cpu().await? - cpu_before) / IDLE.as_secs_f64() * 100.0;
    let took = late_ones(test, &cache).await?;
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    let mut section = Section::new(
        "Many tenants",
        format!(
            "3 nodes, {count} tenants in {} namespaces, then {LATE} more, one after the other.",
            namespaces.len()
        ),
        &["what", "figure", "goal"],
    );
    let mut row = |what: &str, figure: String, goal: &str| {
        section.row([what.to_owned(), figure, goal.to_owned()]);
    };
    row(
        "all applied by kubectl",
        format!("{:.1} s", applied.as_secs_f64()),
        "",
    );
    row("all bound", format!("{:.1} s", all_bound.as_secs_f64()), "");
    row(
        "memory of an idle tenant on each node",
        format!("{kib_each:.1} KiB"),
        "",
    );
    row(
        "operators' CPU when idle",
        format!("{idle_percent:.2} % of a core"),
        "",
    );
    row(
        "one more: applied by kubectl, works at every node",
        format!("{median:.2} s, at most {worst:.2} s"),
        "under 2 s",
    );
    if worst >= 2.0 {
        section.problems.push(format!("a new tenant took {worst:.2} s"));
    }
    Ok(section)
}

/// Seconds until each of some more tenants can work at every node, sorted.
async fn late_ones(test: &Test, cache: &Cache<'_>) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    let late = test.namespace().await?;
    for number in 0..LATE {
        let tenant = late.tenant(&format!("late-{number}"));
        let begin = Instant::now();
        tenant.apply(cache, "quota: {memory: 1Mi}").await?;
        let binding = loop {
            if let Ok(binding) = tenant.binding().await {
                break binding;
            }
            ensure!(begin.elapsed() < seconds(30), "no binding after 30 s");
            sleep(Duration::from_millis(20)).await;
        };
        for ip in cache.pod_ips().await?.into_values() {
            crate::resp::connect((ip, 6379).into(), &binding)
                .await
                .context("a credential that doesn't work yet")?;
        }
        took.push(begin.elapsed().as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}
