//! The admission webhook: what the API server asks before it stores a `CacheTenant`, a `CacheGroup`, a changed `CacheCluster`,
//! or a pod that wants a tenant's credentials.
//!
//! Every replica answers, whether it leads or not, from caches of its own. [`tenant`], [`group`], [`cluster`] and [`pod`] decide, and
//! are pure; [`known`] gathers what they decide from, [`review`] turns requests into answers, [`server`] serves them,
//! [`certificate`] keeps the key and [`bundle`], on the leader alone, tells the API server whom to trust.
//!
//! Invariants: nothing is refused that the reconciler would take (docs/admission.md has the two exceptions), so that a
//! webhook that is away, and then ignored, makes no difference but when a mistake is told. Nothing is refused that may become right by itself, such as a tenant whose
//! cluster is not there yet. Nobody is asked to write anything: no answer has a side effect.
//!
//! Refused here on purpose: defaults written into objects (they would be frozen there), and a look into Secrets.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::http::Readiness;
use crate::metrics::Metrics;
use crate::validate::Installation;

pub mod bundle;
pub mod certificate;
pub mod cluster;
pub mod decision;
pub mod group;
pub mod known;
pub mod pod;
pub mod review;
pub mod server;
pub mod tenant;

use certificate::{Keeper, LiveCertificate};
use known::Known;
use review::Reviewer;
use server::Limits;

/// Labels of namespaces may be out of reach; the webhook serves without them after this time.
const LABELS_MAX: Duration = Duration::from_secs(5);

/// What the webhook is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of its Service, of its Secret and of its two configurations.
    pub name: String,
    /// The namespace of the Service and of the Secret.
    pub namespace: String,
    /// The namespaces that the operator looks after; empty for all.
    pub watched: Vec<String>,
    /// What the operator was installed with.
    pub installation: Installation,
}

impl Settings {
    /// What the API server calls the webhook.
    fn hosts(&self) -> Vec<String> {
        let Self { name, namespace, .. } = self;
        vec![
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.cluster.local"),
        ]
    }
}

/// Serves until the future is dropped, or a part of it ends, which none should. Whom to trust is told through `authorities`.
pub async fn run(
    listener: TcpListener,
    settings: Settings,
    client: Client,
    metrics: Metrics,
    readiness: Readiness,
    authorities: watch::Sender<Option<String>>,
) -> Result<(), String> {
    let mut watches = JoinSet::new();
    let known = Known::watch(
        &client,
        &settings.watched,
        settings.installation.clone(),
        &mut watches,
    );
    let live = Arc::new(LiveCertificate::default());
    let mut first = authorities.subscribe();
    let keeper = Keeper {
        hosts: settings.hosts(),
        secret: settings.name,
        namespace: settings.namespace,
        client,
        live: Arc::clone(&live),
        authorities,
        metrics: metrics.clone(),
    };
    let serve = async {
        known
            .filled(LABELS_MAX)
            .await
            .map_err(|error| format!("the webhook's caches can't be filled: {error}"))?;
        first
            .wait_for(Option::is_some)
            .await
            .map_err(|error| format!("the webhook has no certificate: {error}"))?;
        readiness.set_webhook(true);
        info!("the webhook serves");
        server::serve(
            listener,
            live,
            Reviewer::new(known.clone(), metrics),
            Limits::default(),
        )
        .await;
        Err("the webhook ended".to_owned())
    };
    tokio::select! {
        ended = serve => ended,
        () = keeper.keep() => Err("nobody keeps the webhook's certificate any more".to_owned()),
        _ = watches.join_next() => Err("a watch of the webhook ended".to_owned()),
    }
}
