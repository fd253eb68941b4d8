//! A million reads of users that don't exist.

use std::sync::atomic::Ordering;

use annulus_tests::{OriginFigures, Section, Test, env_number};
use anyhow::Result;
use serde_json::json;

use crate::readers::{Places, Reads, Until, read};
use crate::world::World;

/// Users that there are.
const USERS: u64 = 100_000;
/// Each of the others is read so often.
const ROUNDS: u64 = 5;
const CONNECTIONS: usize = 32;
const PER_MILLION: u64 = 10_000;

pub async fn run(test: &Test) -> Result<Section> {
    let reads = env_number("READS", 1_000_000)?;
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
    let mut section = Section::new(
        "Penetration",
        format!(
            "{reads} reads of {ids} users that don't exist, each {ROUNDS} times, beside {USERS} that do."
        ),
        &[
            "group",
            "reads",
            "requests to the origin",
            "of different ids",
            "most for one id",
            "seconds",
        ],
    );
    let kinds = [
        ("`negativeTTL: 1h`", &plain, ids..=ids),
        ("the same with a Bloom filter", &filtered, 0..=2 * expected),
    ];
    for (title, (figures, wrong, seconds), promised) in kinds {
        section.row([
            title.to_owned(),
            reads.to_string(),
            figures.requests.to_string(),
            figures.ids.to_string(),
            figures.most_for_one_id.to_string(),
            seconds.to_string(),
        ]);
        section.promise(
            *wrong == 0 && figures.most_for_one_id <= 1 && promised.contains(&figures.requests),
            || {
                format!(
                    "{title}: {wrong} reads got something, and the origin was to be asked once for an id and {} to {} times in all.",
                    promised.start(),
                    promised.end()
                )
            },
        );
    }
    section.note = Some(format!(
        "All nodes together remember {remembered} keys without a value. The filter of {USERS} keys takes {filter_bytes} bytes on \
         each node, by theory {theory_bytes}; with a rate of 0.01 it should let {expected} of {ids} ids through, and let {} through.",
        filtered.0.ids
    ));
    Ok(section)
}

/// What the origin was asked, how many reads got something else than nothing, and how long it took.
async fn storm(world: &World<'_>, group: &str, ids: u64) -> Result<(OriginFigures, u64, u64)> {
    let keys = (0..ids).map(|id| format!("{group}:{}", 10 * USERS + id));
    let places = Places::of(&world.cache, keys).await?;
    world.origin.reset().await?;
    let began = tokio::time::Instant::now();
    let reads = Reads {
        connections: CONNECTIONS,
        until: Until::Rounds(usize::try_from(ROUNDS)?),
        per_second: None,
    };
    let seen = read(&places, &world.password, reads).await?;
    let wrong = seen.values.load(Ordering::Relaxed) + seen.errors.load(Ordering::Relaxed);
    Ok((world.origin.figures().await?, wrong, began.elapsed().as_secs()))
}
