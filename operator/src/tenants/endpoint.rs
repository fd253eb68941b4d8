//! Where a cluster's tenants connect, and what TLS asks of them: the same for all of its bindings.
//!
//! Certificates are copied from the cluster's namespace, where tenants can't read them. What clients show is one certificate
//! for all tenants of a cluster: it opens the door, and who comes in is for the password to say.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::time::Instant;

use super::error::TenantsError;
use super::memory::Remembered;
use crate::apply::{Owner, owner};
use crate::build::binding::Endpoint;
use crate::build::certificates;
use crate::context::Context;
use crate::pki::{AUTHORITIES, CERTIFICATE, Files, KEY};
use crate::validate::{TlsSecret, ValidClientTls, ValidCluster, ValidTls};

/// Certificates that were read this recently are not read again.
const FRESH: Duration = Duration::from_mins(5);
/// Those that are not there yet are looked for again after this time.
pub const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What is remembered of it.
pub struct Known {
    tls: ValidTls,
    at: Instant,
    endpoint: Arc<Endpoint>,
}

/// Where tenants connect, and whether all that TLS asks of them is there already.
pub async fn look(
    ctx: &Context,
    cluster: &ValidCluster,
    remembered: &mut Remembered,
) -> Result<(Arc<Endpoint>, bool), TenantsError> {
    let known = remembered.endpoint.as_ref();
    let known = known.filter(|known| known.tls == cluster.tls);
    if let Some(known) = known.filter(|known| known.at.elapsed() < FRESH) {
        return Ok((Arc::clone(&known.endpoint), true));
    }
    let files = match &cluster.tls.clients {
        None => Some(Files::new()),
        Some(tls) => files(ctx, cluster, tls).await?,
    };
    let is_complete = files.is_some();
    let endpoint = match (files, known) {
        // They are being made anew: what was handed out works, or will be replaced.
        (None, Some(known)) => Arc::clone(&known.endpoint),
        (files, _) => Arc::new(endpoint(cluster, files.unwrap_or_default())),
    };
    if is_complete {
        remembered.endpoint = Some(Known {
            tls: cluster.tls.clone(),
            at: Instant::now(),
            endpoint: Arc::clone(&endpoint),
        });
    }
    Ok((endpoint, is_complete))
}

fn endpoint(cluster: &ValidCluster, files: Files) -> Endpoint {
    Endpoint {
        host: format!("{}.{}.svc", cluster.key.name, cluster.key.namespace),
        port: cluster.tls.first_port(),
        secure: cluster.tls.clients.is_some(),
        files,
    }
}

/// What clients trust, and what they show where they are asked; `None` while something of it is missing.
async fn files(
    ctx: &Context,
    cluster: &ValidCluster,
    tls: &ValidClientTls,
) -> Result<Option<Files>, TenantsError> {
    if let TlsSecret::Given(name) = &tls.secret {
        // The user's: it need not say whom clients are to trust, and signs nothing for them.
        let secret = read(ctx, cluster, name).await?;
        return Ok(secret.map(|secret| take(&secret, &[AUTHORITIES])));
    }
    let mut files = Files::new();
    let mut wanted = vec![(certificates::server_name(cluster), vec![AUTHORITIES])];
    if tls.auth.asks() {
        wanted.push((certificates::client_name(cluster), vec![CERTIFICATE, KEY]));
    }
    for (name, keys) in wanted {
        let secret = read(ctx, cluster, &name).await?;
        let ours = secret.filter(|secret| matches!(owner(secret, cluster), Owner::Cluster));
        let found = ours.map(|secret| take(&secret, &keys)).unwrap_or_default();
        if found.len() < keys.len() {
            return Ok(None);
        }
        files.extend(found);
    }
    Ok(Some(files))
}

async fn read(ctx: &Context, cluster: &ValidCluster, name: &str) -> Result<Option<Secret>, TenantsError> {
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    api.get_opt(name).await.map_err(TenantsError::read(name))
}

fn take(secret: &Secret, keys: &[&str]) -> Files {
    let data = secret.data.iter().flatten();
    data.filter(|(key, _)| keys.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}
