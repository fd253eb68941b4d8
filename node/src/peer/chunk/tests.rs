use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::store::Collection;

const BUDGET_BYTES: u64 = 1 << 30;

fn entry(key: usize, value: usize, expires_at_ms: Option<u64>) -> Entry {
    let bytes = |len: usize, first: u8| {
        (0..len)
            .map(|i| first.wrapping_add(i.to_le_bytes()[0]))
            .collect::<Vec<_>>()
    };
    Entry {
        tenant: TenantId(7),
        key: bytes(key, 0).into(),
        value: Value::from(bytes(value, 7)),
        expires_at_ms,
        idle_ms: 7,
    }
}

fn assert_comes_back(entries: &[Entry]) -> usize {
    let chunks = pack(entries.to_vec());
    let count = chunks.len();
    let mut joiner = Joiner::new(BUDGET_BYTES);
    let mut found = Vec::new();
    for entries in chunks {
        let chunk = v1::SlotChunk {
            keep_copy: false,
            entries,
            freeze_id: u64::MAX,
        };
        assert!(
            chunk.encoded_len() <= CHUNK_BYTES_MAX + 64,
            "{}",
            chunk.encoded_len()
        );
        found.extend(joiner.join(chunk.entries).unwrap());
    }
    joiner.finish().unwrap();
    assert_eq!(found, entries);
    count
}

