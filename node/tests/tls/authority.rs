//! Certificates for tests, and clients that show them.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use annulus_node::tls::{ClientAuth, ClientTlsFiles};
use annulus_proto::certificate::{authorities, certificates, private_key};
use annulus_proto::credentials::provider;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tempfile::TempDir;

use crate::support::Client;

/// A certificate and its key.
pub struct Pem {
    pub certificate: String,
    pub key: String,
}

/// Signs certificates.
pub struct Authority {
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for a host name or an IP address, or for an `annulus://` identity.
    pub fn sign(&self, names: &[&str]) -> Pem {
        let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        Pem {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A folder with files as a mounted Secret has them: `..data` is a link to a folder, and the files are links into that.
pub struct Mounted {
    dir: TempDir,
    versions: usize,
}

impl Mounted {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let mut mounted = Self {
            dir: tempfile::tempdir().unwrap(),
            versions: 0,
        };
        for (name, _) in files {
            let path = mounted.path(name);
            std::os::unix::fs::symlink(Path::new("..data").join(name), path).unwrap();
        }
        mounted.swap(files);
        mounted
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces all files at once.
    pub fn swap(&mut self, files: &[(&str, &str)]) {
        self.versions += 1;
        let version = format!("..{}", self.versions);
        let folder = self.path(&version);
        fs::create_dir(&folder).unwrap();
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
        let link = self.path("..data_tmp");
        std::os::unix::fs::symlink(&version, &link).unwrap();
        fs::rename(link, self.path("..data")).unwrap();
    }

    /// What a node shows clients, and whether they must show something.
    pub fn client_files(&self, auth: ClientAuth) -> ClientTlsFiles {
        ClientTlsFiles {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
            clients: (auth != ClientAuth::None).then(|| (self.path("ca.crt"), auth)),
        }
    }
}

/// A client that trusts these authorities, and shows a certificate or none.
pub fn client_config(authority: &Authority, shown: Option<&Pem>) -> Arc<ClientConfig> {
    let roots = authorities("test", authority.certificate.as_bytes()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match shown {
        None => builder.with_no_client_auth(),
        Some(pem) => builder
            .with_client_auth_cert(
                certificates("test", pem.certificate.as_bytes()).unwrap(),
                private_key("test", pem.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    })
}

pub type SecureClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// A connection with TLS, after its handshake as far as the client is concerned.
pub fn connect(addr: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<SecureClient> {
    let mut socket = TcpStream::connect(addr)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.set_nodelay(true)?;
    let name = "localhost".try_into().unwrap();
    let mut session = ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(Client {
        stream: StreamOwned::new(session, socket),
    })
}
