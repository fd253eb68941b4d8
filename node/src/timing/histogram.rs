//! How long commands take, counted by powers of two of microseconds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The last one counts everything beyond 2^30 microseconds, eighteen minutes, too.
const BUCKETS: usize = 31;

/// The times of one command. Any thread may add to it.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Histogram {
    fn note(&self, us: u64) {
        let bucket = us.max(1).next_power_of_two().trailing_zeros() as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
        self.sum_us.store(0, Ordering::Relaxed);
    }

    /// All times together.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }

    /// How often the command was timed.
    pub fn calls(&self) -> u64 {
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .sum()
    }

    /// How many calls took so many microseconds or less, for each power of two that one or more calls needed.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut calls = 0;
        (0..BUCKETS)
            .filter_map(|bucket| {
                let here = self.buckets[bucket].load(Ordering::Relaxed);
                calls += here;
                (here > 0).then_some((1 << bucket, calls))
            })
            .collect()
    }
}

/// The times of all commands of the table; a command takes memory once it was timed.
#[derive(Debug)]
pub struct Histograms {
    commands: Box<[OnceLock<Box<Histogram>>]>,
}

impl Histograms {
    /// No times yet.
    pub fn new(commands: usize) -> Self {
        Self {
            commands: (0..commands).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Counts a time of the command with that number.
    pub fn note(&self, command: usize, us: u64) {
        if let Some(histogram) = self.commands.get(command) {
            histogram.get_or_init(Box::default).note(us);
        }
    }

    /// The times of the command with that number, if there are any.
    pub fn of(&self, command: usize) -> Option<&Histogram> {
        let histogram = self.commands.get(command)?.get()?;
        (histogram.calls() > 0).then_some(histogram)
    }

    /// Forgets all times.
    pub fn clear(&self) {
        for histogram in self.commands.iter().filter_map(OnceLock::get) {
            histogram.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_by_powers_of_two() {
        let histograms = Histograms::new(2);
        assert!(histograms.of(1).is_none());
        for us in [0, 1, 2, 3, 4, 5, 1 << 40] {
            histograms.note(1, us);
        }
        let histogram = histograms.of(1).unwrap();
        assert_eq!(
            histogram.cumulative(),
            [(1, 2), (2, 3), (4, 5), (8, 6), (1 << 30, 7)]
        );
        assert_eq!((histogram.calls(), histogram.sum_us()), (7, (1 << 40) + 15));
        assert!(histograms.of(0).is_none());
        histograms.clear();
        assert!(histograms.of(1).is_none());
    }
}
