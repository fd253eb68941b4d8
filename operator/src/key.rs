//! Which cluster and which tenant is meant.

use std::fmt;

use annulus_crds::v1alpha1::{CacheCluster, CacheTenant};
use kube::runtime::reflector::ObjectRef;

/// A cluster's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ClusterKey {
    /// The key of that name in that namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key as kube's runtime writes it.
    pub fn object_ref(&self) -> ObjectRef<CacheCluster> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

impl From<&ObjectRef<CacheCluster>> for ClusterKey {
    fn from(object: &ObjectRef<CacheCluster>) -> Self {
        Self::new(object.namespace.clone().unwrap_or_default(), object.name.clone())
    }
}

impl From<&CacheCluster> for ClusterKey {
    fn from(cluster: &CacheCluster) -> Self {
        let metadata = &cluster.metadata;
        Self::new(
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A tenant's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantKey {
    /// Its namespace.
    pub namespace: String,
    /// The name of the `CacheTenant`.
    pub name: String,
}

impl TenantKey {
    /// The key of that name in that namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl From<&CacheTenant> for TenantKey {
    fn from(tenant: &CacheTenant) -> Self {
        let metadata = &tenant.metadata;
        Self::new(
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ClusterKey {
    /// The cluster that a tenant names.
    pub fn of_tenant(tenant: &CacheTenant) -> Self {
        let reference = &tenant.spec.cluster_ref;
        let own = || tenant.metadata.namespace.clone().unwrap_or_default();
        Self::new(
            reference.namespace.clone().unwrap_or_else(own),
            reference.name.clone(),
        )
    }
}
