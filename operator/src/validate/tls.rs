//! `spec.tls`, checked and with its defaults.

use annulus_crds::v1alpha1::{CacheClusterSpec, ClientAuth, Tls, TlsMode, defaults};

use super::Mistakes;

/// What is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValidTls {
    /// What clients find; `None` when none are served with TLS.
    pub clients: Option<ValidClientTls>,
    /// Nodes and operator prove to each other who they are.
    pub peers: bool,
}

/// What clients with TLS find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidClientTls {
    /// Whether clients without TLS are served, too.
    pub mode: TlsMode,
    /// Whether they must show a certificate.
    pub auth: ClientAuth,
    /// What they are shown.
    pub secret: TlsSecret,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsSecret {
    /// The cluster's own authority signs it.
    BuiltIn,
    /// The user made it: the name of a Secret.
    Given(String),
}

impl ValidTls {
    /// Whether clients without TLS are served.
    pub fn has_plain_port(&self) -> bool {
        self.clients
            .as_ref()
            .is_none_or(|clients| clients.mode == TlsMode::Both)
    }

    /// The port that clients are told first.
    pub fn first_port(&self) -> u16 {
        if self.clients.is_some() {
            defaults::CLIENT_TLS_PORT
        } else {
            defaults::CLIENT_PORT
        }
    }

    /// The ports for clients, by the names that they have in Services and pods.
    pub fn client_ports(&self) -> Vec<(&'static str, u16)> {
        let plain = self
            .has_plain_port()
            .then_some((PLAIN_PORT, defaults::CLIENT_PORT));
        let secure = self
            .clients
            .as_ref()
            .map(|_| (TLS_PORT, defaults::CLIENT_TLS_PORT));
        plain.into_iter().chain(secure).collect()
    }

    /// The ports of the keys over HTTP, likewise.
    pub fn api_ports(&self) -> Vec<(&'static str, u16)> {
        let plain = self.has_plain_port().then_some(("api", defaults::API_PORT));
        let secure = self.clients.as_ref().map(|_| ("api-tls", defaults::API_TLS_PORT));
        plain.into_iter().chain(secure).collect()
    }
}

/// What the port without TLS is called.
pub const PLAIN_PORT: &str = "client";
/// What the port with TLS is called.
pub const TLS_PORT: &str = "client-tls";

pub(super) fn checked(spec: &CacheClusterSpec) -> ValidTls {
    let tls = spec.tls.clone().unwrap_or_default();
    ValidTls {
        clients: tls.enabled.then(|| ValidClientTls {
            mode: tls.mode.unwrap_or_default(),
            auth: tls.client_auth.unwrap_or_default(),
            secret: tls
                .secret_ref
                .map_or(TlsSecret::BuiltIn, |secret| TlsSecret::Given(secret.name)),
        }),
        peers: tls.peers,
    }
}

pub(super) fn check(spec: &CacheClusterSpec, mistakes: &mut Mistakes) {
    let Some(tls) = &spec.tls else { return };
    let Tls {
        enabled,
        mode,
        secret_ref,
        client_auth,
        peers: _,
    } = tls;
    mistakes.require(
        *enabled || (mode.is_none() && secret_ref.is_none() && client_auth.is_none()),
        "spec.tls.enabled",
        "must be true for mode, secretRef and clientAuth, which are about clients with TLS; or leave those out",
    );
    mistakes.require(
        secret_ref
            .as_ref()
            .is_none_or(|secret| (1..=253).contains(&secret.name.len())),
        "spec.tls.secretRef.name",
        "must name a Secret of this namespace",
    );
}
