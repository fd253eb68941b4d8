use std::collections::BTreeMap;

use proptest::prelude::*;

use super::order::Order;
use super::*;

/// A collection's own count of its bytes is what a copy made from scratch would find.
fn assert_counted<C: Clone>(collection: &C, heap_bytes: impl Fn(&C) -> u64) {
    let (counted, copied) = (heap_bytes(collection), heap_bytes(&collection.clone()));
    assert!(copied <= counted, "{copied} copied, {counted} counted");
}

/// Few and short elements, and now and then one that doesn't fit into a compact collection.
fn any_element() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => (0..300u16).prop_map(|number| number.to_string().into_bytes()),
        1 => (60..70usize).prop_map(|len| vec![b'x'; len]),
        1 => Just(Vec::new()),
    ]
}

proptest! {
    #[test]
    fn an_order_is_a_vector(steps in prop::collection::vec((0..4u8, any::<u16>(), any::<u16>()), 0..1500)) {
        let (mut order, mut model) = (Order::default(), Vec::new());
        for (number, (kind, place, burst)) in (0u32..).zip(steps) {
            let place = usize::from(place);
            match kind {
                0 if !model.is_empty() => {
                    for _ in 0..(burst % 40).min(u16::try_from(model.len()).unwrap_or(u16::MAX)) {
                        let at = place % model.len();
                        order.remove(at);
                        model.remove(at);
                    }
                }
                1 if !model.is_empty() => {
                    order.set(place % model.len(), number);
                    let at = place % model.len();
                    model[at] = number;
                }
                _ => {
                    for _ in 0..burst % 50 {
                        let at = place % (model.len() + 1);
                        order.insert(at, number);
                        model.insert(at, number);
                    }
                }
            }
        }
        prop_assert_eq!(&order.iter_from(0).collect::<Vec<_>>(), &model);
        let middle = model.len() / 2;
        prop_assert_eq!(order.iter_from(middle).collect::<Vec<_>>(), model[middle..].to_vec());
        let mut back = model[..middle].to_vec();
        back.reverse();
        prop_assert_eq!(order.iter_back_from(middle).collect::<Vec<_>>(), back);
        prop_assert_eq!(order.get(middle), model.get(middle).copied());
        prop_assert!(order.heap_bytes() >= order.clone().heap_bytes());
        let sorted: Order = (0..).take(model.len()).collect();
        prop_assert_eq!(sorted.partition_point(|number| (number as usize) < middle), middle);
        while order.get(0).is_some() {
            order.remove(0);
        }
        prop_assert_eq!(order.heap_bytes(), Order::default().heap_bytes());
    }

    #[test]
    fn a_hash_is_a_map(steps in prop::collection::vec((0..3u8, any_element(), any_element()), 0..600)) {
        let (mut hash, mut model) = (Hash::default(), BTreeMap::new());
        for (kind, field, value) in steps {
            if kind == 0 {
                prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some());
            } else {
                prop_assert_eq!(hash.set(&field, &value), model.insert(field, value).is_none());
            }
        }
        let mut found: Vec<_> = hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
        found.sort();
        prop_assert_eq!(&found, &model.clone().into_iter().collect::<Vec<_>>());
        for (field, value) in &model {
            prop_assert_eq!(hash.get(field), Some(&**value));
        }
        assert_counted(&hash, Hash::heap_bytes);
    }

    #[test]
    fn a_sorted_set_is_sorted(steps in prop::collection::vec((0..4u8, any_element(), -3..4i8), 0..900)) {
        let (mut set, mut model) = (SortedSet::default(), BTreeMap::new());
        for (kind, member, score) in steps {
            if kind == 0 {
                prop_assert_eq!(set.remove(&member), model.remove(&member).map(f64::from));
            } else {
                set.insert(&member, f64::from(score));
                model.insert(member, score);
            }
        }
        let mut expected: Vec<_> = model.into_iter().map(|(member, score)| (score, member)).collect();
        expected.sort();
        let found: Vec<_> = set.iter().map(|(member, score)| (score, member.to_vec())).collect();
        let as_f64: Vec<_> = expected.iter().map(|(score, member)| (f64::from(*score), member.clone())).collect();
        prop_assert_eq!(&found, &as_f64);
        for (rank, (score, member)) in expected.iter().enumerate() {
            prop_assert_eq!(set.rank(member), Some(rank));
            prop_assert_eq!(set.score(member), Some(f64::from(*score)));
        }
        let positive = expected.iter().filter(|(score, _)| *score <= 0).count();
        prop_assert_eq!(set.partition_point(|_, score| score <= 0.0), positive);
        assert_counted(&set, SortedSet::heap_bytes);
    }

    #[test]
    fn a_list_is_a_row(steps in prop::collection::vec((0..9u8, any::<u16>(), any_element(), 0..9_000usize), 0..600)) {
        let (mut list, mut model) = (List::default(), Vec::<Vec<u8>>::new());
        for (kind, place, item, len) in steps {
            // Some fill a chunk alone.
            let item = if len > 8_000 { vec![b'y'; len] } else { item };
            let at = usize::from(place) % (model.len() + 1);
            match kind {
                0 => {
                    list.push_front(&item);
                    model.insert(0, item);
                }
                1..=3 => {
                    list.push_back(&item);
                    model.push(item);
                }
                4 | 5 => {
                    list.insert(at, &item);
                    model.insert(at, item);
                }
                6 if at < model.len() => {
                    list.set(at, &item);
                    model[at] = item;
                }
                7 => {
                    let count = len % 12;
                    list.remove(at, count);
                    model.drain(at..(at + count).min(model.len()));
                }
                8 => {
                    let count = if len % 2 == 0 { usize::MAX } else { 2 };
                    let from_end = len % 3 == 0;
                    let mut expected = 0;
                    while expected < count {
                        let found = if from_end {
                            model.iter().rposition(|found| *found == item)
                        } else {
                            model.iter().position(|found| *found == item)
                        };
                        let Some(found) = found else { break };
                        model.remove(found);
                        expected += 1;
                    }
                    prop_assert_eq!(list.remove_equal(&item, count, from_end), expected);
                }
                _ => {}
            }
            prop_assert_eq!(list.len(), model.len());
        }
        prop_assert_eq!(list.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), model.clone());
        let middle = model.len() / 2;
        prop_assert_eq!(list.iter_from(middle).map(<[u8]>::to_vec).collect::<Vec<_>>(), model[middle..].to_vec());
        prop_assert_eq!(list.get(middle).map(<[u8]>::to_vec), model.get(middle).cloned());
        let mut reversed = model.clone();
        reversed.reverse();
        prop_assert_eq!(list.iter_reversed().map(<[u8]>::to_vec).collect::<Vec<_>>(), reversed);
        let copied = list.clone();
        assert_counted(&list, List::heap_bytes);
        list.trim(middle, middle);
        prop_assert!(list.is_empty());
        prop_assert_eq!(copied.len(), model.len());
    }

    #[test]
    fn a_scan_sees_all_that_stays(
        stays in 150..400usize,
        changes in prop::collection::vec((any::<bool>(), 0..500usize), 0..300),
    ) {
        let mut set = Set::default();
        for number in 0..stays {
            set.insert(format!("stays-{number}").as_bytes());
            set.insert(format!("goes-{number}").as_bytes());
        }
        let (mut cursor, mut seen, mut changes) = (0, std::collections::BTreeSet::new(), changes.into_iter());
        loop {
            let (members, next) = set.scan(cursor, 7);
            seen.extend(members.map(<[u8]>::to_vec));
            for (adds, number) in changes.by_ref().take(9) {
                let member = format!("goes-{number}");
                if adds { set.insert(member.as_bytes()) } else { set.remove(member.as_bytes()) };
            }
            if next == 0 {
                break;
            }
            cursor = next;
        }
        for number in 0..stays {
            prop_assert!(seen.contains(format!("stays-{number}").as_bytes()), "{number}");
        }
    }
}

#[test]
fn forms_have_the_names_that_clients_know() {
    let mut hash = Hash::default();
    let mut sorted_set = SortedSet::default();
    let mut set = Set::default();
    for number in 0..128 {
        let name = number.to_string();
        hash.set(name.as_bytes(), b"v");
        sorted_set.insert(name.as_bytes(), 1.0);
    }
    for number in 0..512 {
        set.insert(number.to_string().as_bytes());
    }
    assert_eq!(
        (hash.encoding(), set.encoding(), sorted_set.encoding()),
        ("listpack", "intset", "listpack")
    );
    hash.set(b"more", b"v");
    sorted_set.insert(b"more", 1.0);
    set.insert(b"512");
    assert_eq!(
        (hash.encoding(), set.encoding(), sorted_set.encoding()),
        ("hashtable", "hashtable", "skiplist")
    );
    let mut hash = Hash::default();
    hash.set(b"f", &[b'x'; 64]);
    assert_eq!(hash.encoding(), "listpack");
    hash.set(b"f", &[b'x'; 65]);
    assert_eq!((hash.encoding(), hash.len()), ("hashtable", 1));
}
