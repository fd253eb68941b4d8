//! `Range`: RFC 9110, section 14. One range of bytes; several at once, other units and what is malformed get the whole value,
//! as the RFC has it.

use std::ops::Range;

/// What is to be sent of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These bytes.
    Of(Range<usize>),
    /// The range lies beyond it.
    Beyond,
}

/// What a `Range` header asks for of a value of that many bytes.
pub(super) fn part(header: Option<&[u8]>, len: usize) -> Part {
    header
        .and_then(|header| single(std::str::from_utf8(header).ok()?, len))
        .unwrap_or(Part::Whole)
}

/// `None`: to be ignored.
fn single(header: &str, len: usize) -> Option<Part> {
    let (unit, set) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    if first.is_empty() {
        let suffix = position(last)?;
        return Some(match suffix.min(len) {
            0 => Part::Beyond,
            suffix => Part::Of(len - suffix..len),
        });
    }
    let first = position(first)?;
    let end = if last.is_empty() {
        len
    } else {
        let last = position(last)?;
        if last < first {
            return None;
        }
        last.saturating_add(1).min(len)
    };
    Some(if first < len {
        Part::Of(first..end)
    } else {
        Part::Beyond
    })
}

/// Digits; what is larger than any value is as large as can be.
fn position(digits: &str) -> Option<usize> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ten_bytes() {
        let table = [
            (None, Part::Whole),
            (Some("bytes=0-0"), Part::Of(0..1)),
            (Some("bytes=2-5"), Part::Of(2..6)),
            (Some("Bytes = 2-5"), Part::Of(2..6)),
            (Some("bytes=9-"), Part::Of(9..10)),
            (Some("bytes=0-99999999999999999999999"), Part::Of(0..10)),
            (Some("bytes=-3"), Part::Of(7..10)),
            (Some("bytes=-30"), Part::Of(0..10)),
            (Some("bytes=-0"), Part::Beyond),
            (Some("bytes=10-"), Part::Beyond),
            (Some("bytes=99999999999999999999999-"), Part::Beyond),
            (Some("bytes=5-2"), Part::Whole),
            (Some("bytes=-"), Part::Whole),
            (Some("bytes=+1-2"), Part::Whole),
            (Some("bytes=0-1,3-4"), Part::Whole),
            (Some("lines=0-1"), Part::Whole),
            (Some("0-1"), Part::Whole),
            (Some(""), Part::Whole),
        ];
        for (header, expected) in table {
            assert_eq!(part(header.map(str::as_bytes), 10), expected, "{header:?}");
        }
        assert_eq!(part(Some(b"bytes=0-"), 0), Part::Beyond);
        assert_eq!(part(Some(b"bytes=-1"), 0), Part::Beyond);
        assert_eq!(part(Some(b"bytes=\xff-"), 10), Part::Whole);
    }
}
