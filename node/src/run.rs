//! The life of a node process: what is started in which order, and what is stopped in which.
//!
//! Up: identity, store, ring from the files, peers and HTTP, clients last; so that whoever finds the client port
//! open finds the node whole. Down, at the first SIGTERM or SIGINT: not ready, no new clients, open commands are
//! answered, then peers and HTTP; at the second signal at once.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use annulus_proto::identity::PeerIdentity;
use annulus_ring::{Address, Epoch, Incarnation, MemberState};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::clock;
use crate::cluster::ring_source::{adopt_at_boot, keep_documents, watch_ring_file};
use crate::cluster::{ClusterState, Identity};
use crate::config::{Config, EvictionFlag, MemberConfig, Quantity, Role};
use crate::governor;
use crate::groups;
use crate::http::{self, Readiness, Subject};
use crate::metrics::{MemberSources, Metrics, Sources};
use crate::node::{Node, NodeOptions};
use crate::peer::{self, Forwarder, Links, OwnCredentials, PeerContext, PeersUp};
use crate::routing::{Routing, Standalone};
use crate::server::{ApiOptions, BindError, Server, ServerOptions};
use crate::store::{EvictionPolicy, Store, StoreOptions};
use crate::tenants;
use crate::tls::{ClientTls, ReadError};

/// How long peers and HTTP may take to end once the clients are gone.
const LAST_TASKS_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a node didn't start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No incarnation without random bits.
    #[error("the operating system gives no random bits: {0}")]
    NoRandom(getrandom::Error),
    /// The address is in use, or not this machine's.
    #[error("can't listen on {address}, given by {flag}: {source}")]
    Listen {
        /// The flag that says so.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Signals, threads.
    #[error("the operating system refuses what every process gets: {0}")]
    System(#[from] io::Error),
    /// Certificates, keys.
    #[error("{flag}: {source}")]
    Tls {
        /// The flag that they belong to.
        flag: &'static str,
        /// Why.
        source: ReadError,
    },
    /// `--addresses-file`.
    #[error("can't write {path}, given by --addresses-file: {source}")]
    AddressesFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it should.
    Cleanly,
    /// A second signal came before everything was done.
    AtOnce,
}

/// Serves until a signal says otherwise. Blocks; the calling thread becomes the control thread.
pub fn run(config: &Config) -> Result<Ended, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(config));
    // What still runs in the background only reads files.
    runtime.shutdown_background();
    ended
}

async fn serve(config: &Config) -> Result<Ended, RunError> {
    // First of all, so that no signal is missed.
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    };
    let incarnation = draw_incarnation()?;
    let store = Arc::new(Store::new(store_options(config)));
    let (routing, member) = place_in_ring(config, incarnation, &store);
    let node = Arc::new(Node::new(NodeOptions {
        store,
        routing,
        password: config.password.clone(),
        clients_max: config.clients_max,
        threads: config.threads.get(),
        started_at_ms: clock::now_ms(),
        run_id: incarnation.0,
    }));
    tokio::spawn(governor::govern(Arc::clone(&node), config.limit_bytes));

    let cluster = member.as_ref().map(|(_, state)| Arc::clone(state));
    let stop = CancellationToken::new();
    let is_stopping = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let mut addresses = Addresses::default();
    let mut forwarder = None;
    let member = match member {
        None => None,
        Some((member, state)) => {
            // Before anybody can connect: who has no certificate yet can't be told from a stranger.
            let credentials = own_credentials(&member, &stop).await?;
            let listener = listen("--peer-bind", member.peer_bind).await?;
            addresses.peer = Some(listener.local_addr()?);
            let live = credentials.as_ref().map(|own| Arc::clone(&own.live));
            let own = forwarder.insert(Forwarder::new(Arc::clone(&state), live));
            tokio::spawn(peer::mirror(Arc::clone(&node), own.another()));
            let peers = (listener, credentials);
            Some(start_peer(
                config, &member, state, &node, peers, &stop, &mut tasks,
            ))
        }
    };
    let tls = client_tls(config, &stop)?;
    if let Some(address) = config.http_bind {
        let listener = listen("--http-bind", address).await?;
        addresses.http = Some(listener.local_addr()?);
        let subject = subject(&node, member, tls.clone(), &is_stopping);
        tasks.spawn(http::serve(listener, Arc::new(subject), stop.clone()));
    }
    follow_files(config, &node, &stop, &mut tasks);
    groups::loader::start(Arc::clone(&node), stop.clone())?;
    let told = Arc::clone(&node);
    let server = serve_clients(config, tls, forwarder, node)?;
    (addresses.client, addresses.client_tls) = (server.local_addr(), server.tls_addr());
    (addresses.api, addresses.api_tls) = (server.api_addr(), server.api_tls_addr());
    if let Some(path) = &config.addresses_file {
        addresses.write(path).map_err(|source| RunError::AddressesFile {
            path: path.clone(),
            source,
        })?;
    }
    log_boot(config, incarnation, &addresses);

    signals.next().await;
    info!(
        grace_ms = config.shutdown_grace.as_millis(),
        "stopping; another signal ends the process at once"
    );
    if let Some(state) = &cluster
        && hand_over(state, &told, config.hand_over, &mut signals).await == Ended::AtOnce
    {
        return Ok(Ended::AtOnce);
    }
    is_stopping.store(true, Ordering::Relaxed);
    let finish = async {
        let cut_off = server.shutdown(config.shutdown_grace).await;
        if cut_off > 0 {
            warn!(
                connections = cut_off,
                "connections were cut off at the end of the grace period"
            );
        }
        stop.cancel();
        let ended = tokio::time::timeout(LAST_TASKS_TIMEOUT, async {
            while tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            warn!("peers or HTTP did not end in time");
        }
    };
    tokio::select! {
        () = finish => {
            info!("stopped");
            Ok(Ended::Cleanly)
        }
        () = signals.next() => {
            warn!("ending at once");
            Ok(Ended::AtOnce)
        }
    }
}

