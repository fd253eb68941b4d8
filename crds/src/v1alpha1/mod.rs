//! Version `v1alpha1`: what a user writes ([`CacheClusterSpec`]), what the operator answers
//! ([`CacheClusterStatus`]), and what an absent field means ([`defaults`]).

pub mod defaults;
mod spec;
mod status;

pub use spec::{
    AllowedNamespaces, Auth, Autoscaling, CacheCluster, CacheClusterSpec, ClientAuth, EvictionPolicy,
    ImagePullPolicy, Memory, NamespacesFrom, NodeAddresses, Persistence, PodMetadata, Pool, Replication,
    Scheduling, SecretRef, Service, ServiceType, Tenancy, Tls, TlsMode,
};
pub use status::{CacheClusterStatus, ConditionType, MemberStatus, Reason, RingStatus};
