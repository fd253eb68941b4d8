//! Which cluster, which tenant and which group is meant.

use std::fmt;

use annulus_crds::v1alpha1::{CacheCluster, CacheGroup, CacheTenant, ClusterRef};
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

/// A group's namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// Its namespace.
    pub namespace: String,
    /// The name of the `CacheGroup`.
    pub name: String,
}

impl GroupKey {
    /// The key of that name in that namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl From<&CacheGroup> for GroupKey {
    fn from(group: &CacheGroup) -> Self {
        let metadata = &group.metadata;
        Self::new(
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl ClusterKey {
    /// The cluster that a tenant names.
    pub fn of_tenant(tenant: &CacheTenant) -> Self {
        Self::named(&tenant.spec.cluster_ref, tenant.metadata.namespace.as_deref())
    }

    /// The cluster that a group names.
    pub fn of_group(group: &CacheGroup) -> Self {
        Self::named(&group.spec.cluster_ref, group.metadata.namespace.as_deref())
    }

    fn named(reference: &ClusterRef, own: Option<&str>) -> Self {
        let namespace = reference.namespace.as_deref().or(own);
        Self::new(namespace.unwrap_or_default(), reference.name.clone())
    }
}
