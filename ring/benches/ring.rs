//! What the ring costs: a look-up, a key's slot, and planning. `cargo bench -p annulus-ring`.

#![expect(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use std::hint::black_box;
use std::num::NonZeroU16;

use annulus_ring::{HashRing, Placement, PlacementParams, Slot, Weight, place};
use divan::Bencher;
use divan::counter::ItemsCount;

const LOOKUPS: u32 = 1_000_000;
const PARAMS: PlacementParams = PlacementParams {
    replication_factor: 2,
    tokens_per_member: 32,
};

fn main() {
    divan::main();
}

fn members(count: usize) -> Vec<Placement> {
    let member = |number| Placement {
        id: format!("node-{number}").parse().unwrap(),
        weight: Weight(NonZeroU16::new(100).unwrap()),
        zone: None,
    };
    (0..count).map(member).collect()
}

/// A million look-ups of the owner of a key.
#[divan::bench(args = [3, 20, 200])]
fn owner_of_a_key(bencher: Bencher<'_, '_>, nodes: usize) {
    let ring = place(&HashRing::default(), &members(nodes), &PARAMS);
    let keys: Vec<String> = (0..1024).map(|number| format!("user:{number:011}")).collect();
    bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
        for number in 0..LOOKUPS {
            let key = keys[(number % 1024) as usize].as_bytes();
            black_box(ring.owner(Slot::for_key(black_box(key))));
        }
    });
}

/// A million look-ups of the owner of a slot.
#[divan::bench(args = [3, 20, 200])]
fn owner_of_a_slot(bencher: Bencher<'_, '_>, nodes: usize) {
    let ring = place(&HashRing::default(), &members(nodes), &PARAMS);
    let slots: Vec<Slot> = Slot::all().collect();
    bencher.counter(ItemsCount::new(LOOKUPS)).bench_local(|| {
        for number in 0..LOOKUPS {
            black_box(ring.owner(slots[(number.wrapping_mul(2_654_435_761) >> 18) as usize]));
        }
    });
}

/// A first ring.
#[divan::bench(args = [3, 20, 200], sample_count = 10)]
fn place_first(bencher: Bencher<'_, '_>, nodes: usize) {
    let members = members(nodes);
    bencher.bench_local(|| place(&HashRing::default(), &members, &PARAMS));
}

/// One more member.
#[divan::bench(args = [3, 20, 199], sample_count = 10)]
fn place_a_join(bencher: Bencher<'_, '_>, nodes: usize) {
    let members = members(nodes + 1);
    let before = place(&HashRing::default(), &members[..nodes], &PARAMS);
    bencher.bench_local(|| place(&before, &members, &PARAMS));
}

/// One member less.
#[divan::bench(args = [3, 20, 200], sample_count = 10)]
fn place_a_leave(bencher: Bencher<'_, '_>, nodes: usize) {
    let members = members(nodes);
    let before = place(&HashRing::default(), &members, &PARAMS);
    bencher.bench_local(|| place(&before, &members[1..], &PARAMS));
}
