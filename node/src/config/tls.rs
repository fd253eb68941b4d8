//! The flags about TLS: those that belong together are given together.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ConfigError, ServeFlags};
use crate::peer::PeerTlsFiles;
use crate::tls::{ClientAuth, ClientTlsFiles};

/// Where clients with TLS connect, and what they are shown.
pub(super) fn of_clients(flags: &ServeFlags) -> Result<Option<(SocketAddr, ClientTlsFiles)>, ConfigError> {
    let given = [
        ("--tls-bind", flags.tls_bind.is_some()),
        ("--tls-cert", flags.tls_cert.is_some()),
        ("--tls-key", flags.tls_key.is_some()),
        ("--tls-client-ca", flags.tls_client_ca.is_some()),
        ("--tls-client-auth", flags.tls_client_auth.is_some()),
    ];
    let Some((given, _)) = given.iter().find(|(_, given)| *given) else {
        return Ok(None);
    };
    let needed = |missing| ConfigError::Incomplete { given, missing };
    let address = flags.tls_bind.ok_or_else(|| needed("--tls-bind"))?;
    let files = ClientTlsFiles {
        certificate: flags.tls_cert.clone().ok_or_else(|| needed("--tls-cert"))?,
        key: flags.tls_key.clone().ok_or_else(|| needed("--tls-key"))?,
        clients: client_auth(flags.tls_client_ca.clone(), flags.tls_client_auth)?,
    };
    Ok(Some((address, files)))
}

fn client_auth(
    authorities: Option<PathBuf>,
    auth: Option<ClientAuth>,
) -> Result<Option<(PathBuf, ClientAuth)>, ConfigError> {
    match (authorities, auth) {
        (None, None | Some(ClientAuth::None)) => Ok(None),
        (None, Some(ClientAuth::Optional | ClientAuth::Required)) => Err(ConfigError::Incomplete {
            given: "--tls-client-auth",
            missing: "--tls-client-ca",
        }),
        (Some(_), Some(ClientAuth::None)) => Err(ConfigError::NobodyAsked),
        (Some(path), auth) => Ok(Some((path, auth.unwrap_or(ClientAuth::Required)))),
    }
}

/// What a member proves itself with: all three files, or none.
pub(super) fn of_peers(flags: &ServeFlags) -> Result<Option<PeerTlsFiles>, ConfigError> {
    let files = [
        ("--peer-tls-cert", &flags.peer_tls_cert),
        ("--peer-tls-key", &flags.peer_tls_key),
        ("--peer-tls-ca", &flags.peer_tls_ca),
    ];
    match files {
        [(_, Some(certificate)), (_, Some(key)), (_, Some(authorities))] => Ok(Some(PeerTlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            authorities: authorities.clone(),
        })),
        files => {
            let given = files.iter().find(|(_, path)| path.is_some());
            let missing = files.iter().find(|(_, path)| path.is_none());
            match (given, missing) {
                (Some((given, _)), Some((missing, _))) => Err(ConfigError::Incomplete { given, missing }),
                _ => Ok(None),
            }
        }
    }
}
