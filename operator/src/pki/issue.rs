//! An authority: makes certificates, and recognizes those that it made.

use std::net::IpAddr;
use std::time::Duration;

use annulus_proto::certificate::{Validity, certificates};
use annulus_ring::ClusterUid;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};

use super::{AUTHORITY_LIFE, LEAF_LIFE, SKEW, is_due, seconds, validity};

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// By a node to clients.
    Server,
    /// By a client to nodes.
    Client,
    /// By nodes and operator to each other.
    Peer,
}

/// An authority with its key.
pub(super) struct Authority {
    pub(super) pem: String,
    pub(super) validity: Validity,
    issuer: Issuer<'static, KeyPair>,
    own: CertificateDer<'static>,
}

impl Authority {
    /// A new one.
    pub(super) fn create(cluster: &ClusterUid, now_s: i64) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = params(cluster, now_s);
        set_life(&mut params, now_s, seconds(AUTHORITY_LIFE))?;
        let certificate = params.self_signed(&key)?;
        Self::of(cluster, certificate.pem(), key).ok_or(rcgen::Error::CouldNotParseCertificate)
    }

    /// Those of two texts, in which the same order has what belongs together. What can't be read is left out: it is made
    /// anew.
    pub(super) fn read(cluster: &ClusterUid, certificates_pem: &[u8], keys_pem: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(certificates_pem);
        let stored = text.split_inclusive("-----END CERTIFICATE-----\n");
        let keys = PrivatePkcs8KeyDer::pem_slice_iter(keys_pem).filter_map(Result::ok);
        stored
            .zip(keys)
            .filter_map(|(pem, key)| Self::of(cluster, pem.to_owned(), KeyPair::try_from(&key).ok()?))
            .collect()
    }

    fn of(cluster: &ClusterUid, pem: String, key: KeyPair) -> Option<Self> {
        let found = certificates("the authority", pem.as_bytes()).ok()?;
        let [certificate] = found.as_slice() else {
            return None;
        };
        let validity = Validity::of(certificate)?;
        let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
        if parsed.subject_public_key_info().as_ref() != key.subject_public_key_info() {
            return None;
        }
        Some(Self {
            issuer: Issuer::new(params(cluster, validity.from_s + seconds(SKEW)), key),
            validity,
            pem,
            own: certificate.clone(),
        })
    }

    /// When it was made.
    pub(super) fn created_s(&self) -> i64 {
        self.validity.from_s + seconds(SKEW)
    }

    /// Its key.
    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate with these names, and its key.
    pub(super) fn sign(
        &self,
        names: &[String],
        purpose: Purpose,
        now_s: i64,
    ) -> Result<[String; 2], rcgen::Error> {
        let (uris, hosts): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().cloned().collect();
        let mut params = CertificateParams::new(hosts)?;
        for uri in uris {
            let uri = uri.as_str().try_into()?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.distinguished_name = DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match purpose {
            Purpose::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Peer => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        params.use_authority_key_identifier_extension = true;
        set_life(&mut params, now_s, seconds(LEAF_LIFE))?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok([certificate.pem(), key.serialize_pem()])
    }

    /// Whether it signed this certificate for these names, and its time to be made anew has not come.
    pub(super) fn signed(&self, pem: &[u8], names: &[String], purpose: Purpose, now_s: i64) -> bool {
        let Some(life) = validity(pem) else { return false };
        let Ok(chain) = certificates("stored", pem) else {
            return false;
        };
        let Some(Ok(certificate)) = chain.first().map(webpki::EndEntityCert::try_from) else {
            return false;
        };
        let uris = certificate.valid_uri_names();
        let mut found: Vec<&str> = certificate.valid_dns_names().chain(uris).collect();
        let (addresses, mut expected): (Vec<_>, Vec<&str>) = names
            .iter()
            .map(String::as_str)
            .partition(|name| name.parse::<IpAddr>().is_ok());
        // One that is no longer used may stay until the next renewal: nobody is sent there.
        let has_all = addresses.into_iter().all(|address| {
            let name = ServerName::try_from(address);
            name.is_ok_and(|name| certificate.verify_is_valid_for_subject_name(&name).is_ok())
        });
        found.sort_unstable();
        expected.sort_unstable();
        has_all && found == expected && !is_due(life, now_s) && self.vouches_for(&certificate, purpose, now_s)
    }

    fn vouches_for(&self, certificate: &webpki::EndEntityCert<'_>, purpose: Purpose, now_s: i64) -> bool {
        let Ok(anchor) = webpki::anchor_from_trusted_cert(&self.own) else {
            return false;
        };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s.unsigned_abs()));
        let usage = match purpose {
            Purpose::Client => webpki::KeyUsage::client_auth(),
            Purpose::Server | Purpose::Peer => webpki::KeyUsage::server_auth(),
        };
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let anchors = [anchor];
        let verified = certificate.verify_for_usage(algorithms.all, &anchors, &[], now, usage, None, None);
        verified.is_ok()
    }
}

/// What an authority says of itself. Two of one cluster have different names, so that what they signed can be told apart.
fn params(cluster: &ClusterUid, created_s: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = format!("annulus {cluster} {created_s}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn set_life(params: &mut CertificateParams, now_s: i64, life_s: i64) -> Result<(), rcgen::Error> {
    let since_1970 = |s: i64| {
        u64::try_from(s)
            .map(Duration::from_secs)
            .map_err(|_| rcgen::Error::Time)
    };
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_1970(now_s - seconds(SKEW))?;
    params.not_after = epoch + since_1970(now_s + life_s)?;
    Ok(())
}
