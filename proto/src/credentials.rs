//! What one end of a peer connection proves itself with, and how it checks the other end.
//!
//! Both ends show a certificate that the cluster's authorities have signed and that names who they are. The server
//! accepts everybody of its own cluster; which messages each of them may send is for the service to say, by
//! [`PeerStream::identity`]. The client accepts exactly the one that it meant. Sessions are never resumed: a resumed
//! one would not be checked again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use annulus_ring::ClusterUid;
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{
    CertificateError as Refused, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tonic::transport::Uri;
use tonic::transport::server::Connected;
use tower::Service;

use crate::certificate::{self, CertificateError, Validity};
use crate::identity::{IdentityError, PeerIdentity};

/// A name has to be given; it is not looked at.
const ANY_NAME: &str = "annulus";

/// The cipher suites and signatures of all connections.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The texts that credentials are read from.
#[derive(Clone, Copy)]
pub struct PeerPem<'a> {
    /// The own certificate, and whatever is between it and the authority.
    pub certificate: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
    /// The cluster's authorities.
    pub authorities: &'a [u8],
}

/// The own identity with its key, and whose signatures count.
pub struct PeerCredentials {
    own: PeerIdentity,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    server: Arc<ServerConfig>,
    /// When the own certificate is valid.
    pub validity: Option<Validity>,
}

impl PeerCredentials {
    /// Reads credentials that are to name `own`.
    pub fn from_pem(own: &PeerIdentity, pem: PeerPem<'_>) -> Result<Self, CertificateError> {
        let chain = certificate::certificates("the certificate", pem.certificate)?;
        let key = certificate::private_key("the key", pem.key)?;
        let roots = Arc::new(certificate::authorities("the CA bundle", pem.authorities)?);
        let found = PeerIdentity::of_certificate(&chain[0])?;
        if found != *own {
            let expected = own.clone();
            return Err(IdentityError::Other { expected, found }.into());
        }
        let unusable = |error: rustls::server::VerifierBuilderError| {
            CertificateError::Unusable(rustls::Error::General(error.to_string()))
        };
        let signed = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(unusable)?;
        let verifier = OfCluster {
            signed,
            cluster: own.cluster().clone(),
        };
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain.clone(), key.clone_key())?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self {
            own: own.clone(),
            validity: Validity::of(&chain[0]),
            chain,
            key,
            roots,
            server: Arc::new(server),
        })
    }

    /// Who they name.
    pub fn own(&self) -> &PeerIdentity {
        &self.own
    }

    fn client_config(&self, peer: &PeerIdentity) -> Result<ClientConfig, rustls::Error> {
        let verifier = ExactlyThat {
            roots: Arc::clone(&self.roots),
            peer: peer.clone(),
            provider: provider(),
        };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config)
    }
}

/// Credentials that are replaced while connections are open: each new connection uses the newest.
pub struct LiveCredentials(RwLock<Arc<PeerCredentials>>);

impl LiveCredentials {
    /// Begins with those.
    pub fn new(credentials: PeerCredentials) -> Self {
        Self(RwLock::new(Arc::new(credentials)))
    }

    /// The newest.
    pub fn now(&self) -> Arc<PeerCredentials> {
        Arc::clone(&self.0.read())
    }

    /// Uses these from now on.
    pub fn replace(&self, credentials: PeerCredentials) {
        *self.0.write() = Arc::new(credentials);
    }

    /// Takes a connection as a server; whoever it is has an identity of the same cluster. The caller limits how long it
    /// may take.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<PeerStream> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.now().server));
        let stream = acceptor.accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificate = certificates
            .first()
            .ok_or_else(|| io::Error::other(IdentityError::Missing))?;
        let identity = PeerIdentity::of_certificate(certificate).map_err(io::Error::other)?;
        Ok(PeerStream::Secure {
            stream: Box::new(stream),
            identity: Arc::new(identity),
        })
    }

    /// Connects to the address, where exactly that peer must answer. The caller limits how long it may take.
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        peer: &PeerIdentity,
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let config = self.now().client_config(peer).map_err(io::Error::other)?;
        let name = ServerName::try_from(ANY_NAME).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

/// What a tonic endpoint connects with: `connect` as a service that doesn't look at the URI.
pub fn connector(
    credentials: Arc<LiveCredentials>,
    host: String,
    port: u16,
    peer: PeerIdentity,
) -> impl Service<
    Uri,
    Response = TokioIo<client::TlsStream<TcpStream>>,
    Error = io::Error,
    Future = impl Future<Output = io::Result<TokioIo<client::TlsStream<TcpStream>>>> + Send + use<>,
> + Clone
+ Send
+ use<> {
    tower::service_fn(move |_: Uri| {
        let (credentials, host, peer) = (Arc::clone(&credentials), host.clone(), peer.clone());
        async move { credentials.connect(&host, port, &peer).await.map(TokioIo::new) }
    })
}

/// A connection that a server has accepted.
pub enum PeerStream {
    /// Without TLS: what the sender says of itself is believed.
    Plain(TcpStream),
    /// With an identity that was checked.
    Secure {
        /// The connection.
        stream: Box<server::TlsStream<TcpStream>>,
        /// Who is at its other end.
        identity: Arc<PeerIdentity>,
    },
}

/// Who is at the other end of the connection that a request came on: an extension of each request.
#[derive(Debug, Clone)]
pub struct Caller(pub Option<Arc<PeerIdentity>>);

impl PeerStream {
    /// Who is at the other end, where that was checked.
    pub fn identity(&self) -> Option<&Arc<PeerIdentity>> {
        match self {
            Self::Plain(_) => None,
            Self::Secure { identity, .. } => Some(identity),
        }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller(self.identity().cloned())
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Secure { stream, .. } => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Secure { stream, .. } => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Secure { stream, .. } => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Secure { stream, .. } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Secure { stream, .. } => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Secure { stream, .. } => Pin::new(stream).poll_shutdown(context),
        }
    }
}

fn refused(error: IdentityError) -> rustls::Error {
    rustls::Error::InvalidCertificate(Refused::Other(OtherError(Arc::new(error))))
}

/// A server's check: signed by an authority, and somebody of this cluster.
#[derive(Debug)]
struct OfCluster {
    signed: Arc<dyn ClientCertVerifier>,
    cluster: ClusterUid,
}

impl ClientCertVerifier for OfCluster {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.signed.verify_client_cert(end_entity, intermediates, now)?;
        let found = PeerIdentity::of_certificate(end_entity).map_err(refused)?;
        if *found.cluster() == self.cluster {
            Ok(ClientCertVerified::assertion())
        } else {
            let (expected, found) = (self.cluster.clone(), found.cluster().clone());
            Err(refused(IdentityError::OtherCluster { expected, found }))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// A client's check: signed by an authority, and exactly that peer.
#[derive(Debug)]
struct ExactlyThat {
    roots: Arc<RootCertStore>,
    peer: PeerIdentity,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ExactlyThat {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let found = PeerIdentity::of_certificate(end_entity).map_err(refused)?;
        if found == self.peer {
            Ok(ServerCertVerified::assertion())
        } else {
            let expected = self.peer.clone();
            Err(refused(IdentityError::Other { expected, found }))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
