//! How long commands take: the slow log, what `LATENCY` shows, and the times in `INFO commandstats`.
//!
//! Reading the clock costs as much as the shortest commands do, so those are not timed unless somebody asks for
//! times that short: a threshold under a millisecond, or `latency-tracking`. What is kept is bounded, whatever
//! clients send, and never holds a password.

mod histogram;
mod latency;
mod slow_log;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::command::{Entry, Flags, Group};
use crate::execute::Context;
use crate::resp::Args;

pub use histogram::{Histogram, Histograms};
pub use latency::{Event, Latencies, Sample};
pub use slow_log::{SlowCommand, SlowLog};

/// Which commands are timed.
const NONE: u8 = 0;
const LONG: u8 = 1;
const ALL: u8 = 2;

/// So many commands of a tenant are logged, of which there may be many.
const TENANT_SLOW_LOG_LEN_MAX: usize = 32;

/// Commands that can't take long by themselves are timed for thresholds below this.
const SHORT_US_MAX: i64 = 1000;

/// What is measured, and what came of it.
pub struct Timing {
    timed: AtomicU8,
    slower_than_us: AtomicI64,
    slow_log_len_max: AtomicUsize,
    monitor_ms: AtomicU64,
    tracks: AtomicBool,
    /// What took longer than `latency-monitor-threshold`.
    pub latencies: Latencies,
    /// How long each command takes, while `latency-tracking` is on.
    pub histograms: Histograms,
}

impl Timing {
    const SLOWER_THAN_US_DEFAULT: i64 = 10_000;
    const SLOW_LOG_LEN_MAX_DEFAULT: usize = 128;

    /// Nothing measured yet, for a table of that many commands.
    pub fn new(commands: usize) -> Self {
        let timing = Self {
            timed: AtomicU8::new(NONE),
            slower_than_us: AtomicI64::new(Self::SLOWER_THAN_US_DEFAULT),
            slow_log_len_max: AtomicUsize::new(Self::SLOW_LOG_LEN_MAX_DEFAULT),
            monitor_ms: AtomicU64::new(0),
            tracks: AtomicBool::new(false),
            latencies: Latencies::default(),
            histograms: Histograms::new(commands),
        };
        timing.choose();
        timing
    }

    /// `slowlog-log-slower-than`: commands that take so many microseconds are logged; none if it is negative.
    pub fn slower_than_us(&self) -> i64 {
        self.slower_than_us.load(Ordering::Relaxed)
    }

    /// `slowlog-max-len`.
    pub fn slow_log_len_max(&self) -> usize {
        self.slow_log_len_max.load(Ordering::Relaxed)
    }

    /// `latency-monitor-threshold`: what takes so many milliseconds is an event; nothing is if it is 0.
    pub fn monitor_ms(&self) -> u64 {
        self.monitor_ms.load(Ordering::Relaxed)
    }

    /// `latency-tracking`: whether every command's time is counted.
    pub fn tracks(&self) -> bool {
        self.tracks.load(Ordering::Relaxed)
    }

    /// Changes `slowlog-log-slower-than`.
    pub fn set_slower_than_us(&self, microseconds: i64) {
        self.slower_than_us.store(microseconds, Ordering::Relaxed);
        self.choose();
    }

    /// Changes `slowlog-max-len`; what is too much is forgotten with the next command that is logged.
    pub fn set_slow_log_len_max(&self, len: usize) {
        self.slow_log_len_max.store(len, Ordering::Relaxed);
    }

    /// Changes `latency-monitor-threshold`.
    pub fn set_monitor_ms(&self, milliseconds: u64) {
        self.monitor_ms.store(milliseconds, Ordering::Relaxed);
        self.choose();
    }

    /// Changes `latency-tracking`.
    pub fn set_tracks(&self, tracks: bool) {
        self.tracks.store(tracks, Ordering::Relaxed);
        self.choose();
    }

