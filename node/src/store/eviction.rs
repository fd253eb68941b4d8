//! Which entries make room: policies as functions of values.
//!
//! No policy keeps a list of all entries: that would cost each of them two pointers. Entries are sampled, and the
//! best victims of past samples are remembered in a [`Pool`], which makes a few samples an eviction as good as
//! many (Redis does so since version 3.0).

use annulus_ring::Slot;

use super::stored::Stored;

/// What happens to a write when the budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// The entries that were not used for longest make room.
    Lru,
    /// The entries that expire soonest make room; those that never do are the last, the least recently used first.
    Ttl,
    /// Commands that may need memory are refused.
    NoEviction,
}

impl EvictionPolicy {
    /// The policy's name in `CONFIG GET maxmemory-policy`.
    pub fn redis_name(self) -> &'static str {
        match self {
            Self::Lru => "allkeys-lru",
            Self::Ttl => "volatile-ttl",
            Self::NoEviction => "noeviction",
        }
    }

    /// How good a victim the entry is: the higher, the better.
    pub(super) fn priority(self, stored: &Stored, now_ms: u64) -> u64 {
        const EXPIRES: u64 = 1 << 63;
        match (self, stored.expires_at_ms()) {
            (Self::Ttl, Some(at_ms)) => EXPIRES | (!at_ms & !EXPIRES),
            _ => stored.idle_ms(now_ms),
        }
    }
}

/// An entry that may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) priority: u64,
    pub(super) slot: Slot,
    pub(super) hash: u64,
}

/// The best victims that were seen and are still there, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The best one last.
    candidates: Vec<Candidate>,
}

impl Pool {
    const LEN_MAX: usize = 16;

    /// Remembers the candidate if it is among the best.
    pub(super) fn offer(&mut self, offered: Candidate) {
        self.candidates
            .retain(|known| (known.slot, known.hash) != (offered.slot, offered.hash));
        let place = self
            .candidates
            .partition_point(|known| known.priority < offered.priority);
        if self.candidates.len() < Self::LEN_MAX {
            self.candidates.insert(place, offered);
        } else if place > 0 {
            // The worst one goes, and those below the new one move down.
            self.candidates[..place].rotate_left(1);
            self.candidates[place - 1] = offered;
        }
    }

    /// The best candidate, which is forgotten.
    pub(super) fn take(&mut self) -> Option<Candidate> {
        self.candidates.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(priority: u64) -> Candidate {
        Candidate {
            priority,
            slot: Slot::ZERO,
            hash: priority,
        }
    }

    #[test]
    fn a_pool_keeps_the_best() {
        let mut pool = Pool::default();
        for number in 0..100 {
            pool.offer(candidate(number * 37 % 100));
        }
        let kept: Vec<u64> = std::iter::from_fn(|| pool.take())
            .map(|candidate| candidate.priority)
            .collect();
        assert_eq!(kept, (84..100).rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_pool_keeps_an_entry_once_with_what_is_known_last() {
        let mut pool = Pool::default();
        pool.offer(candidate(5));
        pool.offer(Candidate {
            priority: 9,
            ..candidate(5)
        });
        pool.offer(candidate(7));
        assert_eq!(
            pool.take().map(|taken| (taken.priority, taken.hash)),
            Some((9, 5))
        );
        assert_eq!(pool.take(), Some(candidate(7)));
        assert_eq!(pool.take(), None);
    }
}
