//! Ten thousand clients ask for one cold key.

use annulus_ring::Slot;
use annulus_tests::{Section, Test, env_number, kill, node_processes, seconds, until};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::crowd::{Crowd, Told};
use crate::world::World;

struct Case {
    title: &'static str,
    mode: fn() -> Value,
    /// What everybody is to be told, as far as it begins like that.
    expected: &'static str,
    /// The owner of the key's slot is killed while it loads.
    kills: bool,
}

/// In the order of the table. The origin's answers begin with `{"id":`.
const CASES: [Case; 7] = [
    Case {
        title: "an origin that answers at once",
        mode: || json!({}),
        expected: "{\"id\":",
        kills: false,
    },
    Case {
        title: "with 2 s of latency",
        mode: || json!({"latencyMs": 2000}),
        expected: "{\"id\":",
        kills: false,
    },
    Case {
        title: "that fails (500)",
        mode: || json!({"status": 500}),
        expected: "-ORIGIN",
        kills: false,
    },
    Case {
        title: "that never answers (timeout 5 s)",
        mode: || json!({"fault": "hang"}),
        expected: "-ORIGIN",
        kills: false,
    },
    Case {
        title: "that has no such user (404)",
        mode: || json!({"users": 0}),
        expected: "$-1",
        kills: false,
    },
    Case {
        title: "that dies half-way",
        mode: || json!({"fault": "half"}),
        expected: "-ORIGIN",
        kills: false,
    },
    Case {
        title: "with 2 s of latency, and the slot's owner killed after 1 s",
        mode: || json!({"latencyMs": 2000}),
        expected: "{\"id\":",
        kills: true,
    },
];

pub async fn run(test: &Test) -> Result<Section> {
    let world = World::start(test).await?;
    world
        .group(
            "user",
            "{timeout: 5s, retries: {attempts: 0}, maxConcurrent: 64, circuitBreaker: {failures: 100, openFor: 1s}}",
            // Late comers of a busy machine are of the same crowd.
            "{ttl: {hard: 10m, jitterPercent: 0}, negativeTTL: 1m, failureTTL: 1m}",
        )
        .await?;
    let size = usize::try_from(env_number("CLIENTS", 10_000)?)?;
    let mut section = Section::new(
        "Stampede",
        format!(
            "{size} connections, spread over three nodes, ask for one key that nobody has, all at once; who is \
             sent to the owner goes there. The group tries each load once (`retries.attempts: 0`)."
        ),
        &[
            "origin",
            "requests to it",
            "answers as expected",
            "other answers",
            "median / last answer, s",
        ],
    );
    for (index, case) in CASES.iter().enumerate() {
        let key = format!("user:{}", 1000 + index);
        world.origin.set(&(case.mode)()).await?;
        world.origin.reset().await?;
        let crowd = Crowd {
            size,
            nodes: world.nodes.clone(),
            password: world.password.clone(),
        };
        let told = crowd.ask(&key, meanwhile(&world, case, &key)).await?;
        let requests = world.origin.figures().await?.requests;
        // The request of a node that died is nobody's any more.
        let allowed = if case.kills { 2 } else { 1 };
        section.promise(requests == allowed, || {
            format!("{requests} requests to an origin {}, not {allowed}.", case.title)
        });
        row(&mut section, case, requests, &told);
        if case.kills {
            world.cache.settled(3, seconds(120)).await?;
        }
    }
    Ok(section)
}

/// Adds the row; everybody is promised what is expected.
fn row(section: &mut Section, case: &Case, requests: u64, told: &Told) {
    let is_expected = |reply: &str| reply.starts_with(case.expected);
    let all: u64 = told.replies.values().sum();
    let expected = told.replies.iter().filter(|(reply, _)| is_expected(reply));
    let expected: u64 = expected.map(|(_, count)| count).sum();
    let others = told.replies.iter().filter(|(reply, _)| !is_expected(reply));
    let others: Vec<String> = others
        .map(|(reply, count)| format!("{count} × `{reply}`"))
        .collect();
    let second = |place: usize| {
        let ms = told.waited_ms.get(place).copied().unwrap_or(0);
        format!("{}.{:02}", ms / 1000, ms % 1000 / 10)
    };
    let last = told.waited_ms.len().saturating_sub(1);
    section.row([
        case.title.to_owned(),
        format!("**{requests}**"),
        format!("{expected} of {all}"),
        if others.is_empty() {
            "none".to_owned()
        } else {
            others.join(", ")
        },
        format!("{} / {}", second(last / 2), second(last)),
    ]);
    section.promise(expected == all, || {
        format!(
            "{} of {all} were told something else by an origin {}.",
            all - expected,
            case.title
        )
    });
}

async fn meanwhile(world: &World<'_>, case: &Case, key: &str) -> Result<()> {
    if !case.kills {
        return Ok(());
    }
    let document = world.cache.document().await?;
    let ring = document.ring();
    let owner = ring
        .owner(Slot::for_key(key.as_bytes()))
        .context("a slot without an owner")?
        .to_string();
    let pods = world.cache.pods().await?;
    let pod = pods.get(&owner).with_context(|| format!("no pod {owner}"))?;
    let processes = node_processes(pod)?;
    until("the origin is asked", seconds(30), async || {
        let figures = world.origin.figures().await?;
        ensure!(figures.requests == 1, "{figures:?}");
        Ok(())
    })
    .await?;
    second().await;
    kill(&processes)
}

/// Half of the origin's latency.
async fn second() {
    tokio::time::sleep(seconds(1)).await;
}
