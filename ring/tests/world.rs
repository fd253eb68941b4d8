//! A little world of nodes, operators, clients and a network that delays, repeats and loses messages, in which the
//! real planner and the real slot tables run. Every step is checked against the invariants; a seed replays.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test of small numbers may stop at the first surprise"
)]

mod support;

use support::{Bug, World};

/// Seeds of an ordinary run; `ANNULUS_SEEDS=1000` makes a longer one.
const SEEDS: u64 = 12;
const BUG_SEEDS: u64 = 60;
const BUG_STEPS: usize = 1500;
const STEPS: usize = 500;

/// `ANNULUS_FIRST_SEED` begins there.
fn first_seed() -> u64 {
    std::env::var("ANNULUS_FIRST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0)
}

/// Runs a seed to its end; the error says which invariant broke, when, and what happened last.
fn run(seed: u64, bug: Option<Bug>) -> Result<u64, String> {
    let mut world = World::new(seed, bug);
    for _ in 0..if bug.is_some() { BUG_STEPS } else { STEPS } {
        world.step()?;
    }
    world.calm_down()?;
    Ok(world.trace())
}

#[test]
fn invariants_hold_in_every_seed() {
    let seeds = std::env::var("ANNULUS_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(SEEDS);
    let mut failed = Vec::new();
    for seed in first_seed()..first_seed() + seeds {
        if let Err(violation) = run(seed, None) {
            println!("seed {seed}: {violation}");
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
}

#[test]
fn a_seed_replays_identically() {
    let first = run(1, None);
    assert_eq!(run(1, None), first, "the same seed does the same");
    assert_ne!(run(2, None), first, "another seed does something else");
}

/// The checker can fail: each planted bug breaks an invariant soon.
#[test]
fn planted_bugs_are_found() {
    for bug in Bug::ALL {
        let found =
            (0..BUG_SEEDS).find_map(|seed| run(seed, Some(bug)).err().map(|violation| (seed, violation)));
        let (seed, violation) = found.unwrap_or_else(|| panic!("{bug:?} was not found in {BUG_SEEDS} seeds"));
        println!(
            "{bug:?} found by seed {seed}: {}",
            violation.lines().next().unwrap_or_default()
        );
    }
}
