//! What part of the requests of a trace each eviction policy answers, beside an exact LRU (the `lru` crate).
//!
//! `cargo bench -p annulus-node --bench hit_ratio -- FILE [entries …]` for a trace: `.lis` (lines of first block and
//! count, as the traces of the ARC paper), `.be32` and `.be64` (numbers, highest byte first), anything else a key a
//! line. Without a file: Zipf's distribution over a million keys.
//!
//! The store that is measured is the node's own, with entries of one size and a budget that holds so many of them; a
//! request that misses sets its key.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "it prints a table, and a trace that can't be read ends it"
)]

use std::fs;
use std::num::NonZeroUsize;

use annulus_node::store::{EvictionPolicy, Store, StoreOptions};
use annulus_ring::Slot;
use lru::LruCache;

const POLICIES: [EvictionPolicy; 3] = [
    EvictionPolicy::Lru,
    EvictionPolicy::S3Fifo,
    EvictionPolicy::TinyLfu,
];

/// So long that what a policy remembers takes a small part of the budget, as it does in use.
const VALUE: [u8; 512] = [b'v'; 512];

/// Between two requests: more than the resolution of recency.
const REQUEST_MS: u64 = 16;

/// Requests between two sweeps.
const SWEEP_EVERY: u64 = 10_000;

fn main() {
    // Cargo adds an option of its own.
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let file = args.next();
    let sizes: Vec<usize> = args.map(|arg| arg.parse().unwrap()).collect();
    println!("| trace | entries | exact LRU | lru | s3fifo | tinylfu |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    match file {
        Some(file) => {
            let name = file.rsplit('/').next().unwrap_or(&file).to_owned();
            measure(&name, &read(&file), &sizes);
        }
        None => {
            for exponent in [0.8, 1.0, 1.2] {
                let keys = zipf(exponent, 1_000_000, 3_000_000);
                let sizes: &[usize] = if sizes.is_empty() {
                    &[10_000, 100_000]
                } else {
                    &sizes
                };
                measure(&format!("Zipf {exponent}, 1 M keys"), &keys, sizes);
            }
        }
    }
}

fn measure(name: &str, keys: &[u64], sizes: &[usize]) {
    for &entries in sizes {
        eprintln!("{name}: {} requests, {entries} entries …", keys.len());
        let exact = percent(exact_lru(keys, entries), keys);
        let [lru, s3fifo, tinylfu] = POLICIES.map(|policy| percent(hits(policy, keys, entries), keys));
        println!("| {name} | {entries} | {exact:.2} | {lru:.2} | {s3fifo:.2} | {tinylfu:.2} |");
    }
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn percent(hits: usize, keys: &[u64]) -> f64 {
    100.0 * hits as f64 / keys.len() as f64
}

fn exact_lru(keys: &[u64], entries: usize) -> usize {
    let mut cache = LruCache::new(NonZeroUsize::new(entries).unwrap());
    keys.iter().filter(|&&key| cache.put(key, ()).is_some()).count()
}

fn hits(policy: EvictionPolicy, keys: &[u64], entries: usize) -> usize {
    let store = Store::new(StoreOptions {
        budget_bytes: bytes_of(entries),
        eviction: policy,
    });
    let mut hits = 0;
    let mut now_ms = 0;
    for (number, key) in (0u64..).zip(keys) {
        let key = key.to_be_bytes();
        now_ms += REQUEST_MS;
        let mut guard = store.lock_slot(Slot::for_key(&key));
        if guard.read(&key, now_ms).is_some() {
            hits += 1;
        } else {
            guard.set_string(&key, &VALUE, None, now_ms).unwrap();
        }
        drop(guard);
        store.evict(now_ms);
        if number.is_multiple_of(SWEEP_EVERY) {
            store.sweep(now_ms, usize::MAX);
        }
    }
    hits
}

/// The budget that holds so many entries.
fn bytes_of(entries: usize) -> u64 {
    let store = Store::new(StoreOptions {
        budget_bytes: u64::MAX,
        eviction: EvictionPolicy::NoEviction,
    });
    for key in 0..entries as u64 {
        let key = (key + (1 << 40)).to_be_bytes();
        let mut guard = store.lock_slot(Slot::for_key(&key));
        guard.set_string(&key, &VALUE, None, 0).unwrap();
    }
    store.used_bytes()
}

fn read(file: &str) -> Vec<u64> {
    let bytes = fs::read(file).unwrap();
    let kind = file.rsplit('.').next().unwrap_or_default();
    if kind == "be32" {
        let numbers = bytes.chunks_exact(4);
        return numbers
            .map(|number| u32::from_be_bytes(number.try_into().unwrap()).into())
            .collect();
    }
    if kind == "be64" {
        let numbers = bytes.chunks_exact(8);
        return numbers
            .map(|number| u64::from_be_bytes(number.try_into().unwrap()))
            .collect();
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut keys = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(first) = words.next().and_then(|word| word.parse::<u64>().ok()) else {
            continue;
        };
        let count = if kind == "lis" {
            words.next().unwrap().parse().unwrap()
        } else {
            1
        };
        keys.extend(first..first + count);
    }
    keys
}

/// Requests by Zipf's distribution, always the same ones.
#[expect(clippy::cast_precision_loss, reason = "an approximation of a distribution")]
fn zipf(exponent: f64, keys: usize, requests: usize) -> Vec<u64> {
    let mut sums = Vec::with_capacity(keys);
    let mut sum = 0.0;
    for rank in 1..=keys {
        sum += (rank as f64).powf(-exponent);
        sums.push(sum);
    }
    let mut state = 1u64;
    let mut random = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut draw = || {
        let wanted = random() * sum;
        sums.partition_point(|&below| below < wanted) as u64
    };
    (0..requests).map(|_| draw()).collect()
}
