//! Which entries make room: policies as functions of values.
//!
//! No policy keeps a list of all entries: that would cost each of them two pointers. Entries are sampled, and the
//! best victims of past samples are remembered in a [`Pool`], which makes a few samples an eviction as good as
//! many (Redis does so since version 3.0). The policies with a probation tell entries apart that have yet to prove
//! themselves, and what a queue's order would say is the age of their last use.

use annulus_ring::Slot;

use super::stored::Stored;

/// What happens to a write when the budget is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionPolicy {
    /// The entries that were not used for longest make room.
    Lru,
    /// New entries are on probation: those that are not used again soon make room first, unless they were evicted
    /// not long ago. After S3-FIFO.
    S3Fifo,
    /// New entries are on a short probation: at its end the less frequently used one of it and an old entry makes
    /// room. After W-TinyLFU.
    TinyLfu,
    /// The entries that expire soonest make room; those that never do are the last, the least recently used first.
    Ttl,
    /// Commands that may need memory are refused.
    NoEviction,
}

/// Entries compete with others of their kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// On probation.
    Fresh,
    /// All others.
    Settled,
}

impl EvictionPolicy {
    /// The policy's name in `CONFIG GET maxmemory-policy`.
    pub fn redis_name(self) -> &'static str {
        match self {
            Self::Lru => "allkeys-lru",
            Self::S3Fifo => "allkeys-s3fifo",
            Self::TinyLfu => "allkeys-lfu",
            Self::Ttl => "volatile-ttl",
            Self::NoEviction => "noeviction",
        }
    }

    /// So many of a hundred entries may be on probation; `None` where there is none.
    pub(super) fn probation_percent(self) -> Option<u64> {
        match self {
            Self::S3Fifo => Some(10),
            Self::TinyLfu => Some(1),
            Self::Lru | Self::Ttl | Self::NoEviction => None,
        }
    }

    /// How good a victim the entry is: the higher, the better.
    pub(super) fn priority(self, stored: &Stored, now_ms: u64) -> u64 {
        const EXPIRES: u64 = 1 << 63;
        let idle_ms = stored.idle_ms(now_ms);
        match (self, stored.expires_at_ms()) {
            (Self::Ttl, Some(at_ms)) => EXPIRES | (!at_ms & !EXPIRES),
            // Every use that is remembered makes the entry half as old.
            (Self::S3Fifo, _) => idle_ms >> Rank::of(stored).uses,
            _ => idle_ms,
        }
    }
}

/// What a policy keeps with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rank {
    pub(super) kind: Kind,
    /// Uses since it came or settled, at most 3.
    pub(super) uses: u8,
}

impl Rank {
    const FRESH: u8 = 1 << 2;
    const USES_MAX: u8 = 3;

    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, uses: 0 }
    }

    #[inline]
    pub(super) fn of(stored: &Stored) -> Self {
        let rank = stored.rank();
        Self {
            kind: if rank & Self::FRESH == 0 {
                Kind::Settled
            } else {
                Kind::Fresh
            },
            uses: rank & Self::USES_MAX,
        }
    }

    /// 1 on probation, otherwise 0.
    #[inline]
    pub(super) fn is_fresh(self) -> u32 {
        u32::from(self.kind == Kind::Fresh)
    }

    #[inline]
    pub(super) fn write(self, stored: &mut Stored) {
        let kind = if self.kind == Kind::Fresh { Self::FRESH } else { 0 };
        stored.set_rank(kind | self.uses);
    }

    /// After one more use.
    #[inline]
    pub(super) fn used(self, policy: EvictionPolicy) -> Self {
        match (policy, self.kind) {
            // Who is used again has proved itself.
            (EvictionPolicy::S3Fifo, Kind::Fresh) => Self::new(Kind::Settled),
            _ => Self {
                uses: (self.uses + 1).min(Self::USES_MAX),
                ..self
            },
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

/// The best victims of each kind.
#[derive(Debug, Default)]
pub(super) struct Victims {
    pub(super) fresh: Pool,
    pub(super) settled: Pool,
}

impl Victims {
    pub(super) fn offer(&mut self, kind: Kind, offered: Candidate) {
        match kind {
            Kind::Fresh => self.fresh.offer(offered),
            Kind::Settled => self.settled.offer(offered),
        }
    }
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
