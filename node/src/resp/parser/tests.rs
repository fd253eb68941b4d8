use proptest::prelude::*;

use super::*;

const KNOWN: Limits = Limits {
    authenticated: true,
    bulk_bytes_max: Limits::BULK_BYTES_MAX_DEFAULT,
};
const STRANGER: Limits = Limits {
    authenticated: false,
    ..KNOWN
};

type Command = Vec<Vec<u8>>;

/// Parses bytes that arrive in pieces, as a connection does; the error ends it.
fn parse_pieces<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    limits: Limits,
) -> (Vec<Command>, Option<ProtocolError>) {
    let (mut parser, mut buffer, mut commands) = (Parser::new(), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match parser.advance(&buffer, limits) {
                Ok(Some(consumed)) => {
                    commands.push(parser.args(&buffer).from(0).map(<[u8]>::to_vec).collect());
                    parser.finish();
                    buffer.drain(..consumed);
                }
                Ok(None) => break,
                Err(error) => return (commands, Some(error)),
            }
            // Every command takes at least two bytes for each span.
            assert!(parser.held_bytes() <= 64 * (SPANS_KEPT_MAX + buffer.len()) + LINE_BYTES_MAX);
        }
    }
    (commands, None)
}

fn parse(bytes: &[u8], limits: Limits) -> (Vec<Command>, Option<ProtocolError>) {
    parse_pieces(std::iter::once(bytes), limits)
}

fn encode(command: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for arg in command {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn words(words: &[&str]) -> Command {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn commands_of_both_forms() {
    let table: [(&str, Vec<Command>); 9] = [
        ("*1\r\n$4\r\nPING\r\n", vec![words(&["PING"])]),
        ("*2\r\n$3\r\nGET\r\n$0\r\n\r\n", vec![words(&["GET", ""])]),
        (
            "*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\n",
            vec![words(&["ECHO", "\r\n\r\n"])],
        ),
        ("PING\r\n", vec![words(&["PING"])]),
        ("set a 'b c'\n", vec![words(&["set", "a", "b c"])]),
        ("\r\n", vec![vec![]]),
        ("*0\r\n*-1\r\nPING\n", vec![vec![], vec![], words(&["PING"])]),
        ("*1\r\n$4\r\nPI", vec![]),
        ("PING", vec![]),
    ];
    for (bytes, expected) in table {
        assert_eq!(parse(bytes.as_bytes(), KNOWN), (expected, None), "{bytes:?}");
    }
}

#[test]
fn protocol_errors_in_the_words_of_redis() {
    let long_line = "x".repeat(LINE_BYTES_MAX + 1);
    let long_count = format!("*{}", "1".repeat(LINE_BYTES_MAX + 1));
    let long_length = format!("*1\r\n${}", "1".repeat(LINE_BYTES_MAX + 1));
    let table: [(&str, Limits, &str); 20] = [
        ("*x\r\n", KNOWN, "invalid multibulk length"),
        ("*1048577\r\n", KNOWN, "invalid multibulk length"),
        ("*99999999999999999999\r\n", KNOWN, "invalid multibulk length"),
        ("*11\r\n", STRANGER, "unauthenticated multibulk length"),
        (&long_count, KNOWN, "too big mbulk count string"),
        ("*1\r\n:4\r\n", KNOWN, "expected '$', got ':'"),
        ("*1\r\nPING\r\n", KNOWN, "expected '$', got 'P'"),
        ("*1\r\n\u{1}", KNOWN, "expected '$', got '\u{1}'"),
        ("*1\r\n\u{e9}", KNOWN, "expected '$', got ' '"),
        ("*1\r\n$-1\r\n", KNOWN, "invalid bulk length"),
        ("*1\r\n$x\r\n", KNOWN, "invalid bulk length"),
        ("*1\r\n$536870913\r\n", KNOWN, "invalid bulk length"),
        ("*1\r\n$16385\r\n", STRANGER, "unauthenticated bulk length"),
        (&long_length, KNOWN, "too big bulk count string"),
        ("*1\r\n$4\r\nPINGxx", KNOWN, "expected CRLF"),
        ("*1\rx", KNOWN, "expected CRLF"),
        (&long_line, KNOWN, "too big inline request"),
        ("set \"a\n", KNOWN, "unbalanced quotes in request"),
        ("set \"a\"b\n", KNOWN, "unbalanced quotes in request"),
        (
            "*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n",
            KNOWN,
            "expected '$', got 'f'",
        ),
    ];
    for (bytes, limits, expected) in table {
        let (_, error) = parse(bytes.as_bytes(), limits);
        let error = error.unwrap_or_else(|| panic!("{expected}: no error"));
        assert_eq!(error.to_string(), format!("ERR Protocol error: {expected}"));
    }
}

#[test]
fn a_claimed_length_reserves_nothing() {
    let mut parser = Parser::new();
    let input = b"*1048576\r\n$536870912\r\n";
    assert_eq!(parser.advance(input, KNOWN), Ok(None));
    assert_eq!(parser.held_bytes(), 0);
    assert_eq!(parser.needed_bytes(), input.len() + (512 << 20) + 2);
}

fn any_command() -> impl Strategy<Value = Command> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8)
}

/// Bytes that are nearly the protocol, so that the parser gets deep into them.
fn near_protocol() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any_command().prop_map(|command| encode(&command)),
        proptest::collection::vec(any::<u8>(), 0..8),
        "[*$+:-]?-?[0-9]{0,20}\r\n".prop_map(String::into_bytes),
        "[a-z \"'\\\\]{0,20}\r?\n".prop_map(String::into_bytes),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_commands(
        commands in proptest::collection::vec(any_command(), 1..6),
        piece_len in 1..50usize,
    ) {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        prop_assert_eq!(parse(&bytes, KNOWN), (commands.clone(), None));
        prop_assert_eq!(parse_pieces(bytes.chunks(piece_len), KNOWN), (commands, None));
    }

    #[test]
    fn any_bytes_end_alike_however_they_are_split(bytes in near_protocol(), piece_len in 1..20usize) {
        for limits in [KNOWN, STRANGER] {
            prop_assert_eq!(parse_pieces(bytes.chunks(piece_len), limits), parse(&bytes, limits));
        }
    }
}
