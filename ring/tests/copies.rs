//! Copies, function by function; how they work together is `world.rs`.

#![expect(
    clippy::unwrap_used,
    reason = "a test of small numbers may stop at the first surprise"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use annulus_ring::{
    Address, Advance, Copy, Desired, DocumentError, Epoch, HashRing, Incarnation, Member, MemberState,
    NodeId, Observed, Placement, PlacementParams, RingDocument, RingSettings, Slot, SlotSet, SlotTable,
    Weight, Zone, advance, place,
};

fn id(number: usize) -> NodeId {
    format!("n-{number}").parse().unwrap()
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn slots(text: &str) -> SlotSet {
    SlotSet::try_from(text.to_owned()).unwrap()
}

fn member(number: usize) -> Member {
    Member {
        id: id(number),
        incarnation: Incarnation(number as u128 + 1),
        address: Address {
            host: format!("10.0.0.{number}"),
            client_host: None,
            client_port: 6379,
            client_tls_port: None,
            peer_port: 16379,
        },
        zone: None,
        weight: Weight::default(),
        state: MemberState::Active,
    }
}

/// Three members that own 0-99, 100-199 and all the rest.
fn document() -> RingDocument {
    RingDocument {
        cluster_uid: "uid".parse().unwrap(),
        epoch: Epoch(1),
        replication_factor: 2,
        settings: RingSettings::default(),
        members: (0..3).map(member).collect(),
        tokens: [
            (id(0), vec![slot(99)]),
            (id(1), vec![slot(199)]),
            (id(2), vec![Slot::MAX]),
        ]
        .into(),
        replicas: BTreeMap::new(),
        handoffs: Vec::new(),
    }
}

fn table(number: usize, document: &RingDocument) -> SlotTable {
    let mut table = SlotTable::new(id(number), Incarnation(number as u128 + 1));
    table.adopt(document.clone()).unwrap();
    table
}

#[test]
fn slot_sets_are_written_as_runs() {
    for text in ["", "7", "0-120", "0-120,7000", "0,2,4-5,16383"] {
        assert_eq!(slots(text).to_string(), text);
    }
    assert_eq!(slots("3,1-2").to_string(), "1-3", "runs that touch are one");
    for text in ["x", "1-", "5-1", "16384", "1,", "1;2"] {
        assert!(
            SlotSet::try_from(text.to_owned()).is_err(),
            "{text} is no set of slots"
        );
    }
}

#[test]
fn copies_are_clockwise_and_newcomers_come_last() {
    let ring = document().ring();
    let names = |holders: &[usize]| -> BTreeMap<NodeId, Option<Zone>> {
        holders.iter().map(|&number| (id(number), None)).collect()
    };
    for (holders, factor, expected) in [
        (vec![0, 1, 2], 2, vec![0, 1]),
        (vec![0, 1, 2], 3, vec![0, 1, 2]),
        (vec![0, 2], 2, vec![0, 2]),
        (vec![2, 3], 3, vec![0, 2, 3]),
        (vec![], 2, vec![0]),
    ] {
        let holders = names(&holders);
        let copies = ring.copies_among(factor, &holders);
        let expected: Vec<NodeId> = expected.into_iter().map(id).collect();
        assert_eq!(copies[0].1, expected.iter().collect::<Vec<_>>());
    }
    let zone = |name: &str| Some(Zone(name.to_owned()));
    let zones = [(id(0), zone("a")), (id(1), zone("a")), (id(2), zone("b"))].into();
    assert_eq!(
        ring.copies_among(2, &zones)[0].1,
        [&id(0), &id(2)],
        "another zone goes first"
    );
}

#[test]
fn copies_are_wanted_of_those_that_stay() {
    let mut document = document();
    let wanted: BTreeMap<NodeId, SlotSet> = [
        (id(0), slots("200-16383")),
        (id(1), slots("0-99")),
        (id(2), slots("100-199")),
    ]
    .into();
    assert_eq!(document.wanted_replicas(), wanted);
    document.members[1].state = MemberState::Draining;
    let wanted = [(id(0), slots("200-16383")), (id(2), slots("0-199"))].into();
    assert_eq!(document.wanted_replicas(), wanted);
    document.replication_factor = 1;
    assert!(document.wanted_replicas().is_empty());
}

#[test]
fn replicas_are_members_and_not_owners() {
    let mut good = document();
    good.replicas.insert(id(1), slots("0-99"));
    let json = good.to_json();
    assert!(json.contains(r#""replicas":{"n-1":"0-99"}"#), "{json}");
    assert_eq!(RingDocument::from_json(json.as_bytes()).unwrap(), good);
    let mut own = document();
    own.replicas.insert(id(1), slots("0-100"));
    assert!(
        matches!(own.validate(), Err(DocumentError::ReplicaOfItself { slot: at, .. }) if at == slot(100))
    );
    let mut stranger = document();
    stranger.replicas.insert(id(7), slots("0"));
    assert!(matches!(
        stranger.validate(),
        Err(DocumentError::NotAMember { what: "replicas", .. })
    ));
}

#[test]
fn a_copy_is_filled_by_the_owner_and_stays_whole_when_filled_again() {
    let document = document();
    let mut copy = table(1, &document);
    let (owner, other) = ((id(0), Incarnation(1)), (id(2), Incarnation(3)));
    assert!(
        !copy.begin_copy(slot(5), &other.0, other.1),
        "it is not the owner"
    );
    assert!(
        !copy.begin_copy(slot(5), &owner.0, Incarnation(9)),
        "another life is not the owner"
    );
    assert!(
        !copy.complete_copy(slot(5), &owner.0, owner.1),
        "what was not begun is not complete"
    );
    assert!(copy.begin_copy(slot(5), &owner.0, owner.1));
    assert_eq!(copy.copy(slot(5)), Copy::Filling);
    assert!(copy.complete_copy(slot(5), &owner.0, owner.1));
    assert!(copy.begin_copy(slot(5), &owner.0, owner.1));
    assert_eq!(copy.copy(slot(5)), Copy::Complete);
}

#[test]
fn a_declaration_holds_in_the_next_document_and_not_beyond_skipped_ones() {
    for (epoch, holds) in [(2, true), (3, false)] {
        let mut document = document();
        let mut owner = table(0, &document);
        assert!(owner.declare(slot(5), &id(1)));
        let copies = owner.copies_of(slot(5), &document.wanted_replicas()).unwrap();
        assert_eq!(copies.required, [id(1)]);
        document.epoch = Epoch(epoch);
        owner.adopt(document).unwrap();
        assert_eq!(owner.declared().contains_key(&id(1)), holds, "epoch {epoch}");
    }
}

#[test]
fn fences_remember_documents_that_went_by() {
    for (forgets, expected) in [(false, vec![id(0), id(2)]), (true, vec![id(2)])] {
        let mut document = document();
        let mut copy = table(1, &document);
        document.epoch = Epoch(2);
        document.tokens = [(id(1), vec![slot(199)]), (id(2), vec![slot(99), Slot::MAX])].into();
        copy.adopt(document.clone()).unwrap();
        if forgets {
            copy.forget_former_servers();
        }
        document.epoch = Epoch(3);
        document.tokens = [(id(1), vec![slot(199)]), (id(2), vec![Slot::MAX])].into();
        let fences = copy.adopt(document).unwrap().fences;
        assert_eq!(fences.into_keys().collect::<Vec<_>>(), expected);
    }
}

/// How long one failure among 200 members takes: `--release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "a measurement of time needs a clock")]
fn a_failure_among_many_is_planned_and_adopted_soon() {
    let placements: Vec<Placement> = (0..200)
        .map(|number| Placement {
            id: id(number),
            weight: Weight::default(),
            zone: Some(Zone(format!("zone-{}", number % 3))),
        })
        .collect();
    let params = PlacementParams {
        replication_factor: 2,
        tokens_per_member: 32,
    };
    let mut members: Vec<Member> = (0..200).map(member).collect();
    for (number, member) in members.iter_mut().enumerate() {
        member.zone.clone_from(&placements[number].zone);
    }
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let mut document = RingDocument {
        tokens: place(&HashRing::default(), &placements, &params).tokens(),
        members,
        ..document()
    };
    document.replicas = document.wanted_replicas();
    let observed: Vec<Observed> = document
        .members
        .iter()
        .filter(|member| member.id != id(7))
        .map(|member| Observed {
            id: member.id.clone(),
            incarnation: member.incarnation,
            address: member.address.clone(),
            epoch: Epoch(1),
            activated: SlotSet::new(),
            settled: true,
            declared: BTreeMap::new(),
            leaving: false,
        })
        .collect();
    let desired = Desired {
        cluster_uid: document.cluster_uid.clone(),
        members: placements,
        params,
        settings: RingSettings::default(),
        handoff_slots_max: 1024,
    };
    let failed: BTreeSet<NodeId> = [id(7)].into();
    let begin = Instant::now();
    let Advance::Next { document: next, .. } = advance(Some(&document), &desired, &observed, &failed) else {
        panic!("nothing is planned");
    };
    println!("advance took {:?}", begin.elapsed());
    let mut table = table(8, &document);
    let begin = Instant::now();
    table.adopt(next).unwrap();
    println!("adopt took {:?}", begin.elapsed());
}
