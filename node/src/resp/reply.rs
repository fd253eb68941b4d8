//! Writes replies to the end of an output buffer, in RESP2 or RESP3.
//!
//! A caller that announces an array writes exactly that many elements; nothing here checks it. A reply stops
//! growing at `bytes_max`: what goes beyond is dropped, and the connection must then be closed, because its
//! stream is no longer well formed.

use std::ops::Range;

use super::number::{Decimal, format_f64};

/// The output of a connection, and how to write to it.
#[derive(Debug)]
pub struct Reply {
    buffer: Vec<u8>,
    resp3: bool,
    bytes_max: usize,
    overflowed: bool,
    is_part: bool,
    errors: u64,
}

/// An error's text; line ends in it would end the reply.
fn on_one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().replace(['\r', '\n'], " ")
}

impl Reply {
    /// An empty output in RESP2 that never holds more than about `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            resp3: false,
            bytes_max,
            overflowed: false,
            is_part: false,
            errors: 0,
        }
    }

    /// Writes RESP3 from here on, or RESP2.
    pub fn set_resp3(&mut self, resp3: bool) {
        self.resp3 = resp3;
    }

    /// Whether RESP3 is written.
    pub fn is_resp3(&self) -> bool {
        self.resp3
    }

    /// Says that what is written from here on is a part of a larger reply, or stands by itself again.
    pub fn set_part(&mut self, is_part: bool) {
        self.is_part = is_part;
    }

    /// Whether a larger reply is being written: nothing else may stand in it.
    pub fn is_part(&self) -> bool {
        self.is_part
    }

    /// What was written and not taken away.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// How much that is.
    #[inline]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// What it has allocated.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Whether there is nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether a reply was cut short; the connection must be closed.
    #[inline]
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// How many errors were written since the start.
    #[inline]
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Takes back what was written after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.buffer.truncate(len);
    }

    /// Puts an error in the place of what was written there.
    pub fn replace(&mut self, place: Range<usize>, error: &dyn std::fmt::Display) {
        self.errors += 1;
        self.buffer
            .splice(place, format!("-{}\r\n", on_one_line(error)).into_bytes());
    }

    /// Takes the buffer with everything written; what comes next starts an empty one.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Writes into this buffer from here on. There must be nothing written yet.
    pub fn use_buffer(&mut self, buffer: Vec<u8>) {
        debug_assert!(self.buffer.is_empty(), "what was written would be lost");
        self.buffer = buffer;
    }

    /// Forgets the first `len` bytes.
    pub fn discard_front(&mut self, len: usize) {
        self.buffer.drain(..len);
    }

    /// Whether there is a buffer to write into.
    #[inline]
    pub fn has_buffer(&self) -> bool {
        self.buffer.capacity() > 0
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A simple string; it must not contain a line end.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        self.raw(b"+");
        self.raw(text.as_bytes());
        self.raw(b"\r\n");
    }

    /// An error, its code first. Line ends become spaces, so that an argument quoted in it can't end the reply.
    pub fn error(&mut self, error: &dyn std::fmt::Display) {
        self.errors += 1;
        self.raw(b"-");
        self.raw(on_one_line(error).as_bytes());
        self.raw(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, number: i64) {
        match number {
            0 => self.raw(b":0\r\n"),
            1 => self.raw(b":1\r\n"),
            _ => self.prefixed(b':', &Decimal::new(number)),
        }
    }

    /// How many there are of something.
    pub fn count(&mut self, count: usize) {
        self.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.prefixed(b'$', &Decimal::unsigned(bytes.len() as u64));
        self.raw(bytes);
        self.raw(b"\r\n");
    }

    /// A bulk string with a number in it.
    #[inline]
    pub fn bulk_integer(&mut self, number: i64) {
        self.bulk(Decimal::new(number).as_bytes());
    }

    /// A number that need not be an integer; a bulk string in RESP2.
    pub fn double(&mut self, number: f64) {
        let text = format_f64(number);
        if self.resp3 {
            self.raw(b",");
            self.raw(text.as_bytes());
            self.raw(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }

    /// A text that RESP3 marks as plain text.
    pub fn verbatim(&mut self, text: &str) {
        self.verbatim_as(*b"txt", text.as_bytes());
    }

    /// A text that RESP3 marks as one of that format.
    pub fn verbatim_as(&mut self, format: [u8; 3], text: &[u8]) {
        if self.resp3 {
            self.prefixed(b'=', &Decimal::unsigned(text.len() as u64 + 4));
            self.raw(&format);
            self.raw(b":");
            self.raw(text);
            self.raw(b"\r\n");
        } else {
            self.bulk(text);
        }
    }

    /// Whether something holds; 1 or 0 in RESP2.
    pub fn boolean(&mut self, holds: bool) {
        match (self.resp3, holds) {
            (true, true) => self.raw(b"#t\r\n"),
            (true, false) => self.raw(b"#f\r\n"),
            (false, _) => self.integer(holds.into()),
        }
    }

    /// An integer of any size, in digits without line ends; a bulk string in RESP2.
    pub fn big_number(&mut self, digits: &str) {
        if self.resp3 {
            self.raw(b"(");
            self.raw(digits.as_bytes());
            self.raw(b"\r\n");
        } else {
            self.bulk(digits.as_bytes());
        }
    }

    /// No value.
    #[inline]
    pub fn null(&mut self) {
        self.raw(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// No array.
    pub fn null_array(&mut self) {
        self.raw(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// The head of an array of that many elements.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.prefixed(b'*', &Decimal::unsigned(len as u64));
    }

    /// The head of a push of that many elements; an array in RESP2.
    pub fn push(&mut self, len: usize) {
        if self.resp3 {
            self.prefixed(b'>', &Decimal::unsigned(len as u64));
        } else {
            self.array(len);
        }
    }

    /// Something that is encoded already.
    pub fn encoded(&mut self, bytes: &[u8]) {
        self.raw(bytes);
    }

    /// The head of a map of that many pairs; an array of twice as many in RESP2.
    pub fn map(&mut self, pairs: usize) {
        if self.resp3 {
            self.prefixed(b'%', &Decimal::unsigned(pairs as u64));
        } else {
            self.array(2 * pairs);
        }
    }

    /// The head of a set of that many elements; an array in RESP2.
    pub fn set(&mut self, len: usize) {
        if self.resp3 {
            self.prefixed(b'~', &Decimal::unsigned(len as u64));
        } else {
            self.array(len);
        }
    }

    #[inline]
    fn prefixed(&mut self, kind: u8, digits: &Decimal) {
        self.raw(&[kind]);
        self.raw(digits.as_bytes());
        self.raw(b"\r\n");
    }

    #[inline]
    fn raw(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > self.bytes_max {
            self.overflowed = true;
            return;
        }
        self.buffer.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_in_both_protocols() {
        type Write = fn(&mut Reply);
        let table: [(Write, &str, &str); 19] = [
            (Reply::ok, "+OK\r\n", "+OK\r\n"),
            (|r| r.simple("PONG"), "+PONG\r\n", "+PONG\r\n"),
            (|r| r.error(&"ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (|r| r.integer(-42), ":-42\r\n", ":-42\r\n"),
            (|r| r.integer(1), ":1\r\n", ":1\r\n"),
            (|r| r.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
            (|r| r.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (|r| r.double(2.5), "$3\r\n2.5\r\n", ",2.5\r\n"),
            (|r| r.verbatim("hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
            (|r| r.boolean(true), ":1\r\n", "#t\r\n"),
            (|r| r.boolean(false), ":0\r\n", "#f\r\n"),
            (|r| r.big_number("123"), "$3\r\n123\r\n", "(123\r\n"),
            (Reply::null, "$-1\r\n", "_\r\n"),
            (Reply::null_array, "*-1\r\n", "_\r\n"),
            (|r| r.array(3), "*3\r\n", "*3\r\n"),
            (|r| r.push(3), "*3\r\n", ">3\r\n"),
            (|r| r.encoded(b"+x\r\n"), "+x\r\n", "+x\r\n"),
            (|r| r.map(3), "*6\r\n", "%3\r\n"),
            (|r| r.set(3), "*3\r\n", "~3\r\n"),
        ];
        for (write, resp2, resp3) in table {
            let mut reply = Reply::new(1024);
            write(&mut reply);
            assert_eq!(
                reply.as_bytes().escape_ascii().to_string(),
                resp2.as_bytes().escape_ascii().to_string()
            );
            reply.take_buffer();
            reply.set_resp3(true);
            write(&mut reply);
            assert_eq!(
                reply.as_bytes().escape_ascii().to_string(),
                resp3.as_bytes().escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn a_reply_stops_at_its_limit() {
        let mut reply = Reply::new(16);
        reply.bulk(b"0123456789");
        assert!(reply.overflowed());
        assert!(reply.len() <= 16);
    }
}
