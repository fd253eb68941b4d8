use proptest::prelude::*;

use super::shape::WORD;
use super::*;

/// Lengths around the widths of the header's fields.
fn any_len() -> impl Strategy<Value = usize> {
    prop_oneof![0..40usize, 250..260usize, 65_530..65_540usize]
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251).to_le_bytes()[0]).collect()
}

fn increment(bytes: &mut [u8]) {
    for byte in bytes {
        *byte = byte.wrapping_add(1);
    }
}

#[derive(Debug, Clone)]
enum Change {
    Text(usize),
    Int(i64),
    Edit(usize),
    Expiry(Option<u64>),
    Access(u32),
    Rank(u8),
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any_len().prop_map(Change::Text),
        any::<i64>().prop_map(Change::Int),
        any_len().prop_map(Change::Edit),
        any::<Option<u64>>().prop_map(Change::Expiry),
        any::<u32>().prop_map(Change::Access),
        (0..8u8).prop_map(Change::Rank),
    ]
}

proptest! {
    #[test]
    fn an_entry_keeps_what_was_written(
        key_len in any_len(),
        expiry in any::<Option<u64>>(),
        changes in proptest::collection::vec(any_change(), 0..12),
    ) {
        let key = bytes(key_len);
        let stamp = |number: u32| AccessStamp::at(u64::from(number) << 4);
        let mut stored = Stored::string(&key, Text::Bytes(b"begin"), expiry, stamp(1));
        let (mut text, mut expires_at_ms, mut accessed, mut rank) = (b"begin".to_vec(), expiry, stamp(1), 0);
        for change in changes {
            match change {
                Change::Text(len) => {
                    text = bytes(len);
                    stored.set_string(Text::of(&text), expires_at_ms, accessed);
                }
                Change::Int(number) => {
                    text = number.to_string().into_bytes();
                    stored.set_string(Text::Int(number), expires_at_ms, accessed);
                }
                Change::Edit(len) => {
                    text.resize(len, 0);
                    increment(&mut text);
                    stored.edit_string(len, increment);
                }
                Change::Expiry(at_ms) => {
                    expires_at_ms = at_ms;
                    stored.set_expires_at_ms(at_ms);
                }
                Change::Access(number) => {
                    accessed = stamp(number);
                    stored.set_accessed(accessed);
                }
                Change::Rank(number) => {
                    rank = number;
                    stored.set_rank(number);
                }
            }
            prop_assert_eq!(stored.key(), &key[..]);
            prop_assert_eq!(&*stored.value().to_bytes(), &text[..]);
            prop_assert_eq!(stored.expires_at_ms(), expires_at_ms);
            prop_assert_eq!(stored.accessed(), accessed);
            prop_assert_eq!(stored.rank(), rank);
            prop_assert!(stored.cost() <= Stored::string_cost(key.len(), text.len().max(WORD)));
        }
        prop_assert_eq!(stored.into_value().into_vec(), text);
    }
}

#[test]
fn a_collection_moves_with_its_entry() {
    let mut set = Set::default();
    set.insert(b"member");
    let mut stored = Stored::new(b"key", Value::Set(Box::new(set)), None, AccessStamp::at(0));
    stored.set_expires_at_ms(Some(9));
    if let Some(CollectionMut::Set(set)) = stored.collection_mut() {
        set.insert(b"another");
    }
    assert_eq!(stored.value().type_name(), "set");
    assert_eq!((stored.key(), stored.expires_at_ms()), (&b"key"[..], Some(9)));
    assert!(stored.cost() > Stored::collection_cost(3));
    // What is overwritten or dropped is freed: the memory test counts.
    let Value::Set(set) = stored.into_value() else {
        panic!("it is no set any more")
    };
    assert_eq!(set.len(), 2);
    let mut stored = Stored::new(b"key", Value::Set(set), None, AccessStamp::at(0));
    stored.set_string(Text::Int(5), None, AccessStamp::at(0));
    assert_eq!(stored.value(), ValueRef::Int(5));
    assert!(stored.collection_mut().is_none());
}

#[test]
fn small_entries_are_small() {
    let cost = |key, value, expiry| {
        Stored::string(
            &bytes(key),
            Text::Bytes(&bytes(value)),
            expiry,
            AccessStamp::at(0),
        )
        .cost()
    };
    assert_eq!(size_of::<Stored>(), 8);
    assert_eq!(cost(16, 64, None), 96);
    assert_eq!(cost(16, 64, Some(1)), 112);
    assert_eq!(cost(16, 1024, None), 1056);
}
