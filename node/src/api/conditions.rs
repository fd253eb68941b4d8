//! Entity tags, and what `If-Match`, `If-None-Match` and `If-Range` say of them: RFC 9110, sections 8.8.3 and 13.
//!
//! The tag of a value is a digest of its bytes. So it is the same on every node, survives failover and restart, and costs no
//! memory; a value that was changed and changed back has its old tag, and is the old value.

use hyper::header::{HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::problem::Problem;

/// A strong entity tag: 32 hexadecimal digits in quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ETag([u8; 34]);

impl ETag {
    fn of_digest(digest: u128) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'"'; 34];
        let nibbles = digest
            .to_be_bytes()
            .into_iter()
            .flat_map(|byte| [byte >> 4, byte & 15]);
        for (place, nibble) in text[1..33].iter_mut().zip(nibbles) {
            *place = DIGITS[usize::from(nibble)];
        }
        Self(text)
    }

    /// The tag of a value.
    pub(super) fn of(value: &[u8]) -> Self {
        Self::of_digest(xxh3_128(value))
    }

    /// As a header has it.
    pub(super) fn header(&self) -> Result<HeaderValue, hyper::http::Error> {
        Ok(HeaderValue::from_bytes(&self.0)?)
    }
}

/// A tag of a value that comes in pieces.
#[derive(Default)]
pub(super) struct Digest(Box<Xxh3>);

impl Digest {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(&self) -> ETag {
        ETag::of_digest(self.0.digest128())
    }
}

/// What one of the two headers lists.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// `*`: any value.
    Any,
    /// These; each is weak or not.
    Listed(Vec<(bool, Vec<u8>)>),
}

impl Tags {
    fn parse(name: &HeaderName, headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut lines = headers.get_all(name).iter().peekable();
        if lines.peek().is_none() {
            return Ok(None);
        }
        let mut listed = Vec::new();
        let mut is_any = false;
        for line in lines {
            match line.as_bytes().trim_ascii() {
                b"*" => is_any = true,
                line => parse_list(line, &mut listed).ok_or_else(|| {
                    Problem::bad_request(format!("{name} must be * or tags in quotes, separated by commas"))
                })?,
            }
        }
        match (is_any, listed.is_empty()) {
            (true, true) => Ok(Some(Self::Any)),
            (false, false) => Ok(Some(Self::Listed(listed))),
            _ => Err(Problem::bad_request(format!(
                "{name} must be * or at least one tag, and not both"
            ))),
        }
    }

    fn has(&self, current: Option<&ETag>, weak_too: bool) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Listed(tags), Some(current)) => tags
                .iter()
                .any(|(is_weak, tag)| (weak_too || !is_weak) && *tag == current.0),
        }
    }
}

/// `[W/]"…"`, separated by commas; empty elements don't count.
fn parse_list(mut line: &[u8], tags: &mut Vec<(bool, Vec<u8>)>) -> Option<()> {
    loop {
        line = line.trim_ascii_start();
        if let Some(rest) = line.strip_prefix(b",") {
            line = rest;
            continue;
        }
        if line.is_empty() {
            return Some(());
        }
        let (is_weak, tag) = match line.strip_prefix(b"W/") {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let opaque = tag.strip_prefix(b"\"")?;
        let end = opaque.iter().position(|&byte| byte == b'"')?;
        let (tag, rest) = tag.split_at(end + 2);
        tags.push((is_weak, tag.to_vec()));
        line = rest.trim_ascii_start();
        if !line.is_empty() && !line.starts_with(b",") {
            return None;
        }
    }
}

/// Under which conditions a request is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

/// What conditions say before the value is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Simple {
    /// Nothing.
    None,
    /// There must be a value.
    Exists,
    /// There must be none.
    Absent,
    /// It depends on the value.
    Depends,
}

/// Why a request is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unmet {
    /// `If-Match`.
    Match,
    /// `If-None-Match`; to those who read, the value that they have is the current one.
    NoneMatch,
}

