use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const BUDGET_BYTES: u64 = 1 << 30;

fn store_of(budget_bytes: u64, eviction: EvictionPolicy) -> Store {
    Store::new(StoreOptions {
        budget_bytes,
        eviction,
    })
}

fn slot_of(key: &[u8]) -> Slot {
    Slot::for_key(key)
}

fn set(store: &Store, key: &[u8], value: &[u8], expires_at_ms: Option<u64>, now_ms: u64) {
    store
        .lock_slot(slot_of(key))
        .set(key, Value::from_bytes(value), expires_at_ms, now_ms)
        .unwrap();
}

fn get(store: &Store, key: &[u8], now_ms: u64) -> Option<Vec<u8>> {
    store
        .lock_slot(slot_of(key))
        .read(key, now_ms)
        .map(|stored| stored.value().to_bytes().into_owned())
}

#[test]
fn an_entry_ends_at_its_millisecond() {
    let store = store_of(BUDGET_BYTES, EvictionPolicy::Lru);
    set(&store, b"key", b"value", Some(100), 0);
    assert_eq!(get(&store, b"key", 99), Some(b"value".to_vec()));
    assert_eq!(store.keys(), 1);
    let mut guard = store.lock_slot(slot_of(b"key"));
    assert!(guard.peek(b"key", 100).is_none());
    assert!(guard.read(b"key", 100).is_none());
    assert_eq!(
        guard.take_tally(),
        Tally {
            hits: 0,
            misses: 1,
            expired: 1
        }
    );
    drop(guard);
    assert_eq!(
        (store.keys(), store.used_bytes(), store.volatile_keys()),
        (0, 0, 0)
    );
}

#[test]
fn who_reads_a_copy_leaves_no_trace() {
    let store = store_of(BUDGET_BYTES, EvictionPolicy::Lru);
    set(&store, b"key", b"value", Some(100), 0);
    let mut guard = store.lock_slot(slot_of(b"key"));
    guard.set_copy(true);
    guard.read_as_copy();
    guard.set_touches(true);
    let idle_ms = |guard: &SlotGuard<'_>| guard.snapshot(90).first().map(|entry| entry.idle_ms);
    let before = idle_ms(&guard);
    assert!(guard.read(b"key", 90).is_some());
    assert_eq!(idle_ms(&guard), before);
    assert!(guard.read(b"key", 100).is_none());
    let tally = Tally {
        hits: 1,
        misses: 1,
        expired: 0,
    };
    assert_eq!((guard.take_tally(), guard.len()), (tally, 1));
}

#[test]
fn a_sweep_gives_back_what_expired_and_nothing_else() {
    let store = store_of(BUDGET_BYTES, EvictionPolicy::Lru);
    for number in 0..1000u32 {
        let expires_at_ms = (number % 2 == 0).then_some(100 + u64::from(number));
        set(
            &store,
            format!("key-{number}").as_bytes(),
            b"value",
            expires_at_ms,
            0,
        );
    }
    assert_eq!(store.volatile_keys(), 500);
    assert_eq!(store.sweep(50, usize::MAX), 0);
    assert_eq!(store.sweep(599, usize::MAX), 250);
    assert_eq!(store.sweep(599, usize::MAX), 0);
    assert_eq!((store.keys(), store.volatile_keys()), (750, 250));
    let mut left = 0;
    while store.keys() > 500 {
        left += store.sweep(u64::MAX - 1, 10);
    }
    assert_eq!((left, store.volatile_keys()), (250, 0));
}

