//! From a key to the URL that the origin has its value at.

use annulus_proto::groups::KEY_PLACEHOLDER;
use hyper::Uri;

/// Keys longer than that have no URL.
const KEY_BYTES_MAX: usize = 1024;

/// Why a key has no URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoUrl {
    /// It would be longer than servers take.
    #[error("the key is too long for a URL: {KEY_BYTES_MAX} bytes at most behind the prefix")]
    TooLong,
    /// It would leave the place that the template names.
    #[error("the key has a path segment . or .., which would name another place at the origin")]
    LeavesItsPlace,
    /// The template gives none.
    #[error("the group's urlTemplate gives no valid URL for this key")]
    NotAUrl,
}

/// The URL of a key without its group's prefix.
pub fn url(template: &str, key: &[u8]) -> Result<Uri, NoUrl> {
    if key.len() > KEY_BYTES_MAX {
        return Err(NoUrl::TooLong);
    }
    let mut segments = key.split(|byte| matches!(byte, b'/' | b'\\'));
    if segments.any(|segment| matches!(segment, b"." | b"..")) {
        return Err(NoUrl::LeavesItsPlace);
    }
    let url = template.replace(KEY_PLACEHOLDER, &escaped(key));
    url.parse().map_err(|_| NoUrl::NotAUrl)
}

/// All but what RFC 3986 calls unreserved is percent-encoded.
fn escaped(key: &[u8]) -> String {
    let mut escaped = String::with_capacity(key.len());
    for &byte in key {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            for digit in [byte >> 4, byte & 15] {
                let digit = char::from_digit(digit.into(), 16).unwrap_or('0');
                escaped.push(digit.to_ascii_uppercase());
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_in_its_place() {
        let template = "http://users.shop.svc:8080/v1/{key}?full=1";
        for (key, expected) in [
            (&b"42"[..], Ok("http://users.shop.svc:8080/v1/42?full=1")),
            (b"a b/c", Ok("http://users.shop.svc:8080/v1/a%20b%2Fc?full=1")),
            (b"{42}", Ok("http://users.shop.svc:8080/v1/%7B42%7D?full=1")),
            (
                b"x?admin=1#y",
                Ok("http://users.shop.svc:8080/v1/x%3Fadmin%3D1%23y?full=1"),
            ),
            (b"\xff\x00%", Ok("http://users.shop.svc:8080/v1/%FF%00%25?full=1")),
            (b"a.b", Ok("http://users.shop.svc:8080/v1/a.b?full=1")),
            (b"..", Err(NoUrl::LeavesItsPlace)),
            (b"a/../b", Err(NoUrl::LeavesItsPlace)),
            (b"..\\b", Err(NoUrl::LeavesItsPlace)),
            (&[b'a'; 1025], Err(NoUrl::TooLong)),
        ] {
            let found = url(template, key).map(|url| url.to_string());
            assert_eq!(found.as_deref().map_err(|error| *error), expected, "{key:?}");
        }
    }
}
