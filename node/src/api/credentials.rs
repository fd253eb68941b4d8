//! `Authorization: Basic`: RFC 7617.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;

/// Longer ones are nobody's.
const HEADER_BYTES_MAX: usize = 4096;

/// User and password of a header; `None` when it is not of that kind.
pub(super) fn parse(header: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let bytes = header.as_bytes();
    if bytes.len() > HEADER_BYTES_MAX {
        return None;
    }
    let (scheme, encoded) = bytes.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = pair.iter().position(|&byte| byte == b':')?;
    Some((pair[..colon].to_vec(), pair[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password() {
        let pair =
            |user: &str, password: &str| Some((user.as_bytes().to_vec(), password.as_bytes().to_vec()));
        let table = [
            // The example of the RFC.
            (
                "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
                pair("Aladdin", "open sesame"),
            ),
            (
                "basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ== ",
                pair("Aladdin", "open sesame"),
            ),
            ("Basic YTpiOmM=", pair("a", "b:c")),
            ("Basic Og==", pair("", "")),
            ("Basic YQ==", None),
            ("Basic", None),
            ("Basic !", None),
            ("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", None),
            ("", None),
        ];
        for (header, expected) in table {
            assert_eq!(parse(&HeaderValue::from_static(header)), expected, "{header}");
        }
        let long = format!("Basic {}", "QUFB".repeat(2000));
        assert_eq!(parse(&HeaderValue::try_from(long).unwrap()), None);
    }
}
