//! What the clients of a ledger saw, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_ring::{NodeId, RingDocument, Slot};
use anyhow::{Context as _, Result, ensure};
use tokio::time::Instant;

/// A write that was acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acked {
    pub(crate) key: usize,
    pub(crate) begun: Instant,
    pub(crate) answered: Instant,
}

/// What the clients saw.
#[derive(Debug)]
pub struct Findings {
    pub(crate) writes: Vec<Acked>,
    /// By key: its slot.
    pub(crate) slots: Vec<Slot>,
    /// Reads beside the writes.
    pub reads: u64,
    /// How often each error came.
    pub errors: BTreeMap<String, u64>,
    /// Reads that gave less than what was acknowledged before.
    pub stale: Vec<String>,
    /// Acknowledged writes that were not there in the end.
    pub lost: Vec<String>,
}

impl Findings {
    /// How long after `fault` the first write succeeded that was begun after it, of a key that `owner` owned in that
    /// ring; and when every such key had been written.
    pub fn recovery(
        &self,
        before: &RingDocument,
        owner: &NodeId,
        fault: Instant,
    ) -> Result<(Duration, Duration)> {
        let ring = before.ring();
        let affected: BTreeSet<usize> = (0..self.slots.len())
            .filter(|key| ring.owner(self.slots[*key]) == Some(owner))
            .collect();
        ensure!(!affected.is_empty(), "{owner} owned none of the keys");
        let mut first: BTreeMap<usize, Instant> = BTreeMap::new();
        for write in &self.writes {
            if write.begun >= fault && affected.contains(&write.key) {
                let known = first.entry(write.key).or_insert(write.answered);
                *known = write.answered.min(*known);
            }
        }
        ensure!(
            first.len() == affected.len(),
            "{} of {} keys of {owner} were never written again",
            affected.len() - first.len(),
            affected.len()
        );
        let first_of_all = first.values().min().context("no key")?;
        let last = first.values().max().context("no key")?;
        Ok((first_of_all.duration_since(fault), last.duration_since(fault)))
    }

    /// The longest time between two acknowledgements of one key.
    pub fn longest_gap(&self) -> Duration {
        self.longest_gap_since(None)
            .map_or(Duration::ZERO, |(gap, _)| gap)
    }

    /// The same of those that ended after that moment, since many clients that connect at once are a gap too; and when.
    pub fn longest_gap_since(&self, from: Option<Instant>) -> Option<(Duration, Instant)> {
        let mut last: BTreeMap<usize, Instant> = BTreeMap::new();
        let mut longest = None;
        for write in &self.writes {
            let Some(before) = last.insert(write.key, write.answered) else {
                continue;
            };
            if from.is_none_or(|from| write.answered >= from) {
                longest = longest.max(Some((write.answered.duration_since(before), write.answered)));
            }
        }
        longest
    }

    /// Fails when an acknowledged write was lost, or a read gave something older.
    pub fn nothing_lost(&self) -> Result<()> {
        ensure!(
            self.lost.is_empty() && self.stale.is_empty(),
            "{} acknowledged writes were lost: {:#?}; {} reads were stale: {:#?}",
            self.lost.len(),
            self.lost.iter().take(10).collect::<Vec<_>>(),
            self.stale.len(),
            self.stale.iter().take(10).collect::<Vec<_>>()
        );
        Ok(())
    }

    /// How many writes were acknowledged.
    pub fn acked(&self) -> usize {
        self.writes.len()
    }

    /// From the first write to the last acknowledgement.
    pub fn load_time(&self) -> Duration {
        let first = self.writes.iter().map(|write| write.begun).min();
        let last = self.writes.iter().map(|write| write.answered).max();
        first
            .zip(last)
            .map_or(Duration::ZERO, |(first, last)| last.duration_since(first))
    }

    /// How many writes were acknowledged in each bucket of time; the fault came at the end of the first `before` of
    /// them, and `after` follow.
    pub fn timeline(&self, fault: Instant, bucket: Duration, before: usize, after: usize) -> Vec<u64> {
        let mut counts = vec![0; before + after];
        for write in &self.writes {
            let index = if write.answered >= fault {
                let passed = write.answered.duration_since(fault).as_nanos() / bucket.as_nanos();
                usize::try_from(passed)
                    .ok()
                    .and_then(|passed| before.checked_add(passed))
            } else {
                let ahead = fault
                    .duration_since(write.answered)
                    .as_nanos()
                    .div_ceil(bucket.as_nanos());
                usize::try_from(ahead)
                    .ok()
                    .and_then(|ahead| before.checked_sub(ahead))
            };
            if let Some(count) = index.and_then(|index| counts.get_mut(index)) {
                *count += 1;
            }
        }
        counts
    }

    /// In a line.
    pub fn describe(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = self.writes.len() as f64 / self.load_time().as_secs_f64().max(0.001);
        format!(
            "{} writes acknowledged ({rate:.0}/s), {} reads, lost {}, stale {}, longest gap of a key {:.2} s, errors {:?}",
            self.writes.len(),
            self.reads,
            self.lost.len(),
            self.stale.len(),
            self.longest_gap().as_secs_f64(),
            self.errors
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begin: Instant, key: usize, begun_ms: u64, answered_ms: u64) -> Acked {
        Acked {
            key,
            begun: begin + Duration::from_millis(begun_ms),
            answered: begin + Duration::from_millis(answered_ms),
        }
    }

    fn findings(writes: Vec<Acked>) -> Findings {
        Findings {
            writes,
            slots: vec![Slot::for_key(b"a"), Slot::for_key(b"b")],
            reads: 0,
            errors: BTreeMap::new(),
            stale: Vec::new(),
            lost: Vec::new(),
        }
    }

    #[test]
    fn the_timeline_has_the_fault_between_two_buckets() {
        let begin = Instant::now();
        let seen = findings(vec![
            at(begin, 0, 0, 50),
            at(begin, 0, 60, 799),
            at(begin, 0, 800, 999),
            at(begin, 1, 900, 1000),
            at(begin, 1, 1000, 1099),
            at(begin, 1, 1100, 1100),
            at(begin, 1, 1101, 5000),
        ]);
        let fault = begin + Duration::from_secs(1);
        let counts = seen.timeline(fault, Duration::from_millis(100), 2, 2);
        assert_eq!(counts, [0, 1, 2, 1], "what is out of the window is left out");
    }

    #[test]
    fn a_gap_is_between_acknowledgements_of_one_key() {
        let begin = Instant::now();
        let seen = findings(vec![
            at(begin, 0, 0, 10),
            at(begin, 1, 0, 300),
            at(begin, 0, 200, 210),
        ]);
        assert_eq!(seen.longest_gap(), Duration::from_millis(200));
        let late = begin + Duration::from_millis(211);
        assert_eq!(seen.longest_gap_since(Some(late)), None, "it ended before");
        assert_eq!(seen.load_time(), Duration::from_millis(300));
        assert_eq!(findings(Vec::new()).load_time(), Duration::ZERO);
    }
}
