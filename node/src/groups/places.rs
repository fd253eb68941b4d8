//! Who may begin one more load. Each takes memory while it is under way or waits for its turn, so there are only so many places
//! for all groups, and whoever needs few of them must find one whatever the others do.
//!
//! So the places that a group may take depend on how many are free (Choudhury and Hahne, "Dynamic queue length thresholds for
//! shared-memory packet switches", 1998): one more is only for a group that has fewer than would be free if its keyspace had
//! taken what it has once more. One greedy group leaves others half of the places and more; with every greedy keyspace, and
//! every greedy group in one, what each gets is less, and never are all of them taken.

use std::collections::HashMap;
use std::sync::Arc;

use annulus_proto::tenants::TenantId;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

/// So many loads of one group may be under way or wait for their turn, however many places are free.
pub const GROUP_LOADS_MAX: usize = 10_000;
/// And so many of all.
pub const LOADS_MAX: usize = 40_000;

/// A group, by a number that it keeps when it is described anew.
pub type GroupNumber = u64;

/// The places that are taken.
#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of_keyspaces: HashMap<TenantId, usize, RandomState>,
    of_groups: HashMap<GroupNumber, usize, RandomState>,
}

impl Taken {
    /// Takes one, if the group may have one more.
    fn take(&mut self, keyspace: TenantId, group: GroupNumber) -> bool {
        let of_keyspace = self.of_keyspaces.get(&keyspace).copied().unwrap_or(0);
        let of_group = self.of_groups.get(&group).copied().unwrap_or(0);
        let free = LOADS_MAX.saturating_sub(self.all).saturating_sub(of_keyspace);
        if of_group >= GROUP_LOADS_MAX.min(free) {
            return false;
        }
        self.all += 1;
        self.of_keyspaces.insert(keyspace, of_keyspace + 1);
        self.of_groups.insert(group, of_group + 1);
        true
    }

    fn give_back(&mut self, keyspace: TenantId, group: GroupNumber) {
        self.all = self.all.saturating_sub(1);
        less(&mut self.of_keyspaces, &keyspace);
        less(&mut self.of_groups, &group);
    }
}

/// Who has none isn't listed.
fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize, RandomState>, whose: &K) {
    if let Some(count) = counts.get_mut(whose) {
        *count -= 1;
        if *count == 0 {
            counts.remove(whose);
        }
    }
}

/// The places of a node.
#[derive(Debug, Clone, Default)]
pub struct Places(Arc<Mutex<Taken>>);

/// A load's place, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    places: Places,
    keyspace: TenantId,
    group: GroupNumber,
}

impl Places {
    /// A place for one more load of that group, if it may have one.
    pub fn take(&self, keyspace: TenantId, group: GroupNumber) -> Option<Place> {
        self.0.lock().take(keyspace, group).then(|| Place {
            places: self.clone(),
            keyspace,
            group,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.0.lock().give_back(self.keyspace, self.group);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes as many as it gets, in turn with the others.
    fn fill(taken: &mut Taken, greedy: &[(u32, GroupNumber)]) {
        while greedy
            .iter()
            .filter(|(tenant, group)| taken.take(TenantId(*tenant), *group))
            .count()
            > 0
        {}
    }

    fn more_for(taken: &mut Taken, tenant: u32, group: GroupNumber) -> usize {
        std::iter::repeat_with(|| taken.take(TenantId(tenant), group))
            .take_while(|taken| *taken)
            .count()
    }

    #[test]
    fn whoever_comes_behind_the_greedy_finds_places() {
        for (greedy, another_tenants, their_own_next) in [
            (vec![], 10_000, 10_000),
            (vec![(1, 1)], 10_000, 6667),
            // A keyspace has half of them at most, however many groups it has.
            (vec![(1, 1), (1, 2), (1, 3), (1, 4)], 7408, 1482),
            ((1..=64).map(|group| (1, group)).collect(), 6719, 104),
            (vec![(1, 1), (2, 2)], 6667, 3334),
        ] {
            let mut taken = Taken::default();
            fill(&mut taken, &greedy);
            let found = more_for(&mut taken, 9, 1000);
            assert_eq!(found, another_tenants, "{} greedy groups", greedy.len());
            let mut taken = Taken::default();
            fill(&mut taken, &greedy);
            assert_eq!(more_for(&mut taken, 1, 1001), their_own_next, "{}", greedy.len());
        }
    }

    #[test]
    fn a_place_is_given_back() {
        let places = Places::default();
        let held: Vec<Place> = (0..GROUP_LOADS_MAX)
            .filter_map(|_| places.take(TenantId(1), 1))
            .collect();
        assert_eq!(held.len(), GROUP_LOADS_MAX);
        assert!(places.take(TenantId(1), 1).is_none());
        drop(held);
        assert!(places.take(TenantId(1), 1).is_some());
        let taken = places.0.lock();
        assert_eq!(
            (taken.all, taken.of_keyspaces.len(), taken.of_groups.len()),
            (0, 0, 0)
        );
    }

    proptest! {
        // Each takes all places, one after the other.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn never_are_all_taken(greedy in prop::collection::vec((1_u32..50, 0_u64..64), 1..200)) {
            // A group is in one keyspace.
            let greedy: Vec<_> = greedy.into_iter().map(|(tenant, group)| (tenant, u64::from(tenant) * 64 + group)).collect();
            let mut taken = Taken::default();
            fill(&mut taken, &greedy);
            prop_assert!(taken.all < LOADS_MAX);
            let newcomer = more_for(&mut taken, 1000, 1_000_000);
            prop_assert!(newcomer > 0, "{} are taken", taken.all);
            let sum: usize = taken.of_groups.values().sum();
            prop_assert_eq!(sum, taken.all);
        }
    }
}
