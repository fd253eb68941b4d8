//! What the store says that it uses, against what it takes from the allocator.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests fail where they stand, and the figures are worth a look"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use annulus_node::store::collections::{Hash, List, Set, SortedSet};
use annulus_node::store::memory::allocation_bytes;
use annulus_node::store::{Collection, EvictionPolicy, Store, StoreOptions, Value};
use annulus_ring::Slot;

/// Counts what is allocated, rounded up as the GNU allocator rounds it.
struct Counting;

static TAKEN_BYTES: AtomicUsize = AtomicUsize::new(0);

fn taken(size: usize) -> usize {
    usize::try_from(allocation_bytes(size)).unwrap_or(usize::MAX)
}

#[expect(
    unsafe_code,
    reason = "an allocator can't be written without; it only counts and hands on"
)]
// SAFETY: everything is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN_BYTES.fetch_add(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN_BYTES.fetch_sub(taken(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Case {
    name: &'static str,
    keys: u64,
    key_len: usize,
    value_len: usize,
    with_expiry: bool,
    one_slot: bool,
    rounds: u64,
}

/// Fills a store as the case says; with several rounds every round replaces the keys of the one before.
fn fill(store: &Store, case: &Case) {
    let value = vec![b'x'; case.value_len];
    for round in 0..case.rounds {
        for number in 0..case.keys {
            let key_of = |round| {
                let tag = if case.one_slot { "{tag}" } else { "" };
                format!(
                    "{tag}{:0width$}",
                    round * case.keys + number,
                    width = case.key_len - tag.len()
                )
            };
            let key = key_of(round);
            let expires_at_ms = case.with_expiry.then_some(u64::MAX / 2);
            let mut guard = store.lock_slot(Slot::for_key(key.as_bytes()));
            guard
                .set(key.as_bytes(), Value::from_bytes(&value), expires_at_ms, 0)
                .unwrap();
            drop(guard);
            if round > 0 {
                let old = key_of(round - 1);
                assert!(
                    store
                        .lock_slot(Slot::for_key(old.as_bytes()))
                        .remove(old.as_bytes(), 0)
                        .is_some()
                );
            }
        }
    }
}

/// The slots themselves, a cache line each with what the allocator takes beside: made when they are first used, kept,
/// and not counted.
const SHARDS_BYTES: usize = 1100 << 10;

/// One test at a time counts.
static COUNTED: Mutex<()> = Mutex::new(());

#[test]
fn the_formula_is_close_to_the_allocator() {
    let _alone = COUNTED.lock().unwrap();
    let case = |name, keys, key_len, value_len| Case {
        name,
        keys,
        key_len,
        value_len,
        with_expiry: false,
        one_slot: false,
        rounds: 1,
    };
    let table = [
        case("one key a slot", 10_000, 16, 64),
        case("small values", 200_000, 16, 64),
        case("numbers", 200_000, 16, 0),
        Case {
            with_expiry: true,
            ..case("with expiry", 200_000, 16, 64)
        },
        case("1 KiB", 50_000, 24, 1024),
        case("200 KiB", 500, 40, 200 << 10),
        Case {
            one_slot: true,
            ..case("one slot", 100_000, 20, 30)
        },
        Case {
            rounds: 4,
            ..case("churn", 100_000, 16, 64)
        },
        Case {
            rounds: 4,
            one_slot: true,
            ..case("churn in one slot", 50_000, 20, 64)
        },
        Case {
            rounds: 4,
            one_slot: true,
            ..case("churn of numbers in one slot", 50_000, 20, 0)
        },
    ];
    for case in table {
        let store = Store::new(StoreOptions {
            budget_bytes: u64::MAX,
            eviction: EvictionPolicy::Lru,
        });
        let before = TAKEN_BYTES.load(Ordering::Relaxed);
        fill(&store, &case);
        let taken = (TAKEN_BYTES.load(Ordering::Relaxed) - before) as u64;
        let counted = store.used_bytes();
        let (per_key, percent) = (taken / case.keys, 100 * counted / taken);
        println!(
            "{}: {per_key} bytes a key, {percent} % of them counted",
            case.name
        );
        // The shards are allocated lazily and not counted.
        let shards = SHARDS_BYTES as u64;
        assert!(
            counted * 10 >= (taken - shards) * 9,
            "{}: {counted} counted, {taken} taken",
            case.name
        );
        assert!(
            counted * 10 <= taken * 11,
            "{}: {counted} counted, {taken} taken",
            case.name
        );
        store.clear();
        assert_eq!(store.used_bytes(), 0, "{}", case.name);
        let left = TAKEN_BYTES.load(Ordering::Relaxed).saturating_sub(before);
        assert!(
            left <= SHARDS_BYTES,
            "{}: {left} bytes are left behind",
            case.name
        );
    }
}

