//! Ring documents by hand.

use std::collections::BTreeMap;

use annulus_ring::{
    Address, Epoch, Handoff, Incarnation, Member, MemberState, NodeId, RingDocument, RingSettings,
    SLOT_COUNT, Slot, Weight,
};

pub const CLUSTER: &str = "c1";

pub fn id(number: usize) -> NodeId {
    format!("n{number}").parse().unwrap()
}

pub fn member(number: usize, incarnation: Incarnation, client_port: u16, peer_port: u16) -> Member {
    Member {
        id: id(number),
        incarnation,
        address: Address {
            host: "127.0.0.1".to_owned(),
            client_host: None,
            client_port,
            client_tls_port: None,
            peer_port,
        },
        zone: None,
        weight: Weight::DEFAULT,
        state: MemberState::Active,
    }
}

/// A ring that is divided evenly among the first `owners` members, in their order.
pub fn document(epoch: u64, members: &[Member], owners: u16) -> RingDocument {
    let last = |number: u16| Slot::new((number + 1) * (SLOT_COUNT / owners) - 1).unwrap();
    let mut tokens: BTreeMap<NodeId, Vec<Slot>> = (0..owners)
        .map(|number| (members[usize::from(number)].id.clone(), vec![last(number)]))
        .collect();
    // What division leaves over.
    let end = tokens.get_mut(&members[usize::from(owners) - 1].id).unwrap();
    *end = vec![Slot::MAX];
    RingDocument {
        cluster_uid: CLUSTER.parse().unwrap(),
        epoch: Epoch(epoch),
        replication_factor: 1,
        settings: RingSettings::default(),
        members: members.to_vec(),
        tokens,
        replicas: BTreeMap::new(),
        handoffs: Vec::new(),
    }
}

pub fn handoff(slots: &str, from: usize, to: usize) -> Handoff {
    Handoff {
        slots: slots.parse().unwrap(),
        from: id(from),
        to: id(to),
        cancelled: false,
    }
}

/// A key in one of the slots below that one.
pub fn key_below(slot: u16) -> (String, Slot) {
    (0..10_000)
        .map(|number| format!("key-{number}"))
        .map(|key| (Slot::for_key(key.as_bytes()), key))
        .find(|(found, _)| found.number() < slot)
        .map(|(found, key)| (key, found))
        .unwrap()
}
