//! What an absent field means. The schema leaves absent fields absent, so that a later version may choose
//! better defaults without every stored object having frozen the old ones.

/// Total copies of each slot, the owner's included.
pub const REPLICATION_FACTOR: u8 = 1;

/// Replicas that must have a write before it is acknowledged.
pub const REPLICATION_ACKS: u8 = 0;

/// The share of memory in use that autoscaling keeps to, in percent.
pub const AUTOSCALING_MEMORY_PERCENT: u8 = 75;

/// How long a cluster is at rest before it is resized again.
pub const AUTOSCALING_COOLDOWN_SECONDS: u32 = 300;

/// Tokens (virtual nodes) a member holds on the ring.
pub const VIRTUAL_NODES: u16 = 32;

/// A pool's weight for each of its members.
pub const POOL_WEIGHT: u16 = 100;

/// The pool of a cluster that names none.
pub const POOL_NAME: &str = "default";

/// The container's memory limit when `resources` gives none.
pub const MEMORY_LIMIT: &str = "512Mi";

/// The container's CPU request when `resources` gives none.
pub const CPU_REQUEST: &str = "100m";

/// The smallest memory limit a node's container starts with.
pub const MEMORY_LIMIT_MIN: &str = "64Mi";

/// The port that clients connect to without TLS.
pub const CLIENT_PORT: u16 = 6379;
/// The port that clients connect to with TLS.
pub const CLIENT_TLS_PORT: u16 = 6380;
/// The port of the keys over HTTP without TLS.
pub const API_PORT: u16 = 8080;
/// The port of the keys over HTTP with TLS.
pub const API_TLS_PORT: u16 = 8443;
/// The port that nodes and the operator connect to.
pub const PEER_PORT: u16 = 16379;
/// The namespace whose pods may read a cluster's metrics unless it says otherwise.
pub const MONITORING_NAMESPACE: &str = "monitoring";
/// The port of `/healthz`, `/readyz` and `/metrics`.
pub const HTTP_PORT: u16 = 9121;

/// The key of the auth Secret that holds the password.
pub const AUTH_SECRET_KEY: &str = "password";

/// How many tenants a cluster takes.
pub const TENANTS_MAX: u32 = 1_000;
/// How long a tenant's old password works beside the new one.
pub const ROTATION_OVERLAP_MS: u64 = 600_000;

/// One request of a group to its origin takes no longer.
pub const ORIGIN_TIMEOUT_MS: u64 = 2_000;
/// How often a load that failed is tried again.
pub const ORIGIN_RETRIES: u32 = 1;
/// How long passes before the first of these.
pub const ORIGIN_BACKOFF_MS: u64 = 100;
/// How long passes at most before one of these.
pub const ORIGIN_BACKOFF_MAX_MS: u64 = 2_000;
/// A group's requests at a time in the whole cluster.
pub const ORIGIN_CONCURRENT_MAX: u32 = 32;
/// After how many failures in a row nothing is loaded for a while.
pub const BREAKER_FAILURES: u32 = 5;
/// For how long.
pub const BREAKER_OPEN_MS: u64 = 10_000;
/// By how many percent the lifetimes of a group's values differ at most.
pub const GROUP_JITTER_PERCENT: u8 = 10;
/// How long it is remembered that an origin doesn't have a key.
pub const NEGATIVE_TTL_MS: u64 = 30_000;
/// How long it is remembered that a key can't be loaded.
pub const FAILURE_TTL_MS: u64 = 1_000;
/// The longest value that a group loads.
pub const GROUP_VALUE_BYTES_MAX: u64 = 1 << 20;
/// How often a group's filter is made anew.
pub const FILTER_REFRESH_MS: u64 = 600_000;
/// For how many of a million absent keys the origin is asked all the same.
pub const FILTER_FALSE_POSITIVES_PER_MILLION: u32 = 10_000;
/// How many keys a filter takes.
pub const FILTER_KEYS_MAX: u64 = 10_000_000;
/// A key of another node's slot that a node is asked for so often a second is mirrored.
pub const MIRROR_READS_PER_SECOND: u32 = 500;
/// How old a mirrored value may be, in milliseconds.
pub const MIRROR_STALENESS_MS: u32 = 200;