/// Adds or removes the element of that number, which has so many bytes.
type Change<C> = fn(&mut C, usize, usize);

/// Fills collections of that type and holds what the store counts against what was allocated: after filling them,
/// after replacing half of their elements by others, and after removing most.
fn check_collections<C: Collection>(
    name: &str,
    keys: usize,
    elements: usize,
    len: usize,
    steps: [Change<C>; 2],
) {
    let [add, remove] = steps;
    let store = Store::new(StoreOptions {
        budget_bytes: u64::MAX,
        eviction: EvictionPolicy::Lru,
    });
    let before = TAKEN_BYTES.load(Ordering::Relaxed);
    let compare = |what: &str| {
        let taken = (TAKEN_BYTES.load(Ordering::Relaxed) - before) as u64;
        let counted = store.used_bytes();
        println!(
            "{name}, {keys} of {elements} elements of {len} bytes, {what}: {} bytes an element, {} % of them counted",
            taken / (keys * elements) as u64,
            100 * counted / taken
        );
        // The shards are allocated lazily and not counted.
        let shards = (SHARDS_BYTES as u64).min(taken);
        assert!(
            counted * 10 >= (taken - shards) * 9,
            "{name} {what}: {counted} counted, {taken} taken"
        );
        assert!(
            counted * 10 <= taken * 11,
            "{name} {what}: {counted} counted, {taken} taken"
        );
    };
    let each = |change: &dyn Fn(&mut C)| {
        for number in 0..keys {
            let key = format!("key-{number:08}");
            let mut guard = store.lock_slot(Slot::for_key(key.as_bytes()));
            guard
                .update(key.as_bytes(), 0, |collection| change(collection))
                .unwrap();
        }
    };
    for number in 0..elements {
        each(&|collection| add(collection, number, len));
    }
    compare("filled");
    for number in 0..elements / 2 {
        each(&|collection| {
            remove(collection, number, len);
            add(collection, number + elements, len);
        });
    }
    compare("changed");
    for number in elements / 2..elements + elements / 4 {
        each(&|collection| remove(collection, number, len));
    }
    compare("emptied");
    store.clear();
    assert_eq!(store.used_bytes(), 0, "{name}");
    let left = TAKEN_BYTES.load(Ordering::Relaxed).saturating_sub(before);
    assert!(left <= SHARDS_BYTES, "{name}: {left} bytes are left behind");
}

fn score(number: usize) -> f64 {
    f64::from(u32::try_from(number * 7919 % 10_007).unwrap())
}

fn element(number: usize, len: usize) -> Vec<u8> {
    let mut element = format!("{number:08}").into_bytes();
    element.resize(len, b'x');
    element
}

#[test]
fn collections_count_what_they_allocate() {
    let _alone = COUNTED.lock().unwrap();
    for (keys, elements, len) in [
        (3_000, 8, 12),
        (600, 100, 40),
        (150, 200, 20),
        (1, 30_000, 16),
        (3, 5_000, 100),
        (1, 300, 150 << 10),
    ] {
        check_collections::<Hash>(
            "hash",
            keys,
            elements,
            len,
            [
                |hash, number, len| {
                    hash.set(&element(number, 8), &element(number, len));
                },
                |hash, number, _| {
                    hash.remove(&element(number, 8));
                },
            ],
        );
        check_collections::<Set>(
            "set",
            keys,
            elements,
            len,
            [
                |set, number, len| {
                    set.insert(&element(number, len));
                },
                |set, number, len| {
                    set.remove(&element(number, len));
                },
            ],
        );
        check_collections::<SortedSet>(
            "sorted set",
            keys,
            elements,
            len,
            [
                |set, number, len| set.insert(&element(number, len), score(number)),
                |set, number, len| {
                    set.remove(&element(number, len));
                },
            ],
        );
        check_collections::<List>(
            "list",
            keys,
            elements,
            len,
            [
                |list, number, len| list.push_back(&element(number, len)),
                |list, _, _| list.remove(0, 1),
            ],
        );
    }
}
