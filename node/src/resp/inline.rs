//! Commands as a person types them: words on a line, with quotes where a word has spaces.
//!
//! ```text
//! line   = { space } [ word { space { space } word } ] { space }
//! word   = plain | '"' { char | escape } '"' | "'" { char | "\'" } "'"     (quotes may also open inside a word)
//! escape = "\x" hex hex | "\n" | "\r" | "\t" | "\b" | "\a" | "\" any
//! ```
//!
//! A closing quote ends its word: what follows must be a space or the end.

use super::parser::Span;

/// The quotes of a line don't match.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnbalancedQuotes;

/// Splits a line into words. Their unescaped bytes are appended to `text`, their places in it to `words`.
pub(super) fn split(line: &[u8], text: &mut Vec<u8>, words: &mut Vec<Span>) -> Result<(), UnbalancedQuotes> {
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let start = text.len();
        rest = take_word(rest, text)?.trim_ascii_start();
        words.push(Span {
            start,
            end: text.len(),
        });
    }
    Ok(())
}

/// Appends the first word to `text` and returns what stands behind it.
fn take_word<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            [] => return Ok(rest),
            [byte, ..] if byte.is_ascii_whitespace() || *byte == 0 => return Ok(&rest[1..]),
            [b'"', quoted @ ..] => return ended(take_double_quoted(quoted, text)?),
            [b'\'', quoted @ ..] => return ended(take_single_quoted(quoted, text)?),
            [byte, behind @ ..] => {
                text.push(*byte);
                rest = behind;
            }
        }
    }
}

fn ended(behind_quote: &[u8]) -> Result<&[u8], UnbalancedQuotes> {
    match behind_quote.first() {
        Some(byte) if !byte.is_ascii_whitespace() => Err(UnbalancedQuotes),
        _ => Ok(behind_quote),
    }
}

fn take_double_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        let (byte, behind) = match rest {
            [] => return Err(UnbalancedQuotes),
            [b'"', behind @ ..] => return Ok(behind),
            [b'\\', b'x', high, low, behind @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex_digit(*high) << 4 | hex_digit(*low), behind)
            }
            [b'\\', escaped, behind @ ..] => (unescape(*escaped), behind),
            [byte, behind @ ..] => (*byte, behind),
        };
        text.push(byte);
        rest = behind;
    }
}

fn take_single_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        let (byte, behind) = match rest {
            [] => return Err(UnbalancedQuotes),
            [b'\'', behind @ ..] => return Ok(behind),
            [b'\\', b'\'', behind @ ..] => (b'\'', behind),
            [byte, behind @ ..] => (*byte, behind),
        };
        text.push(byte);
        rest = behind;
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_into_words() {
        let table: [(&str, Option<&[&[u8]]>); 13] = [
            ("", Some(&[])),
            ("   ", Some(&[])),
            ("PING", Some(&[b"PING"])),
            ("  set  a\tb ", Some(&[b"set", b"a", b"b"])),
            (r#"set "a b" 'c d'"#, Some(&[b"set", b"a b", b"c d"])),
            (r#""" ''"#, Some(&[b"", b""])),
            (r#""\x41\xfF\n\r\t\b\a\q\"""#, Some(&[b"A\xff\n\r\t\x08\x07q\""])),
            (r"'\'\n'", Some(&[br"'\n"])),
            (r#"ab"c d""#, Some(&[b"abc d"])),
            (r#""abc"#, None),
            (r#""abc"d"#, None),
            ("'abc", None),
            (r#""\x4"#, None),
        ];
        for (line, expected) in table {
            let (mut text, mut words) = (Vec::new(), Vec::new());
            let split = split(line.as_bytes(), &mut text, &mut words);
            let found = split
                .ok()
                .map(|()| words.iter().map(|w| &text[w.start..w.end]).collect::<Vec<_>>());
            assert_eq!(found.as_deref(), expected, "{line}");
        }
    }
}
