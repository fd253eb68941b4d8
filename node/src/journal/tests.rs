use std::sync::Arc;
use std::task::Waker;

use annulus_proto::tenants::TenantId;
use annulus_ring::{Epoch, Incarnation, RingSettings, Slot};

use super::{Changed, Journal, Link, LinkSet, Unsettled, Wait};

const EPOCH: Epoch = Epoch(1);

fn link(name: &str) -> Arc<Link> {
    Arc::new(Link::new(name.parse().unwrap(), Incarnation(1)))
}

fn slot() -> Slot {
    Slot::new(7).unwrap()
}

fn set(required: &[&Arc<Link>], filling: &[&Arc<Link>]) -> LinkSet {
    let links = |links: &[&Arc<Link>]| links.iter().map(|link| Arc::clone(link)).collect();
    LinkSet {
        required: links(required),
        filling: links(filling),
    }
}

fn journal(acks: u8, copies: LinkSet) -> Journal {
    let journal = Journal::default();
    journal.follow(RingSettings {
        acks,
        ..RingSettings::default()
    });
    journal.serve(slot(), copies, EPOCH, 0);
    journal
}

/// The node takes and acknowledges everything that waits for it.
fn acknowledge(journal: &Journal, link: &Link) -> Vec<Changed> {
    let batch = link.take(journal);
    let lsn = batch.as_ref().map_or(journal.last_lsn(), |batch| batch.lsn);
    link.acknowledge(lsn, journal.clock().now_ms(), EPOCH);
    batch.map_or_else(Vec::new, |batch| batch.changes)
}

fn write(journal: &Journal, unsettled: &mut Unsettled, key: &[u8]) {
    journal.changed(slot(), TenantId::CLUSTER, key);
    let from = unsettled.len();
    unsettled.note(journal, slot(), true);
    unsettled.place_reply(from, &(from * 5..from * 5 + 5));
}

fn is_over(journal: &Journal, unsettled: &mut Unsettled) -> bool {
    unsettled.poll(journal, Waker::noop()) == Wait::Over
}

#[test]
fn a_write_waits_for_every_whole_copy_and_for_as_many_others_as_it_takes() {
    let (a, b, c) = (link("a"), link("b"), link("c"));
    // Copies; acks; who acknowledges; whether that is enough.
    let table: [(LinkSet, u8, &[&Arc<Link>], bool); 8] = [
        (set(&[&a], &[]), 1, &[&a], true),
        (set(&[&a], &[]), 1, &[], false),
        (set(&[&a, &b], &[]), 1, &[&a], false),
        (set(&[&a, &b], &[]), 1, &[&a, &b], true),
        (set(&[&a], &[&b]), 1, &[&b], false),
        (set(&[&a], &[&b]), 2, &[&a], false),
        (set(&[], &[&b, &c]), 1, &[&c], true),
        (set(&[], &[]), 1, &[], false),
    ];
    for (number, (copies, acks, acknowledging, enough)) in table.into_iter().enumerate() {
        let fresh = |of: &[Arc<Link>]| of.iter().map(|link| self::link(link.id.as_str())).collect();
        let copies = LinkSet {
            required: fresh(&copies.required),
            filling: fresh(&copies.filling),
        };
        let links: Vec<Arc<Link>> = copies.links().cloned().collect();
        let journal = journal(acks, copies);
        // Everybody has been heard.
        for link in &links {
            link.acknowledge(0, journal.clock().now_ms(), EPOCH);
        }
        let mut unsettled = Unsettled::default();
        write(&journal, &mut unsettled, b"k");
        for link in acknowledging {
            let link = links.iter().find(|other| other.id == link.id).unwrap();
            assert_eq!(acknowledge(&journal, link).len(), 1);
        }
        assert_eq!(is_over(&journal, &mut unsettled), enough, "row {number}");
    }
}

#[test]
fn a_read_waits_for_what_the_slot_had_and_for_the_lease() {
    let a = link("a");
    let journal = journal(1, set(&[&a], &[]));
    let mut read = Unsettled::default();
    read.note(&journal, slot(), false);
    assert!(!is_over(&journal, &mut read), "nobody has given a lease");
    acknowledge(&journal, &a);
    assert!(is_over(&journal, &mut read));

    let mut write_of_another = Unsettled::default();
    write(&journal, &mut write_of_another, b"k");
    read.note(&journal, slot(), false);
    assert!(!is_over(&journal, &mut read), "what it saw may still be lost");
    acknowledge(&journal, &a);
    assert!(is_over(&journal, &mut read));
}

#[test]
fn a_lease_from_before_the_slot_was_served_here_is_none() {
    let a = link("a");
    let journal = Journal::default();
    a.acknowledge(0, journal.clock().now_ms(), Epoch(1));
    journal.serve(slot(), set(&[&a], &[]), Epoch(2), 0);
    let mut read = Unsettled::default();
    read.note(&journal, slot(), false);
    assert!(!is_over(&journal, &mut read));
    a.acknowledge(0, journal.clock().now_ms(), Epoch(2));
    assert!(is_over(&journal, &mut read));
}

