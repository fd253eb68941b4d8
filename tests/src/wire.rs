//! Just enough of the Redis protocol for loads of prepared bytes.

/// A command in the protocol's bytes.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// The first reply in what was received, and how long it is: the line without its end, and of a string what it holds. `None`
/// while it isn't whole. Arrays are only their heads.
pub fn reply(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = &bytes[..end];
    if line.first() != Some(&b'$') || line == b"$-1" {
        return Some((line, end + 2));
    }
    let len: usize = std::str::from_utf8(&line[1..]).ok()?.parse().ok()?;
    let value = bytes.get(end + 2..end + 2 + len)?;
    (bytes.len() >= end + 4 + len).then_some((value, end + 4 + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_whole_or_none() {
        for (bytes, expected) in [
            (&b"+OK\r\n+OK\r\n"[..], Some((&b"+OK"[..], 5))),
            (b"-MOVED 1 a:2\r\n", Some((b"-MOVED 1 a:2", 14))),
            (b"$-1\r\n", Some((b"$-1", 5))),
            (b"$3\r\nabc\r\n:1\r\n", Some((b"abc", 9))),
            (b"$3\r\nabc\r", None),
            (b"$3\r\nab", None),
            (b"$3\r", None),
            (b"", None),
        ] {
            assert_eq!(reply(bytes), expected, "{}", bytes.escape_ascii());
        }
        assert_eq!(command(&[b"GET", b"a"]), b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
    }
}