/// What the member proves itself with to its peers.
async fn own_credentials(
    member: &MemberConfig,
    stop: &CancellationToken,
) -> Result<Option<Arc<OwnCredentials>>, RunError> {
    let Some(files) = member.tls.clone() else {
        return Ok(None);
    };
    let identity = PeerIdentity::Node(member.cluster_uid.clone(), member.node_id.clone());
    let started = OwnCredentials::start(files, identity, stop.clone()).await;
    started
        .map(Some)
        .map_err(|source| tls_error("--peer-tls-cert", source))
}

/// What clients with TLS are shown.
fn client_tls(config: &Config, stop: &CancellationToken) -> Result<Option<Arc<ClientTls>>, RunError> {
    let Some((_, files)) = config.tls.clone() else {
        return Ok(None);
    };
    let started = ClientTls::start(files, stop.clone());
    started
        .map(Some)
        .map_err(|source| tls_error("--tls-cert", source))
}

fn serve_clients(
    config: &Config,
    tls: Option<Arc<ClientTls>>,
    forwarder: Option<Forwarder>,
    node: Arc<Node>,
) -> Result<Server, RunError> {
    let tls_bind = config.tls.as_ref().map(|(address, _)| *address);
    let options = ServerOptions {
        addr: config.bind,
        tls: tls_bind.zip(tls),
        api: ApiOptions {
            addr: config.api_bind,
            tls_addr: config.api_tls_bind,
            forwarder,
        },
        threads: config.threads,
    };
    Server::bind(options, node).map_err(|error| match error {
        BindError::Listen(address, source) => {
            let flags = [
                ("--bind", config.bind),
                ("--api-bind", config.api_bind),
                ("--api-tls-bind", config.api_tls_bind),
            ];
            let flag = flags.iter().find(|(_, at)| *at == Some(address));
            listen_error(flag.map_or("--tls-bind", |(flag, _)| flag), address, source)
        }
        BindError::System(source) => RunError::System(source),
    })
}

/// Follows what is mounted: the password, the tenants. The tenants are known before any client comes.
fn follow_files(config: &Config, node: &Arc<Node>, stop: &CancellationToken, tasks: &mut JoinSet<()>) {
    // A pipe can be read only once.
    if let Some(path) = config.password_file.clone().filter(|path| path.is_file()) {
        let (node, stop) = (node.clone(), stop.clone());
        tasks.spawn(async move {
            if let Some(password) = &node.password {
                password.follow(&path, stop).await;
            }
        });
    }
    if let Some(path) = &config.tenants_file {
        tasks.spawn(tenants::follow_file(Arc::clone(node), path, stop.clone()));
    }
}

/// How long a node that was told to end waits for a change of what others need it for, before it thinks that nobody is there
/// to take over.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(5);
const HAND_OVER_LOOK: Duration = Duration::from_millis(50);

/// How long clients of a node that serves nothing any more are told so.
const REDIRECT_TIME: Duration = Duration::from_secs(1);

/// Waits until nobody needs what this node has, or another signal comes.
async fn hand_over(state: &ClusterState, node: &Node, within: Duration, signals: &mut Signals) -> Ended {
    let ending = async {
        if others_take_over(state, within).await {
            redirect(node).await;
        }
    };
    tokio::select! {
        () = ending => Ended::Cleanly,
        () = signals.next() => {
            warn!("ending at once");
            Ended::AtOnce
        }
    }
}

