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

/// Pieces of programs that often fit together.
fn any_program() -> impl Strategy<Value = String> {
    let pieces = [
        "local t = {} ",
        "t[#t + 1] = ",
        "t.x = ",
        "t ",
        "return ",
        "redis.call('set', KEYS[1], ARGV[1]) ",
        "redis.call('get', KEYS[1]) ",
        "redis.pcall(ARGV[1], KEYS[1]) ",
        "redis.setresp(3) ",
        "for i = 1, 3 do ",
        "while true do ",
        "if ",
        "then ",
        "end ",
        "function() ",
        "pcall(",
        "coroutine.wrap(",
        "string.gsub('abc', '(.)', ",
        "string.rep('x', 1e5) ",
        "string.find(",
        "cjson.encode(",
        "cjson.decode(",
        "setmetatable({}, ",
        "table.insert(",
        "string, ",
        "_G, ",
        "rawset(",
        "error(",
        "unpack(",
        "loadstring(",
        "{map = {a = 1}} ",
        "{set = {1}} ",
        "{err = 'E x'} ",
        "{double = 1.5} ",
        "ARGV[1]",
        "'%a+'",
        "1",
        "nil",
        "{",
        "}",
        "(",
        ") ",
        ", ",
        ".. ",
        "x = ",
    ];
    let piece = prop_oneof![
        20 => proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{0,6}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
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

    #[test]
    fn a_script_leaves_nothing(resp3: bool, program in any_program(), argument in any_word()) {
        // The first byte says where the program ends; a length that 127 divides has exact places.
        let mut data = vec![127 << 1 | u8::from(resp3)];
        data.extend(program.as_bytes());
        fuzzing::script(&data);
        data[0] = 64 << 1 | u8::from(resp3);
        data.extend(argument);
        fuzzing::script(&data);
    }

    #[test]
    fn a_node_takes_or_refuses_any_ring_document(data in proptest::collection::vec(any::<u8>(), 0..120)) {
        fuzzing::ring_documents(&data);
        fuzzing::ring_document(&data);
    }
}
