//! What scenarios of chaos gave, as a page and a plot. Nothing here reads or writes anything.

mod lanes;
mod page;
mod statistics;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use lanes::{Lane, lanes};
pub use page::page;
pub use statistics::{median, worst};

/// The width of a bucket of a timeline.
pub const BUCKET_MS: u64 = 100;
/// Buckets of a timeline before the fault.
pub const BUCKETS_BEFORE: usize = 30;
/// Buckets of a timeline after the fault.
pub const BUCKETS_AFTER: usize = 270;

/// All runs of one scenario.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scenario {
    /// By which it can be chosen.
    pub name: String,
    /// What happens, for people.
    pub title: String,
    /// Its runs.
    pub runs: Vec<Run>,
}

/// One run of a scenario, as the clients saw it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Why it counts as failed, though what could be measured is here.
    pub failure: Option<String>,
    /// From the fault to the first write that succeeded on the slots that lost their owner.
    pub first_write_seconds: Option<f64>,
    /// From the fault until each of those that has a key was written.
    pub every_write_seconds: Option<f64>,
    /// From the fault until nothing was left to be done: every node there, balanced, with every copy.
    pub whole_seconds: Option<f64>,
    /// Acknowledged writes.
    pub acked: u64,
    /// From the first write to the last.
    pub load_seconds: f64,
    /// Acknowledged writes that were not there in the end.
    pub lost: u64,
    /// Reads that gave less than what was acknowledged before.
    pub stale: u64,
    /// The longest time between two acknowledgements of one key, of those that ended after the fault.
    pub longest_gap_seconds: f64,
    /// When it ended, from the fault.
    pub longest_gap_ended_seconds: Option<f64>,
    /// How often each error came.
    pub errors: BTreeMap<String, u64>,
    /// Acknowledged writes by bucket.
    pub timeline: Vec<u64>,
    /// Real clients beside the ledger.
    pub clients: Vec<ClientFigures>,
}

/// What a program of tests/clients says at the end of its load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientFigures {
    /// As tests/clients/run knows it.
    pub client: String,
    /// Of the library.
    pub version: String,
    /// By phase.
    pub phases: BTreeMap<String, Phase>,
    /// How often each error came.
    pub errors: BTreeMap<String, u64>,
}

/// A client's operations in one phase of its load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Those that failed included.
    pub operations: u64,
    /// Operations that failed, or gave a wrong value.
    pub errors: u64,
    /// Half of them were faster.
    pub p50_ms: f64,
    /// One in a hundred was slower.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

/// A change with data, without any other load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// By which it can be chosen.
    pub name: String,
    /// What happens, for people.
    pub title: String,
    /// Keys that were written before.
    pub keys: u64,
    /// Of those keys and their values.
    pub stored_bytes: u64,
    /// How long each run took.
    pub seconds: Vec<f64>,
    /// What nodes received in each run, where it is what was meant to move.
    pub moved_bytes: Vec<u64>,
    /// The least that has to move.
    pub ideal_bytes: Option<u64>,
    /// Keys that were gone afterwards, in all runs.
    pub missing: u64,
    /// Runs that failed otherwise, and why.
    pub failures: Vec<String>,
}

impl Scenario {
    /// Whether every run went as promised.
    pub fn kept_its_promise(&self) -> bool {
        self.runs
            .iter()
            .all(|run| run.failure.is_none() && run.lost == 0 && run.stale == 0)
    }

    /// The run to show: the median one by the time until each affected slot was written, or by the longest gap.
    pub fn representative(&self) -> Option<&Run> {
        let mut runs: Vec<&Run> = self.runs.iter().filter(|run| !run.timeline.is_empty()).collect();
        let time = |run: &Run| run.every_write_seconds.unwrap_or(run.longest_gap_seconds);
        runs.sort_by(|one, other| time(one).total_cmp(&time(other)));
        runs.get(runs.len().saturating_sub(1) / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(every_write_seconds: f64) -> Run {
        Run {
            every_write_seconds: Some(every_write_seconds),
            timeline: vec![1],
            ..Run::default()
        }
    }

    fn scenario(runs: Vec<Run>) -> Scenario {
        Scenario {
            name: "kill".to_owned(),
            title: "kill -9".to_owned(),
            runs,
        }
    }

    #[test]
    fn the_median_run_is_shown() {
        let shown = scenario(vec![run(3.0), run(1.0), run(2.0)]);
        assert_eq!(
            shown.representative().and_then(|run| run.every_write_seconds),
            Some(2.0)
        );
        let shown = scenario(vec![run(1.0), run(2.0)]);
        assert_eq!(
            shown.representative().and_then(|run| run.every_write_seconds),
            Some(1.0)
        );
        assert_eq!(
            scenario(vec![Run::default()]).representative(),
            None,
            "nothing to draw"
        );
    }

    #[test]
    fn a_lost_write_a_stale_read_or_a_failure_breaks_the_promise() {
        assert!(scenario(vec![run(1.0)]).kept_its_promise());
        for broken in [
            Run { lost: 1, ..run(1.0) },
            Run { stale: 1, ..run(1.0) },
            Run {
                failure: Some("not whole".to_owned()),
                ..run(1.0)
            },
        ] {
            assert!(!scenario(vec![run(1.0), broken]).kept_its_promise());
        }
    }
}
