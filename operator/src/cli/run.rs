//! `annulus-operator run`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::caches::{Caches, Namespaces, Zones};
use crate::context::{Context, Memory, Summaries};
use crate::controller;
use crate::events::Events;
use crate::http::{self, Readiness};
use crate::key::ClusterKey;
use crate::leader;
use crate::metrics::Metrics;
use crate::node_client::Hub;
use crate::service_paths::ServicePaths;
use crate::tenants;
use crate::tenants::controller::Wake;
use crate::tenants::memory::Tenancy;
use crate::validate::Installation;
use crate::webhook;

/// Longest wait for the lease to be given up on the way out.
const RELEASE_MAX: Duration = Duration::from_secs(3);

/// How long the webhook goes on after the order to stop: until everybody knows that this replica is gone, questions still
/// come, and those that nobody answers count as an absent webhook.
const LINGER: Duration = Duration::from_secs(3);

/// Longest wait for the labels of namespaces at the start.
const LABELS_MAX: Duration = Duration::from_secs(5);

/// What `run` is told.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Watch only these namespaces; all of them when absent.
    #[arg(
        long,
        env = "ANNULUS_NAMESPACES",
        value_delimiter = ',',
        value_name = "NAMESPACE,…"
    )]
    namespaces: Vec<String>,

    /// The image of cache nodes for clusters that name none.
    #[arg(long, env = "ANNULUS_NODE_IMAGE", value_name = "IMAGE")]
    node_image: Option<String>,

    /// Namespace of the Lease that replicas elect their leader by; default: the operator's own.
    #[arg(long, env = "ANNULUS_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// What this replica calls itself, unique among replicas; default: the pod's name.
    #[arg(long, env = "ANNULUS_IDENTITY", value_name = "NAME")]
    identity: Option<String>,

    /// Where to serve /healthz, /readyz and /metrics.
    #[arg(
        long,
        env = "ANNULUS_HTTP_BIND",
        default_value = "0.0.0.0:8080",
        value_name = "IP:PORT"
    )]
    http_bind: SocketAddr,

    /// Serve the admission webhook; so are called its Service and its Secret in the operator's own namespace, and its two
    /// webhook configurations. None when absent.
    #[arg(long, env = "ANNULUS_WEBHOOK_NAME", value_name = "NAME")]
    webhook_name: Option<String>,

    /// Where to serve the admission webhook.
    #[arg(
        long,
        env = "ANNULUS_WEBHOOK_BIND",
        default_value = "0.0.0.0:9443",
        value_name = "IP:PORT"
    )]
    webhook_bind: SocketAddr,

    /// How many clusters are reconciled at once.
    #[arg(long, env = "ANNULUS_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,

    /// How often each cache node reports, in milliseconds.
    #[arg(long, env = "ANNULUS_REPORT_INTERVAL_MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    report_interval_ms: u64,

    /// How long a cache node may be silent, while others are heard, before its copies take its place, in milliseconds;
    /// at least three reports must be missing.
    #[arg(long, env = "ANNULUS_FAILOVER_AFTER_MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(200..=60_000))]
    failover_after_ms: u64,
}

impl RunArgs {
    fn installation(&self, namespace: &str) -> Installation {
        Installation {
            node_image: self.node_image.clone(),
            namespace: Some(namespace.to_owned()),
        }
    }
}

