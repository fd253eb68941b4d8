//! What one connection to one node vouches for.
//!
//! An entry that was read over a connection may be served at a moment `t` if a *check* of that connection that was sent at
//! `t - lease` or later was answered well, and nothing has flushed the connection's entries since they were read. A check asks
//! the node how many invalidations it has sent on this connection; all of them come before the answer. So a write that was
//! acknowledged before the check was sent has either invalidated the entry, or its invalidation is missing in the count.
//!
//! Everything here happens in the order of the stream, except [`Source::state`], which any thread may ask. No clock: moments are
//! nanoseconds since the client began, and are passed in.

use std::sync::atomic::{AtomicU64, Ordering};

/// A node's answer to a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckAnswer {
    /// How many invalidations it has sent on this connection; `None` from servers that don't count.
    pub invalidations: Option<u64>,
    /// Whether it knows that nobody else has taken its place.
    pub leases: bool,
}

/// What a check has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// All is well.
    Well,
    /// So many invalidations are missing: everything read over the connection is forgotten.
    Lost(u64),
    /// The node may have been replaced: nothing read from it is served until it says otherwise.
    MayBeReplaced,
}

/// Whether an entry may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Yes.
    Valid,
    /// Not now; after the next good check, yes.
    Unchecked,
    /// Never again.
    Flushed,
}

/// One life of a connection to a node.
#[derive(Debug)]
pub struct Source {
    lease_ns: u64,
    /// Entries of another generation are flushed. [`ENDED`] when the connection is gone.
    generation: AtomicU64,
    valid_until_ns: AtomicU64,
    received: AtomicU64,
}

const ENDED: u64 = u64::MAX;

impl Source {
    /// A new connection. Nothing of it is served before its first check.
    pub fn new(lease_ns: u64) -> Self {
        Self {
            lease_ns,
            generation: AtomicU64::new(0),
            valid_until_ns: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// One whose entries are served without any checks: what tests compare with.
    pub fn unchecked() -> Self {
        let source = Self::new(0);
        source.valid_until_ns.store(u64::MAX, Ordering::Release);
        source
    }

    /// What an entry that is read now belongs to.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether an entry of that generation may be served at `now_ns`.
    #[inline]
    pub fn state(&self, generation: u64, now_ns: u64) -> State {
        if self.generation.load(Ordering::Acquire) != generation || generation == ENDED {
            State::Flushed
        } else if now_ns < self.valid_until_ns.load(Ordering::Acquire) {
            State::Valid
        } else {
            State::Unchecked
        }
    }

    /// An invalidation has arrived.
    pub fn count_invalidation(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// How many invalidations have arrived, or are known to be missing.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Everything that was read so far is forgotten.
    pub fn flush(&self) {
        let generation = self.generation();
        if generation != ENDED {
            self.generation.store(generation + 1, Ordering::Release);
        }
    }

    /// A check that was sent at `sent_ns` is answered.
    pub fn check(&self, sent_ns: u64, answer: CheckAnswer) -> Checked {
        let received = self.received.load(Ordering::Relaxed);
        let sent = answer.invalidations.unwrap_or(received);
        if sent != received {
            self.flush();
            self.received.store(sent, Ordering::Relaxed);
        }
        if answer.leases {
            self.valid_until_ns
                .fetch_max(sent_ns.saturating_add(self.lease_ns), Ordering::AcqRel);
        }
        if sent != received {
            Checked::Lost(sent.abs_diff(received))
        } else if answer.leases {
            Checked::Well
        } else {
            Checked::MayBeReplaced
        }
    }

    /// The connection is gone, and so is whatever was read over it.
    pub fn end(&self) {
        self.generation.store(ENDED, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(invalidations: u64) -> CheckAnswer {
        CheckAnswer {
            invalidations: Some(invalidations),
            leases: true,
        }
    }

    #[test]
    fn a_lease_counts_from_when_the_check_was_sent() {
        let source = Source::new(100);
        assert_eq!(source.state(0, 0), State::Unchecked, "no check was answered yet");
        assert_eq!(source.check(50, answer(0)), Checked::Well);
        assert_eq!(source.state(0, 149), State::Valid);
        assert_eq!(source.state(0, 150), State::Unchecked);
        // An answer that comes out of order takes nothing back.
        assert_eq!(source.check(20, answer(0)), Checked::Well);
        assert_eq!(source.state(0, 149), State::Valid);
    }

    #[test]
    fn a_missing_invalidation_flushes_what_was_read_before_and_nothing_else() {
        let source = Source::new(100);
        source.count_invalidation();
        assert_eq!(source.check(0, answer(1)), Checked::Well);
        let before = source.generation();
        assert_eq!(source.check(10, answer(3)), Checked::Lost(2));
        assert_eq!(source.state(before, 20), State::Flushed);
        let after = source.generation();
        assert_eq!(source.state(after, 20), State::Valid);
        assert_eq!(source.check(30, answer(3)), Checked::Well, "it is counted once");
        assert_eq!(source.state(after, 40), State::Valid);
    }

    #[test]
    fn a_node_that_may_have_been_replaced_does_not_renew() {
        let source = Source::new(100);
        source.check(0, answer(0));
        let unsure = CheckAnswer {
            leases: false,
            ..answer(0)
        };
        assert_eq!(source.check(90, unsure), Checked::MayBeReplaced);
        assert_eq!(source.state(0, 99), State::Valid);
        assert_eq!(source.state(0, 100), State::Unchecked);
        assert_eq!(source.check(110, answer(0)), Checked::Well);
        assert_eq!(source.state(0, 120), State::Valid);
    }

    #[test]
    fn servers_that_do_not_count_renew_by_answering() {
        let source = Source::new(100);
        source.count_invalidation();
        let uncounted = CheckAnswer {
            invalidations: None,
            leases: true,
        };
        assert_eq!(source.check(0, uncounted), Checked::Well);
        assert_eq!(source.state(0, 99), State::Valid);
    }

    #[test]
    fn nothing_outlives_its_connection() {
        let source = Source::new(100);
        source.check(0, answer(0));
        source.end();
        assert_eq!(source.state(0, 1), State::Flushed);
        source.flush();
        assert_eq!(source.state(source.generation(), 1), State::Flushed);
    }
}
