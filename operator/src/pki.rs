//! The built-in authority of a cluster, and what it signs.
//!
//! [`renew`] is the whole policy, and it looks at the stored certificates alone: there is no other state. It is pure but
//! for the keys that it draws.
//!
//! | certificate | lives | is made anew |
//! | --- | --- | --- |
//! | authority | three years | a second one after two thirds of that; it signs from [`OVERLAP`] later on |
//! | everything signed | 30 days | after two thirds of that, when its names change, or when another authority signs |
//!
//! Every authority that has not expired is trusted. The overlap is the time that everybody has to learn of a new one
//! before anything signed by it is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use annulus_proto::certificate::{CertificateError, Validity, certificates};
use annulus_proto::credentials::{PeerCredentials, PeerPem};
use annulus_proto::identity::PeerIdentity;
use annulus_ring::{ClusterUid, NodeId};

pub mod ensure;
mod issue;

use issue::{Authority, Purpose};

/// Content of a Secret, or of a folder, by key or file name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Names of keys and files.
pub const CERTIFICATE: &str = "tls.crt";
/// The key of that certificate.
pub const KEY: &str = "tls.key";
/// Whose signatures count.
pub const AUTHORITIES: &str = "ca.crt";
/// The keys of the authorities.
pub(crate) const AUTHORITY_KEYS: &str = "ca.key";

const DAY: Duration = Duration::from_hours(24);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3 * 365);
const LEAF_LIFE: Duration = DAY.saturating_mul(30);
/// How long an authority is only known, before it signs.
pub const OVERLAP: Duration = DAY;
/// Clocks that go slow take what was just made.
const SKEW: Duration = Duration::from_hours(1);

/// What a cluster needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which cluster.
    pub cluster: ClusterUid,
    /// Nodes that prove themselves to their peers; none where that isn't wanted.
    pub nodes: BTreeSet<NodeId>,
    /// Host names and IP addresses that clients may know nodes by; empty where clients are not to be shown a certificate.
    pub hosts: Vec<String>,
    /// Clients are to have a certificate.
    pub client: bool,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The authorities with their keys. Nobody but the operator reads these.
    pub authority: Files,
    /// What nodes show clients.
    pub server: Files,
    /// What clients show nodes.
    pub client: Files,
    /// What nodes show each other: two files for each.
    pub peers: Files,
}

/// Why nothing could be signed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// By the library.
    #[error("can't make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// What was just made, or was found, can't be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The file names of a node's certificate and key.
pub fn peer_files(node: &NodeId) -> [String; 2] {
    [format!("{node}.crt"), format!("{node}.key")]
}

/// What there should be at that time, in seconds since 1970; what can stay is the same as in `stored`.
pub fn renew(wanted: &Wanted, stored: &Stored, now_s: i64) -> Result<Stored, PkiError> {
    let authorities = authorities(&wanted.cluster, &stored.authority, now_s)?;
    let issuer = issuer(&authorities, now_s)?;
    let trusted: String = authorities
        .iter()
        .map(|authority| authority.pem.as_str())
        .collect();
    let keys: String = authorities.iter().map(Authority::key_pem).collect();
    let leaf = |stored: &Files, [certificate, key]: [&str; 2], names: &[String], purpose| {
        let pem = [certificate, key].map(|name| stored.get(name).cloned());
        match pem {
            [Some(certificate), Some(key)] if issuer.signed(&certificate, names, purpose, now_s) => {
                Ok::<_, PkiError>([certificate, key])
            }
            _ => Ok(issuer.sign(names, purpose, now_s)?.map(String::into_bytes)),
        }
    };
    let pair = |stored: &Files, names: &[String], purpose| {
        let [certificate, key] = leaf(stored, [CERTIFICATE, KEY], names, purpose)?;
        Ok::<_, PkiError>(Files::from([
            (CERTIFICATE.to_owned(), certificate),
            (KEY.to_owned(), key),
            (AUTHORITIES.to_owned(), trusted.clone().into_bytes()),
        ]))
    };
    let server = match wanted.hosts.as_slice() {
        [] => Files::new(),
        hosts => pair(&stored.server, hosts, Purpose::Server)?,
    };
    let client = if wanted.client {
        pair(
            &stored.client,
            &[format!("client.{}", wanted.cluster)],
            Purpose::Client,
        )?
    } else {
        Files::new()
    };
    let mut peers = Files::new();
    for node in &wanted.nodes {
        let names = peer_files(node);
        let identity = PeerIdentity::Node(wanted.cluster.clone(), node.clone()).to_string();
        let pem = leaf(&stored.peers, [&names[0], &names[1]], &[identity], Purpose::Peer)?;
        peers.extend(names.into_iter().zip(pem));
    }
    if !wanted.nodes.is_empty() {
        peers.insert(AUTHORITIES.to_owned(), trusted.clone().into_bytes());
    }
    Ok(Stored {
        authority: Files::from([
            (AUTHORITIES.to_owned(), trusted.into_bytes()),
            (AUTHORITY_KEYS.to_owned(), keys.into_bytes()),
        ]),
        server,
        client,
        peers,
    })
}

/// The operator's own identity in that cluster, freshly signed; it is nowhere stored.
pub fn operator_credentials(
    cluster: &ClusterUid,
    authority: &Files,
    now_s: i64,
) -> Result<PeerCredentials, PkiError> {
    let authorities = authorities(cluster, authority, now_s)?;
    let identity = PeerIdentity::Operator(cluster.clone());
    let [certificate, key] =
        issuer(&authorities, now_s)?.sign(&[identity.to_string()], Purpose::Peer, now_s)?;
    let trusted: String = authorities
        .iter()
        .map(|authority| authority.pem.as_str())
        .collect();
    let pem = PeerPem {
        certificate: certificate.as_bytes(),
        key: key.as_bytes(),
        authorities: trusted.as_bytes(),
    };
    Ok(PeerCredentials::from_pem(&identity, pem)?)
}

/// Whether two thirds of its life are over.
pub fn is_due(validity: Validity, now_s: i64) -> bool {
    let life_s = validity.until_s - validity.from_s;
    now_s >= validity.from_s + life_s / 3 * 2
}

/// Those that have not expired, oldest first, and one more when the newest has come into its last third.
fn authorities(cluster: &ClusterUid, stored: &Files, now_s: i64) -> Result<Vec<Authority>, PkiError> {
    let mut authorities = Authority::read(
        cluster,
        stored.get(AUTHORITIES).map(Vec::as_slice).unwrap_or_default(),
        stored.get(AUTHORITY_KEYS).map(Vec::as_slice).unwrap_or_default(),
    );
    authorities.retain(|authority| now_s < authority.validity.until_s);
    authorities.sort_by_key(|authority| authority.validity.from_s);
    if authorities
        .last()
        .is_none_or(|newest| is_due(newest.validity, now_s))
    {
        authorities.push(Authority::create(cluster, now_s)?);
    }
    Ok(authorities)
}

/// The newest that everybody has had time to learn of; the oldest, where there is none.
fn issuer(authorities: &[Authority], now_s: i64) -> Result<&Authority, PkiError> {
    let known = |authority: &&Authority| now_s >= authority.created_s() + seconds(OVERLAP);
    let issuer = authorities.iter().rev().find(known).or(authorities.first());
    issuer.ok_or(PkiError::Certificate(CertificateError::Empty("the authorities")))
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// When the certificate of that text is valid.
fn validity(pem: &[u8]) -> Option<Validity> {
    Validity::of(certificates("stored", pem).ok()?.first()?)
}

#[cfg(test)]
mod tests;
