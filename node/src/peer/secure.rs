//! The node's own certificate for peers, from files that are followed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::certificate::CertificateError;
use annulus_proto::credentials::{LiveCredentials, PeerCredentials, PeerPem};
use annulus_proto::identity::PeerIdentity;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::tls::{Followed, ReadError};

/// The files of a pod that has just begun may be on their way.
const FILES_PATIENCE: Duration = Duration::from_mins(2);
const FILES_LOOK: Duration = Duration::from_millis(100);

/// Where certificate and key are, and whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTlsFiles {
    /// This node's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The cluster's authorities.
    pub authorities: PathBuf,
}

/// What the node proves itself with.
pub struct OwnCredentials {
    files: PeerTlsFiles,
    identity: PeerIdentity,
    /// The newest.
    pub live: Arc<LiveCredentials>,
}

impl OwnCredentials {
    /// Reads the files, which must name `identity`; waits for them where they are missing.
    pub async fn load(files: PeerTlsFiles, identity: PeerIdentity) -> Result<Self, ReadError> {
        let began = tokio::time::Instant::now();
        let mut told = false;
        let contents = loop {
            match files.followed().read() {
                Err(ReadError::File { path, source })
                    if source.kind() == std::io::ErrorKind::NotFound && began.elapsed() < FILES_PATIENCE =>
                {
                    if !told {
                        warn!(path = %path.display(), "waiting for the certificate for peers");
                        told = true;
                    }
                    tokio::time::sleep(FILES_LOOK).await;
                }
                outcome => break outcome?,
            }
        };
        let credentials =
            read(&identity, &contents).map_err(|error| ReadError::Content(error.to_string()))?;
        Ok(Self {
            files,
            identity,
            live: Arc::new(LiveCredentials::new(credentials)),
        })
    }

    /// The same; the files are followed from now on, until `stop`.
    pub async fn start(
        files: PeerTlsFiles,
        identity: PeerIdentity,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, ReadError> {
        let own = Arc::new(Self::load(files, identity).await?);
        let followed = Arc::clone(&own);
        tokio::spawn(async move { followed.follow(stop).await });
        Ok(own)
    }

    /// Follows the files until told to stop.
    pub async fn follow(&self, stop: CancellationToken) {
        let take = |contents: &[Vec<u8>]| {
            self.live.replace(read(&self.identity, contents)?);
            Ok::<_, CertificateError>(())
        };
        self.files
            .followed()
            .follow("the certificate for peers", stop, take)
            .await;
    }

    /// Until when the certificate is valid, in seconds since the Unix epoch.
    pub fn valid_until_s(&self) -> Option<i64> {
        self.live.now().validity.map(|validity| validity.until_s)
    }
}

impl PeerTlsFiles {
    fn followed(&self) -> Followed {
        Followed::new(vec![
            self.certificate.clone(),
            self.key.clone(),
            self.authorities.clone(),
        ])
    }
}

fn read(identity: &PeerIdentity, contents: &[Vec<u8>]) -> Result<PeerCredentials, CertificateError> {
    let content = |index: usize| contents.get(index).map(Vec::as_slice).unwrap_or_default();
    let pem = PeerPem {
        certificate: content(0),
        key: content(1),
        authorities: content(2),
    };
    PeerCredentials::from_pem(identity, pem)
}
