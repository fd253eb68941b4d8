//! Slots move between real stores over the real protocol while clients write to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use annulus_node::store::Collection;
use annulus_node::store::collections::{Hash, List, Set, SortedSet};
use annulus_ring::{Access, Slot};
use tokio::task::yield_now;

use crate::documents::{document, handoff};
use crate::member::{NOW_MS, TestMember};

const SLOTS: u16 = 64;

/// What one node accepted: key by slot, with the moment of each in an order that all nodes share.
type Accepted = BTreeMap<u16, Vec<(u64, String)>>;

/// Writes new keys to a node's slots as fast as it can, and notes what was accepted.
fn hammer(
    member: &Arc<TestMember>,
    sequence: &Arc<AtomicU64>,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<Accepted> {
    let (member, sequence, stop) = (Arc::clone(member), Arc::clone(sequence), Arc::clone(stop));
    std::thread::spawn(move || {
        let mut accepted = Accepted::new();
        while !stop.load(Ordering::Relaxed) {
            for number in 0..SLOTS {
                let slot = Slot::new(number).unwrap();
                let mut guard = member.node.store.lock_slot(slot);
                if annulus_node::routing::Routing::access(&*member.state, slot) == Access::ReadWrite {
                    let moment = sequence.fetch_add(1, Ordering::SeqCst);
                    let key = format!("{number}-{moment}");
                    guard
                        .set(key.as_bytes(), annulus_node::store::Value::Int(1), None, NOW_MS)
                        .unwrap();
                    accepted.entry(number).or_default().push((moment, key));
                }
                drop(guard);
                std::thread::yield_now();
            }
        }
        accepted
    })
}

/// Waits until every slot has been written to again.
async fn write_more(sequence: &AtomicU64) {
    let reached = sequence.load(Ordering::SeqCst) + 1000;
    while sequence.load(Ordering::SeqCst) < reached {
        yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_lost_and_none_is_accepted_by_both() {
    let members = [
        Arc::new(TestMember::start(0).await),
        Arc::new(TestMember::start(1).await),
    ];
    let listed = members.each_ref().map(|member| member.listed.clone());
    let (to_n0, to_n1) = (document(1, &listed, 1), {
        let mut reversed = document(1, &listed, 1);
        reversed.tokens = BTreeMap::from([(listed[1].id.clone(), vec![Slot::MAX])]);
        reversed
    });
    for member in &members {
        member.adopt(&to_n0);
    }
    let (sequence, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writers = members.each_ref().map(|member| hammer(member, &sequence, &stop));

    write_more(&sequence).await;
    // There and back and there again: handoffs at even epochs, the tokens follow at odd ones.
    for (round, (from, to)) in [(0, 1), (1, 0), (0, 1)].into_iter().enumerate() {
        let epoch = 2 + 2 * round as u64;
        let (before, after) = if from == 0 {
            (&to_n0, &to_n1)
        } else {
            (&to_n1, &to_n0)
        };
        let mut moving = before.clone();
        moving.epoch.0 = epoch;
        moving.handoffs = vec![handoff(&format!("0-{}", SLOTS - 1), from, to)];
        let mut moved = after.clone();
        moved.epoch.0 = epoch + 1;
        // The rest of the slots hold nothing, and change hands by the tokens alone.
        for member in &members {
            member.adopt(&moving);
        }
        let target = &members[to];
        target.wait("settled", |progress| progress.settled).await;
        assert_eq!(target.state.progress().activated.len(), u32::from(SLOTS));
        write_more(&sequence).await;
        for member in &members {
            member.adopt(&moved);
        }
    }
    stop.store(true, Ordering::Relaxed);
    let accepted = writers.map(|writer| writer.join().unwrap());

    let mut total = 0;
    for number in 0..SLOTS {
        let slot = Slot::new(number).unwrap();
        let mut moments = Vec::new();
        for (index, by_slot) in accepted.iter().enumerate() {
            for (moment, key) in by_slot.get(&number).into_iter().flatten() {
                moments.push((*moment, index));
                let found = members[1].read(slot, key.as_bytes()).is_some();
                assert!(found, "slot {number}: {key}, accepted by n{index}, is lost");
                total += 1;
            }
        }
        moments.sort_unstable();
        let owners: Vec<usize> = moments.chunk_by(|a, b| a.1 == b.1).map(|run| run[0].1).collect();
        assert_eq!(
            owners,
            [0, 1, 0, 1],
            "slot {number} was accepted by both at a time"
        );
        assert_eq!(
            members[0].node.store.slot_len(slot),
            0,
            "what was given away is dropped"
        );
    }
    assert_eq!(members[1].node.store.keys(), total);
}

#[tokio::test]
async fn large_values_cross_in_parts() {
    let (source, target) = (TestMember::start(0).await, TestMember::start(1).await);
    let listed = [source.listed.clone(), target.listed.clone()];
    let slot = Slot::new(5).unwrap();
    source.adopt(&document(1, &listed, 1));
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    assert_eq!(source.write(slot, b"large", large.clone()), Access::ReadWrite);
    assert_eq!(
        source.write(slot, &vec![b'k'; 3 << 20], b"key".to_vec()),
        Access::ReadWrite
    );
    let mut moving = document(2, &listed, 1);
    moving.handoffs = vec![handoff("5", 0, 1)];
    for member in [&source, &target] {
        member.adopt(&moving);
    }
    target.wait("settled", |progress| progress.settled).await;
    assert!(
        target.read(slot, b"large") == Some(large),
        "the value is not what was written"
    );
    assert_eq!(target.read(slot, &vec![b'k'; 3 << 20]), Some(b"key".to_vec()));
    assert_eq!(
        target.context.counters.bytes_in.get(),
        source.context.counters.bytes_out.get()
    );
}

#[tokio::test]
async fn collections_cross_as_they_are() {
    let (source, target) = (TestMember::start(0).await, TestMember::start(1).await);
    let listed = [source.listed.clone(), target.listed.clone()];
    let slot = Slot::new(5).unwrap();
    source.adopt(&document(1, &listed, 1));
    let mut values = Vec::new();
    for len in [1, 100, 30_000_u32] {
        let (mut hash, mut list, mut set, mut sorted_set) = (
            Hash::default(),
            List::default(),
            Set::default(),
            SortedSet::default(),
        );
        for number in 0..len {
            let element = format!("element-{number:060}").into_bytes();
            hash.set(&element, &number.to_le_bytes());
            list.push_front(&element);
            set.insert(&element);
            sorted_set.insert(&element, f64::from(len - number) / 4.0);
        }
        values.extend([
            hash.into_value(),
            list.into_value(),
            set.into_value(),
            sorted_set.into_value(),
        ]);
    }
    for (number, value) in values.iter().enumerate() {
        source.write_value(slot, format!("key-{number}").as_bytes(), value.clone());
    }
    let mut moving = document(2, &listed, 1);
    moving.handoffs = vec![handoff("5", 0, 1)];
    for member in [&source, &target] {
        member.adopt(&moving);
    }
    target.wait("settled", |progress| progress.settled).await;
    for (number, value) in values.iter().enumerate() {
        let found = target.value(slot, format!("key-{number}").as_bytes());
        assert!(
            found.as_ref() == Some(value),
            "{} {number} is not what was written",
            value.as_ref().type_name()
        );
    }
}

/// Measures rather than checks: `cargo test --release -p annulus-node --test ring speed -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, to be run by hand with --release"]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
async fn speed() {
    for (name, per_slot, value_len) in [
        ("empty", 0, 0),
        ("16 × 100 B", 16, 100),
        ("16 × 4 KiB", 16, 4096),
        ("1 × 1 MiB", 1, 1 << 20),
    ] {
        let (source, target) = (TestMember::start(0).await, TestMember::start(1).await);
        let listed = [source.listed.clone(), target.listed.clone()];
        source.adopt(&document(1, &listed, 1));
        let slots: u16 = if value_len > 100_000 { 512 } else { 8192 };
        for number in 0..slots {
            for key in 0..per_slot {
                source.write(
                    Slot::new(number).unwrap(),
                    format!("{number}-{key}").as_bytes(),
                    vec![7; value_len],
                );
            }
        }
        let mut moving = document(2, &listed, 1);
        moving.handoffs = vec![handoff(&format!("0-{}", slots - 1), 0, 1)];
        source.adopt(&moving);
        let begun = Instant::now();
        target.adopt(&moving);
        target.wait("settled", |progress| progress.settled).await;
        let seconds = begun.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let mib = target.context.counters.bytes_in.get() as f64 / f64::from(1 << 20);
        println!(
            "{name}: {slots} slots, {mib:.1} MiB in {seconds:.3} s: {:.0} slots/s, {:.0} MiB/s",
            f64::from(slots) / seconds,
            mib / seconds
        );
    }
}