/// Tells clients that are still connected where to go. A client that is in the middle of something would otherwise look for
/// an address that is no longer there, which takes it many seconds.
async fn redirect(node: &Node) {
    let began = Instant::now();
    let mut looks = tokio::time::interval(HAND_OVER_LOOK);
    while !node.clients.is_empty() && began.elapsed() < REDIRECT_TIME {
        looks.tick().await;
    }
}

/// Others take over what this node serves, and get copies of what it has copies of. Whether there was anything, and all of it
/// is taken.
async fn others_take_over(state: &ClusterState, within: Duration) -> bool {
    let mut needed = state.needed();
    if needed.slots == 0 {
        return false;
    }
    info!(slots = needed.slots, "leaving: others are to take over");
    state.leave();
    let began = Instant::now();
    let mut looks = tokio::time::interval(HAND_OVER_LOOK);
    let mut progress = Instant::now();
    while needed.slots > 0 {
        looks.tick().await;
        if Instant::now() > (progress + HAND_OVER_PATIENCE).min(began + within) {
            warn!(slots = needed.slots, "nobody takes over what is left");
            return false;
        }
        let left = state.needed();
        if left != needed {
            progress = Instant::now();
        }
        needed = left;
    }
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    info!(elapsed_ms, "nobody needs this node any more");
    true
}

