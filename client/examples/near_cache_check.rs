//! The near cache under faults for a while: cut and stalled connections, killed nodes, lost invalidations; is anything read that
//! is older than the lease? Writes docs/benchmarks/near-cache.md: `make near-cache MINUTES=10`.
#![expect(clippy::print_stdout, reason = "a program for people")]
#![allow(
    clippy::allow_attributes,
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a check: whatever goes wrong is to end it"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use annulus_client::Stats;
use support::checker::{Checker, KEYS, Seen};
use support::world::World;
use tokio::time::{Instant, sleep};

const LEASE: Duration = Duration::from_secs(1);
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks/near-cache.md");
/// How long the same losses are played to a client without checks.
const WITHOUT_CHECKS: Duration = Duration::from_secs(20);

/// How often what was done to it.
#[derive(Default)]
struct Done {
    cuts: u32,
    stalls: u32,
    losses: u32,
    kills: u32,
}

/// One fault after the other until the time is over, in an order that repeats; each ends before the next one begins.
async fn disturb(world: &World, until: Instant) -> Done {
    let mut done = Done::default();
    let mut round = 0_usize;
    while Instant::now() < until {
        let proxy = &world.proxies[round / 6 % world.proxies.len()];
        match round % 6 {
            0 | 3 => {
                proxy.cut();
                done.cuts += 1;
            }
            1 | 4 => {
                world.faults.lost_percent.store(20, Ordering::Relaxed);
                sleep(Duration::from_secs(2)).await;
                world.faults.lost_percent.store(0, Ordering::Relaxed);
                done.losses += 1;
            }
            2 => {
                proxy.stall(true);
                // From shorter than a lease to longer than what a connection survives.
                sleep(Duration::from_millis(400 + 700 * (round as u64 / 6 % 5))).await;
                proxy.stall(false);
                done.stalls += 1;
            }
            _ => {
                world.cluster.kill_one(round / 6);
                done.kills += 1;
                sleep(Duration::from_secs(1)).await;
                world.cluster.whole().await;
            }
        }
        round += 1;
        sleep(Duration::from_millis(1500)).await;
    }
    done
}

/// Losses alone, and nobody who notices them.
async fn without_checks(world: &World) -> (Seen, u64) {
    let client = world.client(LEASE, false).await;
    let checker = Checker::start(&world.cluster.addresses(), &client, LEASE).await;
    let before = world.faults.lost.load(Ordering::Relaxed);
    world.faults.lost_percent.store(20, Ordering::Relaxed);
    sleep(WITHOUT_CHECKS).await;
    world.faults.lost_percent.store(0, Ordering::Relaxed);
    let lost = world.faults.lost.load(Ordering::Relaxed) - before;
    (checker.stop().await, lost)
}

fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} µs", ns / 1000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}

struct Run {
    seen: Seen,
    stats: Stats,
    done: Done,
    writes: (u64, u64),
    lost: u64,
    unchecked: (Seen, u64),
    minutes: f64,
    conditions: String,
}

fn page(run: &Run) -> String {
    let Run {
        seen, stats, done, ..
    } = run;
    let (hits, misses) = (seen.hits.count(), seen.misses.count());
    let reads = hits + misses;
    let mut text = format!(
        "# The near cache under faults\n\nWritten by `make near-cache` ({}). Three node processes with two copies of everything on \
         this machine, two cores shared with other work; {KEYS} keys that four writers change all the time; readers of one \
         client, whose connections go through proxies that lose, hold and cut. A lease of {LEASE:?}. A read counts as a \
         violation when a newer value had been acknowledged longer than that before the read began.\n\n\
         | in {:.1} minutes | |\n| --- | --- |\n",
        run.conditions, run.minutes
    );
    let mut row = |what: &str, value: String| writeln!(text, "| {what} | {value} |").unwrap();
    row("reads", reads.to_string());
    row(
        "… answered from memory",
        format!("{hits} ({:.1} %)", 100.0 * hits as f64 / reads as f64),
    );
    row("… that failed", seen.errors.to_string());
    row(
        "writes acknowledged, failed",
        format!("{}, {}", run.writes.0, run.writes.1),
    );
    row(
        "latency from memory, p50, p99",
        format!(
            "{}, {}",
            time(seen.hits.quantile_ns(0.5)),
            time(seen.hits.quantile_ns(0.99))
        ),
    );
    row(
        "latency from nodes, p50, p99",
        format!(
            "{}, {}",
            time(seen.misses.quantile_ns(0.5)),
            time(seen.misses.quantile_ns(0.99))
        ),
    );
    row(
        "connections cut, stalled; nodes killed",
        format!("{}, {}; {}", done.cuts, done.stalls, done.kills),
    );
    row(
        "invalidations received, lost on the way, noticed by checks",
        format!(
            "{}, {}, {}",
            stats.invalidations, run.lost, stats.lost_invalidations
        ),
    );
    row(
        "entries not served since no check vouched for them",
        stats.stale_refused.to_string(),
    );
    row(
        "oldest value read, from memory, from anywhere",
        format!(
            "{} ms, {} ms",
            seen.worst_hit_age.as_millis(),
            seen.worst_age.as_millis()
        ),
    );
    row("**violations**", format!("**{}**", seen.violations));
    let (seen, lost) = &run.unchecked;
    write!(
        text,
        "\nA loss that a broken connection hides needs no notice: what was read over it is forgotten anyway.\n\n\
         The checker can fail: {} s of the same losses ({lost} invalidations) for a client that checks nothing gave {} violations \
         in {} reads, the oldest value {:.1} s old.\n",
        WITHOUT_CHECKS.as_secs(),
        seen.violations,
        seen.hits.count() + seen.misses.count(),
        seen.worst_age.as_secs_f64()
    )
    .unwrap();
    text
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<f64>().expect(name))
    };
    let minutes = number("MINUTES").unwrap_or(10.0);
    let world = World::start().await;
    let client = world.client(LEASE, true).await;
    let checker = Checker::start(&world.cluster.addresses(), &client, LEASE).await;
    let begun = Instant::now();
    let done = disturb(&world, begun + Duration::from_secs_f64(minutes * 60.0)).await;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    let writes = checker.writes();
    let seen = checker.stop().await;
    let (stats, lost) = (client.stats(), world.faults.lost.load(Ordering::Relaxed));
    drop(client);
    let run = Run {
        unchecked: without_checks(&world).await,
        conditions: std::env::var("CONDITIONS").unwrap_or_else(|_| "release build".to_owned()),
        seen,
        stats,
        done,
        writes,
        lost,
        minutes,
    };
    let text = page(&run);
    println!("{text}\n{:?}", run.stats);
    for violation in &run.seen.shown {
        println!("violation: {violation}");
    }
    std::fs::write(PAGE, text).unwrap();
    let is_good = run.seen.violations == 0 && run.seen.hits.count() > 0 && run.unchecked.0.violations > 0;
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