#[test]
fn within_a_slot_the_least_recently_used_goes_first() {
    let keys: Vec<Vec<u8>> = (0..100)
        .map(|number| format!("{{tag}}{number}").into_bytes())
        .collect();
    let store = store_of(BUDGET_BYTES, EvictionPolicy::Lru);
    for (now_ms, key) in (0..).step_by(100).zip(&keys) {
        set(&store, key, &[b'x'; 100], None, now_ms);
    }
    assert!(get(&store, &keys[0], 100_000).is_some());
    // Room for about half of them.
    let half = store_of(store.used_bytes() / 2, EvictionPolicy::Lru);
    for entry in store.lock_slot(slot_of(b"{tag}")).snapshot(100_000) {
        half.lock_slot(slot_of(b"{tag}")).insert(entry, 100_000).unwrap();
        half.evict(100_000);
        assert!(!half.is_over_budget());
    }
    assert!(
        get(&half, &keys[0], 200_000).is_some(),
        "the most recently used one stays"
    );
    let kept = |keys: &[Vec<u8>]| {
        let kept = keys.iter().filter(|key| get(&half, key, 200_000).is_some());
        kept.count()
    };
    // Samples may miss some.
    let old = kept(&keys[1..=20]);
    assert!(old <= 5, "{old} of the 20 least recently used ones stay");
    let all = kept(&keys);
    assert!((45..=55).contains(&all), "{all} kept");
}

#[test]
fn between_slots_the_old_goes_before_the_new() {
    const KEYS: u64 = 20_000;
    let key = |number: u64| format!("key-{number}").into_bytes();
    let store = store_of(3 << 20, EvictionPolicy::Lru);
    let mut evicted = 0;
    for number in 0..KEYS {
        set(&store, &key(number), &[b'x'; 100], None, number * 16);
        evicted += store.evict(number * 16);
        assert!(!store.is_over_budget());
    }
    assert_eq!(store.keys(), KEYS - evicted);
    let kept = store.keys();
    let newest = (KEYS - kept..KEYS)
        .filter(|&number| get(&store, &key(number), KEYS * 16).is_some())
        .count();
    let percent = 100 * newest as u64 / kept;
    assert!(
        percent > 80,
        "{percent} % of the kept entries are among the newest"
    );
}

const EVICTING: [EvictionPolicy; 4] = [
    EvictionPolicy::Lru,
    EvictionPolicy::S3Fifo,
    EvictionPolicy::TinyLfu,
    EvictionPolicy::Ttl,
];

#[test]
fn every_policy_stays_within_the_budget_and_keeps_what_was_just_written() {
    for policy in EVICTING {
        let store = store_of(1 << 20, policy);
        let (mut evicted, mut now_ms) = (0, 0);
        for number in 0..20_000u64 {
            now_ms += 16;
            let key = format!("key-{number}");
            set(&store, key.as_bytes(), &[b'x'; 100], None, now_ms);
            evicted += store.evict(now_ms);
            assert!(!store.is_over_budget(), "{policy:?}");
            assert!(get(&store, key.as_bytes(), now_ms).is_some(), "{policy:?} {key}");
        }
        assert_eq!(store.keys(), 20_000 - evicted, "{policy:?}");
        assert!(
            store.used_bytes() > (1 << 20) * 9 / 10,
            "{policy:?} evicts no more than it must"
        );
        let fresh: u64 = Slot::all()
            .map(|slot| u64::from(store.lock_slot(slot).line.map.fresh()))
            .sum();
        assert_eq!(store.own.fresh.load(Ordering::Relaxed), fresh, "{policy:?}");
    }
}

/// Some keys are asked for all the time while others pass by once.
#[test]
fn what_passes_by_does_not_drive_out_what_is_used() {
    for policy in [EvictionPolicy::S3Fifo, EvictionPolicy::TinyLfu] {
        let store = store_of(1 << 20, policy);
        let mut now_ms = 0;
        let used = |number: u64| format!("used-{number}").into_bytes();
        for number in 0..100_000u64 {
            now_ms += 16;
            set(
                &store,
                format!("passing-{number}").as_bytes(),
                &[b'x'; 100],
                None,
                now_ms,
            );
            let key = used(number % 1000);
            // The used ones come back after 10,000 keys have passed, more than there is room for.
            if number % 10 == 0 && get(&store, &key, now_ms).is_none() {
                set(&store, &key, &[b'x'; 100], None, now_ms);
            }
            store.evict(now_ms);
        }
        let kept = (0..1000)
            .filter(|&number| get(&store, &used(number), now_ms).is_some())
            .count();
        assert!(kept > 90, "{policy:?} kept {kept} of 100");
    }
}

