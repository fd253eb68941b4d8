//! A little world of nodes, operators, clients and a network that delays, repeats and loses messages, in which the
//! real planner and the real slot tables run. Every step is checked against the invariants; a seed replays.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test of small numbers may stop at the first surprise"
)]

mod support;

use support::{Bug, World};

/// Seeds and steps of an ordinary run; `ANNULUS_SEEDS=1000`, `ANNULUS_STEPS=3000` make a longer one, and
/// `ANNULUS_FIRST_SEED` begins elsewhere.
const SEEDS: u64 = 12;
const STEPS: u64 = 500;
const BUG_SEEDS: u64 = 60;
const BUG_STEPS: u64 = 1500;

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// Runs a seed to its end; the error says which invariant broke, when, and what happened last.
fn run(seed: u64, steps: u64, bug: Option<Bug>) -> Result<u64, String> {
    let mut world = World::new(seed, bug);
    for _ in 0..steps {
        world.step()?;
    }
    world.calm_down()?;
    Ok(world.trace())
}

#[test]
fn invariants_hold_in_every_seed() {
    let first = number("ANNULUS_FIRST_SEED", 0);
    let steps = number("ANNULUS_STEPS", STEPS);
    let mut broken = Vec::new();
    for seed in first..first + number("ANNULUS_SEEDS", SEEDS) {
        if let Err(violation) = run(seed, steps, None) {
            println!("seed {seed}: {violation}");
            broken.push(seed);
        }
    }
    assert!(broken.is_empty(), "seeds {broken:?}");
}

#[test]
fn a_seed_replays_identically() {
    let first = run(1, STEPS, None);
    assert_eq!(run(1, STEPS, None), first, "the same seed does the same");
    assert_ne!(run(2, STEPS, None), first, "another seed does something else");
}

/// The checker can fail: each planted bug breaks an invariant soon.
#[test]
fn planted_bugs_are_found() {
    for (bug, first) in Bug::ALL {
        let found =
            (first..first + BUG_SEEDS).find_map(|seed| Some((seed, run(seed, BUG_STEPS, Some(bug)).err()?)));
        let (seed, violation) = found.unwrap_or_else(|| panic!("{bug:?} was not found in {BUG_SEEDS} seeds"));
        println!(
            "{bug:?} found by seed {seed}: {}",
            violation.lines().next().unwrap_or_default()
        );
    }
}
