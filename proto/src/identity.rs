//! Who speaks on a peer connection, as its certificate says it.
//!
//! An identity is one URI among a certificate's subject alternative names:
//!
//! ```text
//! annulus://<cluster uid>/node/<node id>
//! annulus://<cluster uid>/operator
//! ```
//!
//! A certificate has exactly one such name; other names in it mean nothing here. Addresses and DNS names are never
//! looked at: pod IPs are re-used.

use std::fmt;
use std::str::FromStr;

use annulus_ring::{ClusterUid, IdError, NodeId};
use rustls::pki_types::CertificateDer;

const SCHEME: &str = "annulus://";

/// Who one end of a peer connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentity {
    /// A node of that cluster.
    Node(ClusterUid, NodeId),
    /// The operator, as that cluster knows it.
    Operator(ClusterUid),
}

/// Why a certificate, or a text, names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not of one of the two forms.
    #[error("{0:?} is no identity; it is annulus://CLUSTER/node/NODE or annulus://CLUSTER/operator")]
    Form(String),
    /// A part of it is no name.
    #[error(transparent)]
    Name(#[from] IdError),
    /// A certificate that was made for something else.
    #[error("the certificate names no annulus:// identity")]
    Missing,
    /// One must be enough.
    #[error("the certificate names more than one annulus:// identity")]
    Several,
    /// Not a certificate.
    #[error("the certificate can't be read: {0}")]
    Unreadable(webpki::Error),
    /// A valid certificate of somebody else's cluster.
    #[error("the certificate is for cluster {found}, not for {expected}")]
    OtherCluster {
        /// The cluster that was expected.
        expected: ClusterUid,
        /// The certificate's.
        found: ClusterUid,
    },
    /// A valid certificate of somebody else.
    #[error("the certificate is for {found}, not for {expected}")]
    Other {
        /// Who was expected.
        expected: PeerIdentity,
        /// Who it is.
        found: PeerIdentity,
    },
}

impl PeerIdentity {
    /// The cluster that it belongs to.
    pub fn cluster(&self) -> &ClusterUid {
        match self {
            Self::Node(cluster, _) | Self::Operator(cluster) => cluster,
        }
    }

    /// The node's name; `None` for an operator.
    pub fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Node(_, node) => Some(node),
            Self::Operator(_) => None,
        }
    }

    /// Who the certificate names.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let certificate = webpki::EndEntityCert::try_from(certificate).map_err(IdentityError::Unreadable)?;
        let mut names = certificate
            .valid_uri_names()
            .filter(|name| name.starts_with(SCHEME));
        let name = names.next().ok_or(IdentityError::Missing)?;
        if names.next().is_some() {
            return Err(IdentityError::Several);
        }
        name.parse()
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(cluster, node) => write!(f, "{SCHEME}{cluster}/node/{node}"),
            Self::Operator(cluster) => write!(f, "{SCHEME}{cluster}/operator"),
        }
    }
}

impl FromStr for PeerIdentity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let form = || IdentityError::Form(text.to_owned());
        let parts: Vec<&str> = text.strip_prefix(SCHEME).ok_or_else(form)?.split('/').collect();
        match parts[..] {
            [cluster, "node", node] => Ok(Self::Node(cluster.parse()?, node.parse()?)),
            [cluster, "operator"] => Ok(Self::Operator(cluster.parse()?)),
            _ => Err(form()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_text_that_it_was_read_from() {
        for text in ["annulus://c-1/node/demo-0", "annulus://c-1/operator"] {
            assert_eq!(text.parse::<PeerIdentity>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "c-1/operator",
            "spiffe://c-1/operator",
            "annulus://c-1",
            "annulus://c-1/",
            "annulus://c-1/operator/",
            "annulus://c-1/node/",
            "annulus://c-1/node/a/b",
            "annulus:///operator",
            "annulus://c-1/node/A",
        ] {
            assert!(text.parse::<PeerIdentity>().is_err(), "{text:?}");
        }
    }
}