#[test]
fn by_time_to_live_the_soonest_goes_first() {
    let store = store_of(1 << 20, EvictionPolicy::Ttl);
    for number in 0..12_000u64 {
        let expires_at_ms = (number % 2 == 0).then_some(1_000_000 + number);
        set(
            &store,
            format!("key-{number}").as_bytes(),
            &[b'x'; 50],
            expires_at_ms,
            0,
        );
        store.evict(0);
    }
    let kept = store.keys() - store.volatile_keys();
    assert!(kept > 5900, "{kept} of the 6000 that never expire are kept");
}

#[test]
fn without_eviction_nothing_goes() {
    let store = store_of(1 << 10, EvictionPolicy::NoEviction);
    for number in 0..20 {
        set(&store, format!("key-{number}").as_bytes(), b"value", None, 0);
    }
    assert!(store.is_over_budget());
    assert_eq!((store.evict(0), store.keys()), (0, 20));
}

#[test]
fn what_is_larger_than_the_budget_is_refused() {
    let store = store_of(1 << 10, EvictionPolicy::Lru);
    let mut guard = store.lock_slot(slot_of(b"key"));
    let refused = guard
        .set(b"key", Value::from_bytes(&[b'x'; 2000]), None, 0)
        .unwrap_err();
    assert_eq!(refused.budget_bytes, 1 << 10);
    drop(guard);
    assert_eq!((store.keys(), store.used_bytes()), (0, 0));
}

#[test]
fn a_snapshot_inserted_elsewhere_is_the_same_slot() {
    let (from, to) = (
        store_of(BUDGET_BYTES, EvictionPolicy::Lru),
        store_of(BUDGET_BYTES, EvictionPolicy::Lru),
    );
    let slot = slot_of(b"{tag}");
    for number in 0..10 {
        let expires_at_ms = (number % 3 == 0).then_some(1000 + number);
        set(
            &from,
            format!("{{tag}}{number}").as_bytes(),
            format!("{number}x").as_bytes(),
            expires_at_ms,
            number,
        );
    }
    let sorted = |store: &Store| {
        let mut entries = store.lock_slot(slot).snapshot(50);
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries
    };
    let snapshot = sorted(&from);
    for entry in snapshot.clone() {
        to.lock_slot(slot).insert(entry, 50).unwrap();
    }
    assert_eq!(sorted(&to), snapshot);
    assert_eq!((to.keys(), to.slot_len(slot)), (10, 10));
    assert_eq!(to.lock_slot(slot).clear(), 10);
    assert_eq!((to.used_bytes(), to.keys()), (0, 0));
}

#[test]
fn threads_agree_about_the_totals() {
    let store = store_of(1 << 20, EvictionPolicy::Lru);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..5000u64 {
                    let key = format!("key-{}", (number * 7 + thread) % 3000);
                    set(
                        store,
                        key.as_bytes(),
                        &vec![b'x'; (number % 300) as usize],
                        None,
                        number,
                    );
                    store.evict(number);
                    if number % 3 == 0 {
                        store
                            .lock_slot(slot_of(key.as_bytes()))
                            .remove(key.as_bytes(), number);
                    }
                }
            });
        }
    });
    let bytes: u64 = Slot::all().map(|slot| store.slot_bytes(slot)).sum();
    let keys: usize = Slot::all().map(|slot| store.slot_len(slot)).sum();
    assert_eq!((store.used_bytes(), store.keys()), (bytes, keys as u64));
    store.clear();
    assert_eq!(
        (store.used_bytes(), store.keys(), store.next_occupied(Slot::ZERO)),
        (0, 0, None)
    );
}