#[test]
fn entries_are_packed_into_bounded_chunks_and_come_back() {
    let mib = 1 << 20;
    let table: [(&str, Vec<Entry>, usize); 7] = [
        ("no entry", vec![], 0),
        ("empty key and value", vec![entry(0, 0, None)], 1),
        (
            "small ones share a chunk",
            vec![entry(3, 9, Some(5)), entry(4, 0, None)],
            1,
        ),
        (
            "a value that just fits",
            vec![entry(0, mib - FRAME_BYTES, None)],
            1,
        ),
        ("one byte more", vec![entry(1, mib - FRAME_BYTES, Some(1))], 2),
        (
            "large among small",
            vec![entry(1, 1, None), entry(2, 3 * mib, Some(9)), entry(3, 3, None)],
            5,
        ),
        ("a large key too", vec![entry(2 * mib, 2 * mib, None)], 5),
    ];
    for (name, entries, chunks) in table {
        assert_eq!(assert_comes_back(&entries), chunks, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_sizes_come_back(sizes in prop::collection::vec(
        (0..400_usize, 0..700_000_usize, prop::option::of(1..9_u64)),
        0..9,
    )) {
        let entries = sizes.into_iter().map(|(key, value, expiry)| entry(key, value, expiry));
        assert_comes_back(&entries.collect::<Vec<_>>());
    }
}

#[test]
fn what_lacks_its_end_or_its_type_is_refused() {
    let part = |continued| v1::Entry {
        tenant: 7,
        key: "k".into(),
        expires_at_ms: 0,
        idle_ms: 0,
        value: Some(entry::Value::Text("v".into())),
        continued,
    };
    let mut joiner = Joiner::new(BUDGET_BYTES);
    assert_eq!(joiner.join(vec![part(true)]), Ok(vec![]));
    assert_eq!(joiner.finish(), Err(JoinError::Incomplete));
    let unknown = v1::Entry {
        tenant: 7,
        value: None,
        ..part(false)
    };
    assert_eq!(
        Joiner::new(BUDGET_BYTES).join(vec![unknown]),
        Err(JoinError::UnknownValue)
    );
}

fn any_elements() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let element = prop_oneof![
        20 => prop::collection::vec(any::<u8>(), 0..70),
        1 => (0..600_000_usize).prop_map(|len| vec![b'x'; len]),
    ];
    prop::collection::vec(element, 1..300)
}

/// The elements as each of the types.
fn collections(elements: &[Vec<u8>]) -> [Value; 4] {
    let (mut hash, mut list, mut set, mut sorted_set) = (
        Hash::default(),
        List::default(),
        Set::default(),
        SortedSet::default(),
    );
    for (number, element) in (0u32..).zip(elements) {
        hash.set(element, &element[element.len() / 2..]);
        list.push_back(element);
        set.insert(element);
        sorted_set.insert(element, f64::from(number % 7) - 3.5);
    }
    [
        hash.into_value(),
        list.into_value(),
        set.into_value(),
        sorted_set.into_value(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_collections_come_back(
        rows in prop::collection::vec((any_elements(), 0..300_usize, prop::option::of(1..9_u64)), 1..4),
    ) {
        let entries = rows.into_iter().flat_map(|(elements, key, expires_at_ms)| {
            collections(&elements).map(|value| Entry { value, ..entry(key, 0, expires_at_ms) })
        });
        assert_comes_back(&entries.collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_an_entry_or_refused(
        parts in prop::collection::vec((0..5_u8, prop::collection::vec(0..4_u8, 0..30)), 1..4),
    ) {
        let mut joiner = Joiner::new(BUDGET_BYTES);
        let last = parts.len() - 1;
        for (number, (kind, bytes)) in parts.into_iter().enumerate() {
            let wrap = [
                entry::Value::Text,
                entry::Value::Hash,
                entry::Value::List,
                entry::Value::Set,
                entry::Value::SortedSet,
            ][usize::from(kind)];
            let part = v1::Entry {
                tenant: 7,
                key: Bytes::new(),
                expires_at_ms: 0,
                idle_ms: 0,
                value: Some(wrap(bytes.into())),
                continued: number < last,
            };
            let Ok(entries) = joiner.join(vec![part]) else { break };
            for entry in entries {
                prop_assert!(entry.value.as_ref().is_string() || entry.value.as_ref().heap_bytes() > 0);
                assert_comes_back(&[entry]);
            }
        }
    }
}

#[test]
fn what_is_no_collection_is_refused() {
    let part = |value, continued| v1::Entry {
        tenant: 7,
        key: "k".into(),
        expires_at_ms: 0,
        idle_ms: 0,
        value: Some(value),
        continued,
    };
    let nan = [&[9][..], &f64::NAN.to_le_bytes(), b"m"].concat();
    let table: [(&str, Vec<v1::Entry>, JoinError); 9] = [
        (
            "an empty list",
            vec![part(entry::Value::List(Bytes::new()), false)],
            JoinError::Malformed,
        ),
        (
            "a cut element",
            vec![part(entry::Value::Set("\x02a".into()), false)],
            JoinError::Malformed,
        ),
        (
            "a field without value",
            vec![part(entry::Value::Hash("\x01a".into()), false)],
            JoinError::Malformed,
        ),
        (
            "a member twice",
            vec![part(entry::Value::Set("\x01a\x01a".into()), false)],
            JoinError::Malformed,
        ),
        (
            "a member without score",
            vec![part(entry::Value::SortedSet("\x01a".into()), false)],
            JoinError::Malformed,
        ),
        (
            "a score that is none",
            vec![part(entry::Value::SortedSet(nan.into()), false)],
            JoinError::Malformed,
        ),
        (
            "a length without end",
            vec![part(entry::Value::List(vec![0xff; 5].into()), false)],
            JoinError::Malformed,
        ),
        (
            "a huge length",
            vec![part(
                entry::Value::List(vec![0xff, 0xff, 0xff, 0xff, 0x7f].into()),
                true,
            )],
            JoinError::TooLarge,
        ),
        (
            "two types",
            vec![
                part(entry::Value::List("\x01a".into()), true),
                part(entry::Value::Set("\x01a".into()), false),
            ],
            JoinError::Malformed,
        ),
    ];
    for (name, parts, expected) in table {
        assert_eq!(Joiner::new(BUDGET_BYTES).join(parts), Err(expected), "{name}");
    }
    let many = part(entry::Value::List(vec![0; 5000].into()), true);
    assert_eq!(Joiner::new(1000).join(vec![many]), Err(JoinError::TooLarge));
}
