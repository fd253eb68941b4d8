//! What every pass shares, and what is remembered of a cluster's tenants between passes. It may be lost at any time:
//! everything can be read again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use annulus_crds::v1alpha1::{CacheCluster, CacheGroup, CacheTenant};
use annulus_proto::tenants::TenantId;
use annulus_ring::ClusterUid;
use k8s_openapi::api::core::v1::Secret;
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::admission::{Labels, Refusal};
use super::endpoint::Known;
use super::ledger::{Ledger, RotationWish};
use crate::build::binding::Endpoint;
use crate::caches::Namespaces;
use crate::context::Context;
use crate::groups;
use crate::key::{ClusterKey, TenantKey};
use crate::tell::Statuses;

/// What every pass shares.
pub struct Tenancy {
    /// The scopes of the operator: one, or one for each namespace that it watches. A tenant may be in another one than its
    /// cluster.
    pub scopes: Vec<Arc<Context>>,
    /// The namespaces whose `CacheTenant`s are seen; `None` for all.
    pub watched: Option<BTreeSet<String>>,
    /// Labels of namespaces.
    pub namespaces: Namespaces,
    /// Wakes a cluster's own reconcile.
    pub wake: UnboundedSender<ClusterKey>,
    /// What is remembered, by cluster. A pass holds the inner lock: there is one at a time for a cluster.
    pub memory: Mutex<HashMap<ClusterKey, Arc<tokio::sync::Mutex<Remembered>>>>,
}

/// What is remembered of the tenants of one cluster.
#[derive(Default)]
pub struct Remembered {
    /// Which cluster of that name.
    pub uid: Option<ClusterUid>,
    /// What is known to be stored.
    pub stored: Option<Stored>,
    /// When it was looked for last.
    pub read_at: Option<Instant>,
    /// When which binding was seen to hold what it should.
    pub checked: HashMap<(TenantKey, String), Checked>,
    /// Bindings that the API server refused, and when: until they are tried again no new password is drawn for them.
    pub refused: HashMap<(TenantKey, String), (Instant, Refusal)>,
    /// Where tenants connect.
    pub endpoint: Option<Known>,
    /// In which version of the document a tenant changed last.
    pub changed: HashMap<TenantId, u64>,
    /// What tenants were told.
    pub told: Statuses<CacheTenant>,
    /// When the figures in their statuses were last changed.
    pub usage_told_at: HashMap<TenantKey, Instant>,
    /// What is remembered of its groups.
    pub groups: groups::tell::Remembered,
    /// The highest version that nodes should have, and whether all had it.
    pub distributed: bool,
}

/// A ledger, and the Secret that it was read from or written to.
#[derive(Clone)]
pub struct Stored {
    /// What is in it.
    pub ledger: Ledger,
    /// With its resourceVersion, which guards the next write.
    pub secret: Secret,
}

/// A binding that was as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// When.
    pub at: Instant,
    /// For which state of the `CacheTenant`.
    pub stamp: Stamp,
}

/// What of a `CacheTenant` and its cluster makes its bindings worth another look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Which one.
    pub uid: String,
    /// Its spec.
    pub generation: i64,
    /// Its wish for new passwords.
    pub rotate: Option<RotationWish>,
    /// Where it connects.
    pub endpoint: Arc<Endpoint>,
}

impl Tenancy {
    /// The cluster of that key and the scope that it is in. One that is being deleted has no tenants any more: what it owned is
    /// on its way out, and must not be made again.
    pub fn cluster(&self, key: &ClusterKey) -> Option<(&Arc<Context>, Arc<CacheCluster>)> {
        let reference = key.object_ref();
        let found = |scope: &Arc<Context>| scope.caches.clusters.get(&reference);
        self.scopes
            .iter()
            .find_map(|scope| Some((scope, found(scope)?)))
            .filter(|(_, cluster)| cluster.metadata.deletion_timestamp.is_none())
    }

    /// Every `CacheTenant` that names the cluster and is not being deleted.
    pub fn tenants_of(&self, key: &ClusterKey) -> Vec<Arc<CacheTenant>> {
        let stores = self.scopes.iter().map(|scope| &scope.caches.tenants);
        stores
            .flat_map(|store| {
                store.state_filter(|tenant| {
                    tenant.metadata.deletion_timestamp.is_none() && ClusterKey::of_tenant(tenant) == *key
                })
            })
            .collect()
    }

    /// Every `CacheGroup` that names the cluster and is not being deleted.
    pub fn groups_of(&self, key: &ClusterKey) -> Vec<Arc<CacheGroup>> {
        let stores = self.scopes.iter().map(|scope| &scope.caches.groups);
        stores
            .flat_map(|store| {
                store.state_filter(|group| {
                    group.metadata.deletion_timestamp.is_none() && ClusterKey::of_group(group) == *key
                })
            })
            .collect()
    }

    /// The clusters that tenants of that namespace name.
    pub fn clusters_of(&self, namespace: &str) -> BTreeSet<ClusterKey> {
        let stores = self.scopes.iter().map(|scope| &scope.caches.tenants);
        let tenants = stores.flat_map(|store| {
            store.state_filter(|tenant| tenant.metadata.namespace.as_deref() == Some(namespace))
        });
        tenants.map(|tenant| ClusterKey::of_tenant(&tenant)).collect()
    }

    /// The labels of a namespace, where they are known.
    pub fn labels(&self, namespace: &str) -> Option<Labels> {
        self.namespaces.labels(namespace)
    }

    /// The scope in which that namespace is.
    pub fn scope_of(&self, namespace: &str) -> Option<&Arc<Context>> {
        let is_watched = self
            .watched
            .as_ref()
            .is_none_or(|watched| watched.contains(namespace));
        // Every scope has the same client.
        self.scopes.first().filter(|_| is_watched)
    }

    /// What is remembered of a cluster.
    pub fn remembered(&self, key: &ClusterKey) -> Arc<tokio::sync::Mutex<Remembered>> {
        Arc::clone(self.memory.lock().entry(key.clone()).or_default())
    }

    /// The cluster is gone.
    pub fn forget(&self, key: &ClusterKey) {
        self.memory.lock().remove(key);
        for scope in &self.scopes {
            scope.summaries.forget(key);
        }
    }
}