/// Runs until SIGTERM or SIGINT, which is no error, or until the lease is lost, which is one.
pub async fn run(args: RunArgs) -> Result<(), String> {
    let mut config = Config::infer()
        .await
        .map_err(|error| format!("no way to reach Kubernetes: {error}"))?;
    // The operator has its own backoff per cluster; a request that was retried below it could outlive the lease.
    config.default_retry = false;
    let own_namespace = config.default_namespace.clone();
    let lease_namespace = args
        .lease_namespace
        .clone()
        .unwrap_or_else(|| own_namespace.clone());
    let client = Client::try_from(config).map_err(|error| format!("no way to reach Kubernetes: {error}"))?;
    let identity = match &args.identity {
        Some(identity) => identity.clone(),
        None => default_identity()?,
    };
    let metrics = Metrics::default();
    let readiness = Readiness::default();
    let listener = TcpListener::bind(args.http_bind)
        .await
        .map_err(|error| format!("can't listen on --http-bind {}: {error}", args.http_bind))?;
    tokio::spawn(http::serve(listener, metrics.clone(), readiness.clone()));

    let (authorities, bundle) = watch::channel(None);
    readiness.set_webhook(args.webhook_name.is_none());
    let has_webhook = args.webhook_name.is_some();
    let webhook = serve_webhook(&args, &own_namespace, &client, &metrics, &readiness, authorities);
    let mut webhook = std::pin::pin!(webhook);

    let election = leader::election(client.clone(), &lease_namespace, &identity);
    readiness.set(true);
    let lead = election.with_lease(lead(
        args,
        own_namespace,
        client,
        identity,
        metrics,
        readiness,
        bundle,
    ));
    tokio::select! {
        ended = &mut webhook => ended,
        outcome = lead => match outcome {
            None => Err("the lease was lost, another replica leads; ending, to be restarted as a follower".to_owned()),
            Some(result) => result,
        },
        stopped = stopped() => {
            stopped?;
            info!("stopping: giving up the lease");
            let release = tokio::time::timeout(RELEASE_MAX, election.release());
            let released = if has_webhook {
                // Another replica leads already while the API server still asks this one.
                let (released, _) = tokio::join!(release, tokio::time::timeout(LINGER, webhook));
                released
            } else {
                release.await
            };
            released.map_err(|_| "the lease could not be given up in time; it will run out".to_owned())
        }
    }
}

/// The webhook, which every replica serves; where there is none, this never ends.
fn serve_webhook(
    args: &RunArgs,
    namespace: &str,
    client: &Client,
    metrics: &Metrics,
    readiness: &Readiness,
    authorities: watch::Sender<Option<String>>,
) -> impl Future<Output = Result<(), String>> + use<> {
    let settings = args.webhook_name.clone().map(|name| webhook::Settings {
        name,
        namespace: namespace.to_owned(),
        watched: args.namespaces.clone(),
        installation: args.installation(namespace),
    });
    let (bind, client) = (args.webhook_bind, client.clone());
    let (metrics, readiness) = (metrics.clone(), readiness.clone());
    async move {
        let Some(settings) = settings else {
            return std::future::pending().await;
        };
        let listener = TcpListener::bind(bind)
            .await
            .map_err(|error| format!("can't listen on --webhook-bind {bind}: {error}"))?;
        webhook::run(listener, settings, client, metrics, readiness, authorities).await
    }
}

