//! Requests, and finding where replies end: as little as a client needs to be faster than the servers.

use std::io::Write;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2.
    Resp,
    /// memcached's text protocol.
    Memcached,
}

/// Length of every key in bytes.
pub const KEY_BYTES: usize = 16;

/// The key of that number.
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key:000000000000";
    let mut left = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
        left /= 10;
    }
    key
}

impl Protocol {
    /// Adds a request for a value.
    pub fn get(self, key: &[u8; KEY_BYTES], out: &mut Vec<u8>) {
        match self {
            Self::Resp => out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$16\r\n"),
            Self::Memcached => out.extend_from_slice(b"get "),
        }
        out.extend_from_slice(key);
        out.extend_from_slice(b"\r\n");
    }

    /// Adds a request that sets a value, with a time to live in seconds if there is to be one.
    pub fn set(self, key: &[u8; KEY_BYTES], value: &[u8], ttl_s: Option<u32>, out: &mut Vec<u8>) {
        let written = match (self, ttl_s) {
            (Self::Resp, None) => {
                out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
                out.extend_from_slice(key);
                write!(out, "\r\n${}\r\n", value.len())
            }
            (Self::Resp, Some(_)) => {
                out.extend_from_slice(b"*5\r\n$3\r\nSET\r\n$16\r\n");
                out.extend_from_slice(key);
                write!(out, "\r\n${}\r\n", value.len())
            }
            (Self::Memcached, ttl_s) => {
                out.extend_from_slice(b"set ");
                out.extend_from_slice(key);
                write!(out, " 0 {} {}\r\n", ttl_s.unwrap_or(0), value.len())
            }
        };
        written.unwrap_or_default();
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        if let (Self::Resp, Some(ttl_s)) = (self, ttl_s) {
            let ttl = ttl_s.to_string();
            write!(out, "$2\r\nEX\r\n${}\r\n{ttl}\r\n", ttl.len()).unwrap_or_default();
        }
    }

    /// The length of the first whole reply, and whether it is an error; `None` when more must be read.
    pub fn reply(self, bytes: &[u8]) -> Option<(usize, bool)> {
        match self {
            Self::Resp => resp_reply(bytes),
            Self::Memcached => memcached_reply(bytes),
        }
    }
}

/// Where the first line ends, its end included.
fn line(bytes: &[u8]) -> Option<usize> {
    let feed = bytes.iter().position(|&byte| byte == b'\n')?;
    Some(feed + 1)
}

fn resp_reply(bytes: &[u8]) -> Option<(usize, bool)> {
    let end = line(bytes)?;
    if bytes[0] != b'$' {
        return Some((end, bytes[0] == b'-'));
    }
    let mut len = 0;
    for &byte in &bytes[1..end - 2] {
        if byte == b'-' {
            return Some((end, false));
        }
        len = len * 10 + usize::from(byte - b'0');
    }
    let whole = end + len + 2;
    (bytes.len() >= whole).then_some((whole, false))
}

fn memcached_reply(bytes: &[u8]) -> Option<(usize, bool)> {
    let end = line(bytes)?;
    if !bytes.starts_with(b"VALUE ") {
        let is_good = bytes.starts_with(b"END") || bytes.starts_with(b"STORED");
        return Some((end, !is_good));
    }
    let mut len = 0;
    let digits = bytes[..end - 2].rsplit(|&byte| byte == b' ').next()?;
    for &byte in digits {
        len = len * 10 + usize::from(byte - b'0');
    }
    let whole = end + len + b"\r\nEND\r\n".len();
    (bytes.len() >= whole).then_some((whole, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_found() {
        type Row<'a> = (Protocol, &'a [u8], Option<(usize, bool)>);
        let rows: [Row<'_>; 9] = [
            (Protocol::Resp, b"+OK\r\n+", Some((5, false))),
            (Protocol::Resp, b"-ERR no\r\n", Some((9, true))),
            (Protocol::Resp, b"$-1\r\n", Some((5, false))),
            (Protocol::Resp, b"$3\r\nabc\r\n+OK", Some((9, false))),
            (Protocol::Resp, b"$3\r\nabc", None),
            (Protocol::Memcached, b"STORED\r\n", Some((8, false))),
            (Protocol::Memcached, b"END\r\n", Some((5, false))),
            (
                Protocol::Memcached,
                b"VALUE k 0 2\r\nab\r\nEND\r\n",
                Some((22, false)),
            ),
            (Protocol::Memcached, b"SERVER_ERROR x\r\n", Some((16, true))),
        ];
        for (protocol, bytes, expected) in rows {
            assert_eq!(
                protocol.reply(bytes),
                expected,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }

    #[test]
    fn keys_have_one_length() {
        assert_eq!(&key(42), b"key:000000000042");
        assert_eq!(&key(999_999_999_999), b"key:999999999999");
    }
}