impl Conditions {
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            if_match: Tags::parse(&IF_MATCH, headers)?,
            if_none_match: Tags::parse(&IF_NONE_MATCH, headers)?,
        })
    }

    pub(super) fn simple(&self) -> Simple {
        match (&self.if_match, &self.if_none_match) {
            (None, None) => Simple::None,
            (Some(Tags::Any), None) => Simple::Exists,
            (None, Some(Tags::Any)) => Simple::Absent,
            _ => Simple::Depends,
        }
    }

    /// Whether they hold for the value of that tag; `None` where there is none.
    pub(super) fn check(&self, current: Option<&ETag>) -> Result<(), Unmet> {
        if self
            .if_match
            .as_ref()
            .is_some_and(|tags| !tags.has(current, false))
        {
            return Err(Unmet::Match);
        }
        if self
            .if_none_match
            .as_ref()
            .is_some_and(|tags| tags.has(current, true))
        {
            return Err(Unmet::NoneMatch);
        }
        Ok(())
    }
}

/// Whether a range is to be taken of the value of that tag: without `If-Range`, or when it names exactly that one. A date is
/// never the one of a value here.
pub(super) fn allows_range(if_range: Option<&HeaderValue>, current: &ETag) -> bool {
    if_range.is_none_or(|value| value.as_bytes().trim_ascii() == current.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(lines: &[(HeaderName, &str)]) -> Option<Conditions> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        Conditions::parse(&headers).ok()
    }

    #[test]
    fn a_tag_is_a_digest_however_the_value_comes() {
        let value: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let mut digest = Digest::default();
        for piece in value.chunks(777) {
            digest.update(piece);
        }
        assert_eq!(digest.finish(), ETag::of(&value));
        assert_ne!(ETag::of(b"a"), ETag::of(b"b"));
        // As published with XXH3 for an empty input and seed 0.
        assert_eq!(ETag::of(b"").0, *b"\"99aa06d3014798d86001c324468d497f\"");
    }

    #[test]
    fn lists_of_tags() {
        let own = format!("\"{:032x}\"", xxh3_128(b"v"));
        let weak = format!("W/{own}");
        let several = format!("\"x\" ,, {own}");
        // Header, what follows from it when the value is there, and when it isn't.
        let table = [
            (IF_MATCH, "*", Ok(()), Err(Unmet::Match)),
            (IF_MATCH, &own, Ok(()), Err(Unmet::Match)),
            (IF_MATCH, &several, Ok(()), Err(Unmet::Match)),
            (IF_MATCH, &weak, Err(Unmet::Match), Err(Unmet::Match)),
            (IF_MATCH, "\"x\"", Err(Unmet::Match), Err(Unmet::Match)),
            (IF_NONE_MATCH, "*", Err(Unmet::NoneMatch), Ok(())),
            (IF_NONE_MATCH, &own, Err(Unmet::NoneMatch), Ok(())),
            (IF_NONE_MATCH, &weak, Err(Unmet::NoneMatch), Ok(())),
            (IF_NONE_MATCH, "\"a,b\", \"c\"", Ok(()), Ok(())),
        ];
        for (name, value, there, absent) in table {
            let conditions = conditions(&[(name.clone(), value)]).unwrap();
            assert_eq!(conditions.check(Some(&ETag::of(b"v"))), there, "{name}: {value}");
            assert_eq!(conditions.check(None), absent, "{name}: {value}");
        }
        for malformed in ["", "x", "\"x", "\"x\" \"y\"", "w/\"x\"", "*, \"x\"", ","] {
            assert_eq!(conditions(&[(IF_MATCH, malformed)]), None, "{malformed}");
        }
        assert_eq!(conditions(&[(IF_MATCH, "*"), (IF_MATCH, "\"x\"")]), None);
        let two_lines = conditions(&[(IF_MATCH, "\"x\""), (IF_MATCH, &own)]).unwrap();
        assert_eq!(two_lines.check(Some(&ETag::of(b"v"))), Ok(()));
    }

    #[test]
    fn only_the_whole_same_tag_allows_a_range() {
        let tag = ETag::of(b"v");
        let own = tag.header().unwrap();
        assert!(allows_range(None, &tag));
        assert!(allows_range(Some(&own), &tag));
        for other in ["\"x\"", "Sun, 06 Nov 1994 08:49:37 GMT", "W/\"x\""] {
            assert!(
                !allows_range(Some(&HeaderValue::from_static(other)), &tag),
                "{other}"
            );
        }
    }
}