fn store_options(config: &Config) -> StoreOptions {
    StoreOptions {
        budget_bytes: config.budget_bytes,
        eviction: match config.eviction_policy {
            EvictionFlag::Tinylfu => EvictionPolicy::TinyLfu,
            EvictionFlag::S3fifo => EvictionPolicy::S3Fifo,
            EvictionFlag::Lru => EvictionPolicy::Lru,
            EvictionFlag::Ttl => EvictionPolicy::Ttl,
            EvictionFlag::Noeviction => EvictionPolicy::NoEviction,
        },
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn draw_incarnation() -> Result<Incarnation, RunError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(RunError::NoRandom)?;
    Ok(Incarnation(u128::from_be_bytes(bytes)))
}

type Member = (MemberConfig, Arc<ClusterState>);

/// The ring that the node begins with.
fn place_in_ring(
    config: &Config,
    incarnation: Incarnation,
    store: &Arc<Store>,
) -> (Arc<dyn Routing>, Option<Member>) {
    match &config.role {
        Role::Standalone => {
            let (cluster_uid, node_id) = config.standalone_identity();
            let address = config.announce_host.clone().map(|host| Address {
                host,
                client_host: None,
                client_port: config.bind.map_or(0, |address| address.port()),
                client_tls_port: config.tls.as_ref().map(|(address, _)| address.port()),
                peer_port: 0,
            });
            let routing =
                Standalone::new(cluster_uid, node_id).announcing(address.as_ref(), config.zone.as_ref());
            (Arc::new(routing), None)
        }
        Role::Member(member) => {
            let identity = Identity {
                cluster_uid: member.cluster_uid.clone(),
                node_id: member.node_id.clone(),
                incarnation,
            };
            let state = Arc::new(ClusterState::new(identity, Arc::clone(store)));
            adopt_at_boot(&state, member.ring_file.as_deref(), member.data_dir.as_deref());
            (
                Arc::clone(&state) as Arc<dyn Routing>,
                Some((member.clone(), state)),
            )
        }
    }
}

/// Starts whatever a member does beside serving clients. Only the server ends by `stop`; the others are ended
/// with the runtime, since they leave nothing half done.
fn start_peer(
    config: &Config,
    member: &MemberConfig,
    state: Arc<ClusterState>,
    node: &Arc<Node>,
    (listener, credentials): (TcpListener, Option<Arc<OwnCredentials>>),
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> MemberSources {
    let context = Arc::new(PeerContext::new(Arc::clone(&state), Arc::clone(node)));
    let live = credentials.as_ref().map(|own| Arc::clone(&own.live));
    let (links, peers_up) = (
        Arc::new(Links::secured(live.clone())),
        Arc::new(PeersUp::default()),
    );
    let server = peer::serve(listener, live, Arc::clone(&context), stop.clone());
    tasks.spawn(async move {
        if let Err(error) = server.await {
            warn!(%error, "the peer protocol ended");
        }
    });
    tokio::spawn(peer::expire_freezes(Arc::clone(&context)));
    tokio::spawn(peer::gossip(
        Arc::clone(&context),
        Arc::clone(&links),
        Arc::clone(&peers_up),
    ));
    tokio::spawn(peer::relay_messages(Arc::clone(&context), Arc::clone(&links)));
    tokio::spawn(peer::replicate(Arc::clone(&context), Arc::clone(&links)));
    tokio::spawn(peer::pull_handoffs(Arc::clone(&context), links));
    if let Some(path) = &member.ring_file {
        tokio::spawn(watch_ring_file(Arc::clone(&state), path.clone()));
    }
    if let Some(dir) = &member.data_dir {
        tokio::spawn(keep_documents(Arc::clone(&state), dir.clone()));
    }
    if config.announce_host.is_some() || config.zone.is_some() {
        tokio::spawn(compare_with_ring(Arc::clone(&state), config.clone()));
    }
    MemberSources {
        state,
        peer: context,
        peers_up,
        credentials,
    }
}

/// Clients follow the ring, not this node's flags. That the two differ is said once a document.
async fn compare_with_ring(state: Arc<ClusterState>, config: Config) {
    let mut changes = state.changes();
    let mut compared = Epoch::NONE;
    loop {
        changes.mark_unchanged();
        let view = state.view();
        if view.epoch > compared
            && let Some(own) = view.own()
        {
            compared = view.epoch;
            let ring_host = own.address.as_ref().map(|address| &address.host);
            if config.announce_host.is_some() && config.announce_host.as_ref() != ring_host {
                warn!(flag = ?config.announce_host, ring = ?ring_host, "the ring has another host for this node than --announce-host");
            }
            if config.zone.is_some() && config.zone != own.zone {
                warn!(flag = ?config.zone, ring = ?own.zone, "the ring has another zone for this node than --zone");
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn subject(
    node: &Arc<Node>,
    member: Option<MemberSources>,
    tls: Option<Arc<ClientTls>>,
    is_stopping: &Arc<AtomicBool>,
) -> Subject {
    let metrics = Metrics::new(Sources {
        node: Arc::clone(node),
        tls,
        member: member.clone(),
    });
    let is_stopping = Arc::clone(is_stopping);
    Subject {
        metrics: Box::new(move || metrics.text()),
        readiness: Box::new(move || {
            if is_stopping.load(Ordering::Relaxed) {
                return Readiness::NotReady("stopping".to_owned());
            }
            member
                .as_ref()
                .map_or(Readiness::Ready, |member| readiness(&member.state))
        }),
    }
}

fn readiness(state: &ClusterState) -> Readiness {
    let progress = state.progress();
    let why = match progress.state {
        _ if progress.epoch == Epoch::NONE => "no ring yet".to_owned(),
        None => format!(
            "the ring of epoch {} does not list this life of the node",
            progress.epoch
        ),
        Some(MemberState::Joining) => format!(
            "joining at epoch {}, not all of its slots are here yet",
            progress.epoch
        ),
        Some(MemberState::Down) => format!("the ring of epoch {} has this node as down", progress.epoch),
        Some(MemberState::Active | MemberState::Draining) => return Readiness::Ready,
    };
    Readiness::NotReady(why)
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| listen_error(flag, address, source))
}

fn listen_error(flag: &'static str, address: SocketAddr, source: io::Error) -> RunError {
    RunError::Listen {
        flag,
        address,
        source,
    }
}

fn tls_error(flag: &'static str, source: ReadError) -> RunError {
    RunError::Tls { flag, source }
}

/// Where the node is reached, with the ports that port 0 became.
#[derive(Debug, Default)]
struct Addresses {
    client: Option<SocketAddr>,
    client_tls: Option<SocketAddr>,
    http: Option<SocketAddr>,
    api: Option<SocketAddr>,
    api_tls: Option<SocketAddr>,
    peer: Option<SocketAddr>,
}

impl Addresses {
    /// `{"client":"127.0.0.1:6379","clientTls":…,"http":…,"peer":…}`, in one step: who sees the file sees all of it.
    fn write(&self, path: &Path) -> io::Result<()> {
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let json = serde_json::json!({
            "client": text(self.client),
            "clientTls": text(self.client_tls),
            "http": text(self.http),
            "api": text(self.api),
            "apiTls": text(self.api_tls),
            "peer": text(self.peer),
        });
        let mut unfinished = path.to_owned().into_os_string();
        unfinished.push(format!(".{}", std::process::id()));
        std::fs::write(&unfinished, format!("{json}\n"))?;
        std::fs::rename(&unfinished, path)
    }
}

fn log_boot(config: &Config, incarnation: Incarnation, addresses: &Addresses) {
    let text =
        |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let node = match &config.role {
        Role::Standalone => "standalone",
        Role::Member(member) => member.node_id.as_str(),
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node,
        %incarnation,
        budget = %Quantity(config.budget_bytes),
        budget_from = config.budget_source.as_str(),
        threads = config.threads,
        client = text(addresses.client),
        client_tls = text(addresses.client_tls),
        peer = text(addresses.peer),
        http = text(addresses.http),
        api = text(addresses.api),
        api_tls = text(addresses.api_tls),
        password = config.password.is_some(),
        "serving"
    );
}
