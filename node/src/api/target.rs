//! What a request is about: the path and the query, in the form in which the rest of the server uses them.
//!
//! ```text
//! /v1/keys/{key}                    key: everything behind the third slash, slashes too
//! /v1/groups/{group}/{key}          likewise behind the fourth
//! /v1/openapi.json
//! ?ttl_ms=N                         of PUT alone
//! ```
//!
//! Percent-encoding is decoded once, and strictly: a key is bytes, and two spellings that differ in a mistake must not be one
//! key. What is not understood is refused: a misspelt `ttl` would make an entry that lives for ever.

use super::problem::Problem;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A key of the caller's keyspace.
    Key(Vec<u8>),
    /// A key of a read-through group of it.
    InGroup {
        /// The group's name.
        group: Vec<u8>,
        /// The key behind the group's prefix.
        key: Vec<u8>,
    },
    /// The description of this interface.
    Document,
}

/// The largest `ttl_ms`: the largest integer that every JSON reader reads exactly.
pub(super) const TTL_MS_MAX: u64 = (1 << 53) - 1;

impl Target {
    /// Reads a path as it came.
    pub(super) fn parse(path: &str) -> Result<Self, Problem> {
        if path == "/v1/openapi.json" {
            return Ok(Self::Document);
        }
        if let Some(key) = path.strip_prefix("/v1/keys/") {
            return Ok(Self::Key(decode_key(key)?));
        }
        let in_group = path
            .strip_prefix("/v1/groups/")
            .and_then(|rest| rest.split_once('/'));
        if let Some((group, key)) = in_group {
            return Ok(Self::InGroup {
                group: decode_key(group)?,
                key: decode_key(key)?,
            });
        }
        Err(Problem::no_such_path())
    }

    /// The methods that it has, as `Allow` names them.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Key(_) => "GET, HEAD, PUT, DELETE",
            Self::InGroup { .. } | Self::Document => "GET, HEAD",
        }
    }
}

fn decode_key(text: &str) -> Result<Vec<u8>, Problem> {
    let key = decode(text.as_bytes()).ok_or_else(|| {
        Problem::bad_request(
            "the path has a % that is not followed by two hexadecimal digits; write %25 for a percent sign",
        )
    })?;
    if key.is_empty() {
        return Err(Problem::bad_request(
            "the path ends where the name of a key or a group should be",
        ));
    }
    Ok(key)
}

/// `None`: a `%` without two hexadecimal digits.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            (hex(*bytes.next()?)? << 4) | hex(*bytes.next()?)?
        } else {
            byte
        });
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// The time to live that a query asks for, in milliseconds; `None` without one. Only PUT may have it.
pub(super) fn ttl_ms(query: Option<&str>, may_have_ttl: bool) -> Result<Option<u64>, Problem> {
    let mut ttl_ms = None;
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if name != "ttl_ms" || !may_have_ttl {
            let name = name.escape_default();
            return Err(Problem::bad_request(format!(
                "the query parameter \"{name}\" is not known here; PUT takes ttl_ms, other methods take none"
            )));
        }
        if ttl_ms.is_some() {
            return Err(Problem::bad_request("ttl_ms is given twice"));
        }
        let is_number = (1..=16).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
        let number = value
            .parse()
            .ok()
            .filter(|number| is_number && (1..=TTL_MS_MAX).contains(number));
        ttl_ms = Some(number.ok_or_else(|| {
            Problem::bad_request(format!(
                "ttl_ms must be a whole number of milliseconds from 1 to {TTL_MS_MAX}"
            ))
        })?);
    }
    Ok(ttl_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let key = |key: &[u8]| Some(Target::Key(key.to_vec()));
        let in_group = |group: &[u8], key: &[u8]| {
            Some(Target::InGroup {
                group: group.to_vec(),
                key: key.to_vec(),
            })
        };
        let table = [
            ("/v1/keys/a", key(b"a")),
            ("/v1/keys/user:42", key(b"user:42")),
            ("/v1/keys/a%2Fb", key(b"a/b")),
            ("/v1/keys/a/b/", key(b"a/b/")),
            ("/v1/keys/..", key(b"..")),
            ("/v1/keys//", key(b"/")),
            ("/v1/keys/%00%ff%0D%0A", key(b"\0\xff\r\n")),
            ("/v1/keys/%25", key(b"%")),
            ("/v1/keys/a+b", key(b"a+b")),
            ("/v1/keys/", None),
            ("/v1/keys", None),
            ("/v1/keys/%", None),
            ("/v1/keys/%4", None),
            ("/v1/keys/%zz", None),
            ("/v1/keys/%+1", None),
            ("/v1/groups/users/42", in_group(b"users", b"42")),
            ("/v1/groups/u%2Fs/4%2F2", in_group(b"u/s", b"4/2")),
            ("/v1/groups/users/4/2", in_group(b"users", b"4/2")),
            ("/v1/groups/users", None),
            ("/v1/groups/users/", None),
            ("/v1/groups//42", None),
            ("/v1/openapi.json", Some(Target::Document)),
            ("/v1/openapi.json/", None),
            ("/v2/keys/a", None),
            ("*", None),
            ("/", None),
        ];
        for (path, expected) in table {
            assert_eq!(Target::parse(path).ok(), expected, "{path}");
        }
    }

    #[test]
    fn times_to_live() {
        let table = [
            (None, Some(None)),
            (Some(""), Some(None)),
            (Some("ttl_ms=1"), Some(Some(1))),
            (Some("ttl_ms=9007199254740991"), Some(Some(TTL_MS_MAX))),
            (Some("ttl_ms=9007199254740992"), None),
            (Some("ttl_ms=0"), None),
            (Some("ttl_ms=-1"), None),
            (Some("ttl_ms=+1"), None),
            (Some("ttl_ms="), None),
            (Some("ttl_ms"), None),
            (Some("ttl_ms=1&ttl_ms=1"), None),
            (Some("ttl=1"), None),
            (Some("TTL_MS=1"), None),
        ];
        for (query, expected) in table {
            assert_eq!(ttl_ms(query, true).ok(), expected, "{query:?}");
        }
        assert!(ttl_ms(Some("ttl_ms=1"), false).is_err());
    }
}
