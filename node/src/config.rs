//! From flags and the machine's facts to a checked [`Config`].
//!
//! [`resolve`] is pure: it reads no file, no clock and no environment, and what it returns needs no further
//! checks. Every refusal says which flag is wrong and what to write instead.

mod budget;
mod flags;
mod machine;
mod quantity;
mod tls;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use annulus_ring::{ClusterUid, NodeId, Zone};

pub use budget::{BudgetSource, default_budget_bytes, headroom_bytes, limit_bytes};
pub use flags::{Bind, Cli, Command, EvictionFlag, LogFormat, ServeFlags};
pub use machine::Machine;
pub use quantity::{Quantity, QuantityError};

use crate::peer::PeerTlsFiles;
use crate::secret::Secret;
use crate::tls::ClientTlsFiles;

/// Where clients connect unless told otherwise.
pub const CLIENT_PORT: u16 = 6379;
/// Where health and metrics are served unless told otherwise.
pub const HTTP_PORT: u16 = 9121;
/// Where the operator and other nodes connect unless told otherwise.
pub const PEER_PORT: u16 = 16_379;

const BUDGET_MIN_BYTES: u64 = 1 << 20;
const THREADS_MAX: usize = 256;
const CLIENTS_MAX_DEFAULT: usize = 10_000;
const HAND_OVER_DEFAULT: Duration = Duration::from_mins(4);
const SHUTDOWN_GRACE_DEFAULT: Duration = Duration::from_secs(10);
const SHUTDOWN_GRACE_MAX: Duration = Duration::from_hours(1);

/// What a node serves with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address for clients without TLS; `None` for a node that takes none. Then it takes clients with TLS.
    pub bind: Option<SocketAddr>,
    /// Address for clients with TLS, and what they are shown.
    pub tls: Option<(SocketAddr, ClientTlsFiles)>,
    /// Address for clients over HTTP without TLS.
    pub api_bind: Option<SocketAddr>,
    /// The same with TLS; with this there is `tls` too.
    pub api_tls_bind: Option<SocketAddr>,
    /// Address for health and metrics; `None` for a node that serves none.
    pub http_bind: Option<SocketAddr>,
    /// Alone or member of a ring.
    pub role: Role,
    /// What entries may cost together.
    pub budget_bytes: u64,
    /// Where that number comes from.
    pub budget_source: BudgetSource,
    /// What the process may take together.
    pub limit_bytes: u64,
    /// What happens when it is used up.
    pub eviction_policy: EvictionFlag,
    /// Threads that serve clients.
    pub threads: NonZeroUsize,
    /// Host that clients are told for this node; `None` for the address that they are connected to.
    pub announce_host: Option<String>,
    /// Failure domain that clients are told for this node.
    pub zone: Option<Zone>,
    /// What clients must give; `None` when everybody may enter.
    pub password: Option<Secret>,
    /// The file that it was read from and that is followed.
    pub password_file: Option<PathBuf>,
    /// The tenants document, read again when it changes.
    pub tenants_file: Option<PathBuf>,
    /// Clients that may be connected at the same time.
    pub clients_max: usize,
    /// How long others may take after SIGTERM to get what this node has.
    pub hand_over: Duration,
    /// How connections end after that.
    pub shutdown_grace: Duration,
    /// File that gets the bound addresses.
    pub addresses_file: Option<PathBuf>,
}

/// Whether the node is alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A ring of one node that owns all slots.
    Standalone,
    /// A member: waits for a ring that names it.
    Member(MemberConfig),
}

/// What only members of a ring have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberConfig {
    /// The cluster.
    pub cluster_uid: ClusterUid,
    /// The node's name in it.
    pub node_id: NodeId,
    /// Address for the operator and other nodes.
    pub peer_bind: SocketAddr,
    /// Ring document that is watched.
    pub ring_file: Option<PathBuf>,
    /// Folder that keeps the last ring document.
    pub data_dir: Option<PathBuf>,
    /// What it proves itself with; without, peers and operator are believed what they say.
    pub tls: Option<PeerTlsFiles>,
}

