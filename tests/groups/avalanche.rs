//! A hundred thousand keys that are loaded together, and what the origin sees when their time is over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use annulus_tests::{Section, Test, env_number, repository};
use anyhow::Result;
use serde_json::json;
use tokio::time::Instant;

use crate::plot::{Curve, curves};
use crate::readers::{Places, Reads, Until, read};
use crate::world::World;

/// The soft TTL, or the only one.
const TTL_SECONDS: u64 = 120;
const JITTER_PERCENT: u64 = 50;
/// So long it takes to load all keys.
const LOAD_SECONDS: u64 = 30;
/// Behind that, of all keys together: fewer than keep the machine busy, whose hiccups would be what is measured.
const READS_PER_SECOND: u64 = 20_000;
/// So long it is looked at, from the first load on.
const WATCHED: Duration = Duration::from_secs(LOAD_SECONDS + TTL_SECONDS + 40);
const CONNECTIONS: usize = 24;

struct Kind {
    name: &'static str,
    title: String,
    spec: String,
}

pub async fn run(test: &Test) -> Result<Section> {
    let keys = env_number("KEYS", 100_000)?;
    let hard = 2 * TTL_SECONDS;
    let kinds = [
        Kind {
            name: "plain",
            title: format!("one TTL of {TTL_SECONDS} s"),
            spec: format!("{{ttl: {{hard: {TTL_SECONDS}s, jitterPercent: 0}}}}"),
        },
        Kind {
            name: "spread",
            title: format!("soft TTL of {TTL_SECONDS} s, hard {hard} s, {JITTER_PERCENT} % of jitter"),
            spec: format!(
                "{{ttl: {{soft: {TTL_SECONDS}s, hard: {hard}s, jitterPercent: {JITTER_PERCENT}}}}}"
            ),
        },
    ];
    let mut section = Section::new(
        "Avalanche",
        format!(
            "{keys} keys are loaded in {LOAD_SECONDS} s, and then read over and over by {} connections, {READS_PER_SECOND} reads a \
             second. The steady rate is what the origin would be asked if all loads were spread evenly: keys by their mean TTL.\n\n\
             ![Requests to the origin by second](groups-avalanche.svg)",
            3 * CONNECTIONS
        ),
        &[
            "group",
            "loaded within, s",
            "steady rate, 1/s",
            "highest second behind that, 1/s",
            "ratio",
            "longest wait of 8 reads, ms",
            "errors",
        ],
    );
    let mut drawn = Vec::new();
    for kind in &kinds {
        let world = World::start(test).await?;
        let http = "{timeout: 10s, maxConcurrent: 256}";
        world.group(kind.name, http, &kind.spec).await?;
        let all = (0..keys).map(|number| format!("{}:{number}", kind.name));
        let places = Places::of(&world.cache, all).await?;
        world.origin.set(&json!({})).await?;
        world.origin.reset().await?;
        let began = Instant::now();
        let reads = |until, per_second: u64| {
            let per_second = Some(u32::try_from(per_second)?);
            Ok::<_, anyhow::Error>(Reads {
                connections: CONNECTIONS,
                until,
                per_second,
            })
        };
        let first = reads(Until::Rounds(1), keys / LOAD_SECONDS)?;
        read(&places, &world.password, first).await?;
        let others = reads(Until::Moment(began + WATCHED), READS_PER_SECOND)?;
        let seen = read(&places, &world.password, others).await?;
        let figures = world.origin.figures().await?;
        let is_spread = kind.name == "spread";
        let mean_ttl = if is_spread {
            TTL_SECONDS * (200 - JITTER_PERCENT) / 200
        } else {
            TTL_SECONDS
        };
        let steady = keys / mean_ttl;
        let (seconds, highest) = behind_the_load(&figures.per_second, keys);
        section.promise(!is_spread || highest <= 2 * steady, || {
            format!("the highest second is more than twice the steady rate: {highest} requests.")
        });
        let errors = seen.errors.load(Ordering::Relaxed);
        section.promise(errors == 0, || format!("{errors} reads failed."));
        section.row([
            kind.title.clone(),
            seconds.to_string(),
            steady.to_string(),
            highest.to_string(),
            format!("**{}.{}**", highest / steady, highest % steady * 10 / steady),
            seen.slowest_ms.load(Ordering::Relaxed).to_string(),
            errors.to_string(),
        ]);
        drawn.push(Curve {
            label: kind.title.clone(),
            values: figures.per_second,
            steady,
        });
        world.end().await?;
    }
    let svg = curves("Requests to the origin by second", &drawn);
    std::fs::write(repository().join("docs/benchmarks/groups-avalanche.svg"), svg)?;
    Ok(section)
}

/// How many seconds it took until the origin was asked so often as there are keys, and the highest second behind that.
fn behind_the_load(per_second: &[u64], keys: u64) -> (usize, u64) {
    let mut asked = 0;
    let is_loading = |requests: &&u64| {
        let before = asked;
        asked += **requests;
        before < keys
    };
    let seconds = per_second.iter().take_while(is_loading).count();
    // The last load and the first second of what follows share a second.
    let highest = per_second.iter().skip(seconds + 1).max();
    (seconds, highest.copied().unwrap_or(0))
}