#[derive(Debug, Clone)]
enum Step {
    Set {
        key: u8,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    },
    Remove {
        key: u8,
    },
    Append {
        key: u8,
        suffix: Vec<u8>,
    },
    SetExpiry {
        key: u8,
        ttl_ms: Option<u64>,
    },
    Wait {
        ms: u64,
    },
    Sweep,
    ClearSlot {
        key: u8,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let value = || proptest::collection::vec(prop_oneof![Just(b'1'), any::<u8>()], 0..40);
    let ttl_ms = || proptest::option::of(1..200u64);
    prop_oneof![
        4 => (any::<u8>(), value(), ttl_ms()).prop_map(|(key, value, ttl_ms)| Step::Set { key, value, ttl_ms }),
        2 => any::<u8>().prop_map(|key| Step::Remove { key }),
        2 => (any::<u8>(), value()).prop_map(|(key, suffix)| Step::Append { key, suffix }),
        2 => (any::<u8>(), ttl_ms()).prop_map(|(key, ttl_ms)| Step::SetExpiry { key, ttl_ms }),
        1 => (0..100u64).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Sweep),
        1 => any::<u8>().prop_map(|key| Step::ClearSlot { key }),
    ]
}

/// Few keys in few slots, so that steps meet.
fn key_of(number: u8) -> Vec<u8> {
    format!("{{{}}}{}", number % 4, number % 24).into_bytes()
}

proptest! {
    #[test]
    fn the_store_is_a_map_with_expiry(steps in proptest::collection::vec(any_step(), 1..200)) {
        let store = store_of(BUDGET_BYTES, EvictionPolicy::Lru);
        let mut model: HashMap<Vec<u8>, (Vec<u8>, Option<u64>)> = HashMap::new();
        let mut now_ms = 1000;
        for step in steps {
            match step {
                Step::Set { key, value, ttl_ms } => {
                    let expires_at_ms = ttl_ms.map(|ttl_ms| now_ms + ttl_ms);
                    set(&store, &key_of(key), &value, expires_at_ms, now_ms);
                    model.insert(key_of(key), (value, expires_at_ms));
                }
                Step::Remove { key } => {
                    let key = key_of(key);
                    let removed = store.lock_slot(slot_of(&key)).remove(&key, now_ms);
                    prop_assert_eq!(
                        removed.map(|stored| stored.value().to_bytes().into_owned()),
                        model.remove(&key).map(|(value, _)| value)
                    );
                }
                Step::Append { key, suffix } => {
                    let key = key_of(key);
                    let mut guard = store.lock_slot(slot_of(&key));
                    let old_len = guard.find(&key, now_ms).map_or(0, |stored| stored.value().len());
                    let changed = guard.edit_string(&key, old_len + suffix.len(), now_ms, |bytes| {
                        bytes[old_len..].copy_from_slice(&suffix);
                    });
                    let expected = model.get_mut(&key).map(|(value, _)| value.extend_from_slice(&suffix)).is_some();
                    prop_assert_eq!(changed, expected);
                }
                Step::SetExpiry { key, ttl_ms } => {
                    let key = key_of(key);
                    let expires_at_ms = ttl_ms.map(|ttl_ms| now_ms + ttl_ms);
                    let found = store.lock_slot(slot_of(&key)).set_expiry(&key, expires_at_ms, now_ms);
                    let expected = model.get_mut(&key).map(|(_, at_ms)| *at_ms = expires_at_ms).is_some();
                    prop_assert_eq!(found, expected);
                }
                Step::Wait { ms } => now_ms += ms,
                Step::Sweep => {
                    store.sweep(now_ms, usize::MAX);
                    prop_assert_eq!(store.keys(), model.values().filter(|(_, at_ms)| at_ms.is_none_or(|at_ms| at_ms > now_ms)).count() as u64);
                }
                Step::ClearSlot { key } => {
                    let slot = slot_of(&key_of(key));
                    store.lock_slot(slot).clear();
                    model.retain(|key, _| slot_of(key) != slot);
                }
            }
            model.retain(|_, (_, at_ms)| at_ms.is_none_or(|at_ms| at_ms > now_ms));
            for number in 0..24 {
                let key = key_of(number);
                let guard = store.lock_slot(slot_of(&key));
                let found = guard.peek(&key, now_ms);
                let found = found.map(|stored| (stored.value().to_bytes().into_owned(), stored.expires_at_ms()));
                prop_assert_eq!(found.as_ref(), model.get(&key));
            }
        }
        store.clear();
        prop_assert_eq!((store.used_bytes(), store.keys(), store.volatile_keys()), (0, 0, 0));
    }
}
