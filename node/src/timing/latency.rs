//! What `LATENCY` shows: the longest times of each kind, second by second.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Samples that are kept of each kind.
const SAMPLES_MAX: usize = 160;

/// What can take long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A command whose time depends on the data.
    Command,
    /// A command whose time should not.
    FastCommand,
    /// Taking away what has expired.
    ExpireCycle,
}

impl Event {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Command, Self::FastCommand, Self::ExpireCycle];

    /// The name that `LATENCY` has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::FastCommand => "fast-command",
            Self::ExpireCycle => "expire-cycle",
        }
    }

    /// The kind of that name.
    pub fn find(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|event| name.eq_ignore_ascii_case(event.name().as_bytes()))
    }
}

/// The longest time of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The second, since the Unix epoch.
    pub at_s: u64,
    /// How long it took.
    pub took_ms: u64,
}

#[derive(Debug, Default)]
struct Series {
    samples: VecDeque<Sample>,
    longest_ms: u64,
}

/// The times of all kinds.
#[derive(Debug, Default)]
pub struct Latencies {
    series: [Mutex<Series>; Event::ALL.len()],
}

impl Latencies {
    /// Adds a time.
    pub fn note(&self, event: Event, took_ms: u64, at_s: u64) {
        let mut series = self.series[event as usize].lock();
        series.longest_ms = series.longest_ms.max(took_ms);
        match series.samples.back_mut() {
            Some(last) if last.at_s == at_s => last.took_ms = last.took_ms.max(took_ms),
            _ => series.samples.push_back(Sample { at_s, took_ms }),
        }
        if series.samples.len() > SAMPLES_MAX {
            series.samples.pop_front();
        }
    }

    /// The samples of a kind, the oldest first.
    pub fn history(&self, event: Event) -> Vec<Sample> {
        self.series[event as usize]
            .lock()
            .samples
            .iter()
            .copied()
            .collect()
    }

    /// Of each kind that there was: its last sample, and the longest time ever.
    pub fn latest(&self) -> Vec<(Event, Sample, u64)> {
        Event::ALL
            .into_iter()
            .filter_map(|event| {
                let series = self.series[event as usize].lock();
                series
                    .samples
                    .back()
                    .map(|sample| (event, *sample, series.longest_ms))
            })
            .collect()
    }

    /// Forgets a kind; `false` if there was nothing.
    pub fn clear(&self, event: Event) -> bool {
        let series = std::mem::take(&mut *self.series[event as usize].lock());
        !series.samples.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_one_sample_and_the_oldest_go() {
        let latencies = Latencies::default();
        for (took_ms, at_s) in [(5, 1), (9, 1), (7, 1), (3, 2)] {
            latencies.note(Event::Command, took_ms, at_s);
        }
        let samples = [(1, 9), (2, 3)].map(|(at_s, took_ms)| Sample { at_s, took_ms });
        assert_eq!(latencies.history(Event::Command), samples);
        assert_eq!(latencies.latest(), [(Event::Command, samples[1], 9)]);
        assert!(latencies.history(Event::ExpireCycle).is_empty());
        for at_s in 3..1000 {
            latencies.note(Event::Command, 1, at_s);
        }
        let history = latencies.history(Event::Command);
        assert_eq!(
            (history.len(), history[0].at_s),
            (SAMPLES_MAX, 1000 - SAMPLES_MAX as u64)
        );
        assert!(latencies.clear(Event::Command));
        assert!(!latencies.clear(Event::Command));
        assert!(latencies.latest().is_empty());
    }
}
