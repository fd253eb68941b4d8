//! The Secret `<cluster>-tenants`: read, and written against its resourceVersion, so that of two leaders at most one gives a
//! number to a tenant.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use tokio::time::Instant;
use tracing::{info, warn};

use super::error::TenantsError;
use super::ledger::Ledger;
use super::memory::{Remembered, Stored};
use crate::build::{tenants_secret, tenants_secret_name};
use crate::context::Context;
use crate::drift::FIELD_MANAGER;
use crate::validate::ValidCluster;

/// Secrets are not watched: one that somebody deleted or put back is noticed after this time.
const READ_AGAIN: std::time::Duration = std::time::Duration::from_mins(1);

/// The ledger that is to be gone on from, and whether exactly that is stored.
pub async fn read(
    ctx: &Context,
    cluster: &ValidCluster,
    remembered: &mut Remembered,
) -> Result<(Ledger, bool), TenantsError> {
    let is_fresh = remembered
        .read_at
        .is_some_and(|read_at| read_at.elapsed() < READ_AGAIN);
    if !is_fresh {
        let live = fetch(ctx, cluster).await?;
        let known = remembered
            .stored
            .as_ref()
            .map(|stored| stored.ledger.document.version);
        remembered.read_at = Some(Instant::now());
        let is_newest = |live: &Stored| known.is_none_or(|known| known <= live.ledger.document.version);
        if live.as_ref().is_some_and(is_newest) {
            remembered.stored = live;
        } else if let Some(Stored { ledger, .. }) = remembered.stored.take() {
            // Somebody deleted it, or put an older one back: what is remembered is stored again.
            warn!(cluster = %cluster.key, "the tenants document was missing or older, storing it again");
            let restored = ledger.clone();
            remembered.stored = live.map(|live| Stored { ledger, ..live });
            return Ok((restored, false));
        }
    }
    Ok(match &remembered.stored {
        Some(stored) => (stored.ledger.clone(), true),
        None => (Ledger::empty(cluster.uid.clone()), true),
    })
}

async fn fetch(ctx: &Context, cluster: &ValidCluster) -> Result<Option<Stored>, TenantsError> {
    let name = tenants_secret_name(&cluster.key.name);
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    let Some(secret) = api.get_opt(&name).await.map_err(TenantsError::read(&name))? else {
        return Ok(None);
    };
    let owners = secret.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    if !controllers.any(|owner| owner.uid == cluster.uid.as_str()) {
        return Err(TenantsError::NameTaken { name });
    }
    let data = secret.data.clone().unwrap_or_default();
    let ledger = Ledger::read(&data).unwrap_or_else(|problem| {
        // Made again from the CacheTenants, their statuses and their Secrets.
        warn!(cluster = %cluster.key, %problem, "the stored tenants document can't be used");
        None
    });
    let ledger = ledger
        .filter(|ledger| ledger.document.cluster_uid == cluster.uid)
        .unwrap_or_else(|| Ledger::empty(cluster.uid.clone()));
    Ok(Some(Stored { ledger, secret }))
}

/// Stores the ledger, if what is stored is still what the decision was made from.
pub async fn write(
    ctx: &Context,
    cluster: &ValidCluster,
    ledger: Ledger,
    remembered: &mut Remembered,
) -> Result<(), TenantsError> {
    let name = tenants_secret_name(&cluster.key.name);
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let outcome = if let Some(stored) = &remembered.stored {
        let mut secret = stored.secret.clone();
        tenants_secret::set_ledger(&mut secret, &ledger);
        secret.metadata.managed_fields = None;
        ctx.metrics.wrote("Secret", "replace");
        api.replace(&name, &params, &secret).await
    } else {
        ctx.metrics.wrote("Secret", "create");
        api.create(&params, &tenants_secret::build(cluster, &ledger))
            .await
    };
    match outcome {
        Ok(secret) => {
            let tenants = ledger.document.tenants.len();
            info!(cluster = %cluster.key, version = ledger.document.version, tenants, "stored the tenants");
            remembered.stored = Some(Stored { ledger, secret });
            remembered.read_at = Some(Instant::now());
            Ok(())
        }
        Err(error) => {
            // Whatever is there now is looked at before anything is decided again.
            remembered.read_at = None;
            Err(match error {
                kube::Error::Api(status) if matches!(status.code, 404 | 409) => TenantsError::Changed,
                source => TenantsError::Store {
                    name,
                    source: Box::new(source),
                },
            })
        }
    }
}