/// Flags that contradict each other, the machine, or sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// One half of an identity.
    #[error(
        "{given} needs {missing} too; give both for a member of a ring, or neither for a node on its own"
    )]
    HalfIdentity {
        /// The flag that is there.
        given: &'static str,
        /// The flag that isn't.
        missing: &'static str,
    },
    /// A flag that means nothing without another.
    #[error("{given} needs {missing} too")]
    Incomplete {
        /// The flag that is there.
        given: &'static str,
        /// The flag that isn't.
        missing: &'static str,
    },
    /// Nobody could connect.
    #[error("--bind off leaves no port for clients; give --tls-bind with --tls-cert and --tls-key too")]
    NoClients,
    /// Certificates that nobody is asked for.
    #[error(
        "--tls-client-ca is of no use with --tls-client-auth none; write optional or required, or leave it out"
    )]
    NobodyAsked,
    /// A flag that means nothing for a node on its own.
    #[error("{0} is for members of a ring; give --cluster-uid and --node-id too, or leave it out")]
    MembersOnly(&'static str),
    /// Two listeners on one address.
    #[error("{first} and {second} are both {address}; give them different ports")]
    SameAddress {
        /// One flag.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// What both say.
        address: SocketAddr,
    },
    /// Too little for a cache.
    #[error("--max-memory {0} is too little; write at least 1Mi")]
    BudgetTooSmall(Quantity),
    /// The container has too little for any budget.
    #[error(
        "the memory limit of {limit} leaves only {budget} for entries; raise the limit to 16Mi or more, or write --max-memory yourself"
    )]
    LimitTooSmall {
        /// The limit.
        limit: Quantity,
        /// What would be left.
        budget: Quantity,
    },
    /// The kernel would end the process before the budget is used up.
    #[error(
        "--max-memory {asked} is over this container's memory limit of {limit}; write at most {fitting}, or raise the limit"
    )]
    BudgetOverLimit {
        /// What was asked for.
        asked: Quantity,
        /// The limit.
        limit: Quantity,
        /// The limit less headroom.
        fitting: Quantity,
    },
    /// More threads than make sense.
    #[error("--threads {0} is too many; write 1 to 256, or leave it out for one a processor")]
    TooManyThreads(NonZeroUsize),
    /// A host with a port, a URL, or with characters that no host has.
    #[error("--announce-host {0:?} is not a host; write an IP address or a DNS name, without port")]
    NotAHost(String),
    /// Clients would be told port 0.
    #[error("--announce-host needs a port that is known beforehand; write --bind with a port other than 0")]
    AnnouncedPortUnknown,
    /// A zone without a name.
    #[error("--zone is empty; write the zone's name, or leave it out")]
    EmptyZone,
    /// Longer than any sensible wait.
    #[error("--shutdown-grace-ms {0} is too long; write at most 3600000, an hour")]
    GraceTooLong(u64),
}

impl Config {
    /// What a node on its own calls its ring and itself: always the same, so that clients keep their view of it
    /// over restarts.
    #[expect(clippy::expect_used, reason = "both names are literals that a test reads")]
    pub fn standalone_identity(&self) -> (ClusterUid, NodeId) {
        (
            "standalone".parse().expect("a cluster UID"),
            "node".parse().expect("a node id"),
        )
    }
}

/// Decides what to serve with. `password` is the content of `--password-file`, read by the caller.
pub fn resolve(
    flags: &ServeFlags,
    machine: &Machine,
    password: Option<Secret>,
) -> Result<Config, ConfigError> {
    let bind = match flags.bind {
        None => Some(loopback(CLIENT_PORT)),
        Some(Bind::At(address)) => Some(address),
        Some(Bind::Off) => None,
    };
    let tls = tls::of_clients(flags)?;
    let tls_bind = tls.as_ref().map(|(address, _)| *address);
    if bind.is_none() && tls.is_none() {
        return Err(ConfigError::NoClients);
    }
    if flags.api_tls_bind.is_some() && tls.is_none() {
        let (given, missing) = ("--api-tls-bind", "--tls-bind");
        return Err(ConfigError::Incomplete { given, missing });
    }
    let role = resolve_role(flags)?;
    let http_bind = match role {
        Role::Standalone => flags.http_bind,
        Role::Member(_) => Some(flags.http_bind.unwrap_or_else(|| loopback(HTTP_PORT))),
    };
    let peer_bind = match &role {
        Role::Standalone => None,
        Role::Member(member) => Some(member.peer_bind),
    };
    let unknown = [bind, tls_bind]
        .iter()
        .flatten()
        .any(|address| address.port() == 0);
    if role == Role::Standalone && flags.announce_host.is_some() && unknown {
        return Err(ConfigError::AnnouncedPortUnknown);
    }
    check_addresses(&[
        ("--bind", bind),
        ("--tls-bind", tls_bind),
        ("--http-bind", http_bind),
        ("--api-bind", flags.api_bind),
        ("--api-tls-bind", flags.api_tls_bind),
        ("--peer-bind", peer_bind),
    ])?;
    let (budget_bytes, budget_source) = resolve_budget(flags.max_memory, machine)?;

    Ok(Config {
        bind,
        tls,
        api_bind: flags.api_bind,
        api_tls_bind: flags.api_tls_bind,
        http_bind,
        role,
        budget_bytes,
        budget_source,
        limit_bytes: limit_bytes(budget_bytes, machine),
        eviction_policy: flags.eviction_policy,
        threads: resolve_threads(flags.threads, machine)?,
        announce_host: resolve_announce_host(flags.announce_host.as_deref())?,
        zone: match flags.zone.as_deref() {
            Some("") => return Err(ConfigError::EmptyZone),
            zone => zone.map(|zone| Zone(zone.to_owned())),
        },
        password,
        password_file: flags.password_file.clone(),
        tenants_file: flags.tenants_file.clone(),
        clients_max: flags.max_clients.map_or(CLIENTS_MAX_DEFAULT, |clients| {
            usize::try_from(clients.get()).unwrap_or(usize::MAX)
        }),
        hand_over: flags
            .hand_over_ms
            .map_or(HAND_OVER_DEFAULT, Duration::from_millis),
        shutdown_grace: match flags.shutdown_grace_ms.map(Duration::from_millis) {
            None => SHUTDOWN_GRACE_DEFAULT,
            Some(grace) if grace <= SHUTDOWN_GRACE_MAX => grace,
            Some(_) => {
                return Err(ConfigError::GraceTooLong(
                    flags.shutdown_grace_ms.unwrap_or_default(),
                ));
            }
        },
        addresses_file: flags.addresses_file.clone(),
    })
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn resolve_role(flags: &ServeFlags) -> Result<Role, ConfigError> {
    let half = |given, missing| Err(ConfigError::HalfIdentity { given, missing });
    match (&flags.cluster_uid, &flags.node_id) {
        (Some(_), None) => half("--cluster-uid", "--node-id"),
        (None, Some(_)) => half("--node-id", "--cluster-uid"),
        (None, None) => {
            let given = [
                ("--peer-bind", flags.peer_bind.is_some()),
                ("--ring-file", flags.ring_file.is_some()),
                ("--data-dir", flags.data_dir.is_some()),
                ("--peer-tls-cert", flags.peer_tls_cert.is_some()),
                ("--peer-tls-key", flags.peer_tls_key.is_some()),
                ("--peer-tls-ca", flags.peer_tls_ca.is_some()),
            ];
            match given.iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(ConfigError::MembersOnly(flag)),
                None => Ok(Role::Standalone),
            }
        }
        (Some(cluster_uid), Some(node_id)) => Ok(Role::Member(MemberConfig {
            cluster_uid: cluster_uid.clone(),
            node_id: node_id.clone(),
            peer_bind: flags.peer_bind.unwrap_or_else(|| loopback(PEER_PORT)),
            ring_file: flags.ring_file.clone(),
            data_dir: flags.data_dir.clone(),
            tls: tls::of_peers(flags)?,
        })),
    }
}

