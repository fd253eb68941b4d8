//! How a store makes room: it samples entries, remembers the best victims, and takes them by its policy
//! ([`super::eviction`]).

use std::sync::atomic::Ordering;

use super::Store;
use super::eviction::{Candidate, EvictionPolicy, Kind, Rank, Victims};
use super::stored::Stored;

/// Entries that are looked at for each eviction.
const EVICTION_SAMPLE: usize = 8;

impl Store {
    /// Removes entries until the rest is within the budget, and says how many. Does nothing under
    /// [`EvictionPolicy::NoEviction`]. The caller holds no guard.
    pub fn evict(&self, now_ms: u64) -> u64 {
        let mut evicted = 0;
        if self.eviction == EvictionPolicy::NoEviction {
            return evicted;
        }
        // Whoever else needs room waits here, so that writers can't run ahead of evictions.
        let mut victims = self.victims.lock();
        self.grow_history();
        while self.is_over_budget() && self.keys() > 0 {
            self.sample(&mut victims, now_ms);
            evicted += u64::from(self.evict_one(&mut victims, now_ms));
        }
        evicted
    }

    /// Where a new entry of that hash begins.
    #[inline]
    pub(super) fn rank_of_new(&self, hash: u64) -> Rank {
        Rank::new(match self.eviction {
            EvictionPolicy::S3Fifo if self.ghosts.take(hash) => Kind::Settled,
            EvictionPolicy::S3Fifo => Kind::Fresh,
            EvictionPolicy::TinyLfu => {
                self.sketch.count(hash);
                // While there is room nobody has to prove itself.
                let own_budget_bytes = self.own_budget_bytes();
                let is_nearly_full = self.taken_bytes() > self.budget_bytes - self.budget_bytes / 64
                    || self.own_bytes() > own_budget_bytes - own_budget_bytes / 64;
                if is_nearly_full {
                    Kind::Fresh
                } else {
                    Kind::Settled
                }
            }
            EvictionPolicy::Lru | EvictionPolicy::Ttl | EvictionPolicy::NoEviction => Kind::Settled,
        })
    }

    /// Gives the policy's memory of keys the size that it needs; the caller has locked the victims. Until the budget
    /// is half used it has none: nothing will be evicted soon.
    pub(super) fn grow_history(&self) {
        let taken_bytes = self.taken_bytes();
        if taken_bytes > self.budget_bytes / 2 {
            let before = self.history_bytes();
            // So many as there will be when the budget is used up; for very small entries fewer, so that all sizes
            // that it ever had stay below an eighth of the budget.
            let keys_ahead =
                u128::from(self.keys()) * u128::from(self.budget_bytes) / u128::from(taken_bytes);
            let keys = u64::try_from(keys_ahead).unwrap_or(u64::MAX);
            match self.eviction {
                EvictionPolicy::S3Fifo => self.ghosts.grow(keys.min(self.budget_bytes / 128)),
                EvictionPolicy::TinyLfu => self.sketch.grow(keys.min(self.budget_bytes / 256)),
                EvictionPolicy::Lru | EvictionPolicy::Ttl | EvictionPolicy::NoEviction => {}
            }
            let grown = self.history_bytes() - before;
            self.used_bytes.fetch_add(grown, Ordering::Relaxed);
        }
    }

    /// What the policy's memory of keys takes.
    fn history_bytes(&self) -> u64 {
        self.ghosts.bytes() + self.sketch.bytes()
    }

    /// Whether more entries are on probation than may be.
    fn is_probation_full(&self) -> bool {
        let percent = self.eviction.probation_percent();
        percent.is_some_and(|percent| self.fresh.load(Ordering::Relaxed) * 100 > self.keys() * percent)
    }

    /// Evicts one of the candidates, unless it is not what it was any more.
    fn evict_one(&self, victims: &mut Victims, now_ms: u64) -> bool {
        if self.is_probation_full()
            && let Some(candidate) = victims.fresh.take()
        {
            // Who came at this very moment has had no chance yet: no write is undone at once.
            if candidate.priority > 0 {
                return self.end_probation(candidate, victims, now_ms);
            }
            victims.fresh.offer(candidate);
        }
        let candidate = victims.settled.take().or_else(|| victims.fresh.take());
        candidate.is_some_and(|candidate| self.evict_candidate(candidate, now_ms))
    }

    /// Evicts the entry on probation, or another one in its place; `false` when none was evicted.
    fn end_probation(&self, candidate: Candidate, victims: &mut Victims, now_ms: u64) -> bool {
        if self.eviction == EvictionPolicy::TinyLfu
            && let Some(rival) = victims.settled.take()
        {
            if self.sketch.estimate(candidate.hash) > self.sketch.estimate(rival.hash) {
                let mut guard = self.lock_slot(candidate.slot);
                guard.settle_hashed(candidate.hash, |stored| self.is_still(candidate, stored, now_ms));
                drop(guard);
                return self.evict_candidate(rival, now_ms);
            }
            victims.settled.offer(rival);
        }
        let evicted = self.evict_candidate(candidate, now_ms);
        if evicted {
            self.ghosts.add(candidate.hash);
        }
        evicted
    }

    /// Whether the entry was not used since it was sampled.
    fn is_still(&self, candidate: Candidate, stored: &Stored, now_ms: u64) -> bool {
        self.eviction.priority(stored, now_ms) >= candidate.priority
    }

    /// Offers some entries as victims: those of one slot, or of several where a slot has few. Which slot a key
    /// is in has nothing to do with its use, so that neighbours are as good a sample as any.
    fn sample(&self, victims: &mut Victims, now_ms: u64) {
        let mut wanted = EVICTION_SAMPLE;
        for _ in 0..EVICTION_SAMPLE {
            let Some(slot) = self.random_occupied() else {
                return;
            };
            let random = self.random();
            let Some(map) = self.map_of(slot) else { return };
            for stored in map.lock().sample(random).take(wanted) {
                wanted -= 1;
                let candidate = Candidate {
                    priority: self.eviction.priority(stored, now_ms),
                    slot,
                    hash: self.hasher.hash(stored.key()),
                };
                victims.offer(Rank::of(stored).kind, candidate);
            }
            if wanted == 0 {
                return;
            }
        }
    }

    /// Removes the entry, unless it is gone or was used since it was sampled.
    fn evict_candidate(&self, candidate: Candidate, now_ms: u64) -> bool {
        let mut guard = self.lock_slot(candidate.slot);
        // It was sampled before the slot went to another node.
        !guard.is_copy()
            && guard.remove_hashed(candidate.hash, |stored| self.is_still(candidate, stored, now_ms))
    }
}
