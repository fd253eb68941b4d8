//! The certificates of the local mode: what Kubernetes has as Secrets, as folders of `--state-dir`.
//!
//! ```text
//! DIR/tls/authority/{ca.crt,ca.key}
//! DIR/tls/server/{tls.crt,tls.key,ca.crt}   what nodes show clients
//! DIR/tls/client/{tls.crt,tls.key,ca.crt}   what clients show nodes, where they must
//! DIR/tls/peers/{<node>.crt,<node>.key,ca.crt}
//! ```

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::ClientAuth;
use annulus_proto::credentials::LiveCredentials;
use annulus_ring::NodeId;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::replace::replace;
use crate::pki::{self, AUTHORITIES, CERTIFICATE, Files, KEY, Stored, Wanted, ensure::wanted};
use crate::validate::{TlsSecret, ValidCluster, ValidTls};

/// How often it is looked whether something is to be made anew.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// The folder, and what it was last seen to have.
pub(super) struct Certificates {
    state_dir: Option<PathBuf>,
    kept: Option<(Wanted, Instant)>,
    own: Option<Arc<LiveCredentials>>,
}

impl Certificates {
    pub(super) fn new(state_dir: Option<PathBuf>) -> Self {
        Self {
            state_dir,
            kept: None,
            own: None,
        }
    }

    /// What the operator proves itself with.
    pub(super) fn own(&self) -> Option<&Arc<LiveCredentials>> {
        self.own.as_ref()
    }

    /// Makes the folder have what those nodes need; the error says what to put right.
    pub(super) fn keep(&mut self, cluster: &ValidCluster, nodes: BTreeSet<NodeId>) -> Result<(), String> {
        let wanted = wanted(cluster, nodes, &BTreeSet::new());
        if let Some(tls) = &cluster.tls.clients
            && tls.secret != TlsSecret::BuiltIn
        {
            return Err("tls.secretRef names a Secret, which only Kubernetes has: leave it out".to_owned());
        }
        if wanted.nodes.is_empty() && wanted.hosts.is_empty() {
            return Ok(());
        }
        let fresh = |(kept, at): &(Wanted, Instant)| *kept == wanted && at.elapsed() < LOOK_INTERVAL;
        if self.kept.as_ref().is_some_and(fresh) {
            return Ok(());
        }
        let Some(dir) = self.dir() else {
            return Err("tls needs a place for its keys: name one with --state-dir DIR".to_owned());
        };
        let now_s = Timestamp::now().as_second();
        let kept = keep_in(&dir, &wanted, now_s);
        let authority = kept.map_err(|problem| format!("{}: {problem}", dir.display()))?;
        if cluster.tls.peers {
            let own = pki::operator_credentials(&wanted.cluster, &authority, now_s);
            let own = own.map_err(|error| error.to_string())?;
            match &self.own {
                Some(live) => live.replace(own),
                None => self.own = Some(Arc::new(LiveCredentials::new(own))),
            }
        }
        self.kept = Some((wanted, Instant::now()));
        Ok(())
    }

    fn dir(&self) -> Option<PathBuf> {
        let dir = self.state_dir.as_ref()?;
        // Processes are told paths; theirs begin where this one's do, and symbolic links may change.
        Some(
            std::path::absolute(dir)
                .unwrap_or_else(|_| dir.clone())
                .join("tls"),
        )
    }

    /// The flags of a node's process.
    pub(super) fn arguments(&self, tls: &ValidTls, id: &NodeId, tls_bind: &str) -> Vec<OsString> {
        let Some(dir) = self.dir() else {
            return Vec::new();
        };
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: OsString| arguments.extend([flag.into(), value]);
        if let Some(clients) = &tls.clients {
            let file = |name: &str| dir.join("server").join(name).into_os_string();
            add("--tls-bind", tls_bind.into());
            add("--tls-cert", file(CERTIFICATE));
            add("--tls-key", file(KEY));
            let auth = match clients.auth {
                ClientAuth::None => None,
                ClientAuth::Optional => Some("optional"),
                ClientAuth::Required => Some("required"),
            };
            if let Some(auth) = auth {
                add("--tls-client-ca", file(AUTHORITIES));
                add("--tls-client-auth", auth.into());
            }
        }
        if tls.peers {
            let file = |name: &str| dir.join("peers").join(name).into_os_string();
            let [certificate, key] = pki::peer_files(id);
            add("--peer-tls-cert", file(&certificate));
            add("--peer-tls-key", file(&key));
            add("--peer-tls-ca", file(AUTHORITIES));
        }
        arguments
    }

    /// What redis-cli needs to be told; empty where clients need no TLS.
    pub(super) fn client_flags(&self, tls: &ValidTls) -> String {
        let (Some(clients), Some(dir)) = (&tls.clients, self.dir()) else {
            return String::new();
        };
        let authorities = dir.join("server").join(AUTHORITIES);
        let trust = format!(" --tls --cacert {}", authorities.display());
        if !clients.auth.asks() {
            return trust;
        }
        let file = |name: &str| dir.join("client").join(name);
        let (certificate, key) = (file(CERTIFICATE), file(KEY));
        format!("{trust} --cert {} --key {}", certificate.display(), key.display())
    }
}

/// Reads what is there, makes what is missing, and writes what changed. Returns the authority.
fn keep_in(dir: &Path, wanted: &Wanted, now_s: i64) -> Result<Files, String> {
    let folder = |name: &str| dir.join(name);
    let read = |name: &str| read_folder(&folder(name)).map_err(|error| error.to_string());
    let stored = Stored {
        authority: read("authority")?,
        server: read("server")?,
        client: read("client")?,
        peers: read("peers")?,
    };
    let next = pki::renew(wanted, &stored, now_s).map_err(|error| error.to_string())?;
    for (name, before, after) in [
        ("authority", &stored.authority, &next.authority),
        ("server", &stored.server, &next.server),
        ("client", &stored.client, &next.client),
        ("peers", &stored.peers, &next.peers),
    ] {
        if before != after && !after.is_empty() {
            write_folder(&folder(name), before, after).map_err(|error| error.to_string())?;
        }
    }
    Ok(next.authority)
}

fn read_folder(dir: &Path) -> io::Result<Files> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Files::new()),
        entries => entries?,
    };
    let mut files = Files::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            files.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(files)
}

/// A node may read between two files; it takes only what fits together, and looks again.
fn write_folder(dir: &Path, before: &Files, after: &Files) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for (name, content) in after {
        if before.get(name) == Some(content) {
            continue;
        }
        replace(&dir.join(name), content)?;
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        fs::remove_file(dir.join(name))?;
    }
    Ok(())
}
