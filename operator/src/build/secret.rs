//! The Secret `<cluster>-auth` of a cluster that asks for a generated password. It is created once and never
//! written again.

use std::collections::BTreeMap;

use annulus_crds::v1alpha1::defaults;
use annulus_proto::tenants::PasswordDigest;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};

use super::metadata;
use crate::validate::ValidCluster;

const PASSWORD_LENGTH: usize = 32;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A password that nobody else has: 32 letters and digits, 190 bits. It has no `Debug`, so that no log shows it.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// A password that was drawn before, and kept in a Secret. One that is shorter was not drawn here.
    pub fn known(text: &str) -> Option<Self> {
        (text.len() >= PASSWORD_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric()))
            .then(|| Self(text.to_owned()))
    }

    /// What nodes know of it.
    pub fn digest(&self) -> PasswordDigest {
        PasswordDigest(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The password itself, for where it is kept.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Draws a password from bytes that `fill` draws at random.
    pub fn draw<E>(mut fill: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut password = String::with_capacity(PASSWORD_LENGTH);
        let mut bytes = [0; 64];
        loop {
            fill(&mut bytes)?;
            // 248 is the largest multiple of 62 below 256: bytes from there on would favour some letters.
            for byte in bytes.into_iter().filter(|byte| *byte < 248) {
                if password.len() == PASSWORD_LENGTH {
                    return Ok(Self(password));
                }
                password.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            }
        }
    }
}

/// The Secret with that name and password.
pub fn build(cluster: &ValidCluster, name: &str, password: Password) -> Secret {
    Secret {
        metadata: metadata(cluster, name.to_owned()),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(
            defaults::AUTH_SECRET_KEY.to_owned(),
            ByteString(password.0.into_bytes()),
        )])),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_32_letters_and_digits_each_equally_likely() {
        let mut counts = BTreeMap::<char, u32>::new();
        let mut state = 1_u32;
        for _ in 0..620 {
            let password = Password::draw(|bytes: &mut [u8]| {
                bytes.fill_with(|| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state.to_be_bytes()[0]
                });
                Ok::<_, ()>(())
            });
            let Ok(Password(text)) = password else {
                panic!("filling can't fail here")
            };
            assert_eq!(text.len(), 32);
            text.chars().for_each(|c| *counts.entry(c).or_default() += 1);
        }
        assert_eq!(counts.len(), 62);
        assert!(counts.keys().all(char::is_ascii_alphanumeric));
        assert!(
            counts.values().all(|count| (256..=384).contains(count)),
            "320 of each: {counts:?}"
        );
    }

    #[test]
    fn without_randomness_there_is_no_password() {
        assert!(Password::draw(|_| Err(())).is_err());
    }
}
