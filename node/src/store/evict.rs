//! How a store makes room: it samples entries, remembers the best victims, and takes them by its policy
//! ([`super::eviction`]). A tenant beyond its own limits makes room among its own entries; where the node as a whole has no
//! room, whoever is furthest above what is guaranteed to it does.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::eviction::{Candidate, EvictionPolicy, Kind, Rank, Victims};
use super::stored::Stored;
use super::{Keyspace, Space, Store};

/// Entries that are looked at for each eviction.
const EVICTION_SAMPLE: usize = 8;

/// After so many evictions it is asked again whose entries make room.
const EVICTIONS_AT_ONCE: u32 = 32;

/// A tenant's connections may always hold so much together: large requests are no fault of a small quota.
const TENANT_CONNECTION_BYTES_FREE: u64 = 16 << 20;

/// Whoever has no guarantee is compared as if this share of the budget were guaranteed to it.
const GUARANTEE_SHARE: u64 = 1024;

impl Store {
    /// Removes entries until the rest is within the budget, and says how many. Does nothing under
    /// [`EvictionPolicy::NoEviction`]. The caller holds no guard.
    pub fn evict(&self, now_ms: u64) -> u64 {
        let mut evicted = 0;
        if self.eviction == EvictionPolicy::NoEviction {
            return evicted;
        }
        while self.is_over_budget() {
            let keyspace = self.furthest_above();
            let space = keyspace.space(self);
            // Whoever else needs room waits here, so that writers can't run ahead of evictions.
            let mut victims = space.victims.lock();
            if keyspace.tenant().is_none() {
                self.grow_history();
            }
            if space.keys() == 0 {
                break;
            }
            let mut turns = 0;
            while self.is_over_budget() && space.keys() > 0 && turns < EVICTIONS_AT_ONCE {
                evicted += u64::from(self.evict_from(&keyspace, &mut victims, now_ms));
                // Without tenants there is nobody else to ask.
                turns += u32::from(self.has_tenants());
            }
        }
        evicted
    }

    /// Removes entries of a tenant until it is within its limits even with `more_bytes`, and says how many. As above.
    pub fn evict_tenant(&self, keyspace: &Keyspace, more_bytes: u64, now_ms: u64) -> u64 {
        // What can't be kept at all drives nothing out.
        let fits = |space: &Arc<Space>| more_bytes <= self.entry_bytes_max(space);
        if keyspace.tenant().is_some_and(fits) {
            self.evict_some(keyspace, more_bytes, now_ms, u64::MAX)
        } else {
            0
        }
    }

    fn evict_some(&self, keyspace: &Keyspace, more_bytes: u64, now_ms: u64, entries_max: u64) -> u64 {
        let Some(space) = keyspace.tenant() else { return 0 };
        let mut evicted = 0;
        if self.eviction == EvictionPolicy::NoEviction || !self.is_over_limits(space, more_bytes) {
            return evicted;
        }
        let mut victims = space.victims.lock();
        while self.is_over_limits(space, more_bytes) && space.keys() > 0 && evicted < entries_max {
            evicted += u64::from(self.evict_from(keyspace, &mut victims, now_ms));
        }
        evicted
    }

    /// Whether a tenant has more than it may have on this node, or would have with `more_bytes`.
    pub fn is_over_limits(&self, space: &Space, more_bytes: u64) -> bool {
        let slots = self.slots();
        space
            .limits
            .memory_bytes(slots)
            .is_some_and(|max| space.own_bytes() + more_bytes > max)
            || space.limits.keys(slots).is_some_and(|max| space.keys() > max)
    }

    /// Whether a tenant will soon have to make room.
    fn is_nearly_full(&self, space: &Space) -> bool {
        let max = space.limits.memory_bytes(self.slots());
        max.is_some_and(|max| space.own_bytes() > max - max / 64)
    }

    /// Has tenants that are above their limits make room, by so many entries at most: limits are lowered, and slots leave,
    /// while their tenants write nothing. Returns how many entries were removed.
    pub fn enforce_limits(&self, now_ms: u64, entries_max: u64) -> u64 {
        let mut evicted = 0;
        for space in self.spaces() {
            if evicted < entries_max && self.is_over_limits(&space, 0) {
                let keyspace = Keyspace::from(space);
                evicted += self.evict_some(&keyspace, 0, now_ms, entries_max - evicted);
            }
        }
        evicted
    }

    /// What a tenant's connections may hold together before the next that grows is closed.
    pub fn connection_bytes_max_of(&self, space: &Space) -> u64 {
        let part = space.limits.memory_bytes(self.slots());
        part.unwrap_or(self.budget_bytes / 4)
            .max(TENANT_CONNECTION_BYTES_FREE)
    }

    /// The largest entry that a tenant may have.
    pub(super) fn entry_bytes_max(&self, space: &Space) -> u64 {
        let part = space.limits.memory_bytes(self.slots());
        part.unwrap_or(u64::MAX).min(self.budget_bytes)
    }

