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
