//! What every reconcile shares, and what is remembered of a cluster between its reconciles.

use std::collections::HashMap;
use std::sync::Arc;

use annulus_crds::v1alpha1::{CacheClusterStatus, ClusterTenantsStatus};
use annulus_ring::{ClusterUid, RingDocument};
use kube::Client;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::caches::{Caches, Zones};
use crate::events::Events;
use crate::key::ClusterKey;
use crate::metrics::Metrics;
use crate::node_client::Hub;
use crate::pki;
use crate::service_paths::ServicePaths;
use crate::validate::Installation;

/// What every reconcile of one scope shares.
pub struct Context {
    /// The Kubernetes API.
    pub client: Client,
    /// What is cached of it.
    pub caches: Caches,
    /// Zones of Kubernetes nodes.
    pub zones: Zones,
    /// Connections to cache nodes.
    pub hub: Hub,
    /// Whether clients get through to new pods.
    pub service_paths: ServicePaths,
    /// What is measured.
    pub metrics: Metrics,
    /// Where events are published.
    pub events: Events,
    /// What the operator was installed with.
    pub installation: Installation,
    /// What is remembered.
    pub memory: Memory,
    /// What the tenants' controller says of each cluster.
    pub summaries: Summaries,
}

/// What is said of the tenants of each cluster. Cloning shares it.
#[derive(Debug, Default, Clone)]
pub struct Summaries(Arc<Mutex<HashMap<ClusterKey, ClusterTenantsStatus>>>);

impl Summaries {
    /// What was said last of that cluster's.
    pub fn of(&self, key: &ClusterKey) -> Option<ClusterTenantsStatus> {
        self.0.lock().get(key).cloned()
    }

    /// Says something else. Returns whether it is news.
    pub fn set(&self, key: &ClusterKey, summary: ClusterTenantsStatus) -> bool {
        let mut summaries = self.0.lock();
        let news = summaries.get(key) != Some(&summary);
        summaries.insert(key.clone(), summary);
        news
    }

    /// The cluster is gone.
    pub fn forget(&self, key: &ClusterKey) {
        self.0.lock().remove(key);
    }
}

/// What is remembered of one cluster. It may be lost at any time: everything can be read again.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// Which cluster of that name.
    pub uid: ClusterUid,
    /// The newest ring document that is known to have been stored.
    pub document: Option<RingDocument>,
    /// Failed reconciles in a row.
    pub failures: u32,
    /// The status that was written last, and when: the cache may not show it yet.
    pub status: Option<(CacheClusterStatus, Instant)>,
    /// When the Secret was last seen to be there.
    pub secret_seen: Option<(String, Instant)>,
    /// Since when everybody is there, and nothing moves.
    pub at_rest_since: Option<Instant>,
    /// When the Secret with the user's certificate was last seen to be whole.
    pub tls_secret_seen: Option<(String, Instant)>,
    /// Its certificates.
    pub pki: pki::ensure::Remembered,
}

/// What is remembered, by cluster.
#[derive(Debug, Default, Clone)]
pub struct Memory(Arc<Mutex<HashMap<ClusterKey, Remembered>>>);

impl Memory {
    /// What is remembered of this cluster; nothing of an earlier one of the same name.
    pub fn get(&self, key: &ClusterKey, uid: &ClusterUid) -> Remembered {
        let remembered = self
            .0
            .lock()
            .get(key)
            .filter(|remembered| remembered.uid == *uid)
            .cloned();
        remembered.unwrap_or_else(|| Remembered {
            uid: uid.clone(),
            document: None,
            failures: 0,
            status: None,
            secret_seen: None,
            at_rest_since: None,
            tls_secret_seen: None,
            pki: pki::ensure::Remembered::default(),
        })
    }

    /// Changes what is remembered.
    pub fn update<T>(
        &self,
        key: &ClusterKey,
        uid: &ClusterUid,
        change: impl FnOnce(&mut Remembered) -> T,
    ) -> T {
        let mut remembered = self.get(key, uid);
        let result = change(&mut remembered);
        self.0.lock().insert(key.clone(), remembered);
        result
    }

    /// The cluster is gone.
    pub fn forget(&self, key: &ClusterKey) {
        self.0.lock().remove(key);
    }

    /// The clusters of which something is remembered.
    pub fn keys(&self) -> Vec<ClusterKey> {
        self.0.lock().keys().cloned().collect()
    }
}