    /// The keyspace that is furthest above what is guaranteed to it: by that much of its guarantee. The cluster's own has
    /// what the tenants' guarantees leave. Large requests and replies that are under way count as what they take room from.
    fn furthest_above(&self) -> Keyspace {
        let spaces = self.spaces();
        if spaces.is_empty() {
            return Keyspace::default();
        }
        let (slots, floor) = (self.slots(), (self.budget_bytes / GUARANTEE_SHARE).max(1));
        let (mut tenants_bytes, mut guaranteed, mut worst) = (0, 0, (0, Keyspace::default()));
        for space in spaces {
            let own_bytes = space.own_bytes();
            let guarantee = space.limits.guaranteed_bytes(slots);
            tenants_bytes += own_bytes;
            guaranteed += guarantee;
            let level = level(own_bytes + space.connection_bytes(), guarantee.max(floor));
            if level > worst.0 && space.keys() > 0 {
                worst = (level, Keyspace::from(space));
            }
        }
        let rest = self.budget_bytes.saturating_sub(guaranteed).max(floor);
        let own_level = level(self.own_bytes().saturating_sub(tenants_bytes), rest);
        if self.own.keys() > 0 && own_level > worst.0 {
            return Keyspace::default();
        }
        worst.1
    }

    /// Evicts one entry of a keyspace, unless none of those that were looked at is what it was any more.
    fn evict_from(&self, keyspace: &Keyspace, victims: &mut Victims, now_ms: u64) -> bool {
        self.sample(keyspace, victims, now_ms);
        let evicted = self.evict_one(keyspace, victims, now_ms);
        if evicted && let Some(space) = keyspace.tenant() {
            space.counters.evictions.add(1);
        }
        evicted
    }

    /// Where a new entry of that hash begins.
    #[inline]
    pub(super) fn rank_of_new(&self, keyspace: &Keyspace, hash: u64) -> Rank {
        Rank::new(match self.eviction {
            EvictionPolicy::S3Fifo if self.ghosts.take(hash) => Kind::Settled,
            EvictionPolicy::S3Fifo => Kind::Fresh,
            EvictionPolicy::TinyLfu => {
                self.sketch.count(hash);
                // While there is room nobody has to prove itself.
                let own_budget_bytes = self.own_budget_bytes();
                let is_nearly_full = self.taken_bytes() > self.budget_bytes - self.budget_bytes / 64
                    || self.own_bytes() > own_budget_bytes - own_budget_bytes / 64
                    || keyspace.tenant().is_some_and(|space| self.is_nearly_full(space));
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
                u128::from(self.all_keys()) * u128::from(self.budget_bytes) / u128::from(taken_bytes);
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
    fn is_probation_full(&self, space: &Space) -> bool {
        let percent = self.eviction.probation_percent();
        percent.is_some_and(|percent| space.fresh.load(Ordering::Relaxed) * 100 > space.keys() * percent)
    }

    /// Evicts one of the candidates, unless it is not what it was any more.
    fn evict_one(&self, keyspace: &Keyspace, victims: &mut Victims, now_ms: u64) -> bool {
        if self.is_probation_full(keyspace.space(self))
            && let Some(candidate) = victims.fresh.take()
        {
            // Who came at this very moment has had no chance yet: no write is undone at once.
            if candidate.priority > 0 {
                return self.end_probation(keyspace, candidate, victims, now_ms);
            }
            victims.fresh.offer(candidate);
        }
        let candidate = victims.settled.take().or_else(|| victims.fresh.take());
        candidate.is_some_and(|candidate| self.evict_candidate(keyspace, candidate, now_ms))
    }

    /// Evicts the entry on probation, or another one in its place; `false` when none was evicted.
    fn end_probation(
        &self,
        keyspace: &Keyspace,
        candidate: Candidate,
        victims: &mut Victims,
        now_ms: u64,
    ) -> bool {
        if self.eviction == EvictionPolicy::TinyLfu
            && let Some(rival) = victims.settled.take()
        {
            if self.sketch.estimate(candidate.hash) > self.sketch.estimate(rival.hash) {
                let mut guard = self.lock_slot_of(candidate.slot, keyspace);
                guard.settle_hashed(candidate.hash, |stored| self.is_still(candidate, stored, now_ms));
                drop(guard);
                return self.evict_candidate(keyspace, rival, now_ms);
            }
            victims.settled.offer(rival);
        }
        let evicted = self.evict_candidate(keyspace, candidate, now_ms);
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
    fn sample(&self, keyspace: &Keyspace, victims: &mut Victims, now_ms: u64) {
        let (space, mut wanted) = (keyspace.space(self), EVICTION_SAMPLE);
        for _ in 0..EVICTION_SAMPLE {
            let Some(slot) = space.random_occupied(self) else {
                return;
            };
            let random = self.random();
            let Some(line) = self.line_of(slot) else { return };
            let line = line.lock();
            let Some(map) = line.of(space.id) else { continue };
            for stored in map.sample(random).take(wanted) {
                wanted -= 1;
                let candidate = Candidate {
                    priority: self.eviction.priority(stored, now_ms),
                    slot,
                    hash: self.hasher.hash(stored.key()) ^ space.salt,
                };
                victims.offer(Rank::of(stored).kind, candidate);
            }
            if wanted == 0 {
                return;
            }
        }
    }

    /// Removes the entry, unless it is gone or was used since it was sampled.
    fn evict_candidate(&self, keyspace: &Keyspace, candidate: Candidate, now_ms: u64) -> bool {
        let mut guard = self.lock_slot_of(candidate.slot, keyspace);
        // It was sampled before the slot went to another node.
        !guard.is_copy()
            && guard.remove_hashed(candidate.hash, |stored| self.is_still(candidate, stored, now_ms))
    }
}

/// How far above its guarantee somebody is, in 65536ths of it.
fn level(bytes: u64, guarantee: u64) -> u128 {
    (u128::from(bytes) << 16) / u128::from(guarantee)
}
