//! A password that can be checked and never shown.
//!
//! Only its SHA-256 is kept: a core dump or a log line has nothing to give away, and comparing two digests
//! takes the same time whatever was typed and however long it was.
//!
//! The file is read again every second: Kubernetes rewrites it when the Secret behind it changes. Connections that
//! are authenticated stay so, as they do when Redis changes `requirepass`.

use std::fmt;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The password that clients must give.
#[derive(Clone)]
pub struct Secret {
    digest: [u8; 32],
}

/// How often the file is read again.
const REREAD: Duration = Duration::from_secs(1);

/// The password at this moment.
#[derive(Debug)]
pub struct LiveSecret(RwLock<Secret>);

impl LiveSecret {
    /// Begins with that one.
    pub fn new(secret: Secret) -> Self {
        Self(RwLock::new(secret))
    }

    /// Whether this is the password now.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.read().matches(candidate)
    }

    /// Takes another one. Returns whether it is another.
    fn replace(&self, secret: Secret) -> bool {
        let mut now = self.0.write();
        let changed = now.digest != secret.digest;
        *now = secret;
        changed
    }

    /// Follows the file until told to stop. While the file is missing or empty, the last password holds.
    pub async fn follow(&self, path: &Path, stop: CancellationToken) {
        let mut problem = None;
        while stop
            .run_until_cancelled(tokio::time::sleep(REREAD))
            .await
            .is_some()
        {
            let now = self.reread(path).err();
            if let Some(error) = now.as_ref().filter(|_| now != problem) {
                warn!(path = %path.display(), error, "the password file can't be used, the last password holds");
            }
            problem = now;
        }
    }

    fn reread(&self, path: &Path) -> Result<(), String> {
        let content = std::fs::read(path).map_err(|error| format!("can't be read: {error}"))?;
        let secret = Secret::from_file_content(&content).map_err(|error| error.to_string())?;
        if self.replace(secret) {
            info!("the password changed; clients that connect from now on must give the new one");
        }
        Ok(())
    }
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
    fn a_changed_file_is_followed_and_a_spoilt_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let secret = LiveSecret::new(Secret::from_file_content(b"old").unwrap());
        for (content, is_usable, holds) in [
            ("new\n", true, "new"),
            ("", false, "new"),
            ("newer", true, "newer"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(secret.reread(&path).is_ok(), is_usable, "{content:?}");
            assert!(secret.matches(holds.as_bytes()), "{content:?}");
            assert!(!secret.matches(b"old"));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(secret.reread(&path).is_err());
        assert!(
            secret.matches(b"newer"),
            "the last one holds while the file is missing"
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(
            format!("{:?}", Some(Secret::from_file_content(b"sesame").unwrap())),
            "Some([redacted])"
        );
    }
}
