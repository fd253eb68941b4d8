//! The command line. Every flag can also be given as an environment variable; what is typed counts first.
//!
//! Nothing is checked here beyond the form of a single value; [`super::resolve`] does the rest.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use annulus_ring::{ClusterUid, NodeId};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::quantity::Quantity;
use crate::tls::ClientAuth;

/// A node of the Annulus distributed cache.
#[derive(Debug, Parser)]
#[command(name = "annulus-node", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve clients: alone as a one-node ring, or with --cluster-uid and --node-id as a member of a ring.
    Serve(Box<ServeFlags>),
}

/// The flags of `annulus-node serve`, as they were given.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeFlags {
    /// Address for clients without TLS, IP:PORT, or `off` for none [default: 127.0.0.1:6379].
    #[arg(long, env = "ANNULUS_BIND", value_name = "BIND")]
    pub bind: Option<Bind>,

    /// Address for clients with TLS, IP:PORT; goes with --tls-cert and --tls-key.
    #[arg(long, env = "ANNULUS_TLS_BIND", value_name = "TLS_BIND")]
    pub tls_bind: Option<SocketAddr>,

    /// PEM file with the certificate that clients are shown, and those between it and its authority. A change of this file
    /// and the next two takes effect within a second, for new connections.
    #[arg(long, env = "ANNULUS_TLS_CERT", value_name = "PATH")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file with the key of that certificate.
    #[arg(long, env = "ANNULUS_TLS_KEY", value_name = "PATH")]
    pub tls_key: Option<PathBuf>,

    /// PEM file with the authorities that sign clients' certificates.
    #[arg(long, env = "ANNULUS_TLS_CLIENT_CA", value_name = "PATH")]
    pub tls_client_ca: Option<PathBuf>,

    /// Whether clients with TLS must show a certificate [default: required with --tls-client-ca, otherwise none].
    #[arg(long, env = "ANNULUS_TLS_CLIENT_AUTH", value_enum)]
    pub tls_client_auth: Option<ClientAuth>,

    /// Address for health checks and metrics over HTTP, IP:PORT [default: 127.0.0.1:9121 for a member of a
    /// ring; alone, only when given].
    #[arg(long, env = "ANNULUS_HTTP_BIND")]
    pub http_bind: Option<SocketAddr>,

    /// Address for clients over HTTP without TLS, IP:PORT [default: none].
    #[arg(long, env = "ANNULUS_API_BIND")]
    pub api_bind: Option<SocketAddr>,

    /// Address for clients over HTTP with TLS, IP:PORT; goes with --tls-bind, whose certificates it shows and asks for
    /// [default: none].
    #[arg(long, env = "ANNULUS_API_TLS_BIND")]
    pub api_tls_bind: Option<SocketAddr>,

    /// Address for the operator and other nodes, IP:PORT [default: 127.0.0.1:16379 for a member of a ring].
    #[arg(long, env = "ANNULUS_PEER_BIND")]
    pub peer_bind: Option<SocketAddr>,

    /// Memory for entries, like 512Mi, 1GiB or 2G [default: from the container's limit with headroom,
    /// otherwise half of the machine's memory].
    #[arg(long, env = "ANNULUS_MAX_MEMORY", value_name = "AMOUNT")]
    pub max_memory: Option<Quantity>,

    /// What to do when the memory for entries is used up: drop the least recently used ones, or refuse writes.
    #[arg(long, env = "ANNULUS_EVICTION_POLICY", value_enum, default_value_t)]
    pub eviction_policy: EvictionFlag,

    /// Threads that serve clients [default: the processors that this process may use].
    #[arg(long, env = "ANNULUS_THREADS", value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// The cluster that this node belongs to; goes with --node-id.
    #[arg(long, env = "ANNULUS_CLUSTER_UID", value_name = "UID")]
    pub cluster_uid: Option<ClusterUid>,

    /// This node's stable name in its cluster; goes with --cluster-uid.
    #[arg(long, env = "ANNULUS_NODE_ID", value_name = "NAME")]
    pub node_id: Option<NodeId>,

    /// PEM file with this node's certificate for peers and the operator; it names `annulus://CLUSTER/node/NAME`. With it, who
    /// shows none of this cluster is refused, and so is who is not the node that was meant. Goes with --peer-tls-key and
    /// --peer-tls-ca, and all three are followed.
    #[arg(long, env = "ANNULUS_PEER_TLS_CERT", value_name = "PATH")]
    pub peer_tls_cert: Option<PathBuf>,

    /// PEM file with the key of that certificate.
    #[arg(long, env = "ANNULUS_PEER_TLS_KEY", value_name = "PATH")]
    pub peer_tls_key: Option<PathBuf>,

    /// PEM file with the cluster's authorities.
    #[arg(long, env = "ANNULUS_PEER_TLS_CA", value_name = "PATH")]
    pub peer_tls_ca: Option<PathBuf>,

    /// Host that clients are told for this node, an IP or a name without port [default: the address that they are
    /// connected to]. A member's clients are told what the ring says; if that differs, the log says so.
    #[arg(long, env = "ANNULUS_ANNOUNCE_HOST", value_name = "HOST")]
    pub announce_host: Option<String>,

    /// Failure domain that clients are told for this node. For members as with --announce-host.
    #[arg(long, env = "ANNULUS_ZONE")]
    pub zone: Option<String>,

    /// Ring document to adopt at boot, and again whenever it shows a higher epoch.
    #[arg(long, env = "ANNULUS_RING_FILE", value_name = "PATH")]
    pub ring_file: Option<PathBuf>,

    /// Folder that keeps the last ring document over restarts. It must exist.
    #[arg(long, env = "ANNULUS_DATA_DIR", value_name = "PATH")]
    pub data_dir: Option<PathBuf>,

    /// File with the password that clients must give; one line end at its end doesn't count. A change of the file
    /// takes effect within a second.
    #[arg(long, env = "ANNULUS_PASSWORD_FILE", value_name = "PATH")]
    pub password_file: Option<PathBuf>,

    /// Tenants document to adopt at boot, and again within a second whenever it shows a higher version. While it is missing
    /// there are no tenants.
    #[arg(long, env = "ANNULUS_TENANTS_FILE", value_name = "PATH")]
    pub tenants_file: Option<PathBuf>,

    /// Clients that may be connected at the same time [default: 10000].
    #[arg(long, env = "ANNULUS_MAX_CLIENTS", value_name = "N")]
    pub max_clients: Option<NonZeroU32>,

    /// Lines to log: error, warn, info, debug, trace, or a filter like `info,annulus_node::peer=debug`.
    #[arg(long, env = "ANNULUS_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// How to log: for people, as JSON lines, or whichever fits where the log goes.
    #[arg(long, env = "ANNULUS_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// How long connections may take to finish after SIGTERM, in milliseconds [default: 10000].
    #[arg(long, env = "ANNULUS_SHUTDOWN_GRACE_MS", value_name = "MS")]
    pub shutdown_grace_ms: Option<u64>,

    /// How long a member may take after SIGTERM to hand over what it has, in milliseconds, before connections finish
    /// [default: 240000].
    #[arg(long, env = "ANNULUS_HAND_OVER_MS", value_name = "MS")]
    pub hand_over_ms: Option<u64>,

    /// File to write the bound addresses to as JSON, once all of them accept connections. For port 0.
    #[arg(long, env = "ANNULUS_ADDRESSES_FILE", value_name = "PATH")]
    pub addresses_file: Option<PathBuf>,
}

/// `--bind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// No such port.
    Off,
    /// There.
    At(SocketAddr),
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address = text.parse().map(Self::At);
        address.map_err(|_| "write IP:PORT, or off".to_owned())
    }
}

/// `--eviction-policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum EvictionFlag {
    /// Drop new entries that are used less often than the old ones they would drive out.
    #[default]
    Tinylfu,
    /// Drop new entries that are not used again soon.
    S3fifo,
    /// Drop the least recently used entries.
    Lru,
    /// Drop the entries that expire soonest.
    Ttl,
    /// Refuse writes that need more memory.
    Noeviction,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// `text` on a terminal, `json` otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
