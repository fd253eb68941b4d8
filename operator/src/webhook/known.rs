//! What the webhook knows: caches of its own, on every replica, and the API server where a cache is about to say no.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, CacheTenant};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::WriterDropped;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::tenant::Around;
use crate::caches::Namespaces;
use crate::key::{ClusterKey, TenantKey};
use crate::tenants::admission::Labels;
use crate::validate::{Installation, validate};

/// The stores of one scope: a namespace, or all.
#[derive(Clone)]
pub struct Scope {
    /// The clusters.
    pub clusters: Store<CacheCluster>,
    /// Their tenants.
    pub tenants: Store<CacheTenant>,
}

/// What is known. Cloning shares it.
#[derive(Clone)]
pub struct Known {
    /// The Kubernetes API.
    pub client: Client,
    /// What is cached of it.
    pub scopes: Vec<Scope>,
    /// Labels of namespaces.
    pub namespaces: Namespaces,
    /// What the operator was installed with.
    pub installation: Installation,
}

impl Known {
    /// Watches those namespaces, or all where none is named.
    pub fn watch(
        client: &Client,
        watched: &[String],
        installation: Installation,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let scopes = match watched {
            [] => vec![Scope {
                clusters: open(Api::all(client.clone()), tasks),
                tenants: open(Api::all(client.clone()), tasks),
            }],
            namespaces => namespaces
                .iter()
                .map(|namespace| Scope {
                    clusters: open(Api::namespaced(client.clone(), namespace), tasks),
                    tenants: open(Api::namespaced(client.clone(), namespace), tasks),
                })
                .collect(),
        };
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        Self {
            namespaces: Namespaces::new(open(namespaces, tasks)),
            client: client.clone(),
            scopes,
            installation,
        }
    }

    /// Waits until everything was read once; for the labels of namespaces, which may be out of reach, only so long.
    pub async fn filled(&self, patience: Duration) -> Result<(), WriterDropped> {
        for scope in &self.scopes {
            scope.clusters.wait_until_ready().await?;
            scope.tenants.wait_until_ready().await?;
        }
        self.namespaces.filled(patience).await;
        Ok(())
    }

    /// The tenant of that key.
    pub fn tenant(&self, key: &TenantKey) -> Option<Arc<CacheTenant>> {
        let reference = ObjectRef::<CacheTenant>::new(&key.name).within(&key.namespace);
        self.scopes.iter().find_map(|scope| scope.tenants.get(&reference))
    }

    /// Every tenant that names the cluster and is not being deleted.
    pub fn tenants_of(&self, key: &ClusterKey) -> Vec<Arc<CacheTenant>> {
        let is_of = |tenant: &CacheTenant| stays(tenant) && ClusterKey::of_tenant(tenant) == *key;
        let stores = self.scopes.iter().map(|scope| &scope.tenants);
        stores.flat_map(|store| store.state_filter(is_of)).collect()
    }

    /// What caches know around a tenant.
    pub fn around(&self, tenant: &CacheTenant) -> Around {
        let key = ClusterKey::of_tenant(tenant);
        let reference = key.object_ref();
        let mut clusters = self.scopes.iter().map(|scope| &scope.clusters);
        let cluster = clusters.find_map(|clusters| clusters.get(&reference));
        Around {
            cluster: cluster
                .filter(|cluster| stays(cluster.as_ref()))
                .map(|cluster| validate(&cluster, &self.installation)),
            labels: self.namespaces.labels(&TenantKey::from(tenant).namespace),
            tenants: self.tenants_of(&key),
        }
    }

    /// The same with the cluster and the labels as they are now: a cache may be a moment behind what the author of the
    /// tenant has just changed. What can't be read is as the caches say.
    pub async fn around_now(&self, tenant: &CacheTenant) -> Around {
        let mut around = self.around(tenant);
        let key = ClusterKey::of_tenant(tenant);
        let clusters: Api<CacheCluster> = Api::namespaced(self.client.clone(), &key.namespace);
        match clusters.get_opt(&key.name).await {
            Ok(cluster) => {
                let cluster = cluster.filter(stays);
                around.cluster = cluster.map(|cluster| validate(&cluster, &self.installation));
            }
            Err(error) => debug!(cluster = %key, %error, "can't read the cluster, going by the cache"),
        }
        if let Some(labels) = self.labels_now(&TenantKey::from(tenant).namespace).await {
            around.labels = Some(labels);
        }
        around
    }

    async fn labels_now(&self, namespace: &str) -> Option<Labels> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match namespaces.get_metadata_opt(namespace).await {
            Ok(found) => found.map(|found| found.labels().clone()),
            Err(error) => {
                debug!(namespace, %error, "can't read the namespace, going by the cache");
                None
            }
        }
    }
}

/// What is being deleted counts as gone, as it does for the reconciler.
fn stays<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_none()
}

fn open<K>(api: Api<K>, tasks: &mut JoinSet<()>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .touched_objects();
    tasks.spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            if let Err(error) = event {
                warn!(kind = %K::kind(&()), %error, "a watch of the webhook failed, trying again");
            }
        }
    });
    store
}
