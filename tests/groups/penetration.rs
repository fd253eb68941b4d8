//! A million reads of users that don't exist.

use std::sync::atomic::Ordering;

use annulus_tests::{OriginFigures, Test};
use anyhow::Result;
use serde_json::json;

use crate::readers::{Places, Until, read};
use crate::world::World;
use crate::{Section, number};

/// Users that there are.
const USERS: u64 = 100_000;
/// Each of the others is read so often.
const ROUNDS: u64 = 5;
const CONNECTIONS: usize = 32;
const PER_MILLION: u64 = 10_000;

pub async fn run(test: &Test) -> Result<Section> {
    let reads = number("READS", 1_000_000)?;
    let ids = reads / ROUNDS;
    let world = World::start(test).await?;
    let http = "{timeout: 10s, maxConcurrent: 256}";
    let spec = "ttl: {hard: 1h}\nnegativeTTL: 1h\n";
    world.group("absent", http, spec).await?;
    let filter = format!(
        "{spec}bloomFilter: {{keysURL: \"http://{}.{}.svc/keys?count={USERS}\", falsePositiveRate: \"0.01\", refresh: 1h}}\n",
        world.origin.name, world.origin.namespace
    );
    world.group("filtered", http, &filter).await?;
    world.filtered(USERS).await?;
    world.origin.set(&json!({"users": USERS})).await?;
    let plain = storm(&world, "absent", ids).await?;
    let filtered = storm(&world, "filtered", ids).await?;
    let remembered = world
        .metric("annulus_group_remembered_keys", &["/absent\""])
        .await?;
    let filter_bytes = world.metric("annulus_group_filter_memory_bytes", &[]).await? / 3;
    // -n ln p / (ln 2)^2 bits, with p = 0.01.
    let theory_bytes = USERS * 9585 / 1000 / 8;
    let expected = ids * PER_MILLION / 1_000_000;
    let is_kept = plain.1 == 0
        && filtered.1 == 0
        && plain.0.most_for_one_id <= 1
        && filtered.0.most_for_one_id <= 1
        && plain.0.requests == ids
        && filtered.0.requests <= 2 * expected;
    let row = |title: &str, figures: &OriginFigures, seconds: u64| {
        format!(
            "| {title} | {reads} | {} | {} | {} | {seconds} |\n",
            figures.requests, figures.ids, figures.most_for_one_id
        )
    };
    Ok(Section {
        text: format!(
            "## Penetration\n\n{reads} reads of {ids} users that don't exist, each {ROUNDS} times, beside {USERS} that do.\n\n\
             | group | reads | requests to the origin | of different ids | most for one id | seconds |\n\
             | --- | ---: | ---: | ---: | ---: | ---: |\n{}{}\n\
             All nodes together remember {remembered} keys without a value. The filter of {USERS} keys takes {filter_bytes} \
             bytes on each node, by theory {theory_bytes}; with a rate of 0.01 it should let {expected} of {ids} ids through, and \
             let {} through.\n",
            row("`negativeTTL: 1h`", &plain.0, plain.2),
            row("the same with a Bloom filter", &filtered.0, filtered.2),
            filtered.0.ids,
        ),
        is_kept,
    })
}

/// What the origin was asked, how many reads got something else than nothing, and how long it took.
async fn storm(world: &World<'_>, group: &str, ids: u64) -> Result<(OriginFigures, u64, u64)> {
    let keys = (0..ids).map(|id| format!("{group}:{}", 10 * USERS + id));
    let places = Places::of(&world.cache, keys).await?;
    world.origin.reset().await?;
    let began = tokio::time::Instant::now();
    let rounds = Until::Rounds(usize::try_from(ROUNDS)?);
    let seen = read(&places, &world.password, CONNECTIONS, rounds).await?;
    let wrong = seen.values.load(Ordering::Relaxed) + seen.errors.load(Ordering::Relaxed);
    Ok((world.origin.figures().await?, wrong, began.elapsed().as_secs()))
}
