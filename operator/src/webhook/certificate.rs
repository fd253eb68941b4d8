//! The webhook's certificate, in a Secret that all replicas share: whoever comes first makes it, all of them show it, and
//! any of them renews it. Its policy is that of the clusters' own certificates, [`crate::pki::renew`]: an authority gets its
//! successor long before it ends, both are trusted meanwhile, and the successor signs a day later.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::certificate::{CertificateError, certificates, private_key};
use annulus_proto::credentials::provider;
use annulus_ring::ClusterUid;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt as _};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::build::MANAGED_BY;
use crate::drift::FIELD_MANAGER;
use crate::metrics::Metrics;
use crate::pki::{AUTHORITIES, AUTHORITY_KEYS, CERTIFICATE, Files, KEY, PkiError, Stored, Wanted, renew};

/// How often the Secret is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Names the authorities; it is no cluster's.
const AUTHORITY: &str = "webhook";
/// Replicas that write at the same time look again at what the other one wrote.
const ATTEMPTS: u32 = 5;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The API server didn't do it.
    #[error("can't {verb} Secret {name}: {source}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// The Secret.
        name: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// Somebody else's Secret.
    #[error("Secret {0} is not the operator's: delete it, or install the chart under another name")]
    NameTaken(String),
    /// Other replicas change it all the time.
    #[error("Secret {0} changes all the time")]
    Changing(String),
    /// It can't be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// It can't be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Its key can't be used.
    #[error("the key can't be used: {0}")]
    Key(#[from] rustls::Error),
}

/// The certificate that new connections are shown; replaced while connections are open.
#[derive(Default)]
pub struct LiveCertificate(RwLock<Option<Arc<CertifiedKey>>>);

impl fmt::Debug for LiveCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveCertificate").finish_non_exhaustive()
    }
}

impl LiveCertificate {
    /// How connections are taken, with the certificate of their time.
    pub fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        // The versions of the provider itself are always possible.
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        #[expect(clippy::expect_used, reason = "ring has cipher suites for TLS 1.2 and 1.3")]
        let builder = builder.expect("no protocol version is possible");
        let mut config = builder
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Shows that one from now on.
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), KeepError> {
        let chain = certificates("the webhook's certificate", certificate)?;
        let key = private_key("the webhook's key", key)?;
        let certified = CertifiedKey::from_der(chain, key, &provider())?;
        *self.0.write() = Some(Arc::new(certified));
        Ok(())
    }
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

/// Keeps the Secret, and what is shown of it.
pub struct Keeper {
    /// The Kubernetes API.
    pub client: Client,
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// What the API server calls the webhook.
    pub hosts: Vec<String>,
    /// What connections are shown.
    pub live: Arc<LiveCertificate>,
    /// Whom to trust: PEM.
    pub authorities: watch::Sender<Option<String>>,
    /// What is measured.
    pub metrics: Metrics,
}

impl Keeper {
    /// Looks at the Secret all the time.
    pub async fn keep(&self) {
        let mut shown = Files::new();
        loop {
            let pause = match self.look(&mut shown, Timestamp::now().as_second()).await {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    warn!(%error, "the webhook's certificate");
                    AGAIN_AFTER
                }
            };
            sleep(pause).await;
        }
    }

    /// Makes the Secret hold what it should at that time, in seconds since 1970, and shows it where it is not what was
    /// `shown` last.
    pub async fn look(&self, shown: &mut Files, now_s: i64) -> Result<(), KeepError> {
        for _ in 0..ATTEMPTS {
            let found = self.read().await?;
            let before = found.as_ref().map(content).unwrap_or_default();
            let after = self.renewed(&before, now_s)?;
            if before != after && !self.write(found, &after).await? {
                continue;
            }
            if *shown != after {
                self.live.replace(&after[CERTIFICATE], &after[KEY])?;
                let authorities = String::from_utf8_lossy(&after[AUTHORITIES]).into_owned();
                self.authorities.send_replace(Some(authorities));
                info!(secret = self.secret, "showing a new certificate of the webhook");
                *shown = after;
            }
            return Ok(());
        }
        Err(KeepError::Changing(self.secret.clone()))
    }

    fn renewed(&self, before: &Files, now_s: i64) -> Result<Files, KeepError> {
        let some = |keys: &[&str]| -> Files {
            let wanted = before.iter().filter(|(key, _)| keys.contains(&key.as_str()));
            wanted.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let stored = Stored {
            authority: some(&[AUTHORITIES, AUTHORITY_KEYS]),
            server: some(&[CERTIFICATE, KEY, AUTHORITIES]),
            ..Stored::default()
        };
        let cluster: ClusterUid = AUTHORITY
            .parse()
            .map_err(|_| PkiError::Certificate(CertificateError::Empty("the authority's name")))?;
        let wanted = Wanted {
            cluster,
            nodes: std::collections::BTreeSet::new(),
            hosts: self.hosts.clone(),
            client: false,
        };
        let next = renew(&wanted, &stored, now_s)?;
        Ok(next.authority.into_iter().chain(next.server).collect())
    }

    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn failed(&self, verb: &'static str, source: kube::Error) -> KeepError {
        KeepError::Api {
            verb,
            name: self.secret.clone(),
            source: Box::new(source),
        }
    }

    async fn read(&self) -> Result<Option<Secret>, KeepError> {
        let found = self.api().get_opt(&self.secret).await;
        let found = found.map_err(|error| self.failed("get", error))?;
        let is_own =
            |secret: &Secret| secret.labels().get(MANAGED_BY.0).map(String::as_str) == Some(MANAGED_BY.1);
        match found {
            Some(secret) if !is_own(&secret) => Err(KeepError::NameTaken(self.secret.clone())),
            found => Ok(found),
        }
    }

    /// Creates the Secret, or replaces exactly the one that was read. Returns false if somebody else was faster.
    async fn write(&self, found: Option<Secret>, content: &Files) -> Result<bool, KeepError> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let data = content.iter();
        let data = data.map(|(key, value)| (key.clone(), ByteString(value.clone())));
        let data = Some(data.collect());
        let (verb, written) = if let Some(mut secret) = found {
            secret.data = data;
            let replaced = self.api().replace(&self.secret, &params, &secret).await;
            ("replace", replaced)
        } else {
            let labels = [("app.kubernetes.io/name", "annulus"), MANAGED_BY];
            let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(self.secret.clone()),
                    namespace: Some(self.namespace.clone()),
                    labels: Some(labels.into()),
                    ..ObjectMeta::default()
                },
                type_: Some("Opaque".to_owned()),
                data,
                ..Secret::default()
            };
            ("create", self.api().create(&params, &secret).await)
        };
        self.metrics.wrote("Secret", verb);
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(self.failed(verb, error)),
        }
    }
}

fn content(secret: &Secret) -> Files {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), value.0.clone())).collect()
}