    fn choose(&self) {
        let timed = timed(self.slower_than_us(), self.monitor_ms(), self.tracks());
        self.timed.store(timed, Ordering::Relaxed);
    }

    /// The moment at which a command begins, if it is to be timed.
    #[inline]
    pub fn begin(&self, entry: &Entry) -> Option<Instant> {
        match self.timed.load(Ordering::Relaxed) {
            NONE => None,
            LONG if is_short(entry) => None,
            _ => Some(clock::monotonic()),
        }
    }

    /// Notes a command that was begun then and is done.
    #[inline]
    pub fn end(&self, begun: Option<Instant>, context: &Context<'_>, entry: &Entry, args: Args<'_>) {
        if let Some(begun) = begun {
            self.note(begun.elapsed(), context, entry, args);
        }
    }

    fn note(&self, took: Duration, context: &Context<'_>, entry: &Entry, args: Args<'_>) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if self.tracks() {
            self.histograms.note(entry.index.into(), us);
        }
        let is_fast = entry.command.flags.has(Flags::FAST);
        let event = if is_fast {
            Event::FastCommand
        } else {
            Event::Command
        };
        self.note_event(event, us / 1000, context.now_ms);
        // The commands of a transaction are logged one by one.
        if entry.command.name == "exec" {
            return;
        }
        if u64::try_from(self.slower_than_us()).is_ok_and(|slower_than_us| us >= slower_than_us) {
            let client = &context.session.client;
            let slow = SlowCommand::new(args, us, context.now_ms / 1000, client);
            let len_max = match context.session.keyspace.tenant() {
                None => self.slow_log_len_max(),
                Some(_) => self.slow_log_len_max().min(TENANT_SLOW_LOG_LEN_MAX),
            };
            context.space().slow_log.push(slow, len_max);
        }
    }

    /// Notes that something took so long, if that is long enough.
    pub fn note_event(&self, event: Event, took_ms: u64, now_ms: u64) {
        let monitor_ms = self.monitor_ms();
        if monitor_ms > 0 && took_ms >= monitor_ms {
            self.latencies.note(event, took_ms, now_ms / 1000);
        }
    }
}

/// Which commands the settings ask to time.
fn timed(slower_than_us: i64, monitor_ms: u64, tracks: bool) -> u8 {
    if tracks || (0..SHORT_US_MAX).contains(&slower_than_us) {
        ALL
    } else if slower_than_us >= 0 || monitor_ms > 0 {
        LONG
    } else {
        NONE
    }
}

/// Whether a command takes about the same time always, or as long as it takes to copy one string.
#[inline]
fn is_short(entry: &Entry) -> bool {
    let command = entry.command;
    command.flags.has(Flags::FAST)
        || command.group == Group::String && i16::from(command.keys.first) == i16::from(command.keys.last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    #[test]
    fn what_is_timed_follows_from_what_is_asked_for() {
        for (slower_than_us, monitor_ms, tracks, expected) in [
            (-1, 0, false, NONE),
            (-1, 1, false, LONG),
            (10_000, 0, false, LONG),
            (1000, 0, false, LONG),
            (999, 0, false, ALL),
            (0, 0, false, ALL),
            (-1, 0, true, ALL),
        ] {
            let found = timed(slower_than_us, monitor_ms, tracks);
            assert_eq!(found, expected, "{slower_than_us} {monitor_ms} {tracks}");
        }
    }

    #[test]
    fn the_most_frequent_commands_are_not_timed_by_default() {
        let timing = Timing::new(table().len());
        for (name, is_timed) in [
            ("get", false),
            ("set", false),
            ("hget", false),
            ("mset", true),
            ("zrange", true),
            ("del", true),
            ("eval", true),
        ] {
            let entry = table().find(name.as_bytes()).unwrap();
            assert_eq!(timing.begin(entry).is_some(), is_timed, "{name}");
        }
    }
}
