//! The identities that ring documents and peer messages carry, each a type of its own.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Why a text is not the identity that it was read as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A name is a DNS label: it becomes part of pod names and host names.
    #[error(
        "{what} {text:?} must be 1 to {max} characters of a-z, 0-9 and '-', starting and ending with a letter or digit"
    )]
    NotALabel {
        /// Which kind of name.
        what: &'static str,
        /// What was given.
        text: String,
        /// The longest allowed.
        max: usize,
    },
    /// A cluster UID is whatever Kubernetes made, or a name in local mode, but never empty.
    #[error("a cluster UID must be 1 to 64 characters of A-Z, a-z, 0-9 and '-', not {0:?}")]
    NotAClusterUid(String),
    /// An incarnation is 128 bits.
    #[error("an incarnation must be 32 hexadecimal digits, not {0:?}")]
    NotAnIncarnation(String),
}

/// Identifies a cluster for ever: the UID of its `CacheCluster`. Messages of another cluster are refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterUid(String);

impl ClusterUid {
    /// The UID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterUid {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let ok =
            (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::NotAClusterUid(text.to_owned()))
        }
    }
}

/// A member's stable name: the pod's name under Kubernetes. Never an address, since pod IPs are re-used.
/// Cheap to clone: planning holds one for each slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

impl NodeId {
    const LENGTH_MAX: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 40 hexadecimal digits that Redis Cluster clients expect as a node id: the first 160 bits of
    /// SHA-256 over cluster and name, so that it is stable over restarts and never the same in two clusters.
    pub fn wire_id(&self, cluster: &ClusterUid) -> String {
        let digest = Sha256::new()
            .chain_update(cluster.0.as_bytes())
            .chain_update([0])
            .chain_update(self.0.as_bytes())
            .finalize();
        hex(&digest[..20])
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_label(text, Self::LENGTH_MAX) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::NotALabel {
                what: "node id",
                text: text.to_owned(),
                max: Self::LENGTH_MAX,
            })
        }
    }
}

/// A failure domain: the value of the node label `topology.kubernetes.io/zone`. Any text that a label may hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Zone(pub String);

/// One life of a node process, drawn at boot. A container restarted in place is a new incarnation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(pub u128);

impl Incarnation {
    /// The 16 bytes that peer messages carry, most significant first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads the bytes of a peer message; `None` unless there are exactly 16.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes
            .try_into()
            .ok()
            .map(|bytes| Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

impl FromStr for Incarnation {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let value = if digits {
            u128::from_str_radix(text, 16).ok()
        } else {
            None
        };
        value
            .map(Self)
            .ok_or_else(|| IdError::NotAnIncarnation(text.to_owned()))
    }
}

/// The version of the ring. It only grows; 0 is "no ring yet" and never the epoch of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of a node that has no ring yet.
    pub const NONE: Self = Self(0);

    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A member's share of the ring relative to the others': twice the weight, twice the slots. At least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(pub std::num::NonZeroU16);

impl Weight {
    /// The weight of a pool that says nothing about it.
    pub const DEFAULT: Self = Self(std::num::NonZeroU16::new(100).unwrap());
}

impl Default for Weight {
    fn default() -> Self {
        Self::DEFAULT
    }
}

fn is_label(text: &str, length_max: usize) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=length_max).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn hex(bytes: &[u8]) -> String {
    let digits =
        |byte: &u8| [byte >> 4, byte & 15].map(|nibble| char::from(b"0123456789abcdef"[usize::from(nibble)]));
    bytes.iter().flat_map(digits).collect()
}

macro_rules! text_identity {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.to_string()
            }
        }
    )+};
}

text_identity!(ClusterUid, NodeId);

impl TryFrom<String> for Incarnation {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.to_string()
    }
}
