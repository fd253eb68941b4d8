mod copied;

use std::collections::BTreeMap;

use annulus_proto::tenants::TenantId;
use annulus_ring::{Handoff, Member, RingSettings, Weight};

use super::*;
use crate::clock;
use crate::store::{Entry, EvictionPolicy, StoreOptions, Value};

fn id(number: u16) -> NodeId {
    format!("n{number}").parse().unwrap()
}

/// `nodes` members of cluster `c1`; `n0` owns everything.
fn document(epoch: u64, nodes: u16, handoffs: &[(&str, u16, u16)]) -> RingDocument {
    let member = |number: u16| Member {
        id: id(number),
        incarnation: Incarnation(number.into()),
        address: Address {
            host: "127.0.0.1".to_owned(),
            client_host: None,
            client_port: 7000 + number,
            client_tls_port: None,
            peer_port: 17_000 + number,
        },
        zone: None,
        weight: Weight::DEFAULT,
        state: MemberState::Active,
    };
    let handoff = |&(slots, from, to): &(&str, u16, u16)| Handoff {
        slots: slots.parse().unwrap(),
        from: id(from),
        to: id(to),
        cancelled: false,
    };
    RingDocument {
        cluster_uid: "c1".parse().unwrap(),
        epoch: Epoch(epoch),
        replication_factor: 1,
        settings: RingSettings::default(),
        members: (0..nodes).map(member).collect(),
        tokens: BTreeMap::from([(id(0), vec![Slot::MAX])]),
        replicas: BTreeMap::new(),
        handoffs: handoffs.iter().map(handoff).collect(),
    }
}

fn node(number: u16, budget_bytes: u64, eviction: EvictionPolicy) -> ClusterState {
    let store = Arc::new(Store::new(StoreOptions {
        budget_bytes,
        eviction,
    }));
    let identity = Identity {
        cluster_uid: "c1".parse().unwrap(),
        node_id: id(number),
        incarnation: Incarnation(number.into()),
    };
    ClusterState::new(identity, store)
}

