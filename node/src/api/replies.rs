//! Writes commands, and reads the few replies that commands of this server have, out of what a node has written itself.

use std::ops::Range;

use bytes::BytesMut;

/// A reply, or where in the bytes it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// `+OK` and its like.
    Done,
    /// A number.
    Integer(i64),
    /// A string's bytes.
    Bulk(Range<usize>),
    /// There is none.
    Null,
    /// An error's text, without `-` and line end.
    Error(Range<usize>),
}

/// The reply that stands at `at`, which moves behind it. `None`: no reply of that kind.
pub(crate) fn read(bytes: &[u8], at: &mut usize) -> Option<Item> {
    let begin = *at + 1;
    let end = begin + bytes.get(begin..)?.windows(2).position(|pair| pair == b"\r\n")?;
    let line = begin..end;
    let number = || std::str::from_utf8(&bytes[begin..end]).ok()?.parse::<i64>().ok();
    *at = end + 2;
    match bytes[begin - 1] {
        b'+' => Some(Item::Done),
        b'-' => Some(Item::Error(line)),
        b':' => number().map(Item::Integer),
        b'_' => Some(Item::Null),
        b'$' => {
            let Ok(len) = usize::try_from(number()?) else {
                return Some(Item::Null);
            };
            let value = *at..at.checked_add(len)?;
            if bytes.get(value.end..value.end + 2)? != b"\r\n" {
                return None;
            }
            *at = value.end + 2;
            Some(Item::Bulk(value))
        }
        _ => None,
    }
}

/// Writes a command.
pub(crate) fn write_command(buffer: &mut BytesMut, args: &[&[u8]]) {
    buffer.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        write_arg(buffer, arg);
    }
}

/// Writes an argument.
pub(crate) fn write_arg(buffer: &mut BytesMut, arg: &[u8]) {
    buffer.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
    buffer.extend_from_slice(arg);
    buffer.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_one_after_the_other() {
        let bytes = b"$3\r\na\r\n\r\n:-2\r\n+OK\r\n$-1\r\n-ERR no\r\n$0\r\n\r\n";
        let mut at = 0;
        let expected = [
            Item::Bulk(4..7),
            Item::Integer(-2),
            Item::Done,
            Item::Null,
            Item::Error(25..31),
            Item::Bulk(37..37),
        ];
        for item in expected {
            assert_eq!(read(bytes, &mut at), Some(item));
        }
        assert_eq!(at, bytes.len());
        assert_eq!(read(bytes, &mut at), None);
    }

    #[test]
    fn what_is_cut_off_is_no_reply() {
        for bytes in [
            "",
            "+",
            "+OK\r",
            "$3\r\nab",
            "$3\r\nabc",
            "$3\r\nabcde",
            "*0\r\n",
            ":x\r\n",
        ] {
            assert_eq!(read(bytes.as_bytes(), &mut 0), None, "{bytes:?}");
        }
    }
}