#[test]
fn a_promoted_slot_is_fenced() {
    let a = link("a");
    let journal = Journal::default();
    let until_ms = journal.clock().now_ms() + 3_600_000;
    a.acknowledge(0, journal.clock().now_ms(), EPOCH);
    journal.serve(slot(), set(&[&a], &[]), EPOCH, until_ms);
    let mut read = Unsettled::default();
    read.note(&journal, slot(), false);
    assert_eq!(read.poll(&journal, Waker::noop()), Wait::For(Some(until_ms)));
}

#[test]
fn what_a_lost_copy_did_not_acknowledge_goes_to_the_next() {
    let (a, b) = (link("a"), link("b"));
    let journal = journal(1, set(&[&a], &[]));
    let mut unsettled = Unsettled::default();
    write(&journal, &mut unsettled, b"sent");
    assert!(a.take(&journal).is_some(), "in flight");
    write(&journal, &mut unsettled, b"waiting");
    // The other has acknowledged more than these, of other slots.
    b.acknowledge(1_000, journal.clock().now_ms(), EPOCH);

    journal.serve(slot(), set(&[], &[&b]), EPOCH, 0);
    assert!(
        !is_over(&journal, &mut unsettled),
        "while the change is under way"
    );
    journal.sets_changed(&[Arc::clone(&a)], |_| ());
    let keys: Vec<_> = b
        .take(&journal)
        .unwrap()
        .changes
        .into_iter()
        .filter_map(|changed| changed.key)
        .collect();
    assert_eq!(
        keys,
        [b"sent".as_slice(), b"waiting"].map(|key| (TenantId::CLUSTER, key.into()))
    );
    assert!(
        a.take(&journal).is_none(),
        "nothing of it is sent to the lost one"
    );
}

#[test]
fn replies_of_a_slot_that_was_taken_away_fail_and_of_one_handed_over_those_of_reads() {
    for (handed_over, failed) in [(true, 1), (false, 3)] {
        let a = link("a");
        let journal = journal(1, set(&[&a], &[]));
        let mut unsettled = Unsettled::default();
        write(&journal, &mut unsettled, b"1");
        write(&journal, &mut unsettled, b"2");
        let from = unsettled.len();
        unsettled.note(&journal, slot(), false);
        unsettled.place_reply(from, &(10..15));
        journal.leave(slot(), handed_over);
        journal.sets_changed(&[a], |_| ());
        assert!(is_over(&journal, &mut unsettled));
        let places: Vec<usize> = unsettled
            .take_failed()
            .iter()
            .map(|reply| reply.place.start)
            .collect();
        assert_eq!(places.len(), failed);
        assert!(places.is_sorted_by(|a, b| a > b), "last first: {places:?}");
    }
}

#[test]
fn a_stream_that_ended_sends_again_what_was_not_acknowledged() {
    let a = link("a");
    let journal = journal(1, set(&[&a], &[]));
    let mut unsettled = Unsettled::default();
    write(&journal, &mut unsettled, b"1");
    let first = a.take(&journal).unwrap();
    write(&journal, &mut unsettled, b"2");
    let second = a.take(&journal).unwrap();
    a.acknowledge(first.lsn, journal.clock().now_ms(), EPOCH);
    a.requeue();
    assert_eq!(a.take(&journal).unwrap().changes, second.changes);
    assert!(a.take(&journal).is_none());
}

#[test]
fn without_copies_nothing_is_waited_for_and_with_too_few_nothing_is_written() {
    let off = Journal::default();
    off.follow(RingSettings {
        acks: 1,
        ..RingSettings::default()
    });
    assert!(off.may_write(slot()));
    let mut unsettled = Unsettled::default();
    unsettled.note(&off, slot(), true);
    assert!(unsettled.is_empty());

    let a = link("a");
    assert!(journal(1, set(&[], &[&a])).may_write(slot()));
    assert!(!journal(2, set(&[], &[&a])).may_write(slot()));
    assert!(!journal(1, LinkSet::default()).may_write(slot()));
    assert!(journal(0, LinkSet::default()).may_write(slot()));
}

#[test]
fn an_owner_knows_that_nobody_took_its_place_while_all_have_promised() {
    let (a, b, c) = (link("a"), link("b"), link("c"));
    let journal = Journal::default();
    let slot = |number| Slot::new(number).unwrap();
    journal.serve(slot(1), set(&[&a], &[&c]), EPOCH, 0);
    journal.serve(slot(2), set(&[&a, &b], &[]), EPOCH, 0);
    let knows = |epoch| [&a, &b, &c].map(|link| journal.is_alone_before(link, epoch));
    assert_eq!(knows(EPOCH), [false, false, false]);
    // Of the slots that go to `c`, only `a` could take one.
    acknowledge(&journal, &a);
    assert_eq!(knows(EPOCH), [false, false, true]);
    assert!(!journal.is_alone(EPOCH), "`b` could take slot 2");
    acknowledge(&journal, &b);
    assert_eq!(knows(EPOCH), [true, true, true]);
    assert_eq!(knows(Epoch(2)), [false, false, false]);
    assert_eq!(
        [EPOCH, Epoch(2)].map(|epoch| journal.is_alone(epoch)),
        [true, false]
    );
    let old = link("d");
    journal.serve(slot(3), set(&[&old], &[]), EPOCH, 0);
    old.acknowledge(0, 0, EPOCH);
    assert_eq!(
        journal.is_alone_before(&old, EPOCH),
        journal.clock().now_ms() < super::LEASE_MS
    );
}