/// Client listeners share their port among threads, so the kernel would not refuse a clash by itself.
fn check_addresses(addresses: &[(&'static str, Option<SocketAddr>)]) -> Result<(), ConfigError> {
    for (index, &(first, one)) in addresses.iter().enumerate() {
        for &(second, other) in &addresses[index + 1..] {
            if let (Some(one), Some(other)) = (one, other) {
                let same_ip =
                    one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
                if same_ip && one.port() == other.port() && one.port() != 0 {
                    return Err(ConfigError::SameAddress {
                        first,
                        second,
                        address: other,
                    });
                }
            }
        }
    }
    Ok(())
}

fn resolve_budget(asked: Option<Quantity>, machine: &Machine) -> Result<(u64, BudgetSource), ConfigError> {
    let Some(asked) = asked else {
        let (budget, source) = default_budget_bytes(machine);
        return match machine.cgroup_limit_bytes {
            Some(limit) if budget < BUDGET_MIN_BYTES => Err(ConfigError::LimitTooSmall {
                limit: Quantity(limit),
                budget: Quantity(budget),
            }),
            _ => Ok((budget, source)),
        };
    };
    if asked.0 < BUDGET_MIN_BYTES {
        return Err(ConfigError::BudgetTooSmall(asked));
    }
    match machine.cgroup_limit_bytes {
        Some(limit) if asked.0 > limit => Err(ConfigError::BudgetOverLimit {
            asked,
            limit: Quantity(limit),
            fitting: Quantity(limit - headroom_bytes(limit)),
        }),
        _ => Ok((asked.0, BudgetSource::Flag)),
    }
}

fn resolve_threads(asked: Option<NonZeroUsize>, machine: &Machine) -> Result<NonZeroUsize, ConfigError> {
    match asked {
        Some(threads) if threads.get() > THREADS_MAX => Err(ConfigError::TooManyThreads(threads)),
        Some(threads) => Ok(threads),
        None => Ok(machine
            .parallelism
            .min(NonZeroUsize::new(THREADS_MAX).unwrap_or(NonZeroUsize::MIN))),
    }
}

fn resolve_announce_host(asked: Option<&str>) -> Result<Option<String>, ConfigError> {
    let Some(host) = asked else { return Ok(None) };
    let is_name = (1..=253).contains(&host.len())
        && host.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
    if is_name || host.parse::<IpAddr>().is_ok() {
        Ok(Some(host.to_owned()))
    } else {
        Err(ConfigError::NotAHost(host.to_owned()))
    }
}

#[cfg(test)]
mod tests;
