//! TLS for clients: which certificate they are shown, and which they must show.
//!
//! The files are followed: Kubernetes swaps them when a Secret changes. Handshakes from then on use the new
//! certificate, connections that are open go on with what they began with. Files that can't be used change nothing:
//! the last good ones hold, and a warning says so once.

mod files;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::certificate::{CertificateError, Validity, authorities, certificates, private_key};
use annulus_proto::credentials::provider;
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

pub use files::{Followed, ReadError};
pub use stream::ClientStream;

/// How long a client may take for its handshake. It counts as connected meanwhile, so that there are never more
/// handshakes than clients may be.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ClientAuth {
    /// None is asked for.
    None,
    /// One that is shown must be good.
    Optional,
    /// Who shows none is refused.
    Required,
}

/// Where certificate and key are, and whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// The certificate that clients are shown, and whatever is between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs clients' certificates, and whether they must have one. Never with [`ClientAuth::None`].
    pub clients: Option<(PathBuf, ClientAuth)>,
}

/// What clients are shown at this moment.
pub struct ClientTls {
    files: ClientTlsFiles,
    now: RwLock<Shown>,
}

struct Shown {
    config: Arc<ServerConfig>,
    validity: Option<Validity>,
}

impl ClientTls {
    /// Reads the files for the first time.
    pub fn load(files: ClientTlsFiles) -> Result<Self, ReadError> {
        let contents = files.followed().read()?;
        let now = files
            .shown(&contents)
            .map_err(|error| ReadError::Content(error.to_string()))?;
        Ok(Self {
            files,
            now: RwLock::new(now),
        })
    }

    /// The same; the files are followed from now on, until `stop`.
    pub fn start(files: ClientTlsFiles, stop: CancellationToken) -> Result<Arc<Self>, ReadError> {
        let tls = Arc::new(Self::load(files)?);
        let followed = Arc::clone(&tls);
        tokio::spawn(async move { followed.follow(stop).await });
        Ok(tls)
    }

    /// Follows the files until told to stop.
    pub async fn follow(&self, stop: CancellationToken) {
        let take = |contents: &[Vec<u8>]| {
            *self.now.write() = self.files.shown(contents)?;
            Ok::<_, CertificateError>(())
        };
        self.files
            .followed()
            .follow("the certificate for clients", stop, take)
            .await;
    }

    /// Until when the certificate is valid, in seconds since the Unix epoch.
    pub fn valid_until_s(&self) -> Option<i64> {
        self.now.read().validity.map(|validity| validity.until_s)
    }

    /// Takes a connection. `None` when the client can't or won't, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.now.read().config));
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        handshake.await.ok()?.ok()
    }
}

impl ClientTlsFiles {
    fn followed(&self) -> Followed {
        let mut paths = vec![self.certificate.clone(), self.key.clone()];
        paths.extend(self.clients.iter().map(|(path, _)| path.clone()));
        Followed::new(paths)
    }

    fn shown(&self, contents: &[Vec<u8>]) -> Result<Shown, CertificateError> {
        let content = |index: usize| contents.get(index).map(Vec::as_slice).unwrap_or_default();
        let chain = certificates("--tls-cert", content(0))?;
        let key = private_key("--tls-key", content(1))?;
        let validity = chain.first().and_then(Validity::of);
        let builder =
            ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13, &TLS12])?;
        let builder = match self.clients {
            None | Some((_, ClientAuth::None)) => builder.with_no_client_auth(),
            Some((_, auth)) => {
                let roots = authorities("--tls-client-ca", content(2))?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                let verifier = match auth {
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                    ClientAuth::None | ClientAuth::Required => verifier,
                };
                let verifier = verifier
                    .build()
                    .map_err(|error| CertificateError::Unusable(rustls::Error::General(error.to_string())))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(chain, key)?;
        Ok(Shown {
            config: Arc::new(config),
            validity,
        })
    }
}
