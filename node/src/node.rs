//! What all connections of a node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use annulus_proto::tenants::TenantsDocument;

use crate::clients::Clients;
use crate::command::table;
use crate::groups::Groups;
use crate::pause::Pause;
use crate::pubsub::relay::Relay;
use crate::resp::Limits;
use crate::routing::Routing;
use crate::script::Scripts;
use crate::secret::{LiveSecret, Secret};
use crate::stats::Stats;
use crate::store::Store;
use crate::tenants::{Refusal, Tenants};
use crate::timing::Timing;

/// What a node is made with.
pub struct NodeOptions {
    /// The keyspace, shared with whoever moves slots in and out of it.
    pub store: Arc<Store>,
    /// The node's place in the ring.
    pub routing: Arc<dyn Routing>,
    /// What clients must give; `None` when everybody may enter.
    pub password: Option<Secret>,
    /// Clients that may be connected at the same time.
    pub clients_max: usize,
    /// Threads that serve them.
    pub threads: usize,
    /// When the process started, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// A number that no other life of the process has: its incarnation.
    pub run_id: u128,
}

/// Settings that `CONFIG SET` changes while the node runs. Bytes and seconds as `CONFIG GET` shows them.
#[derive(Debug)]
pub struct Settings {
    clients_max: AtomicUsize,
    bulk_bytes_max: AtomicUsize,
    idle_timeout_s: AtomicU64,
    keepalive_s: AtomicU64,
    tracking_keys_max: AtomicUsize,
    script_ms_max: AtomicU64,
}

impl Settings {
    const KEEPALIVE_S_DEFAULT: u64 = 300;
    const TRACKING_KEYS_MAX_DEFAULT: usize = 1_000_000;
    const SCRIPT_MS_MAX_DEFAULT: u64 = 5000;

    fn new(clients_max: usize) -> Self {
        Self {
            clients_max: AtomicUsize::new(clients_max),
            bulk_bytes_max: AtomicUsize::new(Limits::BULK_BYTES_MAX_DEFAULT),
            idle_timeout_s: AtomicU64::new(0),
            keepalive_s: AtomicU64::new(Self::KEEPALIVE_S_DEFAULT),
            tracking_keys_max: AtomicUsize::new(Self::TRACKING_KEYS_MAX_DEFAULT),
            script_ms_max: AtomicU64::new(Self::SCRIPT_MS_MAX_DEFAULT),
        }
    }

    /// `maxclients`.
    pub fn clients_max(&self) -> usize {
        self.clients_max.load(Ordering::Relaxed)
    }

    /// `proto-max-bulk-len`: the longest argument, and the longest value that a command may build.
    #[inline]
    pub fn bulk_bytes_max(&self) -> usize {
        self.bulk_bytes_max.load(Ordering::Relaxed)
    }

    /// `timeout`: a client that sends nothing for so long is disconnected; 0 for never.
    pub fn idle_timeout_s(&self) -> u64 {
        self.idle_timeout_s.load(Ordering::Relaxed)
    }

    /// `tcp-keepalive`: after so long without traffic the kernel probes a connection; 0 for never.
    pub fn keepalive_s(&self) -> u64 {
        self.keepalive_s.load(Ordering::Relaxed)
    }

    /// `tracking-table-max-keys`: so many keys are remembered for clients' caches; 0 for no limit.
    pub fn tracking_keys_max(&self) -> usize {
        self.tracking_keys_max.load(Ordering::Relaxed)
    }

    /// `busy-reply-threshold`: a script that runs for so long is ended.
    pub fn script_ms_max(&self) -> u64 {
        self.script_ms_max.load(Ordering::Relaxed)
    }

    /// Changes `maxclients`.
    pub fn set_clients_max(&self, clients_max: usize) {
        self.clients_max.store(clients_max, Ordering::Relaxed);
    }

    /// Changes `proto-max-bulk-len`.
    pub fn set_bulk_bytes_max(&self, bytes: usize) {
        self.bulk_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// Changes `timeout`.
    pub fn set_idle_timeout_s(&self, seconds: u64) {
        self.idle_timeout_s.store(seconds, Ordering::Relaxed);
    }

    /// Changes `tracking-table-max-keys`, as of the next read.
    pub fn set_tracking_keys_max(&self, keys: usize) {
        self.tracking_keys_max.store(keys, Ordering::Relaxed);
    }

    /// Changes `busy-reply-threshold`, for scripts to come.
    pub fn set_script_ms_max(&self, milliseconds: u64) {
        self.script_ms_max.store(milliseconds, Ordering::Relaxed);
    }

    /// Changes `tcp-keepalive`, for connections to come.
    pub fn set_keepalive_s(&self, seconds: u64) {
        self.keepalive_s.store(seconds, Ordering::Relaxed);
    }
}

/// A node: everything that outlives a connection.
pub struct Node {
    /// The keyspace, shared with whoever moves slots in and out of it.
    pub store: Arc<Store>,
    /// The node's place in the ring.
    pub routing: Arc<dyn Routing>,
    /// What was counted.
    pub stats: Stats,
    /// What took long.
    pub timing: Timing,
    /// Who is connected.
    pub clients: Clients,
    /// What is published, on its way to other nodes.
    pub relay: Relay,
    /// Whether commands wait.
    pub pause: Pause,
    /// What clients sent as programs.
    pub scripts: Arc<Scripts>,
    /// What can be changed while it runs.
    pub settings: Settings,
    /// What clients must give; `None` when everybody may enter.
    pub password: Option<LiveSecret>,
    /// Who else may enter.
    pub tenants: Tenants,
    /// Keys that load themselves.
    pub groups: Groups,
    /// Threads that serve clients.
    pub threads: usize,
    /// When the process started, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// The process's incarnation.
    pub run_id: u128,
}

impl Node {
    /// A node without entries and clients.
    pub fn new(options: NodeOptions) -> Self {
        let scripts = Scripts::new(options.store.budget_bytes(), options.threads);
        Self {
            store: options.store,
            scripts: Arc::new(scripts),
            routing: options.routing,
            stats: Stats::new(table().len()),
            timing: Timing::new(table().len()),
            clients: Clients::default(),
            relay: Relay::default(),
            pause: Pause::default(),
            settings: Settings::new(options.clients_max),
            password: options.password.map(LiveSecret::new),
            tenants: Tenants::default(),
            groups: Groups::default(),
            threads: options.threads,
            started_at_ms: options.started_at_ms,
            run_id: options.run_id,
        }
    }

    /// Whether nobody else can have changed a slot that is served here.
    pub fn is_alone(&self) -> bool {
        self.store.journal.is_alone(self.routing.view().epoch)
    }

    /// Takes over a tenants document if it is newer, and says whether it was.
    pub fn adopt_tenants(&self, document: TenantsDocument) -> Result<bool, Refusal> {
        let cluster_uid = self.routing.view().cluster_uid.clone();
        let (version, groups) = (document.version, document.groups.clone());
        let is_newer = self
            .tenants
            .adopt(document, (&cluster_uid, &self.store, &self.clients))?;
        if is_newer {
            self.groups.follow(version, groups, &self.store);
        }
        Ok(is_newer)
    }
}
