//! A password that can be checked and never shown.
//!
//! Only its SHA-256 is kept: a core dump or a log line has nothing to give away, and comparing two digests
//! takes the same time whatever was typed and however long it was.

use std::fmt;
use std::hint::black_box;

use sha2::{Digest, Sha256};

/// The password that clients must give.
#[derive(Clone)]
pub struct Secret {
    digest: [u8; 32],
}

/// A password file whose content can't be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// An empty password would let everybody in.
    #[error("holds no password; write one into it, or leave the flag out to serve without a password")]
    Empty,
}

impl Secret {
    /// Takes the content of a password file: everything but one line end at its end.
    pub fn from_file_content(content: &[u8]) -> Result<Self, SecretError> {
        let line = content.strip_suffix(b"\n").unwrap_or(content);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            Err(SecretError::Empty)
        } else {
            Ok(Self {
                digest: Sha256::digest(line).into(),
            })
        }
    }

    /// Whether this is the password.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        let candidate: [u8; 32] = Sha256::digest(candidate).into();
        let difference = self
            .digest
            .iter()
            .zip(candidate)
            .fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        difference == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_is_its_first_line() {
        let table: [(&[u8], &[u8], bool); 7] = [
            (b"sesame", b"sesame", true),
            (b"sesame\n", b"sesame", true),
            (b"sesame\r\n", b"sesame", true),
            (b"sesame\n\n", b"sesame\n", true),
            (b"sesame\n", b"sesame\n", false),
            (b"sesame", b"Sesame", false),
            (b"sesame", b"", false),
        ];
        for (file, typed, expected) in table {
            assert_eq!(
                Secret::from_file_content(file).unwrap().matches(typed),
                expected,
                "{file:?} {typed:?}"
            );
        }
        for empty in [b"".as_slice(), b"\n", b"\r\n"] {
            assert_eq!(Secret::from_file_content(empty).unwrap_err(), SecretError::Empty);
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(
            format!("{:?}", Some(Secret::from_file_content(b"sesame").unwrap())),
            "Some([redacted])"
        );
    }
}
