//! Tells the API server whom to trust: `caBundle` in the chart's two webhook configurations. The leader alone does it, and
//! writes nothing but this field.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::{Patch, PatchParams};
use kube::core::ClusterResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::drift::FIELD_MANAGER;
use crate::metrics::Metrics;

/// What somebody changes is put right after this time.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A kind of webhook configuration.
pub trait Configuration:
    Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + std::fmt::Debug + DeserializeOwned
{
    /// Its webhooks' names, and how each is reached.
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for ValidatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks
            .map(|webhook| (webhook.name.as_str(), &webhook.client_config))
            .collect()
    }
}

impl Configuration for MutatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks
            .map(|webhook| (webhook.name.as_str(), &webhook.client_config))
            .collect()
    }
}

/// Keeps both configurations of that name right, for as long as somebody tells whom to trust.
pub async fn keep(
    client: Client,
    name: String,
    mut authorities: watch::Receiver<Option<String>>,
    metrics: Metrics,
) {
    loop {
        let bundle = authorities.borrow_and_update().clone();
        let mut pause = LOOK_EVERY;
        if let Some(bundle) = bundle {
            let outcome = futures::try_join!(
                put::<ValidatingWebhookConfiguration>(&client, &name, &bundle, &metrics),
                put::<MutatingWebhookConfiguration>(&client, &name, &bundle, &metrics),
            );
            if let Err(error) = outcome {
                warn!(name, %error, "can't tell the API server which certificate the webhook has");
                pause = AGAIN_AFTER;
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            changed = authorities.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Makes all webhooks of a configuration trust that bundle. One that isn't installed is left alone.
pub async fn put<K: Configuration>(
    client: &Client,
    name: &str,
    bundle: &str,
    metrics: &Metrics,
) -> Result<(), kube::Error> {
    let api: Api<K> = Api::all(client.clone());
    let Some(found) = api.get_opt(name).await? else {
        return Ok(());
    };
    let wanted = ByteString(bundle.as_bytes().to_vec());
    let webhooks = found.webhooks();
    if webhooks
        .iter()
        .all(|(_, config)| config.ca_bundle.as_ref() == Some(&wanted))
    {
        return Ok(());
    }
    let kind = K::kind(&());
    let webhooks = webhooks.iter();
    let webhooks =
        webhooks.map(|(webhook, _)| json!({"name": webhook, "clientConfig": {"caBundle": &wanted}}));
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": kind,
        // Applied to exactly this one, and never made anew.
        "metadata": {"name": name, "uid": found.meta().uid},
        "webhooks": webhooks.collect::<Vec<_>>(),
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(name, &params, &Patch::Apply(&patch)).await?;
    metrics.wrote("WebhookConfiguration", "apply");
    info!(%kind, name, "the API server knows the webhook's certificate");
    Ok(())
}
