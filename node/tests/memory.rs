//! What the store says that it uses, against what it takes from the allocator.
#![expect(clippy::unwrap_used, reason = "tests fail where they stand")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use annulus_node::store::memory::allocation_bytes;
use annulus_node::store::{EvictionPolicy, Store, StoreOptions, Value};
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

#[test]
fn the_formula_is_close_to_the_allocator() {
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
        let shards = 512 << 10;
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
        assert!(left <= 512 << 10, "{}: {left} bytes are left behind", case.name);
    }
}