/// `n0`, which held every slot before the handoffs to `n1` at epoch 2.
fn source_of(slots: &str) -> ClusterState {
    let source = node(0, 1 << 20, EvictionPolicy::Lru);
    source.adopt(document(1, 2, &[])).unwrap();
    source.adopt(document(2, 2, &[(slots, 0, 1)])).unwrap();
    source
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn write(state: &ClusterState, slot: Slot, key: &[u8]) -> Access {
    let mut guard = state.store.lock_slot(slot);
    let access = state.access(slot);
    if access == Access::ReadWrite {
        guard
            .set(key, Value::from_bytes(b"value"), None, clock::now_ms())
            .unwrap();
    }
    access
}

fn entry(key: &[u8], value_len: usize) -> Entry {
    Entry {
        tenant: TenantId::CLUSTER,
        key: key.into(),
        value: Value::from(vec![7; value_len]),
        expires_at_ms: None,
        idle_ms: 0,
    }
}

#[test]
fn without_a_ring_nothing_is_served() {
    let state = node(0, 1 << 20, EvictionPolicy::Lru);
    assert_eq!(
        (state.access(slot(5)), state.moved_to(slot(5))),
        (Access::Down, None)
    );
    assert_eq!(state.view().epoch, Epoch::NONE);
    assert_eq!(state.slot_counts(), SlotCounts::default());
    assert!(!state.progress().is_ready());
}

#[test]
fn other_clusters_and_lower_epochs_are_refused() {
    let state = node(0, 1 << 20, EvictionPolicy::Lru);
    assert!(state.adopt(document(3, 2, &[])).unwrap());
    assert!(
        !state.adopt(document(3, 1, &[])).unwrap(),
        "an equal epoch changes nothing"
    );

    let other = RingDocument {
        cluster_uid: "c2".parse().unwrap(),
        ..document(4, 1, &[])
    };
    let refusal = state.adopt(other).unwrap_err().to_string();
    assert_eq!(refusal, "the ring document belongs to cluster c2, not to c1");
    let refusal = state.adopt(document(2, 1, &[])).unwrap_err().to_string();
    assert!(refusal.contains("epoch 2 is lower than 3"), "{refusal}");
    assert_eq!((state.epoch(), state.view().members.len()), (Epoch(3), 2));
}

#[test]
fn a_first_document_of_another_cluster_is_refused_too() {
    let state = node(0, 1 << 20, EvictionPolicy::Lru);
    let other = RingDocument {
        cluster_uid: "c2".parse().unwrap(),
        ..document(1, 1, &[])
    };
    assert!(matches!(
        state.adopt(other),
        Err(Refusal::Document(DocumentError::OtherCluster { .. }))
    ));
    assert_eq!(state.epoch(), Epoch::NONE);
}

#[test]
fn another_life_serves_nothing() {
    let state = node(0, 1 << 20, EvictionPolicy::Lru);
    let mut document = document(1, 2, &[]);
    document.members[0].incarnation = Incarnation(99);
    state.adopt(document).unwrap();
    assert_eq!(state.access(slot(5)), Access::Down);
    assert_eq!(state.progress().state, None);
}

#[test]
fn a_slot_is_handed_over_with_its_entries_and_clients_follow() {
    let (source, target) = (source_of("7-8"), node(1, 1 << 20, EvictionPolicy::Lru));
    target.adopt(document(2, 2, &[("7-8", 0, 1)])).unwrap();
    assert_eq!(write(&source, slot(7), b"a"), Access::ReadWrite);
    assert_eq!(write(&target, slot(7), b"a"), Access::Elsewhere);
    assert_eq!(target.wanted().1.len(), 2);

    let ticket = target.begin(slot(7)).unwrap();
    let frozen = source.freeze(slot(7), (&id(1), Incarnation(1)), 100, 0).unwrap();
    assert_eq!(frozen.keys, vec![(TenantId::CLUSTER, Box::from(b"a".as_slice()))]);
    assert_eq!(write(&source, slot(7), b"b"), Access::ReadOnly);
    assert_eq!(
        source.slot_counts(),
        SlotCounts {
            owned: 16_383,
            frozen: 1
        }
    );

    let (entries, taken) = source.read_frozen(slot(7), &frozen.keys, 1 << 20, 0).unwrap();
    assert_eq!((entries.len(), taken), (1, 1));
    target.receive(ticket, entries, 0).unwrap();
    assert_eq!(
        target.access(slot(7)),
        Access::Elsewhere,
        "what was received is not served yet"
    );
    source.commit(slot(7), frozen.freeze_id, 99).unwrap();
    assert_eq!(write(&source, slot(7), b"b"), Access::Elsewhere);
    assert_eq!(source.moved_to(slot(7)).unwrap().client_port, 7001);
    assert_eq!(source.store.keys(), 0, "the source drops what it gave away");

    target.activate(ticket).unwrap();
    assert_eq!(write(&target, slot(7), b"b"), Access::ReadWrite);
    assert_eq!(target.store.slot_len(slot(7)), 2);
    let progress = target.progress();
    assert_eq!((progress.activated.len(), progress.settled), (1, false));
}

#[test]
fn a_freeze_that_ran_out_gives_nothing_away() {
    let source = source_of("7");
    let frozen = source.freeze(slot(7), (&id(1), Incarnation(1)), 100, 0).unwrap();
    assert_eq!(source.next_expiry_ms(), Some(100));
    source.expire_freezes(100);
    assert_eq!(write(&source, slot(7), b"a"), Access::ReadOnly);
    source.expire_freezes(101);
    assert_eq!(write(&source, slot(7), b"a"), Access::ReadWrite);
    assert!(source.commit(slot(7), frozen.freeze_id, 50).is_err());
    assert_eq!(source.store.slot_len(slot(7)), 1);
}

#[test]
fn an_ended_freeze_can_not_be_committed_and_a_committed_one_not_ended() {
    let source = source_of("7-8");
    let ended = source.freeze(slot(7), (&id(1), Incarnation(1)), 100, 0).unwrap();
    source.end_freeze(slot(7), ended.freeze_id);
    assert_eq!(write(&source, slot(7), b"a"), Access::ReadWrite);
    assert!(source.commit(slot(7), ended.freeze_id, 1).is_err());

    let committed = source.freeze(slot(8), (&id(1), Incarnation(1)), 100, 0).unwrap();
    source.commit(slot(8), committed.freeze_id, 1).unwrap();
    source.end_freeze(slot(8), committed.freeze_id);
    assert_eq!(source.access(slot(8)), Access::Elsewhere);
    assert!(source.read_frozen(slot(8), &committed.keys, 1, 0).is_none());
}

#[test]
fn a_pull_that_is_void_brings_nothing_more() {
    let target = node(1, 1 << 20, EvictionPolicy::Lru);
    target.adopt(document(1, 2, &[("7-8", 0, 1)])).unwrap();
    let ticket = target.begin(slot(7)).unwrap();
    target.receive(ticket, vec![entry(b"a", 9)], 0).unwrap();
    target.adopt(document(2, 2, &[])).unwrap();
    assert_eq!(
        target.store.keys(),
        0,
        "what an unfinished pull brought is dropped"
    );
    assert_eq!(
        target.receive(ticket, vec![entry(b"a", 9)], 0),
        Err(ReceiveError::Void(slot(7)))
    );
    assert_eq!(target.activate(ticket), Err(ReceiveError::Void(slot(7))));

    target.adopt(document(3, 2, &[("7-8", 0, 1)])).unwrap();
    let second = target.begin(slot(7)).unwrap();
    assert_eq!(
        target.receive(ticket, vec![entry(b"a", 9)], 0),
        Err(ReceiveError::Void(slot(7)))
    );
    target.receive(second, vec![entry(b"b", 9)], 0).unwrap();
    target.abandon(second);
    assert_eq!((target.store.keys(), target.wanted().1.len()), (0, 2));
}

#[test]
fn a_slot_that_becomes_owned_while_it_is_pulled_is_empty() {
    let target = node(1, 1 << 20, EvictionPolicy::Lru);
    target.adopt(document(1, 2, &[("7", 0, 1)])).unwrap();
    let ticket = target.begin(slot(7)).unwrap();
    target.receive(ticket, vec![entry(b"half", 9)], 0).unwrap();
    let owned = RingDocument {
        tokens: BTreeMap::from([(id(1), vec![Slot::MAX])]),
        ..document(2, 2, &[])
    };
    target.adopt(owned).unwrap();
    assert_eq!(
        (target.access(slot(7)), target.store.keys()),
        (Access::ReadWrite, 0)
    );
    assert_eq!(
        target.receive(ticket, vec![entry(b"late", 9)], 0),
        Err(ReceiveError::Void(slot(7)))
    );
}

#[test]
fn a_target_without_room_evicts_or_refuses() {
    let budget_bytes = 64 << 10;
    for (eviction, expected) in [
        (
            EvictionPolicy::NoEviction,
            Err(ReceiveError::NoRoom { budget_bytes }),
        ),
        (EvictionPolicy::Lru, Ok(1)),
    ] {
        let target = node(1, budget_bytes, eviction);
        target.adopt(document(1, 2, &[("7", 0, 1)])).unwrap();
        let ticket = target.begin(slot(7)).unwrap();
        target.receive(ticket, vec![entry(b"a", 40 << 10)], 0).unwrap();
        assert_eq!(target.receive(ticket, vec![entry(b"b", 40 << 10)], 0), expected);
        let too_big = target.receive(ticket, vec![entry(b"c", 70 << 10)], 0);
        assert!(matches!(too_big, Err(ReceiveError::TooBig(_))), "{too_big:?}");
    }
}

#[test]
fn frozen_entries_are_read_in_bounded_portions() {
    let source = source_of("7");
    for key in [b"a", b"b", b"c"] {
        let mut guard = source.store.lock_slot(slot(7));
        guard.insert(entry(key, 99), 0).unwrap();
    }
    let frozen = source.freeze(slot(7), (&id(1), Incarnation(1)), 100, 0).unwrap();
    let mut keys: Vec<u8> = frozen.keys.iter().flat_map(|(_, key)| key.to_vec()).collect();
    keys.sort_unstable();
    assert_eq!(keys, b"abc");
    let read = |from: usize, bytes_max| {
        let (entries, taken) = source
            .read_frozen(slot(7), &frozen.keys[from..], bytes_max, 0)
            .unwrap();
        (entries.len(), taken)
    };
    assert_eq!(read(0, 1), (1, 1), "at least one");
    assert_eq!(read(0, 200), (2, 2));
    assert_eq!(read(1, 1000), (2, 2));
    source.store.lock_slot(slot(7)).remove(b"b", 0);
    assert_eq!(read(0, 1000), (2, 3), "one was evicted meanwhile");
}
