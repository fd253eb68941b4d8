//! Copies that clients may read: which, and up to when they are known to have everything.

use super::*;

/// `n0` owns everything, and `n1` is listed for these slots.
fn listing(epoch: u64, slots: &str, handoffs: &[(&str, u16, u16)]) -> RingDocument {
    let range: Option<annulus_ring::SlotRange> = slots.parse().ok();
    let listed: SlotSet = range.into_iter().collect();
    let mut document = document(epoch, 3, handoffs);
    document.replication_factor = 2;
    if !listed.is_empty() {
        document.replicas.insert(id(1), listed);
    }
    document
}

fn take(state: &ClusterState, (from, epoch): (u16, u64), slot: Slot, begins: bool, completes: bool) {
    let change = CopyChange {
        slot,
        begins,
        completes,
        entries: vec![entry(b"key", 10)],
        removed: Vec::new(),
    };
    let sender = (&id(from), Incarnation(from.into()));
    state
        .apply_copies(sender, (Epoch(epoch), 1), vec![change], 0)
        .unwrap();
}

fn note(state: &ClusterState, (from, incarnation): (u16, u128), epoch: u64, covered_ms: u64) {
    state.note_covered((&id(from), Incarnation(incarnation)), Epoch(epoch), covered_ms);
}

#[test]
fn a_copy_is_read_while_it_is_whole_and_listed() {
    let state = node(1, 1 << 20, EvictionPolicy::Lru);
    let copied = || state.copied_until_ms(slot(5));
    state.adopt(listing(1, "", &[])).unwrap();
    assert_eq!(copied(), None);
    take(&state, (0, 1), slot(5), true, false);
    assert_eq!(copied(), None, "half of it");
    take(&state, (0, 1), slot(5), false, true);
    assert_eq!(copied(), None, "whole, and nobody counts on it yet");

    state.adopt(listing(2, "0-9", &[])).unwrap();
    assert_eq!((copied(), state.access(slot(5))), (Some(0), Access::Elsewhere));
    assert_eq!(state.copied_until_ms(slot(6)), None, "listed, but not here");
    take(&state, (0, 2), slot(5), true, false);
    assert_eq!(copied(), Some(0), "filled again, it keeps what it had");
    take(&state, (0, 2), slot(6), true, true);
    assert_eq!(state.copied_until_ms(slot(6)), Some(0));

    state.adopt(listing(3, "6-9", &[])).unwrap();
    assert_eq!(copied(), None, "not listed any more");
}

#[test]
fn what_a_sender_covers_counts_for_its_own_slots_under_one_ring() {
    let state = node(1, 1 << 20, EvictionPolicy::Lru);
    state.adopt(listing(1, "", &[])).unwrap();
    for number in [5, 50] {
        take(&state, (0, 1), slot(number), true, true);
    }
    state.adopt(listing(2, "0-99", &[])).unwrap();
    let copied = || state.copied_until_ms(slot(5));
    for (sender, epoch, covered_ms, expected) in [
        // Another ring, another node, another life of it.
        ((0, 0), 1, 7, 0),
        ((2, 2), 2, 7, 0),
        ((0, 9), 2, 7, 0),
        ((0, 0), 2, 7, 7),
        // It never goes back.
        ((0, 0), 2, 6, 7),
        ((0, 0), 2, 0, 7),
        ((0, 0), 2, 8, 8),
    ] {
        note(&state, sender, epoch, covered_ms);
        assert_eq!(copied(), Some(expected), "{sender:?} {epoch} {covered_ms}");
    }
    // Under another ring somebody else may have written.
    state.adopt(listing(3, "0-99", &[("0-9", 0, 2)])).unwrap();
    assert_eq!(copied(), Some(0));
    // Either end of a handoff may serve the slot.
    note(&state, (0, 0), 3, 9);
    assert_eq!((copied(), state.copied_until_ms(slot(50))), (Some(0), Some(9)));
    note(&state, (2, 2), 3, 4);
    assert_eq!(copied(), Some(4));
    note(&state, (2, 2), 3, 12);
    assert_eq!(copied(), Some(9));
}
