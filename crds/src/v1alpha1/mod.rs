//! Version `v1alpha1`: what a user writes ([`CacheClusterSpec`], [`CacheTenantSpec`], [`CacheGroupSpec`]), what the operator
//! answers ([`CacheClusterStatus`], [`CacheTenantStatus`], [`CacheGroupStatus`]), and what an absent field means ([`defaults`]).

pub mod defaults;
mod group;
mod group_status;
mod spec;
mod status;
mod tenancy;
mod tenant;
mod tenant_status;

pub use group::{
    BloomFilter, CacheGroup, CacheGroupSpec, CircuitBreaker, GroupOrigin, GroupTtl, Header, HeaderFrom,
    HttpOrigin, Retries, SecretKeyRef, TenantRef,
};
pub use group_status::{CacheGroupStatus, GroupConditionType, GroupReason};
pub use spec::{
    Auth, Autoscaling, CacheCluster, CacheClusterSpec, ClientAuth, EvictionPolicy, Groups, HotKeys,
    ImagePullPolicy, Memory, Mirror, NodeAddresses, Persistence, PodMetadata, Pool, Replication, Scheduling,
    SecretRef, Service, ServiceType, Tls, TlsMode,
};
pub use status::{
    CacheClusterStatus, ClusterTenantsStatus, ConditionType, MemberStatus, Reason, RingStatus, TenantRefusals,
};
pub use tenancy::{
    AllowedNamespaces, NamespacesFrom, NetworkPolicyMode, OverRate, Tenancy, TenantDefaults, TenantLimits,
    TenantQuota, TenantTtl,
};
pub use tenant::{
    CacheTenant, CacheTenantSpec, ClusterRef, DeletionPolicy, Permissions, Rotation, TenantAccess, TenantUser,
};
pub use tenant_status::{
    BindingStatus, CacheTenantStatus, TenantConditionType, TenantReason, TenantUsageStatus,
};