/// Everything that only the leader does. Ends when a part of it ends, which none should.
async fn lead(
    args: RunArgs,
    own_namespace: String,
    client: Client,
    identity: String,
    metrics: Metrics,
    readiness: Readiness,
    bundle: watch::Receiver<Option<String>>,
) -> Result<(), String> {
    info!(identity, "leading");
    metrics.leading(true);
    readiness.set(false);
    let mut watches = JoinSet::new();
    let (hub_wake, hub_wakes) = mpsc::unbounded_channel();
    let service_paths = ServicePaths::new(hub_wake.clone());
    let hub = Hub::new(
        Duration::from_millis(args.report_interval_ms),
        Duration::from_millis(args.failover_after_ms),
        hub_wake.clone(),
        metrics.clone(),
    );
    let (wake_tenants, tenants_wakes) = mpsc::unbounded_channel();
    let namespaces = Namespaces::watch(client.clone(), wake_tenants.clone(), &mut watches);
    let summaries = Summaries::default();
    let zones = Zones::watch(client.clone(), &mut watches);
    let events = Events::new(client.clone(), identity, metrics.clone());
    let scopes: Vec<Option<&str>> = match args.namespaces.as_slice() {
        [] => vec![None],
        namespaces => namespaces
            .iter()
            .map(|namespace| Some(namespace.as_str()))
            .collect(),
    };
    let mut controllers = Vec::new();
    let mut wakes: Vec<(Option<String>, UnboundedSender<ClusterKey>)> = Vec::new();
    for namespace in scopes {
        let (wake, scope_wakes) = mpsc::unbounded_channel();
        let caches = Caches::watch(
            client.clone(),
            namespace,
            wake.clone(),
            wake_tenants.clone(),
            &mut watches,
        );
        wakes.push((namespace.map(str::to_owned), wake));
        let context = Arc::new(Context {
            client: client.clone(),
            caches,
            zones: zones.clone(),
            hub: hub.clone(),
            service_paths: service_paths.clone(),
            metrics: metrics.clone(),
            events: events.clone(),
            installation: args.installation(&own_namespace),
            memory: Memory::default(),
            summaries: summaries.clone(),
        });
        controllers.push((context, scope_wakes));
    }
    for (context, _) in &controllers {
        context
            .caches
            .filled()
            .await
            .map_err(|error| format!("the caches can't be filled: {error}"))?;
    }
    namespaces.filled(LABELS_MAX).await;
    info!("caches are filled");
    readiness.set(true);
    let tenancy = Arc::new(Tenancy {
        scopes: controllers
            .iter()
            .map(|(context, _)| Arc::clone(context))
            .collect(),
        watched: (!args.namespaces.is_empty()).then(|| args.namespaces.iter().cloned().collect()),
        namespaces,
        wake: hub_wake,
        memory: parking_lot::Mutex::new(HashMap::new()),
    });
    let concurrency = args.concurrency;
    let (webhook_name, bundle_client) = (args.webhook_name.clone(), client.clone());
    let bundle = async move {
        match webhook_name {
            Some(name) => webhook::bundle::keep(bundle_client, name, bundle, metrics).await,
            None => std::future::pending().await,
        }
    };
    let controllers = controllers
        .into_iter()
        .map(|(context, wakes)| controller::run(context, wakes, concurrency));
    tokio::select! {
        _ = futures::future::join_all(controllers) => Err("the controller ended".to_owned()),
        () = tenants::controller::run(tenancy, tenants_wakes) => Err("the tenants' controller ended".to_owned()),
        () = bundle => Err("nobody tells the API server of the webhook's certificate any more".to_owned()),
        () = forward(hub_wakes, wakes, wake_tenants) => Err("the connections to nodes ended".to_owned()),
        _ = watches.join_next() => Err("a watch ended".to_owned()),
    }
}

/// Hands the hub's wake-ups to the controller whose namespace it is, and to the tenants' controller.
async fn forward(
    mut hub_wakes: UnboundedReceiver<ClusterKey>,
    scopes: Vec<(Option<String>, UnboundedSender<ClusterKey>)>,
    tenants: UnboundedSender<Wake>,
) {
    while let Some(key) = hub_wakes.recv().await {
        if tenants.send(Wake::Nodes(key.clone())).is_err() {
            return;
        }
        let scope = scopes
            .iter()
            .find(|(namespace, _)| namespace.as_ref().is_none_or(|only| *only == key.namespace));
        if let Some((_, wake)) = scope
            && wake.send(key).is_err()
        {
            return;
        }
    }
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn stopped() -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("can't listen for signals: {error}"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The host's name, which in a pod is the pod's, and a random part: two replicas on one host must never take
/// each other's renewals for their own.
fn default_identity() -> Result<String, String> {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "annulus-operator".to_owned());
    let random = getrandom::u32().map_err(|error| format!("no randomness for an identity: {error}"))?;
    Ok(format!("{host}-{random:08x}"))
}
