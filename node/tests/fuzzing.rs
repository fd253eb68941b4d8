//! The fuzz targets' checks on random input that is nearly the protocol.

use annulus_node::fuzzing;
use proptest::prelude::*;

fn any_word() -> impl Strategy<Value = Vec<u8>> {
    let names: Vec<Vec<u8>> = annulus_node::command::table()
        .names()
        .iter()
        .flat_map(|name| {
            name.split('|')
                .map(|word| word.as_bytes().to_vec())
                .collect::<Vec<_>>()
        })
        .collect();
    let options = [
        "EX",
        "PX",
        "EXAT",
        "PXAT",
        "NX",
        "XX",
        "GT",
        "LT",
        "GET",
        "KEEPTTL",
        "PERSIST",
        "MATCH",
        "COUNT",
        "TYPE",
        "REPLACE",
        "DB",
        "ID",
        "ADDR",
        "SKIPME",
        "ON",
        "OFF",
        "SKIP",
        "AUTH",
        "SETNAME",
        "default",
        "pw",
        "ASYNC",
        "WITHSCORES",
        "WITHVALUES",
        "BYSCORE",
        "BYLEX",
        "REV",
        "LIMIT",
        "WEIGHTS",
        "AGGREGATE",
        "MIN",
        "MAX",
        "LEFT",
        "RIGHT",
        "BEFORE",
        "AFTER",
        "RANK",
        "MAXLEN",
        "CH",
        "INCR",
        "-inf",
        "+inf",
        "(1",
        "[a",
        "-",
        "+",
    ];
    prop_oneof![
        3 => proptest::sample::select(names),
        3 => proptest::sample::select(options.map(|word| word.as_bytes().to_vec()).to_vec()),
        3 => "(\\{t\\})?[a-c*]".prop_map(String::into_bytes),
        2 => "-?[0-9]{1,20}".prop_map(String::into_bytes),
        1 => "[0-9.e+-]{1,8}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => (0..40_000usize).prop_map(|len| vec![b'x'; len]),
    ]
}

fn any_piece() -> impl Strategy<Value = Vec<u8>> {
    let command = proptest::collection::vec(any_word(), 1..7).prop_map(|words| {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend(format!("${}\r\n", word.len()).bytes());
            bytes.extend(word);
            bytes.extend(b"\r\n");
        }
        bytes
    });
    prop_oneof![
        20 => command,
        1 => proptest::collection::vec(any::<u8>(), 0..30),
        1 => "[*$]-?[0-9]{0,12}\r\n".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_connection_takes_anything(how: u8, pieces in proptest::collection::vec(any_piece(), 0..12)) {
        let mut data = vec![how];
        data.extend(pieces.concat());
        fuzzing::pipeline(&data);
        fuzzing::parser(&data);
    }
}
